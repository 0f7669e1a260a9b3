//! The client's promises under random trouble, against a model of the server's session rules:
//! leaders move, connections break before and after a write is applied, late attempts turn up,
//! sessions are evicted.

#[allow(dead_code, reason = "shared with the scripted tests")]
mod script;

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use ringraft_net::client_wire::Reply;
use ringraft_types::{ClientId, Index, NodeId, Revision, Status, Ticks};
use script::{Attempt, Fate, Script};

/// What the servers agree on.
#[derive(Default)]
struct Model {
    /// Per session: how many of its writes are applied.
    sessions: BTreeMap<ClientId, u64>,
    /// Everything applied, in order.
    applied: Vec<String>,
    last_eviction: u64,
}

impl Model {
    fn index(&self) -> u64 {
        self.applied.len() as u64
    }

    /// The leader's judgement; applies the write if it says `Ok`.
    fn apply(&mut self, attempt: &Attempt) -> Status {
        let envelope = &attempt.envelope;
        let done = match self.sessions.get(&envelope.client) {
            Some(&done) => done,
            None if envelope.opened.0 < self.last_eviction => return Status::SessionExpired,
            None => 0,
        };
        if envelope.sequence <= done {
            return Status::Ok;
        }
        if envelope.sequence > done + 1 {
            return Status::Gap;
        }
        self.sessions.insert(envelope.client, envelope.sequence);
        self.applied.push(attempt.command.clone());
        Status::Ok
    }

    fn evict_all(&mut self) {
        self.sessions.clear();
        // The eviction itself is an entry.
        self.applied.push(String::new());
        self.last_eviction = self.index();
    }
}

struct Chaos {
    script: Script,
    model: Model,
    /// Attempts that wait at a server, by connection, oldest first; they outlive the connection.
    waiting: BTreeMap<u64, VecDeque<Attempt>>,
    random: u64,
    /// Servers lag, so that attempts outlive their connections; and commands are often bad.
    is_slow: bool,
}

impl Chaos {
    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    /// The oldest attempt of a random connection meets its fate.
    fn serve_one(&mut self, is_calm: bool) {
        self.waiting.retain(|_, attempts| !attempts.is_empty());
        if self.waiting.is_empty() {
            return;
        }
        let at = self.draw(self.waiting.len() as u64) as usize;
        let attempt = self.waiting.values().nth(at).expect("counted")[0].clone();
        let is_alive = self.script.is_alive(attempt.link, attempt.connection);
        // What is left of a dead connection turns up late.
        if !is_alive && self.is_slow && !is_calm && self.draw(30) > 0 {
            return;
        }
        let attempts = self.waiting.get_mut(&attempt.connection).expect("just seen");
        attempts.pop_front();
        let hint = NodeId(self.script.leader);
        let trouble = if is_calm { 99 } else { self.draw(40) };
        let status = match trouble {
            _ if attempt.node != self.script.leader => Status::NotLeader,
            _ if attempt.command.starts_with("bad") => Status::Invalid,
            0 => Status::Busy,
            1 => Status::NotReady,
            // Leadership is lost: what was proposed survives, or doesn't.
            2 => {
                if self.draw(2) == 0 {
                    self.model.apply(&attempt);
                }
                self.script.leader = self.draw(3) as u32 + 1;
                Status::Unknown
            }
            // The connection breaks before the reply.
            3 => {
                if self.draw(2) == 0 {
                    self.model.apply(&attempt);
                }
                if is_alive {
                    self.script.cut(attempt.link);
                }
                return;
            }
            _ => self.model.apply(&attempt),
        };
        if is_alive {
            let (revision, index) = (Revision(0), Index(0));
            let (call, body) = (attempt.call, attempt.command.as_bytes());
            let reply = match status {
                Status::Ok => Reply { call, status, flags: 0, revision, index, hint, body },
                _ => Reply::refusal(call, status, hint),
            };
            self.script.answer_on(attempt.link, &reply);
        }
    }

    fn step(&mut self, is_calm: bool) {
        self.script.applied = self.model.index();
        self.script.run_for(Ticks::from_millis(1));
        for attempt in std::mem::take(&mut self.script.attempts) {
            self.waiting.entry(attempt.connection).or_default().push_back(attempt);
        }
        let most = if self.is_slow { 3 } else { 8 };
        let served = if is_calm { 100 } else { self.draw(most) };
        for _ in 0..served {
            self.serve_one(is_calm);
        }
        if !is_calm {
            match self.draw(if self.is_slow { 50 } else { 200 }) {
                0 => self.script.leader = self.draw(3) as u32 + 1,
                1 => self.model.evict_all(),
                2 => {
                    let node = self.draw(3) as u32 + 1;
                    self.script.kill(node);
                    self.script.revive(node);
                }
                _ => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400,
        failure_persistence: None, ..ProptestConfig::default() })]

    /// Done is applied once, not done is never applied, unknown at most once; whatever is applied
    /// is applied in the order of submission; and everything ends.
    #[test]
    fn promises_hold_in_trouble(seed in 1u64.., writes in 1usize..150) {
        let mut chaos = Chaos {
            script: Script::new(3, 1),
            model: Model::default(),
            waiting: BTreeMap::new(),
            random: seed,
            is_slow: seed % 2 == 0,
        };
        let mut calls = Vec::new();
        while calls.len() < writes {
            for _ in 0..chaos.draw(6) {
                let bad = if chaos.is_slow { 4 } else { 20 };
                let kind = if chaos.draw(bad) == 0 { "bad" } else { "put" };
                let command = format!("{kind}{}", calls.len());
                let timeout = Ticks::from_millis(5 << chaos.draw(10));
                calls.push((chaos.script.write_within(&command, timeout), command));
            }
            chaos.step(false);
        }
        for _ in 0..1_000 {
            chaos.step(false);
        }
        for _ in 0..5_000 {
            chaos.step(true);
            if chaos.script.core.calls_under_way() == 0 {
                break;
            }
        }
        prop_assert_eq!(chaos.script.core.calls_under_way(), 0, "everything ends");
        // What is left of late attempts finds its number used, or its gap.
        for _ in 0..10_000 {
            chaos.serve_one(true);
        }
        for (call, command) in &calls {
            let count = chaos.model.applied.iter().filter(|it| *it == command).count();
            match chaos.script.fate(*call) {
                Some(Fate::Done(body) | Fate::Below(body, _)) => {
                    prop_assert_eq!(&body, command);
                    prop_assert_eq!(count, 1, "{} is done", command);
                }
                Some(Fate::NotDone(_)) => prop_assert_eq!(count, 0, "{} is not done", command),
                Some(Fate::Unknown(_)) => prop_assert!(count <= 1, "{} is applied twice", command),
                None => prop_assert!(false, "{} never completed", command),
            }
        }
        let order: Vec<usize> = chaos
            .model
            .applied
            .iter()
            .filter_map(|command| command.strip_prefix("put"))
            .map(|number| number.parse().expect("a number"))
            .collect();
        prop_assert!(order.is_sorted(), "applied out of order: {:?}", order);
    }
}
