//! Bugs planted on purpose, to show that the tests would find them. Compiled only under
//! `--cfg ringraft_plant`; never part of a release.
//!
//! Production code asks [`planted`] under `#[cfg(ringraft_plant)]` where it would go wrong. Which
//! bug there is, if any, is chosen per thread, so that many runs beside each other may differ.

use std::cell::Cell;

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plant {
    /// A follower acknowledges an append before its disk has it.
    AckBeforeFlush,
    /// A vote leaves before it is durable.
    VoteBeforeFlush,
    /// A restart forgets whom it voted for.
    VoteForgotten,
    /// A short write counts as a whole one.
    ShortWriteIgnored,
    /// What a sync covers is called durable when its write is done.
    SyncUnordered,
    /// A leader commits an entry of an older term by counting.
    OldTermCounted,
    /// A follower removes its log on any mismatch, committed or not.
    CommittedTruncated,
    /// A read is served by a leader that committed nothing of its own term.
    ReadNotReady,
    /// A leader that hears no majority goes on.
    NoCheckQuorum,
    /// Nobody is asked before a term is raised.
    NoPreVote,
    /// A replay applies an entry twice.
    ReplayTwice,
    /// The clock is part of what is applied.
    ClockInApply,
    /// A block of a segment's former life is taken for this one's.
    StaleBlockAccepted,
    /// Rot is always taken for a torn tail.
    RotTaken,
    /// An acknowledgement of an append of an older term counts.
    OldAckCounted,
    /// A buffer is used again before its operation is complete.
    BufferReused,
}

impl Plant {
    /// All of them.
    pub const ALL: &[Plant] = &[
        Plant::AckBeforeFlush,
        Plant::VoteBeforeFlush,
        Plant::VoteForgotten,
        Plant::ShortWriteIgnored,
        Plant::SyncUnordered,
        Plant::OldTermCounted,
        Plant::CommittedTruncated,
        Plant::ReadNotReady,
        Plant::NoCheckQuorum,
        Plant::NoPreVote,
        Plant::ReplayTwice,
        Plant::ClockInApply,
        Plant::StaleBlockAccepted,
        Plant::RotTaken,
        Plant::OldAckCounted,
        Plant::BufferReused,
    ];

    /// The name that a command line gives it: `ack-before-flush` for [`Plant::AckBeforeFlush`].
    pub fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }

    /// The bug with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|plant| plant.name() == name)
    }
}

thread_local! {
    static CHOSEN: Cell<Option<Plant>> = const { Cell::new(None) };
}

/// From now on this thread has this bug, or none.
pub fn plant(chosen: Option<Plant>) {
    CHOSEN.set(chosen);
}

/// Whether this thread has this bug.
pub fn planted(plant: Plant) -> bool {
    CHOSEN.get() == Some(plant)
}
