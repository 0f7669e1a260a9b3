//! Strands: the keys of a group in parts that are the same on every node, so that a snapshot of one
//! entry can be fetched from several nodes at once (decision 0017).

/// How many there are.
pub const STRANDS: usize = 8;

/// What a snapshot holds of each strand, bytes. All zeros: its keys aren't kept apart.
pub type StrandBytes = [u64; STRANDS];
