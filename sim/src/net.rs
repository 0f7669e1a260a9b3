//! The network: streams of bytes between processes, as TCP gives them. Bytes of one direction come
//! in order and late; what is lost is sent again by the system, until its patience is over and the
//! connection is gone. Frames are never lost alone, but connections are, with what was on its way.

mod old;

use std::collections::{BTreeMap, VecDeque};

use ringraft_net::handshake::Role;
use ringraft_types::Ticks;
use xxhash_rust::xxh3::xxh3_64;

use crate::base::{Base, Event, Owner};
use crate::net::old::OldFrames;
use crate::trace::{self, What};

/// A peer that acknowledges nothing for this long is gone, as the product asks of the system.
const PATIENCE: Ticks = Ticks::from_millis(8_000);
/// A way that takes longer and longer takes at most so much longer.
const LATER_MAX: Ticks = Ticks::from_millis(4_000);

/// How the network behaves.
#[derive(Clone, Debug)]
pub(crate) struct Weather {
    /// One way, between two hosts: at least and at most.
    pub(crate) delay: (Ticks, Ticks),
    /// A piece is lost and sent again later, per million.
    pub(crate) loss: u32,
    /// A piece arrives in two, per million.
    pub(crate) split: u32,
    /// An old frame of a peer comes again behind a piece, per million.
    pub(crate) replay: u32,
    /// What the systems of both ends buffer on one stream, bytes, give or take a frame of a peer
    /// or all that waits for a client.
    pub(crate) window_bytes: usize,
}

/// What a look for bytes finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// So many bytes; whether there are more.
    Bytes(usize, bool),
    /// Nothing now.
    Nothing,
    /// Nothing ever more.
    Ended,
}

#[derive(Debug)]
enum Piece {
    Bytes(Vec<u8>),
    End,
}

/// What one end sends.
#[derive(Debug, Default)]
struct Flow {
    pieces: VecDeque<(Ticks, Piece)>,
    /// Bytes that the other end's process has not taken.
    arrived: Vec<u8>,
    flying_bytes: usize,
    last_at: Ticks,
    /// The first piece was due, and the way is blocked.
    is_blocked: bool,
    has_ended: bool,
    wants_room: bool,
}

impl Flow {
    fn held_bytes(&self) -> usize {
        self.flying_bytes + self.arrived.len()
    }
}

#[derive(Clone, Copy, Debug)]
struct End {
    owner: Owner,
    /// The process has it.
    is_open: bool,
    /// The system says that it is gone.
    is_lost: bool,
}

/// One connection; side 0 dialled.
#[derive(Debug)]
pub(crate) struct Connection {
    ends: [End; 2],
    flows: [Flow; 2],
    /// Which port was dialled.
    port: Role,
    /// By side: the shard whose frames it sends, once nothing else is sent; for old frames.
    shard: [Option<u16>; 2],
    stuck_since: Option<Ticks>,
}

/// A host, as its system sees it.
#[derive(Clone, Copy, Debug)]
struct HostState {
    /// The life of its process, if it runs.
    life: Option<u64>,
    /// The machine has power: it answers for processes that are gone.
    is_on: bool,
}

/// All connections there are.
pub(crate) struct Network {
    weather: Weather,
    hosts: Vec<HostState>,
    /// By sender and receiver: how many faults block this way.
    blocked: Vec<u32>,
    /// By sender and receiver: so much later.
    slow: Vec<Ticks>,
    /// By sender and receiver: since when a way takes so many times longer than what was sent then,
    /// as one whose queue grows.
    stretched: BTreeMap<usize, (Ticks, u64)>,
    connections: BTreeMap<u64, Connection>,
    next: u64,
    old: BTreeMap<(usize, usize, u16), OldFrames>,
    /// Old answers are kept, to come again.
    keeps_answers: bool,
}

