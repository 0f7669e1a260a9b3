//! Replays a seed, runs many, and looks for a smaller run of one that broke.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ringraft_sim::campaign::{Summary, campaign};
use ringraft_sim::faults::FaultKind;
use ringraft_sim::options::Asked;
use ringraft_sim::run::{Order, Violation};
use ringraft_sim::shrink::shrink;
use ringraft_types::Ticks;

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// One seed.
    #[arg(long, conflicts_with = "seeds", default_value_t = 1)]
    seed: u64,
    /// Many seeds: from the first up to, but not with, the second, as in 1..1000.
    #[arg(long, value_parser = range)]
    seeds: Option<(u64, u64)>,
    /// Seeds that run at once; as many as the system has cores if it isn't said.
    #[arg(long)]
    jobs: Option<usize>,
    /// Looks for a smaller run of the first seed that breaks.
    #[arg(long)]
    shrink: bool,
    /// Goes on until so many seeds broke.
    #[arg(long, default_value_t = 1)]
    failures: usize,
    /// Events that a failure shows.
    #[arg(long, default_value_t = 60)]
    events: usize,
    /// Nodes, instead of what the seed draws.
    #[arg(long)]
    nodes: Option<u32>,
    /// Groups at most.
    #[arg(long)]
    groups_max: Option<u64>,
    /// Clients at most.
    #[arg(long)]
    clients_max: Option<usize>,
    /// Milliseconds with faults at most.
    #[arg(long)]
    safety_max: Option<u64>,
    /// A kind of fault that is left out; may be given again.
    #[arg(long, value_parser = kind, value_delimiter = ',')]
    without: Vec<FaultKind>,
    /// Ends with one line of JSON.
    #[arg(long)]
    json: bool,
    /// Appends a row to this ledger, with the commit named by --commit.
    #[arg(long)]
    ledger: Option<PathBuf>,
    /// The commit that the ledger's row names.
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// The bug to plant, in a build that has some.
    #[cfg(ringraft_plant)]
    #[arg(long, value_parser = crate::plants::bug)]
    plant: Option<ringraft_types::plant::Plant>,
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let (first, end) = text.split_once("..").ok_or("write it as 1..1000")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
    let (first, end) = (number(first)?, number(end)?);
    if first < end { Ok((first, end)) } else { Err(format!("no seed is in {text}")) }
}

pub(crate) fn kind(text: &str) -> Result<FaultKind, String> {
    FaultKind::from_name(text).ok_or_else(|| {
        let names: Vec<&str> = FaultKind::ALL.iter().map(|kind| kind.name()).collect();
        format!("the kinds are {}", names.join(", "))
    })
}

impl Simulate {
    /// Does it; the exit code is one if a seed broke.
    pub(crate) fn run(&self, out: &mut impl Write) -> io::Result<ExitCode> {
        let arguments = self;
        let (first, end) = arguments.seeds.unwrap_or((arguments.seed, arguments.seed + 1));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let jobs = arguments.jobs.unwrap_or(cores).max(1);
        let bar = progress(end - first);
        let orders = (first..end).map(|seed| arguments.order(seed));
        let summary = campaign(orders, jobs, arguments.failures, |summary| {
            bar.set_position(summary.seeds);
            let (rate, faults, failed) = (summary.rate(), summary.faults(), summary.failed.len());
            bar.set_message(format!("{rate:.1}/s, {faults} faults, {failed} broke"));
        });
        bar.finish_and_clear();
        // First of all: whoever reads along may go before the end.
        let entered = arguments.ledger.as_ref().map(|path| {
            append_to_ledger(path, &arguments.commit, &summary).map_err(|error| (path, error))
        });
        for (seed, violation) in &summary.failed {
            print_violation(out, &arguments.order(*seed), violation)?;
        }
        if arguments.shrink
            && let Some((seed, violation)) = summary.failed.first()
        {
            let mut told = Ok(());
            let shrunk = shrink(arguments.order(*seed), violation.clone(), |order| {
                if told.is_ok() {
                    told = writeln!(out, "smaller: {}", command(order));
                }
            });
            told?;
            writeln!(out, "the smallest of {} runs tried:", shrunk.tried)?;
            print_violation(out, &shrunk.order, &shrunk.violation)?;
        }
        write!(out, "{summary}")?;
        if let Some(Err((path, error))) = entered {
            eprintln!("{}: {error}", path.display());
            return Ok(ExitCode::from(2));
        }
        if arguments.json {
            print_json(out, &summary)?;
        }
        Ok(ExitCode::from(u8::from(!summary.failed.is_empty())))
    }

