//! `bench commit` and `bench read`: a loop over any connection that can submit and poll, closed
//! unless there is a rate.
//!
//! Every connection has a thread and its share of the outstanding operations: one answer, one new
//! operation. The time of an operation runs from before it is submitted to after its answer was
//! polled. The phases of a run: fill the keys (reads, or if asked to), warm up, measure, then collect
//! the answers that are still due. Only answers that arrive in the measured time count.
//!
//! With a rate the loop is open: operations are due at even times, whether or not earlier ones have
//! ended, and the time of one runs from when it was due. A server that stands still for a moment is
//! then seen by all that was due meanwhile, not by as many operations as are outstanding.

mod arrivals;
mod calls;
mod connection;
mod keys;
mod native;
mod ready;

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringraft_types::GroupId;
use serde::Serialize;

use crate::error::BenchError;
use crate::histogram::Latencies;
use crate::progress::Progress;
use crate::report::{Errors, Report};
use arrivals::Arrivals;
use calls::Calls;
pub use connection::{Completed, Connection, Operation, Outcome, Refused};
use keys::{SplitMix, key_bytes};
pub use native::NativeConnection;
pub use ready::{ReadyOptions, ReadyReport, ready};

/// The most connections: each has a thread.
const CONNECTIONS_MAX: usize = 1024;
/// The most operations in flight.
const OUTSTANDING_MAX: usize = 1 << 20;
/// The most keys.
const KEYS_MAX: u64 = 1 << 32;
/// The longest a poll sleeps.
const POLL: Duration = Duration::from_millis(10);
/// A pause after a refusal at the door, so that a full server isn't hammered.
const REFUSED_PAUSE: Duration = Duration::from_millis(1);
/// The longest that an open loop sleeps between two looks at the clock and the answers: a poll that
/// sleeps does so in milliseconds.
const LOOK: Duration = Duration::from_micros(50);
/// The most operations in a second that an open loop is asked for.
const RATE_MAX: f64 = 10e6;
/// How long answers are waited for at the end; what is missing then counts as unknown.
const COLLECT: Duration = Duration::from_secs(5);

/// What the operations are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LoadKind {
    /// Durable writes.
    Write,
    /// Linearizable reads.
    Read,
}

/// What to measure.
#[derive(Clone, Debug, Serialize)]
pub struct LoadOptions {
    /// What the operations are.
    pub kind: LoadKind,
    /// Whether reads are answered under their leader's lease, without asking a majority.
    pub lease: bool,
    /// Operations in flight, over all connections; at most, if there is a rate.
    pub outstanding: usize,
    /// Operations that are due in a second, over all connections; `None`: a closed loop.
    pub rate: Option<f64>,
    /// Connections, each with a thread.
    pub connections: usize,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Different keys.
    pub keys: u64,
    /// Groups 1 to this; a key always goes to the same one.
    pub groups: u64,
    /// Measured time, in seconds.
    pub seconds: f64,
    /// Left out before it, in seconds.
    pub warm_up_seconds: f64,
    /// Whether every key is written once before; reads always do.
    pub fill: bool,
    /// Same seed, same keys.
    pub seed: u64,
    /// Whether the server syncs before it acknowledges, as it says itself, if it does.
    pub durable: Option<bool>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            kind: LoadKind::Write,
            lease: false,
            outstanding: 1,
            rate: None,
            connections: 1,
            value_bytes: 128,
            keys: 100_000,
            groups: 1,
            seconds: 10.0,
            warm_up_seconds: 1.0,
            fill: false,
            seed: 1,
            durable: Some(true),
        }
    }
}

