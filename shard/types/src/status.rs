//! What a server answers to one request: the status byte of every reply item.

/// The status of one reply. The number is the wire's: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    /// Done: applied (a write) or read.
    Ok = 0,
    /// Definitely not done: this node doesn't lead the group. `hint` names the leader, or zero.
    NotLeader = 1,
    /// Definitely not done: a queue is full (FC-01, FC-02). Try again later.
    Busy = 2,
    /// Definitely not done: this node leads but has not committed in its term yet (EL-15).
    NotReady = 3,
    /// Definitely not done: no such group here.
    NoSuchGroup = 4,
    /// Definitely not done: the command is malformed or over a limit.
    Invalid = 5,
    /// Definitely not done: an earlier write of the session is missing.
    Gap = 6,
    /// Definitely not done: the session has 1,024 unanswered writes.
    WindowFull = 7,
    /// The session was evicted: this write was applied before or never, but not now.
    SessionExpired = 8,
    /// The reply was dropped already, because the client said that it has it: applied before.
    AlreadyAnswered = 9,
    /// Unknown: leadership was lost after the write was proposed. A retry under the same session
    /// and number is safe.
    Unknown = 10,
    /// Definitely not done: the revision asked for is no longer kept.
    Compacted = 11,
    /// Definitely not done: the revision asked for doesn't exist yet.
    FutureRevision = 12,
    /// Definitely not done: the group's log has rot that this node can't repair; it refuses.
    Damaged = 13,
    /// Definitely not done: the log has no space left.
    NoSpace = 14,
    /// Definitely not done: this server doesn't know this kind of request.
    Unsupported = 15,
    /// Definitely not done: this node is stopping. Another one will lead.
    Stopping = 16,
    /// Definitely not done: the group's members can't change so. The reply says why.
    Refused = 17,
    /// Definitely not done: leadership is being handed over (EL-11). Try again in a moment.
    Transferring = 18,
    /// Definitely not done: this node heard of its leader longer ago than the read allows.
    TooStale = 19,
    /// Definitely not done: the entry that the read wants to see isn't applied here yet.
    NotYet = 20,
    /// Of a barrier: the level isn't reached in the time that was asked for. The reply says how far
    /// it is. Nothing is undone: what is committed stays so.
    NotReached = 21,
    /// Of a barrier: leadership was lost while it waited. Another node can be asked the same.
    LeadershipLost = 22,
    /// Definitely not done: the memory for data is full, here or on another node that votes, and the
    /// write would grow. Deletes and compactions are taken.
    MemoryFull = 23,
}

impl Status {
    /// The status with this number, if there is one.
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Ok,
            1 => Self::NotLeader,
            2 => Self::Busy,
            3 => Self::NotReady,
            4 => Self::NoSuchGroup,
            5 => Self::Invalid,
            6 => Self::Gap,
            7 => Self::WindowFull,
            8 => Self::SessionExpired,
            9 => Self::AlreadyAnswered,
            10 => Self::Unknown,
            11 => Self::Compacted,
            12 => Self::FutureRevision,
            13 => Self::Damaged,
            14 => Self::NoSpace,
            15 => Self::Unsupported,
            16 => Self::Stopping,
            17 => Self::Refused,
            18 => Self::Transferring,
            19 => Self::TooStale,
            20 => Self::NotYet,
            21 => Self::NotReached,
            22 => Self::LeadershipLost,
            23 => Self::MemoryFull,
            _ => return None,
        })
    }

    /// Whether the same request may be sent again, here or elsewhere, and may then be done.
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::NotLeader
                | Self::NoSuchGroup
                | Self::Busy
                | Self::NotReady
                | Self::Transferring
                | Self::Gap
                | Self::WindowFull
                | Self::Unknown
                | Self::NoSpace
                | Self::Stopping
                | Self::LeadershipLost
        )
    }
}
