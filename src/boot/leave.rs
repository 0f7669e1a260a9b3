//! A node that is told to stop and is to leave (`members.leave_on_stop`): it has itself removed
//! from its groups first, by the same steps as `ringraft node remove`, while everything else goes on.
//! Whatever comes of it, the node stops: this takes so long at most as the configuration says, and
//! a second signal ends it.

use super::Outcome;
use super::directory::Keeper;
use crate::changes::plan::{Allow, Goal};
use crate::changes::{Bringing, Patience, Stuck, ranges};
use crate::config::{Addresses, Config};
use crate::{clock, cores};
use ringraft_net::client::{ChangeError, Client, ClientOptions, GroupMembers};
use ringraft_net::members_wire::Refusal;
use ringraft_net::{ClientError, Identity};
use ringraft_types::{GroupId, Incarnation, Lacked, NodeId, Ticks};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

/// How long one question, or one change, may take: a group that stands still doesn't keep the
/// others.
const STEP_TIME: Duration = Duration::from_secs(5);
/// Between two tries where others change the members too.
const TRY_EVERY: Duration = Duration::from_millis(100);
/// Reasons that are told; with many groups there may be as many.
const REASONS_MAX: usize = 16;
/// Groups that are asked for at once.
const GROUPS_AT_ONCE: usize = 1_024;

/// Has the node leave its groups; returns what ended the wait. Whatever it is, the node stops.
pub(super) fn leave(
    config: &Config,
    identity: Identity,
    limit: Ticks,
    outcomes: &Sender<Outcome>,
    ended: &Receiver<Outcome>,
    keeper: &Keeper,
) -> Outcome {
    let until = clock::now().after(limit);
    let is_over = Arc::new(AtomicBool::new(false));
    let leaving =
        Leaving { config: config.clone(), identity, limit, until, is_over: is_over.clone() };
    let outcomes = outcomes.clone();
    let thread = cores::spawn(String::from("leave"), None, move || {
        leaving.run();
        // If nobody listens any more, the node stops already.
        let _ = outcomes.send(Outcome::Left);
    });
    let cure = cure(identity.node);
    if let Err(error) = thread {
        tracing::error!("the node stops as a member of its groups, no thread: {error}; {cure}");
        return Outcome::Signal;
    }
    let end = hear(ended, until, |lacked| keeper.lacks(lacked));
    is_over.store(true, Ordering::Release);
    match end {
        Some(Outcome::Signal) => {
            tracing::warn!("told to stop again: the node stops, wherever it is a member; {cure}");
        }
        None => {
            let limit_s = limit.0 / 1_000_000;
            tracing::warn!(limit_s, "leaving took too long: the node stops all the same; {cure}");
        }
        Some(_) => {}
    }
    end.unwrap_or(Outcome::Signal)
}

/// Waits until the node has left, is told to stop once more, or has to stop; `None`: time is up.
fn hear(
    ended: &Receiver<Outcome>,
    until: Ticks,
    mut note_older_copy: impl FnMut(Lacked),
) -> Option<Outcome> {
    loop {
        let rest = Duration::from_micros(until.since(clock::now()).0);
        match ended.recv_timeout(rest) {
            Ok(Outcome::OlderCopy(lacked)) => note_older_copy(lacked),
            Ok(end) => return Some(end),
            Err(_) => return None,
        }
    }
}

fn cure(node: NodeId) -> String {
    format!("`ringraft node ls` shows where, `ringraft node remove {node} --yes` takes it out")
}

/// A node that leaves.
struct Leaving {
    config: Config,
    identity: Identity,
    limit: Ticks,
    until: Ticks,
    /// Nobody waits any more: no further change is begun.
    is_over: Arc<AtomicBool>,
}

/// Which groups aren't left, by the reason.
type Reasons = BTreeMap<String, Vec<GroupId>>;

