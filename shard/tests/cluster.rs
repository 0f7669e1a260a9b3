//! Whole clusters in one thread, in virtual time, on the production shard: the second owner of
//! both doors. No socket, no file, no clock.

mod divergence;
mod hibernation;
mod homes;
mod leading;
mod levels;
mod member_frames;
mod members;
mod memory;
mod mending;
mod network;
mod reads;
mod repair;
mod rollback;
mod salvage;
mod scrub;
mod sessions;
mod snapshots;
mod world;

use ringraft_net::client_wire::Consistency;
use ringraft_net::status::{GroupRole, GroupStatus};
use ringraft_net::wire::{
    AppendHead, AppendReplies, AppendReplyItem, Ballot, BallotKind, BeatItem, BeatReplies,
    BeatReplyItem, Beats, InstallItem,
};
use ringraft_net::{Identity, Outbox};
use ringraft_raft::Breach;
use ringraft_shard::limits::Limits;
use ringraft_shard::{FrameRefusal, Halt, ShardError, ShardEvent, SnapshotRules};
use ringraft_types::record::{self, RecordKind};
use ringraft_types::{Index, LogId, NodeId, Status, Term, Ticks};
use world::{GROUP, HEARTBEAT_INTERVAL, World};

/// Three nodes elect a leader, and a write is answered only after it is applied, everywhere alike.
#[test]
fn a_write_is_committed_and_applied_everywhere() {
    let mut world = World::new(1, 3, 1);
    let leader = world.elect();
    let reply = world.put(leader, 1, 1, b"key", b"value");
    assert_eq!(reply.status, Status::Ok);
    assert_eq!(reply.revision.0, 1);
    world.run_for(Ticks::from_millis(500));
    world.assert_converged();
    let (status, body) = world.get(leader, b"key");
    assert_eq!(status, Status::Ok);
    assert!(body.windows(5).any(|part| part == b"value"), "the value is in the reply");
}

/// A retry under the same session and number is answered with the first reply, and not applied
/// again: also by the next leader.
#[test]
fn a_retry_is_applied_once_across_a_change_of_leader() {
    let mut world = World::new(2, 3, 1);
    let leader = world.elect();
    let first = world.put(leader, 7, 1, b"key", b"value");
    let again = world.put(leader, 7, 1, b"key", b"value");
    assert_eq!((first.status, first.revision), (again.status, again.revision));
    world.kill(leader, |_| false);
    let next = world.elect();
    assert_ne!(next, leader);
    let third = world.put(next, 7, 1, b"key", b"value");
    assert_eq!(
        (third.status, third.revision, third.index),
        (first.status, first.revision, first.index)
    );
    let second = world.put(next, 7, 2, b"key", b"other");
    assert_eq!(second.revision.0, 2);
}

/// Every node loses power at once with every unflushed sector lost: what was acknowledged is
/// there, and nothing is applied twice.
#[test]
fn acknowledged_writes_survive_a_power_cut_of_all() {
    for seed in 0..8 {
        let mut world = World::new(seed, 3, 4);
        let leader = world.elect();
        for number in 1..=20 {
            let key = format!("key-{number}");
            let reply = world.put(leader, 9, number, key.as_bytes(), b"x");
            assert_eq!(reply.status, Status::Ok, "seed {seed}");
        }
        for node in world.nodes() {
            world.kill(node, |sector| !(sector + seed as usize).is_multiple_of(3));
        }
        for node in world.nodes() {
            world.start(node);
        }
        let leader = world.elect();
        for number in 1..=20 {
            let key = format!("key-{number}");
            let (status, body) = world.get(leader, key.as_bytes());
            assert_eq!(status, Status::Ok, "seed {seed}");
            assert!(!body.is_empty(), "seed {seed}: {key} was acknowledged and is gone");
        }
        let reply = world.put(leader, 9, 21, b"after", b"x");
        assert_eq!((reply.status, reply.revision.0), (Status::Ok, 21), "seed {seed}");
        world.run_for(Ticks::from_millis(500));
        world.assert_converged();
    }
}

