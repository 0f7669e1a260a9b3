//! What a connection of a shard is, from the greeting to its end, and when one is made. The hot
//! lane's sockets and the simulator's go by this.

use crate::handshake::{Hello, Role};
use crate::patience::{DIAL_PAUSE, DIAL_TIME, FRAME_TIME, GREETING_TIME, SECOND_DIAL};
use ringraft_types::{NodeId, Ticks};

/// What a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Accepted; its greeting is awaited.
    Greeting {
        /// Which port it came to.
        port: Role,
    },
    /// A connect to a peer is under way, to be a peer's or to fetch snapshots.
    Dialing(NodeId, Role),
    /// Our greeting is sent; the welcome is awaited.
    Dialed(NodeId, Role),
    /// A peer's shard.
    Peer(NodeId),
    /// Snapshots are fetched from a peer's shard here.
    Pull(NodeId),
    /// A peer's shard fetches snapshots here.
    Serve(NodeId),
    /// A client.
    Client,
}

impl State {
    /// What an accepted connection is by its greeting.
    pub fn greeted(hello: &Hello) -> Self {
        match hello.role {
            Role::Peer => Self::Peer(hello.sender.node),
            Role::Bulk => Self::Serve(hello.sender.node),
            Role::Client => Self::Client,
        }
    }

    /// What a link's connection is once it is up.
    pub fn linked(node: NodeId, role: Role) -> Self {
        if role == Role::Bulk { Self::Pull(node) } else { Self::Peer(node) }
    }

    /// Whether frames come and go.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Peer(_) | Self::Pull(_) | Self::Serve(_) | Self::Client)
    }

    /// The link of which it is, or is to be, the connection.
    pub fn link(self) -> Option<(NodeId, Role)> {
        match self {
            Self::Dialing(node, role) | Self::Dialed(node, role) => Some((node, role)),
            Self::Peer(node) => Some((node, Role::Peer)),
            Self::Pull(node) => Some((node, Role::Bulk)),
            Self::Greeting { .. } | Self::Serve(_) | Self::Client => None,
        }
    }

    /// How long what it awaits at its beginning may take.
    pub fn patience(self) -> Ticks {
        match self {
            Self::Greeting { .. } => GREETING_TIME,
            Self::Dialing(..) => DIAL_TIME,
            _ => FRAME_TIME,
        }
    }
}

/// When another node's shard is dialled, and which connection came of it.
///
/// Of two peers the one with the smaller number dials first. The other one does so too when there
/// has been no connection for a while: a node that was removed is dialled by nobody, and is to
/// learn of it.
#[derive(Debug)]
pub struct Dial {
    /// The connection in use, once welcomed.
    pub up: Option<u32>,
    role: Role,
    is_wanted: bool,
    is_second: bool,
    dialing: Option<u32>,
    next: Ticks,
    pause: Ticks,
}

impl Dial {
    /// Nothing is dialled yet. `own` dials `node`; a connection for snapshots always by itself.
    pub fn new(own: NodeId, node: NodeId, role: Role) -> Self {
        Self {
            up: None,
            role,
            is_wanted: false,
            is_second: role != Role::Bulk && node < own,
            dialing: None,
            next: Ticks::ZERO,
            pause: DIAL_PAUSE.0,
        }
    }

    /// From now on it is dialled, or not any more. One for snapshots is dialled once.
    pub fn want(&mut self, now: Ticks, is_wanted: bool) {
        if is_wanted && !self.is_wanted && self.is_second {
            self.next = self.next.max(now.after(SECOND_DIAL));
        }
        self.is_wanted = is_wanted;
    }

    /// When to dial, if nothing changes before; [`Ticks::NEVER`]: not until something does.
    pub fn due_at(&self) -> Ticks {
        let is_open = self.is_wanted && self.up.is_none() && self.dialing.is_none();
        if is_open { self.next } else { Ticks::NEVER }
    }

