//! A cluster of scripted nodes around a client core, in virtual time. Greetings and `Locate` are
//! answered by the script's fields; writes and reads wait until the test answers them.

use std::collections::BTreeMap;

use ringraft_net::barrier_wire::{BarrierAsk, BarrierReply};
use ringraft_net::client::{Core, CoreOptions, LinkId, Outcome, Reason, Shortfall};
use ringraft_net::client_wire::{self, BatchWriter, LocateReply, Member, Reply};
use ringraft_net::handshake::{HANDSHAKE_BYTES, Host};
use ringraft_net::members_wire::{self, ChangeAsk, MembersReply};
use ringraft_net::status::NodeStatus;
use ringraft_net::{Hello, Identity, Inbox, Kind, Outbox, RefusalCode, Role, Welcome};
use ringraft_types::command::Envelope;
use ringraft_types::{
    ClusterId, GroupId, Incarnation, Index, MemoryLevel, NodeId, ShardId, Start, Status, Term,
    Ticks,
};

pub(crate) const GROUP: GroupId = GroupId(5);
pub(crate) const CALLS_MAX: usize = 4096;
const TIMEOUT: Ticks = Ticks::from_millis(5_000);

/// What the client said became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Done(String),
    Below(String, Shortfall),
    NotDone(Reason),
    Unknown(Reason),
}

/// A write that arrived at a node.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) link: LinkId,
    /// Tells one connection from the next under the same link.
    pub(crate) connection: u64,
    pub(crate) node: u32,
    pub(crate) call: u64,
    pub(crate) envelope: Envelope,
    pub(crate) command: String,
}

struct Side {
    connection: u64,
    node: u32,
    shard: u16,
    is_greeted: bool,
    inbox: Inbox,
    outbox: Outbox,
}

pub(crate) struct Script {
    pub(crate) core: Core,
    pub(crate) now: Ticks,
    nodes: u32,
    pub(crate) leader: u32,
    pub(crate) ready: bool,
    pub(crate) applied: u64,
    pub(crate) knows_group: bool,
    pub(crate) shard_of_group: u16,
    pub(crate) refuse: Option<RefusalCode>,
    /// Frames of writes and reads received.
    pub(crate) frames: usize,
    down: Vec<u32>,
    /// They take connections, and neither read nor answer.
    frozen: Vec<u32>,
    sides: BTreeMap<LinkId, Side>,
    connections: u64,
    /// Writes that arrived and were not looked at yet.
    pub(crate) attempts: Vec<Attempt>,
    envelope: Envelope,
    /// Questions about members and changes that arrived and were not looked at yet: the node, the
    /// call, and the change.
    pub(crate) asks: Vec<(u32, u64, Option<ChangeAsk>)>,
    /// Barriers that arrived and were not looked at yet, and the node.
    pub(crate) barriers: Vec<(u32, BarrierAsk)>,
    /// How calls were answered: flags and body.
    pub(crate) bodies: BTreeMap<u64, (u8, Vec<u8>)>,
    /// Where each call was last seen.
    seen: BTreeMap<u64, LinkId>,
    fates: BTreeMap<u64, Fate>,
}

impl Script {
    pub(crate) fn new(nodes: u32, leader: u32) -> Self {
        let core = Core::new(CoreOptions {
            endpoints: (1..=nodes).map(|node| format!("node:{node}")).collect(),
            cluster: Some(ClusterId(1)),
            calls_max: CALLS_MAX,
            outbox_bytes_max: 1 << 20,
            seed: 42,
        });
        Self {
            core,
            now: Ticks(1),
            nodes,
            leader,
            ready: true,
            applied: 10,
            knows_group: true,
            shard_of_group: 0,
            refuse: None,
            frames: 0,
            down: Vec::new(),
            frozen: Vec::new(),
            sides: BTreeMap::new(),
            connections: 0,
            attempts: Vec::new(),
            envelope: Envelope::default(),
            asks: Vec::new(),
            barriers: Vec::new(),
            bodies: BTreeMap::new(),
            seen: BTreeMap::new(),
            fates: BTreeMap::new(),
        }
    }

    pub(crate) fn write(&mut self, command: &str) -> u64 {
        self.write_within(command, TIMEOUT)
    }

    pub(crate) fn write_within(&mut self, command: &str, timeout: Ticks) -> u64 {
        let deadline = self.now.after(timeout);
        self.core.submit_write(GROUP, command.as_bytes(), deadline).expect("taken").0
    }

    pub(crate) fn read(&mut self, command: &str) -> u64 {
        let deadline = self.now.after(TIMEOUT);
        self.core.submit_read(GROUP, command.as_bytes(), deadline).expect("taken").0
    }

    /// Lets everything happen that can without time passing.
    pub(crate) fn run(&mut self) {
        for _ in 0..20 {
            self.turn();
        }
    }

    /// Lets time pass, a millisecond at a time.
    pub(crate) fn run_for(&mut self, span: Ticks) {
        let until = self.now.after(span);
        while self.now < until {
            self.now = self.now.after(Ticks::from_millis(1));
            self.turn();
            self.turn();
        }
    }

