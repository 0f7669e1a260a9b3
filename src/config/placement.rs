//! Which cores there are, and which of them "auto" takes.

/// More cores than any machine of ours has.
const CORES_ANY: usize = 1_024;

/// What the configuration has to know about the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The cores that this process may use, ascending.
    pub cores: Vec<usize>,
}

impl Machine {
    /// This machine, as far as this process may use it (a container may have fewer cores).
    pub fn here() -> Self {
        let ids = core_affinity::get_core_ids().unwrap_or_default();
        let mut cores: Vec<usize> = ids.into_iter().map(|core| core.id).collect();
        cores.sort_unstable();
        if cores.is_empty() {
            cores.push(0);
        }
        Self { cores }
    }

    /// A machine that has whatever cores a file names: for one that may be another machine's.
    pub fn any() -> Self {
        Self { cores: (0..CORES_ANY).collect() }
    }

    /// `count` cores from the `start`th on, around the end if need be.
    pub(crate) fn from(&self, start: usize, count: usize) -> Vec<usize> {
        (0..count).map(|i| self.cores[(start % self.cores.len() + i) % self.cores.len()]).collect()
    }

    /// A core for housekeeping: the last that no shard has, else the last core there is.
    pub(crate) fn spare(&self, shards: &[usize]) -> usize {
        let spare = self.cores.iter().rev().find(|core| !shards.contains(core));
        *spare.unwrap_or(&self.cores[self.cores.len() - 1])
    }

    /// The cores, for messages.
    pub(crate) fn list(&self) -> String {
        self.cores.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
    }
}