/// Goal: a node applies at its start what it knows as committed, before anybody leads, in one
/// reading of its log: each block once, and nothing is fetched for a group by itself.
#[test]
fn a_start_applies_in_one_reading() {
    let mut world = World::new(5, 3, 3);
    let leader = world.elect();
    let value = vec![7u8; 200 << 10];
    for number in 1..=120 {
        let key = format!("key-{number}");
        let reply = world.put(leader, 9, number, key.as_bytes(), &value);
        assert_eq!(reply.status, Status::Ok);
    }
    world.run_for(Ticks::from_millis(500));
    let (node, before) = (leader, world.applied(leader));
    for node in world.nodes() {
        world.kill(node, |_| false);
    }
    world.start(node);
    world.run_for(Ticks::from_millis(100));
    let applied = world.applied(node);
    assert!(applied.0 > before.0 / 2 && applied < before, "{applied} of {before}");
    let stats = world.shard(node).log().stats().clone();
    assert_eq!(stats.reads, 0, "a sweep brings all of it");
    let once = stats.blocks_read;
    assert!(once > 0);
    for node in world.nodes() {
        if !world.running().contains(&node) {
            world.start(node);
        }
    }
    world.elect();
    world.run_for(Ticks::from_millis(500));
    assert!(world.applied(node) >= before);
    world.assert_converged();
    let stats = world.shard(node).log().stats();
    assert!(stats.blocks_read < 2 * once, "{} blocks, of {once}", stats.blocks_read);
}

/// A16: the disks of all nodes are full: writes are refused as "no space", reads go on; with room again
/// the same processes take writes, and nothing acknowledged is lost.
#[test]
fn a16_full_disks_refuse_writes_until_there_is_room() {
    let mut world = World::new(3, 3, 1);
    let leader = world.elect();
    for node in world.nodes() {
        let device = &mut world.shard(node).device;
        let used = device.files().iter().map(|(_, length)| length).sum();
        device.set_capacity(used);
    }
    let key = |number: u64| format!("key-{number}").into_bytes();
    let value = vec![7u8; 256 << 10];
    let (mut done, mut next, mut is_refused) = (Vec::new(), 1, false);
    while !is_refused {
        let call = world.send_put(leader, 9, next, &key(next), &value);
        world.run_for(Ticks::from_millis(20));
        match world.take_reply(leader, call).map(|reply| reply.0) {
            Some(Status::Ok) => done.push(next),
            Some(status) => is_refused = status == Status::NoSpace,
            // Taken, and waits for room.
            None => {}
        }
        next += 1;
        assert!(next < 200, "full disks refuse");
    }
    assert!(done.len() > 10, "what there was room for was taken");
    for &number in &done {
        assert_eq!(world.get(leader, &key(number)).0, Status::Ok, "reads go on");
    }
    world.run_for(Ticks::from_millis(5_000));
    for node in world.nodes() {
        world.shard(node).device.set_capacity(u64::MAX);
    }
    world.run_for(Ticks::from_millis(5_000));
    let leader = world.elect();
    let reply = world.put(leader, 8, 1, b"after", b"x");
    assert_eq!(reply.status, Status::Ok, "without a restart");
    for number in done {
        let (status, body) = world.get(leader, &key(number));
        assert!(status == Status::Ok && body.len() > value.len(), "{number} is gone");
    }
    world.run_for(Ticks::from_millis(500));
    world.assert_converged();
}

/// A leader, and a node that doesn't run and lacks more than the leader's cache holds.
fn one_is_far_behind(seed: u64) -> (World, NodeId, NodeId) {
    let mut world = World::new(seed, 3, 1);
    let leader = world.elect();
    let away = *world.nodes().iter().find(|&&node| node != leader).expect("there are three");
    world.kill(away, |_| true);
    let value = vec![7u8; 256 << 10];
    for number in 1..=80 {
        let reply = world.put(leader, 9, number, format!("k{number}").as_bytes(), &value);
        assert_eq!(reply.status, Status::Ok);
    }
    (world, leader, away)
}

/// What a log says to be committed is applied at a start, before anybody leads: it says so again
/// and again as it grows.
#[test]
fn what_is_known_to_be_committed_is_applied_before_anybody_leads() {
    let rules = SnapshotRules { log_bytes: 0, ..SnapshotRules::default() };
    let mut world = World::with_rules(41, 3, 1, rules);
    let leader = world.elect();
    let value = vec![7; 64 << 10];
    for sequence in 1..=300_u64 {
        let reply = world.put(leader, 1, sequence, &sequence.to_le_bytes(), &value);
        assert_eq!(reply.status, Status::Ok);
    }
    let before = world.applied(leader);
    for node in world.nodes() {
        world.kill(node, |_| true);
    }
    for node in world.nodes() {
        world.start(node);
        world.run_for(Ticks::from_millis(2_000));
        assert_eq!(world.group(node).leader, NodeId::ZERO, "it is alone");
        // A segment of 8 MiB, and what was under way.
        let lacks = before.0 - world.applied(node).0;
        assert!(lacks < 200, "node {node} lacks {lacks} of {before}");
        world.kill(node, |_| true);
    }
}

