//! Completion tags: the 64 bits that travel with an operation through the ring and come back.
//!
//! The top byte says who asked, the rest is theirs. One list, so that two owners of one ring can
//! never take each other's completions.

/// Who submitted an operation to the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Owner {
    /// The disk device of the shard's log.
    Device = 1,
    /// A socket's receive.
    Receive = 2,
    /// A socket's send.
    Send = 3,
    /// A listener's accept.
    Accept = 4,
    /// An outgoing connect.
    Connect = 5,
    /// A wake-up from another core or the control lane.
    Wake = 6,
    /// A timeout.
    Timeout = 7,
    /// A cancel or close: its completion is counted, nothing else.
    Housekeeping = 8,
}

/// A tag: an owner and 56 bits of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(pub u64);

impl Tag {
    /// The largest number an owner may use.
    pub const NUMBER_MAX: u64 = (1 << 56) - 1;

    /// A tag of this owner.
    ///
    /// # Panics
    /// If the number takes more than 56 bits.
    pub const fn new(owner: Owner, number: u64) -> Self {
        assert!(number <= Self::NUMBER_MAX, "a tag's number has 56 bits");
        Self((owner as u64) << 56 | number)
    }

    /// Who submitted the operation; `None` if the top byte is nobody's.
    pub const fn owner(self) -> Option<Owner> {
        Some(match (self.0 >> 56) as u8 {
            1 => Owner::Device,
            2 => Owner::Receive,
            3 => Owner::Send,
            4 => Owner::Accept,
            5 => Owner::Connect,
            6 => Owner::Wake,
            7 => Owner::Timeout,
            8 => Owner::Housekeeping,
            _ => return None,
        })
    }

    /// The owner's own number.
    pub const fn number(self) -> u64 {
        self.0 & Self::NUMBER_MAX
    }
}
