//! The sockets of one shard, and the network door over them.
//!
//! Owned by the shard's thread. Bytes come in and go out through the reactor; what a connection
//! is (a greeting not yet read, a client, a peer) is decided here.

use crate::parcel::Parcel;
use crate::seats::{Seat, Seats};
use ringraft_net::connection::State;
use ringraft_net::handshake::{Host, Role};
use ringraft_net::link_table::LinkTable;
use ringraft_net::patience::{FRAME_TIME, SEND_TIME};
use ringraft_net::{Frame, Identity, Inbox, Outbox};
use ringraft_shard::links::{ConnectionId, Links};
use ringraft_shard::mesh::MeshEnd;
use ringraft_types::{Met, NodeId, ShardId, Start, Ticks};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

/// What may wait for one client, bytes; when it is reached, the client isn't read, and its reads
/// are refused as busy.
const CLIENT_OUTBOX_BYTES: usize = 8 << 20;
/// A client that lets this much wait is closed: answers to its writes can't be refused.
const CLIENT_OUTBOX_BYTES_MAX: usize = 4 * CLIENT_OUTBOX_BYTES;
/// What may wait for one peer, bytes; appends beyond it are sent again later.
const PEER_OUTBOX_BYTES: usize = 16 << 20;
/// What may wait for a peer that fetches snapshots, bytes: a few chunks.
const BULK_OUTBOX_BYTES: usize = 1 << 20;
/// Connections that may be at the peer port before their greeting, beside the peers themselves.
const PEER_GREETINGS_MAX: usize = 256;

/// One connection.
pub struct Socket {
    /// The descriptor.
    pub fd: OwnedFd,
    /// What arrived.
    pub inbox: Inbox,
    /// What leaves.
    pub outbox: Outbox,
    /// What it is.
    pub state: State,
    /// A receive is in flight: the inbox's space belongs to the kernel.
    pub receiving: bool,
    /// A send is in flight: the outbox's flying buffer belongs to the kernel.
    pub sending: bool,
    /// No new operation is started; the slot is freed when none is in flight.
    pub closing: bool,
    /// In the list of sockets to look at before the next submission.
    pub listed: bool,
    /// A client whose outbox is full: its frames are not looked at, and no more are received.
    pub stalled: bool,
    /// When the send in flight began.
    pub sent_at: Ticks,
    /// A client's place among those of the node.
    pub seat: Option<Seat>,
    is_client: bool,
    /// When patience ends: of a greeting, a dial, or a frame that isn't whole.
    pub deadline: Ticks,
    /// Kept in place for a connect in flight.
    pub address: Option<Box<socket2::SockAddr>>,
    /// Which tenant of its slot this is.
    pub generation: u32,
}

impl Drop for Socket {
    /// What is in flight is given up, not freed: the kernel may still touch it (I-08). That only
    /// happens to the sockets that a lane has when it ends.
    fn drop(&mut self) {
        if self.receiving {
            std::mem::forget(std::mem::take(&mut self.inbox));
        }
        if self.sending {
            std::mem::forget(std::mem::replace(&mut self.outbox, Outbox::new(0)));
            std::mem::forget(self.address.take());
        }
    }
}

/// All sockets of a shard.
pub struct Wires {
    /// Who we are.
    pub host: Host,
    /// Which shard this is.
    pub shard: ShardId,
    sockets: Vec<Option<Box<Socket>>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    /// The other nodes.
    pub table: LinkTable,
    /// Sockets that the reactor must look at before it submits.
    pub listed: Vec<u32>,
    /// Frames for clients of other shards, by connection.
    remote: BTreeMap<ConnectionId, Outbox>,
    /// This lane's end of the mesh.
    pub mesh: MeshEnd<Parcel>,
    seats: Seats,
    clients: usize,
    /// Sockets that are no clients'.
    others: usize,
    /// Bytes sent to peers.
    pub peer_bytes_sent: u64,
    /// Connections that were closed for what they sent.
    pub frames_refused: u64,
    /// Times that the system had no descriptor or memory for a connection.
    pub accepts_failed: u64,
}

impl Wires {
    /// No sockets yet.
    pub fn new(
        identity: Identity,
        start: Start,
        shard: ShardId,
        shards: u16,
        mesh: MeshEnd<Parcel>,
        seats: Seats,
    ) -> Self {
        Self {
            host: Host { identity, shards, port: Role::Client, start },
            shard,
            sockets: Vec::new(),
            generations: Vec::new(),
            free: Vec::new(),
            table: LinkTable::new(identity.node),
            listed: Vec::new(),
            remote: BTreeMap::new(),
            mesh,
            seats,
            clients: 0,
            others: 0,
            peer_bytes_sent: 0,
            frames_refused: 0,
            accepts_failed: 0,
        }
    }

