//! Looks for a smaller run that breaks too: fewer kinds of fault, fewer clients, groups and nodes,
//! less time. Greedy: what is smaller and still breaks is kept, and the rest is tried again.

use ringraft_types::Ticks;

use crate::faults::FaultKind;
use crate::options::Asked;
use crate::run::{Order, Outcome, Violation, run};

/// A smaller run, and what it finds.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The run.
    pub order: Order,
    /// What it finds.
    pub violation: Violation,
    /// Runs that were tried.
    pub tried: u64,
}

/// The smallest run that was found, from one that broke.
pub fn shrink(order: Order, violation: Violation, mut tell: impl FnMut(&Order)) -> Shrunk {
    let mut best = Shrunk { order, violation, tried: 0 };
    loop {
        let mut is_smaller = false;
        for asked in smaller(&best.order.asked) {
            let order = Order { asked, ..best.order.clone() };
            best.tried += 1;
            if let Outcome::Failed(violation) = run(&order) {
                tell(&order);
                (best.order, best.violation) = (order, violation);
                is_smaller = true;
                break;
            }
        }
        if !is_smaller {
            return best;
        }
    }
}

/// Runs that are one step smaller, the largest steps first.
fn smaller(asked: &Asked) -> Vec<Asked> {
    let mut all = Vec::new();
    let kinds: Vec<FaultKind> =
        FaultKind::ALL.iter().copied().filter(|kind| !asked.without.contains(kind)).collect();
    let mut parts = vec![kinds.len().div_ceil(2)];
    while let Some(&last) = parts.last()
        && last > 1
    {
        parts.push(last.div_ceil(2));
    }
    for part in parts.into_iter().filter(|&part| part > 0) {
        for chunk in kinds.chunks(part) {
            let mut without = asked.without.clone();
            without.extend_from_slice(chunk);
            all.push(Asked { without, ..asked.clone() });
        }
    }
    for clients in [1, 2] {
        if asked.clients_max.is_none_or(|most| most > clients) {
            all.push(Asked { clients_max: Some(clients), ..asked.clone() });
        }
    }
    for groups in [1, 2, 4] {
        if asked.groups_max.is_none_or(|most| most > groups) {
            all.push(Asked { groups_max: Some(groups), ..asked.clone() });
        }
    }
    for nodes in [1, 2, 3] {
        if asked.nodes.is_none_or(|most| most > nodes) {
            all.push(Asked { nodes: Some(nodes), ..asked.clone() });
        }
    }
    for millis in [250, 500, 1_000, 2_000, 4_000] {
        let time = Ticks::from_millis(millis);
        if asked.safety_max.is_none_or(|most| most > time) {
            all.push(Asked { safety_max: Some(time), ..asked.clone() });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every step makes the run smaller, so the search ends.
    #[test]
    fn steps_go_down() {
        let mut asked = Asked::default();
        let mut steps = 0;
        while let Some(next) = smaller(&asked).into_iter().next_back() {
            assert_ne!(next, asked);
            asked = next;
            steps += 1;
            assert!(steps < 100, "the search would never end");
        }
        assert_eq!(asked.without.len(), FaultKind::ALL.len());
    }
}
