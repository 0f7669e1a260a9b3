//! One group on one node: what happens goes in, what to do comes out.

use crate::candidate::{Candidate, Stage};
use crate::change::{Change, ChangeRefused, Plan};
use crate::floor::Floor;
use crate::follower::{self, Follower, Heard};
use crate::input::{Entries, Input};
use crate::invariants::{Before, check_members};
use crate::leader::{Leader, Standing, patience};
use crate::message::{Append, Message};
use crate::output::{Output, Refusal, RoleKind};
use crate::progress::Progress;
use crate::promise::Promise;
use crate::questions::Questions;
use crate::replica::Replica;
use crate::role::Role;
use crate::settings::{Boot, Configured, Settings};
use crate::transfer::TransferRefused;
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::{Configuration, Index, Level, LogId, NodeId, Term, Ticks};

/// One group on one node. See the crate's documentation for the contract with its owner.
#[derive(Debug)]
pub struct Raft {
    pub(crate) replica: Replica,
    pub(crate) role: Role,
    /// Reads here that the leader is asked about; none unless this node follows one.
    pub(crate) questions: Questions,
    /// The latest time told. Never goes back.
    now: Ticks,
}

impl Raft {
    /// Starts from what was found in the log. Everything up to [`Raft::commit`] may be applied
    /// at once. A group whose only voter is this node wants a tick at `now`.
    ///
    /// # Panics
    /// If the parts of `boot` contradict each other.
    pub fn new(now: Ticks, settings: Settings, boot: Boot) -> Self {
        let questions = Questions::new(boot.seed);
        let mut replica = Replica::new(settings, boot);
        replica.promise = Promise::of_start(now, settings.election_timeout);
        #[cfg(ringraft_plant)]
        if planted(Plant::PromiseForgotten) {
            replica.promise = Promise::default();
        }
        // Nobody to wait for (EL-14).
        let is_alone = replica.membership.is_alone(replica.id);
        let election_at = if is_alone { now } else { replica.next_election(now) };
        let role = Role::Follower(Follower::waiting(election_at));
        Self { replica, role, questions, now }
    }

