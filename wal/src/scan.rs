//! Scanning one segment file: which blocks are in it, what they hold, and what is neither block
//! nor zero. Decides nothing; [`crate::replay`] does, when all segments are known.

use crate::block::{Block, BlockError, walk};
use crate::device::FileId;
use crate::error::WalError;
use crate::format::is_zero;
use crate::format::{
    BlockHeader, Directory, DirectoryItem, Identity, SEGMENT_HEADER_BYTES, SegmentHeader,
    SegmentHeaderError,
};
use crate::unreadable::{Unreadable, length_named};
use ringraft_types::bytes::{u32_at, u64_at};
use ringraft_types::limits::BLOCK_ALIGN_MIN;
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::record::{HomeState, Record, RecordKind};
use ringraft_types::{GroupId, Index, LogId, Sequence, Term};

/// What a block does to the state, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Entries of one term; removes from `first` on, then adds.
    Entries { group: GroupId, first: Index, last: Index, term: Term },
    /// Entries of one term, carried; removes nothing.
    Carried { group: GroupId, first: Index, last: Index, term: Term },
    /// Removes the entries from here on.
    Truncate { group: GroupId, from: Index },
    /// Term, vote, commit.
    Hard { group: GroupId, term: Term, vote: u32, commit: Index, is_carried: bool },
    /// A snapshot is durable.
    Snapshot { group: GroupId, last: LogId, number: u64, is_carried: bool },
    /// A record of the node itself; and the group that isn't here any more, if it says that of one.
    Node { kind: RecordKind, is_carried: bool, gone: Option<GroupId> },
}

/// An entry that holds a configuration of its group; a block rarely has one.
#[derive(Clone, Debug)]
pub(crate) struct ScannedConfiguration {
    pub(crate) group: GroupId,
    pub(crate) id: LogId,
    pub(crate) payload: Vec<u8>,
}

/// A block whose header and directories are intact.
#[derive(Clone, Debug)]
pub(crate) struct ScannedBlock {
    pub(crate) header: BlockHeader,
    pub(crate) checksum: u32,
    pub(crate) directory: Vec<DirectoryItem>,
    /// The directory of the block before; kept only if that one isn't known to be intact.
    pub(crate) repeated: Option<Vec<DirectoryItem>>,
    pub(crate) steps: Vec<Step>,
    /// Local records, as they are, with their header's kind.
    pub(crate) locals: Vec<Vec<u8>>,
    /// Of its entries, carried ones among them, those that hold configurations.
    pub(crate) configurations: Vec<ScannedConfiguration>,
    pub(crate) damaged: Vec<DirectoryItem>,
    pub(crate) is_rotten: bool,
    pub(crate) is_padding_bad: bool,
}

/// A segment file, scanned.
#[derive(Clone, Debug)]
pub(crate) struct ScannedSegment {
    pub(crate) file: FileId,
    pub(crate) length: u64,
    pub(crate) header: Result<SegmentHeader, SegmentHeaderError>,
    pub(crate) blocks: Vec<ScannedBlock>,
    /// Neither block nor zero: offset and bytes.
    pub(crate) garbage: Vec<(u64, u64)>,
    /// Where blocks seem to start that aren't intact: offset, and the bytes that they name.
    pub(crate) begun: Vec<(u64, u64)>,
    /// What could not be read, in order; each unit is garbage as well.
    pub(crate) unreadable: Vec<Unreadable>,
    /// Intact blocks that name another place: left of a file's former life, or misdirected.
    pub(crate) stale: u64,
    /// The identity of an intact block of another log.
    pub(crate) foreign: Option<Identity>,
}

/// Scans a segment whose bytes come in order, in pieces.
#[derive(Debug)]
pub(crate) struct Scanner {
    identity: Identity,
    window: Vec<u8>,
    /// Where the window starts in the file.
    base: u64,
    /// Where the next block may start.
    at: u64,
    is_complete: bool,
    seen: Directory,
    segment: ScannedSegment,
    /// Sequence and checksum of the block scanned last, also of the segment before.
    last: (Sequence, u32),
}

const UNIT: u64 = BLOCK_ALIGN_MIN as u64;

impl Scanner {
    pub(crate) fn new(
        identity: Identity,
        file: FileId,
        length: u64,
        last: (Sequence, u32),
    ) -> Self {
        Self {
            identity,
            window: Vec::new(),
            base: 0,
            at: 0,
            is_complete: false,
            seen: Directory::default(),
            segment: ScannedSegment {
                file,
                length,
                header: Err(SegmentHeaderError::Empty),
                blocks: Vec::new(),
                garbage: Vec::new(),
                begun: Vec::new(),
                unreadable: Vec::new(),
                stale: 0,
                foreign: None,
            },
            last,
        }
    }

