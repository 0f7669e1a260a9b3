//! A world of one group that makes histories: calls begin, take effect at once or much later, and
//! end. What it does next comes from a list of numbers, so a failing list can be made smaller.
//! On request it has a bug.

use ringraft_types::{ClientId, GroupId, Index, NodeId, Revision, Status, Ticks};

use crate::checker::model::Model;
use crate::checker::{Applied, Dump};
use crate::history::{
    Answer, Ask, CallName, Compare, CompareRelation, CompareTo, Consistency, Delete, History,
    KeySet, Operation, Outcome, Put, Range, Reason, Reply, Txn,
};

pub(super) const GROUP: GroupId = GroupId(1);

/// A way to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    /// None.
    None,
    /// A write is acknowledged and then forgotten.
    Lose,
    /// A write is applied twice.
    Twice,
    /// A read is answered from an old state.
    Stale,
    /// A write's answer has another's revision.
    Revision,
    /// A write is done, and its client told that it isn't.
    NotDone,
    /// Two answers are swapped.
    Swap,
}

pub(super) const BUGS: [Bug; 6] =
    [Bug::Lose, Bug::Twice, Bug::Stale, Bug::Revision, Bug::NotDone, Bug::Swap];

struct Running {
    name: CallName,
    ask: Ask,
    /// What it came to, once it took effect.
    answer: Option<Answer>,
    /// Whether its client waits for it; unknown calls may take effect later.
    is_awaited: bool,
}

pub(super) struct World<'n> {
    numbers: std::slice::Iter<'n, u16>,
    bug: Bug,
    unknown_left: usize,
    has_indexes: bool,
    pub(super) history: History,
    pub(super) dump: Dump,
    model: Model,
    /// The model as it was before.
    old: Vec<Model>,
    index: u64,
    at: u64,
    running: Vec<Running>,
    calls: u64,
    clients: u64,
    swapped: Option<Answer>,
}

impl<'n> World<'n> {
    /// Runs until the numbers end.
    pub(super) fn run(numbers: &'n [u16], unknown_max: usize, bug: Bug) -> Self {
        let mut numbers = numbers.iter();
        let has_indexes = numbers.next().is_some_and(|number| number % 4 != 0);
        let mut world = Self {
            numbers,
            bug,
            unknown_left: unknown_max,
            has_indexes,
            history: History::new(),
            dump: Dump { node: NodeId(1), group: GROUP, applied: Vec::new() },
            model: Model::default(),
            old: vec![Model::default()],
            index: 0,
            at: 0,
            running: Vec::new(),
            calls: 0,
            clients: 0,
            swapped: None,
        };
        while world.turn().is_some() {}
        world
    }

    fn pick(&mut self, bound: usize) -> Option<usize> {
        self.numbers.next().map(|&number| usize::from(number) % bound)
    }

    fn turn(&mut self) -> Option<()> {
        self.at += self.pick(3)? as u64;
        let awaited = self.running.iter().filter(|call| call.is_awaited).count();
        match self.pick(10)? {
            0..=2 if awaited < 5 => self.begin()?,
            0..=5 => self.take_effect()?,
            _ => self.end()?,
        }
        Some(())
    }

    fn begin(&mut self) -> Option<()> {
        self.calls += 1;
        self.clients += 1;
        let name = CallName { client: 1 + self.clients % 7, number: self.calls };
        let ask = self.ask()?;
        let invoked = self.history.invoke(Ticks(self.at), name, GROUP, ask.clone());
        invoked.expect("time goes on and names are new");
        self.running.push(Running { name, ask, answer: None, is_awaited: true });
        Some(())
    }

