//! `--consistency` and what goes with it: which state a read may see, and who answers it.

use super::exit::{Exit, Failure};
use ringraft_net::client_wire::{Consistency, Local};
use ringraft_types::Index;

/// How a read is answered.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ReadArgs {
    /// linearizable: all that was done before; lease: the same, trusting the servers' clocks;
    /// stale: what one node has, stale=MS: if it heard of its leader within so long
    #[arg(long, default_value = "linearizable", hide_default_value = true, value_name = "HOW")]
    consistency: String,
    /// With stale: the state must hold this entry, the index of an earlier answer
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    min_index: u64,
    /// With --min-index: wait so many milliseconds for it
    #[arg(long, default_value_t = 1000, hide_default_value = true, value_name = "MS")]
    wait: u32,
    /// Ask this node, and no other
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<u32>,
}

impl ReadArgs {
    /// What was asked for.
    pub(crate) fn consistency(&self) -> Result<Consistency, Failure> {
        let (name, bound) = match self.consistency.split_once('=') {
            None => (self.consistency.as_str(), None),
            Some((name, bound)) => (name, Some(bound)),
        };
        let consistency = match (name, bound) {
            ("linearizable", None) => Consistency::Linearizable,
            ("lease", None) => Consistency::Lease,
            ("stale", bound) => {
                let age_ms_max = match bound {
                    None => u32::MAX,
                    Some(bound) => bound.parse().map_err(|_| self.unknown())?,
                };
                let (at_least, wait_ms) = (Index(self.min_index), self.wait);
                Consistency::Local(Local { at_least, age_ms_max, wait_ms })
            }
            _ => return Err(self.unknown()),
        };
        if self.min_index > 0 && consistency.is_of_leader() {
            let what = "--min-index is for stale reads: the others see all that was done";
            return Err(Failure::new(Exit::Usage, what).cure("add --consistency stale"));
        }
        Ok(consistency)
    }

    fn unknown(&self) -> Failure {
        let what = format!("{:?} is no consistency", self.consistency);
        Failure::new(Exit::Usage, what)
            .cure("choose linearizable, lease, stale, or stale=MS with milliseconds")
    }
}
