//! What the checks know of a whole cluster, which no node does: what was applied where, who voted
//! for whom, which entries there were, and what each disk was said to hold.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ringraft_net::wire::{self, BallotKind};
use ringraft_net::{Frame, FrameHeader, Kind};
use ringraft_shard::machine::{
    Applied, ApplyError, CommandKind, Fetched, KvMachine, LoadError, StateMachine, StrandPieces,
};
use ringraft_types::limits::FRAME_HEADER_BYTES;
use ringraft_types::{GroupId, Index, LogId, NodeId, Revision, Status, StrandBytes, Term, record};
use ringraft_wal::Recovered;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Everything that was applied anywhere: the first to apply an entry says what it is.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    groups: BTreeMap<GroupId, BTreeMap<Index, First>>,
}

/// An entry as the first to apply it did.
#[derive(Clone, Copy, Debug)]
struct First {
    node: NodeId,
    hash: u64,
    step: Step,
    /// The machine's hash after it.
    state: u64,
}

impl Ledger {
    fn applied(&mut self, group: GroupId, node: NodeId, step: Step, hash: u64, state: u64) {
        let entries = self.groups.entry(group).or_default();
        let index = step.index;
        let first = *entries.entry(index).or_insert(First { node, hash, step, state });
        assert!(
            first.hash == hash,
            "V7: node {node} and node {} applied different commands, or came to different states, \
             at entry {index} of group {group}",
            first.node
        );
    }

    /// The commands of a group up to an entry, and the machine's hash there, unless there are none.
    pub(crate) fn before(&self, group: GroupId, index: Index) -> (Vec<Step>, Option<u64>) {
        let entries = self.groups.get(&group).into_iter().flat_map(|it| it.range(..=index));
        let firsts: Vec<First> = entries.map(|(_, first)| *first).collect();
        let state = firsts.last().map(|first| first.state);
        (firsts.into_iter().map(|first| first.step).collect(), state)
    }

    /// The newest entry of a group that was applied anywhere.
    pub(crate) fn newest(&self, group: GroupId) -> Index {
        let entries = self.groups.get(&group);
        entries.and_then(|entries| entries.keys().next_back().copied()).unwrap_or_default()
    }
}

/// A command that a machine applied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// Its entry.
    pub(crate) index: Index,
    /// The machine's revision after it.
    pub(crate) revision: Revision,
    /// A hash of it.
    pub(crate) command: u64,
}

/// What one machine applied since it was made.
pub(crate) type Steps = Rc<RefCell<Vec<Step>>>;

/// Entries between two snapshots that a witness takes for itself.
const SNAPSHOT_ENTRIES: u64 = 50;
/// A machine that was loaded says less often than this that it still fetches.
const FETCHES: u64 = 4;
/// A piece of such a snapshot, bytes; the entry's own hash takes some of it away.
const PIECE_BYTES: u64 = 4_096;

/// A snapshot under way, and the commands applied since it began.
#[derive(Default)]
struct Taking {
    pieces: Vec<Vec<u8>>,
    since: Vec<(Index, Vec<u8>)>,
}

/// A machine that shows what happens to it. Now and then it is exchanged for one that was loaded
/// from a snapshot, taken while entries were applied: nobody may notice.
pub(crate) struct Witness {
    node: NodeId,
    group: GroupId,
    last: Index,
    machine: KvMachine,
    taking: Option<Taking>,
    /// Its owner takes a snapshot of it.
    is_saved: bool,
    /// How often it still says that it fetches, before what it loaded is whole.
    fetches: u64,
    ledger: Rc<RefCell<Ledger>>,
    steps: Steps,
}

impl Witness {
    /// A fresh machine of a group on a node.
    pub(crate) fn new(
        node: NodeId,
        group: GroupId,
        ledger: Rc<RefCell<Ledger>>,
        steps: Steps,
    ) -> Self {
        let (last, machine, taking) = (Index::ZERO, KvMachine::new(), None);
        Self { node, group, last, machine, taking, is_saved: false, fetches: 0, ledger, steps }
    }

