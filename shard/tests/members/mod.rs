//! Members that come and go: over the log, over snapshots, and back after starts.

mod crashes;
mod load;

use crate::repair::flip;
use crate::world::{GROUP, World};
use ringraft_net::handshake::RefusalCode;
use ringraft_net::status::GroupRole;
use ringraft_net::wire::{Ballot, BallotKind, BeatItem, BeatReplies, Beats, Life, LifeItem};
use ringraft_net::{Identity, Outbox};
use ringraft_raft::{Allow, ChangeRefused};
use ringraft_shard::{
    Event, Greeting, MemberChange, PeerAdmission, ShardEvent, SnapshotReason, SnapshotRules,
};
use ringraft_types::{
    Addresses, Configuration, GroupId, Incarnation, Index, LogId, Member, Met, NodeId, Status,
    Term, Ticks, Words,
};
use std::collections::BTreeSet;

const SECOND: Ticks = Ticks::from_millis(1_000);

fn ids(ids: &[u32]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

/// What is asked for.
pub(crate) struct Ask<'a> {
    group: GroupId,
    voters: &'a [u32],
    learners: &'a [u32],
    /// The life that is meant of new members, zero for any.
    life: u64,
    is_held: bool,
    allow: Allow,
    /// For another configuration than the one in force.
    expected: Option<Index>,
}

impl<'a> Ask<'a> {
    pub(crate) fn of(voters: &'a [u32], learners: &'a [u32]) -> Self {
        let allow = Allow::default();
        Self { group: GROUP, voters, learners, life: 0, is_held: false, allow, expected: None }
    }

    /// The same of another group.
    pub(crate) fn in_group(self, group: GroupId) -> Self {
        Self { group, ..self }
    }

    /// The same, held between the old voters and the new.
    pub(crate) fn held(voters: &'a [u32]) -> Self {
        Self { is_held: true, ..Self::of(voters, &[]) }
    }

    /// Asks a node.
    fn at(&self, world: &mut World, node: NodeId) -> Result<Index, ChangeRefused> {
        let target = Configuration::first(ids(self.voters), ids(self.learners));
        let target = &target.expect("it is sound");
        let before = world.shard(node).members(self.group).expect("the group is here");
        let (index, known) = (before.index, before.configuration.clone());
        let addresses: Vec<(NodeId, String)> =
            target.members().map(|node| (node, format!("node-{node}:2"))).collect();
        let members: Vec<Member<'_>> = addresses
            .iter()
            .map(|(node, address)| {
                let life = if known.is_member(*node) { 0 } else { self.life };
                let addresses = Addresses { peer: address.as_bytes(), client: b"" };
                let words = Words { incarnation: Incarnation(life), addresses };
                Member { node: *node, words }
            })
            .collect();
        let members = &members[..];
        let (is_held, allow) = (self.is_held, self.allow);
        let change = MemberChange::To { target, members, is_held, allow };
        let (now, expected) = (world.now(), self.expected.unwrap_or(index));
        let shard = world.shard(node);
        shard.change_members(now, self.group, expected, change).expect("no fault")
    }

    /// As often as it takes until whoever leads makes the change, and it is through.
    pub(crate) fn soon(&self, world: &mut World) -> NodeId {
        for _ in 0..100 {
            world.elect();
            let leader = leader_of(world, self.group);
            if self.at(world, leader).is_ok() {
                world.run_for(SECOND);
                return leader;
            }
            world.run_for(Ticks::from_millis(100));
        }
        panic!("the change to {:?} is refused for ten seconds", self.voters);
    }
}

fn leader_of(world: &mut World, group: GroupId) -> NodeId {
    let running: Vec<NodeId> = world.running();
    let leads = |node: &&NodeId| world.leads(**node, group);
    *running.iter().find(leads).expect("somebody leads")
}

/// On from a held change, or back, or what else takes no members.
fn end(
    world: &mut World,
    at: NodeId,
    expected: Index,
    change: MemberChange<'_>,
) -> Result<Index, ChangeRefused> {
    let now = world.now();
    world.shard(at).change_members(now, GROUP, expected, change).expect("no fault")
}

/// The next write of the one client.
fn write(world: &mut World, leader: NodeId, sequence: u64) {
    let key = sequence.to_string();
    let reply = world.put(leader, 1, sequence, key.as_bytes(), format!("v{key};").as_bytes());
    assert_eq!(reply.status, Status::Ok);
}

/// All writes up to this one are there.
fn check_writes(world: &mut World, leader: NodeId, newest: u64) {
    for sequence in 1..=newest {
        let (status, body) = world.get(leader, sequence.to_string().as_bytes());
        assert_eq!(status, Status::Ok);
        let value = format!("v{sequence};").into_bytes();
        assert!(body.windows(value.len()).any(|part| part == value), "write {sequence}");
    }
}

/// Who votes and who listens, as a node knows it.
fn roles(world: &mut World, node: NodeId) -> (Vec<NodeId>, Vec<NodeId>) {
    let members = world.shard(node).members(GROUP).expect("the group is here");
    let configuration = &members.configuration;
    assert!(!configuration.is_joint());
    (configuration.voters().to_vec(), configuration.learners().to_vec())
}

