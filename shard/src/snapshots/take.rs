//! Taking snapshots while writes go on: one group at a time, a slice per turn.
//!
//! A snapshot that is durable is named by a record of the log. Once that record is durable too, the
//! log gives up what the oldest kept snapshot covers, and older files are removed: never before, so
//! that a crash at any step leaves either the old state or the new one (S29).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ringraft_raft::Input;
use ringraft_types::record::RecordKind;
use ringraft_types::{Index, LogId, STRANDS, Sequence, Ticks};
use ringraft_wal::device::Device;
use ringraft_wal::{NamedSnapshot, SnapshotHead, SnapshotWritten};

use super::loader::Loader;
use super::pace::{Pace, PaceRules};
use super::pieces::{Part, SLICE_BYTES, SLICE_BYTES_MAX, end_piece, members_piece};
use super::{SnapshotEnd, SnapshotReason};
use crate::error::ShardError;
use crate::event::ShardEvent;
use crate::links::Links;
use crate::machine::StrandPieces;
use crate::peer_frames::Carried;
use crate::scrub::Scrubbing;
use crate::shard::Shard;

/// After a snapshot failed: the time until the next attempt.
const RETRY_AFTER: Ticks = Ticks::from_millis(5_000);
/// How often it is looked whether a snapshot is due.
const LOOK_EVERY: Ticks = Ticks::from_millis(100);

/// The snapshot that is being taken.
#[derive(Debug)]
pub(super) struct Taking {
    pub(super) slot: usize,
    pub(super) number: u64,
    reason: SnapshotReason,
    began: Ticks,
    /// The newest entry in it.
    last: Index,
    /// What the next slice is of.
    part: Part,
    pace: Pace,
    /// What the last slice held of each strand; `None`: there are none.
    strands: Option<Box<StrandPieces>>,
    /// About as long as it will be.
    whole_bytes: u64,
    /// Nothing is missing but the head.
    is_ended: bool,
    /// The machine that it was taken of is gone.
    is_given_up: bool,
}

/// A log that may give up entries once a record is durable.
#[derive(Debug)]
struct Release {
    sequence: Sequence,
    slot: usize,
    named: NamedSnapshot,
}

/// Groups to be taken, in their order, each once.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    queue: VecDeque<(usize, SnapshotReason)>,
    slots: BTreeSet<usize>,
}

impl Wanted {
    fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn contains(&self, slot: usize) -> bool {
        self.slots.contains(&slot)
    }

    fn push(&mut self, slot: usize, reason: SnapshotReason) {
        if self.slots.insert(slot) {
            self.queue.push_back((slot, reason));
        }
    }

    pub(super) fn remove(&mut self, slot: usize) {
        if self.slots.remove(&slot) {
            self.queue.retain(|&(wanted, _)| wanted != slot);
        }
    }

    fn pop(&mut self) -> Option<(usize, SnapshotReason)> {
        let (slot, reason) = self.queue.pop_front()?;
        self.slots.remove(&slot);
        Some((slot, reason))
    }
}

/// The snapshots of a shard.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    pub(super) wanted: Wanted,
    pub(super) taking: Option<Taking>,
    /// The group whose snapshot begins at an entry that the others were told.
    pub(super) awaited: Option<usize>,
    /// How the last attempt of each group ended, and how many there were.
    pub(super) ends: BTreeMap<usize, (u64, SnapshotEnd)>,
    releases: VecDeque<Release>,
    /// Groups whose log keeps for others what the named snapshot covers.
    held_back: BTreeSet<usize>,
    /// Groups of which one can't be read, and no other one was taken since.
    lacking: BTreeSet<usize>,
    look_at: Ticks,
    retry_at: Ticks,
    /// Nothing is to be done before this, unless a chunk or a file is ready.
    rests_until: Ticks,
    piece: Vec<u8>,
}

impl Snapshots {
    /// Whether one is being taken, or waits for its turn.
    pub(crate) fn is_busy(&self) -> bool {
        self.taking.is_some()
            || self.awaited.is_some()
            || !self.wanted.is_empty()
            || !self.releases.is_empty()
    }

    /// Whether a snapshot of this group is wanted, or being taken.
    pub(crate) fn concerns(&self, slot: usize) -> bool {
        self.wanted.contains(slot)
            || self.awaited == Some(slot)
            || self.taking.as_ref().is_some_and(|taking| taking.slot == slot)
    }

