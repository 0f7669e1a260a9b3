//! `bench fsync`: what a durable write costs here, by method, space, size and depth.
//!
//! A case keeps `depth` writes in flight, each at the next offset of one file, and records each
//! write's time from its submission to the moment it is known durable. The depth of the blocking
//! method is a number of threads. Space that was never written is made anew whenever it is used
//! up, and the time that takes is left out.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::BenchError;
use crate::histogram::Latencies;
use crate::progress::Progress;
use crate::report::{Errors, Report, table};
use crate::ring::{AlignedBytes, Ring};
use crate::space::{self, ALIGN_BYTES, Space, SyncMethod};

/// Bytes of the file that is written to.
const FILE_BYTES: u64 = 64 << 20;
/// The largest write.
const WRITE_BYTES_MAX: usize = 4 << 20;
/// The most writes in flight.
const DEPTH_MAX: u32 = 64;
/// At the largest size and depth, one round of writes must fit the file.
const _: () = assert!(WRITE_BYTES_MAX as u64 * 16 <= FILE_BYTES);
/// Left out at the start of every case.
const WARM_UP: Duration = Duration::from_millis(100);

/// What to measure: every combination of the lists is a case.
#[derive(Clone, Debug, Serialize)]
pub struct FsyncOptions {
    /// The directory to write in; its file system is what is measured.
    pub dir: PathBuf,
    /// How to sync.
    pub methods: Vec<SyncMethod>,
    /// Which kind of space to write to.
    pub spaces: Vec<Space>,
    /// Bytes of a write: multiples of 4,096.
    pub sizes: Vec<usize>,
    /// Writes in flight.
    pub depths: Vec<u32>,
    /// Measured time of a case, in seconds.
    pub seconds: f64,
}

impl Default for FsyncOptions {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("."),
            methods: vec![SyncMethod::Linked, SyncMethod::Dsync, SyncMethod::Blocking],
            spaces: vec![Space::Zeroed, Space::Fresh],
            sizes: vec![4 << 10, 64 << 10],
            depths: vec![1, 2, 4],
            seconds: 2.0,
        }
    }
}

/// One case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Case {
    method: SyncMethod,
    space: Space,
    bytes: usize,
    depth: u32,
}

/// The result of one case.
#[derive(Clone, Debug, Serialize)]
pub struct FsyncRow {
    /// How it synced.
    pub method: SyncMethod,
    /// Where it wrote.
    pub space: Space,
    /// Bytes of a write.
    pub bytes: usize,
    /// Writes in flight.
    pub depth: u32,
    /// Durable bytes per second.
    pub bytes_per_s: u64,
    /// The rest.
    #[serde(flatten)]
    pub report: Report,
}

/// The results of all cases, in the order of the options.
#[derive(Clone, Debug, Serialize)]
pub struct FsyncReport {
    /// The name of the file system measured.
    pub file_system: &'static str,
    /// One row per case.
    pub rows: Vec<FsyncRow>,
}

impl FsyncReport {
    /// The results as one line of JSON, without the newline.
    pub fn json_line(&self) -> String {
        serde_json::to_string(self).expect("a report has string keys only")
    }

    /// The results as a table for people.
    pub fn table(&self) -> String {
        let names: Vec<String> = self
            .rows
            .iter()
            .map(|row| {
                format!(
                    "{} {} {} KiB x{} ({} MB/s)",
                    row.method.name(),
                    row.space.name(),
                    row.bytes >> 10,
                    row.depth,
                    row.bytes_per_s / 1_000_000,
                )
            })
            .collect();
        let rows = names.iter().map(String::as_str).zip(self.rows.iter().map(|row| &row.report));
        format!("file system: {}\n{}", self.file_system, table(rows))
    }
}

