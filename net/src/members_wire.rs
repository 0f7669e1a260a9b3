//! What clients and servers say to each other about the members of a group: flat little-endian
//! layouts like those of `client_wire.rs`. The group is in the frame's header.
//!
//! ```text
//! Members       0 u64 call
//! Change        0 u64 call, 8 u64 expected, 16 u8 operation, 17 u8 flags, 18 u16 0, 20 u32 0,
//!              24 operation 1: the members asked for, as the payload of an entry (phase stable,
//!                 replaces 0); else nothing
//! MembersReply  0 u64 call, 8 u8 status, 9 u8 refusal, 10 u8 flags, 11 u8 0, 12 u32 leader,
//!              16 u64 index, 24 u64 commit, 32 u32 peers, 36 u32 members bytes,
//!              40 peers, each u32 node, u32 flags, u64 matched, u64 commit, u64 incarnation; then
//!                 the members in force as the payload of an entry, or nothing if none are known;
//!                 then a sentence in UTF-8
//! ```

use ringraft_types::bytes::{u16_at, u32_at, u64_at};
use ringraft_types::configuration::{Addresses, CONFIGURATION_BYTES_MAX, MEMBERS_MAX};
use ringraft_types::{
    Configuration, ConfigurationError, GroupId, Incarnation, Index, NodeId, Phase, Status, Words,
};

use crate::bytes::Cursor;
use crate::error::WireError;
use crate::frame::{Frame, FrameWriter, Identity, Kind};
use crate::outbox::Outbox;

/// The most peers that one answer tells of: the members, and others that leave yet.
pub const PEERS_MAX: usize = 2 * MEMBERS_MAX;
/// The longest sentence of an answer, bytes; more is cut.
pub const SENTENCE_BYTES_MAX: usize = 1 << 10;
const MEMBERS_BYTES: usize = 8;
const CHANGE_HEAD_BYTES: usize = 24;
const REPLY_HEAD_BYTES: usize = 40;
const PEER_BYTES: usize = 32;

const TO: u8 = 1;
const COMMIT: u8 = 2;
const ABORT: u8 = 3;
const HELD: u8 = 1;
const ALLOW_MAJORITY: u8 = 2;
const ALLOW_UNREADY: u8 = 4;
const COMMITTED: u8 = 1;
const LEADS: u8 = 2;
const HEARD: u32 = 1;

const _: () = assert!(MEMBERS_BYTES == Kind::Members.body_bytes_max());
const _: () = assert!(CHANGE_HEAD_BYTES + CONFIGURATION_BYTES_MAX <= Kind::Change.body_bytes_max());
// The longest list of members with the longest sentence fits its frame.
const _: () = assert!(
    REPLY_HEAD_BYTES + PEERS_MAX * PEER_BYTES + CONFIGURATION_BYTES_MAX + SENTENCE_BYTES_MAX
        <= Kind::MembersReply.body_bytes_max()
);

/// A member of a group: which node, which life of it, and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// The life of its data directory; zero: whichever greets first under this number.
    pub incarnation: Incarnation,
    /// Where other nodes reach it: `host:port`.
    pub peer: String,
    /// Where clients reach it: `host:port`.
    pub client: String,
}

/// Who the members of a group are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Who votes, who listens, and where a change stands.
    pub configuration: Configuration,
    /// Each member once, ascending by node.
    pub members: Vec<Member>,
}

