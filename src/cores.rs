//! Cores, and the only threads there are: one per shard, one for the control lane, one that turns
//! names into addresses.

use ringraft_shard::mesh::Wake;
use ringraft_types::NodeId;
use std::cell::Cell;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Starts a named thread on one core.
///
/// # Errors
/// If the system refuses another thread.
pub fn spawn<T: Send + 'static>(
    name: String,
    core: Option<usize>,
    body: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name).spawn(move || {
        if let Some(id) = core {
            // A core outside the process's set leaves the thread where it may run; the
            // configuration was checked against the machine before.
            core_affinity::set_for_current(core_affinity::CoreId { id });
        }
        body()
    })
}

/// One eventfd per lane: written by whoever wakes the lane.
#[derive(Clone)]
pub struct Doorbells {
    fds: Arc<[OwnedFd]>,
}

impl Doorbells {
    /// As many doorbells as lanes.
    ///
    /// # Errors
    /// If the system has no more descriptors.
    pub fn new(lanes: usize) -> std::io::Result<Self> {
        let fds: std::io::Result<Vec<OwnedFd>> = (0..lanes)
            .map(|_| {
                let flags = rustix::event::EventfdFlags::CLOEXEC;
                Ok(rustix::event::eventfd(0, flags)?)
            })
            .collect();
        Ok(Self { fds: fds?.into() })
    }

    /// The descriptor that a lane reads.
    ///
    /// # Errors
    /// If the system has no more descriptors.
    pub fn of(&self, lane: usize) -> std::io::Result<OwnedFd> {
        self.fds[lane].as_fd().try_clone_to_owned()
    }
}

impl Wake for Doorbells {
    fn wake(&self, lane: usize) {
        // It can only fail when the counter is full: then the lane is awake already.
        let _ = rustix::io::write(&self.fds[lane], &1u64.to_ne_bytes());
    }
}

/// What a name led to: an address, or a sentence that says why not.
type Resolved = (NodeId, Result<SocketAddr, String>);

struct Question {
    node: NodeId,
    address: String,
    lane: usize,
    answers: Sender<Resolved>,
}

/// One lane's way to the thread that resolves names, so that a slow name server never holds up a
/// hot lane.
pub struct Resolver {
    lane: usize,
    questions: Arc<Mutex<Sender<Question>>>,
    answers: (Sender<Resolved>, Receiver<Resolved>),
    /// Questions that wait for their answer.
    asked: Cell<usize>,
}

impl Resolver {
    /// Resolvers for this many lanes; their thread ends with the last of them.
    ///
    /// # Errors
    /// If the system refuses another thread.
    pub fn start(lanes: usize, doorbells: &Doorbells) -> std::io::Result<Vec<Self>> {
        let (sender, questions) = channel::<Question>();
        let doorbells = doorbells.clone();
        spawn(String::from("resolver"), None, move || {
            for question in questions {
                let Question { node, address, lane, answers } = question;
                let found = match address.to_socket_addrs() {
                    Ok(mut all) => all.next().ok_or_else(|| format!("{address} has no address")),
                    Err(error) => Err(format!("{address} can't be resolved: {error}")),
                };
                if answers.send((node, found)).is_ok() {
                    doorbells.wake(lane);
                }
            }
        })?;
        let questions = Arc::new(Mutex::new(sender));
        Ok((0..lanes)
            .map(|lane| Self {
                lane,
                questions: questions.clone(),
                answers: channel(),
                asked: Cell::new(0),
            })
            .collect())
    }

    /// Asks for a node's address.
    pub fn ask(&self, node: NodeId, address: String) {
        let answers = self.answers.0.clone();
        let question = Question { node, address, lane: self.lane, answers };
        // The thread lives as long as any resolver does.
        let sender = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        if sender.send(question).is_ok() {
            self.asked.set(self.asked.get() + 1);
        }
    }

    /// The next answer, if there is one.
    pub fn answer(&self) -> Option<Resolved> {
        if self.asked.get() == 0 {
            return None;
        }
        let answer = self.answers.1.try_recv().ok()?;
        self.asked.set(self.asked.get() - 1);
        Some(answer)
    }
}