/// A follower that was away catches up from its leader's log, through the disk where the cache no
/// longer reaches.
#[test]
fn a_follower_that_was_away_catches_up() {
    let (mut world, _, away) = one_is_far_behind(3);
    world.start(away);
    world.run_for(Ticks::from_millis(5_000));
    world.assert_converged();
}

/// A leader that can't read back what a follower needs leaves leading to one that can: the follower
/// catches up and the group serves; it has what it couldn't read again, and counts as any other
/// (S05, A13).
#[test]
fn a_leader_with_rot_gives_way() {
    let (mut world, leader, away) = one_is_far_behind(5);
    world.rot(leader);
    world.start(away);
    world.run_for(Ticks::from_millis(5_000));
    let said = world.events(leader);
    assert!(said.iter().any(|event| matches!(event, ShardEvent::Unreadable { .. })), "{said:?}");
    let halted = ShardEvent::Halted { group: GROUP, halt: Halt::Damaged };
    let next = world.elect();
    assert_eq!(world.put(next, 9, 81, b"after", b"value").status, Status::Ok);
    world.run_for(Ticks::from_millis(2_000));
    assert_eq!(world.applied(away), world.applied(next), "it caught up");
    let said = [said, world.events(leader)].concat();
    let halts = said.iter().filter(|&event| *event == halted).count();
    let repaired = |event: &&ShardEvent| matches!(event, ShardEvent::Repaired { .. });
    assert!(halts > 0 && said.iter().filter(repaired).count() == halts, "{said:?}");
    assert!(!world.group(leader).damaged);
    world.assert_converged();
}

/// A leader cut off from both followers serves no read: the round finds no majority.
#[test]
fn a_leader_that_is_cut_off_serves_no_read() {
    let mut world = World::new(4, 3, 1);
    let leader = world.elect();
    assert_eq!(world.put(leader, 1, 1, b"key", b"old").status, Status::Ok);
    for node in world.nodes() {
        if node != leader {
            world.cut(leader, node);
        }
    }
    let call = world.send_get(leader, b"key");
    world.run_for(Ticks::from_millis(5_000));
    let reply = world.take_reply(leader, call);
    assert!(
        reply.is_none_or(|reply| reply.0 != Status::Ok),
        "a read was served without a majority"
    );
    let next = world.elect_among(|node| node != leader);
    assert_eq!(world.put(next, 2, 1, b"key", b"new").status, Status::Ok);
    world.heal();
    world.run_for(Ticks::from_millis(2_000));
    world.assert_converged();
}

/// The same seed gives the same run.
#[test]
fn a_seed_replays() {
    let run = |seed| {
        let mut world = World::new(seed, 3, 2);
        let leader = world.elect();
        for number in 1..=5 {
            world.put(leader, 1, number, b"key", &number.to_le_bytes());
        }
        world.run_for(Ticks::from_millis(300));
        world.trace_hash()
    };
    assert_eq!(run(11), run(11));
    assert_ne!(run(11), run(12));
}

/// A node with one voter is its own majority.
#[test]
fn a_single_node_group_serves() {
    let mut world = World::new(5, 1, 1);
    let leader = world.elect();
    assert_eq!(leader, NodeId(1));
    assert_eq!(world.put(leader, 1, 1, b"key", b"value").status, Status::Ok);
    assert_eq!(world.get(leader, b"key").0, Status::Ok);
}

/// More writes in one turn than the entry cache and the log's queue hold: each is done or refused
/// as busy, and the shard goes on.
#[test]
fn a_turn_of_many_large_writes_is_survived() {
    let mut world = World::new(1, 3, 1);
    let leader = world.elect();
    let value = vec![7; 1 << 20];
    let calls: Vec<u64> =
        (0..40).map(|client| world.send_put(leader, 100 + client, 1, b"large", &value)).collect();
    world.run_for(Ticks::from_millis(2_000));
    let mut done = 0;
    for call in calls {
        let (status, _) = world.take_reply(leader, call).expect("every write is answered");
        assert!(matches!(status, Status::Ok | Status::Busy), "{status:?}");
        done += u32::from(status == Status::Ok);
    }
    assert!((8..40).contains(&done), "{done} done");
    assert_eq!(world.put(leader, 9, 1, b"small", b"x").status, Status::Ok);
    world.run_for(Ticks::from_millis(500));
    world.assert_converged();
}

