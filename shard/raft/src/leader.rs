//! A leader replicates its log, commits what a majority holds durably, and answers reads.
//!
//! `members` is what it does about configurations, `transfer` how it hands over, `levels` what it
//! knows of how far entries have come, `hibernate` what it does when nobody asks for anything.
//!
//! Nothing here asks whether a term is newer: by the time a message comes here it is this term's.

use crate::input::EntryHead;
use crate::lease::Lease;
use crate::message::{AppendOutcome, Message};
use crate::output::{Envelope, Output, Refusal};
use crate::progress::Progress;
use crate::reads::Reads;
use crate::replica::Replica;
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::{Index, NodeId, Ticks, record};

mod hibernate;
mod levels;
mod members;
mod transfer;

use hibernate::Idleness;
pub(crate) use hibernate::patience;
pub use levels::Standing;
use transfer::Transfer;

/// The record of a new leader's first entry: a header without payload.
const NEW_TERM_BYTES: u32 = record::encoded_bytes(0) as u32;

#[derive(Debug)]
pub(crate) struct Leader {
    /// The first entry of the own term; from here on entries are committed by counting.
    term_first: Index,
    /// The other members, ascending, and those who left and may not know yet.
    peers: Vec<Progress>,
    /// When the next heartbeats are due: a multiple of their interval.
    heartbeat_at: Ticks,
    /// When to look whether a majority is still heard.
    quorum_at: Ticks,
    /// The committed configuration leaves this leader out: until when it leads.
    resigns_at: Option<Ticks>,
    transfer: Option<Transfer>,
    /// A node was told in this term to stand at once: from then on voters may elect it though they
    /// hear this leader, and no lease may rest on their patience until another term.
    has_told: bool,
    reads: Reads,
    lease: Lease,
    idleness: Idleness,
}

impl Leader {
    /// Takes office: appends an entry of the own term and sends it (thesis 3.6.2 and 6.4).
    pub(crate) fn begin(replica: &mut Replica, now: Ticks, out: &mut Output) -> Self {
        let next = replica.log().last().next();
        let settings = replica.settings;
        replica.append_own(&[NEW_TERM_BYTES], out);
        out.new_term_entry = Some(replica.term());
        let mut leader = Self {
            term_first: next,
            peers: Vec::new(),
            heartbeat_at: next_beat(now, settings.heartbeat_interval),
            quorum_at: now.after(settings.election_timeout),
            resigns_at: None,
            transfer: None,
            has_told: false,
            reads: Reads::default(),
            lease: Lease::default(),
            idleness: Idleness::new(now),
        };
        leader.meet_members(replica, now, next);
        leader.feed_all(replica, now, out);
        leader
    }

    pub(crate) fn peers(&self) -> &[Progress] {
        &self.peers
    }

    /// The newest read round begun.
    pub(crate) fn newest_round(&self) -> u64 {
        self.reads.newest()
    }

    pub(crate) fn wake_at(&self) -> Ticks {
        if self.peers.is_empty() {
            return Ticks::NEVER;
        }
        let resigns_at = self.resigns_at.unwrap_or(Ticks::NEVER);
        let transfer_ends_at = self.transfer.as_ref().map_or(Ticks::NEVER, |it| it.ends_at);
        self.heartbeat_at.min(self.quorum_at).min(resigns_at).min(transfer_ends_at)
    }

    /// Whether an entry of the own term is committed: before, it doesn't know what is (6.4).
    pub(crate) fn is_ready(&self, replica: &Replica) -> bool {
        #[cfg(ringraft_plant)]
        if planted(Plant::ReadNotReady) {
            return true;
        }
        replica.commit() >= self.term_first
    }

