//! Nodes that lost what was durable get it again: what they say of it, and what they owe in the
//! end. Only a node that may not count at all is excused.

use std::collections::{BTreeMap, BTreeSet};

use ringraft_net::status::GroupStatus;
use ringraft_types::{GroupId, Index, LogId, NodeId};
use ringraft_wal::Recovered;

use super::World;
use crate::audit;

/// What is known of nodes that lost something.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    /// Nodes that go on into the calm, and have to be whole there.
    pub(super) mending: BTreeSet<usize>,
    /// Shards that take no part: what they knew of the node is lost, or nobody knows what.
    silenced: BTreeSet<(usize, usize)>,
    /// Nodes whose log refused the last start.
    refused: BTreeSet<usize>,
    /// By shard: how often its disk had been damaged when it met rot last.
    met: BTreeMap<(usize, usize), u64>,
    /// Groups of a life that asked everybody in vain.
    given_up: BTreeSet<(usize, u64, GroupId)>,
    /// By shard: how often its disk was damaged before it was read.
    damages: BTreeMap<(usize, usize), u64>,
}

impl World {
    /// A node's disks are about to be read.
    pub(super) fn note_damages(&mut self, node: usize) {
        for lane in 0..usize::from(self.options.shards) {
            let damages = self.nodes[node].disk(lane).damages;
            self.repairs.damages.insert((node, lane), damages);
        }
    }

    /// A node's log was read.
    pub(super) fn note_recovered(&mut self, node: usize, lane: usize, recovered: &Recovered) {
        self.repairs.refused.remove(&node);
        if recovered.node_damaged || recovered.unknown_damage {
            self.repairs.silenced.insert((node, lane));
        } else {
            self.repairs.silenced.remove(&(node, lane));
        }
    }

    /// A node's log can't be used.
    pub(super) fn note_refused(&mut self, node: usize) {
        self.repairs.refused.insert(node);
    }

    /// A node can't read back what it holds of a group.
    pub(super) fn note_unreadable(&mut self, node: usize, lane: usize) {
        let damages = self.nodes[node].disk(lane).damages;
        self.repairs.met.insert((node, lane), damages);
    }

    /// A node says that it can read again what rot took while it ran: so its disk must hold the first
    /// and the last of those entries if the power goes now (I-13).
    pub(super) fn says_mended(
        &mut self,
        node: usize,
        lane: usize,
        group: GroupId,
        ends: [Index; 2],
    ) {
        self.base.count("rot mended while a node ran");
        let life = self.nodes[node].life;
        self.repairs.given_up.remove(&(node, life, group));
        let damages = self.nodes[node].disk(lane).damages;
        if self.repairs.met.get(&(node, lane)) != Some(&damages) {
            return;
        }
        let at = &self.nodes[node];
        let committed = at.groups(&self.base).find(|one| one.group == group);
        let committed = committed.map_or(Index::ZERO, |one| one.commit);
        let Ok(mut found) = audit::try_open(at.disk(lane).flushed(), at.log_settings(lane)) else {
            return;
        };
        if found.recovered.unknown_damage {
            return;
        }
        for index in ends.into_iter().filter(|&index| index > Index::ZERO && index <= committed) {
            assert!(
                found.holds(group, index),
                "I-13: node {} says that it can read entry {index} of group {group} again, and its \
                 disk hasn't it",
                at.id
            );
        }
    }

    /// Nobody that a node could ask has what it can't read: it was given up for a snapshot, perhaps.
    pub(super) fn note_given_up(&mut self, node: usize, group: GroupId) {
        let life = self.nodes[node].life;
        self.repairs.given_up.insert((node, life, group));
    }

    /// Whether a group waits for entries that nobody may have any more: a start cures that, which
    /// installs a snapshot.
    fn is_excused(&self, node: usize, group: GroupId) -> bool {
        self.repairs.given_up.contains(&(node, self.nodes[node].life, group))
    }

    /// Whether a disk holds what its node read when it started, and what was written since.
    fn is_as_read(&self, node: usize, lane: usize) -> bool {
        self.repairs.damages.get(&(node, lane)) == Some(&self.nodes[node].disk(lane).damages)
    }