/// Reads whose replies overflow their connection's outbox are refused as busy, not stored up.
#[test]
fn replies_nobody_takes_are_not_stored_up() {
    let mut world = World::new(2, 3, 1);
    let leader = world.elect();
    assert_eq!(world.put(leader, 9, 1, b"large", &vec![7; 1 << 20]).status, Status::Ok);
    let first = world.send_gets(leader, b"large", 64);
    world.run_for(Ticks::from_millis(500));
    let mut statuses = Vec::new();
    for call in first..first + 64 {
        statuses.push(world.take_reply(leader, call).expect("every read is answered").0);
    }
    let served = statuses.iter().take_while(|&&status| status == Status::Ok).count();
    assert!((15..=18).contains(&served), "{served} served where 16 MiB is the limit");
    assert!(statuses[served..].iter().all(|&status| status == Status::Busy));
    assert_eq!(world.get(leader, b"large").0, Status::Ok);
}

/// A log of many megabytes is applied again after a start as fast as it can be read: every read of
/// the log is followed by the next at once, not at the next tick.
#[test]
fn replay_does_not_wait_for_ticks() {
    let mut world = World::new(3, 1, 1);
    let node = world.elect();
    let value = vec![7; 1 << 20];
    let mut last = Index::ZERO;
    for number in 1..=12 {
        last = world.put(node, 9, number, b"large", &value).index;
    }
    world.kill(node, |_| true);
    world.start(node);
    world.run_for(Ticks::from_millis(100));
    assert!(world.applied(node) >= last, "{} of {last}", world.applied(node));
}

/// A sole voter leads and serves without any event from outside.
#[test]
fn a_sole_voter_leads_at_once() {
    let mut world = World::new(4, 1, 1);
    world.run_for(Ticks::from_millis(5));
    assert_eq!(world.elect(), world.nodes()[0]);
    assert_eq!(world.put(world.nodes()[0], 9, 1, b"k", b"v").status, Status::Ok);
}

/// A retry of what was applied is answered from its session, body and all, by whoever leads, and
/// takes no place in the log; it stands in nobody's way.
#[test]
fn a_retry_of_an_applied_write_takes_no_place_in_the_log() {
    let mut world = World::new(8, 3, 1);
    let mut leader = world.elect();
    assert_eq!(world.put(leader, 7, 1, b"key", b"value").status, Status::Ok);
    let first = world.delete(leader, 7, 2, b"key");
    assert!(first.body.windows(5).any(|part| part == b"value"), "it tells what it removed");
    for attempt in 3..5 {
        let last = world.group(leader).last;
        let again = world.delete(leader, 7, 2, b"key");
        assert_eq!(
            (again.status, again.revision, again.index, again.body),
            (first.status, first.revision, first.index, first.body.clone())
        );
        assert_eq!(world.group(leader).last, last);
        assert_eq!(world.put(leader, 7, attempt, b"key", b"value").index, last.next());
        world.kill(leader, |_| true);
        world.start(leader);
        leader = world.elect();
    }
}

/// A leader that has committed nothing of its own term yet serves nobody, and says so.
#[test]
fn a_leader_that_is_not_ready_says_so() {
    let mut world = World::new(9, 3, 1);
    let leader = 'found: loop {
        world.run_for(Ticks(50));
        for node in world.nodes() {
            if world.group(node).role == GroupRole::Leader {
                break 'found node;
            }
        }
    };
    let write = world.send_put(leader, 9, 1, b"k", b"v");
    let read = world.send_get(leader, b"k");
    world.run_for(Ticks(50));
    for call in [write, read] {
        assert_eq!(world.take_reply(leader, call).expect("answered").0, Status::NotReady);
    }
    assert_eq!(world.elect(), leader);
    assert_eq!(world.put(leader, 9, 1, b"k", b"v").status, Status::Ok);
}