/// Runs a loop over connections that `connect` makes, each in the thread that uses it.
///
/// # Errors
/// If an option makes no sense, or a connection can't be made or breaks for good.
pub fn load<C: Connection>(
    options: &LoadOptions,
    connect: impl Fn(usize) -> std::io::Result<C> + Sync,
) -> Result<Report, BenchError> {
    options.validate()?;
    let measured = Duration::from_secs_f64(options.seconds);
    let total = measured + Duration::from_secs_f64(options.warm_up_seconds);
    let name = if options.kind == LoadKind::Write { "commit" } else { "read" };
    let progress = Progress::new(name, total);
    let ready = Barrier::new(options.connections);
    let failed = AtomicBool::new(false);
    let run = |number: usize| -> Result<Loop<'_, C>, BenchError> {
        let filled = connect(number)
            .map_err(BenchError::io(format!("make connection {number}")))
            .map(|connection| Loop::new(options, number, connection))
            .and_then(|mut looping| looping.fill().map(|()| looping));
        if filled.is_err() {
            // Pairs with the load below; the barrier orders them.
            failed.store(true, Ordering::Relaxed);
        }
        ready.wait();
        let mut looping = filled?;
        if !failed.load(Ordering::Relaxed) {
            looping.measure()?;
        }
        Ok(looping)
    };
    let (mut latencies, mut errors) = (Latencies::new(), Errors::default());
    thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..options.connections)
            .map(|number| scope.spawn(move || run(number).map(|looping| looping.found())))
            .collect();
        progress.draw_until(|| threads.iter().all(|thread| thread.is_finished()));
        for thread in threads {
            let found = thread.join().expect("a panic here is a mistake of ours")?;
            latencies.merge(&found.0);
            errors.merge(&found.1);
        }
        Ok(())
    })?;
    Ok(Report::new(&latencies, measured, errors, options.durable, options))
}

impl LoadOptions {
    fn validate(&self) -> Result<(), BenchError> {
        let wrong = |name: &str, value: String, may_be: String| {
            Err(BenchError::options(format!("{name} is {value}, it may be {may_be}")))
        };
        if self.connections == 0 || self.connections > CONNECTIONS_MAX {
            let may_be = format!("1 to {CONNECTIONS_MAX}");
            return wrong("connections", self.connections.to_string(), may_be);
        }
        if self.outstanding < self.connections || self.outstanding > OUTSTANDING_MAX {
            let may_be = format!("{} (the connections) to {OUTSTANDING_MAX}", self.connections);
            return wrong("outstanding", self.outstanding.to_string(), may_be);
        }
        let value_bytes_max = ringraft_types::limits::VALUE_BYTES_MAX;
        if self.value_bytes > value_bytes_max {
            let may_be = format!("at most {value_bytes_max}");
            return wrong("value bytes", self.value_bytes.to_string(), may_be);
        }
        if self.keys == 0 || self.keys > KEYS_MAX {
            return wrong("keys", self.keys.to_string(), format!("1 to {KEYS_MAX}"));
        }
        if self.groups == 0 || self.groups > self.keys {
            return wrong("groups", self.groups.to_string(), format!("1 to {} (keys)", self.keys));
        }
        if let Some(rate) = self.rate.filter(|rate| !(*rate > 0.0 && *rate <= RATE_MAX)) {
            return wrong("rate", rate.to_string(), format!("above 0, at most {RATE_MAX}"));
        }
        if !(self.seconds > 0.0 && self.seconds <= 86_400.0) {
            return wrong("seconds", self.seconds.to_string(), "above 0, at most 86400".into());
        }
        if !(self.warm_up_seconds >= 0.0 && self.warm_up_seconds <= 60.0) {
            return wrong("warm-up seconds", self.warm_up_seconds.to_string(), "0 to 60".into());
        }
        Ok(())
    }

    /// The share of connection `number` in a total.
    fn share(&self, total: usize, number: usize) -> usize {
        total / self.connections + usize::from(number < total % self.connections)
    }
}

/// One connection's loop. Nothing here allocates once the measured time has begun.
struct Loop<'a, C> {
    options: &'a LoadOptions,
    number: usize,
    connection: C,
    outstanding: usize,
    in_flight: Calls,
    ended: Vec<Completed>,
    random: SplitMix,
    value: Vec<u8>,
    latencies: Latencies,
    errors: Errors,
}

impl<'a, C: Connection> Loop<'a, C> {
    fn new(options: &'a LoadOptions, number: usize, connection: C) -> Self {
        let outstanding = options.share(options.outstanding, number);
        let in_flight = Calls::new(outstanding);
        let mut random = SplitMix::new(options.seed, number);
        let value = (0..options.value_bytes).map(|_| random.next() as u8).collect();
        Self {
            options,
            number,
            connection,
            outstanding,
            in_flight,
            ended: Vec::with_capacity(2 * outstanding),
            random,
            value,
            latencies: Latencies::new(),
            errors: Errors::default(),
        }
    }

    fn found(self) -> (Latencies, Errors) {
        (self.latencies, self.errors)
    }

