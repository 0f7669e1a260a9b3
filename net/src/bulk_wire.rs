//! What nodes say to each other on a connection of its own for snapshots, as rkyv archives
//! (`wire.rs` says how they are laid out). Who connects asks, who was connected to answers: which
//! snapshot of a group it keeps, and chunk after chunk of it, in any order. Nothing is pushed: the
//! asking end bounds what is on its way, and goes on asking where it stopped after a break.

use ringraft_types::{GroupId, Index, LogId, StrandBytes, Term};
use rkyv::{Archive, Serialize};

use crate::archive::{Travels, access_fixed, access_head, archive, fixed};
use crate::error::WireError;
use crate::frame::{Frame, FrameWriter, Identity, Kind};
use crate::outbox::Outbox;
use crate::wire::{check_bool, write_archive};

fixed! {
    /// "Which snapshot do you keep that covers at least this entry?" The group is in the frame's
    /// header.
    SnapshotAsk, SnapshotAskWire, ArchivedSnapshotAskWire, 16 {
        /// The term of the entry.
        base_term: Term,
        /// Its index.
        base_index: Index,
    }
}

fixed! {
    /// The answer: the newest snapshot kept of the group in the frame's header. All zeros: none
    /// that covers what was asked for.
    SnapshotOffer, SnapshotOfferWire, ArchivedSnapshotOfferWire, 100 {
        /// The file's number at the answering node; never used twice there.
        number: u64,
        /// The term of the newest entry in it.
        term: Term,
        /// Its index.
        index: Index,
        /// What the chunks hold together, bytes.
        bytes: u64,
        /// How many chunks.
        chunks: u32,
        /// Of the bytes in each strand: the same at every node that keeps one of this entry. Their
        /// chunks come first, in their order.
        strands: StrandBytes,
    }
}

fixed! {
    /// "Give me this chunk."
    ChunkAsk, ChunkAskWire, ArchivedChunkAskWire, 12 {
        /// The file's number, as offered.
        number: u64,
        /// The chunk, from zero.
        chunk: u32,
    }
}

fixed! {
    /// The head of a chunk's frame; its bytes follow.
    ChunkHead, ChunkHeadWire, ArchivedChunkHeadWire, 17 {
        /// The file's number, as asked.
        number: u64,
        /// The chunk, as asked.
        chunk: u32,
        /// CRC-32/IEEE of the bytes as they lie on the sender's disk: the frame's own checksum says
        /// only that they are what the sender had in memory.
        content: u32,
        /// Whether the bytes follow: else the snapshot isn't kept any more, or can't be read.
        found: bool,
    }
}

impl SnapshotAsk {
    /// What it must cover.
    pub fn base(&self) -> LogId {
        LogId::new(self.base_term, self.base_index)
    }

    /// Writes it as one frame.
    pub fn write(&self, out: &mut Outbox, group: GroupId, sender: Identity) {
        write_archive(out, Kind::SnapshotAsk, group, sender, &self.to_wire());
    }
}

impl SnapshotOffer {
    /// The newest entry in it.
    pub fn last(&self) -> LogId {
        LogId::new(self.term, self.index)
    }

    /// Writes it as one frame.
    pub fn write(&self, out: &mut Outbox, group: GroupId, sender: Identity) {
        write_archive(out, Kind::SnapshotOffer, group, sender, &self.to_wire());
    }
}

impl ChunkAsk {
    /// Writes it as one frame.
    pub fn write(&self, out: &mut Outbox, group: GroupId, sender: Identity) {
        write_archive(out, Kind::ChunkAsk, group, sender, &self.to_wire());
    }
}

impl ChunkHead {
    /// Writes it as one frame, with the chunk's bytes.
    ///
    /// # Panics
    /// If there are bytes though it says that none were found.
    pub fn write(&self, out: &mut Outbox, group: GroupId, sender: Identity, bytes: &[u8]) {
        assert!(self.found || bytes.is_empty(), "bytes of what was not found");
        let mut writer = FrameWriter::begin(out, Kind::Chunk, group, sender);
        archive(&mut writer, &self.to_wire());
        writer.extend(bytes);
        writer.finish();
    }
}

/// Opens the body of a `SnapshotAsk` frame.
///
/// # Errors
/// If it isn't one.
pub fn snapshot_ask(frame: &Frame<'_>) -> Result<SnapshotAsk, WireError> {
    let archived: &ArchivedSnapshotAskWire = access_fixed(frame, Kind::SnapshotAsk, frame.body)?;
    Ok(SnapshotAsk::from_wire(archived))
}

/// Opens the body of a `SnapshotOffer` frame.
///
/// # Errors
/// If it isn't one.
pub fn snapshot_offer(frame: &Frame<'_>) -> Result<SnapshotOffer, WireError> {
    let kind = Kind::SnapshotOffer;
    let archived: &ArchivedSnapshotOfferWire = access_fixed(frame, kind, frame.body)?;
    Ok(SnapshotOffer::from_wire(archived))
}

/// Opens the body of a `ChunkAsk` frame.
///
/// # Errors
/// If it isn't one.
pub fn chunk_ask(frame: &Frame<'_>) -> Result<ChunkAsk, WireError> {
    let archived: &ArchivedChunkAskWire = access_fixed(frame, Kind::ChunkAsk, frame.body)?;
    Ok(ChunkAsk::from_wire(archived))
}

/// Opens the body of a `Chunk` frame: its head, and the chunk's bytes.
///
/// # Errors
/// If it isn't one.
pub fn chunk<'a>(frame: &Frame<'a>) -> Result<(ChunkHead, &'a [u8]), WireError> {
    let kind = Kind::Chunk;
    let (archived, bytes): (&ArchivedChunkHeadWire, _) = access_head(frame, kind)?;
    check_bool(kind, "found", archived.found)?;
    let head = ChunkHead::from_wire(archived);
    if !head.found && !bytes.is_empty() {
        return Err(WireError::Surplus { kind, surplus: bytes.len() });
    }
    Ok((head, bytes))
}
