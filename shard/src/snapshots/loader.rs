//! One snapshot on its way from its file into a machine and its sessions.

use std::collections::BTreeMap;

use ringraft_types::{Index, Ticks};
use ringraft_wal::{ChunkDone, ChunkSums, Log, SnapshotHead};

use super::LoadFailure;
use super::LoadedState;
use super::pieces::{Part, Pieces};
use crate::machine::{Fetched, LoadError, StateMachine};
use crate::members::Members;
use crate::session::Sessions;

/// Chunks asked for at once.
const CHUNKS_AHEAD: u32 = 4;
/// Marks the tickets of chunks that are read to be loaded: the rest of one is the chunk's place.
/// A log loads one snapshot at a time.
const LOAD_TICKETS: u64 = 1 << 63;

/// Chunks that are sound, each by itself.
pub(crate) const MIXED: LoadError =
    LoadError { at: 0, what: "the chunks aren't those of one snapshot" };

/// How long a machine that fetches is left alone.
pub(super) const FETCH_PAUSE: Ticks = Ticks::from_millis(10);

/// How far a step got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The disk has to answer first.
    Waits,
    /// There is more to do at once.
    Works,
    /// The machine fetches what the snapshot only names: it is to be asked again after
    /// [`FETCH_PAUSE`].
    Fetches,
    /// Everything is loaded, or something can't be; nothing of it is on its way any more.
    Ended,
}

/// A chunk of which the machine has taken a part.
#[derive(Debug)]
struct Open {
    chunk: ChunkDone,
    taken: usize,
}

/// A snapshot that is being loaded.
pub(super) struct Loader {
    head: SnapshotHead,
    machine: Box<dyn StateMachine>,
    sessions: Sessions,
    members: Option<Members>,
    /// What came of a strand and is no whole item yet.
    strand: Vec<u8>,
    pieces: Pieces,
    sums: ChunkSums,
    /// Asked for up to here, loaded up to there.
    asked: u32,
    loaded: u32,
    arrived: BTreeMap<u64, ChunkDone>,
    open: Option<Open>,
    /// Everything was loaded and found to be whole.
    is_checked: bool,
    failed: Option<LoadFailure>,
}

impl Loader {
    /// Nothing of it is loaded yet; the machine is empty.
    pub(super) fn new(head: SnapshotHead, machine: Box<dyn StateMachine>) -> Self {
        Self {
            head,
            machine,
            sessions: Sessions::new(),
            members: None,
            strand: Vec::new(),
            pieces: Pieces::default(),
            sums: ChunkSums::default(),
            asked: 0,
            loaded: 0,
            arrived: BTreeMap::new(),
            open: None,
            is_checked: false,
            failed: None,
        }
    }

    /// Whether a chunk that was read is a loader's.
    pub(super) fn is_for(ticket: u64) -> bool {
        ticket & LOAD_TICKETS != 0
    }

    /// A chunk was read.
    pub(super) fn arrived(&mut self, done: ChunkDone) {
        self.arrived.insert(done.ticket & !LOAD_TICKETS, done);
    }

    /// It isn't needed any more: nothing more is read or loaded.
    pub(super) fn give_up(&mut self) {
        self.failed.get_or_insert(LoadFailure::GivenUp);
    }

    /// What is being loaded.
    pub(super) fn head(&self) -> &SnapshotHead {
        &self.head
    }

    /// Chunks that are loaded.
    pub(super) fn loaded(&self) -> u32 {
        self.loaded
    }

