//! The word that a node gives whenever it hears a leader: for an election timeout by its own clock
//! it helps nobody else into office (thesis 4.2.3). Leases rest on it (6.4.1).
//!
//! It is kept whatever becomes of the leader's term meanwhile: a node that hears of a newer term,
//! and so follows nobody, still gave it. What a start doesn't know it takes for given, to somebody
//! unknown, at that very moment.
//!
//! ```text
//!   leader    beat leaves |------------ lease ------------|
//!   follower            heard |------------- promise -------------|
//! ```
//! The one ends before the other if no clock runs faster than another by more than the lease is
//! shorter. Whoever stands for election promised nothing any more: it heard nobody for longer.

use ringraft_types::{NodeId, Ticks};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Promise {
    /// To whom; zero: it isn't known.
    leader: NodeId,
    /// It is over then. Zero: there is none.
    until: Ticks,
}

impl Promise {
    /// A start: what was promised before isn't known.
    pub(crate) fn of_start(now: Ticks, election_timeout: Ticks) -> Self {
        Self { leader: NodeId::ZERO, until: now.after(election_timeout) }
    }

    /// A leader was heard.
    pub(crate) fn to(leader: NodeId, now: Ticks, election_timeout: Ticks) -> Self {
        Self { leader, until: now.after(election_timeout) }
    }

    /// Whether it forbids to help `from` into office.
    pub(crate) fn forbids(self, from: NodeId, now: Ticks) -> bool {
        self.leader != from && self.is_kept(now)
    }

    /// When that leader was heard; `None`: none was yet, or it said that it leads no more.
    pub(crate) fn heard_at(self, election_timeout: Ticks) -> Option<Ticks> {
        (self.leader != NodeId::ZERO).then(|| self.until.since(election_timeout))
    }

    /// Whether it holds yet.
    pub(crate) fn is_kept(self, now: Ticks) -> bool {
        now < self.until
    }
}
