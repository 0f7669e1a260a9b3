//! Many seeds: how many went through, what they met, and the first that broke.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use crate::run::{Order, Outcome, Violation, run_all};
use ringraft_types::Ticks;

/// What many seeds came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Seeds that ran.
    pub seeds: u64,
    /// Simulated time of all of them.
    pub simulated: Ticks,
    /// Real time.
    pub took: Duration,
    /// How often what happened.
    pub counts: BTreeMap<&'static str, u64>,
    /// Calls in all histories.
    pub calls: u64,
    /// A hash over the hashes of all seeds, whatever their order.
    pub hash: u64,
    /// The seeds that broke, and what they found.
    pub failed: Vec<(u64, Violation)>,
}

impl Summary {
    /// Faults that were injected, of all kinds.
    pub fn faults(&self) -> u64 {
        self.counts.iter().filter(|(name, _)| is_fault(name)).map(|(_, count)| count).sum()
    }

    /// Simulated hours.
    pub fn hours(&self) -> f64 {
        self.simulated.0 as f64 / 3.6e9
    }

    /// Seeds in a second.
    pub fn rate(&self) -> f64 {
        self.seeds as f64 / self.took.as_secs_f64().max(1e-6)
    }
}

fn is_fault(name: &str) -> bool {
    crate::faults::FaultKind::from_name(name).is_some() || name.starts_with("fault: ")
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} seeds in {:.1} s ({:.1}/s), {:.2} simulated hours, {} calls, {} faults, hash {:016x}",
            self.seeds,
            self.took.as_secs_f64(),
            self.rate(),
            self.hours(),
            self.calls,
            self.faults(),
            self.hash
        )?;
        for (title, wanted) in [("faults", true), ("reached", false)] {
            writeln!(f, "{title}:")?;
            for (name, count) in self.counts.iter().filter(|(name, _)| is_fault(name) == wanted) {
                writeln!(f, "  {count:>10}  {name}")?;
            }
        }
        Ok(())
    }
}

/// Runs orders on so many threads, until so many have broken. `each` is told after every seed.
pub fn campaign(
    orders: impl Iterator<Item = Order>,
    jobs: usize,
    failures_max: usize,
    mut each: impl FnMut(&Summary),
) -> Summary {
    let began = Instant::now();
    let mut summary = Summary::default();
    run_all(orders, jobs, |seed, outcome| {
        summary.seeds += 1;
        summary.took = began.elapsed();
        match outcome {
            Outcome::Passed(ran) => {
                summary.simulated = summary.simulated.after(ran.time);
                summary.calls += ran.calls as u64;
                summary.hash ^= ran.hash.rotate_left((seed % 64) as u32);
                for (name, count) in ran.counts {
                    *summary.counts.entry(name).or_default() += count;
                }
            }
            Outcome::Failed(violation) => summary.failed.push((seed, violation)),
        }
        each(&summary);
        summary.failed.len() < failures_max
    });
    summary.failed.sort_by_key(|failed| failed.0);
    summary
}
