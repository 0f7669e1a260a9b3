//! A configuration: who votes in a group and who only listens. How an entry holds it, with what
//! else is to be known of each member.
//!
//! ```text
//!  0  u16  version     1
//!  2  u8   phase       0 stable, 1 aborted, 2 joint, 3 held
//!  3  u8   zero
//!  4  u16  members
//!  6  u16  zero
//!  8  u64  replaces    the index of the configuration before, zero: the group began with it
//! 16  members, ascending by node:
//!     0  u32  node
//!     4  u8   roles     1 voter, 2 outgoing voter, 4 learner
//!     5  [3]  zeros
//!     8  u16  peer      bytes of the address for other nodes
//!    10  u16  client    bytes of the address for clients
//!    12  u32  zero
//!    16  u64  incarnation of its data directory; zero: of whichever greets first
//!    24  both addresses, then zeros up to a multiple of eight bytes
//! ```
//! All numbers are little-endian. Addresses are the owner's words: nothing here reads them.

use crate::bytes::{u16_at, u32_at, u64_at};
use crate::ids::{Incarnation, Index, NodeId};
use crate::limits::{ADDRESS_BYTES_MAX, LEARNERS_MAX, NODES_MAX};

const VERSION: u16 = 1;
const HEAD_BYTES: usize = 16;
const MEMBER_BYTES: usize = 24;
const VOTER: u8 = 1;
const OUTGOING: u8 = 2;
const LEARNER: u8 = 4;

/// The longest payload of an entry that holds a configuration, bytes.
pub const CONFIGURATION_BYTES_MAX: usize =
    HEAD_BYTES + MEMBERS_MAX * (MEMBER_BYTES + 2 * ADDRESS_BYTES_MAX);
/// Nodes of one configuration: two sets of voters and the learners.
pub const MEMBERS_MAX: usize = 2 * NODES_MAX + LEARNERS_MAX;

// A configuration is an entry like any other, and far from the longest.
const _: () = assert!(CONFIGURATION_BYTES_MAX * 4 <= crate::limits::PAYLOAD_BYTES_MAX);
// Every record is padded to eight bytes; so is every member.
const _: () = assert!(HEAD_BYTES.is_multiple_of(8) && MEMBER_BYTES.is_multiple_of(8));
const _: () = assert!(ADDRESS_BYTES_MAX.is_multiple_of(8));
const _: () = assert!(MEMBERS_MAX <= u16::MAX as usize);
const _: () = assert!(ADDRESS_BYTES_MAX <= u16::MAX as usize);

/// Where a change of voters stands (thesis 4.3). The number is the format's: never reuse one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// The voters decide; what came before, if anything, was carried through.
    #[default]
    Stable = 0,
    /// The voters decide; they are those that a change was to take the place of, and didn't.
    Aborted = 1,
    /// Both majorities decide; the leader goes on to the new voters by itself.
    Joint = 2,
    /// Both majorities decide until somebody asks to go on, or back.
    Held = 3,
}

impl Phase {
    /// Whether two majorities decide.
    pub const fn is_joint(self) -> bool {
        matches!(self, Self::Joint | Self::Held)
    }

    const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Stable,
            1 => Self::Aborted,
            2 => Self::Joint,
            3 => Self::Held,
            _ => return None,
        })
    }
}