    /// Takes in a connection that was just accepted. Returns its slot, or gives it back if there
    /// are too many.
    ///
    /// # Errors
    /// If the limit of connections is reached. Clients never take the place of peers.
    pub fn accepted(&mut self, fd: OwnedFd, port: Role, now: Ticks) -> Result<u32, OwnedFd> {
        let others_max = 3 * self.table.peers() + PEER_GREETINGS_MAX;
        let seat = match port {
            Role::Client => self.seats.take(),
            Role::Peer | Role::Bulk => None,
        };
        if seat.is_none() && (port == Role::Client || self.others >= others_max) {
            return Err(fd);
        }
        Ok(self.insert(fd, State::Greeting { port }, Inbox::new(), seat, now))
    }

    /// Takes a socket in. Returns its slot.
    pub fn insert(
        &mut self,
        fd: OwnedFd,
        state: State,
        inbox: Inbox,
        seat: Option<Seat>,
        now: Ticks,
    ) -> u32 {
        let is_client = seat.is_some();
        let slot = self.free.pop().unwrap_or_else(|| {
            self.sockets.push(None);
            self.generations.push(0);
            (self.sockets.len() - 1) as u32
        });
        let generation = self.generations[slot as usize];
        self.clients += usize::from(is_client);
        self.others += usize::from(!is_client);
        let limit = match state {
            State::Pull(_) | State::Serve(_) | State::Dialing(_, Role::Bulk) => BULK_OUTBOX_BYTES,
            State::Peer(_) | State::Dialing(..) | State::Greeting { port: Role::Peer } => {
                PEER_OUTBOX_BYTES
            }
            State::Greeting { .. } | State::Dialed(..) | State::Client => CLIENT_OUTBOX_BYTES,
        };
        self.sockets[slot as usize] = Some(Box::new(Socket {
            fd,
            inbox,
            outbox: Outbox::new(limit),
            state,
            receiving: false,
            sending: false,
            closing: false,
            listed: false,
            stalled: false,
            sent_at: now,
            seat,
            is_client,
            deadline: now.after(state.patience()),
            address: None,
            generation,
        }));
        self.list(slot);
        slot
    }

    /// The socket in a slot, if there is one.
    pub fn get(&mut self, slot: u32) -> Option<&mut Socket> {
        self.sockets.get_mut(slot as usize)?.as_deref_mut()
    }

    /// The socket in a slot, if it is still the tenant that the generation names.
    pub fn get_generation(&mut self, slot: u32, generation: u32) -> Option<&mut Socket> {
        self.get(slot).filter(|socket| socket.generation == generation)
    }

    /// Puts a socket on the list of those to look at before the next submission.
    pub fn list(&mut self, slot: u32) {
        if let Some(Some(socket)) = self.sockets.get_mut(slot as usize)
            && !socket.listed
        {
            socket.listed = true;
            self.listed.push(slot);
        }
    }

    /// Where what leaves over a slot is written; it is looked at before the next submission.
    fn outbox(&mut self, slot: u32) -> Option<&mut Outbox> {
        self.list(slot);
        self.get(slot).filter(|socket| !socket.closing).map(|socket| &mut socket.outbox)
    }

    /// How a client on this shard is named.
    pub fn connection_id(&mut self, slot: u32) -> ConnectionId {
        let generation = self.generations[slot as usize];
        ConnectionId { shard: self.shard, slot, generation }
    }

    /// Begins to close a socket. What it was is returned, so that the shard can be told.
    pub fn close(&mut self, slot: u32, now: Ticks) -> Option<State> {
        let socket = self.sockets.get_mut(slot as usize)?.as_deref_mut()?;
        if socket.closing {
            return None;
        }
        socket.closing = true;
        let state = socket.state;
        // Whatever is in flight completes now; an error means it was not connected.
        let _ = rustix::net::shutdown(&socket.fd, rustix::net::Shutdown::Both);
        self.list(slot);
        self.table.closed(now, slot, state);
        Some(state)
    }

    /// Frees a slot whose socket is closed and has nothing in flight.
    pub fn free_if_idle(&mut self, slot: u32) -> bool {
        let place = &mut self.sockets[slot as usize];
        let idle =
            |socket: &mut Box<Socket>| socket.closing && !socket.receiving && !socket.sending;
        let Some(socket) = place.take_if(idle) else { return false };
        self.generations[slot as usize] = self.generations[slot as usize].wrapping_add(1);
        self.free.push(slot);
        self.clients -= usize::from(socket.is_client);
        self.others -= usize::from(!socket.is_client);
        true
    }

    /// A socket's greeting or frame was whole: the next one has all its time.
    pub fn give_time(&mut self, slot: u32, now: Ticks) {
        if let Some(socket) = self.get(slot) {
            socket.deadline = now.after(FRAME_TIME);
        }
    }

    /// Slots whose patience is over.
    pub fn overdue(&mut self, now: Ticks, out: &mut Vec<u32>) {
        for (slot, place) in self.sockets.iter_mut().enumerate() {
            let Some(socket) = place else { continue };
            let is_open = socket.state.is_open();
            // The frames of a stalled client may be whole.
            if is_open && (socket.inbox.waiting() == 0 || socket.stalled) {
                socket.deadline = now.after(FRAME_TIME);
            }
            let is_stuck = is_open && socket.sending && now.since(socket.sent_at) > SEND_TIME;
            if (is_stuck || socket.deadline <= now) && !socket.closing {
                out.push(slot as u32);
            }
        }
    }

