//! Members change: at random, under every other fault, held or not, asked for by name or refused.

use crate::node::{Entry, Node};
use crate::world::{Event, World};
use ringraft_raft::{Allow, Change, ChangeRefused, Configured, Input, Plan, Raft};
use ringraft_types::{Configuration, Index, LogId, NodeId, Phase, Term};
use std::collections::BTreeMap;

/// What entries say that are configurations.
pub(crate) type Registry = BTreeMap<LogId, Configuration>;

/// What a log says, the newest last: those of its entries that are configurations.
pub(crate) fn configured<'a>(
    registry: &'a Registry,
    log: &'a [Entry],
) -> impl DoubleEndedIterator<Item = Configured> + 'a {
    let is_held =
        |id: &LogId| log.get(id.index.0 as usize - 1).is_some_and(|one| one.term == id.term);
    registry.iter().filter(move |(id, _)| is_held(id)).map(|(id, configuration)| Configured {
        index: id.index,
        configuration: configuration.clone(),
        is_of_another: false,
    })
}

/// The configuration in force at the end of a log that began with `first`.
pub(crate) fn in_force(registry: &Registry, first: &Configuration, log: &[Entry]) -> Configured {
    let first =
        || Configured { index: Index::ZERO, configuration: first.clone(), is_of_another: false };
    configured(registry, log).next_back().unwrap_or_else(first)
}

/// So many of some voters.
type Enough = fn(usize) -> usize;

fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// Whether these nodes decide: as many as are enough, and of a joint configuration both.
fn decides(configuration: &Configuration, nodes: u32, enough: Enough) -> bool {
    let are_enough = |voters: &[NodeId]| {
        voters.iter().filter(|node| nodes & 1 << node.0 != 0).count() >= enough(voters.len())
    };
    let outgoing = configuration.outgoing();
    are_enough(configuration.voters()) && (outgoing.is_empty() || are_enough(outgoing))
}

/// V6, by looking at every set of nodes: none elects by one of the two while those outside of it
/// commit by the other.
fn meet(one: &Configuration, other: &Configuration, count: usize, enough: Enough) -> bool {
    let parts = |elects: &Configuration, commits: &Configuration, nodes: u32| {
        decides(elects, nodes, majority) && decides(commits, !nodes, enough)
    };
    (0..1 << (count + 1)).all(|nodes| !parts(one, other, nodes) && !parts(other, one, nodes))
}

impl World {
    /// The newest committed configuration.
    fn committed_configuration(&self) -> Configured {
        in_force(&self.configurations, &self.first, &self.committed)
    }

    /// Whether every configuration that counts, or may yet, has a sound majority without these.
    pub(crate) fn may_lack(&self, damaged: &[NodeId]) -> bool {
        let committed = self.committed_configuration();
        let later = self.configurations.iter().filter(|(id, _)| id.index > committed.index);
        let is_minority = |voters: &[NodeId]| {
            voters.iter().filter(|node| damaged.contains(node)).count() * 2 < voters.len().max(1)
        };
        [&committed.configuration].into_iter().chain(later.map(|(_, one)| one)).all(|one| {
            is_minority(one.voters()) && (one.outgoing().is_empty() || is_minority(one.outgoing()))
        })
    }

    fn damaged(&self) -> Vec<NodeId> {
        let damaged = self.nodes.iter().filter(|node| !node.disk.lost.is_empty());
        damaged.map(|node| node.id).collect()
    }

    /// Somebody asks a node for other members, or to end what is held; mostly one that can.
    pub(crate) fn change_members(&mut self, node: usize) {
        let is_ready = |node: &Node| node.raft.as_ref().is_some_and(Raft::is_ready);
        let ready = self.nodes.iter().position(is_ready);
        let node = ready.filter(|_| self.random.permille(800)).unwrap_or(node);
        let Some(raft) = &self.nodes[node].raft else { return };
        let (now, index) = (raft.configuration().clone(), raft.configuration_index());
        let is_stale = self.random.permille(50);
        let expected = if is_stale { index.previous() } else { index };
        if now.phase() == Phase::Held && self.random.permille(700) {
            let change = if self.random.permille(500) { Change::Commit } else { Change::Abort };
            self.ask(node, expected, change);
            return;
        }
        let (voters, learners) = self.draw_members(&now);
        let damaged = self.damaged();
        if voters.iter().filter(|node| damaged.contains(node)).count() * 2 >= voters.len().max(1) {
            return;
        }
        let allow =
            Allow { majority: self.random.permille(500), unready: self.random.permille(300) };
        let is_held = self.random.permille(200);
        let (voters, learners) = (&voters, &learners);
        let change = Change::To { voters, learners, is_held, allow, unfit: &damaged };
        self.ask(node, expected, change);
    }

    /// Mostly one node more, less, or in another role; sometimes anybody.
    fn draw_members(&mut self, now: &Configuration) -> (Vec<NodeId>, Vec<NodeId>) {
        let (mut voters, mut learners) = (now.voters().to_vec(), now.learners().to_vec());
        if self.random.permille(200) {
            (voters, learners) = (Vec::new(), Vec::new());
            for node in &self.nodes {
                match self.random.below(4) {
                    0 | 1 => voters.push(node.id),
                    2 => learners.push(node.id),
                    _ => {}
                }
            }
            return (voters, learners);
        }
        let one = self.nodes[self.random.below(self.nodes.len() as u64) as usize].id;
        voters.retain(|&node| node != one);
        learners.retain(|&node| node != one);
        match self.random.below(8) {
            _ if voters.is_empty() => voters.push(one),
            0 | 1 => {}
            2 | 3 => learners.push(one),
            _ => voters.push(one),
        }
        (voters, learners)
    }

