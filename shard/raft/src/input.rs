//! Everything that can happen to a group.

use crate::settings::Configured;
use crate::{message::Message, output::Token};
use ringraft_types::{Configuration, Index, LogId, NodeId, Term, Ticks};

/// What the protocol needs to know of an entry's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHead {
    /// The entry's term.
    pub term: Term,
    /// The record's bytes on the wire, header and padding included.
    pub bytes: u32,
}

/// What an append carries.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entries<'a> {
    /// Each entry, `prev.index + 1` first.
    pub heads: &'a [EntryHead],
    /// What those that are configurations say, ascending. Mostly nothing.
    pub configurations: &'a [Configured],
}

impl<'a> Entries<'a> {
    /// Those from `index` on; the first is `first`.
    pub(crate) fn since(self, first: Index, index: Index) -> Self {
        let held = self.configurations.iter().take_while(|one| one.index < index).count();
        Self {
            heads: &self.heads[(index.0 - first.0) as usize..],
            configurations: &self.configurations[held..],
        }
    }
}

/// One thing that happened.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Time passed.
    Tick,
    /// A message arrived from the same group on another node.
    Message {
        /// Who sent it.
        from: NodeId,
        /// What it says.
        message: Message,
        /// The entries of an append; none for every other message.
        entries: Entries<'a>,
    },
    /// New entries, already encoded by the owner under this group's current term at the indexes
    /// after [`crate::Raft::last`]. Only for a leader; refused otherwise (`Output::refused`).
    Propose {
        /// Each record's bytes.
        bytes: &'a [u32],
    },
    /// A new entry that holds this configuration, encoded as for [`Input::Propose`]: what
    /// [`crate::Raft::plan`] or [`crate::Raft::completion`] answered, with no step in between.
    /// Refused if it can't follow the one in force.
    Configure {
        /// What it says.
        configuration: &'a Configuration,
        /// The record's bytes.
        bytes: u32,
    },
    /// The batch of this token, and all before it, are durable.
    Persisted {
        /// As given in `Output::token`.
        token: Token,
    },
    /// A linearizable read, of a leader or of a node that follows one: answered by `Output::reads`
    /// or `Output::reads_lost`, or refused at once (thesis 6.4).
    Read {
        /// The owner's name for it.
        ticket: u64,
    },
    /// The answer to `Output::fetch`: these entries were read back from the log and the owner
    /// holds their bytes until the step returns. Empty if they could not be read.
    Fetched {
        /// For whom.
        peer: NodeId,
        /// The first entry's index.
        first: Index,
        /// The entries.
        heads: &'a [EntryHead],
    },
    /// The owner's cache no longer holds entries below this index: ask for them.
    Trimmed {
        /// The first index that is still held.
        first: Index,
    },
    /// The owner holds a durable snapshot of everything up to here, at most the commit index, and
    /// its log gives these entries up: it begins after them now. At or before its present
    /// beginning: nothing happens.
    Released {
        /// The last entry that is given up.
        through: Index,
    },
    /// The owner has durably stored a snapshot that ends with this entry, and has loaded it: it
    /// has applied everything up to here. Only while [`crate::Raft::may_install`] says so.
    Installed {
        /// The last entry that the snapshot covers.
        last: LogId,
        /// The configuration in force there, as the snapshot says.
        configuration: &'a Configured,
    },
    /// The connection to a node is up.
    LinkUp(NodeId),
    /// The connection to a node is lost: what was in flight may never arrive.
    LinkDown(NodeId),
    /// Whoever rests on the owner's word that others live does so no more: the node of this group's
    /// leader, or of one of its members, is lost or was silent for an election timeout. A follower
    /// waits for its leader again as if it had heard it at `heard_at`, and tells it; a leader sends
    /// heartbeats again.
    Wake {
        /// When that node was heard last, as the owner knows; not after now.
        heard_at: Ticks,
    },
    /// The owner's disk has held a write for longer than an election timeout (`true`), or moves
    /// again (`false`). In between the group doesn't lead, doesn't campaign and grants no
    /// pre-vote: its vote couldn't follow. A sole voter goes on: nobody else could lead.
    DiskStuck(bool),
    /// A node says that its disk is stuck: if it led, it doesn't any more, and its followers
    /// needn't wait for its silence.
    Resigned(NodeId),
    /// This leader hands over to a node that [`crate::Raft::transfer_target`] named, with no step in
    /// between. It takes no proposals and no configuration until it leads no more, or for an
    /// election timeout. Refused if it can't be.
    Transfer {
        /// To whom.
        to: NodeId,
    },
    /// This node is not to stand for election (`true`), or may again (`false`). It follows, votes
    /// and leads on as before; handing over is its owner's (EL-12). A sole voter goes on: nobody
    /// else could lead.
    Paused(bool),
    /// The owner found that entries it holds can't be read back: rot. Until it has them again, or
    /// starts anew without them, the group neither leads nor campaigns, because it couldn't bring
    /// its followers up to date; it votes as if all it holds were whole, and goes on taking entries
    /// (S05).
    Damaged,
    /// The owner has put in its log again, in the places where they were, entries that the group
    /// was started without because of rot: they follow the newest one held, as they did before.
    /// Nothing was appended since the start, and nothing removed but for a snapshot that took the
    /// place of the log's beginning, with no step in between if nothing was missing behind it; and
    /// all of it is in the log no later than what this step persists.
    Refilled {
        /// Where each term of them starts, the first one first.
        runs: &'a [(Index, Term)],
        /// The last of them.
        last: Index,
        /// Those of them that hold configurations, ascending.
        configurations: &'a [Configured],
    },
    /// The owner can read back all that it holds: what [`Input::Damaged`] was about is durable
    /// again, as it was. What else the group owes, it owes still.
    Mended,
}