impl Members {
    /// What a payload holds; nobody, if it is empty.
    ///
    /// # Errors
    /// If it holds no configuration, or addresses that are no text.
    pub fn decode(payload: &[u8], kind: Kind) -> Result<Self, WireError> {
        if payload.is_empty() {
            return Ok(Self::default());
        }
        let (configuration, found) =
            Configuration::decode(payload).map_err(|error| WireError::Members { kind, error })?;
        let text = |bytes: &[u8]| match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => {
                let value = error.valid_up_to() as u64;
                Err(WireError::Field { kind, field: "address", value })
            }
        };
        let member = |found: &ringraft_types::Member<'_>| {
            let Words { incarnation, addresses } = found.words;
            let (peer, client) = (text(addresses.peer)?, text(addresses.client)?);
            Ok(Member { node: found.node, incarnation, peer, client })
        };
        let members = found.iter().map(member).collect::<Result<_, WireError>>()?;
        Ok(Self { configuration, members })
    }

    /// The payload that holds them.
    ///
    /// # Errors
    /// If an address is too long.
    ///
    /// # Panics
    /// If a member of the configuration isn't among the members.
    pub fn encode(&self) -> Result<Vec<u8>, ConfigurationError> {
        self.configuration.encode(|node| {
            let member = self.member(node).expect("every member has its words");
            let addresses =
                Addresses { peer: member.peer.as_bytes(), client: member.client.as_bytes() };
            Words { incarnation: member.incarnation, addresses }
        })
    }

    /// What is known of a member.
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.node == node)
    }
}

/// What a client asks of a leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// These members from now on.
    To {
        /// Who votes and who listens: stable, and replacing nothing.
        target: Members,
        /// Stay between the old and the new voters until [`Commit`](Self::Commit) or
        /// [`Abort`](Self::Abort).
        is_held: bool,
        /// So many new voters may be asked for that they are a majority by themselves.
        allow_majority: bool,
        /// New voters that aren't caught up may be asked for.
        allow_unready: bool,
    },
    /// On from the held change, to its new voters.
    Commit,
    /// Back from the held change, to its outgoing voters.
    Abort,
}

/// A change as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeAsk {
    /// The client's name for it, given back in the reply.
    pub call: u64,
    /// The index of the configuration that it is meant for.
    pub expected: Index,
    /// What is asked for.
    pub change: MemberChange,
}

impl ChangeAsk {
    /// Appends the body of a `Change` frame.
    ///
    /// # Errors
    /// If an address is too long.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), ConfigurationError> {
        let (operation, flags, payload) = match &self.change {
            MemberChange::To { target, is_held, allow_majority, allow_unready } => {
                let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
                let flags = flag(*is_held, HELD)
                    | flag(*allow_majority, ALLOW_MAJORITY)
                    | flag(*allow_unready, ALLOW_UNREADY);
                (TO, flags, target.encode()?)
            }
            MemberChange::Commit => (COMMIT, 0, Vec::new()),
            MemberChange::Abort => (ABORT, 0, Vec::new()),
        };
        let mut head = [0; CHANGE_HEAD_BYTES];
        head[0..8].copy_from_slice(&self.call.to_le_bytes());
        head[8..16].copy_from_slice(&self.expected.0.to_le_bytes());
        head[16] = operation;
        head[17] = flags;
        out.extend(head);
        out.extend(payload);
        Ok(())
    }

    /// Gives an encoded change another name.
    pub(crate) fn name(body: &mut [u8], call: u64) {
        body[..8].copy_from_slice(&call.to_le_bytes());
    }

    /// Opens the body of a `Change` frame.
    ///
    /// # Errors
    /// If it isn't one.
    pub fn read(frame: &Frame<'_>) -> Result<Self, WireError> {
        let kind = Kind::Change;
        check_group(frame, kind)?;
        let field = |field, value: u64| WireError::Field { kind, field, value };
        let mut cursor = Cursor::new(frame.body);
        let head = cursor.take(CHANGE_HEAD_BYTES).ok_or(short(frame.body, kind, 0))?;
        let (operation, flags) = (head[16], head[17]);
        let reserved = u64::from(u16_at(head, 18)) | u64::from(u32_at(head, 20));
        if reserved != 0 {
            return Err(field("reserved", reserved));
        }
        let flags_known = if operation == TO { HELD | ALLOW_MAJORITY | ALLOW_UNREADY } else { 0 };
        if flags & !flags_known != 0 {
            return Err(field("flags", u64::from(flags)));
        }
        let change = match operation {
            TO => MemberChange::To {
                target: asked_for(cursor.rest())?,
                is_held: flags & HELD != 0,
                allow_majority: flags & ALLOW_MAJORITY != 0,
                allow_unready: flags & ALLOW_UNREADY != 0,
            },
            COMMIT | ABORT if !cursor.rest().is_empty() => {
                return Err(WireError::Surplus { kind, surplus: cursor.rest().len() });
            }
            COMMIT => MemberChange::Commit,
            ABORT => MemberChange::Abort,
            _ => return Err(field("operation", u64::from(operation))),
        };
        Ok(Self { call: u64_at(head, 0), expected: Index(u64_at(head, 8)), change })
    }
}

