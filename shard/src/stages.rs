//! Where the time of a write goes: stage times of the writes that are led here, and the slow ones
//! by name.
//!
//! The writes of one turn move together, so they are measured together: one entry per proposal,
//! not per write.

use crate::event::ShardEvent;
use crate::group::Group;
use crate::links::Links;
use crate::metrics::{Metrics, Stage};
use crate::shard::Shard;
use ringraft_types::{GroupId, Index, Sequence, Ticks};
use ringraft_wal::device::Device;

/// A batch that is applied, and whose replies are on their way out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaving {
    group: GroupId,
    index: Index,
    count: u64,
    arrived: Ticks,
    applied: Ticks,
    slowest: (Stage, Ticks),
}

impl<D: Device, L: Links> Shard<D, L> {
    /// Notes which batches the log has submitted by now.
    pub(crate) fn note_submitted(&mut self, now: Ticks) {
        if self.unsubmitted.is_empty() {
            return;
        }
        let submitted = self.log.submitted();
        let Self { groups, unsubmitted, metrics, .. } = self;
        unsubmitted.retain(|&slot| {
            let mut left = false;
            for batch in groups[slot].batches.iter_mut().rev() {
                if batch.submitted.is_some() {
                    break;
                }
                if batch.sequence <= submitted {
                    batch.submitted = Some(now);
                    metrics.stage(Stage::Append, now.since(batch.proposed), batch.count);
                } else {
                    left = true;
                }
            }
            left
        });
    }

    /// Notes that what a turn wrote is on its way: the end of the replies' stage. To be called
    /// with a fresh clock after the submission; the next turn does it otherwise.
    pub fn note_sent(&mut self, now: Ticks) {
        if self.leaving.is_empty() {
            return;
        }
        let Self { leaving, metrics, events, settings, .. } = self;
        for batch in leaving.drain(..) {
            let total = now.since(batch.arrived);
            let reply = now.since(batch.applied);
            metrics.stage(Stage::Reply, reply, batch.count);
            metrics.stage(Stage::Total, total, batch.count);
            if settings.slow_write.is_some_and(|limit| total > limit) {
                metrics.slow_writes += 1;
                let slowest = Some((Stage::Reply, reply)).filter(|it| it.1 > batch.slowest.1);
                let (stage, span) = slowest.unwrap_or(batch.slowest);
                let (group, index) = (batch.group, batch.index);
                events.push(ShardEvent::SlowWrite { group, index, total, stage, span });
            }
        }
    }

    /// Whether [`Shard::note_sent`] has something to note.
    pub fn has_replies_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }
}

impl Group {
    /// The log is durable up to here.
    pub(crate) fn note_durable(&mut self, metrics: &mut Metrics, now: Ticks, sequence: Sequence) {
        for batch in &mut self.batches {
            if batch.sequence > sequence {
                break;
            }
            if batch.durable.is_none() {
                batch.durable = Some(now);
                let from = batch.submitted.unwrap_or(batch.proposed);
                metrics.stage(Stage::Sync, now.since(from), batch.count);
            }
        }
    }

    /// A majority holds everything up to `committed`.
    pub(crate) fn note_committed(&mut self, metrics: &mut Metrics, now: Ticks) {
        for batch in &mut self.batches {
            if batch.last > self.committed {
                break;
            }
            if batch.committed.is_none() {
                batch.committed = Some(now);
                metrics.stage(Stage::Quorum, now.since(batch.proposed), batch.count);
            }
        }
    }

    /// The machine has everything up to `applied`.
    pub(crate) fn note_applied(
        &mut self,
        metrics: &mut Metrics,
        now: Ticks,
        leaving: &mut Vec<Leaving>,
    ) {
        while let Some(batch) = self.batches.front()
            && batch.last <= self.applied
        {
            let batch = self.batches.pop_front().expect("its front was just seen");
            let committed = batch.committed.unwrap_or(now);
            let apply = now.since(committed);
            metrics.stage(Stage::Apply, apply, batch.count);
            metrics.writes_done += batch.count;
            let submitted = batch.submitted.unwrap_or(batch.proposed);
            let durable = batch.durable.unwrap_or(now);
            // The own disk and the followers work at the same time; the longer one is to blame.
            let spans = [
                (Stage::Queue, batch.proposed.since(batch.arrived)),
                (Stage::Append, submitted.since(batch.proposed)),
                (Stage::Sync, durable.since(submitted)),
                (Stage::Quorum, committed.since(durable.max(submitted))),
                (Stage::Apply, apply),
            ];
            let slowest = spans.into_iter().max_by_key(|&(_, span)| span).expect("there are five");
            leaving.push(Leaving {
                group: self.id,
                index: batch.last,
                count: batch.count,
                arrived: batch.arrived,
                applied: now,
                slowest,
            });
        }
    }
}
