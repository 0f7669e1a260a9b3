//! The hot lane: one io_uring per core. Sockets, disk, wake-ups and timeouts live on one ring;
//! one loop reaps, reads the clock, turns the shard, and submits everything with one system call.
//!
//! ```text
//! reap completions -> drain the mesh -> read the clock -> frames in -> one turn -> submit, sleep
//! ```
//! The order matters: a clock read before the drain would judge a lease by a time older than the
//! request. The reactor only translates; what a frame or a completion means is decided by the
//! shard.

mod frames;
mod meet;
mod ring;
mod start;

pub use ring::{RingError, hold_lock, ring};
pub use start::{RecoverError, begin, load, recover};

use meet::{prepare, send_last};

use crate::clock;
use crate::control::LogEvent;
use crate::numbers;
use crate::parcel::Parcel;
use crate::wires::Wires;
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use ringraft_net::Frame;
use ringraft_net::connection::State;
use ringraft_net::handshake::{RefusalCode, Role};
use ringraft_net::patience::SWEEP_TIME;
use ringraft_shard::event::{Event, Wake};
use ringraft_shard::placement::Placement;
use ringraft_shard::{Shard, ShardError, ShardEvent};
use ringraft_types::tag::{Owner, Tag};
use ringraft_types::{Lacked, Ticks};
use ringraft_wal::device::uring::UringDevice;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Entries of a submission queue; more are submitted in several calls.
pub const RING_ENTRIES: u32 = 1024;
/// How often people are told that accepting fails.
const ACCEPT_TOLD_TIME: Ticks = Ticks::from_millis(10_000);
/// How long a stopping shard may take to bring to its end what it has taken on.
const STOP_TIME: Ticks = Ticks::from_millis(3_000);

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
    /// Writes down, elsewhere, that the data directory is an older copy.
    pub note_older_copy: Box<dyn Fn(Lacked) + Send>,
}

