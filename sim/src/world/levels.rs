//! What nodes say of how far entries have come, held against what disks hold and nodes know at that
//! moment.

use std::collections::{BTreeMap, BTreeSet};

use ringraft_net::barrier_wire::BarrierReply;
use ringraft_types::{Configuration, GroupId, Index, Level, NodeId, Status, Term};

use super::World;
use crate::audit;

/// So many answers of a run that tell of disks are all held against them; of those after them one in
/// [`LOOKED_AT_LATER`]. To look at all disks takes longer than what leads to an answer.
const LOOKED_AT_FIRST: u64 = 32;
const LOOKED_AT_LATER: u64 = 16;

impl World {
    /// A node tells a client that an entry is at a level: is it?
    ///
    /// # Panics
    /// If it isn't (RD-06).
    pub(super) fn told_level(
        &mut self,
        node: usize,
        lane: usize,
        group: GroupId,
        reply: &BarrierReply,
    ) {
        // What came over the mesh was said a moment ago: who votes may be others now.
        let is_from_here = group.0 % u64::from(self.options.shards) == lane as u64;
        if reply.status != Status::Ok || !is_from_here {
            return;
        }
        self.base.count("levels reached");
        let reached = self.base.counts["levels reached"];
        let is_looked_at = reached <= LOOKED_AT_FIRST || reached.is_multiple_of(LOOKED_AT_LATER);
        if !is_looked_at && !reply.level.is_of_knowledge() {
            return;
        }
        let Some(running) = self.nodes[node].lane(lane) else { return };
        let Some(members) = running.shard.members(group) else { return };
        let configuration = members.configuration.clone();
        let index = reply.reached;
        let lists = [configuration.voters(), configuration.outgoing()];
        let lacks = |lists: &[&[NodeId]], have: &BTreeSet<NodeId>| -> Vec<NodeId> {
            let all = lists.iter().copied().flatten().copied();
            all.filter(|node| !have.contains(node)).collect()
        };
        let is_majority = |voters: &&[NodeId], have: &BTreeSet<NodeId>| {
            let count = voters.iter().filter(|node| have.contains(node)).count();
            voters.is_empty() || count > voters.len() / 2
        };
        let is_enough = |voters: &&[NodeId], have: &BTreeSet<NodeId>| {
            let count = voters.iter().filter(|node| have.contains(node)).count();
            voters.is_empty() || count >= self.options.enough(voters.len())
        };
        let have = match reply.level.is_of_knowledge() {
            true => self.who_knows(group, lane, index),
            false => self.who_holds(&configuration, group, lane, index),
        };
        let is_so = match reply.level {
            // It is committed, perhaps by those who voted before: while voters change, the others
            // needn't have it yet.
            Level::Majority => {
                lists.iter().any(|voters| !voters.is_empty() && is_enough(voters, &have))
            }
            Level::MajorityCommitted => lists.iter().all(|voters| is_majority(voters, &have)),
            Level::All | Level::AllCommitted => lacks(&lists, &have).is_empty(),
        };
        assert!(
            is_so,
            "RD-06: node {} says that entry {index} of group {group} is at level {}, and of the \
             voters {lists:?} it isn't so of {:?}",
            self.nodes[node].id,
            reply.level,
            lacks(&lists, &have)
        );
    }

    /// Which voters' disks hold an entry, the same one, counting only what is flushed. What a
    /// damaged disk held counts, and so does what a directory held that was lost.
    fn who_holds(
        &self,
        configuration: &Configuration,
        group: GroupId,
        lane: usize,
        index: Index,
    ) -> BTreeSet<NodeId> {
        let mut holders: BTreeSet<NodeId> = BTreeSet::new();
        let mut held: BTreeMap<Term, BTreeSet<NodeId>> = BTreeMap::new();
        for id in configuration.all_voters() {
            let at = id.0 as usize - 1;
            let node = &self.nodes[at];
            if self.damaged.contains(&at) || self.lost.contains(&at) {
                holders.insert(node.id);
                continue;
            }
            let found = audit::open(node.disk(lane).flushed(), node.log_settings(lane)).recovered;
            let mut heads = found.snapshots.iter().filter(|head| head.group == group);
            if heads.any(|head| head.last.index >= index) {
                holders.insert(node.id);
            } else if let Some(of_group) = found.groups.get(&group)
                && let Some(term) = audit::term_at(of_group, index)
            {
                held.entry(term).or_default().insert(node.id);
            }
        }
        // Another entry at the same place, which will be removed, doesn't count.
        let most = held.into_values().max_by_key(BTreeSet::len).unwrap_or_default();
        holders.union(&most).copied().collect()
    }

    /// Who knows that an entry is committed, or knew it in an earlier life and said so.
    fn who_knows(&self, group: GroupId, lane: usize, index: Index) -> BTreeSet<NodeId> {
        let knows = |node: &crate::node::Node| {
            let now = node.clock.read(self.base.now);
            let knows_now = node.lane(lane).is_some_and(|running| {
                let mut groups = running.shard.status(now).groups.into_iter();
                groups.any(|it| it.group == group && it.commit >= index)
            });
            knows_now || self.snoop.said_commit(node.id, group) >= index
        };
        self.nodes.iter().filter(|node| knows(node)).map(|node| node.id).collect()
    }
}