    /// Does what is due; says whether enough to commit were heard recently enough to lead on.
    pub(crate) fn tick(&mut self, replica: &mut Replica, now: Ticks, out: &mut Output) -> bool {
        if self.peers.is_empty() {
            return true;
        }
        if now >= self.quorum_at {
            let heard_at = replica.reached_to_commit(|id| {
                self.peer(id).map_or(now, |peer| self.reached_at(peer, now))
            });
            self.quorum_at = heard_at.after(replica.settings.election_timeout);
            #[cfg(ringraft_plant)]
            if planted(Plant::NoCheckQuorum) {
                self.quorum_at = now.after(replica.settings.election_timeout);
            }
            if now >= self.quorum_at {
                return false;
            }
        }
        if self.transfer.as_ref().is_some_and(|it| now >= it.ends_at) {
            self.transfer = None;
        }
        if now >= self.heartbeat_at {
            if self.reads.is_waiting() && self.is_ready(replica) {
                self.reads.begin(replica.commit());
                self.confirm_reads(replica, out);
            } else if replica.settings.lease > Ticks::ZERO {
                self.reads.begin_bare();
            }
            self.part(replica, now);
            self.look_idle(replica, now);
            self.send_heartbeats(replica, now, out);
            for peer in &mut self.peers {
                peer.recover(&replica.settings, now);
                peer.feed(replica, now, out);
            }
            self.tell_target_again(replica, out);
        }
        true
    }

    pub(crate) fn propose(
        &mut self,
        replica: &mut Replica,
        now: Ticks,
        bytes: &[u32],
        out: &mut Output,
    ) {
        if bytes.is_empty() {
            return;
        }
        if self.transfer.is_some() {
            out.refused = Some(Refusal::Transferring);
            return;
        }
        self.stir(replica, now);
        replica.append_own(bytes, out);
        self.feed_all(replica, now, out);
    }

    /// This node's own log is durable further than before.
    pub(crate) fn on_persisted(&mut self, replica: &mut Replica, now: Ticks, out: &mut Output) {
        self.advance_commit(replica, now, out);
        self.tell_target(replica, out);
    }

    pub(crate) fn on_append_reply(
        &mut self,
        replica: &mut Replica,
        now: Ticks,
        from: NodeId,
        outcome: AppendOutcome,
        commit: Index,
        out: &mut Output,
    ) {
        let Some(position) = self.position(from) else { return };
        let peer = &mut self.peers[position];
        peer.heard_at = now;
        peer.commit = peer.commit.max(commit);
        match outcome {
            AppendOutcome::Accepted { matched } => {
                assert!(matched <= replica.log().last(), "{from} holds what was never sent");
                peer.on_accepted(matched, now);
                self.advance_commit(replica, now, out);
                self.tell_target(replica, out);
            }
            AppendOutcome::Rejected { prev, hint } => peer.on_rejected(replica, prev, hint),
        }
        self.peers[position].feed(replica, now, out);
    }

    pub(crate) fn on_heartbeat_reply(
        &mut self,
        replica: &mut Replica,
        now: Ticks,
        from: NodeId,
        (round, commit, hibernates): (u64, Index, bool),
        out: &mut Output,
    ) {
        assert!(round <= self.reads.newest(), "{from} answers a round that never began");
        let Some(position) = self.position(from) else { return };
        #[cfg(ringraft_plant)]
        let round = if planted(Plant::RoundUnchecked) { self.reads.newest() } else { round };
        let peer = &mut self.peers[position];
        peer.heard_at = now;
        peer.on_beat(commit);
        if round > peer.round {
            peer.round = round;
            self.confirm_reads(replica, out);
        }
        let peer = &mut self.peers[position];
        peer.recover(&replica.settings, now);
        peer.feed(replica, now, out);
        if !peer.is_member() {
            self.part(replica, now);
        }
        self.on_idle_answer(replica, now, from, (round, hibernates));
    }

    /// Answers the reads whose round enough to commit have answered.
    fn confirm_reads(&mut self, replica: &Replica, out: &mut Output) {
        self.reads.confirm(self.answered(replica), replica.term(), out);
    }

    /// The newest round that enough to commit have answered, of each set of voters in force: every
    /// majority that could elect another has one of them.
    fn answered(&self, replica: &Replica) -> u64 {
        replica.reached_to_commit(|id| self.peer(id).map_or(u64::MAX, |peer| peer.round))
    }

    /// When a majority last proved that this node leads.
    pub(crate) fn contact_at(&self, replica: &Replica, now: Ticks) -> Option<Ticks> {
        if !self.is_ready(replica) {
            return None;
        }
        if replica.membership.is_alone(replica.id) {
            return Some(now);
        }
        if replica.settings.lease > Ticks::ZERO {
            return self.lease.until(self.answered(replica), Ticks::ZERO);
        }
        let heard_at =
            replica.membership.agreed(|id| self.peer(id).map_or(now, |peer| peer.heard_at));
        Some(heard_at)
    }

