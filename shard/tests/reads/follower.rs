//! Reads that see all that was done, on nodes that don't lead.

use super::{cut_off, world};
use crate::members::Ask;
use crate::world::{Answer, GROUP, World};
use ringraft_net::client_wire::Consistency;
use ringraft_net::lead_wire::Leading;
use ringraft_net::wire::{ReadAnswerItem, ReadAnswers};
use ringraft_shard::SnapshotRules;
use ringraft_types::{GroupId, Index, NodeId, Status, Term, Ticks};

const ALL: Consistency = Consistency::Linearizable;

/// The value of a write.
fn value(sequence: u64) -> Vec<u8> {
    format!("value-{sequence:04}").into_bytes()
}

fn holds(answer: &Answer, value: &[u8]) -> bool {
    answer.body.windows(value.len()).any(|part| part == value)
}

/// The next write of the one client.
fn put(world: &mut World, leader: NodeId, sequence: u64) {
    assert_eq!(world.put(leader, 1, sequence, b"key", &value(sequence)).status, Status::Ok);
}

/// Goal: a follower answers, and sees what was acknowledged before it was asked, though it hadn't
/// heard by then that it is committed.
#[test]
fn a_follower_answers_of_all_that_was_done() {
    let (mut world, leader, follower) = world(81);
    for sequence in 2..30 {
        put(&mut world, leader, sequence);
        let of = if sequence % 2 == 0 { ALL } else { Consistency::Lease };
        let answer = world.get_of(follower, b"key", of);
        assert_eq!(answer.status, Status::Ok);
        assert!(holds(&answer, &value(sequence)), "{sequence}: {answer:?}");
    }
}

/// Goal: the reads of one turn share one question, and one frame carries those of all groups: many
/// reads cost no more frames than one.
#[test]
fn many_reads_share_a_question() {
    let (mut world, _, follower) = world(82);
    let frames = |world: &mut World, count: u64| {
        let before = world.frames();
        let calls: Vec<u64> = (0..count).map(|_| world.send_get(follower, b"key")).collect();
        for call in calls {
            assert_eq!(world.await_answer(follower, call).status, Status::Ok);
        }
        world.frames() - before
    };
    let one = frames(&mut world, 1);
    let many = frames(&mut world, 200);
    // Heartbeats go on meanwhile.
    assert!(many <= one + 12, "one read took {one} frames, many {many}");
}

/// Goal: a follower that is cut off from its leader serves nothing, and refuses within bounded time,
/// whether it stands for election meanwhile or not; nothing that waits is served later from what it
/// had.
#[test]
fn a_follower_that_is_cut_off_serves_nothing() {
    for is_paused in [false, true] {
        let (mut world, leader, follower) = world(83);
        if is_paused {
            let call = world.send_lead(follower, GroupId(0), Leading::Pause);
            world.run_for(Ticks::from_millis(20));
            assert!(world.take_reply(follower, call).is_some());
        }
        cut_off(&mut world, follower);
        let call = world.send_get(follower, b"key");
        put(&mut world, leader, 2);
        let answer = world.await_answer(follower, call);
        assert_eq!(answer.status, Status::NotLeader, "paused: {is_paused}");
        world.heal();
        world.run_for(Ticks::from_millis(1_000));
        let answer = world.get_of(follower, b"key", ALL);
        assert!(answer.status == Status::Ok && holds(&answer, &value(2)), "{answer:?}");
    }
}

/// Goal: answers to what wasn't asked, or of another term, serve nothing: a read that comes before the
/// follower hears of the last write sees it all the same.
#[test]
fn strange_answers_serve_nothing() {
    let (mut world, leader, follower) = world(84);
    let term = world.group(leader).term;
    let strange = [(term, 1), (term, u64::MAX), (Term(term.0 + 1), 1), (term, 0)];
    for (sequence, (term, question)) in (2..).zip(strange) {
        put(&mut world, leader, sequence);
        let call = world.send_get(follower, b"key");
        let taken = world.inject(leader, follower, |outbox, sender| {
            let mut answers = ReadAnswers::new();
            answers.push(ReadAnswerItem { group: GROUP, term, question, index: Index(1) });
            answers.write(outbox, sender, ringraft_net::wire::Health::default());
        });
        assert_eq!(taken, Ok(()));
        let answer = world.await_answer(follower, call);
        assert!(holds(&answer, &value(sequence)), "{answer:?}");
    }
}

