//! Two checkers, one verdict: the one by revisions decides every history, the general one is asked
//! the same on small ones. A disagreement is a violation of its own: one of the two is wrong.
//!
//! A history that is too large to be searched whole is searched in windows: so many calls at a time
//! of the order that the first checker found, each from the machine as it was before them. That
//! sees a model or an order that is wrong, but can't find an order that the first checker missed.

use std::collections::BTreeMap;

use ringraft_types::GroupId;

use super::general;
use super::model::Model;
use super::serial::{self, Serial};
use super::violation::Violation;
use crate::history::{Ask, Call, Operation};

/// How much of a group's history the general checker was asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Searched {
    /// All of it at once.
    Whole,
    /// All calls that have a place in the order, in so many windows.
    Windows(usize),
}

/// How much of it the general checker is to be asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Small histories whole, others in windows: for one history.
    All,
    /// Whole ones that are searched in no time, and no others: for one history after the other,
    /// none of which may take long.
    Quick,
}

impl Effort {
    /// Calls that were done, and calls of unknown fate, at most, for a history to be searched whole.
    pub(crate) const fn whole(self) -> (usize, usize) {
        match self {
            Self::All => (48, 5),
            Self::Quick => (24, 2),
        }
    }
}

/// Checks a group's calls both ways. `applied` is [`serial::check`]'s.
///
/// # Errors
/// What the checker by revisions finds, or that the two disagree.
pub fn check<'a>(
    group: GroupId,
    calls: Vec<&'a Call>,
    applied: &BTreeMap<u64, &Ask>,
    effort: Effort,
) -> Result<(Serial<'a>, Searched), Violation> {
    let is_small = fitting(calls.iter().copied(), effort.whole()) == calls.len();
    let general = is_small.then(|| general::is_linearizable(Model::default(), &calls));
    match (serial::check(group, calls, applied), general) {
        (Ok(serial), Some(true)) => Ok((serial, Searched::Whole)),
        (Err(violation), None | Some(false)) => Err(violation),
        (Ok(serial), None) => {
            let windows = match effort {
                Effort::All => search_windows(group, &serial.order, effort.whole())?,
                Effort::Quick => 0,
            };
            Ok((serial, Searched::Windows(windows)))
        }
        (Err(violation), Some(true)) => {
            Err(Violation::Disagree { group, serial: Some(Box::new(violation)), general: true })
        }
        (Ok(_), Some(false)) => Err(Violation::Disagree { group, serial: None, general: false }),
    }
}

/// Asks the general checker about an order, a window at a time.
fn search_windows(
    group: GroupId,
    order: &[&Call],
    most: (usize, usize),
) -> Result<usize, Violation> {
    let mut model = Model::default();
    let (mut windows, mut rest) = (0, order);
    while !rest.is_empty() {
        let (window, after) = rest.split_at(fitting(rest.iter().copied(), most));
        let named = window.iter().flat_map(|call| revisions_named(&call.ask));
        let oldest = named.fold(model.revision(), u64::min);
        if !general::is_linearizable(model.since(oldest), window) {
            return Err(Violation::Disagree { group, serial: None, general: false });
        }
        for call in window {
            // The first checker played it back without a refusal.
            let _ = model.step(&call.ask);
        }
        (windows, rest) = (windows + 1, after);
    }
    Ok(windows)
}

/// How many of the first calls may be searched at once: so many that were done, and so many of
/// unknown fate.
fn fitting<'c>(calls: impl Iterator<Item = &'c Call>, most: (usize, usize)) -> usize {
    let (mut done, mut unknown) = (0, 0);
    let fits = calls.take_while(|call| {
        done += usize::from(call.answer().is_some());
        unknown += usize::from(general::is_unknown(call));
        done <= most.0 && unknown <= most.1
    });
    fits.count()
}

/// The revisions that a call names to be read.
fn revisions_named(ask: &Ask) -> Vec<u64> {
    let operations = match ask {
        Ask::Range(range) => return vec![range.revision; usize::from(range.revision > 0)],
        Ask::Txn(txn) => txn.then.iter().chain(&txn.otherwise),
        _ => return Vec::new(),
    };
    let named = operations.filter_map(|operation| match operation {
        Operation::Range(range) if range.revision > 0 => Some(range.revision),
        _ => None,
    });
    named.collect()
}