/// A node that knew nothing is added, votes, and the first leader leaves; every write is there, and
/// so are the members after all were started again (A25, M03).
#[test]
fn a_node_is_added_and_the_leader_leaves() {
    let mut world = World::new(1, 3, 1);
    let leader = world.elect();
    for sequence in 1..=20 {
        write(&mut world, leader, sequence);
    }
    world.join(NodeId(4));
    world.run_for(SECOND);
    assert_eq!(roles(&mut world, NodeId(4)), (ids(&[]), ids(&[])), "nobody added it");
    let leader = Ask::of(&[1, 2, 3], &[4]).soon(&mut world);
    assert_eq!(world.shard(leader).links.known[&NodeId(4)], "node-4:2");
    assert_eq!(roles(&mut world, NodeId(4)), (ids(&[1, 2, 3]), ids(&[4])));
    let leader = Ask::of(&[1, 2, 3, 4], &[]).soon(&mut world);
    write(&mut world, leader, 21);
    let rest: Vec<u32> = [1, 2, 3, 4].into_iter().filter(|&id| id != leader.0).collect();
    Ask::of(&rest, &[]).soon(&mut world);
    assert_eq!(roles(&mut world, leader), (ids(&rest), ids(&[])), "who left knows");
    let events = world.events(leader);
    let left =
        |event: &ShardEvent| matches!(event, ShardEvent::MembersChanged { is_member: false, .. });
    assert!(events.iter().any(left), "{events:?}");
    let next = world.elect();
    assert_ne!(next, leader);
    write(&mut world, next, 22);
    for id in world.nodes() {
        world.kill(id, |_| true);
    }
    for id in world.nodes() {
        world.start(id);
    }
    let next = world.elect();
    assert_ne!(next, leader, "it votes no more");
    for &id in &rest {
        assert_eq!(roles(&mut world, NodeId(id)), (ids(&rest), ids(&[])));
    }
    write(&mut world, next, 23);
    check_writes(&mut world, next, 23);
}

/// S06: every node lost another entry, one of them the one that says who the members are. It has that
/// again from the others before there is a leader, and goes by it.
#[test]
fn s06_a_change_of_members_that_rots_comes_again() {
    let mut world = World::new(6, 3, 1);
    let leader = world.elect();
    for sequence in 1..=9 {
        write(&mut world, leader, sequence);
    }
    world.join(NodeId(4));
    let leader = Ask::of(&[1, 2, 3], &[4]).soon(&mut world);
    write(&mut world, leader, 10);
    world.run_for(SECOND);
    for node in world.nodes() {
        world.kill(node, |_| true);
    }
    for (node, bytes) in [(1, &b"node-4:2"[..]), (2, b"v3;"), (3, b"v5;")] {
        flip(&mut world, NodeId(node), bytes);
    }
    for node in ids(&[1, 2, 3]) {
        world.start(node);
    }
    world.run_for(Ticks::from_millis(100));
    assert_ne!(roles(&mut world, NodeId(1)), (ids(&[1, 2, 3]), ids(&[4])), "it doesn't know");
    let leader = world.elect();
    world.start(NodeId(4));
    world.run_for(Ticks::from_millis(3_000));
    for node in ids(&[1, 2, 3, 4]) {
        assert!(!world.group(node).damaged);
        assert_eq!(roles(&mut world, node), (ids(&[1, 2, 3]), ids(&[4])));
    }
    write(&mut world, leader, 11);
    check_writes(&mut world, leader, 11);
}

/// Who has a log of its own is told its place: a snapshot says who the members are, also those that
/// came by entries which no log holds any more (A31, M09).
#[test]
fn a_snapshot_says_who_the_members_are() {
    let rules = SnapshotRules { lag_bytes: 0, log_bytes: 0, ..SnapshotRules::default() };
    let mut world = World::with_rules(2, 3, 1, rules);
    let leader = world.elect();
    world.join(NodeId(4));
    Ask::of(&[1, 2, 3], &[4]).soon(&mut world);
    Ask::of(&[1, 2, 3, 4], &[]).soon(&mut world);
    (1..=30).for_each(|sequence| write(&mut world, leader, sequence));
    world.run_for(SECOND);
    for node in world.nodes() {
        assert_eq!(world.shard(node).want_snapshots(SnapshotReason::Asked), 1);
    }
    world.run_for(SECOND);
    world.join(NodeId(5));
    Ask::of(&[1, 2, 3, 4], &[5]).soon(&mut world);
    let events = world.events(NodeId(5));
    let installed = |event: &ShardEvent| matches!(event, ShardEvent::SnapshotInstalled { .. });
    assert!(events.iter().any(installed), "its log begins behind what it lacked: {events:?}");
    assert_eq!(roles(&mut world, NodeId(5)), (ids(&[1, 2, 3, 4]), ids(&[5])));
    for node in world.nodes() {
        world.kill(node, |_| true);
        world.start(node);
        let learners = if node == NodeId(5) { ids(&[5]) } else { Vec::new() };
        let (voters, known) = roles(&mut world, node);
        assert_eq!(voters, ids(&[1, 2, 3, 4]), "node {node} begins with what its snapshot says");
        assert!(known == learners || known == ids(&[5]));
    }
    // The new ones are needed for a majority.
    world.kill(NodeId(1), |_| true);
    let leader = world.elect();
    write(&mut world, leader, 31);
    check_writes(&mut world, leader, 31);
}

