//! How a shard of a node is doing: the answer to a `Status` frame. Flat, little-endian.
//!
//! ```text
//! u32 node, u16 shard, u16 name length, u64 uptime us, u32 sync p50 us, u32 sync p99 us,
//! u32 groups, u8 durable, u8 flags (1: paused, 2: spreads), u8 memory, u8 priority, u64 data bytes,
//! u64 data bytes at most, name in UTF-8, then per group 88 bytes:
//! u64 group, u64 term, u64 commit, u64 applied, u64 last, u64 revision, u64 state hash,
//! u64 lag entries, u32 leader, u8 role, u8 damaged, u8 snapshots, u8 0, u64 snapshot,
//! u64 data bytes
//! ```

use ringraft_types::bytes::{u32_at, u64_at};
use ringraft_types::limits::FRAME_BODY_BYTES_MAX;
use ringraft_types::{GroupId, Index, MemoryLevel, NodeId, Revision, ShardId, Term, Ticks};

use crate::bytes::Cursor;
use crate::error::WireError;
use crate::frame::{Frame, FrameWriter, Identity, Kind};
use crate::outbox::Outbox;

/// The longest name of a node, bytes.
pub const NAME_BYTES_MAX: usize = 255;
const HEAD_BYTES: usize = 48;
const GROUP_BYTES: usize = 88;
/// The most groups that one answer tells of; a shard with more tells of the first ones.
pub const STATUS_GROUPS_MAX: usize =
    (FRAME_BODY_BYTES_MAX - HEAD_BYTES - NAME_BYTES_MAX) / GROUP_BYTES;

/// A group's part in a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum GroupRole {
    /// Follows a leader, or waits for one.
    Follower = 0,
    /// Asks whether it would be voted for.
    PreCandidate = 1,
    /// Asks for votes.
    Candidate = 2,
    /// Leads.
    Leader = 3,
    /// Receives entries without a vote.
    Learner = 4,
    /// Is no member: it is to be added, or was removed.
    Outsider = 5,
}

impl GroupRole {
    /// The role with this number, if there is one.
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Follower,
            1 => Self::PreCandidate,
            2 => Self::Candidate,
            3 => Self::Leader,
            4 => Self::Learner,
            5 => Self::Outsider,
            _ => return None,
        })
    }

    /// Its name for people and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Follower => "follower",
            Self::PreCandidate => "pre-candidate",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
            Self::Learner => "learner",
            Self::Outsider => "no member",
        }
    }
}

/// What a shard does for the snapshots of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum SnapshotActivity {
    /// Nothing.
    #[default]
    None = 0,
    /// One is to be taken, after others.
    Waiting = 1,
    /// One is being taken.
    Taking = 2,
    /// The group needs one of another node, or is given one.
    Installing = 3,
}

impl SnapshotActivity {
    /// The activity with this number, if there is one.
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::None,
            1 => Self::Waiting,
            2 => Self::Taking,
            3 => Self::Installing,
            _ => return None,
        })
    }

    /// Its name for people and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Waiting => "waiting",
            Self::Taking => "taking",
            Self::Installing => "installing",
        }
    }
}

/// One group on one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// Its role here.
    pub role: GroupRole,
    /// Its term here.
    pub term: Term,
    /// Who leads, as far as is known here; zero if it isn't.
    pub leader: NodeId,
    /// Its commit index here.
    pub commit: Index,
    /// Its applied index here.
    pub applied: Index,
    /// Its last index here.
    pub last: Index,
    /// Its machine's revision here.
    pub revision: Revision,
    /// The rolling hash of its machine's state at `revision`.
    pub state_hash: u64,
    /// On a leader: entries that the slowest member lacks. Elsewhere: committed, not yet applied.
    pub lag_entries: u64,
    /// Whether its log here has rot that is not repaired yet.
    pub damaged: bool,
    /// The newest entry in a snapshot of it here; zero if there is none.
    pub snapshot: Index,
    /// What is done for its snapshots here.
    pub activity: SnapshotActivity,
    /// What its data takes here, bytes.
    pub data_bytes: u64,
}

