//! The same question answered without trusting revisions to be an order: a search, by a library,
//! for any order of the calls that the model and real time allow.
//!
//! The search takes exponential time at worst, and has no bound of its own. So it is given small
//! histories only: [`super::agree::Effort`] says what that is.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use ringraft_types::Index;
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use todc_utils::specifications::Specification;

use super::model::{Model, is_answered};
use super::plan::may_change;
use crate::history::{Answer, Ask, Call, Consistency, Outcome};

/// One operation, as the library knows it.
#[derive(Clone, Debug)]
enum Operation {
    /// The machine as it was when the history began.
    Begin(State),
    /// A call with its answer.
    Done(Arc<(Ask, Answer)>),
    /// A call of unknown fate: it may stand at the end, where nobody sees what it did.
    Unknown(Arc<Ask>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    model: Arc<Model>,
    /// The least index that what was played back so far must have.
    index: Index,
}

impl Hash for State {
    /// Of the two numbers only: the search hashes a state at every step, and the model holds all
    /// that ever became of every key. Machines that differ at one revision and index are few.
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.model.revision().hash(hasher);
        self.index.hash(hasher);
    }
}

struct Machine;

impl Specification for Machine {
    type State = State;
    type Operation = Operation;

    fn init() -> State {
        State { model: Arc::default(), index: Index::ZERO }
    }

    fn apply(operation: &Operation, before: &State) -> (bool, State) {
        let mut after = before.clone();
        match operation {
            Operation::Begin(state) => (true, state.clone()),
            Operation::Unknown(ask) => {
                if Arc::make_mut(&mut after.model).step(ask).is_ok_and(|step| step.changed) {
                    after.index = after.index.next();
                }
                (true, after)
            }
            Operation::Done(done) => {
                let (ask, answer) = &**done;
                let revisions = answer.revision.0.checked_sub(before.model.revision());
                if revisions.is_none_or(|revisions| revisions > 1) {
                    // No single call goes there; the machine needn't be asked.
                    return (false, after);
                }
                let Ok(step) = Arc::make_mut(&mut after.model).step(ask) else {
                    return (false, after);
                };
                let mut is_valid = is_answered(&step.reply, &answer.reply)
                    && after.model.revision() == answer.revision.0;
                if let Some(index) = answer.index {
                    is_valid &= index >= after.index && (ask.is_read() || index > before.index);
                    after.index = index;
                } else if step.changed {
                    after.index = after.index.next();
                }
                (is_valid, after)
            }
        }
    }
}

/// Whether a call's fate is unknown, and matters.
pub(super) fn is_unknown(call: &Call) -> bool {
    matches!(call.outcome(), Outcome::Unknown(_)) && may_change(&call.ask)
}

/// Whether there is an order of a group's calls that begins with this machine. Only to be asked of
/// small histories.
pub fn is_linearizable(begin: Model, calls: &[&Call]) -> bool {
    let state = State { model: Arc::new(begin), index: Index::ZERO };
    // What happened, its place among the events, and whose it is; the machine's beginning first.
    let mut events = vec![
        (0, 0, Action::Call(Operation::Begin(state.clone()))),
        (0, 0, Action::Response(Operation::Begin(state))),
    ];
    for (call, process) in calls.iter().zip(1..) {
        // Places count from 1 here, and the last one is after all of them.
        let began = call.invoked.order + 1;
        match (call.outcome(), &call.ended) {
            (Outcome::Done(answer), Some((moment, _))) => {
                let done = Operation::Done(Arc::new((call.ask.clone(), answer.clone())));
                let is_stale = matches!(
                    &call.ask,
                    Ask::Range(range) if range.consistency == Consistency::Stale
                );
                let began = if is_stale { 1 } else { began };
                events.push((began, process, Action::Call(done.clone())));
                events.push((moment.order + 1, process, Action::Response(done)));
            }
            _ if is_unknown(call) => {
                let unknown = Operation::Unknown(Arc::new(call.ask.clone()));
                events.push((began, process, Action::Call(unknown.clone())));
                events.push((u64::MAX, process, Action::Response(unknown)));
            }
            _ => {}
        }
    }
    // Stable: of one place, the order in which they were listed.
    events.sort_by_key(|&(place, _, _)| place);
    let actions = events.into_iter().map(|(_, process, action)| (process, action)).collect();
    WGLChecker::<Machine>::is_linearizable(History::from_actions(actions))
}
