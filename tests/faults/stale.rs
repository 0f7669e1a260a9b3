//! A leader that is stopped, deposed meanwhile, and goes on: it must not know better.

use crate::cluster::{Cluster, Shape, client, wait_until};
use crate::load::{Load, Writer, check};
use crate::raw::{Answer, Raw};
use ringraft_net::client_wire::Consistency;
use ringraft_types::command::{Keys, PutCommand, RangeCommand};
use ringraft_types::reply::Reply;
use ringraft_types::{GroupId, Status};
use rustix::process::Signal;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const GROUP: GroupId = GroupId(1);
/// How long the leader stands still.
const STOPPED: Duration = Duration::from_secs(5);
const KEY: &[u8] = b"register";

fn read_command() -> Vec<u8> {
    let mut command = Vec::new();
    RangeCommand::current(Keys::One(KEY)).encode(&mut command).expect("a short key");
    command
}

fn number_in(body: &[u8]) -> u64 {
    let Ok(Reply::Range(range)) = Reply::decode(body) else { panic!("not a range's reply") };
    range
        .keys
        .map(|key| key.value)
        .next()
        .map_or(0, |value| u64::from_le_bytes(value.try_into().expect("eight bytes were written")))
}

/// A register that only grows, and the newest value of it that was acknowledged.
#[derive(Default)]
struct Register {
    acknowledged: AtomicU64,
    reads: AtomicU64,
    stop: AtomicBool,
}

impl Register {
    fn floor(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Sets the register to 1, 2, 3 and so on.
    fn write(&self, endpoints: Vec<String>) {
        let mut client = client(endpoints);
        for number in 1u64.. {
            if self.is_over() {
                return;
            }
            let mut command = Vec::new();
            let value = number.to_le_bytes();
            let put = PutCommand { key: KEY, value: &value, previous: false };
            put.encode(&mut command).expect("a short key");
            client.write(GROUP, &command).expect("a majority runs: writes are taken");
            self.acknowledged.store(number, Ordering::SeqCst);
        }
    }

    /// Reads it through a client that was told of some nodes only.
    fn read(&self, endpoints: Vec<String>) {
        let mut client = client(endpoints);
        while !self.is_over() {
            let floor = self.floor();
            let command = read_command();
            let response = client.read_of(None, GROUP, &command, Consistency::Lease);
            let response = response.expect("reads are served");
            let read = number_in(&response.body);
            assert!(read >= floor, "a client read {read} after {floor} was acknowledged");
            self.reads.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Reads asked of one node over one connection, and the newest value acknowledged when each was.
struct Asked {
    raw: Raw,
    floors: HashMap<u64, u64>,
    values: u64,
    refusals: u64,
}

impl Asked {
    fn ask(&mut self, register: &Register) {
        let floor = register.floor();
        // By turns with a round of its own and under the leader's lease.
        let consistency = match self.floors.len() % 2 {
            0 => Consistency::Linearizable,
            _ => Consistency::Lease,
        };
        let call = self.raw.send_read(GROUP, &read_command(), consistency);
        self.floors.insert(call.expect("the socket takes it"), floor);
    }

    /// Judges everything that was answered by now.
    fn hear(&mut self) {
        while !self.floors.is_empty() {
            let Ok(answers) = self.raw.answers() else { return };
            for Answer { call, status, body, .. } in answers {
                let floor = self.floors.remove(&call).expect("it was asked, and not answered yet");
                if status != Status::Ok {
                    self.refusals += 1;
                    continue;
                }
                let read = number_in(&body);
                assert!(
                    read >= floor,
                    "the stopped leader answered {read} to a read that was sent after {floor} \
                     was acknowledged"
                );
                self.values += 1;
            }
        }
    }
}

/// Goal: a leader that stood still while another was elected answers no read with a value older
/// than one acknowledged before the read was sent, and no acknowledged write is lost.
#[test]
fn a_stopped_leader_serves_no_stale_read() {
    let cluster = Cluster::start("a_stopped_leader_serves_no_stale_read", &Shape::default());
    let old = cluster.leader(GROUP);
    let register = Arc::new(Register::default());
    let threads = {
        let all = cluster.endpoints();
        let spawn = |body: fn(&Register, Vec<String>), endpoints: Vec<String>| {
            let register = register.clone();
            std::thread::spawn(move || body(&register, endpoints))
        };
        let old = vec![all[old].clone()];
        [
            spawn(Register::write, all.clone()),
            spawn(Register::read, all),
            spawn(Register::read, old),
        ]
    };
    let writer = Writer::new(&cluster, "load", GROUP, Duration::from_secs(2));
    let load = Load::start(vec![writer]);
    load.wait_more(100);
    wait_until("reads", || register.reads.load(Ordering::SeqCst) > 10);

    let address = cluster.nodes[old].client.clone();
    let raw = Raw::connect(&address, None).expect("the leader answers");
    raw.set_patience(Duration::from_millis(20));
    let mut asked = Asked { raw, floors: HashMap::new(), values: 0, refusals: 0 };
    // Before: it answers, and some of these are on their way when it stops.
    asked.ask(&register);
    wait_until("the leader's own answer", || {
        asked.hear();
        asked.values > 0
    });
    for _ in 0..50 {
        asked.ask(&register);
    }
    cluster.nodes[old].signal(Signal::STOP);
    let stopped = Instant::now();
    // While: they wait in its socket, and are older than what is acknowledged next.
    while stopped.elapsed() < STOPPED {
        asked.ask(&register);
        asked.hear();
    }
    let new = cluster.leader_of_the_others(old, GROUP);
    assert_ne!(new, old, "the others elected a leader");
    let floor = register.floor();
    load.wait_more(100);
    wait_until("a write without the old leader", || register.floor() > floor);
    cluster.nodes[old].signal(Signal::CONT);
    // After: it learns that it was deposed while these arrive.
    let before_after = asked.values + asked.refusals;
    while asked.values + asked.refusals < before_after + 200 {
        asked.ask(&register);
        asked.hear();
    }
    wait_until("every read to be answered", || {
        asked.hear();
        asked.floors.is_empty()
    });
    cluster.wait_caught_up(old, GROUP);
    let writers = load.stop();
    register.stop.store(true, Ordering::SeqCst);
    for thread in threads {
        thread.join().expect("no client read or lost anything it should not");
    }
    let tally = check(&cluster, &writers);
    println!(
        "{tally:?}; the stopped leader answered {} reads and refused {}; the register went to {}",
        asked.values,
        asked.refusals,
        register.floor()
    );
    let response = cluster.client().read(GROUP, &read_command()).expect("reads are served");
    assert!(number_in(&response.body) >= register.floor(), "the register's last write is lost");
    cluster.assert_replicas_agree();
}
