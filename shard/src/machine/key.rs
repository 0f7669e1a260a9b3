//! A key inside its slot: short ones lie in the slot itself, so that to compare one takes no
//! second trip to memory.

/// The longest key that lies in its slot, bytes: what two cache lines leave beside the version.
pub(super) const SHORT_BYTES_MAX: usize = 78;

/// A slot's own copy of its key.
#[derive(Debug)]
pub(super) enum Key {
    Short { length: u8, bytes: [u8; SHORT_BYTES_MAX] },
    Long(Box<[u8]>),
}

impl Key {
    /// The key of a slot that is free.
    pub(super) const NOBODY: Self = Self::Short { length: 0, bytes: [0; SHORT_BYTES_MAX] };

    pub(super) fn new(key: &[u8]) -> Self {
        if key.len() > SHORT_BYTES_MAX {
            return Self::Long(key.into());
        }
        let mut bytes = [0; SHORT_BYTES_MAX];
        bytes[..key.len()].copy_from_slice(key);
        Self::Short { length: key.len() as u8, bytes }
    }

    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Short { length, bytes } => &bytes[..usize::from(*length)],
            Self::Long(key) => key,
        }
    }
}
