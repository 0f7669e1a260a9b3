//! Groups that come to running nodes, and leave them (decision 0033).

use crate::members::Ask;
use crate::world::{GROUP, World};
use ringraft_shard::{Halt, ShardEvent, SnapshotReason, SnapshotRules};
use ringraft_types::{GroupId, NodeId, Status, Ticks};

mod placed;

const SECOND: Ticks = Ticks::from_millis(1_000);
const NEW: GroupId = GroupId(7);

/// Three nodes with one group, and a new one that begins with the same members.
fn begun(seed: u64) -> (World, Vec<u8>) {
    let mut world = World::new(seed, 3, 1);
    let leader = world.elect();
    let members = world.members_payload(leader);
    for node in world.nodes() {
        assert!(world.create(node, NEW, &members));
        assert!(!world.create(node, NEW, &members), "it is there");
    }
    world.address(NEW);
    (world, members)
}

fn begins(event: &ShardEvent) -> bool {
    *event == ShardEvent::GroupCame { group: NEW, joins: false }
}

fn is_here(world: &World, node: NodeId) -> bool {
    world.groups(node).iter().any(|group| group.group == NEW)
}

/// All nodes stop at once, some with what the disk hadn't made durable, and start.
fn restart_all(world: &mut World) {
    for node in world.nodes() {
        world.kill(node, |sector| sector % 2 == 0);
    }
    for node in world.nodes() {
        world.start(node);
    }
}

/// MG-02: a group begins on running nodes, serves as any other, and is there after starts, from its
/// log and from its snapshot.
#[test]
fn a_group_begins_on_running_nodes() {
    let (mut world, _) = begun(1);
    let leader = world.leader_of(NEW);
    assert_eq!(world.put(leader, 5, 1, b"a", b"1").status, Status::Ok);
    assert_eq!(world.events(leader).iter().filter(|event| begins(event)).count(), 1);
    for sequence in 2..6 {
        restart_all(&mut world);
        let leader = world.leader_of(NEW);
        assert!(world.get(leader, b"a").1.ends_with(b"1"));
        assert_eq!(world.put(leader, 5, sequence, b"b", b"2").status, Status::Ok);
        if sequence == 3 {
            world.run_for(SECOND);
            for node in world.nodes() {
                assert_eq!(world.shard(node).want_snapshots(SnapshotReason::Asked), 2);
            }
        }
        world.run_for(SECOND);
        assert!(world.nodes().iter().all(|&node| is_here(&world, node)));
    }
    world.assert_converged();
}

/// MG-02: a group that is deleted answers nobody, tells its writers that their writes' ends aren't
/// known, and comes back with no start; the other group goes on, and a third one takes its place.
#[test]
fn a_deleted_group_is_gone() {
    for (seed, waits) in [(1, Ticks::ZERO), (2, SECOND), (3, Ticks::ZERO), (4, SECOND)] {
        let (mut world, members) = begun(seed);
        let leader = world.leader_of(NEW);
        assert_eq!(world.put(leader, 5, 1, b"a", b"1").status, Status::Ok);
        world.run_for(SECOND);
        for node in world.nodes() {
            assert_eq!(world.shard(node).want_snapshots(SnapshotReason::Asked), 2);
        }
        if seed > 2 {
            world.run_for(SECOND);
        }
        // One that can't be committed, one that isn't proposed yet, and a read.
        for &other in world.nodes().iter().filter(|&&node| node != leader) {
            world.cut(leader, other);
        }
        let open = world.send_put(leader, 5, 2, b"a", b"2");
        world.run_for(Ticks::from_millis(5));
        let (late, read) = (world.send_put(leader, 5, 3, b"a", b"3"), world.send_get(leader, b"a"));
        for node in world.nodes() {
            assert!(world.remove(node, NEW, true));
            assert!(!world.remove(node, NEW, true), "it is gone");
        }
        assert_eq!(world.await_answer(leader, open).status, Status::Unknown);
        assert_eq!(world.await_answer(leader, late).status, Status::Unknown);
        assert_eq!(world.await_answer(leader, read).status, Status::NotLeader);
        let said = world.events(leader);
        let left = ShardEvent::Halted { group: NEW, halt: Halt::Removed };
        assert_eq!(said.iter().filter(|&event| *event == left).count(), 1, "{said:?}");
        world.heal();
        world.run_for(waits);
        restart_all(&mut world);
        world.run_for(SECOND);
        for node in world.nodes() {
            assert!(!is_here(&world, node), "what left is gone for good, durable or not");
            assert_eq!(world.get(node, b"a").0, Status::NoSuchGroup);
            // The other group's, if it has one.
            let snapshots = world.shard(node).group_snapshots().map(|it| it.kept.len()).sum();
            let files = world.files(node);
            let files = files.iter().filter(|(file, _)| is_snapshot(file)).count();
            assert_eq!(files, snapshots, "its snapshots are removed");
        }
        world.address(GroupId(8));
        for node in world.nodes() {
            assert!(world.create(node, GroupId(8), &members));
        }
        let leader = world.leader_of(GroupId(8));
        assert_eq!(world.put(leader, 6, 1, b"c", b"1").status, Status::Ok);
        world.address(GROUP);
        let leader = world.leader_of(GROUP);
        assert_eq!(world.put(leader, 6, 1, b"d", b"1").status, Status::Ok);
    }
}

