//! Background writers that remember what became of each of their writes, and the check that the
//! cluster remembers the same.
//!
//! Every write is one transaction: it sets a key that no other write sets, and the writer's own
//! counter key. So a write that was applied twice shows in the versions of both, and a write that
//! is there without having been counted, or the other way round, shows as well.

use crate::cluster::{Cluster, client};
use ringraft_net::Client;
use ringraft_net::client::{CallId, Outcome};
use ringraft_types::command::{Keys, Operation, PutCommand, RangeCommand, TxnBuilder};
use ringraft_types::reply::Reply;
use ringraft_types::{GroupId, Revision};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Writes that one writer has under way.
const WINDOW: usize = 24;
/// Keys that one read lists.
const PAGE: u32 = 4000;

/// What became of a write, as its writer was told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    UnderWay,
    Done(Revision),
    NotDone(String),
    Unknown(String),
}

/// A writer: a client with its sessions, and its memory.
#[derive(Debug)]
pub(crate) struct Writer {
    name: String,
    group: GroupId,
    client: Client,
    timeout: Duration,
    fates: Vec<Fate>,
    under_way: HashMap<CallId, usize>,
    /// When each acknowledgement came.
    pub(crate) acknowledged: Vec<Instant>,
}

impl Writer {
    /// A writer to a group, whose writes count as unknown when they take longer than `timeout`.
    pub(crate) fn new(
        cluster: &Cluster,
        name: impl Into<String>,
        group: GroupId,
        timeout: Duration,
    ) -> Self {
        Self {
            name: name.into(),
            group,
            client: client(cluster.endpoints()),
            timeout,
            fates: Vec::new(),
            under_way: HashMap::new(),
            acknowledged: Vec::new(),
        }
    }

    fn key(&self, number: usize) -> Vec<u8> {
        format!("{}/{number:08}", self.name).into_bytes()
    }

    fn value(&self, number: usize) -> Vec<u8> {
        format!("{:-<100}", format!("{} wrote {number} ", self.name)).into_bytes()
    }

    fn counter(&self) -> Vec<u8> {
        format!("{}=counter", self.name).into_bytes()
    }

    fn submit(&mut self) {
        let number = self.fates.len();
        let (key, value, counter) = (self.key(number), self.value(number), self.counter());
        let put = |key, value| Operation::Put(PutCommand { key, value, previous: false });
        let count = number.to_string();
        let then = [put(&key, &value), put(&counter, count.as_bytes())];
        let mut command = Vec::new();
        let builder = TxnBuilder { then: &then, ..TxnBuilder::default() };
        builder.encode(&mut command).expect("a small transaction");
        let call = self.client.submit_write(self.group, &command, self.timeout);
        self.under_way.insert(call.expect("there is room in the window"), number);
        self.fates.push(Fate::UnderWay);
    }

    fn run(&mut self, stop: &AtomicBool, progress: &AtomicU64) {
        loop {
            let stopping = stop.load(Ordering::Relaxed);
            while !stopping && self.under_way.len() < WINDOW {
                self.submit();
            }
            if self.under_way.is_empty() {
                return;
            }
            let Self { client, under_way, fates, acknowledged, .. } = self;
            for completed in client.poll(Duration::from_millis(20)).expect("sockets") {
                let number = under_way.remove(&completed.call).expect("it was submitted here");
                fates[number] = match completed.outcome {
                    Outcome::Done(answer) | Outcome::Below(answer, _) => {
                        acknowledged.push(Instant::now());
                        progress.fetch_add(1, Ordering::Relaxed);
                        Fate::Done(answer.revision)
                    }
                    Outcome::NotDone(reason) => Fate::NotDone(reason.to_string()),
                    Outcome::Unknown(reason) => Fate::Unknown(reason.to_string()),
                };
            }
        }
    }