/// Measures every case.
///
/// # Errors
/// If an option makes no sense, the file system is one in memory, or a write or sync fails.
pub fn fsync(options: &FsyncOptions) -> Result<FsyncReport, BenchError> {
    let cases = cases(options)?;
    let file_system = space::file_system(&options.dir)?;
    let measured = Duration::from_secs_f64(options.seconds);
    let progress = Progress::new("fsync", (measured + WARM_UP) * cases.len() as u32);
    let run = || -> Result<Vec<FsyncRow>, BenchError> {
        cases.iter().map(|case| measure(options, case, measured)).collect()
    };
    let rows = thread::scope(|scope| {
        let running = scope.spawn(run);
        progress.draw_until(|| running.is_finished());
        running.join().expect("a panic has ended the process already, or is one of ours")
    })?;
    Ok(FsyncReport { file_system, rows })
}

/// Every combination of the lists, checked.
fn cases(options: &FsyncOptions) -> Result<Vec<Case>, BenchError> {
    if !(options.seconds > 0.0 && options.seconds <= 3600.0) {
        return Err(BenchError::options(format!(
            "seconds is {}, it may be above 0 and at most 3600",
            options.seconds
        )));
    }
    let mut cases = Vec::new();
    for &method in &options.methods {
        for &space in &options.spaces {
            for &bytes in &options.sizes {
                if bytes == 0 || bytes > WRITE_BYTES_MAX || !bytes.is_multiple_of(ALIGN_BYTES) {
                    return Err(BenchError::options(format!(
                        "size is {bytes}, it may be a multiple of {ALIGN_BYTES} up to \
                         {WRITE_BYTES_MAX}"
                    )));
                }
                for &depth in &options.depths {
                    if depth == 0 || depth > DEPTH_MAX {
                        return Err(BenchError::options(format!(
                            "depth is {depth}, it may be 1 to {DEPTH_MAX}"
                        )));
                    }
                    cases.push(Case { method, space, bytes, depth });
                }
            }
        }
    }
    if cases.is_empty() {
        return Err(BenchError::options("no case: methods, spaces, sizes and depths need a value"));
    }
    Ok(cases)
}

/// One case: rounds until the time is up.
fn measure(options: &FsyncOptions, case: &Case, time: Duration) -> Result<FsyncRow, BenchError> {
    let file = space::create(&options.dir, FILE_BYTES, case.space)?;
    let mut warm_up = Round::new();
    run_for(&file, case, WARM_UP, &mut warm_up)?;
    let mut round = Round::new();
    run_for(&file, case, time, &mut round)?;
    let asked = Asked { dir: &options.dir, case: *case, seconds: options.seconds };
    let report =
        Report::new(&round.latencies, round.elapsed, Errors::default(), Some(true), &asked);
    let bytes_per_s = report.ops_per_s * case.bytes as u64;
    let Case { method, space, bytes, depth } = *case;
    Ok(FsyncRow { method, space, bytes, depth, bytes_per_s, report })
}

#[derive(Serialize)]
struct Asked<'a> {
    dir: &'a std::path::Path,
    #[serde(flatten)]
    case: Case,
    seconds: f64,
}

/// What rounds have found so far.
struct Round {
    latencies: Latencies,
    elapsed: Duration,
}

impl Round {
    fn new() -> Self {
        Self { latencies: Latencies::new(), elapsed: Duration::ZERO }
    }
}

fn run_for(file: &OwnedFd, case: &Case, time: Duration, out: &mut Round) -> Result<(), BenchError> {
    while out.elapsed < time {
        if case.space == Space::Fresh {
            space::renew(file, FILE_BYTES, Space::Fresh)?;
        }
        let left = time - out.elapsed;
        match case.method {
            SyncMethod::Blocking => blocking_round(file, case, left, out)?,
            SyncMethod::Linked | SyncMethod::Dsync => ring_round(file, case, left, out)?,
        }
    }
    Ok(())
}

/// The offset of a case's write number `number`; none when fresh space is used up.
fn offset(case: &Case, number: u64) -> Option<u64> {
    let writes = FILE_BYTES / case.bytes as u64;
    match case.space {
        Space::Zeroed => Some(number % writes * case.bytes as u64),
        Space::Fresh => (number < writes).then(|| number * case.bytes as u64),
    }
}

