//! The heart: one turn of a shard.
//!
//! ```text
//!  collect   frames in: peers' messages are stepped while their bytes are in the inbox, clients'
//!            writes are encoded into the cache and wait for step 3
//!  turn   1  due ticks
//!         2  entries read back from the log
//!         3  the writes and reads of this turn, one proposal per group
//!         4  the log: completions in, one batch out; a look at the disk
//!         5  gates that opened: votes and acknowledgements leave, groups learn of it
//!         6  apply what is committed, replies into outboxes
//!         7  heartbeats and answers of all groups, one frame per link and kind
//! ```
//! Steps 1 to 3 think, 4 to 7 act. An effect never happens inside `Raft::step`: it fills an
//! `Output`, and [`Shard::carry_out`] is the one place that carries it out.

use crate::error::FrameRefusal;
use crate::error::ShardError;
use crate::event::{Event, ShardEvent, Wake};
use crate::gate::Gate;
use crate::group::{Group, Need};
use crate::links::Links;
use crate::peer_frames::Carried;
use crate::shard::{FetchFor, Peer, Shard};
use ringraft_raft::{Fetch, HardState, Input, Output, RoleKind, Span};
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::record::{self, RecordKind};
use ringraft_types::{GroupId, Index, NodeId, Sequence, Term, Ticks};
use ringraft_wal::device::Device;
use ringraft_wal::{ReadError, ReadRequest};
use std::sync::Arc;

/// Ticks are given on a grid of this part of the heartbeat interval: each pass over the groups
/// takes all that is due at about the same time. Heartbeats are due together anyway.
const TICK_GRID_PARTS: u64 = 10;

/// A group that appends notes what is committed after so many bytes of log, or a segment if that
/// is less.
const COMMIT_NOTE_BYTES: u64 = 16 << 20;

