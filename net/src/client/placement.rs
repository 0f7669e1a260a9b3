//! Groups that come and go at run time, as calls that wait: reads and transactions of the system
//! group (`ringraft_types::placement`).

use super::driver::Client;
use crate::error::ClientError;
use crate::members_wire::Members;
use ringraft_types::command::{
    Compare, DeleteCommand, Keys, Operand, Operation, PutCommand, RangeCommand, Relation, Target,
    TxnBuilder,
};
use ringraft_types::placement::{self, GROUP_PREFIX, GroupRecord, NEXT_KEY, NameError};
use ringraft_types::reply::{KeyValue, Reply};
use ringraft_types::{Configuration, GroupId, NodeId};

/// How often a change is tried that others overtake.
const TRIES_MAX: u32 = 32;

/// Why a group wasn't made or deleted.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// The system group couldn't be read or written; [`ClientError`] says whether it is known that
    /// nothing was done.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No group can be called so.
    #[error("{0}")]
    Name(#[from] NameError),
    /// Another one is.
    #[error("there is a group of this name: {0}")]
    Taken(GroupId),
    /// There is no such group.
    #[error("there is no group {0}")]
    Missing(GroupId),
    /// The system group can't be deleted, nor made.
    #[error("group {0} is the one that says which groups there are")]
    System(GroupId),
    /// A group's voters are some of the system group's members.
    #[error("node {0} is no member of the system group")]
    Stranger(NodeId),
    /// A group has voters.
    #[error("a group needs one voter at least, and at most as many as a configuration holds")]
    Voters,
    /// Others changed groups all the time.
    #[error("others change groups all the time: {TRIES_MAX} tries were overtaken")]
    Overtaken,
    /// What the system group holds isn't what this version writes.
    #[error("the system group holds a record of group {0} that this version doesn't understand")]
    Unreadable(GroupId),
}

impl Client {
    /// The groups that were created, or deleted though nodes were configured with them, each with its
    /// record, ascending. Those that nodes are configured with have none.
    ///
    /// # Errors
    /// If the system group can't be read, or holds what this version doesn't understand.
    pub fn group_records(&mut self) -> Result<Vec<(GroupId, GroupRecord)>, GroupError> {
        let mut records = Vec::new();
        let (mut after, mut more) = (GROUP_PREFIX.to_vec(), true);
        while more {
            let keys = Keys::Between { start: &after, end: b"group0" };
            let mut last = None;
            more = self.each_of_system(keys, |found| {
                last = Some([found.key, &[0]].concat());
                if let Some(group) = placement::group_of_key(found.key) {
                    let record = GroupRecord::decode(found.value);
                    records.push((group, record.map_err(|_| GroupError::Unreadable(group))));
                }
            })?;
            after = last.unwrap_or_default();
            more &= !after.is_empty();
        }
        records.into_iter().map(|(group, record)| Ok((group, record?))).collect()
    }

    /// The group of this name, if there is one.
    ///
    /// # Errors
    /// If the system group can't be read.
    pub fn group_named(&mut self, name: &str) -> Result<Option<GroupId>, GroupError> {
        self.id_at(&placement::name_key(name))
    }

    /// Makes a group, and returns its id: an empty one, with these nodes as its voters, or with those
    /// of the system group. It is durable when this returns; its nodes make it within a moment, and
    /// then elect a leader.
    ///
    /// # Errors
    /// If there is a group of this name ([`GroupError::Taken`]), also after a try whose end isn't
    /// known; if a voter is no member of the system group; if the system group can't be written.
    pub fn create_group(
        &mut self,
        name: &str,
        voters: Option<&[NodeId]>,
    ) -> Result<GroupId, GroupError> {
        placement::check_name(name)?;
        let all = self.members(GroupId::SYSTEM)?.members;
        let voters = match voters {
            None => all.configuration.voters().to_vec(),
            Some(voters) => voters.to_vec(),
        };
        let is_known = |node: &NodeId| all.configuration.is_member(*node);
        if let Some(&stranger) = voters.iter().find(|node| !is_known(node)) {
            return Err(GroupError::Stranger(stranger));
        }
        let members = all.members.iter().filter(|member| voters.contains(&member.node));
        let members = members.cloned().collect();
        let configuration = Configuration::first(voters, Vec::new());
        let configuration = configuration.map_err(|_| GroupError::Voters)?;
        let begins = Members { configuration, members }.encode().map_err(|_| GroupError::Voters)?;
        let record = GroupRecord { name: name.to_owned(), is_deleted: false, begins }.encode();
        let name_key = placement::name_key(name);
        for _ in 0..TRIES_MAX {
            if let Some(taken) = self.id_at(&name_key)? {
                return Err(GroupError::Taken(taken));
            }
            let found = self.id_at(NEXT_KEY)?;
            let id = found.unwrap_or(GroupId::FIRST_CREATED).max(GroupId::FIRST_CREATED);
            let seen = found.map(placement::id_value);
            let next_is_as_seen = match &seen {
                Some(value) => value_is(NEXT_KEY, value),
                None => is_missing(NEXT_KEY),
            };
            let (value, next) = (placement::id_value(id), placement::id_value(GroupId(id.0 + 1)));
            let group_key = placement::group_key(id);
            let puts = [(&group_key[..], &record[..]), (&name_key, &value), (NEXT_KEY, &next)];
            let puts =
                puts.map(|(key, value)| Operation::Put(PutCommand { key, value, previous: false }));
            if self.change_system(&[next_is_as_seen, is_missing(&name_key)], &puts)? {
                return Ok(id);
            }
        }
        Err(GroupError::Overtaken)
    }

