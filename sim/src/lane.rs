//! One shard's thread: what `src/reactor.rs` is in a node, over the simulated disk and network.
//! The order of things is the same:
//!
//! ```text
//! reap completions -> drain the mesh -> read the clock -> greet, dial, frames in -> turn -> submit
//! ```

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringraft_net::barrier_wire::BarrierReply;
use ringraft_net::connection::State;
use ringraft_net::handshake::{HANDSHAKE_BYTES, Hello, RefusalCode, Role, Welcome};
use ringraft_net::patience::SWEEP_TIME;
use ringraft_net::{Frame, FrameHeader, Inbox, Kind};
use ringraft_shard::links::Links as _;
use ringraft_shard::{Event, FrameRefusal, Greeting, PeerAdmission, Shard, ShardError, Wake, mesh};
use ringraft_types::{GroupId, Met, NodeId, ShardId, Ticks};

use crate::base::{Base, Owner};
use crate::disk::SimDisk;
use crate::links::{Parcel, SimLinks};
use crate::net::{Network, Received};
use crate::options::Options;

/// Notes which lanes were rung.
#[derive(Debug, Default)]
struct Bell(RefCell<Vec<usize>>);

impl mesh::Wake for Bell {
    fn wake(&self, lane: usize) {
        self.0.borrow_mut().push(lane);
    }
}

/// Bytes that left for a peer: whole frames, behind a greeting perhaps.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) to: NodeId,
    pub(crate) bytes: Vec<u8>,
}

/// A lane that serves.
pub(crate) struct Lane {
    owner: Owner,
    /// The shard with its doors.
    pub(crate) shard: Shard<SimDisk, SimLinks>,
    now: Ticks,
    /// Connections about which the system has news.
    pub(crate) news: BTreeSet<u64>,
    /// Connections that were made to this node's ports; the first lane's only.
    pub(crate) accepted: Vec<u64>,
    ready: Vec<u32>,
    ended: Vec<u32>,
    dialled: Vec<(u32, bool)>,
    next_sweep: Ticks,
    is_parked: bool,
    /// There is more to take in.
    has_more: bool,
    bell: Bell,
    /// What left in the last run for peers.
    pub(crate) sent: Vec<Sent>,
    /// What clients were told in the last run of how far entries have come.
    pub(crate) told: Vec<(GroupId, BarrierReply)>,
    /// Frames of peers that were refused in the last run, and why.
    pub(crate) refused: Vec<(NodeId, FrameRefusal)>,
    /// When a frame of each peer was taken last.
    heard: BTreeMap<NodeId, Ticks>,
    /// Since when it leads which group, the last time it did.
    led: BTreeMap<GroupId, Ticks>,
}

impl Lane {
    /// A lane over a shard that was just made.
    pub(crate) fn new(owner: Owner, shard: Shard<SimDisk, SimLinks>, now: Ticks) -> Self {
        Self {
            owner,
            shard,
            now,
            news: BTreeSet::new(),
            accepted: Vec::new(),
            ready: Vec::new(),
            ended: Vec::new(),
            dialled: Vec::new(),
            next_sweep: Ticks::ZERO,
            is_parked: false,
            has_more: false,
            bell: Bell::default(),
            sent: Vec::new(),
            told: Vec::new(),
            refused: Vec::new(),
            heard: BTreeMap::new(),
            led: BTreeMap::new(),
        }
    }

    /// A group has its leader here from now on.
    pub(crate) fn leads(&mut self, group: GroupId) {
        self.led.insert(group, self.now);
    }

    /// Whether enough to commit were heard recently enough, by the clock of the last round, for a group
    /// to have its leader here.
    pub(crate) fn may_lead(&self, group: GroupId, options: &Options) -> bool {
        let oldest = Ticks(self.now.0.saturating_sub(2 * options.raft.election_timeout.0));
        let began = self.led.get(&group).copied().unwrap_or_default();
        let own = NodeId(self.owner.host as u32 + 1);
        let is_heard =
            |node: &&NodeId| **node == own || self.heard.get(*node).is_some_and(|&at| at >= oldest);
        let hears = |voters: &[NodeId]| {
            voters.is_empty()
                || voters.iter().filter(is_heard).count() >= options.enough(voters.len())
        };
        // By any configuration that may be in force: one may just have changed.
        let mut all = self.shard.configurations(group);
        began >= oldest || all.any(|it| hears(it.voters()) && hears(it.outgoing()))
    }

