//! Who the members of a group are, and changing that, as calls that wait.

use std::time::Duration;

use ringraft_types::{GroupId, Incarnation, Index, NodeId, Phase, Status, Ticks};

use super::asks::WAS_IN_DOUBT;
use super::driver::{Client, Response};
use super::{CallId, Reason, SubmitError};
use crate::error::ClientError;
use crate::frame::Kind;
use crate::members_wire::{ChangeAsk, Member, MemberChange, Members, MembersReply, Peer, Refusal};

/// How long to wait before a leader is asked again how far a change is.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Who the members of a group are, as one node told it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupMembers {
    /// The entry of the configuration in force; zero: the group began with it. Name it in the next
    /// change.
    pub index: Index,
    /// Whether that entry is committed, as far as the node knows.
    pub is_committed: bool,
    /// Who votes, who listens, and how each is reached; nobody, on a node that is to join.
    pub members: Members,
    /// Who leads, if the node knows.
    pub leader: Option<NodeId>,
    /// Whether the node that told this leads.
    pub is_from_leader: bool,
    /// The node's commit index.
    pub commit: Index,
    /// How far the other members are; told by a leader only.
    pub peers: Vec<Peer>,
}

impl GroupMembers {
    fn of(reply: &MembersReply<'_>) -> Result<Self, ClientError> {
        Ok(Self {
            index: reply.index,
            is_committed: reply.is_committed,
            members: Members::decode(reply.members, Kind::MembersReply)?,
            leader: Some(reply.leader).filter(|leader| leader.0 != 0),
            is_from_leader: reply.is_leader,
            commit: reply.commit,
            peers: reply.peers.clone(),
        })
    }

    /// Whether nothing goes on by itself any more: what is in force is committed, and is not joint,
    /// or is held.
    pub fn is_settled(&self) -> bool {
        self.is_committed && self.members.configuration.phase() != Phase::Joint
    }

    /// How far a member is, as the leader knows it.
    pub fn peer(&self, node: NodeId) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.node == node)
    }
}

/// A change that is made: it is in the leader's log and in force, and may not be committed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The entry of the configuration in force.
    pub index: Index,
}

/// Why members aren't changed, or why that isn't known.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The leader refused: definitely not done. Nothing was changed by asking.
    #[error("{sentence}")]
    Refused {
        /// Why, for programs.
        refusal: Refusal,
        /// Why, for people.
        sentence: String,
        /// What was in force then.
        found: Box<GroupMembers>,
    },
    /// An answer was lost, and since then others changed the members: whether this change was in
    /// force in between isn't known.
    #[error(
        "the answer was lost, and the configuration of entry {} is in force now, which is not what \
         was asked for: whether that was in force before isn't known; read the members, and ask \
         again if they aren't what you want", .found.index
    )]
    Overtaken {
        /// What is in force.
        found: Box<GroupMembers>,
    },
    /// The time is over, and the change isn't through.
    #[error(
        "the configuration of entry {} is in force, and isn't through yet: check that a majority of \
         its voters runs and can be reached; it goes on by itself when they are", .found.index
    )]
    NotSettled {
        /// What was told last.
        found: Box<GroupMembers>,
    },
    /// What can go wrong with any call.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl From<SubmitError> for ChangeError {
    fn from(error: SubmitError) -> Self {
        Self::Client(error.into())
    }
}

impl MemberChange {
    /// Whether it is in force already, by an earlier attempt or by somebody else's: then asking for
    /// it again finds a conflict, and means success. An address or incarnation that wasn't asked
    /// for may be any.
    fn is_in_force(&self, expected: Index, found: &GroupMembers) -> bool {
        let configuration = &found.members.configuration;
        let ends = match self {
            Self::To { target, is_held, .. } => {
                let phases: &[Phase] =
                    if *is_held { &[Phase::Held] } else { &[Phase::Stable, Phase::Joint] };
                let asked = &target.configuration;
                return phases.contains(&configuration.phase())
                    && asked.voters() == configuration.voters()
                    && asked.learners() == configuration.learners()
                    && target.members.iter().all(|asked| {
                        found.members.member(asked.node).is_some_and(|said| fits(asked, said))
                    });
            }
            Self::Commit => Phase::Stable,
            Self::Abort => Phase::Aborted,
        };
        let is_later = found.index > Index::ZERO && configuration.replaces() == expected;
        is_later && configuration.phase() == ends
    }
}