    pub(crate) fn take_writes(&mut self) -> Vec<(u64, &'static str)> {
        let attempts = std::mem::take(&mut self.attempts);
        attempts.into_iter().map(|it| (it.envelope.sequence, &*it.command.leak())).collect()
    }

    pub(crate) fn last_envelope(&self) -> Envelope {
        self.envelope
    }

    pub(crate) fn sent_to(&self, call: u64) -> u32 {
        self.sides[&self.seen[&call]].node
    }

    pub(crate) fn shard_of(&self, call: u64) -> u16 {
        self.sides[&self.seen[&call]].shard
    }

    pub(crate) fn fate(&self, call: u64) -> Option<Fate> {
        self.fates.get(&call).cloned()
    }

    /// Answers a call where it was last seen.
    pub(crate) fn answer(&mut self, reply: &Reply<'_>) {
        let link = self.seen[&reply.call];
        self.answer_on(link, reply);
    }

    pub(crate) fn answer_read(&mut self, reply: &Reply<'_>) {
        self.answer(reply);
    }

    /// Answers on every connection, whoever asked.
    pub(crate) fn answer_anywhere(&mut self, reply: &Reply<'_>) {
        for link in self.sides.keys().copied().collect::<Vec<_>>() {
            self.answer_on(link, reply);
        }
    }

    /// Whether a connection still lives.
    pub(crate) fn is_alive(&self, link: LinkId, connection: u64) -> bool {
        self.sides.get(&link).is_some_and(|side| side.connection == connection)
    }

    /// Breaks a connection.
    pub(crate) fn cut(&mut self, link: LinkId) {
        self.sides.remove(&link);
        self.core.closed(self.now, link);
    }

    pub(crate) fn answer_on(&mut self, link: LinkId, reply: &Reply<'_>) {
        let side = self.sides.get_mut(&link).expect("the connection lives");
        let sender = identity(side.node);
        let mut batch = BatchWriter::begin(&mut side.outbox, Kind::Replies, GROUP, sender);
        batch.reply(reply);
        batch.finish();
    }

    /// Answers a question about members, or a change, where it was last seen.
    pub(crate) fn answer_members(&mut self, reply: &MembersReply<'_>) {
        let link = self.seen[&reply.call];
        let side = self.sides.get_mut(&link).expect("the connection lives");
        reply.write(&mut side.outbox, GROUP, identity(side.node));
    }

    /// Answers a barrier where it was last seen.
    pub(crate) fn answer_barrier(&mut self, reply: &BarrierReply) {
        let link = self.seen[&reply.call];
        let side = self.sides.get_mut(&link).expect("the connection lives");
        reply.write(&mut side.outbox, GROUP, identity(side.node));
    }

    /// Whether the connection on which a call was last seen still lives.
    pub(crate) fn is_known(&self, call: u64) -> bool {
        self.seen.get(&call).is_some_and(|link| self.sides.contains_key(link))
    }

    /// Where a call was last seen.
    pub(crate) fn link_of(&self, call: u64) -> LinkId {
        self.seen[&call]
    }

    /// Sends what is no frame on every connection.
    pub(crate) fn garble(&mut self) {
        for side in self.sides.values_mut() {
            side.outbox.push(&[b'?'; 64]);
        }
    }

    pub(crate) fn kill(&mut self, node: u32) {
        self.down.push(node);
        let gone: Vec<_> =
            self.sides.iter().filter(|(_, side)| side.node == node).map(|it| *it.0).collect();
        for link in gone {
            self.sides.remove(&link);
            self.core.closed(self.now, link);
        }
    }

    pub(crate) fn freeze(&mut self, node: u32) {
        self.frozen.push(node);
    }

    pub(crate) fn revive(&mut self, node: u32) {
        self.down.retain(|&it| it != node);
    }

    fn turn(&mut self) {
        self.core.advance(self.now);
        while let Some(link) = self.core.next_close() {
            self.sides.remove(&link);
        }
        while let Some((link, address)) = self.core.next_connect(self.now) {
            let node = address.strip_prefix("node:").and_then(|it| it.parse().ok()).expect("ours");
            if self.down.contains(&node) {
                self.core.closed(self.now, link);
                continue;
            }
            let (inbox, outbox) = (Inbox::new(), Outbox::new(1 << 20));
            self.connections += 1;
            let connection = self.connections;
            let side = Side { connection, node, shard: 0, is_greeted: false, inbox, outbox };
            self.sides.insert(link, side);
            self.core.connected(self.now, link);
        }
        for link in self.sides.keys().copied().collect::<Vec<_>>() {
            let Some(mut side) = self.sides.remove(&link) else { continue };
            carry(self.core.outbox(link), &mut side.inbox);
            self.serve(link, &mut side);
            let has_arrived = carry(&mut side.outbox, self.core.inbox(link));
            self.sides.insert(link, side);
            if has_arrived {
                self.core.received(self.now, link);
            }
            while let Some(link) = self.core.next_close() {
                self.sides.remove(&link);
            }
        }
        for completed in self.core.take_completed() {
            let fate = match completed.outcome {
                Outcome::Done(answer) => {
                    self.bodies.insert(completed.call.0, (answer.flags, answer.body.to_vec()));
                    Fate::Done(String::from_utf8_lossy(answer.body).into_owned())
                }
                Outcome::Below(answer, lacks) => {
                    let body = String::from_utf8_lossy(answer.body).into_owned();
                    Fate::Below(body, lacks)
                }
                Outcome::NotDone(reason) => Fate::NotDone(reason),
                Outcome::Unknown(reason) => Fate::Unknown(reason),
            };
            let before = self.fates.insert(completed.call.0, fate);
            assert_eq!(before, None, "a call completes once");
        }
    }

