//! Who leads when all is calm: whoever has the highest priority, each of them its part, and nothing
//! moves any more (decision 0026).

use std::collections::BTreeMap;

use ringraft_net::status::GroupRole;
use ringraft_shard::LeadRules;
use ringraft_types::Ticks;

use super::World;
use crate::faults::FaultKind;

/// Leaders are where they belong after so many election timeouts of calm: the longest doubt of those
/// that are running, what was heard before, the calm that is waited for before each step, one step
/// for priority and two to spread, each of which may meet one target that doesn't take over.
const SPREAD_TIMEOUTS: u64 = 80 + 4 + 5 * 6 + 80;
/// And for so long nothing moves then.
const STILL_TIMEOUTS: u64 = 15;

impl World {
    /// Leaders come to where they belong, and stay. Only where every node votes in every group, and
    /// none is damaged: else who may lead what isn't known here.
    pub(super) fn must_spread(&mut self, quorum: &[usize]) {
        let is_known = self.options.doomed.is_empty()
            && !self.options.faults.contains_key(&FaultKind::Members)
            && self.options.lead.iter().any(|rules| *rules != LeadRules::default());
        // Waiting costs, with long timeouts and with many groups on many nodes.
        let is_short = self.options.raft.election_timeout <= Ticks::from_millis(150);
        let rows = self.options.groups * quorum.len() as u64;
        if !is_known || quorum.len() < 2 || rows > 12 || !is_short {
            return;
        }
        // Clocks may differ.
        let (timeout, rates) = (self.options.raft.election_timeout, self.options.clock_rate);
        let longer = |timeouts: u64| Ticks(timeouts * timeout.0 * rates.1 / rates.0);
        let until = self.base.now.after(longer(SPREAD_TIMEOUTS));
        // As long as somebody is doubted, the others' parts are different ones.
        self.run_until(until, |_| false);
        if let Some(what) = self.misplaced(quorum) {
            panic!("EL-07: {SPREAD_TIMEOUTS} election timeouts after the last write, {what}");
        }
        let moved = self.moved(quorum);
        let until = self.base.now.after(longer(STILL_TIMEOUTS));
        self.run_until(until, |_| false);
        let again = self.moved(quorum);
        assert_eq!(again, moved, "EL-07: leaders are where they belong, and move again");
        assert_eq!(self.misplaced(quorum), None, "EL-07: leaders moved without a reason");
        self.base.count("runs with leaders spread");
    }

    /// How many groups were handed over to be where they belong.
    fn moved(&self, quorum: &[usize]) -> u64 {
        let lanes = quorum.iter().flat_map(|&node| self.nodes[node].lanes());
        lanes.map(|lane| lane.shard.metrics().transfers_spread).sum()
    }

    /// A shard whose groups aren't led by those that should, each its part.
    fn misplaced(&self, quorum: &[usize]) -> Option<String> {
        let rules = &self.options.lead;
        let highest = quorum.iter().map(|&node| rules[node].priority).max()?;
        let mut led: BTreeMap<u16, BTreeMap<usize, u64>> = BTreeMap::new();
        for &node in quorum {
            let now = self.nodes[node].clock.read(self.base.now);
            for lane in self.nodes[node].lanes() {
                let status = lane.shard.status(now);
                let rows = status.groups.iter().filter(|row| row.role == GroupRole::Leader);
                let count = rows.count() as u64;
                if count > 0 && rules[node].priority < highest {
                    return Some(format!("node {} leads {count}, of low priority", node + 1));
                }
                if rules[node].priority == highest {
                    led.entry(status.shard.0).or_default().insert(node, count);
                }
            }
        }
        if !rules[quorum[0]].spreads {
            return None;
        }
        let is_even = |led: &BTreeMap<usize, u64>| {
            led.values().max().copied().unwrap_or(0) <= led.values().min().copied().unwrap_or(0) + 1
        };
        let uneven = led.iter().find(|(_, led)| !is_even(led));
        uneven.map(|(shard, led)| format!("shard {shard} leads unevenly: {led:?}"))
    }
}
