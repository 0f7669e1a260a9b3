//! The watch over the own disk: for how long it has held the oldest write or sync (S25, S26).
//!
//! Time counts only while the shard itself turns: one that was stopped, or slept with its machine,
//! finds the disk's answers when it wakes, and must not blame the disk for its own absence.

use crate::error::ShardError;
use crate::event::ShardEvent;
use crate::links::Links;
use crate::peer_frames::Carried;
use crate::shard::Shard;
use ringraft_net::wire::Health;
use ringraft_raft::Input;
use ringraft_types::{NodeId, Ticks};
use ringraft_wal::WaitsFor;
use ringraft_wal::device::Device;

/// What the disk is known to have done last.
#[derive(Debug, Default)]
pub(crate) struct DiskWatch {
    waits_for: Option<WaitsFor>,
    looked_at: Ticks,
    /// Time seen to pass since `waits_for` is what it is.
    wait: Ticks,
    /// The groups were told that the disk is stuck.
    is_stuck: bool,
}

impl DiskWatch {
    /// For how long the disk has held its oldest write.
    pub(crate) fn wait(&self) -> Ticks {
        self.wait
    }

    /// Looks at what the log waits for. Of the time since the last look no more than `most` counts.
    fn look(&mut self, now: Ticks, waits_for: Option<WaitsFor>, most: Ticks) {
        let passed = now.since(self.looked_at).min(most);
        let is_same = waits_for.is_some() && waits_for == self.waits_for;
        self.wait = if is_same { self.wait.after(passed) } else { Ticks::ZERO };
        (self.waits_for, self.looked_at) = (waits_for, now);
    }
}

impl DiskWatch {
    /// The disk has held a write for too long, and holds it still.
    pub(crate) fn is_stuck(&self) -> bool {
        self.is_stuck
    }
}

impl<D: Device, L: Links> Shard<D, L> {
    /// Looks at the disk, after the log had its turn. A disk that holds a write for longer than an
    /// election timeout costs its groups their leadership until it moves; one that holds it for
    /// longer than the limit stops the process. Returns when to look again.
    pub(crate) fn watch_disk(&mut self, now: Ticks) -> Result<Ticks, ShardError> {
        let Self { watch, log, settings, .. } = self;
        let (step, limit) = (settings.raft.heartbeat_interval, settings.limits.disk_wait_max);
        let patience = settings.raft.election_timeout;
        watch.look(now, log.waits_for(), Ticks(2 * step.0));
        let wait = watch.wait;
        if wait >= limit {
            return Err(ShardError::DiskStuck { wait, limit });
        }
        let is_stuck = wait >= patience;
        if is_stuck != watch.is_stuck {
            watch.is_stuck = is_stuck;
            self.metrics.disk_stuck += u64::from(is_stuck);
            self.events.push(ShardEvent::DiskStuck(is_stuck));
            for slot in 0..self.groups.len() {
                self.step(now, slot, Input::DiskStuck(is_stuck), Carried::Cache)?;
            }
            if is_stuck {
                self.peers.values_mut().for_each(|peer| peer.staged.is_due = true);
                self.peers_due.staged = true;
            }
        }
        let rest = if is_stuck { limit } else { patience.min(limit) }.since(wait);
        Ok(match self.watch.waits_for {
            None => Ticks::NEVER,
            Some(_) => now.after(step.min(rest)),
        })
    }

    /// A peer says how it is. One whose disk has held a write for too long leads none of the groups
    /// here any more.
    pub(crate) fn hear_of_health(
        &mut self,
        now: Ticks,
        from: NodeId,
        Health { disk_wait: wait, is_memory_full }: Health,
    ) -> Result<(), ShardError> {
        self.hear_of_memory(now, from, is_memory_full);
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.disk_wait = wait;
        }
        if wait < self.settings.raft.election_timeout {
            return Ok(());
        }
        for slot in 0..self.groups.len() {
            if self.groups[slot].raft.leader() == Some(from) {
                self.step(now, slot, Input::Resigned(from), Carried::Cache)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringraft_types::Sequence;

    /// Time counts while the same write is waited for, and only as far as somebody looked.
    #[test]
    fn a_shard_that_was_away_does_not_blame_the_disk() {
        let mut watch = DiskWatch::default();
        let block = |sequence| Some(WaitsFor::Block(Sequence(sequence)));
        let mut look = |now, waits_for| {
            watch.look(Ticks(now), waits_for, Ticks(200));
            watch.wait().0
        };
        assert_eq!(look(1_000, block(7)), 0);
        assert_eq!(look(1_100, block(7)), 100);
        assert_eq!(look(1_250, block(7)), 250);
        assert_eq!(look(9_000_000, block(7)), 450, "it was stopped");
        assert_eq!(look(9_000_100, block(8)), 0, "another write");
        assert_eq!(look(9_000_150, None), 0);
        assert_eq!(look(9_000_200, block(9)), 0);
    }
}
