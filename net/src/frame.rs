//! Frames: the unit of the wire. A fixed header of 64 bytes, then a body whose meaning the kind
//! says. All numbers are little-endian.
//!
//! ```text
//!  0  u32   magic           "RRFR"
//!  4  u8    version         WIRE_VERSION
//!  5  u8    kind            Kind
//!  6  u16   flags           zero in version 1
//!  8  u32   body length     bytes, at most what the kind allows
//! 12  u32   body checksum   CRC-32/IEEE of the body
//! 16  u64   group           zero: no group in particular
//! 24  u128  cluster
//! 40  u64   incarnation     the sender's life; zero for a client
//! 48  u32   node            the sender; zero for a client
//! 52  u64   zero
//! 60  u32   header checksum CRC-32/IEEE of bytes 0 .. 60
//! ```
//! The header is checked before its length is believed, the length before memory is reserved, the
//! body's checksum before the body is looked at.

use ringraft_types::bytes::{u16_at, u32_at, u64_at, u128_at};
use ringraft_types::limits::{ADDRESS_BYTES_MAX, FRAME_BODY_BYTES_MAX, FRAME_HEADER_BYTES};
use ringraft_types::{ClusterId, GroupId, Incarnation, NodeId};

use crate::error::FrameError;
use crate::outbox::Outbox;

/// The version of the wire that this build speaks.
pub const WIRE_VERSION: u8 = 1;
/// The oldest version of the wire that this build still speaks.
pub const WIRE_VERSION_MIN: u8 = 1;
/// The first four bytes of every frame: "RRFR" read as little-endian.
pub const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"RRFR");

/// What a frame's body is. The number is the wire's: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Heartbeats of all groups from one shard to another (`wire::Beats`).
    Beats = 1,
    /// Their answers (`wire::BeatReplies`).
    BeatReplies = 2,
    /// Entries of one group: a head (`wire::AppendHead`), then records.
    Append = 3,
    /// Answers to appends of many groups (`wire::AppendReplies`).
    AppendReplies = 4,
    /// A vote asked or given in one group (`wire::Ballot`).
    Ballot = 5,
    /// A leader's log begins later than a follower's ends (`wire::InstallItem`).
    Install = 6,
    /// Entries that can't be read here, asked of a peer (`wire::RepairAsk`).
    RepairAsk = 7,
    /// Its answer: a head (`wire::RepairAnswer`), then records.
    RepairAnswer = 8,
    /// "Is this node a member as this life of it?" (`wire::Life`).
    LifeAsk = 9,
    /// Where it is: a head (`wire::Life`), then groups.
    LifeAnswer = 10,
    /// A leader saves a group at an entry; its members may too (`wire::SaveAt`).
    SaveAt = 11,
    /// A leader hands over: the receiver is to stand at once (`wire::StandItem`).
    TimeoutNow = 12,
    /// What followers' reads must see, asked of the leaders of many groups (`wire::ReadAsks`).
    ReadAsks = 13,
    /// Their answers (`wire::ReadAnswers`).
    ReadAnswers = 14,
    /// What a shard is that takes part in who leads, and how much it leads (`wire::LeadWord`).
    LeadWord = 15,
    /// A client's writes to one group (`client_wire::Writes`).
    Writes = 16,
    /// A client's reads of one group (`client_wire::Reads`).
    Reads = 17,
    /// Answers to writes and reads (`client_wire::Replies`).
    Replies = 18,
    /// "Who leads this group?" The body is empty.
    Locate = 19,
    /// The answer (`client_wire::LocateReply`).
    LocateReply = 20,
    /// "How is this shard?" The body is empty.
    Status = 21,
    /// The answer (`status::NodeStatus`).
    StatusReply = 22,
    /// Why the connection is about to be closed (`client_wire::ErrorFrame`).
    Error = 23,
    /// "Who are the members of this group?" (`members_wire::members`).
    Members = 24,
    /// A change of a group's members (`members_wire::ChangeAsk`).
    Change = 25,
    /// The answer to both (`members_wire::MembersReply`).
    MembersReply = 26,
    /// What is asked of who leads: to hand over, or not to stand (`lead_wire::LeadAsk`).
    Lead = 27,
    /// The answer (`lead_wire::LeadReply`).
    LeadReply = 28,
    /// "When is this entry at this level?" (`barrier_wire::BarrierAsk`).
    Barrier = 29,
    /// The answer (`barrier_wire::BarrierReply`).
    BarrierReply = 30,
    /// Between nodes: the hash of a group's state at an entry, or what was found from such
    /// (`wire::StateWord`).
    StateWord = 31,
    /// "Which snapshot of this group do you keep?" (`bulk_wire::SnapshotAsk`).
    SnapshotAsk = 32,
    /// The answer (`bulk_wire::SnapshotOffer`).
    SnapshotOffer = 33,
    /// "Give me a chunk of it" (`bulk_wire::ChunkAsk`).
    ChunkAsk = 34,
    /// A chunk of a snapshot: a head (`bulk_wire::ChunkHead`), then its bytes.
    Chunk = 35,
}