/// MG-02: a group that leaves has its snapshots until the log says, durably, that it left: a node that
/// dies in between has all of it, or nothing.
#[test]
fn what_leaves_is_whole_until_the_log_says_it_left() {
    let (mut stayed, mut left) = (0, 0);
    for step in 0..60 {
        let (mut world, _) = begun(1);
        let leader = world.leader_of(NEW);
        assert_eq!(world.put(leader, 5, 1, b"a", b"1").status, Status::Ok);
        for node in world.nodes() {
            assert_eq!(world.shard(node).want_snapshots(SnapshotReason::Asked), 2);
        }
        world.run_for(SECOND);
        let node = NodeId(3);
        let kept = world.shard(node).group_snapshots().filter(|it| !it.kept.is_empty()).count();
        assert_eq!(kept, 2, "both groups have one");
        assert!(world.remove(node, NEW, true));
        world.run_for(Ticks(step * 10));
        // That the snapshot was removed may be all that the power cut leaves.
        world.kill(node, |at| at == 1);
        world.start(node);
        let said = world.events(node);
        let is_lost = |event: &ShardEvent| matches!(event, ShardEvent::EntriesLost { .. });
        assert!(!said.iter().any(is_lost), "after {step} steps: {said:?}");
        *(if is_here(&world, node) { &mut stayed } else { &mut left }) += 1;
    }
    assert!(stayed > 0 && left > 0, "it stayed {stayed} times, and left {left} times");
}

/// MG-02: a group leaves while its entries are read back to be applied: that they aren't there any more
/// is no damage.
#[test]
fn what_is_read_when_a_group_leaves_is_not_missed() {
    for step in 0..40 {
        let (mut world, _) = begun(2);
        let leader = world.leader_of(NEW);
        assert_eq!(world.put(leader, 5, 1, b"a", b"1").status, Status::Ok);
        world.run_for(SECOND);
        let node = *world.nodes().iter().find(|&&node| node != leader).expect("there are three");
        // After a start no entry is in memory.
        world.kill(node, |_| true);
        world.start(node);
        world.run_for(Ticks(step * 50));
        world.hold_disk(node, true);
        world.run_for(Ticks::from_millis(5));
        assert!(world.remove(node, NEW, true));
        world.hold_disk(node, false);
        world.run_for(SECOND);
        let said = world.events(node);
        let is_damage = |event: &ShardEvent| matches!(event, ShardEvent::Unreadable { .. });
        assert!(!said.iter().any(is_damage), "after {step} steps: {said:?}");
        assert_eq!(world.shard(node).repairs_under_way(), 0);
    }
}

