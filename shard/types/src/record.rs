//! A record: one log item, encoded once by the leader and never again. The same bytes go to its
//! disk, to its followers, and to their disks.
//!
//! ```text
//!  0  u32  checksum    CRC-32/IEEE of bytes 4 .. 40+length, padding not included
//!  4  u32  length      payload bytes
//!  8  u8   kind        RecordKind
//!  9  u8   zero
//! 10  u16  zero
//! 12  u32  zero
//! 16  u64  group       zero: the node itself
//! 24  u64  index
//! 32  u64  term
//! 40  payload, then zeros up to a multiple of eight bytes
//! ```
//! All numbers are little-endian. A record names itself completely (group, index, term), so it
//! can't be taken for another at a place where it doesn't belong (V13).

use crate::bytes::{u32_at, u64_at};
use crate::ids::{GroupId, Index, LogId, Term};
use crate::limits::{PAYLOAD_BYTES_MAX, RECORD_BYTES_MAX, RECORD_HEADER_BYTES};
#[cfg(ringraft_plant)]
use crate::plant::{Plant, planted};

/// What a record is. The number is the format's: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// A client's command: session envelope and command. Replicated.
    Command = 1,
    /// A new leader's first entry, without payload (thesis 6.4). Replicated.
    NewTerm = 2,
    /// A setting of the group, replicated.
    Setting = 3,
    /// A configuration of the group (`configuration.rs`). Replicated.
    Configuration = 4,
    /// Term, vote and commit of a group: `term` and `index` (the commit index) of the header, the
    /// vote as a u32 of payload (zero: none), then a u32 of zeros. Local.
    HardState = 16,
    /// Removes the group's entries from `index` on. Local.
    Truncate = 17,
    /// A live record moved to a newer segment; never removes anything. The payload is the record.
    Carried = 18,
    /// What the log says of its node, all of it: the newest supersedes those before; group zero.
    /// Its payload is the shard's. Local.
    Node = 19,
    /// A group's home, group zero: whether this log holds the group `index`, if it isn't one that the
    /// node was configured with. Its payload begins with a [`HomeState`]. Local.
    Home = 20,
    /// The feature level in force, in `index`; group zero. Local.
    FeatureLevel = 21,
    /// A snapshot of the group that is durable: everything up to `index`, of this `term`, is in
    /// it, and the log needn't hold it any more. The payload is the file's number as a u64. Local.
    Snapshot = 23,
}

impl RecordKind {
    /// The kind with this number, if there is one.
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Command,
            2 => Self::NewTerm,
            3 => Self::Setting,
            4 => Self::Configuration,
            16 => Self::HardState,
            17 => Self::Truncate,
            18 => Self::Carried,
            19 => Self::Node,
            20 => Self::Home,
            21 => Self::FeatureLevel,
            23 => Self::Snapshot,
            _ => return None,
        })
    }

    /// Whether the record is an entry of a group's log: replicated, and indexed by `index`.
    pub const fn is_entry(self) -> bool {
        matches!(self, Self::Command | Self::NewTerm | Self::Setting | Self::Configuration)
    }
}

/// What a [`RecordKind::Home`] says: the first byte of its payload; the next seven are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HomeState {
    /// The group is here. What it begins with follows: a configuration, or nothing if it joins.
    Here = 1,
    /// It was here, and may come again: the term of the header is the newest that it has known, and
    /// what follows the entry up to which it votes as if it held all, a u64 term and a u64 index.
    Left = 2,
    /// It was here and is deleted everywhere: there will never be one of this number again. The
    /// record is of no use any more when the segments are gone that held the group's others.
    Deleted = 3,
    /// It came again after it had left, joins, and owes what follows, as it said when it left.
    Back = 4,
}

impl HomeState {
    /// Bytes of the payload before what the state brings along.
    pub const BYTES: usize = 8;
    /// Bytes that a group that left, or came again, brings along.
    pub const OWED_BYTES: usize = 16;

    /// The payload of a home record of a group that left, or came again.
    ///
    /// # Panics
    /// If the state is another.
    pub fn with_owed(self, owed: LogId) -> [u8; Self::BYTES + Self::OWED_BYTES] {
        assert!(matches!(self, Self::Left | Self::Back), "{self:?} owes nothing");
        let mut payload = [0; Self::BYTES + Self::OWED_BYTES];
        payload[0] = self as u8;
        payload[8..16].copy_from_slice(&owed.term.0.to_le_bytes());
        payload[16..24].copy_from_slice(&owed.index.0.to_le_bytes());
        payload
    }

    /// What a group that left, or came again, owes: [`HomeState::of`] has seen the payload.
    pub fn owed(payload: &[u8]) -> Option<LogId> {
        let bytes = payload.get(Self::BYTES..Self::BYTES + Self::OWED_BYTES)?;
        Some(LogId::new(Term(u64_at(bytes, 0)), Index(u64_at(bytes, 8))))
    }

