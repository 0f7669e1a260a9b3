//! The disk format of snapshots, version 1. Every byte is documented here.
//!
//! A file, `snap-<log>-<number>.snp`, both numbers in 16 hexadecimal digits, is a head of 4096
//! bytes, then chunks of 262,144 bytes, of which the last is shorter. If there are strands, they
//! come first, one after the other, each in chunks of its own, of which its last is shorter
//! (`layout.rs`). The head and each chunk start and end at a multiple of the alignment that the head
//! names, and are followed by zeros up to there. Numbers are those of the log, ascend, and are never
//! used twice. All numbers are little-endian.
//!
//! ```text
//! head (zeros up to 4096 bytes)
//!   0  [8]   magic         "ringsnap"
//!   8  u32   checksum      CRC-32/IEEE of bytes 0..8, then 12 to the head's end
//!  12  u32   head          128, or 192 if there are strands
//!  16  u16   version       1
//!  18  u16   zero
//!  20  u32   chunks
//!  24  u64   length        of the file, bytes
//!  32  u128  cluster
//!  48  u64   incarnation   of the node's data directory
//!  56  u64   log
//!  64  u64   number        the file's
//!  72  u64   group
//!  80  u64   index         of the newest entry in it
//!  88  u64   term          of that entry
//!  96  u64   bytes         of all chunks, their heads and padding not counted
//! 104  u32   node
//! 108  u32   sum           CRC-32/IEEE of the chunks' checksums, in order
//! 112  u32   align         of the head and the chunks, bytes
//! 116  [12]  zero
//! 128  [8]*8 strands       bytes in the chunks of each; zeros up to 4096 if there are none
//!
//! chunk
//!   0  [8]   magic         "ringchnk"
//!   8  u32   checksum      CRC-32/IEEE of bytes 0..8, then 12..64+bytes
//!  12  u32   bytes         after this head; all chunks but the last, and each strand's, are full
//!  16  u64   log
//!  24  u64   number        the file's
//!  32  u64   group
//!  40  u32   chunk         its place in the file, from 0
//!  44  u32   node
//!  48  u64   incarnation
//!  56  u64   zero
//!  64        the bytes, then zeros up to the alignment
//! ```

use super::layout::Layout;
use crate::device::FileId;
use crate::format::{Identity, VERSION, checksum, is_zero, put, round_up};
use crate::settings::ALIGN_MAX;
use ringraft_types::bytes::{u16_at, u32_at, u64_at, u128_at};
use ringraft_types::limits::BLOCK_ALIGN_MIN;
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::{
    ClusterId, GroupId, Incarnation, Index, LogId, NodeId, STRANDS, StrandBytes, Term,
};

/// A chunk in the file, its head included, bytes.
pub const CHUNK_BYTES: usize = 256 << 10;
/// The head of a chunk, bytes.
pub const CHUNK_HEAD_BYTES: usize = 64;
/// The head of a file with its padding, bytes; the first chunk follows at this offset, rounded up
/// to the device's alignment.
pub const HEAD_BYTES: usize = 4096;
/// What a full chunk holds, bytes.
pub const CHUNK_ROOM: usize = CHUNK_BYTES - CHUNK_HEAD_BYTES;

const HEAD_MAGIC: [u8; 8] = *b"ringsnap";
const CHUNK_MAGIC: [u8; 8] = *b"ringchnk";
const HEAD_USED: usize = 128;
/// The same, with the strands' table.
const STRANDS_HEAD_USED: usize = HEAD_USED + STRANDS * 8;

/// Where the first chunk lies.
pub(crate) const fn first_offset(align: usize) -> u64 {
    round_up(HEAD_BYTES, align) as u64
}

/// What a full chunk takes in the file, bytes.
pub(crate) const fn chunk_stride(align: usize) -> usize {
    round_up(CHUNK_BYTES, align)
}

/// The head of a snapshot, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotHead {
    /// Whose it is.
    pub identity: Identity,
    /// The file's number.
    pub number: u64,
    /// The group.
    pub group: GroupId,
    /// The newest entry in it.
    pub last: LogId,
    /// How many chunks there are.
    pub chunks: u32,
    /// The file's length, bytes.
    pub length: u64,
    /// What the owner gave, bytes.
    pub bytes: u64,
    /// Of that in each strand, bytes.
    pub strands: StrandBytes,
    /// Over the chunks' checksums.
    pub sum: u32,
    /// What its parts are aligned to, bytes.
    pub align: u32,
}

