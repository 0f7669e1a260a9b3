//! The sockets of one shard, and the network door over them: what `src/wires.rs` is in a node,
//! over the simulated network. What a connection is (a greeting not yet read, a client, a peer) is
//! decided here.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringraft_net::connection::State;
use ringraft_net::handshake::{HANDSHAKE_BYTES, Hello, Host, Role};
use ringraft_net::link_table::LinkTable;
use ringraft_net::patience::{FRAME_TIME, SEND_TIME};
use ringraft_net::{Frame, FrameHeader, Identity, Inbox, Outbox};
use ringraft_shard::links::{ConnectionId, Links};
use ringraft_shard::mesh::MeshEnd;
use ringraft_shard::placement::Placement;
use ringraft_types::{Met, NodeId, ShardId, Start, Ticks};

/// What may wait for whom, bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutboxLimits {
    /// For one client.
    pub(crate) client: usize,
    /// For one peer.
    pub(crate) peer: usize,
}

/// What travels between the lanes of one node.
pub(crate) enum Parcel {
    /// A connection that greeted another shard than the one that accepted it.
    Handoff { connection: u64, hello: Hello, inbox: Inbox },
    /// A client's frame for a group of the receiving shard.
    ClientFrame { from: ConnectionId, header: FrameHeader, body: Vec<u8> },
    /// Frames for a client of the receiving shard.
    Answers { to: ConnectionId, bytes: Vec<u8> },
    /// A client of the receiving shard whose answers piled up elsewhere: close it.
    Drop(ConnectionId),
    /// The node's data directory is an older copy.
    OlderCopy,
    /// How many bytes of data the groups of this shard hold.
    DataBytes(ShardId, u64),
    /// What the system group says.
    Placement(Arc<Placement>),
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Socket {
    /// In the network.
    pub(crate) connection: u64,
    /// Our side of it.
    pub(crate) side: usize,
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
    pub(crate) state: State,
    /// A client whose outbox is full: not looked at, and not received from.
    pub(crate) stalled: bool,
    /// Since when the system takes nothing of what waits.
    pub(crate) stuck_since: Option<Ticks>,
    /// When patience ends: of a greeting, a dial, or a frame that isn't whole.
    pub(crate) deadline: Ticks,
    /// Which tenant of its slot this is.
    pub(crate) generation: u32,
}

impl Socket {
    /// What the system takes of the outbox: of what is for a peer whole frames until there is no
    /// more room, so that later beats overtake the rest; for a client everything.
    pub(crate) fn take_bytes(&mut self, room: usize) -> Vec<u8> {
        if !matches!(self.state, State::Peer(_)) {
            return self.outbox.take_all();
        }
        let mut taken = Vec::new();
        while taken.len() < room
            && let Some(part) = self.outbox.take_for_send()
        {
            let mut end = if part.starts_with(b"RRWE") { HANDSHAKE_BYTES } else { 0 };
            while taken.len() + end < room
                && let Some(head) = part[end..].first_chunk()
            {
                let header = FrameHeader::decode(head).expect("V13: a node sends sound frames");
                end += header.frame_bytes();
            }
            taken.extend_from_slice(&part[..end]);
            self.outbox.sent(end);
        }
        taken
    }
}

/// All sockets of a shard.
pub(crate) struct SimLinks {
    pub(crate) host: Host,
    pub(crate) shard: ShardId,
    limits: OutboxLimits,
    sockets: Vec<Option<Box<Socket>>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    by_connection: BTreeMap<u64, u32>,
    pub(crate) table: LinkTable,
    /// Sockets that have something to send, or to receive.
    pub(crate) listed: Vec<u32>,
    remote: BTreeMap<ConnectionId, Outbox>,
    pub(crate) mesh: MeshEnd<Parcel>,
    /// Connections to be closed by the lane.
    pub(crate) closed: Vec<u32>,
}

impl SimLinks {
    /// No sockets yet.
    pub(crate) fn new(
        identity: Identity,
        start: Start,
        shard: ShardId,
        shards: u16,
        mesh: MeshEnd<Parcel>,
        limits: OutboxLimits,
    ) -> Self {
        Self {
            host: Host { identity, shards, port: Role::Client, start },
            shard,
            limits,
            sockets: Vec::new(),
            generations: Vec::new(),
            free: Vec::new(),
            by_connection: BTreeMap::new(),
            table: LinkTable::new(identity.node),
            listed: Vec::new(),
            remote: BTreeMap::new(),
            mesh,
            closed: Vec::new(),
        }
    }

