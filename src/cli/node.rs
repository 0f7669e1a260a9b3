//! `ringraft node`: runs one node until it is told to stop; below it, who the nodes of each group
//! are, and changing that.

mod change;
mod list;
mod refresh;
mod show;

use super::Global;
use super::exit::{Exit, Failure};
use crate::Server;
use crate::boot::BootError;
use crate::changes::plan::{Goal, Newcomer};
use crate::config::{Address, Config};
use crate::control::{LogControl, StopSignals};
pub(crate) use change::{ChangeArgs, groups, run as run_change};
use ringraft_types::{Incarnation, NodeId};
use rustix::process::{Pid, Signal};
use std::path::{Path, PathBuf};

/// What `ringraft node` is told.
#[derive(Debug, clap::Args)]
#[command(subcommand_negates_reqs = true, subcommand_value_name = "COMMAND")]
pub(crate) struct NodeArgs {
    /// The node's configuration file
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    /// Accept a file system without direct I/O: for development only, its latencies mean nothing
    #[arg(long, hide = true)]
    allow_buffered: bool,
    /// Stop when this process, the parent, is gone
    #[arg(long, hide = true, value_name = "PID")]
    parent: Option<i32>,
    #[command(subcommand)]
    command: Option<NodeCommand>,
}

/// What else `ringraft node` can do: to all groups of the cluster, or to those that --group names.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum NodeCommand {
    /// List who votes and who listens in each group, and how far each is
    Ls,
    /// Add a node as a learner: it gets everything and decides nothing
    Add(AddArgs),
    /// Have a learner vote, as soon as it has caught up
    Promote(OneArgs),
    /// Have a voter only listen
    Demote(OneArgs),
    /// Remove a node
    Remove(OneArgs),
    /// Have NEW vote in the place of OLD
    ///
    /// NEW is added as a learner and waited for until it has caught up; then one change has it vote
    /// and removes OLD, which may be down. Started again after an interruption, the command goes on
    /// where each group stands.
    Replace(ReplaceArgs),
    /// Hold a change of voters: both majorities decide until `commit` or `abort`
    Prepare(PrepareArgs),
    /// Carry the held change through
    Commit(ChangeArgs),
    /// Give the held change up; who was to vote stays as a learner
    Abort(ChangeArgs),
    /// Bring the list of nodes in a node's file in line with who the members are
    ///
    /// Members that the file lacks are added, nodes that are in no group are taken out; all else in
    /// the file stays as it is, comments too. A node reads its file as it starts: nothing changes
    /// for one that runs.
    Refresh(refresh::RefreshArgs),
}

/// Where a node is that is to be added.
#[derive(Debug, clap::Args)]
struct WhereArgs {
    /// Only this life of the node's data directory, as `ringraft format` showed it [default: the
    /// first that comes]
    #[arg(long, value_name = "HEX", value_parser = incarnation)]
    incarnation: Option<Incarnation>,
}

/// What `ringraft node add` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct AddArgs {
    /// The node's number
    #[arg(value_name = "ID", value_parser = clap::value_parser!(u32).range(1..))]
    node: u32,
    /// Where other nodes reach it
    #[arg(long, value_name = "HOST:PORT")]
    peer: Address,
    /// Where clients reach it
    #[arg(long, value_name = "HOST:PORT")]
    client: Address,
    #[command(flatten)]
    place: WhereArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

/// A command for one node.
#[derive(Debug, clap::Args)]
pub(crate) struct OneArgs {
    /// The node's number
    #[arg(value_name = "ID", value_parser = clap::value_parser!(u32).range(1..))]
    node: u32,
    #[command(flatten)]
    change: ChangeArgs,
}