    /// Whether to dial now.
    pub fn is_due(&self, now: Ticks) -> bool {
        let due_at = self.due_at();
        due_at <= now && due_at < Ticks::NEVER
    }

    /// Not before this instant.
    pub fn postpone(&mut self, until: Ticks) {
        self.next = until;
    }

    /// The slots of its connections: the one in use, and the one that is being made.
    pub fn slots(&self) -> impl Iterator<Item = u32> + use<> {
        self.up.into_iter().chain(self.dialing)
    }

    /// It is dialled over this slot.
    pub fn dialed(&mut self, slot: u32) {
        self.dialing = Some(slot);
    }

    /// It is up over this slot. An older connection is replaced; its slot is returned.
    pub fn linked(&mut self, slot: u32) -> Option<u32> {
        // Connections for snapshots are made when they are wanted.
        self.is_wanted &= self.role != Role::Bulk;
        self.dialing.take_if(|dialing| *dialing == slot);
        self.pause = DIAL_PAUSE.0;
        self.up.replace(slot).filter(|&old| old != slot)
    }

    /// The connection of a slot is closed.
    pub fn closed(&mut self, now: Ticks, slot: u32) {
        if self.up.take_if(|up| *up == slot).is_some() {
            self.next = if self.is_second { now.after(SECOND_DIAL) } else { now };
        }
        if self.dialing.take_if(|dialing| *dialing == slot).is_some() {
            self.is_wanted &= self.role != Role::Bulk;
            self.next = now.after(self.pause);
            self.pause = Ticks((self.pause.0 * 2).min(DIAL_PAUSE.1.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Ticks = Ticks(SECOND_DIAL.0 - 1);

    /// Who dials, when: the smaller number at once, the other after a while without a connection.
    #[test]
    fn who_dials_when() {
        let (one, two) = (NodeId(1), NodeId(2));
        let mut first = Dial::new(one, two, Role::Peer);
        assert!(!first.is_due(LATER), "nobody wants it");
        first.want(Ticks(5), true);
        assert!(first.is_due(Ticks(5)));
        first.dialed(3);
        assert!(!first.is_due(LATER), "it is dialled already");
        assert_eq!(first.linked(3), None);
        assert!(!first.is_due(LATER), "it is up");
        first.closed(Ticks(7), 3);
        assert!(first.is_due(Ticks(7)));
        let mut second = Dial::new(two, one, Role::Peer);
        second.want(Ticks(5), true);
        assert!(!second.is_due(LATER) && second.is_due(Ticks(5).after(SECOND_DIAL)));
        assert_eq!((second.linked(4), second.linked(6)), (None, Some(4)));
        second.closed(Ticks(9), 4);
        assert_eq!(second.up, Some(6), "the one that was replaced");
        second.closed(Ticks(9), 6);
        assert!(!second.is_due(LATER) && second.is_due(Ticks(9).after(SECOND_DIAL)));
        second.want(Ticks(9), false);
        assert!(!second.is_due(Ticks::NEVER));
    }

    /// Pauses grow while dials fail; a connection for snapshots is dialled once.
    #[test]
    fn dials_that_fail() {
        let mut dial = Dial::new(NodeId(2), NodeId(1), Role::Bulk);
        dial.want(Ticks(0), true);
        assert!(dial.is_due(Ticks(0)), "whoever asks for a snapshot dials");
        dial.dialed(1);
        dial.closed(Ticks(0), 1);
        assert!(!dial.is_due(Ticks::NEVER), "until it is wanted again");
        let mut peer = Dial::new(NodeId(1), NodeId(2), Role::Peer);
        peer.want(Ticks(0), true);
        let mut now = Ticks(0);
        let pauses: Vec<Ticks> = (0..8)
            .map(|slot| {
                peer.dialed(slot);
                peer.closed(now, slot);
                let before = now;
                now = peer.next;
                now.since(before)
            })
            .collect();
        assert!(pauses.is_sorted() && pauses[0] == DIAL_PAUSE.0 && pauses[7] == DIAL_PAUSE.1);
    }
}
