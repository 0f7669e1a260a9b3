//! The control lane's own loop: accept, serve, tick. One thread, one glommio executor.
//!
//! Listening goes through a socket of our own (`listen.rs`), because glommio's sets SO_REUSEPORT.
//! A thread of glommio's blocking pool waits for connections on it and hands them over.

use crate::control::deadlines::Deadlines;
use crate::control::routes::{self, Lane};
use crate::control::stream::Stream;
use crate::control::{LogControl, LogEvent, ShardFeed};
use glommio::net::TcpStream;
use glommio::timer::Timer;
use glommio::{CpuSet, LocalExecutorBuilder, Placement, PoolPlacement};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use rustix::event::{PollFd, PollFlags, poll};
use std::cell::Cell;
use std::io;
use std::net;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How often the lane looks at timeouts, log events and its end. Each look costs a wake-up.
const TICK: Duration = Duration::from_millis(100);
/// The longest request header, bytes.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// Bytes that glommio registers with its rings: it does no storage I/O here, and locked memory is
/// scarce.
const IO_MEMORY_BYTES: usize = 64 << 10;
/// Connections handed over at once.
const ACCEPT_BATCH_MAX: usize = 64;

/// Why the control lane can't run.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// glommio can't make its rings.
    #[error("the control lane can't make its io_uring: {0}")]
    Executor(String),
    /// A system call.
    #[error("the control lane can't listen: {0}")]
    Listen(#[from] io::Error),
}

/// What the control lane is started with.
#[derive(Clone, Debug)]
pub struct ControlOptions {
    /// The core to pin the calling thread to; `None` leaves it as it is.
    pub core: Option<usize>,
    /// Connections at once; more are closed at once.
    pub connections_max: usize,
    /// How long a client may take to send a header or a body, or to read an answer. An idle
    /// connection is closed after it too.
    pub patience: Duration,
    /// Where the files of its logs are.
    pub log_dir: PathBuf,
}

impl ControlOptions {
    /// The patience of a node.
    pub const PATIENCE: Duration = Duration::from_secs(10);
}

/// Runs the control lane in the calling thread until the feed says that it is to end.
///
/// `listener` comes from [`crate::control::bind`]. `ready` is called when the lane has every
/// descriptor that it needs for itself: connections may take the others from then on.
pub fn serve(
    listener: net::TcpListener,
    options: ControlOptions,
    feed: impl ShardFeed + 'static,
    log: LogControl,
    ready: impl FnOnce(),
) -> Result<(), ControlError> {
    let placement = options.core.map_or(Placement::Unbound, Placement::Fixed);
    let executor = LocalExecutorBuilder::new(placement)
        .name("control")
        .io_memory(IO_MEMORY_BYTES)
        .blocking_thread_pool_placement(waiting_threads(options.core)?)
        .make()
        .map_err(|error| ControlError::Executor(error.to_string()))?;
    executor.run(async move {
        // The acceptor waits on the other end: it ends when this one is dropped.
        let (running, stopped) = UnixStream::pair()?;
        ready();
        let deadlines = Deadlines::default();
        let ControlOptions { patience, log_dir, .. } = options;
        let lane = Rc::new(Lane { feed, log, deadlines, patience, log_dir });
        let acceptor = accept(listener, stopped, options.connections_max, Rc::clone(&lane));
        let acceptor = glommio::spawn_local(acceptor).detach();
        let mut events = Vec::new();
        while !lane.feed.is_stopped() {
            lane.deadlines.tick(Instant::now());
            write_events(&lane.feed, &mut events);
            Timer::new(TICK).await;
        }
        write_events(&lane.feed, &mut events);
        drop(running);
        acceptor.await;
        Ok(())
    })
}

/// Threads for what has to wait: one is the acceptor's, the other one looks at files.
fn waiting_threads(core: Option<usize>) -> Result<PoolPlacement, ControlError> {
    const THREADS: usize = 2;
    let Some(core) = core else { return Ok(PoolPlacement::Unbound(THREADS)) };
    let online = CpuSet::online().map_err(|error| ControlError::Executor(error.to_string()))?;
    Ok(PoolPlacement::Fenced(THREADS, online.filter(|cpu| cpu.cpu == core)))
}

fn write_events(feed: &impl ShardFeed, events: &mut Vec<LogEvent>) {
    feed.take_events(events);
    for event in events.drain(..) {
        event.emit();
    }
}

/// Takes connections until `stopped` is closed from the other side.
async fn accept<F: ShardFeed + 'static>(
    listener: net::TcpListener,
    stopped: UnixStream,
    connections_max: usize,
    lane: Rc<Lane<F>>,
) {
    let open = Rc::new(Cell::new(0));
    let mut waiting = Some((listener, stopped));
    while let Some((listener, stopped)) = waiting.take() {
        let wait = move || accept_batch(listener, stopped);
        let (sockets, again) = glommio::executor().spawn_blocking(wait).await;
        waiting = again;
        for socket in sockets {
            // Over the limit: closed at once, which is an answer too.
            if open.get() >= connections_max {
                continue;
            }
            open.set(open.get() + 1);
            let (lane, open) = (Rc::clone(&lane), Rc::clone(&open));
            let connection = async move {
                serve_connection(socket, &lane).await;
                open.set(open.get() - 1);
            };
            glommio::spawn_local(connection).detach();
        }
    }
}

type Accepted = (Vec<net::TcpStream>, Option<(net::TcpListener, UnixStream)>);

/// Waits for connections, in a thread that may wait. Gives the listener back unless it is to end.
fn accept_batch(listener: net::TcpListener, stopped: UnixStream) -> Accepted {
    let mut ready = [PollFd::new(&listener, PollFlags::IN), PollFd::new(&stopped, PollFlags::IN)];
    // An interrupted wait is a wait with nothing to show for it.
    let _ = poll(&mut ready, None);
    if !ready[1].revents().is_empty() {
        return (Vec::new(), None);
    }
    let mut sockets = Vec::new();
    while sockets.len() < ACCEPT_BATCH_MAX {
        match listener.accept() {
            Ok((socket, _)) => sockets.push(socket),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(_) => {
                // Out of descriptors, most likely: without a pause this would spin.
                std::thread::sleep(TICK);
                break;
            }
        }
    }
    (sockets, Some((listener, stopped)))
}

async fn serve_connection<F: ShardFeed + 'static>(socket: net::TcpStream, lane: &Rc<Lane<F>>) {
    // A socket that refuses an option is broken already: the first read will tell.
    let _ = socket.set_nodelay(true).and_then(|()| socket.set_nonblocking(true));
    let socket = TcpStream::from(socket2::Socket::from(socket));
    let stream = Stream::new(socket, lane.deadlines.clone(), lane.patience);
    let service = service_fn(|request| {
        let lane = Rc::clone(lane);
        async move { Ok::<_, std::convert::Infallible>(routes::answer(&lane, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(lane.deadlines.clone())
        .header_read_timeout(lane.patience)
        .max_buf_size(HEADER_BYTES_MAX)
        .pipeline_flush(false)
        .serve_connection(stream, service);
    // A client that went away, was too slow or wrote nonsense is no event for an operator.
    if let Err(error) = connection.await {
        tracing::trace!(%error, "http connection closed");
    }
}
