//! What clients and servers say to each other: flat little-endian layouts, checked by hand once,
//! then read without allocation.
//!
//! ```text
//! Writes   u32 count, u32 0, then count times: u32 length, u32 0, u64 call, payload
//!          (payload = envelope of 40 bytes, command: the payload of the record as it will lie in
//!          the log)
//! Reads    u32 count, u32 consistency (0 linearizable, 1 by lease, 3 local), of local reads also
//!          u64 least index, u32 greatest age (ms), u32 wait (ms);
//!          then count times: u32 length, u32 0, u64 call, command
//! Replies  u32 count, u32 0, then count times: u64 call, u8 status, u8 flags, u16 0, u32 length,
//!          u64 revision, u64 index, u32 hint, u32 0, body
//! Locate   empty; the group is in the frame's header
//! LocateReply  u32 leader, u8 status, u8 ready, u16 count, u64 term, u64 applied, then count
//!          times: u32 node, u16 shard, u16 length, client address
//! Error    u32 code, then a sentence in UTF-8
//! ```

use ringraft_types::bytes::{u16_at, u32_at, u64_at};
use ringraft_types::configuration::MEMBERS_MAX;
use ringraft_types::limits::{
    ADDRESS_BYTES_MAX, COMMAND_BYTES_MAX, ENVELOPE_BYTES, FRAME_BODY_BYTES_MAX, PAYLOAD_BYTES_MAX,
};
use ringraft_types::{GroupId, Index, NodeId, Revision, ShardId, Status, Term};

use crate::bytes::Cursor;
use crate::error::WireError;
use crate::frame::{Frame, FrameWriter, Identity, Kind};
use crate::outbox::Outbox;

/// The most items that one frame of writes, reads or replies carries.
pub const ITEMS_MAX: usize = 1024;
/// Bytes before each write's payload or read's command.
pub const REQUEST_HEAD_BYTES: usize = 16;
/// Bytes before each reply's body.
pub const REPLY_HEAD_BYTES: usize = 40;
/// Bytes of a batch before its first item.
pub const BATCH_HEAD_BYTES: usize = 8;
/// The longest body of one reply, bytes: it fits a frame of its own.
pub const REPLY_BODY_BYTES_MAX: usize = FRAME_BODY_BYTES_MAX - BATCH_HEAD_BYTES - REPLY_HEAD_BYTES;
/// Bytes of what a frame of local reads asks for.
const LOCAL_BYTES: usize = 16;
const LINEARIZABLE: u32 = 0;
const LEASE: u32 = 1;
const LOCAL: u32 = 3;
const LOCATE_HEAD_BYTES: usize = 24;

// A write of the longest payload fits a frame.
const _: () =
    assert!(BATCH_HEAD_BYTES + REQUEST_HEAD_BYTES + PAYLOAD_BYTES_MAX <= FRAME_BODY_BYTES_MAX);
// A full list of members fits its frame.
const _: () = assert!(
    LOCATE_HEAD_BYTES + MEMBERS_MAX * (8 + ADDRESS_BYTES_MAX) <= Kind::LocateReply.body_bytes_max()
);

/// What a read may see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// All that was done before it began. The leader asks a majority whether it still leads; a node
    /// that follows it asks the leader what the read must see.
    #[default]
    Linearizable,
    /// The same, and the leader asks nobody while it has a lease: that rests on clocks whose rates
    /// differ by less than the servers' settings allow. Without a lease it asks, and so does a node
    /// that follows it.
    Lease,
    /// What the node that is asked has applied, whether it leads or not.
    Local(Local),
}

/// The bounds of a local read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// It sees this entry: that of an answer that was seen before, from whichever node. Zero: any.
    pub at_least: Index,
    /// The node heard of its leader at most so many milliseconds ago. `u32::MAX`: it doesn't matter.
    pub age_ms_max: u32,
    /// It waits so many milliseconds for the entry.
    pub wait_ms: u32,
}

impl Default for Local {
    fn default() -> Self {
        Self { at_least: Index::ZERO, age_ms_max: u32::MAX, wait_ms: 0 }
    }
}

impl Consistency {
    const fn word(self) -> u32 {
        match self {
            Self::Linearizable => LINEARIZABLE,
            Self::Lease => LEASE,
            Self::Local(_) => LOCAL,
        }
    }