fn fits(asked: &Member, said: &Member) -> bool {
    let fits = |asked: &str, said: &str| asked.is_empty() || asked == said;
    let lives = [Incarnation::ZERO, said.incarnation];
    lives.contains(&asked.incarnation)
        && fits(&asked.peer, &said.peer)
        && fits(&asked.client, &said.client)
}

impl Client {
    /// Who the members of a group are, as its leader says; waits as long as the options say.
    ///
    /// # Errors
    /// If no leader answers in time. [`members_at`](Self::members_at) asks any one node.
    pub fn members(&mut self, group: GroupId) -> Result<GroupMembers, ClientError> {
        let deadline = self.after(self.timeout());
        self.members_until(group, deadline)
    }

    /// The same of many groups at once, in their order.
    pub fn members_of_all(&mut self, groups: &[GroupId]) -> Vec<Result<GroupMembers, ClientError>> {
        let deadline = self.after(self.timeout());
        let calls: Vec<_> =
            groups.iter().map(|&group| self.core_mut().submit_members(group, deadline)).collect();
        calls.into_iter().map(|call| self.members_of(call?)).collect()
    }

    /// Who the members of a group are, as the node at `address` knows it: the newest configuration
    /// in its log, which may be old, or may never be committed.
    ///
    /// # Errors
    /// If the node doesn't answer in time, or doesn't know the group.
    pub fn members_at(
        &mut self,
        address: &str,
        group: GroupId,
    ) -> Result<GroupMembers, ClientError> {
        let deadline = self.after(self.timeout());
        let call = self.core_mut().submit_members_at(address, group, deadline)?;
        self.members_of(call)
    }

    /// Changes who the members of a group are, if the configuration of entry `expected` is in force
    /// there: asks its leader, and waits as long as the options say. The change is in the leader's
    /// log then, and in force; [`wait_settled`](Self::wait_settled) waits until it is through.
    ///
    /// It may be asked for again, here or by another client: what is in force already is no
    /// conflict. New voters must be learners that have caught up.
    ///
    /// # Errors
    /// If the leader refuses, if no leader answers in time, or if an answer was lost and it isn't
    /// known what became of the change.
    pub fn change_members(
        &mut self,
        group: GroupId,
        expected: Index,
        change: &MemberChange,
    ) -> Result<Changed, ChangeError> {
        let deadline = self.after(self.timeout());
        let ask = ChangeAsk { call: 0, expected, change: change.clone() };
        let call = self.core_mut().submit_change(group, &ask, deadline)?;
        let Response { flags, body, .. } = self.finish(call)?;
        let reply = MembersReply::decode(&body).map_err(ClientError::from)?;
        let found = GroupMembers::of(&reply)?;
        let Some(refusal) = reply.refusal else {
            return Ok(Changed { index: reply.index });
        };
        if change.is_in_force(expected, &found) && refusal != Refusal::Unchanged {
            return Ok(Changed { index: reply.index });
        }
        let found = Box::new(found);
        if flags & WAS_IN_DOUBT != 0 {
            return Err(ChangeError::Overtaken { found });
        }
        Err(ChangeError::Refused { refusal, sentence: reply.sentence.to_owned(), found })
    }

    /// Waits until the configuration of entry `index`, or a later one, is through: committed, and
    /// not joint, or held. `tell` hears of every answer on the way. What is in force at the end may
    /// be another's: compare.
    ///
    /// # Errors
    /// If that takes longer than `timeout`.
    pub fn wait_settled(
        &mut self,
        group: GroupId,
        index: Index,
        timeout: Duration,
        mut tell: impl FnMut(&GroupMembers),
    ) -> Result<GroupMembers, ChangeError> {
        let until = self.after(timeout);
        let mut last = None;
        loop {
            match (self.members_until(group, until), last) {
                (Ok(found), _) => {
                    tell(&found);
                    if found.is_settled() && found.index >= index {
                        return Ok(found);
                    }
                    last = Some(found);
                }
                (Err(ClientError::NotDone { reason: Reason::Deadline, .. }), Some(found)) => {
                    return Err(ChangeError::NotSettled { found: Box::new(found) });
                }
                (Err(error), _) => return Err(error.into()),
            }
            self.pause(POLL_INTERVAL)?;
        }
    }

