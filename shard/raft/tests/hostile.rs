//! A node among others that say anything at all: what [`Raft::judge`] lets pass never breaks an
//! assertion, whatever it makes the node believe. One seed replays everything.

#[path = "random/random.rs"]
mod random;

use random::Random;
use ringraft_raft::{
    Allow, Append, AppendOutcome, Boot, Breach, Change, Configured, Entries, EntryHead, Envelope,
    HardState, Input, Install, LogShape, Message, Output, Plan, Raft, RoleKind, Settings,
};
use ringraft_types::{Configuration, Index, LogId, NodeId, Phase, Term, Ticks};
use std::collections::BTreeMap;

const SEEDS: u64 = 2_000;
const STEPS: usize = 2_000;
const OWN: NodeId = NodeId(1);
const ALL: Allow = Allow { majority: true, unready: true };

/// Prints how to run a seed again if it panics.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!("replay: RINGRAFT_SEED={seed} cargo test -p ringraft-raft --test hostile");
        }
    }
}

fn settings() -> Settings {
    Settings {
        election_timeout: Ticks(150),
        heartbeat_interval: Ticks(40),
        append_entries_max: 4,
        append_bytes_max: 300,
        inflight_appends_max: 3,
        inflight_bytes_max: 1_000,
        reads_waiting_max: 4,
        commits_by_half: false,
        lease: Ticks::ZERO,
        hibernate_after: Ticks::ZERO,
    }
}

fn first() -> Configured {
    let configuration = Configuration::first((1..=3).map(NodeId).collect(), Vec::new());
    let configuration = configuration.expect("three voters");
    Configured { index: Index::ZERO, configuration, is_of_another: false }
}

fn boot(seed: u64) -> Raft {
    let boot = Boot {
        id: OWN,
        configuration: first(),
        logged: Vec::new(),
        hard_state: HardState::default(),
        log: LogShape::default(),
        vote_floor: None,
        seed,
    };
    Raft::new(Ticks(1_000), settings(), boot)
}

/// Numbers near what the node holds, so that some of them are believed.
fn near(random: &mut Random, number: u64) -> u64 {
    match random.below(40) {
        0 => u64::MAX,
        1 => 0,
        _ => number.saturating_add(random.below(6)).saturating_sub(3),
    }
}

/// Mostly the node's own term: a node whose term is always overtaken never leads.
fn term_near(random: &mut Random, own: Term) -> Term {
    match random.below(200) {
        0 => Term(u64::MAX),
        1 => Term::ZERO,
        2..190 => own,
        190..196 => Term(own.0.saturating_add(1)),
        _ => Term(own.0.saturating_sub(1)),
    }
}

/// Members that some group could have; mostly such as may follow those in force.
fn configuration(random: &mut Random, raft: &Raft) -> Configuration {
    let now = raft.configuration();
    let draw = |random: &mut Random| -> Vec<NodeId> {
        let voters: Vec<NodeId> = (1..=4).filter(|_| random.permille(600)).map(NodeId).collect();
        if voters.is_empty() { vec![OWN] } else { voters }
    };
    let drawn = draw(random);
    let (voters, outgoing, phase) = match random.below(4) {
        0 => (drawn, Vec::new(), Phase::Stable),
        1 => (drawn, draw(random), Phase::Held),
        _ if now.is_joint() => {
            let (voters, phase) = match random.permille(500) {
                true => (now.voters(), Phase::Stable),
                false => (now.outgoing(), Phase::Aborted),
            };
            (voters.to_vec(), Vec::new(), phase)
        }
        _ => (drawn, now.voters().to_vec(), Phase::Joint),
    };
    let is_free = |node: &NodeId| !voters.contains(node);
    let aborted =
        if phase == Phase::Aborted { now.members().filter(is_free).collect() } else { Vec::new() };
    let learners = if phase == Phase::Stable { now.learners().to_vec() } else { aborted };
    let learners = learners.into_iter().filter(is_free).collect();
    let replaces = Index(near(random, raft.configuration_index().0));
    let replaces = if random.permille(700) { raft.configuration_index() } else { replaces };
    Configuration::new(phase, voters, outgoing, learners, replaces).expect("sound")
}

