//! The decision table of recovery, and the replay of what it keeps. Pure: scanned segments in,
//! a decision out.
//!
//! | What is found | Decision |
//! |---|---|
//! | a chain of intact blocks | kept, acknowledged or not |
//! | a hole or a bad block above the newest durable sequence known | torn: cut from there on, counted |
//! | a unit that can't be read however often it is tried, where it may be a part of the very next block | refused: it may have been acknowledged (`unreadable.rs`) |
//! | the same farther on, or the header of a segment in which no block was begun | nothing is lost: cut or removed |
//! | a unit that can't be read, within what is kept | a bad block: as it says below |
//! | a bad block at or below it, the next header intact | rot: the groups that the next header's repeated directory names are damaged |
//! | several blocks in a row missing at or below it, or a whole segment | rot, unknown: every group may have lost something, all are damaged |
//! | a bad record under an intact header, at or below it | rot: only the groups whose part of the directory isn't met are damaged |
//! | the same above it | torn: cut from this block on |
//! | rot of a record of the node itself that a later one supersedes | reported, nothing is lost |
//! | the same of its newest record | rot: all groups of the log are damaged |
//! | entries written over a hole or behind it | kept; the group stays damaged until its log is as new as what it held, and is whole from then on |
//! | padding that isn't zero | reported, nothing is lost |
//! | a header that doesn't match the next block's chain | that block is another one than was written: as a bad block |
//! | a first block of a life that names block n as its predecessor | everything between the two was cut by an earlier recovery and stays cut |
//! | blocks below the oldest sequence that the log still needed | left of a removal that a crash interrupted; ignored |
//! | blocks that name another segment or offset | stale; ignored |
//! | two blocks with one sequence | the one that fits the chain, else the one of the newer segment |
//! | a file without valid header and blocks, newest | half made; removed |
//! | no block at all in a log that was begun | refused: it is lost, not new |

use crate::error::{RotKind, RotReport};
use crate::format::{
    DirectoryItem, FLAG_LIFE, ITEM_CARRIED, ITEM_ENTRIES, ITEM_HARD, ITEM_NODE, ITEM_SNAPSHOT,
};
use crate::index::{GroupIndex, Span};
use crate::recovery::NamedSnapshot;
use crate::scan::{ScannedBlock, ScannedSegment, Step};
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::record::RecordKind;
use ringraft_types::{GroupId, Index, LogId, Sequence, Term};
use std::collections::BTreeMap;

/// Larger than every entry: a damaged group of which nothing is known votes for nobody.
pub(crate) const FLOOR_UNKNOWN: LogId = LogId::new(Term(u64::MAX), Index(u64::MAX));

/// Entries of one term in one block, or a hole where they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    first: Index,
    last: Index,
    term: Term,
    /// Of a hole: the entry that has this term. Of those before it only that theirs isn't newer.
    named: Index,
    sequence: Sequence,
    is_hole: bool,
}

/// A group while it is replayed.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupReplay {
    pieces: Vec<Piece>,
    /// How many of them are holes.
    holes: usize,
    /// Where the next entry goes if there are no pieces.
    empty_at: Index,
    pub(crate) hard: Option<(Term, u32, Index)>,
    /// The newest hard state was lost; its term.
    pub(crate) hard_lost: Option<Term>,
    /// The newest entry that was ever held behind a hole and isn't held any more: a group that is
    /// being filled up again has promised it, until its log is as new. From then on nothing is owed,
    /// whatever a leader removes later (decision 0013).
    owed: LogId,
    /// What the newest record says of a snapshot.
    pub(crate) named: Option<NamedSnapshot>,
    /// The newest such record was lost.
    pub(crate) name_lost: bool,
}

/// One contiguous run of entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryRun {
    /// The first entry.
    pub first: Index,
    /// The last entry; one less than `first` if there is none.
    pub last: Index,
    /// Where each term starts.
    pub terms: Vec<(Index, Term)>,
}

impl EntryRun {
    /// The term of an entry; `None`: it isn't in the run.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        term_in((self.first, self.last), &self.terms, index)
    }
}