    /// What the payload of a home record begins with.
    ///
    /// # Errors
    /// If it is too short or of a state that this version doesn't know.
    pub fn of(payload: &[u8]) -> Result<Self, RecordError> {
        let Some(head) = payload.get(..Self::BYTES) else {
            return Err(RecordError::Short { have: payload.len(), need: Self::BYTES });
        };
        let owed = Self::BYTES + Self::OWED_BYTES;
        match head {
            [1, 0, 0, 0, 0, 0, 0, 0] => Ok(Self::Here),
            [2, 0, 0, 0, 0, 0, 0, 0] if payload.len() == owed => Ok(Self::Left),
            [4, 0, 0, 0, 0, 0, 0, 0] if payload.len() == owed => Ok(Self::Back),
            [3, 0, 0, 0, 0, 0, 0, 0] if payload.len() == Self::BYTES => Ok(Self::Deleted),
            _ => Err(RecordError::Reserved),
        }
    }

    /// The head of such a payload.
    pub const fn head(self) -> [u8; Self::BYTES] {
        [self as u8, 0, 0, 0, 0, 0, 0, 0]
    }
}

/// A record's header, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// What it is.
    pub kind: RecordKind,
    /// The group it belongs to.
    pub group: GroupId,
    /// Its index (or what the kind says).
    pub index: Index,
    /// Its term (or what the kind says).
    pub term: Term,
    /// Payload bytes.
    pub length: u32,
}

/// A record, checked: its checksum matches, its kind is known, its reserved bytes are zero.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The header, decoded.
    pub header: RecordHeader,
    /// The payload.
    pub payload: &'a [u8],
    /// The whole record, header and padding included, as it travels and lies on disk.
    pub bytes: &'a [u8],
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Fewer bytes than the header or the length says.
    #[error("record is cut short: {have} bytes of {need}")]
    Short {
        /// Bytes there are.
        have: usize,
        /// Bytes it would take.
        need: usize,
    },
    /// The length is over the limit.
    #[error("record claims {length} payload bytes, the limit is {limit}")]
    TooLong {
        /// What the header says.
        length: u32,
        /// For its kind.
        limit: usize,
    },
    /// The checksum doesn't match.
    #[error("record checksum is {found:#010x}, its bytes give {computed:#010x}")]
    Checksum {
        /// In the header.
        found: u32,
        /// Over the bytes.
        computed: u32,
    },
    /// The kind is unknown to this version.
    #[error("record kind {kind} is unknown to this version")]
    Kind {
        /// What the header says.
        kind: u8,
    },
    /// Reserved bytes or padding aren't zero.
    #[error("record has non-zero reserved bytes")]
    Reserved,
}

/// The longest payload of a record of this kind: one that carries another is longer by a header.
const fn payload_bytes_max(kind: u8) -> usize {
    if kind == RecordKind::Carried as u8 { RECORD_BYTES_MAX } else { PAYLOAD_BYTES_MAX }
}

/// Bytes a record with this payload takes on disk and on the wire, padding included.
#[inline]
pub const fn encoded_bytes(payload_bytes: usize) -> usize {
    (RECORD_HEADER_BYTES + payload_bytes + 7) & !7
}