    /// Whether it sees all that was done: the leader answers, or a node that asks it.
    pub const fn is_of_leader(self) -> bool {
        !matches!(self, Self::Local(_))
    }
}

/// One write or read of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The client's name for it, given back in the reply.
    pub call: u64,
    /// A write's payload (envelope and command), or a read's command.
    pub payload: &'a [u8],
}

/// A batch of writes or of reads, checked.
#[derive(Clone, Copy, Debug)]
pub struct Requests<'a> {
    count: u32,
    consistency: Consistency,
    items: &'a [u8],
}

impl<'a> Requests<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What the reads of the batch may see.
    pub fn consistency(&self) -> Consistency {
        self.consistency
    }

    /// The requests in order.
    pub fn iter(&self) -> impl Iterator<Item = Request<'a>> + use<'a> {
        let mut rest = self.items;
        std::iter::from_fn(move || {
            let (head, tail) = rest.split_at_checked(REQUEST_HEAD_BYTES)?;
            let payload;
            (payload, rest) = tail.split_at(u32_at(head, 0) as usize);
            Some(Request { call: u64_at(head, 8), payload })
        })
    }
}

/// Opens the body of a `Writes` frame.
///
/// # Errors
/// If it isn't one.
pub fn writes<'a>(frame: &Frame<'a>) -> Result<Requests<'a>, WireError> {
    requests(frame, Kind::Writes, ENVELOPE_BYTES, PAYLOAD_BYTES_MAX)
}

/// Opens the body of a `Reads` frame.
///
/// # Errors
/// If it isn't one.
pub fn reads<'a>(frame: &Frame<'a>) -> Result<Requests<'a>, WireError> {
    requests(frame, Kind::Reads, 0, COMMAND_BYTES_MAX)
}

fn requests<'a>(
    frame: &Frame<'a>,
    kind: Kind,
    least: usize,
    most: usize,
) -> Result<Requests<'a>, WireError> {
    let (count, word, items) = batch(frame, kind)?;
    let (consistency, items) = match kind {
        Kind::Reads => consistency(frame, word, items)?,
        _ => (Consistency::Linearizable, items),
    };
    let mut cursor = Cursor::new(items);
    for item in 0..count {
        let short = WireError::Short { kind, length: frame.body.len(), item };
        let head = cursor.take(REQUEST_HEAD_BYTES).ok_or(short)?;
        let length = u32_at(head, 0) as usize;
        if !(least..=most).contains(&length) {
            return Err(WireError::Length { kind, item, length, least, most });
        }
        let zero = u32_at(head, 4);
        if zero != 0 {
            return Err(WireError::Field { kind, field: "reserved", value: u64::from(zero) });
        }
        cursor.take(length).ok_or(short)?;
    }
    end(&cursor, kind)?;
    Ok(Requests { count, consistency, items })
}

/// What the word says, and for local reads the bytes behind it.
fn consistency<'a>(
    frame: &Frame<'_>,
    word: u32,
    items: &'a [u8],
) -> Result<(Consistency, &'a [u8]), WireError> {
    let kind = Kind::Reads;
    match word {
        LINEARIZABLE => Ok((Consistency::Linearizable, items)),
        LEASE => Ok((Consistency::Lease, items)),
        LOCAL => {
            let short = WireError::Short { kind, length: frame.body.len(), item: 0 };
            let (head, items) = items.split_at_checked(LOCAL_BYTES).ok_or(short)?;
            let local = Local {
                at_least: Index(u64_at(head, 0)),
                age_ms_max: u32_at(head, 8),
                wait_ms: u32_at(head, 12),
            };
            Ok((Consistency::Local(local), items))
        }
        _ => Err(WireError::Field { kind, field: "consistency", value: u64::from(word) }),
    }
}

/// Checks a batch's kind, group, count and second word.
fn batch<'a>(frame: &Frame<'a>, kind: Kind) -> Result<(u32, u32, &'a [u8]), WireError> {
    assert_eq!(frame.header.kind, kind, "the caller chooses the function by the frame's kind");
    if frame.header.group == GroupId(0) {
        return Err(WireError::Group { kind, group: frame.header.group });
    }
    let length = frame.body.len();
    let (head, items) = frame.body.split_at_checked(BATCH_HEAD_BYTES).ok_or(WireError::Short {
        kind,
        length,
        item: 0,
    })?;
    let (count, word) = (u32_at(head, 0), u32_at(head, 4));
    if count as usize > ITEMS_MAX {
        return Err(WireError::Count { kind, count: count as usize, limit: ITEMS_MAX });
    }
    if word != 0 && kind != Kind::Reads {
        return Err(WireError::Field { kind, field: "reserved", value: u64::from(word) });
    }
    Ok((count, word, items))
}