/// More writes than may wait for one group are refused as busy, and none that was taken is lost.
#[test]
fn the_writes_that_wait_are_counted() {
    let mut world = World::new(10, 3, 1);
    let leader = world.elect();
    let most = Limits::default().group_writes_max as u64;
    let calls: Vec<u64> = (0..most + 9)
        .map(|client| world.send_put(leader, 100 + u128::from(client), 1, b"k", b"v"))
        .collect();
    world.run_for(Ticks::from_millis(1_000));
    let status = |call| world.take_reply(leader, call).expect("every write is answered").0;
    let statuses: Vec<Status> = calls.into_iter().map(status).collect();
    let (taken, refused) = statuses.split_at(most as usize);
    assert!(taken.iter().all(|&status| status == Status::Ok));
    assert_eq!(refused, [Status::Busy; 9]);
}

/// Idle groups share their heartbeats' frames: however many they are, each leader sends one in an
/// interval to each of the others, and is sent one answer.
#[test]
fn heartbeats_of_many_groups_share_frames() {
    const GROUPS: u64 = 256;
    const NODES: u64 = 3;
    const INTERVALS: u64 = 20;
    let frames = |groups| {
        let mut world = World::new(11, NODES as u32, groups);
        world.elect();
        world.run_for(Ticks::from_millis(500));
        let before = world.frames();
        world.run_for(Ticks(INTERVALS * HEARTBEAT_INTERVAL.0));
        world.frames() - before
    };
    let one = INTERVALS * (NODES - 1) * 2;
    assert_eq!(frames(1), one);
    assert_eq!(frames(GROUPS), one * NODES, "each node leads some");
}

/// Megabytes of one group's appends wait for a slow link, for longer than an election takes: the
/// heartbeats of all groups go before them, and nobody stands (RP-09).
#[test]
fn heartbeats_go_before_waiting_appends() {
    for seed in 0..4 {
        let mut world = World::new(seed, 3, 8);
        let leader = world.elect();
        let calls: Vec<u64> = (0..24)
            .map(|client| world.send_put(leader, 100 + client, 1, b"large", &[7; 256 << 10]))
            .collect();
        let elections = world.elections();
        world.slow_links(4_000);
        world.run_for(Ticks::from_millis(20));
        let waiting = world.waiting_bytes(leader);
        assert!(waiting > 3 << 20, "seed {seed}: {waiting} bytes are gone within an election");
        world.run_for(Ticks::from_millis(5_000));
        assert_eq!(world.elections(), elections, "seed {seed}");
        for call in calls {
            let reply = world.take_reply(leader, call).expect("answered");
            assert_eq!(reply.0, Status::Ok, "seed {seed}");
        }
        world.assert_converged();
    }
}

/// A leader that is told to stop brings to its end what it has taken, and takes no more; a follower
/// that is told so takes no more entries, so that the others' load doesn't hold it up.
#[test]
fn a_stopping_node_takes_on_nothing_new() {
    let mut world = World::new(7, 3, 1);
    let leader = world.elect();
    let others: Vec<NodeId> = world.nodes().into_iter().filter(|&node| node != leader).collect();
    let before = world.put(leader, 9, 1, b"k", b"v").index;
    world.run_for(Ticks::from_millis(100));
    world.stop(others[0]);
    for number in 2..=20 {
        assert_eq!(world.put(leader, 9, number, b"k", b"v").status, Status::Ok);
    }
    assert!(world.is_quiet(others[0]));
    assert_eq!(world.group(others[0]).last, before);

    let taken = world.send_put(leader, 9, 21, b"k", b"v");
    world.run_for(Ticks(100));
    assert!(!world.is_quiet(leader), "it waits for a majority");
    world.stop(leader);
    let refused = world.send_put(leader, 9, 22, b"k", b"v");
    world.run_for(Ticks::from_millis(10));
    assert_eq!(world.take_reply(leader, taken).expect("answered").0, Status::Ok);
    assert_eq!(world.take_reply(leader, refused).expect("answered").0, Status::Stopping);
    assert!(world.is_quiet(leader));
    // The third one was up to date, and leads.
    assert_eq!(world.get(leader, b"k").0, Status::NotLeader);
    assert_eq!(world.group(others[1]).role, GroupRole::Leader);
}

/// The leader of a cluster of three, with a write that its disk was given and keeps.
fn with_a_stuck_disk(seed: u64) -> (World, NodeId) {
    let mut world = World::new(seed, 3, 1);
    let leader = world.elect();
    assert_eq!(world.put(leader, 9, 1, b"k", b"v").status, Status::Ok);
    world.run_for(Ticks::from_millis(100));
    world.events(leader);
    world.hold_disk(leader, true);
    assert_eq!(world.put(leader, 9, 2, b"k", b"w").status, Status::Ok, "a majority has it");
    (world, leader)
}

