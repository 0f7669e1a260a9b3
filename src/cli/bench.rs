//! `ringraft bench`: flags and results of the engines in `benches/`.

use super::Global;
use super::client;
use super::exit::{Exit, Failure};
use super::output::{self, Output};
use crate::reactor::RingError;
use ringraft_benches::{
    BenchError, FloorOptions, FsyncOptions, LoadKind, LoadOptions, NativeConnection, ReadyOptions,
    Report, Space, SyncMethod, floor, fsync, load, ready, table,
};
use ringraft_net::client::{Client, ClientOptions};
use std::path::PathBuf;
use std::time::Instant;

/// What can be measured.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum BenchCommand {
    /// How fast this disk makes writes durable, by method, space, size and depth
    Fsync(FsyncArgs),
    /// The floor: leader and two followers without any consensus logic, on this machine
    Floor(FloorArgs),
    /// Durable writes against a running quorum, closed loop, or open with --rate
    Commit(LoadArgs),
    /// Linearizable reads against a running quorum, closed loop, or open with --rate
    Read(ReadLoadArgs),
    /// How long it takes until every group answers a linearizable read; begin it with the nodes
    Ready(ReadyArgs),
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum MethodArg {
    Linked,
    Dsync,
    Blocking,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum SpaceArg {
    Zeroed,
    Fresh,
}

impl From<MethodArg> for SyncMethod {
    fn from(method: MethodArg) -> Self {
        match method {
            MethodArg::Linked => Self::Linked,
            MethodArg::Dsync => Self::Dsync,
            MethodArg::Blocking => Self::Blocking,
        }
    }
}

impl From<SpaceArg> for Space {
    fn from(space: SpaceArg) -> Self {
        match space {
            SpaceArg::Zeroed => Self::Zeroed,
            SpaceArg::Fresh => Self::Fresh,
        }
    }
}

/// What `ringraft bench fsync` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct FsyncArgs {
    /// A directory on the disk to measure
    #[arg(long, default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    /// How to sync
    #[arg(long, value_enum, value_delimiter = ',', default_value = "linked,dsync,blocking")]
    methods: Vec<MethodArg>,
    /// Into which kind of space
    #[arg(long, value_enum, value_delimiter = ',', default_value = "zeroed,fresh")]
    spaces: Vec<SpaceArg>,
    /// Bytes of a write, multiples of 4096
    #[arg(long, value_delimiter = ',', default_value = "4096,65536", value_name = "BYTES")]
    sizes: Vec<usize>,
    /// Writes in flight
    #[arg(long, value_delimiter = ',', default_value = "1,2,4", value_name = "N")]
    depths: Vec<u32>,
    /// Seconds for each case
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

/// What `ringraft bench floor` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct FloorArgs {
    /// Operations that the client keeps in flight
    #[arg(long, default_value_t = 1, value_name = "N")]
    outstanding: usize,
    /// Bytes of a value
    #[arg(long, default_value_t = 128, value_name = "BYTES")]
    value_bytes: usize,
    /// Seconds measured
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// A directory on the disk to measure
    #[arg(long, default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    /// Leave the disk out: only the two round trips
    #[arg(long)]
    no_sync: bool,
    /// Leave the followers out too: a bare echo, the floor of a read
    #[arg(long)]
    echo: bool,
    /// How a batch is made durable
    #[arg(long, value_enum, default_value = "linked")]
    method: MethodArg,
}

/// What `ringraft bench read` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct ReadLoadArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// How reads are answered: linearizable asks a majority, lease trusts the servers' clocks
    #[arg(long, value_enum, default_value = "linearizable")]
    consistency: ConsistencyArg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ConsistencyArg {
    Linearizable,
    Lease,
}

/// What `ringraft bench commit` and `bench read` are told.
#[derive(Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// Operations in flight, over all connections; the most of them, if there is a rate
    #[arg(long, default_value_t = 1, value_name = "N")]
    outstanding: usize,
    /// Operations that are due in a second, whether or not earlier ones have ended; times then run
    /// from when they were due
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Connections, each with a thread
    #[arg(long, default_value_t = 1, value_name = "N")]
    connections: usize,
    /// Bytes of a value
    #[arg(long, default_value_t = 128, value_name = "BYTES")]
    value_bytes: usize,
    /// Different keys
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    keys: u64,
    /// Groups 1 to this
    #[arg(long, default_value_t = 1, value_name = "N")]
    groups: u64,
    /// Seconds measured
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Seconds left out before
    #[arg(long, default_value_t = 1.0)]
    warm_up_seconds: f64,
    /// Write every key once before; reads always do
    #[arg(long)]
    fill: bool,
    /// Same seed, same keys
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What `ringraft bench ready` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct ReadyArgs {
    /// Groups 1 to this
    #[arg(long, default_value_t = 1, value_name = "N")]
    groups: u64,
    /// Seconds until it is given up
    #[arg(long, default_value_t = 60.0)]
    within_seconds: f64,
}

