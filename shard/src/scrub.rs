//! The scrubber: reads the whole log in the background, a block at a time and never faster than it
//! may, so that rot is found while the peers still have what it hit, and not when it is needed.

use crate::event::ShardEvent;
use crate::links::Links;
use crate::shard::Shard;
use ringraft_types::Ticks;
use ringraft_wal::device::Device;

/// How often the log is read through, and how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubRules {
    /// From the beginning of one pass to that of the next; a pass that takes longer goes on first.
    /// Zero: never.
    pub interval: Ticks,
    /// Bytes of the log that are read in a second at most.
    pub bytes_per_second: u64,
}

impl Default for ScrubRules {
    /// Once a day, at 8 MiB a second: no disk notices it, and a log of 100 GiB is through in four
    /// hours.
    fn default() -> Self {
        Self { interval: Ticks::from_millis(24 * 60 * 60 * 1_000), bytes_per_second: 8 << 20 }
    }
}

/// Where the scrubber stands.
#[derive(Debug, Default)]
pub(crate) struct Scrubbing {
    /// When the next block is due, of a pass or the first of the next one; `None`: since the shard
    /// doesn't turn yet.
    next_at: Option<Ticks>,
    /// The pass under way: when it began, what it read, and how many blocks are rotten.
    pass: Option<Pass>,
}

#[derive(Clone, Copy, Debug)]
struct Pass {
    began: Ticks,
    bytes: u64,
    rotten: u64,
}

impl<D: Device, L: Links> Shard<D, L> {
    /// Takes what was looked at, and has the next block looked at if it is due. Returns when to come
    /// back.
    pub(crate) fn scrub(&mut self, now: Ticks) -> Ticks {
        let rules = self.settings.scrub;
        if rules.interval == Ticks::ZERO || rules.bytes_per_second == 0 {
            return Ticks::NEVER;
        }
        let next_at = *self.scrubbing.next_at.get_or_insert(now.after(rules.interval));
        if let Some(scrubbed) = self.log.take_scrubbed() {
            self.metrics.scrubbed_bytes += scrubbed.bytes;
            let pass = self.scrubbing.pass.as_mut().expect("blocks are looked at in a pass");
            pass.bytes += scrubbed.bytes;
            pass.rotten += u64::from(scrubbed.rot.is_some());
            // Nobody waits for what they lost: they lead and serve while they have it again.
            for group in scrubbed.groups {
                if let (Some(&slot), Some(error)) = (self.slots.get(&group), scrubbed.rot) {
                    self.unreadable(now, slot, error);
                }
            }
            self.metrics.scrubbed_rotten += u64::from(scrubbed.rot.is_some());
            let takes = scrubbed.bytes.saturating_mul(1_000_000) / rules.bytes_per_second;
            self.scrubbing.next_at = Some(next_at.max(now).after(Ticks(takes)));
        }
        let next_at = self.scrubbing.next_at.expect("set if it wasn't");
        if self.log.is_scrubbing() || now < next_at {
            return if self.log.is_scrubbing() { Ticks::NEVER } else { next_at };
        }
        let pass = *self.scrubbing.pass.get_or_insert(Pass { began: now, bytes: 0, rotten: 0 });
        if self.log.scrub_next() {
            self.fetch_asked = true;
            return Ticks::NEVER;
        }
        let Pass { began, bytes, rotten } = pass;
        self.scrubbing.pass = None;
        self.metrics.scrub_passes += 1;
        self.events.push(ShardEvent::Scrubbed { bytes, rotten, took: now.since(began) });
        let next_at = began.after(rules.interval).max(now.after(Ticks(1)));
        self.scrubbing.next_at = Some(next_at);
        next_at
    }
}
