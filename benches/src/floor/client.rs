//! The client: keeps a number of operations in flight and times each one from the moment it is put
//! into the send buffer to the moment its acknowledgement was read.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::FloorOptions;
use super::link::{Incoming, MESSAGE_HEADER_BYTES, put_header};
use crate::error::BenchError;
use crate::histogram::Latencies;
use crate::ring::Ring;

const FROM_LEADER: u32 = 0;
const TO_LEADER: u32 = 1;

/// What the client saw after the warm-up.
pub(super) struct Measured {
    pub(super) latencies: Latencies,
    pub(super) elapsed: Duration,
}

/// Operations that were put into the send buffer together, so at one time.
struct Sent {
    last: u64,
    at: Instant,
}

/// Runs the client for the warm-up and the measured time.
///
/// # Errors
/// If the leader goes away.
pub(super) fn client(options: &FloorOptions, leader: OwnedFd) -> Result<Measured, BenchError> {
    let mut ring = Ring::new()?;
    let leader = ring.add_file(leader);
    let mut acks = Incoming::new(&mut ring, leader, 0, FROM_LEADER);
    let message_bytes = options.message_bytes();
    // One buffer is sent while the other fills.
    let buffers = [0, 1].map(|_| ring.add_buffer(options.in_flight_bytes(), 64));
    let value = vec![b'v'; options.value_bytes];
    let (mut filling, mut filled, mut sending) = (0, 0, None);
    let (mut submitted, mut acked) = (0u64, 0u64);
    let mut sent = VecDeque::with_capacity(options.outstanding);
    let mut latencies = Latencies::new();
    let measure_from = Instant::now() + Duration::from_secs_f64(options.warm_up_seconds);
    let measure_until = measure_from + Duration::from_secs_f64(options.seconds);
    let mut now = Instant::now();
    loop {
        let free = options.outstanding - (submitted - acked) as usize;
        if free > 0 {
            let end = filled + free * message_bytes;
            let room = ring.bytes_mut(buffers[filling], filled..end);
            for message in room.chunks_exact_mut(message_bytes) {
                submitted += 1;
                let (header, room) = message.split_at_mut(MESSAGE_HEADER_BYTES);
                put_header(header, options.value_bytes, submitted);
                room.copy_from_slice(&value);
            }
            filled = end;
            sent.push_back(Sent { last: submitted, at: now });
        }
        if sending.is_none() && filled > 0 {
            ring.send(leader, buffers[filling], 0..filled, TO_LEADER);
            sending = Some(filled);
            (filling, filled) = (1 - filling, 0);
        }
        ring.submit_and_wait(1)?;
        let mut newly_acked = acked;
        while let Some(ended) = ring.next()? {
            match ended.tag {
                TO_LEADER if sending == Some(ended.bytes) => sending = None,
                FROM_LEADER if acks.received(ended.bytes) => {
                    if let Some(messages) = acks.take(&ring, usize::MAX) {
                        newly_acked = messages.last;
                    }
                    acks.arm(&mut ring);
                }
                _ => return Err(BenchError::Closed),
            }
        }
        now = Instant::now();
        let in_window = now >= measure_from && now < measure_until;
        while newly_acked > acked {
            let group: &Sent = sent.front().expect("only what was sent is acknowledged");
            let upto = group.last.min(newly_acked);
            if in_window {
                latencies.record(now - group.at, upto - acked);
            }
            acked = upto;
            if acked == group.last {
                sent.pop_front();
            }
        }
        if now >= measure_until {
            return Ok(Measured { latencies, elapsed: measure_until - measure_from });
        }
    }
}
