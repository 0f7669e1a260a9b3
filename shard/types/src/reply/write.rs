//! Writing replies piece by piece, as a machine finds out what is in them.

use super::{FLAG_LEFT_OUT, FLAG_MORE, FLAG_PREVIOUS, FLAG_SUCCEEDED, KeyValue, PutReply};
use crate::command::{TXN_OPERATIONS_MAX, op};

/// Appends the reply to a put: nothing at all, if there is nothing to tell.
#[inline]
pub fn write_put(out: &mut Vec<u8>, reply: PutReply<'_>) {
    match reply {
        PutReply::None => {}
        PutReply::Previous(previous) => {
            out.extend_from_slice(&[op::PUT, FLAG_PREVIOUS, 0, 0, 0, 0, 0, 0]);
            previous.encode(out);
        }
        PutReply::LeftOut => out.extend_from_slice(&[op::PUT, FLAG_LEFT_OUT, 0, 0, 0, 0, 0, 0]),
    }
}

/// A reply to a delete or a range under construction.
#[derive(Debug)]
pub struct ListWriter {
    start: usize,
    listed: u32,
}

impl ListWriter {
    /// What a list without keys takes, bytes.
    pub const HEADER_BYTES: usize = 16;

    /// Starts a reply at the end of `out`.
    pub fn begin(out: &mut Vec<u8>) -> Self {
        let start = out.len();
        out.extend_from_slice(&[0; Self::HEADER_BYTES]);
        Self { start, listed: 0 }
    }

    /// Appends a key.
    pub fn push(&mut self, out: &mut Vec<u8>, key_value: &KeyValue<'_>) {
        key_value.encode(out);
        self.listed += 1;
    }

    /// Keys appended so far.
    pub const fn listed(&self) -> u32 {
        self.listed
    }

    /// Completes the reply to a delete.
    pub fn finish_delete(self, out: &mut [u8], deleted: u64, more: bool) {
        self.finish(out, op::DELETE, deleted, more);
    }

    /// Completes the reply to a range.
    pub fn finish_range(self, out: &mut [u8], count: u64, more: bool) {
        self.finish(out, op::RANGE, count, more);
    }

    fn finish(self, out: &mut [u8], op: u8, count: u64, more: bool) {
        let header = &mut out[self.start..self.start + Self::HEADER_BYTES];
        header[0] = op;
        header[1] = if more { FLAG_MORE } else { 0 };
        header[4..8].copy_from_slice(&self.listed.to_le_bytes());
        header[8..].copy_from_slice(&count.to_le_bytes());
    }
}

/// A reply to a transaction under construction: [`begin`](Self::begin), then every operation's
/// reply appended between [`begin_operation`](Self::begin_operation) and
/// [`end_operation`](Self::end_operation), then [`finish`](Self::finish).
#[derive(Debug)]
pub struct TxnWriter {
    start: usize,
    operation: usize,
    operations: u16,
}

impl TxnWriter {
    /// What a reply takes at most beside the operations' own replies, bytes.
    pub const OVERHEAD_BYTES_MAX: usize = 8 + 4 * TXN_OPERATIONS_MAX;

    /// Starts a reply at the end of `out`.
    pub fn begin(out: &mut Vec<u8>, succeeded: bool) -> Self {
        let start = out.len();
        let flags = if succeeded { FLAG_SUCCEEDED } else { 0 };
        out.extend_from_slice(&[op::TXN, flags, 0, 0, 0, 0, 0, 0]);
        Self { start, operation: start, operations: 0 }
    }

    /// Starts the next operation's reply.
    pub fn begin_operation(&mut self, out: &mut Vec<u8>) {
        self.operation = out.len();
        out.extend_from_slice(&[0; 4]);
    }

    /// Completes the operation's reply.
    pub fn end_operation(&mut self, out: &mut [u8]) {
        let bytes = (out.len() - self.operation - 4) as u32;
        out[self.operation..self.operation + 4].copy_from_slice(&bytes.to_le_bytes());
        self.operations += 1;
    }

    /// Completes the reply.
    pub fn finish(self, out: &mut [u8]) {
        assert!(usize::from(self.operations) <= TXN_OPERATIONS_MAX, "decode refuses more");
        out[self.start + 2..self.start + 4].copy_from_slice(&self.operations.to_le_bytes());
    }
}