/// The members that a change asks for: where it stands in a log isn't for a client to say.
fn asked_for(payload: &[u8]) -> Result<Members, WireError> {
    let kind = Kind::Change;
    if payload.is_empty() {
        return Err(WireError::Short { kind, length: CHANGE_HEAD_BYTES, item: 0 });
    }
    let target = Members::decode(payload, kind)?;
    let (phase, replaces) = (target.configuration.phase(), target.configuration.replaces());
    if phase != Phase::Stable {
        return Err(WireError::Field { kind, field: "phase", value: phase as u64 });
    }
    if replaces != Index::ZERO {
        return Err(WireError::Field { kind, field: "replaces", value: replaces.0 });
    }
    Ok(target)
}

/// Writes one frame whose body is a change, encoded by [`ChangeAsk::encode`].
pub fn write_change(outbox: &mut Outbox, group: GroupId, sender: Identity, body: &[u8]) {
    let mut frame = FrameWriter::begin(outbox, Kind::Change, group, sender);
    frame.extend(body);
    frame.finish();
}

/// Asks who the members of a group are.
pub fn write_members(outbox: &mut Outbox, group: GroupId, sender: Identity, call: u64) {
    let mut frame = FrameWriter::begin(outbox, Kind::Members, group, sender);
    frame.extend(&call.to_le_bytes());
    frame.finish();
}

/// Opens the body of a `Members` frame: the client's name for the question.
///
/// # Errors
/// If it isn't one.
pub fn members(frame: &Frame<'_>) -> Result<u64, WireError> {
    let kind = Kind::Members;
    check_group(frame, kind)?;
    // The header bounds the length from above.
    let body: &[u8; MEMBERS_BYTES] =
        frame.body.try_into().map_err(|_| short(frame.body, kind, 0))?;
    Ok(u64::from_le_bytes(*body))
}

/// Why members can't change so, though the leader could change them: with [`Status::Refused`].
/// That another node leads, or this one isn't ready yet, is a status of its own.
/// The number is the wire's: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// Another change is under way.
    UnderWay = 1,
    /// The change was meant for another configuration than the one in force.
    Conflict = 2,
    /// The members are these already.
    Unchanged = 3,
    /// No change is held: there is nothing to go on from, or back.
    NotHeld = 4,
    /// No group can have these members.
    Invalid = 5,
    /// The new voters alone would be a majority.
    AddsMajority = 6,
    /// A new voter is no learner that has caught up.
    Behind = 7,
    /// A new voter doesn't answer.
    Unreachable = 8,
    /// A new voter is damaged, or its disk doesn't move.
    Unfit = 9,
    /// Of those that would vote, no majority answers and has caught up.
    NoReadyMajority = 10,
    /// A new member was known before, and which life of it is meant can't be told.
    WhichLife = 11,
}

impl Refusal {
    /// The refusal with this number, if there is one.
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::UnderWay,
            2 => Self::Conflict,
            3 => Self::Unchanged,
            4 => Self::NotHeld,
            5 => Self::Invalid,
            6 => Self::AddsMajority,
            7 => Self::Behind,
            8 => Self::Unreachable,
            9 => Self::Unfit,
            10 => Self::NoReadyMajority,
            11 => Self::WhichLife,
            _ => return None,
        })
    }
}