/// Why a group isn't left.
#[derive(Debug, thiserror::Error)]
enum Stays {
    #[error("this node is its only voter: have another one vote before")]
    OnlyVoter,
    #[error("another life of this node's data directory is its member, not this one")]
    AnotherLife,
    #[error(transparent)]
    Stuck(#[from] Stuck),
}

impl Stays {
    /// Whether it may be otherwise in a moment: others change the members too, or a leader that is
    /// new hasn't heard of everybody yet.
    fn may_pass(&self) -> bool {
        match self {
            Self::OnlyVoter | Self::AnotherLife => false,
            Self::Stuck(Stuck::PlanIsOld { .. } | Stuck::Others | Stuck::Lags(_)) => true,
            Self::Stuck(Stuck::Refused { .. }) => false,
            Self::Stuck(Stuck::Change(error)) => match error {
                ChangeError::Refused { refusal, .. } => {
                    !matches!(refusal, Refusal::Invalid | Refusal::AddsMajority)
                }
                ChangeError::Overtaken { .. } => true,
                ChangeError::NotSettled { .. } | ChangeError::Client(_) => false,
            },
        }
    }
}

impl Leaving {
    fn run(&self) {
        let began = clock::now();
        tracing::info!(
            limit_s = self.limit.0 / 1_000_000,
            "told to stop: leaving the groups first, as members.leave_on_stop says"
        );
        let (mut left, mut stays) = (0_u64, Reasons::new());
        match Client::connect(self.options()) {
            Ok(mut client) => self.leave_all(&mut client, &mut left, &mut stays),
            Err(error) => {
                let why = format!("{error}; {}", cure(self.identity.node));
                stays.insert(why, self.config.all_groups());
            }
        }
        for (why, groups) in stays.iter().take(REASONS_MAX) {
            tracing::warn!(groups = ranges(groups.iter().copied()), "not left: {why}");
        }
        if let Some(more) = stays.len().checked_sub(REASONS_MAX).filter(|&more| more > 0) {
            tracing::warn!("not left, for {more} more reasons: {}", cure(self.identity.node));
        }
        let took_ms = clock::now().since(began).0 / 1_000;
        if stays.is_empty() {
            tracing::info!(groups = left, took_ms, "left the groups");
        } else {
            let groups = stays.values().map(Vec::len).sum::<usize>();
            tracing::warn!(groups, left, took_ms, "the node stops without having left all groups");
        }
    }

    /// Why a group isn't left, and what to do if somebody can do something.
    fn tell(&self, why: &Stays) -> String {
        match why {
            Stays::OnlyVoter | Stays::AnotherLife => why.to_string(),
            Stays::Stuck(_) => format!("{why}; {}", cure(self.identity.node)),
        }
    }

    /// A client of this node and of those that it knows.
    fn options(&self) -> ClientOptions {
        let reached = self.config.nodes.iter().map(|node| &node.addresses);
        let clients = reached.map(|Addresses { client, .. }| client.to_string());
        let mut endpoints = vec![self.config.listen.client.to_string()];
        for client in clients {
            if !endpoints.contains(&client) {
                endpoints.push(client);
            }
        }
        ClientOptions {
            cluster: Some(self.config.cluster),
            timeout: STEP_TIME.min(self.rest()),
            ..ClientOptions::new(endpoints)
        }
    }

    fn rest(&self) -> Duration {
        Duration::from_micros(self.until.since(clock::now()).0)
    }

    /// Leaves group after group, and tries again where others were just changing the members.
    fn leave_all(&self, client: &mut Client, left: &mut u64, stays: &mut Reasons) {
        let mut groups = self.config.all_groups();
        // Those that it can't be told of have no leader, or this node isn't in them.
        for (group, record) in client.group_records().unwrap_or_default() {
            if group >= GroupId::FIRST_CREATED && !record.is_deleted {
                groups.push(group);
            } else {
                groups.retain(|configured| *configured != group);
            }
        }
        loop {
            let mut again = Vec::new();
            let mut why_again = Reasons::new();
            for groups in groups.chunks(GROUPS_AT_ONCE) {
                let all = client.members_of_all(groups);
                for (&group, found) in groups.iter().zip(all) {
                    if self.is_over.load(Ordering::Acquire) {
                        // Whoever ended it has said so.
                        return;
                    }
                    match self.leave_one(client, group, found) {
                        Ok(was_member) => *left += u64::from(was_member),
                        Err(why) if why.may_pass() => {
                            again.push(group);
                            why_again.entry(self.tell(&why)).or_default().push(group);
                        }
                        Err(why) => stays.entry(self.tell(&why)).or_default().push(group),
                    }
                }
            }
            // So that there is time to tell what came of it.
            let is_late = self.rest().as_micros() < u128::from(self.limit.0 / 2);
            if again.is_empty() || is_late {
                for (why, groups) in why_again {
                    stays.entry(why).or_default().extend(groups);
                }
                return;
            }
            std::thread::sleep(TRY_EVERY);
            groups = again;
        }
    }