impl<D: Device, L: Links> Shard<D, L> {
    /// Takes in one thing that happened. Effects wait for the next [`Shard::turn`], at the same
    /// `now` or a little later.
    ///
    /// # Errors
    /// [`ShardError`] stops the process; the inner [`FrameRefusal`] closes the connection only.
    pub fn collect(
        &mut self,
        now: Ticks,
        event: Event<'_>,
    ) -> Result<Result<(), FrameRefusal>, ShardError> {
        match event {
            Event::PeerUp(node) => {
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.connected = true;
                    // Its first frame says that a node has taken the other's greeting for good.
                    peer.staged.is_due = true;
                    self.peers_due.staged = true;
                    if peer.is_up() {
                        self.link_changed(now, node, true)?;
                    }
                }
            }
            Event::PeerDown(node) => {
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.connected = false;
                    peer.staged.clear();
                    peer.postponed.clear();
                    let heard_at = peer.heard_at;
                    self.wake_all(now, node, heard_at)?;
                    self.link_changed(now, node, false)?;
                    self.may_part = true;
                }
                self.hear_of_memory(now, node, false);
            }
            Event::PeerFrame { from, frame } => return self.peer_frame(now, from, &frame),
            Event::ClientFrame { from, frame } => return self.client_frame(now, from, &frame),
            // Whoever wants to ask does so in the next turn.
            Event::PullUp(_) => {}
            Event::PullDown(node) => self.pull_lost(node),
            Event::BulkFrame { from, frame } => return Ok(self.bulk_frame(now, from, &frame)),
            Event::OlderCopy => self.fall_silent(now)?,
            Event::DataBytes(shard, bytes) => self.hear_of_data(shard, bytes),
            Event::Placement(placement) => self.hear_of_placement(Arc::clone(placement)),
        }
        Ok(Ok(()))
    }

    fn link_changed(&mut self, now: Ticks, node: NodeId, up: bool) -> Result<(), ShardError> {
        for slot in 0..self.groups.len() {
            let input = if up { Input::LinkUp(node) } else { Input::LinkDown(node) };
            self.step(now, slot, input, Carried::Cache)?;
            if up && self.groups[slot].leader() == Some(node) {
                // What was on its way to it may be lost.
                self.tell_states_again(slot);
            }
        }
        Ok(())
    }

    /// One turn: everything that was collected, and everything that is due, takes effect.
    ///
    /// # Errors
    /// If the process must stop: a write or sync failed, or the log can't hold a promise.
    pub fn turn(&mut self, now: Ticks) -> Result<Wake, ShardError> {
        self.metrics.turns += 1;
        self.started.get_or_insert(now);
        self.notice_turn(now);
        self.note_sent(now);
        self.part_from_strangers(now);
        self.give_ticks(now)?;
        self.take_reads_of_log(now)?;
        self.propose_touched(now)?;
        self.complete_changes(now)?;
        self.fetch_asked = false;
        let wake = self.log.turn(now, &mut self.device)?;
        let handed_over = self.log.pending_bytes();
        let mut wake = match wake {
            ringraft_wal::Wake::Now => Wake::Now,
            ringraft_wal::Wake::At(at) => Wake::At(at),
            ringraft_wal::Wake::OnEvent => Wake::OnEvent,
        };
        self.note_submitted(now);
        self.note_disk();
        let look_at = self.watch_disk(now)?;
        self.open_gates(now)?;
        self.sweep_on();
        self.apply_all(now)?;
        let rest_at = self.look_after_resting(now)?;
        self.clear_homes();
        let place_at = self.place_groups(now)?;
        let compare_at = self.compare_states(now)?;
        let spread_at = self.spread_leaders(now)?;
        let hand_over_at = self.hand_over_all(now)?.min(self.answer_barriers(now)?);
        self.trim(now)?;
        let mend_at = self.mend_all(now)?;
        let snapshot_at = self.take_snapshots(now)?.min(self.scrub(now));
        self.retry_postponed(now)?;
        self.flush_staged();
        // What came up after the log had its turn isn't under way: nothing would wake us for it.
        let is_log_behind =
            self.fetch_asked || self.log.has_reads_done() || self.log.pending_bytes() > handed_over;
        let is_asked = !self.touched.is_empty() || !self.completing.is_empty();
        if is_log_behind || is_asked || !self.to_apply.is_empty() {
            wake = Wake::Now;
        }
        let asked_at = snapshot_at.min(mend_at).min(self.expire_reads(now));
        let asked_at = asked_at.min(place_at).min(compare_at).min(rest_at);
        if asked_at <= now {
            wake = Wake::Now;
        }
        let wake = wake.earlier(Wake::At(
            self.next_tick.min(look_at).min(asked_at).min(hand_over_at).min(spread_at),
        ));
        self.notice_wake(now, wake);
        Ok(wake)
    }

    fn give_ticks(&mut self, now: Ticks) -> Result<(), ShardError> {
        if now < self.next_tick {
            return Ok(());
        }
        let grid = (self.settings.raft.heartbeat_interval.0 / TICK_GRID_PARTS).max(1);
        for slot in 0..self.groups.len() {
            if self.groups[slot].wake_at() <= now {
                self.step(now, slot, Input::Tick, Carried::Cache)?;
            }
        }
        let due = self.groups.iter().map(Group::wake_at).min();
        let due = due.unwrap_or(Ticks::NEVER).max(now);
        self.next_tick = Ticks(due.0.div_ceil(grid).saturating_mul(grid)).max(now.after(Ticks(1)));
        Ok(())
    }

    /// Steps one group and carries out what it asks for.
    pub(crate) fn step(
        &mut self,
        now: Ticks,
        slot: usize,
        input: Input<'_>,
        carried: Carried<'_>,
    ) -> Result<(), ShardError> {
        if self.groups[slot].is_muted {
            return Ok(());
        }
        // Proposals are encoded under this term at these indexes: nothing may come between.
        if !matches!(input, Input::Propose { .. }) {
            self.propose(now, slot)?;
        }
        let mut output = std::mem::take(&mut self.scratch.output);
        output.clear();
        self.groups[slot].raft.step(now, input, &mut output);
        let result = self.carry_out(now, slot, &output, carried);
        self.scratch.output = output;
        result
    }

    /// Carries out one step's output, in the order of the contract.
    pub(crate) fn carry_out(
        &mut self,
        now: Ticks,
        slot: usize,
        output: &Output,
        carried: Carried<'_>,
    ) -> Result<(), ShardError> {
        self.unread_members(slot, output);
        let is_cut = output.truncate_from.is_some() || output.emptied.is_some();
        if is_cut || output.append.is_some() {
            // From here on the log is another one than the start found.
            self.groups[slot].holes = None;
        }
        if let Some(token) = output.token {
            let sequence = self.persist(slot, output, carried)?;
            self.gates.hold(Gate { sequence, slot, token });
        }
        for envelope in &output.send_now {
            self.send(slot, envelope, carried);
        }
        self.groups[slot].gated.extend(output.send_after_persist.iter().copied());
        if let Some(committed) = output.committed {
            self.commit(now, slot, committed);
        }
        for ready in &output.reads {
            self.read_confirmed(slot, ready.ticket, ready.index);
        }
        for &ticket in &output.reads_lost {
            self.read_lost(slot, ticket);
        }
        for fetch in &output.fetch {
            self.fetch_for_peer(slot, fetch);
        }
        if let Some(install) = output.install {
            self.want_install(slot, Need::Leader(install.from, install.base));
        }
        assert!(output.refused.is_none(), "requests are judged before they are stepped");
        if output.role_changed {
            self.role_changed(slot);
        }
        if output.repaired {
            self.repaired(slot)?;
        }
        if output.completes && !self.completing.contains(&slot) {
            self.completing.push(slot);
        }
        if output.members_changed {
            self.read_members(now, slot, output.append)?;
        }
        self.note_rest(now, slot);
        Ok(())
    }

    /// Hands one batch to the log: removal first, then the hard state (a term is durable no later
    /// than its entries, V4), then the entries.
    fn persist(
        &mut self,
        slot: usize,
        output: &Output,
        carried: Carried<'_>,
    ) -> Result<Sequence, ShardError> {
        let mut sequence = Sequence::ZERO;
        let id = self.groups[slot].id;
        if output.emptied.is_some() {
            // What is cut below is what a loaded snapshot took the place of.
            self.cache.truncate(slot, Index::ZERO);
        } else if let Some(from) = output.truncate_from {
            assert!(from > self.groups[slot].applied, "applied entries are never removed (I-02)");
            self.cache.truncate(slot, from);
        }
        if let Some(from) = output.truncate_from
            && output.append.is_none_or(|span| span.first > from)
        {
            let term = self.groups[slot].raft.term();
            sequence = self.append_record(RecordKind::Truncate, id, from, term, &[])?;
        }
        let hard_state = output.hard_state;
        #[cfg(ringraft_plant)]
        let hard_state = if planted(Plant::TermUnwritten) && output.append.is_some() {
            None
        } else {
            hard_state
        };
        if let Some(hard_state) = hard_state {
            sequence = self.append_hard_state(slot, hard_state)?;
        } else if output.append.is_some() && output.hard_state.is_none() {
            self.note_commit(slot)?;
        }
        if let Some(span) = output.append {
            if let Some(term) = output.new_term_entry {
                assert!(span.first == span.last, "a new term begins with one entry");
                self.cache.push_with(slot, span.first, record::encoded_bytes(0), |out| {
                    record::encode(out, RecordKind::NewTerm, id, span.first, term, [b"", b""]);
                });
            } else if let Carried::Records { .. } = carried {
                let records = carried.slice(span).expect("the span is of the records carried");
                self.cache.push_run(slot, span.first, records);
            }
            sequence = self.append_span(slot, span)?;
        }
        assert!(sequence > Sequence::ZERO, "a token names something to persist");
        Ok(sequence)
    }

    pub(crate) fn append_hard_state(
        &mut self,
        slot: usize,
        HardState { term, vote, commit }: HardState,
    ) -> Result<Sequence, ShardError> {
        let (id, log_bytes) = (self.groups[slot].id, self.log.stats().bytes);
        self.groups[slot].commit_noted_at = log_bytes;
        let mut payload = [0u8; 8];
        payload[..4].copy_from_slice(&vote.map_or(0, |node| node.0).to_le_bytes());
        self.append_record(RecordKind::HardState, id, commit, term, &payload)
    }

    /// Says again what is durable of term and vote, with what has become committed since, when the
    /// log has grown by enough: a start applies that before anybody leads, and all groups go
    /// through the log together.
    fn note_commit(&mut self, slot: usize) -> Result<(), ShardError> {
        let grown = self.log.stats().bytes - self.groups[slot].commit_noted_at;
        if grown < COMMIT_NOTE_BYTES.min(self.log.settings().segment_bytes) {
            return Ok(());
        }
        let raft = &self.groups[slot].raft;
        // The leader may have committed what isn't durable here.
        let commit = raft.commit().min(raft.persisted());
        let hard_state = HardState { term: raft.term(), vote: raft.vote(), commit };
        self.append_hard_state(slot, hard_state).map(drop)
    }

    /// Hands the log a record of its own kind: of a group, or of the node (group zero).
    pub(crate) fn append_record(
        &mut self,
        kind: RecordKind,
        id: GroupId,
        index: Index,
        term: Term,
        payload: &[u8],
    ) -> Result<Sequence, ShardError> {
        self.scratch.record.clear();
        record::encode(&mut self.scratch.record, kind, id, index, term, [payload, b""]);
        Ok(self.log.append(&self.scratch.record)?)
    }

    fn append_span(&mut self, slot: usize, span: Span) -> Result<Sequence, ShardError> {
        let Self { groups, cache, log, .. } = self;
        let group = &groups[slot];
        let mut result = Ok(Sequence::ZERO);
        let held = cache.runs(slot, span.first, span.last, |first, last, bytes| {
            if result.is_ok() {
                let term = group.raft.term_at(last).expect("the entry was just appended");
                result = log.append_run(group.id, first, last, term, bytes);
            }
        });
        assert!(held, "entries {} to {} were just cached", span.first, span.last);
        Ok(result?)
    }

    fn open_gates(&mut self, now: Ticks) -> Result<(), ShardError> {
        let durable = self.log.durable();
        if self.peers_due.awaits {
            self.meet_awaited(now, durable)?;
        }
        while let Some(gate) = self.gates.release(durable) {
            let slot = gate.slot;
            let Self { groups, metrics, .. } = self;
            groups[slot].note_durable(metrics, now, gate.sequence);
            while self.groups[slot].gated.front().is_some_and(|held| held.token <= gate.token) {
                let held = self.groups[slot].gated.pop_front().expect("its front was just seen");
                self.send(slot, &held.envelope, Carried::Cache);
            }
            self.step(now, slot, Input::Persisted { token: gate.token }, Carried::Cache)?;
        }
        Ok(())
    }

    /// The records of whom was met are durable up to here: those peers' links count from now on.
    fn meet_awaited(&mut self, now: Ticks, durable: Sequence) -> Result<(), ShardError> {
        let is_met = |peer: &Peer| peer.awaits.is_some_and(|sequence| sequence <= durable);
        let met = self.peers.iter().filter(|(_, peer)| is_met(peer));
        let met: Vec<NodeId> = met.map(|(&node, _)| node).collect();
        for node in met {
            let peer = self.peers.get_mut(&node).expect("it was just found");
            peer.awaits = None;
            if peer.connected {
                self.link_changed(now, node, true)?;
            }
        }
        self.peers_due.awaits = self.peers.values().any(|peer| peer.awaits.is_some());
        Ok(())
    }

    fn role_changed(&mut self, slot: usize) {
        let group = &mut self.groups[slot];
        let (id, term) = (group.id, group.raft.term());
        let (role, leader) = (group.raft.role(), group.raft.leader());
        let before = std::mem::replace(&mut group.role_seen, role);
        let leader_before = std::mem::replace(&mut group.leader_seen, leader);
        if leader.is_some() && leader != leader_before {
            self.metrics.leader_changes += 1;
            self.tell_states_again(slot);
        }
        let group = &self.groups[slot];
        match role {
            RoleKind::Leader => {
                let last = group.raft.last();
                self.events.push(ShardEvent::BecameLeader { group: id, term, last });
            }
            RoleKind::Candidate => {
                self.metrics.elections += 1;
                self.events.push(ShardEvent::ElectionStarted { group: id, term });
            }
            RoleKind::Follower => {
                self.may_leave(id);
                if let Some(leader) = leader
                    && Some(leader) != leader_before
                {
                    self.events.push(ShardEvent::Follows { group: id, term, leader });
                }
            }
            RoleKind::PreCandidate => {}
        }
        if role != RoleKind::Leader {
            if before == RoleKind::Leader {
                self.events.push(ShardEvent::SteppedDown { group: id, term });
                self.spread.has_lost |= !self.hands_over(slot);
            }
            self.writes_unknown(slot);
        }
    }

    fn commit(&mut self, now: Ticks, slot: usize, committed: Index) {
        let Self { groups, metrics, .. } = self;
        let group = &mut groups[slot];
        assert!(committed >= group.committed, "the commit index never goes back (I-02)");
        group.committed = committed;
        group.note_committed(metrics, now);
        self.list_for_apply(slot);
    }

    fn note_disk(&mut self) {
        let is_full = self.log.space_exhausted();
        if is_full != self.disk_was_full {
            self.disk_was_full = is_full;
            self.events.push(ShardEvent::DiskFull(is_full));
        }
    }

    fn fetch_for_peer(&mut self, slot: usize, fetch: &Fetch) {
        let what = FetchFor::Peer { slot, peer: fetch.peer, first: fetch.first };
        self.fetch(slot, what, fetch.first, fetch.last, fetch.bytes_max);
    }

    pub(crate) fn fetch(
        &mut self,
        slot: usize,
        what: FetchFor,
        first: Index,
        last: Index,
        bytes_max: u64,
    ) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.fetches.insert(ticket, what);
        self.fetch_asked = true;
        let group = self.groups[slot].id;
        let bytes_max = bytes_max as usize;
        self.log.read(ReadRequest { ticket, group, first, last, bytes_max });
    }

    fn take_reads_of_log(&mut self, now: Ticks) -> Result<(), ShardError> {
        while let Some(done) = self.log.take_read() {
            let what = self.fetches.remove(&done.ticket).expect("every ticket was handed out here");
            match what {
                FetchFor::Apply { slot, .. }
                | FetchFor::Peer { slot, .. }
                | FetchFor::Lend { slot, .. }
                    if self.groups[slot].is_gone() =>
                {
                    if let Ok(records) = done.result {
                        self.log.give_read(records);
                    }
                }
                // A snapshot was installed meanwhile.
                FetchFor::Apply { slot, first } if first != self.groups[slot].applied.next() => {
                    self.groups[slot].apply_fetch = false;
                    self.list_for_apply(slot);
                }
                FetchFor::Apply { slot, .. } => match done.result {
                    Ok(records) => self.stock_for_apply(slot, records),
                    // What is committed and not yet applied has to be there.
                    Err(error) => self.damaged(now, slot, error)?,
                },
                FetchFor::Peer { slot, peer, first } => {
                    let records = match done.result {
                        Ok(records) => records,
                        Err(error @ ReadError::Rot { .. }) => {
                            self.damaged(now, slot, error)?;
                            Vec::new()
                        }
                        // Cut meanwhile, on behalf of a newer leader.
                        Err(ReadError::NotHeld) => Vec::new(),
                    };
                    self.fetched(now, slot, peer, first, &records)?;
                    self.log.give_read(records);
                }
                FetchFor::Lend { .. } => self.lend_read(now, what, done.result),
            }
        }
        Ok(())
    }

    /// Tells the groups whose cached tail lost its front.
    fn trim(&mut self, now: Ticks) -> Result<(), ShardError> {
        let mut trimmed = std::mem::take(&mut self.scratch.trimmed);
        self.cache.take_trimmed(&mut trimmed);
        trimmed.sort_unstable();
        trimmed.dedup();
        for &slot in &trimmed {
            let slot = slot as usize;
            let after_last = self.groups[slot].raft.last().next();
            let first = self.cache.first(slot).unwrap_or(after_last);
            self.step(now, slot, Input::Trimmed { first }, Carried::Cache)?;
        }
        trimmed.clear();
        self.scratch.trimmed = trimmed;
        Ok(())
    }

    /// An append that didn't fit its outbox is as good as lost: the group probes the peer again
    /// once there is room.
    fn retry_postponed(&mut self, now: Ticks) -> Result<(), ShardError> {
        if !self.peers_due.postponed {
            return Ok(());
        }
        let nodes: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, peer)| !peer.postponed.is_empty())
            .map(|(&node, _)| node)
            .collect();
        for node in nodes {
            if self.links.peer(node).is_none_or(|outbox| outbox.is_full()) {
                continue;
            }
            let peer = self.peers.get_mut(&node).expect("it was just found");
            let mut slots = std::mem::take(&mut peer.postponed);
            slots.sort_unstable();
            slots.dedup();
            for slot in slots {
                self.step(now, slot, Input::LinkDown(node), Carried::Cache)?;
                self.step(now, slot, Input::LinkUp(node), Carried::Cache)?;
            }
        }
        self.peers_due.postponed = self.peers.values().any(|peer| !peer.postponed.is_empty());
        Ok(())
    }
}
