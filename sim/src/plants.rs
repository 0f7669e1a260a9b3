//! Plants one bug after the other and says how many seeds it takes to find each, and what fired.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use ringraft_sim::faults::FaultKind;
use ringraft_sim::options::Asked;
use ringraft_sim::run::{Order, Outcome, Violation, run};
use ringraft_types::plant::Plant;

/// Plants every bug, one after the other: how many seeds find it, and what they find.
#[derive(Debug, Args)]
pub(crate) struct Plants {
    /// Seeds that may be spent on one bug.
    #[arg(long, default_value_t = 3_000)]
    seeds_max: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Groups of a cluster at most.
    #[arg(long)]
    groups_max: Option<u64>,
    /// A kind of fault that is left out; may be given again.
    #[arg(long, value_parser = crate::simulate::kind, value_delimiter = ',')]
    without: Vec<FaultKind>,
    /// Only these bugs.
    #[arg(value_parser = bug)]
    only: Vec<Plant>,
}

/// The bug with this name.
pub(crate) fn bug(text: &str) -> Result<Plant, String> {
    Plant::from_name(text).ok_or_else(|| {
        let names: Vec<String> = Plant::ALL.iter().map(|plant| plant.name()).collect();
        format!("the planted bugs are {}", names.join(", "))
    })
}

impl Plants {
    /// Does it. The exit code is one if a bug wasn't found.
    pub(crate) fn run(&self, out: &mut impl Write) -> io::Result<ExitCode> {
        let chosen = if self.only.is_empty() { Plant::ALL } else { &self.only };
        let mut missed = 0;
        writeln!(out, "| Bug | Seeds | What fired |\n|---|---|---|")?;
        for &plant in chosen {
            let found = self.hunt(plant);
            let (seeds, what) = match &found {
                Some((seeds, found)) => {
                    (*seeds, format!("{} ({})", short(&found.what), found.place))
                }
                None => (self.seeds_max, String::from("nothing")),
            };
            writeln!(out, "| `{}` | {seeds} | {what} |", plant.name())?;
            missed += u32::from(found.is_none());
        }
        Ok(ExitCode::from(u8::from(missed > 0)))
    }

    /// Runs seeds until one finds the bug: how many that took, and what it found. A seed that
    /// breaks without the bug as well says nothing.
    fn hunt(&self, plant: Plant) -> Option<(u64, Violation)> {
        let order = |seed, plant| {
            let (groups_max, without) = (self.groups_max, self.without.clone());
            let asked = Asked { groups_max, without, ..Asked::default() };
            Order { seed, asked, plant, ..Order::default() }
        };
        (self.first..self.first + self.seeds_max).find_map(|seed| {
            let Outcome::Failed(found) = run(&order(seed, Some(plant))) else { return None };
            let is_clean = matches!(run(&order(seed, None)), Outcome::Passed(_));
            is_clean.then_some((seed - self.first + 1, found))
        })
    }
}

/// The first line, and not too much of it.
fn short(what: &str) -> String {
    let line = what.lines().next().unwrap_or_default();
    line.chars().take(120).collect()
}