/// Why bytes are not the head of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotHeadError {
    /// All zeros: the file was never finished.
    Empty,
    /// Not intact, or not this file's.
    Bad,
    /// Intact, and of another version.
    Version(u16),
}

impl SnapshotHead {
    /// The file.
    pub fn file(&self) -> FileId {
        FileId::snapshot(self.identity.log_id, self.number)
    }

    /// Which chunk holds what.
    ///
    /// # Panics
    /// If no snapshot has this head.
    pub fn layout(&self) -> Layout {
        Layout::new(self.strands, self.bytes).expect("a head is judged where it is read")
    }

    /// What a chunk of it holds, bytes.
    pub(crate) fn chunk_room(&self, chunk: u32) -> usize {
        self.layout().room(chunk)
    }

    /// Where a chunk lies in the file, and how many bytes it takes there.
    pub(crate) fn place(&self, chunk: u32) -> (u64, usize) {
        let align = self.align as usize;
        let offset = self.layout().offset(chunk, align);
        (offset, round_up(CHUNK_HEAD_BYTES + self.chunk_room(chunk), align))
    }

    /// Where a chunk lies in the file, and how many bytes of it say anything: the rest is padding.
    pub fn used(&self, chunk: u32) -> (u64, usize) {
        (self.place(chunk).0, CHUNK_HEAD_BYTES + self.chunk_room(chunk))
    }

    /// The head's bytes that say anything.
    fn used_head(&self) -> usize {
        if self.strands == [0; STRANDS] { HEAD_USED } else { STRANDS_HEAD_USED }
    }

    /// Writes the head to zeroed bytes.
    pub(crate) fn encode(&self, out: &mut [u8]) {
        assert!(out.len() >= HEAD_BYTES, "a head takes a unit of its own");
        put(out, 0, &HEAD_MAGIC);
        put(out, 12, &(self.used_head() as u32).to_le_bytes());
        put(out, 16, &VERSION.to_le_bytes());
        put(out, 20, &self.chunks.to_le_bytes());
        put(out, 24, &self.length.to_le_bytes());
        put(out, 32, &self.identity.cluster.0.to_le_bytes());
        put(out, 48, &self.identity.incarnation.0.to_le_bytes());
        put(out, 56, &self.identity.log_id.to_le_bytes());
        put(out, 64, &self.number.to_le_bytes());
        put(out, 72, &self.group.0.to_le_bytes());
        put(out, 80, &self.last.index.0.to_le_bytes());
        put(out, 88, &self.last.term.0.to_le_bytes());
        put(out, 96, &self.bytes.to_le_bytes());
        put(out, 104, &self.identity.node.0.to_le_bytes());
        put(out, 108, &self.sum.to_le_bytes());
        put(out, 112, &self.align.to_le_bytes());
        for (strand, bytes) in self.strands.iter().enumerate() {
            put(out, HEAD_USED + strand * 8, &bytes.to_le_bytes());
        }
        let checksum = checksum(&out[..self.used_head()]);
        put(out, 8, &checksum.to_le_bytes());
    }

    /// Reads and verifies the head of a file of this name and length.
    ///
    /// # Errors
    /// If it isn't an intact head of this version, or is another file's.
    pub fn decode(bytes: &[u8], file: FileId, length: u64) -> Result<Self, SnapshotHeadError> {
        if is_zero(bytes) {
            return Err(SnapshotHeadError::Empty);
        }
        let is_head = bytes.len() >= HEAD_BYTES && bytes[..8] == HEAD_MAGIC;
        let used = if is_head { u32_at(bytes, 12) as usize } else { 0 };
        let is_head = matches!(used, HEAD_USED | STRANDS_HEAD_USED)
            && u32_at(bytes, 8) == checksum(&bytes[..used]);
        if !is_head {
            return Err(SnapshotHeadError::Bad);
        }
        let version = u16_at(bytes, 16);
        if version != VERSION {
            return Err(SnapshotHeadError::Version(version));
        }
        let head = Self {
            identity: Identity {
                cluster: ClusterId(u128_at(bytes, 32)),
                node: NodeId(u32_at(bytes, 104)),
                incarnation: Incarnation(u64_at(bytes, 48)),
                log_id: u64_at(bytes, 56),
            },
            number: u64_at(bytes, 64),
            group: GroupId(u64_at(bytes, 72)),
            last: LogId::new(Term(u64_at(bytes, 88)), Index(u64_at(bytes, 80))),
            chunks: u32_at(bytes, 20),
            length: u64_at(bytes, 24),
            bytes: u64_at(bytes, 96),
            strands: std::array::from_fn(|strand| u64_at(bytes, HEAD_USED + strand * 8)),
            sum: u32_at(bytes, 108),
            align: u32_at(bytes, 112),
        };
        let layout = Layout::new(head.strands, head.bytes);
        let is_this = (head.identity.log_id, head.number) == (file.owner, file.number)
            && head.align.is_power_of_two()
            && (BLOCK_ALIGN_MIN..=ALIGN_MAX).contains(&(head.align as usize))
            && layout.is_some_and(|layout| layout.chunks() == head.chunks)
            && layout.is_some_and(|layout| layout.length(head.align as usize) == length)
            && head.chunks > 0
            && head.length == length
            && head.last.index > Index::ZERO
            && used == head.used_head()
            && is_zero(&bytes[used..HEAD_BYTES]);
        if is_this { Ok(head) } else { Err(SnapshotHeadError::Bad) }
    }
}