    fn ask(&mut self, node: usize, expected: Index, change: Change<'_>) {
        let raft = self.nodes[node].raft.as_ref().expect("it was asked");
        match raft.plan(self.clock(node), expected, change) {
            Ok(Plan::Append(next)) => self.configure(node, &next),
            Ok(Plan::Done) => {
                assert_eq!(raft.configuration().replaces(), expected);
            }
            Err(ChangeRefused::NotLeader(_)) => {}
            Err(_) => self.reached.changes_refused += 1,
        }
    }

    /// A leader appends a configuration.
    fn configure(&mut self, node: usize, next: &Configuration) {
        let own = &self.nodes[node];
        let raft = own.raft.as_ref().expect("it leads");
        let (term, index) = (raft.term(), raft.last().next());
        self.check_append(own, raft, next);
        self.value += 1;
        let entry = Entry { term, value: self.value, bytes: 96 };
        let was = self.configurations.insert(LogId::new(term, index), next.clone());
        assert_eq!(was, None, "one entry of a term and index");
        self.step(node, Input::Configure { configuration: next, bytes: 96 }, &[entry]);
        assert!(self.nodes[node].log.get(index.0 as usize - 1) == Some(&entry), "it was planned");
        self.reached.configured += 1;
    }

    /// V6, M01: what a leader appends follows one that is committed, and meets it; and the leader
    /// knows what is committed.
    fn check_append(&self, own: &Node, raft: &Raft, next: &Configuration) {
        let before = in_force(&self.configurations, &own.first, &own.log);
        assert!(before.index.0 <= self.committed.len() as u64, "two changes at once (V6)");
        assert!(
            meet(&before.configuration, next, self.nodes.len(), self.enough()),
            "majorities don't meet (V6)"
        );
        let is_own = |entry: &Entry| entry.term == raft.term();
        assert!(self.committed.iter().any(is_own), "a change before the own term's commit (M01)");
    }

    /// A joint configuration is committed: the leader is to go on, and its owner takes its time.
    pub(crate) fn complete(&mut self, node: usize) {
        self.nodes[node].is_completing = false;
        let Some(raft) = &self.nodes[node].raft else { return };
        if let Some(next) = raft.completion() {
            self.configure(node, &next);
            self.reached.completed += 1;
        }
    }

    pub(crate) fn plan_completion(&mut self, node: usize) {
        if !self.nodes[node].is_completing {
            self.nodes[node].is_completing = true;
            let (life, delay) = (self.nodes[node].life, self.random.between(1, 3000));
            self.plan(delay, Event::Complete { node, life });
        }
    }

    /// V5: whom a node that commits counts on; by the log, not by what the core says.
    pub(crate) fn are_enough(&self, node: usize, holders: &[NodeId]) -> bool {
        self.decide(node, holders, self.enough())
    }

    /// Whether these would elect a leader, by a node's log.
    pub(crate) fn would_elect(&self, node: usize, voters: &[NodeId]) -> bool {
        self.decide(node, voters, majority)
    }

    fn decide(&self, node: usize, nodes: &[NodeId], enough: Enough) -> bool {
        let own = &self.nodes[node];
        let configuration = in_force(&self.configurations, &own.first, &own.log).configuration;
        let nodes = nodes.iter().fold(0, |nodes, node| nodes | 1 << node.0);
        decides(&configuration, nodes, enough)
    }

    /// How many of some voters commit.
    fn enough(&self) -> Enough {
        if self.settings.commits_by_half { |voters| voters.div_ceil(2) } else { majority }
    }

    /// The core has that configuration in force that the log says.
    pub(crate) fn check_configuration(&self, node: usize) {
        let own = &self.nodes[node];
        let raft = own.raft.as_ref().expect("it just stepped");
        let expected = in_force(&self.configurations, &own.first, &own.log);
        assert_eq!(raft.configuration_index(), expected.index, "node {}", own.id);
        assert_eq!(*raft.configuration(), expected.configuration, "node {}", own.id);
        let is_committed = expected.index <= raft.commit();
        assert_eq!(raft.is_configuration_committed(), is_committed);
    }

    /// Says how a term's leader came by its configuration.
    pub(crate) fn note_leader(&mut self, node: usize) {
        let raft = self.nodes[node].raft.as_ref().expect("it leads");
        let configuration = raft.configuration();
        let is_left_out = !configuration.is_voter(self.nodes[node].id);
        self.reached.joint_leaders += u64::from(configuration.is_joint());
        self.reached.leaving_leaders += u64::from(is_left_out);
    }

    /// Members of what the leader has in force, when all is over.
    pub(crate) fn is_member(&self, leader: usize, node: usize) -> bool {
        let raft = self.nodes[leader].raft.as_ref().expect("it leads");
        raft.configuration().is_member(self.nodes[node].id)
    }

    /// A leader whose members are to stay as they are.
    pub(crate) fn stays(&self, node: usize) -> bool {
        self.nodes[node].raft.as_ref().is_some_and(|raft| {
            let configuration = raft.configuration();
            raft.is_ready()
                && raft.is_configuration_committed()
                && configuration.phase() != Phase::Joint
                && configuration.is_voter(self.nodes[node].id)
        })
    }

    /// Nobody disturbs: the same leader of the same term, for a while.
    pub(crate) fn check_calm(&mut self, leader: usize, term: Term) {
        self.run_for(3000);
        let raft = self.nodes[leader].raft.as_ref().expect("it leads");
        assert!(raft.is_ready() && raft.term() == term, "the leader was disturbed");
    }
}