/// What `ringraft node replace` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct ReplaceArgs {
    /// The number of the voter that leaves
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    old: u32,
    /// The number of the node that votes in its place
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    new: u32,
    /// Where other nodes reach NEW; needed unless it is a member already
    #[arg(long, value_name = "HOST:PORT", requires = "client")]
    peer: Option<Address>,
    /// Where clients reach NEW; needed unless it is a member already
    #[arg(long, value_name = "HOST:PORT", requires = "peer")]
    client: Option<Address>,
    #[command(flatten)]
    place: WhereArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

/// What `ringraft node prepare` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct PrepareArgs {
    /// Who is to vote
    #[arg(long, value_delimiter = ',', required = true, value_name = "ID,…",
        value_parser = clap::value_parser!(u32).range(1..))]
    voters: Vec<u32>,
    /// Who is to listen [default: the learners that aren't to vote]
    #[arg(long, value_delimiter = ',', value_name = "ID,…",
        value_parser = clap::value_parser!(u32).range(1..))]
    learners: Option<Vec<u32>>,
    #[command(flatten)]
    change: ChangeArgs,
}

/// An incarnation as it is shown: up to 16 hexadecimal digits, not zero.
fn incarnation(text: &str) -> Result<Incarnation, String> {
    let number = u64::from_str_radix(text, 16).ok().filter(|&number| number != 0);
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = number.filter(|_| is_hex);
    number.map(Incarnation).ok_or_else(|| {
        "not an incarnation: 16 hexadecimal digits, as `ringraft format` showed them".to_owned()
    })
}

pub(crate) fn run(args: &NodeArgs, global: &Global) -> Result<Exit, Failure> {
    match (&args.command, &args.config) {
        (None, Some(config)) => serve(args, config),
        (Some(command), None) => command.run(global),
        (Some(_), Some(_)) => {
            let failure = Failure::new(Exit::Usage, "--config runs a node, and a command is given");
            Err(failure.cure("name the cluster with --endpoints instead of --config"))
        }
        (None, None) => unreachable!("clap requires one of the two"),
    }
}

impl NodeCommand {
    fn run(&self, global: &Global) -> Result<Exit, Failure> {
        let nodes = |numbers: &[u32]| numbers.iter().copied().map(NodeId).collect();
        let newcomer = |node, addresses, place: &WhereArgs| Newcomer {
            node: NodeId(node),
            incarnation: place.incarnation.unwrap_or_default(),
            addresses,
        };
        let (goal, args) = match self {
            Self::Ls => return list::run(global),
            Self::Refresh(args) => return refresh::run(args, global),
            Self::Add(AddArgs { node, peer, client, place, change }) => {
                let addresses = Some((peer.clone(), client.clone()));
                (Goal::Add(newcomer(*node, addresses, place)), change)
            }
            Self::Promote(args) => (Goal::Promote(NodeId(args.node)), &args.change),
            Self::Demote(args) => (Goal::Demote(NodeId(args.node)), &args.change),
            Self::Remove(args) => (Goal::Remove(NodeId(args.node)), &args.change),
            Self::Replace(ReplaceArgs { old, new, peer, client, place, change }) => {
                if old == new {
                    let failure = Failure::new(Exit::Usage, "a node can't take its own place");
                    return Err(failure.cure("give the new node a number of its own"));
                }
                let addresses = peer.clone().zip(client.clone());
                let new = newcomer(*new, addresses, place);
                (Goal::Replace { old: NodeId(*old), new }, change)
            }
            Self::Prepare(PrepareArgs { voters, learners, change }) => {
                let learners = learners.as_deref().map(nodes);
                (Goal::Prepare { voters: nodes(voters), learners }, change)
            }
            Self::Commit(change) => (Goal::Commit, change),
            Self::Abort(change) => (Goal::Abort, change),
        };
        change::run(&goal, args, global)
    }
}

fn serve(args: &NodeArgs, config: &Path) -> Result<Exit, Failure> {
    if let Some(parent) = args.parent {
        stop_with_parent(parent)?;
    }
    let config = Config::load(config)?;
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