    /// Takes a connection in. Returns its slot.
    pub(crate) fn insert(
        &mut self,
        connection: u64,
        side: usize,
        state: State,
        inbox: Inbox,
        now: Ticks,
    ) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.sockets.push(None);
            self.generations.push(0);
            (self.sockets.len() - 1) as u32
        });
        let limit = match state {
            State::Greeting { port: Role::Client | Role::Bulk }
            | State::Dialed(..)
            | State::Client => self.limits.client,
            _ => self.limits.peer,
        };
        self.sockets[slot as usize] = Some(Box::new(Socket {
            connection,
            side,
            inbox,
            outbox: Outbox::new(limit),
            state,
            stalled: false,
            stuck_since: None,
            deadline: now.after(state.patience()),
            generation: self.generations[slot as usize],
        }));
        self.by_connection.insert(connection, slot);
        self.list(slot);
        slot
    }

    /// The socket in a slot, if there is one.
    pub(crate) fn get(&mut self, slot: u32) -> Option<&mut Socket> {
        self.sockets.get_mut(slot as usize)?.as_deref_mut()
    }

    /// The socket in a slot, if it is still the tenant that the generation names.
    pub(crate) fn get_generation(&mut self, slot: u32, generation: u32) -> Option<&mut Socket> {
        self.get(slot).filter(|socket| socket.generation == generation)
    }

    /// The slot of a connection.
    pub(crate) fn slot_of(&self, connection: u64) -> Option<u32> {
        self.by_connection.get(&connection).copied()
    }

    /// Puts a socket on the list of those to look at before the lane sleeps.
    pub(crate) fn list(&mut self, slot: u32) {
        if !self.listed.contains(&slot) {
            self.listed.push(slot);
        }
    }

    /// Where what leaves over a slot is written.
    fn outbox(&mut self, slot: u32) -> Option<&mut Outbox> {
        self.list(slot);
        self.get(slot).map(|socket| &mut socket.outbox)
    }

    /// How a client on this shard is named.
    pub(crate) fn connection_id(&self, slot: u32) -> ConnectionId {
        let generation = self.generations[slot as usize];
        ConnectionId { shard: self.shard, slot, generation }
    }

    /// Takes a socket out. What it was is returned, so that the shard can be told.
    pub(crate) fn close(&mut self, slot: u32, now: Ticks) -> Option<Box<Socket>> {
        let socket = self.sockets.get_mut(slot as usize)?.take()?;
        self.by_connection.remove(&socket.connection);
        self.listed.retain(|&listed| listed != slot);
        self.table.closed(now, slot, socket.state);
        self.generations[slot as usize] = self.generations[slot as usize].wrapping_add(1);
        self.free.push(slot);
        Some(socket)
    }

    /// A socket's greeting or frame was whole: the next one has all its time.
    pub(crate) fn give_time(&mut self, slot: u32, now: Ticks) {
        if let Some(socket) = self.get(slot) {
            socket.deadline = now.after(FRAME_TIME);
        }
    }

    /// Slots whose patience is over.
    pub(crate) fn overdue(&mut self, now: Ticks) -> Vec<u32> {
        let mut out = Vec::new();
        for (slot, place) in self.sockets.iter_mut().enumerate() {
            let Some(socket) = place else { continue };
            if socket.state.is_open() && (socket.inbox.waiting() == 0 || socket.stalled) {
                socket.deadline = now.after(FRAME_TIME);
            }
            let is_stuck = socket.stuck_since.is_some_and(|since| now.since(since) > SEND_TIME);
            if is_stuck || socket.deadline <= now {
                out.push(slot as u32);
            }
        }
        out
    }

    /// A peer fetches snapshots over this slot. An older connection's slot is returned.
    pub(crate) fn serves(&mut self, node: NodeId, slot: u32) -> Option<u32> {
        self.get(slot).expect("the slot was just in use").state = State::Serve(node);
        self.table.serves(node, slot)
    }

    /// A link to a peer is up over this slot. An older one is replaced; its slot is returned.
    pub(crate) fn link_up(&mut self, node: NodeId, role: Role, slot: u32) -> Option<u32> {
        let socket = self.get(slot).expect("the slot was just in use");
        socket.state = State::linked(node, role);
        self.table.linked(node, role, slot)
    }

    /// Hands what was written for clients of other shards to the mesh, as `src/wires.rs` does.
    pub(crate) fn flush_remote(&mut self) {
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
    pub(crate) fn welcome(&mut self, slot: u32, port: Role, version: u8, met: Option<Met>) {
        let welcome = self.host.at(port).answer(self.shard, Ok(version), met);
        if let Some(socket) = self.get(slot) {
            socket.outbox.push(&welcome);
        }
        self.list(slot);
    }

    /// The most bytes that wait on one connection.
    pub(crate) fn waiting_bytes_max(&self) -> usize {
        self.sockets.iter().flatten().map(|socket| socket.outbox.waiting()).max().unwrap_or(0)
    }
}

impl Links for SimLinks {
    fn know(&mut self, now: Ticks, node: NodeId, address: &str) {
        self.table.know(now, node, address);
    }

    fn forget(&mut self, now: Ticks, node: NodeId) {
        self.table.forget(now, node);
    }

    fn part(&mut self, _: Ticks, node: NodeId) {
        self.closed.extend(self.table.part(node));
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
        let most = 4 * self.limits.client;
        if connection.shard != self.shard {
            let limit = self.limits.client;
            let outbox = self.remote.entry(connection).or_insert_with(|| Outbox::new(limit));
            return (outbox.waiting() < most).then_some(outbox);
        }
        let (slot, generation) = (connection.slot, connection.generation);
        let is_over = self.get_generation(slot, generation)?.outbox.waiting() >= most;
        if is_over {
            self.closed.push(slot);
            return None;
        }
        self.list(slot);
        self.get(slot).map(|socket| &mut socket.outbox)
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