    fn members_until(
        &mut self,
        group: GroupId,
        deadline: Ticks,
    ) -> Result<GroupMembers, ClientError> {
        let call = self.core_mut().submit_members(group, deadline)?;
        self.members_of(call)
    }

    fn members_of(&mut self, call: CallId) -> Result<GroupMembers, ClientError> {
        let response = self.finish(call)?;
        let reply = MembersReply::decode(&response.body)?;
        match reply.status {
            Status::Ok => GroupMembers::of(&reply),
            status => {
                let (reason, trouble) = (Reason::Refused(status), self.trouble().cloned());
                Err(ClientError::NotDone { reason, trouble })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringraft_types::Configuration;

    fn nodes(ids: &[u32]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    fn members(configuration: Configuration, incarnation: u64, peer: &str) -> Members {
        let member = |node| Member {
            node,
            incarnation: Incarnation(incarnation),
            peer: peer.into(),
            client: String::new(),
        };
        let members = configuration.members().map(member).collect();
        Members { configuration, members }
    }

    fn found(phase: Phase, voters: &[u32], outgoing: &[u32], learners: &[u32]) -> GroupMembers {
        let (voters, outgoing, learners) = (nodes(voters), nodes(outgoing), nodes(learners));
        let configuration = Configuration::new(phase, voters, outgoing, learners, Index(4));
        let members = members(configuration.expect("sound"), 7, "a:1");
        GroupMembers { index: Index(9), members, ..GroupMembers::default() }
    }

    fn to(voters: &[u32], learners: &[u32], is_held: bool) -> MemberChange {
        let configuration = Configuration::first(nodes(voters), nodes(learners)).expect("sound");
        let (allow_majority, allow_unready) = (false, false);
        MemberChange::To {
            target: members(configuration, 0, ""),
            is_held,
            allow_majority,
            allow_unready,
        }
    }

    /// Goal: a change whose answer was lost is known again in what is in force, at each of its
    /// steps; what others made isn't taken for it.
    #[test]
    fn what_was_asked_for_is_known_again() {
        let (joint, held) = (Phase::Joint, Phase::Held);
        let cases = [
            (to(&[1, 2], &[3], false), found(Phase::Stable, &[1, 2], &[], &[3]), true),
            (to(&[1, 2], &[3], false), found(joint, &[1, 2], &[1, 4], &[3]), true),
            (to(&[1, 2], &[3], false), found(held, &[1, 2], &[1, 4], &[3]), false),
            (to(&[1, 2], &[3], true), found(held, &[1, 2], &[1, 4], &[3]), true),
            (to(&[1, 2], &[3], true), found(Phase::Stable, &[1, 2], &[], &[3]), false),
            (to(&[1, 2], &[3], false), found(Phase::Stable, &[1, 2, 3], &[], &[]), false),
            (to(&[1, 2], &[], false), found(Phase::Stable, &[1, 2], &[], &[3]), false),
            (to(&[1, 2], &[], false), found(Phase::Aborted, &[1, 2], &[], &[]), false),
            (MemberChange::Commit, found(Phase::Stable, &[1, 2], &[], &[]), true),
            (MemberChange::Commit, found(Phase::Aborted, &[1, 2], &[], &[]), false),
            (MemberChange::Abort, found(Phase::Aborted, &[1, 2], &[], &[]), true),
            (MemberChange::Abort, found(held, &[1, 2], &[1], &[]), false),
        ];
        for (change, found, is_in_force) in cases {
            assert_eq!(change.is_in_force(Index(4), &found), is_in_force, "{change:?} {found:?}");
        }
        let found = found(Phase::Stable, &[1, 2], &[], &[]);
        assert!(!MemberChange::Commit.is_in_force(Index(3), &found), "another held change's");
        let same = |incarnation, peer: &str| {
            let mut change = to(&[1, 2], &[], false);
            if let MemberChange::To { target, .. } = &mut change {
                target.members[0].incarnation = Incarnation(incarnation);
                target.members[0].peer = peer.into();
            }
            change.is_in_force(Index(4), &found)
        };
        assert!(same(7, "a:1") && same(0, "a:1") && same(7, ""));
        assert!(!same(8, "a:1") && !same(7, "b:1"), "another node under the same number");
    }
}
