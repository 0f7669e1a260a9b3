//! Every limit that more than one crate must agree on, and how they relate.

/// The longest key, bytes.
pub const KEY_BYTES_MAX: usize = 8 << 10;
/// The longest value, bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// The longest command (a transaction with all its operations), bytes.
pub const COMMAND_BYTES_MAX: usize = (1 << 20) + (512 << 10);
/// The session envelope before a command, bytes (`command.rs`).
pub const ENVELOPE_BYTES: usize = 40;
/// The longest payload of a record, bytes.
pub const PAYLOAD_BYTES_MAX: usize = ENVELOPE_BYTES + COMMAND_BYTES_MAX;
/// The header before each record's payload, bytes (`record.rs`).
pub const RECORD_HEADER_BYTES: usize = 40;
/// The longest record as it lies on disk and on the wire, padding included, bytes.
pub const RECORD_BYTES_MAX: usize = RECORD_HEADER_BYTES + PAYLOAD_BYTES_MAX;
/// The longest record that carries another one, bytes: of the log only, it never travels.
pub const CARRIED_BYTES_MAX: usize = RECORD_HEADER_BYTES + RECORD_BYTES_MAX;
/// The header before each frame's body, bytes.
pub const FRAME_HEADER_BYTES: usize = 64;
/// The longest body of a frame, bytes. Checked before a buffer is reserved.
pub const FRAME_BODY_BYTES_MAX: usize = 2 << 20;
/// The longest block (one write to the log), header included, bytes.
pub const BLOCK_BYTES_MAX: usize = 2 << 20;
/// The smallest block and the smallest alignment we use, bytes.
pub const BLOCK_ALIGN_MIN: usize = 4096;

/// Writes of one session that may be unanswered at once.
pub const SESSION_UNANSWERED_MAX: usize = 1024;
/// Sessions of one group; the oldest by log order is evicted by the next.
pub const SESSIONS_PER_GROUP_MAX: usize = 65_536;
/// Revisions of history that a group keeps unless its log says otherwise.
pub const HISTORY_REVISIONS_DEFAULT: u64 = 10_000;
/// Nodes in a cluster, and so voters of a group.
pub const NODES_MAX: usize = 15;
/// Learners of a group.
pub const LEARNERS_MAX: usize = 32;
/// An address of a member in a configuration: a name and a port, bytes.
pub const ADDRESS_BYTES_MAX: usize = 512;
/// Shards in a node.
pub const SHARDS_MAX: usize = 256;

// The largest value with the largest key fits a command.
const _: () = assert!(KEY_BYTES_MAX + VALUE_BYTES_MAX + 64 <= COMMAND_BYTES_MAX);
// The largest record fits a block with its header and directory, or it could never be persisted.
const _: () = assert!(CARRIED_BYTES_MAX + 64 * 1024 <= BLOCK_BYTES_MAX);
// The largest record fits an append frame, or it could never be replicated.
const _: () = assert!(RECORD_BYTES_MAX + 4096 <= FRAME_BODY_BYTES_MAX);
// What a change of all voters brings in may stay as learners when it is aborted.
const _: () = assert!(NODES_MAX <= LEARNERS_MAX);
// Records are padded to eight bytes, so the maximum must be a multiple of it.
const _: () = assert!(RECORD_BYTES_MAX.is_multiple_of(8));
