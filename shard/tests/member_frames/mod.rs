//! What clients are told of members, and how changes that they ask for are answered.

use crate::world::{Answer, GROUP, World};
use ringraft_net::members_wire::{Member, MemberChange, Members, MembersReply, Refusal};
use ringraft_net::status::GroupRole;
use ringraft_net::{Kind, WireError};
use ringraft_types::limits::LEARNERS_MAX;
use ringraft_types::{Configuration, GroupId, Incarnation, Index, NodeId, Phase, Status, Ticks};

const SECOND: Ticks = Ticks::from_millis(1_000);

fn ids(ids: &[u32]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

fn read(answer: &Answer) -> MembersReply<'_> {
    MembersReply::decode(&answer.body).expect("a sound body")
}

fn members(reply: &MembersReply<'_>) -> Result<Members, WireError> {
    Members::decode(reply.members, Kind::MembersReply)
}

fn ask(world: &mut World, at: NodeId) -> Answer {
    let call = world.send_members(at, GROUP, None);
    world.await_answer(at, call)
}

fn change(world: &mut World, at: NodeId, expected: Index, change: MemberChange) -> Answer {
    let call = world.send_members(at, GROUP, Some((expected, change)));
    world.await_answer(at, call)
}

fn to(voters: &[u32], learners: &[u32]) -> MemberChange {
    let configuration = Configuration::first(ids(voters), ids(learners)).expect("sound");
    let member = |node: NodeId| Member {
        node,
        incarnation: Incarnation(0),
        peer: format!("node-{node}:2"),
        client: format!("node-{node}:1"),
    };
    let members = configuration.members().map(member).collect();
    MemberChange::To {
        target: Members { configuration, members },
        is_held: false,
        allow_majority: false,
        allow_unready: false,
    }
}

fn held(change: MemberChange) -> MemberChange {
    let MemberChange::To { target, allow_majority, allow_unready, .. } = change else {
        panic!("only members can be held")
    };
    MemberChange::To { target, is_held: true, allow_majority, allow_unready }
}

/// Has a change made, and brought through.
fn make(world: &mut World, leader: NodeId, expected: Index, asked: MemberChange) -> Index {
    let answer = change(world, leader, expected, asked);
    assert_eq!(answer.status, Status::Ok, "{}", read(&answer).sentence);
    assert!(answer.index > expected);
    world.run_for(SECOND);
    let told = ask(world, leader);
    let reply = read(&told);
    assert!(reply.is_committed && reply.is_leader);
    reply.index
}

fn refusal(world: &mut World, at: NodeId, expected: Index, asked: MemberChange) -> Refusal {
    let before = ask(world, at);
    let answer = change(world, at, expected, asked);
    let reply = read(&answer);
    assert_eq!(reply.status, Status::Refused);
    assert!(!reply.sentence.is_empty());
    assert_eq!((reply.index, reply.members), (read(&before).index, read(&before).members));
    reply.refusal.expect("with that status")
}

/// Every node tells what its log says; the leader also how far the others are, and whom it met.
#[test]
fn members_are_told_by_anybody() {
    let mut world = World::new(1, 3, 1);
    let leader = world.elect();
    assert_eq!(world.put(leader, 1, 1, b"key", b"value").status, Status::Ok);
    world.run_for(SECOND);
    for node in world.nodes() {
        let answer = ask(&mut world, node);
        let reply = read(&answer);
        assert_eq!((reply.status, reply.leader), (Status::Ok, leader));
        assert_eq!((reply.index, reply.commit), (Index::ZERO, world.group(node).commit));
        let found = members(&reply).expect("sound");
        assert_eq!(found.configuration.voters(), ids(&[1, 2, 3]));
        assert_eq!(found.members.len(), 3);
        assert_eq!(reply.is_leader, node == leader);
        let others: Vec<NodeId> = world.nodes().into_iter().filter(|&it| it != leader).collect();
        let told: Vec<NodeId> = reply.peers.iter().map(|peer| peer.node).collect();
        assert_eq!(told, if node == leader { others } else { Vec::new() });
        for peer in &reply.peers {
            assert!(peer.is_heard);
            assert_eq!((peer.matched, peer.commit), (reply.commit, reply.commit));
            assert_eq!(peer.incarnation, World::identity(peer.node).incarnation);
        }
    }
    let gone = *world.nodes().iter().find(|&&node| node != leader).expect("three");
    world.kill(gone, |_| true);
    world.run_for(SECOND);
    let answer = ask(&mut world, leader);
    let silent = read(&answer).peers.into_iter().filter(|peer| !peer.is_heard);
    assert_eq!(silent.map(|peer| peer.node).collect::<Vec<_>>(), [gone]);
}

/// The members of a group that hibernates are there, as their shards say, and it is changed at once.
#[test]
fn members_of_a_group_that_hibernates_are_heard() {
    let mut world = World::new(7, 3, 1);
    world.hibernate(Ticks::from_millis(500));
    for node in world.nodes() {
        world.kill(node, |_| true);
        world.start(node);
    }
    let leader = world.elect();
    world.run_for(Ticks::from_millis(5_000));
    let answer = ask(&mut world, leader);
    assert!(read(&answer).peers.iter().all(|peer| peer.is_heard), "{:?}", read(&answer).peers);
    assert_eq!(world.shard(leader).groups_hibernating(), 1, "to be asked wakes nobody");
    let others: Vec<u32> = world.nodes().iter().map(|node| node.0).collect();
    let kept: Vec<u32> = others.into_iter().filter(|&it| it != 3 || leader.0 == 3).collect();
    let kept = if kept.len() == 3 { vec![2, 3] } else { kept };
    let answer = change(&mut world, leader, Index::ZERO, to(&kept, &[]));
    assert_eq!(answer.status, Status::Ok);
    world.run_for(Ticks::from_millis(5_000));
    assert_eq!(read(&ask(&mut world, leader)).peers.len(), 1);
}