/// `asked` is the newest question that the node asked its leader.
fn message(random: &mut Random, raft: &Raft, heads: &mut Vec<EntryHead>, asked: u64) -> Message {
    let term = term_near(random, raft.term());
    let index = Index(near(random, raft.last().0));
    let commit = Index(near(random, raft.commit().0));
    let other = Term(near(random, raft.term().0));
    let last = LogId::new(other, index);
    match random.below(10) {
        0 => Message::PreVote { term, last },
        1 if random.permille(700) => {
            Message::PreVoteReply { term: raft.term().next(), granted: true }
        }
        1 => Message::PreVoteReply { term, granted: false },
        2 => Message::Vote { term, last, is_transfer: random.permille(300) },
        3 => Message::VoteReply { term, granted: random.permille(700) },
        4 => {
            // Often right, so that logs grow.
            let held = raft.term_at(index).filter(|_| random.permille(800));
            let mut entry = held.unwrap_or(other);
            for _ in 0..random.below(5) {
                heads.push(EntryHead { term: entry, bytes: 48 });
                if random.permille(300) {
                    entry = Term(near(random, entry.0));
                }
            }
            let prev = LogId::new(held.unwrap_or(other), index);
            Message::Append(Append { term, prev, commit, count: heads.len() as u32 })
        }
        5 => {
            let outcome = if random.permille(700) {
                AppendOutcome::Accepted { matched: index }
            } else {
                AppendOutcome::Rejected { prev: index, hint: LogId::new(other, commit) }
            };
            Message::AppendReply { term, append_term: raft.term(), outcome, commit }
        }
        6 => Message::Heartbeat {
            term,
            commit,
            round: random.below(9),
            hibernate: random.below(2) == 0,
        },
        7 => {
            let base = LogId::new(raft.term_at(index).unwrap_or(other), index);
            Message::Install { term, base, commit: Index(near(random, index.0)) }
        }
        8 => Message::TimeoutNow { term },
        9 if random.permille(300) => Message::ReadAsk { term, question: random.below(9) },
        9 if random.permille(400) => {
            // Near those that it asks, sometimes.
            let question = near(random, asked);
            Message::ReadAnswer { term, question, index: commit }
        }
        _ => Message::HeartbeatReply {
            term,
            round: random.below(9),
            commit,
            hibernates: random.below(2) == 0,
        },
    }
}

/// What a run came across: a test that reaches nothing proves nothing.
#[derive(Default)]
struct Reached {
    breaches: BTreeMap<&'static str, u64>,
    committed: u64,
    truncated: u64,
    led: u64,
    transfers: u64,
    released: u64,
    installed: u64,
    configured: u64,
    learned: u64,
    read_elsewhere: u64,
}

fn name(breach: Breach) -> &'static str {
    match breach {
        Breach::TermZero => "term zero",
        Breach::OutOfReach(_) => "out of reach",
        Breach::TermGoesBack { .. } => "term goes back",
        Breach::TermAhead { .. } => "term ahead",
        Breach::SecondLeader { .. } => "second leader",
        Breach::LacksCommitted { .. } => "lacks committed",
        Breach::BaseUncommitted { .. } => "base uncommitted",
        Breach::WrongConfiguration { .. } => "wrong configuration",
        Breach::NeverSent { .. } => "never sent",
        Breach::NeverAsked { .. } => "never asked",
    }
}