/// One shard of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeId,
    /// The shard of it.
    pub shard: ShardId,
    /// The node's name for people.
    pub name: String,
    /// How long the process runs.
    pub uptime: Ticks,
    /// The median time of a durable write, microseconds.
    pub sync_p50_us: u32,
    /// The 99th percentile of the time of a durable write, microseconds.
    pub sync_p99_us: u32,
    /// Whether it syncs before it acknowledges: not so in the mode for experiments.
    pub durable: bool,
    /// Whether its groups don't stand for election, by request (EL-12).
    pub is_paused: bool,
    /// The node's priority as a leader, 0 to 255.
    pub priority: u8,
    /// Whether it takes its part of what nodes of its priority lead.
    pub spreads: bool,
    /// What the data of all its shards takes, bytes, as far as this shard knows.
    pub data_bytes: u64,
    /// The most that it may; zero: there is no limit.
    pub data_bytes_max: u64,
    /// How near the one is to the other.
    pub memory: MemoryLevel,
    /// The shard's groups.
    pub groups: Vec<GroupStatus>,
}

/// Asks a shard how it is.
pub fn write_status(outbox: &mut Outbox, sender: Identity) {
    FrameWriter::begin(outbox, Kind::Status, GroupId(0), sender).finish();
}

impl NodeStatus {
    /// Writes it as one frame; groups over [`STATUS_GROUPS_MAX`] and a name over
    /// [`NAME_BYTES_MAX`] are cut.
    pub fn write(&self, outbox: &mut Outbox, sender: Identity) {
        let mut frame = FrameWriter::begin(outbox, Kind::StatusReply, GroupId(0), sender);
        self.encode(frame.buffer());
        frame.finish();
    }

    /// Appends the body of a `StatusReply` frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut name_bytes = self.name.len().min(NAME_BYTES_MAX);
        while !self.name.is_char_boundary(name_bytes) {
            name_bytes -= 1;
        }
        let groups = &self.groups[..self.groups.len().min(STATUS_GROUPS_MAX)];
        out.reserve(HEAD_BYTES + name_bytes + groups.len() * GROUP_BYTES);
        out.extend_from_slice(&self.node.0.to_le_bytes());
        out.extend_from_slice(&self.shard.0.to_le_bytes());
        out.extend_from_slice(&(name_bytes as u16).to_le_bytes());
        out.extend_from_slice(&self.uptime.0.to_le_bytes());
        out.extend_from_slice(&self.sync_p50_us.to_le_bytes());
        out.extend_from_slice(&self.sync_p99_us.to_le_bytes());
        out.extend_from_slice(&(groups.len() as u32).to_le_bytes());
        let flags = u8::from(self.is_paused) | u8::from(self.spreads) << 1;
        let bytes = [u8::from(self.durable), flags, self.memory as u8, self.priority];
        out.extend_from_slice(&bytes);
        out.extend_from_slice(&self.data_bytes.to_le_bytes());
        out.extend_from_slice(&self.data_bytes_max.to_le_bytes());
        out.extend_from_slice(&self.name.as_bytes()[..name_bytes]);
        for group in groups {
            out.extend_from_slice(&group.encode());
        }
    }

    /// Opens the body of a `StatusReply` frame.
    ///
    /// # Errors
    /// If it isn't one.
    pub fn read(frame: &Frame<'_>) -> Result<Self, WireError> {
        assert_eq!(frame.header.kind, Kind::StatusReply, "the caller chooses by the frame's kind");
        Self::decode(frame.body)
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// If it isn't that.
    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let kind = Kind::StatusReply;
        let short = |item| WireError::Short { kind, length: body.len(), item };
        let mut cursor = Cursor::new(body);
        let node = NodeId(cursor.u32().ok_or(short(0))?);
        let shard = ShardId(cursor.u16().ok_or(short(0))?);
        let name_bytes = usize::from(cursor.u16().ok_or(short(0))?);
        let uptime = Ticks(cursor.u64().ok_or(short(0))?);
        let sync_p50_us = cursor.u32().ok_or(short(0))?;
        let sync_p99_us = cursor.u32().ok_or(short(0))?;
        let count = cursor.u32().ok_or(short(0))?;
        let flags = cursor.u32().ok_or(short(0))?;
        let data_bytes = cursor.u64().ok_or(short(0))?;
        let data_bytes_max = cursor.u64().ok_or(short(0))?;
        // A byte for each.
        let [durable, marks, memory, priority] = flags.to_le_bytes();
        let memory = MemoryLevel::from_u8(memory);
        let Some(memory) = memory.filter(|_| durable <= 1 && marks <= 3) else {
            return Err(WireError::Field { kind, field: "durable", value: u64::from(flags) });
        };
        if name_bytes > NAME_BYTES_MAX {
            let (length, least, most) = (name_bytes, 0, NAME_BYTES_MAX);
            return Err(WireError::Length { kind, item: 0, length, least, most });
        }
        let name = cursor.take(name_bytes).ok_or(short(0))?;
        let name = std::str::from_utf8(name).map_err(|error| {
            let value = error.valid_up_to() as u64;
            WireError::Field { kind, field: "name", value }
        })?;
        // The count is believed only as far as there are bytes for it.
        let need = count as usize * GROUP_BYTES;
        if cursor.rest().len() < need {
            return Err(short((cursor.rest().len() / GROUP_BYTES) as u32));
        }
        if cursor.rest().len() > need {
            return Err(WireError::Surplus { kind, surplus: cursor.rest().len() - need });
        }
        let (rows, _) = cursor.rest().as_chunks::<GROUP_BYTES>();
        let groups = rows.iter().map(GroupStatus::decode).collect::<Result<_, _>>()?;
        let name = name.to_owned();
        Ok(Self {
            node,
            shard,
            name,
            uptime,
            sync_p50_us,
            sync_p99_us,
            durable: durable != 0,
            is_paused: marks & 1 != 0,
            priority,
            spreads: marks & 2 != 0,
            data_bytes,
            data_bytes_max,
            memory,
            groups,
        })
    }
}

