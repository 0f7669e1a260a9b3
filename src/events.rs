//! What happens in a node, told to the program that embeds it: who leads, who is a member, disks,
//! snapshots, damage and repair.
//!
//! A shard never waits for who listens: events travel to the control lane as the lines of the log
//! do, and from there into a bounded queue; what finds no room anywhere is counted.

use ringraft_shard::ShardEvent;
use ringraft_types::ShardId;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// Something that happened, and on which shard of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeEvent {
    /// The shard.
    pub shard: ShardId,
    /// What happened.
    pub event: ShardEvent,
}

/// Receives what happens in a node; from [`Server::events`](crate::Server::events).
///
/// Events of one shard come in the order in which they happened, about a tenth of a second later.
/// They tell of changes and aren't a record of them: after [`Events::missed`] has grown, ask the node
/// how it stands.
#[derive(Debug)]
pub struct Events {
    receiver: Receiver<NodeEvent>,
    missed: Arc<AtomicU64>,
}

/// Why there is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoEvent {
    /// Nothing happened in that time.
    #[error("nothing happened yet")]
    Yet,
    /// The node has ended, and all that it told was taken.
    #[error("the node has ended")]
    Over,
}

impl Events {
    /// The next event, waited for at most so long.
    ///
    /// # Errors
    /// If there was none in time, or none will come any more.
    pub fn next(&self, wait: Duration) -> Result<NodeEvent, NoEvent> {
        self.receiver.recv_timeout(wait).map_err(|error| match error {
            RecvTimeoutError::Timeout => NoEvent::Yet,
            RecvTimeoutError::Disconnected => NoEvent::Over,
        })
    }

    /// How many events were lost since the start, because those before them weren't taken in time,
    /// here or by the control lane. They may be of any kind: such as lines for the log file.
    pub fn missed(&self) -> u64 {
        // Relaxed: a count of its own, which orders nothing.
        self.missed.load(Ordering::Relaxed)
    }
}

/// The other end: the control lane's.
#[derive(Clone, Debug)]
pub(crate) struct EventSink {
    sender: SyncSender<NodeEvent>,
    missed: Arc<AtomicU64>,
}

impl EventSink {
    /// Tells of an event, or counts it as missed. Never waits; who listens no more misses nothing.
    pub(crate) fn tell(&self, event: NodeEvent) {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(event) {
            self.miss(1);
        }
    }

    /// So many were lost on the way here.
    pub(crate) fn miss(&self, count: u64) {
        self.missed.fetch_add(count, Ordering::Relaxed);
    }
}

/// A queue of events of which so many may wait.
pub(crate) fn queue(waiting_max: usize) -> (EventSink, Events) {
    let (sender, receiver) = sync_channel(waiting_max);
    let missed = Arc::new(AtomicU64::new(0));
    (EventSink { sender, missed: missed.clone() }, Events { receiver, missed })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what finds no room is counted, nobody waits, order is kept, and the end is told.
    #[test]
    fn what_finds_no_room_is_counted() {
        let event = |stuck| NodeEvent { shard: ShardId(1), event: ShardEvent::DiskStuck(stuck) };
        let (sink, events) = queue(2);
        assert_eq!(events.next(Duration::ZERO), Err(NoEvent::Yet));
        for stuck in [true, false, true, false] {
            sink.tell(event(stuck));
        }
        sink.miss(3);
        assert_eq!(events.missed(), 5);
        assert_eq!(events.next(Duration::ZERO), Ok(event(true)));
        drop(sink);
        assert_eq!(events.next(Duration::ZERO), Ok(event(false)));
        assert_eq!(events.next(Duration::ZERO), Err(NoEvent::Over));
        let (sink, events) = queue(1);
        drop(events);
        sink.tell(event(true));
    }
}
