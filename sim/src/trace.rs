//! What happened in a run: a hash over all of it, and the last events for people.
//!
//! One per thread, so that whoever looks after a panic finds it without the world's help.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::hash::{Hash, Hasher};

use ringraft_net::Kind;
use ringraft_types::{GroupId, NodeId, ShardId, Term, Ticks};

use crate::disk::Work;

/// Events that are kept for people, if nobody asked for more.
const KEPT: usize = 4_000;

/// One event.
#[derive(Clone, Debug, Hash)]
pub(crate) enum What {
    /// A process begins.
    Started(NodeId),
    /// A process ends by itself or by a fault.
    Ended(NodeId, &'static str),
    /// A shard serves: what its log held.
    Recovered { node: NodeId, shard: ShardId, torn: u64, stale: u64, rot: usize },
    /// A frame of a peer leaves.
    Sent { from: NodeId, to: NodeId, shard: ShardId, kind: u8, group: GroupId, bytes: usize },
    /// Bytes arrive.
    Arrived { connection: u64, side: usize, bytes: usize, content: u64 },
    /// An operation of a disk is complete.
    Disk { node: NodeId, shard: ShardId, operation: u64, work: Work, result: i32 },
    /// A node leads a group.
    Leads { node: NodeId, group: GroupId, term: Term, last: u64 },
    /// A client asks.
    Asked { client: usize, call: u64, group: GroupId },
    /// A client is answered.
    Answered { client: usize, call: u64, outcome: &'static str, revision: u64 },
    /// A fault strikes or is mended, or something rare.
    Text(String),
    /// What a group is at the end.
    Final { node: NodeId, group: GroupId, applied: u64, hash: u64 },
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started(node) => write!(f, "node {node} starts"),
            Self::Ended(node, why) => write!(f, "node {node} ends: {why}"),
            Self::Recovered { node, shard, torn, stale, rot } => {
                write!(f, "node {node}/{shard} recovered: {torn} torn, {stale} stale, {rot} rot")
            }
            Self::Sent { from, to, shard, kind, group, bytes } => {
                let kind = Kind::from_u8(*kind);
                write!(f, "{from} -> {to}/{shard} {kind:?} of group {group}, {bytes} bytes")
            }
            Self::Arrived { connection, side, bytes, .. } => {
                write!(f, "connection {connection} from side {side}: {bytes} bytes arrive")
            }
            Self::Disk { node, shard, operation, work, result } => {
                write!(f, "disk {node}/{shard} #{operation} {work:?}: {result}")
            }
            Self::Leads { node, group, term, last } => {
                write!(f, "node {node} leads group {group} in term {term}, last entry {last}")
            }
            Self::Asked { client, call, group } => {
                write!(f, "client {client} asks {client}/{call} of group {group}")
            }
            Self::Answered { client, call, outcome, revision } => {
                write!(f, "client {client}: {client}/{call} is {outcome} at revision {revision}")
            }
            Self::Text(text) => f.write_str(text),
            Self::Final { node, group, applied, hash } => {
                write!(f, "node {node} group {group}: applied {applied}, state {hash:016x}")
            }
        }
    }
}

/// A stable hash of what is hashed, one word at a time.
#[derive(Debug)]
struct Mixer(u64);

impl Mixer {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9fb2_1c65_1e98_df25).rotate_left(29);
    }
}

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word) ^ (chunk.len() as u64) << 56);
        }
    }
}

#[derive(Debug)]
struct Trace {
    mixer: Mixer,
    kept: VecDeque<(Ticks, What)>,
    kept_max: usize,
    running: bool,
}

thread_local! {
    static TRACE: RefCell<Trace> = const {
        RefCell::new(Trace { mixer: Mixer(0), kept: VecDeque::new(), kept_max: KEPT, running: false })
    };
}

/// A run begins on this thread.
pub(crate) fn begin(seed: u64) {
    TRACE.with_borrow_mut(|trace| {
        let (mixer, kept, kept_max) = (Mixer(seed), VecDeque::new(), trace.kept_max);
        *trace = Trace { mixer, kept, kept_max, running: true };
    });
}

/// So many events are to be kept for people in the runs on this thread, or more.
pub(crate) fn keep(events: usize) {
    TRACE.with_borrow_mut(|trace| trace.kept_max = events.max(KEPT));
}

/// Something happened.
pub(crate) fn note(at: Ticks, what: What) {
    TRACE.with_borrow_mut(|trace| {
        trace.mixer.mix(at.0);
        what.hash(&mut trace.mixer);
        if trace.kept.len() >= trace.kept_max {
            trace.kept.pop_front();
        }
        trace.kept.push_back((at, what));
    });
}

/// Whether a run is going on, on this thread.
pub(crate) fn is_running() -> bool {
    TRACE.try_with(|trace| trace.try_borrow().is_ok_and(|trace| trace.running)).unwrap_or(false)
}

/// The run ends: its hash.
pub(crate) fn finish() -> u64 {
    TRACE.with_borrow_mut(|trace| {
        trace.running = false;
        trace.mixer.finish()
    })
}

/// The last events of the run, oldest first.
pub(crate) fn last(count: usize) -> Vec<String> {
    TRACE.with_borrow(|trace| {
        let skipped = trace.kept.len().saturating_sub(count);
        let line = |(at, what): &(Ticks, What)| {
            format!("{:>4}.{:06} s  {what}", at.0 / 1_000_000, at.0 % 1_000_000)
        };
        trace.kept.iter().skip(skipped).map(line).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hash depends on the order, the time and the content of what happened.
    #[test]
    fn every_part_of_an_event_counts() {
        let run = |events: &[(u64, u32)]| {
            begin(1);
            for &(at, node) in events {
                note(Ticks(at), What::Started(NodeId(node)));
            }
            finish()
        };
        let first = run(&[(1, 1), (2, 2)]);
        assert_eq!(first, run(&[(1, 1), (2, 2)]));
        assert_ne!(first, run(&[(1, 2), (2, 1)]));
        assert_ne!(first, run(&[(1, 1), (3, 2)]));
        assert_ne!(first, run(&[(1, 1)]));
    }
}