    /// Writes this connection's share of the keys, when the run is going to read them, or is asked
    /// to.
    fn fill(&mut self) -> Result<(), BenchError> {
        if self.options.kind == LoadKind::Write && !self.options.fill {
            return Ok(());
        }
        let mut keys = (self.number as u64..self.options.keys).step_by(self.options.connections);
        let mut next = keys.next();
        while next.is_some() || self.in_flight.len() > 0 {
            let mut timeout = POLL;
            while let Some(key) = next
                && self.in_flight.len() < self.outstanding
            {
                if self.submit(LoadKind::Write, key, Instant::now()).is_err() {
                    timeout = REFUSED_PAUSE;
                    break;
                }
                next = keys.next();
            }
            self.poll(timeout)?;
            // A key that was not written makes a read of nothing, which is a read as well.
            for ended in self.ended.drain(..) {
                self.in_flight.end(ended.call);
            }
        }
        Ok(())
    }

    /// Warms up, measures, and collects what is still due.
    fn measure(&mut self) -> Result<(), BenchError> {
        let from = Instant::now() + Duration::from_secs_f64(self.options.warm_up_seconds);
        let until = from + Duration::from_secs_f64(self.options.seconds);
        let mut now = Instant::now();
        let mut arrivals = self
            .options
            .rate
            .map(|rate| Arrivals::new(now, rate / self.options.connections as f64, self.number));
        while now < until {
            let in_window = now >= from;
            let mut timeout = if arrivals.is_some() { Duration::ZERO } else { POLL };
            while self.in_flight.len() < self.outstanding {
                let at = match &mut arrivals {
                    None => Instant::now(),
                    Some(arrivals) => match arrivals.take(Instant::now()) {
                        Some(due) => due,
                        None => break,
                    },
                };
                let key = self.random.below(self.options.keys);
                if let Err(refused) = self.submit(self.options.kind, key, at) {
                    let errors = &mut self.errors;
                    match refused {
                        Refused::Busy => errors.busy += u64::from(in_window),
                        Refused::Other => errors.other += u64::from(in_window),
                    }
                    timeout = REFUSED_PAUSE;
                    break;
                }
            }
            self.poll(timeout)?;
            now = Instant::now();
            let is_any = !self.ended.is_empty();
            self.account(now, now >= from && now < until);
            if let Some(arrivals) = arrivals.as_ref().filter(|_| !is_any) {
                thread::sleep(arrivals.next().saturating_duration_since(now).min(LOOK));
            }
        }
        let deadline = now + COLLECT;
        while self.in_flight.len() > 0 && now < deadline {
            self.poll(POLL)?;
            now = Instant::now();
            self.account(now, false);
        }
        self.errors.unknown += self.in_flight.len() as u64;
        Ok(())
    }

    /// Submits an operation on key number `key`, whose time runs from `at`.
    fn submit(&mut self, kind: LoadKind, key: u64, at: Instant) -> Result<(), Refused> {
        let group = GroupId(1 + key % self.options.groups);
        let key = key_bytes(key);
        let operation = match kind {
            LoadKind::Write => {
                let stamp = self.random.next().to_le_bytes();
                let stamped = stamp.len().min(self.value.len());
                self.value[..stamped].copy_from_slice(&stamp[..stamped]);
                Operation::Write { key: &key, value: &self.value }
            }
            LoadKind::Read => Operation::Read { key: &key, lease: self.options.lease },
        };
        let call = self.connection.submit(group, operation)?;
        self.in_flight.begin(call, at);
        Ok(())
    }

    fn poll(&mut self, timeout: Duration) -> Result<(), BenchError> {
        let number = self.number;
        self.connection
            .poll(timeout, &mut self.ended)
            .map_err(BenchError::io(format!("connection {number}")))
    }

