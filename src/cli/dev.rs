//! `ringraft dev`: a whole quorum on this machine, one process per node, gone with this one.
//!
//! A node that dies is not restarted by itself: trying that out is what `dev` is for. `ringraft dev
//! restart` asks this process, through a socket in the directory, to start it again.

mod nodes;
mod restart;

use super::Global;
use super::exit::{Exit, Failure};
use super::output::{self, Output};
use super::{ENDPOINTS_DEFAULT, http};
use crate::control::StopSignals;
use nodes::DevNode;
use restart::RestartSocket;
use rustix::fs::{FlockOperation, flock};
use serde_json::json;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the groups may take to have leaders.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long a node may take to stop before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// How often the nodes are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long one question for readiness may take.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);

/// What `ringraft dev` is told. Left-out flags are what the directory says, or the defaults.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct DevArgs {
    #[command(subcommand)]
    action: Option<DevAction>,
    /// How many nodes [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=15))]
    nodes: Option<u16>,
    /// Where everything is kept, and found again at the next start
    #[arg(long, default_value = DIR_DEFAULT, value_name = "DIR")]
    dir: PathBuf,
    /// The first node's client port; the others follow in steps of ten [default: 7400]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..=65_000))]
    base_port: Option<u16>,
    /// Shards of each node [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    shards: Option<u16>,
    /// Groups of the cluster [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    groups: Option<u64>,
    /// The tuning profile of the nodes [default: dev-laptop]
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Accept a file system without direct I/O; its latencies mean nothing
    #[arg(long)]
    allow_buffered: bool,
}

const DIR_DEFAULT: &str = "./ringraft-dev";

/// What can be asked of a `ringraft dev` that runs.
#[derive(Debug, clap::Subcommand)]
enum DevAction {
    /// Start a node again, stopping it first if it runs
    Restart {
        /// The node's id or name
        #[arg(value_name = "ID")]
        node: String,
        /// The directory that `ringraft dev` was started with
        #[arg(long, default_value = DIR_DEFAULT, value_name = "DIR")]
        dir: PathBuf,
    },
}

pub(crate) fn run(args: &DevArgs, global: &Global) -> Result<Exit, Failure> {
    if let Some(DevAction::Restart { node, dir }) = &args.action {
        return restart::ask(dir, node, global.output);
    }
    let started = Instant::now();
    std::fs::create_dir_all(&args.dir)
        .map_err(|error| Failure::environment(format!("making {}", args.dir.display()), &error))?;
    let dir = std::fs::canonicalize(&args.dir)
        .map_err(|error| Failure::environment(format!("finding {}", args.dir.display()), &error))?;
    let _lock = lock(&dir)?;
    let mut nodes = nodes::open_or_make(&dir, args)?;
    for node in &nodes {
        nodes::refuse_taken_ports(node.id(), node.name(), &node.config.listen)?;
    }
    let stop = StopSignals::install()
        .map_err(|error| Failure::environment("listening for signals", &error))?;
    let socket = RestartSocket::open(&dir)?;
    let result = start_and_watch(&mut nodes, args, global, &stop, &socket, started);
    stop_all(&mut nodes);
    result
}

fn start_and_watch(
    nodes: &mut [DevNode],
    args: &DevArgs,
    global: &Global,
    stop: &StopSignals,
    socket: &RestartSocket,
    started: Instant,
) -> Result<Exit, Failure> {
    for node in nodes.iter_mut() {
        node.start(args.allow_buffered)?;
    }
    if !wait_until_ready(nodes, stop)? {
        return Ok(Exit::Ok);
    }
    match global.output {
        Output::Json => output::json(&to_json(nodes))?,
        Output::Table => output::text(&to_text(nodes, &args.dir, started.elapsed()))?,
    }
    let stopped = |error| Failure::environment("waiting for signals", &error);
    while !stop.wait_for(LOOK_EVERY).map_err(stopped)? {
        for node in nodes.iter_mut() {
            if let Some(status) = node.exited() {
                eprintln!(
                    "node {} ({}) ended: {status}; `ringraft dev restart {}` starts it again",
                    node.id(),
                    node.name(),
                    node.name()
                );
            }
        }
        socket.serve(nodes, args.allow_buffered);
    }
    Ok(Exit::Ok)
}

/// Takes the directory for this process. Held until the file is closed.
fn lock(dir: &Path) -> Result<File, Failure> {
    let path = dir.join("dev.lock");
    let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file =
        open.map_err(|error| Failure::environment(format!("opening {}", path.display()), &error))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut pid = String::new();
        // For the message only.
        let _ = file.read_to_string(&mut pid);
        let message = format!(
            "another `ringraft dev` (pid {}) runs in {}",
            if pid.trim().is_empty() { "unknown" } else { pid.trim() },
            dir.display()
        );
        return Err(Failure::new(Exit::DataDir, message)
            .cure("use that one, stop it with Ctrl-C, or choose another --dir and --base-port"));
    }
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(|error| Failure::environment(format!("writing {}", path.display()), &error))?;
    Ok(file)
}