    /// Something is to be done: the next turn looks.
    pub(super) fn rouse(&mut self) {
        self.rests_until = Ticks::ZERO;
    }
}

impl<D: Device, L: Links> Shard<D, L> {
    /// Wants a snapshot of every group here, or of this one: of those that have applied anything
    /// since their last. Returns how many.
    pub fn want_snapshots(&mut self, reason: SnapshotReason) -> usize {
        (0..self.groups.len()).filter(|&slot| self.want_snapshot(slot, reason)).count()
    }

    pub(crate) fn want_snapshot(&mut self, slot: usize, reason: SnapshotReason) -> bool {
        let is_due = self.is_due(slot)
            && !self.snapshots.wanted.contains(slot)
            && self.snapshots.awaited != Some(slot)
            && self.snapshots.taking.as_ref().is_none_or(|taking| taking.slot != slot);
        if is_due {
            self.snapshots.wanted.push(slot, reason);
            self.snapshots.rouse();
        }
        is_due
    }

    /// Wants another snapshot of a group in the place of one that can't be read, as soon as one can
    /// be taken.
    pub(crate) fn want_another(&mut self, slot: usize) {
        self.snapshots.lacking.insert(slot);
        self.want_snapshot(slot, SnapshotReason::Unreadable);
    }

    /// Whether a snapshot of a group can be taken, and has anything new to hold.
    pub(super) fn is_due(&self, slot: usize) -> bool {
        let group = &self.groups[slot];
        let has_new = group.applied > group.snapshot_index();
        // Who fetches a snapshot must learn from it who the members are.
        let has_members = !group.book.as_of(group.applied).is_none();
        has_new && has_members && group.halt.is_none() && !self.fetching.is_under(slot)
    }

    /// Whether another snapshot may begin now: one is taken at a time.
    pub(super) fn may_begin(&self, now: Ticks) -> bool {
        let snapshots = &self.snapshots;
        snapshots.taking.is_none() && snapshots.awaited.is_none() && now >= snapshots.retry_at
    }

    /// Goes on with the snapshots. Returns when it wants another turn. Most turns have nothing to do
    /// here, and find that in one place.
    pub(crate) fn take_snapshots(&mut self, now: Ticks) -> Result<Ticks, ShardError> {
        let rests_until = self.snapshots.rests_until;
        if now < rests_until && !self.log.has_snapshots_written() && !self.log.has_chunks() {
            return Ok(rests_until);
        }
        while let Some(written) = self.log.take_snapshot_written() {
            let number = written.head.number;
            if self.snapshots.taking.as_ref().is_some_and(|taking| taking.number == number) {
                self.snapshot_written(now, written)?;
            } else if self.fetching.is_of(number) {
                self.fetched_written(now, written);
            } else if written.result.is_ok() {
                // Given up too late to be dropped.
                self.log.remove_snapshot(&mut self.device, number);
            }
        }
        while let Some(done) = self.log.take_chunk() {
            if Loader::is_for(done.ticket) {
                self.chunk_to_load(done);
            } else if Scrubbing::is_for(done.ticket) {
                self.scrubbing.chunk_read(done);
            } else {
                self.chunk_read(done);
            }
        }
        self.release(now)?;
        if now >= self.snapshots.look_at {
            self.snapshots.look_at = now.after(LOOK_EVERY);
            self.look_for_snapshots(now)?;
            self.look_for_holds(now);
            for slot in std::mem::take(&mut self.snapshots.held_back) {
                self.release_log(now, slot)?;
            }
        }
        let mut at = self.snapshots.look_at;
        self.look_for_awaited();
        if !self.snapshots.wanted.is_empty() {
            if self.may_begin(now) {
                self.begin_wanted(now);
            } else if now < self.snapshots.retry_at {
                at = at.min(self.snapshots.retry_at);
            }
        }
        let fetch_at = self.fetch_snapshots(now)?;
        at = at.min(fetch_at);
        let taken_at = self.take_slice(now);
        at = at.min(taken_at).min(self.serve_snapshots(now));
        let is_idle =
            !self.snapshots.is_busy() && self.fetching.is_idle() && self.serving.is_idle();
        self.snapshots.rests_until = if is_idle { at } else { Ticks::ZERO };
        Ok(at)
    }

