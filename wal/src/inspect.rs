//! Looking at a log offline: which segments there are, what their blocks hold, whether all of it
//! is intact. Never writes. The caller holds the data directory's lock, or looks at a copy.

use crate::block::{Block, BlockError, carried};
use crate::device::uring::parse_file_name;
use crate::device::{FileId, FileKind};
use crate::error::{RotReport, WalError};
use crate::format::{SEGMENT_HEADER_BYTES, SegmentHeader, SegmentHeaderError, is_zero};
use crate::replay::replay;
use crate::scan::{ScannedSegment, Scanner};
use crate::sealed::Sealed;
use ringraft_types::limits::BLOCK_ALIGN_MIN;
use ringraft_types::record::{self, Record, RecordError, RecordKind};
use ringraft_types::{GroupId, Index, LogId, Sequence, Term};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// Why a log could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// A system call failed.
    #[error("reading {path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// As the system says.
        source: io::Error,
    },
    /// What is there can't be judged by this program.
    #[error(transparent)]
    Wal(#[from] WalError),
}

/// A segment file of a data directory.
#[derive(Debug)]
pub struct SegmentFile {
    /// Which one.
    pub file: FileId,
    /// Where it is.
    pub path: PathBuf,
    bytes: Sealed,
}

/// The segment files of a data directory, by log and number.
///
/// # Errors
/// If the directory or a file can't be read.
pub fn segments(directory: &Path) -> Result<Vec<SegmentFile>, InspectError> {
    let wrap = |path: &Path| {
        let path = path.to_path_buf();
        move |source| InspectError::Io { path, source }
    };
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(wrap(directory))? {
        let entry = entry.map_err(wrap(directory))?;
        let file = entry.file_name().to_str().and_then(parse_file_name);
        if let Some(file) = file.filter(|file| file.kind == FileKind::Segment) {
            let path = entry.path();
            let bytes = Sealed::map(&path).map_err(wrap(&path))?;
            segments.push(SegmentFile { file, path, bytes });
        }
    }
    segments.sort_by_key(|segment| segment.file);
    Ok(segments)
}

/// What lies at a place of a segment.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    /// A block with an intact header.
    Block(Block<'a>),
    /// Bytes that are neither a block nor zeros.
    Garbage {
        /// Where, bytes.
        offset: u64,
        /// How many.
        bytes: u64,
        /// Why the first of them isn't a block.
        error: BlockError,
    },
}

impl SegmentFile {
    /// The file's length, bytes.
    pub fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The segment's header.
    ///
    /// # Errors
    /// If it isn't intact.
    pub fn header(&self) -> Result<SegmentHeader, SegmentHeaderError> {
        SegmentHeader::decode(&self.bytes[..self.bytes.len().min(SEGMENT_HEADER_BYTES)])
    }

    /// What the segment holds, in order, zeros left out.
    pub fn blocks(&self) -> impl Iterator<Item = Found<'_>> {
        let mut at = SEGMENT_HEADER_BYTES;
        std::iter::from_fn(move || {
            while at < self.bytes.len() {
                let rest = &self.bytes[at..];
                let unit = rest.len().min(BLOCK_ALIGN_MIN);
                if is_zero(&rest[..unit]) {
                    at += unit;
                    continue;
                }
                let offset = at as u64;
                return Some(match Block::parse(rest) {
                    Ok(block) => {
                        at += block.bytes.len();
                        Found::Block(block)
                    }
                    Err(error) => {
                        at += unit;
                        Found::Garbage { offset, bytes: unit as u64, error }
                    }
                });
            }
            None
        })
    }

    fn scan(&self, segment: &SegmentHeader) -> Result<ScannedSegment, WalError> {
        let length = self.length();
        let mut scanner = Scanner::new(segment.identity, self.file, length, (Sequence::ZERO, 0));
        for chunk in self.bytes.chunks(1 << 20) {
            scanner.feed(chunk)?;
        }
        Ok(scanner.finish()?.0)
    }
}

