//! Runs `transcripts/*.txt`: commands, a line of dashes, and what comes out.
//!
//! A blank line ends a case; the cluster lives on to the end of the file. To write the expected
//! parts anew after a deliberate change: `RINGRAFT_REWRITE=1`, then read the difference.
//!
//! ```text
//! nodes 1 2 3 [entries=4 bytes=1000 appends=2 window=10000]   boots new nodes
//!   [commits=half]            of an even number
//!   [lease=80] [hibernate=500]    milliseconds; else there are none
//!   [learners=4] [joins=5]    a learner from the beginning; a node that knows of nobody
//! boot 1 voters=1,2,3 term=2 vote=1 commit=3 log=1,1,2 [floor=2.5] [snapshot=1,1]
//! start 1 term=2 ...          the same, at this very moment: it may owe somebody something
//! crash 1                     loses what isn't durable, starts from the disk
//! advance 50                  milliseconds
//! tick 1 / timeout 1          a tick now / when it wants one
//! propose 1 3 [48]            three entries of 48 bytes
//! deliver 1->2 [n] / drop 1->2 [n] / stash 1->2 name / hand name
//! persist 1 [n]               the oldest n batches are durable, or all
//! read 1 7 / flush 1 / lease 1
//! stuck 1 / moves 1           its disk
//! resigned 2 1                2 hears that 1's disk is stuck
//! transfer 1 3 / transfer 1 best [unfit=3]    1 hands over to 3, or to who holds most
//! pause 1 / resume 1          it isn't to stand, or may again
//! damaged 1 / mended 1        1 finds rot in its log / has what it hit again
//! refill 1 2,2                1, started with less, has these behind it again
//! release 1 5                 1's snapshot covers 5, its log begins after it
//! install 3 1 5               3 loads 1's snapshot up to 5
//! needed 1                    what 1's owner should keep
//! wake 1 80                   what 1 rests on was heard 80 ms ago
//! linkup 1 2 / linkdown 1 2 / trim 1 5 / fetched 1 [n]   (the newest fetch)
//! members 1 at=3 voters=1,2,4 [learners=3,5] [held] [allow=majority,unready] [unfit=4]
//! commit 1 at=5 / abort 1 at=5                   a held change
//! complete 1                                     goes on from a joint configuration
//! elect 1 by 1,2 / settle 1,2 / beat 1 by 1,2    quiet
//! rest 1 by 1,2               beats until the group hibernates
//! state
//! ```

#[allow(dead_code, reason = "each test uses its part")]
mod cluster;

use cluster::{Cluster, Mail, heads, nodes};
use ringraft_raft::{
    Allow, Append, AppendOutcome, Change, Envelope, HardState, Input, Message, Output, Raft,
    Refusal, RoleKind, Token,
};
use ringraft_types::{Configuration, Index, LogId, NodeId, Term, Ticks};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

fn show_message(message: Message) -> String {
    match message {
        Message::PreVote { term, last } => format!("prevote t{term} last={last}"),
        Message::PreVoteReply { term, granted } => format!("prevote-reply t{term} {granted}"),
        Message::Vote { term, last, is_transfer } => {
            let transfer = if is_transfer { " transfer" } else { "" };
            format!("vote t{term} last={last}{transfer}")
        }
        Message::ReadAsk { term, question } => format!("read-ask t{term} q={}", question & 0xFFFF),
        Message::ReadAnswer { term, question, index } => {
            format!("read-answer t{term} q={} index={index}", question & 0xFFFF)
        }
        Message::TimeoutNow { term } => format!("timeout-now t{term}"),
        Message::VoteReply { term, granted } => format!("vote-reply t{term} {granted}"),
        Message::Append(Append { term, prev, commit, count }) => {
            format!("append t{term} prev={prev} +{count} commit={commit}")
        }
        Message::AppendReply { term, append_term, outcome, commit } => {
            let outcome = match outcome {
                AppendOutcome::Accepted { matched } => format!("accepted {matched}"),
                AppendOutcome::Rejected { prev, hint } => format!("rejected {prev} hint={hint}"),
            };
            format!("append-reply t{term} to=t{append_term} {outcome} commit={commit}")
        }
        Message::Install { term, base, commit } => {
            format!("install t{term} base={base} commit={commit}")
        }
        Message::Heartbeat { term, commit, round, hibernate } => {
            let rest = if hibernate { " hibernate" } else { "" };
            format!("heartbeat t{term} commit={commit} round={round}{rest}")
        }
        Message::HeartbeatReply { term, round, commit, hibernates } => {
            let rest = if hibernates { " hibernates" } else { "" };
            format!("heartbeat-reply t{term} round={round} commit={commit}{rest}")
        }
    }
}

