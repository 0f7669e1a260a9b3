//! What a checker found: which rule is broken, by which calls, with the numbers.

use ringraft_types::{ClientId, GroupId, Index, NodeId};

use crate::history::{Ask, Call, KeyValue, Reply, json};

/// By what calls are put in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// By the machine's revision.
    Revision,
    /// By the Raft index.
    Index,
}

impl std::fmt::Display for By {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Revision => "revision",
            Self::Index => "index",
        })
    }
}

/// A broken promise. Every message names the rule first, then the calls.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A reply can't be one to what was asked.
    #[error("the reply is not to what was asked (V9)\n  {call}")]
    Shape {
        /// Which call.
        call: Box<Call>,
    },
    /// Two calls that changed something have the same revision.
    #[error("revision {revision} was given to two calls (V9)\n  {first}\n  {second}")]
    RevisionTwice {
        /// Which.
        revision: u64,
        /// One.
        first: Box<Call>,
        /// The other.
        second: Box<Call>,
    },
    /// A call ended before another began, but comes after it.
    #[error(
        "a call ended before another began, and comes after it by {by} (V9)\n  ended first: \
         {ended}\n  began later: {began}"
    )]
    RealTime {
        /// By what.
        by: By,
        /// The call that ended first.
        ended: Box<Call>,
        /// The call that began later.
        began: Box<Call>,
    },
    /// Revisions and indexes put two calls in different orders, or leave no place between them
    /// for the writes that there must be.
    #[error("revision and index of two calls contradict each other (V9)\n  {first}\n  {second}")]
    IndexAgainstRevision {
        /// The one of the smaller index; the other one itself, if there is none before it.
        first: Box<Call>,
        /// The one of the larger index.
        second: Box<Call>,
    },
    /// A reply isn't what the machine answers at that revision.
    #[error("at revision {revision} the answer must be {} (V9)\n  {call}", json(.expected))]
    Answer {
        /// The machine's before the call.
        revision: u64,
        /// Which call.
        call: Box<Call>,
        /// What it must be.
        expected: Box<Reply>,
    },
    /// A call reports a change where there is none, or none where there is one, or was done though
    /// it must be refused.
    #[error(
        "at revision {revision} the call {} (V9)\n  {call}",
        if *.must_change { "must change something" } else { "can't change anything" }
    )]
    Change {
        /// The machine's before the call.
        revision: u64,
        /// Which call.
        call: Box<Call>,
        /// What the model says.
        must_change: bool,
    },
    /// A revision was seen, and no call can have made it.
    #[error(
        "revision {revision} was made by no call: none that was done has it, and none of the \
         {unknown} of unknown fate fits (V9)"
    )]
    Gap {
        /// Which.
        revision: u64,
        /// Calls of unknown fate that could change something.
        unknown: usize,
    },
    /// What a call wrote that was definitely not done was seen.
    #[error(
        "a write that was definitely not done was seen: {} (V9)\n  written by {writer}\n  seen \
         by {reader}",
        json(.seen)
    )]
    NotDoneSeen {
        /// The one that wasn't done.
        writer: Box<Call>,
        /// The one that saw it.
        reader: Box<Call>,
        /// What was seen.
        seen: Box<KeyValue>,
    },
    /// A value was seen that nobody wrote.
    #[error("a value was seen that nobody wrote: {} (V9)\n  {reader}", json(.seen))]
    FromNowhere {
        /// The call that saw it.
        reader: Box<Call>,
        /// What was seen.
        seen: Box<KeyValue>,
    },
    /// A refusal that names a revision is wrong.
    #[error("the call was refused for revision {asked}, which {why} (V9)\n  {call}")]
    Refusal {
        /// Which call.
        call: Box<Call>,
        /// The revision it asks for.
        asked: u64,
        /// Why the refusal is wrong.
        why: &'static str,
    },
    /// A revision was read that history no longer holds.
    #[error(
        "revision {asked} was read at revision {revision}, with {window} revisions of history \
         at most (V9)\n  {call}"
    )]
    Compacted {
        /// Which call.
        call: Box<Call>,
        /// The revision it asks for.
        asked: u64,
        /// The newest then.
        revision: u64,
        /// The longest history that may have been set.
        window: u64,
    },
    /// A revision was read, or was to be kept, after a compaction had forgotten it.
    #[error(
        "revision {asked} was served after a compaction that kept {to} and newer (V9)\n  {call}"
    )]
    Forgotten {
        /// Which call.
        call: Box<Call>,
        /// The revision it asks for.
        asked: u64,
        /// The oldest that was kept.
        to: u64,
    },
    /// The search for the places of calls of unknown fate took too long.
    #[error(
        "undecided: {steps} steps found no place for {unknown} calls of unknown fate in {gaps} \
         revisions of group {group}; give the nodes' applied commands too, or shorter runs"
    )]
    Undecided {
        /// The group.
        group: GroupId,
        /// Calls of unknown fate that could change something.
        unknown: usize,
        /// Revisions that no call that was done has.
        gaps: usize,
        /// Steps taken.
        steps: usize,
    },
    /// The two checkers come to different verdicts.
    #[error(
        "the checkers disagree on group {group}: by revisions {}; by search it is {}",
        .serial.as_ref().map_or("it is serializable".to_string(), ToString::to_string),
        if *.general { "linearizable" } else { "not linearizable" }
    )]
    Disagree {
        /// The group.
        group: GroupId,
        /// What the checker by revisions found.
        serial: Option<Box<Violation>>,
        /// Whether the general checker found an order.
        general: bool,
    },
    /// Two nodes applied different commands.
    #[error(
        "nodes {first} and {second} applied different commands at place {place} of group \
         {group} (V7)"
    )]
    NodesDiffer {
        /// The group.
        group: GroupId,
        /// One.
        first: NodeId,
        /// The other.
        second: NodeId,
        /// The first place, from zero, at which they differ.
        place: usize,
    },
    /// A session's number was applied twice, or out of order.
    #[error(
        "node {node} applied number {number} of session {session} at index {index} after \
         number {before} of it, in group {group} (V8)"
    )]
    Session {
        /// The group.
        group: GroupId,
        /// Where.
        node: NodeId,
        /// Whose.
        session: ClientId,
        /// Which.
        number: u64,
        /// The one before it.
        before: u64,
        /// Where in the log.
        index: Index,
    },
    /// A node gave a command another revision than the model does.
    #[error(
        "node {node} came to revision {revision} at index {index} of group {group}, which must \
         be {expected} (V7)\n  {}",
        json(.ask)
    )]
    AppliedRevision {
        /// The group.
        group: GroupId,
        /// Where.
        node: NodeId,
        /// Where in the log.
        index: Index,
        /// The node's.
        revision: u64,
        /// The model's.
        expected: u64,
        /// The command.
        ask: Box<Ask>,
    },
    /// An acknowledged write isn't where its answer says.
    #[error("an acknowledged write is not at its index on node {node} (V3, V8)\n  {call}")]
    Lost {
        /// Which write.
        call: Box<Call>,
        /// Where it was looked for.
        node: NodeId,
    },
    /// A command was applied more or less often than the calls that asked for it allow.
    #[error(
        "node {node} of group {group} applied a command {applied} times, asked {done} times with \
         success and {unknown} times with unknown result (V8)\n  {}",
        json(.ask)
    )]
    AppliedTimes {
        /// The group.
        group: GroupId,
        /// Where.
        node: NodeId,
        /// The command.
        ask: Box<Ask>,
        /// How often it was applied.
        applied: usize,
        /// Calls that were done.
        done: usize,
        /// Calls that may have been.
        unknown: usize,
    },
}