/// Writes through a ring until the time is up or fresh space is used up.
fn ring_round(
    file: &OwnedFd,
    case: &Case,
    time: Duration,
    out: &mut Round,
) -> Result<(), BenchError> {
    let mut ring = Ring::new()?;
    let file = file.try_clone().map_err(BenchError::io("duplicate a descriptor"))?;
    let file = ring.add_file(file);
    let slots: Vec<_> = (0..case.depth).map(|_| ring.add_buffer(case.bytes, ALIGN_BYTES)).collect();
    let started = Instant::now();
    let mut sent_at = vec![started; slots.len()];
    let mut idle: Vec<u32> = (0..case.depth).collect();
    let mut number = 0;
    loop {
        let now = Instant::now();
        while now - started < time && !idle.is_empty() {
            let Some(offset) = offset(case, number) else { break };
            let slot = idle.pop().expect("not empty");
            let buffer = slots[slot as usize];
            ring.bytes_mut(buffer, 0..8).copy_from_slice(&number.to_le_bytes());
            sent_at[slot as usize] = Instant::now();
            match case.method {
                SyncMethod::Linked => {
                    ring.write_then_sync(file, buffer, 0..case.bytes, offset, slot);
                }
                _ => ring.write_dsync(file, buffer, 0..case.bytes, offset, slot),
            }
            number += 1;
        }
        if ring.in_flight() == 0 {
            break;
        }
        ring.submit_and_wait(1)?;
        let now = Instant::now();
        while let Some(ended) = ring.next()? {
            out.latencies.record(now - sent_at[ended.tag as usize], 1);
            idle.push(ended.tag);
        }
    }
    out.elapsed += started.elapsed();
    Ok(())
}

/// Writes from `depth` threads until the time is up or fresh space is used up.
fn blocking_round(
    file: &OwnedFd,
    case: &Case,
    time: Duration,
    out: &mut Round,
) -> Result<(), BenchError> {
    let numbers = AtomicU64::new(0);
    let started = Instant::now();
    let write = || -> Result<Latencies, BenchError> {
        let mut latencies = Latencies::new();
        let bytes = AlignedBytes::zeroed(case.bytes, ALIGN_BYTES);
        while started.elapsed() < time {
            // Pairs with nothing: each thread only wants a number of its own.
            let number = numbers.fetch_add(1, Ordering::Relaxed);
            let Some(offset) = offset(case, number) else { break };
            let sent_at = Instant::now();
            space::write_at(file, bytes.bytes(), offset)?;
            space::sync(file)?;
            latencies.record(sent_at.elapsed(), 1);
        }
        Ok(latencies)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..case.depth).map(|_| scope.spawn(write)).collect();
        for thread in threads {
            out.latencies.merge(&thread.join().expect("a panic is one of ours")?);
        }
        Ok(())
    })?;
    out.elapsed += started.elapsed();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Options that can't be measured are refused before anything is written.
    #[test]
    fn senseless_options_are_refused() {
        let one = FsyncOptions { sizes: vec![4096], depths: vec![1], ..FsyncOptions::default() };
        assert_eq!(cases(&one).expect("sensible").len(), 6);
        for wrong in [
            FsyncOptions { sizes: vec![1000], ..one.clone() },
            FsyncOptions { sizes: vec![8 << 20], ..one.clone() },
            FsyncOptions { depths: vec![0], ..one.clone() },
            FsyncOptions { methods: vec![], ..one.clone() },
            FsyncOptions { seconds: 0.0, ..one.clone() },
            FsyncOptions { seconds: f64::NAN, ..one.clone() },
        ] {
            assert!(matches!(cases(&wrong), Err(BenchError::Options { .. })), "{wrong:?}");
        }
    }

    /// Zeroed space wraps, fresh space ends.
    #[test]
    fn fresh_space_ends() {
        let fresh = Case { method: SyncMethod::Linked, space: Space::Fresh, bytes: 4096, depth: 1 };
        let last = FILE_BYTES / 4096 - 1;
        assert_eq!(offset(&fresh, last), Some(FILE_BYTES - 4096));
        assert_eq!(offset(&fresh, last + 1), None);
        assert_eq!(offset(&Case { space: Space::Zeroed, ..fresh }, last + 1), Some(0));
    }
}