/// The records of a block, in order: where in the block each starts, and the record, with the
/// record that it carries. Ends after the first rotten one.
pub fn records<'a>(
    block: &Block<'a>,
) -> impl Iterator<Item = (usize, Result<(Record<'a>, Option<Record<'a>>), RecordError>)> {
    let (records, head) = (block.records(), block.header.head());
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= records.len() {
            return None;
        }
        let start = head + at;
        let result = record::decode(&records[at..]).and_then(|record| {
            let inner = match record.header.kind {
                RecordKind::Carried => Some(carried(&record)?),
                _ => None,
            };
            Ok((record, inner))
        });
        at = match &result {
            Ok((record, _)) => at + record.bytes.len(),
            Err(_) => records.len(),
        };
        Some((start, result))
    })
}

/// A group as [`verify`] sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedGroup {
    /// The group.
    pub group: GroupId,
    /// First and last usable entry.
    pub first: Index,
    /// The last one; one less than `first` if there is none.
    pub last: Index,
    /// Term, vote and commit.
    pub hard: Option<(Term, u32, Index)>,
    /// The vote floor, if entries are damaged.
    pub damaged: Option<LogId>,
}

/// What [`verify`] found in one log.
#[derive(Clone, Debug, Default)]
pub struct VerifyReport {
    /// The log.
    pub log_id: u64,
    /// Segment files.
    pub segments: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Blocks that a start would keep.
    pub blocks: u64,
    /// Records in them.
    pub records: u64,
    /// The last block kept.
    pub last: Sequence,
    /// The newest sequence that was surely acknowledged.
    pub durable: Sequence,
    /// Groups, ascending.
    pub groups: Vec<VerifiedGroup>,
    /// What was good once and isn't now.
    pub rot: Vec<RotReport>,
    /// Torn blocks at the end, which a start would cut.
    pub torn_blocks: u64,
    /// Blocks of another place or life.
    pub stale_blocks: u64,
    /// Any group may have lost anything.
    pub unknown_damage: bool,
    /// Some of the node's own records were lost.
    pub node_damaged: bool,
}

impl VerifyReport {
    /// Whether nothing that was acknowledged is lost.
    pub fn is_intact(&self) -> bool {
        let damaged = self.groups.iter().any(|group| group.damaged.is_some());
        self.rot.is_empty() && !self.unknown_damage && !self.node_damaged && !damaged
    }
}

/// Judges all logs of a data directory as a start would, without changing anything.
///
/// # Errors
/// If a file can't be read, or a start would refuse.
pub fn verify(directory: &Path) -> Result<Vec<VerifyReport>, InspectError> {
    let segments = segments(directory)?;
    let logs: BTreeSet<u64> = segments.iter().map(|segment| segment.file.owner).collect();
    logs.into_iter().map(|log_id| Ok(verify_log(log_id, &segments)?)).collect()
}

fn verify_log(log_id: u64, segments: &[SegmentFile]) -> Result<VerifyReport, WalError> {
    let ours: Vec<&SegmentFile> =
        segments.iter().filter(|segment| segment.file.owner == log_id).collect();
    let mut report = VerifyReport { log_id, segments: ours.len() as u64, ..Default::default() };
    // Whose log it is, the first intact header says; all others must agree.
    let Some(header) = ours.iter().find_map(|segment| segment.header().ok()) else {
        return Ok(report);
    };
    let mut scanned = Vec::new();
    for segment in ours {
        report.bytes += segment.length();
        scanned.push(segment.scan(&header)?);
    }
    // Without the chain across files every first block would keep its repeated directory; replay
    // only needs it where the block before is bad, so both give the same.
    let outcome = replay(&scanned);
    report.blocks = outcome.kept.len() as u64;
    for &(segment, block) in &outcome.kept {
        let header = &scanned[segment].blocks[block].header;
        report.records += u64::from(header.records);
        report.last = header.sequence;
    }
    for (&group, replay) in &outcome.groups {
        let (run, floor, _) = replay.result();
        let (first, last, hard) = (run.first, run.last, replay.hard);
        report.groups.push(VerifiedGroup { group, first, last, hard, damaged: floor });
    }
    report.durable = outcome.durable;
    report.torn_blocks = outcome.torn_blocks;
    report.stale_blocks = outcome.stale_blocks;
    report.unknown_damage = outcome.unknown_damage;
    report.node_damaged = outcome.node_damaged();
    report.rot = outcome.rot;
    Ok(report)
}