/// Waits until every node says that every group has a leader; false if it was stopped meanwhile.
fn wait_until_ready(nodes: &mut [DevNode], stop: &StopSignals) -> Result<bool, Failure> {
    let deadline = Instant::now() + READY_WITHIN;
    let mut pause = Duration::from_millis(10);
    loop {
        for node in nodes.iter_mut() {
            if let Some(status) = node.exited() {
                let message =
                    format!("node {} ({}) ended at once: {status}", node.id(), node.name());
                let cure = format!(
                    "its log, {}, ends with:\n{}",
                    node.log_path().display(),
                    node.log_tail()
                );
                return Err(
                    Failure::new(node.exit_code().unwrap_or(Exit::Environment), message).cure(cure)
                );
            }
        }
        let unready = nodes.iter().find_map(|node| {
            match http::ask(&node.config.listen.http, "GET", "/readyz", "", ASK_TIMEOUT) {
                Ok((200, _)) => None,
                Ok((_, body)) => Some((node, body)),
                Err(error) => Some((node, error.to_string())),
            }
        });
        let Some((node, said)) = unready else { return Ok(true) };
        if Instant::now() >= deadline {
            let said: Vec<&str> = said.lines().filter(|line| !line.starts_with("[+]")).collect();
            let message = format!(
                "the quorum is not ready after {} s; node {} ({}) says: {}",
                READY_WITHIN.as_secs(),
                node.id(),
                node.name(),
                said.join("; ")
            );
            let cure = format!("look into {}", node.log_path().display());
            return Err(Failure::new(Exit::Unavailable, message).cure(cure));
        }
        let stopped = |error| Failure::environment("waiting for signals", &error);
        if stop.wait_for(pause).map_err(stopped)? {
            return Ok(false);
        }
        pause = (pause * 2).min(LOOK_EVERY);
    }
}

/// Asks all nodes to stop, at the same time, and waits; those that don't are killed.
fn stop_all(nodes: &mut [DevNode]) {
    for node in nodes.iter_mut() {
        node.ask_to_stop();
    }
    let deadline = Instant::now() + STOP_WITHIN;
    for node in nodes {
        if !node.wait_until(deadline) {
            eprintln!("node {} ({}) did not stop: killed", node.id(), node.name());
        }
    }
}

fn to_json(nodes: &[DevNode]) -> serde_json::Value {
    let endpoints: Vec<String> = nodes.iter().map(DevNode::client).collect();
    let rows = nodes.iter().map(|node| {
        let addresses = &node.config.own().addresses;
        json!({
            "id": node.id().get(),
            "name": node.name(),
            "pid": node.pid(),
            "dir": node.dir.display().to_string(),
            "client": addresses.client.to_string(),
            "peer": addresses.peer.to_string(),
            "http": addresses.http.to_string(),
        })
    });
    json!({"endpoints": endpoints, "nodes": rows.collect::<Vec<_>>()})
}

fn to_text(nodes: &[DevNode], dir: &Path, took: Duration) -> String {
    let config = &nodes[0].config;
    let plural =
        |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    let mut text = format!(
        "{}, {} each, {}: ready in {:.1} s\n",
        plural(nodes.len(), "node"),
        plural(config.cpu.shards.len(), "shard"),
        plural(config.groups.len(), "group"),
        took.as_secs_f64()
    );
    if !config.wal.sync.is_durable() {
        text.push_str("NOT DURABLE: wal.sync is \"none\"\n");
    }
    for node in nodes {
        let http = &node.config.own().addresses.http;
        let _ = writeln!(
            text,
            "  node {} ({})  {}  http://{http}/status  pid {}",
            node.id(),
            node.name(),
            node.client(),
            node.pid()
        );
    }
    let endpoints: Vec<String> = nodes.iter().map(DevNode::client).collect();
    let endpoints = endpoints.join(",");
    text.push_str("\nTry in another terminal:\n");
    if endpoints != ENDPOINTS_DEFAULT {
        let _ = writeln!(text, "  export RINGRAFT_ENDPOINTS={endpoints}");
    }
    let name = nodes[0].name();
    let other_dir = match dir == Path::new(DIR_DEFAULT) {
        true => String::new(),
        false => format!(" --dir {}", dir.display()),
    };
    let _ = write!(
        text,
        "  ringraft put hello world\n  ringraft get hello\n  ringraft status\n  \
         ringraft bench commit --outstanding 1000\n  \
         kill -9 {pid}; ringraft put still here; ringraft dev restart {name}{other_dir}\n\n\
         Ctrl-C stops the nodes; {} is kept.",
        dir.display(),
        pid = nodes[0].pid(),
    );
    text
}