    /// Takes in one thing that happened. Adds to `out`, which the caller has cleared.
    ///
    /// # Panics
    /// If an invariant is broken: by this code, or by the owner's (time goes back, a token was
    /// never given, the last batch not taken out of `out`, a message steps that [`Raft::judge`]
    /// refuses).
    pub fn step(&mut self, now: Ticks, input: Input<'_>, out: &mut Output) {
        assert!(now >= self.now, "time goes back from {} to {now}", self.now);
        assert!(out.token.is_none(), "the output of the last step was not cleared");
        self.now = now;
        let before = Before::of(self, &input);
        match input {
            Input::Tick => self.on_tick(out),
            Input::Message { from, message, entries } => {
                self.on_message(from, message, entries, out);
            }
            Input::Propose { bytes } => match &mut self.role {
                Role::Leader(leader) => leader.propose(&mut self.replica, now, bytes, out),
                _ => out.refused = Some(Refusal::NotLeader(self.leader())),
            },
            Input::Configure { configuration, bytes } => match &mut self.role {
                Role::Leader(leader) => {
                    leader.configure(&mut self.replica, now, configuration, bytes, out);
                }
                _ => out.refused = Some(Refusal::NotLeader(self.leader())),
            },
            Input::Persisted { token } => {
                self.replica.complete(token, out);
                match &mut self.role {
                    Role::Leader(leader) => leader.on_persisted(&mut self.replica, now, out),
                    Role::Candidate(_) => self.count_votes(out),
                    Role::Follower(_) => {}
                }
            }
            Input::Read { ticket } => match &mut self.role {
                Role::Leader(leader) => leader.read(&self.replica, now, ticket, out),
                _ => self.read_elsewhere(ticket, out),
            },
            Input::Fetched { peer, first, heads } => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.on_fetched(&self.replica, now, peer, first, heads, out);
                }
            }
            Input::Trimmed { first } => self.replica.trim(first),
            Input::Released { through } => {
                self.replica.release(through);
                if let Role::Leader(leader) = &mut self.role {
                    // Who still needs what is gone is brought up to date by a snapshot.
                    leader.feed_all(&self.replica, now, out);
                }
            }
            Input::Installed { last, configuration } => {
                self.on_installed(last, configuration, out);
            }
            Input::LinkUp(node) => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.on_link_up(&self.replica, now, node, out);
                }
            }
            Input::LinkDown(node) => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.on_link_down(&self.replica, now, node);
                }
            }
            Input::Wake { heard_at } => self.on_wake(heard_at, out),
            Input::DiskStuck(is_stuck) => self.on_disk_stuck(is_stuck, out),
            Input::Resigned(node) => self.on_resigned(node),
            Input::Transfer { to } => match &mut self.role {
                Role::Leader(leader) => leader.begin_transfer(&self.replica, now, to, out),
                _ => out.refused = Some(Refusal::NotLeader(self.leader())),
            },
            Input::Paused(is_paused) => self.on_paused(is_paused, out),
            Input::Damaged => self.on_damaged(out),
            Input::Refilled { runs, last, configurations } => {
                self.replica.refill(runs, last, configurations, out);
            }
            Input::Mended => self.replica.mend(out),
        }
        if self.replica.membership.is_moving() {
            self.look_after_members(out);
        }
        self.keep_questions(out);
        self.replica.finish(out);
        before.check(self, out);
    }

    /// Begins one read round for all reads taken since the last, and for what other nodes asked:
    /// to be called once per turn, after the turn's [`Input::Read`] steps, so that a turn's reads
    /// share one round of heartbeats. A follower asks its leader one question for all of its. A
    /// sole voter's reads are answered here. Nothing to do costs nothing; reads that came before
    /// the leader was ready begin their round by themselves when it is.
    pub fn flush_reads(&mut self, now: Ticks, out: &mut Output) {
        assert!(now >= self.now, "time goes back from {} to {now}", self.now);
        self.now = now;
        if let Role::Leader(leader) = &mut self.role {
            leader.flush_reads(&self.replica, now, out);
        }
        self.questions.ask(now, &self.replica.settings, out);
    }

    /// When the next [`Input::Tick`] is due, if nothing happens before.
    pub fn wake_at(&self) -> Ticks {
        let asks_at = self.questions.wake_at(&self.replica.settings);
        self.role.wake_at(&self.replica).min(asks_at)
    }

    /// The present role.
    pub fn role(&self) -> RoleKind {
        self.role.kind()
    }

    /// The newest term seen.
    pub fn term(&self) -> Term {
        self.replica.term()
    }

    /// Whom this node voted for in [`Raft::term`].
    pub fn vote(&self) -> Option<NodeId> {
        self.replica.vote()
    }

    /// Who leads in this term, as far as this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.role.leader(self.replica.id)
    }

    /// The newest entry, durable or not.
    pub fn last(&self) -> Index {
        self.replica.log().last()
    }

    /// The entry after which the log begins: a snapshot covers all up to it. Zero: it is whole.
    pub fn base(&self) -> LogId {
        self.replica.log().base()
    }

    /// Entries up to here are committed.
    pub fn commit(&self) -> Index {
        self.replica.commit()
    }

    /// Entries up to here are durable on this node.
    pub fn persisted(&self) -> Index {
        self.replica.durable().persisted()
    }

    /// The term of an entry; `None` if it isn't held.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.replica.log().term_at(index)
    }

    /// Whether this node leads and an entry of its own term is committed: it knows what else is,
    /// and may answer reads (thesis 6.4).
    pub fn is_ready(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.is_ready(&self.replica))
    }

    /// What a read may be answered by at once, if this leader is sure by its lease that nobody else
    /// leads: everything up to this entry must be applied. `now` must have been read after the
    /// read arrived; then it doesn't matter how long the answer takes (decision 0020). `None`: ask
    /// a majority ([`Input::Read`]).
    ///
    /// # Panics
    /// If time goes back.
    pub fn lease_index(&self, now: Ticks) -> Option<Index> {
        assert!(now >= self.now, "time goes back from {} to {now}", self.now);
        match &self.role {
            Role::Leader(leader) => leader.lease_index(&self.replica, now),
            _ => None,
        }
    }

    /// The group was used in a way that no step tells, as by a read under the lease: it isn't idle.
    pub fn stir(&mut self, now: Ticks) {
        if let Role::Leader(leader) = &mut self.role {
            leader.stir(&self.replica, now);
        }
    }

    /// How long ago this node was in touch with its leader: a follower, since it heard it last; a
    /// leader that is ready, since the heartbeats left that a majority answered (without leases,
    /// since it heard of one). `None`: not since the start. It says nothing of what is on its way.
    pub fn contact_age(&self, now: Ticks) -> Option<Ticks> {
        let at = match &self.role {
            Role::Leader(leader) => leader.contact_at(&self.replica, now),
            _ => self.replica.promise.heard_at(self.replica.settings.election_timeout),
        };
        at.map(|at| now.since(at))
    }

    /// Whether this node helps nobody into office but whom it heard lead: leases rest on it.
    pub fn sticks(&self, now: Ticks) -> bool {
        let is_here = matches!(self.role, Role::Leader(_)) || self.hibernates();
        is_here || self.replica.promise.is_kept(now)
    }

    /// Whether this node rests on its owner's word that the others of its group live, and neither
    /// sends nor expects heartbeats: see [`Input::Wake`].
    pub fn hibernates(&self) -> bool {
        match &self.role {
            Role::Leader(leader) => leader.hibernates(),
            Role::Follower(follower) => follower.hibernates(),
            Role::Candidate(_) => false,
        }
    }

    /// What this node votes as if it held, though it can't use it; `None`: its log is sound.
    pub fn vote_floor(&self) -> Option<LogId> {
        self.replica.floor.map(Floor::id)
    }

    /// The newest entry as far as votes are concerned: a log that lost entries votes as if it held
    /// them (thesis 3.6.1).
    pub fn vote_last(&self) -> LogId {
        self.replica.vote_last()
    }

    /// Whether a snapshot that ends with this entry holds all that counts of what this node promised
    /// and lacks: to install it lifts the vote floor, if there is one.
    pub fn is_covered_by(&self, last: LogId) -> bool {
        self.replica.floor.is_none_or(|floor| floor.is_covered(last))
    }

    /// Who votes, ascending; of a joint configuration, who will.
    pub fn voters(&self) -> &[NodeId] {
        self.configuration().voters()
    }

    /// The configuration in force: the newest in the log, committed or not.
    pub fn configuration(&self) -> &Configuration {
        &self.replica.membership.in_force().configuration
    }

    /// The entry that holds the configuration in force; zero: the group began with it.
    pub fn configuration_index(&self) -> Index {
        self.replica.membership.in_force().index
    }

    /// All configurations that may be in force, the one that is the last: those of entries that
    /// aren't known to be committed, and the one before them.
    pub fn configurations(&self) -> impl Iterator<Item = &Configured> {
        self.replica.membership.all()
    }

    /// Whether the configuration in force is committed, as far as this node knows.
    pub fn is_configuration_committed(&self) -> bool {
        self.replica.membership.is_settled()
    }

    /// What this leader would append now for a change that is meant for the configuration of entry
    /// `expected`. What it would append is to be stepped ([`Input::Configure`]) before all else.
    ///
    /// # Errors
    /// Why the change isn't made.
    pub fn plan(
        &self,
        now: Ticks,
        expected: Index,
        change: Change<'_>,
    ) -> Result<Plan, ChangeRefused> {
        match &self.role {
            Role::Leader(leader) => leader.plan(&self.replica, now, expected, change),
            _ => Err(ChangeRefused::NotLeader(self.leader())),
        }
    }

    /// What this leader is to append now that a joint configuration is committed; `None`: nothing.
    pub fn completion(&self) -> Option<Configuration> {
        match &self.role {
            Role::Leader(leader) => leader.completion(&self.replica),
            _ => None,
        }
    }

    /// To whom this leader hands over, asked for by name or not: the voter that holds most of those
    /// that answer and have caught up. `unfit` are nodes that can't lead, as the owner knows. What
    /// it answers is to be stepped ([`Input::Transfer`]) before all else.
    ///
    /// # Errors
    /// Why it doesn't.
    pub fn transfer_target(
        &self,
        now: Ticks,
        to: Option<NodeId>,
        unfit: &[NodeId],
    ) -> Result<NodeId, TransferRefused> {
        match &self.role {
            Role::Leader(leader) => leader.transfer_target(&self.replica, now, to, unfit),
            _ => Err(TransferRefused::NotLeader(self.leader())),
        }
    }

    /// To whom this leader is handing over. Until it is done, or for an election timeout, it takes
    /// no proposals and no configuration.
    pub fn transfers_to(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leader(leader) => leader.transfers_to(),
            _ => None,
        }
    }

    /// Of every other member, as the leader knows it: up to where its log is known to agree
    /// durably, and its commit index (RP-13). Nothing if this node doesn't lead.
    pub fn peers_progress(&self) -> impl Iterator<Item = (NodeId, Index, Index)> + '_ {
        self.peers().map(|peer| (peer.id, peer.matched, peer.commit))
    }

    /// How far a level has come, as this leader knows; `None`: this node doesn't lead.
    pub fn standing(&self, level: Level) -> Option<Standing> {
        match &self.role {
            Role::Leader(leader) => Some(leader.standing(&self.replica, level)),
            _ => None,
        }
    }

    /// Tells every peer at once what is committed, by a heartbeat before its time: they answer what
    /// they know. Without it the next heartbeat does. Nothing if this node doesn't lead.
    pub fn tell_commit(&mut self, now: Ticks, out: &mut Output) {
        assert!(now >= self.now, "time goes back from {} to {now}", self.now);
        self.now = now;
        if let Role::Leader(leader) = &mut self.role {
            leader.tell_commit(&self.replica, now, out);
        }
    }

    /// Whether this leader has heard of a member within an election timeout, or hibernates as it does.
    pub fn has_heard(&self, now: Ticks, node: NodeId) -> bool {
        match &self.role {
            Role::Leader(leader) => leader.has_heard(&self.replica, now, node),
            _ => false,
        }
    }

    /// Of every other member, what the leader counts of it in this term: up to where its log
    /// agrees, and the newest read round that it answered. Nothing if this node doesn't lead.
    pub fn peers_counted(&self) -> impl Iterator<Item = (NodeId, Index, u64)> + '_ {
        self.peers().map(|peer| (peer.id, peer.matched, peer.round))
    }

    fn peers(&self) -> impl Iterator<Item = &Progress> {
        let peers = match &self.role {
            Role::Leader(leader) => leader.peers(),
            _ => &[],
        };
        peers.iter().filter(|peer| peer.is_member())
    }

    /// Whether a snapshot that ends with this entry may be reported by [`Input::Installed`]: it
    /// brings something, and this node doesn't lead. Else it is of no use here any more. To be
    /// asked before the snapshot is loaded, with no step between the loading and the report.
    pub fn may_install(&self, last: LogId) -> bool {
        // A log doesn't descend, and what is committed here is in the snapshot too.
        let is_later = last.index > self.commit() && Some(last.term) >= self.term_at(self.commit());
        is_later && !matches!(self.role, Role::Leader(_))
    }

    /// The first entry that this leader should keep for the sake of others: the lowest that some
    /// member needs which was heard of late, from what it holds or from what it was told to
    /// install. The one after [`Raft::last`] if nobody needs any, or another node leads.
    pub fn needed_from(&self) -> Index {
        match &self.role {
            Role::Leader(leader) => leader.needed_from(&self.replica, self.now),
            _ => self.last().next(),
        }
    }

    /// A read on a node that doesn't lead: its leader is asked, if it knows one.
    fn read_elsewhere(&mut self, ticket: u64, out: &mut Output) {
        match self.leader() {
            Some(_) if self.questions.len() >= self.replica.settings.reads_waiting_max => {
                out.refused = Some(Refusal::Busy);
            }
            Some(leader) => self.questions.push(ticket, (self.term(), leader)),
            None => out.refused = Some(Refusal::NotLeader(None)),
        }
    }

    /// What the leader of an earlier term was asked, or one that leads no more, is lost: no answer
    /// of another leader is for it, and this node may lead itself now.
    fn keep_questions(&mut self, out: &mut Output) {
        if self.questions.is_empty() {
            return;
        }
        let (term, leader) = self.questions.whom();
        if self.term() != term || self.leader() != Some(leader) {
            self.questions.lose(out);
        }
    }

    fn on_tick(&mut self, out: &mut Output) {
        let now = self.now;
        self.questions.tick(now, &self.replica.settings, out);
        match &mut self.role {
            Role::Follower(follower) => {
                if now >= follower.election_at() && self.replica.may_campaign() {
                    self.ask(out);
                }
            }
            Role::Candidate(candidate) => {
                if now >= candidate.election_at() {
                    if candidate.must_wait_for_disk(&self.replica) {
                        candidate.wait_until(self.replica.next_election(now));
                    } else {
                        self.ask(out);
                    }
                }
            }
            Role::Leader(leader) => {
                if !leader.tick(&mut self.replica, now, out) {
                    // Check-quorum: no majority was heard for an election timeout (EL-04).
                    self.step_down(out);
                }
            }
        }
    }

    /// A leader that can't persist must not keep those from leading who can (S26).
    fn on_disk_stuck(&mut self, is_stuck: bool, out: &mut Output) {
        self.on_wake(self.now, out);
        self.replica.is_stuck = is_stuck;
        if self.replica.membership.is_alone(self.replica.id) {
            return;
        }
        match &mut self.role {
            // It had no part in elections: it waits as if it had just come.
            Role::Follower(follower) if !is_stuck => {
                follower.postpone(self.replica.next_election(self.now));
            }
            Role::Follower(_) => {}
            Role::Candidate(_) | Role::Leader(_) => self.step_down(out),
        }
    }

    fn on_paused(&mut self, is_paused: bool, out: &mut Output) {
        if is_paused == self.replica.is_paused {
            return;
        }
        self.on_wake(self.now, out);
        self.replica.is_paused = is_paused;
        match &mut self.role {
            // It had no part in elections: it waits as if it had just come.
            Role::Follower(follower) if !is_paused => {
                follower.postpone(self.replica.next_election(self.now));
            }
            Role::Candidate(_) if !self.replica.may_campaign() => self.step_down(out),
            _ => {}
        }
    }

    /// What this node rested on isn't sure any more.
    fn on_wake(&mut self, heard_at: Ticks, out: &mut Output) {
        assert!(heard_at <= self.now, "heard at {heard_at}, and now it is {}", self.now);
        match &mut self.role {
            Role::Leader(leader) if leader.hibernates() => {
                leader.doubt(&self.replica, self.now, heard_at, out);
            }
            Role::Leader(leader) => leader.stir(&self.replica, self.now),
            Role::Follower(follower) if follower.hibernates() => {
                follower.wake(self.replica.next_election(heard_at).max(self.now));
                let to = follower.leader().expect("whoever hibernates rests on somebody");
                let (term, commit) = (self.replica.term(), self.replica.commit());
                let message = Message::HeartbeatReply { term, round: 0, commit, hibernates: false };
                self.replica.send_gated(to, message, Index::ZERO, out);
            }
            Role::Follower(_) | Role::Candidate(_) => {}
        }
    }

    /// A leader that hibernates is about to lead no more: those who rest on it are told first, in
    /// its term.
    fn rouse(&mut self, out: &mut Output) {
        if let Role::Leader(leader) = &mut self.role
            && leader.hibernates()
        {
            leader.doubt(&self.replica, self.now, self.now, out);
        }
    }

    fn on_resigned(&mut self, node: NodeId) {
        if node != self.replica.id && self.leader() == Some(node) {
            self.replica.resigned = self.term();
            // It led no more when it said so.
            self.replica.promise = Promise::default();
            let election_at = self.replica.early_election(self.now, node);
            self.role = Role::Follower(Follower::waiting(election_at));
        }
    }

    /// The configuration changed, or is about to.
    #[cold]
    fn look_after_members(&mut self, out: &mut Output) {
        check_members(self);
        let is_leader = matches!(self.role, Role::Leader(_));
        let is_leaving = is_leader && !self.configuration().is_voter(self.replica.id);
        let (is_new, is_committed) = self.replica.membership.look(is_leaving);
        if let Role::Leader(leader) = &mut self.role
            && is_committed
        {
            leader.on_settled(&self.replica, self.now, out);
        }
        let is_alone = self.replica.membership.is_alone(self.replica.id);
        let must_yield = match &self.role {
            Role::Follower(_) => false,
            // Its votes were those of others, or it is sure now that it left.
            Role::Candidate(_) => is_new || !self.replica.may_campaign(),
            Role::Leader(leader) => {
                // Somebody else can lead now; or has to.
                is_new && self.replica.is_stuck && !is_alone
                    || leader.has_left(&self.replica, self.now)
            }
        };
        if must_yield {
            self.step_down(out);
        }
        out.members_changed |= is_new;
        out.completes = self.completion().is_some();
    }

    /// Who holds more than this floor takes over; the entries themselves stay acknowledged.
    fn on_damaged(&mut self, out: &mut Output) {
        self.on_wake(self.now, out);
        if !matches!(self.replica.floor, Some(Floor::Unreadable(_))) {
            self.replica.floor = Some(Floor::Unreadable(self.replica.vote_last()));
        }
        // It serves nobody.
        self.questions.lose(out);
        if !matches!(self.role, Role::Follower(_)) {
            self.step_down(out);
        }
    }

    /// A snapshot was loaded: the log begins after it now, and so does what this node says of it.
    fn on_installed(&mut self, last: LogId, configuration: &Configured, out: &mut Output) {
        assert!(
            self.may_install(last),
            "a {:?} has no use for a snapshot up to {last}",
            self.role()
        );
        // From another node that is further than the leader that asked for it.
        self.adopt(last.term, out);
        if self.replica.install(last, configuration, out) && matches!(self.role, Role::Candidate(_))
        {
            // It asked for votes as the one that held what it gave up.
            self.step_down(out);
        }
        follower::report_installed(&self.replica, self.leader(), last.index, out);
    }

    fn on_message(
        &mut self,
        from: NodeId,
        message: Message,
        entries: Entries<'_>,
        out: &mut Output,
    ) {
        assert_ne!(from, self.replica.id, "a message from itself");
        match message {
            Message::PreVote { term, last } => self.on_pre_vote(from, term, last, out),
            Message::Vote { term, last, is_transfer } => {
                self.on_vote(from, term, last, is_transfer, out);
            }
            Message::TimeoutNow { term } => self.on_timeout_now(from, term, out),
            Message::PreVoteReply { term, granted: true } => {
                if term == self.term().next() {
                    self.on_grant(from, Stage::Asking, out);
                }
            }
            Message::PreVoteReply { term, granted: false } => {
                self.adopt_of(from, term, out);
            }
            Message::VoteReply { term, granted } => {
                if !self.adopt_of(from, term, out) && granted && term == self.term() {
                    self.on_grant(from, Stage::Standing, out);
                }
            }
            Message::ReadAsk { term, question } => {
                // The leader of another term isn't meant, and one that leads no more knows nothing.
                if let Role::Leader(leader) = &mut self.role
                    && term == self.replica.term()
                {
                    leader.on_read_ask(&self.replica, self.now, from, question);
                }
            }
            Message::ReadAnswer { term, question, index } => {
                self.questions.answer((term, from), question, index, out);
            }
            Message::Append(append) => self.on_append(from, append, entries, out),
            Message::Install { term, base, commit: _ } => {
                if self.follow(from, term, out) {
                    follower::take_install(&mut self.replica, from, base, out);
                } else {
                    follower::reject(&self.replica, from, term, base.index, LogId::ZERO, out);
                }
            }
            Message::Heartbeat { term, commit, round, hibernate } => {
                if term == self.replica.resigned {
                    // Heartbeats keep their order: this one says that it leads after all.
                    self.replica.resigned = Term::ZERO;
                }
                if self.follow(from, term, out) {
                    self.on_heartbeat(from, commit, round, hibernate, out);
                } else {
                    // Tells a deposed leader of the newer term. It may lead that very term when
                    // this arrives, so it must not look like the answer to a round of it.
                    let unrelated = 0;
                    #[cfg(ringraft_plant)]
                    let unrelated = if planted(Plant::RoundEchoed) { round } else { unrelated };
                    let (term, commit) = (self.term(), self.commit());
                    let (round, hibernates) = (unrelated, false);
                    let reply = Message::HeartbeatReply { term, round, commit, hibernates };
                    self.replica.send_gated(from, reply, Index::ZERO, out);
                }
            }
            Message::AppendReply { term, append_term, outcome, commit } => {
                #[cfg(ringraft_plant)]
                let append_term =
                    if planted(Plant::OldAckCounted) { self.term() } else { append_term };
                if self.adopt_of(from, term, out) || append_term != self.term() {
                    return;
                }
                if let Role::Leader(leader) = &mut self.role {
                    let replica = &mut self.replica;
                    leader.on_append_reply(replica, self.now, from, outcome, commit, out);
                }
            }
            Message::HeartbeatReply { term, round, commit, hibernates } => {
                if self.adopt_of(from, term, out) || term != self.term() {
                    return;
                }
                if let Role::Leader(leader) = &mut self.role {
                    let replica = &mut self.replica;
                    let said = (round, commit, hibernates);
                    leader.on_heartbeat_reply(replica, self.now, from, said, out);
                }
            }
        }
    }

    /// Takes a heartbeat of the leader that was just heard.
    fn on_heartbeat(
        &mut self,
        from: NodeId,
        commit: Index,
        round: u64,
        hibernate: bool,
        out: &mut Output,
    ) {
        let is_led = self.leader() == Some(from);
        let may_hibernate = hibernate && is_led && self.questions.is_empty();
        let heard = Heard { commit, round, may_hibernate };
        let hibernates = follower::take_heartbeat(&mut self.replica, from, heard, out);
        if let Role::Follower(follower) = &mut self.role
            && hibernates
        {
            let election_at = follower.election_at();
            follower.hibernate(election_at.after(patience(&self.replica.settings)));
        }
    }

    /// A member that doesn't hear this leader asks for votes: if the group hibernates, it must wake.
    fn stir_for(&mut self, from: NodeId) {
        if let Role::Leader(leader) = &mut self.role
            && self.replica.membership.is_known(from)
        {
            leader.stir(&self.replica, self.now);
        }
    }

    /// Answers whether it would vote for `from`; changes nothing (thesis 9.6).
    fn on_pre_vote(&mut self, from: NodeId, term: Term, last: LogId, out: &mut Output) {
        self.stir_for(from);
        if term > self.term() && self.sticks_against(from) {
            self.on_outsider(from, last, out);
            return;
        }
        let is_free = term > self.term() || term == self.term() && self.may_vote_for(from, false);
        let is_complete = last >= self.replica.vote_last();
        #[cfg(ringraft_plant)]
        let is_complete = is_complete || planted(Plant::ShorterLogElected);
        let is_able = !self.replica.is_stuck;
        // Of two that ask at the same moment and hold as much, the one with the greater number goes
        // first: if both were granted, both would stand, and split the votes of one term.
        let goes_first = from < self.replica.id && last == self.replica.vote_last();
        let asks_too = matches!(&self.role, Role::Candidate(it)
            if it.has_just_asked(self.now, &self.replica));
        let granted = is_able && is_free && is_complete && !(goes_first && asks_too);
        let term = if granted { term } else { self.term() };
        let reply = Message::PreVoteReply { term, granted };
        self.replica.send_gated(from, reply, Index::ZERO, out);
    }

    /// Gives or refuses the term's vote (thesis 3.4 and 3.6.1). Also to a node that isn't a voter
    /// as far as this one knows, and if this one is none: either may not know yet (4.2.2).
    fn on_vote(
        &mut self,
        from: NodeId,
        term: Term,
        last: LogId,
        is_transfer: bool,
        out: &mut Output,
    ) {
        // Whom the leader itself told to stand doesn't wait for its silence (3.10). Nobody's lease
        // rests on what was promised to that one, and those of leaders before it ended before it
        // led.
        self.stir_for(from);
        let is_told = is_transfer && self.replica.membership.is_known(from);
        if term > self.term() {
            if !is_told && self.sticks_against(from) {
                self.on_outsider(from, last, out);
                return;
            }
            self.adopt(term, out);
        }
        let is_complete = last >= self.replica.vote_last();
        #[cfg(ringraft_plant)]
        let is_complete = is_complete || planted(Plant::ShorterLogElected);
        #[cfg(ringraft_plant)]
        let is_complete = is_complete || is_transfer && planted(Plant::TransferBlind);
        let granted = term == self.term() && self.may_vote_for(from, is_told) && is_complete;
        if granted && self.vote().is_none() {
            self.replica.set_hard_state(term, Some(from), out);
            let election_at = self.replica.next_election(self.now);
            match &mut self.role {
                Role::Follower(follower) => follower.postpone(election_at),
                // It asked for pre-votes and was overtaken.
                role => *role = Role::Follower(Follower::waiting(election_at)),
            }
        }
        let reply = Message::VoteReply { term: self.term(), granted };
        self.replica.send_gated(from, reply, Index::ZERO, out);
    }

    /// A node asks for votes though there is a leader: if it was removed, it should know.
    #[cold]
    fn on_outsider(&mut self, from: NodeId, last: LogId, out: &mut Output) {
        let is_outside = !self.replica.membership.is_known(from);
        if let Role::Leader(leader) = &mut self.role
            && is_outside
        {
            leader.on_outsider(&self.replica, self.now, from, last, out);
        }
    }

    fn on_append(&mut self, from: NodeId, append: Append, entries: Entries<'_>, out: &mut Output) {
        let Entries { heads, configurations } = entries;
        assert_eq!(heads.len(), append.count as usize, "an append comes with its entries");
        if let (Some(first), Some(last)) = (configurations.first(), configurations.last()) {
            assert!(first.index > append.prev.index, "a configuration of an append is in it");
            assert!(last.index.0 <= append.prev.index.0 + heads.len() as u64);
        }
        #[cfg(ringraft_plant)]
        let append = if planted(Plant::OldAppendTaken)
            && matches!(self.role, Role::Follower(_))
            && self.leader().is_none_or(|leader| leader == from)
        {
            Append { term: append.term.max(self.term()), ..append }
        } else {
            append
        };
        if self.follow(from, append.term, out) {
            follower::take_append(&mut self.replica, from, append, entries, out);
        } else {
            // Tells a deposed leader of the newer term.
            let Append { term, prev, .. } = append;
            follower::reject(&self.replica, from, term, prev.index, LogId::ZERO, out);
        }
    }

    fn on_grant(&mut self, from: NodeId, stage: Stage, out: &mut Output) {
        if let Role::Candidate(candidate) = &mut self.role
            && candidate.stage() == stage
        {
            candidate.count(from, &self.replica);
            self.count_votes(out);
        }
    }

    /// Goes on if a majority granted what this candidate asked for.
    fn count_votes(&mut self, out: &mut Output) {
        let Role::Candidate(candidate) = &self.role else { return };
        if !candidate.is_won(&self.replica) {
            return;
        }
        self.role = match candidate.stage() {
            Stage::Asking => {
                Role::Candidate(Candidate::stand(&mut self.replica, self.now, false, out))
            }
            Stage::Standing => Role::Leader(Leader::begin(&mut self.replica, self.now, out)),
        };
    }

    /// Asks for pre-votes: forgets the leader and earlier answers.
    fn ask(&mut self, out: &mut Output) {
        self.role = Role::Candidate(Candidate::ask(&mut self.replica, self.now, out));
        #[cfg(ringraft_plant)]
        if planted(Plant::NoPreVote) {
            out.send_now.clear();
            self.role = Role::Candidate(Candidate::stand(&mut self.replica, self.now, false, out));
        }
        // A sole voter has them already.
        self.count_votes(out);
    }

    /// The leader hands over to this node: it stands at once, and nobody is asked whether it could
    /// win (thesis 3.10).
    #[cold]
    fn on_timeout_now(&mut self, from: NodeId, term: Term, out: &mut Output) {
        let is_led = matches!(self.role, Role::Follower(_)) && self.leader() == Some(from);
        if term == self.term() && is_led && self.replica.may_campaign() {
            self.role = Role::Candidate(Candidate::stand(&mut self.replica, self.now, true, out));
            // A majority may be the others' no more.
            self.count_votes(out);
        }
    }

    /// Whether a leader that was heard, or being it, forbids to help `from` into a newer term.
    fn sticks_against(&self, from: NodeId) -> bool {
        match &self.role {
            Role::Leader(_) => true,
            Role::Follower(it) if it.hibernates() && it.leader() != Some(from) => true,
            _ => self.replica.promise.forbids(from, self.now),
        }
    }

    /// Whether this term's vote is `from`'s, or nobody's while nobody leads and nobody else was
    /// promised otherwise, in whatever term. Whom its leader told to stand isn't held to promises.
    fn may_vote_for(&self, from: NodeId, is_told: bool) -> bool {
        match self.vote() {
            Some(vote) => vote == from,
            None => self.leader().is_none() && (is_told || !self.sticks_against(from)),
        }
    }

    /// Enters a newer term as a follower of nobody; says whether it was newer.
    fn adopt(&mut self, term: Term, out: &mut Output) -> bool {
        if term <= self.term() {
            return false;
        }
        self.rouse(out);
        self.replica.set_hard_state(term, None, out);
        self.step_down(out);
        true
    }

    /// The same for what a node answered. A higher term of one that isn't a member deposes nobody:
    /// it was removed, or nobody asked it (thesis 4.2.3).
    #[inline]
    fn adopt_of(&mut self, from: NodeId, term: Term, out: &mut Output) -> bool {
        if term <= self.term() {
            return false;
        }
        let is_known = self.replica.membership.is_known(from);
        #[cfg(ringraft_plant)]
        let is_known = is_known || planted(Plant::OutsiderDeposes);
        is_known && self.adopt(term, out)
    }

    /// Becomes a follower of nobody. The time to the next election runs on, except for a leader:
    /// it had none.
    fn step_down(&mut self, out: &mut Output) {
        self.rouse(out);
        let election_at = match &self.role {
            Role::Follower(follower) if follower.hibernates() => {
                self.replica.next_election(self.now)
            }
            Role::Follower(follower) => follower.election_at(),
            Role::Candidate(candidate) => candidate.election_at(),
            Role::Leader(_) => self.replica.next_election(self.now),
        };
        let follower = Role::Follower(Follower::waiting(election_at));
        if let Role::Leader(leader) = std::mem::replace(&mut self.role, follower) {
            leader.end(out);
        }
    }

    /// The leader of `term` was heard; says whether it is the present term's. A candidate of the
    /// same term gives way (thesis 3.4).
    fn follow(&mut self, leader: NodeId, term: Term, out: &mut Output) -> bool {
        if term < self.term() {
            return false;
        }
        if term > self.term() {
            self.adopt(term, out);
        }
        if term == self.replica.resigned {
            // Appends that left before it resigned: taken, but no sign that it leads.
            return true;
        }
        let timeout = self.replica.settings.election_timeout;
        self.replica.promise = Promise::to(leader, self.now, timeout);
        let election_at = self.replica.next_election(self.now);
        match &mut self.role {
            Role::Follower(follower) => follower.hear(leader, election_at),
            Role::Candidate(_) => {
                let mut follower = Follower::waiting(election_at);
                follower.hear(leader, election_at);
                self.role = Role::Follower(follower);
            }
            Role::Leader(_) => panic!("{leader} leads in term {term}, as does this node (I-04)"),
        }
        true
    }
}
