//! The handshake: the only bytes that are parsed before a connection is trusted. Two fixed layouts
//! of 128 bytes, checked by hand; all numbers are little-endian.
//!
//! ```text
//!       Hello (who connects)                  Welcome (who accepts)
//!   0  u32  magic "RRHI"                     0  u32  magic "RRWE"
//!   4  u8   oldest version spoken            4  u8   version agreed; zero if refused
//!   5  u8   newest version spoken            5  u8   zero if accepted, else RefusalCode
//!   6  u8   role: 1 peer, 2 client, 3 bulk   6  u16  zero
//!   7  u8   zero                             8  u128 cluster
//!   8  u128 cluster (client: 0 = any)       24  u32  node
//!  24  u32  node (client: 0)                28  u16  shards of the node
//!  28  u32  wanted node (client: 0 = any)   30  u16  shard that serves the connection
//!  32  u64  incarnation (client: 0)         32  u64  incarnation
//!  40  u16  wanted shard (0xffff = any)     40  u64  layout hash
//!  42  u16  own shard (client: 0)           48  u64  start, its number
//!  44  u32  zero                            56  u64  start, its nonce
//!  48  u64  layout hash (client: 0)         64  u64  met, the incarnation
//!  56  u128 client id (peer: 0)             72  u64  met, the start's number
//!  72  u64  start, its number (client: 0)   80  u64  met, the start's nonce
//!  80  u64  start, its nonce (client: 0)    88  zeros
//!  88  u64  met, the incarnation           124  u32  checksum of bytes 0 .. 124
//!  96  u64  met, the start's number
//! 104  u64  met, the start's nonce
//! 112  zeros
//! 124  u32  checksum of bytes 0 .. 124
//! ```
//!
//! Between peers each end says which start of its node it is, and in which it met the other end's
//! last; "met" is zero if never. Each end judges the other by what it met, and itself by what the
//! other met (decision 0011).

use std::fmt;

use ringraft_types::bytes::{u16_at, u32_at, u64_at, u128_at};
use ringraft_types::{ClientId, ClusterId, Incarnation, Met, NodeId, ShardId, Start};

use crate::frame::{Identity, WIRE_VERSION, WIRE_VERSION_MIN};
use crate::wire::layout_hash;

/// Bytes of a [`Hello`] and of a [`Welcome`].
pub const HANDSHAKE_BYTES: usize = 128;
const CHECKSUM_AT: usize = HANDSHAKE_BYTES - 4;
const HELLO_MAGIC: u32 = u32::from_le_bytes(*b"RRHI");
const WELCOME_MAGIC: u32 = u32::from_le_bytes(*b"RRWE");
const ANY_SHARD: u16 = u16::MAX;

/// Who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// Another node of the cluster, at the peer port.
    Peer = 1,
    /// A client, at the client port.
    Client = 2,
    /// Another node of the cluster, at the peer port, that wants to fetch snapshots: over a
    /// connection of its own, so that nothing else ever waits behind them.
    Bulk = 3,
}

impl Role {
    /// Whose port it comes to.
    pub const fn port(self) -> Self {
        match self {
            Self::Peer | Self::Bulk => Self::Peer,
            Self::Client => Self::Client,
        }
    }
}

/// The first 128 bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Who connects.
    pub role: Role,
    /// The oldest version of the wire that it speaks.
    pub version_min: u8,
    /// The newest version of the wire that it speaks.
    pub version_max: u8,
    /// Its cluster, life and number. A client has no life and no number, and may leave the cluster
    /// zero: any.
    pub sender: Identity,
    /// The sender's shard; of a peer only.
    pub shard: ShardId,
    /// The node that it means to reach; zero for any, from a client only.
    pub wanted_node: NodeId,
    /// The shard that it means to reach; `None` for any.
    pub wanted_shard: Option<ShardId>,
    /// `wire::layout_hash` of its build; of a peer only.
    pub layout_hash: u64,
    /// The client library's random name; of a client only.
    pub client: ClientId,
    /// Which start of its node this is; of a peer only.
    pub start: Start,
    /// What it remembers of the wanted node; of a peer only.
    pub met: Option<Met>,
}

