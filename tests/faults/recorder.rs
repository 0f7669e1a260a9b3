//! Clients that record every call and what became of it, for the checkers of the simulator's crate
//! to judge: is there one order of all calls, in keeping with real time, that explains every reply?

use crate::cluster::client;
use fastrand::Rng;
use ringraft_net::Client;
use ringraft_net::client::{self, CallId};
use ringraft_sim::checker::{self, Effort};
use ringraft_sim::history::{
    Answer, Ask, Bytes, CallName, Compare, CompareRelation, CompareTo, Delete, History, KeySet,
    Operation, Outcome, Put, Range, Reason, Reply, Txn,
};
use ringraft_types::{GroupId, Ticks};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Calls that one client has under way.
const WINDOW: usize = 4;
/// How long a client rests between looks: histories stay small enough to be judged in seconds.
const REST: Duration = Duration::from_millis(5);
/// Few keys, so that calls meet.
const KEYS: usize = 6;
/// Where histories are kept: a folder, made if it isn't there.
const FOLDER: &str = "RINGRAFT_HISTORIES";

/// What all clients of a test write down, in one order.
#[derive(Debug)]
pub(crate) struct Recorder {
    history: Mutex<History>,
    started: Instant,
    /// Calls that were done.
    done: AtomicU64,
    stop: AtomicBool,
}

impl Recorder {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            history: Mutex::new(History::new()),
            started: Instant::now(),
            done: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        })
    }

    /// The clock is read under the lock: the order of the history is the order of its times.
    fn write_down(&self, note: impl FnOnce(&mut History, Ticks)) {
        let mut history = self.history.lock().expect("no client panics while it writes");
        let now = Ticks(self.started.elapsed().as_micros() as u64);
        note(&mut history, now);
    }

    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

/// Clients at work.
#[derive(Debug)]
pub(crate) struct Recording {
    recorder: Arc<Recorder>,
    threads: Vec<JoinHandle<()>>,
}

impl Recording {
    /// Starts two patient and two hasty clients; what they ask is drawn from the seed.
    pub(crate) fn start(
        recorder: &Arc<Recorder>,
        endpoints: &[String],
        group: GroupId,
        clients: std::ops::Range<u64>,
        seed: u64,
    ) -> Self {
        recorder.stop.store(false, Ordering::Relaxed);
        let threads = clients
            .map(|number| {
                let patience = if number % 2 == 0 {
                    Duration::from_secs(50)
                } else {
                    Duration::from_millis(300)
                };
                let mut caller = Caller::new(recorder, endpoints, group, number, patience, seed);
                std::thread::spawn(move || caller.run())
            })
            .collect();
        Self { recorder: Arc::clone(recorder), threads }
    }

    /// Waits until so many more calls were done.
    pub(crate) fn wait_more(&self, calls: u64) {
        let goal = self.recorder.done() + calls;
        crate::cluster::wait_until("calls to be done", || {
            for thread in &self.threads {
                assert!(!thread.is_finished(), "a client ended by itself");
            }
            self.recorder.done() >= goal
        });
    }

    /// Lets every call come to its end.
    pub(crate) fn stop(self) {
        self.recorder.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a client's own checks hold");
        }
    }
}

/// One client.
struct Caller {
    recorder: Arc<Recorder>,
    client: Client,
    group: GroupId,
    number: u64,
    patience: Duration,
    rng: Rng,
    next: u64,
    /// The newest revision seen.
    seen: u64,
    under_way: HashMap<CallId, CallName>,
}

impl Caller {
    fn new(
        recorder: &Arc<Recorder>,
        endpoints: &[String],
        group: GroupId,
        number: u64,
        patience: Duration,
        seed: u64,
    ) -> Self {
        Self {
            recorder: Arc::clone(recorder),
            client: client(endpoints.to_vec()),
            group,
            number,
            patience,
            rng: Rng::with_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            next: 0,
            seen: 0,
            under_way: HashMap::new(),
        }
    }

    fn run(&mut self) {
        loop {
            let stopping = self.recorder.stop.load(Ordering::Relaxed);
            while !stopping && self.under_way.len() < WINDOW {
                self.submit();
            }
            if self.under_way.is_empty() {
                return;
            }
            self.poll();
            std::thread::sleep(REST);
        }
    }

    fn submit(&mut self) {
        let ask = self.draw();
        self.begin(ask);
    }

    /// Asks, once there is room in the window.
    fn ask(&mut self, ask: Ask) {
        while self.under_way.len() >= WINDOW {
            self.poll();
        }
        self.begin(ask);
    }

    fn begin(&mut self, ask: Ask) {
        let name = CallName { client: self.number, number: self.next };
        self.next += 1;
        let mut command = Vec::new();
        ask.encode(&mut command).expect("within the limits");
        let is_read = ask.is_read();
        self.recorder.write_down(|history, now| {
            history.invoke(now, name, self.group, ask).expect("a number of its own");
        });
        let call = if is_read {
            self.client.submit_read(self.group, &command, self.patience)
        } else {
            self.client.submit_write(self.group, &command, self.patience)
        };
        self.under_way.insert(call.expect("there is room in the window"), name);
    }

