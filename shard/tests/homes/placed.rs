//! Groups that come and go as the system group says.

use super::SECOND;
use crate::members::Ask;
use crate::world::World;
use ringraft_shard::{ShardEvent, SnapshotReason};
use ringraft_types::command::{DeleteCommand, Keys, PutCommand};
use ringraft_types::placement::{self, GroupRecord, NEXT_KEY};
use ringraft_types::{GroupId, NodeId, Status};

const NEW: GroupId = GroupId::FIRST_CREATED;

/// Three nodes with one group and the system group.
struct Placed {
    world: World,
    members: Vec<u8>,
    written: u64,
}

impl Placed {
    fn new(seed: u64) -> Self {
        let mut world = World::new(seed, 3, 1);
        world.have_system();
        for node in world.nodes() {
            world.kill(node, |_| true);
            world.start(node);
        }
        let leader = world.elect();
        let members = world.members_payload(leader);
        Self { world, members, written: 0 }
    }

    fn write(&mut self, command: &[u8]) {
        self.world.address(GroupId::SYSTEM);
        let leader = self.world.leader_of(GroupId::SYSTEM);
        self.written += 1;
        let answer = self.world.write(leader, 77, self.written, command);
        assert_eq!(answer.status, Status::Ok);
    }

    fn put(&mut self, key: &[u8], value: &[u8]) {
        let mut command = Vec::new();
        PutCommand { key, value, previous: false }.encode(&mut command).expect("short");
        self.write(&command);
    }

    /// The record of a group, and that the next one gets the number after it.
    fn create(&mut self, group: GroupId) {
        let record =
            GroupRecord { name: "a".into(), is_deleted: false, begins: self.members.clone() };
        self.put(NEXT_KEY, &placement::id_value(GroupId(group.0 + 1)));
        self.put(&placement::group_key(group), &record.encode());
    }

    fn delete(&mut self, group: GroupId) {
        let key = placement::group_key(group);
        let mut command = Vec::new();
        let delete = DeleteCommand { keys: Keys::One(&key), previous: false };
        delete.encode(&mut command).expect("short");
        self.write(&command);
    }

    fn has(&self, node: NodeId, group: GroupId) -> bool {
        self.world.groups(node).iter().any(|found| found.group == group)
    }
}

/// MG-01, MG-02, M12: groups come and go on all nodes as the system group says, also where a node was
/// away meanwhile, and after starts and from a snapshot of it.
#[test]
fn m12_the_system_group_says_what_is_here() {
    let mut placed = Placed::new(1);
    placed.create(NEW);
    placed.world.address(NEW);
    let leader = placed.world.leader_of(NEW);
    assert_eq!(placed.world.put(leader, 5, 1, b"a", b"1").status, Status::Ok);
    let away = NodeId(leader.0 % 3 + 1);
    placed.world.run_for(SECOND);
    assert!(placed.world.nodes().iter().all(|&node| placed.has(node, NEW)));
    placed.world.kill(away, |_| true);
    let second = GroupId(NEW.0 + 1);
    placed.delete(NEW);
    placed.create(second);
    placed.world.run_for(SECOND);
    for node in placed.world.running() {
        assert!(!placed.has(node, NEW) && placed.has(node, second));
        assert!(placed.world.shard(node).want_snapshots(SnapshotReason::Asked) > 0);
    }
    placed.world.run_for(SECOND);
    placed.world.start(away);
    assert!(placed.has(away, NEW), "it doesn't know yet");
    placed.world.run_for(SECOND);
    assert!(!placed.has(away, NEW) && placed.has(away, second));
    for _ in 0..2 {
        for node in placed.world.nodes() {
            placed.world.kill(node, |sector| sector % 2 == 0);
            placed.world.start(node);
        }
        placed.world.leader_of(second);
        placed.world.run_for(SECOND);
        for node in placed.world.nodes() {
            assert!(!placed.has(node, NEW) && placed.has(node, second));
        }
    }
}

/// MG-02: a group that nodes are configured with is deleted by a record of it, and comes back with no
/// start.
#[test]
fn what_nodes_are_configured_with_can_be_deleted() {
    let mut placed = Placed::new(2);
    let gone = GroupRecord { name: String::new(), is_deleted: true, begins: Vec::new() };
    placed.put(&placement::group_key(GroupId(1)), &gone.encode());
    placed.world.run_for(SECOND);
    for round in 0..2 {
        for node in placed.world.nodes() {
            assert!(!placed.has(node, GroupId(1)), "round {round}");
            placed.world.kill(node, |_| true);
            placed.world.start(node);
        }
        placed.world.leader_of(GroupId::SYSTEM);
        placed.world.run_for(SECOND);
    }
}