    /// Loads at most so many bytes of one chunk, and asks for more of them.
    pub(super) fn step(&mut self, log: &mut Log, bytes_max: usize) -> Progress {
        let wanted = if self.failed.is_some() { self.asked } else { self.head.chunks };
        while self.asked < wanted && self.asked < self.loaded + CHUNKS_AHEAD {
            log.read_chunk(LOAD_TICKETS | u64::from(self.asked), &self.head, self.asked);
            self.asked += 1;
        }
        if self.loaded == self.asked {
            return self.fetch();
        }
        if self.open.is_none() {
            let Some(chunk) = self.arrived.remove(&u64::from(self.loaded)) else {
                return Progress::Waits;
            };
            if let Ok(read) = &chunk.result {
                self.sums.add(read.checksum);
            }
            self.open = Some(Open { chunk, taken: 0 });
        }
        if self.failed.is_none() {
            self.failed = self.take(bytes_max).err();
        }
        let open = self.open.as_ref().expect("just put there");
        let length = open.chunk.result.as_ref().map_or(0, |read| read.bytes.len());
        if self.failed.is_some() || open.taken == length {
            self.open = None;
            self.loaded += 1;
        }
        Progress::Works
    }

    /// Everything that was read is loaded: the machine has the rest of it to fetch, if there is any.
    fn fetch(&mut self) -> Progress {
        if self.failed.is_none() && !self.is_checked {
            self.failed = self.check().err();
            self.is_checked = true;
        }
        if self.failed.is_none() {
            match self.machine.fetch() {
                Ok(Fetched::Whole) => {}
                Ok(Fetched::Working) => return Progress::Fetches,
                Err(error) => self.failed = Some(error.into()),
            }
        }
        Progress::Ended
    }

    fn take(&mut self, bytes_max: usize) -> Result<(), LoadFailure> {
        let Self { head, machine, sessions, members, strand, pieces, open, loaded, .. } = self;
        let open = open.as_mut().expect("a chunk is open");
        let bytes = &open.chunk.result.as_ref().map_err(|error| *error)?.bytes;
        let end = open.taken.saturating_add(bytes_max).min(bytes.len());
        let layout = head.layout();
        if *loaded < layout.strand_chunks() {
            strand.extend_from_slice(&bytes[open.taken..end]);
            let taken = machine.load_strand(strand)?;
            strand.drain(..taken);
            if end == bytes.len() && layout.ends_strand(*loaded) && !strand.is_empty() {
                return Err(LoadError { at: 0, what: "a strand is cut short" }.into());
            }
            open.taken = end;
            return Ok(());
        }
        pieces.feed(&bytes[open.taken..end], |part, piece| match part {
            Part::Machine => machine.load(piece),
            Part::Sessions => sessions.load(piece),
            Part::Members => load_members(head, piece, members),
            Part::End => unreachable!("the end has no piece"),
        })?;
        open.taken = end;
        Ok(())
    }

    /// What came of it, once it has ended.
    pub(super) fn end(self) -> (SnapshotHead, Result<LoadedState, LoadFailure>) {
        assert!(self.loaded == self.asked, "reads are under way");
        assert!(self.is_checked || self.failed.is_some(), "nothing is told of what wasn't checked");
        let Self { head, machine, sessions, members, failed, .. } = self;
        let state = members.map(|members| {
            let last = head.last;
            LoadedState { last, machine, sessions, members }
        });
        (head, failed.map_or_else(|| Ok(state.expect("it was checked")), Err))
    }

    fn check(&mut self) -> Result<(), LoadFailure> {
        let error = |what| LoadError { at: 0, what };
        if self.sums.sum() != self.head.sum {
            return Err(MIXED.into());
        }
        if !self.pieces.is_whole() {
            return Err(error("the end is missing").into());
        }
        if self.members.is_none() {
            return Err(error("it doesn't say who the members are").into());
        }
        self.machine.end_load()?;
        self.sessions.end_load()?;
        Ok(())
    }
}

/// Takes in who the members are.
fn load_members(
    head: &SnapshotHead,
    piece: &[u8],
    members: &mut Option<Members>,
) -> Result<(), LoadError> {
    let error = |what| LoadError { at: 0, what };
    let (index, payload) =
        piece.split_first_chunk().ok_or(error("the members' piece is cut short"))?;
    let index = Index(u64::from_le_bytes(*index));
    if members.is_some() || index > head.last.index {
        return Err(error("the members' pieces contradict what the snapshot covers"));
    }
    let found = Members::decode(index, payload);
    *members = Some(found.map_err(|_| error("the members are none that a group can have"))?);
    Ok(())
}