    /// Looks which groups are due by the rules.
    fn look_for_snapshots(&mut self, now: Ticks) -> Result<(), ShardError> {
        let rules = self.settings.snapshots;
        for slot in self.snapshots.lacking.iter().copied().collect::<Vec<_>>() {
            self.want_snapshot(slot, SnapshotReason::Unreadable);
        }
        if rules.entries > 0 || rules.interval > Ticks::ZERO {
            for slot in 0..self.groups.len() {
                let group = &self.groups[slot];
                let entries = group.applied.0.saturating_sub(group.snapshot_index().0);
                if rules.entries > 0 && entries >= self.patience(slot, rules.entries) {
                    self.want_snapshot(slot, SnapshotReason::Entries);
                } else if rules.interval > Ticks::ZERO
                    && now.since(group.snapshot_at).0 >= self.patience(slot, rules.interval.0)
                {
                    self.want_snapshot(slot, SnapshotReason::Interval);
                }
            }
        }
        let is_long = rules.log_bytes > 0 && self.log.used_bytes() > rules.log_bytes;
        if is_long && !self.snapshots.is_busy() {
            // One round of those that keep the oldest segment; the next look sees what it brought.
            for group in self.log.oldest_pins() {
                let Some(&slot) = self.slots.get(&group) else { continue };
                if self.log.used_bytes() <= self.patience(slot, rules.log_bytes) {
                    continue;
                }
                let newest = self.groups[slot].kept.last().copied();
                // Another snapshot doesn't shorten what others need.
                if self.snapshots.held_back.contains(&slot)
                    || self.want_snapshot(slot, SnapshotReason::LogBytes)
                {
                    continue;
                }
                // An idle group needs no other snapshot, and no older one either.
                if let Some(newest) = newest.filter(|it| it.last.index == self.groups[slot].applied)
                {
                    self.name(slot, newest)?;
                }
            }
        }
        Ok(())
    }

    fn begin_wanted(&mut self, now: Ticks) {
        let Some((slot, reason)) = self.snapshots.wanted.pop() else { return };
        if self.is_due(slot) {
            self.begin_or_appoint(now, slot, reason);
        }
    }

    /// Begins a snapshot of a group as it is now.
    pub(super) fn begin_snapshot(&mut self, now: Ticks, slot: usize, reason: SnapshotReason) {
        let is_in_strands = self.is_in_strands(slot);
        let group = &mut self.groups[slot];
        let term = group.raft.term_at(group.applied).expect("what is applied is held, or its base");
        let last = LogId::new(term, group.applied);
        group.machine.begin_snapshot();
        let strands = if is_in_strands { group.machine.strands() } else { [0; STRANDS] };
        if is_in_strands {
            group.machine.keep_strands();
        }
        group.sessions.begin_snapshot();
        let whole_bytes = group.machine.memory_bytes() as u64;
        self.snapshots.rouse();
        let number = self.log.begin_snapshot(group.id, last, strands);
        let members = group.book.as_of(group.applied);
        self.log.add_to_snapshot(number, &members_piece(members.index, &members.payload));
        self.snapshots.taking = Some(Taking {
            slot,
            number,
            reason,
            began: now,
            last: last.index,
            part: Part::Machine,
            pace: Pace::new(now, self.log.stats().bytes),
            strands: is_in_strands.then(Box::default),
            whole_bytes,
            is_ended: false,
            is_given_up: false,
        });
    }

    /// Adds a slice to the snapshot that is being taken. Returns when the next may follow.
    fn take_slice(&mut self, now: Ticks) -> Ticks {
        let Self { snapshots, groups, log, settings, .. } = self;
        let Snapshots { taking, piece, .. } = snapshots;
        let Some(taking) = taking.as_mut().filter(|taking| !taking.is_given_up) else {
            return Ticks::NEVER;
        };
        let group = &mut groups[taking.slot];
        if group.halt.is_some() {
            log.drop_snapshot(taking.number);
        }
        if taking.part == Part::End {
            // What others made durable may be applied before the own disk has it: no snapshot is
            // ahead of its log.
            if !taking.is_ended && group.raft.persisted() >= taking.last {
                taking.is_ended = true;
                log.end_snapshot(taking.number);
                return now;
            }
            return Ticks::NEVER;
        }
        if !log.snapshot_has_room(taking.number) {
            return Ticks::NEVER;
        }
        let rules = PaceRules {
            // A stop waits for it.
            bytes_per_second: if self.is_stopping {
                0
            } else {
                settings.snapshots.bytes_per_second
            },
            log_bytes: settings.snapshots.log_bytes,
            whole_bytes: taking.whole_bytes,
        };
        let at = taking.pace.look(now, log.stats().bytes, rules);
        if at > now {
            return at;
        }
        let bytes = if taking.pace.is_behind() { SLICE_BYTES_MAX } else { SLICE_BYTES };
        let strands = taking.strands.as_deref_mut();
        taking.part =
            taking.part.cut(bytes, &mut *group.machine, &mut group.sessions, piece, strands);
        log.add_to_snapshot(taking.number, piece);
        taking.pace.spend(piece.len());
        for (strand, bytes) in taking.strands.iter_mut().flat_map(|it| it.iter_mut().enumerate()) {
            log.add_to_strand(taking.number, strand, bytes);
            taking.pace.spend(bytes.len());
            bytes.clear();
        }
        if taking.part == Part::End {
            log.add_to_snapshot(taking.number, &end_piece());
        }
        now
    }