/// Goal: reads that wait for the leader are bounded: what is over that is refused as busy, the rest
/// is answered or refused, and room is made again.
#[test]
fn a34_a_follower_lets_so_many_wait() {
    let (mut world, leader, follower) = world(86);
    world.kill(follower, |_| true);
    world.limit_reads(4);
    world.start(follower);
    world.run_for(Ticks::from_millis(500));
    for is_cut in [true, false] {
        if is_cut {
            world.cut(leader, follower);
        }
        let calls: Vec<u64> = (0..6).map(|_| world.send_get(follower, b"key")).collect();
        for &call in &calls[4..] {
            assert_eq!(world.await_answer(follower, call).status, Status::Busy);
        }
        let expected = if is_cut { Status::NotLeader } else { Status::Ok };
        for &call in &calls[..4] {
            assert_eq!(world.await_answer(follower, call).status, expected);
        }
        world.heal();
        world.run_for(Ticks::from_millis(1_000));
    }
}

/// Goal: reads of all groups that wait are bounded together, and one group has at most what it leaves
/// for the others: who asks after one that asks for too much finds room.
#[test]
fn reads_that_wait_have_their_part() {
    let mut world = World::new(89, 3, 3);
    world.limit_all_reads(8);
    for node in world.nodes() {
        world.kill(node, |_| true);
    }
    for node in world.nodes() {
        world.start(node);
    }
    world.elect();
    world.run_for(Ticks::from_millis(500));
    let node = world.nodes()[0];
    for _ in 0..3 {
        for other in [NodeId(2), NodeId(3)] {
            world.cut(node, other);
        }
        let (mut waiting, mut busy) = (Vec::new(), Vec::new());
        for (group, part) in [(1, 4), (2, 2), (3, 1)] {
            world.address(GroupId(group));
            let calls: Vec<u64> = (0..10).map(|_| world.send_get(node, b"key")).collect();
            waiting.extend_from_slice(&calls[..part]);
            busy.extend_from_slice(&calls[part..]);
        }
        for call in busy {
            assert_eq!(world.await_answer(node, call).status, Status::Busy);
        }
        assert_eq!(world.shard(node).pending_reads(), 7);
        for call in waiting {
            assert_eq!(world.await_answer(node, call).status, Status::NotLeader);
        }
        assert_eq!(world.shard(node).pending_reads(), 0);
        assert_eq!(world.shard(node).pending_read_bytes(), 0);
        world.heal();
        world.run_for(Ticks::from_millis(2_000));
    }
}

/// Goal: a node that halts serves no read, and what waits there is refused.
#[test]
fn a_node_with_an_older_copy_serves_nothing() {
    let (mut world, _, follower) = world(87);
    let call = world.send_get(follower, b"key");
    world.tell_older_copy(follower);
    let refused = [Status::Damaged, Status::NotLeader];
    assert!(refused.contains(&world.await_answer(follower, call).status));
    assert_eq!(world.get_of(follower, b"key", ALL).status, Status::Damaged);
}

/// Goal (A06): two of three nodes don't reach each other, both reach the third. Whoever leads goes on
/// leading, no read anywhere is stale, and the node that doesn't reach the leader says so.
#[test]
fn a06_a_partial_partition_with_lease_reads() {
    for cut_leader in [true, false] {
        let (mut world, leader, follower) = world(88);
        let third = world.nodes().into_iter().find(|&node| node != leader && node != follower);
        let third = third.expect("there are three");
        let (a, b) = if cut_leader { (leader, follower) } else { (follower, third) };
        let term = world.group(leader).term;
        world.cut(a, b);
        let mut refused = 0;
        for sequence in 2..60 {
            put(&mut world, leader, sequence);
            for (node, of) in [
                (leader, Consistency::Lease),
                (third, ALL),
                (follower, Consistency::Lease),
                (follower, ALL),
            ] {
                let answer = world.get_of(node, b"key", of);
                match answer.status {
                    Status::Ok => {
                        assert!(holds(&answer, &value(sequence)), "node {node}: {answer:?}")
                    }
                    Status::NotLeader => refused += 1,
                    other => panic!("node {node} answers {other:?}"),
                }
                let may_refuse = cut_leader && node == follower;
                assert!(answer.status == Status::Ok || may_refuse, "node {node} refuses");
            }
            world.run_for(Ticks::from_millis(30));
        }
        assert_eq!(world.group(leader).term, term, "nobody is disturbed");
        assert!(world.leads(leader, GROUP));
        assert_eq!(refused > 0, cut_leader);
        world.heal();
        world.run_for(Ticks::from_millis(1_000));
        assert_eq!(world.get_of(follower, b"key", ALL).status, Status::Ok);
    }
}

