//! Faults of the network: ways that are blocked or slow, and connections that are torn.

use std::collections::BTreeSet;

use ringraft_types::Ticks;

use crate::client::Insists;
use crate::faults::{FaultKind, Lasting};
use crate::world::World;

impl World {
    pub(super) fn leave_alone(&mut self) -> bool {
        let leaders = self.leaders();
        let (nodes, clients) = (self.nodes.len(), self.clients.len());
        if leaders.is_empty() || nodes < 3 || clients < 2 {
            return false;
        }
        let (leader, group) = self.base.random.pick(&leaders);
        let beside = self.base.random.below(clients as u64) as usize;
        let hears = self.base.random.coin();
        let rate = self.base.random.pick(&[50_000, 200_000, 500_000, 1_000_000]);
        self.set_rate(leader, rate);
        let (mut blocked, mut slow) = (Vec::new(), Vec::new());
        for other in (0..nodes + clients).filter(|&at| at != leader && at != nodes + beside) {
            blocked.push((leader, other));
            if hears {
                let by = self.base.random.pick(&[50, 300, 1_000]);
                self.network.slow(other, leader, Ticks::from_millis(by));
                slow.push((other, leader));
            } else {
                blocked.push((other, leader));
            }
        }
        let text =
            format!("node {} leads group {group} alone, client {beside} beside it", leader + 1);
        self.say(text);
        let span = Ticks::from_millis(self.base.random.between(500, 4_000));
        let until = self.base.now.after(span);
        for (at, client) in self.clients.iter_mut().enumerate() {
            client.insist(&mut self.base, Insists { group, reads: at == beside, until });
        }
        // Answers to what it said last are on their way for long when nobody hears it any more.
        let soon = if hears { self.base.random.pick(&[20, 100, 300]) } else { 1 };
        let millis = span.0 / 1_000;
        self.last(Lasting::Soon(blocked, millis), soon, soon);
        self.last(Lasting::Slow(slow), soon + millis, soon + millis);
        true
    }

    pub(super) fn inflict_on_network(&mut self, kind: FaultKind, node: usize) -> bool {
        let nodes = self.nodes.len();
        let hosts = nodes + self.clients.len();
        let mut ways = BTreeSet::new();
        match kind {
            FaultKind::Partition | FaultKind::OneWay => {
                let is_one_way = kind == FaultKind::OneWay;
                let here: Vec<bool> = (0..hosts).map(|_| self.base.random.coin()).collect();
                for from in 0..hosts {
                    for to in 0..hosts {
                        if here[from] != here[to] && (here[from] || !is_one_way) {
                            ways.insert((from, to));
                        }
                    }
                }
            }
            FaultKind::Isolate => {
                let (hears, is_heard) = self.base.random.pick(&[
                    (false, false),
                    (false, false),
                    (true, false),
                    (false, true),
                ]);
                for other in (0..hosts).filter(|&other| other != node) {
                    if !hears {
                        ways.insert((other, node));
                    }
                    if !is_heard {
                        ways.insert((node, other));
                    }
                }
            }
            FaultKind::Clog => {
                for _ in 0..self.base.random.between(1, 3) {
                    let from = self.base.random.below(hosts as u64) as usize;
                    let to = self.base.random.below(hosts as u64) as usize;
                    ways.insert((from, to));
                }
            }
            FaultKind::SlowLink => {
                let by = Ticks::from_millis(self.base.random.pick(&[5, 50, 300]));
                for from in 0..hosts {
                    if self.base.random.coin() {
                        self.network.slow(from, node, by);
                        ways.insert((from, node));
                    }
                }
                self.say(format!("ways to node {} are slower by {by} us", node + 1));
                self.last(Lasting::Slow(ways.into_iter().collect()), 100, 4_000);
                return true;
            }
            _ => {
                let half_open = kind == FaultKind::HalfOpen;
                self.say(String::from("a connection is torn"));
                return self.network.tear(&mut self.base, half_open);
            }
        }
        ways.retain(|(from, to)| from != to);
        if ways.is_empty() {
            return false;
        }
        self.say(format!("blocked: {ways:?}"));
        for &(from, to) in &ways {
            self.network.block(&mut self.base, from, to, true);
        }
        if kind == FaultKind::Clog {
            for way in ways {
                self.last(Lasting::Blocked(vec![way]), 50, 4_000);
            }
        } else {
            let long = self.base.random.pick(&[300, 2_000, 2_000, 12_000]);
            self.last(Lasting::Blocked(ways.into_iter().collect()), 50, long);
        }
        true
    }
}
