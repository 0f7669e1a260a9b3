//! What clients ask of who leads: to hand a group over, and of a shard's node not to stand for
//! election. Flat little-endian layouts like those of `client_wire.rs`; the group is in the frame's
//! header, and is zero where a shard is meant with all its groups.
//!
//! ```text
//! Lead        0 u64 call, 8 u8 operation (1 hand over, 2 pause, 3 resume, 4 priority),
//!             9 u8 the priority, 10 u16 0,
//!            12 u32 to: the node that is to lead; zero: the best
//! LeadReply   0 u64 call, 8 u8 status, 9 u8 refusal, 10 u16 0, 12 u32 leader, 16 u64 term,
//!            24 a sentence in UTF-8
//! ```

use ringraft_types::bytes::{u16_at, u32_at, u64_at};
use ringraft_types::{GroupId, NodeId, Status, Term};

use crate::error::WireError;
use crate::frame::{Frame, FrameWriter, Identity, Kind};
use crate::outbox::Outbox;

/// The longest sentence of an answer, bytes; more is cut.
pub const SENTENCE_BYTES_MAX: usize = 1 << 10;
const ASK_BYTES: usize = 16;
const REPLY_HEAD_BYTES: usize = 24;

const HAND_OVER: u8 = 1;
const PAUSE: u8 = 2;
const RESUME: u8 = 3;
const PRIORITY: u8 = 4;

const _: () = assert!(ASK_BYTES == Kind::Lead.body_bytes_max());
const _: () = assert!(REPLY_HEAD_BYTES + SENTENCE_BYTES_MAX <= Kind::LeadReply.body_bytes_max());

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leading {
    /// Of a group's leader: that this node leads instead, or whichever fits best.
    HandOver {
        /// Who is to lead.
        to: Option<NodeId>,
    },
    /// Of a shard: to stand in no election, and to hand over what it leads, until it is told to
    /// resume, or starts anew (EL-12).
    Pause,
    /// Of a shard: to stand as before.
    Resume,
    /// Of a shard: to have this priority until it is told another, or starts anew (EL-07).
    Priority(u8),
}

/// A question as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeadAsk {
    /// The client's name for it, given back in the reply.
    pub call: u64,
    /// What is asked for.
    pub leading: Leading,
}

impl LeadAsk {
    /// Writes it as one frame.
    pub fn write(&self, outbox: &mut Outbox, group: GroupId, sender: Identity) {
        write_encoded(outbox, group, sender, &self.encode());
    }

    /// The body of a `Lead` frame.
    pub fn encode(&self) -> [u8; ASK_BYTES] {
        let (operation, to) = match self.leading {
            Leading::HandOver { to } => (HAND_OVER, to.unwrap_or(NodeId::ZERO)),
            Leading::Pause => (PAUSE, NodeId::ZERO),
            Leading::Resume => (RESUME, NodeId::ZERO),
            Leading::Priority(_) => (PRIORITY, NodeId::ZERO),
        };
        let mut body = [0; ASK_BYTES];
        body[..8].copy_from_slice(&self.call.to_le_bytes());
        body[8] = operation;
        if let Leading::Priority(priority) = self.leading {
            body[9] = priority;
        }
        body[12..16].copy_from_slice(&to.0.to_le_bytes());
        body
    }

    /// Gives an encoded question another name.
    pub(crate) fn name(body: &mut [u8], call: u64) {
        body[..8].copy_from_slice(&call.to_le_bytes());
    }

    /// Opens the body of a `Lead` frame.
    ///
    /// # Errors
    /// If it isn't one.
    pub fn read(frame: &Frame<'_>) -> Result<Self, WireError> {
        let kind = Kind::Lead;
        let field = |field, value: u64| WireError::Field { kind, field, value };
        let short = WireError::Short { kind, length: frame.body.len(), item: 0 };
        // The header bounds the length from above.
        let body: &[u8; ASK_BYTES] = frame.body.try_into().map_err(|_| short)?;
        let priority = body[9];
        let unused = if body[8] == PRIORITY { 0 } else { priority };
        let reserved = u64::from(unused) | u64::from(u16_at(body, 10));
        if reserved != 0 {
            return Err(field("reserved", reserved));
        }
        let (operation, to) = (body[8], NodeId(u32_at(body, 12)));
        let leading = match operation {
            HAND_OVER => Leading::HandOver { to: Some(to).filter(|&to| to != NodeId::ZERO) },
            PAUSE | RESUME | PRIORITY if to != NodeId::ZERO => {
                return Err(field("to", u64::from(to.0)));
            }
            PAUSE => Leading::Pause,
            RESUME => Leading::Resume,
            PRIORITY => Leading::Priority(priority),
            _ => return Err(field("operation", u64::from(operation))),
        };
        let group = frame.header.group;
        let is_of_group = matches!(leading, Leading::HandOver { .. });
        if is_of_group != (group != GroupId(0)) {
            return Err(field("group", group.0));
        }
        Ok(Self { call: u64_at(body, 0), leading })
    }
}

/// Writes one frame whose body is a question, encoded by [`LeadAsk::encode`].
pub(crate) fn write_encoded(outbox: &mut Outbox, group: GroupId, sender: Identity, body: &[u8]) {
    let mut frame = FrameWriter::begin(outbox, Kind::Lead, group, sender);
    frame.extend(body);
    frame.finish();
}

