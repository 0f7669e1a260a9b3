//! How a configuration follows another, and when a leader appends one.
//!
//! Voters change in two steps, whatever the change is: both majorities decide from the first entry
//! on, the new one alone from the second (thesis 4.3). The second entry is appended when the first
//! is committed, by whoever leads then: by itself, or when somebody asks if the first says so.
//!
//! ```text
//!   stable ──> joint ──────────────> stable         one call
//!   stable ──> held  ── commit ────> stable         prepare, then commit
//!                    └─ abort ─────> aborted        or go back
//!   stable ──> stable                               learners only
//! ```
//! Each names the index of the one that it takes the place of, so that a log can't hold two that
//! follow the same one.

use crate::settings::Configured;
use ringraft_types::{Configuration, ConfigurationError, Index, NodeId, Phase};

/// What is asked of a leader.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// These members from now on.
    To {
        /// Who votes.
        voters: &'a [NodeId],
        /// Who only listens.
        learners: &'a [NodeId],
        /// Stay between the two until [`Change::Commit`] or [`Change::Abort`].
        is_held: bool,
        /// What is refused unless it is asked for by name.
        allow: Allow,
        /// Nodes of which the owner knows that they are in no state to vote: damaged, or with a
        /// disk that doesn't move.
        unfit: &'a [NodeId],
    },
    /// On from the held configuration, to its new voters.
    Commit,
    /// Back from the held configuration, to its outgoing voters. New voters stay as learners.
    Abort,
}

/// What a leader does only when it is asked for by name: each may cost the group its majority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allow {
    /// So many new voters that they are a majority by themselves.
    pub majority: bool,
    /// New voters that aren't caught up, and voters that remain and aren't.
    pub unready: bool,
}

/// What a leader would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Append this one: the owner encodes it and steps `Input::Configure`.
    Append(Configuration),
    /// Nothing: it was done already.
    Done,
}

/// Why a change is not made. Nothing was changed by asking.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefused {
    /// Another node leads, or none.
    #[error("this node doesn't lead")]
    NotLeader(Option<NodeId>),
    /// The leader has committed nothing of its own term: it may not know of an earlier change
    /// (the bug of 2015 in changes of one server).
    #[error("the leader has committed nothing of its own term yet")]
    NotReady,
    /// One change at a time.
    #[error("the change at entry {index} is under way")]
    UnderWay {
        /// The configuration in force.
        index: Index,
    },
    /// Nothing is appended while leadership is handed over: ask who leads then.
    #[error("leadership is being handed over to node {to}")]
    Transferring {
        /// To whom.
        to: NodeId,
    },
    /// The change was meant for another configuration.
    #[error(
        "the change is meant for the configuration of entry {expected}, entry {index}'s is in force"
    )]
    Conflict {
        /// What was to be in force.
        expected: Index,
        /// What is.
        index: Index,
    },
    /// The members are these already.
    #[error("the members are these already")]
    Unchanged,
    /// The configuration in force isn't held: there is nothing to go on from, or back.
    #[error("no change is held at entry {index}")]
    NotHeld {
        /// The configuration in force.
        index: Index,
    },
    /// No group can have these members.
    #[error(transparent)]
    Invalid(#[from] ConfigurationError),
    /// The new ones alone would decide.
    #[error("{added} of {voters} voters would be new: a majority that nobody has seen vote")]
    AddsMajority {
        /// New voters.
        added: usize,
        /// Voters.
        voters: usize,
    },
    /// A new voter is to be a learner that has caught up.
    #[error("node {node} holds the log up to {matched}, and {commit} is committed")]
    Behind {
        /// Which.
        node: NodeId,
        /// Up to where its log is known to agree, durably.
        matched: Index,
        /// The commit index.
        commit: Index,
    },
    /// A new voter was not heard of within an election timeout.
    #[error("node {node} doesn't answer")]
    Unreachable {
        /// Which.
        node: NodeId,
    },
    /// A new voter can't vote, as the owner knows.
    #[error("node {node} is damaged, or its disk doesn't move")]
    Unfit {
        /// Which.
        node: NodeId,
    },
    /// A new voter was never met, and its life isn't said, as the owner knows: it would never stand.
    #[error("no life of node {node} is known: it was never linked here")]
    UnknownLife {
        /// Which.
        node: NodeId,
    },
    /// A new member was known in a life that may not be the one that is meant, as the owner knows.
    #[error("node {node} was known as {known:016x}, and isn't linked: which life of it is meant?")]
    WhichLife {
        /// Which.
        node: NodeId,
        /// The life that was known.
        known: u64,
    },
    /// Of those that would vote, no majority answers and has caught up.
    #[error("only {ready} of {voters} voters answer and have caught up")]
    NoReadyMajority {
        /// How many do.
        ready: usize,
        /// Voters.
        voters: usize,
    },
}

/// Entries that a node may lack of what is committed and still count as caught up: under load it
/// is always a little behind, and this much is sent in a moment.
pub const CAUGHT_UP_ENTRIES: u64 = 1_000;

/// The first step from a stable configuration to these members.
pub(crate) fn toward(
    before: &Configured,
    voters: &[NodeId],
    learners: &[NodeId],
    is_held: bool,
) -> Result<Configuration, ChangeRefused> {
    let (old, replaces) = (&before.configuration, before.index);
    let target = Configuration::new(
        Phase::Stable,
        voters.to_vec(),
        Vec::new(),
        learners.to_vec(),
        replaces,
    )?;
    if target.voters() != old.voters() {
        let phase = if is_held { Phase::Held } else { Phase::Joint };
        let (voters, learners) = (target.voters().to_vec(), target.learners().to_vec());
        return Ok(Configuration::new(phase, voters, old.voters().to_vec(), learners, replaces)?);
    }
    if target.learners() == old.learners() {
        return Err(ChangeRefused::Unchanged);
    }
    Ok(target)
}

/// What follows a joint configuration that is carried through.
pub(crate) fn ended(joint: &Configured) -> Configuration {
    let (old, replaces) = (&joint.configuration, joint.index);
    let (voters, learners) = (old.voters().to_vec(), old.learners().to_vec());
    Configuration::new(Phase::Stable, voters, Vec::new(), learners, replaces)
        .expect("half of a sound configuration is sound")
}

/// What follows a joint configuration that is given up: who was to vote stays as a learner.
pub(crate) fn aborted(joint: &Configured) -> Configuration {
    let (old, replaces) = (&joint.configuration, joint.index);
    let learners = old.members().filter(|node| !old.outgoing().contains(node)).collect();
    Configuration::new(Phase::Aborted, old.outgoing().to_vec(), Vec::new(), learners, replaces)
        .expect("a joint configuration leaves room for the learners of its abort")
}

/// Whether a configuration may stand next in a log: then every majority of the one meets every
/// majority of the other (V6).
pub(crate) fn follows(next: &Configuration, before: &Configured) -> bool {
    let old = &before.configuration;
    next.replaces() == before.index
        && match (old.is_joint(), next.phase()) {
            (false, Phase::Stable) => next.voters() == old.voters(),
            (false, Phase::Joint | Phase::Held) => next.outgoing() == old.voters(),
            (true, Phase::Stable) => *next == ended(before),
            (true, Phase::Aborted) => *next == aborted(before),
            (false, Phase::Aborted) | (true, Phase::Joint | Phase::Held) => false,
        }
}