    /// Tells the other lanes what the groups here hold, if they must hear it. Returns whether so.
    /// What the system group says is told as well.
    pub(crate) fn tell_data(&mut self, lanes: usize) -> bool {
        let own = self.owner.lane;
        let placement = self.shard.placement_to_tell();
        if let Some(placement) = &placement {
            for lane in (0..lanes).filter(|&lane| lane != own) {
                let parcel = Parcel::Placement(Arc::clone(placement));
                let _ = self.shard.links.mesh.send(lane, parcel);
            }
        }
        let Some(bytes) = self.shard.data_to_tell() else { return placement.is_some() };
        for lane in (0..lanes).filter(|&lane| lane != own) {
            // Its ring has room for more than a simulated node ever sends.
            let _ = self.shard.links.mesh.send(lane, Parcel::DataBytes(ShardId(own as u16), bytes));
        }
        true
    }

    /// Tells the other lanes that the data directory is an older copy.
    pub(crate) fn tell_older_copy(&mut self, lanes: usize) {
        let own = self.owner.lane;
        for lane in (0..lanes).filter(|&lane| lane != own) {
            // Its ring has room for more than a simulated node ever sends.
            let _ = self.shard.links.mesh.send(lane, Parcel::OlderCopy);
        }
    }

    /// Lanes that were rung since the last call.
    pub(crate) fn take_rung(&mut self) -> Vec<usize> {
        self.bell.0.take()
    }

    /// One round. `clock` is what the clock says now. Returns when the next one is due, by that
    /// clock.
    pub(crate) fn run(
        &mut self,
        base: &mut Base,
        network: &mut Network,
        clock: Ticks,
    ) -> Result<Ticks, ShardError> {
        if std::mem::take(&mut self.is_parked) {
            self.shard.links.mesh.awake();
        }
        self.has_more = false;
        self.reap(base, network);
        self.drain_mesh(base, network, clock)?;
        self.greet_accepted(network);
        self.take_dialled(base, network)?;
        self.take_frames(base, network)?;
        self.dial(base, network);
        self.sweep(base, network)?;
        let wake = self.shard.turn(self.now)?;
        self.shard.links.flush_remote();
        self.send(base, network);
        for slot in std::mem::take(&mut self.shard.links.closed) {
            self.close(base, network, slot)?;
        }
        Ok(self.rest(wake))
    }

    /// Rings the others; when the next round is due.
    fn rest(&mut self, wake: Wake) -> Ticks {
        self.shard.links.mesh.ring_doorbells(&self.bell);
        let next = match wake {
            Wake::Now => self.now,
            Wake::At(at) => at.min(self.now.after(SWEEP_TIME)),
            Wake::OnEvent => self.now.after(SWEEP_TIME),
        };
        if next <= self.now || self.has_more {
            return self.now;
        }
        self.is_parked = self.shard.links.mesh.may_park();
        if self.is_parked { next } else { self.now }
    }

    fn reap(&mut self, base: &mut Base, network: &mut Network) {
        let reads_peers = self.shard.reads_peers();
        for connection in std::mem::take(&mut self.news) {
            let links = &mut self.shard.links;
            let Some(slot) = links.slot_of(connection) else { continue };
            links.list(slot);
            let socket = links.get(slot).expect("a slot in use holds a socket");
            match socket.state {
                State::Dialing(..) => {
                    if let Some(is_made) = network.dialled(connection) {
                        self.dialled.push((slot, is_made));
                    }
                    continue;
                }
                State::Peer(_) if !reads_peers => {
                    self.news.insert(connection);
                    continue;
                }
                State::Client if socket.stalled || socket.outbox.is_full() => {
                    socket.stalled = true;
                    self.news.insert(connection);
                    continue;
                }
                _ => {}
            }
            let space = socket.inbox.space();
            match network.receive(base, connection, socket.side, space) {
                Received::Bytes(count, has_more) => {
                    socket.inbox.filled(count);
                    self.ready.push(slot);
                    if has_more {
                        self.news.insert(connection);
                        self.has_more = true;
                    }
                }
                Received::Nothing => {}
                Received::Ended => self.ended.push(slot),
            }
        }
    }

