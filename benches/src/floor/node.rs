//! The leader and the followers: append, sync, acknowledge.

use std::os::fd::OwnedFd;

use super::link::{Acks, Incoming};
use super::{BATCH_BYTES_MAX, FILE_BYTES, FloorOptions};
use crate::error::BenchError;
use crate::ring::{BufferId, FileId, Ring};
use crate::space::{self, ALIGN_BYTES, SyncMethod};

/// Tags of a leader's operations.
mod tag {
    pub(super) const FROM_CLIENT: u32 = 0;
    pub(super) const TO_CLIENT: u32 = 1;
    pub(super) const DISK: u32 = 2;
    pub(super) const TO_FOLLOWER: u32 = 3;
    pub(super) const FROM_A: u32 = 4;
    pub(super) const FROM_B: u32 = 5;
    pub(super) const FROM_LEADER: u32 = 6;
    pub(super) const TO_LEADER: u32 = 7;
}

/// A node's log, one batch of it in flight.
struct Log {
    /// None: there is no disk in this run, and everything counts as durable at once.
    file: Option<FileId>,
    method: SyncMethod,
    batch: BufferId,
    batch_bytes_max: usize,
    offset: u64,
    /// The last sequence of the batch in flight.
    writing: Option<u64>,
    /// The last sequence known durable.
    durable: u64,
}

impl Log {
    fn new(ring: &mut Ring, options: &FloorOptions, file: Option<OwnedFd>) -> Self {
        let batch_bytes_max =
            options.message_bytes().max(BATCH_BYTES_MAX).next_multiple_of(ALIGN_BYTES);
        let batch = ring.add_buffer(batch_bytes_max, ALIGN_BYTES);
        let file = file.map(|file| ring.add_file(file));
        let method = options.method;
        Self { file, method, batch, batch_bytes_max, offset: 0, writing: None, durable: 0 }
    }

    /// Writes and syncs the first `bytes` of the batch.
    fn write(&mut self, ring: &mut Ring, bytes: usize, last: u64) -> Result<(), BenchError> {
        assert!(self.writing.is_none(), "one batch in flight");
        let Some(file) = self.file else {
            self.durable = last;
            return Ok(());
        };
        let length = bytes.next_multiple_of(ALIGN_BYTES);
        if self.offset + length as u64 > FILE_BYTES {
            self.offset = 0;
        }
        match self.method {
            SyncMethod::Linked => {
                ring.write_then_sync(file, self.batch, 0..length, self.offset, tag::DISK);
                self.writing = Some(last);
            }
            SyncMethod::Dsync => {
                ring.write_dsync(file, self.batch, 0..length, self.offset, tag::DISK);
                self.writing = Some(last);
            }
            SyncMethod::Blocking => {
                // What is queued for the others must not wait for our disk.
                ring.submit_and_wait(0)?;
                space::write_at(ring.file(file), ring.bytes(self.batch, 0..length), self.offset)?;
                space::sync(ring.file(file))?;
                self.durable = last;
            }
        }
        self.offset += length as u64;
        Ok(())
    }

    /// The batch in flight is durable.
    fn written(&mut self) {
        self.durable = self.writing.take().expect("a completion belongs to a batch in flight");
    }
}

