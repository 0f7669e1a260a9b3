//! How far an entry has come beyond the leader: what a barrier or a write may wait for.

/// How many of a group's voters have an entry, or know that it is committed. Learners don't count.
/// Of a joint configuration both lists of voters count. The number is the wire's: never reuse one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// It is committed, as the leader knows: as many voters hold it durably as are enough to
    /// commit.
    #[default]
    Majority = 1,
    /// It is committed, and every voter holds it durably.
    All = 2,
    /// A majority of the voters know that it is committed.
    MajorityCommitted = 3,
    /// Every voter knows that it is committed.
    AllCommitted = 4,
}

impl Level {
    /// All of them, by number.
    pub const ALL: [Self; 4] =
        [Self::Majority, Self::All, Self::MajorityCommitted, Self::AllCommitted];

    /// The level with this number, if there is one.
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Majority,
            2 => Self::All,
            3 => Self::MajorityCommitted,
            4 => Self::AllCommitted,
            _ => return None,
        })
    }

    /// Whether it asks what voters know, not what they hold.
    pub const fn is_of_knowledge(self) -> bool {
        matches!(self, Self::MajorityCommitted | Self::AllCommitted)
    }

    /// Its name for people, as the command line takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Majority => "majority",
            Self::All => "all",
            Self::MajorityCommitted => "majority-committed",
            Self::AllCommitted => "all-committed",
        }
    }
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers and names are those of the wire and the command line, and none is used twice.
    #[test]
    fn numbers_go_there_and_back() {
        for level in Level::ALL {
            assert_eq!(Level::from_u8(level as u8), Some(level));
            assert_eq!(Level::ALL.iter().filter(|it| it.name() == level.name()).count(), 1);
        }
        assert_eq!(Level::from_u8(0), None);
        assert_eq!(Level::from_u8(5), None);
    }
}