    /// Takes a piece of the snapshot that is under way, or begins one.
    fn exchange(&mut self, index: Index, command: &[u8], hash: u64) {
        let Some(taking) = &mut self.taking else {
            if index.0.is_multiple_of(SNAPSHOT_ENTRIES) && !self.is_saved {
                self.machine.begin_snapshot();
                self.taking = Some(Taking::default());
            }
            return;
        };
        taking.since.push((index, command.to_vec()));
        let mut piece = Vec::new();
        let is_last = self.machine.snapshot((hash % PIECE_BYTES) as usize, &mut piece);
        taking.pieces.push(piece);
        if !is_last {
            return;
        }
        let Taking { pieces, since } = self.taking.take().expect("it was just looked at");
        let before = self.machine.state_hash();
        self.machine = KvMachine::new();
        for piece in pieces {
            self.machine.load(&piece).expect("V7: a snapshot loads");
        }
        self.machine.end_load().expect("V7: a whole snapshot loads");
        for (index, command) in since {
            let again = self.machine.apply(index, &command, &mut Vec::new());
            again.expect("V7: what was applied once applies again");
        }
        assert_eq!(self.machine.state_hash(), before, "V7: a loaded machine is the one it was");
    }
}

impl StateMachine for Witness {
    fn check(&self, command: &[u8]) -> Result<CommandKind, Status> {
        self.machine.check(command)
    }

    fn apply(
        &mut self,
        index: Index,
        command: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<Applied, ApplyError> {
        let (node, group) = (self.node, self.group);
        assert!(
            index > self.last,
            "V8: node {node} applied entry {index} of group {group} after {}",
            self.last
        );
        assert!(self.fetches == 0, "what is applied to is whole");
        self.last = index;
        let start = reply.len();
        let applied = self.machine.apply(index, command, reply)?;
        let command_hash = xxh3_64(command);
        let revision = applied.revision;
        let step = Step { index, revision, command: command_hash };
        self.steps.borrow_mut().push(step);
        let mut hash = xxh3_64_with_seed(&reply[start..], command_hash);
        let state = self.machine.state_hash();
        hash = hash.rotate_left(7) ^ state ^ revision.0 << 8 ^ applied.status as u64;
        self.ledger.borrow_mut().applied(group, node, step, hash, state);
        self.exchange(index, command, hash);
        Ok(applied)
    }

    fn query(&self, command: &[u8], reply: &mut Vec<u8>) -> Applied {
        assert!(self.fetches == 0, "what is asked is whole");
        self.machine.query(command, reply)
    }

    fn revision(&self) -> Revision {
        self.machine.revision()
    }

    fn state_hash(&self) -> u64 {
        self.machine.state_hash()
    }

    fn memory_bytes(&self) -> usize {
        self.machine.memory_bytes()
    }

    fn data_bytes(&self) -> u64 {
        self.machine.data_bytes()
    }

    fn grows(&self, command: &[u8]) -> bool {
        self.machine.grows(command)
    }

    fn tidy(&mut self) -> bool {
        self.machine.tidy()
    }

    fn begin_snapshot(&mut self) {
        (self.taking, self.is_saved) = (None, true);
        self.machine.begin_snapshot();
    }

    fn strands(&self) -> StrandBytes {
        self.machine.strands()
    }

    fn keep_strands(&mut self) {
        self.machine.keep_strands();
    }

    fn snapshot(&mut self, bytes: usize, piece: &mut Vec<u8>) -> bool {
        self.machine.snapshot(bytes, piece)
    }

    fn snapshot_strands(
        &mut self,
        bytes: usize,
        piece: &mut Vec<u8>,
        strands: &mut StrandPieces,
    ) -> bool {
        self.machine.snapshot_strands(bytes, piece, strands)
    }

    fn load_strand(&mut self, bytes: &[u8]) -> Result<usize, LoadError> {
        self.machine.load_strand(bytes)
    }

    fn end_snapshot(&mut self) {
        self.is_saved = false;
        self.machine.end_snapshot();
    }

    fn load(&mut self, piece: &[u8]) -> Result<(), LoadError> {
        self.machine.load(piece)
    }

    fn end_load(&mut self) -> Result<(), LoadError> {
        self.machine.end_load()?;
        self.fetches = self.machine.state_hash() % FETCHES;
        Ok(())
    }

    fn fetch(&mut self) -> Result<Fetched, LoadError> {
        if self.fetches == 0 {
            return Ok(Fetched::Whole);
        }
        self.fetches -= 1;
        Ok(Fetched::Working)
    }
}

/// What a node promised to others of a group.
#[derive(Clone, Copy, Debug, Default)]
struct Promise {
    /// The newest term in which it gave its vote, and to whom.
    vote: Option<(Term, NodeId)>,
    /// It holds what the leader of this term has, up to here.
    held: (Term, Index),
}

/// What travelled between nodes.
#[derive(Debug, Default)]
pub(crate) struct Snoop {
    /// By group, term and voter.
    votes: BTreeMap<(GroupId, Term, NodeId), NodeId>,
    /// By group, term and index: what a record is.
    entries: BTreeMap<(GroupId, Term, Index), u64>,
    leaders: BTreeMap<(GroupId, Term), NodeId>,
    promises: BTreeMap<(NodeId, GroupId), Promise>,
    /// By group, term and who asked: who would vote for it.
    grants: BTreeMap<(GroupId, Term, NodeId), BTreeSet<NodeId>>,
    /// By group, term and node: who was told by a leader to stand in it.
    told_to_stand: BTreeSet<(GroupId, Term, NodeId)>,
    /// By group and term: the commit index that its leader told first.
    told: BTreeMap<(GroupId, Term), Index>,
    /// By group, term and who said it to the term's leader: up to where it holds what the leader
    /// has, and the newest round of heartbeats that it answered.
    said: BTreeMap<(GroupId, Term, NodeId), (Index, u64)>,
    /// By who said it and group: the newest commit index that it said it knows.
    commits: BTreeMap<(NodeId, GroupId), Index>,
    /// Who votes in every group at first.
    first: Vec<NodeId>,
    /// By group: other lists of voters that somebody asked for.
    voters: BTreeMap<GroupId, BTreeSet<Vec<NodeId>>>,
}

impl Snoop {
    /// Knows nothing yet of a cluster that so many nodes began.
    pub(crate) fn new(voters: u32) -> Self {
        Self { first: (1..=voters).map(NodeId).collect(), ..Self::default() }
    }