    /// Units of the file that could not be read, in order; they were fed as neither block nor zero.
    pub(crate) fn could_not_read(&mut self, units: Vec<Unreadable>) {
        self.segment.unreadable = units;
    }

    /// The next bytes of the file.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(), WalError> {
        let consumed = (self.at - self.base) as usize;
        if consumed >= self.window.len() {
            self.window.clear();
            self.base = self.at.min(self.base + consumed as u64);
        } else if consumed >= self.window.len() / 2 {
            self.window.drain(..consumed);
            self.base = self.at;
        }
        self.window.extend_from_slice(bytes);
        self.advance()
    }

    /// The file ends here.
    pub(crate) fn finish(mut self) -> Result<(ScannedSegment, (Sequence, u32)), WalError> {
        self.is_complete = true;
        self.advance()?;
        Ok((self.segment, self.last))
    }

    fn advance(&mut self) -> Result<(), WalError> {
        loop {
            let start = (self.at - self.base) as usize;
            let rest = self.window.get(start..).unwrap_or(&[]);
            if rest.is_empty() || (rest.len() < UNIT as usize && !self.is_complete) {
                return Ok(());
            }
            let unit = rest.len().min(UNIT as usize);
            if self.at == 0 {
                self.segment.header = SegmentHeader::decode(&rest[..unit]);
                self.check_segment_header()?;
                self.at += SEGMENT_HEADER_BYTES as u64;
                continue;
            }
            if is_zero(&rest[..unit]) {
                self.at += unit as u64;
                continue;
            }
            match Block::parse(rest) {
                Err(BlockError::Short { .. }) if !self.is_complete => return Ok(()),
                Err(BlockError::Version { version }) => {
                    return Err(WalError::Version {
                        file: self.segment.file,
                        offset: self.at,
                        version,
                    });
                }
                Err(_) => {
                    let length = length_named(&rest[..unit]);
                    self.segment.begun.extend(length.map(|length| (self.at, length)));
                    note(&mut self.segment.garbage, self.at, unit as u64);
                    self.at += unit as u64;
                }
                Ok(block) => {
                    let header = block.header;
                    let is_elsewhere =
                        (header.segment, header.offset) != (self.segment.file.number, self.at);
                    #[cfg(ringraft_plant)]
                    let is_elsewhere = is_elsewhere && !planted(Plant::StaleBlockAccepted);
                    if header.identity != self.identity {
                        self.segment.foreign = Some(header.identity);
                        self.segment.stale += 1;
                        self.at += UNIT;
                    } else if is_elsewhere {
                        self.segment.stale += 1;
                        self.at += UNIT;
                    } else {
                        let scanned =
                            summarize(&block, &mut self.seen, self.last).map_err(|kind| {
                                WalError::Kind { file: self.segment.file, offset: self.at, kind }
                            })?;
                        self.last = (header.sequence, block.checksum);
                        self.segment.blocks.push(scanned);
                        self.at += u64::from(header.length);
                    }
                }
            }
        }
    }

    fn check_segment_header(&self) -> Result<(), WalError> {
        let file = self.segment.file;
        match &self.segment.header {
            Err(SegmentHeaderError::Version(version)) => {
                Err(WalError::Version { file, offset: 0, version: *version })
            }
            Ok(header) => check_identity(file, &header.identity, &self.identity, header.segment),
            Err(_) => Ok(()),
        }
    }
}

/// Adds a span, to the last one if it goes on there.
fn note(spans: &mut Vec<(u64, u64)>, offset: u64, bytes: u64) {
    match spans.last_mut() {
        Some((start, length)) if *start + *length == offset => *length += bytes,
        _ => spans.push((offset, bytes)),
    }
}

/// Refuses what belongs to another log.
pub(crate) fn check_identity(
    file: FileId,
    found: &Identity,
    ours: &Identity,
    segment: u64,
) -> Result<(), WalError> {
    let differs = |what, found: String, expected: String| {
        Err(WalError::Foreign { file, what, found, expected })
    };
    if found.cluster != ours.cluster {
        let (found, ours) = (found.cluster.0, ours.cluster.0);
        return differs("cluster", format!("{found:032x}"), format!("{ours:032x}"));
    }
    if found.node != ours.node {
        return differs("node", found.node.to_string(), ours.node.to_string());
    }
    if found.incarnation != ours.incarnation {
        let (found, ours) = (found.incarnation.0, ours.incarnation.0);
        return differs("incarnation", format!("{found:016x}"), format!("{ours:016x}"));
    }
    if found.log_id != ours.log_id {
        return differs("log", found.log_id.to_string(), ours.log_id.to_string());
    }
    if segment != file.number {
        return differs("segment", segment.to_string(), file.number.to_string());
    }
    Ok(())
}

