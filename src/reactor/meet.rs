//! How connections begin: greetings judged, handed to the shard they are meant for, peers dialled.

use super::{LaneError, Reactor, join};
use crate::control::LogEvent;
use crate::parcel::Parcel;
use crate::seats::Seat;
use io_uring::opcode;
use io_uring::types::Fd;
use ringraft_net::Inbox;
use ringraft_net::connection::State;
use ringraft_net::handshake::{Hello, RefusalCode, Role, Welcome};
use ringraft_shard::event::Event;
use ringraft_shard::{Greeting, PeerAdmission};
use ringraft_types::tag::{Owner, Tag};
use ringraft_types::{Met, NodeId, Ticks};
use rustix::net::sockopt;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// A host that acknowledges nothing for this long is gone.
const GONE_TIME: Duration = Duration::from_secs(8);

impl Reactor {
    pub(super) fn take_connected(&mut self) -> Result<(), LaneError> {
        for (slot, generation, result) in std::mem::take(&mut self.connected) {
            let Some(socket) = self.shard.links.get_generation(slot, generation) else { continue };
            socket.sending = false;
            socket.address = None;
            let State::Dialing(node, role) = socket.state else { continue };
            let failed = result < 0 || socket.closing;
            // A dial that was given up meanwhile is freed from the list.
            self.shard.links.list(slot);
            if failed {
                self.close(slot)?;
                continue;
            }
            let links = &self.shard.links;
            let greeting = links.host.greeting(role, links.shard, node, self.shard.met(node));
            if let Some(socket) = self.shard.links.get(slot) {
                socket.state = State::Dialed(node, role);
                socket.outbox.push(&greeting);
            }
        }
        Ok(())
    }

    pub(super) fn greeted(
        &mut self,
        slot: u32,
        port: Role,
        hello: Result<Hello, RefusalCode>,
    ) -> Result<(), LaneError> {
        let host = self.shard.links.host.at(port);
        let judged = hello.and_then(|hello| hello.judge(&host).map(|version| (hello, version)));
        let (hello, version) = match judged {
            Ok(judged) => judged,
            Err(code) => {
                return self.turn_away(slot, port, code, None);
            }
        };
        self.shard.links.give_time(slot, self.now);
        let wanted = hello.wanted_shard.unwrap_or(self.shard.links.shard);
        if wanted != self.shard.links.shard {
            return self.hand_off(slot, hello, usize::from(wanted.0));
        }
        self.seat(slot, &hello, version)
    }

    /// Gives a connection that greeted another shard to that shard.
    pub(super) fn hand_off(
        &mut self,
        slot: u32,
        hello: Hello,
        lane: usize,
    ) -> Result<(), LaneError> {
        let socket = self.shard.links.get(slot).expect("it just greeted");
        let inbox = std::mem::take(&mut socket.inbox);
        let Ok(fd) = socket.fd.try_clone() else { return self.close(slot) };
        let seat = socket.seat.take();
        self.shard.links.release(slot);
        // A full ring drops the descriptor, which closes it: the other side dials again.
        let parcel = Parcel::Handoff { socket: fd, hello, inbox, seat };
        let _ = self.shard.links.mesh.send(lane, parcel);
        Ok(())
    }

    pub(super) fn adopt(
        &mut self,
        fd: OwnedFd,
        hello: &Hello,
        inbox: Inbox,
        seat: Option<Seat>,
    ) -> Result<(), LaneError> {
        let slot = self.shard.links.insert(fd, State::greeted(hello), inbox, seat, self.now);
        let host = self.shard.links.host.at(hello.role.port());
        match hello.judge(&host) {
            Ok(version) => self.seat(slot, hello, version)?,
            Err(code) => self.turn_away(slot, hello.role.port(), code, None)?,
        }
        self.ready.push(slot);
        Ok(())
    }