    fn snapshot_written(
        &mut self,
        now: Ticks,
        SnapshotWritten { head, result }: SnapshotWritten,
    ) -> Result<(), ShardError> {
        let taking = self.snapshots.taking.take_if(|taking| taking.number == head.number);
        let taking = taking.expect("a snapshot that was written was being taken");
        if taking.is_given_up {
            if result.is_ok() {
                self.log.remove_snapshot(&mut self.device, head.number);
            }
            return Ok(());
        }
        let Taking { slot, reason, began, part, .. } = taking;
        let group = &mut self.groups[slot];
        if part == Part::Machine {
            group.machine.end_snapshot();
        }
        if part != Part::End {
            group.sessions.end_snapshot();
        }
        let (id, last, bytes) = (group.id, head.last.index, head.length);
        let took = now.since(began);
        let attempts = self.snapshots.ends.get(&slot).map_or(0, |(attempts, _)| *attempts);
        let end = SnapshotEnd { last: head.last, bytes, took, error: result.err() };
        self.snapshots.ends.insert(slot, (attempts + 1, end));
        if let Err(error) = result {
            self.metrics.snapshots_failed += 1;
            self.snapshots.retry_at = now.after(RETRY_AFTER);
            self.events.push(ShardEvent::SnapshotFailed { group: id, error });
            if self.groups[slot].halt.is_none() {
                self.snapshots.wanted.push(slot, reason);
            }
            return Ok(());
        }
        self.metrics.snapshots_taken += 1;
        self.metrics.snapshot_bytes += bytes;
        self.events.push(ShardEvent::SnapshotTaken { group: id, last, bytes, took, reason });
        group.snapshot_at = now;
        self.log.close_snapshot(&mut self.device, head.number);
        self.keep(slot, head);
        self.name_oldest(slot)
    }

    /// A snapshot is durable: it is the group's newest.
    pub(super) fn keep(&mut self, slot: usize, head: SnapshotHead) {
        self.groups[slot].kept.push(head);
        self.snapshots.lacking.remove(&slot);
        self.remove_unreadable(slot);
    }

    /// Removes the snapshots of a group that can't be read, but for what is being read, which goes the
    /// next time. While the group lacks entries they stay: their heads may be all that tells of what
    /// it promised.
    pub(crate) fn remove_unreadable(&mut self, slot: usize) {
        let Self { groups, scrubbing, log, device, .. } = self;
        let group = &mut groups[slot];
        if group.raft.vote_floor().is_some() {
            return;
        }
        group.unreadable.retain(|&old| {
            let is_read = scrubbing.reads(old);
            if !is_read {
                log.remove_snapshot(device, old);
            }
            is_read
        });
    }

    /// Another machine takes the place of the one of which a snapshot may be being taken.
    pub(crate) fn stop_taking(&mut self, slot: usize) {
        self.snapshots.wanted.remove(slot);
        self.give_up_appointed(slot);
        if let Some(taking) = self.snapshots.taking.as_mut().filter(|taking| taking.slot == slot) {
            taking.is_given_up = true;
            self.log.drop_snapshot(taking.number);
        }
    }

