//! The hot lane: one io_uring per core. Sockets, disk, wake-ups and timeouts live on one ring;
//! one loop reaps, reads the clock, turns the shard, and submits everything with one system call.
//!
//! ```text
//! reap completions -> drain the mesh -> read the clock -> frames in -> one turn -> submit, sleep
//! ```
//! The order matters: a clock read before the drain would judge a lease by a time older than the
//! request. The reactor only translates; what a frame or a completion means is decided by the
//! shard.

use crate::clock;
use crate::control::LogEvent;
use crate::snapshot;
use crate::wires::{Parcel, State, Wires};
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use ringraft_net::client_wire::ErrorFrame;
use ringraft_net::handshake::{Hello, Host, RefusalCode, Role, Welcome};
use ringraft_net::{Frame, Inbox};
use ringraft_shard::event::{Event, Wake};
use ringraft_shard::shard::PeerAdmission;
use ringraft_shard::{Shard, ShardError};
use ringraft_types::tag::{Owner, Tag};
use ringraft_types::{Incarnation, NodeId, Ticks};
use ringraft_wal::device::uring::UringDevice;
use ringraft_wal::{Log, LogSettings, Recovered, Recovery, RecoveryStep, WalError};
use rustix::net::sockopt;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Entries of a submission queue; more are submitted in several calls.
pub const RING_ENTRIES: u32 = 1024;
/// How often overdue connections are looked for.
const SWEEP_TIME: Ticks = Ticks::from_millis(500);
/// How long a stopping shard waits for what it promised to reach the disk.
const STOP_TIME: Ticks = Ticks::from_millis(3_000);
/// A host that acknowledges nothing for this long is gone.
const GONE_TIME: Duration = Duration::from_secs(8);

/// Makes a ring, or says what is missing and how to get it.
///
/// # Errors
/// If the kernel refuses: too old (6.1 is the floor), switched off, or filtered.
pub fn ring(entries: u32) -> Result<IoUring, RingError> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        // Without the flag nobody who spins would see that completions wait to be fetched.
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(entries * 4)
        .build(entries)
        .map_err(RingError::diagnose)
}

/// io_uring can't be used here.
#[derive(Debug, thiserror::Error)]
#[error("io_uring can't be used: {what}; {cure}")]
pub struct RingError {
    what: String,
    cure: String,
}

impl RingError {
    fn diagnose(error: std::io::Error) -> Self {
        let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
        let disabled = disabled.map(|text| text.trim().to_owned()).unwrap_or_default();
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let (what, cure) = match error.raw_os_error() {
            Some(libc::ENOSYS) => (
                format!("the kernel ({release}) has no io_uring, or a seccomp filter hides it"),
                "run on Linux 6.1 or newer, and allow io_uring_setup, io_uring_enter and \
                 io_uring_register in the container's seccomp profile",
            ),
            Some(libc::EPERM) if disabled == "1" || disabled == "2" => (
                format!("it is switched off, kernel.io_uring_disabled={disabled}"),
                "set it to 0: sysctl -w kernel.io_uring_disabled=0",
            ),
            Some(libc::EPERM | libc::EACCES) => (
                String::from("the system refuses it, most likely a container's seccomp filter"),
                "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile",
            ),
            Some(libc::EINVAL) => (
                format!("the kernel ({release}) lacks SINGLE_ISSUER or DEFER_TASKRUN"),
                "run on Linux 6.1 or newer",
            ),
            Some(libc::ENOMEM) => (
                String::from("the limit of locked memory (memlock) is too small for its rings"),
                "raise it: ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit",
            ),
            _ => (error.to_string(), "see dmesg, and io_uring_setup(2) for this error"),
        };
        Self { what, cure: cure.to_owned() }
    }
}

/// Keeps the data directory's lock with the ring: a ring outlives its killed process until its
/// last operation is done, and so does what is registered with it (S22).
///
/// # Errors
/// If the kernel refuses to register the file.
pub fn hold_lock(ring: &IoUring, lock: &OwnedFd) -> std::io::Result<()> {
    ring.submitter().register_files(&[lock.as_raw_fd()])
}

/// Why a log could not be recovered.
#[derive(Debug)]
pub enum RecoverError {
    /// What is on the disk.
    Log(WalError),
    /// The ring.
    Ring(std::io::Error),
}