    /// Takes what has ended out of the books; in the window it counts.
    fn account(&mut self, now: Instant, in_window: bool) {
        for ended in self.ended.drain(..) {
            let at = self.in_flight.end(ended.call);
            if !in_window {
                continue;
            }
            match ended.outcome {
                Outcome::Done => self.latencies.record(now - at, 1),
                Outcome::Busy => self.errors.busy += 1,
                Outcome::Refused => self.errors.other += 1,
                Outcome::Unknown => self.errors.unknown += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keys::KEY_BYTES;
    use std::collections::VecDeque;
    use std::sync::atomic::AtomicU64;

    /// A server in memory: answers everything at the next poll, each tenth operation with an error.
    struct Echo<'a> {
        queued: VecDeque<u64>,
        next: u64,
        peak: &'a AtomicU64,
        groups: &'a AtomicU64,
    }

    impl Connection for Echo<'_> {
        fn submit(&mut self, group: GroupId, operation: Operation<'_>) -> Result<u64, Refused> {
            let (Operation::Write { key, .. } | Operation::Read { key, .. }) = operation;
            assert_eq!(key.len(), KEY_BYTES);
            self.groups.fetch_or(1 << group.0, Ordering::Relaxed);
            self.next += 1;
            if self.next % 1000 == 999 {
                return Err(Refused::Busy);
            }
            self.queued.push_back(self.next);
            self.peak.fetch_max(self.queued.len() as u64, Ordering::Relaxed);
            Ok(self.next)
        }

        fn poll(&mut self, _: Duration, ended: &mut Vec<Completed>) -> std::io::Result<()> {
            ended.extend(self.queued.drain(..).map(|call| {
                let outcome = match call % 100 {
                    10 => Outcome::Busy,
                    20 => Outcome::Unknown,
                    30 => Outcome::Refused,
                    _ => Outcome::Done,
                };
                Completed { call, outcome }
            }));
            Ok(())
        }
    }

    fn quick(kind: LoadKind) -> LoadOptions {
        LoadOptions {
            kind,
            outstanding: 10,
            connections: 3,
            keys: 1000,
            groups: 4,
            seconds: 0.05,
            warm_up_seconds: 0.01,
            ..LoadOptions::default()
        }
    }

    /// Every connection keeps its share in flight, all groups are used, and every kind of error
    /// is counted.
    #[test]
    fn the_loop_is_closed_and_counts_everything() {
        for kind in [LoadKind::Write, LoadKind::Read] {
            let (peak, groups) = (AtomicU64::new(0), AtomicU64::new(0));
            let report = load(&quick(kind), |_| {
                Ok(Echo { queued: VecDeque::new(), next: 0, peak: &peak, groups: &groups })
            })
            .expect("the load runs");
            assert_eq!(peak.into_inner(), 4, "ten over three connections");
            assert_eq!(groups.into_inner(), 0b11110);
            let Errors { busy, unknown, other } = report.errors;
            assert!(busy > 0 && unknown > 0 && other > 0, "{report:?}");
            assert!(report.ops_per_s > 0 && report.latency_us.p50 > 0.0, "{report:?}");
        }
    }

    /// With a rate, as much as is due is submitted, not as much as may be in flight.
    #[test]
    fn an_open_loop_keeps_its_rate() {
        let (peak, groups) = (AtomicU64::new(0), AtomicU64::new(0));
        let asked = LoadOptions { rate: Some(3_000.0), fill: true, ..quick(LoadKind::Write) };
        let report = load(&asked, |_| {
            Ok(Echo { queued: VecDeque::new(), next: 0, peak: &peak, groups: &groups })
        })
        .expect("the load runs");
        let Errors { busy, unknown, other } = report.errors;
        let submitted = report.ops_per_s as f64 * 0.05 + (busy + unknown + other) as f64;
        // The measured time and the moment before it.
        assert!(submitted <= 3_000.0 * 0.06 + 3.0, "{report:?}");
        assert!(report.ops_per_s > 0, "{report:?}");
    }

    /// A connection that can't be made ends the run with its error, and the others don't hang.
    #[test]
    fn a_failed_connection_ends_the_run() {
        let (peak, groups) = (AtomicU64::new(0), AtomicU64::new(0));
        let result = load(&quick(LoadKind::Write), |number| {
            if number == 1 {
                return Err(std::io::ErrorKind::ConnectionRefused.into());
            }
            Ok(Echo { queued: VecDeque::new(), next: 0, peak: &peak, groups: &groups })
        });
        let error = result.expect_err("one connection is missing");
        assert!(error.to_string().contains("connection 1"), "{error}");
    }

    /// Options that can't be measured are refused.
    #[test]
    fn senseless_options_are_refused() {
        let one = quick(LoadKind::Write);
        for wrong in [
            LoadOptions { connections: 0, ..one.clone() },
            LoadOptions { outstanding: 2, ..one.clone() },
            LoadOptions { value_bytes: 2 << 20, ..one.clone() },
            LoadOptions { keys: 0, ..one.clone() },
            LoadOptions { groups: 1001, ..one.clone() },
            LoadOptions { seconds: 0.0, ..one.clone() },
            LoadOptions { rate: Some(0.0), ..one.clone() },
            LoadOptions { warm_up_seconds: -1.0, ..one.clone() },
        ] {
            assert!(matches!(wrong.validate(), Err(BenchError::Options { .. })), "{wrong:?}");
        }
    }
}