/// The configuration in force, if it isn't the one that the group began with: its entry, with a
/// question mark while it isn't known to be committed; voters, outgoing voters, learners.
fn show_members(raft: &Raft) -> String {
    let (index, members) = (raft.configuration_index(), raft.configuration());
    if index == Index::ZERO {
        return String::new();
    }
    let list = |nodes: &[NodeId]| nodes.iter().map(|node| format!(" {node}")).collect::<String>();
    let mut text = list(members.voters());
    if members.is_joint() {
        text += &format!(" /{}", list(members.outgoing()));
    }
    if !members.learners().is_empty() {
        text += &format!(" +{}", list(members.learners()));
    }
    let mark = if raft.is_configuration_committed() { "" } else { "?" };
    format!(" members@{index}{mark} {:?}{text}", members.phase())
}

fn show_hard_state(hard_state: HardState) -> String {
    let vote = hard_state.vote.map_or("-".into(), |vote| vote.to_string());
    format!("hard t{} vote={vote} commit={}", hard_state.term, hard_state.commit)
}

fn show_envelope(text: &mut String, id: u32, envelope: Envelope, gate: Option<Token>) {
    let gate = gate.map_or(String::new(), |token| format!(" after #{}", token.0));
    let message = show_message(envelope.message);
    writeln!(text, "{id}->{}: {message}{gate}", envelope.to).expect("into a string");
}

/// One line for what is persisted, one per message, one for the rest.
fn show_output(id: u32, role: RoleKind, out: &Output) -> String {
    let mut text = String::new();
    if let Some(token) = out.token {
        let mut parts = Vec::new();
        parts.extend(out.truncate_from.map(|index| format!("truncate {index}..")));
        parts.extend(out.emptied.map(|base| format!("go on after {base}")));
        parts.extend(out.append.map(|span| format!("append {}..={}", span.first, span.last)));
        parts.extend(out.new_term_entry.map(|term| format!("new-term t{term}")));
        parts.extend(out.hard_state.map(show_hard_state));
        writeln!(text, "{id}: persist #{}: {}", token.0, parts.join(", ")).expect("into a string");
    }
    for envelope in &out.send_now {
        show_envelope(&mut text, id, *envelope, None);
    }
    for gated in &out.send_after_persist {
        show_envelope(&mut text, id, gated.envelope, Some(gated.token));
    }
    let mut parts = Vec::new();
    if out.role_changed {
        parts.push(format!("{role:?}"));
    }
    parts.extend(out.committed.map(|index| format!("commit {index}")));
    if out.completes {
        parts.push("to complete".into());
    }
    if out.repaired {
        parts.push("repaired".into());
    }
    parts.extend(out.reads.iter().map(|read| format!("read {} at {}", read.ticket, read.index)));
    parts.extend(out.reads_lost.iter().map(|ticket| format!("read {ticket} lost")));
    parts.extend(
        out.fetch
            .iter()
            .map(|fetch| format!("fetch {}..={} for {}", fetch.first, fetch.last, fetch.peer)),
    );
    parts.extend(out.install.map(|install| format!("wants {} of {}", install.base, install.from)));
    parts.extend(out.refused.map(|refusal| match refusal {
        Refusal::Busy => "busy".into(),
        Refusal::NotNow => "not now".into(),
        Refusal::Transferring => "transferring".into(),
        Refusal::NotLeader(hint) => {
            format!("not leader, hint={}", hint.map_or("-".into(), |id| id.to_string()))
        }
    }));
    if !parts.is_empty() {
        writeln!(text, "{id}: {}", parts.join(", ")).expect("into a string");
    }
    text
}

#[derive(Default)]
struct Runner {
    cluster: Option<Cluster>,
    stashed: BTreeMap<String, Mail>,
    shown: String,
}

fn ids(text: &str) -> Vec<u32> {
    text.split(',').filter(|part| !part.is_empty()).map(number).collect()
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text:?} isn't a number"))
}

fn link(text: &str) -> (u32, u32) {
    let (from, to) = text.split_once("->").expect("a link is written 1->2");
    (number(from), number(to))
}

impl Runner {
    fn cluster(&mut self) -> &mut Cluster {
        self.cluster.as_mut().expect("`nodes` or `boot` comes first")
    }

