//! What a leader does about members: it judges changes, appends configurations, brings new members
//! up to date, and lets those who leave know.
//!
//! Who leaves gets the log on until it says that it knows, or for a while after the configuration
//! without it is committed. A leader that leaves goes on, without counting itself, until a majority
//! of those who stay knows (thesis 4.2.2).

use super::Leader;
use crate::change::{
    Allow, CAUGHT_UP_ENTRIES, Change, ChangeRefused, Plan, aborted, ended, follows, toward,
};
use crate::output::{Output, Refusal};
use crate::progress::Progress;
use crate::quorum;
use crate::replica::Replica;
use crate::settings::Configured;
use ringraft_types::limits::NODES_MAX;
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::{Configuration, Index, LogId, NodeId, Phase, Ticks};

/// For how many election timeouts those who left are told of it.
const FAREWELL_TIMEOUTS: u64 = 4;

impl Leader {
    /// What this leader would append for a change.
    pub(crate) fn plan(
        &self,
        replica: &Replica,
        now: Ticks,
        expected: Index,
        change: Change<'_>,
    ) -> Result<Plan, ChangeRefused> {
        let in_force = replica.membership.in_force();
        let (index, phase) = (in_force.index, in_force.configuration.phase());
        let conflict = ChangeRefused::Conflict { expected, index };
        let ends = match change {
            Change::To { voters, learners, is_held, allow, unfit } => {
                if expected != index {
                    return Err(conflict);
                }
                self.may_change(replica)?;
                if phase.is_joint() {
                    return Err(ChangeRefused::UnderWay { index });
                }
                let next = toward(in_force, voters, learners, is_held)?;
                if next.is_joint() {
                    self.check_voters(replica, now, &next, allow, unfit)?;
                }
                return Ok(Plan::Append(next));
            }
            Change::Commit => Phase::Stable,
            Change::Abort => Phase::Aborted,
        };
        let is_done =
            index > Index::ZERO && phase == ends && in_force.configuration.replaces() == expected;
        if expected != index && !is_done {
            return Err(conflict);
        }
        self.may_change(replica)?;
        match phase {
            _ if is_done => Ok(Plan::Done),
            Phase::Held if ends == Phase::Aborted => Ok(Plan::Append(aborted(in_force))),
            Phase::Held => Ok(Plan::Append(ended(in_force))),
            _ => Err(ChangeRefused::NotHeld { index }),
        }
    }

    /// Whether the next configuration may be appended: an entry of the own term is committed, and
    /// the configuration in force is.
    fn may_change(&self, replica: &Replica) -> Result<(), ChangeRefused> {
        let is_ready = replica.commit() >= self.term_first;
        #[cfg(ringraft_plant)]
        let is_ready = is_ready || planted(Plant::ChangeBeforeCommit);
        if let Some(to) = self.transfers_to() {
            return Err(ChangeRefused::Transferring { to });
        }
        let in_force = replica.membership.in_force();
        let is_settled = replica.membership.is_settled();
        #[cfg(ringraft_plant)]
        let is_settled = is_settled || planted(Plant::TwoChanges);
        #[cfg(ringraft_plant)]
        let is_settled =
            is_settled || planted(Plant::JointLeftEarly) && in_force.configuration.is_joint();
        match (is_ready, is_settled) {
            (false, _) => Err(ChangeRefused::NotReady),
            (_, false) => Err(ChangeRefused::UnderWay { index: in_force.index }),
            _ => Ok(()),
        }
    }

    /// Whether these voters could go on at once: who is new has caught up as a learner, and a
    /// majority answers.
    fn check_voters(
        &self,
        replica: &Replica,
        now: Ticks,
        next: &Configuration,
        allow: Allow,
        unfit: &[NodeId],
    ) -> Result<(), ChangeRefused> {
        let voters = next.voters();
        let is_new = |node: &&NodeId| !next.outgoing().contains(node);
        let added = voters.iter().filter(is_new).count();
        if added >= quorum::majority(voters.len()) && !allow.majority {
            return Err(ChangeRefused::AddsMajority { added, voters: voters.len() });
        }
        if let Some(&node) = voters.iter().filter(is_new).find(|node| unfit.contains(node)) {
            return Err(ChangeRefused::Unfit { node });
        }
        if allow.unready {
            return Ok(());
        }
        for &node in voters.iter().filter(is_new) {
            self.check_ready(replica, now, node)?;
        }
        let is_ready =
            |node: &&NodeId| **node == replica.id || self.check_ready(replica, now, **node).is_ok();
        let ready = voters.iter().filter(is_ready).count();
        if ready < quorum::majority(voters.len()) {
            return Err(ChangeRefused::NoReadyMajority { ready, voters: voters.len() });
        }
        Ok(())
    }

    /// Whether a node answers, and holds nearly all that is committed.
    pub(super) fn check_ready(
        &self,
        replica: &Replica,
        now: Ticks,
        node: NodeId,
    ) -> Result<(), ChangeRefused> {
        let commit = replica.commit();
        let Some(peer) = self.peer(node).filter(|peer| peer.is_member()) else {
            return Err(ChangeRefused::Behind { node, matched: Index::ZERO, commit });
        };
        if !self.has_heard(replica, now, node) {
            return Err(ChangeRefused::Unreachable { node });
        }
        let matched = peer.matched;
        if matched == Index::ZERO || matched.0 + CAUGHT_UP_ENTRIES < commit.0 {
            return Err(ChangeRefused::Behind { node, matched, commit });
        }
        Ok(())
    }

