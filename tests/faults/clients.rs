//! Clients that behave badly towards real nodes: the others don't notice, the memory stays bounded.

use crate::cluster::{Cluster, Shape, wait_until};
use crate::raw::Raw;
use ringraft_net::Kind;
use ringraft_types::command::{Keys, PutCommand, RangeCommand};
use ringraft_types::{GroupId, Status};
use std::net::TcpStream;
use std::time::Duration;

const GROUP: GroupId = GroupId(1);
/// What the greedy client asks for, and what a node may hold for it.
const VALUE_BYTES: usize = 512 << 10;
const READS: usize = 1024;
const MEMORY_MAX: u64 = 200 << 20;

/// Goal: a client that asks for half a gigabyte in one frame and doesn't read gets what fits its
/// outbox, then a refusal that it may repeat; the node's memory stays bounded.
#[test]
fn a_client_that_does_not_read_costs_bounded_memory() {
    let shape = Shape { nodes: 1, ..Shape::default() };
    let cluster = Cluster::start("a_client_that_does_not_read_costs_bounded_memory", &shape);
    let mut client = cluster.client();
    let value = vec![7; VALUE_BYTES];
    let mut command = Vec::new();
    let put = PutCommand { key: b"k", value: &value, previous: false };
    put.encode(&mut command).expect("under the limits");
    client.write(GROUP, &command).expect("a node alone leads");

    let mut read = Vec::new();
    RangeCommand::current(Keys::One(b"k")).encode(&mut read).expect("a short key");
    let mut greedy = Raw::connect(&cluster.nodes[0].client, None).expect("it listens");
    greedy.set_patience(Duration::from_secs(20));
    greedy.send_many(Kind::Reads, GROUP, [&read, b""], READS).expect("sent");
    // Another client is served meanwhile, and after it.
    for _ in 0..10 {
        client.read(GROUP, &read).expect("reads are served");
    }
    let peak = cluster.nodes[0].memory_peak();
    assert!(peak < MEMORY_MAX, "one client made the node hold {} MiB", peak >> 20);
    let (mut served, mut refused) = (0, 0);
    while served + refused < READS {
        for answer in greedy.answers().expect("every read is answered") {
            match answer.status {
                Status::Ok => served += 1,
                Status::Busy => refused += 1,
                status => panic!("{status:?} to a read"),
            }
        }
    }
    assert!(served > 0 && refused > 0, "{served} served, {refused} refused");
}

/// Goal: clients that take every connection a node has don't keep its peers out.
#[test]
fn clients_do_not_keep_peers_out() {
    let shape = Shape::default().set("connections_max", 8);
    let mut cluster = Cluster::start("clients_do_not_keep_peers_out", &shape);
    cluster.leader(GROUP);
    // The last node is dialled by the others.
    let (dialler, dialled) = (0, 2);
    let peer = "peer connected shard=0 peer=3";
    let before = cluster.nodes[dialler].log().matches(peer).count();
    cluster.nodes[dialler].kill();
    // It must not leave a place behind for itself.
    let mut held = Vec::new();
    wait_until("the last connection to be taken", || {
        match Raw::connect(&cluster.nodes[dialled].client, None) {
            Ok(raw) => held.push(raw),
            Err(_) => return true,
        }
        false
    });
    cluster.nodes[dialler].start();
    wait_until("the link to the node that is full of clients", || {
        cluster.nodes[dialler].log().matches(peer).count() > before
    });
    drop(held);
}

/// Goal: a node that runs out of descriptors says so once in a while, counts it, and accepts again
/// when there are some.
#[test]
fn a_node_without_descriptors_says_so() {
    let shape = Shape { nodes: 1, ..Shape::default() };
    let mut cluster = Cluster::configured("a_node_without_descriptors_says_so", &shape);
    let node = &mut cluster.nodes[0];
    node.format();
    node.start_with_descriptors(100);
    let node = &cluster.nodes[0];
    // The peer port has more places than this node has descriptors. They are asked for while it
    // starts: what it needs itself it has before it accepts.
    let peer = ("127.0.0.1", node.ports[1]);
    wait_until("the peer port", || TcpStream::connect(peer).is_ok());
    let silent: Vec<_> = (0..100).map(|_| TcpStream::connect(peer).expect("queued")).collect();
    let said = "no room for a connection";
    wait_until("a line in the log", || node.log().contains(said));
    drop(silent);
    wait_until("room for a client", || Raw::connect(&node.client, None).is_ok());
    cluster.leader(GROUP);
    let node = &cluster.nodes[0];
    let metrics = node.http_get("/metrics");
    let failed = metrics.lines().find_map(|line| {
        line.strip_prefix("ringraft_accepts_failed_total{shard=\"0\"} ")?.parse::<u64>().ok()
    });
    assert!(failed.is_some_and(|times| times > 0), "{metrics}");
    assert!(node.log().matches(said).count() < 3, "{}", node.log());
}