/// A change that a client asks for is made by the leader, with what the client says of the new
/// member; asked again it finds a conflict, and what was asked for.
#[test]
fn a_change_is_made_and_known_again() {
    let mut world = World::new(2, 3, 1);
    let leader = world.elect();
    world.join(NodeId(4));
    world.run_for(SECOND);
    let follower = *world.nodes().iter().find(|&&node| node != leader).expect("four");
    let answer = change(&mut world, follower, Index::ZERO, to(&[1, 2, 3], &[4]));
    assert_eq!((answer.status, read(&answer).leader), (Status::NotLeader, leader));
    assert_eq!(world.group(NodeId(4)).role, GroupRole::Outsider);
    let index = make(&mut world, leader, Index::ZERO, to(&[1, 2, 3], &[4]));
    assert_eq!(world.group(NodeId(4)).role, GroupRole::Learner);
    let told = ask(&mut world, NodeId(4));
    let found = members(&read(&told)).expect("sound");
    assert_eq!(found.configuration.learners(), ids(&[4]), "who joined knows it");
    let member = found.member(NodeId(4)).expect("it is one");
    assert_eq!((&*member.peer, &*member.client), ("node-4:2", "node-4:1"));
    let again = change(&mut world, leader, Index::ZERO, to(&[1, 2, 3], &[4]));
    let reply = read(&again);
    assert_eq!((reply.status, reply.refusal), (Status::Refused, Some(Refusal::Conflict)));
    assert_eq!(reply.index, index);
    assert_eq!(members(&reply).expect("sound").configuration.learners(), ids(&[4]));
    let index = make(&mut world, leader, index, to(&[1, 2, 3, 4], &[]));
    let told = ask(&mut world, leader);
    assert_eq!(read(&told).index, index);
    assert_eq!(members(&read(&told)).expect("sound").configuration.voters(), ids(&[1, 2, 3, 4]));
    assert_eq!(world.group(NodeId(4)).role, GroupRole::Follower);
}

/// A held change stays until a client ends it; either end may be asked for twice.
#[test]
fn a_held_change_is_ended() {
    let mut world = World::new(3, 3, 1);
    let leader = world.elect();
    let rest: Vec<u32> = (1..=3).filter(|&id| id != leader.0).collect();
    let (one, all) = ([leader.0, rest[0]], [1, 2, 3]);
    let joint = make(&mut world, leader, Index::ZERO, held(to(&one, &[])));
    assert_eq!(refusal(&mut world, leader, joint, to(&all, &[])), Refusal::UnderWay);
    let told = ask(&mut world, leader);
    assert_eq!(members(&read(&told)).expect("sound").configuration.phase(), Phase::Held);
    let back = make(&mut world, leader, joint, MemberChange::Abort);
    let twice = change(&mut world, leader, joint, MemberChange::Abort);
    assert_eq!((twice.status, twice.index), (Status::Ok, back));
    assert_eq!(refusal(&mut world, leader, back, MemberChange::Commit), Refusal::NotHeld);
    assert_eq!(refusal(&mut world, leader, joint, MemberChange::Commit), Refusal::Conflict);
    let joint = make(&mut world, leader, back, held(to(&one, &[])));
    let through = make(&mut world, leader, joint, MemberChange::Commit);
    let twice = change(&mut world, leader, joint, MemberChange::Commit);
    assert_eq!((twice.status, twice.index), (Status::Ok, through));
}

/// What a leader doesn't do is refused by its own number, with a sentence, and changes nothing.
#[test]
fn refusals_are_told_apart() {
    let mut world = World::new(4, 3, 1);
    let leader = world.elect();
    world.run_for(SECOND);
    let none = Index::ZERO;
    for (asked, expected, why) in [
        (to(&[1, 2, 3], &[]), none, Refusal::Unchanged),
        (to(&[1, 2], &[]), Index(99), Refusal::Conflict),
        (to(&[1, 2, 3, 4], &[]), none, Refusal::Behind),
        (to(&[1, 4, 5], &[]), none, Refusal::AddsMajority),
        (MemberChange::Commit, none, Refusal::NotHeld),
        (MemberChange::Abort, none, Refusal::NotHeld),
    ] {
        assert_eq!(refusal(&mut world, leader, expected, asked), why);
    }
    // An abort would make learners of the new voters, and there is no room.
    let learners: Vec<u32> = (100..100 + LEARNERS_MAX as u32).collect();
    let asked = to(&[1, 2, 3, 4], &learners);
    assert_eq!(refusal(&mut world, leader, none, asked), Refusal::Invalid);
    world.join(NodeId(4));
    let index = make(&mut world, leader, none, to(&[1, 2, 3], &[4]));
    world.kill(NodeId(4), |_| true);
    world.run_for(SECOND);
    let asked = to(&[1, 2, 3, 4], &[]);
    assert_eq!(refusal(&mut world, leader, index, asked.clone()), Refusal::Unreachable);
    world.stop(leader);
    let stopping = change(&mut world, leader, index, asked);
    assert_eq!(stopping.status, Status::Stopping);
}

/// A group that nobody has has no members, and can't be changed.
#[test]
fn a_group_that_is_nowhere() {
    let mut world = World::new(5, 1, 1);
    let leader = world.elect();
    for asked in [None, Some((Index::ZERO, MemberChange::Commit))] {
        let call = world.send_members(leader, GroupId(99), asked);
        assert_eq!(world.await_answer(leader, call).status, Status::NoSuchGroup);
    }
}