/// Why there is no such configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigurationError {
    /// Nobody could ever commit anything.
    #[error("a group needs a voter")]
    NoVoters,
    /// Zero names no node.
    #[error("zero names no node")]
    NodeZero,
    /// A node is named twice in one list.
    #[error("node {0} is named twice")]
    Repeated(NodeId),
    /// A node can't vote and only listen.
    #[error("node {0} is to be a voter and a learner")]
    VoterAndLearner(NodeId),
    /// More voters than a group may have.
    #[error("{0} voters, at most {NODES_MAX}")]
    TooManyVoters(usize),
    /// More learners than a group may have, those included that an abort would make of new voters.
    #[error("{0} learners, at most {LEARNERS_MAX}")]
    TooManyLearners(usize),
    /// Outgoing voters are a joint configuration's, and it has some.
    #[error("{count} outgoing voters in a configuration that is {phase:?}")]
    Outgoing {
        /// Its phase.
        phase: Phase,
        /// How many there are.
        count: usize,
    },
    /// An address is over the limit.
    #[error("an address of node {node} has {bytes} bytes, at most {ADDRESS_BYTES_MAX}")]
    AddressTooLong {
        /// Whose.
        node: NodeId,
        /// How long.
        bytes: usize,
    },
    /// A later version wrote this.
    #[error("configuration of version {0}, which this version doesn't know")]
    Version(u16),
    /// The bytes end too early.
    #[error("configuration is cut short: {have} bytes of {need}")]
    Short {
        /// Bytes there are.
        have: usize,
        /// Bytes it takes, at least.
        need: usize,
    },
    /// The bytes are no configuration.
    #[error("malformed configuration: {0}")]
    Malformed(&'static str),
}

/// Who votes in a group, and who only listens. Always one that a group can have: [`new`] checks.
///
/// [`new`]: Configuration::new
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    phase: Phase,
    /// Each list ascends without repetition.
    voters: Vec<NodeId>,
    outgoing: Vec<NodeId>,
    learners: Vec<NodeId>,
    replaces: Index,
}

impl Configuration {
    /// Nobody: what a node knows of a group that it is to join.
    pub fn none() -> Self {
        Self::default()
    }

    /// The one that a group begins with.
    ///
    /// # Errors
    /// If no group can have it.
    pub fn first(voters: Vec<NodeId>, learners: Vec<NodeId>) -> Result<Self, ConfigurationError> {
        Self::new(Phase::Stable, voters, Vec::new(), learners, Index::ZERO)
    }

    /// These members, each list in any order. Who is to be a learner may still be an outgoing
    /// voter.
    ///
    /// # Errors
    /// If no group can have them.
    pub fn new(
        phase: Phase,
        mut voters: Vec<NodeId>,
        mut outgoing: Vec<NodeId>,
        mut learners: Vec<NodeId>,
        replaces: Index,
    ) -> Result<Self, ConfigurationError> {
        for list in [&mut voters, &mut outgoing, &mut learners] {
            list.sort_unstable();
            if let Some(two) = list.windows(2).find(|two| two[0] == two[1]) {
                return Err(ConfigurationError::Repeated(two[0]));
            }
            if list.first() == Some(&NodeId::ZERO) {
                return Err(ConfigurationError::NodeZero);
            }
        }
        if voters.is_empty() {
            return Err(ConfigurationError::NoVoters);
        }
        if phase.is_joint() == outgoing.is_empty() {
            return Err(ConfigurationError::Outgoing { phase, count: outgoing.len() });
        }
        if let Some(&node) = learners.iter().find(|node| voters.binary_search(node).is_ok()) {
            return Err(ConfigurationError::VoterAndLearner(node));
        }
        let most = voters.len().max(outgoing.len());
        if most > NODES_MAX {
            return Err(ConfigurationError::TooManyVoters(most));
        }
        // An abort makes learners of them.
        let incoming = voters.iter().filter(|node| outgoing.binary_search(node).is_err()).count();
        let most = learners.len() + if phase.is_joint() { incoming } else { 0 };
        if most > LEARNERS_MAX {
            return Err(ConfigurationError::TooManyLearners(most));
        }
        Ok(Self { phase, voters, outgoing, learners, replaces })
    }

    /// Where a change stands.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether two majorities decide.
    pub const fn is_joint(&self) -> bool {
        self.phase.is_joint()
    }

    /// Who votes; of a joint configuration, who will. Ascending.
    pub fn voters(&self) -> &[NodeId] {
        &self.voters
    }

