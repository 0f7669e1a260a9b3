//! Entries that one node can't read, asked of another that may hold them (decision 0013).
//!
//! ```text
//! RepairAsk      head, then each run: where it begins, and the term of its entries
//! RepairAnswer   head, then records: consecutive entries from the first one asked for
//! ```

use ringraft_types::{GroupId, Index, Term};
use rkyv::rend::unaligned::u32_ule;
use rkyv::{Archive, Serialize};

use crate::archive::{Travels, access_head, access_items, archive, fixed};
use crate::error::WireError;
use crate::frame::{Frame, FrameWriter, Identity, Kind};
use crate::outbox::Outbox;

/// Runs that one question names at most; what lies behind them is asked for later.
pub const ASK_RUNS_MAX: usize = 64;

const HEAD_BYTES: usize = 16;
const RUN_BYTES: usize = 16;

const _: () = assert!(HEAD_BYTES + ASK_RUNS_MAX * RUN_BYTES <= Kind::RepairAsk.body_bytes_max());

fixed! {
    /// "Do you hold these entries?" The group is in the frame's header.
    RepairAsk, RepairAskWire, ArchivedRepairAskWire, 16 {
        /// The asker's name for the question; the answer repeats it.
        round: u64,
        /// The last entry asked for.
        last: Index,
    }
}

fixed! {
    /// Consecutive entries of one term.
    RunItem, RunItemWire, ArchivedRunItemWire, 16 {
        /// The first of them; the run ends before the next one begins.
        first: Index,
        /// Their term.
        term: Term,
    }
}

fixed! {
    /// The answer to a [`RepairAsk`]; the records follow it.
    RepairAnswer, RepairAnswerWire, ArchivedRepairAnswerWire, 24 {
        /// Of the question.
        round: u64,
        /// The first entry that was asked for.
        first: Index,
        /// How many records follow.
        count: u32,
        /// Whether it holds any.
        state: AnswerState,
    }
}

/// The layouts of these frames, for [`super::layout_hash`].
pub(super) const LAYOUTS: [&str; 3] = [RepairAsk::LAYOUT, RunItem::LAYOUT, RepairAnswer::LAYOUT];

/// What a peer says of the entries that it was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum AnswerState {
    /// It holds some, and here they are: at least the first.
    #[default]
    Here = 1,
    /// It doesn't hold the first one, or can't read it either.
    Lacks = 2,
    /// It answers as many as it may already: ask again later.
    Busy = 3,
}

impl Travels for AnswerState {
    type Wire = u32;
    fn to_wire(self) -> u32 {
        self as u32
    }
    /// Only 1 to 3 get here: the border refuses all else.
    fn from_wire(wire: u32_ule) -> Self {
        match wire.to_native() {
            1 => Self::Here,
            2 => Self::Lacks,
            _ => Self::Busy,
        }
    }
}

impl RepairAsk {
    /// Writes it as one frame, with its runs.
    ///
    /// # Panics
    /// If there are none, or more than [`ASK_RUNS_MAX`].
    pub fn write(&self, out: &mut Outbox, group: GroupId, sender: Identity, runs: &[RunItem]) {
        assert!((1..=ASK_RUNS_MAX).contains(&runs.len()), "a question of {} runs", runs.len());
        let mut writer = FrameWriter::begin(out, Kind::RepairAsk, group, sender);
        archive(&mut writer, &self.to_wire());
        for run in runs {
            archive(&mut writer, &run.to_wire());
        }
        writer.finish();
    }
}

impl RepairAnswer {
    /// Writes it as one frame, with its records, encoded, in the order of their indexes.
    pub fn write(&self, out: &mut Outbox, group: GroupId, sender: Identity, records: &[u8]) {
        let mut writer = FrameWriter::begin(out, Kind::RepairAnswer, group, sender);
        archive(&mut writer, &self.to_wire());
        writer.extend(records);
        writer.finish();
    }
}

/// Opens the body of a `RepairAsk` frame: the question, and its runs, at least one, ascending, the
/// last one no later than the question's last entry.
///
/// # Errors
/// If it isn't one.
pub fn repair_ask(frame: &Frame<'_>) -> Result<(RepairAsk, Vec<RunItem>), WireError> {
    let kind = Kind::RepairAsk;
    let (head, items): (&ArchivedRepairAskWire, _) = access_head(frame, kind)?;
    let ask = RepairAsk::from_wire(head);
    let items = access_items::<ArchivedRunItemWire>(frame, kind, items);
    if items.len() == 0 || items.len() > ASK_RUNS_MAX {
        let value = items.len() as u64;
        return Err(WireError::Field { kind, field: "runs", value });
    }
    let mut runs: Vec<RunItem> = Vec::with_capacity(items.len());
    for item in items {
        let run = RunItem::from_wire(item?);
        let before = runs.last().map_or(Index::ZERO, |before| before.first);
        if run.first <= before || run.first > ask.last {
            return Err(WireError::Field { kind, field: "first", value: run.first.0 });
        }
        runs.push(run);
    }
    Ok((ask, runs))
}

/// Opens the body of a `RepairAnswer` frame: its head, and the bytes of its records, which are not
/// looked into here.
///
/// # Errors
/// If it isn't one.
pub fn repair_answer<'a>(frame: &Frame<'a>) -> Result<(RepairAnswer, &'a [u8]), WireError> {
    let kind = Kind::RepairAnswer;
    let (head, records): (&ArchivedRepairAnswerWire, _) = access_head(frame, kind)?;
    let state = head.state.to_native();
    if !(1..=3).contains(&state) {
        return Err(WireError::Field { kind, field: "state", value: u64::from(state) });
    }
    let answer = RepairAnswer::from_wire(head);
    let is_here = answer.state == AnswerState::Here;
    if is_here == (answer.count == 0) || is_here == records.is_empty() {
        let value = u64::from(answer.count);
        return Err(WireError::Field { kind, field: "count", value });
    }
    Ok((answer, records))
}
