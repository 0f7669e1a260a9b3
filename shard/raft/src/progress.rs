//! What a leader knows of one follower, and when it may send it what.
//!
//! ```text
//!   Probe       where do the logs agree? One append at a time, repeated if unanswered.
//!   Replicate   they agree up to `matched`; appends leave one after the other, within a window.
//!   Fetching    as Replicate, but what comes next was asked from the disk; nothing leaves.
//!   Install     it needs what this log gave up: it is told so, again and again, and nothing else.
//! ```
//! A refusal, a lost link or a silence leads back to Probe; an answer to the probe to Replicate.
//! Whatever would be sent next from below the log's base leads to Install, and only the word that
//! the follower holds what was offered leads out of it: to Replicate. A lost link doesn't, for the
//! offer is a probe itself: a follower that holds as much as it names says so at once.

use crate::message::{Append, Message};
use crate::output::{Envelope, Fetch, Output};
use crate::replica::Replica;
use crate::settings::Settings;
use ringraft_types::{Index, LogId, NodeId, Ticks};
use std::collections::VecDeque;

#[derive(Debug)]
enum Flow {
    Probe {
        /// When the probe left; `None`: it has yet to.
        asked_at: Option<Ticks>,
        /// Whether an earlier one went unanswered: then it goes without entries.
        bare: bool,
    },
    Replicate,
    /// Waits for the entries from `next` on.
    Fetching,
    Install {
        /// The base that was named last.
        offered: Index,
        /// When; `None`: it is to be said again.
        asked_at: Option<Ticks>,
    },
}

/// An append in flight.
#[derive(Debug)]
struct InFlight {
    last: Index,
    bytes: u64,
}

#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) id: NodeId,
    /// The logs are known to agree, durably there, up to here. Zero again after a new connection,
    /// which may be to another life of the node.
    pub(crate) matched: Index,
    /// What the follower said of its commit index last. Zero again after a new connection, too.
    pub(crate) commit: Index,
    /// It isn't a member any more: until when it is sent to, for ever while the configuration that
    /// leaves it out isn't committed. `None`: a member.
    pub(crate) leaves_at: Option<Ticks>,
    /// When it last answered in this term.
    pub(crate) heard_at: Ticks,
    /// It said that it hibernates, when its leader last asked for that.
    pub(crate) hibernates: bool,
    /// The newest read round that it answered.
    pub(crate) round: u64,
    /// The first entry not sent yet. Above `matched`.
    next: Index,
    flow: Flow,
    /// A fetch not answered yet. May outlive the flow that asked for it.
    fetching: Option<Index>,
    /// No fetch before this: the last one could not be answered.
    fetch_at: Ticks,
    inflight: VecDeque<InFlight>,
    inflight_bytes: u64,
    /// Since when an answer to what is in flight is missing.
    waiting_since: Ticks,
}

impl Progress {
    /// A new leader's guess: the follower's log is as long as its own (thesis 3.5).
    pub(crate) fn new(id: NodeId, now: Ticks, next: Index) -> Self {
        Self {
            id,
            matched: Index::ZERO,
            commit: Index::ZERO,
            leaves_at: None,
            heard_at: now,
            hibernates: false,
            round: 0,
            next,
            flow: Flow::Probe { asked_at: None, bare: false },
            fetching: None,
            fetch_at: Ticks::ZERO,
            inflight: VecDeque::new(),
            inflight_bytes: 0,
            waiting_since: now,
        }
    }

    /// Whether the configuration in force names it.
    /// Whether it holds, durably, all that its leader holds, and nothing is on its way to it.
    pub(crate) fn is_level(&self, replica: &Replica) -> bool {
        matches!(self.flow, Flow::Replicate)
            && self.matched == replica.log().last()
            && self.inflight.is_empty()
    }

    pub(crate) fn is_member(&self) -> bool {
        self.leaves_at.is_none()
    }

    /// Sends whatever may leave now.
    pub(crate) fn feed(&mut self, replica: &Replica, now: Ticks, out: &mut Output) {
        match self.flow {
            Flow::Replicate => self.replicate(replica, now, out),
            // What it carried may reach beyond the base: the answer will tell.
            Flow::Probe { asked_at: Some(_), .. } | Flow::Install { asked_at: Some(_), .. } => {}
            Flow::Install { asked_at: None, .. } => self.offer(replica, now, out),
            Flow::Probe { .. } | Flow::Fetching if self.is_below(replica) => {
                self.offer(replica, now, out);
            }
            Flow::Probe { asked_at: None, bare } => self.probe(replica, now, bare, out),
            Flow::Fetching => {}
        }
    }

    /// Whether what would be sent next is not in the log any more.
    fn is_below(&self, replica: &Replica) -> bool {
        self.next <= replica.log().base().index
    }

