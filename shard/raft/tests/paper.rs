//! A test per sentence of the Raft paper's figure 2 and its safety rules, with the section of
//! the thesis ("Consensus: Bridging Theory and Practice", 2014) that says the same; and the
//! acceptance scenarios A01 to A04 and A09.

#[allow(dead_code, reason = "each test uses its part")]
mod cluster;

use cluster::{Cluster, Mail, heads};
use ringraft_raft::{Append, AppendOutcome, Input, Message, Refusal, RoleKind};
use ringraft_types::{Index, LogId, NodeId, Term, Ticks};

const ALL: [u32; 3] = [1, 2, 3];

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

/// Node 1 leads nodes 2 and 3 in term 1; everybody has its first entry.
fn led() -> Cluster {
    let mut cluster = Cluster::started(&ALL);
    cluster.elect(1, &ALL);
    assert_eq!(cluster.raft(1).role(), RoleKind::Leader);
    cluster
}

fn mail(from: u32, to: u32, message: Message) -> Mail {
    Mail { from, to, message, heads: Vec::new() }
}

fn append(from: u32, to: u32, term: u64, prev: LogId, commit: u64, terms: &[u64]) -> Mail {
    let count = terms.len() as u32;
    let append = Append { term: Term(term), prev, commit: Index(commit), count };
    Mail { from, to, message: Message::Append(append), heads: heads(terms) }
}

fn vote(from: u32, to: u32, term: u64, last: LogId) -> Mail {
    mail(from, to, Message::Vote { term: Term(term), last, is_transfer: false })
}

/// Hands a message to a node, makes it durable, and takes its only answer.
fn ask(cluster: &mut Cluster, mail: &Mail) -> Message {
    cluster.drop_link(mail.to, mail.from);
    cluster.hand(mail);
    cluster.persist(mail.to);
    cluster.take(mail.to, mail.from).expect("an answer").message
}

fn is_vote(message: Message, expected: bool) -> bool {
    matches!(message, Message::VoteReply { granted, .. } if granted == expected)
}

fn outcome(message: Message) -> AppendOutcome {
    match message {
        Message::AppendReply { outcome, .. } => outcome,
        other => panic!("{other:?} answers no append"),
    }
}

fn accepted(index: u64) -> AppendOutcome {
    AppendOutcome::Accepted { matched: Index(index) }
}

// ---- Figure 2, "State" ----

/// "Updated on stable storage before responding to RPCs." (3.8)
#[test]
fn nothing_is_promised_before_it_is_durable() {
    let mut cluster = Cluster::started(&ALL);
    cluster.hand(&vote(2, 1, 1, LogId::ZERO));
    assert!(cluster.out.send_now.is_empty());
    assert_eq!(cluster.out.send_after_persist[0].token, cluster.out.token.expect("persists"));
    cluster.hand(&append(2, 1, 1, LogId::ZERO, 0, &[1]));
    assert!(cluster.out.send_now.is_empty());
    assert_eq!(cluster.out.send_after_persist[0].token, cluster.out.token.expect("persists"));
}

/// "commitIndex: index of highest log entry known to be committed (increases monotonically)."
#[test]
fn commit_never_goes_back() {
    let mut cluster = led();
    cluster.hand(&append(1, 2, 1, id(1, 1), 1, &[1]));
    cluster.hand(&append(1, 2, 1, id(1, 1), 0, &[1]));
    let old = Message::Heartbeat { term: Term(1), commit: Index(0), round: 0, hibernate: false };
    cluster.hand(&mail(1, 2, old));
    assert_eq!(cluster.raft(2).commit(), Index(1));
}

// ---- Figure 2, "AppendEntries RPC", receiver ----

/// "1. Reply false if term < currentTerm."
#[test]
fn an_append_of_an_old_term_is_refused() {
    let mut cluster = Cluster::new(&ALL);
    cluster.boot(1, 5, None, 0, &[1]);
    let reply = ask(&mut cluster, &append(2, 1, 4, id(1, 1), 1, &[4]));
    assert!(matches!(outcome(reply), AppendOutcome::Rejected { .. }));
    assert!(matches!(reply, Message::AppendReply { term: Term(5), append_term: Term(4), .. }));
    assert_eq!((cluster.terms(1), cluster.raft(1).leader()), (vec![1], None));
}

