//! What a node holds of its group whatever its role: term, vote, log, commit, and what of it is
//! durable. Whatever changes here is put into the output in the same breath.

use crate::durable::Durable;
use crate::floor::Floor;
use crate::input::Entries;
use crate::jitter::Jitter;
use crate::log::Log;
use crate::membership::Membership;
use crate::message::Message;
use crate::output::{Envelope, Gated, Output, Span, Token};
use crate::promise::Promise;
use crate::settings::{Boot, Configured, HardState, Settings};
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::{Configuration, Index, LogId, NodeId, Term, Ticks};

#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) id: NodeId,
    pub(crate) settings: Settings,
    pub(crate) membership: Membership,
    /// What it promised and lost, or can't read: it votes as if it held it, and doesn't stand.
    pub(crate) floor: Option<Floor>,
    /// The own disk doesn't move: see [`crate::Input::DiskStuck`].
    pub(crate) is_stuck: bool,
    /// It is not to stand: see [`crate::Input::Paused`].
    pub(crate) is_paused: bool,
    /// The newest term whose leader said that it leads no more; zero: none did.
    pub(crate) resigned: Term,
    /// Whom alone it helps into office, and until when.
    pub(crate) promise: Promise,
    jitter: Jitter,
    /// Never goes back.
    term: Term,
    /// Given once in a term.
    vote: Option<NodeId>,
    /// The term was taken from a snapshot at the start, and no hard state with it is written yet:
    /// it is, before the first entry of that term (V4).
    is_term_owed: bool,
    log: Log,
    durable: Durable,
    /// Never goes back; at most the log's last.
    commit: Index,
    /// The commit index of the hard state written last.
    commit_written: Index,
}

impl Replica {
    pub(crate) fn new(settings: Settings, boot: Boot) -> Self {
        let Boot { id, configuration, mut logged, hard_state, log, vote_floor, seed } = boot;
        let log = Log::new(log);
        let (base, last) = (log.base(), log.last_id());
        assert!(configuration.index <= base.index, "the log's own configurations are in the log");
        logged.retain(|one| one.index > base.index && one.index <= last.index);
        // A snapshot may have been stored before the term in which it came: the term is known by
        // it all the same, and nobody was voted for in it.
        let is_term_owed = hard_state.term < base.term;
        let (term, vote) = match is_term_owed {
            true => (base.term, None),
            false => (hard_state.term, hard_state.vote),
        };
        assert!(last.term <= term, "an entry's term is durable no later than it (V4)");
        // With a rotten tail the log may end before the commit index.
        let commit = hard_state.commit.min(last.index).max(base.index);
        let mut membership = Membership::new(configuration, logged);
        membership.commit_to(commit);
        Self {
            id,
            settings,
            membership,
            floor: vote_floor.map(Floor::Lost).filter(|floor| !floor.is_covered(base)),
            is_stuck: false,
            is_paused: false,
            resigned: Term::ZERO,
            promise: Promise::default(),
            jitter: Jitter::new(seed),
            term,
            vote,
            is_term_owed,
            durable: Durable::new(last.index),
            log,
            commit,
            commit_written: hard_state.commit,
        }
    }

    pub(crate) fn term(&self) -> Term {
        self.term
    }

    pub(crate) fn vote(&self) -> Option<NodeId> {
        self.vote
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    pub(crate) fn durable(&self) -> &Durable {
        &self.durable
    }

    pub(crate) fn commit(&self) -> Index {
        self.commit
    }

    /// The newest entry as far as votes are concerned: a log with rot votes as if it were whole.
    pub(crate) fn vote_last(&self) -> LogId {
        #[cfg(ringraft_plant)]
        if planted(Plant::FloorIgnored) {
            return self.log.last_id();
        }
        self.log.last_id().max(self.floor.map_or(LogId::ZERO, Floor::id))
    }

    /// Whether this node may stand for election.
    pub(crate) fn may_campaign(&self) -> bool {
        let is_kept = (self.is_stuck || self.is_paused) && !self.membership.is_alone(self.id);
        self.floor.is_none() && !is_kept && self.membership.may_stand(self.id)
    }

    /// The greatest value that as many voters have reached as commit, given each one's own.
    #[inline]
    pub(crate) fn reached_to_commit<T: Copy + Default + Ord>(&self, of: impl Fn(NodeId) -> T) -> T {
        self.membership.reached_to_commit(self.settings.commits_by_half, of)
    }

    /// All voters but this node.
    pub(crate) fn others(&self) -> impl Iterator<Item = NodeId> + '_ {
        let configuration = &self.membership.in_force().configuration;
        configuration.all_voters().filter(|&voter| voter != self.id)
    }