fn end(cursor: &Cursor<'_>, kind: Kind) -> Result<(), WireError> {
    match cursor.rest().len() {
        0 => Ok(()),
        surplus => Err(WireError::Surplus { kind, surplus }),
    }
}

/// Writes a batch of writes, reads or replies into an outbox, item by item. Dropped unfinished, or
/// finished without an item, it leaves nothing behind.
#[derive(Debug)]
pub struct BatchWriter<'a> {
    frame: FrameWriter<'a>,
    count: u32,
}

impl<'a> BatchWriter<'a> {
    /// Begins a batch of `kind`: writes, reads or replies.
    pub fn begin(outbox: &'a mut Outbox, kind: Kind, group: GroupId, sender: Identity) -> Self {
        assert!(matches!(kind, Kind::Writes | Kind::Reads | Kind::Replies));
        let mut frame = FrameWriter::begin(outbox, kind, group, sender);
        frame.extend(&[0; BATCH_HEAD_BYTES]);
        Self { frame, count: 0 }
    }

    /// Begins a batch of reads that may see this.
    pub fn begin_reads(
        outbox: &'a mut Outbox,
        consistency: Consistency,
        group: GroupId,
        sender: Identity,
    ) -> Self {
        let mut frame = FrameWriter::begin(outbox, Kind::Reads, group, sender);
        frame.extend(&[0; 4]);
        frame.extend(&consistency.word().to_le_bytes());
        if let Consistency::Local(Local { at_least, age_ms_max, wait_ms }) = consistency {
            frame.extend(&at_least.0.to_le_bytes());
            frame.extend(&age_ms_max.to_le_bytes());
            frame.extend(&wait_ms.to_le_bytes());
        }
        Self { frame, count: 0 }
    }

    /// Whether an item of `length` bytes still fits; if not, finish and begin another.
    pub fn fits(&self, length: usize) -> bool {
        (self.count as usize) < ITEMS_MAX
            && self.frame.body_len() + REPLY_HEAD_BYTES + length <= FRAME_BODY_BYTES_MAX
    }

    /// Bytes of the body so far.
    pub fn body_len(&self) -> usize {
        self.frame.body_len()
    }

    /// Items so far.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is no item yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a write or a read, whose payload or command is given in two parts.
    pub fn request(&mut self, call: u64, payload: [&[u8]; 2]) {
        let length = payload[0].len() + payload[1].len();
        let mut head = [0; REQUEST_HEAD_BYTES];
        head[0..4].copy_from_slice(&(length as u32).to_le_bytes());
        head[8..16].copy_from_slice(&call.to_le_bytes());
        self.frame.extend(&head);
        self.frame.extend(payload[0]);
        self.frame.extend(payload[1]);
        self.count += 1;
    }

    /// Adds a reply.
    ///
    /// # Panics
    /// If its body is over [`REPLY_BODY_BYTES_MAX`].
    pub fn reply(&mut self, reply: &Reply<'_>) {
        assert!(reply.body.len() <= REPLY_BODY_BYTES_MAX, "the reply's body is over the limit");
        let mut head = [0; REPLY_HEAD_BYTES];
        head[0..8].copy_from_slice(&reply.call.to_le_bytes());
        head[8] = reply.status as u8;
        head[9] = reply.flags;
        head[12..16].copy_from_slice(&(reply.body.len() as u32).to_le_bytes());
        head[16..24].copy_from_slice(&reply.revision.0.to_le_bytes());
        head[24..32].copy_from_slice(&reply.index.0.to_le_bytes());
        head[32..36].copy_from_slice(&reply.hint.0.to_le_bytes());
        self.frame.extend(&head);
        self.frame.extend(reply.body);
        self.count += 1;
    }