/// How a lane that was told to stop has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// What it had taken on was brought to its end and answered.
    Quiet,
    /// Time was up.
    Late,
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
    /// Failures to accept are not told again before this.
    accept_told: Ticks,
    next_sweep: Ticks,
    stopping: Option<Ticks>,
    events_dropped: u64,
    /// Lanes that haven't heard yet that the data directory is an older copy.
    untold: Vec<usize>,
    /// Lanes to be told how many bytes of data are here, and how many.
    data_untold: Vec<usize>,
    data_bytes: u64,
    /// Lanes that must hear what the system group says, and what it says.
    placement_untold: Vec<usize>,
    placement: Option<Arc<Placement>>,
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
            accept_told: Ticks::ZERO,
            next_sweep: Ticks::ZERO,
            stopping: None,
            events_dropped: 0,
            untold: Vec::new(),
            data_untold: Vec::new(),
            data_bytes: 0,
            placement_untold: Vec::new(),
            placement: None,
            scratch: Vec::new(),
        }
    }

    /// Runs until the node is told to stop.
    ///
    /// # Errors
    /// What must stop the process: a failed write or sync, or a ring that no longer works.
    pub fn run(mut self) -> Result<Stop, LaneError> {
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
            if let Some(stop) = self.stopped() {
                return Ok(stop);
            }
            let wake = match self.stopping {
                // What its turn was to do about it is due.
                Some(at) if at == self.now => Wake::Now,
                _ => wake,
            };
            self.submit(wake)?;
        }
    }

    fn stopped(&mut self) -> Option<Stop> {
        if !self.lane.stop.load(Ordering::Acquire) {
            return None;
        }
        let since = *self.stopping.get_or_insert(self.now);
        let Self { shard, .. } = self;
        shard.stop();
        // Without a majority, what waits to be committed waits in vain.
        let is_done = shard.pending_writes() == 0 || !shard.links.has_majority();
        let is_time = self.now.since(since) > STOP_TIME;
        // What is led here is led elsewhere first, as far as somebody can.
        let is_done = is_done && !shard.is_handing_over();
        if is_done && shard.is_quiet() && shard.links.are_answers_sent() {
            // A snapshot that is cut short costs nothing but time at the next start.
            let saves = shard.settings().snapshots.on_stop && shard.is_saving();
            return (!saves || is_time).then_some(Stop::Quiet);
        }
        is_time.then_some(Stop::Late)
    }

    fn push(&mut self, entry: squeue::Entry) {
        self.backlog.push_back(entry);
    }

    fn reap(&mut self) {
        let Self { lane, shard, ready, accepted, connected, deaf, .. } = self;
        let mut rearm_doorbell = false;
        let mut rearm_accept = [false; 2];
        let mut accept_errno = None;
        for completion in lane.ring.completion() {
            let more = cqueue::more(completion.flags());
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
                            if socket.state != State::Client {
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
                        if !again {
                            shard.links.accepts_failed += 1;
                            accept_errno = Some(-completion.result());
                        }
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
        if let Some(errno) = accept_errno
            && self.now >= self.accept_told
        {
            self.accept_told = self.now.after(ACCEPT_TOLD_TIME);
            self.say(LogEvent::AcceptFailed { shard: self.shard.links.shard, errno });
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
                Parcel::Handoff { socket, hello, inbox, seat } => {
                    self.adopt(socket, &hello, inbox, seat)?;
                }
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
                Parcel::OlderCopy => {
                    let told = self.shard.collect(self.now, Event::OlderCopy)?;
                    told.expect("a verdict is no frame");
                }
                Parcel::DataBytes(shard, bytes) => {
                    let event = Event::DataBytes(shard, bytes);
                    self.shard.collect(self.now, event)?.expect("a number is no frame");
                }
                Parcel::Placement(placement) => {
                    let event = Event::Placement(&placement);
                    self.shard.collect(self.now, event)?.expect("a placement is no frame");
                }
                Parcel::AskNumbers => {
                    let parcel = Parcel::Numbers(Box::new(numbers::take(&self.shard, self.now)));
                    self.shard.links.mesh.reply(from, parcel);
                }
                Parcel::AskSnapshots(question, wish) => {
                    let told = numbers::snapshots(&mut self.shard, &wish);
                    let parcel = Parcel::Snapshots(question, Box::new(told));
                    self.shard.links.mesh.reply(from, parcel);
                }
                Parcel::Numbers(_) | Parcel::Snapshots(..) | Parcel::Log(..) => {
                    unreachable!("only the control lane is sent answers and log events")
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
            if let Err(fd) = self.shard.links.accepted(fd, port, self.now) {
                let busy = Err(RefusalCode::Busy);
                let links = &self.shard.links;
                send_last(&fd, &links.host.at(port).answer(links.shard, busy, None));
            }
        }
    }

    fn close(&mut self, slot: u32) -> Result<(), LaneError> {
        let state = self.shard.links.close(slot, self.now);
        let links = &mut self.shard.links;
        let down = match state.filter(|&state| links.table.is_down(state)) {
            Some(State::Peer(node)) => {
                let shard = links.shard;
                self.say(LogEvent::PeerLost { shard, peer: node, errno: 0 });
                Event::PeerDown(node)
            }
            Some(State::Pull(node)) => Event::PullDown(node),
            _ => return Ok(()),
        };
        self.shard.collect(self.now, down)?.expect("a lost link is no frame");
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
            if let ShardEvent::RolledBack { lacked, .. } = event {
                (self.lane.note_older_copy)(lacked);
                let own = usize::from(shard.0);
                self.untold = (0..self.lane.control).filter(|&lane| lane != own).collect();
            }
            self.say(LogEvent::Shard(shard, event));
        }
        // A full ring is tried again in the next turn.
        let mesh = &mut self.shard.links.mesh;
        self.untold.retain(|&lane| mesh.send(lane, Parcel::OlderCopy).is_err());
        let others = (0..self.lane.control).filter(|&lane| lane != usize::from(shard.0));
        if let Some(placement) = self.shard.placement_to_tell() {
            self.placement_untold = others.clone().collect();
            self.placement = Some(placement);
        }
        if let Some(placement) = self.placement.as_ref() {
            let parcel = || Parcel::Placement(Arc::clone(placement));
            let mesh = &mut self.shard.links.mesh;
            self.placement_untold.retain(|&lane| mesh.send(lane, parcel()).is_err());
            if self.placement_untold.is_empty() {
                self.placement = None;
            }
        }
        if let Some(bytes) = self.shard.data_to_tell() {
            self.data_untold = others.collect();
            self.data_bytes = bytes;
        }
        let (mesh, bytes) = (&mut self.shard.links.mesh, self.data_bytes);
        self.data_untold.retain(|&lane| mesh.send(lane, Parcel::DataBytes(shard, bytes)).is_err());
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
            if matches!(socket.state, State::Dialing(..)) {
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
            _ => self.enter(),
        }
    }

    /// Submits what is queued, without waiting.
    fn enter(&mut self) -> Result<(), LaneError> {
        self.lane.ring.submit().map(drop).or_else(busy_is_fine).map_err(LaneError::Ring)
    }

    fn sleep(&mut self, span: Ticks) -> Result<(), LaneError> {
        if self.lane.spin > Ticks::ZERO {
            self.enter()?;
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
            return self.enter();
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
            device.drain(room, &mut |entry| {
                // SAFETY: the device keeps the operation's buffer until its completion (I-08).
                unsafe { queue.push(&entry) }.expect("there is room for as many");
            });
            drop(queue);
            if self.backlog.is_empty() && self.shard.device.pending() == 0 {
                return Ok(());
            }
            self.enter()?;
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