    /// Frees a slot whose socket went to another shard: nothing of it is in flight.
    pub fn release(&mut self, slot: u32) {
        if let Some(socket) = self.get(slot) {
            assert!(!socket.receiving && !socket.sending, "its buffers are the kernel's (I-08)");
            socket.closing = true;
            self.free_if_idle(slot);
        }
    }

    /// Clients there are, those included that have not greeted yet.
    pub fn clients(&self) -> usize {
        self.clients
    }

    /// Whether every answer that was given to a client has left.
    pub fn are_answers_sent(&self) -> bool {
        let is_sent = |socket: &Socket| {
            let is_open = socket.state == State::Client && !socket.closing;
            !is_open || !socket.sending && socket.outbox.waiting() == 0
        };
        self.sockets.iter().flatten().all(|socket| is_sent(socket))
    }

    /// Whether enough peers are connected to commit anything.
    pub fn has_majority(&self) -> bool {
        let nodes = self.table.peers() + 1;
        self.table.connected() + 1 > nodes / 2
    }

    /// A peer fetches snapshots over this slot. An older connection is replaced; its slot is
    /// returned.
    pub fn serves(&mut self, node: NodeId, slot: u32) -> Option<u32> {
        self.get(slot).expect("the slot was just in use").state = State::Serve(node);
        self.table.serves(node, slot)
    }

    /// A link to a peer is up over this slot. An older one is replaced; its slot is returned.
    pub fn link_up(&mut self, node: NodeId, role: Role, slot: u32) -> Option<u32> {
        let socket = self.get(slot).expect("the slot was just in use");
        socket.state = State::linked(node, role);
        self.table.linked(node, role, slot)
    }

    /// Hands what was written for clients of other shards to the mesh. What finds no room waits
    /// here for the next turn, up to the limit of a client's outbox; a client that is over it is
    /// dropped by its own shard, as if it had stopped reading.
    pub fn flush_remote(&mut self) {
        let Self { remote, mesh, .. } = self;
        remote.retain(|&to, outbox| {
            let lane = usize::from(to.shard.0);
            let is_over = outbox.is_full();
            let bytes = if is_over { Vec::new() } else { outbox.take_all() };
            let parcel = if is_over { Parcel::Drop(to) } else { Parcel::Answers { to, bytes } };
            match mesh.send(lane, parcel) {
                Ok(()) => false,
                Err(refused) => {
                    if let Parcel::Answers { bytes, .. } = refused {
                        outbox.push(&bytes);
                    }
                    mesh.want_room(lane);
                    true
                }
            }
        });
    }

    /// The welcome to a greeting; `met` is what was met of a peer.
    pub fn welcome(&mut self, slot: u32, port: Role, version: u8, met: Option<Met>) {
        let welcome = self.host.at(port).answer(self.shard, Ok(version), met);
        if let Some(socket) = self.get(slot) {
            socket.outbox.push(&welcome);
        }
        self.list(slot);
    }
}

impl Links for Wires {
    fn know(&mut self, now: Ticks, node: NodeId, address: &str) {
        self.table.know(now, node, address);
    }

    fn forget(&mut self, now: Ticks, node: NodeId) {
        self.table.forget(now, node);
    }

    fn part(&mut self, now: Ticks, node: NodeId) {
        for slot in self.table.part(node) {
            self.close(slot, now);
        }
    }

    fn peer(&mut self, node: NodeId) -> Option<&mut Outbox> {
        let slot = self.table.peer(node)?;
        self.outbox(slot)
    }

    fn pull(&mut self, node: NodeId) -> Option<&mut Outbox> {
        let slot = self.table.pull(node)?;
        self.outbox(slot)
    }

    fn serve(&mut self, node: NodeId) -> Option<&mut Outbox> {
        let slot = self.table.serve(node)?;
        self.outbox(slot)
    }

    fn client(&mut self, connection: ConnectionId) -> Option<&mut Outbox> {
        if connection.shard != self.shard {
            let outbox = self.remote.entry(connection);
            let outbox = outbox.or_insert_with(|| Outbox::new(CLIENT_OUTBOX_BYTES));
            // Only behind a lane that doesn't turn: its clients' calls time out.
            return (outbox.waiting() < CLIENT_OUTBOX_BYTES_MAX).then_some(outbox);
        }
        self.list(connection.slot);
        let socket = self.get_generation(connection.slot, connection.generation)?;
        if socket.closing {
            return None;
        }
        if socket.outbox.waiting() >= CLIENT_OUTBOX_BYTES_MAX {
            self.close(connection.slot, Ticks::ZERO);
            return None;
        }
        self.get(connection.slot).map(|socket| &mut socket.outbox)
    }

    fn forward(&mut self, to: ShardId, connection: ConnectionId, frame: &Frame<'_>) -> bool {
        let parcel = Parcel::ClientFrame {
            from: connection,
            header: frame.header,
            body: frame.body.to_vec(),
        };
        self.mesh.send(usize::from(to.0), parcel).is_ok()
    }
}
