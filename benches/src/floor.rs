//! `bench floor`: the least that a durable write on a majority of three can cost on this machine.
//!
//! One process, four threads, one ring each, TCP on loopback, no consensus logic at all:
//!
//! ```text
//! client ──values──> leader ──the same bytes──> follower ×2      core 0: leader
//!        <──ack────         <──ack, cumulative─                  core 1: the other three
//!                   append + sync              append + sync
//! ```
//!
//! A node has one batch in flight on its disk, and the next one grows behind it. The leader sends
//! a batch to both followers and writes its own at once; it acknowledges what is durable on its
//! own disk and on one follower's. Threads sleep in the kernel when they have nothing to do; none
//! spins. The distance of a real quorum to this figure is what its protocol costs.
//!
//! `echo` leaves out disks and followers: the client's round trip to the leader alone.

mod client;
mod link;
mod node;

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use core_affinity::CoreId;
use serde::Serialize;

use crate::error::BenchError;
use crate::progress::Progress;
use crate::report::{Errors, Report};
use crate::space::{self, Space, SyncMethod};
use link::MESSAGE_HEADER_BYTES;

/// Bytes of each node's file; writes wrap around in it, as in a recycled segment.
const FILE_BYTES: u64 = 64 << 20;
/// The largest value.
const VALUE_BYTES_MAX: usize = 1 << 20;
/// The most operations in flight.
const OUTSTANDING_MAX: usize = 1 << 20;
/// The most bytes in flight: every thread may buffer them a few times.
const IN_FLIGHT_BYTES_MAX: usize = 256 << 20;
/// The most bytes of a batch, unless one message takes more.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// The largest message must fit one batch's space.
const _: () =
    assert!(((VALUE_BYTES_MAX + MESSAGE_HEADER_BYTES + BATCH_BYTES_MAX) as u64) < FILE_BYTES);

/// What to measure.
#[derive(Clone, Debug, Serialize)]
pub struct FloorOptions {
    /// Operations that the client keeps in flight.
    pub outstanding: usize,
    /// Bytes of a value; its header comes on top.
    pub value_bytes: usize,
    /// Measured time, in seconds.
    pub seconds: f64,
    /// Left out before it, in seconds.
    pub warm_up_seconds: f64,
    /// Where the three nodes' files are made; they have no names and vanish with the process.
    pub dir: PathBuf,
    /// Whether there is a disk at all: without, only the two round trips are measured.
    pub sync: bool,
    /// Whether the leader is alone and acknowledges what it hears, without a disk: one round trip,
    /// the floor of a read.
    pub echo: bool,
    /// How a batch is made durable.
    pub method: SyncMethod,
    /// The leader's core.
    pub leader_core: usize,
    /// The core of the client and the followers.
    pub other_core: usize,
}

impl Default for FloorOptions {
    fn default() -> Self {
        Self {
            outstanding: 1,
            value_bytes: 128,
            seconds: 5.0,
            warm_up_seconds: 1.0,
            dir: PathBuf::from("."),
            sync: true,
            echo: false,
            method: SyncMethod::Linked,
            leader_core: 0,
            other_core: 1,
        }
    }
}

impl FloorOptions {
    /// Bytes of a message.
    fn message_bytes(&self) -> usize {
        MESSAGE_HEADER_BYTES + self.value_bytes
    }

    /// Bytes of the messages in flight.
    fn in_flight_bytes(&self) -> usize {
        self.outstanding * self.message_bytes()
    }

    fn validate(&self) -> Result<(), BenchError> {
        if self.outstanding == 0 || self.outstanding > OUTSTANDING_MAX {
            return Err(BenchError::options(format!(
                "outstanding is {}, it may be 1 to {OUTSTANDING_MAX}",
                self.outstanding
            )));
        }
        if self.value_bytes > VALUE_BYTES_MAX {
            return Err(BenchError::options(format!(
                "value bytes is {}, it may be at most {VALUE_BYTES_MAX}",
                self.value_bytes
            )));
        }
        if self.in_flight_bytes() > IN_FLIGHT_BYTES_MAX {
            return Err(BenchError::options(format!(
                "{} outstanding of {} bytes are {} in flight, the limit is {IN_FLIGHT_BYTES_MAX}",
                self.outstanding,
                self.message_bytes(),
                self.in_flight_bytes()
            )));
        }
        if !(self.seconds > 0.0 && self.seconds <= 3600.0) {
            return Err(BenchError::options(format!(
                "seconds is {}, it may be above 0 and at most 3600",
                self.seconds
            )));
        }
        if !(self.warm_up_seconds >= 0.0 && self.warm_up_seconds <= 60.0) {
            return Err(BenchError::options(format!(
                "warm-up seconds is {}, it may be 0 to 60",
                self.warm_up_seconds
            )));
        }
        Ok(())
    }
}

/// What a report says was asked, and where it was measured.
#[derive(Serialize)]
struct Asked<'a> {
    #[serde(flatten)]
    options: &'a FloorOptions,
    file_system: Option<&'static str>,
}