/// The checksum of a chunk's bytes alone, CRC-32/IEEE: it goes with them from node to node, so that
/// the disk that they come to says whether they are what the disk that they came from held (S30).
pub fn content_sum(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// The checksum of a chunk, of its head and what its bytes' own is.
fn chunk_checksum(head: &[u8], content: u32, bytes: usize) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(checksum(head));
    hasher.combine(&crc32fast::Hasher::new_with_initial_len(content, bytes as u64));
    hasher.finalize()
}

/// Completes a chunk whose bytes, of which this is the checksum, stand behind its head. Returns its
/// own checksum and its length in the file.
pub(crate) fn encode_chunk(
    chunk: &mut [u8],
    (bytes, content): (usize, u32),
    align: usize,
    head: &SnapshotHead,
    place: u32,
) -> (u32, usize) {
    let used = CHUNK_HEAD_BYTES + bytes;
    let length = round_up(used, align);
    chunk[..CHUNK_HEAD_BYTES].fill(0);
    chunk[used..length].fill(0);
    put(chunk, 0, &CHUNK_MAGIC);
    put(chunk, 12, &(bytes as u32).to_le_bytes());
    put(chunk, 16, &head.identity.log_id.to_le_bytes());
    put(chunk, 24, &head.number.to_le_bytes());
    put(chunk, 32, &head.group.0.to_le_bytes());
    put(chunk, 40, &place.to_le_bytes());
    put(chunk, 44, &head.identity.node.0.to_le_bytes());
    put(chunk, 48, &head.identity.incarnation.0.to_le_bytes());
    let checksum = chunk_checksum(&chunk[..CHUNK_HEAD_BYTES], content, bytes);
    put(chunk, 8, &checksum.to_le_bytes());
    (checksum, length)
}