impl Kind {
    /// The kind with this number, if there is one.
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Beats,
            2 => Self::BeatReplies,
            3 => Self::Append,
            4 => Self::AppendReplies,
            5 => Self::Ballot,
            6 => Self::Install,
            7 => Self::RepairAsk,
            8 => Self::RepairAnswer,
            9 => Self::LifeAsk,
            10 => Self::LifeAnswer,
            11 => Self::SaveAt,
            12 => Self::TimeoutNow,
            13 => Self::ReadAsks,
            14 => Self::ReadAnswers,
            15 => Self::LeadWord,
            16 => Self::Writes,
            17 => Self::Reads,
            18 => Self::Replies,
            19 => Self::Locate,
            20 => Self::LocateReply,
            21 => Self::Status,
            22 => Self::StatusReply,
            23 => Self::Error,
            24 => Self::Members,
            25 => Self::Change,
            26 => Self::MembersReply,
            27 => Self::Lead,
            28 => Self::LeadReply,
            29 => Self::Barrier,
            30 => Self::BarrierReply,
            31 => Self::StateWord,
            32 => Self::SnapshotAsk,
            33 => Self::SnapshotOffer,
            34 => Self::ChunkAsk,
            35 => Self::Chunk,
            _ => return None,
        })
    }

    /// Whether frames of this kind go before those that wait (`outbox.rs`): all between peers but
    /// appends and what may be as long, answers to questions. They keep their order among themselves.
    pub(crate) const fn is_urgent(self) -> bool {
        matches!(
            self,
            Self::Beats
                | Self::BeatReplies
                | Self::AppendReplies
                | Self::Ballot
                | Self::Install
                | Self::RepairAsk
                | Self::LifeAsk
                | Self::SaveAt
                | Self::TimeoutNow
                | Self::ReadAsks
                | Self::ReadAnswers
                | Self::LeadWord
                | Self::StateWord
        )
    }

    /// The longest body that a frame of this kind may have, bytes.
    pub const fn body_bytes_max(self) -> usize {
        match self {
            Self::Beats
            | Self::BeatReplies
            | Self::Append
            | Self::AppendReplies
            | Self::ReadAsks
            | Self::ReadAnswers
            | Self::RepairAnswer
            | Self::LifeAnswer
            | Self::Writes
            | Self::Reads
            | Self::Replies
            | Self::StatusReply => FRAME_BODY_BYTES_MAX,
            Self::Install => 36 + ADDRESS_BYTES_MAX,
            Self::Ballot
            | Self::LifeAsk
            | Self::SaveAt
            | Self::TimeoutNow
            | Self::LeadWord
            | Self::StateWord
            | Self::SnapshotAsk
            | Self::ChunkAsk => 64,
            Self::SnapshotOffer => 128,
            Self::Chunk => 512 << 10,
            Self::RepairAsk => 2 << 10,
            Self::Locate | Self::Status => 0,
            Self::Members => 8,
            Self::Lead => 16,
            Self::LeadReply => 2 << 10,
            Self::Barrier => 24,
            Self::BarrierReply => 40,
            Self::Change => 66 << 10,
            Self::MembersReply => 72 << 10,
            Self::LocateReply => 40 << 10,
            Self::Error => 1 << 10,
        }
    }
}

/// Who sends: goes into the header of every frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The life of the sender's data directory; zero for a client.
    pub incarnation: Incarnation,
    /// The sender; zero for a client.
    pub node: NodeId,
}

/// A frame's header, decoded and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the body is.
    pub kind: Kind,
    /// The group it belongs to; zero if none in particular.
    pub group: GroupId,
    /// The sender.
    pub sender: Identity,
    /// The body's bytes; at most [`Kind::body_bytes_max`].
    pub body_bytes: u32,
    /// CRC-32/IEEE of the body.
    pub body_checksum: u32,
}

