//! Numbers with a type: no public function takes two bare integers.

use std::fmt;

/// Declares a newtype over an unsigned integer with the handful of operations that all share.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl $name {
            /// The smallest value.
            pub const ZERO: Self = Self(0);

            /// The bare number, for layouts and displays.
            #[inline]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number! {
    /// A node (one process of the cluster). Never zero; assigned once by `ringraft init`.
    NodeId(u32)
}
number! {
    /// A group (one Raft instance). Never zero; zero in a record means "the node itself".
    GroupId(u64)
}
impl GroupId {
    /// The group that says which others there are (`placement.rs`). Nodes are configured with groups
    /// below it; what is created at run time has an id above.
    pub const SYSTEM: Self = Self(1_000_000);
    /// The first group that is created at run time.
    pub const FIRST_CREATED: Self = Self(1_000_001);
}

number! {
    /// A shard of a node: what one core owns. Counts from zero.
    ShardId(u16)
}
number! {
    /// A Raft term.
    Term(u64)
}
number! {
    /// A position in a group's log. The first entry has index 1; zero is "before the first".
    Index(u64)
}
number! {
    /// The position of a block in one write-ahead log. The first block has sequence 1.
    Sequence(u64)
}
number! {
    /// Microseconds of CLOCK_BOOTTIME, or a span of them. Read in one place (`src/clock.rs`).
    Ticks(u64)
}
number! {
    /// The key-value machine's own counter: one per mutating transaction, from 1.
    Revision(u64)
}
number! {
    /// Names a cluster: random, made by `ringraft init`.
    ClusterId(u128)
}
number! {
    /// Names one life of a data directory: random, made by `ringraft format`.
    Incarnation(u64)
}
number! {
    /// Names a client's session within a group: random, made by the client library.
    ClientId(u128)
}

impl Index {
    /// The position after this one.
    #[inline]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The position before this one; zero stays zero.
    #[inline]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl Sequence {
    /// The sequence after this one.
    #[inline]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Term {
    /// The term after this one.
    #[inline]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Ticks {
    /// "Never": later than any reading of the clock.
    pub const NEVER: Self = Self(u64::MAX);

    /// A span of milliseconds.
    #[inline]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000)
    }

    /// This instant plus a span; saturates at [`Ticks::NEVER`].
    #[inline]
    pub const fn after(self, span: Ticks) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// The span from `earlier` to this instant; zero if `earlier` is later.
    #[inline]
    pub const fn since(self, earlier: Ticks) -> Ticks {
        Self(self.0.saturating_sub(earlier.0))
    }
}

/// An entry's identity: two logs with an equal `LogId` are equal up to it (I-05).
/// Ordered by term, then index: the order in which Raft compares logs (thesis 3.6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// The term in which the entry was proposed.
    pub term: Term,
    /// Its position.
    pub index: Index,
}

impl LogId {
    /// Before the first entry of any log.
    pub const ZERO: Self = Self { term: Term(0), index: Index(0) };

    /// An entry's identity.
    pub const fn new(term: Term, index: Index) -> Self {
        Self { term, index }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.index)
    }
}