impl Refusal {
    /// What to do about it.
    pub const fn cure(self) -> &'static str {
        match self {
            Self::UnderWay => "wait until that change is through, then ask again",
            Self::Conflict => "read the members again: others have changed them meanwhile",
            Self::Unchanged => "nothing is to be done",
            Self::NotHeld => "only a change that was prepared can be committed or aborted",
            Self::Invalid => "name other members",
            Self::AddsMajority => "change fewer voters at a time, one after another",
            Self::Behind => "add it as a learner, and wait until it has caught up",
            Self::Unreachable => "see that it runs, and that the others reach its peer address",
            Self::Unfit => "repair it, or take another node",
            Self::NoReadyMajority => "see that the voters run, and wait until they have caught up",
            Self::WhichLife => "start it first, or name the incarnation of its data directory",
        }
    }
}

/// Another node as a leader sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The node.
    pub node: NodeId,
    /// Whether it was heard of within an election timeout.
    pub is_heard: bool,
    /// Up to where its log is known to agree with the leader's, durably.
    pub matched: Index,
    /// Its commit index, as it last said.
    pub commit: Index,
    /// The life of its data directory that was met; zero: none yet.
    pub incarnation: Incarnation,
}

/// The answer to `Members` and to `Change`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembersReply<'a> {
    /// The question that it answers.
    pub call: u64,
    /// [`Status::Ok`]: read, or appended, or done already. [`Status::Refused`]: `refusal` says why.
    pub status: Status,
    /// With [`Status::Refused`], and only then.
    pub refusal: Option<Refusal>,
    /// Whether the configuration in force is committed, as far as the replier knows.
    pub is_committed: bool,
    /// Whether the replier leads.
    pub is_leader: bool,
    /// Who leads, as far as the replier knows; zero if it doesn't.
    pub leader: NodeId,
    /// The index of the configuration in force; after a change, of the one appended.
    pub index: Index,
    /// The replier's commit index.
    pub commit: Index,
    /// The other members and how far they are; told by a leader only.
    pub peers: Vec<Peer>,
    /// The members in force as the payload of an entry; empty if none are known.
    pub members: &'a [u8],
    /// Why it was refused, for people.
    pub sentence: &'a str,
}

impl<'a> MembersReply<'a> {
    /// An answer that tells of no members.
    pub fn refusal(call: u64, status: Status, leader: NodeId) -> Self {
        Self {
            call,
            status,
            refusal: None,
            is_committed: false,
            is_leader: false,
            leader,
            index: Index::ZERO,
            commit: Index::ZERO,
            peers: Vec::new(),
            members: &[],
            sentence: "",
        }
    }

    /// Writes it as one frame; peers over [`PEERS_MAX`] and a sentence over
    /// [`SENTENCE_BYTES_MAX`] are cut.
    ///
    /// # Panics
    /// If there is a refusal with another status than [`Status::Refused`], or none with it.
    pub fn write(&self, outbox: &mut Outbox, group: GroupId, sender: Identity) {
        assert_eq!(self.refusal.is_some(), self.status == Status::Refused, "a refusal has a why");
        let peers = &self.peers[..self.peers.len().min(PEERS_MAX)];
        let sentence = &self.sentence[..self.sentence.floor_char_boundary(SENTENCE_BYTES_MAX)];
        let mut head = [0; REPLY_HEAD_BYTES];
        head[0..8].copy_from_slice(&self.call.to_le_bytes());
        head[8] = self.status as u8;
        head[9] = self.refusal.map_or(0, |refusal| refusal as u8);
        head[10] = if self.is_committed { COMMITTED } else { 0 };
        head[10] |= if self.is_leader { LEADS } else { 0 };
        head[12..16].copy_from_slice(&self.leader.0.to_le_bytes());
        head[16..24].copy_from_slice(&self.index.0.to_le_bytes());
        head[24..32].copy_from_slice(&self.commit.0.to_le_bytes());
        head[32..36].copy_from_slice(&(peers.len() as u32).to_le_bytes());
        head[36..40].copy_from_slice(&(self.members.len() as u32).to_le_bytes());
        let mut frame = FrameWriter::begin(outbox, Kind::MembersReply, group, sender);
        frame.extend(&head);
        for peer in peers {
            frame.extend(&peer.node.0.to_le_bytes());
            frame.extend(&if peer.is_heard { HEARD } else { 0 }.to_le_bytes());
            for word in [peer.matched.0, peer.commit.0, peer.incarnation.0] {
                frame.extend(&word.to_le_bytes());
            }
        }
        frame.extend(self.members);
        frame.extend(sentence.as_bytes());
        frame.finish();
    }