    /// Compares what this writer was told with what is there.
    fn check(&self, found: &BTreeMap<Vec<u8>, Found>) -> Tally {
        let name = &self.name;
        let mut tally = Tally::default();
        let mut applied = 0;
        for (number, fate) in self.fates.iter().enumerate() {
            let there = found.get(&self.key(number));
            if let Some(there) = there {
                applied += 1;
                assert_eq!(there.version, 1, "{name}: write {number} ({fate:?}) applied twice");
                assert_eq!(there.value, self.value(number), "{name}: write {number} is another's");
            }
            match fate {
                Fate::Done(revision) => {
                    let there = there.unwrap_or_else(|| {
                        panic!("{name}: write {number}, acknowledged at {revision}, is lost")
                    });
                    assert_eq!(there.revision, *revision, "{name}: write {number} moved");
                    tally.done += 1;
                }
                Fate::NotDone(reason) => {
                    assert!(
                        there.is_none(),
                        "{name}: write {number} was done in spite of {reason}"
                    );
                    tally.not_done += 1;
                }
                Fate::Unknown(_) => {
                    tally.unknown += 1;
                    tally.unknown_applied += u64::from(there.is_some());
                }
                Fate::UnderWay => unreachable!("a writer stops when all is answered"),
            }
        }
        let prefix = [name.as_bytes(), b"/"].concat();
        let keys = found.keys().filter(|key| key.starts_with(&prefix)).count();
        assert_eq!(keys, applied, "{name}: keys that nobody wrote");
        let counted = found.get(&self.counter()).map_or(0, |counter| counter.version);
        assert_eq!(counted, applied as u64, "{name}: its counter was set as often as it wrote");
        tally
    }
}

/// How writes ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) done: u64,
    pub(crate) not_done: u64,
    pub(crate) unknown: u64,
    pub(crate) unknown_applied: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.done += other.done;
        self.not_done += other.not_done;
        self.unknown += other.unknown;
        self.unknown_applied += other.unknown_applied;
    }
}

/// Writers at work.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    progress: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Writer>>,
}

impl Load {
    /// Puts each writer to work on a thread of its own.
    pub(crate) fn start(writers: Vec<Writer>) -> Self {
        let (stop, progress) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let spawn = |mut writer: Writer| {
            let (stop, progress) = (stop.clone(), progress.clone());
            std::thread::spawn(move || {
                writer.run(&stop, &progress);
                writer
            })
        };
        let threads = writers.into_iter().map(spawn).collect();
        Self { stop, progress, threads }
    }

    /// Acknowledged writes so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// Waits until so many more are acknowledged.
    pub(crate) fn wait_more(&self, more: u64) {
        let goal = self.acknowledged() + more;
        crate::cluster::wait_until("writes to be acknowledged", || self.acknowledged() >= goal);
    }

    /// No new writes; the writers come back when all of theirs are answered.
    pub(crate) fn stop(mut self) -> Vec<Writer> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).map(|thread| thread.join().expect("a writer doesn't fail")).collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Found {
    value: Vec<u8>,
    version: u64,
    revision: Revision,
}

/// Every key of a group, read from whoever leads it.
fn read_all(cluster: &Cluster, group: GroupId) -> BTreeMap<Vec<u8>, Found> {
    let mut client = cluster.client();
    let mut found = BTreeMap::new();
    let mut start = Vec::new();
    loop {
        let keys = Keys::Between { start: &start, end: b"" };
        let mut command = Vec::new();
        let range = RangeCommand { limit: PAGE, ..RangeCommand::current(keys) };
        range.encode(&mut command).expect("a range");
        let response = client.read(group, &command).expect("a majority runs: reads are served");
        let Ok(Reply::Range(page)) = Reply::decode(&response.body) else {
            panic!("a range is answered by a range");
        };
        for key in page.keys {
            let (value, revision) = (key.value.to_vec(), key.mod_revision);
            let version = key.version;
            start = [key.key, b"\0"].concat();
            found.insert(key.key.to_vec(), Found { value, version, revision });
        }
        if !page.more {
            return found;
        }
    }
}

/// Every write that was acknowledged is there once, where it was said to be; none that was refused
/// is; the others are there once or not at all.
pub(crate) fn check(cluster: &Cluster, writers: &[Writer]) -> Tally {
    let mut groups: BTreeMap<u64, BTreeMap<Vec<u8>, Found>> = BTreeMap::new();
    let mut tally = Tally::default();
    for writer in writers {
        let group = writer.group;
        let found = groups.entry(group.0).or_insert_with(|| read_all(cluster, group));
        tally.add(writer.check(found));
    }
    tally
}

/// The longest pause between two acknowledgements around each of these moments, up to the next.
pub(crate) fn gaps(writers: &[Writer], moments: &[Instant]) -> Vec<Duration> {
    let mut all: Vec<Instant> =
        writers.iter().flat_map(|writer| writer.acknowledged.iter().copied()).collect();
    all.sort_unstable();
    let end = all.last().copied();
    let ends = moments.iter().skip(1).copied().map(Some).chain([end]);
    let gap = |(&from, to): (&Instant, Option<Instant>)| {
        let pauses = all.windows(2).filter(|pair| pair[1] > from && Some(pair[1]) <= to);
        pauses.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    };
    moments.iter().zip(ends).map(gap).collect()
}