    /// Completes the frame; without an item there is none.
    ///
    /// # Panics
    /// If there are more items or bytes than [`fits`](Self::fits) allowed.
    pub fn finish(mut self) {
        assert!(self.count as usize <= ITEMS_MAX, "a batch of {} items", self.count);
        if self.count > 0 {
            self.frame.patch_u32(0, self.count);
            self.frame.finish();
        }
    }
}

/// The answer to one write or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// The request that it answers.
    pub call: u64,
    /// What became of it.
    pub status: Status,
    /// The machine's own word about the result.
    pub flags: u8,
    /// The machine's revision after it.
    pub revision: Revision,
    /// The Raft index of the write, or that the read saw.
    pub index: Index,
    /// With [`Status::NotLeader`]: who leads, or zero.
    pub hint: NodeId,
    /// The machine's result.
    pub body: &'a [u8],
}

impl Reply<'static> {
    /// An answer without a result.
    pub fn refusal(call: u64, status: Status, hint: NodeId) -> Self {
        let (revision, index) = (Revision(0), Index(0));
        Self { call, status, flags: 0, revision, index, hint, body: &[] }
    }
}

/// A batch of replies, checked.
#[derive(Clone, Copy, Debug)]
pub struct Replies<'a> {
    count: u32,
    items: &'a [u8],
}

impl<'a> Replies<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The replies in order.
    pub fn iter(&self) -> impl Iterator<Item = Reply<'a>> + use<'a> {
        let mut rest = self.items;
        std::iter::from_fn(move || {
            let (head, tail) = rest.split_at_checked(REPLY_HEAD_BYTES)?;
            let body;
            (body, rest) = tail.split_at(u32_at(head, 12) as usize);
            Some(Reply {
                call: u64_at(head, 0),
                status: Status::from_u8(head[8]).expect("checked when opened"),
                flags: head[9],
                revision: Revision(u64_at(head, 16)),
                index: Index(u64_at(head, 24)),
                hint: NodeId(u32_at(head, 32)),
                body,
            })
        })
    }
}

/// Opens the body of a `Replies` frame.
///
/// # Errors
/// If it isn't one.
pub fn replies<'a>(frame: &Frame<'a>) -> Result<Replies<'a>, WireError> {
    let kind = Kind::Replies;
    let (count, _, items) = batch(frame, kind)?;
    let mut cursor = Cursor::new(items);
    for item in 0..count {
        let short = WireError::Short { kind, length: frame.body.len(), item };
        let head = cursor.take(REPLY_HEAD_BYTES).ok_or(short)?;
        if Status::from_u8(head[8]).is_none() {
            return Err(WireError::Field { kind, field: "status", value: u64::from(head[8]) });
        }
        let zero = u32::from(u16_at(head, 10)) | u32_at(head, 36);
        if zero != 0 {
            return Err(WireError::Field { kind, field: "reserved", value: u64::from(zero) });
        }
        cursor.take(u32_at(head, 12) as usize).ok_or(short)?;
    }
    end(&cursor, kind)?;
    Ok(Replies { count, items })
}

/// Asks who leads a group.
pub fn write_locate(outbox: &mut Outbox, group: GroupId, sender: Identity) {
    FrameWriter::begin(outbox, Kind::Locate, group, sender).finish();
}

/// A node that holds a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// The shard of it that owns the group.
    pub shard: ShardId,
    /// Where clients reach the node: `host:port`.
    pub address: String,
}

/// Where a group is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocateReply {
    /// [`Status::Ok`], or why the node can't say.
    pub status: Status,
    /// Who leads, as far as the replier knows; zero if it doesn't.
    pub leader: NodeId,
    /// Whether the replier leads and has committed in its term.
    pub ready: bool,
    /// The replier's term.
    pub term: Term,
    /// The replier's applied index.
    pub applied: Index,
    /// The nodes that hold the group.
    pub members: Vec<Member>,
}

