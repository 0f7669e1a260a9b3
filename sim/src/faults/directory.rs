//! Data directories that are lost: formatted anew, put back from a copy, or without one of their
//! logs.

use crate::audit;
use crate::damage;
use crate::world::World;

impl World {
    /// A doomed node comes back with an empty directory, or with an older copy of it. Peers that
    /// never met it, or didn't since the copy was taken, can't tell (`docs/ASSUMPTIONS.md`): then
    /// it isn't done.
    pub(super) fn lose_directory(&mut self, is_copy: bool) -> bool {
        if self.options.doomed.is_empty() {
            return false;
        }
        let node = self.base.random.pick(&self.options.doomed);
        if !self.nodes[node].is_up || self.lost.contains(&node) {
            return false;
        }
        if is_copy && !self.copies.contains_key(&node) {
            let copy = self.nodes[node].copy();
            self.copies.insert(node, copy);
            self.say(format!("node {}: its directory is copied", node + 1));
            // What the copy lacks is the lives that come now.
            self.end_and_start(node, None, "its directory is copied");
            return false;
        }
        let copy = is_copy.then(|| self.copies[&node].clone());
        let newest = copy.as_ref().map_or(0, |copy| copy.starts.newest().number);
        if !self.is_met_since(node, newest) {
            return false;
        }
        self.end_and_start(node, Some(0), "its directory is lost");
        self.nodes[node].put_back(copy);
        self.damaged.insert(node);
        self.lost.insert(node);
        self.say(format!("node {}: {}", node + 1, if is_copy { "put back" } else { "wiped" }));
        true
    }

    /// A doomed node comes back without one of its logs. It knows that it had it, and must not start.
    pub(super) fn lose_log(&mut self) -> bool {
        if self.options.doomed.is_empty() {
            return false;
        }
        let node = self.base.random.pick(&self.options.doomed);
        let lane = self.base.random.below(u64::from(self.options.shards)) as usize;
        if !self.end_and_start(node, Some(0), "a log is lost") || !self.nodes[node].begun[lane] {
            return false;
        }
        damage::empty(self.nodes[node].disk_mut(lane));
        self.damaged.insert(node);
        self.say(format!("disk {}/{lane}: its files are gone", node + 1));
        true
    }

    /// Whether every other node, but for those that lost their directory too, wrote down that it
    /// met this one in a later start, on each of its shards.
    fn is_met_since(&self, node: usize, start: u64) -> bool {
        let (id, incarnation) = (self.nodes[node].id, self.nodes[node].incarnation);
        let others = (0..self.nodes.len()).filter(|at| *at != node && !self.lost.contains(at));
        let lanes = 0..usize::from(self.options.shards);
        others.flat_map(|other| lanes.clone().map(move |lane| (other, lane))).all(
            |(other, lane)| {
                let other = &self.nodes[other];
                let disk = other.disk(lane).flushed();
                let met =
                    audit::try_open(disk, other.log_settings(lane)).map(|found| found.met(id));
                met.ok()
                    .flatten()
                    .is_some_and(|met| met.incarnation == incarnation && met.start.number > start)
            },
        )
    }
}
