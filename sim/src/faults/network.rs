//! Faults of the network: ways that are blocked or slow, and connections that are torn.

use std::collections::BTreeSet;

use ringraft_types::Ticks;

use crate::faults::{FaultKind, Lasting};
use crate::world::World;

impl World {
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