/// Runs a recovery to its end, on the ring that the lane will use.
///
/// # Errors
/// If the log can't be recovered, or the ring fails.
pub fn recover(
    ring: &mut IoUring,
    device: &mut UringDevice,
    settings: LogSettings,
) -> Result<(Log, Recovered), RecoverError> {
    let mut recovery = Recovery::new(settings);
    let mut inflight = 0;
    loop {
        match recovery.turn(clock::now(), device) {
            RecoveryStep::Working => {}
            RecoveryStep::Done(done) => return Ok(*done),
            RecoveryStep::Failed(error) => return Err(RecoverError::Log(error)),
        }
        let mut queue = ring.submission();
        let room = queue.capacity() - queue.len();
        inflight += device.drain(room, &mut |entry| {
            // SAFETY: the device keeps the operation's buffer until its completion (I-08).
            unsafe { queue.push(&entry) }.expect("there is room for as many");
        });
        drop(queue);
        let wanted = usize::from(inflight > 0);
        ring.submit_and_wait(wanted).map(drop).or_else(busy_is_fine).map_err(RecoverError::Ring)?;
        for completion in ring.completion() {
            inflight -= 1;
            device.on_completion(completion.user_data(), completion.result());
        }
    }
}

/// What a lane is started with, beside its shard.
pub struct Lane {
    /// The ring, made on this thread.
    pub ring: IoUring,
    /// Rung by other lanes: an eventfd.
    pub doorbell: OwnedFd,
    /// How to ring the others.
    pub ringer: crate::cores::Doorbells,
    /// Listeners, on the shard that accepts.
    pub listeners: Vec<(OwnedFd, Role)>,
    /// Spins this long before it sleeps while a reply is due.
    pub spin: Ticks,
    /// Set from outside when the node is to stop.
    pub stop: Arc<AtomicBool>,
    /// Turns a name into addresses without blocking this thread.
    pub resolver: crate::cores::Resolver,
    /// Which lane of the mesh is the control lane.
    pub control: usize,
}

/// One hot lane.
pub struct Reactor {
    lane: Lane,
    shard: Shard<UringDevice, Wires>,
    now: Ticks,
    /// Sockets with bytes to look at.
    ready: Vec<u32>,
    /// Sockets that are not received from until there is room.
    blocked: Vec<u32>,
    accepted: Vec<(RawFd, usize)>,
    connected: Vec<(u32, u32, i32)>,
    backlog: std::collections::VecDeque<squeue::Entry>,
    /// Where the kernel writes at any time, even after this lane's end: never freed (I-08).
    doorbell_word: &'static mut u64,
    /// Listeners that wait for the next sweep: the system had no room for a connection.
    deaf: [bool; 2],
    next_sweep: Ticks,
    stopping: Option<Ticks>,
    events_dropped: u64,
    inflight: usize,
    scratch: Vec<u32>,
}

impl Reactor {
    /// A reactor over a shard that was just made.
    pub fn new(lane: Lane, shard: Shard<UringDevice, Wires>) -> Self {
        Self {
            lane,
            shard,
            now: clock::now(),
            ready: Vec::new(),
            blocked: Vec::new(),
            accepted: Vec::new(),
            connected: Vec::new(),
            backlog: std::collections::VecDeque::new(),
            doorbell_word: Box::leak(Box::new(0)),
            deaf: [false; 2],
            next_sweep: Ticks::ZERO,
            stopping: None,
            events_dropped: 0,
            inflight: 0,
            scratch: Vec::new(),
        }
    }

    /// Runs until the node is told to stop.
    ///
    /// # Errors
    /// What must stop the process: a failed write or sync, or a ring that no longer works.
    pub fn run(mut self) -> Result<(), LaneError> {
        self.arm_doorbell();
        for listener in 0..self.lane.listeners.len() {
            self.arm_accept(listener);
        }
        loop {
            self.reap();
            self.drain_mesh()?;
            self.greet_accepted();
            self.take_connected()?;
            self.take_resolved();
            self.take_frames()?;
            self.dial();
            self.sweep()?;
            let wake = self.shard.turn(self.now)?;
            self.shard.links.flush_remote();
            self.tell_control();
            self.start_operations();
            if self.is_stopped() {
                return Ok(());
            }
            self.submit(wake)?;
        }
    }

    fn is_stopped(&mut self) -> bool {
        if !self.lane.stop.load(Ordering::Acquire) {
            return false;
        }
        let since = *self.stopping.get_or_insert(self.now);
        self.shard.is_quiet() || self.now.since(since) > STOP_TIME
    }