    /// Answers a greeting that is meant for this shard.
    pub(super) fn seat(&mut self, slot: u32, hello: &Hello, version: u8) -> Result<(), LaneError> {
        if hello.role == Role::Client {
            self.shard.links.get(slot).expect("it just greeted").state = State::Client;
            self.shard.links.welcome(slot, Role::Client, version, None);
            return Ok(());
        }
        let node = hello.sender.node;
        let greeting = Greeting::from(hello);
        if hello.role == Role::Bulk {
            if !self.shard.admit_bulk(node, greeting.from) {
                return self.turn_away(slot, Role::Peer, RefusalCode::Busy, None);
            }
            if let Some(old) = self.shard.links.serves(node, slot) {
                self.close(old)?;
            }
            self.shard.links.welcome(slot, Role::Peer, version, greeting.met);
            return Ok(());
        }
        // As it was before this greeting.
        let met = self.shard.met(node);
        let admission = self.shard.admit_peer(self.now, node, greeting)?;
        if let Some((code, met)) = admission.refusal() {
            self.say_unwelcome(node, admission, greeting.from);
            return self.turn_away(slot, Role::Peer, code, met);
        }
        self.shard.links.welcome(slot, Role::Peer, version, met);
        self.link_is_up(slot, node, Role::Peer)
    }

    /// A peer has another directory than the one on record, or an older copy of it. Said once: it
    /// dials, or is dialled, on.
    fn say_unwelcome(&mut self, peer: NodeId, admission: PeerAdmission, shown: Met) {
        let event = match admission {
            PeerAdmission::WrongIncarnation { known } => {
                LogEvent::IncarnationChanged { peer, known, shown: shown.incarnation }
            }
            PeerAdmission::RolledBack { known } => {
                let (known, shown) = (known.start.number, shown.start.number);
                LogEvent::PeerRolledBack { peer, known, shown }
            }
            PeerAdmission::Welcome
            | PeerAdmission::Forgot
            | PeerAdmission::Itself
            | PeerAdmission::Full => return,
        };
        let link = self.shard.links.table.get(peer, Role::Peer).expect("who is judged is a peer");
        if link.shown.replace(shown) != Some(shown) {
            self.say(event);
        }
    }

    /// Refuses a greeting. `met` is what was met of a peer, if that is why.
    pub(super) fn turn_away(
        &mut self,
        slot: u32,
        port: Role,
        code: RefusalCode,
        met: Option<Met>,
    ) -> Result<(), LaneError> {
        let links = &self.shard.links;
        let refusal = links.host.at(port).answer(links.shard, Err(code), met);
        if let Some(socket) = self.shard.links.get(slot) {
            send_last(&socket.fd, &refusal);
        }
        self.close(slot)
    }

    pub(super) fn welcomed(
        &mut self,
        slot: u32,
        node: NodeId,
        role: Role,
        welcome: Result<Welcome, RefusalCode>,
    ) -> Result<(), LaneError> {
        if role == Role::Bulk {
            let is_admitted = welcome.is_ok_and(|welcome| {
                welcome.verdict.is_ok()
                    && self.shard.admit_bulk(node, Greeting::from(&welcome).from)
            });
            return if is_admitted { self.link_is_up(slot, node, role) } else { self.close(slot) };
        }
        let judged = match &welcome {
            Ok(welcome) => {
                let judged = self.shard.admit_answer(self.now, node, welcome)?;
                judged.map(|admission| (admission, Greeting::from(welcome).from))
            }
            Err(code) => Err(*code),
        };
        let code = match judged {
            Ok((PeerAdmission::Welcome, _)) => return self.link_is_up(slot, node, role),
            Ok((admission, shown)) => {
                self.say_unwelcome(node, admission, shown);
                return self.close(slot);
            }
            Err(code) => code,
        };
        let link =
            self.shard.links.table.get(node, Role::Peer).expect("who is no peer isn't dialed");
        if link.refused.replace(code) != Some(code) {
            self.say(LogEvent::PeerRefused { peer: node, reason: code.sentence() });
        }
        self.close(slot)
    }

