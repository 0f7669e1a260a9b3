//! Where groups are when all is calm: as the system group says (decision 0033).

use ringraft_net::status::{GroupRole, GroupStatus};
use ringraft_types::{GroupId, NodeId, Ticks};

use super::World;
use crate::faults::FaultKind;

/// So long may it take until every node has what it is to have, and each group is led.
const PLACE_TIME: Ticks = Ticks::from_millis(60_000);

impl World {
    /// Groups that were deleted are nowhere, and those that were created are on their members and
    /// led.
    pub(super) fn must_place(&mut self, quorum: &[usize]) {
        if !self.options.faults.contains_key(&FaultKind::Groups) {
            return;
        }
        let until = self.base.now.after(PLACE_TIME);
        if !self.run_until(until, |world| world.displaced(quorum).is_none()) {
            let what = self.displaced(quorum).expect("there is something");
            panic!("MG-02: {PLACE_TIME} us after the last write, {what}");
        }
        self.base.count("runs with groups placed");
    }

    /// A group that isn't where it is to be.
    fn displaced(&self, quorum: &[usize]) -> Option<String> {
        // One with a damaged disk leads as long as it can.
        let reached = || quorum.iter().chain(&self.options.doomed).copied();
        let leader_of = |group: GroupId| {
            let is_led = |row: GroupStatus| row.group == group && row.role == GroupRole::Leader;
            reached().find(|&node| self.nodes[node].groups(&self.base).any(is_led))
        };
        let Some(leader) = leader_of(GroupId::SYSTEM) else {
            return Some("nobody leads the system group".to_owned());
        };
        let home = (GroupId::SYSTEM.0 % u64::from(self.options.shards)) as usize;
        let lane = self.nodes[leader].lane(home)?;
        let Some(placement) = lane.shard.placement() else {
            return self.placed_any(leader).then(|| "its leader hasn't read it".to_owned());
        };
        // Who isn't a member of it isn't told.
        let mut told = quorum.iter().copied();
        let told: Vec<usize> = told
            .by_ref()
            .filter(|&node| self.is_member(self.nodes[node].id, GroupId::SYSTEM))
            .collect();
        for &node in &told {
            for row in self.nodes[node].groups(&self.base) {
                if placement.is_deleted(row.group) {
                    return Some(format!(
                        "node {} has group {}, which is deleted",
                        node + 1,
                        row.group
                    ));
                }
            }
        }
        let live = placement
            .groups
            .iter()
            .filter(|(_, record)| record.as_ref().is_some_and(|record| !record.is_deleted));
        for (&group, _) in live {
            if leader_of(group).is_none() {
                // Its members may be others than the quorum's.
                if self.options.faults.contains_key(&FaultKind::Members) {
                    continue;
                }
                return Some(format!("nobody leads group {group}"));
            }
            for &node in &told {
                let id = self.nodes[node].id;
                let has = self.nodes[node].groups(&self.base).any(|row| row.group == group);
                if !has && self.is_a_member(id, group) {
                    return Some(format!("node {id} doesn't have group {group}"));
                }
            }
        }
        None
    }

    /// Whether a node is a member as all of the cluster's that begin groups are, or as its leader says.
    fn is_a_member(&self, node: NodeId, group: GroupId) -> bool {
        node.0 <= self.options.voters && self.is_member(node, group)
    }

    /// Whether the system group has anything to be read.
    fn placed_any(&self, node: usize) -> bool {
        let mut rows = self.nodes[node].groups(&self.base);
        rows.any(|row| row.group == GroupId::SYSTEM && row.revision.0 > 0)
    }
}
