//! The owner's word on which groups rest that hibernate: nodes show each other that they live, what
//! one sends arrives in order or the connection ends, and who rests on a node that was silent, or on a
//! connection that ended, is woken.

use super::world::{Event, World};
use ringraft_raft::Input;
use ringraft_types::Ticks;

/// How often a node shows that it lives.
const STAMP_EVERY: u64 = 30_000;

impl World {
    /// What arrives at `to` from `from`: never before what was sent earlier, if nodes hibernate.
    pub(crate) fn in_order(&mut self, from: usize, to: usize, delay: u64) -> u64 {
        if !self.hibernates() {
            return delay;
        }
        let arrives = self.now.after(Ticks(delay));
        let last = self.arrivals.entry((from, to)).or_default();
        *last = arrives.max(*last);
        last.since(self.now).0
    }

    pub(crate) fn hibernates(&self) -> bool {
        self.settings.hibernate_after > Ticks::ZERO
    }

    /// A node was heard.
    pub(crate) fn heard(&mut self, to: usize, from: usize) {
        let now = self.clock(to);
        self.heard.insert((to, from), now);
        self.silent.remove(&(to, from));
    }

    /// A message is lost, and with it, before long, its connection.
    pub(crate) fn lost(&mut self, from: usize, to: usize) {
        if self.hibernates() {
            self.plan(1_000, Event::Torn { a: from, b: to });
        }
    }

    pub(crate) fn torn(&mut self, a: usize, b: usize) {
        for node in [a, b] {
            if self.nodes[node].raft.is_some() {
                let heard_at = self.clock(node);
                self.step(node, Input::Wake { heard_at }, &[]);
            }
        }
    }

    /// A node shows that it lives, and wakes what rests on others that don't.
    pub(crate) fn stamp(&mut self, node: usize) {
        let timeout = self.settings.election_timeout;
        for other in (0..self.nodes.len()).filter(|&other| other != node) {
            if !self.cut[node][other] && self.nodes[other].raft.is_some() {
                self.heard(other, node);
            }
            let now = self.clock(node);
            let heard_at = *self.heard.entry((node, other)).or_insert(now);
            if now.since(heard_at) >= timeout && self.silent.insert((node, other)) {
                let was_resting = self.nodes[node].raft.as_ref().is_some_and(|it| it.hibernates());
                self.reached.woken += u64::from(was_resting);
                self.step(node, Input::Wake { heard_at }, &[]);
            }
        }
        let rests = self.nodes[node].raft.as_ref().is_some_and(|it| it.hibernates());
        self.reached.rests += u64::from(rests);
        let life = self.nodes[node].life;
        self.plan(STAMP_EVERY, Event::Stamp { node, life });
    }

    /// An idle group comes to rest, and sends nothing.
    pub(crate) fn check_rest(&mut self, members: &[usize]) {
        // Of a joint configuration somebody is to think.
        let is_joint = |node: usize| {
            self.nodes[node].raft.as_ref().is_some_and(|raft| raft.configuration().is_joint())
        };
        if !self.hibernates() || members.len() < 2 || members.iter().any(|&node| is_joint(node)) {
            return;
        }
        let rests = |world: &Self, node: usize| {
            world.nodes[node].raft.as_ref().is_some_and(|raft| raft.hibernates())
        };
        self.run_until(60, |world| members.iter().all(|&node| rests(world, node)));
        let asleep = members.iter().filter(|&&node| rests(self, node)).count();
        assert_eq!(asleep, members.len(), "those of {members:?} that hibernate");
        let sent = |world: &Self| members.iter().map(|node| world.sent[*node]).sum::<u64>();
        let before = sent(self);
        self.run_for(1_000);
        // One round in a long while may be due just now.
        let round = 2 * (members.len() as u64 - 1);
        let more = sent(self) - before;
        assert!(more <= round, "{more} messages of an idle group of {members:?}");
        self.check_wake(members);
    }

    /// The leader of a group that hibernates dies, and the others elect another.
    fn check_wake(&mut self, members: &[usize]) {
        let leads = |world: &Self, node: usize| {
            world.nodes[node].raft.as_ref().is_some_and(|raft| raft.is_ready())
        };
        let leader = members.iter().copied().find(|&node| leads(self, node));
        let leader = leader.expect("one of them leads");
        let raft = self.nodes[leader].raft.as_ref().expect("it leads");
        if raft.voters().len() < 3 || !raft.voters().contains(&self.nodes[leader].id) {
            return;
        }
        self.crash(leader);
        self.run_until(5, |world| members.iter().any(|&node| leads(world, node)));
        assert!(members.iter().any(|&node| leads(self, node)), "nobody leads {members:?}");
    }
}
