//! `bench ready`: how long it takes until every group answers a linearizable read.
//!
//! Begun together with the nodes it is the time of a restart, as clients see it. Every group is
//! asked until it answers; nothing is written.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use ringraft_types::GroupId;
use serde::Serialize;

use super::keys::key_bytes;
use super::{Connection, Operation, Outcome, POLL, REFUSED_PAUSE};
use crate::error::BenchError;

/// Which groups, and how long they may take.
#[derive(Clone, Debug, Serialize)]
pub struct ReadyOptions {
    /// Groups 1 to this.
    pub groups: u64,
    /// When to give up, in seconds.
    pub within_seconds: f64,
}

/// When the groups answered, counted from the beginning.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReadyReport {
    /// Groups that answered.
    pub answered: u64,
    /// When the first did, in milliseconds.
    pub first_ms: Option<u64>,
    /// When half of them had; `None` if it didn't come to that.
    pub half_ms: Option<u64>,
    /// When all of them had.
    pub all_ms: Option<u64>,
    /// The options.
    pub asked: serde_json::Value,
}

impl ReadyReport {
    /// The result as one line of JSON, without the newline.
    pub fn json_line(&self) -> String {
        serde_json::to_string(self).expect("a report has string keys only")
    }

    /// The result for people.
    pub fn text(&self) -> String {
        let time = |ms: Option<u64>| ms.map_or("never".to_owned(), |ms| format!("{ms} ms"));
        let (first, half, all) = (time(self.first_ms), time(self.half_ms), time(self.all_ms));
        let groups = &self.asked["groups"];
        format!("{} of {groups} groups: first {first}, half {half}, all {all}", self.answered)
    }
}

/// Asks every group until it answers, or time is up. `began` is when the time began to count.
///
/// # Errors
/// If an option makes no sense, or the connection breaks for good.
pub fn ready<C: Connection>(
    options: &ReadyOptions,
    began: Instant,
    connection: &mut C,
) -> Result<ReadyReport, BenchError> {
    let ReadyOptions { groups, within_seconds } = *options;
    if groups == 0 || groups > super::OUTSTANDING_MAX as u64 {
        let may_be = super::OUTSTANDING_MAX;
        return Err(BenchError::options(format!("groups is {groups}, it may be 1 to {may_be}")));
    }
    if !(within_seconds > 0.0 && within_seconds <= 86_400.0) {
        let what = format!("within seconds is {within_seconds}, it may be above 0, at most 86400");
        return Err(BenchError::options(what));
    }
    let deadline = began + Duration::from_secs_f64(within_seconds);
    let mut unasked: VecDeque<u64> = (1..=groups).collect();
    let (mut asked, mut ended, mut times) = (BTreeMap::new(), Vec::new(), Vec::new());
    while (times.len() as u64) < groups && Instant::now() < deadline {
        let mut timeout = POLL;
        while let Some(&group) = unasked.front() {
            let key = key_bytes(group);
            match connection.submit(GroupId(group), Operation::Read { key: &key, lease: false }) {
                Ok(call) => drop(asked.insert(call, group)),
                Err(_) => {
                    timeout = REFUSED_PAUSE;
                    break;
                }
            }
            unasked.pop_front();
        }
        connection.poll(timeout, &mut ended).map_err(BenchError::io("waiting for the groups"))?;
        for ended in ended.drain(..) {
            let group = asked.remove(&ended.call).expect("only what was asked ends");
            match ended.outcome {
                Outcome::Done => times.push(began.elapsed().as_millis() as u64),
                _ => unasked.push_back(group),
            }
        }
    }
    let nth = |count: u64| times.get(count as usize - 1).copied();
    Ok(ReadyReport {
        answered: times.len() as u64,
        first_ms: nth(1),
        half_ms: nth(groups.div_ceil(2)),
        all_ms: nth(groups),
        asked: serde_json::to_value(options).expect("options have string keys only"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Completed, Refused};

    /// Groups that refuse at first, one of them at the door, and one for ever if there are ten.
    #[derive(Default)]
    struct Slow {
        queued: Vec<(u64, GroupId)>,
        calls: u64,
    }

    impl Connection for Slow {
        fn submit(&mut self, group: GroupId, operation: Operation<'_>) -> Result<u64, Refused> {
            assert!(matches!(operation, Operation::Read { .. }), "nothing is written");
            self.calls += 1;
            if self.calls == 3 {
                return Err(Refused::Busy);
            }
            self.queued.push((self.calls, group));
            Ok(self.calls)
        }

        fn poll(&mut self, _: Duration, ended: &mut Vec<Completed>) -> std::io::Result<()> {
            ended.extend(self.queued.drain(..).map(|(call, group)| {
                let is_refused = call < 5 || group == GroupId(10);
                let outcome = if is_refused { Outcome::Refused } else { Outcome::Done };
                Completed { call, outcome }
            }));
            Ok(())
        }
    }

    /// Every group is asked until it answers, in whatever way it refuses before.
    #[test]
    fn all_groups_are_waited_for() {
        let options = ReadyOptions { groups: 9, within_seconds: 60.0 };
        let mut slow = Slow::default();
        let report = ready(&options, Instant::now(), &mut slow).expect("it runs");
        assert_eq!(report.answered, 9);
        assert!(report.first_ms <= report.half_ms && report.half_ms <= report.all_ms);
        assert!(report.all_ms.is_some(), "{report:?}");
        assert_eq!(slow.calls, 9 + 4, "one was refused at the door, three afterwards");
    }

    /// A group that never answers leaves a gap, and what makes no sense is refused.
    #[test]
    fn who_never_answers_is_counted() {
        let options = ReadyOptions { groups: 10, within_seconds: 0.02 };
        let report = ready(&options, Instant::now(), &mut Slow::default()).expect("it runs");
        assert_eq!((report.answered, report.all_ms), (9, None));
        assert!(report.half_ms.is_some(), "{report:?}");
        assert!(report.text().starts_with("9 of 10 groups: first "), "{}", report.text());
        for (groups, within_seconds) in [(0, 1.0), (1, 0.0)] {
            let options = ReadyOptions { groups, within_seconds };
            let result = ready(&options, Instant::now(), &mut Slow::default());
            assert!(matches!(result, Err(BenchError::Options { .. })));
        }
    }
}
