//! The liveness phase: a quorum is healed, and must serve and be alike.

use std::collections::BTreeMap;

use ringraft_net::status::{GroupRole, GroupStatus};
use ringraft_types::{GroupId, Index, NodeId, Phase, Ticks};

use super::World;
use crate::client::Client;
use crate::faults::FaultKind;
use crate::history::{Ask, Bytes, KeySet, Range};
use crate::trace::{self, What};

/// After the last fault every group must serve within this.
const SERVE_TIME: Ticks = Ticks::from_millis(30_000);
/// And so much for each group: a node that lacks all of them is given their snapshots one after the
/// other, at a pace that the run drew, beside those that are taken at it (seed 974).
const INSTALL_TIME: Ticks = Ticks::from_millis(1_000);
/// After the last write all nodes of the quorum must be alike within this.
const CONVERGE_TIME: Ticks = Ticks::from_millis(20_000);

impl World {
    /// Nothing goes wrong any more, for a quorum at least: its nodes.
    pub(super) fn heal(&mut self) -> Vec<usize> {
        self.is_calm = true;
        self.audit();
        trace::note(self.base.now, What::Text(String::from("calm from now on")));
        self.mend_all();
        let all = self.nodes.len();
        let least = all / 2 + 1;
        let mut order: Vec<usize> =
            (0..all).filter(|node| !self.options.doomed.contains(node)).collect();
        self.base.random.shuffle(&mut order);
        let sound = order.len();
        let changes = self.options.faults.contains_key(&FaultKind::Members);
        let size = match self.base.random.coin() {
            // Any of them may be needed.
            _ if changes => sound,
            true => sound,
            false => self.base.random.between(least as u64, sound as u64) as usize,
        };
        let mut quorum = order[..size].to_vec();
        quorum.sort_unstable();
        self.helix(&quorum);
        for node in 0..all {
            let is_doomed = self.options.doomed.contains(&node);
            if quorum.contains(&node) || is_doomed && self.base.random.coin() {
                if is_doomed {
                    self.goes_on(node);
                }
                self.start(node);
            } else if self.base.random.coin() {
                self.stay_down.insert(node);
                if self.nodes[node].is_up {
                    self.end(node, None, "stays down");
                }
            } else {
                for other in (0..all + self.clients.len()).filter(|&other| other != node) {
                    self.network.block(&mut self.base, node, other, true);
                    self.network.block(&mut self.base, other, node, true);
                }
            }
        }
        self.point_out(&quorum);
        quorum
    }

    /// A damaged node goes on: it must disturb nobody, and be whole in the end if all it lost is
    /// entries, also if it met that rot while it ran, and doesn't start anew.
    fn goes_on(&mut self, node: usize) {
        if !self.lost.contains(&node) {
            self.repairs.mending.insert(node);
        }
        if self.nodes[node].is_up && self.base.random.coin() {
            self.end(node, None, "starts anew");
        }
    }

    /// A client whose only endpoints are gone for good, and that never heard of other nodes, needs
    /// a new configuration.
    pub(super) fn point_out(&mut self, quorum: &[usize]) {
        for (at, client) in self.clients.iter_mut().enumerate() {
            // One that was removed may know nobody who wasn't.
            let changes = self.options.faults.contains_key(&FaultKind::Members);
            if changes || !client.knows_any(quorum) {
                let text = format!("client {at} knows none of the quorum, and is told");
                trace::note(self.base.now, What::Text(text));
                client.begin_at(&mut self.base, &mut self.network, quorum);
            }
        }
    }

    pub(super) fn must_serve(&mut self) {
        let now = self.base.now;
        for client in &mut self.clients {
            client.count_from(now);
        }
        let patience = SERVE_TIME.after(Ticks(INSTALL_TIME.0 * self.options.groups));
        let until = now.after(patience);
        let mut missing = self.unserved();
        while !missing.is_empty() {
            assert!(
                self.base.now < until,
                "liveness: groups {missing:?} don't serve {patience} us after the last fault:\n{}",
                self.stand(&missing).join("\n")
            );
            // Chance may leave a group out.
            for (at, &group) in missing.iter().enumerate() {
                let client = at % self.clients.len();
                self.clients[client].send_to(&mut self.base, group);
            }
            let next = self.base.now.after(Ticks::from_millis(3_000)).min(until);
            self.run_until(next, |world| world.unserved().is_empty());
            missing = self.unserved();
        }
    }

    /// How these groups stand on every node that runs.
    fn stand(&self, groups: &[GroupId]) -> Vec<String> {
        let mut rows = Vec::new();
        for node in &self.nodes {
            let now = node.clock.read(self.base.now);
            for lane in node.lanes() {
                let all = lane.shard.status(now).groups.into_iter();
                for group in all.filter(|row| groups.contains(&row.group)) {
                    let members = lane.shard.members(group.group);
                    let members = members.map(|it| &it.configuration);
                    rows.push(format!("    node {}: {group:?}, {members:?}", node.id));
                }
            }
        }
        rows
    }

    /// Groups of which no write, or no read, was done since it is calm. Where memory may be full a write
    /// is looked for when there is room again (FC-07).
    fn unserved(&self) -> Vec<GroupId> {
        let may_be_full = self.options.limits.data_bytes_max > 0;
        let is_served = |group: &GroupId| {
            let done = self.clients.iter().filter_map(|client| client.done().get(group));
            let (writes, reads) = done.fold((0, 0), |sum, done| (sum.0 + done.0, sum.1 + done.1));
            (writes > 0 || may_be_full) && reads > 0
        };
        (1..=self.options.groups).map(GroupId).filter(|group| !is_served(group)).collect()
    }

