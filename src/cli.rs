//! The command line: one file per family of commands.
#![forbid(unsafe_code)]

mod args;
mod bench;
mod client;
mod compact;
mod consistency;
mod dev;
mod exit;
mod format;
mod group;
mod http;
mod init;
mod kv;
mod leader;
mod level;
mod log_level;
mod node;
mod output;
mod recover;
mod snapshot;
mod status;
mod text;
mod txn;
mod wal;

pub use exit::{Exit, Failure};
pub use output::Output;

use clap::{Args, Parser, Subcommand};
use group::GroupName;
use ringraft_net::client::Client;
use ringraft_types::GroupId;
use std::process::ExitCode;
use std::time::Duration;

/// Commands by task: clap lists them in one heap.
const COMMANDS_BY_TASK: &str = "\
\x1b[1;4mTry it:\x1b[0m
  dev         Start a whole quorum on this machine
\x1b[1;4mRun it:\x1b[0m
  init        Make a cluster id and one configuration file per node
  format      Make a node's data directory
  node        Run a node
\x1b[1;4mUse it:\x1b[0m
  put         Set a key
  get         Print a key's value
  del         Remove keys
  range       List keys
  txn         Compare, then run one of two branches, all or nothing
  barrier     Wait until what was written is on as many nodes as asked for
\x1b[1;4mWatch it:\x1b[0m
  status      Show every node and group
  log-level   Change how much nodes log, at run time
\x1b[1;4mChange its nodes:\x1b[0m
  node ls       List who votes and who listens in each group
  node replace  Have a new node vote in the place of an old one
  node add      Add a node as a learner; then `node promote`, `demote` or `remove`
  node prepare  Hold a change of voters; then `node commit` or `abort`
  node refresh  Write who the nodes are into a node's file
\x1b[1;4mHave more groups:\x1b[0m
  group ls      List the groups
  group create  Make a group; then `group describe`, `move` or `delete`
\x1b[1;4mSay who leads:\x1b[0m
  leader ls        List who leads each group
  leader transfer  Have another node lead
  leader pause     Keep a node from leading; then `leader resume`
\x1b[1;4mKeep it short:\x1b[0m
  snapshot    Save groups, so that their logs end, and list what is saved
  compact     Forget what keys were before a revision, so that memory is free
\x1b[1;4mSave what is left:\x1b[0m
  recover     Form a new cluster from what survived, when a majority is lost for good
\x1b[1;4mMeasure it:\x1b[0m
  bench       Measure the disk, the floor, commits and reads
\x1b[1;4mLook inside:\x1b[0m
  wal         List, dump or verify a log, offline
  exit-codes  Explain the exit codes
  help        Explain a command";

/// The endpoints of `ringraft dev` with its default ports.
const ENDPOINTS_DEFAULT: &str = "127.0.0.1:7400,127.0.0.1:7410,127.0.0.1:7420";

/// A low-latency metadata quorum for Linux.
#[derive(Debug, Parser)]
#[command(
    name = "ringraft",
    version,
    about = "A low-latency metadata quorum for Linux: small, precious data on three or five servers",
    help_template = "{about}\n\n{usage-heading} {usage}\n\n{before-help}\n\n\x1b[1;4mOptions:\x1b[0m\n{options}{after-help}",
    before_help = COMMANDS_BY_TASK,
    after_help = "`ringraft dev` starts a quorum to try; `ringraft help COMMAND` explains a command.",
    subcommand_value_name = "COMMAND",
    disable_help_flag = false
)]
pub struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What may be said before or after the verb.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Client addresses of the nodes, separated by commas; any of them will do
    #[arg(
        long,
        global = true,
        env = "RINGRAFT_ENDPOINTS",
        default_value = ENDPOINTS_DEFAULT,
        value_delimiter = ',',
        value_name = "HOST:PORT,…"
    )]
    pub(crate) endpoints: Vec<crate::config::Address>,
    /// The group that a request is for, by its number or its name [default: 1]; `snapshot`, `node` and
    /// `leader` take several, and all by default
    #[arg(id = "group", long, global = true, value_delimiter = ',', value_name = "GROUP")]
    pub(crate) groups: Vec<GroupName>,
    /// How results are printed; JSON is one line, the last on stdout
    #[arg(long, short, global = true, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// How long a request may take: 500ms, 5s, 1m
    #[arg(long, global = true, default_value = "5s", value_name = "TIME",
        value_parser = args::duration)]
    pub(crate) timeout: Duration,
}

impl Global {
    /// The one group that a request is for.
    pub(crate) fn group(&self) -> GroupId {
        self.group_ids().next().unwrap_or(GroupId(1))
    }

    /// The groups that were named.
    pub(crate) fn group_ids(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.groups.iter().map(|group| match group {
            GroupName::Id(id) => *id,
            GroupName::Name(name) => unreachable!("{name} was looked up before"),
        })
    }

    /// Asks the cluster which groups have these names.
    fn look_up(&mut self) -> Result<(), Failure> {
        if !self.groups.iter().any(|group| matches!(group, GroupName::Name(_))) {
            return Ok(());
        }
        let named = std::mem::take(&mut self.groups);
        let mut client = Client::connect(client::options(self)).map_err(client::failure)?;
        for group in named {
            self.groups.push(GroupName::Id(group.find(&mut client)?));
        }
        Ok(())
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a cluster id and one configuration file per node
    Init(init::InitArgs),
    /// Make a node's data directory
    Format(format::FormatArgs),
    /// Run a node; or list, add, promote, demote, remove or replace nodes, or refresh its file
    Node(node::NodeArgs),
    /// Make, list, show, move or delete groups
    #[command(subcommand)]
    Group(group::GroupCommand),
    /// List who leads each group, hand that over, or keep a node from leading
    #[command(subcommand)]
    Leader(leader::LeaderCommand),
    /// Start a whole quorum on this machine
    Dev(dev::DevArgs),
    /// Set a key
    Put(kv::PutArgs),
    /// Print a key's value; exit code 1 if there is no such key
    Get(kv::GetArgs),
    /// Remove keys, and print how many
    Del(kv::DelArgs),
    /// List keys: from START to the last, up to END, or with --prefix
    Range(kv::RangeArgs),
    /// Compare, then run one of two branches, all or nothing; exit code 1 if a compare didn't hold
    Txn(txn::TxnArgs),
    /// Wait until what was written is on as many nodes as asked for; exit code 11 if it isn't in time
    Barrier(level::BarrierArgs),
    /// Show every node and group
    Status,
    /// Change how much nodes log, at run time
    LogLevel(log_level::LogLevelArgs),
    /// Save groups, so that their logs end, and list what is saved
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
    /// Forget what keys were before a revision, so that memory is free
    Compact(compact::CompactArgs),
    /// Form a new cluster from what survived, when a majority is lost for good
    #[command(subcommand)]
    Recover(recover::RecoverCommand),
    /// Measure the disk, the floor, commits and reads
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// List, dump or verify a log, offline
    #[command(subcommand)]
    Wal(wal::WalCommand),
    /// Explain the exit codes
    #[command(long_about = exit::table())]
    ExitCodes,
}

/// Parses the command line, runs it, and says how it went.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors: clap prints them to stdout.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            // Nothing is left to do if the terminal is gone.
            let _ = error.print();
            if exit == Exit::Usage && asks_for_json(std::env::args_os()) {
                let message = error.kind().to_string();
                let _ = output::json(&exit::error_json(exit, &message, None));
            }
            return exit.into();
        }
    };
    let output = cli.global.output;
    match run(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.show(output);
            failure.exit.into()
        }
    }
}

/// Whether a command line that can't be parsed asks for JSON all the same.
fn asks_for_json(args: impl IntoIterator<Item = std::ffi::OsString>) -> bool {
    let args: Vec<_> = args.into_iter().collect();
    let joined = |arg| ["--output=json", "-o=json", "-ojson"].iter().any(|one| arg == *one);
    let is_flag = |arg| ["--output", "-o"].iter().any(|one| arg == *one);
    args.iter().any(joined) || args.windows(2).any(|pair| is_flag(&pair[0]) && pair[1] == "json")
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    let Cli { mut global, command } = cli;
    let takes_several =
        matches!(command, Command::Snapshot(_) | Command::Node(_) | Command::Leader(_));
    if global.groups.len() > 1 && !takes_several {
        let failure =
            Failure::new(Exit::Usage, "this command is for one group, and several are named");
        return Err(failure
            .cure("give one --group; only `ringraft snapshot` and `ringraft node` take several"));
    }
    global.look_up()?;
    match command {
        Command::Group(command) => group::run(&command, &global),
        Command::Init(args) => init::run(&args, global.output),
        Command::Format(args) => format::run(&args, global.output),
        Command::Node(args) => node::run(&args, &global),
        Command::Dev(args) => dev::run(&args, &global),
        Command::Put(args) => kv::put(&args, &global),
        Command::Get(args) => kv::get(&args, &global),
        Command::Del(args) => kv::del(&args, &global),
        Command::Range(args) => kv::range(&args, &global),
        Command::Txn(args) => txn::run(args, &global),
        Command::Barrier(args) => level::barrier(&args, &global),
        Command::Status => status::run(&global),
        Command::Leader(command) => leader::run(&command, &global),
        Command::LogLevel(args) => log_level::run(&args, &global),
        Command::Snapshot(command) => snapshot::run(&command, &global),
        Command::Compact(args) => compact::run(&args, &global),
        Command::Recover(command) => recover::run(&command, global.output),
        Command::Bench(command) => bench::run(command, &global),
        Command::Wal(command) => wal::run(&command, global.output),
        Command::ExitCodes => {
            output::text(&exit::table())?;
            Ok(Exit::Ok)
        }
    }
}

#[cfg(test)]
mod tests;
