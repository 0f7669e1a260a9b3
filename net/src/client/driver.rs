//! The driver: carries bytes between the core and non-blocking sockets, and tells it the time.
//! Single-threaded and owned; nothing happens outside of its calls.

use std::io::{self, Read, Write};
use std::net::ToSocketAddrs;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use ringraft_types::command::Command;
use ringraft_types::{ClusterId, GroupId, Index, Level, Revision, ShardId, Ticks};

use super::core::{Core, CoreOptions};
use super::link::{LinkId, Trouble};
use super::{Answer, CallId, Completions, Outcome, Reason, Shortfall, SubmitError};
use crate::client_wire::{Consistency, LocateReply};
use crate::error::ClientError;
use crate::status::NodeStatus;

/// Reads of one socket in a row before others have their turn.
const READS_IN_A_ROW: usize = 16;

/// How a client is to be.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Client addresses of some nodes, `host:port`; one that runs is enough.
    pub endpoints: Vec<String>,
    /// The cluster; `None` for whichever answers.
    pub cluster: Option<ClusterId>,
    /// The group that [`Client::status_all`] asks for the members.
    pub group: GroupId,
    /// How long the blocking calls wait.
    pub timeout: Duration,
    /// Calls that may be under way at once; more are refused as busy.
    pub calls_max: usize,
    /// Bytes that may wait to be sent on one connection.
    pub outbox_bytes_max: usize,
}

impl ClientOptions {
    /// The usual options, with these endpoints.
    pub fn new(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            cluster: None,
            group: GroupId(1),
            timeout: Duration::from_secs(5),
            calls_max: 65_536,
            outbox_bytes_max: 4 << 20,
        }
    }
}

/// An answer that owns its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The machine's own word about the result.
    pub flags: u8,
    /// The machine's revision after the write, or that the read saw.
    pub revision: Revision,
    /// The Raft index of the write, or that the read saw.
    pub index: Index,
    /// The machine's result.
    pub body: Vec<u8>,
}

impl Response {
    /// What it is, borrowed.
    pub(super) fn answer(&self) -> Answer<'_> {
        let Self { flags, revision, index, body } = self;
        Answer { flags: *flags, revision: *revision, index: *index, body }
    }

    fn of(Answer { flags, revision, index, body }: Answer<'_>) -> Self {
        Self { flags, revision, index, body: body.to_vec() }
    }
}

#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    is_connected: bool,
    /// The last write would have blocked.
    is_blocked: bool,
    /// There may be more to read.
    is_readable: bool,
}

/// A client of a cluster.
#[derive(Debug)]
pub struct Client {
    core: Core,
    poll: Poll,
    events: Events,
    /// By the number of their link.
    sockets: Vec<Option<Socket>>,
    /// Connections tried, to take a name's addresses in turn.
    tries: usize,
    started: Instant,
    options: ClientOptions,
}

impl Client {
    /// A client; it connects when there is something to ask.
    ///
    /// # Errors
    /// If the options make no sense, or the operating system refuses.
    pub fn connect(options: ClientOptions) -> Result<Self, ClientError> {
        if options.endpoints.is_empty() {
            return Err(ClientError::NoEndpoint);
        }
        for endpoint in &options.endpoints {
            let port = endpoint.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            if port.is_none() {
                return Err(ClientError::Endpoint { endpoint: endpoint.clone() });
            }
        }
        let mut seed = [0; 16];
        getrandom::fill(&mut seed).map_err(|error| ClientError::Random { error })?;
        let core = Core::new(CoreOptions {
            endpoints: options.endpoints.clone(),
            cluster: options.cluster,
            calls_max: options.calls_max,
            outbox_bytes_max: options.outbox_bytes_max,
            seed: u128::from_le_bytes(seed),
        });
        Ok(Self {
            core,
            poll: Poll::new().map_err(|error| ClientError::Poll { error })?,
            events: Events::with_capacity(64),
            sockets: Vec::new(),
            tries: 0,
            started: Instant::now(),
            options,
        })
    }

    /// Takes a write, to be sent by the next [`poll`](Self::poll).
    ///
    /// # Errors
    /// If it can't be taken; nothing was sent then.
    pub fn submit_write(
        &mut self,
        group: GroupId,
        command: &[u8],
        timeout: Duration,
    ) -> Result<CallId, SubmitError> {
        let deadline = self.after(timeout);
        self.core.submit_write(group, command, deadline)
    }

    /// Takes a write that is answered when it is applied and at a level.
    ///
    /// # Errors
    /// If it can't be taken; nothing was sent then.
    pub fn submit_write_at_level(
        &mut self,
        group: GroupId,
        command: &[u8],
        level: Level,
        timeout: Duration,
    ) -> Result<CallId, SubmitError> {
        let deadline = self.after(timeout);
        self.core.submit_write_at_level(group, command, level, deadline)
    }

