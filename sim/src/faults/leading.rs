//! Groups are handed over, and shards kept from leading, at any time and to anybody.

use ringraft_types::{GroupId, NodeId};

use crate::faults::Lasting;
use crate::node::Place;
use crate::world::World;

impl World {
    /// Asks a leader to hand over: mostly to whom it likes, or to any node. Returns whether it began.
    pub(super) fn hand_over(&mut self) -> bool {
        let leaders = self.leaders();
        if leaders.is_empty() {
            return false;
        }
        let (node, group): (usize, GroupId) = self.base.random.pick(&leaders);
        let any = NodeId(self.base.random.below(self.nodes.len() as u64) as u32 + 1);
        let to = self.base.random.coin().then_some(any);
        let lane = (group.0 % u64::from(self.options.shards)) as usize;
        let Self { nodes, base, .. } = self;
        if nodes[node].is_paused {
            return false;
        }
        let now = nodes[node].clock.read(base.now);
        let Place::Running(running) = &mut nodes[node].places[lane] else { return false };
        // A leader whose disk fails says so in its next turn.
        let Ok(asked) = running.shard.hand_over(now, group, to) else { return false };
        nodes[node].wake(base, lane, base.now);
        let id = self.nodes[node].id;
        self.say(format!("node {id}, group {group}: to be handed over to {to:?}: {asked:?}"));
        if asked.is_err() {
            self.base.count("transfers refused");
        }
        asked.is_ok()
    }

    /// The groups of one of a node's shards don't stand for a while.
    pub(super) fn pause_elections(&mut self, node: usize) -> bool {
        let lane = self.base.random.below(u64::from(self.options.shards)) as usize;
        let is_done = self.set_standing(node, lane, true);
        if is_done {
            self.last(Lasting::NotStanding(node, lane), 50, 4_000);
        }
        is_done
    }

    /// They stand again, if they were not started anew meanwhile.
    pub(super) fn stand_again(&mut self, node: usize, lane: usize) {
        self.set_standing(node, lane, false);
    }

    fn set_standing(&mut self, node: usize, lane: usize, is_paused: bool) -> bool {
        let Self { nodes, base, .. } = self;
        if !nodes[node].is_up || is_paused && nodes[node].is_paused {
            return false;
        }
        let now = nodes[node].clock.read(base.now);
        let Place::Running(running) = &mut nodes[node].places[lane] else { return false };
        if running.shard.pause(now, is_paused).is_err() {
            return false;
        }
        nodes[node].wake(base, lane, base.now);
        let what = if is_paused { "paused" } else { "resumed" };
        self.say(format!("node {}/{lane}: elections are {what}", node + 1));
        true
    }
}
