//! A link: a connection to one address, as far as the core is concerned. It is made when it is
//! needed, and made anew when it was lost.

use std::collections::VecDeque;

use ringraft_types::{ShardId, Ticks};

use crate::error::{FrameError, WireError};
use crate::handshake::{Hello, RefusalCode, Welcome};
use crate::inbox::Inbox;
use crate::outbox::Outbox;

/// Names a connection between the core and its driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u32);

/// What last went wrong with a connection; says why calls don't complete.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// It could not be made, or was closed by the other end.
    #[error("{address}: no connection, or closed by the server: check that the node runs")]
    Closed {
        /// Where.
        address: String,
    },
    /// The handshake was refused.
    #[error("{address}: refused: {code}")]
    Refused {
        /// Where.
        address: String,
        /// Why.
        code: RefusalCode,
    },
    /// What arrived was no frame.
    #[error("{address}: {error}")]
    Frame {
        /// Where.
        address: String,
        /// Why.
        error: FrameError,
    },
    /// A frame's body was not what its kind says.
    #[error("{address}: {error}")]
    Wire {
        /// Where.
        address: String,
        /// Why.
        error: WireError,
    },
    /// The server said why it is about to close the connection.
    #[error("{address}: the server says: {sentence} (code {code})")]
    Server {
        /// Where.
        address: String,
        /// Its number.
        code: u32,
        /// Its sentence.
        sentence: String,
    },
    /// It didn't answer for too long.
    #[error("{address}: no answer for {waited_us} us: the node is overloaded or cut off")]
    Silent {
        /// Where.
        address: String,
        /// How long it was waited for.
        waited_us: u64,
    },
}

/// How far a link has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not connected, and not needed, or not before its time.
    Idle,
    /// The driver shall connect.
    Wanted,
    /// The driver is connecting.
    Connecting,
    /// The greeting is sent.
    Greeting,
    /// Frames flow.
    Open,
}

/// So long may connecting and greeting take.
pub(super) const CONNECT_TICKS_MAX: Ticks = Ticks::from_millis(1_000);
/// So long may a connection with unanswered requests be silent.
pub(super) const SILENT_TICKS_MAX: Ticks = Ticks::from_millis(1_000);
/// After so long a silence others are asked beside, at the earliest: longer than a disk's usual
/// hiccup, much shorter than an election.
const DOUBT_TICKS: Ticks = Ticks::from_millis(100);

/// One link.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) address: String,
    /// The shard to ask for; `None` for any.
    pub(super) shard: Option<ShardId>,
    pub(super) state: State,
    /// When it got into `state`.
    pub(super) since: Ticks,
    pub(super) inbox: Inbox,
    pub(super) outbox: Outbox,
    /// How the current connection was greeted.
    pub(super) hello: Option<Hello>,
    /// What the server said of itself, the last time.
    pub(super) welcome: Option<Welcome>,
    /// Requests that are not answered.
    pub(super) owed: usize,
    /// When the server was last heard of, or first owed something.
    pub(super) heard: Ticks,
    /// How long the greeting took to be answered, the last time.
    round_trip: Ticks,
    /// Connections in a row that didn't open.
    pub(super) failures: u32,
    /// Not before this is it connected again.
    pub(super) not_before: Ticks,
    /// Calls for this very node to send, by name.
    pub(super) own_queue: VecDeque<u64>,
    /// Status calls that are sent, in order: their answers don't name them.
    pub(super) status_out: VecDeque<u64>,
}

impl Link {
    pub(super) fn new(address: &str, shard: Option<ShardId>, outbox_bytes_max: usize) -> Self {
        Self {
            address: address.to_owned(),
            shard,
            state: State::Idle,
            since: Ticks::ZERO,
            inbox: Inbox::new(),
            outbox: Outbox::new(outbox_bytes_max),
            hello: None,
            welcome: None,
            owed: 0,
            heard: Ticks::ZERO,
            round_trip: Ticks::ZERO,
            failures: 0,
            not_before: Ticks::ZERO,
            own_queue: VecDeque::new(),
            status_out: VecDeque::new(),
        }
    }

    pub(super) fn enter(&mut self, state: State, now: Ticks) {
        if state == State::Open {
            self.round_trip = now.since(self.since);
        }
        self.state = state;
        self.since = now;
    }

    pub(super) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Wants a connection if there is none and it is time; says when it is time otherwise.
    pub(super) fn want(&mut self, now: Ticks) -> Result<(), Ticks> {
        if self.state == State::Idle {
            if now < self.not_before {
                return Err(self.not_before);
            }
            self.enter(State::Wanted, now);
        }
        Ok(())
    }

    /// Requests were sent.
    pub(super) fn owe(&mut self, count: usize, now: Ticks) {
        if self.owed == 0 {
            self.heard = now;
        }
        self.owed += count;
    }

    /// When it becomes doubtful that its node is there, unless it is heard of; `None` if nothing is
    /// expected of it.
    pub(super) fn doubted_at(&self) -> Option<Ticks> {
        match self.state {
            State::Idle => None,
            State::Wanted | State::Connecting | State::Greeting => {
                Some(self.since.after(DOUBT_TICKS))
            }
            State::Open if self.owed > 0 => {
                Some(self.heard.after(DOUBT_TICKS.max(Ticks(2 * self.round_trip.0))))
            }
            State::Open => None,
        }
    }

    /// Whether it is doubtful that its node is there, or it isn't to be connected again yet.
    pub(super) fn is_doubted(&self, now: Ticks) -> bool {
        let is_waiting = self.state == State::Idle && now < self.not_before;
        is_waiting || self.doubted_at().is_some_and(|at| at <= now)
    }

    /// When it must be given up unless something happens; `None` if it may rest.
    pub(super) fn gives_up_at(&self) -> Option<Ticks> {
        match self.state {
            State::Idle => None,
            State::Wanted | State::Connecting | State::Greeting => {
                Some(self.since.after(CONNECT_TICKS_MAX))
            }
            State::Open if self.owed > 0 => Some(self.heard.after(SILENT_TICKS_MAX)),
            State::Open => None,
        }
    }
}
