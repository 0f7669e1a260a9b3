//! A cluster in one thread: memory disks, a network of queues, virtual time.

use ringraft_net::barrier_wire::{BarrierAsk, BarrierReply};
use ringraft_net::client_wire::{self, BatchWriter, Consistency};
use ringraft_net::handshake::{Host, Role, Welcome};
use ringraft_net::lead_wire::{LeadAsk, LeadReply, Leading};
use ringraft_net::members_wire::{self, ChangeAsk, MembersReply};
use ringraft_net::status::GroupStatus;
use ringraft_net::{Frame, FrameError, Identity, Inbox, Kind, Outbox};
use ringraft_raft::Settings;
use ringraft_shard::limits::Limits;
use ringraft_shard::machine::{KvMachine, StateMachine};
use ringraft_shard::{
    ConnectionId, Event, FrameRefusal, Greeting, LeadRules, Links, LoadStep, Loading, Member,
    PeerAdmission, ScrubRules, Shard, ShardError, ShardEvent, ShardSettings, SnapshotRules, Wake,
};
use ringraft_types::command::{DeleteCommand, Envelope, Keys, PutCommand, RangeCommand};
use ringraft_types::{
    ClientId, ClusterId, GroupId, Incarnation, Index, Level, Met, NodeId, Revision, ShardId,
    Starts, Status, Ticks,
};
use ringraft_wal::device::FileId;
use ringraft_wal::device::memory::{Fault, MemoryDevice};
use ringraft_wal::{LogSettings, Recovery};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

const CLUSTER: ClusterId = ClusterId(0xc1);
pub(crate) const GROUP: GroupId = GroupId(1);
/// Between two heartbeats of a leader.
pub(crate) const HEARTBEAT_INTERVAL: Ticks = Ticks::from_millis(50);
/// One way over the network.
const DELAY: Ticks = Ticks(200);

/// The network door: bytes wait here until the world takes them.
#[derive(Default)]
pub(crate) struct TestLinks {
    up: BTreeSet<NodeId>,
    peers: BTreeMap<NodeId, Outbox>,
    /// What leaves over the connections for snapshots, whoever made them.
    bulk: BTreeMap<NodeId, Outbox>,
    /// Nodes to which such connections can't be made.
    shut: BTreeSet<NodeId>,
    clients: BTreeMap<ConnectionId, Outbox>,
    /// Who is dialled, and where.
    pub(crate) known: BTreeMap<NodeId, String>,
}

impl Links for TestLinks {
    fn know(&mut self, _: Ticks, node: NodeId, address: &str) {
        self.known.insert(node, address.to_owned());
    }

    fn forget(&mut self, _: Ticks, node: NodeId) {
        self.known.remove(&node);
    }

    fn part(&mut self, _: Ticks, node: NodeId) {
        self.known.remove(&node);
    }

    fn peer(&mut self, node: NodeId) -> Option<&mut Outbox> {
        if !self.up.contains(&node) {
            return None;
        }
        Some(self.peers.entry(node).or_insert_with(|| Outbox::new(16 << 20)))
    }

    fn pull(&mut self, node: NodeId) -> Option<&mut Outbox> {
        let is_known = self.known.get(&node).is_some_and(|address| !address.is_empty());
        if is_known { self.serve(node) } else { None }
    }

    fn serve(&mut self, node: NodeId) -> Option<&mut Outbox> {
        if !self.up.contains(&node) || self.shut.contains(&node) {
            return None;
        }
        Some(self.bulk.entry(node).or_insert_with(|| Outbox::new(1 << 20)))
    }

    fn client(&mut self, connection: ConnectionId) -> Option<&mut Outbox> {
        Some(self.clients.entry(connection).or_insert_with(|| Outbox::new(16 << 20)))
    }

    fn forward(&mut self, _: ShardId, _: ConnectionId, _: &Frame<'_>) -> bool {
        false
    }
}

struct Node {
    shard: Option<Shard<MemoryDevice, TestLinks>>,
    device: Option<MemoryDevice>,
    /// What its manifest says of its starts.
    starts: Starts,
    wake: Ticks,
}

/// What a test looks at of a reply.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: Status,
    pub(crate) revision: Revision,
    pub(crate) index: Index,
    pub(crate) body: Vec<u8>,
}

/// Which of the connections between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Peer,
    Bulk,
}

/// Bytes on their way.
struct Flight {
    at: Ticks,
    from: NodeId,
    to: NodeId,
    lane: Lane,
    bytes: Vec<u8>,
    /// Not what was sent.
    is_garbled: bool,
}

/// Makes an empty machine.
type MakeMachine = Rc<dyn Fn() -> Box<dyn StateMachine>>;

/// A cluster.
pub(crate) struct World {
    now: Ticks,
    seed: u64,
    groups: u64,
    nodes: BTreeMap<NodeId, Node>,
    wire: VecDeque<Flight>,
    inboxes: BTreeMap<(NodeId, NodeId, Lane), Inbox>,
    cuts: BTreeSet<(NodeId, NodeId)>,
    /// Links that take longer than others, in each direction.
    delays: BTreeMap<(NodeId, NodeId), Ticks>,
    answers: BTreeMap<(NodeId, u64), Answer>,
    next_call: u64,
    hash: u64,
    /// Nodes whose disk holds what it is given, and what their shards ended with.
    held: BTreeMap<NodeId, Option<ShardError>>,
    /// Bytes that a link takes in a millisecond, if it is slow.
    rate: Option<u64>,
    snapshots: SnapshotRules,
    scrub: ScrubRules,
    /// How nodes are set to lead, if otherwise than by default.
    lead: BTreeMap<NodeId, LeadRules>,
    /// Until when a slow link is busy with what it took.
    busy: BTreeMap<(NodeId, NodeId), Ticks>,
    /// Handshakes that were refused since somebody looked: by whom, of whom, why.
    refused: Vec<(NodeId, NodeId, PeerAdmission)>,
    starts: u64,
    /// Bytes that left each node for its peers.
    sent: BTreeMap<NodeId, usize>,
    /// Bytes that a node sent another over the connections for snapshots.
    bulk_sent: BTreeMap<(NodeId, NodeId), usize>,
    /// Whom groups begin with; the others join.
    voters: Vec<NodeId>,
    /// Lives of nodes that were formatted again.
    lives: BTreeMap<NodeId, Incarnation>,
    /// When nodes dial whom they know again; only in worlds where members change.
    dial_at: Ticks,
    /// What changed on the way and came.
    garbled: u32,
    /// Frames of reads of one group that may wait.
    reads_max: usize,
    /// The same of all groups.
    all_reads_max: usize,
    data_bytes_max: u64,
    pending_max: (usize, usize),
    hibernate_after: Ticks,
    make_machine: MakeMachine,
    /// The nodes have the system group too.
    has_system: bool,
    /// The group that clients mean if they don't say.
    addressed: GroupId,
    /// Nodes that stand still, and what came for them meanwhile.
    frozen: BTreeSet<NodeId>,
    parked: Vec<Flight>,
}