    /// Who votes as well until a joint configuration ends. Ascending.
    pub fn outgoing(&self) -> &[NodeId] {
        &self.outgoing
    }

    /// Who gets everything and decides nothing. Ascending; some may be outgoing voters still.
    pub fn learners(&self) -> &[NodeId] {
        &self.learners
    }

    /// The index of the configuration that it took the place of.
    pub const fn replaces(&self) -> Index {
        self.replaces
    }

    /// Whether this node's vote counts, in either majority.
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.outgoing.contains(&node)
    }

    /// Whether this node gets the log.
    pub fn is_member(&self, node: NodeId) -> bool {
        self.is_voter(node) || self.learners.contains(&node)
    }

    /// All whose vote counts, each once, ascending.
    pub fn all_voters(&self) -> impl Iterator<Item = NodeId> + '_ {
        merged(&self.voters, &self.outgoing)
    }

    /// All who get the log, each once, ascending.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        // An outgoing voter that stays as a learner comes with the voters.
        let learners = self.learners.iter().copied().filter(|&node| !self.is_voter(node));
        let (mut voters, mut learners) = (self.all_voters().peekable(), learners.peekable());
        std::iter::from_fn(move || match (voters.peek(), learners.peek()) {
            (Some(voter), Some(learner)) if learner < voter => learners.next(),
            (None, _) => learners.next(),
            _ => voters.next(),
        })
    }

    fn roles(&self, node: NodeId) -> u8 {
        let role = |list: &[NodeId], bit| if list.contains(&node) { bit } else { 0 };
        role(&self.voters, VOTER) | role(&self.outgoing, OUTGOING) | role(&self.learners, LEARNER)
    }

    /// The payload of an entry that holds it.
    ///
    /// # Errors
    /// If an address is too long.
    pub fn encode<'a>(
        &self,
        mut words: impl FnMut(NodeId) -> Words<'a>,
    ) -> Result<Vec<u8>, ConfigurationError> {
        let mut out = vec![0; HEAD_BYTES];
        out[0..2].copy_from_slice(&VERSION.to_le_bytes());
        out[2] = self.phase as u8;
        out[8..16].copy_from_slice(&self.replaces.0.to_le_bytes());
        let mut count = 0u16;
        for node in self.members() {
            let Words { incarnation, addresses: Addresses { peer, client } } = words(node);
            let bytes = peer.len().max(client.len());
            if bytes > ADDRESS_BYTES_MAX {
                return Err(ConfigurationError::AddressTooLong { node, bytes });
            }
            out.extend(node.0.to_le_bytes());
            out.extend([self.roles(node), 0, 0, 0]);
            out.extend((peer.len() as u16).to_le_bytes());
            out.extend((client.len() as u16).to_le_bytes());
            out.extend([0; 4]);
            out.extend(incarnation.0.to_le_bytes());
            out.extend(peer);
            out.extend(client);
            out.resize(out.len().next_multiple_of(8), 0);
            count += 1;
        }
        out[4..6].copy_from_slice(&count.to_le_bytes());
        Ok(out)
    }

    /// What a payload holds.
    ///
    /// # Errors
    /// If it is no configuration, or a later version's.
    pub fn decode(payload: &[u8]) -> Result<(Self, Vec<Member<'_>>), ConfigurationError> {
        let short = |need| ConfigurationError::Short { have: payload.len(), need };
        let malformed = ConfigurationError::Malformed;
        if payload.len() < HEAD_BYTES {
            return Err(short(HEAD_BYTES));
        }
        let version = u16_at(payload, 0);
        if version != VERSION {
            return Err(ConfigurationError::Version(version));
        }
        let phase = Phase::from_u8(payload[2]).ok_or(malformed("an unknown phase"))?;
        let count = usize::from(u16_at(payload, 4));
        if payload[3] != 0 || u16_at(payload, 6) != 0 {
            return Err(malformed("non-zero reserved bytes"));
        }
        if count > MEMBERS_MAX {
            return Err(malformed("too many members"));
        }
        let (mut voters, mut outgoing, mut learners) = (Vec::new(), Vec::new(), Vec::new());
        let mut members: Vec<Member<'_>> = Vec::with_capacity(count);
        let mut at = HEAD_BYTES;
        for _ in 0..count {
            let Some(bytes) = payload.get(at..).filter(|rest| rest.len() >= MEMBER_BYTES) else {
                return Err(short(at + MEMBER_BYTES));
            };
            let (member, roles, length) = Member::decode(bytes).map_err(|error| match error {
                ConfigurationError::Short { need, .. } => short(at + need),
                error => error,
            })?;
            if members.last().is_some_and(|before| before.node >= member.node) {
                return Err(malformed("members don't ascend"));
            }
            for (list, role) in
                [(&mut voters, VOTER), (&mut outgoing, OUTGOING), (&mut learners, LEARNER)]
            {
                list.extend((roles & role != 0).then_some(member.node));
            }
            members.push(member);
            at += length;
        }
        if at != payload.len() {
            return Err(malformed("bytes behind its end"));
        }
        let replaces = Index(u64_at(payload, 8));
        let configuration = Self::new(phase, voters, outgoing, learners, replaces)?;
        Ok((configuration, members))
    }
}