    /// Takes a linearizable read, to be sent by the next [`poll`](Self::poll).
    ///
    /// # Errors
    /// If it can't be taken; nothing was sent then.
    pub fn submit_read(
        &mut self,
        group: GroupId,
        command: &[u8],
        timeout: Duration,
    ) -> Result<CallId, SubmitError> {
        let deadline = self.after(timeout);
        self.core.submit_read(group, command, deadline)
    }

    /// Takes a read that may see what `consistency` says, from the leader or from the node at an
    /// address alone.
    ///
    /// # Errors
    /// If it can't be taken; nothing was sent then. A local read names its node.
    pub fn submit_read_of(
        &mut self,
        at: Option<&str>,
        group: GroupId,
        command: &[u8],
        consistency: Consistency,
        timeout: Duration,
    ) -> Result<CallId, SubmitError> {
        let deadline = self.after(timeout);
        self.core.submit_read_of(at, group, command, consistency, deadline)
    }

    /// Sends what was submitted, receives what has arrived, and waits at most `timeout` for the
    /// first completion. Returns at once if there are some already, or if `timeout` is zero.
    ///
    /// # Errors
    /// If the operating system's readiness queue fails.
    pub fn poll(&mut self, timeout: Duration) -> Result<Completions<'_>, ClientError> {
        let until = self.after(timeout);
        self.turn();
        while !self.core.has_completed() && self.wait(until)? {
            self.turn();
        }
        Ok(self.core.take_completed())
    }

    /// Writes, and waits for the outcome. Other calls go on meanwhile; their completions are kept
    /// for [`poll`](Self::poll).
    ///
    /// # Errors
    /// If it wasn't done, or that isn't known.
    pub fn write(&mut self, group: GroupId, command: &[u8]) -> Result<Response, ClientError> {
        let call = self.submit_write(group, command, self.options.timeout)?;
        self.finish(call)
    }

    /// Writes, and waits until that is applied and at a level, as [`write`](Self::write) does.
    ///
    /// # Errors
    /// If it wasn't done, or that isn't known; or as [`ClientError::Below`] if it was done and the
    /// level wasn't seen reached in time.
    pub fn write_at_level(
        &mut self,
        group: GroupId,
        command: &[u8],
        level: Level,
    ) -> Result<Response, ClientError> {
        let timeout = self.options.timeout;
        let call = self.submit_write_at_level(group, command, level, timeout)?;
        self.finish(call)
    }

    /// Has a group forget what its keys were before a revision, whatever length of history it keeps
    /// otherwise, and waits for the outcome. The revision itself stays readable. It goes through the
    /// log as a write does: every replica forgets the same. A node without room for data takes it.
    ///
    /// # Errors
    /// If it wasn't done, or that isn't known: [`Status::Compacted`](ringraft_types::Status) says
    /// that the revision is forgotten already, `FutureRevision` that there is none such yet.
    pub fn compact(&mut self, group: GroupId, revision: Revision) -> Result<Response, ClientError> {
        let mut command = Vec::new();
        let compact = Command::Compact { revision };
        compact.encode(&mut command).expect("a compaction keeps every limit");
        self.write(group, &command)
    }

    /// Reads, and waits for the outcome, as [`write`](Self::write) does.
    ///
    /// # Errors
    /// If it wasn't done.
    pub fn read(&mut self, group: GroupId, command: &[u8]) -> Result<Response, ClientError> {
        let call = self.submit_read(group, command, self.options.timeout)?;
        self.finish(call)
    }

    /// Reads what `consistency` says, from the leader or from the node at an address alone, and
    /// waits for the outcome.
    ///
    /// # Errors
    /// If it wasn't done: a local read whose bounds the node doesn't keep is refused as
    /// [`Status::TooStale`](ringraft_types::Status) or `NotYet`; another, of a node that has no
    /// leader to ask or gets no answer of it, as `NotLeader`.
    pub fn read_of(
        &mut self,
        at: Option<&str>,
        group: GroupId,
        command: &[u8],
        consistency: Consistency,
    ) -> Result<Response, ClientError> {
        let call = self.submit_read_of(at, group, command, consistency, self.options.timeout)?;
        self.finish(call)
    }

    /// Asks where a group is.
    ///
    /// # Errors
    /// If nobody answers in time.
    pub fn locate(&mut self, group: GroupId) -> Result<LocateReply, ClientError> {
        let deadline = self.after(self.options.timeout);
        let call = self.core.submit_locate(group, deadline)?;
        Ok(LocateReply::decode(&self.finish(call)?.body)?)
    }

    /// How every shard of every node is, by node and shard; an error stands for a node or shard
    /// that didn't answer. Learns the members from one that answers, so one endpoint is enough, and
    /// asks the endpoints as well: a node that left, or that waits to be added, is no member.
    pub fn status_all(&mut self) -> Vec<Result<NodeStatus, ClientError>> {
        let mut addresses = match self.locate(self.options.group) {
            Ok(reply) => reply.members.into_iter().map(|member| member.address).collect(),
            Err(_) => Vec::new(),
        };
        for endpoint in &self.options.endpoints {
            if !addresses.contains(endpoint) {
                addresses.push(endpoint.clone());
            }
        }
        let firsts = self.statuses(addresses.iter().map(|address| (address.as_str(), None)));
        let mut others = Vec::new();
        for (address, first) in addresses.iter().zip(&firsts) {
            let Ok(first) = first else { continue };
            let shards = (0..self.core.shards_at(address).unwrap_or(1)).map(ShardId);
            let others_here = shards.filter(|&shard| shard != first.shard);
            others.extend(others_here.map(|shard| (address.as_str(), Some(shard))));
        }
        let mut all = firsts;
        all.extend(self.statuses(others.into_iter()));
        all.sort_by_key(|status| match status {
            Ok(status) => (status.node.0, status.shard.0),
            Err(_) => (u32::MAX, u16::MAX),
        });
        // A member may be reached by an endpoint's name too.
        all.dedup_by(|next, before| match (next, before) {
            (Ok(next), Ok(before)) => (next.node, next.shard) == (before.node, before.shard),
            _ => false,
        });
        all
    }

    /// What last went wrong with a connection; says why calls don't complete.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.core.trouble()
    }

    fn statuses<'a>(
        &mut self,
        shards: impl Iterator<Item = (&'a str, Option<ShardId>)>,
    ) -> Vec<Result<NodeStatus, ClientError>> {
        let deadline = self.after(self.options.timeout);
        let calls: Vec<_> = shards
            .map(|(address, shard)| (address, self.core.submit_status(address, shard, deadline)))
            .collect();
        let mut finish = |(address, call): (&str, Result<CallId, SubmitError>)| {
            let response = self.finish(call?).map_err(|error| match error {
                ClientError::NotDone { reason, trouble } => {
                    ClientError::NoStatus { address: address.to_owned(), reason, trouble }
                }
                other => other,
            })?;
            Ok(NodeStatus::decode(&response.body)?)
        };
        calls.into_iter().map(&mut finish).collect()
    }

    /// Waits until one call is complete; its deadline bounds the wait.
    pub(super) fn finish(&mut self, call: CallId) -> Result<Response, ClientError> {
        enum Taken {
            Done(Response),
            Below(Response, Shortfall),
            NotDone(Reason),
            Unknown(Reason),
        }
        let own = |outcome: Outcome<'_>| match outcome {
            Outcome::Done(answer) => Taken::Done(Response::of(answer)),
            Outcome::Below(answer, lacks) => Taken::Below(Response::of(answer), lacks),
            Outcome::NotDone(reason) => Taken::NotDone(reason),
            Outcome::Unknown(reason) => Taken::Unknown(reason),
        };
        loop {
            self.turn();
            if let Some(taken) = self.core.take_one(call, own) {
                let trouble = self.core.trouble().cloned();
                return match taken {
                    Taken::Done(response) => Ok(response),
                    Taken::Below(response, lacks) => {
                        Err(ClientError::Below { response: Box::new(response), lacks })
                    }
                    Taken::NotDone(reason) => Err(ClientError::NotDone { reason, trouble }),
                    Taken::Unknown(reason) => Err(ClientError::Unknown { reason, trouble }),
                };
            }
            self.wait(Ticks::NEVER)?;
        }
    }

    pub(super) fn core_mut(&mut self) -> &mut Core {
        &mut self.core
    }

    /// How long the blocking calls wait.
    pub(super) fn timeout(&self) -> Duration {
        self.options.timeout
    }

    /// Lets time pass, and goes on with what is under way meanwhile.
    pub(super) fn pause(&mut self, span: Duration) -> Result<(), ClientError> {
        let until = self.after(span);
        while self.wait(until)? {
            self.turn();
        }
        Ok(())
    }

    /// Time since the client began; never zero.
    fn now(&self) -> Ticks {
        Ticks(self.started.elapsed().as_micros() as u64 + 1)
    }

    pub(super) fn after(&self, timeout: Duration) -> Ticks {
        let span = Ticks(u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX));
        self.now().after(span)
    }

    /// Lets the core think, then does what it asks for.
    fn turn(&mut self) {
        self.core.advance(self.now());
        while let Some(link) = self.core.next_close() {
            self.drop_socket(link);
        }
        let now = self.now();
        while let Some((link, address)) = self.core.next_connect(now) {
            self.tries += 1;
            // Names are resolved anew for each connection.
            let stream = open(address, self.tries);
            self.keep_socket(link, stream);
        }
        for at in 0..self.sockets.len() {
            self.send(LinkId(at as u32));
            if self.sockets[at].as_ref().is_some_and(|socket| socket.is_readable) {
                self.receive(LinkId(at as u32));
            }
        }
    }

    /// Waits for sockets until the core wants to think, or `until`, and receives; whether there was
    /// time left.
    fn wait(&mut self, until: Ticks) -> Result<bool, ClientError> {
        let now = self.now();
        let is_time_left = now < until;
        let is_readable = self.sockets.iter().flatten().any(|socket| socket.is_readable);
        let span = match is_readable {
            true => Duration::ZERO,
            false => Duration::from_micros(until.min(self.core.wake_at()).since(now).0),
        };
        match self.poll.poll(&mut self.events, Some(span.min(Duration::from_secs(1)))) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(is_time_left),
            Err(error) => return Err(ClientError::Poll { error }),
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            let (at, is_readable) = (event.token().0, event.is_readable());
            let is_writable = event.is_writable();
            let link = LinkId(at as u32);
            self.check_connected(link);
            let Some(Some(socket)) = self.sockets.get_mut(at) else { continue };
            if is_writable {
                socket.is_blocked = false;
            }
            if is_readable && socket.is_connected {
                self.receive(link);
            }
        }
        self.events = events;
        Ok(is_time_left)
    }

    fn keep_socket(&mut self, link: LinkId, stream: io::Result<TcpStream>) {
        let at = link.0 as usize;
        if self.sockets.len() <= at {
            self.sockets.resize_with(at + 1, || None);
        }
        let registered = stream.and_then(|mut stream| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(at), interest)?;
            Ok(stream)
        });
        match registered {
            Ok(stream) => {
                self.sockets[at] = Some(Socket {
                    stream,
                    is_connected: false,
                    is_blocked: false,
                    is_readable: false,
                });
            }
            Err(_) => self.core.closed(self.now(), link),
        }
    }

    /// After an event on a connecting socket: it is connected, or it failed.
    fn check_connected(&mut self, link: LinkId) {
        let Some(Some(socket)) = self.sockets.get_mut(link.0 as usize) else { return };
        if socket.is_connected {
            return;
        }
        let failed = !matches!(socket.stream.take_error(), Ok(None));
        if failed {
            self.lose(link);
        } else if socket.stream.peer_addr().is_ok() {
            socket.is_connected = true;
            let now = self.now();
            self.core.connected(now, link);
            self.send(link);
        }
    }

    fn send(&mut self, link: LinkId) {
        let Some(Some(socket)) = self.sockets.get_mut(link.0 as usize) else { return };
        if !socket.is_connected {
            return;
        }
        let outbox = self.core.outbox(link);
        while !socket.is_blocked {
            let Some(bytes) = outbox.take_for_send() else { return };
            match socket.stream.write(bytes) {
                Ok(count) => outbox.sent(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.is_blocked = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What was received before is still worth reading: the receive sees the end.
                Err(_) => {
                    socket.is_blocked = true;
                    socket.is_readable = true;
                }
            }
        }
    }

    fn receive(&mut self, link: LinkId) {
        for _ in 0..READS_IN_A_ROW {
            let Some(Some(socket)) = self.sockets.get_mut(link.0 as usize) else { return };
            socket.is_readable = false;
            let inbox = self.core.inbox(link);
            let space = inbox.space();
            let room = space.len();
            assert!(room > 0, "the core takes all frames out");
            match socket.stream.read(space) {
                Ok(0) => return self.lose(link),
                Ok(count) => {
                    inbox.filled(count);
                    let now = self.now();
                    self.core.received(now, link);
                    let mut is_closed = false;
                    while let Some(closed) = self.core.next_close() {
                        is_closed |= closed == link;
                        self.drop_socket(closed);
                    }
                    if is_closed || count < room {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.lose(link),
            }
        }
        if let Some(Some(socket)) = self.sockets.get_mut(link.0 as usize) {
            socket.is_readable = true;
        }
    }

    fn lose(&mut self, link: LinkId) {
        self.drop_socket(link);
        let now = self.now();
        self.core.closed(now, link);
    }

    fn drop_socket(&mut self, link: LinkId) {
        if let Some(Some(mut socket)) = self.sockets.get_mut(link.0 as usize).map(Option::take) {
            // A socket that is closed leaves the queue by itself; nothing is lost if this fails.
            let _ = self.poll.registry().deregister(&mut socket.stream);
        }
    }
}

/// Begins a connection to the `turn`-th of the addresses behind a name.
fn open(address: &str, turn: usize) -> io::Result<TcpStream> {
    let all: Vec<_> = address.to_socket_addrs()?.collect();
    let chosen = all.get(turn % all.len().max(1)).ok_or(io::ErrorKind::NotFound)?;
    let stream = TcpStream::connect(*chosen)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
