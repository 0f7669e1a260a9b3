//! A group as a client sees it: what waits for it, and who leads it.

use std::collections::VecDeque;

use ringraft_types::{ClientId, GroupId, NodeId, Ticks};

use super::calls::Calls;
use super::session::Session;
use crate::client_wire::Member;

/// Draws client names and jitter: a splitmix64 per half of the seed.
#[derive(Debug)]
pub(super) struct Random {
    low: u64,
    high: u64,
}

impl Random {
    pub(super) fn new(seed: u128) -> Self {
        Self { low: seed as u64, high: (seed >> 64) as u64 }
    }

    fn next(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = *state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    pub(super) fn client_id(&mut self) -> ClientId {
        let (low, high) = (Self::next(&mut self.low), Self::next(&mut self.high));
        ClientId(u128::from(high) << 64 | u128::from(low))
    }

    /// A pause after this many failures in a row: 10 ms, doubled with each up to 200 ms, half of
    /// it random.
    pub(super) fn backoff(&mut self, failures: u32) -> Ticks {
        self.about(Ticks::from_millis(200.min(10 << failures.min(5))))
    }

    /// A pause of somebody who has looked for a leader for so long: a sixteenth of that, 20 ms at
    /// least and 200 ms at most, half of it random. So the pause in which a leader is elected is
    /// hardly longer for it, and who looks for long asks seldom.
    pub(super) fn pause(&mut self, sought_for: Ticks) -> Ticks {
        let (least, most) = (Ticks::from_millis(20), Ticks::from_millis(200));
        self.about(Ticks(sought_for.0 / 16).clamp(least, most))
    }

    fn about(&mut self, full: Ticks) -> Ticks {
        Ticks(full.0 / 2 + Self::next(&mut self.low) % (full.0 / 2))
    }
}

/// Who leads, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leader {
    /// It is looked for.
    Seeking {
        /// The link that is asked, or will be.
        target: Option<usize>,
        /// Whether the question is sent.
        asked: bool,
        /// Nobody is asked before this.
        not_before: Ticks,
    },
    /// This link leads to it.
    Leading(usize),
}

impl Leader {
    /// Looks for the leader anew, not before a time.
    pub(super) const fn seek(not_before: Ticks) -> Self {
        Self::Seeking { target: None, asked: false, not_before }
    }
}

/// One group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: GroupId,
    /// Writes without a number, oldest first.
    pub(super) writes: VecDeque<u32>,
    /// Reads to send, oldest first.
    pub(super) reads: VecDeque<u32>,
    pub(super) reads_retry_at: Ticks,
    /// Questions about members and changes of them to send, oldest first.
    pub(super) asks: VecDeque<u32>,
    /// Calls that only ask where the group is.
    pub(super) locates: Vec<u32>,
    /// Where they are asked while the leader is known.
    pub(super) locate_on: Option<usize>,
    pub(super) session: Session,
    /// Where the session's attempts are out.
    pub(super) session_on: Option<usize>,
    pub(super) leader: Leader,
    /// The link that led until it fell silent: others are asked, and until one of them leads it may
    /// speak again.
    pub(super) doubted: Option<usize>,
    /// Since when a leader is looked for in vain.
    sought_since: Option<Ticks>,
    /// Who might lead, if a refusal said so.
    pub(super) hint: Option<NodeId>,
    pub(super) members: Vec<Member>,
    /// Whom to ask next: counts through endpoints and members.
    pub(super) next_asked: usize,
    /// Attempts in a row that led nowhere.
    pub(super) failures: u32,
    /// Nodes in a row that said that there is no such group.
    pub(super) absent: usize,
}

impl Group {
    pub(super) fn new(id: GroupId, client: ClientId) -> Self {
        Self {
            id,
            writes: VecDeque::new(),
            reads: VecDeque::new(),
            reads_retry_at: Ticks::ZERO,
            asks: VecDeque::new(),
            locates: Vec::new(),
            locate_on: None,
            session: Session::new(client),
            session_on: None,
            leader: Leader::seek(Ticks::ZERO),
            doubted: None,
            sought_since: None,
            hint: None,
            members: Vec::new(),
            next_asked: 0,
            failures: 0,
            absent: 0,
        }
    }

    /// Whether anything waits for the leader.
    pub(super) fn has_work(&self) -> bool {
        !(self.writes.is_empty()
            && self.reads.is_empty()
            && self.asks.is_empty()
            && self.locates.is_empty()
            && self.session.is_empty()
            && self.doubted.is_none())
    }

    /// A link leads, or does again.
    pub(super) fn found(&mut self, link: usize) {
        self.leader = Leader::Leading(link);
        (self.doubted, self.sought_since) = (None, None);
    }

    /// Nobody is asked before this, after one more that led nowhere.
    pub(super) fn seek_later(&mut self, now: Ticks, random: &mut Random) -> Ticks {
        let since = *self.sought_since.get_or_insert(now);
        now.after(random.pause(now.since(since)))
    }

    /// Puts the session in order if it is time, after anything that may have changed it.
    pub(super) fn settle(&mut self, calls: &mut Calls, random: &mut Random) {
        self.session.settle(calls, &mut self.writes, || random.client_id());
        if !self.session.is_out() {
            self.session_on = None;
        }
    }

    /// Forgets what waits and was reported already.
    pub(super) fn forget_reported(&mut self, calls: &mut Calls) {
        let mut keep = |slot: &u32| {
            let is_reported = calls.get(*slot).reported;
            if is_reported {
                calls.close(*slot);
            }
            !is_reported
        };
        self.writes.retain(&mut keep);
        self.reads.retain(&mut keep);
        self.asks.retain(&mut keep);
        self.locates.retain(&mut keep);
    }
}