/// A log with holes, as its node promised it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// All its entries, those in the holes too. A term of zero: which one it was isn't known, but
    /// that of a later entry is.
    pub run: EntryRun,
    /// First and last entry of each hole, ascending.
    pub holes: Vec<(Index, Index)>,
}

impl Outline {
    /// The term of an entry, zero if it isn't known; `None`: the log didn't hold it.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.run.term_at(index)
    }

    /// The first entry from this one on whose term is known; the last one if there is none.
    pub fn told_from(&self, index: Index) -> LogId {
        let index = index.min(self.run.last);
        let terms = &self.run.terms;
        let at = terms.partition_point(|&(first, _)| first <= index) - 1;
        let told = terms[at..].iter().find(|run| run.1 > Term::ZERO);
        let &(first, term) = told.expect("the term of the last entry is told");
        LogId::new(term, first.max(index))
    }

    /// Whether the log held this entry, which some log of its group holds. Where its term isn't known
    /// it did for sure if the next one that is known is of the same term: that term's leader had
    /// both, and two logs that agree at one entry agree at all before it (I-05).
    pub fn held(&self, entry: LogId) -> bool {
        match self.term_at(entry.index) {
            Some(Term::ZERO) => self.told_from(entry.index).term == entry.term,
            term => term == Some(entry.term),
        }
    }
}

/// The term of an entry of a run; `None`: it isn't in the run.
pub(crate) fn term_in(
    (first, last): (Index, Index),
    terms: &[(Index, Term)],
    index: Index,
) -> Option<Term> {
    let begun = &terms[..terms.partition_point(|&(start, _)| start <= index)];
    let is_in = first <= index && index <= last;
    begun.last().filter(|_| is_in).map(|&(_, term)| term)
}

impl GroupReplay {
    fn newest(&self) -> LogId {
        let ids = self.pieces.iter().map(|piece| LogId::new(piece.term, piece.last));
        ids.max().unwrap_or(LogId::ZERO)
    }

    /// Removes the entries from here on. What lies behind a hole is owed from then on, for the
    /// group promised it; so is what a snapshot holds and what follows it, if the log begins anew
    /// below its end, and all that a log held which doesn't begin with the first entry and begins
    /// anew: its node may have given up what led to it. It looks at nothing but what it removes, for
    /// a replay asks it once for each piece.
    fn remove_from(&mut self, from: Index) {
        let covering = self.named.filter(|named| from <= named.last.index);
        if let Some(named) = covering {
            self.owed = self.owed.max(named.last);
        }
        let first = self.pieces.first().map(|piece| piece.first);
        let is_anew = first.is_some_and(|first| first > Index(1) && from <= first);
        let is_owed = self.holes > 0 || covering.is_some() || is_anew;
        while let Some(last) = self.pieces.last_mut().filter(|piece| piece.last >= from) {
            if is_owed {
                self.owed = self.owed.max(LogId::new(last.term, last.last));
            }
            if last.first < from {
                last.last = from.previous();
                break;
            }
            self.holes -= usize::from(last.is_hole);
            self.pieces.pop();
        }
        if self.pieces.is_empty() {
            self.empty_at = from;
        }
    }

    fn append(&mut self, new: Piece) {
        self.remove_from(new.first);
        if self.pieces.last().is_some_and(|last| last.last.next() != new.first) {
            self.remove_from(Index::ZERO);
        }
        self.holes += usize::from(new.is_hole);
        self.pieces.push(new);
    }