impl LocateReply {
    /// Writes it as one frame.
    ///
    /// # Panics
    /// If there are more members than [`MEMBERS_MAX`], or an address is over [`ADDRESS_BYTES_MAX`].
    pub fn write(&self, outbox: &mut Outbox, group: GroupId, sender: Identity) {
        assert!(self.members.len() <= MEMBERS_MAX, "a group has at most {MEMBERS_MAX} members");
        let mut frame = FrameWriter::begin(outbox, Kind::LocateReply, group, sender);
        frame.extend(&self.leader.0.to_le_bytes());
        frame.extend(&[self.status as u8, u8::from(self.ready)]);
        frame.extend(&(self.members.len() as u16).to_le_bytes());
        frame.extend(&self.term.0.to_le_bytes());
        frame.extend(&self.applied.0.to_le_bytes());
        for member in &self.members {
            assert!(member.address.len() <= ADDRESS_BYTES_MAX, "an address is over the limit");
            frame.extend(&member.node.0.to_le_bytes());
            frame.extend(&member.shard.0.to_le_bytes());
            frame.extend(&(member.address.len() as u16).to_le_bytes());
            frame.extend(member.address.as_bytes());
        }
        frame.finish();
    }

    /// Opens the body of a `LocateReply` frame.
    ///
    /// # Errors
    /// If it isn't one.
    pub fn read(frame: &Frame<'_>) -> Result<Self, WireError> {
        assert_eq!(frame.header.kind, Kind::LocateReply, "the caller chooses by the frame's kind");
        Self::decode(frame.body)
    }

    /// Reads the body that [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// If it isn't that.
    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let kind = Kind::LocateReply;
        let short = |item| WireError::Short { kind, length: body.len(), item };
        let field = |field, value| WireError::Field { kind, field, value };
        let mut cursor = Cursor::new(body);
        let head = cursor.take(LOCATE_HEAD_BYTES).ok_or(short(0))?;
        let status = Status::from_u8(head[4]).ok_or(field("status", u64::from(head[4])))?;
        if head[5] > 1 {
            return Err(field("ready", u64::from(head[5])));
        }
        let count = usize::from(u16_at(head, 6));
        if count > MEMBERS_MAX {
            return Err(WireError::Count { kind, count, limit: MEMBERS_MAX });
        }
        let mut members = Vec::with_capacity(count);
        for item in 0..count as u32 {
            let node = NodeId(cursor.u32().ok_or(short(item))?);
            let shard = ShardId(cursor.u16().ok_or(short(item))?);
            let length = usize::from(cursor.u16().ok_or(short(item))?);
            if length > ADDRESS_BYTES_MAX {
                let (least, most) = (0, ADDRESS_BYTES_MAX);
                return Err(WireError::Length { kind, item, length, least, most });
            }
            let address = cursor.take(length).ok_or(short(item))?;
            let address = std::str::from_utf8(address)
                .map_err(|error| field("address", error.valid_up_to() as u64))?;
            members.push(Member { node, shard, address: address.to_owned() });
        }
        end(&cursor, kind)?;
        Ok(Self {
            status,
            leader: NodeId(u32_at(head, 0)),
            ready: head[5] == 1,
            term: Term(u64_at(head, 8)),
            applied: Index(u64_at(head, 16)),
            members,
        })
    }
}

/// Why a connection is about to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorFrame<'a> {
    /// A number for programs.
    pub code: u32,
    /// A sentence for people.
    pub sentence: &'a str,
}

impl<'a> ErrorFrame<'a> {
    /// Writes it as one frame; a sentence over the limit is cut.
    pub fn write(&self, outbox: &mut Outbox, sender: Identity) {
        let mut frame = FrameWriter::begin(outbox, Kind::Error, GroupId(0), sender);
        let most = Kind::Error.body_bytes_max() - 4;
        let mut length = self.sentence.len().min(most);
        while !self.sentence.is_char_boundary(length) {
            length -= 1;
        }
        frame.extend(&self.code.to_le_bytes());
        frame.extend(&self.sentence.as_bytes()[..length]);
        frame.finish();
    }

    /// Opens the body of an `Error` frame.
    ///
    /// # Errors
    /// If it isn't one.
    pub fn read(frame: &Frame<'a>) -> Result<Self, WireError> {
        let kind = Kind::Error;
        let length = frame.body.len();
        let (code, sentence) =
            frame.body.split_at_checked(4).ok_or(WireError::Short { kind, length, item: 0 })?;
        let sentence = std::str::from_utf8(sentence).map_err(|error| {
            let value = error.valid_up_to() as u64;
            WireError::Field { kind, field: "sentence", value }
        })?;
        Ok(Self { code: u32_at(code, 0), sentence })
    }
}