/// A node that was formatted again has forgotten what it promised: nobody takes it for the one that
/// it was. It is added anew, as a learner first, when no group counts it any more; the one before
/// stays barred (A24, M07).
#[test]
fn a_wiped_node_is_added_anew() {
    let mut world = World::new(3, 3, 2);
    let second = GroupId(2);
    let leader = world.elect();
    (1..=20).for_each(|sequence| write(&mut world, leader, sequence));
    let wiped = *world.nodes().iter().rfind(|&&node| node != leader).expect("there are three");
    let rest: Vec<u32> = [1, 2, 3].into_iter().filter(|&id| id != wiped.0).collect();
    world.kill(wiped, |_| true);
    let before = world.copy(wiped);
    world.wipe(wiped, 900);
    world.start(wiped);
    world.run_for(SECOND);
    let known = World::identity(wiped).incarnation;
    let is_barred = |world: &mut World, known| {
        let refused = world.take_refused();
        let why = PeerAdmission::WrongIncarnation { known };
        refused.iter().filter(|it| it.1 == wiped && it.2 == why).count() > 0
            && refused.iter().all(|it| it.1 != wiped || it.2 != PeerAdmission::Welcome)
    };
    assert!(is_barred(&mut world, known));
    // One group lets it go, the other one counts it still.
    Ask::of(&rest, &[]).soon(&mut world);
    Ask { life: 900, ..Ask::of(&rest, &[wiped.0]) }.soon(&mut world);
    assert!(is_barred(&mut world, known), "the other group would believe its votes");
    // A start from snapshots knows nothing of what was before them.
    for &id in &rest {
        world.shard(NodeId(id)).want_snapshots(SnapshotReason::Asked);
    }
    world.run_for(SECOND);
    for &id in &rest {
        world.kill(NodeId(id), |_| true);
        world.start(NodeId(id));
    }
    world.run_for(SECOND);
    assert!(is_barred(&mut world, known), "also after a start");
    assert_eq!(roles(&mut world, wiped), (Vec::new(), Vec::new()));
    Ask { group: second, ..Ask::of(&rest, &[]) }.soon(&mut world);
    Ask { group: second, life: 900, ..Ask::of(&rest, &[wiped.0]) }.soon(&mut world);
    assert_eq!(roles(&mut world, wiped), (ids(&rest), vec![wiped]));
    for group in [GROUP, second] {
        Ask { group, ..Ask::of(&[1, 2, 3], &[]) }.soon(&mut world);
    }
    world.run_for(SECOND);
    world.assert_converged();
    // What was put aside comes back under its number.
    let leader = world.elect();
    write(&mut world, leader, 21);
    world.kill(wiped, |_| true);
    world.take_refused();
    world.put_back(wiped, before);
    world.live_again(wiped);
    world.start(wiped);
    world.run_for(SECOND);
    assert!(is_barred(&mut world, Incarnation(900)));
    let leader = world.elect_among(|node| node != wiped);
    check_writes(&mut world, leader, 21);
}

/// One change at a time, each for the configuration that it was meant for; what was done once is
/// done (A27, M08).
#[test]
fn one_of_two_changes_wins() {
    let mut world = World::new(4, 3, 1);
    let leader = world.elect();
    let rest: Vec<u32> = [1, 2, 3].into_iter().filter(|&id| id != leader.0).collect();
    let pair = [leader.0, rest[0]];
    let index = Ask::of(&pair, &[]).at(&mut world, leader).expect("it is the first");
    let late = Ask { expected: Some(Index::ZERO), ..Ask::of(&pair, &[]) };
    let conflict = ChangeRefused::Conflict { expected: Index::ZERO, index };
    assert_eq!(late.at(&mut world, leader), Err(conflict));
    let refused = Ask::of(&[1, 2, 3], &[]).at(&mut world, leader);
    assert_eq!(refused, Err(ChangeRefused::UnderWay { index }));
    let refused = Ask::of(&pair, &[]).at(&mut world, NodeId(rest[0]));
    assert_eq!(refused, Err(ChangeRefused::NotLeader(Some(leader))));
    world.run_for(SECOND);
    assert_eq!(roles(&mut world, leader).0.len(), 2);
    let refused = Ask::of(&pair, &[]).at(&mut world, leader);
    assert_eq!(refused, Err(ChangeRefused::Unchanged));
}

/// A held change is gone on with, or back from, by whoever leads then; asked again, it is done
/// (A26, MB-03).
#[test]
fn a_held_change_survives_its_leader() {
    for (is_aborted, seed) in [(false, 5), (true, 6)] {
        let mut world = World::new(seed, 3, 1);
        world.elect();
        world.join(NodeId(4));
        Ask::of(&[1, 2, 3], &[4]).soon(&mut world);
        let held = Ask { is_held: true, ..Ask::of(&[1, 2, 3, 4], &[]) };
        let first = held.soon(&mut world);
        let index = world.shard(first).members(GROUP).expect("it is here").index;
        world.kill(first, |_| true);
        let next = world.elect();
        let change = || if is_aborted { MemberChange::Abort } else { MemberChange::Commit };
        let done = end(&mut world, next, index, change()).expect("it is held");
        assert!(done > index);
        world.run_for(SECOND);
        assert_eq!(end(&mut world, next, index, change()), Ok(done), "it is done");
        let expected = if is_aborted { (3, ids(&[4])) } else { (4, Vec::new()) };
        world.start(first);
        world.run_for(SECOND);
        for node in world.nodes() {
            let (voters, learners) = roles(&mut world, node);
            assert_eq!((voters.len(), learners), expected, "node {node}");
        }
    }
}