    /// What a read may see now without a round of its own.
    pub(crate) fn lease_index(&self, replica: &Replica, now: Ticks) -> Option<Index> {
        let lease = replica.settings.lease;
        // Who was told to stand is voted for whatever was promised, also when that was long ago.
        if lease == Ticks::ZERO || self.has_told || !self.is_ready(replica) {
            return None;
        }
        // One that is left alone by the change that removes this leader asks nobody when it starts,
        // and so keeps no promise (EL-14).
        if !replica.membership.in_force().configuration.is_voter(replica.id) {
            return None;
        }
        #[cfg(ringraft_plant)]
        let lease = match planted(Plant::LeaseWithoutMargin) {
            true => Ticks(replica.settings.election_timeout.0 * 5 / 4),
            false => lease,
        };
        #[cfg(ringraft_plant)]
        if planted(Plant::LeaseFromAnswer) {
            let heard_at =
                replica.membership.agreed(|id| self.peer(id).map_or(now, |peer| peer.heard_at));
            return (now < heard_at.after(lease)).then(|| replica.commit());
        }
        let is_alone = replica.membership.is_alone(replica.id);
        let until = || self.lease.until(self.answered(replica), lease);
        (is_alone || until().is_some_and(|at| now < at)).then(|| replica.commit())
    }

    pub(crate) fn read(&mut self, replica: &Replica, now: Ticks, ticket: u64, out: &mut Output) {
        self.stir(replica, now);
        if self.reads.len() >= replica.settings.reads_waiting_max {
            out.refused = Some(Refusal::Busy);
        } else {
            self.reads.push(ticket);
        }
    }

    /// A member asks what its reads must see. The next round answers.
    pub(crate) fn on_read_ask(
        &mut self,
        replica: &Replica,
        now: Ticks,
        from: NodeId,
        question: u64,
    ) {
        self.stir(replica, now);
        if self.peer(from).is_some_and(Progress::is_member) {
            self.reads.ask(from, question);
        }
    }

    /// Begins a round for the reads that wait, if this leader may answer any yet.
    pub(crate) fn flush_reads(&mut self, replica: &Replica, now: Ticks, out: &mut Output) {
        if !self.reads.is_waiting() || !self.is_ready(replica) {
            return;
        }
        self.reads.begin(replica.commit());
        #[cfg(ringraft_plant)]
        if planted(Plant::ReadUnconfirmed) {
            self.reads.confirm(self.reads.newest(), replica.term(), out);
        }
        // This node alone may be enough.
        self.confirm_reads(replica, out);
        if self.reads.is_confirming() {
            self.send_heartbeats(replica, now, out);
        }
    }

    pub(crate) fn on_fetched(
        &mut self,
        replica: &Replica,
        now: Ticks,
        peer: NodeId,
        first: Index,
        heads: &[EntryHead],
        out: &mut Output,
    ) {
        let Some(position) = self.position(peer) else { return };
        let bytes = heads.iter().map(|head| u64::from(head.bytes)).sum();
        // Asked under an earlier leadership they may be another log's: their last one tells.
        let last = Index(first.0 + heads.len() as u64).previous();
        let is_valid =
            heads.last().is_some_and(|head| replica.log().term_at(last) == Some(head.term));
        let valid = if is_valid { heads.len() as u32 } else { 0 };
        let peer = &mut self.peers[position];
        peer.on_fetched(replica, now, first, valid, bytes, out);
        peer.feed(replica, now, out);
    }

    /// The first entry that some member which was heard of late may still need from this log: what
    /// follows what it holds, or what follows the base if it is told to install. Learners count:
    /// one that is told to install again and again never catches up.
    pub(crate) fn needed_from(&self, replica: &Replica, now: Ticks) -> Index {
        let is_heard = |peer: &&Progress| {
            peer.is_member()
                && now.since(self.reached_at(peer, now)) < replica.settings.election_timeout
        };
        let needed = self.peers.iter().filter(is_heard).map(|peer| peer.matched.next()).min();
        let after_last = replica.log().last().next();
        needed.unwrap_or(after_last).max(replica.log().base().index.next())
    }