/// Verifies a block's records and notes what they do.
fn summarize(
    block: &Block<'_>,
    seen: &mut Directory,
    last: (Sequence, u32),
) -> Result<ScannedBlock, u8> {
    // One for each group at least: they stay until the last segment is read, so their room is exact.
    let mut steps: Vec<Step> = Vec::with_capacity(block.header.items as usize);
    let mut locals = Vec::new();
    let mut configurations = Vec::new();
    let result = walk(block, seen, |record, inner| {
        note_step(&mut steps, record, inner);
        let Record { header, payload, bytes } = *inner.unwrap_or(record);
        match header.kind {
            RecordKind::Configuration => configurations.push(ScannedConfiguration {
                group: header.group,
                id: LogId::new(header.term, header.index),
                payload: payload.to_vec(),
            }),
            kind if kind.is_entry() || kind == RecordKind::Truncate => {}
            _ => locals.push(bytes.to_vec()),
        }
    });
    if let Some(kind) = result.unknown_kind {
        return Err(kind);
    }
    for item in &result.damaged {
        steps.retain(|step| step.group() != item.group);
        locals.retain(|bytes| u64_at(bytes, 16) != item.group.0);
    }
    let header = block.header;
    let follows = (header.previous, header.chain) == last;
    Ok(ScannedBlock {
        header,
        checksum: block.checksum,
        directory: block.directory(),
        repeated: (!follows).then(|| block.repeated()),
        steps,
        locals,
        configurations,
        is_rotten: result.rotten.is_some() || !result.damaged.is_empty(),
        damaged: result.damaged,
        is_padding_bad: !block.padding_is_zero(),
    })
}

impl Step {
    pub(crate) fn group(&self) -> GroupId {
        match self {
            Self::Entries { group, .. }
            | Self::Carried { group, .. }
            | Self::Truncate { group, .. }
            | Self::Snapshot { group, .. }
            | Self::Hard { group, .. } => *group,
            Self::Node { .. } => GroupId::ZERO,
        }
    }
}

/// The group that isn't here any more, as a record of its home says.
pub(crate) fn gone(record: &Record<'_>) -> Option<GroupId> {
    let is_home = record.header.kind == RecordKind::Home;
    let state = is_home.then(|| HomeState::of(record.payload))?.ok()?;
    matches!(state, HomeState::Left | HomeState::Deleted).then_some(GroupId(record.header.index.0))
}

fn note_step(steps: &mut Vec<Step>, record: &Record<'_>, inner: Option<&Record<'_>>) {
    let is_carried = inner.is_some();
    let record = inner.unwrap_or(record);
    let header = record.header;
    let (group, index) = (header.group, header.index);
    match header.kind {
        RecordKind::HardState => {
            let vote = record.payload.get(..4).map_or(0, |vote| u32_at(vote, 0));
            let (term, commit) = (header.term, index);
            steps.push(Step::Hard { group, term, vote, commit, is_carried });
        }
        RecordKind::Truncate => steps.push(Step::Truncate { group, from: index }),
        RecordKind::Snapshot => {
            let number = record.payload.get(..8).map_or(0, |number| u64_at(number, 0));
            let last = LogId::new(header.term, index);
            steps.push(Step::Snapshot { group, last, number, is_carried });
        }
        kind if kind.is_entry() => {
            match steps.last_mut() {
                Some(Step::Entries { group: g, last, term, .. })
                    if !is_carried && (*g, *term, last.next()) == (group, header.term, index) =>
                {
                    *last = index;
                    return;
                }
                Some(Step::Carried { group: g, last, term, .. })
                    if is_carried && (*g, *term, last.next()) == (group, header.term, index) =>
                {
                    *last = index;
                    return;
                }
                _ => {}
            }
            let (first, last, term) = (index, index, header.term);
            steps.push(if is_carried {
                Step::Carried { group, first, last, term }
            } else {
                Step::Entries { group, first, last, term }
            });
        }
        kind => steps.push(Step::Node { kind, is_carried, gone: gone(record) }),
    }
}
