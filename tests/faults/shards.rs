//! Several shards per node, many groups: each request reaches its group, wherever it came in.

use crate::cluster::{Cluster, Shape, wait_for};
use crate::load::{Load, Writer, check};
use crate::raw::Raw;
use ringraft_net::Kind;
use ringraft_types::command::{Envelope, Keys, PutCommand, RangeCommand};
use ringraft_types::reply::Reply;
use ringraft_types::{ClientId, GroupId, Index, ShardId, Status};
use std::time::Duration;

const GROUPS: u64 = 16;

/// Two shards, or `None` on a machine with one core.
fn shape() -> Option<Shape> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let shape = Shape { groups: GROUPS, ..Shape::default() };
    (cores >= 2).then(|| shape.set("auto_count", 2))
}

/// Goal: who the members of a group are is told by every node, on whichever of its shards it is
/// asked.
#[test]
fn members_are_told_by_any_shard() {
    let Some(shape) = shape() else { return };
    let cluster = Cluster::start("members_are_told_by_any_shard", &shape);
    let mut client = cluster.client();
    for node in &cluster.nodes {
        // One connection, to whichever shard takes it.
        for group in 1..=GROUPS {
            let found = client.members_at(&node.client, GroupId(group)).expect("it answers");
            assert_eq!(found.members.configuration.voters().len(), 3);
        }
    }
}

/// Goal: the limit of clients is the node's, whichever of its shards they are on, and a place that
/// comes free on one shard serves any other.
#[test]
fn clients_of_all_shards_share_their_places() {
    const PLACES: usize = 6;
    let Some(shape) = shape() else { return };
    let shape = Shape { nodes: 1, ..shape }.set("connections_max", PLACES);
    let cluster = Cluster::start("clients_of_all_shards_share_their_places", &shape);
    cluster.leader(GroupId(1));
    let address = &cluster.nodes[0].client;
    let connect = |shard: usize| Raw::connect(address, Some(ShardId(shard as u16)));
    let mut held = Vec::new();
    while held.len() < PLACES {
        // Who asked for the leader may not be gone yet.
        held.push(wait_for("a place", || connect(held.len() % 2).ok()));
    }
    assert!((0..2).all(|shard| connect(shard).is_err()), "more clients than places");
    held.swap_remove(1);
    wait_for("the place that came free on the other shard", || connect(0).ok());
}

/// Goal: one client writes to all groups, each group does what its own clients asked, and all of it
/// is there after a kill of everybody.
#[test]
fn every_group_of_every_shard_serves() {
    let Some(shape) = shape() else { return };
    let mut cluster = Cluster::start("every_group_of_every_shard_serves", &shape);
    let mut client = cluster.client();
    for group in (1..=GROUPS).map(GroupId) {
        let value = format!("the value of group {group}");
        let put = PutCommand { key: b"k", value: value.as_bytes(), previous: false };
        let mut command = Vec::new();
        put.encode(&mut command).expect("a short key");
        let response = client.write(group, &command).expect("every group has a leader");
        assert_eq!(response.revision.0, 1, "group {group} counts its own revisions");
    }
    let writers = [1, 2, 15, 16].map(|group| {
        Writer::new(&cluster, format!("w{group}"), GroupId(group), Duration::from_secs(50))
    });
    let load = Load::start(writers.into());
    load.wait_more(500);
    for node in &mut cluster.nodes {
        node.kill();
    }
    for node in &mut cluster.nodes {
        node.start();
    }
    load.wait_more(500);
    let writers = load.stop();
    check(&cluster, &writers);
    for group in (1..=GROUPS).map(GroupId) {
        let mut command = Vec::new();
        let range = RangeCommand::current(Keys::One(b"k"));
        range.encode(&mut command).expect("a short key");
        let response = client.read(group, &command).expect("every group has a leader");
        let Ok(Reply::Range(range)) = Reply::decode(&response.body) else { panic!("a range") };
        let values: Vec<_> = range.keys.map(|key| key.value.to_vec()).collect();
        assert_eq!(values, [format!("the value of group {group}").into_bytes()]);
    }
    cluster.assert_replicas_agree();
}

/// Goal: a connection to either shard of a group's leader writes to and reads from groups of both
/// shards, each in order, many at once: the wrong shard hands them to the right one.
#[test]
fn the_wrong_shard_forwards() {
    let Some(shape) = shape() else { return };
    let cluster = Cluster::start("the_wrong_shard_forwards", &shape);
    for shard in [0, 1].map(ShardId) {
        for group in [3, 4].map(GroupId) {
            let leader = cluster.leader(group);
            let mut raw = wait_for("a connection to the shard", || {
                Raw::connect(&cluster.nodes[leader].client, Some(shard)).ok()
            });
            assert_eq!(raw.shard, shard, "the shard that was asked for answers");
            raw.set_patience(Duration::from_secs(20));
            let client = ClientId(u128::from(shard.0) + 1);
            let key = format!("by shard {shard}");
            for sequence in 1..=200 {
                let (received, opened) = (0, Index(0));
                let envelope = Envelope { client, sequence, received, opened };
                let value = sequence.to_string();
                let put =
                    PutCommand { key: key.as_bytes(), value: value.as_bytes(), previous: false };
                let (mut head, mut command) = (Vec::new(), Vec::new());
                envelope.encode(&mut head);
                put.encode(&mut command).expect("a short key");
                raw.send(Kind::Writes, group, [&head, &command]).expect("sent");
            }
            let mut next = 1;
            while next <= 200 {
                for answer in raw.answers().expect("every write is answered") {
                    assert_eq!((answer.call, answer.status), (next, Status::Ok), "{group}");
                    next += 1;
                }
            }
            let mut command = Vec::new();
            let range = RangeCommand::current(Keys::One(key.as_bytes()));
            range.encode(&mut command).expect("a short key");
            raw.send(Kind::Reads, group, [&command, b""]).expect("sent");
            let answers = raw.answers().expect("the read is answered");
            assert_eq!(answers[0].status, Status::Ok);
            let Ok(Reply::Range(range)) = Reply::decode(&answers[0].body) else {
                panic!("a range")
            };
            let found: Vec<_> = range.keys.map(|key| (key.version, key.value.to_vec())).collect();
            assert_eq!(found, [(200, b"200".to_vec())], "{group} over {shard}");
        }
    }
}