/// "2. Reply false if log doesn't contain an entry at prevLogIndex whose term matches
/// prevLogTerm." The hint is the newest entry that may agree.
#[test]
fn an_append_after_an_unknown_entry_is_refused() {
    let mut cluster = Cluster::new(&ALL);
    cluster.boot(1, 4, None, 0, &[1, 1, 2, 4]);
    let refused = |prev: u64, hint| AppendOutcome::Rejected { prev: Index(prev), hint };
    let reply = ask(&mut cluster, &append(2, 1, 5, id(5, 9), 0, &[5]));
    assert_eq!(outcome(reply), refused(9, id(4, 4)));
    let reply = ask(&mut cluster, &append(2, 1, 5, id(3, 4), 0, &[5]));
    assert_eq!(outcome(reply), refused(4, id(2, 3)));
    assert_eq!(cluster.terms(1), [1, 1, 2, 4]);
}

/// "3. If an existing entry conflicts with a new one (same index but different terms), delete
/// the existing entry and all that follow it. 4. Append any new entries not already in the log."
#[test]
fn conflicting_entries_give_way() {
    let mut cluster = Cluster::new(&ALL);
    cluster.boot(1, 3, None, 1, &[1, 1, 2, 2, 3]);
    cluster.hand(&append(2, 1, 4, id(1, 1), 0, &[1, 2, 4, 4]));
    assert_eq!(cluster.out.truncate_from, Some(Index(4)));
    let span = cluster.out.append.expect("two new entries");
    assert_eq!((span.first, span.last), (Index(4), Index(5)));
    assert_eq!(cluster.terms(1), [1, 1, 2, 4, 4]);
}

/// The same, with nothing in conflict: an old, shorter append removes nothing. (R05)
#[test]
fn duplicates_remove_nothing() {
    let mut cluster = Cluster::new(&ALL);
    cluster.boot(1, 3, None, 1, &[1, 1, 3, 3]);
    let reply = ask(&mut cluster, &append(2, 1, 3, id(1, 1), 0, &[1]));
    assert_eq!(outcome(reply), accepted(2));
    assert_eq!(cluster.terms(1), [1, 1, 3, 3]);
    assert!(cluster.out.truncate_from.is_none() && cluster.out.token.is_none());
}

/// "5. If leaderCommit > commitIndex, set commitIndex = min(leaderCommit, index of last new
/// entry)." What lies after it may be another leader's.
#[test]
fn commit_goes_no_further_than_what_was_compared() {
    let mut cluster = Cluster::new(&ALL);
    cluster.boot(1, 3, None, 0, &[1, 1, 3, 3]);
    cluster.hand(&append(2, 1, 4, id(1, 1), 4, &[1]));
    assert_eq!(cluster.out.committed, Some(Index(2)));
    cluster.hand(&append(2, 1, 4, id(1, 2), 3, &[4, 4]));
    assert_eq!(cluster.out.committed, Some(Index(3)));
}

// ---- Figure 2, "RequestVote RPC", receiver ----

/// "1. Reply false if term < currentTerm."
#[test]
fn a_vote_in_an_old_term_is_refused() {
    let mut cluster = Cluster::new(&ALL);
    cluster.boot(1, 5, None, 0, &[]);
    let reply = ask(&mut cluster, &vote(2, 1, 4, id(4, 9)));
    assert_eq!(reply, Message::VoteReply { term: Term(5), granted: false });
}

/// "2. If votedFor is null or candidateId, ... grant vote": first come, first served, and the
/// same again to the same. (3.4)
#[test]
fn one_vote_per_term() {
    let mut cluster = Cluster::started(&ALL);
    assert!(is_vote(ask(&mut cluster, &vote(2, 1, 1, LogId::ZERO)), true));
    assert!(is_vote(ask(&mut cluster, &vote(3, 1, 1, LogId::ZERO)), false));
    assert!(is_vote(ask(&mut cluster, &vote(2, 1, 1, LogId::ZERO)), true));
    cluster.crash(1);
    assert!(is_vote(ask(&mut cluster, &vote(3, 1, 1, LogId::ZERO)), false));
    assert!(is_vote(ask(&mut cluster, &vote(2, 1, 1, LogId::ZERO)), true));
    assert!(is_vote(ask(&mut cluster, &vote(3, 1, 2, LogId::ZERO)), true));
}