/// What a system with little room takes of an outbox.
fn piece(outbox: &mut Outbox) -> Vec<u8> {
    let part = outbox.take_for_send().unwrap_or_default();
    let bytes = part[..part.len().min(100_000)].to_vec();
    outbox.sent(bytes.len());
    bytes
}

fn feed(inbox: &mut Inbox, bytes: &[u8], frame: impl FnMut(&Frame<'_>)) {
    try_feed(inbox, bytes, frame).expect("the shard writes sound frames");
}

fn try_feed(
    inbox: &mut Inbox,
    mut bytes: &[u8],
    mut frame: impl FnMut(&Frame<'_>),
) -> Result<(), FrameError> {
    while !bytes.is_empty() {
        let space = inbox.space();
        let count = space.len().min(bytes.len());
        space[..count].copy_from_slice(&bytes[..count]);
        inbox.filled(count);
        bytes = &bytes[count..];
        while let Some(next) = inbox.next_frame()? {
            frame(&next);
        }
    }
    Ok(())
}

impl World {
    /// A fresh cluster, all of it running.
    pub(crate) fn new(seed: u64, nodes: u32, groups: u64) -> Self {
        Self::with_rules(seed, nodes, groups, SnapshotRules::default())
    }

    /// A fresh cluster that takes its snapshots by these rules.
    pub(crate) fn with_rules(seed: u64, nodes: u32, groups: u64, rules: SnapshotRules) -> Self {
        Self::with_machines(seed, nodes, groups, rules, Rc::new(|| Box::new(KvMachine::new())))
    }

    /// A fresh cluster with machines of its own.
    pub(crate) fn with_machines(
        seed: u64,
        nodes: u32,
        groups: u64,
        rules: SnapshotRules,
        make_machine: MakeMachine,
    ) -> Self {
        let voters: Vec<NodeId> = (1..=nodes).map(NodeId).collect();
        let nodes = voters.iter().copied();
        let mut world = Self {
            now: Ticks::from_millis(1_000),
            seed,
            groups,
            nodes: nodes
                .map(|node| {
                    let device = Some(MemoryDevice::new(4096));
                    let starts = Starts::default();
                    (node, Node { shard: None, device, starts, wake: Ticks::ZERO })
                })
                .collect(),
            wire: VecDeque::new(),
            inboxes: BTreeMap::new(),
            cuts: BTreeSet::new(),
            delays: BTreeMap::new(),
            answers: BTreeMap::new(),
            next_call: 1,
            hash: seed,
            held: BTreeMap::new(),
            rate: None,
            snapshots: rules,
            scrub: ScrubRules::default(),
            lead: BTreeMap::new(),
            busy: BTreeMap::new(),
            refused: Vec::new(),
            starts: 0,
            sent: BTreeMap::new(),
            bulk_sent: BTreeMap::new(),
            voters,
            lives: BTreeMap::new(),
            dial_at: Ticks::NEVER,
            garbled: 0,
            reads_max: 1024,
            all_reads_max: 131_072,
            data_bytes_max: 0,
            pending_max: (131_072, 256 << 20),
            hibernate_after: Ticks::ZERO,
            make_machine,
            has_system: false,
            addressed: GROUP,
            frozen: BTreeSet::new(),
            parked: Vec::new(),
        };
        for node in world.nodes() {
            world.start(node);
        }
        world
    }

    /// From their next start on nodes have the system group too.
    pub(crate) fn have_system(&mut self) {
        self.has_system = true;
    }

    /// All nodes, running or not.
    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub(crate) fn identity(node: NodeId) -> Identity {
        Identity { cluster: CLUSTER, incarnation: Incarnation(100 + u64::from(node.0)), node }
    }

    /// Starts a new node that is to join. It knows where the others are.
    pub(crate) fn join(&mut self, id: NodeId) {
        let device = Some(MemoryDevice::new(4096));
        let node = Node { shard: None, device, starts: Starts::default(), wake: Ticks::ZERO };
        assert!(self.nodes.insert(id, node).is_none(), "node {id} is there already");
        self.dial_at = self.now;
        self.start(id);
    }

    /// Formats the disk of a node that doesn't run, to join again as another life.
    pub(crate) fn wipe(&mut self, id: NodeId, life: u64) {
        let node = self.nodes.get_mut(&id).expect("a node");
        assert!(node.shard.is_none(), "it runs");
        (node.device, node.starts) = (Some(MemoryDevice::new(4096)), Starts::default());
        self.lives.insert(id, Incarnation(life));
        self.dial_at = self.now;
    }

    /// A node that doesn't run is the one again that it was before it was formatted.
    pub(crate) fn live_again(&mut self, id: NodeId) {
        self.lives.remove(&id);
    }

    /// From now on clients mean this group if they don't say.
    pub(crate) fn address(&mut self, group: GroupId) {
        self.addressed = group;
    }

    /// Runs until a node leads a group and is ready.
    pub(crate) fn leader_of(&mut self, group: GroupId) -> NodeId {
        for _ in 0..2_000 {
            let running = self.running();
            if let Some(&leader) = running.iter().find(|&&node| self.leads(node, group)) {
                return leader;
            }
            self.run_for(Ticks::from_millis(10));
        }
        panic!("nobody leads {group} within twenty seconds");
    }

    /// What the first group's members are on a running node, as a group may begin with.
    pub(crate) fn members_payload(&self, id: NodeId) -> Vec<u8> {
        let shard = self.nodes[&id].shard.as_ref().expect("it runs");
        shard.members(GROUP).expect("it is there").payload.clone()
    }

    /// A group comes to a running node.
    pub(crate) fn create(&mut self, id: NodeId, group: GroupId, members: &[u8]) -> bool {
        let now = self.now;
        self.shard(id).create_group(now, group, members).expect("the log goes on")
    }

    /// A group leaves a running node.
    pub(crate) fn remove(&mut self, id: NodeId, group: GroupId, is_deleted: bool) -> bool {
        let now = self.now;
        self.shard(id).remove_group(now, group, is_deleted).expect("the log goes on")
    }

    /// From now on nodes dial whom they know.
    pub(crate) fn redials(&mut self) {
        self.dial_at = self.now;
    }

    /// Nodes that run.
    pub(crate) fn running(&self) -> Vec<NodeId> {
        let running = self.nodes.iter().filter(|(_, node)| node.shard.is_some());
        running.map(|(&id, _)| id).collect()
    }

    /// Whether a running node leads a group, and may serve it.
    pub(crate) fn leads(&self, id: NodeId, group: GroupId) -> bool {
        let shard = self.nodes[&id].shard.as_ref().expect("it runs");
        shard.ready_groups().any(|ready| ready == group)
    }

    fn identity_of(&self, id: NodeId) -> Identity {
        let Identity { incarnation, .. } = Self::identity(id);
        let incarnation = self.lives.get(&id).copied().unwrap_or(incarnation);
        Identity { incarnation, ..Self::identity(id) }
    }

    /// Nodes dial whom they know and have no link to.
    fn dial(&mut self) {
        for id in self.nodes() {
            let Some(shard) = self.nodes[&id].shard.as_ref() else { continue };
            let known = shard.links.known.keys().filter(|node| !shard.links.up.contains(node));
            let known: Vec<NodeId> = known.copied().collect();
            for other in known {
                if self.nodes.contains_key(&other) {
                    self.link(id, other);
                }
            }
        }
    }

    /// Starts a node that doesn't run, from what its disk holds.
    pub(crate) fn start(&mut self, id: NodeId) {
        let member = |node: NodeId| Member {
            node,
            peer_address: format!("node-{node}:2"),
            client_address: format!("node-{node}:1"),
        };
        let joins = self.lives.contains_key(&id) || !self.voters.contains(&id);
        let own = (!self.voters.contains(&id)).then_some(id);
        let members: Vec<Member> = self.voters.iter().copied().chain(own).map(member).collect();
        let voters = if joins { Vec::new() } else { self.voters.clone() };
        let identity = self.identity_of(id);
        let now = self.now;
        let node = self.nodes.get_mut(&id).expect("a node of this world");
        let mut device = node.device.take().expect("it doesn't run");
        self.starts += 1;
        node.starts.begin(self.starts);
        let mut settings = LogSettings::new(CLUSTER, id, identity.incarnation, 1);
        settings.segment_bytes = 8 << 20;
        settings.unsubmitted_bytes_max = 32 << 20;
        let mut groups: Vec<GroupId> = (1..=self.groups).map(GroupId).collect();
        groups.extend(self.has_system.then_some(GroupId::SYSTEM));
        let (log, recovered) = Recovery::run(settings, &mut device)
            .unwrap_or_else(|error| panic!("node {id} can't recover: {error}"));
        let settings = ShardSettings {
            identity,
            starts: node.starts.clone(),
            shard: ShardId(0),
            shards: 1,
            members,
            voters,
            groups: groups.clone(),
            snapshots: self.snapshots,
            scrub: self.scrub,
            raft: Settings {
                election_timeout: Ticks::from_millis(300),
                heartbeat_interval: HEARTBEAT_INTERVAL,
                append_entries_max: 1024,
                append_bytes_max: 512 << 10,
                inflight_appends_max: 64,
                inflight_bytes_max: 4 << 20,
                reads_waiting_max: 1024,
                commits_by_half: false,
                lease: Ticks::from_millis(270),
                hibernate_after: self.hibernate_after,
            },
            lead: self.lead.get(&id).copied().unwrap_or_default(),
            limits: Limits {
                cache_bytes_max: 16 << 20,
                group_reads_max: self.reads_max,
                shard_reads_max: self.all_reads_max,
                data_bytes_max: self.data_bytes_max,
                shard_writes_max: self.pending_max.0,
                shard_bytes_max: self.pending_max.1,
                ..Limits::default()
            },
            state_note_entries: ringraft_shard::limits::STATE_NOTE_ENTRIES,
            slow_write: None,
            seed: self.seed ^ (u64::from(id.0) << 32),
            name: format!("node-{id}"),
        };
        let links = TestLinks::default();
        let make_machine = self.make_machine.clone();
        let mut machine = move |_| make_machine();
        let mut loading = Loading::new(log, recovered, &groups);
        let loaded = loop {
            match loading.turn(now, &mut device, &mut machine).expect("no fault") {
                LoadStep::Working(rest) => loading = rest,
                LoadStep::Done(loaded) => break *loaded,
            }
        };
        let shard = Shard::new(settings, device, links, loaded, now, machine);
        node.shard = Some(shard.expect("the log holds what this version writes"));
        node.wake = now;
        self.connect(id);
    }

    fn connect(&mut self, id: NodeId) {
        for other in self.nodes() {
            if other != id {
                self.link(id, other);
            }
        }
    }

    /// Links two nodes, if both run and nothing cuts them.
    fn link(&mut self, id: NodeId, other: NodeId) {
        let both = self.nodes[&id].shard.is_some() && self.nodes[&other].shard.is_some();
        let cut = self.cuts.contains(&(id, other)) || self.cuts.contains(&(other, id));
        if !both || cut {
            return;
        }
        if !self.greet(id, other) || !self.greet(other, id) {
            return;
        }
        for (from, to) in [(id, other), (other, id)] {
            self.inboxes.insert((from, to, Lane::Peer), Inbox::opened());
            self.inboxes.insert((from, to, Lane::Bulk), Inbox::opened());
            let now = self.now;
            let node = self.nodes.get_mut(&to).expect("a node");
            let shard = node.shard.as_mut().expect("it runs");
            shard.links.up.insert(from);
            shard.collect(now, Event::PeerUp(from)).expect("no fault").expect("no frame");
            node.wake = now;
        }
    }

    /// Whether `to` takes the greeting of `from`, and so may be told by the refusal what was met.
    fn greet(&mut self, from: NodeId, to: NodeId) -> bool {
        let now = self.now;
        let shard = |world: &mut Self, id| world.nodes.get_mut(&id).expect("a node").shard.take();
        let mut sender = shard(self, from).expect("it runs");
        let mut receiver = shard(self, to).expect("it runs");
        let greeting = Greeting { from: self.met(from), met: sender.met(to) };
        let admission = receiver.admit_peer(now, from, greeting).expect("no fault");
        if let Some((code, met)) = admission.refusal() {
            let (identity, start) = (self.identity_of(to), self.nodes[&to].starts.newest());
            let host = Host { identity, shards: 1, port: Role::Peer, start };
            let refusal = Welcome { met, ..Welcome::new(&host, ShardId(0), Err(code)) };
            let heard = sender.admit_answer(now, to, &refusal).expect("no fault");
            assert_ne!(heard, Ok(PeerAdmission::Welcome));
            self.refused.push((to, from, admission));
        }
        for (id, shard) in [(from, sender), (to, receiver)] {
            let node = self.nodes.get_mut(&id).expect("a node");
            node.shard = Some(shard);
            node.wake = now;
        }
        admission == PeerAdmission::Welcome
    }

    /// The handshakes that were refused since somebody looked: by whom, of whom, why.
    pub(crate) fn take_refused(&mut self) -> Vec<(NodeId, NodeId, PeerAdmission)> {
        std::mem::take(&mut self.refused)
    }

    /// What a node that doesn't run has on its disk.
    pub(crate) fn copy(&self, id: NodeId) -> (MemoryDevice, Starts) {
        let node = &self.nodes[&id];
        (node.device.clone().expect("it doesn't run"), node.starts.clone())
    }

    /// A node that doesn't run gets this disk in place of its own, which is returned.
    pub(crate) fn put_back(
        &mut self,
        id: NodeId,
        (device, starts): (MemoryDevice, Starts),
    ) -> (MemoryDevice, Starts) {
        let own = self.copy(id);
        let node = self.nodes.get_mut(&id).expect("a node");
        (node.device, node.starts) = (Some(device), starts);
        own
    }

    fn disconnect(&mut self, a: NodeId, b: NodeId) {
        let now = self.now;
        for (from, to) in [(a, b), (b, a)] {
            self.inboxes.remove(&(from, to, Lane::Peer));
            self.inboxes.remove(&(from, to, Lane::Bulk));
            self.wire.retain(|flight| (flight.from, flight.to) != (from, to));
            let node = self.nodes.get_mut(&to).expect("a node");
            if let Some(shard) = node.shard.as_mut()
                && shard.links.up.remove(&from)
            {
                shard.links.peers.remove(&from);
                shard.links.bulk.remove(&from);
                shard.collect(now, Event::PullDown(from)).expect("no fault").expect("no frame");
                shard.collect(now, Event::PeerDown(from)).expect("no fault").expect("no frame");
                node.wake = now;
            }
        }
    }

    /// What a file on the disk of a running node holds.
    pub(crate) fn content(&mut self, id: NodeId, file: FileId) -> Vec<u8> {
        self.shard(id).device.content(file).to_vec()
    }

    /// Delivers a frame of a source that its shard didn't write.
    pub(crate) fn inject_bulk(
        &mut self,
        from: NodeId,
        to: NodeId,
        write: impl FnOnce(&mut Outbox, Identity),
    ) {
        let taken = self.inject_bulk_as(from, to, Self::identity(from), write);
        assert_eq!(taken, Ok(()), "a sound frame");
    }

    /// The same of a frame that names this sender.
    pub(crate) fn inject_bulk_as(
        &mut self,
        from: NodeId,
        to: NodeId,
        sender: Identity,
        write: impl FnOnce(&mut Outbox, Identity),
    ) -> Result<(), FrameRefusal> {
        let mut outbox = Outbox::new(1 << 20);
        write(&mut outbox, sender);
        let (now, bytes) = (self.now, outbox.take_all());
        let shard = self.shard(to);
        let mut taken = Ok(());
        feed(&mut Inbox::opened(), &bytes, |frame| {
            let event = Event::BulkFrame { from, frame: *frame };
            taken = shard.collect(now, event).expect("no fault");
        });
        taken
    }

    /// A bit of the longest part of snapshots that is on its way flips. Returns whether there is
    /// such a part, of at least so many bytes.
    pub(crate) fn garble_bulk(&mut self, bytes_min: usize) -> bool {
        let parts = self.wire.iter_mut().filter(|it| it.lane == Lane::Bulk && !it.is_garbled);
        let Some(part) = parts.max_by_key(|it| it.bytes.len()) else { return false };
        let is_long = part.bytes.len() >= bytes_min;
        if is_long {
            let at = part.bytes.len() / 2;
            part.bytes[at] ^= 1 << (at % 8);
            part.is_garbled = true;
        }
        is_long
    }

    /// Parts of snapshots that changed on the way and came.
    pub(crate) fn garbled(&self) -> u32 {
        self.garbled
    }

    /// Nothing can be fetched any more by a node from another.
    pub(crate) fn shut_bulk(&mut self, from: NodeId, source: NodeId) {
        self.shard(from).links.shut.insert(source);
    }

    /// What [`World::shut_bulk`] forbade a node is possible again.
    pub(crate) fn open_bulk(&mut self, from: NodeId) {
        self.shard(from).links.shut.clear();
    }

    /// From their next start on nodes hold so many bytes of data.
    pub(crate) fn limit_data(&mut self, bytes_max: u64) {
        self.data_bytes_max = bytes_max;
    }

    /// From their next start on nodes let so many frames of reads of all groups wait.
    pub(crate) fn limit_all_reads(&mut self, reads_max: usize) {
        self.all_reads_max = reads_max;
    }

    /// From their next start on nodes let so many frames of reads of a group wait.
    pub(crate) fn limit_reads(&mut self, reads_max: usize) {
        self.reads_max = reads_max;
    }

    /// From their next start on nodes take their snapshots by these rules.
    pub(crate) fn save_by(&mut self, rules: SnapshotRules) {
        self.snapshots = rules;
    }

    /// Breaks the connections for snapshots between two nodes: what was on its way is lost. They
    /// are made anew at once.
    pub(crate) fn break_bulk(&mut self, a: NodeId, b: NodeId) {
        for (from, to) in [(a, b), (b, a)] {
            self.inboxes.insert((from, to, Lane::Bulk), Inbox::opened());
            self.wire.retain(|it| (it.from, it.to, it.lane) != (from, to, Lane::Bulk));
            let now = self.now;
            let shard = self.shard(to);
            shard.links.bulk.remove(&from);
            shard.collect(now, Event::PullDown(from)).expect("no fault").expect("no frame");
        }
    }

    /// Cuts the link between two nodes.
    pub(crate) fn cut(&mut self, a: NodeId, b: NodeId) {
        self.cuts.insert((a, b));
        self.disconnect(a, b);
    }

    /// Mends the link between two nodes.
    pub(crate) fn mend(&mut self, a: NodeId, b: NodeId) {
        if self.cuts.remove(&(a, b)) | self.cuts.remove(&(b, a)) {
            self.link(a, b);
        }
    }

    /// From now on what two nodes send each other takes so long.
    pub(crate) fn delay(&mut self, a: NodeId, b: NodeId, delay: Ticks) {
        self.delays.extend([((a, b), delay), ((b, a), delay)]);
    }

    /// Mends every link.
    pub(crate) fn heal(&mut self) {
        for (a, _) in std::mem::take(&mut self.cuts) {
            self.connect(a);
        }
    }

    /// Kills a node and cuts its power: of the unflushed sectors those survive that `keep` says.
    pub(crate) fn kill(&mut self, id: NodeId, keep: impl Fn(usize) -> bool) {
        for other in self.nodes() {
            if other != id {
                self.disconnect(id, other);
            }
        }
        let node = self.nodes.get_mut(&id).expect("a node");
        let shard = node.shard.take().expect("it runs");
        let (mut device, _) = shard.into_doors();
        let mut sector = 0;
        device.power_cut(|_| {
            sector += 1;
            keep(sector)
        });
        node.device = Some(device);
    }

    /// From now on a running node's disk holds what it is given, or carries it out.
    pub(crate) fn hold_disk(&mut self, id: NodeId, holds: bool) {
        if holds {
            self.held.insert(id, None);
        }
        let node = self.nodes.get_mut(&id).expect("a node");
        node.shard.as_mut().expect("it runs").device.hold(holds);
        node.wake = self.now;
    }

    /// From now on a running node's disk fails so; what comes of it is [`World::ended`].
    pub(crate) fn fail_disk(&mut self, id: NodeId, fault: Fault) {
        self.held.insert(id, None);
        self.shard(id).device.inject(fault);
    }

    /// A bit flips in every block of a running node's disk but the newest ones.
    pub(crate) fn rot(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a node");
        let device = &mut node.shard.as_mut().expect("it runs").device;
        let (file, _) = device.files()[0];
        let content = device.content(file);
        let pages = content.chunks(4096).enumerate().skip(1);
        let written: Vec<usize> = pages
            .filter(|(_, page)| page.iter().any(|&byte| byte != 0))
            .map(|(at, _)| at)
            .collect();
        for page in &written[..written.len() / 2] {
            device.flip_bit(file, (*page * 4096 + 200) as u64 * 8);
        }
    }

    /// What the shard of a node with such a disk ended with.
    pub(crate) fn ended(&self, id: NodeId) -> Option<&ShardError> {
        self.held[&id].as_ref()
    }

    /// The shard of a running node.
    pub(crate) fn shard(&mut self, id: NodeId) -> &mut Shard<MemoryDevice, TestLinks> {
        let node = self.nodes.get_mut(&id).expect("a node");
        // Whatever is done to it, it looks around soon.
        node.wake = self.now;
        node.shard.as_mut().expect("it runs")
    }

    /// The files on the disk of a running node, and their lengths.
    pub(crate) fn files(&self, id: NodeId) -> Vec<(FileId, u64)> {
        self.nodes[&id].shard.as_ref().expect("it runs").device.files()
    }

    /// The disk of a node that doesn't run.
    pub(crate) fn disk(&mut self, id: NodeId) -> &mut MemoryDevice {
        self.nodes.get_mut(&id).and_then(|node| node.device.as_mut()).expect("it doesn't run")
    }

    /// What a running node's shard had to say since the last call.
    pub(crate) fn events(&mut self, id: NodeId) -> Vec<ShardEvent> {
        let node = self.nodes.get_mut(&id).expect("a node");
        node.shard.as_mut().expect("it runs").take_events()
    }

    /// Bytes that left a node for its peers so far.
    pub(crate) fn bytes_from(&self, id: NodeId) -> usize {
        self.sent.get(&id).copied().unwrap_or_default()
    }

    /// Bytes that a node sent another over the connections for snapshots.
    pub(crate) fn bulk_sent(&self, from: NodeId, to: NodeId) -> usize {
        self.bulk_sent.get(&(from, to)).copied().unwrap_or_default()
    }

    /// Another shard of a running node learned that their data directory is an older copy.
    pub(crate) fn tell_older_copy(&mut self, id: NodeId) {
        let now = self.now;
        let node = self.nodes.get_mut(&id).expect("a node");
        let shard = node.shard.as_mut().expect("it runs");
        shard.collect(now, Event::OlderCopy).expect("no fault").expect("no frame");
        node.wake = now;
    }

    /// Tells a node to stop; it goes on turning.
    pub(crate) fn stop(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a node");
        node.shard.as_mut().expect("it runs").stop();
        node.wake = self.now;
    }

    /// Whether a node has nothing left to do.
    pub(crate) fn is_quiet(&self, id: NodeId) -> bool {
        let shard = self.nodes[&id].shard.as_ref().expect("it runs");
        shard.is_quiet() && shard.pending_writes() == 0
    }

    fn note(&mut self, value: u64) {
        self.hash = (self.hash ^ value).wrapping_mul(0x0100_0000_01b3).rotate_left(17);
    }

    /// A hash over everything that travelled.
    pub(crate) fn trace_hash(&self) -> u64 {
        self.hash
    }

    /// As whom a node is to be met now.
    pub(crate) fn met(&self, id: NodeId) -> Met {
        let start = self.nodes[&id].starts.newest();
        Met { incarnation: self.identity_of(id).incarnation, start }
    }

    /// Its time.
    pub(crate) fn now(&self) -> Ticks {
        self.now
    }

    /// Lets time pass.
    pub(crate) fn run_for(&mut self, span: Ticks) {
        let until = self.now.after(span);
        while self.now < until {
            self.advance(until);
        }
    }

    /// Stops a node's process, or lets it go on: what came for it meanwhile is there then.
    pub(crate) fn freeze(&mut self, id: NodeId, is_frozen: bool) {
        if is_frozen {
            self.frozen.insert(id);
            return;
        }
        self.frozen.remove(&id);
        for flight in std::mem::take(&mut self.parked).into_iter().rev() {
            self.wire.push_front(flight);
        }
    }

    fn advance(&mut self, until: Ticks) {
        let wire = self.wire.front().map_or(Ticks::NEVER, |flight| flight.at);
        let moves = |id: &NodeId, node: &Node| node.shard.is_some() && !self.frozen.contains(id);
        let moving = self.nodes.iter().filter(|(id, node)| moves(id, node));
        let next = moving
            .map(|(_, node)| node.wake)
            .min()
            .unwrap_or(Ticks::NEVER)
            .min(wire)
            .min(until)
            .min(self.dial_at);
        self.now = next.max(self.now);
        if self.now >= self.dial_at {
            self.dial();
            self.dial_at = self.now.after(Ticks::from_millis(100));
        }
        while self.wire.front().is_some_and(|flight| flight.at <= self.now) {
            let flight = self.wire.pop_front().expect("just seen");
            match self.frozen.contains(&flight.to) {
                true => self.parked.push(flight),
                false => self.deliver(&flight),
            }
        }
        for id in self.nodes() {
            if self.nodes[&id].wake <= self.now && !self.frozen.contains(&id) {
                self.turn(id);
            }
        }
    }

    /// Puts what leaves now on its way, in the order of arrival.
    fn send_off(&mut self, mut flight: Flight) {
        let delay = self.delays.get(&(flight.from, flight.to));
        flight.at = flight.at.after(delay.copied().unwrap_or(DELAY));
        let place = self.wire.partition_point(|other| other.at <= flight.at);
        self.wire.insert(place, flight);
    }

    fn deliver(&mut self, flight: &Flight) {
        let now = self.now;
        let &Flight { from, to, lane, ref bytes, is_garbled, .. } = flight;
        let Some(inbox) = self.inboxes.get_mut(&(from, to, lane)) else { return };
        let node = self.nodes.get_mut(&to).expect("a node");
        let Some(shard) = node.shard.as_mut() else { return };
        let mut is_stranger = false;
        let fed = try_feed(inbox, bytes, |frame| {
            let event = match lane {
                Lane::Peer => Event::PeerFrame { from, frame: *frame },
                Lane::Bulk => Event::BulkFrame { from, frame: *frame },
            };
            let taken = shard.collect(now, event).expect("no fault");
            is_stranger |= taken == Err(FrameRefusal::WrongSender);
            assert!(is_stranger || taken.is_ok(), "a sound frame: {taken:?}");
        });
        node.wake = now;
        assert_eq!(fed.is_err(), is_garbled, "whatever changes on the way is noticed: {fed:?}");
        if is_garbled {
            assert_eq!(lane, Lane::Bulk);
            self.garbled += 1;
            self.break_bulk(from, to);
        }
        if is_stranger {
            assert!(self.dial_at < Ticks::NEVER, "nobody else takes its place");
            self.disconnect(from, to);
        }
        self.note(u64::from(from.0) << 32 | u64::from(to.0));
        self.note(bytes.len() as u64);
    }

    /// Delivers a frame that no shard wrote, over the link of a peer. If it is refused, the link
    /// is closed and made anew.
    pub(crate) fn inject(
        &mut self,
        from: NodeId,
        to: NodeId,
        write: impl FnOnce(&mut Outbox, Identity),
    ) -> Result<(), FrameRefusal> {
        let mut outbox = Outbox::new(1 << 20);
        write(&mut outbox, Self::identity(from));
        let bytes = outbox.take_all();
        let now = self.now;
        let node = self.nodes.get_mut(&to).expect("a node");
        let shard = node.shard.as_mut().expect("it runs");
        let mut taken = Ok(());
        feed(&mut Inbox::opened(), &bytes, |frame| {
            let event = Event::PeerFrame { from, frame: *frame };
            taken = shard.collect(now, event).expect("no fault");
        });
        node.wake = now;
        if taken.is_err() {
            self.disconnect(from, to);
            self.link(from, to);
        }
        taken
    }

    fn turn(&mut self, id: NodeId) {
        let now = self.now;
        let node = self.nodes.get_mut(&id).expect("a node");
        let Some(shard) = node.shard.as_mut() else { return };
        let wake = match shard.turn(now) {
            Ok(wake) => wake,
            Err(error) => {
                let end = self.held.get_mut(&id).unwrap_or_else(|| panic!("no fault: {error}"));
                *end = Some(error);
                return self.kill(id, |_| true);
            }
        };
        node.wake = match wake {
            Wake::Now => now.after(Ticks(1)),
            Wake::At(at) => at.max(now.after(Ticks(1))),
            Wake::OnEvent => Ticks::NEVER,
        };
        let mut out = Vec::new();
        for (&peer, outbox) in &mut shard.links.peers {
            let bytes = match self.rate {
                None => outbox.take_all(),
                Some(rate) => {
                    let busy = self.busy.entry((id, peer)).or_default();
                    let bytes = if *busy > now { Vec::new() } else { piece(outbox) };
                    *busy = now.max(*busy).after(Ticks(bytes.len() as u64 * 1_000 / rate));
                    if !outbox.is_empty() {
                        node.wake = node.wake.min((*busy).max(now.after(Ticks(1))));
                    }
                    bytes
                }
            };
            if !bytes.is_empty() {
                out.push((peer, bytes));
            }
        }
        let bulk = shard.links.bulk.iter_mut();
        let bulk: Vec<_> = bulk.map(|(&peer, outbox)| (peer, outbox.take_all())).collect();
        let mut replies = Vec::new();
        for outbox in shard.links.clients.values_mut() {
            replies.push(outbox.take_all());
        }
        for (peer, bytes) in out {
            *self.sent.entry(id).or_default() += bytes.len();
            let (to, lane) = (peer, Lane::Peer);
            self.send_off(Flight { at: now, from: id, to, lane, bytes, is_garbled: false });
        }
        for (to, bytes) in bulk.into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
            *self.bulk_sent.entry((id, to)).or_default() += bytes.len();
            let lane = Lane::Bulk;
            self.send_off(Flight { at: now, from: id, to, lane, bytes, is_garbled: false });
        }
        for bytes in replies {
            let answers = &mut self.answers;
            feed(&mut Inbox::opened(), &bytes, |frame| {
                if frame.header.kind == Kind::LeadReply {
                    let reply = LeadReply::read(frame).expect("a sound frame");
                    let (status, index, revision) = (reply.status, Index::ZERO, Revision(0));
                    let body = frame.body.to_vec();
                    answers.insert((id, reply.call), Answer { status, revision, index, body });
                    return;
                }
                if frame.header.kind == Kind::BarrierReply {
                    let reply = BarrierReply::read(frame).expect("a sound frame");
                    let (status, index, revision) = (reply.status, reply.index, Revision(0));
                    let body = frame.body.to_vec();
                    answers.insert((id, reply.call), Answer { status, revision, index, body });
                    return;
                }
                if frame.header.kind == Kind::MembersReply {
                    let reply = MembersReply::read(frame).expect("a sound frame");
                    let (status, index, revision) = (reply.status, reply.index, Revision(0));
                    let body = frame.body.to_vec();
                    answers.insert((id, reply.call), Answer { status, revision, index, body });
                    return;
                }
                assert_eq!(frame.header.kind, Kind::Replies);
                let replies = client_wire::replies(frame).expect("a sound frame");
                for reply in replies.iter() {
                    let answer = Answer {
                        status: reply.status,
                        revision: reply.revision,
                        index: reply.index,
                        body: reply.body.to_vec(),
                    };
                    answers.insert((id, reply.call), answer);
                }
            });
        }
    }

    /// Runs until some node leads every group and is ready, and returns the leader of the first.
    pub(crate) fn elect(&mut self) -> NodeId {
        self.elect_among(|_| true)
    }

    /// As [`World::elect`], among some of the nodes.
    pub(crate) fn elect_among(&mut self, among: impl Fn(NodeId) -> bool) -> NodeId {
        for _ in 0..2_000 {
            self.run_for(Ticks::from_millis(10));
            let mut ready: BTreeMap<GroupId, NodeId> = BTreeMap::new();
            for (&id, node) in &self.nodes {
                let Some(shard) = node.shard.as_ref().filter(|_| among(id)) else { continue };
                ready.extend(shard.ready_groups().map(|group| (group, id)));
            }
            if (1..=self.groups).all(|group| ready.contains_key(&GroupId(group))) {
                return ready[&GROUP];
            }
        }
        panic!("no leader within twenty seconds");
    }

    /// Sends so many writes of a session to a group, from this number on, in one frame. Returns the
    /// first one's call.
    pub(crate) fn flood(
        &mut self,
        to: NodeId,
        group: GroupId,
        client: u128,
        numbers: std::ops::Range<u64>,
        value: &[u8],
    ) -> u64 {
        let call = self.next_call;
        self.next_call += numbers.end - numbers.start;
        let mut outbox = Outbox::new(16 << 20);
        let mut batch = BatchWriter::begin(&mut outbox, Kind::Writes, group, Identity::default());
        let mut command = Vec::new();
        PutCommand { key: b"flood", value, previous: false }.encode(&mut command).expect("fits");
        for (call, sequence) in (call..).zip(numbers) {
            let (client, received) = (ClientId(client), sequence - 1);
            let envelope = Envelope { client, sequence, received, opened: Index::ZERO };
            batch.request(call, [&envelope.to_bytes(), &command]);
        }
        batch.finish();
        self.feed_client(to, &mut outbox);
        call
    }

    /// From their next start on groups hibernate that are idle for so long.
    pub(crate) fn hibernate(&mut self, after: Ticks) {
        self.hibernate_after = after;
    }

    /// From their next start on nodes have so many writes, and bytes of them, under way at most.
    pub(crate) fn limit_pending(&mut self, writes_max: usize, bytes_max: usize) {
        self.pending_max = (writes_max, bytes_max);
    }

    fn send(&mut self, to: NodeId, kind: Kind, payload: [&[u8]; 2]) -> u64 {
        self.send_many(to, kind, payload, 1)
    }

    /// Sends the same request so many times in one frame. Returns the first one's call.
    fn send_many(&mut self, to: NodeId, kind: Kind, payload: [&[u8]; 2], count: u64) -> u64 {
        let call = self.next_call;
        self.next_call += count;
        let mut outbox = Outbox::new(16 << 20);
        let group = self.addressed;
        let mut batch = BatchWriter::begin(&mut outbox, kind, group, Identity::default());
        for call in call..call + count {
            batch.request(call, payload);
        }
        batch.finish();
        self.feed_client(to, &mut outbox);
        call
    }

    /// Sends a read of a key that may see this. Returns the call.
    pub(crate) fn send_get_of(&mut self, to: NodeId, key: &[u8], of: Consistency) -> u64 {
        let mut command = Vec::new();
        let range = RangeCommand::current(Keys::One(key));
        range.encode(&mut command).expect("within limits");
        let call = self.next_call;
        self.next_call += 1;
        let mut outbox = Outbox::new(16 << 20);
        let mut batch = BatchWriter::begin_reads(&mut outbox, of, GROUP, Identity::default());
        batch.request(call, [&command, b""]);
        batch.finish();
        self.feed_client(to, &mut outbox);
        call
    }

    /// The same, and waits for the reply.
    pub(crate) fn get_of(&mut self, to: NodeId, key: &[u8], of: Consistency) -> Answer {
        let call = self.send_get_of(to, key, of);
        self.await_answer(to, call)
    }

    /// Asks a node about the members of a group, or for a change of them. Returns the call.
    pub(crate) fn send_members(
        &mut self,
        to: NodeId,
        group: GroupId,
        change: Option<(Index, members_wire::MemberChange)>,
    ) -> u64 {
        let call = self.next_call;
        self.next_call += 1;
        let mut outbox = Outbox::new(1 << 20);
        if let Some((expected, change)) = change {
            let mut body = Vec::new();
            ChangeAsk { call, expected, change }.encode(&mut body).expect("short addresses");
            members_wire::write_change(&mut outbox, group, Identity::default(), &body);
        } else {
            members_wire::write_members(&mut outbox, group, Identity::default(), call);
        }
        self.feed_client(to, &mut outbox);
        call
    }

    /// Asks a node that another one leads, or of a shard not to stand. Returns the call.
    pub(crate) fn send_lead(&mut self, to: NodeId, group: GroupId, leading: Leading) -> u64 {
        let call = self.next_call;
        self.next_call += 1;
        let mut outbox = Outbox::new(1 << 20);
        LeadAsk { call, leading }.write(&mut outbox, group, Identity::default());
        self.feed_client(to, &mut outbox);
        call
    }

    /// Asks a node when an entry is at a level. Returns the call.
    pub(crate) fn send_barrier(
        &mut self,
        to: NodeId,
        group: GroupId,
        (level, index): (Level, Option<Index>),
        wait_ms: u32,
    ) -> u64 {
        let call = self.next_call;
        self.next_call += 1;
        let mut outbox = Outbox::new(1 << 20);
        let ask = BarrierAsk { call, level, index, wait_ms };
        ask.write(&mut outbox, group, Identity::default());
        self.feed_client(to, &mut outbox);
        call
    }

    /// A client's frames arrive at a node.
    fn feed_client(&mut self, to: NodeId, outbox: &mut Outbox) {
        let bytes = outbox.take_all();
        let now = self.now;
        let node = self.nodes.get_mut(&to).expect("a node");
        let shard = node.shard.as_mut().expect("it runs");
        let from = ConnectionId { shard: ShardId(0), slot: 0, generation: 0 };
        feed(&mut Inbox::opened(), &bytes, |frame| {
            let event = Event::ClientFrame { from, frame: *frame };
            shard.collect(now, event).expect("no fault").expect("a sound frame");
        });
        node.wake = now;
    }

    /// The reply to a call, if it came.
    pub(crate) fn take_reply(&mut self, from: NodeId, call: u64) -> Option<(Status, Vec<u8>)> {
        self.answers.remove(&(from, call)).map(|answer| (answer.status, answer.body))
    }

    pub(crate) fn await_answer(&mut self, from: NodeId, call: u64) -> Answer {
        for _ in 0..2_000 {
            if let Some(answer) = self.answers.remove(&(from, call)) {
                return answer;
            }
            self.run_for(Ticks::from_millis(1));
        }
        panic!("no answer within two seconds");
    }

    /// Writes under a session and waits for the reply.
    pub(crate) fn put(
        &mut self,
        to: NodeId,
        client: u128,
        sequence: u64,
        key: &[u8],
        value: &[u8],
    ) -> Answer {
        let call = self.send_put(to, client, sequence, key, value);
        self.await_answer(to, call)
    }

    /// Deletes a key under a session and waits for the reply.
    pub(crate) fn delete(&mut self, to: NodeId, client: u128, sequence: u64, key: &[u8]) -> Answer {
        let mut command = Vec::new();
        let delete = DeleteCommand { keys: Keys::One(key), previous: true };
        delete.encode(&mut command).expect("within limits");
        self.write(to, client, sequence, &command)
    }

    /// Has a command written under a session and waits for the reply.
    pub(crate) fn write(
        &mut self,
        to: NodeId,
        client: u128,
        sequence: u64,
        command: &[u8],
    ) -> Answer {
        let client = ClientId(client);
        let envelope = Envelope { client, sequence, received: 0, opened: Index::ZERO };
        let call = self.send(to, Kind::Writes, [&envelope.to_bytes(), command]);
        self.await_answer(to, call)
    }

    /// Sends a write under a session.
    pub(crate) fn send_put(
        &mut self,
        to: NodeId,
        client: u128,
        sequence: u64,
        key: &[u8],
        value: &[u8],
    ) -> u64 {
        let mut envelope = Vec::new();
        let client = ClientId(client);
        Envelope { client, sequence, received: 0, opened: Index::ZERO }.encode(&mut envelope);
        let mut command = Vec::new();
        PutCommand { key, value, previous: false }.encode(&mut command).expect("within limits");
        self.send(to, Kind::Writes, [&envelope, &command])
    }

    /// Sends a linearizable read.
    pub(crate) fn send_get(&mut self, to: NodeId, key: &[u8]) -> u64 {
        self.send_gets(to, key, 1)
    }

    /// Sends so many linearizable reads of a key in one frame. Returns the first one's call.
    pub(crate) fn send_gets(&mut self, to: NodeId, key: &[u8], count: u64) -> u64 {
        let mut command = Vec::new();
        let range = RangeCommand::current(Keys::One(key));
        range.encode(&mut command).expect("within limits");
        self.send_many(to, Kind::Reads, [&command, b""], count)
    }

    /// Reads a key, linearizably, and waits for the reply.
    pub(crate) fn get(&mut self, to: NodeId, key: &[u8]) -> (Status, Vec<u8>) {
        let call = self.send_get(to, key);
        let answer = self.await_answer(to, call);
        (answer.status, answer.body)
    }

    /// How the first group is on a running node.
    pub(crate) fn group(&self, id: NodeId) -> GroupStatus {
        self.groups(id)[0]
    }

    /// How the groups are on a running node.
    pub(crate) fn groups(&self, id: NodeId) -> Vec<GroupStatus> {
        let shard = self.nodes[&id].shard.as_ref().expect("it runs");
        shard.status(self.now).groups
    }

    /// How far a running node has applied the first group.
    pub(crate) fn applied(&self, id: NodeId) -> Index {
        self.group(id).applied
    }

    /// From its next start on a node reads its log through so often, and so fast.
    pub(crate) fn scrub(&mut self, rules: ScrubRules) {
        self.scrub = rules;
    }

    /// How a node is set to lead from now on, in later starts too.
    pub(crate) fn lead_by(&mut self, id: NodeId, rules: LeadRules) {
        self.lead.insert(id, rules);
        self.shard(id).set_lead_rules(rules);
    }

    /// From now on each link takes so many bytes in a millisecond.
    pub(crate) fn slow_links(&mut self, rate: u64) {
        self.rate = Some(rate);
    }

    /// Bytes that wait in the fullest outbox of a running node to its peers.
    pub(crate) fn waiting_bytes(&self, id: NodeId) -> usize {
        let links = &self.nodes[&id].shard.as_ref().expect("it runs").links;
        links.peers.values().map(Outbox::waiting).max().unwrap_or(0)
    }

    /// Elections that running nodes stood for.
    pub(crate) fn elections(&self) -> u64 {
        let shards = self.nodes.values().filter_map(|node| node.shard.as_ref());
        shards.map(|shard| shard.metrics().elections).sum()
    }

    /// Frames between nodes that arrived.
    pub(crate) fn frames(&self) -> u64 {
        let shards = self.nodes.values().filter_map(|node| node.shard.as_ref());
        shards.map(|shard| shard.metrics().peer_frames).sum()
    }

    /// All running nodes have applied the same, and have the same state (V7).
    pub(crate) fn assert_converged(&self) {
        let mut seen: BTreeMap<GroupId, (Index, u64)> = BTreeMap::new();
        for (id, node) in &self.nodes {
            let Some(shard) = &node.shard else { continue };
            for group in shard.status(self.now).groups {
                let state = (group.applied, group.state_hash);
                let first = *seen.entry(group.group).or_insert(state);
                assert_eq!(first, state, "node {id} differs in group {}", group.group);
            }
        }
    }
}