fn is_snapshot(file: &ringraft_wal::device::FileId) -> bool {
    file.kind == ringraft_wal::device::FileKind::Snapshot
}

/// M12: a node is away while a group is deleted: what it has of it gets no votes, and serves nobody
/// who asks a majority, until it learns of that.
#[test]
fn m12_what_returns_from_a_deleted_group_is_no_leader() {
    let (mut world, _) = begun(1);
    let leader = world.leader_of(NEW);
    assert_eq!(world.put(leader, 5, 1, b"a", b"1").status, Status::Ok);
    world.run_for(SECOND);
    world.kill(leader, |_| true);
    for node in world.running() {
        assert!(world.remove(node, NEW, true));
    }
    world.start(leader);
    for _ in 0..50 {
        world.run_for(Ticks::from_millis(100));
        assert!(!world.leads(leader, NEW), "it is alone with it");
    }
    assert!(is_here(&world, leader), "nobody told it yet");
    let open = world.send_put(leader, 5, 2, b"a", b"2");
    assert_eq!(world.await_answer(leader, open).status, Status::NotLeader);
    assert!(world.remove(leader, NEW, true));
    world.run_for(SECOND);
    assert_eq!(world.get(leader, b"a").0, Status::NoSuchGroup);
}

/// MG-02: a node leaves a group that others keep, and comes back to it with nothing but the terms that
/// it has known; the group serves all the time.
#[test]
fn a_node_leaves_a_group_and_comes_again() {
    let (mut world, members) = begun(1);
    world.redials();
    for round in 0..3 {
        let leader = world.leader_of(NEW);
        assert_eq!(world.put(leader, 5, round + 1, b"a", b"1").status, Status::Ok);
        Ask::of(&[1, 2], &[]).in_group(NEW).soon(&mut world);
        let term = world.groups(NodeId(3)).iter().find(|it| it.group == NEW).expect("there").term;
        assert!(world.remove(NodeId(3), NEW, false));
        if round == 1 {
            world.run_for(Ticks::from_millis(50));
            world.kill(NodeId(3), |_| true);
            world.start(NodeId(3));
        }
        world.run_for(SECOND);
        assert!(!is_here(&world, NodeId(3)));
        assert!(world.create(NodeId(3), NEW, &members), "what it began with counts no more");
        let now = *world.groups(NodeId(3)).iter().find(|it| it.group == NEW).expect("there");
        assert!(now.term >= term && now.last.0 == 0, "{now:?}, it was in term {term}");
        assert!(world.shard(NodeId(3)).waits_to_be_added(NEW));
        if round == 2 {
            world.run_for(Ticks::from_millis(50));
            world.kill(NodeId(3), |_| true);
            world.start(NodeId(3));
            assert!(world.shard(NodeId(3)).waits_to_be_added(NEW), "also after a start");
        }
        Ask::of(&[1, 2], &[3]).in_group(NEW).soon(&mut world);
        Ask::of(&[1, 2, 3], &[]).in_group(NEW).soon(&mut world);
        world.run_for(SECOND);
    }
    world.assert_converged();
}