    fn order(&self, seed: u64) -> Order {
        Order {
            seed,
            asked: Asked {
                nodes: self.nodes,
                groups_max: self.groups_max,
                clients_max: self.clients_max,
                safety_max: self.safety_max.map(Ticks::from_millis),
                without: self.without.clone(),
            },
            #[cfg(ringraft_plant)]
            plant: self.plant,
            events: self.events,
        }
    }
}

/// The command that runs an order again.
fn command(order: &Order) -> String {
    let mut command = String::from("cargo run --release -p ringraft-sim -- --seed ");
    command.push_str(&order.seed.to_string());
    let asked = &order.asked;
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            command.push_str(&format!(" --{name} {value}"));
        }
    };
    add("nodes", asked.nodes.map(|it| it.to_string()));
    add("groups-max", asked.groups_max.map(|it| it.to_string()));
    add("clients-max", asked.clients_max.map(|it| it.to_string()));
    add("safety-max", asked.safety_max.map(|it| (it.0 / 1_000).to_string()));
    let without: Vec<&str> = asked.without.iter().map(|kind| kind.name()).collect();
    add("without", (!without.is_empty()).then(|| without.join(",")));
    #[cfg(ringraft_plant)]
    add("plant", order.plant.map(|plant| plant.name()));
    command
}

fn print_violation(out: &mut impl Write, order: &Order, violation: &Violation) -> io::Result<()> {
    writeln!(out, "seed {} broke: {}", order.seed, violation.what)?;
    writeln!(out, "  noticed at {}", violation.place)?;
    writeln!(out, "  again: {}", command(order))?;
    writeln!(out, "  the last events:")?;
    violation.events.iter().try_for_each(|event| writeln!(out, "    {event}"))
}

fn progress(total: u64) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(total), target);
    let template = "{bar:40} {pos}/{len} seeds, {msg}, {eta} left";
    bar.set_style(ProgressStyle::with_template(template).expect("the template is a constant"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A row: commit, seeds, simulated hours, faults, result.
fn append_to_ledger(path: &Path, commit: &str, summary: &Summary) -> io::Result<()> {
    let is_new = !path.exists();
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    if is_new {
        writeln!(file, "commit,seeds,simulated hours,faults,result")?;
    }
    let result = match summary.failed.as_slice() {
        [] => String::from("clean"),
        failed => format!("{} broke, the first is {}", failed.len(), failed[0].0),
    };
    let (seeds, hours, faults) = (summary.seeds, summary.hours(), summary.faults());
    writeln!(file, "{commit},{seeds},{hours:.2},{faults},{result}")
}

fn print_json(out: &mut impl Write, summary: &Summary) -> io::Result<()> {
    let counts: serde_json::Map<String, serde_json::Value> =
        summary.counts.iter().map(|(&name, &count)| (name.to_owned(), count.into())).collect();
    let failed: Vec<_> = summary
        .failed
        .iter()
        .map(|(seed, violation)| serde_json::json!({ "seed": seed, "what": violation.what }))
        .collect();
    let line = serde_json::json!({
        "seeds": summary.seeds,
        "seconds": summary.took.as_secs_f64(),
        "simulated_hours": summary.hours(),
        "calls": summary.calls,
        "faults": summary.faults(),
        "hash": format!("{:016x}", summary.hash),
        "failed": failed,
        "counts": counts,
    });
    writeln!(out, "{line}")
}