    /// A node says that a group is whole again: so it has to find it if the power goes now, with
    /// all that it ever promised (I-13).
    pub(super) fn repaired(&mut self, node: usize, lane: usize, group: GroupId) {
        self.base.count("groups repaired");
        if !self.is_as_read(node, lane) {
            return;
        }
        let at = &self.nodes[node];
        let found = audit::try_open(at.disk(lane).flushed(), at.log_settings(lane));
        let found = found.unwrap_or_else(|error| {
            panic!("I-13: node {} says that group {group} is whole, and its log: {error}", at.id)
        });
        let heads = || found.recovered.snapshots.iter().filter(|head| head.group == group);
        let log = found.recovered.groups.get(&group);
        let (tail, floor) =
            (log.and_then(|log| log.tail.as_ref()), log.and_then(|log| log.damaged));
        let is_covered = |floor: LogId| {
            // One of unknown height is found until a snapshot is named again: the group goes on to
            // another term then, and is whole in that.
            let is_unknown = floor.index == Index(u64::MAX);
            is_unknown
                || heads().any(|head| {
                    let last = head.last.index;
                    // What lies behind the last hole is enough with a snapshot of all before it.
                    let goes_on =
                        tail.is_some_and(|it| it.first <= last.next() && it.last >= floor.index);
                    last >= floor.index || head.last >= floor || goes_on
                })
        };
        assert!(
            floor.is_none_or(is_covered),
            "I-13: node {} says that group {group} is whole, and would find at a start that it \
             owes {floor:?}",
            at.id
        );
        let shard = (lane as u16, self.options.shards);
        let mut saved: BTreeMap<GroupId, Index> = BTreeMap::new();
        for head in &found.recovered.snapshots {
            let newest = saved.entry(head.group).or_default();
            *newest = head.last.index.max(*newest);
        }
        self.snoop.recovered(at.id, shard, &found.recovered, &saved, true);
    }

    /// The doomed nodes that must be whole in the end, and the groups in question.
    pub(super) fn mended(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let nodes = self.repairs.mending.iter().copied();
        let nodes = nodes.filter(|&node| {
            self.nodes[node].lacked.is_none() && !self.repairs.refused.contains(&node)
        });
        let shards = usize::from(self.options.shards);
        nodes
            .flat_map(move |node| (0..shards).map(move |lane| (node, lane)))
            .filter(|at| !self.repairs.silenced.contains(at))
    }

    /// What keeps the nodes that lost something from being as the others are, given how far those
    /// are, if anything does.
    pub(super) fn still_damaged(
        &self,
        is_end: impl Fn(&GroupStatus) -> Result<(), NodeId>,
    ) -> Option<String> {
        for (at, lane) in self.mended() {
            let node = &self.nodes[at];
            let now = node.clock.read(self.base.now);
            let Some(running) = node.lane(lane) else {
                return Some(format!("node {} doesn't serve, and only lost entries", node.id));
            };
            if !running.shard.is_quiet() {
                // It may have applied what its own disk doesn't hold yet.
                return Some(format!("node {} is still writing", node.id));
            }
            let groups = running.shard.status(now).groups;
            let excused = groups.iter().filter(|one| self.is_excused(at, one.group)).count() as u64;
            if running.shard.repairs_under_way() > excused {
                return Some(format!("node {} can't read what it holds", node.id));
            }
            for group in groups {
                if self.is_excused(at, group.group) {
                    continue;
                }
                if group.damaged {
                    return Some(format!("node {} isn't repaired: {group:?}", node.id));
                }
                if let Err(other) = is_end(&group) {
                    return Some(format!("nodes {other} and {} differ: {group:?}", node.id));
                }
            }
        }
        None
    }

    /// The groups whose repair can be held against what a node's disk holds: by node and shard. Only
    /// of those that serve: a node that refuses to start may be trying to just now.
    pub(super) fn proven(&self) -> Vec<(usize, usize)> {
        let is_proven = |&(node, lane): &(usize, usize)| {
            self.nodes[node].lane(lane).is_some() && self.is_as_read(node, lane)
        };
        self.mended().filter(is_proven).collect()
    }
}
