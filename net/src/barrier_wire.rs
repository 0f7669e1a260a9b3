//! Barriers: a client asks a group's leader when an entry is at a level, and is told when it is, or
//! how far the level has come. Flat little-endian layouts like those of `client_wire.rs`; the group
//! is in the frame's header.
//!
//! ```text
//! Barrier      0 u64 call, 8 u8 level, 9 u24 0, 12 u32 wait (ms), 16 u64 index; zero: the newest
//!             that is committed when it is asked
//! BarrierReply 0 u64 call, 8 u8 status, 9 u8 level, 10 u16 0, 12 u32 leader, 16 u64 index,
//!             24 u64 reached, 32 u32 behind, 36 u32 0
//! ```

use ringraft_types::bytes::{u16_at, u32_at, u64_at};
use ringraft_types::{GroupId, Index, Level, NodeId, Status};

use crate::error::WireError;
use crate::frame::{Frame, FrameWriter, Identity, Kind};
use crate::outbox::Outbox;

const ASK_BYTES: usize = 24;
const REPLY_BYTES: usize = 40;

const _: () = assert!(ASK_BYTES == Kind::Barrier.body_bytes_max());
const _: () = assert!(REPLY_BYTES == Kind::BarrierReply.body_bytes_max());

/// A question as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarrierAsk {
    /// The client's name for it, given back in the reply.
    pub call: u64,
    /// Which level is waited for.
    pub level: Level,
    /// The entry; `None`: the newest that is committed when it is asked, of which a majority
    /// confirms that no later one was acknowledged before.
    pub index: Option<Index>,
    /// For how long the server waits, milliseconds. A server may wait for less.
    pub wait_ms: u32,
}

impl BarrierAsk {
    /// Writes it as one frame.
    pub fn write(&self, outbox: &mut Outbox, group: GroupId, sender: Identity) {
        let mut body = [0; ASK_BYTES];
        body[..8].copy_from_slice(&self.call.to_le_bytes());
        body[8] = self.level as u8;
        body[12..16].copy_from_slice(&self.wait_ms.to_le_bytes());
        body[16..].copy_from_slice(&self.index.unwrap_or_default().0.to_le_bytes());
        let mut frame = FrameWriter::begin(outbox, Kind::Barrier, group, sender);
        frame.extend(&body);
        frame.finish();
    }

    /// Opens the body of a `Barrier` frame.
    ///
    /// # Errors
    /// If it isn't one.
    pub fn read(frame: &Frame<'_>) -> Result<Self, WireError> {
        let kind = Kind::Barrier;
        let field = |field, value: u64| WireError::Field { kind, field, value };
        let short = WireError::Short { kind, length: frame.body.len(), item: 0 };
        // The header bounds the length from above.
        let body: &[u8; ASK_BYTES] = frame.body.try_into().map_err(|_| short)?;
        let reserved = u64::from(body[9]) | u64::from(u16_at(body, 10));
        if reserved != 0 {
            return Err(field("reserved", reserved));
        }
        if frame.header.group == GroupId(0) {
            return Err(WireError::Group { kind, group: frame.header.group });
        }
        let level = Level::from_u8(body[8]).ok_or(field("level", u64::from(body[8])))?;
        let index = Some(Index(u64_at(body, 16))).filter(|&index| index != Index::ZERO);
        Ok(Self { call: u64_at(body, 0), level, index, wait_ms: u32_at(body, 12) })
    }
}

/// The answer to a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarrierReply {
    /// The question that it answers.
    pub call: u64,
    /// [`Status::Ok`]: the level is reached. [`Status::NotReached`]: not in time. Else why nothing
    /// can be said.
    pub status: Status,
    /// Which level was asked for.
    pub level: Level,
    /// With [`Status::NotLeader`] and [`Status::LeadershipLost`]: who leads, or zero.
    pub leader: NodeId,
    /// The entry that was asked for, or that was found to be the newest; zero: not found yet.
    pub index: Index,
    /// Every entry up to here is at the level now; zero with any other status than the two above.
    pub reached: Index,
    /// With [`Status::NotReached`]: who is the furthest behind, or zero.
    pub behind: NodeId,
}

impl BarrierReply {
    /// Writes it as one frame.
    pub fn write(&self, outbox: &mut Outbox, group: GroupId, sender: Identity) {
        let mut frame = FrameWriter::begin(outbox, Kind::BarrierReply, group, sender);
        frame.extend(&self.encode());
        frame.finish();
    }

    /// The body of a `BarrierReply` frame.
    pub fn encode(&self) -> [u8; REPLY_BYTES] {
        let mut body = [0; REPLY_BYTES];
        body[..8].copy_from_slice(&self.call.to_le_bytes());
        (body[8], body[9]) = (self.status as u8, self.level as u8);
        body[12..16].copy_from_slice(&self.leader.0.to_le_bytes());
        body[16..24].copy_from_slice(&self.index.0.to_le_bytes());
        body[24..32].copy_from_slice(&self.reached.0.to_le_bytes());
        body[32..36].copy_from_slice(&self.behind.0.to_le_bytes());
        body
    }

    /// Opens the body of a `BarrierReply` frame.
    ///
    /// # Errors
    /// If it isn't one.
    pub fn read(frame: &Frame<'_>) -> Result<Self, WireError> {
        Self::decode(frame.body)
    }

    /// Reads such a body.
    ///
    /// # Errors
    /// If it isn't one, or says that an entry is reached and that it isn't.
    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let kind = Kind::BarrierReply;
        let field = |field, value: u64| WireError::Field { kind, field, value };
        let short = WireError::Short { kind, length: body.len(), item: 0 };
        let body: &[u8; REPLY_BYTES] = body.try_into().map_err(|_| short)?;
        let status = Status::from_u8(body[8]).ok_or(field("status", u64::from(body[8])))?;
        let level = Level::from_u8(body[9]).ok_or(field("level", u64::from(body[9])))?;
        let reserved = u32::from(u16_at(body, 10)) | u32_at(body, 36);
        if reserved != 0 {
            return Err(field("reserved", u64::from(reserved)));
        }
        let (index, reached) = (Index(u64_at(body, 16)), Index(u64_at(body, 24)));
        let is_said = match status {
            Status::Ok => index != Index::ZERO && reached >= index,
            Status::NotReached => index == Index::ZERO || reached < index,
            _ => reached == Index::ZERO,
        };
        if !is_said {
            return Err(field("reached", reached.0));
        }
        let (leader, behind) = (NodeId(u32_at(body, 12)), NodeId(u32_at(body, 32)));
        Ok(Self { call: u64_at(body, 0), status, level, leader, index, reached, behind })
    }
}