/// The leader ends at each moment of a change: the next one carries it through, or it never was
/// (A26, M02).
#[test]
fn a_change_survives_its_leader() {
    let mut ends = BTreeSet::new();
    for moment in 0..24 {
        let mut world = World::new(7, 3, 1);
        world.elect();
        world.join(NodeId(4));
        let leader = Ask::of(&[1, 2, 3], &[4]).soon(&mut world);
        (1..=5).for_each(|sequence| write(&mut world, leader, sequence));
        let rest: Vec<u32> = [1, 2, 3, 4].into_iter().filter(|&id| id != leader.0).collect();
        Ask::of(&rest, &[]).at(&mut world, leader).expect("nothing is under way");
        world.run_for(Ticks(moment * 100));
        world.kill(leader, |sector| sector % 2 == 0);
        let next = world.elect();
        write(&mut world, next, 6);
        world.start(leader);
        world.run_for(Ticks::from_millis(3_000));
        let next = world.elect();
        let found = roles(&mut world, next);
        for node in world.nodes() {
            assert_eq!(roles(&mut world, node), found, "node {node}, moment {moment}");
        }
        check_writes(&mut world, next, 6);
        ends.insert(found);
    }
    assert_eq!(ends.len(), 2, "it is carried through, or never was: {ends:?}");
}

/// Who was away when it was removed comes back with what it had: it disturbs nobody, learns of it,
/// and stands for nothing any more (A30, M06).
#[test]
fn a_removed_node_comes_back() {
    for seed in 8..12 {
        let mut world = World::new(seed, 3, 1);
        world.redials();
        let leader = world.elect();
        (1..=5).for_each(|sequence| write(&mut world, leader, sequence));
        let away = *world.nodes().iter().find(|&&node| node != leader).expect("there are three");
        let rest: Vec<u32> = [1, 2, 3].into_iter().filter(|&id| id != away.0).collect();
        world.run_for(SECOND);
        let held = world.applied(away);
        world.kill(away, |_| true);
        Ask::of(&rest, &[]).soon(&mut world);
        world.run_for(Ticks::from_millis(5_000));
        let term = world.group(leader).term;
        world.start(away);
        world.run_for(Ticks::from_millis(5_000));
        assert_eq!(world.group(leader).term, term, "nobody stands against the leader");
        assert_eq!(roles(&mut world, away), (ids(&rest), Vec::new()), "it was told");
        let elections = world.elections();
        world.cut(away, leader);
        world.run_for(Ticks::from_millis(5_000));
        assert_eq!(world.elections(), elections, "it doesn't stand");
        assert!(world.applied(away) >= held, "it deletes nothing by itself");
        write(&mut world, leader, 6);
    }
}

/// A new member that isn't there costs nothing: it is added as a learner, and doesn't become a
/// voter before it has caught up; a majority of newcomers is refused (A28, A29, M04).
#[test]
fn who_is_not_there_does_not_vote() {
    let mut world = World::new(12, 3, 1);
    let leader = world.elect();
    Ask::of(&[1, 2, 3], &[4, 5, 6]).soon(&mut world);
    write(&mut world, leader, 1);
    let refused = Ask::of(&[1, 2, 3, 4], &[5, 6]).at(&mut world, leader);
    let matched = Index::ZERO;
    let is_behind = |refused: &Result<Index, ChangeRefused>| {
        matches!(refused, Err(ChangeRefused::Unreachable { node: NodeId(4) }))
            || matches!(refused, Err(ChangeRefused::Behind { node: NodeId(4), matched: it, .. })
                if *it == matched)
    };
    assert!(is_behind(&refused), "{refused:?}");
    let refused = Ask::of(&[1, 2, 4, 5, 6], &[]).at(&mut world, leader);
    assert_eq!(refused, Err(ChangeRefused::AddsMajority { added: 3, voters: 5 }));
    assert_eq!(world.group(leader).role, GroupRole::Leader);
    world.join(NodeId(4));
    world.run_for(SECOND);
    Ask::of(&[1, 2, 3, 4], &[5, 6]).soon(&mut world);
    let (voters, learners) = roles(&mut world, NodeId(4));
    assert_eq!((voters.len(), learners), (4, ids(&[5, 6])));
    write(&mut world, leader, 2);
}