    /// Puts a piece in the place of what is there; with `only_missing`, only where nothing is.
    fn place(&mut self, new: Piece, only_missing: bool) {
        let mut rebuilt = Vec::with_capacity(self.pieces.len() + 2);
        let mut at = new.first;
        for piece in std::mem::take(&mut self.pieces) {
            let apart = piece.last < new.first || piece.first > new.last;
            if apart || only_missing {
                if piece.first > at && at <= new.last {
                    let last = new.last.min(piece.first.previous());
                    rebuilt.push(Piece { first: at, last, ..new });
                }
                if piece.last >= new.first {
                    at = at.max(piece.last.next());
                }
                rebuilt.push(piece);
                continue;
            }
            if piece.first < new.first {
                rebuilt.push(Piece { last: new.first.previous(), ..piece });
            }
            if at <= new.last {
                rebuilt.push(Piece { first: at, ..new });
                at = new.last.next();
            }
            if piece.last > new.last {
                rebuilt.push(Piece { first: new.last.next(), ..piece });
            }
        }
        if at <= new.last {
            rebuilt.push(Piece { first: at, ..new });
        }
        self.holes = rebuilt.iter().filter(|piece| piece.is_hole).count();
        self.pieces = rebuilt;
    }

    /// The contiguous run that ends with the piece at this position.
    fn run_ending(&self, end: usize) -> EntryRun {
        let last = self.pieces[end];
        let mut start = end;
        while start > 0 {
            let before = &self.pieces[start - 1];
            if before.is_hole || before.last.next() != self.pieces[start].first {
                break;
            }
            start -= 1;
        }
        let mut terms: Vec<(Index, Term)> = Vec::new();
        for piece in &self.pieces[start..=end] {
            if terms.last().is_none_or(|(_, term)| *term != piece.term) {
                terms.push((piece.first, piece.term));
            }
        }
        EntryRun { first: self.pieces[start].first, last: last.last, terms }
    }

    /// The entries to be used, the floor if entries are missing, and the entries behind the last
    /// hole.
    pub(crate) fn result(&self) -> (EntryRun, Option<LogId>, Option<EntryRun>) {
        let hole = self.pieces.iter().position(|piece| piece.is_hole);
        let Some(hole) = hole else {
            let none = EntryRun {
                first: Index(self.empty_at.0.max(1)),
                last: self.empty_at.previous(),
                terms: Vec::new(),
            };
            let run = self.pieces.len().checked_sub(1).map_or(none, |end| self.run_ending(end));
            let is_whole = self.owed <= self.newest();
            #[cfg(ringraft_plant)]
            let is_whole = is_whole || planted(Plant::FloorForgotten);
            return (run, (!is_whole).then_some(self.owed), None);
        };
        let first = self.pieces[hole].first;
        let follows = hole > 0 && self.pieces[hole - 1].last.next() == first;
        let run = if follows {
            self.run_ending(hole - 1)
        } else {
            EntryRun { first, last: first.previous(), terms: Vec::new() }
        };
        let floor = Some(self.newest().max(self.owed));
        let end = self.pieces.len() - 1;
        let tail = (!self.pieces[end].is_hole).then(|| self.run_ending(end));
        (run, floor, tail)
    }

    /// The log as it was promised, if that is known up to its last entry.
    pub(crate) fn outline(&self) -> Option<Outline> {
        let follows = |pair: &[Piece]| pair[0].last.next() == pair[1].first;
        let apart = self.pieces.windows(2).rposition(|pair| !follows(pair));
        let pieces = &self.pieces[apart.map_or(0, |at| at + 1)..];
        let (first, last) = (pieces.first()?.first, pieces.last()?.last);
        let mut outline =
            Outline { run: EntryRun { first, last, terms: Vec::new() }, holes: vec![] };
        let terms = &mut outline.run.terms;
        let mut note = |first: Index, term: Term| {
            if terms.last().is_none_or(|&(_, before)| before != term) {
                terms.push((first, term));
            }
        };
        // No term is older, and terms don't descend: between two of one term there is no other.
        let named = self.named.filter(|named| named.last.index.next() == first);
        let mut before = named.map_or(Term(1), |named| named.last.term);
        for piece in pieces {
            if piece.is_hole {
                outline.holes.push((piece.first, piece.last));
            }
            if piece.term < before {
                return None;
            }
            let is_named = piece.last == piece.named;
            if piece.is_hole && piece.term > before {
                let unknown = if is_named { piece.last.previous() } else { piece.last };
                if piece.first <= unknown {
                    note(piece.first, Term::ZERO);
                }
                if !is_named {
                    continue;
                }
                note(piece.last, piece.term);
            } else {
                note(piece.first, piece.term);
            }
            before = piece.term;
        }
        let is_known = outline.run.terms.last().is_some_and(|&(_, term)| term > Term::ZERO);
        (is_known && !outline.holes.is_empty()).then_some(outline)
    }