    fn serve(&mut self, link: LinkId, side: &mut Side) {
        if self.frozen.contains(&side.node) {
            return;
        }
        if !side.is_greeted {
            if side.inbox.waiting() < HANDSHAKE_BYTES {
                return;
            }
            let bytes = side.inbox.take_handshake().expect("enough bytes");
            let hello = Hello::decode(&bytes).expect("a greeting");
            let host = host(side.node);
            side.shard = hello.wanted_shard.map_or(0, ShardId::get);
            let verdict = self.refuse.map_or_else(|| hello.judge(&host), Err);
            let welcome = Welcome::new(&host, ShardId(side.shard), verdict);
            side.outbox.push(&welcome.encode());
            side.is_greeted = true;
        }
        while let Some(frame) = side.inbox.next_frame().expect("intact") {
            match frame.header.kind {
                Kind::Writes => {
                    self.frames += 1;
                    for item in client_wire::writes(&frame).expect("writes").iter() {
                        let (envelope, command) = Envelope::decode(item.payload).expect("whole");
                        let command = String::from_utf8(command.to_vec()).expect("text");
                        let (call, node) = (item.call, side.node);
                        let connection = side.connection;
                        self.attempts.push(Attempt {
                            link,
                            connection,
                            node,
                            call,
                            envelope,
                            command,
                        });
                        self.envelope = envelope;
                        self.seen.insert(call, link);
                    }
                }
                Kind::Reads => {
                    self.frames += 1;
                    for item in client_wire::reads(&frame).expect("reads").iter() {
                        self.seen.insert(item.call, link);
                    }
                }
                Kind::Locate => {
                    let members = (1..=self.nodes).map(|node| Member {
                        node: NodeId(node),
                        shard: ShardId(self.shard_of_group),
                        address: format!("node:{node}"),
                    });
                    let is_leader = side.node == self.leader;
                    let reply = LocateReply {
                        status: if self.knows_group { Status::Ok } else { Status::NoSuchGroup },
                        leader: NodeId(self.leader),
                        ready: is_leader && self.ready,
                        term: Term(1),
                        applied: Index(self.applied),
                        members: members.collect(),
                    };
                    reply.write(&mut side.outbox, frame.header.group, identity(side.node));
                }
                Kind::Members => {
                    let call = members_wire::members(&frame).expect("a question");
                    self.asks.push((side.node, call, None));
                    self.seen.insert(call, link);
                }
                Kind::Change => {
                    let ask = ChangeAsk::read(&frame).expect("a change");
                    self.seen.insert(ask.call, link);
                    self.asks.push((side.node, ask.call, Some(ask)));
                }
                Kind::Barrier => {
                    let ask = BarrierAsk::read(&frame).expect("a barrier");
                    self.seen.insert(ask.call, link);
                    self.barriers.push((side.node, ask));
                }
                Kind::Status => {
                    let status = NodeStatus {
                        node: NodeId(side.node),
                        shard: ShardId(side.shard),
                        name: "knot".into(),
                        uptime: self.now,
                        sync_p50_us: 1,
                        sync_p99_us: 2,
                        durable: true,
                        is_paused: false,
                        priority: 0,
                        spreads: false,
                        data_bytes: 1 << 20,
                        data_bytes_max: 2 << 20,
                        memory: MemoryLevel::Normal,
                        groups: Vec::new(),
                    };
                    status.write(&mut side.outbox, identity(side.node));
                }
                other => panic!("the client sent {other:?}"),
            }
        }
    }
}

fn identity(node: u32) -> Identity {
    Identity { cluster: ClusterId(1), incarnation: Incarnation(1), node: NodeId(node) }
}

fn host(node: u32) -> Host {
    let start = Start { number: 1, nonce: 7 };
    Host { identity: identity(node), shards: 4, port: Role::Client, start }
}

/// Moves what fits; whether anything moved.
fn carry(from: &mut Outbox, to: &mut Inbox) -> bool {
    let before = to.waiting();
    while let Some(bytes) = from.take_for_send() {
        let space = to.space();
        let count = space.len().min(bytes.len());
        if count == 0 {
            break;
        }
        space[..count].copy_from_slice(&bytes[..count]);
        to.filled(count);
        from.sent(count);
    }
    to.waiting() > before
}