    fn show(&mut self, id: u32) {
        let cluster = self.cluster.as_ref().expect("it just stepped");
        self.shown += &show_output(id, cluster.raft(id).role(), &cluster.out);
    }

    fn step(&mut self, id: u32, input: Input<'_>) {
        self.cluster().step(id, input);
        self.show(id);
    }

    fn nodes(&mut self, words: &[&str]) {
        let (named, options): (Vec<&str>, Vec<&str>) =
            words.iter().copied().partition(|word| !word.contains('='));
        let voters: Vec<u32> = named.into_iter().map(number).collect();
        let mut cluster = Cluster::new(&voters);
        for option in options {
            let (key, value) = option.split_once('=').expect("it has one");
            match key {
                "entries" => cluster.settings.append_entries_max = number(value),
                "bytes" => cluster.settings.append_bytes_max = number(value),
                "appends" => cluster.settings.inflight_appends_max = number(value),
                "commits" => cluster.settings.commits_by_half = value == "half",
                "lease" => cluster.settings.lease = Ticks::from_millis(number(value)),
                "hibernate" => {
                    cluster.settings.hibernate_after = Ticks::from_millis(number(value));
                }
                "window" => cluster.settings.inflight_bytes_max = number(value),
                "learners" => {
                    let (voters, learners) = (nodes(&voters), nodes(&ids(value)));
                    cluster.first = Configuration::first(voters, learners).expect("sound");
                }
                "joins" => cluster.joins = ids(value),
                _ => panic!("no option {key}"),
            }
        }
        let learners = cluster.first.learners().iter().map(|node| node.0);
        for id in
            voters.into_iter().chain(learners).chain(cluster.joins.clone()).collect::<Vec<_>>()
        {
            cluster.boot(id, 0, None, 0, &[]);
        }
        self.cluster = Some(cluster);
    }

    fn boot(&mut self, id: u32, words: &[&str]) {
        let (mut hard_state, mut floor) = (HardState::default(), None);
        let (mut log, mut snapshot) = (Vec::new(), Vec::new());
        let terms = |value| heads(&ids(value).into_iter().map(u64::from).collect::<Vec<_>>());
        for word in words {
            let (key, value) = word.split_once('=').expect("key=value");
            match key {
                "voters" if self.cluster.is_none() => {
                    self.cluster = Some(Cluster::new(&ids(value)));
                }
                "voters" => {}
                "term" => hard_state.term = Term(number(value)),
                "vote" => hard_state.vote = Some(NodeId(number(value))),
                "commit" => hard_state.commit = Index(number(value)),
                "log" => log = terms(value),
                "snapshot" => snapshot = terms(value),
                "floor" => {
                    let (term, index) = value.split_once('.').expect("term.index");
                    floor = Some(LogId::new(Term(number(term)), Index(number(index))));
                }
                _ => panic!("no option {key}"),
            }
        }
        self.cluster().boot_with(id, hard_state, &log, &snapshot, floor);
    }

    /// Asks for a change of members, and shows what becomes of it.
    fn change(&mut self, id: u32, words: &[&str]) {
        let (mut at, mut is_held, mut allow) = (0, false, Allow::default());
        let (mut voters, mut learners, mut unfit) = (Vec::new(), Vec::new(), Vec::new());
        for word in &words[1..] {
            match word.split_once('=').unwrap_or((word, "")) {
                ("at", value) => at = number(value),
                ("voters", value) => voters = nodes(&ids(value)),
                ("learners", value) => learners = nodes(&ids(value)),
                ("unfit", value) => unfit = nodes(&ids(value)),
                ("allow", value) => {
                    allow.majority = value.contains("majority");
                    allow.unready = value.contains("unready");
                }
                ("held", "") => is_held = true,
                _ => panic!("no option {word}"),
            }
        }
        let change = match words[0] {
            "commit" => Change::Commit,
            "abort" => Change::Abort,
            _ => Change::To { voters: &voters, learners: &learners, is_held, allow, unfit: &unfit },
        };
        match self.cluster().change(id, at, change) {
            Ok(()) if self.cluster().out.append.is_none() => {
                self.shown += &format!("{id}: done already\n");
            }
            Ok(()) => self.show(id),
            Err(refused) => self.shown += &format!("{id}: refused, {refused}\n"),
        }
    }