/// A leader whose disk hangs is replaced within two election timeouts, not after its silence as
/// well; it says so, follows, and takes part again when the disk moves.
#[test]
fn a_leader_with_a_stuck_disk_is_replaced() {
    for seed in 0..16 {
        let (mut world, leader) = with_a_stuck_disk(seed);
        world.run_for(Ticks::from_millis(600));
        assert_eq!(world.group(leader).role, GroupRole::Follower, "seed {seed}");
        let others: Vec<NodeId> = world.nodes().into_iter().filter(|&id| id != leader).collect();
        let leads = |&id: &NodeId| world.group(id).role == GroupRole::Leader;
        let next = others.into_iter().find(leads);
        let next = next.unwrap_or_else(|| panic!("seed {seed}: nobody leads"));
        assert_eq!(world.put(next, 9, 3, b"k", b"x").status, Status::Ok, "seed {seed}");
        world.run_for(Ticks::from_millis(3_000));
        assert_eq!(world.group(next).role, GroupRole::Leader, "seed {seed}");
        world.hold_disk(leader, false);
        world.run_for(Ticks::from_millis(1_000));
        assert_eq!(world.group(next).role, GroupRole::Leader, "seed {seed}: it disturbs nobody");
        world.assert_converged();
        let events = world.events(leader);
        let stuck = |event: &&ShardEvent| matches!(event, ShardEvent::DiskStuck(_));
        let stuck: Vec<&ShardEvent> = events.iter().filter(stuck).collect();
        assert_eq!(stuck, [&ShardEvent::DiskStuck(true), &ShardEvent::DiskStuck(false)]);
        world.kill(next, |_| true);
        let last = world.elect();
        assert_eq!(world.put(last, 9, 4, b"k", b"y").status, Status::Ok, "seed {seed}");
    }
}

/// A disk that hangs for longer than the limit ends its shard, with an error that says so.
#[test]
fn a_disk_that_stays_stuck_ends_the_shard() {
    let (mut world, leader) = with_a_stuck_disk(3);
    world.run_for(Ticks::from_millis(19_900));
    assert!(world.ended(leader).is_none());
    world.run_for(Ticks::from_millis(200));
    let ended = world.ended(leader).expect("twenty seconds are over");
    assert!(matches!(ended, ShardError::DiskStuck { .. }), "{ended}");
    let next = world.elect();
    assert_eq!(world.put(next, 9, 3, b"k", b"x").status, Status::Ok);
}

/// A node alone goes on with a disk that is stuck for a while: nobody else could lead.
#[test]
fn a_sole_voter_waits_for_its_disk() {
    let mut world = World::new(6, 1, 1);
    let node = world.elect();
    world.hold_disk(node, true);
    let call = world.send_put(node, 9, 1, b"k", b"v");
    world.run_for(Ticks::from_millis(15_000));
    assert_eq!(world.group(node).role, GroupRole::Leader);
    assert!(world.take_reply(node, call).is_none());
    world.hold_disk(node, false);
    world.run_for(Ticks::from_millis(10));
    assert_eq!(world.take_reply(node, call).expect("answered").0, Status::Ok);
    world.hold_disk(node, true);
    world.send_put(node, 9, 2, b"k", b"v");
    world.run_for(Ticks::from_millis(20_100));
    assert!(matches!(world.ended(node), Some(ShardError::DiskStuck { .. })));
}

/// Goal: a leader that stood still while another one was elected says so, leads no more as soon as
/// it moves, and gives no read that it kept a value from before (EL-13, A07).
#[test]
fn a07_a_leader_that_stood_still_leads_no_more() {
    for seed in 0..8 {
        let mut world = World::new(seed, 3, 1);
        let leader = world.elect();
        assert_eq!(world.put(leader, 9, 1, b"k", b"old").status, Status::Ok);
        world.events(leader);
        world.freeze(leader, true);
        let next = world.elect_among(|node| node != leader);
        assert_eq!(world.put(next, 10, 1, b"k", b"new").status, Status::Ok);
        world.run_for(Ticks::from_millis(2_000));
        let reads = [Consistency::Linearizable, Consistency::Lease]
            .map(|of| world.send_get_of(leader, b"k", of));
        world.freeze(leader, false);
        world.run_for(Ticks::from_millis(100));
        assert_eq!(world.group(leader).role, GroupRole::Follower, "seed {seed}");
        for read in reads {
            let answer = world.await_answer(leader, read);
            assert_ne!(answer.status, Status::Ok, "seed {seed}: {answer:?}");
        }
        let events = world.events(leader);
        let still = events.iter().find_map(|event| match event {
            ShardEvent::StoodStill { late } => Some(*late),
            _ => None,
        });
        assert!(still.is_some_and(|late| late >= Ticks::from_millis(2_000)), "{still:?}");
        assert_eq!(world.shard(leader).metrics().stood_still, 1);
        world.run_for(Ticks::from_millis(1_000));
        assert_eq!(world.shard(next).metrics().stood_still, 0);
        world.assert_converged();
    }
}