/// "... and candidate's log is at least as up-to-date as receiver's log": the later last term,
/// then the longer. (3.6.1)
#[test]
fn votes_go_to_logs_as_up_to_date() {
    let grants = |last| {
        let mut cluster = Cluster::new(&ALL);
        cluster.boot(1, 3, None, 0, &[1, 3, 3]);
        is_vote(ask(&mut cluster, &vote(2, 1, 4, last)), true)
    };
    assert!(grants(id(3, 3)) && grants(id(3, 4)) && grants(id(4, 1)));
    assert!(!grants(id(3, 2)) && !grants(id(2, 9)));
}

/// A refused candidate's newer term is adopted all the same; a pre-candidate's is not. (9.6)
#[test]
fn a_vote_raises_the_term_and_a_pre_vote_does_not() {
    let mut cluster = Cluster::new(&ALL);
    cluster.boot(1, 3, None, 0, &[3]);
    let pre_vote = Message::PreVote { term: Term(9), last: id(2, 1) };
    let reply = ask(&mut cluster, &mail(2, 1, pre_vote));
    assert_eq!(reply, Message::PreVoteReply { term: Term(3), granted: false });
    let pre_vote = Message::PreVote { term: Term(9), last: id(3, 1) };
    let reply = ask(&mut cluster, &mail(2, 1, pre_vote));
    assert_eq!(reply, Message::PreVoteReply { term: Term(9), granted: true });
    assert_eq!(cluster.raft(1).term(), Term(3));
    assert!(is_vote(ask(&mut cluster, &vote(2, 1, 9, id(2, 1))), false));
    assert_eq!(cluster.raft(1).term(), Term(9));
}

/// A candidate outside the configuration gets a vote like any other: the voter may not know yet
/// that it is a member. (4.2.2) While there is a leader it gets no answer. (4.2.3, EL-06)
#[test]
fn outsiders_are_judged_by_their_logs() {
    let mut cluster = Cluster::new(&ALL);
    cluster.boot(1, 3, None, 0, &[3, 3]);
    let pre_vote = |last| mail(9, 1, Message::PreVote { term: Term(7), last });
    let reply = ask(&mut cluster, &pre_vote(id(3, 2)));
    assert_eq!(reply, Message::PreVoteReply { term: Term(7), granted: true });
    let reply = ask(&mut cluster, &pre_vote(id(3, 1)));
    assert_eq!(reply, Message::PreVoteReply { term: Term(3), granted: false });
    assert!(is_vote(ask(&mut cluster, &vote(9, 1, 4, id(3, 1))), false));
    assert!(is_vote(ask(&mut cluster, &vote(9, 1, 5, id(3, 2))), true));
    let mut cluster = led();
    for node in [1, 2] {
        let term = cluster.raft(node).term();
        cluster.hand(&vote(9, node, 7, id(6, 6)));
        assert!(cluster.out.send_now.is_empty() && cluster.out.send_after_persist.is_empty());
        assert_eq!(cluster.raft(node).term(), term);
    }
}

/// What an outsider answers deposes nobody, whatever its term. (4.2.3, M06)
#[test]
fn outsiders_depose_nobody() {
    let reply = AppendOutcome::Rejected { prev: Index(1), hint: LogId::ZERO };
    let (term, commit) = (Term(8), Index(0));
    for message in [
        Message::PreVoteReply { term, granted: false },
        Message::VoteReply { term, granted: false },
        Message::AppendReply { term, append_term: Term(1), outcome: reply, commit },
        Message::HeartbeatReply { term, round: 0, commit, hibernates: false },
    ] {
        let mut cluster = led();
        cluster.hand(&mail(9, 1, message));
        assert_eq!((cluster.raft(1).role(), cluster.raft(1).term()), (RoleKind::Leader, Term(1)));
    }
}

// ---- Figure 2, "Rules for Servers" ----

/// All servers: "If RPC request or response contains term T > currentTerm: set currentTerm = T,
/// convert to follower."
#[test]
fn a_newer_term_makes_a_follower() {
    let reply = AppendOutcome::Rejected { prev: Index(1), hint: LogId::ZERO };
    let (term, commit) = (Term(8), Index(0));
    for message in [
        Message::PreVoteReply { term, granted: false },
        Message::VoteReply { term, granted: false },
        Message::AppendReply { term, append_term: Term(1), outcome: reply, commit },
        Message::HeartbeatReply { term, round: 0, commit, hibernates: false },
        Message::Heartbeat { term, commit, round: 0, hibernate: false },
    ] {
        let mut cluster = led();
        cluster.hand(&mail(2, 1, message));
        assert_eq!((cluster.raft(1).role(), cluster.raft(1).term()), (RoleKind::Follower, term));
        assert_eq!(cluster.out.hard_state.expect("persisted").term, term);
    }
}