    /// Says what the log doesn't hold any more; enters Install if it isn't there.
    fn offer(&mut self, replica: &Replica, now: Ticks, out: &mut Output) {
        if !self.is_member() {
            // Nobody installs a snapshot to learn that it left.
            self.leaves_at = Some(Ticks::ZERO);
            self.enter_probe(Some(now), true);
            return;
        }
        let base = replica.log().base();
        if !matches!(self.flow, Flow::Install { .. }) {
            self.enter_probe(None, false);
        }
        self.flow = Flow::Install { offered: base.index, asked_at: Some(now) };
        let message = Message::Install { term: replica.term(), base, commit: replica.commit() };
        out.send_now.push(Envelope { to: self.id, message });
    }

    fn probe(&mut self, replica: &Replica, now: Ticks, bare: bool, out: &mut Output) {
        self.flow = Flow::Probe { asked_at: Some(now), bare };
        let log = replica.log();
        let Settings { append_entries_max, append_bytes_max, .. } = replica.settings;
        let (count, _) = if bare || self.next < log.first_cached() {
            (0, 0)
        } else {
            log.batch(self.next, append_entries_max, append_bytes_max)
        };
        self.send(replica, count, out);
    }

    fn replicate(&mut self, replica: &Replica, now: Ticks, out: &mut Output) {
        let log = replica.log();
        let Settings { append_entries_max, append_bytes_max, .. } = replica.settings;
        while self.next <= log.last() {
            if self.next < log.first_cached() {
                if self.is_below(replica) {
                    self.offer(replica, now, out);
                } else if now >= self.fetch_at && self.has_room(append_bytes_max, &replica.settings)
                {
                    self.fetch(replica, out);
                }
                return;
            }
            let (count, bytes) = log.batch(self.next, append_entries_max, append_bytes_max);
            if !self.has_room(bytes, &replica.settings) {
                return;
            }
            self.send(replica, count, out);
            self.sent(count, bytes, now);
        }
    }

    /// Whether an append of so many bytes fits the window; into an empty one everything does.
    fn has_room(&self, bytes: u64, settings: &Settings) -> bool {
        self.inflight.is_empty()
            || (self.inflight.len() < settings.inflight_appends_max
                && self.inflight_bytes + bytes <= settings.inflight_bytes_max)
    }

    fn fetch(&mut self, replica: &Replica, out: &mut Output) {
        self.flow = Flow::Fetching;
        if self.fetching.is_some() {
            // One outstanding per follower; its answer leads back to Replicate and here.
            return;
        }
        let Settings { append_entries_max, append_bytes_max, .. } = replica.settings;
        let last = Index(self.next.0 + u64::from(append_entries_max.max(1)) - 1)
            .min(replica.log().first_cached().previous());
        self.fetching = Some(self.next);
        out.fetch.push(Fetch {
            peer: self.id,
            first: self.next,
            last,
            bytes_max: append_bytes_max,
        });
    }

    fn send(&self, replica: &Replica, count: u32, out: &mut Output) {
        let prev = self.next.previous();
        let term = replica.log().term_at(prev).expect("what a leader sends after, it holds");
        let append = Append {
            term: replica.term(),
            prev: LogId::new(term, prev),
            commit: replica.commit(),
            count,
        };
        out.send_now.push(Envelope { to: self.id, message: Message::Append(append) });
    }

    fn sent(&mut self, count: u32, bytes: u64, now: Ticks) {
        if self.inflight.is_empty() {
            self.waiting_since = now;
        }
        let last = Index(self.next.0 + u64::from(count) - 1);
        self.inflight.push_back(InFlight { last, bytes });
        self.inflight_bytes += bytes;
        self.next = last.next();
    }

    /// Entries came back from the log: `valid` of them are this log's still, of so many bytes.
    pub(crate) fn on_fetched(
        &mut self,
        replica: &Replica,
        now: Ticks,
        first: Index,
        valid: u32,
        bytes: u64,
        out: &mut Output,
    ) {
        if self.fetching != Some(first) {
            return;
        }
        self.fetching = None;
        if !matches!(self.flow, Flow::Fetching) {
            return;
        }
        self.flow = Flow::Replicate;
        if valid == 0 {
            self.fetch_at = now.after(replica.settings.heartbeat_interval);
        } else if first == self.next {
            self.send(replica, valid, out);
            self.sent(valid, bytes, now);
        }
    }

    /// The follower holds the log up to `matched`, durably.
    pub(crate) fn on_accepted(&mut self, matched: Index, now: Ticks) {
        self.matched = self.matched.max(matched);
        while let Some(oldest) = self.inflight.front() {
            if oldest.last > matched {
                break;
            }
            self.inflight_bytes -= oldest.bytes;
            self.inflight.pop_front();
            self.waiting_since = now;
        }
        let is_found = match self.flow {
            Flow::Probe { .. } => matched >= self.next.previous(),
            Flow::Install { offered, .. } => matched >= offered,
            Flow::Replicate | Flow::Fetching => false,
        };
        if is_found {
            self.flow = Flow::Replicate;
        }
        // A fetch under way is for what `next` was: it is left as it is unless overtaken.
        if self.next <= matched {
            self.next = matched.next();
        }
    }