    /// Asks a leader to hand over, and shows what becomes of it.
    fn transfer(&mut self, id: u32, words: &[&str]) {
        let to = (words[0] != "best").then(|| NodeId(number(words[0])));
        let unfit = words.get(1).map_or(Vec::new(), |word| {
            nodes(&ids(word.strip_prefix("unfit=").expect("the only option")))
        });
        let now = self.cluster().now;
        match self.cluster().raft(id).transfer_target(now, to, &unfit) {
            Ok(to) => {
                self.shown += &format!("{id}: hands over to {to}\n");
                self.step(id, Input::Transfer { to });
            }
            Err(refused) => self.shown += &format!("{id}: refused, {refused}\n"),
        }
    }

    fn command(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let count = |position: usize| words.get(position).map_or(usize::MAX, |word| number(word));
        match words[0] {
            "nodes" => self.nodes(&words[1..]),
            "boot" => self.boot(number(words[1]), &words[2..]),
            "crash" => self.cluster().crash(number(words[1])),
            "advance" => self.cluster().advance(number(words[1])),
            "tick" => self.step(number(words[1]), Input::Tick),
            "timeout" => {
                let id = number(words[1]);
                self.cluster().timeout(id);
                self.show(id);
            }
            "propose" => {
                let bytes = words.get(3).map_or(48, |word| number(word));
                let bytes = vec![bytes; count(2)];
                self.step(number(words[1]), Input::Propose { bytes: &bytes });
            }
            "deliver" => {
                let (from, to) = link(words[1]);
                let under_way = self.cluster().links.get(&(from, to)).map_or(0, |link| link.len());
                for _ in 0..under_way.min(count(2)) {
                    let mail = self.cluster().take(from, to).expect("counted");
                    self.cluster().hand(&mail);
                    self.show(to);
                }
            }
            "drop" => {
                let (from, to) = link(words[1]);
                let under_way = self.cluster().links.get(&(from, to)).map_or(0, |link| link.len());
                for _ in 0..under_way.min(count(2)) {
                    self.cluster().take(from, to);
                }
            }
            "stash" => {
                let (from, to) = link(words[1]);
                let mail = self.cluster().take(from, to).expect("nothing is under way");
                self.stashed.insert(words[2].to_string(), mail);
            }
            "hand" => {
                let mail = self.stashed[words[1]].clone();
                self.cluster().hand(&mail);
                self.show(mail.to);
            }
            "persist" => {
                let id = number(words[1]);
                let mut left = count(2);
                while left > 0 && self.cluster().persist_one(id) {
                    self.show(id);
                    left -= 1;
                }
            }
            "read" => self.step(number(words[1]), Input::Read { ticket: number(words[2]) }),
            "lease" => {
                let id = number(words[1]);
                let now = self.cluster().now;
                let index = self.cluster().raft(id).lease_index(now);
                let text = index.map_or("no lease".into(), |index| format!("reads at {index}"));
                self.shown += &format!("{id}: {text}\n");
            }
            "start" => {
                self.cluster().is_fresh = true;
                self.boot(number(words[1]), &words[2..]);
                self.cluster().is_fresh = false;
            }
            "flush" => {
                let id = number(words[1]);
                self.cluster().flush(id);
                self.show(id);
            }
            "transfer" => self.transfer(number(words[1]), &words[2..]),
            "pause" => self.step(number(words[1]), Input::Paused(true)),
            "resume" => self.step(number(words[1]), Input::Paused(false)),
            "linkup" => self.step(number(words[1]), Input::LinkUp(NodeId(number(words[2])))),
            "linkdown" => self.step(number(words[1]), Input::LinkDown(NodeId(number(words[2])))),
            "wake" => {
                let heard_at = self.cluster().now.since(Ticks::from_millis(number(words[2])));
                self.step(number(words[1]), Input::Wake { heard_at });
            }
            "damaged" => self.step(number(words[1]), Input::Damaged),
            "mended" => self.step(number(words[1]), Input::Mended),
            "refill" => {
                let id = number(words[1]);
                let terms: Vec<u64> = ids(words[2]).into_iter().map(u64::from).collect();
                self.cluster().refill(id, &terms);
                self.show(id);
            }
            "stuck" => self.step(number(words[1]), Input::DiskStuck(true)),
            "moves" => self.step(number(words[1]), Input::DiskStuck(false)),
            "resigned" => self.step(number(words[1]), Input::Resigned(NodeId(number(words[2])))),
            "release" => {
                let id = number(words[1]);
                self.cluster().release(id, number(words[2]));
                self.show(id);
            }
            "install" => {
                let id = number(words[1]);
                self.cluster().install(id, number(words[2]), number(words[3]));
                self.show(id);
            }
            "needed" => {
                let id = number(words[1]);
                let needed = self.cluster().raft(id).needed_from();
                self.shown += &format!("{id}: needed from {needed}\n");
            }
            "trim" => {
                let first = Index(number(words[2]));
                self.step(number(words[1]), Input::Trimmed { first });
            }
            "fetched" => {
                let id = number(words[1]);
                let node = self.cluster().nodes.get_mut(&id).expect("booted");
                let fetch = node.fetch.pop_back().expect("nothing was asked");
                let held = &node.log[fetch.first.0 as usize - 1..fetch.last.0 as usize];
                let heads = held[..held.len().min(count(2))].to_vec();
                let (peer, first) = (fetch.peer, fetch.first);
                self.step(id, Input::Fetched { peer, first, heads: &heads });
            }
            "members" | "commit" | "abort" => {
                let words: Vec<&str> = [&words[..1], &words[2..]].concat();
                self.change(number(line.split_whitespace().nth(1).expect("a node")), &words);
            }
            "complete" => {
                let id = number(words[1]);
                match self.cluster().complete(id) {
                    true => self.show(id),
                    false => self.shown += &format!("{id}: nothing to complete\n"),
                }
            }
            "elect" => self.cluster().elect(number(words[1]), &ids(words[3])),
            "settle" => self.cluster().settle(&ids(words[1])),
            "beat" => self.cluster().beat(number(words[1]), &ids(words[3])),
            "rest" => {
                let (id, ids) = (number(words[1]), ids(words[3]));
                (0..100).for_each(|_| self.cluster().beat(id, &ids));
                assert!(self.cluster().raft(id).hibernates(), "{id} doesn't");
            }
            "state" => self.state(),
            command => panic!("no command {command}"),
        }
    }

