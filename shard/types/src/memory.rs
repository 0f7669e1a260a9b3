//! How near a node is to the bytes of data that it may hold.

/// Where a node's data stands against its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum MemoryLevel {
    /// Below four fifths of the limit, or there is none.
    #[default]
    Normal = 0,
    /// Four fifths or more: people are warned. It ends below three quarters.
    Warning = 1,
    /// At the limit: writes that grow are refused. It ends below nine tenths.
    Full = 2,
}

impl MemoryLevel {
    /// The level with this number, if there is one.
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Normal,
            1 => Self::Warning,
            2 => Self::Full,
            _ => return None,
        })
    }

    /// Its name for people and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Warning => "warning",
            Self::Full => "full",
        }
    }

    /// The level with so many bytes, after this one. A limit of zero is none.
    #[must_use]
    pub fn next(self, bytes: u64, limit: u64) -> Self {
        if limit == 0 {
            return Self::Normal;
        }
        let parts = |count| limit as u128 * count / 20;
        let bytes = bytes as u128;
        let (full, warning) = match self {
            Self::Normal => (20, 16),
            Self::Warning => (20, 15),
            Self::Full => (18, 15),
        };
        if bytes >= parts(full) {
            Self::Full
        } else if bytes >= parts(warning) {
            Self::Warning
        } else {
            Self::Normal
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a level begins higher than it ends, so that an alarm neither flaps nor stays.
    #[test]
    fn levels_have_hysteresis() {
        let mut level = MemoryLevel::Normal;
        let mut at = |bytes| {
            level = level.next(bytes, 1_000);
            level
        };
        use MemoryLevel::{Full, Normal, Warning};
        assert_eq!([at(0), at(799), at(800), at(999)], [Normal, Normal, Warning, Warning]);
        assert_eq!([at(1_000), at(999), at(900)], [Full, Full, Full]);
        assert_eq!([at(899), at(999), at(750), at(749)], [Warning, Warning, Warning, Normal]);
        assert_eq!([at(2_000), at(0)], [Full, Normal]);
        assert_eq!(Full.next(u64::MAX, 0), Normal, "there is no limit");
        assert_eq!(Normal.next(u64::MAX, u64::MAX), Full);
        for level in [Normal, Warning, Full] {
            assert_eq!(MemoryLevel::from_u8(level as u8), Some(level));
        }
        assert_eq!(MemoryLevel::from_u8(3), None);
    }
}
