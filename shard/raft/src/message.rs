//! What groups say to each other. Layout on the wire is `ringraft-net`'s; this is the meaning.

use ringraft_types::{Index, LogId, Term};

/// A message between the same group on two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// "Would you vote for me in `term`?" Changes nobody's term (thesis 9.6).
    PreVote {
        /// The term the sender would campaign in: its own plus one.
        term: Term,
        /// The sender's newest entry.
        last: LogId,
    },
    /// The answer to [`Message::PreVote`].
    PreVoteReply {
        /// The replier's own term if refused; the asked one if granted.
        term: Term,
        /// Whether it would.
        granted: bool,
    },
    /// "Vote for me in `term`."
    Vote {
        /// The candidate's term.
        term: Term,
        /// The candidate's newest entry.
        last: LogId,
        /// The leader told it to stand: voters needn't wait for that leader's silence (3.10).
        is_transfer: bool,
    },
    /// The answer to [`Message::Vote`]; leaves only after the vote is durable (I-03).
    VoteReply {
        /// The replier's term.
        term: Term,
        /// Whether it voted for the candidate.
        granted: bool,
    },
    /// Entries after `prev`; the records themselves travel beside the message.
    Append(Append),
    /// The answer to [`Message::Append`] and to [`Message::Install`]; success leaves only after
    /// the entries, or the snapshot that holds them, are durable.
    AppendReply {
        /// The replier's term.
        term: Term,
        /// The leader's term of the message that this answers.
        append_term: Term,
        /// What became of it.
        outcome: AppendOutcome,
        /// The replier's commit index (RP-13).
        commit: Index,
    },
    /// "Your log ends before mine begins: what you lack is in a snapshot that covers at least
    /// `base`." Answered as an append is, once the follower holds that much (thesis 5).
    Install {
        /// The leader's term.
        term: Term,
        /// The entry after which the leader's log begins.
        base: LogId,
        /// The leader's commit index; at least `base`.
        commit: Index,
    },
    /// The leader lives; carries the commit index and a read round.
    Heartbeat {
        /// The leader's term.
        term: Term,
        /// The leader's commit index, cut to what the follower is known to hold.
        commit: Index,
        /// The newest read round: unique and ascending within the term.
        round: u64,
        /// The group is idle: the follower is to hibernate if it can, and the leader's shard answers
        /// for the leader from then on.
        hibernate: bool,
    },
    /// "What must a read see that came here before this left?" Asked of the leader by a node that
    /// follows it (thesis 6.4). What the leader can't take is as good as lost: it is asked again.
    ReadAsk {
        /// The asker's term: another leader is not meant.
        term: Term,
        /// Ascending within the asker's life.
        question: u64,
    },
    /// The answer to [`Message::ReadAsk`], once enough to commit answered a round that began after
    /// it came.
    ReadAnswer {
        /// The leader's term, and the asker's.
        term: Term,
        /// Which question it answers, and so all before it.
        question: u64,
        /// What was committed when that round began.
        index: Index,
    },
    /// "Stand at once: I hand over to you" (thesis 3.10). Nothing answers it but the election.
    TimeoutNow {
        /// The leader's term.
        term: Term,
    },
    /// The answer to [`Message::Heartbeat`] of the same term; a higher term deposes.
    HeartbeatReply {
        /// The replier's term.
        term: Term,
        /// The round that it answers; zero, which no round has, to a heartbeat of an older term.
        round: u64,
        /// The replier's commit index (RP-13).
        commit: Index,
        /// The replier hibernates as it was asked to, and waits for no heartbeats. Without it a
        /// leader that hibernates wakes.
        hibernates: bool,
    },
}

/// An append's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Append {
    /// The leader's term.
    pub term: Term,
    /// The entry before the first one carried.
    pub prev: LogId,
    /// The leader's commit index.
    pub commit: Index,
    /// How many entries follow; zero is a probe.
    pub count: u32,
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOutcome {
    /// The log agrees with the leader's up to here, and is durable up to here.
    Accepted {
        /// The last entry of the append, or its `prev` for a probe; of an install, the base that
        /// was offered or the end of the snapshot that was installed.
        matched: Index,
    },
    /// The log doesn't hold `prev`.
    Rejected {
        /// The index of the refused `prev`: a stale refusal is recognised by it.
        prev: Index,
        /// The replier's best guess where the logs may agree: the newest entry at or before
        /// `prev` whose term is at most the leader's term for `prev` (fast back-tracking).
        hint: LogId,
    },
}