    fn state(&mut self) {
        let cluster = self.cluster.as_ref().expect("`nodes` or `boot` comes first");
        for (id, node) in &cluster.nodes {
            let raft = &node.raft;
            let leader = raft.leader().map_or("-".into(), |leader| leader.to_string());
            let held = &cluster.terms(*id)[raft.base().index.0 as usize..];
            let log: Vec<String> = held.iter().map(u64::to_string).collect();
            let base = match raft.base() {
                LogId::ZERO => String::new(),
                base => format!(" base={base}"),
            };
            let line = format!(
                "{id}: {:?} t{} leader={leader} commit={} persisted={}{base} log=[{}]{}\n",
                raft.role(),
                raft.term(),
                raft.commit(),
                raft.persisted(),
                log.join(" "),
                show_members(raft),
            );
            self.shown += &line;
        }
    }
}

/// Runs one file; gives it back with what really came out.
fn run(text: &str) -> String {
    let mut runner = Runner::default();
    let mut result = String::new();
    let mut is_expected = false;
    for line in text.lines().chain([""]) {
        if line.is_empty() {
            if is_expected {
                result += &std::mem::take(&mut runner.shown);
                is_expected = false;
            }
            assert!(runner.shown.is_empty(), "a case without dashes has no output to say");
            result += "\n";
        } else if line == "----" {
            is_expected = true;
            result += "----\n";
        } else if !is_expected {
            result += line;
            result += "\n";
            if !line.starts_with('#') {
                println!("  {line}");
                runner.command(line);
            }
        }
    }
    result.trim_end().to_string() + "\n"
}

/// Every transcript comes out as written.
#[test]
fn transcripts_come_out_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let entries = std::fs::read_dir(&folder).expect("the folder is there");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    assert!(paths.len() >= 15, "transcripts are missing");
    let mut differing = Vec::new();
    for path in paths {
        let expected = std::fs::read_to_string(&path).expect("readable");
        println!("{}", path.display());
        let found = run(&expected);
        if found == expected {
            continue;
        }
        if std::env::var_os("RINGRAFT_REWRITE").is_some() {
            std::fs::write(&path, found).expect("writable");
            continue;
        }
        let lines = expected.lines().zip(found.lines());
        let first = lines.enumerate().find(|(_, (old, new))| old != new);
        differing.push(format!("{}: {first:?}", path.display()));
    }
    assert!(differing.is_empty(), "RINGRAFT_REWRITE=1 rewrites:\n{}", differing.join("\n"));
}