impl FrameHeader {
    /// The header as it travels.
    pub fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0u8; FRAME_HEADER_BYTES];
        bytes[0..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
        bytes[4] = WIRE_VERSION;
        bytes[5] = self.kind as u8;
        bytes[8..12].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.body_checksum.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.group.0.to_le_bytes());
        bytes[24..40].copy_from_slice(&self.sender.cluster.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.sender.incarnation.0.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.sender.node.0.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..60]);
        bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads and checks a header.
    ///
    /// # Errors
    /// If it isn't one; the checksum is judged before version and kind, so that rot never looks
    /// like a newer version.
    pub fn decode(bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<Self, FrameError> {
        let magic = u32_at(bytes, 0);
        if magic != FRAME_MAGIC {
            return Err(FrameError::Magic { found: magic });
        }
        let (found, computed) = (u32_at(bytes, 60), crc32fast::hash(&bytes[..60]));
        if found != computed {
            return Err(FrameError::HeaderChecksum { found, computed });
        }
        if !(WIRE_VERSION_MIN..=WIRE_VERSION).contains(&bytes[4]) {
            return Err(FrameError::Version { found: bytes[4] });
        }
        let kind = Kind::from_u8(bytes[5]).ok_or(FrameError::Kind { found: bytes[5] })?;
        if u16_at(bytes, 6) != 0 || u64_at(bytes, 52) != 0 {
            return Err(FrameError::Reserved { kind });
        }
        let body_bytes = u32_at(bytes, 8);
        if body_bytes as usize > kind.body_bytes_max() {
            let limit = kind.body_bytes_max();
            return Err(FrameError::TooLong { kind, length: body_bytes, limit });
        }
        Ok(Self {
            kind,
            group: GroupId(u64_at(bytes, 16)),
            sender: Identity {
                cluster: ClusterId(u128_at(bytes, 24)),
                incarnation: Incarnation(u64_at(bytes, 40)),
                node: NodeId(u32_at(bytes, 48)),
            },
            body_bytes,
            body_checksum: u32_at(bytes, 12),
        })
    }

    /// Bytes of the whole frame, header included.
    pub const fn frame_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.body_bytes as usize
    }
}

/// The length of a whole frame of our own that `bytes` begin with.
pub(crate) fn frame_bytes(bytes: &[u8]) -> usize {
    debug_assert_eq!(u32_at(bytes, 0), FRAME_MAGIC);
    FRAME_HEADER_BYTES + u32_at(bytes, 8) as usize
}

/// A frame as received: header and body are intact, the body's meaning is not yet checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The header.
    pub header: FrameHeader,
    /// The body.
    pub body: &'a [u8],
}

/// Writes one frame into an outbox in place: room for the header first, then the body as it is
/// appended, then [`finish`](Self::finish) patches the header. A writer that is dropped unfinished
/// takes its bytes back.
#[derive(Debug)]
pub struct FrameWriter<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    kind: Kind,
    group: GroupId,
    sender: Identity,
}

impl<'a> FrameWriter<'a> {
    /// Begins a frame. The outbox takes it even when it is full: callers ask
    /// [`Outbox::is_full`] before they begin, or [`Outbox::is_urgent_full`], so an outbox exceeds
    /// its limits by one frame at most.
    pub fn begin(outbox: &'a mut Outbox, kind: Kind, group: GroupId, sender: Identity) -> Self {
        let out = outbox.filling(kind);
        let start = out.len();
        out.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
        Self { out, start, kind, group, sender }
    }

    /// Appends to the body.
    #[inline]
    pub fn extend(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// The buffer that holds the frame, to append with functions that take a `Vec` (an encoded
    /// record, for one). It must only grow: what lies in it already belongs to other frames.
    #[inline]
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        self.out
    }

    /// Bytes of the body so far.
    #[inline]
    pub fn body_len(&self) -> usize {
        self.out.len() - self.start - FRAME_HEADER_BYTES
    }

    /// Overwrites four bytes of the body that were appended before, such as a count.
    ///
    /// # Panics
    /// If the body has no four bytes at `at`.
    pub fn patch_u32(&mut self, at: usize, value: u32) {
        let at = self.start + FRAME_HEADER_BYTES + at;
        self.out[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// Patches length and checksums: the frame is complete. Returns the frame's bytes.
    ///
    /// # Panics
    /// If the body is longer than the kind allows: callers keep the limits of what they write.
    pub fn finish(self) -> usize {
        let body_start = self.start + FRAME_HEADER_BYTES;
        assert!(self.out.len() >= body_start, "the frame's buffer was cut");
        let body = &self.out[body_start..];
        assert!(
            body.len() <= self.kind.body_bytes_max(),
            "a {:?} frame of {} body bytes is over its limit of {}",
            self.kind,
            body.len(),
            self.kind.body_bytes_max()
        );
        let header = FrameHeader {
            kind: self.kind,
            group: self.group,
            sender: self.sender,
            body_bytes: body.len() as u32,
            body_checksum: crc32fast::hash(body),
        };
        self.out[self.start..body_start].copy_from_slice(&header.encode());
        let frame_bytes = header.frame_bytes();
        // `drop` of an unfinished writer must not see this one.
        std::mem::forget(self);
        frame_bytes
    }
}

impl Drop for FrameWriter<'_> {
    fn drop(&mut self) {
        self.out.truncate(self.start);
    }
}