    pub(super) fn must_converge(&mut self, quorum: &[usize]) {
        for client in &mut self.clients {
            client.is_done = true;
        }
        let until = self.base.now.after(CONVERGE_TIME);
        let is_idle = |world: &Self| world.clients.iter().all(Client::is_idle);
        if !self.run_until(until, is_idle) {
            panic!("liveness: calls are unanswered {CONVERGE_TIME} us after the last one");
        }
        let last = until.after(Ticks(10 * CONVERGE_TIME.0));
        let (mut until, mut before) = (until, 0);
        while !self.run_until(until, |world| world.difference(quorum).is_none()) {
            // One entry for each round trip over a slow link takes its time; standing still doesn't.
            let applied = self.applied(quorum);
            let difference = self.difference(quorum).expect("there is one");
            assert!(
                applied > before && self.base.now < last,
                "liveness: {difference} {CONVERGE_TIME} us after the last write or progress"
            );
            (until, before) = (until.after(CONVERGE_TIME), applied);
        }
    }

    /// How far the nodes of a quorum, and those that get back what they lost, have come all
    /// together: entries that they hold and that they applied.
    fn applied(&self, quorum: &[usize]) -> u64 {
        let nodes = quorum.iter().chain(&self.repairs.mending);
        let groups = nodes.flat_map(|&node| self.nodes[node].groups(&self.base));
        groups.map(|group| group.last.0 + group.applied.0).sum()
    }

    /// Groups that a doomed node leads, as long as it may: it isn't known what its disk lost.
    fn led_by_doomed(&self) -> u64 {
        let doomed = self.options.doomed.iter();
        let groups = doomed.flat_map(|&node| self.nodes[node].groups(&self.base));
        let is_kept = |group: &GroupStatus| group.group < GroupId::SYSTEM;
        groups.filter(|group| is_kept(group) && group.role == GroupRole::Leader).count() as u64
    }

    /// What keeps the nodes of a quorum from being alike and at rest, if anything does.
    fn difference(&self, quorum: &[usize]) -> Option<String> {
        let mut ends: BTreeMap<GroupId, (NodeId, Index)> = BTreeMap::new();
        let mut led = self.led_by_doomed();
        for &node in quorum {
            let node = &self.nodes[node];
            let now = node.clock.read(self.base.now);
            if node.lanes().count() != usize::from(self.options.shards) {
                return Some(format!("node {} doesn't serve", node.id));
            }
            for lane in node.lanes() {
                if !lane.shard.is_quiet() {
                    return Some(format!("node {} is still writing", node.id));
                }
                for group in lane.shard.status(now).groups {
                    // Those that come and go are looked at by themselves.
                    let is_kept = group.group < GroupId::SYSTEM;
                    led += u64::from(is_kept && group.role == GroupRole::Leader);
                    if !self.is_member(node.id, group.group) {
                        continue;
                    }
                    let first = *ends.entry(group.group).or_insert((node.id, group.applied));
                    let members = lane.shard.members(group.group).expect("it has the group");
                    // A change that nobody holds ends by itself (M02).
                    if members.configuration.phase() == Phase::Joint {
                        return Some(format!("node {} is between two configurations", node.id));
                    }
                    if first.1 != group.applied || group.applied != group.last {
                        return Some(format!(
                            "nodes {} and {} differ: {group:?}",
                            first.0, node.id
                        ));
                    }
                }
            }
        }
        let is_end = |group: &GroupStatus| match ends.get(&group.group) {
            // It was deleted, or isn't begun: that is looked at by itself.
            None if group.group >= GroupId::FIRST_CREATED => Ok(()),
            Some(&(_, end)) if (group.applied, group.last) == (end, end) => Ok(()),
            first => Err(first.map_or(NodeId::ZERO, |first| first.0)),
        };
        if let Some(damaged) = self.still_damaged(is_end) {
            return Some(damaged);
        }
        let groups = self.options.groups;
        (led != groups).then(|| format!("the quorum {quorum:?} leads {led} of {groups} groups"))
    }

    /// A client reads everything there is.
    pub(super) fn read_all(&mut self) {
        let now = self.base.now;
        for group in (1..=self.options.groups).map(GroupId) {
            let ask = Ask::Range(Range::current(KeySet::Prefix(Bytes::from(""))));
            let Self { clients, base, history, .. } = self;
            clients[0].submit(base, history, group, ask);
            clients[0].wake(base, base.now);
        }
        let until = now.after(CONVERGE_TIME);
        if !self.run_until(until, |world| world.clients.iter().all(Client::is_idle)) {
            panic!("liveness: the last reads are unanswered");
        }
    }

    pub(super) fn finish(&mut self, quorum: &[usize]) {
        self.probe();
        for &node in quorum {
            let node = &self.nodes[node];
            for group in node.groups(&self.base) {
                trace::note(
                    self.base.now,
                    What::Final {
                        node: node.id,
                        group: group.group,
                        applied: group.applied.0,
                        hash: group.state_hash,
                    },
                );
            }
        }
    }
}
