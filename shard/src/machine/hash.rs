//! The rolling hash of the state: a stable definition, so that replicas of different versions can
//! compare theirs.
//!
//! It starts at zero. Every change folds in, in the order of application:
//! ```text
//! head  = xxh3_64(hash before: u64, revision: u64, change: u64, all little-endian)
//! hash  = xxh3_64(value, seed = xxh3_64(key, seed = head))
//! ```
//! Only changes count: a read, a failed compare or a delete of nothing leaves it as it is.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// What changed. The number is part of the hash's definition: never reuse one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    /// A key was set: key and value.
    Put = 1,
    /// A key was removed: key, and an empty value.
    Delete = 2,
    /// The history's length was set: empty key, and the revisions as eight bytes.
    History = 3,
    /// History was cut: empty key, and the oldest revision kept as eight bytes.
    Compact = 4,
}

/// The hash after a change.
#[inline(always)]
pub(super) fn fold(before: u64, revision: u64, change: Change, key: &[u8], value: &[u8]) -> u64 {
    let mut head = [0u8; 24];
    head[..8].copy_from_slice(&before.to_le_bytes());
    head[8..16].copy_from_slice(&revision.to_le_bytes());
    head[16..].copy_from_slice(&(change as u64).to_le_bytes());
    xxh3_64_with_seed(value, xxh3_64_with_seed(key, xxh3_64(&head)))
}