/// A node whose disk doesn't move isn't made a voter (M04).
#[test]
fn a_stuck_disk_does_not_vote() {
    let mut world = World::new(13, 3, 1);
    world.elect();
    world.join(NodeId(4));
    let leader = Ask::of(&[1, 2, 3], &[4]).soon(&mut world);
    world.hold_disk(NodeId(4), true);
    write(&mut world, leader, 1);
    world.run_for(SECOND);
    let refused = Ask::of(&[1, 2, 3, 4], &[]).at(&mut world, leader);
    assert_eq!(refused, Err(ChangeRefused::Unfit { node: NodeId(4) }));
    world.hold_disk(NodeId(4), false);
    world.run_for(SECOND);
    Ask::of(&[1, 2, 3, 4], &[]).at(&mut world, leader).expect("it moves again");
}

/// Three, five, three, one, three, with a write at each step (A25, M11).
#[test]
fn a_cluster_grows_and_shrinks() {
    let mut world = World::new(14, 3, 1);
    world.elect();
    world.join(NodeId(4));
    world.join(NodeId(5));
    let steps: [(&[u32], &[u32]); 8] = [
        (&[1, 2, 3], &[4, 5]),
        (&[1, 2, 3, 4, 5], &[]),
        (&[3, 4, 5], &[]),
        (&[5], &[]),
        (&[5], &[1, 2]),
        (&[1, 5], &[2]),
        (&[1, 2, 5], &[]),
        (&[1, 2], &[5]),
    ];
    for (step, (voters, learners)) in steps.into_iter().enumerate() {
        Ask::of(voters, learners).soon(&mut world);
        let leader = world.elect();
        assert!(voters.contains(&leader.0), "step {step}");
        write(&mut world, leader, step as u64 + 1);
        assert_eq!(roles(&mut world, leader), (ids(voters), ids(learners)));
    }
    let leader = world.elect();
    check_writes(&mut world, leader, steps.len() as u64);
}

/// A member of which nobody says where it is comes by itself.
#[test]
fn a_member_without_an_address_comes_by_itself() {
    let mut world = World::new(15, 3, 1);
    let leader = world.elect();
    let target = Configuration::first(ids(&[1, 2, 3]), ids(&[4])).expect("it is sound");
    let allow = Allow::default();
    let change = MemberChange::To { target: &target, members: &[], is_held: false, allow };
    end(&mut world, leader, Index::ZERO, change).expect("nothing is under way");
    world.run_for(SECOND);
    for node in world.nodes() {
        assert_eq!(world.shard(node).links.known[&NodeId(4)], "");
    }
    world.join(NodeId(4));
    world.run_for(SECOND);
    assert_eq!(roles(&mut world, NodeId(4)), (ids(&[1, 2, 3]), ids(&[4])));
}

/// A removed node whose new link takes the place of one that its peers still have is listened to.
#[test]
fn a_removed_node_that_links_anew_is_heard() {
    let mut world = World::new(16, 3, 1);
    let leader = world.elect();
    let away = *world.nodes().iter().find(|&&node| node != leader).expect("there are three");
    let rest: Vec<u32> = [1, 2, 3].into_iter().filter(|&id| id != away.0).collect();
    Ask::of(&rest, &[]).soon(&mut world);
    world.run_for(SECOND);
    // As a node does it: the greeting is judged, then the old link is given up.
    let from = world.met(away);
    let now = world.now();
    let shard = world.shard(leader);
    let greeting = Greeting { from, met: None };
    assert_eq!(shard.admit_peer(now, away, greeting).expect("no fault"), PeerAdmission::Welcome);
    for event in [Event::PeerDown(away), Event::PeerUp(away)] {
        shard.collect(now, event).expect("no fault").expect("no frame");
    }
    world.run_for(Ticks::from_millis(10));
    let answers = |outbox: &mut Outbox, sender: Identity| {
        BeatReplies::default().write(outbox, sender, ringraft_net::wire::Health::default());
    };
    assert_eq!(world.inject(away, leader, answers), Ok(()));
}

/// A voter is away while another node is added, and that one leads in the end. Returns the two.
fn led_by_one_unheard_of(world: &mut World) -> (NodeId, NodeId) {
    let new = NodeId(6);
    let leader = world.elect();
    let away = *world.nodes().iter().find(|&&node| node != leader).expect("there are five");
    world.join(new);
    for node in world.nodes().into_iter().filter(|&node| node != away) {
        world.cut(away, node);
    }
    Ask::of(&[1, 2, 3, 4, 5], &[6]).soon(world);
    Ask::of(&[1, 2, 3, 4, 5, 6], &[]).soon(world);
    have_lead(world, new, away);
    assert_eq!(roles(world, away), (ids(&[1, 2, 3, 4, 5]), ids(&[])));
    (away, new)
}

/// Others end until this node leads.
fn have_lead(world: &mut World, node: NodeId, away: NodeId) {
    let mut leads = leader_of(world, GROUP);
    for _ in 0..100 {
        if leads == node {
            break;
        }
        world.kill(leads, |_| true);
        let next = world.elect_among(|it| it != away);
        world.start(std::mem::replace(&mut leads, next));
        world.run_for(SECOND);
    }
    assert_eq!(leads, node);
}

/// A leader has to be let in by a voter that never heard of it, or nobody could tell that voter.
#[test]
fn a_leader_that_a_voter_never_heard_of_tells_it() {
    let mut world = World::new(31, 5, 1);
    let (away, new) = led_by_one_unheard_of(&mut world);
    world.heal();
    world.run_for(SECOND);
    assert_eq!(roles(&mut world, away), (ids(&[1, 2, 3, 4, 5, 6]), ids(&[])));
    assert_eq!(world.applied(away), world.applied(new));
}