    fn drain_mesh(
        &mut self,
        base: &mut Base,
        network: &mut Network,
        clock: Ticks,
    ) -> Result<(), ShardError> {
        let mut parcels = Vec::new();
        self.shard.links.mesh.drain(256, |_, parcel| parcels.push(parcel));
        assert!(clock >= self.now, "the clock of a process never goes back");
        self.now = clock;
        for parcel in parcels {
            match parcel {
                Parcel::Handoff { connection, hello, inbox } => {
                    self.adopt(base, network, connection, &hello, inbox)?;
                }
                Parcel::ClientFrame { from, header, body } => {
                    let frame = Frame { header, body: &body };
                    let event = Event::ClientFrame { from, frame };
                    // A refused frame was checked by the shard that took it.
                    let _ = self.shard.collect(clock, event)?;
                }
                Parcel::Answers { to, bytes } => {
                    if let Some(outbox) = self.shard.links.client(to) {
                        outbox.push(&bytes);
                    }
                }
                Parcel::OlderCopy => {
                    let told = self.shard.collect(clock, Event::OlderCopy)?;
                    told.expect("a verdict is no frame");
                }
                Parcel::Placement(placement) => {
                    let event = Event::Placement(&placement);
                    self.shard.collect(clock, event)?.expect("a placement is no frame");
                }
                Parcel::DataBytes(shard, bytes) => {
                    let event = Event::DataBytes(shard, bytes);
                    self.shard.collect(clock, event)?.expect("a number is no frame");
                }
                Parcel::Drop(client) => {
                    let links = &mut self.shard.links;
                    if links.get_generation(client.slot, client.generation).is_some() {
                        self.close(base, network, client.slot)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn greet_accepted(&mut self, network: &Network) {
        for connection in std::mem::take(&mut self.accepted) {
            let Some(port) = network.port(connection) else { continue };
            let state = State::Greeting { port };
            self.shard.links.insert(connection, 1, state, Inbox::new(), self.now);
            self.news.insert(connection);
            self.has_more = true;
        }
    }

    fn take_dialled(&mut self, base: &mut Base, network: &mut Network) -> Result<(), ShardError> {
        for (slot, is_made) in std::mem::take(&mut self.dialled) {
            let links = &mut self.shard.links;
            let Some(State::Dialing(node, role)) = links.get(slot).map(|socket| socket.state)
            else {
                continue;
            };
            if !is_made {
                self.close(base, network, slot)?;
                continue;
            }
            let links = &self.shard.links;
            let greeting = links.host.greeting(role, links.shard, node, self.shard.met(node));
            let links = &mut self.shard.links;
            let socket = links.get(slot).expect("it was just there");
            socket.state = State::Dialed(node, role);
            socket.outbox.push(&greeting);
            links.list(slot);
        }
        Ok(())
    }

    fn take_frames(&mut self, base: &mut Base, network: &mut Network) -> Result<(), ShardError> {
        for slot in std::mem::take(&mut self.ready) {
            self.take_frames_of(base, network, slot)?;
            self.shard.links.list(slot);
        }
        for slot in std::mem::take(&mut self.ended) {
            self.close(base, network, slot)?;
        }
        Ok(())
    }

    fn take_frames_of(
        &mut self,
        base: &mut Base,
        network: &mut Network,
        slot: u32,
    ) -> Result<(), ShardError> {
        let Some(socket) = self.shard.links.get(slot) else { return Ok(()) };
        match socket.state {
            State::Greeting { port } => {
                let Some(bytes) = socket.inbox.take_handshake() else { return Ok(()) };
                self.greeted(base, network, slot, port, Hello::decode(&bytes))?;
            }
            State::Dialed(node, role) => {
                let Some(bytes) = socket.inbox.take_handshake() else { return Ok(()) };
                self.welcomed(base, network, slot, (node, role), Welcome::decode(&bytes))?;
            }
            _ => {}
        }
        let Some(socket) = self.shard.links.get(slot) else { return Ok(()) };
        let state = socket.state;
        if !state.is_open() {
            return Ok(());
        }
        // The inbox leaves its socket meanwhile: the shard may write to the same socket's outbox.
        let mut inbox = std::mem::take(&mut socket.inbox);
        let is_refused = self.collect(slot, state, &mut inbox)?;
        if let Some(socket) = self.shard.links.get(slot) {
            socket.inbox = inbox;
        }
        if is_refused {
            base.count("frames refused");
            self.close(base, network, slot)?;
        }
        Ok(())
    }

    /// Gives the shard all whole frames. Whether the stream broke the rules.
    fn collect(&mut self, slot: u32, state: State, inbox: &mut Inbox) -> Result<bool, ShardError> {
        let connection = self.shard.links.connection_id(slot);
        loop {
            let Some(socket) = self.shard.links.get(slot) else { return Ok(false) };
            if state == State::Client {
                // Its answers would have no place to wait.
                socket.stalled = socket.outbox.is_full();
                if socket.stalled {
                    return Ok(false);
                }
            }
            let frame = match inbox.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(false),
                Err(error) => panic!("V13: bytes of a peer or client are no frame: {error}"),
            };
            self.shard.links.give_time(slot, self.now);
            if let State::Peer(from) = state {
                self.heard.insert(from, self.now);
            }
            let event = match state {
                State::Peer(from) => Event::PeerFrame { from, frame },
                State::Pull(from) | State::Serve(from) => Event::BulkFrame { from, frame },
                _ => Event::ClientFrame { from: connection, frame },
            };
            if let Err(refusal) = self.shard.collect(self.now, event)? {
                match state {
                    State::Peer(from) | State::Pull(from) | State::Serve(from) => {
                        self.refused.push((from, refusal))
                    }
                    _ => panic!("V13: a frame of the client library is refused: {refusal}"),
                }
                return Ok(true);
            }
        }
    }

    fn greeted(
        &mut self,
        base: &mut Base,
        network: &mut Network,
        slot: u32,
        port: Role,
        hello: Result<Hello, RefusalCode>,
    ) -> Result<(), ShardError> {
        let host = self.shard.links.host.at(port);
        let judged = hello.and_then(|hello| hello.judge(&host).map(|version| (hello, version)));
        let (hello, version) = match judged {
            Ok(judged) => judged,
            Err(code) => return self.turn_away(base, network, slot, port, code, None),
        };
        self.shard.links.give_time(slot, self.now);
        let wanted = hello.wanted_shard.unwrap_or(self.shard.links.shard);
        if wanted == self.shard.links.shard {
            return self.seat(base, network, slot, &hello, version);
        }
        let lane = usize::from(wanted.0);
        let mut socket = self.shard.links.close(slot, self.now).expect("it just greeted");
        let (connection, inbox) = (socket.connection, std::mem::take(&mut socket.inbox));
        network.hand_over(connection, 1, lane);
        let parcel = Parcel::Handoff { connection, hello, inbox };
        if self.shard.links.mesh.send(lane, parcel).is_err() {
            // The other side dials again.
            network.close(base, connection, 1);
        }
        Ok(())
    }

    fn adopt(
        &mut self,
        base: &mut Base,
        network: &mut Network,
        connection: u64,
        hello: &Hello,
        inbox: Inbox,
    ) -> Result<(), ShardError> {
        let slot = self.shard.links.insert(connection, 1, State::greeted(hello), inbox, self.now);
        let host = self.shard.links.host.at(hello.role.port());
        match hello.judge(&host) {
            Ok(version) => self.seat(base, network, slot, hello, version)?,
            Err(code) => self.turn_away(base, network, slot, hello.role.port(), code, None)?,
        }
        self.ready.push(slot);
        self.news.insert(connection);
        self.has_more = true;
        Ok(())
    }

    /// Answers a greeting that is meant for this shard.
    fn seat(
        &mut self,
        base: &mut Base,
        network: &mut Network,
        slot: u32,
        hello: &Hello,
        version: u8,
    ) -> Result<(), ShardError> {
        if hello.role == Role::Client {
            self.shard.links.get(slot).expect("it just greeted").state = State::Client;
            self.shard.links.welcome(slot, Role::Client, version, None);
            return Ok(());
        }
        let node = hello.sender.node;
        if hello.role == Role::Bulk {
            let greeting = Greeting::from(hello);
            if !self.shard.admit_bulk(node, greeting.from) {
                return self.turn_away(base, network, slot, Role::Peer, RefusalCode::Busy, None);
            }
            if let Some(old) = self.shard.links.serves(node, slot) {
                self.close(base, network, old)?;
            }
            self.shard.links.welcome(slot, Role::Peer, version, greeting.met);
            base.count("bulk links made");
            return Ok(());
        }
        // As it was before this greeting.
        let met = self.shard.met(node);
        let admission = self.shard.admit_peer(self.now, node, Greeting::from(hello))?;
        if let Some((code, met)) = admission.refusal() {
            count_unwelcome(base, admission);
            return self.turn_away(base, network, slot, Role::Peer, code, met);
        }
        self.shard.links.welcome(slot, Role::Peer, version, met);
        self.link_is_up(base, network, slot, (node, Role::Peer))
    }

    fn turn_away(
        &mut self,
        base: &mut Base,
        network: &mut Network,
        slot: u32,
        port: Role,
        code: RefusalCode,
        met: Option<Met>,
    ) -> Result<(), ShardError> {
        let links = &self.shard.links;
        let refusal = links.host.at(port).answer(links.shard, Err(code), met);
        if let Some(socket) = self.shard.links.get(slot) {
            network.send(base, socket.connection, socket.side, refusal.to_vec());
        }
        self.close(base, network, slot)
    }

    fn welcomed(
        &mut self,
        base: &mut Base,
        network: &mut Network,
        slot: u32,
        (node, role): (NodeId, Role),
        welcome: Result<Welcome, RefusalCode>,
    ) -> Result<(), ShardError> {
        let Ok(welcome) = welcome else { return self.close(base, network, slot) };
        if role == Role::Bulk {
            let is_admitted = welcome.verdict.is_ok()
                && self.shard.admit_bulk(node, Greeting::from(&welcome).from);
            return if is_admitted {
                self.link_is_up(base, network, slot, (node, role))
            } else {
                self.close(base, network, slot)
            };
        }
        match self.shard.admit_answer(self.now, node, &welcome)? {
            Ok(PeerAdmission::Welcome) => {
                return self.link_is_up(base, network, slot, (node, role));
            }
            Ok(admission) => count_unwelcome(base, admission),
            Err(_) => {}
        }
        self.close(base, network, slot)
    }

    fn link_is_up(
        &mut self,
        base: &mut Base,
        network: &mut Network,
        slot: u32,
        (node, role): (NodeId, Role),
    ) -> Result<(), ShardError> {
        let (up, down) = match role {
            Role::Bulk => (Event::PullUp(node), Event::PullDown(node)),
            _ => (Event::PeerUp(node), Event::PeerDown(node)),
        };
        if let Some(old) = self.shard.links.link_up(node, role, slot) {
            if let Some(socket) = self.shard.links.close(old, self.now) {
                network.close(base, socket.connection, socket.side);
            }
            self.shard.collect(self.now, down)?.expect("a lost link is no frame");
        }
        base.count("links made");
        self.shard.collect(self.now, up)?.expect("a link is no frame");
        Ok(())
    }

    fn close(
        &mut self,
        base: &mut Base,
        network: &mut Network,
        slot: u32,
    ) -> Result<(), ShardError> {
        let Some(socket) = self.shard.links.close(slot, self.now) else { return Ok(()) };
        network.close(base, socket.connection, socket.side);
        let down = match socket.state {
            state if !self.shard.links.table.is_down(state) => return Ok(()),
            State::Peer(node) => Event::PeerDown(node),
            State::Pull(node) => Event::PullDown(node),
            _ => return Ok(()),
        };
        self.shard.collect(self.now, down)?.expect("a lost link is no frame");
        Ok(())
    }

    fn dial(&mut self, base: &mut Base, network: &mut Network) {
        let now = self.now;
        for (node, role, _) in self.shard.links.table.due(now) {
            let connection = network.connect(base, self.owner, node.0 as usize - 1, Role::Peer);
            let links = &mut self.shard.links;
            let state = State::Dialing(node, role);
            let slot = links.insert(connection, 0, state, Inbox::new(), now);
            let dial = &mut links.table.get(node, role).expect("it was just found").dial;
            dial.postpone(now.after(Ticks::from_millis(200)));
            dial.dialed(slot);
        }
    }

    fn sweep(&mut self, base: &mut Base, network: &mut Network) -> Result<(), ShardError> {
        if self.now < self.next_sweep {
            return Ok(());
        }
        self.next_sweep = self.now.after(SWEEP_TIME);
        for slot in self.shard.links.overdue(self.now) {
            base.count("net: closed for want of progress");
            self.close(base, network, slot)?;
        }
        Ok(())
    }

    /// Hands what waits in outboxes to the system, as far as it takes it.
    fn send(&mut self, base: &mut Base, network: &mut Network) {
        for slot in std::mem::take(&mut self.shard.links.listed) {
            let (shard, now) = (self.shard.links.shard.0, self.now);
            let Some(socket) = self.shard.links.get(slot) else { continue };
            if socket.outbox.is_empty() || matches!(socket.state, State::Dialing(..)) {
                continue;
            }
            let (connection, side) = (socket.connection, socket.side);
            let room = network.room(connection, side);
            if room == 0 {
                socket.stuck_since.get_or_insert(now);
                continue;
            }
            let bytes = socket.take_bytes(room);
            let is_rest = !socket.outbox.is_empty();
            socket.stuck_since = is_rest.then_some(now);
            if std::mem::take(&mut socket.stalled) {
                self.ready.push(slot);
                self.has_more = true;
            }
            if let State::Peer(to) = socket.state {
                self.sent.push(Sent { to, bytes: bytes.clone() });
                network.send(base, connection, side, bytes);
                network.sends_frames(connection, side, shard);
            } else {
                if socket.state == State::Client {
                    self.told.extend(levels(&bytes));
                }
                network.send(base, connection, side, bytes);
            }
            if is_rest {
                base.count("net: an outbox taken in part");
                network.room(connection, side);
            }
        }
    }
}

/// What a client is told of levels, in whole frames, behind a greeting perhaps.
fn levels(bytes: &[u8]) -> Vec<(GroupId, BarrierReply)> {
    let mut rest = bytes;
    if rest.starts_with(b"RRWE") {
        rest = &rest[HANDSHAKE_BYTES..];
    }
    let mut levels = Vec::new();
    while let Some(head) = rest.first_chunk() {
        let header = FrameHeader::decode(head).expect("V13: a node sends sound frames");
        let (frame, after) = rest.split_at(header.frame_bytes());
        if header.kind == Kind::BarrierReply {
            let body = &frame[head.len()..];
            let reply = BarrierReply::decode(body).expect("V13: a node sends sound frames");
            levels.push((header.group, reply));
        }
        rest = after;
    }
    levels
}

fn count_unwelcome(base: &mut Base, admission: PeerAdmission) {
    match admission {
        PeerAdmission::WrongIncarnation { .. } => base.count("refused: another incarnation"),
        PeerAdmission::RolledBack { .. } => base.count("refused: an older copy"),
        PeerAdmission::Forgot => base.count("refused: this one is an older copy"),
        PeerAdmission::Welcome | PeerAdmission::Itself => {}
        PeerAdmission::Full => base.count("refused: no room"),
    }
}