/// Why a connection is refused. The number is the wire's: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RefusalCode {
    /// The two belong to different clusters.
    WrongCluster = 1,
    /// Another node answers at this address than the one wanted.
    WrongNode = 2,
    /// The peer lives with another data directory than the cluster knows.
    WrongIncarnation = 3,
    /// The connecting end speaks only versions older than this node does.
    VersionTooOld = 4,
    /// The connecting end speaks only versions newer than this node does.
    VersionTooNew = 5,
    /// Both speak the version, but lay its messages out differently.
    LayoutDiffers = 6,
    /// The node has no shard with the wanted number.
    NoSuchShard = 7,
    /// The node has no room for another connection.
    Busy = 8,
    /// The bytes are not a handshake.
    Malformed = 9,
    /// One end lives with an older copy of its data directory.
    RolledBack = 10,
}

impl RefusalCode {
    /// The code with this number, if there is one.
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::WrongCluster,
            2 => Self::WrongNode,
            3 => Self::WrongIncarnation,
            4 => Self::VersionTooOld,
            5 => Self::VersionTooNew,
            6 => Self::LayoutDiffers,
            7 => Self::NoSuchShard,
            8 => Self::Busy,
            9 => Self::Malformed,
            10 => Self::RolledBack,
            _ => return None,
        })
    }

    /// What it means and how to mend it, in one sentence.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::WrongCluster => {
                "the two ends belong to different clusters: correct the address, or the cluster id \
                 in the configuration of the end that is wrong"
            }
            Self::WrongNode => {
                "another node answers at this address than the one expected: correct the addresses \
                 of the members in the configuration"
            }
            Self::WrongIncarnation => {
                "the node returned with another data directory than the one the cluster knows, and \
                 may have forgotten what it promised: give it its old directory back, or remove it \
                 and add it as a new member"
            }
            Self::VersionTooOld => {
                "the connecting end speaks only versions of the wire that this node no longer \
                 speaks: upgrade the connecting end"
            }
            Self::VersionTooNew => {
                "the connecting end speaks only versions of the wire that this node doesn't speak \
                 yet: upgrade this node"
            }
            Self::LayoutDiffers => {
                "both ends speak the same version but lay its messages out differently: install the \
                 same official build on both"
            }
            Self::NoSuchShard => {
                "the node has fewer shards than the connecting end believes: ask any node for the \
                 group's place again"
            }
            Self::Busy => {
                "the node has no room for another connection: try again later, close idle \
                 connections, or raise its limit of connections"
            }
            Self::Malformed => {
                "the bytes are not a ringraft handshake: check that the address and port belong to \
                 ringraft, and the client port isn't mistaken for the peer port"
            }
            Self::RolledBack => {
                "the node returned with an older copy of its data directory, and has forgotten \
                 what it promised since: give it its newest directory back, or remove it and add \
                 it as a new member"
            }
        }
    }
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

impl std::error::Error for RefusalCode {}

/// The answer to a [`Hello`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The version agreed on, or why the connection is refused.
    pub verdict: Result<u8, RefusalCode>,
    /// Who answers.
    pub sender: Identity,
    /// How many shards the node has.
    pub shards: u16,
    /// The shard that serves the connection.
    pub shard: ShardId,
    /// `wire::layout_hash` of the answering build.
    pub layout_hash: u64,
    /// Which start of its node this is; to a peer only.
    pub start: Start,
    /// What it remembers of the end that greeted; to a peer only.
    pub met: Option<Met>,
}

/// What the accepting node knows, to judge a [`Hello`] by.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// Itself.
    pub identity: Identity,
    /// How many shards it has.
    pub shards: u16,
    /// Which kind of port was connected to.
    pub port: Role,
    /// Which start of it this is.
    pub start: Start,
}

impl Host {
    /// The same node at this kind of port.
    pub fn at(&self, port: Role) -> Self {
        Self { port, ..*self }
    }

