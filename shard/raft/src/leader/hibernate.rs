//! How an idle group comes to rest, and wakes.
//!
//! Of a leader that was asked for nothing for a while the heartbeats ask the followers to hibernate:
//! to wait for no heartbeats any more. When all that are there agree, it sends none but one in a
//! long while, and no group costs anything that nobody uses. What they rest on is their owners' word:
//! the shards of leader and follower show each other that they live, for all their groups at once,
//! and wake those that rest on one that doesn't ([`crate::Input::Wake`]).
//!
//! ```text
//!   awake --- idle ---> asks --- all agree ---> hibernates
//!     ^                  |                          |
//!     +---- anything is asked, a link goes or comes, a follower doesn't agree
//! ```
//! An append, or a heartbeat that doesn't ask for it, wakes a follower; an answer that doesn't agree
//! wakes a leader. Neither can go astray without the connection's end, which wakes both. So nothing
//! that matters rests on the heartbeat in a long while; it bounds what an error of ours costs.
//!
//! Nothing about elections or commitment changes: a lease ends when its time is over, and the first
//! read after that asks a majority. A follower that hibernates helps nobody else into office, as one
//! that hears its leader.

use super::{Leader, next_beat};
use crate::output::Output;
use crate::progress::Progress;
use crate::replica::Replica;
use crate::settings::Settings;
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::{NodeId, Ticks};

/// A group that hibernates sends its heartbeats this many times more rarely.
const REST_INTERVALS: u64 = 600;
/// A follower that hibernates and heard none of so many of those in a row stands for election.
const RESTS_MISSED: u64 = 3;
/// A member that wasn't heard for so many election timeouts isn't waited for.
const ABSENT_TIMEOUTS: u64 = 10;

/// For how long beyond an election timeout a follower that hibernates waits for its leader.
pub(crate) fn patience(settings: &Settings) -> Ticks {
    Ticks(settings.heartbeat_interval.0.saturating_mul(REST_INTERVALS * RESTS_MISSED))
}

#[derive(Debug)]
pub(super) struct Idleness {
    /// When something was asked of the group last.
    busy_at: Ticks,
    /// When it woke last.
    woke_at: Ticks,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Awake,
    /// Answers to this round of heartbeats, or to a later one, count.
    Asks {
        round: u64,
    },
    Hibernates,
}

impl Idleness {
    pub(super) fn new(now: Ticks) -> Self {
        Self { busy_at: now, woke_at: now, stage: Stage::Awake }
    }
}

impl Leader {
    /// Whether nobody is sent heartbeats.
    pub(crate) fn hibernates(&self) -> bool {
        self.idleness.stage == Stage::Hibernates
    }

    /// Whether heartbeats ask followers to hibernate.
    pub(super) fn asks_to_hibernate(&self) -> bool {
        self.idleness.stage != Stage::Awake
    }

    /// How often heartbeats leave.
    pub(super) fn beat_interval(&self, replica: &Replica) -> Ticks {
        let interval = replica.settings.heartbeat_interval;
        match self.hibernates() {
            true => Ticks(interval.0.saturating_mul(REST_INTERVALS)),
            false => interval,
        }
    }

    /// The group is asked for something, or what it rests on isn't sure: it is awake for a while.
    #[inline]
    pub(crate) fn stir(&mut self, replica: &Replica, now: Ticks) {
        self.idleness.busy_at = now;
        if self.idleness.stage != Stage::Awake {
            self.wake(replica, now);
        }
    }

    #[cold]
    fn wake(&mut self, replica: &Replica, now: Ticks) {
        if self.hibernates() {
            self.idleness.woke_at = now;
            self.quorum_at = now.after(replica.settings.election_timeout);
            self.heartbeat_at = next_beat(now, replica.settings.heartbeat_interval);
        }
        self.idleness.stage = Stage::Awake;
    }