    /// A group left a node, and what that promised counts no more.
    pub(crate) fn left(&mut self, node: NodeId, group: GroupId) {
        self.promises.remove(&(node, group));
        self.commits.remove(&(node, group));
    }

    fn knows(&mut self, node: NodeId, group: GroupId, commit: Index) {
        let known = self.commits.entry((node, group)).or_default();
        *known = commit.max(*known);
    }

    /// The newest commit index that a node ever said it knows.
    pub(crate) fn said_commit(&self, node: NodeId, group: GroupId) -> Index {
        self.commits.get(&(node, group)).copied().unwrap_or_default()
    }

    /// Somebody asked for these voters of a group.
    pub(crate) fn asked(&mut self, group: GroupId, voters: &[NodeId]) {
        self.voters.entry(group).or_default().insert(voters.to_vec());
    }

    /// Every list of voters of a group that somebody asked for.
    pub(crate) fn voters_asked(&self, group: GroupId) -> impl Iterator<Item = &Vec<NodeId>> {
        self.voters.get(&group).into_iter().flatten()
    }

    /// Looks at what left for a peer: whole frames, behind a greeting perhaps.
    pub(crate) fn sent(
        &mut self,
        from: NodeId,
        to: NodeId,
        mut bytes: &[u8],
        mut each: impl FnMut(&FrameHeader),
    ) {
        if bytes.starts_with(b"RRWE") || bytes.starts_with(b"RRHI") {
            bytes = &bytes[ringraft_net::handshake::HANDSHAKE_BYTES..];
        }
        while let Some(head) = bytes.first_chunk::<FRAME_HEADER_BYTES>() {
            let header = FrameHeader::decode(head).expect("V13: a node sends sound frames");
            let body = &bytes[FRAME_HEADER_BYTES..header.frame_bytes()];
            bytes = &bytes[header.frame_bytes()..];
            each(&header);
            self.frame(from, to, &Frame { header, body });
        }
    }