/// The checksum of the chunk of this snapshot that should stand here, and of its bytes alone; `None`
/// if it doesn't.
pub(crate) fn decode_chunk(chunk: &[u8], head: &SnapshotHead, place: u32) -> Option<(u32, u32)> {
    let bytes = head.chunk_room(place);
    let used = CHUNK_HEAD_BYTES + bytes;
    let is_chunk = chunk.len() >= used
        && chunk[..8] == CHUNK_MAGIC
        && u32_at(chunk, 12) as usize == bytes
        && (u64_at(chunk, 16), u64_at(chunk, 24)) == (head.identity.log_id, head.number)
        && (u64_at(chunk, 32), u32_at(chunk, 40)) == (head.group.0, place)
        && u32_at(chunk, 44) == head.identity.node.0
        && u64_at(chunk, 48) == head.identity.incarnation.0
        && u64_at(chunk, 56) == 0;
    let content = content_sum(chunk.get(CHUNK_HEAD_BYTES..used)?);
    let found = u32_at(chunk, 8);
    let is_intact = is_chunk && found == chunk_checksum(&chunk[..CHUNK_HEAD_BYTES], content, bytes);
    #[cfg(ringraft_plant)]
    let is_intact = is_intact || planted(Plant::ChunkUnchecked);
    is_intact.then_some((found, content))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileId = FileId::snapshot(3, 9);

    fn head() -> SnapshotHead {
        SnapshotHead {
            identity: Identity {
                cluster: ClusterId(0xC1),
                node: NodeId(2),
                incarnation: Incarnation(0x17),
                log_id: 3,
            },
            number: 9,
            group: GroupId(7),
            last: LogId::new(Term(5), Index(1_000)),
            chunks: 2,
            length: 4096 + CHUNK_BYTES as u64 + 4096,
            bytes: CHUNK_ROOM as u64 + 100,
            strands: [0; STRANDS],
            sum: 0x1234_5678,
            align: 4096,
        }
    }

    /// The layout of version 1 never changes.
    #[test]
    fn golden_bytes() {
        let mut bytes = vec![0; HEAD_BYTES];
        head().encode(&mut bytes);
        assert_eq!(&bytes[..8], b"ringsnap");
        assert_eq!(bytes[12..24], [128, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!((bytes[32], bytes[48], bytes[56], bytes[64], bytes[72]), (0xC1, 0x17, 3, 9, 7));
        assert_eq!(bytes[80..96], [0xE8, 3, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[104..112], [2, 0, 0, 0, 0x78, 0x56, 0x34, 0x12]);
        assert_eq!(bytes[112..116], [0, 16, 0, 0]);
        assert_eq!(SnapshotHead::decode(&bytes, FILE, head().length), Ok(head()));
        assert_eq!(bytes[8..12], 0x7FB7_1F8D_u32.to_le_bytes());
    }

    /// A head with strands, two of which hold anything.
    fn stranded() -> SnapshotHead {
        let strands = [100, 0, 0, 0, 0, 0, 0, CHUNK_ROOM as u64];
        let length = 4096 + 4096 + CHUNK_BYTES as u64 + 4096;
        SnapshotHead { chunks: 3, length, bytes: CHUNK_ROOM as u64 + 200, strands, ..head() }
    }

    /// So are the strands of a head that has some.
    #[test]
    fn golden_strands() {
        let mut bytes = vec![0; HEAD_BYTES];
        stranded().encode(&mut bytes);
        assert_eq!((bytes[12], bytes[20]), (192, 3));
        assert_eq!((bytes[128], &bytes[184..192]), (100, &[0xC0, 0xFF, 3, 0, 0, 0, 0, 0][..]));
        assert_eq!(SnapshotHead::decode(&bytes, FILE, stranded().length), Ok(stranded()));
    }

    /// Every flipped bit of a head or a chunk is noticed, and so is every cut and every other place.
    #[test]
    fn every_bit_flip_is_noticed() {
        flip(stranded());
        let (head, length) = (head(), head().length);
        let bytes = flip(head);
        assert!(SnapshotHead::decode(&bytes, FILE, length - 1).is_err());
        assert!(SnapshotHead::decode(&bytes[..100], FILE, length).is_err());
        let other = FileId { number: 8, ..FILE };
        assert!(SnapshotHead::decode(&bytes, other, length).is_err());
        let empty = SnapshotHead::decode(&[0; HEAD_BYTES], FILE, length);
        assert_eq!(empty, Err(SnapshotHeadError::Empty));
        flip_chunk(&head);
    }

    fn flip(head: SnapshotHead) -> Vec<u8> {
        let length = head.length;
        let mut bytes = vec![0; HEAD_BYTES];
        head.encode(&mut bytes);
        for bit in 0..HEAD_BYTES * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SnapshotHead::decode(&bytes, FILE, length).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        bytes
    }

    fn flip_chunk(head: &SnapshotHead) {
        let mut chunk = vec![7; 4096];
        let content = content_sum(&[7; 100]);
        let (checksum, length) = encode_chunk(&mut chunk, (100, content), 4096, head, 1);
        let held = (checksum, content);
        assert_eq!((length, decode_chunk(&chunk, head, 1)), (4096, Some(held)));
        assert_eq!(crate::format::checksum(&chunk[..CHUNK_HEAD_BYTES + 100]), checksum);
        assert!(is_zero(&chunk[CHUNK_HEAD_BYTES + 100..]));
        for bit in 0..(CHUNK_HEAD_BYTES + 100) * 8 {
            chunk[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_chunk(&chunk, head, 1), None, "bit {bit}");
            chunk[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(decode_chunk(&chunk, head, 0), None);
        assert_eq!(decode_chunk(&chunk[..150], head, 1), None);
        let other = SnapshotHead { number: 8, ..*head };
        assert_eq!(decode_chunk(&chunk, &other, 1), None);
    }
}
