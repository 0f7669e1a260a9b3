//! The mesh's sleep under every interleaving: a lost wake-up is a deadlock, which loom reports.
//! `RUSTFLAGS="--cfg loom" cargo test --release -p ringraft-shard --test loom_mesh`
#![cfg(loom)]

use loom::sync::Arc;
use loom::thread;
use ringraft_shard::mesh::{Mesh, MeshEnd, MeshLimits, Wake};

/// The wake call of a reactor, reduced: sticky, and one sleeper per bell.
struct Bells(Vec<loom::sync::Notify>);

impl Bells {
    fn new(lanes: usize) -> Arc<Self> {
        Arc::new(Self((0..lanes).map(|_| loom::sync::Notify::new()).collect()))
    }
}

impl Wake for Bells {
    fn wake(&self, lane: usize) {
        self.0[lane].notify();
    }
}

fn ends<const LANES: usize>(limits: MeshLimits) -> [MeshEnd<u8>; LANES] {
    Mesh::new(LANES, limits).into_ends().try_into().ok().expect("as many ends as lanes")
}

/// Three preemptions find every known two-flag mistake, and bound the run to seconds.
fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

/// Turns until `done`, sleeping whenever the mesh allows it.
fn sleep_until(
    end: &mut MeshEnd<u8>,
    bells: &Bells,
    mut done: impl FnMut(&mut MeshEnd<u8>) -> bool,
) {
    while !done(end) {
        end.ring_doorbells(bells);
        if end.may_park() {
            bells.0[end.lane()].wait();
            end.awake();
        }
    }
    end.ring_doorbells(bells);
}

/// A lane that sleeps is woken by every sender, whenever it falls asleep.
#[test]
fn no_wake_up_is_lost() {
    model(|| {
        let [mut sleeper, one, two] = ends(MeshLimits { requests: 1, notices: 1 });
        let bells = Bells::new(3);
        let send = |mut end: MeshEnd<u8>, bells: Arc<Bells>| {
            thread::spawn(move || {
                assert_eq!(end.send(0, 1), Ok(()));
                end.ring_doorbells(&*bells);
            })
        };
        let senders = [send(one, bells.clone()), send(two, bells.clone())];
        let mut taken = 0;
        sleep_until(&mut sleeper, &bells, |end| {
            taken += end.drain(1, |_, _| {});
            taken == 2
        });
        for sender in senders {
            sender.join().expect("the sender doesn't panic");
        }
    });
}

/// A request wakes its server and the reply wakes its client, both asleep; the reply fits.
#[test]
fn request_and_reply_wake_both_sides() {
    model(|| {
        let [mut client, mut server] = ends(MeshLimits { requests: 1, notices: 1 });
        let bells = Bells::new(2);
        let thread = {
            let bells = bells.clone();
            thread::spawn(move || {
                sleep_until(&mut server, &bells, |end| {
                    let taken = end.drain(1, |_, _| {});
                    if taken == 1 {
                        end.reply(0, 2);
                    }
                    taken == 1
                });
            })
        };
        assert_eq!(client.request(1, 1), Ok(()));
        sleep_until(&mut client, &bells, |end| end.drain(1, |_, _| {}) == 1);
        assert_eq!(client.outstanding(1), 0);
        thread.join().expect("the server doesn't panic");
    });
}

/// A lane that sleeps on work kept back is woken by room, whenever the reader makes it.
#[test]
fn room_wakes_the_sender() {
    model(|| {
        let [mut sender, mut reader] = ends(MeshLimits { requests: 1, notices: 1 });
        let bells = Bells::new(2);
        // The ring has two slots, one of them kept for a reply: the second notice doesn't fit yet.
        assert_eq!(sender.send(1, 1), Ok(()));
        let thread = {
            let bells = bells.clone();
            thread::spawn(move || {
                assert_eq!(reader.drain(1, |_, _| {}), 1);
                reader.ring_doorbells(&*bells);
                reader
            })
        };
        sleep_until(&mut sender, &bells, |end| {
            let sent = end.send(1, 2).is_ok();
            if !sent {
                end.want_room(1);
            }
            sent
        });
        let mut reader = thread.join().expect("the reader doesn't panic");
        assert_eq!(reader.drain(2, |_, _| {}), 1);
    });
}