    /// A leader that hibernates isn't sure any more that it is followed: a member was heard at
    /// `heard_at` and not since. It asks all of them at once, and leads on until two election timeouts
    /// after that at most, if no majority answers (N02).
    pub(crate) fn doubt(
        &mut self,
        replica: &Replica,
        now: Ticks,
        heard_at: Ticks,
        out: &mut Output,
    ) {
        assert!(self.hibernates(), "who is awake asks all the time");
        self.stir(replica, now);
        let timeout = replica.settings.election_timeout;
        self.idleness.woke_at = heard_at;
        self.quorum_at = heard_at.after(Ticks(2 * timeout.0)).max(now.after(Ticks(timeout.0 / 2)));
        self.send_heartbeats(replica, now, out);
    }

    /// When a node was there last: its answers show it, and its owner's word while it hibernates.
    pub(super) fn reached_at(&self, peer: &Progress, now: Ticks) -> Ticks {
        match peer.hibernates {
            true if self.hibernates() => now,
            true => peer.heard_at.max(self.idleness.woke_at),
            false => peer.heard_at,
        }
    }

    /// Whether a member was there within an election timeout.
    pub(crate) fn has_heard(&self, replica: &Replica, now: Ticks, node: NodeId) -> bool {
        let timeout = replica.settings.election_timeout;
        let is_there = |peer: &Progress| now.since(self.reached_at(peer, now)) < timeout;
        self.peer(node).is_some_and(|peer| peer.is_member() && is_there(peer))
    }

    /// Heartbeats are due: whether they ask to hibernate.
    pub(super) fn look_idle(&mut self, replica: &Replica, now: Ticks) {
        if self.hibernates() {
            return;
        }
        let is_asking = self.asks_to_hibernate();
        if !self.may_hibernate(replica, now) {
            self.idleness.stage = Stage::Awake;
        } else if !is_asking {
            self.reads.begin_bare();
            self.idleness.stage = Stage::Asks { round: self.reads.newest() };
            for peer in &mut self.peers {
                peer.hibernates = false;
            }
        }
    }

    /// Whether nothing is under way or owed, and all that are there hold everything.
    fn may_hibernate(&self, replica: &Replica, now: Ticks) -> bool {
        let settings = &replica.settings;
        now.since(self.idleness.busy_at) >= settings.hibernate_after
            && replica.is_at_rest()
            && self.is_ready(replica)
            && self.transfer.is_none()
            && self.resigns_at.is_none()
            && !self.reads.is_waiting()
            && !self.reads.is_confirming()
            && self.peers.iter().all(|peer| {
                peer.is_member() && (peer.is_level(replica) || is_absent(peer, settings, now))
            })
    }

    /// A follower answered a heartbeat.
    pub(super) fn on_idle_answer(
        &mut self,
        replica: &Replica,
        now: Ticks,
        from: NodeId,
        (round, hibernates): (u64, bool),
    ) {
        let Some(position) = self.position(from) else { return };
        #[cfg(ringraft_plant)]
        let hibernates = hibernates || planted(Plant::RestsUnasked);
        match self.idleness.stage {
            Stage::Awake => self.peers[position].hibernates = false,
            Stage::Asks { round: asked } => {
                self.peers[position].hibernates = hibernates && round >= asked;
                let settings = &replica.settings;
                let agrees = |peer: &Progress| peer.hibernates || is_absent(peer, settings, now);
                if hibernates && self.may_hibernate(replica, now) && self.peers.iter().all(agrees) {
                    self.idleness.stage = Stage::Hibernates;
                    self.heartbeat_at = next_beat(now, self.beat_interval(replica));
                    self.quorum_at = Ticks::NEVER;
                }
            }
            Stage::Hibernates => {
                self.peers[position].hibernates &= hibernates;
                if !hibernates {
                    self.stir(replica, now);
                }
            }
        }
    }
}

/// Whether a member is gone for so long that the others needn't stay awake for it.
fn is_absent(peer: &Progress, settings: &Settings, now: Ticks) -> bool {
    now.since(peer.heard_at).0 >= settings.election_timeout.0.saturating_mul(ABSENT_TIMEOUTS)
}