    fn push(&mut self, entry: squeue::Entry) {
        self.inflight += 1;
        self.backlog.push_back(entry);
    }

    fn reap(&mut self) {
        let Self { lane, shard, ready, accepted, connected, inflight, deaf, .. } = self;
        let mut rearm_doorbell = false;
        let mut rearm_accept = [false; 2];
        for completion in lane.ring.completion() {
            let more = cqueue::more(completion.flags());
            if !more {
                *inflight -= 1;
            }
            let tag = Tag(completion.user_data());
            let (slot, generation) = split(tag.number());
            match tag.owner() {
                Some(Owner::Device) => {
                    shard.device.on_completion(completion.user_data(), completion.result());
                }
                Some(Owner::Receive) => {
                    let Some(socket) = shard.links.get_generation(slot, generation) else {
                        continue;
                    };
                    socket.receiving = false;
                    match completion.result() {
                        count if count > 0 => {
                            socket.inbox.filled(count as usize);
                            ready.push(slot);
                        }
                        errno if is_transient(errno) => shard.links.list(slot),
                        _ => ready.push(slot | CLOSED),
                    }
                }
                Some(Owner::Send) => {
                    let Some(socket) = shard.links.get_generation(slot, generation) else {
                        continue;
                    };
                    socket.sending = false;
                    match completion.result() {
                        count if count > 0 => {
                            socket.outbox.sent(count as usize);
                            if socket.stalled && !socket.outbox.is_full() {
                                socket.stalled = false;
                                ready.push(slot);
                            }
                            if matches!(socket.state, State::Peer(_)) {
                                shard.links.peer_bytes_sent += count as u64;
                            }
                            shard.links.list(slot);
                        }
                        errno if is_transient(errno) => shard.links.list(slot),
                        _ => ready.push(slot | CLOSED),
                    }
                }
                Some(Owner::Accept) => {
                    let listener = tag.number() as usize;
                    if completion.result() >= 0 {
                        accepted.push((completion.result(), listener));
                    }
                    if !more {
                        // Without descriptors or memory it would fail again at once, for ever.
                        let again = completion.result() >= 0
                            || is_transient(completion.result())
                            || completion.result() == -libc::ECONNABORTED;
                        rearm_accept[listener] = again;
                        deaf[listener] = !again;
                    }
                }
                Some(Owner::Connect) => connected.push((slot, generation, completion.result())),
                Some(Owner::Wake) => rearm_doorbell = true,
                Some(Owner::Timeout | Owner::Housekeeping) | None => {}
            }
        }
        if rearm_doorbell {
            self.arm_doorbell();
        }
        for (listener, again) in rearm_accept.into_iter().enumerate() {
            if again {
                self.arm_accept(listener);
            }
        }
    }

    fn arm_doorbell(&mut self) {
        let word: *mut u64 = self.doorbell_word;
        let fd = Fd(self.lane.doorbell.as_raw_fd());
        let entry =
            opcode::Read::new(fd, word.cast(), 8).build().user_data(Tag::new(Owner::Wake, 0).0);
        self.push(entry);
    }

    fn arm_accept(&mut self, listener: usize) {
        let fd = Fd(self.lane.listeners[listener].0.as_raw_fd());
        let entry = opcode::AcceptMulti::new(fd)
            .flags(libc::SOCK_CLOEXEC)
            .build()
            .user_data(Tag::new(Owner::Accept, listener as u64).0);
        self.push(entry);
    }

    fn drain_mesh(&mut self) -> Result<(), LaneError> {
        let mut parcels = Vec::new();
        self.shard.links.mesh.drain(256, |from, parcel| parcels.push((from, parcel)));
        self.now = clock::now();
        for (from, parcel) in parcels {
            match parcel {
                Parcel::Handoff { socket, hello, inbox } => self.adopt(socket, &hello, inbox)?,
                Parcel::ClientFrame { from, header, body } => {
                    let frame = Frame { header, body: &body };
                    let now = self.now;
                    // A refused frame was checked by the shard that took it; nothing to close here.
                    let _ = self.shard.collect(now, Event::ClientFrame { from, frame })?;
                }
                Parcel::Answers { to, bytes } => {
                    use ringraft_shard::links::Links as _;
                    if let Some(outbox) = self.shard.links.client(to) {
                        outbox.push(&bytes);
                    }
                }
                Parcel::Drop(client) => {
                    let links = &mut self.shard.links;
                    if links.get_generation(client.slot, client.generation).is_some() {
                        self.close(client.slot)?;
                    }
                }
                Parcel::AskSnapshot => {
                    let parcel = Parcel::Snapshot(Box::new(snapshot::take(&self.shard, self.now)));
                    self.shard.links.mesh.reply(from, parcel);
                }
                Parcel::Snapshot(_) | Parcel::Log(..) => {
                    unreachable!("only the control lane is sent snapshots and log events")
                }
            }
        }
        Ok(())
    }