/// Why leadership wasn't handed over: with [`Status::Refused`]. That another node leads is a status
/// of its own. The number is the wire's: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LeadRefusal {
    /// The node that is to lead does already.
    AlreadyLeads = 1,
    /// It is being handed over to another node.
    UnderWay = 2,
    /// The node that is to lead is no voter, or won't be when a change of members ends.
    NoVoter = 3,
    /// It doesn't answer.
    Unreachable = 4,
    /// It lacks too much of the log.
    Behind = 5,
    /// Its disk doesn't move.
    Unfit = 6,
    /// Nobody was named, and no other voter fits.
    NoTarget = 7,
    /// The time was over, and the leader went on.
    TimedOut = 8,
    /// Another node than the named one leads now, or nobody is known to.
    Overtaken = 9,
}

impl LeadRefusal {
    /// The refusal with this number, if there is one.
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::AlreadyLeads,
            2 => Self::UnderWay,
            3 => Self::NoVoter,
            4 => Self::Unreachable,
            5 => Self::Behind,
            6 => Self::Unfit,
            7 => Self::NoTarget,
            8 => Self::TimedOut,
            9 => Self::Overtaken,
            _ => return None,
        })
    }

    /// What to do about it.
    pub const fn cure(self) -> &'static str {
        match self {
            Self::AlreadyLeads => "nothing is to be done",
            Self::UnderWay => "ask again in a moment",
            Self::NoVoter => "name a voter: `ringraft node ls` shows who votes",
            Self::Unreachable => "see that it runs, and that the others reach its peer address",
            Self::Behind => "wait until it has caught up: `ringraft status` shows how far it is",
            Self::Unfit => "look at its disk, or name another node",
            Self::NoTarget => "see that another voter runs, answers, and isn't paused",
            Self::TimedOut => "see whether that node is paused or damaged, or name another one",
            Self::Overtaken => "`ringraft leader ls` shows who leads",
        }
    }
}

/// The answer to `Lead`: to a hand-over when it has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeadReply<'a> {
    /// The question that it answers.
    pub call: u64,
    /// [`Status::Ok`]: done. [`Status::Refused`]: `refusal` says why not.
    pub status: Status,
    /// Why not.
    pub refusal: Option<LeadRefusal>,
    /// Who leads, as far as the node knows; zero: it doesn't.
    pub leader: NodeId,
    /// Its term.
    pub term: Term,
    /// Why not, for people.
    pub sentence: &'a str,
}

impl<'a> LeadReply<'a> {
    /// Writes it as one frame; a longer sentence than [`SENTENCE_BYTES_MAX`] is cut.
    pub fn write(&self, outbox: &mut Outbox, group: GroupId, sender: Identity) {
        let mut head = [0; REPLY_HEAD_BYTES];
        head[..8].copy_from_slice(&self.call.to_le_bytes());
        head[8] = self.status as u8;
        head[9] = self.refusal.map_or(0, |refusal| refusal as u8);
        head[12..16].copy_from_slice(&self.leader.0.to_le_bytes());
        head[16..24].copy_from_slice(&self.term.0.to_le_bytes());
        let sentence = &self.sentence[..self.sentence.floor_char_boundary(SENTENCE_BYTES_MAX)];
        let mut frame = FrameWriter::begin(outbox, Kind::LeadReply, group, sender);
        frame.extend(&head);
        frame.extend(sentence.as_bytes());
        frame.finish();
    }

    /// Opens the body of a `LeadReply` frame.
    ///
    /// # Errors
    /// If it isn't one.
    pub fn read(frame: &Frame<'a>) -> Result<Self, WireError> {
        Self::decode(frame.body)
    }

    /// Reads such a body.
    ///
    /// # Errors
    /// If it isn't one.
    pub fn decode(body: &'a [u8]) -> Result<Self, WireError> {
        let kind = Kind::LeadReply;
        let field = |field, value: u64| WireError::Field { kind, field, value };
        let short = WireError::Short { kind, length: body.len(), item: 0 };
        let (head, sentence) = body.split_at_checked(REPLY_HEAD_BYTES).ok_or(short)?;
        let status = Status::from_u8(head[8]).ok_or(field("status", u64::from(head[8])))?;
        let refusal = match head[9] {
            0 => None,
            number => {
                Some(LeadRefusal::from_u8(number).ok_or(field("refusal", u64::from(number)))?)
            }
        };
        if refusal.is_some() != (status == Status::Refused) {
            return Err(field("refusal", u64::from(head[9])));
        }
        if u16_at(head, 10) != 0 {
            return Err(field("reserved", u64::from(u16_at(head, 10))));
        }
        if sentence.len() > SENTENCE_BYTES_MAX {
            return Err(field("sentence", sentence.len() as u64));
        }
        let sentence = std::str::from_utf8(sentence);
        let sentence = sentence.map_err(|error| field("sentence", error.valid_up_to() as u64))?;
        let (leader, term) = (NodeId(u32_at(head, 12)), Term(u64_at(head, 16)));
        Ok(Self { call: u64_at(head, 0), status, refusal, leader, term, sentence })
    }
}
