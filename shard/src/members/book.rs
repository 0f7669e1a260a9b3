//! The configurations of a group that count still, with what they say of their members.

use ringraft_raft::Configured;
use ringraft_types::{
    Configuration, ConfigurationError, Incarnation, Index, Member, NodeId, Words,
};
use std::collections::BTreeSet;

/// Who this node is, for configurations that name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Own {
    pub(crate) node: NodeId,
    pub(crate) life: Incarnation,
    /// Its data directory was formatted to begin groups: where no life is said, it is meant.
    pub(crate) begins: bool,
}

impl Own {
    /// Whether another life of this node is meant.
    pub(crate) fn is_another(&self, said: Option<Incarnation>) -> bool {
        match said {
            None => false,
            Some(Incarnation(0)) => !self.begins,
            Some(life) => life != self.life,
        }
    }
}

/// A configuration as the entry at `index` holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// The entry; zero: the group began with it.
    pub index: Index,
    /// Who votes, and who only listens.
    pub configuration: Configuration,
    /// The entry's payload: also how to reach the members, and which of their lives are meant.
    /// Empty if there are none.
    pub payload: Vec<u8>,
    /// Each member's life, zero for any, ascending by node.
    lives: Vec<(NodeId, Incarnation)>,
}

impl Members {
    /// Nobody: what a node knows of a group that it is to join.
    pub fn none() -> Self {
        let configuration = Configuration::none();
        Self { index: Index::ZERO, configuration, payload: Vec::new(), lives: Vec::new() }
    }

    /// These members, and what else is to be said of each.
    ///
    /// # Errors
    /// If an address is too long.
    pub(crate) fn new<'a>(
        index: Index,
        configuration: Configuration,
        words: impl FnMut(NodeId) -> Words<'a>,
    ) -> Result<Self, ConfigurationError> {
        Self::decode(index, &configuration.encode(words)?)
    }

    /// What the payload of an entry says.
    ///
    /// # Errors
    /// If it is no configuration.
    pub(crate) fn decode(index: Index, payload: &[u8]) -> Result<Self, ConfigurationError> {
        let (configuration, members) = Configuration::decode(payload)?;
        let lives = members.iter().map(|member| (member.node, member.words.incarnation));
        let lives = lives.collect();
        Ok(Self { index, configuration, payload: payload.to_vec(), lives })
    }

    /// Whether nobody is a member.
    pub(crate) fn is_none(&self) -> bool {
        self.payload.is_empty()
    }

    /// For the protocol.
    pub(crate) fn configured(&self, own: Own) -> Configured {
        let is_of_another = own.is_another(self.life(own.node));
        Configured { index: self.index, configuration: self.configuration.clone(), is_of_another }
    }

    /// Each member with what is said of it, ascending.
    pub fn each(&self) -> Vec<Member<'_>> {
        if self.is_none() {
            return Vec::new();
        }
        let (_, members) = Configuration::decode(&self.payload).expect("it was decoded once");
        members
    }

    /// The life that is meant of a member, zero for any.
    pub(crate) fn life(&self, node: NodeId) -> Option<Incarnation> {
        let at = self.lives.binary_search_by_key(&node, |&(node, _)| node).ok()?;
        Some(self.lives[at].1)
    }

    /// What is said of a member.
    pub(crate) fn words(&self, node: NodeId) -> Option<Words<'_>> {
        self.each().into_iter().find(|member| member.node == node).map(|member| member.words)
    }
}

/// The configuration as of what is applied, and those after it in the log.
#[derive(Debug)]
pub(crate) struct Book {
    /// Ascending; never empty.
    all: Vec<Members>,
}

impl Book {
    /// Of a log that begins behind `before`.
    pub(crate) fn new(before: Members, logged: Vec<Members>) -> Self {
        let mut book = Self { all: vec![before] };
        logged.into_iter().for_each(|members| book.append(members));
        book
    }

    /// The newest in the log.
    pub(crate) fn newest(&self) -> &Members {
        self.all.last().expect("there is always one")
    }

    /// The one in force at an entry, not before what is applied.
    pub(crate) fn as_of(&self, applied: Index) -> &Members {
        let after = self.all.partition_point(|members| members.index <= applied);
        &self.all[after.saturating_sub(1)]
    }

    /// Whether a node is named by none that is in force at an entry or comes after it.
    pub(crate) fn leaves_out(&self, node: NodeId, applied: Index) -> bool {
        let after = self.all.partition_point(|members| members.index <= applied);
        let mut rest = self.all[after.saturating_sub(1)..].iter();
        rest.all(|members| !members.configuration.is_member(node))
    }