/// Appends a record to `out`; the payload is given in two parts, either may be empty.
///
/// # Panics
/// If the payload is over [`PAYLOAD_BYTES_MAX`] (a carried one: [`RECORD_BYTES_MAX`]): the caller checks limits where bytes enter.
pub fn encode(
    out: &mut Vec<u8>,
    kind: RecordKind,
    group: GroupId,
    index: Index,
    term: Term,
    payload: [&[u8]; 2],
) {
    let length = payload[0].len() + payload[1].len();
    let limit = payload_bytes_max(kind as u8);
    assert!(length <= limit, "payload of {length} bytes is over the limit of {limit}");
    let start = out.len();
    out.reserve(encoded_bytes(length));
    let mut header = [0u8; RECORD_HEADER_BYTES];
    header[4..8].copy_from_slice(&(length as u32).to_le_bytes());
    header[8] = kind as u8;
    header[16..24].copy_from_slice(&group.0.to_le_bytes());
    header[24..32].copy_from_slice(&index.0.to_le_bytes());
    header[32..40].copy_from_slice(&term.0.to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(payload[0]);
    out.extend_from_slice(payload[1]);
    let checksum = crc32fast::hash(&out[start + 4..]);
    out[start..start + 4].copy_from_slice(&checksum.to_le_bytes());
    out.resize(start + encoded_bytes(length), 0);
}

/// The payload's length that the record at the start of `bytes` claims, if all of it is there.
fn measure(bytes: &[u8]) -> Result<u32, RecordError> {
    if bytes.len() < RECORD_HEADER_BYTES {
        return Err(RecordError::Short { have: bytes.len(), need: RECORD_HEADER_BYTES });
    }
    let length = u32_at(bytes, 4);
    let limit = payload_bytes_max(bytes[8]);
    if length as usize > limit {
        return Err(RecordError::TooLong { length, limit });
    }
    let need = encoded_bytes(length as usize);
    if bytes.len() < need {
        return Err(RecordError::Short { have: bytes.len(), need });
    }
    Ok(length)
}

/// Reads the header of the record at the start of `bytes` without verifying its checksum: for
/// bytes that were verified already by [`decode`].
///
/// # Errors
/// If the bytes can't be a record's header.
pub fn peek(bytes: &[u8]) -> Result<RecordHeader, RecordError> {
    let length = measure(bytes)?;
    let kind = RecordKind::from_u8(bytes[8]).ok_or(RecordError::Kind { kind: bytes[8] })?;
    Ok(RecordHeader {
        kind,
        group: GroupId(u64_at(bytes, 16)),
        index: Index(u64_at(bytes, 24)),
        term: Term(u64_at(bytes, 32)),
        length,
    })
}

/// Reads and verifies the record at the start of `bytes`.
///
/// # Errors
/// If it isn't a whole, intact record; the checksum is judged before the kind, so that rot never
/// looks like a newer version.
pub fn decode(bytes: &[u8]) -> Result<Record<'_>, RecordError> {
    let length = measure(bytes)?;
    let need = encoded_bytes(length as usize);
    let end = RECORD_HEADER_BYTES + length as usize;
    let found = u32_at(bytes, 0);
    let computed = crc32fast::hash(&bytes[4..end]);
    let is_intact = found == computed;
    #[cfg(ringraft_plant)]
    let is_intact = is_intact || planted(Plant::RecordUnchecked);
    if !is_intact {
        return Err(RecordError::Checksum { found, computed });
    }
    if bytes[9..16].iter().chain(&bytes[end..need]).any(|&byte| byte != 0) {
        return Err(RecordError::Reserved);
    }
    let header = peek(bytes)?;
    Ok(Record { header, payload: &bytes[RECORD_HEADER_BYTES..end], bytes: &bytes[..need] })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is encoded decodes to the same, and the length of the whole is as promised.
    #[test]
    fn round_trip() {
        for payload in [&b""[..], b"x", b"12345678", &[7; 1000]] {
            let mut bytes = Vec::new();
            encode(&mut bytes, RecordKind::Command, GroupId(3), Index(4), Term(5), [payload, b"z"]);
            assert_eq!(bytes.len(), encoded_bytes(payload.len() + 1));
            let record = decode(&bytes).expect("just encoded");
            assert_eq!(record.payload, [payload, b"z"].concat());
            assert_eq!((record.header.group, record.header.index), (GroupId(3), Index(4)));
            assert_eq!(record.header, peek(&bytes).expect("just encoded"));
        }
    }

    /// The longest entry there may be can be carried.
    #[test]
    fn the_longest_entry_is_carried() {
        let (mut inner, mut bytes) = (Vec::new(), Vec::new());
        let (group, index, term) = (GroupId(3), Index(4), Term(5));
        let payload = vec![7; PAYLOAD_BYTES_MAX];
        encode(&mut inner, RecordKind::Command, group, index, term, [&payload, b""]);
        encode(&mut bytes, RecordKind::Carried, group, index, term, [&inner, b""]);
        assert_eq!(decode(&bytes).expect("just encoded").payload, inner);
        bytes[8] = RecordKind::Command as u8;
        let too_long = decode(&bytes).expect_err("no command is that long");
        assert!(matches!(too_long, RecordError::TooLong { limit: PAYLOAD_BYTES_MAX, .. }));
    }

    /// A home says one of four things, and each brings along what belongs to it.
    #[test]
    fn homes_are_told() {
        for state in [HomeState::Here, HomeState::Deleted] {
            assert_eq!(HomeState::of(&state.head()), Ok(state));
            assert_eq!(HomeState::owed(&state.head()), None);
        }
        let owed = LogId::new(Term(7), Index(9));
        for state in [HomeState::Left, HomeState::Back] {
            let payload = state.with_owed(owed);
            assert_eq!(HomeState::of(&payload), Ok(state));
            assert_eq!(HomeState::owed(&payload), Some(owed));
            assert_eq!(HomeState::of(&state.head()), Err(RecordError::Reserved));
            let longer = [&payload[..], b"x"].concat();
            assert_eq!(HomeState::of(&longer), Err(RecordError::Reserved));
        }
        let longer = |state: HomeState| HomeState::of(&[&state.head()[..], b"x"].concat());
        assert_eq!(longer(HomeState::Here), Ok(HomeState::Here));
        assert_eq!(longer(HomeState::Left), Err(RecordError::Reserved));
        assert_eq!(longer(HomeState::Deleted), Err(RecordError::Reserved));
        assert_eq!(HomeState::of(&[5, 0, 0, 0, 0, 0, 0, 0]), Err(RecordError::Reserved));
        assert_eq!(HomeState::of(&[1, 0, 0, 0, 0, 0, 1, 0]), Err(RecordError::Reserved));
        assert_eq!(HomeState::of(&[1]), Err(RecordError::Short { have: 1, need: 8 }));
    }

    /// Every single-bit flip is noticed, and none panics.
    #[test]
    fn every_bit_flip_is_noticed() {
        let mut bytes = Vec::new();
        encode(&mut bytes, RecordKind::Command, GroupId(3), Index(4), Term(5), [b"hello", b""]);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes).is_err(), "bit {bit} flipped and not noticed");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