    fn poll(&mut self) {
        let Self { client, under_way, recorder, seen, .. } = self;
        for completed in client.poll(Duration::from_millis(20)).expect("sockets") {
            let name = under_way.remove(&completed.call).expect("it was submitted here");
            let outcome = match completed.outcome {
                client::Outcome::Done(answer) | client::Outcome::Below(answer, _) => {
                    *seen = answer.revision.0.max(*seen);
                    recorder.done.fetch_add(1, Ordering::Relaxed);
                    Outcome::Done(Answer {
                        revision: answer.revision,
                        index: Some(answer.index),
                        reply: Reply::decode(answer.body).expect("a sound reply"),
                    })
                }
                client::Outcome::NotDone(reason) => Outcome::NotDone(self::reason(reason)),
                client::Outcome::Unknown(reason) => Outcome::Unknown(self::reason(reason)),
            };
            recorder.write_down(|history, now| {
                history.end(now, name, outcome).expect("it runs");
            });
        }
    }

    /// Unique, so that a value tells who wrote it.
    fn value(&self) -> Bytes {
        Bytes(format!("{}.{}", self.number, self.next).into_bytes())
    }

    fn key(&mut self) -> Bytes {
        Bytes(format!("k{}", self.rng.usize(..KEYS)).into_bytes())
    }

    fn put(&mut self) -> Put {
        Put { key: self.key(), value: self.value(), previous: self.rng.bool() }
    }

    fn draw(&mut self) -> Ask {
        match self.rng.u32(..100) {
            0..30 => Ask::Range(Range::current(KeySet::One(self.key()))),
            30..36 => Ask::Range(Range::current(KeySet::Prefix(Bytes(b"k".to_vec())))),
            36..40 => {
                let revision = self.seen.saturating_sub(self.rng.u64(..20));
                let keys = KeySet::Prefix(Bytes(b"k".to_vec()));
                Ask::Range(Range { revision, ..Range::current(keys) })
            }
            40..75 => Ask::Put(self.put()),
            75..85 => Ask::Delete(Delete { keys: KeySet::One(self.key()), previous: true }),
            85..87 => {
                Ask::Delete(Delete { keys: KeySet::Prefix(Bytes(b"k".to_vec())), previous: false })
            }
            87..90 => Ask::Nothing,
            _ => {
                let put = self.put();
                let compare = Compare {
                    key: put.key.clone(),
                    relation: CompareRelation::Less,
                    to: CompareTo::Modified(self.seen.max(1)),
                };
                let read = Range::current(KeySet::One(put.key.clone()));
                Ask::Txn(Txn {
                    compares: vec![compare],
                    then: vec![Operation::Put(put), Operation::Range(read.clone())],
                    otherwise: vec![Operation::Range(read)],
                })
            }
        }
    }
}

fn reason(reason: client::Reason) -> Reason {
    match reason {
        client::Reason::Deadline => Reason::Deadline,
        client::Reason::Refused(status) => Reason::Refused(status),
    }
}

/// Whether a call that was done made a revision of its own.
fn made_a_revision(ask: &Ask, reply: &Reply) -> bool {
    match (ask, reply) {
        (Ask::Put(_), _) => true,
        (Ask::Delete(_), Reply::Delete(list)) => list.count > 0,
        (Ask::Txn(_), Reply::Txn(txn)) => txn.succeeded,
        _ => false,
    }
}

impl Recorder {
    /// Revisions that no call claims which was done: calls of unknown fate made them.
    fn unclaimed(&self) -> Vec<u64> {
        let history = self.history.lock().expect("no client panics while it writes");
        let mut claimed = BTreeSet::new();
        let mut newest = 0;
        for call in history.calls() {
            let Some(answer) = call.answer() else { continue };
            newest = answer.revision.0.max(newest);
            if made_a_revision(&call.ask, &answer.reply) {
                claimed.insert(answer.revision.0);
            }
        }
        (1..=newest).filter(|revision| !claimed.contains(revision)).collect()
    }

    /// Reads all keys as they are, and as they were around every revision that nobody claims: what
    /// is read there tells which call made it, as long as the group keeps its history.
    pub(crate) fn look_back(self: &Arc<Self>, endpoints: &[String], group: GroupId) {
        let number = u64::MAX;
        let patience = Duration::from_secs(50);
        let mut caller = Caller::new(self, endpoints, group, number, patience, 0);
        let all = || Range::current(KeySet::Prefix(Bytes(b"k".to_vec())));
        caller.ask(Ask::Range(all()));
        let mut looked = BTreeSet::new();
        for made in self.unclaimed() {
            // Revision zero would be the current one.
            for revision in made.saturating_sub(1).max(1)..=made {
                if looked.insert(revision) {
                    caller.ask(Ask::Range(Range { revision, ..all() }));
                }
            }
        }
        while !caller.under_way.is_empty() {
            caller.poll();
        }
    }

    /// Judges the whole history, after keeping it if a folder for histories is named.
    pub(crate) fn judge(&self, test: &str) -> String {
        let history = self.history.lock().expect("no client panics while it writes");
        let kept =
            std::env::var_os(FOLDER).map(|folder| keep(&history, &PathBuf::from(folder), test));
        match checker::check(&history, &[], Effort::All) {
            Ok(verdict) => format!("{} calls: {verdict:?}", history.len()),
            Err(violation) => {
                let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
                let file = kept.unwrap_or_else(|| keep(&history, folder, test));
                panic!("{violation}\n  the history: {}", file.display());
            }
        }
    }
}

fn keep(history: &History, folder: &Path, test: &str) -> PathBuf {
    std::fs::create_dir_all(folder).expect("a folder for histories");
    let file = folder.join(format!("{test}-{}.jsonl", std::process::id()));
    let mut out = std::io::BufWriter::new(std::fs::File::create(&file).expect("a file"));
    history.write(&mut out).expect("a disk with room");
    file
}