/// The same when its log begins too late: it says where it can be asked for a snapshot, because
/// only that snapshot would say so else.
#[test]
fn a_leader_that_a_voter_never_heard_of_gives_it_a_snapshot() {
    let rules = SnapshotRules { lag_bytes: 0, log_bytes: 0, ..SnapshotRules::default() };
    let mut world = World::with_rules(33, 5, 1, rules);
    let (away, new) = led_by_one_unheard_of(&mut world);
    (1..=30).for_each(|sequence| write(&mut world, new, sequence));
    world.run_for(SECOND);
    for node in world.nodes().into_iter().filter(|&node| node != away) {
        assert_eq!(world.shard(node).want_snapshots(SnapshotReason::Asked), 1);
        if node != new {
            world.shut_bulk(away, node);
        }
    }
    world.run_for(SECOND);
    world.heal();
    world.run_for(Ticks(10 * SECOND.0));
    let from = world.events(away).into_iter().find_map(|event| match event {
        ShardEvent::SnapshotInstalled { from, .. } => Some(from),
        _ => None,
    });
    assert_eq!(from, Some(new));
    assert_eq!(roles(&mut world, away), (ids(&[1, 2, 3, 4, 5, 6]), ids(&[])));
    assert_eq!(world.applied(away), world.applied(new));
}

/// A node that was never met may listen, but doesn't vote, whatever is allowed, before somebody says
/// which life of it is meant: it would take itself for nobody's voter, and never stand (M04).
#[test]
fn who_was_never_met_does_not_vote() {
    let mut world = World::new(37, 3, 1);
    let leader = world.elect();
    let allow = Allow { majority: true, unready: true };
    let unmet = |life| Ask { allow, life, ..Ask::of(&[1, 2, 3, 4], &[]) };
    let refused = unmet(0).at(&mut world, leader);
    assert_eq!(refused, Err(ChangeRefused::UnknownLife { node: NodeId(4) }));
    assert!(Ask::of(&[1, 2, 3], &[4]).at(&mut world, leader).is_ok());
    world.run_for(SECOND);
    let refused = unmet(0).at(&mut world, leader);
    assert_eq!(refused, Err(ChangeRefused::UnknownLife { node: NodeId(4) }));
    world.join(NodeId(4));
    let leader = Ask::of(&[1, 2, 3, 4], &[]).soon(&mut world);
    let members = world.shard(leader).members(GROUP).expect("it is here");
    let member = members.each().into_iter().find(|member| member.node == NodeId(4));
    let life = member.expect("it is added").words.incarnation;
    assert_eq!(life, World::identity(NodeId(4)).incarnation);
}

/// Who counts nowhere comes as whoever it is now, and is added as that; of one that isn't there it
/// isn't guessed whether it is still who it was (M07).
#[test]
fn a_new_member_is_who_runs_under_its_number() {
    let mut world = World::new(36, 3, 1);
    let leader = world.elect();
    let again = *world.nodes().iter().rfind(|&&node| node != leader).expect("there are three");
    let rest: Vec<u32> = [1, 2, 3].into_iter().filter(|&id| id != again.0).collect();
    let leader = Ask::of(&rest, &[]).soon(&mut world);
    world.kill(again, |_| true);
    world.run_for(SECOND);
    let known = World::identity(again).incarnation.0;
    let refused = Ask::of(&rest, &[again.0]).at(&mut world, leader);
    assert_eq!(refused, Err(ChangeRefused::WhichLife { node: again, known }));
    world.wipe(again, 900);
    world.take_refused();
    world.start(again);
    world.run_for(SECOND);
    assert_eq!(world.take_refused(), Vec::new(), "no group counts it as who it was");
    let leader = Ask::of(&rest, &[again.0]).soon(&mut world);
    let members = world.shard(leader).members(GROUP).expect("it is here");
    let member = members.each().into_iter().find(|member| member.node == again);
    assert_eq!(member.expect("it is added").words.incarnation, Incarnation(900));
    assert_eq!(roles(&mut world, again), (ids(&rest), vec![again]));
}