    fn link_is_up(&mut self, slot: u32, node: NodeId, role: Role) -> Result<(), LaneError> {
        let (up, down) = match role {
            Role::Bulk => (Event::PullUp(node), Event::PullDown(node)),
            _ => (Event::PeerUp(node), Event::PeerDown(node)),
        };
        if let Some(old) = self.shard.links.link_up(node, role, slot) {
            self.shard.links.close(old, self.now);
            self.shard.collect(self.now, down)?.expect("a lost link is no frame");
        }
        if role == Role::Peer {
            self.say(LogEvent::PeerConnected { shard: self.shard.links.shard, peer: node });
        }
        self.shard.collect(self.now, up)?.expect("a link is no frame");
        Ok(())
    }

    pub(super) fn dial(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        for (node, role, address) in self.shard.links.table.due(self.now) {
            match address.parse::<SocketAddr>() {
                Ok(address) => self.dial_address(node, role, address),
                Err(_) => {
                    let link = self.shard.links.table.get(node, role).expect("it was just found");
                    link.resolving = true;
                    self.lane.resolver.ask(node, address);
                }
            }
        }
    }

    pub(super) fn take_resolved(&mut self) {
        while let Some((node, found)) = self.lane.resolver.answer() {
            for role in [Role::Peer, Role::Bulk] {
                let Some(link) = self.shard.links.table.get(node, role) else { continue };
                if !std::mem::take(&mut link.resolving) {
                    continue;
                }
                match found {
                    Ok(address) => self.dial_address(node, role, address),
                    Err(_) => {
                        link.dial.postpone(self.now.after(Ticks::from_millis(1_000)));
                        self.say(LogEvent::PeerNotFound { peer: node });
                    }
                }
            }
        }
    }

    fn dial_address(&mut self, node: NodeId, role: Role, address: SocketAddr) {
        let later = self.now.after(Ticks::from_millis(200));
        let link = self.shard.links.table.get(node, role).expect("only peers are dialed");
        link.dial.postpone(later);
        let domain = socket2::Domain::for_address(address);
        let Ok(socket) = socket2::Socket::new(domain, socket2::Type::STREAM, None) else { return };
        let fd = OwnedFd::from(socket);
        prepare(&fd);
        let state = State::Dialing(node, role);
        let slot = self.shard.links.insert(fd, state, Inbox::new(), None, self.now);
        self.shard.links.table.get(node, role).expect("it was just found").dial.dialed(slot);
        let socket = self.shard.links.get(slot).expect("just inserted");
        let address = Box::new(socket2::SockAddr::from(address));
        let (pointer, length) = (address.as_ptr(), address.len());
        socket.address = Some(address);
        socket.sending = true;
        let generation = socket.generation;
        let entry = opcode::Connect::new(Fd(socket.fd.as_raw_fd()), pointer.cast(), length)
            .build()
            .user_data(Tag::new(Owner::Connect, join(slot, generation)).0);
        self.push(entry);
    }
}

/// Small frames leave at once, and a host that is gone is noticed, whether something waits to be
/// acknowledged or not. A socket that refuses an option is slower at that, nothing else.
pub(super) fn prepare(fd: &OwnedFd) {
    let _ = sockopt::set_tcp_nodelay(fd, true);
    let _ = sockopt::set_socket_keepalive(fd, true);
    let _ = sockopt::set_tcp_keepidle(fd, GONE_TIME / 2);
    let _ = sockopt::set_tcp_keepintvl(fd, GONE_TIME / 4);
    let _ = sockopt::set_tcp_keepcnt(fd, 2);
    let _ = sockopt::set_tcp_user_timeout(fd, GONE_TIME.as_millis() as u32);
}

/// The last words on a connection. What the socket doesn't take at once is lost: it is closed.
pub(super) fn send_last(fd: &OwnedFd, bytes: &[u8]) {
    let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
    let _ = rustix::net::send(fd, bytes, flags);
}