    /// The group left: its snapshots go, and none is taken any more.
    pub(crate) fn forget_snapshots(&mut self, slot: usize) {
        self.stop_taking(slot);
        let Snapshots { ends, releases, held_back, lacking, .. } = &mut self.snapshots;
        ends.remove(&slot);
        releases.retain(|release| release.slot != slot);
        held_back.remove(&slot);
        lacking.remove(&slot);
        self.snapshots.rouse();
        self.give_up_all_snapshots(slot);
        // One that is being read just now is found, and removed, by the next start.
        for number in std::mem::take(&mut self.groups[slot].unreadable) {
            if !self.scrubbing.reads(number) {
                self.log.remove_snapshot(&mut self.device, number);
            }
        }
    }

    /// Names the oldest snapshot to be kept in the log, unless it is named already: what it covers
    /// may go then.
    pub(crate) fn name_oldest(&mut self, slot: usize) -> Result<(), ShardError> {
        let kept_max = self.settings.snapshots.kept.max(1);
        let group = &self.groups[slot];
        let Some(at) = group.kept.len().checked_sub(kept_max) else { return Ok(()) };
        self.name(slot, group.kept[at])
    }

    /// Names a snapshot in the log, unless it is named already.
    pub(super) fn name(&mut self, slot: usize, head: SnapshotHead) -> Result<(), ShardError> {
        let SnapshotHead { last, number, group: id, .. } = head;
        let named = NamedSnapshot { last, number };
        if self.groups[slot].named == Some(named) {
            if self.groups[slot].named_durable == last.index {
                // What was to go behind it may be there still: the power failed in between.
                self.give_up_older(slot, named);
            }
            return Ok(());
        }
        // What a newer one that was named held, the group may have promised. So may it have what one
        // held of which nothing is known but that it was named.
        let group = &self.groups[slot];
        if group.is_name_lost || group.named.is_some_and(|it| it.last.index > last.index) {
            return Ok(());
        }
        self.groups[slot].named = Some(named);
        let payload = number.to_le_bytes();
        let sequence =
            self.append_record(RecordKind::Snapshot, id, last.index, last.term, &payload)?;
        self.snapshots.releases.push_back(Release { sequence, slot, named });
        self.snapshots.rouse();
        Ok(())
    }

    /// Gives up what durable records say is covered.
    fn release(&mut self, now: Ticks) -> Result<(), ShardError> {
        let durable = self.log.durable();
        while let Some(release) = self.snapshots.releases.pop_front_if(|it| it.sequence <= durable)
        {
            let Release { slot, named, .. } = release;
            self.groups[slot].named_durable = named.last.index;
            self.give_up_older(slot, named);
            self.release_log(now, slot)?;
        }
        Ok(())
    }

    /// Gives up the snapshots of a group that are older than one that a durable record names.
    fn give_up_older(&mut self, slot: usize, named: NamedSnapshot) {
        let newest = (named.last.index, named.number);
        let is_old = |head: &&SnapshotHead| (head.last.index, head.number) < newest;
        let group = &mut self.groups[slot];
        let old = group.kept.iter().take_while(is_old).count();
        let old: Vec<SnapshotHead> = group.kept.drain(..old).collect();
        for head in old {
            self.give_up_snapshot(head);
        }
    }

    /// Gives up what the named snapshot covers of a group's log, but for what other nodes need of
    /// it: a follower that lags a little is brought on by entries, and one that installs goes on
    /// from there; nothing while nobody leads. A log that grows too long for that is given up all the
    /// same.
    fn release_log(&mut self, now: Ticks, slot: usize) -> Result<(), ShardError> {
        let group = &self.groups[slot];
        let through = if self.log.used_bytes() > self.settings.snapshots.lag_bytes {
            group.named_durable
        } else if group.raft.leader().is_none() {
            // A member that can't read some of it, and without which nobody is elected, has it of
            // nobody but those who hold it now.
            group.released
        } else {
            group.named_durable.min(group.raft.needed_from().previous())
        };
        if group.is_muted {
            return Ok(());
        }
        if through < group.named_durable {
            self.snapshots.held_back.insert(slot);
        }
        if through > group.released {
            let id = group.id;
            self.groups[slot].released = through;
            self.step(now, slot, Input::Released { through }, Carried::Cache)?;
            self.log.release(id, through);
        }
        Ok(())
    }
}

impl crate::group::Group {
    /// The newest entry in a snapshot of it; zero if there is none.
    pub(crate) fn snapshot_index(&self) -> Index {
        self.kept.last().map_or(Index::ZERO, |head| head.last.index)
    }
}