    /// What takes the place of a committed joint configuration that nobody holds.
    pub(crate) fn completion(&self, replica: &Replica) -> Option<Configuration> {
        let in_force = replica.membership.in_force();
        if in_force.configuration.phase() != Phase::Joint || self.may_change(replica).is_err() {
            return None;
        }
        #[cfg(ringraft_plant)]
        if planted(Plant::JointStuck) && in_force.index < self.term_first {
            return None;
        }
        Some(ended(in_force))
    }

    /// Appends a configuration, in force from now on.
    #[cold]
    pub(crate) fn configure(
        &mut self,
        replica: &mut Replica,
        now: Ticks,
        configuration: &Configuration,
        bytes: u32,
        out: &mut Output,
    ) {
        self.stir(replica, now);
        let in_force = replica.membership.in_force();
        if self.may_change(replica).is_err() || !follows(configuration, in_force) {
            out.refused = Some(Refusal::NotNow);
            return;
        }
        let next = replica.log().last().next();
        replica.append_configuration(bytes, configuration.clone(), out);
        self.meet_members(replica, now, next);
        self.feed_all(replica, now, out);
        // Fewer may decide than before.
        self.advance_commit(replica, now, out);
        self.confirm_reads(replica, out);
    }

    /// Sends to all members from now on, first what follows `next`, and to those who leave for a
    /// while yet.
    pub(super) fn meet_members(&mut self, replica: &Replica, now: Ticks, next: Index) {
        let membership = &replica.membership;
        for node in membership.all().flat_map(|one| one.configuration.members()) {
            if node == replica.id {
                continue;
            }
            if let Err(position) = self.peers.binary_search_by_key(&node, |peer| peer.id) {
                self.peers.insert(position, Progress::new(node, now, next));
            }
        }
        for peer in &mut self.peers {
            match membership.in_force().configuration.is_member(peer.id) {
                true => peer.leaves_at = None,
                false => peer.leaves_at = peer.leaves_at.or(Some(Ticks::NEVER)),
            }
        }
    }

    /// The configuration in force is committed: those who leave have their time to learn of it.
    pub(crate) fn on_settled(&mut self, replica: &Replica, now: Ticks, out: &mut Output) {
        let Configured { configuration, .. } = replica.membership.in_force();
        if configuration.is_joint() {
            return;
        }
        let timeout = replica.settings.election_timeout;
        for peer in self.peers.iter_mut().filter(|peer| peer.leaves_at == Some(Ticks::NEVER)) {
            peer.leaves_at = Some(now.after(Ticks(timeout.0 * FAREWELL_TIMEOUTS)));
        }
        if !configuration.is_voter(replica.id) {
            self.resigns_at = Some(now.after(timeout));
        }
        if self.resigns_at.is_some() || self.peers.iter().any(|peer| !peer.is_member()) {
            self.send_heartbeats(replica, now, out);
        }
    }

    /// Whether this leader, which the configuration leaves out, has done its part: a majority of
    /// those who stay knows that it is committed, or had its time.
    pub(crate) fn has_left(&self, replica: &Replica, now: Ticks) -> bool {
        let Some(resigns_at) = self.resigns_at else { return false };
        let known =
            replica.membership.agreed(|id| self.peer(id).map_or(Index::ZERO, |peer| peer.commit));
        now >= resigns_at || known >= replica.membership.in_force().index
    }

    /// A node outside of the group asks for votes: it was removed, and may not know. It is sent
    /// what follows its log, if this log holds that.
    pub(crate) fn on_outsider(
        &mut self,
        replica: &Replica,
        now: Ticks,
        from: NodeId,
        last: LogId,
        out: &mut Output,
    ) {
        let membership = &replica.membership;
        let is_settled = membership.is_settled() && !membership.in_force().configuration.is_joint();
        let is_held = replica.log().term_at(last.index) == Some(last.term);
        let leaving = self.peers.iter().filter(|peer| !peer.is_member()).count();
        if !is_settled || !is_held || leaving >= NODES_MAX {
            return;
        }
        if let Err(position) = self.peers.binary_search_by_key(&from, |peer| peer.id) {
            let mut peer = Progress::new(from, now, last.index.next());
            let farewell = Ticks(replica.settings.election_timeout.0 * FAREWELL_TIMEOUTS);
            peer.leaves_at = Some(now.after(farewell));
            peer.feed(replica, now, out);
            self.peers.insert(position, peer);
        }
    }

    /// Sends no more to those who left and know, or had their time.
    #[cold]
    pub(super) fn part(&mut self, replica: &Replica, now: Ticks) {
        let membership = &replica.membership;
        let left = membership.is_settled().then(|| membership.in_force().index);
        self.peers.retain(|peer| {
            let knows = left.is_some_and(|index| peer.commit >= index);
            peer.leaves_at.is_none_or(|leaves_at| now < leaves_at && !knows)
        });
    }
}