/// Followers: "If election timeout elapses without receiving AppendEntries RPC from current
/// leader or granting vote to candidate: convert to candidate." (3.4)
#[test]
fn silence_begins_an_election() {
    let mut cluster = led();
    let heard = cluster.now;
    cluster.beat(1, &ALL);
    let wake_at = cluster.raft(2).wake_at();
    let timeout = cluster.settings.election_timeout;
    assert!(wake_at >= cluster.now.after(timeout) && cluster.now > heard);
    assert!(wake_at < cluster.now.after(Ticks(timeout.0 * 2)));
    cluster.now = Ticks(wake_at.0 - 1);
    cluster.tick(2);
    assert_eq!(cluster.raft(2).role(), RoleKind::Follower);
    cluster.timeout(2);
    assert_eq!(cluster.raft(2).role(), RoleKind::PreCandidate);
    assert_eq!(cluster.raft(2).leader(), None);
}

/// Candidates: "Increment currentTerm, vote for self", and only once that is durable "send
/// RequestVote RPCs to all other servers" and count it. (3.4, 3.8)
#[test]
fn a_candidate_persists_its_own_vote_first() {
    let mut cluster = Cluster::started(&ALL);
    cluster.timeout(1);
    let granted = Message::PreVoteReply { term: Term(1), granted: true };
    cluster.hand(&mail(2, 1, granted));
    let hard_state = cluster.out.hard_state.expect("a new term");
    assert_eq!((hard_state.term, hard_state.vote), (Term(1), Some(NodeId(1))));
    assert_eq!(cluster.out.send_after_persist.len(), 2);
    assert!(cluster.out.send_now.is_empty());
    let granted = Message::VoteReply { term: Term(1), granted: true };
    cluster.hand(&mail(2, 1, granted));
    assert_eq!(cluster.raft(1).role(), RoleKind::Candidate);
    cluster.persist(1);
    assert_eq!(cluster.raft(1).role(), RoleKind::Leader);
}

/// Candidates: "If votes received from majority of servers: become leader"; the same voter twice
/// is no majority, nor is a vote of another term. (3.4)
#[test]
fn a_majority_elects() {
    let five = [1, 2, 3, 4, 5];
    let mut cluster = Cluster::started(&five);
    cluster.timeout(1);
    let pre = Message::PreVoteReply { term: Term(1), granted: true };
    for from in [2, 2, 9] {
        cluster.hand(&mail(from, 1, pre));
    }
    assert_eq!(cluster.raft(1).role(), RoleKind::PreCandidate);
    cluster.hand(&mail(3, 1, pre));
    cluster.persist(1);
    assert_eq!(cluster.raft(1).role(), RoleKind::Candidate);
    let vote = |term, granted| Message::VoteReply { term: Term(term), granted };
    for (from, vote) in [(2, vote(1, true)), (2, vote(1, true)), (3, vote(0, true))] {
        cluster.hand(&mail(from, 1, vote));
    }
    cluster.hand(&mail(4, 1, vote(1, false)));
    assert_eq!(cluster.raft(1).role(), RoleKind::Candidate);
    cluster.hand(&mail(5, 1, vote(1, true)));
    assert_eq!(cluster.raft(1).role(), RoleKind::Leader);
}

/// Candidates: "If AppendEntries RPC received from new leader: convert to follower."
#[test]
fn a_candidate_gives_way_to_its_terms_leader() {
    let mut cluster = Cluster::started(&ALL);
    cluster.timeout(1);
    cluster.hand(&mail(2, 1, Message::PreVoteReply { term: Term(1), granted: true }));
    cluster.hand(&append(3, 1, 1, LogId::ZERO, 0, &[1]));
    assert_eq!(cluster.raft(1).role(), RoleKind::Follower);
    assert_eq!(cluster.raft(1).leader(), Some(NodeId(3)));
}