    pub(crate) fn on_link_up(
        &mut self,
        replica: &Replica,
        now: Ticks,
        node: NodeId,
        out: &mut Output,
    ) {
        if let Some(position) = self.position(node) {
            self.stir(replica, now);
            self.peers[position].on_link_up();
            self.peers[position].feed(replica, now, out);
        }
    }

    pub(crate) fn on_link_down(&mut self, replica: &Replica, now: Ticks, node: NodeId) {
        if let Some(position) = self.position(node) {
            self.stir(replica, now);
            self.peers[position].on_link_down(now);
        }
    }

    /// Leadership is lost.
    pub(crate) fn end(self, out: &mut Output) {
        self.reads.lose(out);
    }

    /// Commits what a majority, or as many as are enough, holds durably, if it is of the own term
    /// (thesis 3.6.2): older entries are committed along with it, never by counting.
    #[inline]
    fn advance_commit(&mut self, replica: &mut Replica, now: Ticks, out: &mut Output) {
        let persisted = replica.durable().persisted();
        #[cfg(ringraft_plant)]
        let persisted =
            if planted(Plant::SelfCountedEarly) { replica.log().last() } else { persisted };
        let agreed =
            replica.reached_to_commit(|id| self.peer(id).map_or(persisted, |peer| peer.matched));
        #[cfg(ringraft_plant)]
        let agreed = if planted(Plant::RemovedLeaderCounted) {
            let stand_in = replica.membership.in_force().configuration.voters()[0];
            let of = |id| self.peer(id).map_or(persisted, |peer| peer.matched);
            let is_left_out = self.resigns_at.is_none()
                && !replica.membership.in_force().configuration.is_voter(replica.id);
            let own = |id| if is_left_out && id == stand_in { persisted } else { of(id) };
            replica.reached_to_commit(own)
        } else {
            agreed
        };
        let is_own = agreed >= self.term_first;
        #[cfg(ringraft_plant)]
        let is_own = is_own || planted(Plant::OldTermCounted);
        if !is_own || agreed <= replica.commit() {
            return;
        }
        let was_ready = self.is_ready(replica);
        replica.commit_to(agreed, out);
        if !was_ready {
            self.flush_reads(replica, now, out);
        }
    }

    /// Sends every peer what it may be sent now.
    pub(crate) fn feed_all(&mut self, replica: &Replica, now: Ticks, out: &mut Output) {
        for peer in &mut self.peers {
            peer.feed(replica, now, out);
        }
    }

    pub(crate) fn send_heartbeats(&mut self, replica: &Replica, now: Ticks, out: &mut Output) {
        self.heartbeat_at = next_beat(now, self.beat_interval(replica));
        let hibernate = self.asks_to_hibernate();
        if replica.settings.lease > Ticks::ZERO {
            self.lease.leaves(self.reads.newest(), now, replica.settings.lease);
        }
        let (term, commit, round) = (replica.term(), replica.commit(), self.reads.newest());
        out.send_now.extend(self.peers.iter().map(|peer| {
            // A follower may hold other entries after what it is known to hold.
            let matched = peer.matched;
            #[cfg(ringraft_plant)]
            let matched = if planted(Plant::BeatCommitUncut) { commit } else { matched };
            let commit = commit.min(matched);
            Envelope { to: peer.id, message: Message::Heartbeat { term, commit, round, hibernate } }
        }));
    }

    fn peer(&self, id: NodeId) -> Option<&Progress> {
        self.peers.iter().find(|peer| peer.id == id)
    }

    fn position(&self, id: NodeId) -> Option<usize> {
        self.peers.iter().position(|peer| peer.id == id)
    }
}

/// When heartbeats leave next: at the multiples of their interval, so that those of all groups of
/// a shard are due together, and share their frames (MG-04).
fn next_beat(now: Ticks, interval: Ticks) -> Ticks {
    let interval = interval.0.max(1);
    Ticks((now.0 / interval).saturating_add(1).saturating_mul(interval))
}