    /// When to stand for election if nothing is heard from now on (thesis 3.4).
    pub(crate) fn next_election(&mut self, now: Ticks) -> Ticks {
        now.after(self.jitter.between_one_and_two(self.settings.election_timeout))
    }

    /// All that it holds is durable and committed, and it owes nothing: the group may hibernate.
    pub(crate) fn is_at_rest(&self) -> bool {
        let last = self.log.last();
        self.settings.hibernate_after > Ticks::ZERO
            && self.commit == last
            && self.durable.persisted() == last
            && self.durable.is_hard_state_durable()
            && self.floor.is_none()
            && !self.is_stuck
            && !self.is_paused
            && self.membership.is_settled()
            && !self.membership.in_force().configuration.is_joint()
    }

    /// When to stand if the leader of this term said that it leads no more: one voter after the
    /// other, so that they don't split the votes; who begins changes with the term.
    pub(crate) fn early_election(&self, now: Ticks, resigned: NodeId) -> Ticks {
        let voters = || self.membership.in_force().configuration.all_voters();
        let before = voters().filter(|&id| id < self.id && id != resigned).count() as u64;
        let rank = (before + self.term.0) % voters().count().saturating_sub(1).max(1) as u64;
        now.after(Ticks(self.settings.election_timeout.0 / 8 * rank.min(6)))
    }

    /// Enters a newer term, or gives this term's vote.
    pub(crate) fn set_hard_state(&mut self, term: Term, vote: Option<NodeId>, out: &mut Output) {
        if term == self.term {
            assert!(self.vote.is_none() && vote.is_some(), "one vote per term (I-04)");
        } else {
            assert!(term > self.term, "terms don't go back (I-02)");
        }
        self.term = term;
        self.vote = vote;
        self.durable.cover_hard_state(self.log.last(), out);
        out.hard_state = Some(self.hard_state());
    }

    fn hard_state(&self) -> HardState {
        HardState { term: self.term, vote: self.vote, commit: self.commit }
    }

    /// Appends entries of this term, as a leader.
    #[inline]
    pub(crate) fn append_own(&mut self, bytes: &[u32], out: &mut Output) {
        let first = self.log.last().next();
        self.log.append_run(self.term, bytes);
        self.cover_append(first, out);
    }

    /// Appends a configuration of this term, as a leader; it is in force at once.
    pub(crate) fn append_configuration(
        &mut self,
        bytes: u32,
        configuration: Configuration,
        out: &mut Output,
    ) {
        assert!(self.membership.is_settled(), "one change at a time (I-14)");
        self.append_own(&[bytes], out);
        let index = self.log.last();
        self.membership.append(Configured { index, configuration, is_of_another: false });
    }

    /// Appends a leader's entries, and has the configurations among them in force.
    pub(crate) fn append_entries(&mut self, entries: Entries<'_>, out: &mut Output) {
        let first = self.log.last().next();
        self.log.append_heads(entries.heads);
        self.cover_append(first, out);
        for one in entries.configurations {
            self.membership.append(one.clone());
        }
    }

    fn cover_append(&mut self, first: Index, out: &mut Output) {
        assert!(out.append.is_none(), "one span per step");
        out.append = Some(Span { first, last: self.log.last() });
        self.durable.cover(self.log.last(), out);
    }

    /// Removes the entries from `index` on: they conflict with the leader's (thesis 3.5).
    pub(crate) fn truncate_from(&mut self, index: Index, out: &mut Output) {
        assert!(index > self.commit, "committed entries are never removed (I-02)");
        assert!(out.truncate_from.is_none());
        self.log.truncate_from(index);
        self.membership.truncate_from(index);
        self.durable.truncate_from(index);
        out.truncate_from = Some(index);
        self.durable.cover(self.log.last(), out);
    }

    /// A durable snapshot holds everything up to `through`; the log gives it up.
    pub(crate) fn release(&mut self, through: Index) {
        assert!(through <= self.commit, "only what is committed is released (I-01)");
        if through > self.log.base().index {
            self.log.release(through);
            self.durable.release(through);
            self.check_base();
        }
    }

    /// I-01, where the base moves: forward only, which its log asserts.
    fn check_base(&self) {
        let base = self.log.base().index;
        assert!(base <= self.commit);
        assert!(base <= self.durable.persisted());
        assert!(self.commit <= self.log.last());
    }