/// Leaders: "Upon election: send initial AppendEntries RPCs to each server", with an entry of
/// the new term (6.4); "repeat during idle periods to prevent election timeouts."
#[test]
fn a_leader_makes_itself_heard() {
    let mut cluster = Cluster::started(&ALL);
    cluster.timeout(1);
    cluster.hand(&mail(2, 1, Message::PreVoteReply { term: Term(1), granted: true }));
    cluster.persist(1);
    cluster.hand(&mail(2, 1, Message::VoteReply { term: Term(1), granted: true }));
    assert_eq!(cluster.out.new_term_entry, Some(Term(1)));
    assert_eq!(cluster.out.send_now.len(), 2);
    cluster.timeout(1);
    let beats = cluster.out.send_now.iter();
    let beats = beats.filter(|one| matches!(one.message, Message::Heartbeat { .. }));
    assert_eq!(beats.count(), 2);
}

/// Leaders: "If command received from client: append entry to local log", in parallel to the
/// followers (10.2.1); others refuse and name the leader.
#[test]
fn proposals_go_to_disk_and_followers_at_once() {
    let mut cluster = led();
    cluster.propose(1, &[48, 56]);
    assert_eq!(cluster.out.append.expect("two entries").count(), 2);
    assert_eq!(cluster.out.send_now.len(), 2);
    cluster.propose(2, &[48]);
    assert_eq!(cluster.out.refused, Some(Refusal::NotLeader(Some(NodeId(1)))));
    assert!(cluster.out.append.is_none());
}

/// Leaders: "If there exists an N such that N > commitIndex, a majority of matchIndex[i] >= N,
/// and log[N].term == currentTerm: set commitIndex = N." The leader's own disk counts only when
/// it is done (10.2.1), and isn't needed.
#[test]
fn a_majority_of_disks_commits() {
    let mut cluster = led();
    cluster.propose(1, &[48]);
    cluster.deliver(1, 2);
    cluster.persist(2);
    cluster.deliver(2, 1);
    assert_eq!(cluster.raft(1).commit(), Index(1));
    cluster.deliver(1, 3);
    cluster.persist(3);
    cluster.deliver(3, 1);
    assert_eq!((cluster.raft(1).commit(), cluster.raft(1).persisted()), (Index(2), Index(1)));
}

/// Figure 8: an entry of an older term isn't committed by counting, only along with one of the
/// own term. (3.6.2, R03)
#[test]
fn older_terms_are_not_committed_by_counting() {
    let five = [1, 2, 3, 4, 5];
    let mut cluster = Cluster::new(&five);
    cluster.settings.append_entries_max = 1;
    for (node, log) in [(1, &[1, 2][..]), (2, &[1, 2]), (3, &[1]), (4, &[1]), (5, &[1, 3])] {
        cluster.boot(node, 3, Some(5), 1, log);
    }
    // (c): node 1 leads again, in term 4, and sends its entry of term 2 to node 3, not its own.
    cluster.now = cluster.now.after(Ticks::from_millis(300));
    cluster.tick(1);
    for _ in 0..3 {
        for peer in [2, 3] {
            cluster.deliver(1, peer);
            cluster.persist(peer);
            cluster.deliver(peer, 1);
            if cluster.raft(1).role() == RoleKind::Candidate {
                cluster.persist(1);
            }
        }
    }
    assert_eq!((cluster.raft(1).role(), cluster.raft(1).term()), (RoleKind::Leader, Term(4)));
    let reply = |matched| Message::AppendReply {
        term: Term(4),
        append_term: Term(4),
        outcome: accepted(matched),
        commit: Index(1),
    };
    let held = cluster.raft(1).commit();
    assert_eq!(held, Index(1));
    cluster.hand(&mail(2, 1, reply(2)));
    cluster.hand(&mail(3, 1, reply(2)));
    assert_eq!(cluster.raft(1).commit(), Index(1), "a majority holds index 2, of term 2");
    // (e): an entry of term 4 on a majority commits both.
    cluster.persist(1);
    cluster.hand(&mail(2, 1, reply(3)));
    assert_eq!(cluster.raft(1).commit(), Index(1));
    cluster.hand(&mail(3, 1, reply(3)));
    assert_eq!(cluster.raft(1).commit(), Index(3));
}

