//! What a log is told at its start.

use crate::device::Durability;
use crate::error::WalError;
use crate::format::{BLOCK_HEADER_BYTES, ITEM_BYTES, Identity, SEGMENT_HEADER_BYTES};
use ringraft_types::limits::{BLOCK_ALIGN_MIN, BLOCK_BYTES_MAX};
use ringraft_types::{ClusterId, Incarnation, NodeId, Ticks};

/// The largest alignment that a device may demand, bytes.
pub(crate) const ALIGN_MAX: usize = 1 << 20;

/// The settings of one log.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// Which log of the node.
    pub log_id: u64,
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The life of the node's data directory.
    pub incarnation: Incarnation,
    /// Blocks of this log were durable before: without one it isn't new, but lost.
    pub is_begun: bool,
    /// A segment file's length, bytes; a multiple of the device's alignment.
    pub segment_bytes: u64,
    /// The longest block, bytes; a multiple of the device's alignment, at most
    /// [`BLOCK_BYTES_MAX`].
    pub block_bytes_max: usize,
    /// Blocks that may be in flight at once.
    pub inflight_max: usize,
    /// How blocks become durable. `None`: they don't, and are called durable once written; for
    /// experiments only.
    pub durability: Durability,
    /// How long a block waits for company; zero: not at all.
    pub group_commit_wait: Ticks,
    /// Idleness after which a seal is written.
    pub seal_after: Ticks,
    /// Bytes that may wait to be submitted; more are refused.
    pub unsubmitted_bytes_max: usize,
}

impl LogSettings {
    /// The defaults: 64 MiB segments, blocks of up to 2 MiB, one in flight, RWF_DSYNC, no waiting, a seal
    /// after 5 ms, 8 MiB of unsubmitted bytes.
    pub fn new(cluster: ClusterId, node: NodeId, incarnation: Incarnation, log_id: u64) -> Self {
        Self {
            log_id,
            cluster,
            node,
            incarnation,
            is_begun: false,
            segment_bytes: 64 << 20,
            block_bytes_max: BLOCK_BYTES_MAX,
            inflight_max: 1,
            durability: Durability::Dsync,
            group_commit_wait: Ticks(0),
            seal_after: Ticks::from_millis(5),
            unsubmitted_bytes_max: 8 << 20,
        }
    }

    /// Whose log it is.
    pub fn identity(&self) -> Identity {
        Identity {
            cluster: self.cluster,
            node: self.node,
            incarnation: self.incarnation,
            log_id: self.log_id,
        }
    }

    /// Checks the settings against each other and the device's alignment.
    ///
    /// # Errors
    /// [`WalError::Settings`] with both values of the relation that doesn't hold.
    pub fn validate(&self, align: usize) -> Result<(), WalError> {
        let first = SEGMENT_HEADER_BYTES.max(align) as u64;
        let block = self.block_bytes_max;
        let wrong = if !align.is_power_of_two() || !(BLOCK_ALIGN_MIN..=ALIGN_MAX).contains(&align) {
            format!("device alignment {align} isn't a power of two from 4096 to 1 MiB")
        } else if !block.is_multiple_of(align) || block > BLOCK_BYTES_MAX {
            format!("block_bytes_max {block} isn't a multiple of {align} up to {BLOCK_BYTES_MAX}")
        } else if block < BLOCK_HEADER_BYTES + 4 * ITEM_BYTES + 1024 {
            format!("block_bytes_max {block} has no room for a record")
        } else if !self.segment_bytes.is_multiple_of(align as u64)
            || self.segment_bytes < first + block as u64
            || self.segment_bytes > 1 << 40
        {
            format!(
                "segment_bytes {} isn't a multiple of {align} with room for a header of {first} \
                 and a block of {block}",
                self.segment_bytes
            )
        } else if self.inflight_max == 0 || self.inflight_max > 64 {
            format!("inflight_max {} isn't from 1 to 64", self.inflight_max)
        } else if self.unsubmitted_bytes_max < block {
            format!(
                "unsubmitted_bytes_max {} is less than block_bytes_max {block}",
                self.unsubmitted_bytes_max
            )
        } else {
            return Ok(());
        };
        Err(WalError::Settings(wrong))
    }
}