/// MG-02, V1: a voter never heard of the change that left it and another one out. That other one gave the
/// group up and came again with nothing: it votes as if it held what it had, and so doesn't elect the
/// one that lacks what was committed meanwhile (seed 20161).
#[test]
fn who_came_again_elects_nobody_who_lacks_what_it_held() {
    for is_restarted in [false, true] {
        let (mut world, members) = begun(3);
        world.redials();
        let leader = world.leader_of(NEW);
        assert_eq!(world.put(leader, 5, 1, b"a", b"1").status, Status::Ok);
        let others: Vec<NodeId> = world.nodes().into_iter().filter(|&it| it != leader).collect();
        let (unaware, back) = (others[0], others[1]);
        world.cut(unaware, leader);
        world.cut(unaware, back);
        Ask::of(&[leader.0], &[]).in_group(NEW).soon(&mut world);
        world.run_for(SECOND);
        assert!(world.leads(leader, NEW));
        assert_eq!(world.put(leader, 5, 2, b"a", b"2").status, Status::Ok);
        assert!(world.remove(back, NEW, false));
        world.run_for(Ticks::from_millis(50));
        assert!(world.create(back, NEW, &members), "it joins, and has nothing");
        if is_restarted {
            world.run_for(Ticks::from_millis(50));
            world.kill(back, |_| true);
            world.start(back);
        }
        world.heal();
        world.cut(leader, unaware);
        world.cut(leader, back);
        for _ in 0..30 {
            world.run_for(Ticks::from_millis(100));
            assert!(!world.leads(unaware, NEW), "it lacks what was committed");
        }
        world.heal();
        Ask::of(&[leader.0], &[back.0]).in_group(NEW).soon(&mut world);
        Ask::of(&[leader.0, back.0], &[]).in_group(NEW).soon(&mut world);
        world.run_for(SECOND);
        let found = *world.groups(back).iter().find(|it| it.group == NEW).expect("it is there");
        assert!(!found.damaged, "it has all of it again, and was never damaged");
        let said = world.events(back);
        let is_alarm = |event: &ShardEvent| {
            matches!(event, ShardEvent::EntriesLost { .. } | ShardEvent::Repaired { .. })
        };
        assert!(!said.iter().any(is_alarm), "{said:?}");
        // From now on it votes as any other.
        world.kill(leader, |_| true);
        world.start(leader);
        world.leader_of(NEW);
    }
}

/// Groups come and go under load, snapshots and power cuts: whatever is here has all that was
/// acknowledged, whatever left answers nobody, and the places of those that left are used again.
#[test]
fn groups_come_and_go() {
    for seed in 1..9 {
        let mut random = fastrand::Rng::with_seed(seed);
        let rules = SnapshotRules { entries: 20, ..SnapshotRules::default() };
        let mut world = World::with_rules(seed, 3, 1, rules);
        let leader = world.elect();
        let members = world.members_payload(leader);
        let (mut next, mut here) = (10, Vec::<(GroupId, u64)>::new());
        for _ in 0..40 {
            match random.u32(..6) {
                0 | 1 if here.len() < 5 => {
                    let group = GroupId(next);
                    next += 1;
                    world.nodes().iter().for_each(|&node| {
                        world.create(node, group, &members);
                    });
                    here.push((group, 0));
                }
                2 if !here.is_empty() => {
                    let (group, _) = here.swap_remove(random.usize(..here.len()));
                    world.nodes().iter().for_each(|&node| {
                        assert!(world.remove(node, group, true));
                    });
                }
                3 => {
                    // What was asked of it is durable, so it is there again, or gone.
                    world.run_for(Ticks::from_millis(50));
                    let node = NodeId(random.u32(1..=3));
                    world.kill(node, |sector| sector % 3 == 0);
                    world.start(node);
                }
                _ => {
                    for (group, sequence) in &mut here {
                        world.address(*group);
                        let leader = world.leader_of(*group);
                        let writes = *sequence + 1..*sequence + 1 + random.u64(1..30);
                        *sequence = writes.end - 1;
                        let count = writes.end - writes.start;
                        let call = world.flood(leader, *group, 5, writes, &[7; 300]);
                        for call in call..call + count {
                            assert_eq!(world.await_answer(leader, call).status, Status::Ok);
                        }
                    }
                }
            }
        }
        for &(group, sequence) in &here {
            world.address(group);
            let leader = world.leader_of(group);
            let again = world.put(leader, 5, sequence + 1, b"flood", b"end");
            assert_eq!(again.status, Status::Ok, "its session is there");
            assert_eq!(again.revision.0, sequence + 1, "and every write of it");
        }
        world.run_for(SECOND);
        for node in world.nodes() {
            let mut found: Vec<GroupId> = world.shard(node).group_ids().collect();
            found.sort_unstable();
            let mut known: Vec<GroupId> = here.iter().map(|it| it.0).chain([GROUP]).collect();
            known.sort_unstable();
            assert_eq!(found, known, "on node {node}");
        }
        world.assert_converged();
    }
}
