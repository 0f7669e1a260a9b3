//! Makes change after change in one group until it is as wanted.

use super::plan::{self, Allow, Awaits, Goal, Next, Step};
use crate::clock;
use ringraft_net::client::{ChangeError, Client, GroupMembers};
use ringraft_net::members_wire::Refusal;
use ringraft_types::{GroupId, Index, NodeId, Ticks};
use std::time::Duration;

/// Between two tries of a change that waits for a node to catch up.
const TRY_EVERY: Duration = Duration::from_millis(100);
/// More changes than any goal takes, and what others may do in between.
const STEPS_MAX: usize = 8;

/// How long is waited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For each change to be through.
    pub(crate) settle: Duration,
    /// For a node to catch up.
    pub(crate) catch_up: Duration,
}

/// Why a group isn't as wanted, or why that isn't known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stuck {
    /// What was planned for isn't in force any more.
    #[error("entry {is} is in force now, and the plan was for entry {was}")]
    PlanIsOld {
        /// The entry of the configuration that was planned for.
        was: Index,
        /// The one in force.
        is: Index,
    },
    /// What is wanted can't be had.
    #[error("{sentence}")]
    Refused {
        /// Why not.
        sentence: String,
        /// What to do about it.
        cure: &'static str,
    },
    /// A node didn't catch up in time.
    #[error("{0}")]
    Lags(ChangeError),
    /// Each change of ours found another one of somebody else's.
    #[error("others go on changing the members")]
    Others,
    /// A change wasn't made, or isn't through, or nobody knows.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

/// Hears what is done now, and who is waited for: the node that isn't there yet, with what was last
/// known of the group.
pub(crate) type Say<'a> = dyn FnMut(&str, Option<(NodeId, &GroupMembers)>) + 'a;

/// What brings one group where it is wanted.
pub(crate) struct Bringing<'a> {
    pub(crate) client: &'a mut Client,
    pub(crate) group: GroupId,
    pub(crate) allow: Allow,
    pub(crate) patience: Patience,
    pub(crate) say: &'a mut Say<'a>,
}

impl Bringing<'_> {
    /// Makes change after change until the group is as wanted; `planned` is what was in force when
    /// that was decided.
    ///
    /// # Errors
    /// If it isn't as wanted, or that isn't known. Asked again, it goes on where the group stands.
    pub(crate) fn bring(
        &mut self,
        goal: &Goal,
        planned: &GroupMembers,
    ) -> Result<GroupMembers, Stuck> {
        let mut found = self.settle(Index::ZERO)?;
        if planned.is_settled() && found.index != planned.index {
            return Err(Stuck::PlanIsOld { was: planned.index, is: found.index });
        }
        for _ in 0..STEPS_MAX {
            match plan::next(goal, &found, self.allow) {
                Next::Change(step) => {
                    (self.say)(&step.title, None);
                    let index = self.change(found.index, &step)?;
                    found = self.settle(index)?;
                }
                Next::Nothing(_) => return Ok(found),
                Next::Refuse { sentence, cure } => return Err(Stuck::Refused { sentence, cure }),
            }
        }
        Err(Stuck::Others)
    }

    /// Has a change made, as soon as the node that it waits for has caught up.
    fn change(&mut self, expected: Index, step: &Step) -> Result<Index, Stuck> {
        let catch_up = u64::try_from(self.patience.catch_up.as_micros()).unwrap_or(u64::MAX);
        let until = clock::now().after(Ticks(catch_up));
        loop {
            let error = match self.client.change_members(self.group, expected, &step.change) {
                Ok(changed) => return Ok(changed.index),
                Err(error) => error,
            };
            let ChangeError::Refused { refusal, found, .. } = &error else {
                return Err(error.into());
            };
            let node = match (refusal, step.awaits) {
                (Refusal::Behind, Awaits::CaughtUp(node) | Awaits::There(node)) => node,
                (Refusal::Unreachable, Awaits::There(node)) => node,
                _ => return Err(error.into()),
            };
            if clock::now() >= until {
                return Err(Stuck::Lags(error));
            }
            (self.say)(&step.title, Some((node, found)));
            std::thread::sleep(TRY_EVERY);
        }
    }

    /// Waits until what is in force is through.
    fn settle(&mut self, index: Index) -> Result<GroupMembers, ChangeError> {
        self.client.wait_settled(self.group, index, self.patience.settle, |_| {})
    }
}