    /// The follower doesn't hold `prev`; thesis 3.5's fast back-tracking, from both sides: the
    /// follower skips its entries of newer terms, the leader then its own. A follower that hasn't
    /// even got what it said it had gave up its group and joined it anew (decision 0033): it begins
    /// with nothing, and counts for nothing until it is asked again.
    pub(crate) fn on_rejected(&mut self, replica: &Replica, prev: Index, hint: LogId) {
        let is_stale = match self.flow {
            Flow::Probe { .. } => prev != self.next.previous(),
            Flow::Replicate | Flow::Fetching => prev <= self.matched || prev >= self.next,
            Flow::Install { .. } => true,
        };
        if is_stale {
            return;
        }
        if prev <= self.matched {
            (self.matched, self.commit) = (Index::ZERO, Index::ZERO);
        }
        let log = replica.log();
        let bound = hint.index.min(prev.previous());
        // A follower that held the base would have named it, or a later entry: then it needs what
        // is below, and gets an offer instead of a probe.
        let is_below = bound < log.base().index || hint.term < log.base().term;
        let agree = match is_below {
            true => Index::ZERO,
            false => log.newest_at_most(bound, hint.term).index,
        };
        self.enter_probe(None, false);
        self.next = agree.max(self.matched).next();
    }

    /// The follower answers a heartbeat, and says how far it knows what is committed. If that is
    /// less than it said before it may be one that joined anew, and is asked for what it holds.
    pub(crate) fn on_beat(&mut self, commit: Index) {
        let is_at_rest = matches!(self.flow, Flow::Replicate) && self.inflight.is_empty();
        if commit < self.commit && is_at_rest {
            self.enter_probe(None, true);
        }
        self.commit = self.commit.max(commit);
    }

    /// Begins anew after what is known to be matched.
    fn enter_probe(&mut self, asked_at: Option<Ticks>, bare: bool) {
        self.next = self.next.min(self.matched.next()).max(Index(1));
        self.flow = Flow::Probe { asked_at, bare };
        self.inflight.clear();
        self.inflight_bytes = 0;
    }

    /// What was in flight may never arrive. The probe is repeated until it is answered.
    pub(crate) fn on_link_down(&mut self, now: Ticks) {
        match &mut self.flow {
            Flow::Probe { asked_at, bare } => {
                *asked_at = Some(now);
                *bare = true;
            }
            // It is said again anyway.
            Flow::Install { .. } => {}
            Flow::Replicate | Flow::Fetching => self.enter_probe(Some(now), true),
        }
    }

    /// A new connection, maybe to another life of the node: what it holds must be asked.
    pub(crate) fn on_link_up(&mut self) {
        match &mut self.flow {
            Flow::Probe { asked_at, bare } => {
                *asked_at = None;
                *bare = false;
            }
            Flow::Install { asked_at, .. } => *asked_at = None,
            Flow::Replicate | Flow::Fetching => self.enter_probe(None, false),
        }
        (self.matched, self.commit) = (Index::ZERO, Index::ZERO);
    }

    /// Called at least every heartbeat interval: an answer that is long overdue was lost. A probe
    /// or an offer is repeated by the next heartbeat, which may follow it by a little less than the
    /// interval.
    pub(crate) fn recover(&mut self, settings: &Settings, now: Ticks) {
        let is_overdue = |asked_at: Option<Ticks>| {
            asked_at.is_some_and(|at| now.since(at) >= Ticks(settings.heartbeat_interval.0 / 2))
        };
        match &mut self.flow {
            Flow::Probe { asked_at, bare } => {
                if is_overdue(*asked_at) {
                    *asked_at = None;
                    *bare = true;
                }
            }
            Flow::Install { asked_at, .. } => {
                if is_overdue(*asked_at) {
                    *asked_at = None;
                }
            }
            Flow::Replicate | Flow::Fetching => {
                let waited = now.since(self.waiting_since);
                if !self.inflight.is_empty() && waited >= settings.election_timeout {
                    self.enter_probe(None, true);
                }
            }
        }
    }

    /// Walks the window; for debug assertions.
    pub(crate) fn is_sound(&self, replica: &Replica) -> bool {
        let settings = &replica.settings;
        // A fetched record's length isn't known when it is asked for: the newest may be over.
        let first = self.inflight.front().map_or(0, |one| one.bytes);
        let newest = self.inflight.back().map_or(0, |one| one.bytes);
        let earlier = self.inflight_bytes - newest;
        let base = replica.log().base().index;
        let (is_in_place, may_fly) = match self.flow {
            Flow::Probe { .. } => (true, false),
            Flow::Replicate | Flow::Fetching => (self.next > base, true),
            Flow::Install { offered, .. } => (self.next <= offered && offered <= base, false),
        };
        is_in_place
            && self.matched < self.next
            && self.next <= replica.log().last().next()
            && self.inflight.iter().map(|one| one.bytes).sum::<u64>() == self.inflight_bytes
            && self.inflight.len() <= settings.inflight_appends_max.max(1)
            && earlier <= settings.inflight_bytes_max.max(first)
            && (self.inflight.is_empty() || may_fly)
    }
}