pub(crate) fn run(command: BenchCommand, global: &Global) -> Result<Exit, Failure> {
    match command {
        BenchCommand::Fsync(args) => {
            let report = fsync(&args.options()).map_err(failure)?;
            match global.output {
                Output::Json => output::text(&report.json_line())?,
                Output::Table => output::text(report.table().trim_end())?,
            }
        }
        BenchCommand::Floor(args) => {
            let name = match (args.echo, args.no_sync) {
                (true, _) => "echo",
                (false, true) => "floor without disk",
                (false, false) => "floor",
            };
            show(name, &floor(&args.options()).map_err(failure)?, global.output)?;
        }
        BenchCommand::Commit(args) => run_load(LoadKind::Write, false, &args, global)?,
        BenchCommand::Read(args) => {
            let is_lease = args.consistency == ConsistencyArg::Lease;
            run_load(LoadKind::Read, is_lease, &args.load, global)?;
        }
        BenchCommand::Ready(args) => run_ready(&args, global)?,
    }
    Ok(Exit::Ok)
}

fn show(name: &str, report: &Report, output: Output) -> Result<(), Failure> {
    match output {
        Output::Json => output::text(&report.json_line()),
        Output::Table => output::text(table([(name, report)]).trim_end()),
    }
}

fn failure(error: BenchError) -> Failure {
    match error {
        BenchError::Options { .. } => Failure::new(Exit::Usage, error.to_string()),
        BenchError::Ring { source } => {
            Failure::new(Exit::Uring, RingError::diagnose(source).to_string())
        }
        _ => Failure::new(Exit::Environment, error.to_string()),
    }
}

impl FsyncArgs {
    fn options(self) -> FsyncOptions {
        let Self { dir, methods, spaces, sizes, depths, seconds } = self;
        let methods = methods.into_iter().map(SyncMethod::from).collect();
        let spaces = spaces.into_iter().map(Space::from).collect();
        FsyncOptions { dir, methods, spaces, sizes, depths, seconds }
    }
}

impl FloorArgs {
    fn options(self) -> FloorOptions {
        let Self { outstanding, value_bytes, seconds, dir, no_sync, echo, method } = self;
        let (sync, method) = (!no_sync, method.into());
        let default = FloorOptions::default();
        FloorOptions { outstanding, value_bytes, seconds, dir, sync, echo, method, ..default }
    }
}

fn run_load(kind: LoadKind, lease: bool, args: &LoadArgs, global: &Global) -> Result<(), Failure> {
    // One call first: a quorum that can't be reached is one failure, not a million.
    let first = client::options(global);
    Client::connect(first.clone())
        .and_then(|mut client| client.locate(first.group))
        .map_err(client::failure)?;
    let options = LoadOptions {
        kind,
        lease,
        outstanding: args.outstanding,
        rate: args.rate,
        connections: args.connections,
        value_bytes: args.value_bytes,
        keys: args.keys,
        groups: args.groups,
        seconds: args.seconds,
        warm_up_seconds: args.warm_up_seconds,
        fill: args.fill,
        seed: args.seed,
        durable: says_durable(&first)?,
    };
    let connect = |_| NativeConnection::new(first.endpoints.clone(), global.timeout);
    let report = load(&options, connect).map_err(failure)?;
    let name = match (kind, lease) {
        (LoadKind::Write, _) => "commit",
        (LoadKind::Read, false) => "read",
        (LoadKind::Read, true) => "read by lease",
    };
    show(name, &report, global.output)
}

fn run_ready(args: &ReadyArgs, global: &Global) -> Result<(), Failure> {
    let began = Instant::now();
    let ReadyArgs { groups, within_seconds } = *args;
    let environment = |error| Failure::environment("making a client", &error);
    let mut connection = NativeConnection::new(client::options(global).endpoints, global.timeout)
        .map_err(environment)?;
    let options = ReadyOptions { groups, within_seconds };
    let report = ready(&options, began, &mut connection).map_err(failure)?;
    match global.output {
        Output::Json => output::text(&report.json_line())?,
        Output::Table => output::text(&report.text())?,
    }
    if report.all_ms.is_some() {
        return Ok(());
    }
    let message = format!("{} of {groups} groups don't answer", groups - report.answered);
    let cure = "`ringraft status` shows the nodes and the groups; allow more --within-seconds";
    Err(Failure::new(Exit::Unavailable, message).cure(cure))
}

/// Whether every node that answers syncs before it acknowledges; without any word of them nobody
/// knows.
fn says_durable(options: &ClientOptions) -> Result<Option<bool>, Failure> {
    let timeout = options.timeout.min(client::NODE_PATIENCE);
    let mut client =
        Client::connect(ClientOptions { timeout, ..options.clone() }).map_err(client::failure)?;
    let answers: Vec<bool> =
        client.status_all().into_iter().flatten().map(|status| status.durable).collect();
    Ok((!answers.is_empty()).then(|| answers.iter().all(|durable| *durable)))
}