/// A voter was away while another node was wiped, removed and added anew, and that one leads now.
/// The voter counts the life before, and nobody but the leader could tell it: it lets the other life
/// in as one that leads, because others say that it is a member, and has the news of it (A24, M07).
#[test]
fn a_leader_in_another_life_tells_a_voter_that_lags() {
    for rules in [
        SnapshotRules::default(),
        SnapshotRules { lag_bytes: 0, log_bytes: 0, ..SnapshotRules::default() },
    ] {
        let mut world = World::with_rules(34, 5, 1, rules);
        let all = [1, 2, 3, 4, 5];
        let leader = world.elect();
        let nodes = world.nodes();
        let away = *nodes.iter().find(|&&node| node != leader).expect("there are five");
        let again = *nodes.iter().rfind(|&&node| node != leader).expect("there are five");
        for &node in nodes.iter().filter(|&&node| node != away) {
            world.cut(away, node);
        }
        world.kill(again, |_| true);
        world.wipe(again, 900);
        let rest: Vec<u32> = all.into_iter().filter(|&id| id != again.0).collect();
        Ask::of(&rest, &[]).soon(&mut world);
        Ask { life: 900, ..Ask::of(&rest, &[again.0]) }.soon(&mut world);
        world.start(again);
        world.run_for(SECOND);
        Ask::of(&all, &[]).soon(&mut world);
        have_lead(&mut world, again, away);
        (1..=30).for_each(|sequence| write(&mut world, again, sequence));
        if rules.log_bytes == 0 {
            // What the voter lacks is in snapshots only.
            for &node in nodes.iter().filter(|&&node| node != away) {
                assert_eq!(world.shard(node).want_snapshots(SnapshotReason::Asked), 1);
            }
            world.run_for(SECOND);
        }
        assert_eq!(roles(&mut world, away).0, ids(&all), "its members are who they were");
        let term = world.group(again).term;
        world.take_refused();
        world.heal();
        let known = World::identity(again).incarnation;
        let refused = (away, again, PeerAdmission::WrongIncarnation { known });
        assert!(world.take_refused().contains(&refused), "nobody was asked yet");
        world.run_for(Ticks(20 * SECOND.0));
        assert_eq!(world.applied(away), world.applied(again), "it was told");
        assert_eq!(world.group(again).term, term, "by the leader that it refused");
        // From now on the two count for each other.
        let others: Vec<NodeId> =
            nodes.iter().copied().filter(|node| ![away, again].contains(node)).collect();
        for &node in &others[..2] {
            world.kill(node, |_| true);
        }
        let leader = world.elect();
        write(&mut world, leader, 31);
        check_writes(&mut world, leader, 31);
    }
}

/// Others say of which groups another life is a member: only what its leader says is heeded, and
/// only there. A node that was wiped must not vote, acknowledge, or lead anything else.
#[test]
fn who_is_vouched_for_leads_and_nothing_else() {
    let mut world = World::new(35, 3, 2);
    let leader = world.elect();
    let nodes = world.nodes();
    let away = *nodes.iter().find(|&&node| node != leader).expect("there are three");
    let again = *nodes.iter().rfind(|&&node| node != leader).expect("there are three");
    let believed = nodes.into_iter().find(|node| ![away, again].contains(node));
    let believed = believed.expect("there are three");
    let life = Life { node: again, life: Incarnation(900) };
    world.cut(away, again);
    let greet = |world: &mut World| {
        let from = Met { incarnation: Incarnation(900), start: world.met(again).start };
        let now = world.now();
        let greeting = Greeting { from, met: None };
        world.shard(away).admit_peer(now, again, greeting).expect("no fault")
    };
    let known = World::identity(again).incarnation;
    let barred = PeerAdmission::WrongIncarnation { known };
    assert_eq!(greet(&mut world), barred);
    // A word of what this node knows better is none, nor is one of another life.
    let index = world.shard(away).members(GROUP).expect("it is here").index;
    let say = |world: &mut World, life: Life, index: Index| {
        let items = [LifeItem { group: GROUP, index }];
        let write = |outbox: &mut Outbox, sender: Identity| life.answer(outbox, sender, &items);
        assert_eq!(world.inject(believed, away, write), Ok(()));
    };
    say(&mut world, life, index);
    say(&mut world, Life { life: Incarnation(901), ..life }, index.next());
    assert_eq!(greet(&mut world), barred);
    say(&mut world, life, index.next());
    assert_eq!(greet(&mut world), PeerAdmission::Welcome);
    let now = world.now();
    let up = Event::PeerUp(again);
    world.shard(away).collect(now, up).expect("no fault").expect("no frame");
    let before: Vec<_> = world.groups(away).iter().map(|group| group.term).collect();
    let mut term = before.iter().max().expect("there are two").next();
    let hear = |world: &mut World, group: GroupId, kind: BallotKind, term: Term| {
        let sender = Identity { incarnation: Incarnation(900), ..World::identity(again) };
        let last = LogId::new(term, Index(1_000));
        world.inject(again, away, |outbox, _| {
            Ballot { kind, term, last, granted: true }.write(outbox, group, sender);
        })
    };
    for kind in [BallotKind::PreVote, BallotKind::Vote, BallotKind::VoteReply] {
        assert_eq!(hear(&mut world, GROUP, kind, term), Ok(()));
    }
    let beat = |world: &mut World, group: GroupId, term: Term| {
        let sender = Identity { incarnation: Incarnation(900), ..World::identity(again) };
        let write = |outbox: &mut Outbox, _| {
            let mut beats = Beats::new();
            beats.push(BeatItem { group, term, commit: Index::ZERO, round: 1, hibernate: false });
            beats.write(outbox, sender, ringraft_net::wire::Health::default());
        };
        world.inject(again, away, write)
    };
    assert_eq!(beat(&mut world, GroupId(2), term), Ok(()));
    let terms = |world: &World| world.groups(away).iter().map(|it| it.term).collect::<Vec<_>>();
    assert_eq!(terms(&world), before, "nothing of it was heeded");
    assert_eq!(beat(&mut world, GROUP, term), Ok(()));
    assert_eq!(terms(&world), [term, before[1]], "a leader of the one group is");
    term = term.next();
    assert_eq!(hear(&mut world, GROUP, BallotKind::Vote, term), Ok(()));
    assert!(terms(&world)[0] < term);
}

