//! Faults that strike leaders: cut off with a client beside them, or one after the other, and met by
//! old answers when they are elected.

use ringraft_net::status::GroupRole;
use ringraft_types::{GroupId, Ticks};

use crate::base::Event;
use crate::client::Insists;
use crate::faults::{FaultKind, Lasting};
use crate::world::World;

impl World {
    /// Which node leads which group.
    pub(super) fn leaders(&self) -> Vec<(usize, GroupId)> {
        let nodes = self.nodes.iter().enumerate();
        let groups = nodes.flat_map(|(at, node)| node.groups(&self.base).map(move |it| (at, it)));
        let led = groups.filter(|(_, group)| group.role == GroupRole::Leader);
        led.map(|(at, group)| (at, group.group)).collect()
    }

    /// The same of the groups that clients know.
    fn known_leaders(&self) -> Vec<(usize, GroupId)> {
        self.leaders().into_iter().filter(|it| it.1 < GroupId::SYSTEM).collect()
    }

    pub(super) fn leave_alone(&mut self) -> bool {
        let leaders = self.known_leaders();
        let (nodes, clients) = (self.nodes.len(), self.clients.len());
        if leaders.is_empty() || nodes < 3 || clients < 2 {
            return false;
        }
        let (leader, group) = self.base.random.pick(&leaders);
        let beside = self.base.random.below(clients as u64) as usize;
        let hears = self.base.random.coin();
        // Answers that come later and later keep it in office for long by what is long over.
        let times = self.base.random.pick(&[0, 10, 30]);
        let rate = self.base.random.pick(&[50_000, 200_000, 500_000, 1_000_000]);
        // Leases allow for the slowest clock of the run, and no slower one.
        let has_leases = self.options.raft.lease > Ticks::ZERO;
        let rate = if has_leases { self.options.clock_rate.0 } else { rate };
        self.set_rate(leader, rate);
        let (mut blocked, mut slow) = (Vec::new(), Vec::new());
        for other in (0..nodes + clients).filter(|&at| at != leader && at != nodes + beside) {
            blocked.push((leader, other));
            if hears {
                if times > 0 {
                    self.network.stretch(&self.base, other, leader, times);
                } else {
                    let by = self.base.random.pick(&[50, 300, 1_000, 3_000]);
                    self.network.slow(other, leader, Ticks::from_millis(by));
                }
                slow.push((other, leader));
            } else {
                blocked.push((other, leader));
            }
        }
        let text =
            format!("node {} leads group {group} alone, client {beside} beside it", leader + 1);
        self.say(text);
        let span = Ticks::from_millis(self.base.random.between(500, 5_000));
        let until = self.base.now.after(span);
        for (at, client) in self.clients.iter_mut().enumerate() {
            client.insist(&mut self.base, Insists { group, reads: at == beside, until });
        }
        // Answers to what it said last are on their way for long when nobody hears it any more.
        let soon = if hears { self.base.random.pick(&[20, 100, 300]) } else { 1 };
        let millis = span.0 / 1_000;
        self.last(Lasting::Soon(blocked, millis), soon, soon);
        self.last(Lasting::Slow(slow), soon + millis, soon + millis);
        true
    }

    /// Leaders of one group are cut off one after the other, and clients ask for it all the time.
    pub(super) fn begin_ping_pong(&mut self) -> bool {
        let leaders = self.known_leaders();
        let is_on = |lasting: &Lasting| matches!(lasting, Lasting::CutOff(..) | Lasting::Next(..));
        if leaders.is_empty() || self.nodes.len() < 3 || self.faults.lasting.values().any(is_on) {
            return false;
        }
        let (_, group) = self.base.random.pick(&leaders);
        let cuts = self.base.random.between(2, 5);
        let election = self.options.raft.election_timeout;
        let until = self.base.now.after(Ticks(4 * cuts * election.0));
        for client in &mut self.clients {
            let reads = self.base.random.below(4) == 0;
            client.insist(&mut self.base, Insists { group, reads, until });
        }
        self.cut_off(group, cuts - 1);
        true
    }

    /// The leader of a group, and a minority with it, don't hear of the others for a while, nor these
    /// of them. Clients are on either side.
    pub(super) fn cut_off(&mut self, group: GroupId, left: u64) {
        let (nodes, clients) = (self.nodes.len(), self.clients.len());
        let leader = self.leaders().into_iter().rfind(|leader| leader.1 == group);
        let mut ways = Vec::new();
        if let Some((leader, _)) = leader {
            let mut others: Vec<usize> = (0..nodes).filter(|&at| at != leader).collect();
            self.base.random.shuffle(&mut others);
            let most = (nodes - 1) / 2 - 1;
            others.truncate(self.base.random.pick(&[0, 1, most, most]).min(most));
            let mut here = vec![false; nodes + clients];
            here[leader] = true;
            others.iter().for_each(|&other| here[other] = true);
            let beside = self.base.random.pick(&[25, 50, 100]);
            here[nodes..].iter_mut().for_each(|here| *here = self.base.random.below(100) < beside);
            for from in 0..nodes + clients {
                let to = (0..nodes + clients).filter(|&to| here[from] != here[to]);
                ways.extend(to.map(|to| (from, to)));
            }
            self.block(&ways);
        }
        let election = self.options.raft.election_timeout.0 / 1_000;
        let long = self.base.random.pick(&[2, 4, 8]);
        self.last(Lasting::CutOff(ways, group, left), election / 2, long * election);
    }

    /// Who was cut off isn't any more; the next one will be soon.
    pub(super) fn open_again(&mut self, ways: Vec<(usize, usize)>, group: GroupId, left: u64) {
        self.open(ways);
        if left > 0 {
            let election = self.options.raft.election_timeout.0 / 1_000;
            self.last(Lasting::Next(group, left - 1), 1, election);
        }
    }

    /// A node was elected: what its peers answered long ago may reach it now.
    pub(crate) fn was_elected(&mut self, node: usize, lane: usize) {
        if self.is_calm || !self.options.faults.contains_key(&FaultKind::LateAnswers) {
            return;
        }
        let election = self.options.raft.election_timeout;
        for peer in (0..self.nodes.len()).filter(|&peer| peer != node) {
            for _ in 0..self.base.random.below(10) {
                let later = self.base.span(Ticks(1), election);
                let again = Event::Again { from: peer, to: node, shard: lane as u16 };
                self.base.after(later, again);
            }
        }
    }
}
