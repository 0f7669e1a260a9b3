//! Making the next segment in the background: create, zero-fill in paced chunks, sync, write the
//! header, sync, sync the directory. A full disk ends the attempt, not the log.

use super::{Log, Purpose};
use crate::buffer::Buffer;
use crate::device::{Completion, Device, Durability, Operation};
use crate::error::WalFatal;
use crate::format::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::segment::{CHUNK_BYTES, CHUNK_PACE, CHUNKS_URGENT, MakeStep, Making, RETRY_AFTER};
use ringraft_types::Ticks;
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};

impl Log {
    /// Starts or goes on with the making of a segment, if one is wanted.
    pub(super) fn make<D: Device>(&mut self, now: Ticks, device: &mut D) {
        let Some(making) = self.segments.making else {
            if self.segments.spares.is_empty() && now >= self.segments.retry_at {
                let number = self.segments.next_number;
                self.segments.next_number += 1;
                let step = MakeStep::Create;
                self.segments.making = Some(Making { number, step, next_chunk: now });
                let create = Operation::Create(self.segments.file(number));
                self.operations.submit(device, Purpose::Make, create);
            }
            return;
        };
        if let MakeStep::Fill { .. } = making.step {
            self.fill(now, device, making);
        }
    }

    fn fill<D: Device>(&mut self, now: Ticks, device: &mut D, mut making: Making) {
        let MakeStep::Fill { mut submitted, mut in_flight } = making.step else { return };
        let total = self.settings.segment_bytes;
        let is_urgent = self.segments.is_urgent(total);
        let chunks_max = if is_urgent { CHUNKS_URGENT } else { 1 };
        let file = self.segments.file(making.number);
        while submitted < total && in_flight < chunks_max {
            if !is_urgent && now < making.next_chunk {
                break;
            }
            let bytes = (total - submitted).min(CHUNK_BYTES as u64) as usize;
            self.operations.submit(
                device,
                Purpose::Make,
                Operation::Write {
                    file,
                    offset: submitted,
                    buffer: Buffer::zeroed(bytes, self.align),
                    durability: Durability::None,
                },
            );
            submitted += bytes as u64;
            in_flight += 1;
            making.next_chunk = now.after(CHUNK_PACE);
        }
        making.step = MakeStep::Fill { submitted, in_flight };
        self.segments.making = Some(making);
    }

    /// When the making wants a turn again without a completion.
    pub(super) fn make_wake(&self) -> Ticks {
        match self.segments.making {
            None if self.segments.spares.is_empty() => self.segments.retry_at,
            Some(Making { step: MakeStep::Fill { in_flight: 0, .. }, next_chunk, .. }) => {
                next_chunk
            }
            _ => Ticks::NEVER,
        }
    }

    pub(super) fn make_completed<D: Device>(
        &mut self,
        now: Ticks,
        device: &mut D,
        completion: Completion,
    ) -> Result<(), WalFatal> {
        let mut making = self.segments.making.expect("a completion of a segment in the making");
        let file = self.segments.file(making.number);
        let expected = completion.buffer.as_ref().map_or(0, |buffer| buffer.len());
        let result = completion.result;
        // A short write of zeros means a full disk; the next attempt will say so if it isn't.
        let is_short = result >= 0 && (result as usize) < expected;
        let is_full = is_short || is_disk_full(-result);
        let mut next = None;
        making.step = match making.step {
            MakeStep::Create if result == -libc::EEXIST => {
                // Left by a former life; recovery saw every number below `next_number`, so this
                // can only be a file that isn't ours. Leave it alone.
                self.segments.making = None;
                return Ok(());
            }
            MakeStep::Abandon { in_flight } if in_flight > 1 => {
                MakeStep::Abandon { in_flight: in_flight - 1 }
            }
            MakeStep::Abandon { .. } => {
                next = Some(Operation::Remove(file));
                MakeStep::Remove
            }
            MakeStep::Remove => {
                self.segments.making = None;
                return Ok(());
            }
            step if is_full => {
                self.segments.exhausted = true;
                self.segments.retry_at = now.after(RETRY_AFTER);
                self.stats.disk_full += 1;
                match step {
                    MakeStep::Create => {
                        self.segments.making = None;
                        return Ok(());
                    }
                    MakeStep::Fill { in_flight, .. } if in_flight > 1 => {
                        MakeStep::Abandon { in_flight: in_flight - 1 }
                    }
                    _ => {
                        next = Some(Operation::Remove(file));
                        MakeStep::Remove
                    }
                }
            }
            step if result < 0 => {
                let is_retried = matches!(-result, libc::EAGAIN | libc::EINTR);
                let is_write = matches!(step, MakeStep::Fill { .. } | MakeStep::Header);
                if !(is_retried && is_write) {
                    return Err(WalFatal::Prepare { file, errno: -result });
                }
                // Begin anew: cheap, rare, and without a second path.
                match step {
                    MakeStep::Fill { in_flight, .. } if in_flight > 1 => {
                        MakeStep::Abandon { in_flight: in_flight - 1 }
                    }
                    _ => {
                        next = Some(Operation::Remove(file));
                        MakeStep::Remove
                    }
                }
            }
            MakeStep::Create => MakeStep::Fill { submitted: 0, in_flight: 0 },
            MakeStep::Fill { submitted, in_flight } => {
                if submitted == self.settings.segment_bytes && in_flight == 1 {
                    next = Some(Operation::Sync(file));
                    MakeStep::SyncZeros
                } else {
                    MakeStep::Fill { submitted, in_flight: in_flight - 1 }
                }
            }
            MakeStep::SyncZeros => {
                next = Some(self.header_write(making.number));
                MakeStep::Header
            }
            MakeStep::Header => {
                next = Some(Operation::Sync(file));
                MakeStep::SyncHeader
            }
            MakeStep::SyncHeader => {
                next = Some(Operation::SyncDirectory);
                #[cfg(ringraft_plant)]
                if planted(Plant::DirectoryUnsynced) {
                    next = Some(Operation::Sync(file));
                }
                MakeStep::SyncDirectory
            }
            MakeStep::SyncDirectory => {
                self.segments.spares.push_back(making.number);
                self.segments.making = None;
                self.segments.exhausted = false;
                self.stats.segments_made += 1;
                return Ok(());
            }
        };
        self.segments.making = Some(making);
        if let Some(operation) = next {
            self.operations.submit(device, Purpose::Make, operation);
        }
        Ok(())
    }

    fn header_write(&self, number: u64) -> Operation {
        let mut buffer = Buffer::zeroed(SEGMENT_HEADER_BYTES.max(self.align), self.align);
        let header = SegmentHeader {
            identity: self.identity,
            segment: number,
            length: self.settings.segment_bytes,
            align: self.align as u32,
        };
        header.encode(&mut buffer);
        let file = self.segments.file(number);
        Operation::Write { file, offset: 0, buffer, durability: Durability::None }
    }
}

/// Whether an errno says that there is no room: for bytes, for the owner's quota, or for one more
/// open file.
fn is_disk_full(errno: i32) -> bool {
    matches!(errno, libc::ENOSPC | libc::EDQUOT | libc::EMFILE | libc::ENFILE)
}