fn run(seed: u64, reached: &mut Reached) {
    let _replay = Replay(seed);
    let mut random = Random::new(seed);
    let mut raft = boot(seed);
    let mut now = Ticks(1_000);
    let mut out = Output::default();
    let (mut tokens, mut fetches) = (Vec::new(), Vec::new());
    let (mut heads, mut configurations) = (Vec::new(), Vec::new());
    let mut wanted = None;
    let mut asked = 0;
    for _ in 0..STEPS {
        now = now.after(Ticks(random.below(30)));
        heads.clear();
        configurations.clear();
        let before = raft.configuration_index();
        let from = NodeId(random.between(2, 5) as u32);
        out.clear();
        match random.below(15) {
            0 => raft.step(now, Input::Tick, &mut out),
            1 if random.permille(100) => {
                if let Ok(to) = raft.transfer_target(now, None, &[]) {
                    raft.step(now, Input::Transfer { to }, &mut out);
                    assert_eq!(out.refused, None);
                    reached.transfers += 1;
                }
            }
            1 if raft.role() == RoleKind::Leader => {
                raft.step(now, Input::Propose { bytes: &[48, 56] }, &mut out);
            }
            2 => {
                raft.step(now, Input::Read { ticket: 1 }, &mut out);
                fetches.append(&mut out.fetch);
                out.clear();
                raft.flush_reads(now, &mut out);
                if let Some(Envelope { message: Message::ReadAsk { question, .. }, .. }) =
                    out.send_now.first()
                {
                    asked = *question;
                }
            }
            3 => {
                let up = random.permille(500);
                let input = if up { Input::LinkUp(from) } else { Input::LinkDown(from) };
                raft.step(now, input, &mut out);
            }
            4 | 5 if !tokens.is_empty() => {
                let token = tokens.remove(0);
                raft.step(now, Input::Persisted { token }, &mut out);
            }
            6 => {
                let through = Index(random.below(raft.commit().0 + 1));
                reached.released += u64::from(through > raft.base().index);
                raft.step(now, Input::Released { through }, &mut out);
            }
            8 => {
                let index = raft.configuration_index();
                let next = match raft.completion() {
                    Some(next) => Some(next),
                    None => {
                        let to = configuration(&mut random, &raft);
                        let (voters, learners) = (to.voters(), to.learners());
                        let (is_held, allow) = (random.permille(200), ALL);
                        let change = match random.below(4) {
                            0 => Change::Commit,
                            1 => Change::Abort,
                            _ => Change::To { voters, learners, is_held, allow, unfit: &[] },
                        };
                        match raft.plan(now, index, change) {
                            Ok(Plan::Append(next)) => Some(next),
                            _ => None,
                        }
                    }
                };
                let Some(configuration) = &next else { continue };
                raft.step(now, Input::Configure { configuration, bytes: 96 }, &mut out);
                assert_eq!(out.refused, None);
                reached.configured += 1;
            }
            7 => {
                let Some(Install { base, .. }) = wanted.take() else { continue };
                // What it covers is what was wanted, or more.
                let more = random.below(3);
                let last = LogId::new(Term(base.term.0 + more / 2), Index(base.index.0 + more));
                if raft.may_install(last) {
                    reached.installed += 1;
                    let index = Index(random.below(last.index.0 + 1));
                    let configuration = configuration(&mut random, &raft);
                    let configuration = &Configured { index, configuration, is_of_another: false };
                    raft.step(now, Input::Installed { last, configuration }, &mut out);
                }
            }
            _ => {
                let message = message(&mut random, &raft, &mut heads, asked);
                if let Message::Append(append) = message {
                    let first = append.prev.index.0.min(ringraft_raft::NUMBER_MAX) + 1;
                    for index in first..first + heads.len() as u64 {
                        if random.permille(900) {
                            continue;
                        }
                        let configuration = configuration(&mut random, &raft);
                        configurations.push(Configured {
                            index: Index(index),
                            configuration,
                            is_of_another: false,
                        });
                    }
                }
                let entries = Entries { heads: &heads, configurations: &configurations };
                if let Err(breach) = raft.judge(from, &message, entries) {
                    *reached.breaches.entry(name(breach)).or_default() += 1;
                    continue;
                }
                raft.step(now, Input::Message { from, message, entries }, &mut out);
            }
        }
        tokens.extend(out.token);
        wanted = out.install.or(wanted);
        let is_led_by_another = raft.role() == RoleKind::Follower;
        reached.read_elsewhere += out.reads.len() as u64 * u64::from(is_led_by_another);
        reached.learned += u64::from(raft.configuration_index() > before);
        reached.truncated += u64::from(out.truncate_from.is_some());
        reached.led += u64::from(out.new_term_entry.is_some());
        fetches.append(&mut out.fetch);
        for fetch in std::mem::take(&mut fetches) {
            let (peer, first) = (fetch.peer, fetch.first);
            out.clear();
            raft.step(now, Input::Fetched { peer, first, heads: &[] }, &mut out);
            tokens.extend(out.token);
        }
    }
    reached.committed += raft.commit().0;
}