/// Goal: groups that nobody leads are told of after a minute, once a minute, by members alone; not
/// any more when somebody leads (EL-18).
#[test]
fn groups_that_nobody_leads_are_told_of() {
    let mut world = World::new(3, 3, 2);
    let leader = world.elect();
    let others: Vec<NodeId> = world.nodes().into_iter().filter(|&node| node != leader).collect();
    world.kill(others[0], |_| true);
    world.kill(others[1], |_| true);
    let told = |world: &mut World, millis: u64| -> Vec<u32> {
        world.run_for(Ticks::from_millis(millis));
        let events = world.events(leader).into_iter();
        let leaderless = |event| match event {
            ShardEvent::Leaderless { groups, .. } => Some(groups),
            _ => None,
        };
        events.filter_map(leaderless).collect()
    };
    assert!(told(&mut world, 55_000).is_empty());
    assert_eq!(told(&mut world, 10_000), [2]);
    assert_eq!(told(&mut world, 60_000), [2]);
    world.start(others[0]);
    world.elect();
    assert!(told(&mut world, 130_000).is_empty());
}

/// A term that no log reaches, from a broken peer, neither stops a node nor wears the terms out.
#[test]
fn a_term_out_of_reach_is_not_adopted() {
    let mut world = World::new(5, 3, 1);
    let leader = world.elect();
    for to in world.nodes() {
        let from = world.nodes().into_iter().find(|&node| node != to).expect("there are three");
        let kind = BallotKind::VoteReply;
        let ballot = Ballot { kind, term: Term(u64::MAX), last: LogId::ZERO, granted: false };
        let taken = world.inject(from, to, |outbox, sender| ballot.write(outbox, GROUP, sender));
        assert_eq!(broken(taken), Breach::OutOfReach(u64::MAX));
    }
    world.run_for(Ticks::from_millis(2_000));
    assert_eq!(world.elect(), leader);
    assert_eq!(world.put(leader, 9, 1, b"k", b"v").status, Status::Ok);
}

fn broken(taken: Result<(), FrameRefusal>) -> Breach {
    match taken {
        Err(FrameRefusal::Breach { group: GROUP, breach }) => breach,
        other => panic!("{other:?}"),
    }
}

fn beat(term: Term) -> impl Fn(&mut Outbox, Identity) {
    move |outbox, sender| {
        let mut beats = Beats::default();
        beats.push(BeatItem {
            group: GROUP,
            term,
            commit: Index::ZERO,
            round: 0,
            hibernate: false,
        });
        beats.write(outbox, sender, ringraft_net::wire::Health::default());
    }
}

/// An append of empty entries of these terms.
fn append(term: Term, prev: LogId, terms: &[u64]) -> impl Fn(&mut Outbox, Identity) + use<> {
    let mut records = Vec::new();
    for (&entry, index) in terms.iter().zip(prev.index.0.saturating_add(1)..) {
        let (kind, index, entry) = (RecordKind::NewTerm, Index(index), Term(entry));
        record::encode(&mut records, kind, GROUP, index, entry, [b"", b""]);
    }
    let head = AppendHead {
        term,
        prev_term: prev.term,
        prev_index: prev.index,
        commit: Index::ZERO,
        count: terms.len() as u32,
        pad: 0,
    };
    move |outbox, sender| head.write(outbox, GROUP, sender, [&records[..]])
}

/// An offer of a snapshot that ends with `base`.
fn offer(term: Term, base: LogId, commit: Index) -> impl Fn(&mut Outbox, Identity) {
    let LogId { term: base_term, index: base_index } = base;
    let item = InstallItem { term, base_term, base_index, commit, address_bytes: 0 };
    move |outbox, sender| item.write(outbox, GROUP, sender, b"")
}

