//! Somebody changes the members of groups, sensibly or not: nodes are added, promoted, demoted,
//! removed and replaced, by changes that are held, carried through and given up.

use std::collections::BTreeSet;

use ringraft_net::status::GroupRole;
use ringraft_raft::Allow;
use ringraft_shard::MemberChange;
use ringraft_types::{Configuration, GroupId, NodeId, Phase};

use crate::faults::FaultKind;
use crate::node::Place;
use crate::world::World;

/// Who is to vote, and who is to listen.
struct Target {
    voters: BTreeSet<NodeId>,
    learners: BTreeSet<NodeId>,
}

impl World {
    /// Asks a leader for a change. Returns whether one was made.
    pub(super) fn change_members(&mut self) -> bool {
        let leaders = self.leaders();
        if leaders.is_empty() {
            return false;
        }
        let (node, group) = self.base.random.pick(&leaders);
        let lane = (group.0 % u64::from(self.options.shards)) as usize;
        let Place::Running(running) = &self.nodes[node].places[lane] else { return false };
        let members = running.shard.members(group).expect("it leads the group");
        let (index, known) = (members.index, members.configuration.clone());
        let target = self.target(&known);
        let Self { nodes, base, .. } = self;
        let (voters, learners) = (target.voters.into_iter(), target.learners.into_iter());
        let target = Configuration::first(voters.collect(), learners.collect());
        let (is_held, ends) = (base.random.below(4) == 0, base.random.below(3) > 0);
        let allow = Allow { majority: base.random.coin(), unready: base.random.below(8) == 0 };
        let change = match &target {
            _ if known.phase() == Phase::Held && ends => {
                if base.random.coin() {
                    MemberChange::Commit
                } else {
                    MemberChange::Abort
                }
            }
            Ok(target) => MemberChange::To { target, members: &[], is_held, allow },
            Err(_) => return false,
        };
        if nodes[node].is_paused {
            return false;
        }
        let now = nodes[node].clock.read(base.now);
        let Place::Running(running) = &mut nodes[node].places[lane] else { return false };
        // A leader whose disk fails says so in its next turn.
        let Ok(asked) = running.shard.change_members(now, group, index, change) else {
            return false;
        };
        nodes[node].wake(base, lane, base.now);
        if asked.is_ok() {
            let voters = target.as_ref().map_or(&[][..], Configuration::voters);
            self.snoop.asked(group, voters);
        }
        let id = self.nodes[node].id;
        let text = format!("node {id}, group {group}: members {target:?} from {index}: {asked:?}");
        self.say(text);
        if asked.is_err() {
            self.base.count("changes of members refused");
        }
        asked.is_ok()
    }

    /// One step from what is in force, most often.
    fn target(&mut self, known: &Configuration) -> Target {
        let all: BTreeSet<NodeId> = self.nodes.iter().map(|node| node.id).collect();
        let mut voters: BTreeSet<NodeId> = known.voters().iter().copied().collect();
        let mut learners: BTreeSet<NodeId> = known.learners().iter().copied().collect();
        let outside: Vec<NodeId> =
            all.iter().copied().filter(|&node| !known.is_member(node)).collect();
        let random = &mut self.base.random;
        let (from, to) = (list(&voters), list(&learners));
        match random.below(10) {
            0..=2 if !outside.is_empty() => {
                learners.insert(random.pick(&outside));
            }
            0..=4 if !to.is_empty() => {
                let node = random.pick(&to);
                learners.remove(&node);
                voters.insert(node);
            }
            5 => {
                let node = random.pick(&from);
                voters.remove(&node);
                learners.insert(node);
            }
            6 => {
                let node = random.pick(&[from, to].concat());
                voters.remove(&node);
                learners.remove(&node);
            }
            7 | 8 if !to.is_empty() => {
                let (old, new) = (random.pick(&from), random.pick(&to));
                voters.remove(&old);
                learners.remove(&new);
                voters.insert(new);
            }
            _ => {
                voters = all.into_iter().filter(|_| random.coin()).collect();
                learners.retain(|node| !voters.contains(node));
            }
        }
        Target { voters, learners }
    }

    /// Whether a node gets a group's log, as the group's leader knows it: all do if members don't
    /// change. Nobody, if nobody leads.
    pub(crate) fn is_member(&self, node: NodeId, group: GroupId) -> bool {
        if !self.options.faults.contains_key(&FaultKind::Members) {
            return true;
        }
        let lane = (group.0 % u64::from(self.options.shards)) as usize;
        let leads = |at: &&crate::node::Node| {
            let mut groups = at.groups(&self.base);
            groups.any(|it| it.group == group && it.role == GroupRole::Leader)
        };
        let leader =
            self.nodes.iter().filter(leads).max_by_key(|at| {
                at.groups(&self.base).find(|it| it.group == group).map(|it| it.term)
            });
        let lane = leader.and_then(|leader| leader.lane(lane));
        let members = lane.and_then(|lane| lane.shard.members(group));
        members.is_some_and(|members| members.configuration.is_member(node))
    }

    /// Every configuration of a group that some node which runs takes for one that may be in force.
    pub(crate) fn configurations(&self, group: GroupId) -> Vec<Configuration> {
        let lane = (group.0 % u64::from(self.options.shards)) as usize;
        let lanes = self.nodes.iter().filter_map(|node| node.lane(lane));
        lanes.flat_map(|lane| lane.shard.configurations(group)).collect()
    }
}

fn list(nodes: &BTreeSet<NodeId>) -> Vec<NodeId> {
    nodes.iter().copied().collect()
}