/// What an offer may name: an entry that is committed, of a term that fits, and none that differs
/// from what is committed here. What an old leader says is answered, not judged.
#[test]
fn offers_are_judged() {
    let id = |term, index| LogId::new(Term(term), Index(index));
    let runs = vec![(Index(1), Term(2)), (Index(4), Term(5))];
    let boot = Boot {
        id: OWN,
        configuration: first(),
        logged: Vec::new(),
        hard_state: HardState { term: Term(7), vote: None, commit: Index(5) },
        log: LogShape { base: LogId::ZERO, runs, last: Index(9) },
        vote_floor: None,
        seed: 1,
    };
    let raft = Raft::new(Ticks(1_000), settings(), boot);
    let judge = |term, base, commit| {
        let message = Message::Install { term: Term(term), base, commit: Index(commit) };
        raft.judge(NodeId(2), &message, Entries::default())
    };
    for (term, base, commit) in [
        (7, id(2, 3), 3),
        (7, id(5, 5), 9),
        (8, id(8, 6), 6),
        (7, id(5, 9), 20),
        (7, id(6, 20), 20),
        (6, id(3, 5), 5),
        (6, id(4, 8), 8),
    ] {
        assert_eq!(judge(term, base, commit), Ok(()), "{base} in term {term}");
    }
    let uncommitted = |base, commit| Err(Breach::BaseUncommitted { base, commit: Index(commit) });
    assert_eq!(judge(7, id(5, 9), 8), uncommitted(id(5, 9), 8));
    assert_eq!(judge(7, id(5, 0), 8), uncommitted(id(5, 0), 8));
    assert_eq!(judge(7, id(0, 7), 8), uncommitted(id(0, 7), 8));
    assert_eq!(judge(6, LogId::ZERO, 8), uncommitted(LogId::ZERO, 8));
    let ahead = Breach::TermAhead { entry: Term(8), term: Term(7) };
    assert_eq!(judge(7, id(8, 9), 9), Err(ahead));
    for index in [3, 5] {
        let lacks = Breach::LacksCommitted { index: Index(index) };
        assert_eq!(judge(7, id(6, index), 9), Err(lacks));
    }
    let after = Index(5);
    assert_eq!(judge(7, id(4, 6), 9), Err(Breach::TermGoesBack { after }));
    assert_eq!(judge(0, id(2, 3), 3), Err(Breach::TermZero));
    let far = u64::MAX;
    assert_eq!(judge(7, id(7, 9), far), Err(Breach::OutOfReach(far)));
    assert_eq!(judge(far, id(7, 9), 9), Err(Breach::OutOfReach(far)));
}

/// Nothing that passes the judge breaks an invariant, in any role; and every kind of breach is met.
#[test]
fn what_passes_the_judge_breaks_nothing() {
    let mut reached = Reached::default();
    if let Ok(seed) = std::env::var("RINGRAFT_SEED") {
        run(seed.parse().expect("a number"), &mut reached);
        return;
    }
    for seed in 0..SEEDS {
        run(seed, &mut reached);
    }
    let Reached { breaches, committed, truncated, led, released, installed, .. } = reached;
    let Reached { configured, learned, read_elsewhere, .. } = reached;
    println!("{breaches:?}, {committed} committed, {truncated} truncated, {led} led");
    assert!(configured > 100 && learned > 1_000, "{configured} configured, {learned} learned");
    assert!(read_elsewhere > 100, "{read_elsewhere} reads answered by another");
    assert_eq!(breaches.len(), 10, "{breaches:?}");
    assert!(released > 1_000 && installed > 1_000, "{released} released, {installed} installed");
    assert!(committed > 1_000 && truncated > 100 && led > 100, "{committed} {truncated} {led}");
}