    fn key(&mut self) -> Option<&'static str> {
        self.pick(4).map(|key| ["a", "ab", "b", "c"][key])
    }

    fn keys(&mut self) -> Option<KeySet> {
        Some(match self.pick(4)? {
            0 | 1 => KeySet::One(self.key()?.into()),
            2 => KeySet::Prefix(["", "a", "b"][self.pick(3)?].into()),
            _ => KeySet::Between("a".into(), ["", "b", "c"][self.pick(3)?].into()),
        })
    }

    fn put(&mut self) -> Option<Put> {
        let value = format!("v{}-{}", self.calls, self.numbers.len());
        let (key, previous) = (self.key()?.into(), self.pick(2)? == 0);
        Some(Put { key, value: value.as_str().into(), previous })
    }

    fn range(&mut self) -> Option<Range> {
        let mut range = Range::current(self.keys()?);
        match self.pick(10)? {
            0 => range.limit = 1,
            1 => range.keys_only = true,
            2 => range.count_only = true,
            3 => range.bytes_max = 40,
            4 => range.revision = self.model.revision() / 2,
            5 => range.consistency = Consistency::Stale,
            _ => {}
        }
        Some(range)
    }

    fn operation(&mut self) -> Option<Operation> {
        Some(match self.pick(4)? {
            0 | 1 => Operation::Put(self.put()?),
            2 => Operation::Delete(Delete { keys: KeySet::One("c".into()), previous: true }),
            _ => Operation::Range(self.range()?),
        })
    }

    fn ask(&mut self) -> Option<Ask> {
        Some(match self.pick(12)? {
            0..=3 => Ask::Put(self.put()?),
            4 => Ask::Delete(Delete { keys: self.keys()?, previous: self.pick(2)? == 0 }),
            5..=6 => Ask::Txn(Txn {
                compares: vec![Compare {
                    key: self.key()?.into(),
                    relation: [CompareRelation::Equal, CompareRelation::Greater][self.pick(2)?],
                    to: [CompareTo::Version(1), CompareTo::Create(0)][self.pick(2)?].clone(),
                }],
                then: vec![self.operation()?],
                otherwise: vec![self.operation()?],
            }),
            7 => [Ask::Nothing, Ask::SetHistory(5_000)][self.pick(2)?].clone(),
            _ => Ask::Range(self.range()?),
        })
    }

    /// A call that did not yet takes effect.
    fn take_effect(&mut self) -> Option<()> {
        let waiting: Vec<usize> =
            (0..self.running.len()).filter(|&at| self.running[at].answer.is_none()).collect();
        let Some(last) = waiting.len().checked_sub(1) else { return Some(()) };
        let at = waiting[self.pick(last + 1)?];
        let ask = self.running[at].ask.clone();
        let is_wrong = self.bug != Bug::None && self.pick(4)? == 0;
        let is_stale = matches!(&ask, Ask::Range(range) if range.consistency == Consistency::Stale);
        if is_stale || (is_wrong && self.bug == Bug::Stale && ask.is_read()) {
            let old = self.pick(self.old.len())?;
            let (mut old, index) = (self.old[old].clone(), old as u64);
            // A state that has no such revision yet answers as one that has.
            let Ok(step) = old.step(&ask) else { return Some(()) };
            self.running[at].answer = Some(self.answer(old.revision(), index, step.reply));
            return Some(());
        }
        let before = self.model.clone();
        let step = self.model.step(&ask).expect("only revisions that were there are asked for");
        if ask.is_read() {
            let answer = self.answer(self.model.revision(), self.index, step.reply);
            self.running[at].answer = Some(answer);
            return Some(());
        }
        self.index += 1;
        let (revision, index) = (self.model.revision(), self.index);
        self.old.push(self.model.clone());
        self.dump.applied.push(Applied {
            index: Index(index),
            revision: Revision(revision),
            session: ClientId(1),
            number: self.dump.applied.len() as u64 + 1,
            ask: ask.clone(),
        });
        let mut answer = self.answer(revision, index, step.reply);
        match self.bug {
            Bug::Lose if is_wrong => self.model = before,
            Bug::Twice if is_wrong => {
                self.index += 1;
                let again = self.model.step(&ask);
                again.expect("only revisions that were there are asked for");
            }
            Bug::Revision if is_wrong => answer.revision.0 += 1,
            _ => {}
        }
        self.running[at].answer = Some(answer);
        Some(())
    }

    fn answer(&self, revision: u64, index: u64, reply: Reply) -> Answer {
        let index = self.has_indexes.then_some(Index(index));
        Answer { revision: Revision(revision), index, reply }
    }

    /// A call ends for its client.
    fn end(&mut self) -> Option<()> {
        let awaited: Vec<usize> =
            (0..self.running.len()).filter(|&at| self.running[at].is_awaited).collect();
        let Some(last) = awaited.len().checked_sub(1) else { return Some(()) };
        let at = awaited[self.pick(last + 1)?];
        let is_unknown = self.pick(6)? == 0;
        let is_wrong = self.bug != Bug::None && self.pick(4)? == 0;
        let is_refused = self.pick(2)? == 0;
        let call = &mut self.running[at];
        let name = call.name;
        let outcome = match &call.answer {
            _ if is_unknown && self.unknown_left > 0 => {
                self.unknown_left -= 1;
                call.is_awaited = false;
                Outcome::Unknown(Reason::Deadline)
            }
            Some(_) if is_wrong && self.bug == Bug::NotDone => {
                Outcome::NotDone(Reason::Refused(Status::Busy))
            }
            Some(answer) if is_wrong && self.bug == Bug::Swap => {
                Outcome::Done(self.swapped.replace(answer.clone()).unwrap_or(answer.clone()))
            }
            Some(answer) => Outcome::Done(answer.clone()),
            None if is_refused => Outcome::NotDone(Reason::Refused(Status::Busy)),
            None => return Some(()),
        };
        self.history.end(Ticks(self.at), name, outcome).expect("it runs");
        if self.running[at].is_awaited {
            self.running.remove(at);
        }
        Some(())
    }
}