/// Runs the leader until the client closes.
///
/// # Errors
/// If a write, sync or socket fails.
pub(super) fn leader(
    options: &FloorOptions,
    client: OwnedFd,
    followers: [OwnedFd; 2],
    file: Option<OwnedFd>,
) -> Result<(), BenchError> {
    let mut ring = Ring::new()?;
    let client = ring.add_file(client);
    let followers = followers.map(|follower| ring.add_file(follower));
    let mut requests =
        Incoming::new(&mut ring, client, options.in_flight_bytes(), tag::FROM_CLIENT);
    let mut replies = Acks::new(&mut ring, client, tag::TO_CLIENT);
    let mut from = [(0, tag::FROM_A), (1, tag::FROM_B)]
        .map(|(at, tag): (usize, u32)| Incoming::new(&mut ring, followers[at], 0, tag));
    let mut log = Log::new(&mut ring, options, file);
    let mut acked = [0u64; 2];
    let mut sends_left = 0;
    let mut batch_bytes = 0;
    loop {
        ring.submit_and_wait(1)?;
        while let Some(ended) = ring.next()? {
            match ended.tag {
                tag::FROM_CLIENT => {
                    if !requests.received(ended.bytes) {
                        return Ok(());
                    }
                    requests.arm(&mut ring);
                }
                tag::FROM_A | tag::FROM_B => {
                    let at = usize::from(ended.tag == tag::FROM_B);
                    if !from[at].received(ended.bytes) {
                        return Err(BenchError::Closed);
                    }
                    if let Some(acks) = from[at].take(&ring, usize::MAX) {
                        acked[at] = acks.last;
                    }
                    from[at].arm(&mut ring);
                }
                tag::DISK => log.written(),
                tag::TO_FOLLOWER if ended.bytes == batch_bytes => sends_left -= 1,
                tag::TO_CLIENT => replies.left(ended.bytes)?,
                _ => return Err(BenchError::Closed),
            }
        }
        // Two of three: our own disk and the faster follower's.
        replies.offer(&mut ring, log.durable.min(acked[0].max(acked[1])));
        // The next batch needs the buffer of this one.
        if log.writing.is_some() || sends_left > 0 {
            continue;
        }
        if let Some(messages) = requests.take(&ring, log.batch_bytes_max) {
            batch_bytes = messages.range.len();
            ring.copy(requests.buffer, messages.range, log.batch);
            for follower in followers {
                ring.send(follower, log.batch, 0..batch_bytes, tag::TO_FOLLOWER);
                sends_left += 1;
            }
            log.write(&mut ring, batch_bytes, messages.last)?;
            requests.arm(&mut ring);
        }
    }
}

/// Runs a leader that is alone and has no disk, until the client closes.
///
/// # Errors
/// If a socket fails.
pub(super) fn echo(options: &FloorOptions, client: OwnedFd) -> Result<(), BenchError> {
    let mut ring = Ring::new()?;
    let client = ring.add_file(client);
    let mut requests =
        Incoming::new(&mut ring, client, options.in_flight_bytes(), tag::FROM_CLIENT);
    let mut replies = Acks::new(&mut ring, client, tag::TO_CLIENT);
    let mut heard = 0;
    loop {
        ring.submit_and_wait(1)?;
        while let Some(ended) = ring.next()? {
            match ended.tag {
                tag::FROM_CLIENT => {
                    if !requests.received(ended.bytes) {
                        return Ok(());
                    }
                    if let Some(messages) = requests.take(&ring, usize::MAX) {
                        heard = messages.last;
                    }
                    requests.arm(&mut ring);
                }
                _ => replies.left(ended.bytes)?,
            }
        }
        replies.offer(&mut ring, heard);
    }
}

/// Runs a follower until the leader closes.
///
/// # Errors
/// If a write, sync or socket fails.
pub(super) fn follower(
    options: &FloorOptions,
    leader: OwnedFd,
    file: Option<OwnedFd>,
) -> Result<(), BenchError> {
    let mut ring = Ring::new()?;
    let leader = ring.add_file(leader);
    let mut appends = Incoming::new(&mut ring, leader, options.in_flight_bytes(), tag::FROM_LEADER);
    let mut acks = Acks::new(&mut ring, leader, tag::TO_LEADER);
    let mut log = Log::new(&mut ring, options, file);
    loop {
        ring.submit_and_wait(1)?;
        while let Some(ended) = ring.next()? {
            match ended.tag {
                tag::FROM_LEADER => {
                    if !appends.received(ended.bytes) {
                        return Ok(());
                    }
                    appends.arm(&mut ring);
                }
                tag::DISK => log.written(),
                _ => acks.left(ended.bytes)?,
            }
        }
        acks.offer(&mut ring, log.durable);
        if log.writing.is_none()
            && let Some(messages) = appends.take(&ring, log.batch_bytes_max)
        {
            let bytes = messages.range.len();
            ring.copy(appends.buffer, messages.range, log.batch);
            log.write(&mut ring, bytes, messages.last)?;
            appends.arm(&mut ring);
            // Without a disk, or with a blocking one, it is durable already.
            acks.offer(&mut ring, log.durable);
        }
    }
}