    fn damage(&mut self, item: &DirectoryItem, sequence: Sequence) {
        if item.flags & ITEM_HARD != 0 && item.flags & ITEM_CARRIED == 0 {
            self.hard_lost = Some(item.hard_term.max(self.hard_lost.unwrap_or_default()));
        } else if item.flags & ITEM_HARD != 0 && self.hard.is_none() {
            self.hard_lost = Some(item.hard_term);
        }
        let is_name = item.flags & ITEM_SNAPSHOT != 0;
        self.name_lost |= is_name && (item.flags & ITEM_CARRIED == 0 || self.named.is_none());
        if item.flags & ITEM_ENTRIES == 0 {
            return;
        }
        let hole = Piece {
            first: item.first,
            last: item.last,
            term: item.last_term,
            named: item.last,
            sequence,
            is_hole: true,
        };
        if item.flags & ITEM_CARRIED != 0 {
            self.place(hole, true);
        } else if item.first <= item.last {
            self.append(hole);
        } else {
            self.remove_from(item.first);
        }
    }

    fn apply(&mut self, step: &Step, sequence: Sequence) {
        match *step {
            Step::Entries { first, last, term, .. } => {
                self.append(Piece { first, last, term, named: last, sequence, is_hole: false });
            }
            Step::Carried { first, last, term, .. } => {
                let piece = Piece { first, last, term, named: last, sequence, is_hole: false };
                self.place(piece, false);
            }
            Step::Truncate { from, .. } => self.remove_from(from),
            Step::Hard { term, vote, commit, is_carried, .. } => {
                if !is_carried || self.hard.is_none() {
                    self.hard = Some((term, vote, commit));
                    self.hard_lost = None;
                }
            }
            Step::Snapshot { last, number, is_carried, .. } => {
                if !is_carried || self.named.is_none() {
                    self.cover(NamedSnapshot { last, number });
                }
            }
            Step::Node { .. } => {}
        }
        // The last piece is the newest one: a replay asks this for each.
        let newest = self.pieces.last().map(|last| LogId::new(last.term, last.last));
        if self.holes == 0 && newest.is_some_and(|newest| newest >= self.owed) {
            self.owed = LogId::ZERO;
        }
    }

    /// A snapshot holds everything up to its last entry: whatever became of it here, nothing of it
    /// is missing. One that ends before the one that was named leaves what that held owed.
    fn cover(&mut self, named: NamedSnapshot) {
        let through = named.last.index;
        self.pieces.retain_mut(|piece| {
            piece.first = piece.first.max(through.next());
            piece.first <= piece.last
        });
        self.holes = self.pieces.iter().filter(|piece| piece.is_hole).count();
        if self.pieces.is_empty() {
            self.empty_at = self.empty_at.max(through.next());
        }
        if self.owed <= named.last {
            self.owed = LogId::ZERO;
        }
        let before = self.named.map_or(LogId::ZERO, |before| before.last);
        if before > named.last {
            self.owed = self.owed.max(before);
        }
        (self.named, self.name_lost) = (Some(named), false);
    }
}

/// What replay decided.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) groups: BTreeMap<GroupId, GroupReplay>,
    /// Places of the kept blocks in `segments`: segment and block.
    pub(crate) kept: Vec<(usize, usize)>,
    pub(crate) rot: Vec<RotReport>,
    pub(crate) torn_blocks: u64,
    pub(crate) stale_blocks: u64,
    pub(crate) unknown_damage: bool,
    /// The newest record of the node itself was lost.
    node_lost: bool,
    /// Records of the node were lost that no later one supersedes.
    node_lost_for_good: bool,
    pub(crate) durable: Sequence,
    pub(crate) oldest: Sequence,
    pub(crate) newest_seen: Sequence,
}