    /// A durable snapshot took the place of everything up to `last`; says whether the whole log
    /// was given up for it. Whatever was promised of the log is still held: by the snapshot, or it
    /// never was committed.
    pub(crate) fn install(
        &mut self,
        last: LogId,
        configured: &Configured,
        out: &mut Output,
    ) -> bool {
        assert!(last.index > self.commit, "a snapshot brings what is committed and lacks here");
        assert!(last.term <= self.term);
        let is_emptied = self.log.term_at(last.index) != Some(last.term);
        out.truncate_from = self.log.install(last);
        if is_emptied {
            out.emptied = Some(last);
            self.durable.truncate_from(last.index.next());
        }
        self.membership.install(last.index, configured, self.log.last());
        self.durable.release(last.index);
        self.durable.cover(self.log.last(), out);
        self.commit_to(last.index, out);
        out.hard_state = Some(self.hard_state());
        if self.floor.is_some_and(|floor| floor.is_covered(last)) {
            self.floor = None;
            out.repaired = true;
        }
        assert_eq!(self.log.base(), last);
        self.check_base();
        is_emptied
    }

    /// The owner's cache begins at `first` now.
    pub(crate) fn trim(&mut self, first: Index) {
        self.log.trim(first);
    }

    /// Moves the commit index forward; an older one changes nothing.
    pub(crate) fn commit_to(&mut self, index: Index, out: &mut Output) {
        if index > self.commit {
            assert!(index <= self.log.last(), "only what is held is committed (I-01)");
            self.commit = index;
            self.membership.commit_to(index);
            out.committed = Some(index);
        }
    }

    /// A batch is durable.
    #[inline]
    pub(crate) fn complete(&mut self, token: Token, out: &mut Output) {
        self.durable.complete(token);
        self.lift_floor(out);
    }

    /// The newest entry that is durable.
    pub(crate) fn durable_id(&self) -> LogId {
        let persisted = self.durable.persisted();
        let term = self.log.term_at(persisted).expect("what is durable is held");
        LogId::new(term, persisted)
    }

    /// Entries that this node started without are in its log again, as it held them once: whatever
    /// it promised about them it can keep again, as soon as that is durable. What else the group
    /// owes, it owes still.
    pub(crate) fn refill(
        &mut self,
        runs: &[(Index, Term)],
        last: Index,
        configurations: &[Configured],
        out: &mut Output,
    ) {
        assert!(self.floor.is_some(), "only who lost entries has them again (I-13)");
        self.log.refill(runs, last);
        assert!(self.log.last_id().term <= self.term, "V4");
        for one in configurations {
            self.membership.append(one.clone());
        }
        self.durable.cover(self.log.last(), out);
        out.hard_state = Some(self.hard_state());
    }

    /// What couldn't be read is there again. The log was never cut, so its floor is that of entries
    /// which were lost and came again: mostly it is met at once.
    pub(crate) fn mend(&mut self, out: &mut Output) {
        if let Some(Floor::Unreadable(id)) = self.floor {
            self.floor = Some(Floor::Lost(id));
            self.lift_floor(out);
        }
    }

    /// Lifts the vote floor if what is durable meets it: from then on this node votes and stands
    /// as any other.
    fn lift_floor(&mut self, out: &mut Output) {
        let Some(floor) = self.floor else { return };
        let is_met = floor.is_met(self.durable_id());
        #[cfg(ringraft_plant)]
        let is_met = is_met || planted(Plant::FloorLiftedEarly) && matches!(floor, Floor::Lost(_));
        #[cfg(ringraft_plant)]
        let is_met = is_met
            || planted(Plant::FloorLiftedUnsynced)
                && matches!(floor, Floor::Lost(id) if self.log.last_id() >= id);
        #[cfg(ringraft_plant)]
        let is_met =
            is_met || planted(Plant::UnreadableLifted) && matches!(floor, Floor::Unreadable(_));
        if is_met {
            self.floor = None;
            out.repaired = true;
        }
    }

    /// Sends what promises term, vote and the log up to `index`, once that is durable (I-03).
    pub(crate) fn send_gated(&self, to: NodeId, message: Message, index: Index, out: &mut Output) {
        let envelope = Envelope { to, message };
        #[cfg(ringraft_plant)]
        if planted(Plant::AckBeforeFlush) && matches!(message, Message::AppendReply { .. }) {
            out.send_now.push(envelope);
            return;
        }
        #[cfg(ringraft_plant)]
        if planted(Plant::VoteBeforeFlush) && matches!(message, Message::VoteReply { .. }) {
            out.send_now.push(envelope);
            return;
        }
        match self.durable.gate(index) {
            None => out.send_now.push(envelope),
            Some(token) => out.send_after_persist.push(Gated { token, envelope }),
        }
    }

    /// Ends a step: whatever is persisted takes the newest commit index along (RP-17).
    #[inline]
    pub(crate) fn finish(&mut self, out: &mut Output) {
        if out.token.is_none() {
            return;
        }
        if out.hard_state.is_some() || self.commit > self.commit_written || self.is_term_owed {
            out.hard_state = Some(self.hard_state());
            self.commit_written = self.commit;
            self.is_term_owed = false;
        }
    }
}