    fn frame(&mut self, from: NodeId, to: NodeId, frame: &Frame<'_>) {
        let group = frame.header.group;
        match frame.header.kind {
            Kind::Ballot => {
                let ballot = wire::ballot(frame).expect("V13: a node sends sound frames");
                match ballot.kind {
                    BallotKind::PreVoteReply if ballot.granted => {
                        self.grants.entry((group, ballot.term, to)).or_default().insert(from);
                    }
                    BallotKind::Vote => {
                        self.voted(group, ballot.term, from, from);
                        self.stands(group, ballot.term, from);
                    }
                    BallotKind::TransferVote => {
                        self.voted(group, ballot.term, from, from);
                        let told = (group, ballot.term, from);
                        assert!(
                            self.told_to_stand.contains(&told),
                            "EL-09: node {from} stands in term {} of group {group} as if it had \
                             been told to",
                            ballot.term
                        );
                    }
                    BallotKind::VoteReply if ballot.granted => {
                        self.voted(group, ballot.term, from, to);
                    }
                    _ => {}
                }
            }
            Kind::TimeoutNow => {
                let item = wire::timeout_now(frame).expect("V13: a node sends sound frames");
                self.told_to_stand.insert((group, item.term.next(), to));
            }
            Kind::AppendReplies => {
                let view = wire::append_replies(frame).expect("V13: a node sends sound frames");
                for item in view.items() {
                    self.knows(from, item.group, item.commit);
                }
                for item in view.items().filter(|item| item.accepted) {
                    let promise = self.promises.entry((from, item.group)).or_default();
                    let held = (item.append_term, item.matched_or_prev);
                    promise.held = promise.held.max(held);
                    let said = self.said.entry((item.group, item.append_term, from)).or_default();
                    said.0 = said.0.max(item.matched_or_prev);
                }
            }
            Kind::BeatReplies => {
                let view = wire::beat_replies(frame).expect("V13: a node sends sound frames");
                for item in view.items() {
                    self.knows(from, item.group, item.commit);
                    let said = self.said.entry((item.group, item.term, from)).or_default();
                    said.1 = said.1.max(item.round);
                }
            }
            Kind::Append => {
                let (head, records) = wire::append(frame).expect("V13: a node sends sound frames");
                self.records(group, from, records);
                self.tells(group, head.term, from, head.commit);
            }
            _ => {}
        }
    }

    /// Nobody raises a term that a majority wouldn't vote in (thesis 9.6).
    fn stands(&self, group: GroupId, term: Term, candidate: NodeId) {
        let none = BTreeSet::new();
        let granted = self.grants.get(&(group, term, candidate)).unwrap_or(&none);
        let is_won = |voters: &Vec<NodeId>| {
            let grants = |node: &&NodeId| **node == candidate || granted.contains(node);
            voters.iter().filter(grants).count() > voters.len() / 2
        };
        let others = self.voters.get(&group).into_iter().flatten();
        assert!(
            others.chain([&self.first]).any(is_won),
            "N06: node {candidate} stands in term {term} of group {group}, and only {granted:?} \
             would vote for it"
        );
    }

    /// A leader commits entries of its own term, and older ones along with them (thesis 3.6.2):
    /// the first commit index it tells is what it knew when it began. A sole voter commits before
    /// it has sent anything.
    fn tells(&mut self, group: GroupId, term: Term, leader: NodeId, commit: Index) {
        let first = *self.told.entry((group, term)).or_insert(commit);
        let own = (group, term, Index::ZERO)..=(group, term, Index(u64::MAX));
        let own = self.entries.range(own).next().map(|(&(_, _, index), _)| index);
        let is_alone = self.voters_asked(group).any(|voters| *voters == [leader]);
        assert!(
            commit <= first || is_alone || own.is_some_and(|own| commit >= own),
            "V2: node {leader} leads group {group} in term {term} and commits entry {commit} of an \
             older term"
        );
    }

    /// What a leader counts of a peer, up to where its log agrees and which round of heartbeats it
    /// answered, is what the peer said in this very term.
    pub(crate) fn counts(
        &self,
        leader: NodeId,
        group: GroupId,
        term: Term,
        (peer, matched, round): (NodeId, Index, u64),
    ) {
        let said = self.said.get(&(group, term, peer)).copied().unwrap_or_default();
        assert!(
            matched <= said.0,
            "V2: node {leader} leads group {group} in term {term} and takes node {peer} to hold \
             what it has up to entry {matched}; in this term it said so up to {}",
            said.0
        );
        assert!(
            round <= said.1,
            "V9: node {leader} leads group {group} in term {term} and takes node {peer} to have \
             answered round {round}; it answered {}",
            said.1
        );
    }

    fn records(&mut self, group: GroupId, from: NodeId, mut records: &[u8]) {
        while !records.is_empty() {
            let header = record::peek(records).expect("V13: a node sends sound records");
            let length = record::encoded_bytes(header.length as usize);
            let hash = xxh3_64(&records[..length]);
            records = &records[length..];
            let known = *self.entries.entry((group, header.term, header.index)).or_insert(hash);
            assert!(
                known == hash,
                "V2: node {from} sends another entry {} of term {} of group {group} than was sent \
                 before",
                header.index,
                header.term
            );
        }
    }