    fn greet_accepted(&mut self) {
        for (fd, listener) in std::mem::take(&mut self.accepted) {
            // SAFETY: the kernel just made this descriptor for us; nobody else has it (I-08).
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            let port = self.lane.listeners[listener].1;
            prepare(&fd);
            let state = State::Greeting { port };
            if let Err(fd) = self.shard.links.insert(fd, state, Inbox::new(), self.now) {
                send_last(&fd, &self.shard.links.refusal(port, RefusalCode::Busy));
            }
        }
    }

    fn take_connected(&mut self) -> Result<(), LaneError> {
        for (slot, generation, result) in std::mem::take(&mut self.connected) {
            let Some(socket) = self.shard.links.get_generation(slot, generation) else { continue };
            socket.sending = false;
            socket.address = None;
            let State::Dialing(node) = socket.state else { continue };
            let failed = result < 0 || socket.closing;
            // A dial that was given up meanwhile is freed from the list.
            self.shard.links.list(slot);
            if failed {
                self.close(slot)?;
                continue;
            }
            let greeting = self.shard.links.greeting(node);
            if let Some(socket) = self.shard.links.get(slot) {
                socket.state = State::Dialed(node);
                socket.outbox.push(&greeting);
            }
        }
        Ok(())
    }

    fn close(&mut self, slot: u32) -> Result<(), LaneError> {
        if let Some(State::Peer(node)) = self.shard.links.close(slot, self.now)
            && self.shard.links.peers.get(&node).is_some_and(|link| link.up.is_none())
        {
            let shard = self.shard.links.shard;
            self.say(LogEvent::PeerLost { shard, peer: node, errno: 0 });
            let down = self.shard.collect(self.now, Event::PeerDown(node))?;
            down.expect("a lost link is no frame");
        }
        Ok(())
    }

    fn say(&mut self, event: LogEvent) {
        // Bounded: what the control lane doesn't take in time is dropped and counted.
        let parcel = Parcel::Log(event, self.events_dropped);
        match self.shard.links.mesh.send(self.lane.control, parcel) {
            Ok(()) => self.events_dropped = 0,
            Err(_) => self.events_dropped += 1,
        }
    }

    fn tell_control(&mut self) {
        let shard = self.shard.links.shard;
        for event in self.shard.take_events() {
            self.say(LogEvent::of_shard(shard, event));
        }
    }

    /// Looks at every socket that received something.
    fn take_frames(&mut self) -> Result<(), LaneError> {
        let mut ready = std::mem::take(&mut self.ready);
        for slot in ready.drain(..) {
            if slot & CLOSED != 0 {
                self.close(slot & !CLOSED)?;
                self.shard.links.list(slot & !CLOSED);
            } else {
                self.take_frames_of(slot)?;
                self.shard.links.list(slot);
            }
        }
        self.ready = ready;
        Ok(())
    }

    fn take_frames_of(&mut self, slot: u32) -> Result<(), LaneError> {
        let Some(socket) = self.shard.links.get(slot) else { return Ok(()) };
        if socket.closing {
            return Ok(());
        }
        match socket.state {
            State::Greeting { port } => {
                let Some(bytes) = socket.inbox.take_handshake() else { return Ok(()) };
                let hello = Hello::decode(&bytes);
                self.greeted(slot, port, hello)?;
            }
            State::Dialed(node) => {
                let Some(bytes) = socket.inbox.take_handshake() else { return Ok(()) };
                let welcome = Welcome::decode(&bytes);
                self.welcomed(slot, node, welcome)?;
            }
            State::Peer(_) | State::Client | State::Dialing(_) => {}
        }
        let Some(socket) = self.shard.links.get(slot) else { return Ok(()) };
        let state = socket.state;
        if !matches!(state, State::Peer(_) | State::Client) || socket.closing {
            return Ok(());
        }
        self.take_frames_of_inbox(slot, state)
    }