/// How to reach a member: words of the owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses<'a> {
    /// For other nodes.
    pub peer: &'a [u8],
    /// For clients.
    pub client: &'a [u8],
}

/// What else an entry says of a member, beside its roles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Words<'a> {
    /// The life of its data directory; zero: whichever greets first.
    pub incarnation: Incarnation,
    /// How to reach it.
    pub addresses: Addresses<'a>,
}

/// A member as an entry holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Which node it is.
    pub node: NodeId,
    /// What else is to be known of it.
    pub words: Words<'a>,
}

impl<'a> Member<'a> {
    /// The member at the start of `bytes`, which hold its head at least; its roles and its length.
    fn decode(bytes: &'a [u8]) -> Result<(Self, u8, usize), ConfigurationError> {
        let malformed = ConfigurationError::Malformed;
        let (node, roles) = (NodeId(u32_at(bytes, 0)), bytes[4]);
        let (peer, client) = (usize::from(u16_at(bytes, 8)), usize::from(u16_at(bytes, 10)));
        if roles == 0 || roles & !(VOTER | OUTGOING | LEARNER) != 0 {
            return Err(malformed("unknown roles"));
        }
        if peer.max(client) > ADDRESS_BYTES_MAX {
            return Err(ConfigurationError::AddressTooLong { node, bytes: peer.max(client) });
        }
        let end = MEMBER_BYTES + peer + client;
        let length = end.next_multiple_of(8);
        if bytes.len() < length {
            return Err(ConfigurationError::Short { have: bytes.len(), need: length });
        }
        let reserved = [&bytes[5..8], &bytes[12..16], &bytes[end..length]];
        if reserved.concat().iter().any(|&byte| byte != 0) {
            return Err(malformed("non-zero reserved bytes"));
        }
        let (peer, client) = bytes[MEMBER_BYTES..end].split_at(peer);
        let incarnation = Incarnation(u64_at(bytes, 16));
        let words = Words { incarnation, addresses: Addresses { peer, client } };
        Ok((Self { node, words }, roles, length))
    }
}

/// Two ascending lists as one.
fn merged<'a>(one: &'a [NodeId], other: &'a [NodeId]) -> impl Iterator<Item = NodeId> + 'a {
    let (mut one, mut other) = (one.iter().copied().peekable(), other.iter().copied().peekable());
    std::iter::from_fn(move || match (one.peek(), other.peek()) {
        (Some(left), Some(right)) if left == right => {
            other.next();
            one.next()
        }
        (Some(left), Some(right)) if left > right => other.next(),
        (None, _) => other.next(),
        _ => one.next(),
    })
}

#[cfg(test)]
mod tests;