/// MG-02: a node that is added to a group gets it with its leader's first word, and gives it up when
/// it is removed; and again.
#[test]
fn groups_follow_their_members() {
    let mut placed = Placed::new(3);
    placed.create(NEW);
    placed.world.leader_of(NEW);
    placed.world.join(NodeId(4));
    let system = |voters, learners| Ask::of(voters, learners).in_group(GroupId::SYSTEM);
    system(&[1, 2, 3], &[4]).soon(&mut placed.world);
    placed.world.run_for(SECOND);
    assert!(!placed.has(NodeId(4), NEW), "it is no member");
    let of = |voters, learners| Ask::of(voters, learners).in_group(NEW);
    for _ in 0..2 {
        of(&[1, 2, 3], &[4]).soon(&mut placed.world);
        placed.world.run_for(SECOND);
        assert!(placed.has(NodeId(4), NEW));
        of(&[1, 2, 4], &[]).soon(&mut placed.world);
        placed.world.run_for(SECOND);
        assert!(!placed.has(NodeId(3), NEW), "it gave it up");
        placed.world.kill(NodeId(3), |_| true);
        placed.world.start(NodeId(3));
        placed.world.run_for(SECOND);
        assert!(!placed.has(NodeId(3), NEW), "also after a start, though it began there");
        of(&[1, 2, 4], &[3]).soon(&mut placed.world);
        of(&[1, 2, 3], &[]).soon(&mut placed.world);
        placed.world.run_for(SECOND);
        assert!(placed.has(NodeId(3), NEW) && !placed.has(NodeId(4), NEW));
    }
    let state = |node: u32| {
        let groups = placed.world.groups(NodeId(node));
        let found = *groups.iter().find(|found| found.group == NEW).expect("it is here");
        (found.applied, found.state_hash)
    };
    assert!(state(1) == state(2) && state(2) == state(3));
}

/// MG-02, V1: a node starts, and what its log says to be committed is older than what it knew: a group
/// that was deleted meanwhile doesn't come again, and so doesn't vote again in terms in which it voted.
#[test]
fn a_start_goes_by_nothing_older_than_it_knew() {
    let mut placed = Placed::new(6);
    placed.create(NEW);
    placed.world.leader_of(NEW);
    placed.world.run_for(SECOND);
    // The election notes how far the log is committed; nothing does after that.
    let before = placed.world.leader_of(GroupId::SYSTEM);
    placed.world.kill(before, |_| true);
    placed.world.run_for(SECOND);
    placed.world.start(before);
    placed.world.run_for(SECOND);
    placed.delete(NEW);
    placed.world.run_for(SECOND);
    for node in placed.world.nodes() {
        assert!(!placed.has(node, NEW), "it is deleted");
    }
    for node in placed.world.nodes() {
        placed.world.kill(node, |_| true);
    }
    for node in placed.world.nodes() {
        placed.world.start(node);
        placed.world.run_for(SECOND);
        let came = placed
            .world
            .events(node)
            .iter()
            .any(|event| matches!(event, ShardEvent::GroupCame { group, .. } if *group == NEW));
        assert!(!came, "node {node} has a group again that it knew to be deleted");
    }
    placed.world.run_for(SECOND);
    for node in placed.world.nodes() {
        assert!(!placed.has(node, NEW));
        assert!(placed.world.shard(node).placement().is_some(), "it knows by now");
    }
}

/// What a newer version wrote, or somebody who shouldn't, changes nothing that is here, and is told.
#[test]
fn what_is_not_understood_is_left_alone() {
    let mut placed = Placed::new(4);
    placed.create(NEW);
    let leader = placed.world.leader_of(NEW);
    placed.world.events(leader);
    let newer = [&[2][..], &[0; 40]].concat();
    placed.put(&placement::group_key(NEW), &newer);
    placed.put(&placement::group_key(GroupId(1)), b"");
    placed.put(b"group/nothing", b"");
    placed.put(NEXT_KEY, b"short");
    placed.world.run_for(SECOND);
    for node in placed.world.nodes() {
        assert!(placed.has(node, NEW) && placed.has(node, GroupId(1)));
    }
    let said = placed.world.events(leader);
    for group in [NEW, GroupId(1)] {
        let told = ShardEvent::PlacementUnreadable { group };
        assert!(said.contains(&told), "{group}: {said:?}");
    }
}

/// Many at once: they come and go some in each turn, while the others serve.
#[test]
fn hundreds_come_and_go() {
    let mut placed = Placed::new(5);
    let all: Vec<GroupId> = (0..300).map(|at| GroupId(NEW.0 + at)).collect();
    for &group in &all {
        placed.create(group);
    }
    for &group in &all {
        placed.world.leader_of(group);
    }
    for &group in &all {
        placed.delete(group);
    }
    placed.world.run_for(SECOND);
    for node in placed.world.nodes() {
        assert_eq!(placed.world.groups(node).len(), 2, "the first one and the system group");
    }
}