/// Measures the floor.
///
/// # Errors
/// If an option makes no sense, the file system is one in memory, a core can't be had, or a
/// write, sync or socket fails.
pub fn floor(options: &FloorOptions) -> Result<Report, BenchError> {
    options.validate()?;
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    for core in [options.leader_core, options.other_core] {
        if !cores.contains(&CoreId { id: core }) {
            return Err(no_core(core));
        }
    }
    let has_disk = options.sync && !options.echo;
    let file_system = if has_disk { Some(space::file_system(&options.dir)?) } else { None };
    let total = Duration::from_secs_f64(options.seconds + options.warm_up_seconds);
    let mut files = [const { None::<OwnedFd> }; 3];
    if has_disk {
        for file in &mut files {
            *file = Some(space::create(&options.dir, FILE_BYTES, Space::Zeroed)?);
        }
    }
    let [leader_file, a_file, b_file] = files;
    let (to_leader, from_client) = connected()?;
    let (to_a, a_from_leader) = connected()?;
    let (to_b, b_from_leader) = connected()?;
    let progress = Progress::new("floor", total);

    let measured = thread::scope(|scope| {
        let leader = spawn(scope, "floor-leader", options.leader_core, move || {
            if options.echo {
                // Its followers' connections are as idle as they are.
                let _followers = [to_a, to_b];
                return node::echo(options, from_client);
            }
            node::leader(options, from_client, [to_a, to_b], leader_file)
        })?;
        let a = spawn(scope, "floor-a", options.other_core, move || {
            node::follower(options, a_from_leader, a_file)
        })?;
        let b = spawn(scope, "floor-b", options.other_core, move || {
            node::follower(options, b_from_leader, b_file)
        })?;
        let client = spawn(scope, "floor-client", options.other_core, move || {
            client::client(options, to_leader)
        })?;
        progress.draw_until(|| client.is_finished());
        let ours = "a panic here is a mistake of ours";
        let measured = client.join().expect(ours);
        // When one end fails the others see a closed connection: the cause is the other error.
        let nodes = [leader.join().expect(ours), a.join().expect(ours), b.join().expect(ours)];
        for node in nodes {
            match node {
                Ok(()) | Err(BenchError::Closed) => {}
                Err(error) => return Err(error),
            }
        }
        measured
    })?;
    let asked = Asked { options, file_system };
    let (latencies, elapsed) = (&measured.latencies, measured.elapsed);
    Ok(Report::new(latencies, elapsed, Errors::default(), Some(has_disk), &asked))
}

/// A named thread on one core.
fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    name: &str,
    core: usize,
    work: impl FnOnce() -> Result<T, BenchError> + Send + 'scope,
) -> Result<thread::ScopedJoinHandle<'scope, Result<T, BenchError>>, BenchError> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn_scoped(scope, move || {
            if !core_affinity::set_for_current(CoreId { id: core }) {
                return Err(no_core(core));
            }
            work()
        })
        .map_err(BenchError::io("start a thread"))
}

fn no_core(core: usize) -> BenchError {
    BenchError::options(format!(
        "core {core} can't be had: it is offline, or this process may not use it"
    ))
}

/// Both ends of a TCP connection over loopback.
fn connected() -> Result<(OwnedFd, OwnedFd), BenchError> {
    let failed = || BenchError::io("connect over loopback");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed())?;
    let address = listener.local_addr().map_err(failed())?;
    let near = TcpStream::connect(address).map_err(failed())?;
    let (far, from) = listener.accept().map_err(failed())?;
    if near.local_addr().map_err(failed())? != from {
        return Err(BenchError::options("a stranger connected to the benchmark's own port"));
    }
    near.set_nodelay(true).map_err(failed())?;
    far.set_nodelay(true).map_err(failed())?;
    Ok((near.into(), far.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Options that can't be measured are refused before anything is made.
    #[test]
    fn senseless_options_are_refused() {
        let one = FloorOptions::default();
        for wrong in [
            FloorOptions { outstanding: 0, ..one.clone() },
            FloorOptions { outstanding: OUTSTANDING_MAX + 1, ..one.clone() },
            FloorOptions { outstanding: 1000, value_bytes: VALUE_BYTES_MAX, ..one.clone() },
            FloorOptions { value_bytes: VALUE_BYTES_MAX + 1, ..one.clone() },
            FloorOptions { seconds: -1.0, ..one.clone() },
            FloorOptions { warm_up_seconds: f64::INFINITY, ..one.clone() },
        ] {
            assert!(matches!(floor(&wrong), Err(BenchError::Options { .. })), "{wrong:?}");
        }
    }

    /// A core that isn't there is an error with its number, not a hang.
    #[test]
    fn a_missing_core_is_an_error() {
        let options = FloorOptions { leader_core: 9999, sync: false, ..FloorOptions::default() };
        let error = floor(&options).expect_err("there are fewer cores");
        assert!(error.to_string().contains("core 9999"), "{error}");
    }
}