    fn voted(&mut self, group: GroupId, term: Term, voter: NodeId, candidate: NodeId) {
        let known = *self.votes.entry((group, term, voter)).or_insert(candidate);
        assert!(
            known == candidate,
            "V1: node {voter} votes for {candidate} in term {term} of group {group}, and voted for \
             {known} before"
        );
        let promise = self.promises.entry((voter, group)).or_default();
        promise.vote = promise.vote.max(Some((term, candidate)));
    }

    /// A node leads. `newest` is the newest entry of the group that was applied anywhere.
    pub(crate) fn leads(
        &mut self,
        node: NodeId,
        group: GroupId,
        term: Term,
        last: Index,
        newest: Index,
    ) {
        let known = *self.leaders.entry((group, term)).or_insert(node);
        assert!(known == node, "V1: {node} and {known} lead group {group} in term {term}");
        let later = (group, term.next())..=(group, Term(u64::MAX));
        if self.leaders.range(later).next().is_none() {
            assert!(
                last >= newest,
                "V2: node {node} leads group {group} in term {term} with entries up to {last}, and \
                 {newest} was applied before"
            );
        }
    }

    /// How far a node votes as if it held its logs after a start, by group, against what it promised
    /// before: who lost entries must help nobody into office who lacks them (decision 0013).
    pub(crate) fn votes_as_holding(
        &self,
        node: NodeId,
        shard: (u16, u16),
        votes: impl Fn(GroupId) -> Option<LogId>,
    ) {
        let of_node = (node, GroupId(0))..=(node, GroupId(u64::MAX));
        for (&(_, group), promise) in self.promises.range(of_node) {
            if group.0 % u64::from(shard.1) != u64::from(shard.0) {
                continue;
            }
            let Some(last) = votes(group) else { continue };
            let (held_in, held) = promise.held;
            assert!(
                last.term > held_in || last.index >= held,
                "V3: node {node} acknowledged entry {held} in term {held_in} of group {group}, and \
                 votes as if it held {last} after a start"
            );
        }
    }

    /// What a node found of its log after a start, against what it promised before. A node whose
    /// disk was damaged may have lost a vote: then it voted for itself, so as to vote for nobody
    /// else, and may have written that down.
    pub(crate) fn recovered(
        &self,
        node: NodeId,
        shard: (u16, u16),
        recovered: &Recovered,
        saved: &BTreeMap<GroupId, Index>,
        is_damaged: bool,
    ) {
        let of_node = (node, GroupId(0))..=(node, GroupId(u64::MAX));
        for (&(_, group), promise) in self.promises.range(of_node) {
            if group.0 % u64::from(shard.1) != u64::from(shard.0) {
                continue;
            }
            if recovered.node_damaged || recovered.unknown_damage {
                // It takes no part in anything.
                continue;
            }
            let found = recovered.groups.get(&group);
            let hard = found.and_then(|found| found.hard);
            let (mut term, mut vote) = hard.map_or((Term::ZERO, 0), |(term, vote, _)| (term, vote));
            if let Some(lost) = found.and_then(|found| found.hard_lost) {
                // It gives nobody else the vote of that term.
                (term, vote) = (term.max(lost), promise.vote.map_or(0, |(_, voted)| voted.0));
            }
            if let Some((voted_in, candidate)) = promise.vote {
                let is_kept = vote == candidate.0 || is_damaged && vote == node.0;
                assert!(
                    term > voted_in || (term == voted_in && is_kept),
                    "V3: node {node} voted for {candidate} in term {voted_in} of group {group}, and \
                     finds a vote for {vote} in term {term} after a start"
                );
            }
            let (held_in, held) = promise.held;
            // With rot it votes as if it held what it lost.
            let floor = found.and_then(|found| found.damaged).map_or(Index::ZERO, |id| id.index);
            let saved = saved.get(&group).copied().unwrap_or_default();
            let last = found.map_or(Index::ZERO, |found| found.last).max(floor).max(saved);
            assert!(
                term > held_in || (term == held_in && last >= held),
                "V3: node {node} acknowledged entry {held} in term {held_in} of group {group}, and \
                 finds {last} in term {term} after a start"
            );
        }
        for (group, found) in &recovered.groups {
            let newest = found.runs.last().map_or(Term::ZERO, |run| run.1);
            let term = found.hard.map_or(Term::ZERO, |hard| hard.0);
            let term = term.max(found.hard_lost.unwrap_or_default());
            assert!(
                term >= newest,
                "V4: node {node} holds an entry of term {newest} of group {group}, its own is \
                 {term}"
            );
        }
    }
}