    fn take_frames_of_inbox(&mut self, slot: u32, state: State) -> Result<(), LaneError> {
        let Some(socket) = self.shard.links.get(slot) else { return Ok(()) };
        // The inbox leaves its socket while its frames are looked at: they borrow it, and the
        // shard may write to the same socket's outbox meanwhile.
        let mut inbox = std::mem::take(&mut socket.inbox);
        let connection = self.shard.links.connection_id(slot);
        let mut refusal = None;
        loop {
            if state == State::Client
                && let Some(socket) = self.shard.links.get(slot)
            {
                // Its answers would have no place to wait.
                socket.stalled = socket.outbox.is_full();
                if socket.stalled || socket.closing {
                    break;
                }
            }
            let frame = match inbox.next_frame() {
                Ok(Some(frame)) => {
                    self.shard.links.give_time(slot, self.now);
                    frame
                }
                Ok(None) => break,
                Err(error) => {
                    refusal = Some(("bytes that are no frame", error.to_string()));
                    break;
                }
            };
            let event = match state {
                State::Peer(from) => Event::PeerFrame { from, frame },
                _ => Event::ClientFrame { from: connection, frame },
            };
            if let Err(error) = self.shard.collect(self.now, event)? {
                refusal = Some(("a frame that breaks the protocol", error.to_string()));
                break;
            }
        }
        if let Some(socket) = self.shard.links.get(slot) {
            socket.inbox = inbox;
        }
        if let Some((reason, sentence)) = refusal {
            self.refuse(slot, state, reason, &sentence)?;
        }
        Ok(())
    }

    /// A stream that broke the rules is closed; a client is told why first.
    fn refuse(
        &mut self,
        slot: u32,
        state: State,
        reason: &'static str,
        sentence: &str,
    ) -> Result<(), LaneError> {
        let sender = self.shard.settings().identity;
        if state == State::Client
            && let Some(socket) = self.shard.links.get(slot)
            && !socket.sending
        {
            ErrorFrame { code: 1, sentence }.write(&mut socket.outbox, sender);
            if let Some(bytes) = socket.outbox.take_for_send() {
                send_last(&socket.fd, bytes);
            }
        }
        let shard = self.shard.links.shard;
        self.shard.links.frames_refused += 1;
        self.say(LogEvent::FrameRefused { shard, reason });
        self.close(slot)
    }

