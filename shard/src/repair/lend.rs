//! Answering a peer that can't read entries which may be held here. It needn't lead, and nothing is
//! promised: two entries of one index and term are one (I-05).

use crate::error::FrameRefusal;
use crate::group::Group;
use crate::limits::REPAIR_BYTES_MAX;
use crate::links::Links;
use crate::peer_frames::scan;
use crate::shard::{FetchFor, Shard};
use ringraft_net::wire::{self, AnswerState, RepairAnswer, RunItem};
use ringraft_net::{Frame, Kind};
use ringraft_types::{Index, NodeId, Term, Ticks};
use ringraft_wal::ReadError;
use ringraft_wal::device::Device;

/// Entries that one answer holds at most.
const ENTRIES_MAX: u64 = 4_096;
/// Questions whose entries are being read from the log at most; more are answered "busy".
const LENDING_MAX: usize = 8;

/// Up to where this log holds what is asked for. A term of zero: the asker doesn't know which one it
/// was. It is the one here, if this log holds the last entry that is asked for (I-05).
fn held(group: &Group, runs: &[RunItem], last: Index) -> Option<Index> {
    let first = runs[0].first;
    if runs.iter().any(|run| run.term == Term::ZERO) {
        let told = runs.last().map(|run| run.term).filter(|&term| term > Term::ZERO);
        if told.is_none() || group.term_at(last) != told {
            return None;
        }
    }
    let is_missing = |index| group.holes.as_ref().is_some_and(|holes| holes.is_missing(index));
    let most = last.min(group.promised()).min(Index(first.0.saturating_add(ENTRIES_MAX - 1)));
    let mut found = None;
    let mut run = 0;
    for index in (first.0..=most.0).map(Index) {
        while runs.get(run + 1).is_some_and(|next| next.first <= index) {
            run += 1;
        }
        let term = group.term_at(index);
        let is_same = runs[run].term == Term::ZERO || term == Some(runs[run].term);
        if index <= group.raft.base().index || !is_same || is_missing(index) {
            break;
        }
        found = Some(index);
    }
    found
}

impl<D: Device, L: Links> Shard<D, L> {
    /// A peer can't read entries, and asks for them.
    pub(crate) fn repair_ask(
        &mut self,
        from: NodeId,
        frame: &Frame<'_>,
    ) -> Result<(), FrameRefusal> {
        let (ask, runs) = wire::repair_ask(frame)
            .map_err(|error| FrameRefusal::malformed(Kind::RepairAsk, error))?;
        let Some(&slot) = self.slots.get(&frame.header.group) else { return Ok(()) };
        let (round, first) = (ask.round, runs[0].first);
        let without = |state| RepairAnswer { round, first, count: 0, state };
        let group = &self.groups[slot];
        let last = if group.is_muted { None } else { held(group, &runs, ask.last) };
        let Some(last) = last else {
            self.lend(slot, from, without(AnswerState::Lacks), &[]);
            return Ok(());
        };
        let (count, records) = self.cache.copy(slot, first, last, REPAIR_BYTES_MAX);
        if count > 0 {
            let answer = RepairAnswer { round, first, count, state: AnswerState::Here };
            self.lend(slot, from, answer, &records);
            return Ok(());
        }
        let lending = self.fetches.values().filter(|what| matches!(what, FetchFor::Lend { .. }));
        if lending.count() >= LENDING_MAX {
            self.lend(slot, from, without(AnswerState::Busy), &[]);
            return Ok(());
        }
        let what = FetchFor::Lend { slot, peer: from, round, first };
        self.fetch(slot, what, first, last, REPAIR_BYTES_MAX as u64);
        Ok(())
    }

    /// What a peer asked for was read back from the log, or can't be read here either.
    pub(crate) fn lend_read(
        &mut self,
        now: Ticks,
        what: FetchFor,
        result: Result<Vec<u8>, ReadError>,
    ) {
        let FetchFor::Lend { slot, peer, round, first } = what else { unreachable!("it lends") };
        let mut answer = RepairAnswer { round, first, count: 0, state: AnswerState::Lacks };
        let records = match result {
            Ok(records) => records,
            Err(error) => {
                if matches!(error, ReadError::Rot { .. }) {
                    self.unreadable(now, slot, error);
                }
                Vec::new()
            }
        };
        let (mut heads, mut offsets) = (Vec::new(), Vec::new());
        let group = self.groups[slot].id;
        let known = &mut Vec::new();
        let is_sound =
            scan(group, first, &records, self.own(), &mut heads, known, &mut offsets).is_ok();
        if is_sound && !heads.is_empty() {
            (answer.count, answer.state) = (heads.len() as u32, AnswerState::Here);
            self.lend(slot, peer, answer, &records);
        } else {
            self.lend(slot, peer, answer, &[]);
        }
    }

    /// Answers. What finds the outbox full is as good as lost: it is asked again, or of another.
    fn lend(&mut self, slot: usize, to: NodeId, answer: RepairAnswer, records: &[u8]) {
        let Self { groups, links, peers, settings, metrics, is_rolled_back, .. } = self;
        if *is_rolled_back || !peers.get(&to).is_some_and(|peer| peer.is_up()) {
            return;
        }
        if let Some(outbox) = links.peer(to).filter(|outbox| !outbox.is_full()) {
            metrics.entries_lent += u64::from(answer.count);
            answer.write(outbox, groups[slot].id, settings.identity, records);
        }
    }
}