/// "If AppendEntries fails because of log inconsistency: decrement nextIndex and retry", here by
/// whole terms, from both sides. (3.5)
#[test]
fn logs_are_brought_to_agree() {
    let mut cluster = Cluster::new(&ALL);
    cluster.boot(1, 6, None, 0, &[1, 1, 4, 4, 5, 5, 6, 6]);
    cluster.boot(2, 6, None, 0, &[1, 1, 2, 2, 2, 3, 3, 3, 3]);
    cluster.boot(3, 6, None, 0, &[1]);
    cluster.elect(1, &[1, 2, 3]);
    while let Some(fetch) = cluster.nodes.get_mut(&1).expect("booted").fetch.pop_front() {
        let held = fetch.first.0 as usize - 1..fetch.last.0 as usize;
        let heads = cluster.nodes[&1].log[held].to_vec();
        let (peer, first) = (fetch.peer, fetch.first);
        cluster.step(1, Input::Fetched { peer, first, heads: &heads });
        cluster.settle(&ALL);
    }
    cluster.beat(1, &ALL);
    for node in ALL {
        assert_eq!(cluster.terms(node), [1, 1, 4, 4, 5, 5, 6, 6, 7], "node {node}");
        assert_eq!(cluster.raft(node).commit(), Index(9), "node {node}");
    }
    assert!(cluster.raft(1).peers_progress().all(|(_, matched, _)| matched == Index(9)));
}

// ---- Beyond figure 2 ----

/// A heartbeat answers for the leader, not for entries: it moves nothing that is matched, and
/// commits no further than that. (A10)
#[test]
fn a_heartbeat_matches_nothing() {
    let mut cluster = led();
    cluster.isolate(3);
    cluster.propose(1, &[48]);
    cluster.drop_link(1, 3);
    cluster.settle(&[1, 2]);
    cluster.timeout(1);
    cluster.deliver(1, 3);
    cluster.deliver(3, 1);
    assert_eq!(cluster.raft(1).commit(), Index(2));
    assert_eq!(cluster.raft(3).commit(), Index(1));
    let matched = cluster.raft(1).peers_progress().map(|(_, matched, _)| matched);
    assert_eq!(matched.collect::<Vec<_>>(), [Index(2), Index(1)]);
}

/// A node that isn't a voter never stands for election, but votes. (M05)
#[test]
fn a_node_outside_the_voters_never_campaigns() {
    let mut cluster = Cluster::new(&ALL);
    cluster.boot(9, 0, None, 0, &[]);
    assert_eq!(cluster.raft(9).wake_at(), Ticks::NEVER);
    cluster.advance(10_000);
    cluster.tick(9);
    assert_eq!(cluster.raft(9).role(), RoleKind::Follower);
    assert!(is_vote(ask(&mut cluster, &vote(2, 9, 1, LogId::ZERO)), true));
}

/// A slow disk delays an election, it doesn't make it begin again and again.
#[test]
fn a_candidate_waits_for_its_disk() {
    let mut cluster = Cluster::started(&[1]);
    cluster.tick(1);
    for _ in 0..10 {
        cluster.timeout(1);
        assert_eq!(
            (cluster.raft(1).role(), cluster.raft(1).term()),
            (RoleKind::Candidate, Term(1))
        );
    }
    cluster.persist(1);
    assert_eq!(cluster.raft(1).role(), RoleKind::Leader);
}

/// Entries read back from the log may be an older log's by the time they come: those aren't sent.
#[test]
fn fetched_entries_are_compared_with_the_log() {
    let mut cluster = Cluster::new(&[1, 2]);
    cluster.boot(1, 3, None, 0, &[1, 2, 3]);
    cluster.boot(2, 3, None, 0, &[1]);
    cluster.elect(1, &[1, 2]);
    let fetch = cluster.nodes[&1].fetch[0];
    assert_eq!((fetch.first, fetch.last), (Index(2), Index(3)));
    let (peer, first) = (fetch.peer, fetch.first);
    let is_sent = |cluster: &Cluster| {
        let mut sent = cluster.out.send_now.iter();
        sent.any(|one| matches!(one.message, Message::Append(Append { count: 1.., .. })))
    };
    cluster.step(1, Input::Fetched { peer, first: Index(1), heads: &heads(&[1]) });
    assert!(!is_sent(&cluster), "not what was asked");
    cluster.step(1, Input::Fetched { peer, first, heads: &heads(&[1, 1]) });
    assert!(!is_sent(&cluster), "not this log's any more");
    cluster.beat(1, &[1, 2]);
    cluster.step(1, Input::Fetched { peer, first, heads: &heads(&[2, 3]) });
    assert!(is_sent(&cluster));
}