impl Network {
    /// A network of so many hosts, none of which runs.
    pub(crate) fn new(weather: Weather, hosts: usize) -> Self {
        Self {
            weather,
            hosts: vec![HostState { life: None, is_on: true }; hosts],
            blocked: vec![0; hosts * hosts],
            slow: vec![Ticks::ZERO; hosts * hosts],
            stretched: BTreeMap::new(),
            connections: BTreeMap::new(),
            next: 1,
            old: BTreeMap::new(),
            keeps_answers: false,
        }
    }

    fn pair(&self, from: usize, to: usize) -> usize {
        from * self.hosts.len() + to
    }

    /// The weather, to be changed.
    pub(crate) fn weather_mut(&mut self) -> &mut Weather {
        &mut self.weather
    }

    /// Everything that was blocked or slow is not any more.
    pub(crate) fn clear(&mut self, base: &mut Base) {
        self.slow.fill(Ticks::ZERO);
        self.stretched.clear();
        for from in 0..self.hosts.len() {
            for to in 0..self.hosts.len() {
                self.set_blocks(base, from, to, 0);
            }
        }
    }

    /// Makes one way between two hosts slower by this.
    pub(crate) fn slow(&mut self, from: usize, to: usize, by: Ticks) {
        let pair = self.pair(from, to);
        self.slow[pair] = by;
        self.stretched.remove(&pair);
    }

    /// From now on what is sent on one way comes later and later: by this many times the time that
    /// went by since now. Until it is said how slow the way is.
    pub(crate) fn stretch(&mut self, base: &Base, from: usize, to: usize, times: u64) {
        let pair = self.pair(from, to);
        self.stretched.insert(pair, (base.now, times));
    }

    fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.blocked[self.pair(from, to)] > 0
    }

    /// Blocks one way between two hosts, or takes one block away.
    pub(crate) fn block(&mut self, base: &mut Base, from: usize, to: usize, blocked: bool) {
        let before = self.blocked[self.pair(from, to)];
        let blocks = if blocked { before + 1 } else { before.saturating_sub(1) };
        self.set_blocks(base, from, to, blocks);
    }

    fn set_blocks(&mut self, base: &mut Base, from: usize, to: usize, blocks: u32) {
        let pair = self.pair(from, to);
        let before = std::mem::replace(&mut self.blocked[pair], blocks);
        let is_blocked = blocks > 0;
        if (before > 0) == is_blocked {
            return;
        }
        for (&id, connection) in &mut self.connections {
            for side in 0..2 {
                let hosts =
                    [connection.ends[side].owner.host, connection.ends[1 - side].owner.host];
                if hosts != [from, to] {
                    continue;
                }
                if is_blocked {
                    connection.stuck_since.get_or_insert(base.now);
                    base.after(PATIENCE, Event::Patience { connection: id });
                } else {
                    connection.stuck_since = None;
                    if std::mem::take(&mut connection.flows[side].is_blocked) {
                        // The system tries again at growing intervals: any order is possible.
                        let later = base.span(Ticks(1), Ticks::from_millis(200));
                        base.after(later, Event::Arrive { connection: id, side });
                    }
                }
            }
        }
    }

    /// A process begins. What was sent to the one before it is sent again, and refused.
    pub(crate) fn host_up(&mut self, base: &mut Base, host: usize, life: u64) {
        self.hosts[host] = HostState { life: Some(life), is_on: true };
        for (&id, connection) in &self.connections {
            for side in 0..2 {
                let is_to_it = connection.ends[1 - side].owner.host == host;
                if is_to_it && !connection.flows[side].pieces.is_empty() {
                    let later = base.span(Ticks(1), Ticks::from_millis(200));
                    base.after(later, Event::Arrive { connection: id, side });
                }
            }
        }
    }

    /// A process ends; with its machine's power, if it isn't `loud`: then nobody is told.
    pub(crate) fn host_down(&mut self, base: &mut Base, host: usize, loud: bool) {
        self.hosts[host] = HostState { life: None, is_on: loud };
        let mut gone = Vec::new();
        for (&id, connection) in &mut self.connections {
            for side in 0..2 {
                if connection.ends[side].owner.host != host {
                    continue;
                }
                connection.ends[side].is_open = false;
                connection.ends[side].is_lost = true;
                gone.push((id, 1 - side));
            }
        }
        for (connection, side) in gone {
            if loud {
                let delay =
                    self.delay(base, host, self.connections[&connection].ends[side].owner.host);
                base.after(delay, Event::Reset { connection, side });
            } else {
                let held = self.connections.get_mut(&connection).expect("it was just found");
                held.stuck_since.get_or_insert(base.now);
                base.after(PATIENCE, Event::Patience { connection });
            }
        }
    }

    fn delay(&self, base: &mut Base, from: usize, to: usize) -> Ticks {
        let (low, high) = self.weather.delay;
        let pair = self.pair(from, to);
        let mut delay = base.span(low, high).after(self.slow[pair]);
        if let Some(&(since, times)) = self.stretched.get(&pair) {
            delay = delay.after(Ticks(base.now.since(since).0 * times).min(LATER_MAX));
        }
        if base.random.chance(self.weather.loss) {
            base.count("net: lost and sent again");
            delay = delay.after(base.span(Ticks::from_millis(200), Ticks::from_millis(400)));
        }
        delay
    }

    /// Begins to connect to a host's port.
    pub(crate) fn connect(&mut self, base: &mut Base, owner: Owner, to: usize, port: Role) -> u64 {
        let id = self.next;
        self.next += 1;
        let other = Owner { host: to, life: 0, lane: 0 };
        let delay = self.delay(base, owner.host, to);
        self.connections.insert(
            id,
            Connection {
                ends: [
                    End { owner, is_open: true, is_lost: false },
                    End { owner: other, is_open: false, is_lost: false },
                ],
                flows: [Flow::default(), Flow::default()],
                port,
                shard: [None; 2],
                stuck_since: None,
            },
        );
        base.after(delay, Event::Connect { connection: id });
        id
    }

    /// The wish to connect arrives: the host whose process now has the other end, if it runs.
    pub(crate) fn arrive(&mut self, base: &mut Base, id: u64) -> Option<usize> {
        let [from, to] = self.connections.get(&id)?.ends.map(|end| end.owner.host);
        if self.is_blocked(from, to) || self.is_blocked(to, from) {
            // The system asks again.
            base.after(Ticks::from_millis(1_000), Event::Connect { connection: id });
            return None;
        }
        let connection = self.connections.get_mut(&id).expect("just seen");
        if !connection.ends[0].is_open {
            self.connections.remove(&id);
            return None;
        }
        match self.hosts[to] {
            HostState { life: Some(life), .. } => {
                connection.ends[1].owner.life = life;
                connection.ends[1].is_open = true;
                base.news.push((connection.ends[0].owner, id));
                Some(to)
            }
            HostState { is_on: true, .. } => {
                connection.ends[0].is_lost = true;
                base.news.push((connection.ends[0].owner, id));
                None
            }
            _ => {
                base.after(Ticks::from_millis(1_000), Event::Connect { connection: id });
                None
            }
        }
    }

    /// Whether a dial has led to a connection, or failed; `None` as long as nobody knows.
    pub(crate) fn dialled(&self, id: u64) -> Option<bool> {
        let connection = self.connections.get(&id)?;
        match (connection.ends[0].is_lost, connection.ends[1].owner.life) {
            (true, _) => Some(false),
            (false, 0) => None,
            (false, _) => Some(true),
        }
    }

    /// Which port a connection was made to.
    pub(crate) fn port(&self, id: u64) -> Option<Role> {
        self.connections.get(&id).map(|connection| connection.port)
    }

    /// This side sends frames of this shard from now on, and nothing else.
    pub(crate) fn sends_frames(&mut self, id: u64, side: usize, shard: u16) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.shard[side] = Some(shard);
        }
    }

    /// Another lane of the same process has the end from now on.
    pub(crate) fn hand_over(&mut self, id: u64, side: usize, lane: usize) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.ends[side].owner.lane = lane;
        }
    }

    /// How many bytes more the system takes; if none, the owner is told when it does.
    pub(crate) fn room(&mut self, id: u64, side: usize) -> usize {
        let window = self.weather.window_bytes;
        let Some(connection) = self.connections.get_mut(&id) else { return window };
        let flow = &mut connection.flows[side];
        flow.wants_room = flow.held_bytes() >= window;
        window.saturating_sub(flow.held_bytes())
    }

    /// Sends bytes: whole frames, or a greeting.
    pub(crate) fn send(&mut self, base: &mut Base, id: u64, side: usize, bytes: Vec<u8>) {
        let Some(connection) = self.connections.get(&id) else { return };
        let (end, other) = (connection.ends[side], connection.ends[1 - side]);
        if !end.is_open || end.is_lost || bytes.is_empty() {
            return;
        }
        let (from, to) = (end.owner.host, other.owner.host);
        let link = connection.shard[side].map(|shard| (from, to, shard));
        self.push(base, id, side, Piece::Bytes(bytes.clone()));
        let Some(link) = link else { return };
        if self.keeps_answers {
            self.old.entry(link).or_default().keep_answer(&bytes, &mut base.random);
        }
        if self.weather.replay == 0 {
            return;
        }
        let old = self.old.entry(link).or_default();
        let is_again = base.random.chance(self.weather.replay);
        let again = if is_again { old.any(&mut base.random) } else { None };
        old.keep(bytes, &mut base.random);
        if let Some(again) = again {
            base.count("net: old frames again");
            self.push(base, id, side, Piece::Bytes(again));
        }
    }

    fn push(&mut self, base: &mut Base, id: u64, side: usize, piece: Piece) {
        let [from, to] = {
            let ends = &self.connections[&id].ends;
            [ends[side].owner.host, ends[1 - side].owner.host]
        };
        let delay = self.delay(base, from, to);
        let flow = &mut self.connections.get_mut(&id).expect("just seen").flows[side];
        let at = base.now.after(delay).max(flow.last_at);
        flow.last_at = at;
        if let Piece::Bytes(bytes) = &piece {
            flow.flying_bytes += bytes.len();
        }
        flow.pieces.push_back((at, piece));
        base.at(at, Event::Arrive { connection: id, side });
    }

    /// What this side sent and is due arrives, unless the way is blocked.
    pub(crate) fn deliver(&mut self, base: &mut Base, id: u64, side: usize) {
        let Some(connection) = self.connections.get(&id) else { return };
        let (end, other) = (connection.ends[side], connection.ends[1 - side]);
        let is_blocked = self.is_blocked(end.owner.host, other.owner.host);
        let is_free = !is_blocked && !self.is_blocked(other.owner.host, end.owner.host);
        let host = self.hosts[other.owner.host];
        let is_there = host.life == Some(other.owner.life) && other.is_open && !other.is_lost;
        let connection = self.connections.get_mut(&id).expect("just seen");
        let flow = &mut connection.flows[side];
        if flow.pieces.front().is_none_or(|piece| piece.0 > base.now) {
            return;
        }
        if is_blocked || (!is_there && !host.is_on) {
            flow.is_blocked = is_blocked;
            connection.stuck_since.get_or_insert(base.now);
            base.after(PATIENCE, Event::Patience { connection: id });
            return;
        }
        if is_free && is_there {
            connection.stuck_since = None;
        }
        let mut bytes_arrived = 0;
        let mut has_answer = false;
        while let Some((_, piece)) = flow.pieces.pop_front_if(|piece| piece.0 <= base.now) {
            match piece {
                Piece::End => flow.has_ended = true,
                Piece::Bytes(bytes) => {
                    has_answer = true;
                    flow.flying_bytes -= bytes.len();
                    bytes_arrived += bytes.len();
                    if is_there {
                        flow.arrived.extend_from_slice(&bytes);
                    }
                }
            }
        }
        if is_there {
            let content = xxh3_64(&flow.arrived);
            let what = What::Arrived { connection: id, side, bytes: bytes_arrived, content };
            trace::note(base.now, what);
            base.news.push((other.owner, id));
            if std::mem::take(&mut flow.wants_room) && flow.held_bytes() < self.weather.window_bytes
            {
                base.news.push((end.owner, id));
            }
        } else if has_answer {
            // Nobody has that connection any more: its system says so.
            let delay = self.delay(base, other.owner.host, end.owner.host);
            base.after(delay, Event::Reset { connection: id, side });
        }
        self.forget_if_closed(id);
    }

    /// Takes bytes that arrived for this side.
    pub(crate) fn receive(
        &mut self,
        base: &mut Base,
        id: u64,
        side: usize,
        into: &mut [u8],
    ) -> Received {
        let split = self.weather.split;
        let Some(connection) = self.connections.get_mut(&id) else { return Received::Ended };
        let (end, other) = (connection.ends[side], connection.ends[1 - side].owner);
        let flow = &mut connection.flows[1 - side];
        if flow.arrived.is_empty() {
            let is_over = end.is_lost || flow.has_ended;
            return if is_over { Received::Ended } else { Received::Nothing };
        }
        let mut count = flow.arrived.len().min(into.len());
        if count > 1 && base.random.chance(split) {
            base.count("net: received in parts");
            count = base.random.between(1, count as u64 - 1) as usize;
        }
        into[..count].copy_from_slice(&flow.arrived[..count]);
        flow.arrived.drain(..count);
        if std::mem::take(&mut flow.wants_room) {
            base.news.push((other, id));
        }
        let has_more = !flow.arrived.is_empty() || flow.has_ended || end.is_lost;
        Received::Bytes(count, has_more)
    }

    /// This side's process closes its end; what it sent before still arrives.
    pub(crate) fn close(&mut self, base: &mut Base, id: u64, side: usize) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if !std::mem::replace(&mut connection.ends[side].is_open, false) {
            return;
        }
        let is_made = connection.ends[1].owner.life != 0;
        if is_made && !connection.ends[side].is_lost {
            self.push(base, id, side, Piece::End);
        }
        self.forget_if_closed(id);
    }

    /// This side learns that the connection is gone.
    pub(crate) fn lose(&mut self, base: &mut Base, id: u64, side: usize) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let end = &mut connection.ends[side];
        if end.is_open && !std::mem::replace(&mut end.is_lost, true) {
            base.news.push((end.owner, id));
        }
        self.forget_if_closed(id);
    }

    /// The system gives a connection up if nothing got through for all its patience.
    pub(crate) fn lose_patience(&mut self, base: &mut Base, id: u64) {
        let Some(connection) = self.connections.get(&id) else { return };
        let is_over = connection.stuck_since.is_some_and(|since| base.now.since(since) >= PATIENCE);
        if is_over {
            self.lose(base, id, 0);
            self.lose(base, id, 1);
        }
    }

    /// Tears a connection between two nodes: at one end at once, at the other at once or, half
    /// open, when it next sends. What is on its way is lost.
    pub(crate) fn tear(&mut self, base: &mut Base, half_open: bool) -> bool {
        let is_whole =
            |connection: &Connection| connection.ends.iter().all(|end| end.is_open && !end.is_lost);
        let whole = self.connections.iter().filter(|(_, connection)| is_whole(connection));
        let whole: Vec<u64> = whole.map(|(&id, _)| id).collect();
        if whole.is_empty() {
            return false;
        }
        let id = base.random.pick(&whole);
        let side = base.random.below(2) as usize;
        let connection = self.connections.get_mut(&id).expect("just found");
        for flow in &mut connection.flows {
            flow.pieces.clear();
            flow.flying_bytes = 0;
        }
        self.lose(base, id, side);
        if !half_open {
            self.lose(base, id, 1 - side);
        }
        true
    }

    fn forget_if_closed(&mut self, id: u64) {
        if self.connections.get(&id).is_some_and(|connection| {
            connection.ends.iter().all(|end| !end.is_open)
                && connection.flows.iter().all(|flow| flow.pieces.is_empty())
        }) {
            self.connections.remove(&id);
        }
    }
}