    /// Deletes a group on all nodes, with all its data. It is durable when this returns; each node
    /// removes it within a moment, and one that is away when it comes back.
    ///
    /// # Errors
    /// If there is no such group, or the system group can't be written. A group below
    /// [`GroupId::SYSTEM`] is taken to be one that nodes are configured with.
    pub fn delete_group(&mut self, group: GroupId) -> Result<(), GroupError> {
        if group == GroupId::SYSTEM {
            return Err(GroupError::System(group));
        }
        let key = placement::group_key(group);
        for _ in 0..TRIES_MAX {
            let mut found = None;
            self.each_of_system(Keys::One(&key), |one| found = Some(one.value.to_vec()))?;
            let is_created = group >= GroupId::FIRST_CREATED;
            let Some(value) = found else {
                if is_created {
                    return Err(GroupError::Missing(group));
                }
                let record =
                    GroupRecord { name: String::new(), is_deleted: true, begins: Vec::new() };
                let value = record.encode();
                let put = PutCommand { key: &key, value: &value, previous: false };
                if self.change_system(&[is_missing(&key)], &[Operation::Put(put)])? {
                    return Ok(());
                }
                continue;
            };
            let record = GroupRecord::decode(&value).map_err(|_| GroupError::Unreadable(group))?;
            if !is_created {
                return Err(GroupError::Missing(group));
            }
            let name_key = placement::name_key(&record.name);
            let deletes = [&key, &name_key].map(|key| {
                Operation::Delete(DeleteCommand { keys: Keys::One(key), previous: false })
            });
            if self.change_system(&[value_is(&key, &value)], &deletes)? {
                return Ok(());
            }
        }
        Err(GroupError::Overtaken)
    }

    fn id_at(&mut self, key: &[u8]) -> Result<Option<GroupId>, GroupError> {
        let mut id = None;
        self.each_of_system(Keys::One(key), |found| id = placement::id_of_value(found.value))?;
        Ok(id)
    }

    /// Gives keys of the system group; returns whether there are more.
    fn each_of_system(
        &mut self,
        keys: Keys<'_>,
        mut give: impl FnMut(&KeyValue<'_>),
    ) -> Result<bool, GroupError> {
        let mut command = Vec::new();
        RangeCommand::current(keys).encode(&mut command).expect("its keys are short");
        let response = self.read(GroupId::SYSTEM, &command)?;
        match Reply::decode(&response.body) {
            Ok(Reply::Range(found)) => {
                found.keys.for_each(|one| give(&one));
                Ok(found.more)
            }
            _ => Err(GroupError::Unreadable(GroupId::SYSTEM)),
        }
    }

    /// One transaction of the system group; returns whether all compares held.
    fn change_system(
        &mut self,
        compares: &[Compare<'_>],
        then: &[Operation<'_>],
    ) -> Result<bool, GroupError> {
        let mut command = Vec::new();
        let txn = TxnBuilder { compares, then, otherwise: &[] };
        txn.encode(&mut command).expect("a few short keys and values");
        let response = self.write(GroupId::SYSTEM, &command)?;
        match Reply::decode(&response.body) {
            Ok(Reply::Txn(txn)) => Ok(txn.succeeded),
            _ => Err(GroupError::Unreadable(GroupId::SYSTEM)),
        }
    }
}

fn value_is<'a>(key: &'a [u8], value: &'a [u8]) -> Compare<'a> {
    let operand = Operand::Value(value);
    Compare { target: Target::Value, relation: Relation::Equal, key, operand }
}

fn is_missing(key: &[u8]) -> Compare<'_> {
    let operand = Operand::Number(0);
    Compare { target: Target::Version, relation: Relation::Equal, key, operand }
}