    /// Has this node removed from a group; says whether it was a member.
    fn leave_one(
        &self,
        client: &mut Client,
        group: GroupId,
        found: Result<GroupMembers, ClientError>,
    ) -> Result<bool, Stays> {
        let found = found.map_err(|error| Stuck::from(ChangeError::from(error)))?;
        let own = self.identity.node;
        if !may_leave(&found, own, self.identity.incarnation)? {
            return Ok(false);
        }
        if found.leader == Some(own) {
            // Writes wait for a shorter time if somebody else leads before; if nobody can, this
            // node leads until the change that leaves it out is committed (thesis 4.2.2).
            let moved = client.transfer_leader(group, None, STEP_TIME.min(self.rest()));
            if let Err(error) = moved {
                tracing::debug!(group = group.get(), "nobody else leads: {error}");
            }
        }
        let settle = STEP_TIME.min(self.rest());
        let patience = Patience { settle, catch_up: Duration::ZERO };
        let allow = Allow::default();
        let mut bringing = Bringing { client, group, allow, patience, say: &mut |_, _| {} };
        bringing.bring(&Goal::Remove(own), &found)?;
        Ok(true)
    }
}

/// Whether this life of a node is to be removed from a group; not if it is no member.
fn may_leave(found: &GroupMembers, own: NodeId, life: Incarnation) -> Result<bool, Stays> {
    let Some(member) = found.members.member(own) else { return Ok(false) };
    if ![Incarnation::ZERO, life].contains(&member.incarnation) {
        return Err(Stays::AnotherLife);
    }
    if found.members.configuration.all_voters().all(|voter| voter == own) {
        return Err(Stays::OnlyVoter);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::BootError;
    use crate::changes::plan::tests::found;
    use ringraft_types::{Index, Phase, Start};
    use std::sync::mpsc::channel;

    /// Goal: the wait ends with the leaving, with a second signal, with a lane that fails, and when
    /// its time is up; that the data directory is an older copy is written down meanwhile.
    #[test]
    fn the_wait_has_an_end() {
        let (say, ended) = channel();
        let later = clock::now().after(Ticks::from_millis(3_600_000));
        let lacked = || Lacked { start: Start { number: 7, nonce: 1 }, by: NodeId(2) };
        let mut noted = 0;
        let mut hear = |until| hear(&ended, until, |_| noted += 1);
        let failed = || BootError::DataDirectory("it failed".to_owned());
        say.send(Outcome::OlderCopy(lacked())).expect("it listens");
        say.send(Outcome::Left).expect("it listens");
        say.send(Outcome::Signal).expect("it listens");
        say.send(Outcome::Ended(3, Err(failed()))).expect("it listens");
        assert!(matches!(hear(later), Some(Outcome::Left)));
        assert!(matches!(hear(later), Some(Outcome::Signal)));
        assert!(matches!(hear(later), Some(Outcome::Ended(3, Err(_)))));
        assert!(hear(Ticks::ZERO).is_none());
        assert_eq!(noted, 1);
    }

    /// Goal: who is refused because others change the members too asks again; who alone votes, or
    /// finds no leader, doesn't.
    #[test]
    fn what_may_pass_is_tried_again() {
        let refused = |refusal| {
            let (sentence, found) = (String::new(), Box::default());
            Stays::from(Stuck::from(ChangeError::Refused { refusal, sentence, found }))
        };
        let old = Stuck::PlanIsOld { was: Index(1), is: Index(2) };
        for why in [refused(Refusal::UnderWay), refused(Refusal::Conflict), Stays::from(old)] {
            assert!(why.may_pass(), "{why:?}");
        }
        let held = Stuck::Refused { sentence: String::new(), cure: "" };
        let silent = Stuck::from(ChangeError::NotSettled { found: Box::default() });
        let for_ever = [refused(Refusal::Invalid), Stays::OnlyVoter, Stays::AnotherLife];
        for why in for_ever.into_iter().chain([held, silent].map(Stays::from)) {
            assert!(!why.may_pass(), "{why:?}");
        }
    }

    /// Goal: a node leaves a group of which this life of it is a member, unless nobody else votes
    /// there, whoever listens.
    #[test]
    fn who_may_leave() {
        // Of each node the life is its number.
        let asks = |voters: &[u32], outgoing: &[u32], learners: &[u32], life: u64| {
            let phase = if outgoing.is_empty() { Phase::Stable } else { Phase::Joint };
            may_leave(&found(phase, voters, outgoing, learners), NodeId(1), Incarnation(life))
        };
        assert!(matches!(asks(&[1, 2, 3], &[], &[], 1), Ok(true)));
        assert!(matches!(asks(&[2], &[], &[1], 1), Ok(true)), "one that listens may leave");
        assert!(matches!(asks(&[2, 3], &[], &[], 1), Ok(false)), "it is no member");
        assert!(matches!(asks(&[1, 2], &[], &[], 7), Err(Stays::AnotherLife)));
        assert!(matches!(asks(&[1], &[], &[], 1), Err(Stays::OnlyVoter)));
        assert!(matches!(asks(&[1], &[], &[2, 3], 1), Err(Stays::OnlyVoter)));
        assert!(matches!(asks(&[1], &[1, 2], &[], 1), Ok(true)), "the plan is asked again then");
    }
}