    /// What `shard` answers to a greeting; `met` is what was met of a peer.
    pub fn answer(
        &self,
        shard: ShardId,
        verdict: Result<u8, RefusalCode>,
        met: Option<Met>,
    ) -> [u8; HANDSHAKE_BYTES] {
        Welcome { met, ..Welcome::new(self, shard, verdict) }.encode()
    }

    /// How `shard` greets its counterpart of another node; `met` is what was met of that one.
    /// `role` is [`Role::Peer`] or [`Role::Bulk`].
    pub fn greeting(
        &self,
        role: Role,
        shard: ShardId,
        node: NodeId,
        met: Option<Met>,
    ) -> [u8; HANDSHAKE_BYTES] {
        assert!(role.port() == Role::Peer, "a node greets nodes");
        let hello = Hello::from_peer(self.identity, self.start, shard, node, shard);
        Hello { role, met, ..hello }.encode()
    }
}

/// Bytes with zeros that are checked and a checksum at the end.
fn seal(mut bytes: [u8; HANDSHAKE_BYTES]) -> [u8; HANDSHAKE_BYTES] {
    let checksum = crc32fast::hash(&bytes[..CHECKSUM_AT]);
    bytes[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn is_sealed(bytes: &[u8; HANDSHAKE_BYTES], magic: u32, zeros: &[std::ops::Range<usize>]) -> bool {
    u32_at(bytes, 0) == magic
        && u32_at(bytes, CHECKSUM_AT) == crc32fast::hash(&bytes[..CHECKSUM_AT])
        && zeros.iter().all(|range| bytes[range.clone()].iter().all(|&byte| byte == 0))
}

fn put_met(bytes: &mut [u8], met: Option<Met>) {
    if let Some(met) = met {
        bytes[..8].copy_from_slice(&met.incarnation.0.to_le_bytes());
        bytes[8..24].copy_from_slice(&met.start.to_bytes());
    }
}

/// No incarnation is zero; what never was has no start either.
fn met_at(bytes: &[u8], at: usize) -> Result<Option<Met>, RefusalCode> {
    let met = Met { incarnation: Incarnation(u64_at(bytes, at)), start: Start::at(bytes, at + 8) };
    match (met.incarnation, met.start) {
        (Incarnation(0), Start { number: 0, nonce: 0 }) => Ok(None),
        (Incarnation(0), _) => Err(RefusalCode::Malformed),
        _ => Ok(Some(met)),
    }
}

impl Hello {
    /// The greeting of one shard to a shard of another node. What was met of that one isn't in it
    /// yet.
    pub fn from_peer(
        sender: Identity,
        start: Start,
        shard: ShardId,
        wanted_node: NodeId,
        wanted_shard: ShardId,
    ) -> Self {
        Self {
            role: Role::Peer,
            version_min: WIRE_VERSION_MIN,
            version_max: WIRE_VERSION,
            sender,
            shard,
            wanted_node,
            wanted_shard: Some(wanted_shard),
            layout_hash: layout_hash(),
            client: ClientId(0),
            start,
            met: None,
        }
    }

    /// The greeting of a client.
    pub fn from_client(
        client: ClientId,
        cluster: Option<ClusterId>,
        wanted_node: Option<NodeId>,
        wanted_shard: Option<ShardId>,
    ) -> Self {
        let cluster = cluster.unwrap_or_default();
        Self {
            role: Role::Client,
            version_min: WIRE_VERSION_MIN,
            version_max: WIRE_VERSION,
            sender: Identity { cluster, ..Identity::default() },
            shard: ShardId(0),
            wanted_node: wanted_node.unwrap_or_default(),
            wanted_shard,
            layout_hash: 0,
            client,
            start: Start::default(),
            met: None,
        }
    }

    /// The greeting as it travels.
    pub fn encode(&self) -> [u8; HANDSHAKE_BYTES] {
        let mut bytes = [0u8; HANDSHAKE_BYTES];
        bytes[0..4].copy_from_slice(&HELLO_MAGIC.to_le_bytes());
        bytes[4] = self.version_min;
        bytes[5] = self.version_max;
        bytes[6] = self.role as u8;
        bytes[8..24].copy_from_slice(&self.sender.cluster.0.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.sender.node.0.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.wanted_node.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.sender.incarnation.0.to_le_bytes());
        let wanted_shard = self.wanted_shard.map_or(ANY_SHARD, ShardId::get);
        bytes[40..42].copy_from_slice(&wanted_shard.to_le_bytes());
        bytes[42..44].copy_from_slice(&self.shard.0.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.layout_hash.to_le_bytes());
        bytes[56..72].copy_from_slice(&self.client.0.to_le_bytes());
        bytes[72..88].copy_from_slice(&self.start.to_bytes());
        put_met(&mut bytes[88..112], self.met);
        seal(bytes)
    }

    /// Reads a greeting.
    ///
    /// # Errors
    /// [`RefusalCode::Malformed`] if it isn't one.
    pub fn decode(bytes: &[u8; HANDSHAKE_BYTES]) -> Result<Self, RefusalCode> {
        let is_intact = is_sealed(bytes, HELLO_MAGIC, &[7..8, 44..48, 112..CHECKSUM_AT]);
        let role = match bytes[6] {
            1 => Role::Peer,
            2 => Role::Client,
            3 => Role::Bulk,
            _ => return Err(RefusalCode::Malformed),
        };
        let hello = Self {
            role,
            version_min: bytes[4],
            version_max: bytes[5],
            sender: Identity {
                cluster: ClusterId(u128_at(bytes, 8)),
                node: NodeId(u32_at(bytes, 24)),
                incarnation: Incarnation(u64_at(bytes, 32)),
            },
            shard: ShardId(u16_at(bytes, 42)),
            wanted_node: NodeId(u32_at(bytes, 28)),
            wanted_shard: Some(u16_at(bytes, 40)).filter(|&it| it != ANY_SHARD).map(ShardId),
            layout_hash: u64_at(bytes, 48),
            client: ClientId(u128_at(bytes, 56)),
            start: Start::at(bytes, 72),
            met: met_at(bytes, 88)?,
        };
        let has_sender = hello.sender.node != NodeId(0);
        let is_consistent = match role {
            Role::Peer | Role::Bulk => {
                has_sender && hello.wanted_node != NodeId(0) && hello.start.number != 0
            }
            Role::Client => {
                let has_past = hello.start != Start::default() || hello.met.is_some();
                !has_sender && hello.sender.incarnation == Incarnation(0) && !has_past
            }
        };
        let is_ordered = hello.version_min <= hello.version_max;
        if is_intact && is_consistent && is_ordered {
            Ok(hello)
        } else {
            Err(RefusalCode::Malformed)
        }
    }

    /// Whether `host` takes the connection, and in which version. Whether the peer's incarnation and
    /// start are what the cluster knows, and whether there is room, is judged by the caller after
    /// it.
    ///
    /// # Errors
    /// The first thing that stands against it.
    pub fn judge(&self, host: &Host) -> Result<u8, RefusalCode> {
        if self.role.port() != host.port {
            return Err(RefusalCode::Malformed);
        }
        if self.version_max < WIRE_VERSION_MIN {
            return Err(RefusalCode::VersionTooOld);
        }
        if self.version_min > WIRE_VERSION {
            return Err(RefusalCode::VersionTooNew);
        }
        let is_client = self.role == Role::Client;
        let is_any_cluster = is_client && self.sender.cluster == ClusterId(0);
        if self.sender.cluster != host.identity.cluster && !is_any_cluster {
            return Err(RefusalCode::WrongCluster);
        }
        let is_any_node = is_client && self.wanted_node == NodeId(0);
        if self.wanted_node != host.identity.node && !is_any_node {
            return Err(RefusalCode::WrongNode);
        }
        let version = self.version_max.min(WIRE_VERSION);
        if !is_client && self.layout_hash != layout_hash() {
            return Err(RefusalCode::LayoutDiffers);
        }
        if self.wanted_shard.is_some_and(|shard| shard.0 >= host.shards) {
            return Err(RefusalCode::NoSuchShard);
        }
        Ok(version)
    }
}

impl Welcome {
    /// The answer of `host`, whose `shard` serves the connection (or would have). What it met of a
    /// peer isn't in it yet.
    pub fn new(host: &Host, shard: ShardId, verdict: Result<u8, RefusalCode>) -> Self {
        let Host { identity, shards, port, start } = *host;
        let start = if port == Role::Peer { start } else { Start::default() };
        let layout_hash = layout_hash();
        Self { verdict, sender: identity, shards, shard, layout_hash, start, met: None }
    }

    /// The answer as it travels.
    pub fn encode(&self) -> [u8; HANDSHAKE_BYTES] {
        let mut bytes = [0u8; HANDSHAKE_BYTES];
        bytes[0..4].copy_from_slice(&WELCOME_MAGIC.to_le_bytes());
        match self.verdict {
            Ok(version) => bytes[4] = version,
            Err(code) => bytes[5] = code as u8,
        }
        bytes[8..24].copy_from_slice(&self.sender.cluster.0.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.sender.node.0.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.shards.to_le_bytes());
        bytes[30..32].copy_from_slice(&self.shard.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.sender.incarnation.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.layout_hash.to_le_bytes());
        bytes[48..64].copy_from_slice(&self.start.to_bytes());
        put_met(&mut bytes[64..88], self.met);
        seal(bytes)
    }

    /// Reads an answer; a refusal is an answer, its code is in `verdict`.
    ///
    /// # Errors
    /// [`RefusalCode::Malformed`] if it isn't one, or agrees on a version that isn't spoken here.
    pub fn decode(bytes: &[u8; HANDSHAKE_BYTES]) -> Result<Self, RefusalCode> {
        let is_intact = is_sealed(bytes, WELCOME_MAGIC, &[6..8, 88..CHECKSUM_AT]);
        let verdict = match (bytes[4], RefusalCode::from_u8(bytes[5])) {
            (version @ WIRE_VERSION_MIN..=WIRE_VERSION, None) if bytes[5] == 0 => Ok(version),
            (0, Some(code)) => Err(code),
            _ => return Err(RefusalCode::Malformed),
        };
        if !is_intact {
            return Err(RefusalCode::Malformed);
        }
        Ok(Self {
            verdict,
            sender: Identity {
                cluster: ClusterId(u128_at(bytes, 8)),
                node: NodeId(u32_at(bytes, 24)),
                incarnation: Incarnation(u64_at(bytes, 32)),
            },
            shards: u16_at(bytes, 28),
            shard: ShardId(u16_at(bytes, 30)),
            layout_hash: u64_at(bytes, 40),
            start: Start::at(bytes, 48),
            met: met_at(bytes, 64)?,
        })
    }

    /// Whether the end that greeted with `hello` goes on, and in which version: the other end may
    /// be another one than was meant.
    ///
    /// # Errors
    /// The refusal, or the first thing that stands against going on.
    pub fn judge(&self, hello: &Hello) -> Result<u8, RefusalCode> {
        let version = self.verdict?;
        let is_any_cluster = hello.role == Role::Client && hello.sender.cluster == ClusterId(0);
        if self.sender.cluster != hello.sender.cluster && !is_any_cluster {
            return Err(RefusalCode::WrongCluster);
        }
        if hello.wanted_node != NodeId(0) && self.sender.node != hello.wanted_node {
            return Err(RefusalCode::WrongNode);
        }
        if hello.role.port() == Role::Peer && self.layout_hash != hello.layout_hash {
            return Err(RefusalCode::LayoutDiffers);
        }
        if hello.wanted_shard.is_some_and(|shard| shard != self.shard) {
            return Err(RefusalCode::NoSuchShard);
        }
        Ok(version)
    }
}
