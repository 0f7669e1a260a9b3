//! The control lane's end of the mesh: asks the shards for their numbers, keeps the newest, and
//! hands on what they had to say.

use crate::clock;
use crate::config::Config;
use crate::control::{
    LogEvent, NodeNumbers, ShardFeed, ShardNumbers, ShardSnapshots, SnapshotWish,
};
use crate::cores::Doorbells;
use crate::events::{EventSink, NodeEvent};
use crate::numbers::Taken;
use crate::parcel::Parcel;
use ringraft_shard::mesh::MeshEnd;
use ringraft_types::{NodeId, ShardId, Ticks};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Parcels taken from one shard in one go.
const PARCELS_PER_DRAIN: usize = 256;
/// Log events that wait to be written; more are dropped and counted.
const EVENTS_MAX: usize = 4096;
/// Questions about snapshots that are kept.
const QUESTIONS_MAX: usize = 16;

struct Shard {
    /// When its newest numbers were taken; before the first, when the node started.
    at: Ticks,
    core: usize,
    asked: bool,
    answers: u64,
    numbers: ShardNumbers,
}

/// A question about snapshots.
struct Question {
    wish: SnapshotWish,
    /// By shard: what it said.
    answers: Vec<Option<ShardSnapshots>>,
    /// Shards whose ring had no room for it.
    unsent: Vec<usize>,
}

struct State {
    mesh: MeshEnd<Parcel>,
    shards: Vec<Shard>,
    questions: BTreeMap<u64, Question>,
    next_question: u64,
    events: Vec<LogEvent>,
    events_dropped: u64,
    /// Who is told of events beside the log.
    sink: Option<EventSink>,
}

/// [`ShardFeed`] over the mesh. Belongs to the control lane's thread.
pub struct MeshFeed {
    node: NodeId,
    name: String,
    started: Ticks,
    doorbells: Doorbells,
    stop: Arc<AtomicBool>,
    state: RefCell<State>,
}

impl MeshFeed {
    /// A feed of the shards that the configuration names.
    pub(crate) fn new(
        config: &Config,
        mesh: MeshEnd<Parcel>,
        doorbells: Doorbells,
        stop: Arc<AtomicBool>,
        sink: Option<EventSink>,
    ) -> Self {
        let now = clock::now();
        let shards = config.cpu.shards.iter().enumerate().map(|(shard, &core)| Shard {
            at: now,
            core,
            asked: false,
            answers: 0,
            numbers: ShardNumbers { shard: ShardId(shard as u16), ..ShardNumbers::default() },
        });
        let state = State {
            mesh,
            shards: shards.collect(),
            questions: BTreeMap::new(),
            next_question: 0,
            events: Vec::new(),
            events_dropped: 0,
            sink,
        };
        Self {
            node: config.node,
            name: config.name.clone(),
            started: now,
            doorbells,
            stop,
            state: RefCell::new(state),
        }
    }

    fn drain(&self) {
        let state = &mut *self.state.borrow_mut();
        let State { mesh, shards, questions, events, events_dropped, sink, .. } = state;
        mesh.drain(PARCELS_PER_DRAIN, |from, parcel| match parcel {
            Parcel::Numbers(taken) => {
                let Taken { at, numbers } = *taken;
                let shard = &mut shards[from];
                shard.at = at;
                shard.asked = false;
                shard.answers += 1;
                shard.numbers = numbers;
            }
            Parcel::Log(event, dropped) => {
                *events_dropped += dropped;
                if let Some(sink) = sink {
                    sink.miss(dropped);
                    if let LogEvent::Shard(shard, event) = event {
                        sink.tell(NodeEvent { shard, event });
                    }
                }
                if events.len() < EVENTS_MAX {
                    events.push(event);
                } else {
                    *events_dropped += 1;
                }
            }
            Parcel::Snapshots(number, told) => {
                if let Some(question) = questions.get_mut(&number) {
                    question.answers[from] = Some(*told);
                }
            }
            _ => unreachable!("shards send the control lane answers and log events only"),
        });
        for (&number, question) in questions {
            let Question { wish, unsent, .. } = question;
            unsent.retain(|&lane| {
                let parcel = Parcel::AskSnapshots(number, wish.clone());
                mesh.request(lane, parcel).is_err()
            });
        }
        mesh.ring_doorbells(&self.doorbells);
    }
}

impl ShardFeed for MeshFeed {
    fn request(&self) {
        self.drain();
        let State { mesh, shards, .. } = &mut *self.state.borrow_mut();
        for (lane, shard) in shards.iter_mut().enumerate() {
            if !shard.asked && mesh.request(lane, Parcel::AskNumbers).is_ok() {
                shard.asked = true;
            }
        }
        mesh.ring_doorbells(&self.doorbells);
    }

    fn latest(&self) -> NodeNumbers {
        self.drain();
        let now = clock::now();
        let state = self.state.borrow();
        let micros = |span: Ticks| Duration::from_micros(span.0);
        NodeNumbers {
            node: self.node,
            name: self.name.clone(),
            uptime: micros(now.since(self.started)),
            events_dropped: state.events_dropped,
            shards: state
                .shards
                .iter()
                .map(|shard| ShardNumbers {
                    core: shard.core,
                    tick_age: micros(now.since(shard.at)),
                    answers: shard.answers,
                    ..shard.numbers.clone()
                })
                .collect(),
        }
    }

    fn ask_snapshots(&self, wish: SnapshotWish) -> u64 {
        let mut state = self.state.borrow_mut();
        let (number, lanes) = (state.next_question, state.shards.len());
        state.next_question += 1;
        if state.questions.len() == QUESTIONS_MAX {
            state.questions.pop_first();
        }
        let (answers, unsent) = (vec![None; lanes], (0..lanes).collect());
        state.questions.insert(number, Question { wish, answers, unsent });
        drop(state);
        self.drain();
        number
    }

    fn silent(&self, question: u64) -> Vec<ShardId> {
        self.drain();
        let state = self.state.borrow();
        let question = state.questions.get(&question);
        let is_silent = |shard: &usize| question.is_none_or(|it| it.answers[*shard].is_none());
        (0..state.shards.len()).filter(is_silent).map(|shard| ShardId(shard as u16)).collect()
    }

    fn take_snapshots(&self, question: u64) -> Vec<ShardSnapshots> {
        let question = self.state.borrow_mut().questions.remove(&question);
        question.map_or_else(Vec::new, |it| it.answers.into_iter().flatten().collect())
    }

    fn take_events(&self, out: &mut Vec<LogEvent>) {
        self.drain();
        out.append(&mut self.state.borrow_mut().events);
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}
