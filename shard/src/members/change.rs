//! Changes of members: what is asked of a leader becomes an entry, and what follows a joint
//! configuration does by itself.

use super::Members;
use crate::error::ShardError;
use crate::links::Links;
use crate::peer_frames::Carried;
use crate::shard::Shard;
use ringraft_raft::{Allow, Change, ChangeRefused, Input, Plan};
use ringraft_types::record::{self, RecordKind};
use ringraft_types::{Addresses, Configuration, Member, NodeId, Ticks, Words};
use ringraft_types::{GroupId, Incarnation, Index};
use ringraft_wal::device::Device;

/// What is asked of a group's leader.
#[derive(Clone, Copy, Debug)]
pub enum MemberChange<'a> {
    /// These members from now on.
    To {
        /// Who is to vote, and who is to listen.
        target: &'a Configuration,
        /// What else is to be said of each. Of one that is a member already only its addresses
        /// can change, and stay as they are if they are empty.
        members: &'a [Member<'a>],
        /// Stay between the two until it is committed or aborted.
        is_held: bool,
        /// What is refused unless it is asked for by name.
        allow: Allow,
    },
    /// On from the held configuration, to its new voters.
    Commit,
    /// Back from the held configuration, to its outgoing voters.
    Abort,
}

impl<D: Device, L: Links> Shard<D, L> {
    /// Makes a change that is meant for the configuration of entry `expected`, if this node leads
    /// the group and the change may be made: it is in the log then, and in force, but not
    /// committed. Returns the entry of the configuration in force.
    ///
    /// # Errors
    /// If the log can't go on; the inner error says why the change isn't made.
    pub fn change_members(
        &mut self,
        now: Ticks,
        group: GroupId,
        expected: Index,
        change: MemberChange<'_>,
    ) -> Result<Result<Index, ChangeRefused>, ShardError> {
        let Some(&slot) = self.slots.get(&group) else {
            return Ok(Err(ChangeRefused::NotLeader(None)));
        };
        self.propose(now, slot)?;
        let unfit = self.unfit_peers();
        let (given, change) = match change {
            MemberChange::To { target, members, is_held, allow } => {
                let (voters, learners) = (target.voters(), target.learners());
                (members, Change::To { voters, learners, is_held, allow, unfit: &unfit })
            }
            MemberChange::Commit => (&[][..], Change::Commit),
            MemberChange::Abort => (&[][..], Change::Abort),
        };
        let group = &self.groups[slot];
        if group.halt.is_some() || self.is_stopping {
            return Ok(Err(ChangeRefused::NotLeader(group.leader())));
        }
        let configuration = match group.raft.plan(now, expected, change) {
            Ok(Plan::Append(configuration)) => configuration,
            Ok(Plan::Done) => return Ok(Ok(group.raft.configuration_index())),
            Err(refused) => return Ok(Err(refused)),
        };
        match self.next_members(slot, configuration, given) {
            Ok(members) => self.append_members(now, slot, &members).map(|()| Ok(members.index)),
            Err(refused) => Ok(Err(refused)),
        }
    }

    /// Peers of which this node knows that their disks don't move.
    pub(crate) fn unfit_peers(&self) -> Vec<NodeId> {
        let patience = self.settings.raft.election_timeout;
        let stuck = self.peers.iter().filter(|(_, peer)| peer.disk_wait >= patience);
        stuck.map(|(&node, _)| node).collect()
    }

    /// A configuration as the group's next entry: each member is said to be who it is known to be,
    /// so that a node which hears of it by the entry alone takes no other life for it. Who that is of
    /// a new one isn't guessed.
    fn next_members(
        &self,
        slot: usize,
        configuration: Configuration,
        given: &[Member<'_>],
    ) -> Result<Members, ChangeRefused> {
        let group = &self.groups[slot];
        let index = group.raft.last().next();
        let own = self.settings.identity;
        let newest = group.book.newest();
        let given = |node| {
            let given = given.iter().find(|member| member.node == node);
            given.map(|member| member.words).unwrap_or_default()
        };
        for node in configuration.members().filter(|&node| newest.life(node).is_none()) {
            let known = self.life_to_name(node);
            if let (Incarnation(0), Err(Incarnation(known))) = (given(node).incarnation, known) {
                return Err(ChangeRefused::WhichLife { node, known });
            }
        }
        let members = Members::new(index, configuration, |node| {
            let given = given(node);
            // Who is a member stays the life that it is.
            let said = newest.words(node);
            let given_life = if said.is_some() { Incarnation(0) } else { given.incarnation };
            let said = said.unwrap_or_default();
            let known = match node == own.node {
                true => Some(own.incarnation),
                false => self.life_to_name(node).ok().flatten(),
            };
            let mut lives = [given_life, said.incarnation].into_iter().chain(known);
            let incarnation = lives.find(|&life| life != Incarnation(0)).unwrap_or_default();
            let is_given = given.addresses != Addresses::default();
            let addresses = if is_given { given.addresses } else { said.addresses };
            Words { incarnation, addresses }
        })?;
        // A node that joins takes itself for nobody's voter unless its life is named: one that votes
        // and never stands can be the only one that holds what is committed.
        let votes = |node| newest.configuration.all_voters().any(|voter| voter == node);
        let is_unnamed = |node| !votes(node) && members.life(node) == Some(Incarnation(0));
        match members.configuration.voters().iter().find(|&&node| is_unnamed(node)) {
            Some(&node) => Err(ChangeRefused::UnknownLife { node }),
            None => Ok(members),
        }
    }

    fn append_members(
        &mut self,
        now: Ticks,
        slot: usize,
        members: &Members,
    ) -> Result<(), ShardError> {
        let Members { index, configuration, payload, .. } = members;
        let (id, term) = (self.groups[slot].id, self.groups[slot].raft.term());
        let bytes = record::encoded_bytes(payload.len());
        self.cache.push_with(slot, *index, bytes, |out| {
            record::encode(out, RecordKind::Configuration, id, *index, term, [payload, b""]);
        });
        let input = Input::Configure { configuration, bytes: bytes as u32 };
        self.step(now, slot, input, Carried::Cache)
    }

    /// Goes on from joint configurations that are committed.
    pub(crate) fn complete_changes(&mut self, now: Ticks) -> Result<(), ShardError> {
        for slot in std::mem::take(&mut self.completing) {
            self.propose(now, slot)?;
            let Some(configuration) = self.groups[slot].raft.completion() else { continue };
            let members = self.next_members(slot, configuration, &[]);
            self.append_members(now, slot, &members.expect("its members were in an entry"))?;
        }
        Ok(())
    }
}