// ---- Acceptance scenarios ----

/// A01: what a majority held when the leader died is committed by the next one, with an entry of
/// its own term.
#[test]
fn a01_replicated_entries_survive_their_leader() {
    let mut cluster = led();
    cluster.propose(1, &[48]);
    cluster.deliver(1, 2);
    cluster.persist(2);
    cluster.isolate(1);
    assert_eq!(cluster.raft(1).commit(), Index(1));
    cluster.elect(3, &[2, 3]);
    assert_ne!(cluster.raft(3).role(), RoleKind::Leader, "it lacks the entry");
    cluster.elect(2, &[2, 3]);
    assert_eq!(cluster.raft(2).role(), RoleKind::Leader);
    assert_eq!(cluster.terms(2)[..2], [1, 1]);
    assert_eq!(cluster.raft(2).commit(), cluster.raft(2).last());
    assert_eq!(cluster.terms(3), cluster.terms(2));
}

/// A02: a deposed leader's uncommitted entries go, from its disk too.
#[test]
fn a02_an_old_leaders_entries_give_way() {
    let mut cluster = led();
    cluster.propose(1, &[48; 3]);
    cluster.persist(1);
    cluster.isolate(1);
    assert_eq!(cluster.raft(1).persisted(), Index(4));
    cluster.elect(2, &[2, 3]);
    cluster.propose(2, &[48]);
    cluster.settle(&[2, 3]);
    assert_eq!(cluster.raft(2).commit(), Index(3));
    cluster.step(2, Input::LinkUp(NodeId(1)));
    cluster.settle(&ALL);
    assert_eq!(cluster.terms(1), [1, 2, 2]);
    assert_eq!(cluster.nodes[&1].disk.1.len(), 3);
    assert_eq!(cluster.raft(1).role(), RoleKind::Follower);
    assert!(cluster.raft(1).commit() <= Index(3));
}

/// A03: the longest log isn't the best one.
#[test]
fn a03_the_longest_log_may_not_win() {
    let mut cluster = Cluster::new(&ALL);
    cluster.boot(1, 3, None, 1, &[1, 1, 1, 1, 1, 1]);
    cluster.boot(2, 3, None, 1, &[1, 3]);
    cluster.boot(3, 3, None, 1, &[1, 3]);
    cluster.elect(1, &ALL);
    assert_eq!((cluster.raft(1).role(), cluster.raft(1).term()), (RoleKind::PreCandidate, Term(3)));
    cluster.elect(2, &ALL);
    cluster.step(2, Input::LinkUp(NodeId(1)));
    cluster.settle(&ALL);
    assert_eq!(cluster.raft(2).role(), RoleKind::Leader);
    assert_eq!(cluster.raft(1).leader(), Some(NodeId(2)));
}

/// A04: a node that was cut off comes back without raising anybody's term.
#[test]
fn a04_a_returning_node_changes_nothing() {
    let mut cluster = led();
    for _ in 0..20 {
        cluster.beat(1, &[1, 2]);
        cluster.tick(3);
        cluster.isolate(3);
    }
    assert_eq!(cluster.raft(3).role(), RoleKind::PreCandidate);
    cluster.tick(3);
    cluster.beat(1, &ALL);
    assert_eq!((cluster.raft(1).role(), cluster.raft(1).term()), (RoleKind::Leader, Term(1)));
    assert_eq!((cluster.raft(3).leader(), cluster.raft(3).term()), (Some(NodeId(1)), Term(1)));
}

/// A09: a vote that wasn't durable was never sent, so the voter may forget it.
#[test]
fn a09_a_crash_before_the_vote_is_durable_votes_once() {
    let mut cluster = Cluster::started(&ALL);
    cluster.hand(&vote(2, 1, 1, LogId::ZERO));
    assert!(cluster.take(1, 2).is_none(), "nothing left");
    cluster.crash(1);
    assert_eq!((cluster.raft(1).term(), cluster.raft(1).vote()), (Term(0), None));
    assert!(is_vote(ask(&mut cluster, &vote(3, 1, 1, LogId::ZERO)), true));
    cluster.crash(1);
    assert!(is_vote(ask(&mut cluster, &vote(2, 1, 1, LogId::ZERO)), false));
}