    /// All of them, ascending.
    pub(crate) fn configurations(&self) -> impl Iterator<Item = Configuration> + '_ {
        self.all.iter().map(|members| members.configuration.clone())
    }

    /// Whether it has the configuration of this entry.
    pub(crate) fn has(&self, index: Index) -> bool {
        self.all.binary_search_by_key(&index, |members| members.index).is_ok()
    }

    /// The newest that names a node.
    pub(crate) fn newest_with(&self, node: NodeId) -> Option<&Members> {
        self.all.iter().rev().find(|members| members.configuration.is_member(node))
    }

    /// The log holds one more.
    pub(crate) fn append(&mut self, members: Members) {
        assert!(members.index > self.newest().index, "they are in the order of the log");
        self.all.push(members);
    }

    /// The log ends before this entry now.
    pub(crate) fn truncate_from(&mut self, index: Index) {
        let kept = self.all.partition_point(|members| members.index < index);
        assert!(kept > 0, "what is applied is never removed (I-02)");
        self.all.truncate(kept);
    }

    /// Entries up to here are applied: what was in force before isn't asked for any more.
    pub(crate) fn forget_before(&mut self, applied: Index) {
        let after = self.all.partition_point(|members| members.index <= applied);
        self.all.drain(..after.saturating_sub(1));
    }

    /// A snapshot took the place of the log up to `covered`.
    pub(crate) fn install(&mut self, covered: Index, members: Members) {
        assert!(members.index <= covered, "a snapshot knows what it covers");
        self.all.retain(|one| one.index > covered);
        self.all.insert(0, members);
    }

    /// Who is named, by any of them.
    pub(crate) fn nodes(&self) -> BTreeSet<NodeId> {
        self.all.iter().flat_map(|members| members.configuration.members()).collect()
    }

    /// What the newest that names a node says of it.
    pub(crate) fn words(&self, node: NodeId) -> Option<Words<'_>> {
        self.all.iter().rev().find_map(|members| members.words(node))
    }

    /// The lives of a node that are meant, zero for any, and whether as a voter's.
    pub(crate) fn lives(&self, node: NodeId) -> impl Iterator<Item = (Incarnation, bool)> {
        self.all.iter().filter_map(move |members| {
            Some((members.life(node)?, members.configuration.is_voter(node)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(index: u64, voters: &[u32], incarnation: u64) -> Members {
        let voters = voters.iter().copied().map(NodeId).collect();
        let configuration = Configuration::first(voters, vec![NodeId(9)]).expect("it is sound");
        let incarnation = Incarnation(incarnation);
        let words = |_| Words { incarnation, ..Words::default() };
        Members::new(Index(index), configuration, words).expect("short addresses")
    }

    fn indexes(book: &Book) -> Vec<u64> {
        book.all.iter().map(|members| members.index.0).collect()
    }

    /// What is kept is what may be in force, and what a snapshot of what is applied needs.
    #[test]
    fn a_book_follows_its_log() {
        let logged = vec![members(4, &[1, 2], 7), members(6, &[2], 8), members(9, &[3], 0)];
        let mut book = Book::new(members(0, &[1], 0), logged);
        assert_eq!([0, 3, 4, 5, 6, 20].map(|at| book.as_of(Index(at)).index.0), [0, 0, 4, 4, 6, 9]);
        assert_eq!(book.nodes(), [1, 2, 3, 9].map(NodeId).into());
        let lives: Vec<(u64, bool)> = book.lives(NodeId(2)).map(|(it, is)| (it.0, is)).collect();
        assert_eq!(lives, [(7, true), (8, true)]);
        assert!(book.lives(NodeId(9)).all(|(_, is_voter)| !is_voter));
        assert_eq!(book.words(NodeId(2)).expect("it is named").incarnation, Incarnation(8));
        let out =
            [1, 2, 3].map(|node| [0, 4, 6, 9].map(|at| book.leaves_out(NodeId(node), Index(at))));
        let [t, f] = [true, false];
        assert_eq!(
            out,
            [[f, f, t, t], [f, f, f, t], [f, f, f, f]],
            "3 isn't named yet, but will be"
        );
        book.forget_before(Index(5));
        assert_eq!(indexes(&book), [4, 6, 9]);
        book.truncate_from(Index(7));
        assert_eq!(indexes(&book), [4, 6]);
        book.append(members(7, &[5], 0));
        book.install(Index(6), members(5, &[6], 0));
        assert_eq!(indexes(&book), [5, 7]);
        assert_eq!(book.nodes(), [5, 6, 9].map(NodeId).into());
        book.install(Index(8), Members::none());
        assert!(book.newest().is_none() && book.newest().each().is_empty());
    }

    /// A book and an entry say the same of every member.
    #[test]
    fn what_an_entry_says_is_found() {
        let found = members(3, &[1, 2], 5);
        let decoded = Members::decode(Index(3), &found.payload).expect("just encoded");
        assert_eq!(decoded, found);
        assert_eq!(found.each().len(), 3);
        assert_eq!(found.words(NodeId(4)), None);
    }
}