impl Outcome {
    fn damage(&mut self, items: &[DirectoryItem], sequence: Sequence) -> Vec<GroupId> {
        for item in items {
            if item.group == GroupId::ZERO {
                self.node_lost = true;
                self.node_lost_for_good |= item.flags & ITEM_NODE == 0;
            } else {
                self.groups.entry(item.group).or_default().damage(item, sequence);
            }
        }
        let mut groups: Vec<GroupId> = items.iter().map(|item| item.group).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    fn apply(&mut self, step: &Step, sequence: Sequence) {
        match step {
            Step::Node { kind, is_carried, gone } => {
                self.node_lost &= *kind != RecordKind::Node || *is_carried;
                if let Some(gone) = gone {
                    // Whatever it was, or lost: what comes later is of one that begins anew.
                    self.groups.remove(gone);
                }
            }
            _ if step.group() == GroupId::ZERO => {}
            _ => self.groups.entry(step.group()).or_default().apply(step, sequence),
        }
    }

    /// Whether something is lost that the log said of the node itself.
    pub(crate) fn node_damaged(&self) -> bool {
        self.node_lost || self.node_lost_for_good || self.unknown_damage
    }

    /// Spans of everything that can be read back.
    pub(crate) fn index(&self) -> GroupIndex {
        let mut index = GroupIndex::default();
        for (&group, replay) in &self.groups {
            for piece in replay.pieces.iter().filter(|piece| !piece.is_hole) {
                let Piece { first, last, sequence, .. } = *piece;
                index.extend(group, Span { first, last, sequence });
            }
        }
        index
    }
}

/// Decides about every block of the log and replays those it keeps.
pub(crate) fn replay(segments: &[ScannedSegment]) -> Outcome {
    let mut outcome = Outcome::default();
    let mut all: Vec<(usize, usize)> = Vec::new();
    for (at, segment) in segments.iter().enumerate() {
        all.extend((0..segment.blocks.len()).map(|block| (at, block)));
        outcome.stale_blocks += segment.stale;
        if segment.header.is_err() && !segment.blocks.is_empty() {
            outcome.rot.push(report(Some((segment.file.number, 0)), None, RotKind::SegmentHeader));
        }
    }
    let block =
        |(segment, block): (usize, usize)| -> &ScannedBlock { &segments[segment].blocks[block] };
    let header = |at| &block(at).header;
    outcome.durable = all.iter().map(|&at| header(at).durable).max().unwrap_or_default();
    outcome.oldest = all.iter().map(|&at| header(at).oldest).max().unwrap_or(Sequence(1));
    outcome.newest_seen = all.iter().map(|&at| header(at).sequence).max().unwrap_or_default();
    // Cut by earlier recoveries: between a life's first block and the block it follows.
    let lives: Vec<(Sequence, Sequence)> = all
        .iter()
        .filter(|&&at| header(at).flags & FLAG_LIFE != 0)
        .map(|&at| (header(at).previous, header(at).sequence))
        .collect();
    let oldest = outcome.oldest;
    all.retain(|&at| {
        let sequence = header(at).sequence;
        let is_cut = lives.iter().any(|&(after, before)| sequence > after && sequence < before);
        #[cfg(ringraft_plant)]
        let is_cut = is_cut && !planted(Plant::CutBlockAccepted);
        sequence >= oldest && !is_cut
    });
    all.sort_by_key(|&at| (header(at).sequence, at));
    let all = without_duplicates(&all, |at| block(at), &mut outcome.stale_blocks);
    let chain = decide(&all, |at| block(at), &mut outcome);
    // Garbage behind the last kept block is a torn write; elsewhere the chain has noticed it.
    let end = chain.last().map(|&at| (segments[at.0].file.number, header(at).offset));
    for segment in segments {
        let torn = segment.garbage.iter().filter(|(offset, _)| {
            end.is_none_or(|(number, last)| (segment.file.number, *offset) > (number, last))
        });
        outcome.torn_blocks += torn.count() as u64;
    }
    outcome.kept = chain;
    outcome
}

/// Keeps one block per sequence.
fn without_duplicates<'a>(
    all: &[(usize, usize)],
    block: impl Fn((usize, usize)) -> &'a ScannedBlock,
    stale: &mut u64,
) -> Vec<(usize, usize)> {
    let mut unique: Vec<(usize, usize)> = Vec::with_capacity(all.len());
    for &at in all {
        let Some(&last) = unique.last() else {
            unique.push(at);
            continue;
        };
        if block(last).header.sequence != block(at).header.sequence {
            unique.push(at);
            continue;
        }
        *stale += 1;
        let before = unique.len().checked_sub(2).map_or(0, |before| block(unique[before]).checksum);
        let chained = |at| block(at).header.chain == before;
        if chained(at) || !chained(last) {
            *unique.last_mut().expect("looked at just now") = at;
        }
    }
    unique
}