    /// Opens the body of a `MembersReply` frame.
    ///
    /// # Errors
    /// If it isn't one.
    pub fn read(frame: &Frame<'a>) -> Result<Self, WireError> {
        assert_eq!(frame.header.kind, Kind::MembersReply, "the caller chooses by the frame's kind");
        Self::decode(frame.body)
    }

    /// Reads the body that [`write`](Self::write) wrote. The members in it are sound.
    ///
    /// # Errors
    /// If it isn't that.
    pub fn decode(body: &'a [u8]) -> Result<Self, WireError> {
        let kind = Kind::MembersReply;
        let field = |field, value: u64| WireError::Field { kind, field, value };
        let mut cursor = Cursor::new(body);
        let head = cursor.take(REPLY_HEAD_BYTES).ok_or(short(body, kind, 0))?;
        let status = Status::from_u8(head[8]).ok_or(field("status", u64::from(head[8])))?;
        let refusal = match head[9] {
            0 => None,
            number => Some(Refusal::from_u8(number).ok_or(field("refusal", u64::from(number)))?),
        };
        if refusal.is_some() != (status == Status::Refused) {
            return Err(field("refusal", u64::from(head[9])));
        }
        if head[10] & !(COMMITTED | LEADS) != 0 {
            return Err(field("flags", u64::from(head[10])));
        }
        if head[11] != 0 {
            return Err(field("reserved", u64::from(head[11])));
        }
        let count = u32_at(head, 32) as usize;
        if count > PEERS_MAX {
            return Err(WireError::Count { kind, count, limit: PEERS_MAX });
        }
        let mut peers = Vec::with_capacity(count);
        for item in 0..count as u32 {
            let row = cursor.take(PEER_BYTES).ok_or(short(body, kind, item))?;
            if u32_at(row, 4) & !HEARD != 0 {
                return Err(field("peer flags", u64::from(u32_at(row, 4))));
            }
            peers.push(Peer {
                node: NodeId(u32_at(row, 0)),
                is_heard: u32_at(row, 4) & HEARD != 0,
                matched: Index(u64_at(row, 8)),
                commit: Index(u64_at(row, 16)),
                incarnation: Incarnation(u64_at(row, 24)),
            });
        }
        let members = cursor.take(u32_at(head, 36) as usize);
        let members = members.ok_or(short(body, kind, count as u32))?;
        Members::decode(members, kind)?;
        let length = cursor.rest().len();
        if length > SENTENCE_BYTES_MAX {
            let (least, most) = (0, SENTENCE_BYTES_MAX);
            return Err(WireError::Length { kind, item: count as u32, length, least, most });
        }
        let sentence = std::str::from_utf8(cursor.rest())
            .map_err(|error| field("sentence", error.valid_up_to() as u64))?;
        Ok(Self {
            call: u64_at(head, 0),
            status,
            refusal,
            is_committed: head[10] & COMMITTED != 0,
            is_leader: head[10] & LEADS != 0,
            leader: NodeId(u32_at(head, 12)),
            index: Index(u64_at(head, 16)),
            commit: Index(u64_at(head, 24)),
            peers,
            members,
            sentence,
        })
    }
}

fn check_group(frame: &Frame<'_>, kind: Kind) -> Result<(), WireError> {
    assert_eq!(frame.header.kind, kind, "the caller chooses the function by the frame's kind");
    match frame.header.group {
        GroupId(0) => Err(WireError::Group { kind, group: frame.header.group }),
        _ => Ok(()),
    }
}

fn short(body: &[u8], kind: Kind, item: u32) -> WireError {
    WireError::Short { kind, length: body.len(), item }
}
