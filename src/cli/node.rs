//! `ringraft node`: runs one node until it is told to stop.

use super::exit::{Exit, Failure};
use crate::Server;
use crate::boot::BootError;
use crate::config::Config;
use crate::control::{LogControl, StopSignals};
use rustix::process::{Pid, Signal};
use std::path::PathBuf;

/// What `ringraft node` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct NodeArgs {
    /// The node's configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Accept a file system without direct I/O: for development only, its latencies mean nothing
    #[arg(long, hide = true)]
    allow_buffered: bool,
    /// Stop when this process, the parent, is gone
    #[arg(long, hide = true, value_name = "PID")]
    parent: Option<i32>,
}

pub(crate) fn run(args: &NodeArgs) -> Result<Exit, Failure> {
    if let Some(parent) = args.parent {
        stop_with_parent(parent)?;
    }
    let config = Config::load(&args.config)?;
    let log = LogControl::install(&config.log);
    let stop = StopSignals::install()
        .map_err(|error| Failure::environment("listening for signals", &error))?;
    tracing::info!(
        node = config.node.get(),
        name = config.name,
        version = env!("CARGO_PKG_VERSION"),
        sync = config.wal.sync.name(),
        "starting"
    );
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let mut server = Server::new(config);
    if args.allow_buffered {
        server = server.allow_buffered();
    }
    server.run_until(log, stop)?;
    Ok(Exit::Ok)
}

/// Asks the kernel to stop this process when its parent is gone, and makes sure that it isn't yet.
fn stop_with_parent(parent: i32) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|error| Failure::environment("asking to stop with the parent", &error.into()))?;
    let now = rustix::process::getppid().map_or(0, Pid::as_raw_pid);
    if now != parent {
        let message = format!("the parent {parent} is gone (it is {now} now)");
        return Err(Failure::new(Exit::Environment, message));
    }
    Ok(())
}

impl From<BootError> for Failure {
    fn from(error: BootError) -> Self {
        let exit = match &error {
            BootError::DataDirectory(_) | BootError::FileSystem(_) => Exit::DataDir,
            BootError::Ring(_) => Exit::Uring,
            BootError::Recovery { .. } => Exit::Damaged,
            BootError::Port(_) | BootError::Lane { .. } | BootError::System { .. } => {
                Exit::Environment
            }
        };
        Self::new(exit, error.to_string())
    }
}