/// Walks the chain, replays it, and returns the blocks kept.
fn decide<'a>(
    all: &[(usize, usize)],
    block: impl Fn((usize, usize)) -> &'a ScannedBlock,
    outcome: &mut Outcome,
) -> Vec<(usize, usize)> {
    let durable = outcome.durable;
    let mut kept: Vec<(usize, usize)> = Vec::new();
    for (position, &at) in all.iter().enumerate() {
        let now = block(at);
        let header = &now.header;
        let last = kept.last().map(|&last| block(last));
        let (last_sequence, last_checksum) =
            last.map_or((Sequence::ZERO, 0), |last| (last.header.sequence, last.checksum));
        let is_first = last.is_none() && header.previous < outcome.oldest;
        let follows = is_first || header.previous == last_sequence;
        if !follows {
            // The block before this one isn't there.
            let is_torn = header.previous > durable;
            #[cfg(ringraft_plant)]
            let is_torn = is_torn || planted(Plant::RotTaken);
            if is_torn {
                outcome.torn_blocks += (all.len() - position) as u64;
                break;
            }
            let known_before = header.before == last_sequence
                || (last.is_none() && header.before < outcome.oldest);
            if !known_before {
                outcome.unknown_damage = true;
                let unknown = report(None, None, RotKind::Unknown);
                outcome.rot.push(unknown);
            }
            let items = now.repeated.as_deref().unwrap_or(&[]);
            let groups = outcome.damage(items, header.previous);
            let mut lost = report(None, Some(header.previous), RotKind::Block);
            lost.groups = groups;
            outcome.rot.push(lost);
        } else if !is_first && header.chain != last_checksum {
            // The block before this one isn't the one that was written. It was replayed already;
            // what this block says of it overrules that.
            let items = now.repeated.as_deref().unwrap_or(&[]);
            let groups = outcome.damage(items, header.previous);
            let is_node = |step: &Step| matches!(step, Step::Node { .. });
            // What it said of the node may have passed for a later record than one that is lost.
            outcome.node_lost_for_good |= last.is_some_and(|last| last.steps.iter().any(is_node));
            let mut wrong = report(None, Some(header.previous), RotKind::Block);
            wrong.groups = groups;
            outcome.rot.push(wrong);
        }
        let place = Some((header.segment, header.offset));
        if now.is_rotten {
            let is_torn = header.sequence > durable;
            #[cfg(ringraft_plant)]
            let is_torn = is_torn || planted(Plant::RotTaken);
            if is_torn {
                outcome.torn_blocks += (all.len() - position) as u64;
                break;
            }
            let groups = outcome.damage(&now.damaged, header.sequence);
            let mut rotten = report(place, Some(header.sequence), RotKind::Records);
            rotten.groups = groups;
            outcome.rot.push(rotten);
        }
        if now.is_padding_bad {
            outcome.rot.push(report(place, Some(header.sequence), RotKind::Padding));
        }
        for step in &now.steps {
            outcome.apply(step, header.sequence);
        }
        kept.push(at);
    }
    kept
}

fn report(place: Option<(u64, u64)>, sequence: Option<Sequence>, kind: RotKind) -> RotReport {
    RotReport {
        segment: place.map(|(segment, _)| segment),
        offset: place.map(|(_, offset)| offset),
        sequence,
        kind,
        groups: Vec::new(),
    }
}