    fn greeted(
        &mut self,
        slot: u32,
        port: Role,
        hello: Result<Hello, RefusalCode>,
    ) -> Result<(), LaneError> {
        let host = Host { port, ..self.shard.links.host };
        let judged = hello.and_then(|hello| hello.judge(&host).map(|version| (hello, version)));
        let (hello, version) = match judged {
            Ok(judged) => judged,
            Err(code) => {
                return self.turn_away(slot, port, code);
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
    fn hand_off(&mut self, slot: u32, hello: Hello, lane: usize) -> Result<(), LaneError> {
        let socket = self.shard.links.get(slot).expect("it just greeted");
        let inbox = std::mem::take(&mut socket.inbox);
        let Ok(fd) = socket.fd.try_clone() else { return self.close(slot) };
        self.shard.links.release(slot);
        // A full ring drops the descriptor, which closes it: the other side dials again.
        let _ = self.shard.links.mesh.send(lane, Parcel::Handoff { socket: fd, hello, inbox });
        Ok(())
    }

    fn adopt(&mut self, fd: OwnedFd, hello: &Hello, inbox: Inbox) -> Result<(), LaneError> {
        let state = match hello.role {
            Role::Peer => State::Peer(hello.sender.node),
            Role::Client => State::Client,
        };
        let slot = match self.shard.links.insert(fd, state, inbox, self.now) {
            Ok(slot) => slot,
            Err(fd) => {
                send_last(&fd, &self.shard.links.refusal(hello.role, RefusalCode::Busy));
                return Ok(());
            }
        };
        let host = Host { port: hello.role, ..self.shard.links.host };
        match hello.judge(&host) {
            Ok(version) => self.seat(slot, hello, version)?,
            Err(code) => self.turn_away(slot, hello.role, code)?,
        }
        self.ready.push(slot);
        Ok(())
    }

    /// Answers a greeting that is meant for this shard.
    fn seat(&mut self, slot: u32, hello: &Hello, version: u8) -> Result<(), LaneError> {
        if hello.role == Role::Client {
            self.shard.links.get(slot).expect("it just greeted").state = State::Client;
            self.shard.links.answer(slot, Role::Client, Ok(version));
            return Ok(());
        }
        let node = hello.sender.node;
        match self.shard.admit_peer(node, hello.sender.incarnation)? {
            PeerAdmission::Welcome => {
                self.shard.links.answer(slot, Role::Peer, Ok(version));
                self.peer_is_up(slot, node)?;
            }
            PeerAdmission::WrongIncarnation { known } => {
                self.say_incarnation_changed(node, known, hello.sender.incarnation);
                self.turn_away(slot, Role::Peer, RefusalCode::WrongIncarnation)?;
            }
            PeerAdmission::NotAMember => {
                self.turn_away(slot, Role::Peer, RefusalCode::WrongNode)?;
            }
        }
        Ok(())
    }

    /// A peer has another directory than the one on record. Said once: it dials, or is dialled, on.
    fn say_incarnation_changed(&mut self, peer: NodeId, known: Incarnation, shown: Incarnation) {
        let link = self.shard.links.peers.get_mut(&peer).expect("only members are on record");
        if link.shown.replace(shown) != Some(shown) {
            self.say(LogEvent::IncarnationChanged { peer, known, shown });
        }
    }

    fn turn_away(&mut self, slot: u32, port: Role, code: RefusalCode) -> Result<(), LaneError> {
        let refusal = self.shard.links.refusal(port, code);
        if let Some(socket) = self.shard.links.get(slot) {
            send_last(&socket.fd, &refusal);
        }
        self.close(slot)
    }

    fn welcomed(
        &mut self,
        slot: u32,
        node: NodeId,
        welcome: Result<Welcome, RefusalCode>,
    ) -> Result<(), LaneError> {
        let host = self.shard.links.host;
        let verdict = welcome.and_then(|welcome| {
            welcome.verdict?;
            if welcome.sender.cluster != host.identity.cluster {
                return Err(RefusalCode::WrongCluster);
            }
            if welcome.sender.node != node {
                return Err(RefusalCode::WrongNode);
            }
            if welcome.shards != host.shards {
                return Err(RefusalCode::NoSuchShard);
            }
            Ok(welcome)
        });
        let verdict = match verdict {
            Ok(welcome) => match self.shard.admit_peer(node, welcome.sender.incarnation)? {
                PeerAdmission::Welcome => Ok(()),
                PeerAdmission::WrongIncarnation { known } => {
                    self.say_incarnation_changed(node, known, welcome.sender.incarnation);
                    self.close(slot)?;
                    return Ok(());
                }
                PeerAdmission::NotAMember => Err(RefusalCode::WrongNode),
            },
            Err(code) => Err(code),
        };
        match verdict {
            Ok(()) => self.peer_is_up(slot, node)?,
            Err(code) => {
                let link = self.shard.links.peers.get_mut(&node).expect("we dialed a member");
                if link.refused.replace(code) != Some(code) {
                    self.say(LogEvent::PeerRefused { peer: node, reason: code.sentence() });
                }
                self.close(slot)?;
            }
        }
        Ok(())
    }

    fn peer_is_up(&mut self, slot: u32, node: NodeId) -> Result<(), LaneError> {
        if let Some(old) = self.shard.links.peer_up(node, slot) {
            self.shard.links.close(old, self.now);
            let down = self.shard.collect(self.now, Event::PeerDown(node))?;
            down.expect("a lost link is no frame");
        }
        self.say(LogEvent::PeerConnected { shard: self.shard.links.shard, peer: node });
        self.shard.collect(self.now, Event::PeerUp(node))?.expect("a link is no frame");
        Ok(())
    }

    fn dial(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        let now = self.now;
        let due: Vec<(NodeId, String)> = self
            .shard
            .links
            .peers
            .iter_mut()
            .filter(|(_, link)| {
                link.dials
                    && link.up.is_none()
                    && link.dialing.is_none()
                    && !link.resolving
                    && link.next_dial <= now
            })
            .map(|(&node, link)| (node, link.address.clone()))
            .collect();
        for (node, address) in due {
            match address.parse::<SocketAddr>() {
                Ok(address) => self.dial_address(node, address),
                Err(_) => {
                    let link = self.shard.links.peers.get_mut(&node).expect("it was just found");
                    link.resolving = true;
                    self.lane.resolver.ask(node, address);
                }
            }
        }
    }

    fn take_resolved(&mut self) {
        while let Some((node, found)) = self.lane.resolver.answer() {
            let Some(link) = self.shard.links.peers.get_mut(&node) else { continue };
            link.resolving = false;
            match found {
                Ok(address) => self.dial_address(node, address),
                Err(_) => {
                    link.next_dial = self.now.after(Ticks::from_millis(1_000));
                    self.say(LogEvent::PeerNotFound { peer: node });
                }
            }
        }
    }

    fn dial_address(&mut self, node: NodeId, address: SocketAddr) {
        let later = self.now.after(Ticks::from_millis(200));
        let link = self.shard.links.peers.get_mut(&node).expect("only members are dialed");
        link.next_dial = later;
        let domain = socket2::Domain::for_address(address);
        let Ok(socket) = socket2::Socket::new(domain, socket2::Type::STREAM, None) else { return };
        let fd = OwnedFd::from(socket);
        prepare(&fd);
        let Ok(slot) = self.shard.links.insert(fd, State::Dialing(node), Inbox::new(), self.now)
        else {
            return;
        };
        self.shard.links.peers.get_mut(&node).expect("a member").dialing = Some(slot);
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

    fn sweep(&mut self) -> Result<(), LaneError> {
        if self.now < self.next_sweep {
            return Ok(());
        }
        self.next_sweep = self.now.after(SWEEP_TIME);
        let mut overdue = std::mem::take(&mut self.scratch);
        self.shard.links.overdue(self.now, &mut overdue);
        for slot in overdue.drain(..) {
            self.close(slot)?;
        }
        self.scratch = overdue;
        for listener in 0..self.lane.listeners.len() {
            if std::mem::take(&mut self.deaf[listener]) {
                self.arm_accept(listener);
            }
        }
        Ok(())
    }

    /// Starts a send and a receive on every listed socket that wants one, and what the log wants
    /// of the disk.
    fn start_operations(&mut self) {
        let reads_peers = self.shard.reads_peers();
        for slot in self.blocked.drain(..) {
            self.shard.links.list(slot);
        }
        let mut listed = std::mem::take(&mut self.shard.links.listed);
        for slot in listed.drain(..) {
            let Some(socket) = self.shard.links.get(slot) else { continue };
            socket.listed = false;
            if socket.closing {
                self.shard.links.free_if_idle(slot);
                continue;
            }
            if matches!(socket.state, State::Dialing(_)) {
                continue;
            }
            let fd = Fd(socket.fd.as_raw_fd());
            let tag = join(slot, socket.generation);
            let mut entries = [None, None];
            if !socket.sending
                && let Some(bytes) = socket.outbox.take_for_send()
            {
                let length = bytes.len().min(1 << 20) as u32;
                let send = opcode::Send::new(fd, bytes.as_ptr(), length)
                    .flags(libc::MSG_NOSIGNAL)
                    .build()
                    .user_data(Tag::new(Owner::Send, tag).0);
                socket.sending = true;
                socket.sent_at = self.now;
                entries[0] = Some(send);
            }
            if !socket.receiving {
                // The sends that make room in a client's outbox take it up again.
                socket.stalled |= socket.state == State::Client && socket.outbox.is_full();
                if matches!(socket.state, State::Peer(_)) && !reads_peers {
                    self.blocked.push(slot);
                } else if !socket.stalled {
                    let space = socket.inbox.space();
                    let receive = opcode::Recv::new(fd, space.as_mut_ptr(), space.len() as u32)
                        .build()
                        .user_data(Tag::new(Owner::Receive, tag).0);
                    socket.receiving = true;
                    entries[1] = Some(receive);
                }
            }
            for entry in entries.into_iter().flatten() {
                self.push(entry);
            }
        }
        if self.shard.links.listed.is_empty() {
            self.shard.links.listed = listed;
        }
    }

    /// Submits everything and sleeps if there is nothing to do.
    fn submit(&mut self, wake: Wake) -> Result<(), LaneError> {
        self.fill_queue()?;
        if self.shard.has_replies_leaving() {
            // They leave with the call that follows.
            self.shard.note_sent(clock::now());
        }
        let sleeps = match wake {
            Wake::Now => None,
            Wake::At(at) => Some(at.since(self.now)),
            Wake::OnEvent => Some(SWEEP_TIME),
        };
        self.shard.links.mesh.ring_doorbells(&self.lane.ringer);
        match sleeps {
            Some(span) if span > Ticks::ZERO => self.sleep(span.min(SWEEP_TIME)),
            _ => self.lane.ring.submit().map(drop).or_else(busy_is_fine).map_err(LaneError::Ring),
        }
    }

    fn sleep(&mut self, span: Ticks) -> Result<(), LaneError> {
        if self.lane.spin > Ticks::ZERO {
            self.lane.ring.submit().map(drop).or_else(busy_is_fine).map_err(LaneError::Ring)?;
            let until = clock::now().after(self.lane.spin.min(span));
            loop {
                if self.lane.ring.submission().taskrun() {
                    self.lane
                        .ring
                        .submitter()
                        .submit_and_wait(0)
                        .map(drop)
                        .or_else(busy_is_fine)
                        .map_err(LaneError::Ring)?;
                }
                if !self.lane.ring.completion().is_empty() || self.shard.links.mesh.has_cause() {
                    return Ok(());
                }
                if clock::now() >= until {
                    break;
                }
                std::hint::spin_loop();
            }
        }
        if !self.shard.links.mesh.may_park() {
            return self
                .lane
                .ring
                .submit()
                .map(drop)
                .or_else(busy_is_fine)
                .map_err(LaneError::Ring);
        }
        let timeout =
            Timespec::new().sec(span.0 / 1_000_000).nsec((span.0 % 1_000_000) as u32 * 1_000);
        let arguments = SubmitArgs::new().timespec(&timeout);
        let slept = self.lane.ring.submitter().submit_with_args(1, &arguments);
        self.shard.links.mesh.awake();
        slept.map(drop).or_else(busy_is_fine).map_err(LaneError::Ring)
    }

    /// Moves what waits into the submission queue; submits in between if it doesn't fit. A write
    /// and the sync linked to it go into one submission.
    fn fill_queue(&mut self) -> Result<(), LaneError> {
        loop {
            let mut queue = self.lane.ring.submission();
            while let Some(entry) = self.backlog.front() {
                // SAFETY: buffers of the operation live until its completion: socket buffers in
                // their socket, which is not freed while `receiving` or `sending`; the doorbell's
                // word and addresses in boxes (I-08).
                if unsafe { queue.push(entry) }.is_err() {
                    break;
                }
                self.backlog.pop_front();
            }
            let room = queue.capacity() - queue.len();
            let device = &mut self.shard.device;
            let drained = device.drain(room, &mut |entry| {
                // SAFETY: the device keeps the operation's buffer until its completion (I-08).
                unsafe { queue.push(&entry) }.expect("there is room for as many");
            });
            self.inflight += drained;
            drop(queue);
            if self.backlog.is_empty() && self.shard.device.pending() == 0 {
                return Ok(());
            }
            self.lane.ring.submit().map(drop).or_else(busy_is_fine).map_err(LaneError::Ring)?;
        }
    }
}

/// Marks a slot in the list of ready sockets as one to close.
const CLOSED: u32 = 1 << 31;

fn join(slot: u32, generation: u32) -> u64 {
    u64::from(slot & 0x00ff_ffff) << 32 | u64::from(generation)
}

fn split(number: u64) -> (u32, u32) {
    ((number >> 32) as u32, number as u32)
}

fn is_transient(result: i32) -> bool {
    matches!(-result, libc::EAGAIN | libc::EINTR)
}

/// An interrupted or timed out wait is no error, nor is a completion queue that must be reaped
/// first.
fn busy_is_fine(error: std::io::Error) -> Result<(), std::io::Error> {
    match error.raw_os_error() {
        Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
        _ => Err(error),
    }
}

/// Small frames leave at once, and a host that is gone is noticed, whether something waits to be
/// acknowledged or not. A socket that refuses an option is slower at that, nothing else.
fn prepare(fd: &OwnedFd) {
    let _ = sockopt::set_tcp_nodelay(fd, true);
    let _ = sockopt::set_socket_keepalive(fd, true);
    let _ = sockopt::set_tcp_keepidle(fd, GONE_TIME / 2);
    let _ = sockopt::set_tcp_keepintvl(fd, GONE_TIME / 4);
    let _ = sockopt::set_tcp_keepcnt(fd, 2);
    let _ = sockopt::set_tcp_user_timeout(fd, GONE_TIME.as_millis() as u32);
}

/// The last words on a connection. What the socket doesn't take at once is lost: it is closed.
fn send_last(fd: &OwnedFd, bytes: &[u8]) {
    let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
    let _ = rustix::net::send(fd, bytes, flags);
}

/// What ends a lane, and the node with it.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// The shard can't go on.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// The ring can't go on.
    #[error("io_uring_enter failed: {0}")]
    Ring(std::io::Error),
}