impl GroupStatus {
    fn encode(&self) -> [u8; GROUP_BYTES] {
        let mut row = [0; GROUP_BYTES];
        let words = [
            self.group.0,
            self.term.0,
            self.commit.0,
            self.applied.0,
            self.last.0,
            self.revision.0,
            self.state_hash,
            self.lag_entries,
        ];
        for (place, word) in row.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        row[64..68].copy_from_slice(&self.leader.0.to_le_bytes());
        row[68] = self.role as u8;
        row[69] = u8::from(self.damaged);
        row[70] = self.activity as u8;
        row[72..80].copy_from_slice(&self.snapshot.0.to_le_bytes());
        row[80..88].copy_from_slice(&self.data_bytes.to_le_bytes());
        row
    }

    fn decode(row: &[u8; GROUP_BYTES]) -> Result<Self, WireError> {
        let field = |field, value| WireError::Field { kind: Kind::StatusReply, field, value };
        let role = GroupRole::from_u8(row[68]).ok_or(field("role", u64::from(row[68])))?;
        if row[69] > 1 {
            return Err(field("damaged", u64::from(row[69])));
        }
        let activity = SnapshotActivity::from_u8(row[70]);
        let activity = activity.ok_or(field("snapshots", u64::from(row[70])))?;
        if row[71] != 0 {
            return Err(field("reserved", u64::from(row[71])));
        }
        Ok(Self {
            group: GroupId(u64_at(row, 0)),
            role,
            term: Term(u64_at(row, 8)),
            leader: NodeId(u32_at(row, 64)),
            commit: Index(u64_at(row, 16)),
            applied: Index(u64_at(row, 24)),
            last: Index(u64_at(row, 32)),
            revision: Revision(u64_at(row, 40)),
            state_hash: u64_at(row, 48),
            lag_entries: u64_at(row, 56),
            damaged: row[69] == 1,
            snapshot: Index(u64_at(row, 72)),
            activity,
            data_bytes: u64_at(row, 80),
        })
    }
}