/// What no sound node says is refused in every role with what is wrong about it, and costs its
/// sender the link; the cluster goes on as if nothing had been said.
#[test]
fn a_peer_that_breaks_the_protocol_loses_its_link() {
    let mut world = World::new(6, 3, 1);
    let leader = world.elect();
    assert_eq!(world.put(leader, 9, 1, b"k", b"v").status, Status::Ok);
    world.run_for(Ticks::from_millis(500));
    let others: Vec<NodeId> = world.nodes().into_iter().filter(|&node| node != leader).collect();
    let [follower, liar] = others[..] else { panic!("there are three") };
    let GroupStatus { term, last, commit, .. } = world.group(follower);
    assert_eq!(commit, last, "all of it is committed");
    let (newer, newest) = (Term(term.0 + 1), LogId::new(term, last));

    let second = |leader| Breach::SecondLeader { term, leader };
    assert_eq!(broken(world.inject(liar, follower, beat(term))), second(leader));
    assert_eq!(broken(world.inject(liar, leader, beat(term))), second(leader));
    assert_eq!(broken(world.inject(liar, leader, append(term, newest, &[]))), second(leader));
    assert_eq!(broken(world.inject(leader, follower, beat(Term::ZERO))), Breach::TermZero);

    for to in [follower, leader] {
        let differs = append(newer, LogId::new(newer, last), &[]);
        assert_eq!(broken(world.inject(liar, to, differs)), Breach::LacksCommitted { index: last });
        let other_first = append(newer, LogId::ZERO, &[newer.0]);
        let index = Index(1);
        assert_eq!(broken(world.inject(liar, to, other_first)), Breach::LacksCommitted { index });
    }
    let goes_back = append(term, newest, &[0]);
    let expected = Breach::TermGoesBack { after: last };
    assert_eq!(broken(world.inject(leader, follower, goes_back)), expected);
    let ahead = append(term, newest, &[newer.0]);
    let expected = Breach::TermAhead { entry: newer, term };
    assert_eq!(broken(world.inject(leader, follower, ahead)), expected);
    let far = append(term, LogId::new(term, Index(u64::MAX)), &[]);
    assert_eq!(broken(world.inject(leader, follower, far)), Breach::OutOfReach(u64::MAX));

    let beyond = LogId::new(term, last.next());
    assert_eq!(broken(world.inject(liar, leader, offer(term, newest, last))), second(leader));
    let uncommitted = Breach::BaseUncommitted { base: beyond, commit: last };
    assert_eq!(broken(world.inject(leader, follower, offer(term, beyond, last))), uncommitted);
    let nothing = Breach::BaseUncommitted { base: LogId::ZERO, commit: last };
    assert_eq!(broken(world.inject(leader, follower, offer(term, LogId::ZERO, last))), nothing);
    let later = offer(newer, LogId::new(newer, last), last);
    assert_eq!(broken(world.inject(liar, follower, later)), Breach::LacksCommitted { index: last });
    let far = offer(term, LogId::new(term, Index(u64::MAX)), Index(u64::MAX));
    assert_eq!(broken(world.inject(leader, follower, far)), Breach::OutOfReach(u64::MAX));
    let held = offer(term, newest, last);
    assert!(world.inject(leader, follower, held).is_ok(), "it may come late");

    let never_sent = |outbox: &mut Outbox, sender| {
        let mut replies = AppendReplies::default();
        replies.push(AppendReplyItem {
            group: GROUP,
            term,
            append_term: term,
            accepted: true,
            matched_or_prev: last.next(),
            ..AppendReplyItem::default()
        });
        replies.write(outbox, sender, ringraft_net::wire::Health::default());
    };
    let expected = Breach::NeverSent { matched: last.next(), last };
    assert_eq!(broken(world.inject(liar, leader, never_sent)), expected);
    let never_asked = |outbox: &mut Outbox, sender| {
        let mut replies = BeatReplies::default();
        replies.push(BeatReplyItem { group: GROUP, term, round: 1_000, commit, hibernates: false });
        replies.write(outbox, sender, ringraft_net::wire::Health::default());
    };
    let Breach::NeverAsked { round: 1_000, .. } = broken(world.inject(liar, leader, never_asked))
    else {
        panic!("an answer to a round that never began")
    };

    assert_eq!(world.group(leader).term, term, "nobody believed a word");
    assert_eq!(world.put(leader, 9, 2, b"k", b"w").status, Status::Ok);
    world.run_for(Ticks::from_millis(500));
    world.assert_converged();
}