/// Sends reads to every node that runs, and looks that each that is answered saw the newest write,
/// which was acknowledged before. Returns how many nodes that don't lead answered.
fn read_everywhere(world: &mut World, leader: NodeId, newest: u64) -> u64 {
    let nodes: Vec<NodeId> = world.running();
    let calls: Vec<(NodeId, u64)> =
        nodes.into_iter().map(|node| (node, world.send_get(node, b"key"))).collect();
    let mut answered = 0;
    for (node, call) in calls {
        let answer = world.await_answer(node, call);
        match answer.status {
            Status::Ok => {
                assert!(holds(&answer, &value(newest)), "node {node}: {answer:?}");
                answered += u64::from(node != leader);
            }
            Status::NotLeader | Status::NotReady => {}
            other => panic!("node {node} answers {other:?}"),
        }
    }
    answered
}

/// Goal (A34): reads on all nodes while leadership goes round, leaders die, and a node that was down
/// for long gets a snapshot: each answer is as new as what was acknowledged before it was asked.
#[test]
fn a34_reads_on_all_nodes_under_leader_changes_and_an_install() {
    let rules = SnapshotRules { entries: 10, lag_bytes: 0, kept: 1, ..SnapshotRules::default() };
    let mut world = World::with_rules(89, 3, 1, rules);
    let mut leader = world.elect();
    let (mut sequence, mut answered, mut installed) = (0, 0, 0);
    for round in 0..12 {
        for _ in 0..5 {
            sequence += 1;
            put(&mut world, leader, sequence);
            answered += read_everywhere(&mut world, leader, sequence);
        }
        match round % 3 {
            0 => {
                let to = world.nodes().into_iter().find(|&node| node != leader);
                world.send_lead(leader, GROUP, Leading::HandOver { to });
            }
            1 => {
                world.kill(leader, |_| true);
                let next = world.elect();
                for _ in 0..40 {
                    sequence += 1;
                    put(&mut world, next, sequence);
                }
                world.run_for(Ticks::from_millis(2_000));
                let before = world.bulk_sent(next, leader);
                world.start(leader);
                for _ in 0..20 {
                    answered += read_everywhere(&mut world, next, sequence);
                    world.run_for(Ticks::from_millis(10));
                }
                installed += u64::from(world.bulk_sent(next, leader) > before);
            }
            _ => world.run_for(Ticks::from_millis(100)),
        }
        for _ in 0..5 {
            answered += read_everywhere(&mut world, leader, sequence);
            world.run_for(Ticks::from_millis(20));
        }
        leader = world.elect();
        world.run_for(Ticks::from_millis(300));
    }
    assert!(answered > 100, "other nodes answered {answered}");
    assert!(installed > 0, "nobody got a snapshot");
    world.assert_converged();
}

/// Goal (A34): reads on all nodes while a node joins as a learner, votes, and another leaves: a
/// learner answers, and one that left answers nothing older than what was done.
#[test]
fn a34_reads_on_all_nodes_while_members_change() {
    let mut world = World::new(90, 3, 1);
    let first = world.elect();
    put(&mut world, first, 1);
    world.join(NodeId(4));
    let mut sequence = 1;
    let mut by_learner = 0;
    let steps: [(&[u32], &[u32]); 4] =
        [(&[1, 2, 3], &[4]), (&[1, 2, 3, 4], &[]), (&[2, 3, 4], &[]), (&[3, 4], &[2])];
    for (voters, learners) in steps {
        Ask::of(voters, learners).soon(&mut world);
        for _ in 0..10 {
            let leader = world.elect();
            sequence += 1;
            put(&mut world, leader, sequence);
            let answered = read_everywhere(&mut world, leader, sequence);
            let answer = world.get_of(NodeId(4), b"key", ALL);
            by_learner += u64::from(learners == [4] && answer.status == Status::Ok);
            assert!(answered > 0, "with voters {voters:?}");
        }
    }
    assert_eq!(by_learner, 10, "a learner answers");
}