/// Nodes that no group names are let in, so many at once; who leaves makes room, and nothing of it
/// is kept but as whom it was met.
#[test]
fn guests_are_bounded() {
    let mut world = World::new(32, 1, 1);
    let leader = world.elect();
    let before = world.shard(leader).links.known.len();
    let greet = |world: &mut World, node: u32| {
        let met = world.met(leader);
        let from = Met { incarnation: Incarnation(u64::from(node)), start: met.start };
        let now = world.now();
        let shard = world.shard(leader);
        let greeting = Greeting { from, met: None };
        let admission = shard.admit_peer(now, NodeId(node), greeting).expect("no fault");
        if admission == PeerAdmission::Welcome {
            let up = Event::PeerUp(NodeId(node));
            shard.collect(now, up).expect("no fault").expect("no frame");
        }
        admission
    };
    let (first, rest) = (100..164, 164..200);
    assert!(first.clone().all(|node| greet(&mut world, node) == PeerAdmission::Welcome));
    assert!(rest.clone().all(|node| greet(&mut world, node) == PeerAdmission::Full));
    assert_eq!(PeerAdmission::Full.refusal(), Some((RefusalCode::Busy, None)));
    world.run_for(SECOND);
    assert_eq!(greet(&mut world, 164), PeerAdmission::Full, "they are still there");
    let now = world.now();
    for node in first {
        let down = Event::PeerDown(NodeId(node));
        world.shard(leader).collect(now, down).expect("no fault").expect("no frame");
    }
    world.run_for(SECOND);
    assert_eq!(world.shard(leader).links.known.len(), before);
    assert_eq!(greet(&mut world, 164), PeerAdmission::Welcome);
    assert_eq!(greet(&mut world, leader.0), PeerAdmission::Itself);
}

/// Two changes that come in one append, both known to be committed: until the second one is applied
/// the first one is in force as of what is applied, and that is what a snapshot must say.
#[test]
fn what_is_applied_has_its_configuration() {
    let mut world = World::new(23, 3, 1);
    let leader = world.elect();
    write(&mut world, leader, 1);
    let behind = *world.nodes().iter().rfind(|&&node| node != leader).expect("there are three");
    let rest: Vec<u32> = [1, 2, 3].into_iter().filter(|&id| id != behind.0).collect();
    world.run_for(SECOND);
    for &id in &rest {
        world.cut(NodeId(id), behind);
    }
    let held = Ask { is_held: true, ..Ask::of(&rest, &[]) }.at(&mut world, leader);
    let held = held.expect("two of three are there");
    world.run_for(SECOND);
    (2..=900).for_each(|sequence| write(&mut world, leader, sequence));
    let back = end(&mut world, leader, held, MemberChange::Abort).expect("it is held");
    world.run_for(SECOND);
    assert!(back.0 > held.0 + 800 && world.applied(behind) < held);
    world.heal();
    while world.applied(behind) < held {
        world.run_for(Ticks(1));
    }
    let applied = world.applied(behind);
    assert!(applied < back, "it is not done in one turn: {applied} of {back}");
    let known: Vec<Configuration> = world.shard(behind).configurations(GROUP).collect();
    assert!(known.iter().any(Configuration::is_joint), "at {applied}, {held} counts: {known:?}");
}

/// A wiped node that is added anew is sent the log from its beginning, in which its number once voted
/// alone: that was another life of it. It must not take itself for that voter.
#[test]
fn a_node_is_no_voter_by_what_its_number_was() {
    let mut world = World::new(24, 3, 1);
    let one = world.elect();
    let rest: Vec<u32> = [1, 2, 3].into_iter().filter(|&id| id != one.0).collect();
    Ask::of(&[one.0], &rest).soon(&mut world);
    for client in 1..=2 {
        for sequence in 1..=750 {
            let reply = world.put(one, client, sequence, b"key", b"value");
            assert_eq!(reply.status, Status::Ok);
        }
    }
    Ask::of(&[one.0, rest[0]], &[rest[1]]).soon(&mut world);
    Ask::of(&[1, 2, 3], &[]).soon(&mut world);
    world.kill(one, |_| true);
    world.wipe(one, 900);
    Ask::of(&rest, &[]).soon(&mut world);
    let leader = world.elect();
    Ask { life: 900, ..Ask::of(&rest, &[one.0]) }.at(&mut world, leader).expect("it left");
    world.run_for(SECOND);
    world.start(one);
    for _ in 0..100_000 {
        if world.group(one).last >= Index(500) {
            break;
        }
        world.run_for(Ticks(10));
    }
    let last = world.group(one).last;
    assert!(last >= Index(500) && last < Index(1_500), "it is on its way: {last}");
    for &other in &rest {
        world.cut(one, NodeId(other));
    }
    world.run_for(SECOND);
    assert!(world.leads(leader, GROUP), "two of two voters are there");
    assert!(!world.leads(one, GROUP), "node {one} leads: {:?}", world.group(one));
}
