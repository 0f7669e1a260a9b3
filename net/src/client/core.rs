//! The client's decisions, without I/O: the driver tells the time, makes the connections that
//! [`Core::next_connect`] asks for, carries bytes between sockets and the links' inboxes and
//! outboxes, and calls [`Core::advance`] when anything happened or [`Core::wake_at`] has come.

use std::collections::VecDeque;

use ringraft_types::limits::{COMMAND_BYTES_MAX, FRAME_BODY_BYTES_MAX, PAYLOAD_BYTES_MAX};
use ringraft_types::{ClusterId, GroupId, Level, ShardId, Ticks};

use super::calls::{CallKind, Calls, Completions};
use super::group::{Group, Leader, Random};
use super::link::{Link, LinkId, State, Trouble};
use super::{CallId, Outcome, Reason, SubmitError};
use crate::client_wire::{BatchWriter, Consistency, ITEMS_MAX, REQUEST_HEAD_BYTES, write_locate};
use crate::frame::{Identity, Kind};
use crate::handshake::Hello;
use crate::inbox::Inbox;
use crate::lead_wire::{self, LeadAsk};
use crate::members_wire::write_members;
use crate::outbox::Outbox;
use crate::status::write_status;

/// A frame of requests is closed when its body has so many bytes.
const BATCH_BYTES: usize = 384 << 10;

// One more write of any size still fits the frame.
const _: () = assert!(BATCH_BYTES + REQUEST_HEAD_BYTES + PAYLOAD_BYTES_MAX <= FRAME_BODY_BYTES_MAX);

/// What a core must know.
#[derive(Clone, Debug)]
pub struct CoreOptions {
    /// Client addresses of some nodes, `host:port`; one that runs is enough.
    pub endpoints: Vec<String>,
    /// The cluster; `None` for whichever answers.
    pub cluster: Option<ClusterId>,
    /// Calls that may be under way at once; more are refused as busy.
    pub calls_max: usize,
    /// Bytes that may wait to be sent on one connection.
    pub outbox_bytes_max: usize,
    /// Makes the client's names: random, and never the same for two clients.
    pub seed: u128,
}

/// The client library without its sockets.
#[derive(Debug)]
pub struct Core {
    pub(super) endpoints: Vec<String>,
    /// Addresses of nodes that some group's members named, beside the endpoints.
    pub(super) known: Vec<String>,
    pub(super) identity: Identity,
    outbox_bytes_max: usize,
    pub(super) calls: Calls,
    pub(super) links: Vec<Link>,
    pub(super) groups: Vec<Group>,
    /// Where each group is in `groups`, sorted.
    group_places: Vec<(GroupId, u32)>,
    pub(super) random: Random,
    /// Connections that the driver shall close.
    closing: VecDeque<LinkId>,
    pub(super) trouble: Option<Trouble>,
    expired: Vec<u32>,
    wake_at: Ticks,
}

impl Core {
    /// A client that has sent nothing yet.
    ///
    /// # Panics
    /// If there is no endpoint: the driver's options are checked before.
    pub fn new(options: CoreOptions) -> Self {
        assert!(!options.endpoints.is_empty(), "a client needs an endpoint");
        Self {
            endpoints: options.endpoints,
            known: Vec::new(),
            identity: Identity {
                cluster: options.cluster.unwrap_or_default(),
                ..Identity::default()
            },
            outbox_bytes_max: options.outbox_bytes_max,
            calls: Calls::new(options.calls_max),
            links: Vec::new(),
            groups: Vec::new(),
            group_places: Vec::new(),
            random: Random::new(options.seed),
            closing: VecDeque::new(),
            trouble: None,
            expired: Vec::new(),
            wake_at: Ticks::ZERO,
        }
    }

    /// Takes a write; it is sent by the next [`advance`](Self::advance).
    ///
    /// # Errors
    /// If it can't be taken; nothing was sent then.
    pub fn submit_write(
        &mut self,
        group: GroupId,
        command: &[u8],
        deadline: Ticks,
    ) -> Result<CallId, SubmitError> {
        self.submit_write_at_level(group, command, Level::Majority, deadline)
    }

    /// Takes a write that is answered when it is applied and at a level. If it is applied and the
    /// level isn't seen reached before the deadline, the outcome is [`Outcome::Below`].
    ///
    /// # Errors
    /// If it can't be taken; nothing was sent then.
    pub fn submit_write_at_level(
        &mut self,
        group: GroupId,
        command: &[u8],
        level: Level,
        deadline: Ticks,
    ) -> Result<CallId, SubmitError> {
        let (place, slot) = self.submit(CallKind::Write, group, command, deadline)?;
        self.calls.get_mut(slot).level = level;
        self.groups[place].writes.push_back(slot);
        Ok(self.calls.id(slot))
    }

    /// Takes a linearizable read.
    ///
    /// # Errors
    /// If it can't be taken; nothing was sent then.
    pub fn submit_read(
        &mut self,
        group: GroupId,
        command: &[u8],
        deadline: Ticks,
    ) -> Result<CallId, SubmitError> {
        let (place, slot) = self.submit(CallKind::Read, group, command, deadline)?;
        self.groups[place].reads.push_back(slot);
        Ok(self.calls.id(slot))
    }

    /// Takes a read that may see what `consistency` says: for the leader, or for the node at an
    /// address alone. A node that is asked by its address answers for itself: a refusal of its is
    /// final.
    ///
    /// # Errors
    /// If it can't be taken; nothing was sent then. A local read names its node.
    pub fn submit_read_of(
        &mut self,
        at: Option<&str>,
        group: GroupId,
        command: &[u8],
        consistency: Consistency,
        deadline: Ticks,
    ) -> Result<CallId, SubmitError> {
        let kind = match at {
            Some(_) => CallKind::ReadAt,
            None if consistency.is_of_leader() => CallKind::Read,
            None => return Err(SubmitError::NoNode),
        };
        let (place, slot) = self.submit(kind, group, command, deadline)?;
        self.calls.get_mut(slot).consistency = consistency;
        if let Some(address) = at {
            return Ok(self.queue_at(address, slot));
        }
        self.groups[place].reads.push_back(slot);
        Ok(self.calls.id(slot))
    }

    /// Asks where a group is. The answer's body is that of a `LocateReply` frame.
    ///
    /// # Errors
    /// If it can't be taken.
    pub fn submit_locate(
        &mut self,
        group: GroupId,
        deadline: Ticks,
    ) -> Result<CallId, SubmitError> {
        let (place, slot) = self.submit(CallKind::Locate, group, &[], deadline)?;
        self.groups[place].locates.push(slot);
        Ok(self.calls.id(slot))
    }

    /// Asks a shard of the node at `address` how it is; `None` for any shard. The answer's body is
    /// that of a `StatusReply` frame.
    ///
    /// # Errors
    /// If it can't be taken.
    pub fn submit_status(
        &mut self,
        address: &str,
        shard: Option<ShardId>,
        deadline: Ticks,
    ) -> Result<CallId, SubmitError> {
        self.submit_to_link(CallKind::Status, (address, shard), &[], deadline)
    }

    /// Takes a call that is for a node, or a shard of it, whatever groups it has.
    pub(super) fn submit_to_link(
        &mut self,
        kind: CallKind,
        (address, shard): (&str, Option<ShardId>),
        body: &[u8],
        deadline: Ticks,
    ) -> Result<CallId, SubmitError> {
        let link = self.link_to(address, shard);
        let slot = self.calls.open(kind, link as u32, body, deadline)?;
        let id = self.calls.id(slot);
        self.links[link].own_queue.push_back(id.0);
        Ok(id)
    }

    /// Has a group's call sent to the node at `address` alone.
    pub(super) fn queue_at(&mut self, address: &str, slot: u32) -> CallId {
        let id = self.calls.id(slot);
        let link = self.link_to(address, None);
        self.links[link].own_queue.push_back(id.0);
        id
    }

    /// How many shards the node at `address` said that it has, if it was ever connected.
    pub fn shards_at(&self, address: &str) -> Option<u16> {
        let link = self.links.iter().find(|link| link.address == address && link.welcome.is_some());
        link.and_then(|link| link.welcome).map(|welcome| welcome.shards)
    }

    pub(super) fn submit(
        &mut self,
        kind: CallKind,
        group: GroupId,
        command: &[u8],
        deadline: Ticks,
    ) -> Result<(usize, u32), SubmitError> {
        if command.len() > COMMAND_BYTES_MAX {
            let (length, limit) = (command.len(), COMMAND_BYTES_MAX);
            return Err(SubmitError::TooLong { length, limit });
        }
        if group == GroupId(0) {
            return Err(SubmitError::NoGroup);
        }
        let place = match self.group_places.binary_search_by_key(&group, |it| it.0) {
            Ok(found) => self.group_places[found].1,
            Err(at) => {
                let place = self.groups.len() as u32;
                self.groups.push(Group::new(group, self.random.client_id()));
                self.group_places.insert(at, (group, place));
                place
            }
        };
        let slot = self.calls.open(kind, place, command, deadline)?;
        Ok((place as usize, slot))
    }

    pub(super) fn place_of(&self, group: GroupId) -> Option<usize> {
        let found = self.group_places.binary_search_by_key(&group, |it| it.0).ok()?;
        Some(self.group_places[found].1 as usize)
    }

    /// Lets time pass: reports calls whose deadline has come, gives up silent connections, looks
    /// for leaders, and moves what may be sent into the outboxes.
    pub fn advance(&mut self, now: Ticks) {
        self.expire(now);
        for link in 0..self.links.len() {
            if self.links[link].gives_up_at().is_some_and(|at| at <= now) {
                let address = self.links[link].address.clone();
                let waited_us = now.since(self.links[link].heard.max(self.links[link].since)).0;
                self.fail(now, link, Trouble::Silent { address, waited_us });
            }
        }
        self.wake_at = self.calls.earliest();
        self.doubt(now);
        for place in 0..self.groups.len() {
            if self.groups[place].has_work() {
                self.drive(now, place);
            }
        }
        for link in 0..self.links.len() {
            self.drive_own(now, link);
            if let Some(at) = self.links[link].gives_up_at() {
                self.wake_at = self.wake_at.min(at);
            }
        }
    }

    /// Looks for another leader of groups whose leader's link has fallen silent. What is out on it
    /// stays there: it is given up when somebody else leads, or for good.
    fn doubt(&mut self, now: Ticks) {
        for (at, link) in self.links.iter().enumerate().filter(|(_, link)| link.is_open()) {
            let Some(doubted_at) = link.doubted_at() else { continue };
            if now < doubted_at {
                self.wake_at = self.wake_at.min(doubted_at);
                continue;
            }
            for group in self.groups.iter_mut().filter(|it| it.leader == Leader::Leading(at)) {
                group.leader = Leader::seek(now);
                group.doubted = Some(at);
            }
        }
    }

    /// When to call [`advance`](Self::advance) next if nothing happens before.
    pub fn wake_at(&self) -> Ticks {
        self.wake_at
    }

    /// The calls that completed since the last look.
    pub fn take_completed(&mut self) -> Completions<'_> {
        self.calls.take_completed()
    }

    /// Takes one call out of those completed, if it is among them; the others stay.
    pub fn take_one<T>(&mut self, call: CallId, take: impl FnOnce(Outcome<'_>) -> T) -> Option<T> {
        self.calls.take_one(call, take)
    }

    /// Whether [`take_completed`](Self::take_completed) would give any.
    pub fn has_completed(&self) -> bool {
        self.calls.has_completed()
    }

    /// Every address where this client would look for a node: its endpoints, and the nodes that
    /// members of groups named.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.endpoints.iter().chain(&self.known).map(String::as_str)
    }

    /// How many calls are under way, those included that were reported as unknown and are still
    /// sent to fill their gap.
    pub fn calls_under_way(&self) -> usize {
        self.calls.live()
    }

    /// What last went wrong with a connection.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// The next connection to make: its name, and where to. Report [`connected`](Self::connected)
    /// or [`closed`](Self::closed).
    pub fn next_connect(&mut self, now: Ticks) -> Option<(LinkId, &str)> {
        let at = self.links.iter().position(|link| link.state == State::Wanted)?;
        let link = &mut self.links[at];
        link.enter(State::Connecting, now);
        Some((LinkId(at as u32), &link.address))
    }

    /// The next connection to close; the core has forgotten it already, so it isn't reported back.
    /// Close before connecting: the same name may be connected anew.
    pub fn next_close(&mut self) -> Option<LinkId> {
        self.closing.pop_front()
    }

    /// A connection is made.
    pub fn connected(&mut self, now: Ticks, link: LinkId) {
        let link = &mut self.links[link.0 as usize];
        if link.state == State::Connecting {
            let cluster = Some(self.identity.cluster).filter(|&it| it != ClusterId(0));
            let hello = Hello::from_client(self.random.client_id(), cluster, None, link.shard);
            link.outbox.push(&hello.encode());
            link.hello = Some(hello);
            link.enter(State::Greeting, now);
        }
    }

    /// Where to receive into; call [`received`](Self::received) afterwards.
    pub fn inbox(&mut self, link: LinkId) -> &mut Inbox {
        &mut self.links[link.0 as usize].inbox
    }

    /// What to send.
    pub fn outbox(&mut self, link: LinkId) -> &mut Outbox {
        &mut self.links[link.0 as usize].outbox
    }

    /// A connection could not be made, or is gone.
    pub fn closed(&mut self, now: Ticks, link: LinkId) {
        let link = link.0 as usize;
        if self.links[link].state != State::Idle {
            let address = self.links[link].address.clone();
            self.down(now, link, Trouble::Closed { address });
        }
    }

    /// Gives a connection up and has the driver close it.
    pub(super) fn fail(&mut self, now: Ticks, link: usize, trouble: Trouble) {
        self.closing.push_back(LinkId(link as u32));
        self.down(now, link, trouble);
    }

    /// Takes back what was sent on a connection that is gone.
    fn down(&mut self, now: Ticks, at: usize, trouble: Trouble) {
        let link = &mut self.links[at];
        let backoff = self.random.backoff(link.failures);
        link.failures += 1;
        link.not_before = now.after(backoff);
        link.enter(State::Idle, now);
        link.inbox = Inbox::new();
        link.outbox.clear();
        link.owed = 0;
        while let Some(id) = link.status_out.pop_back() {
            link.own_queue.push_front(id);
        }
        // What the server itself said last tells more than that it closed afterwards.
        let is_explained = matches!(
            &self.trouble,
            Some(Trouble::Server { address, .. }) if *address == link.address
        );
        if !(is_explained && matches!(trouble, Trouble::Closed { .. })) {
            self.trouble = Some(trouble);
        }
        let lost: Vec<u32> = self.calls.out_on(at as u32).collect();
        for slot in lost {
            let call = self.calls.get_mut(slot);
            call.out_on = None;
            if call.kind.is_of_link() {
                let id = self.calls.id(slot).0;
                self.links[at].own_queue.push_back(id);
                continue;
            }
            let group = &mut self.groups[call.group as usize];
            if call.kind == CallKind::Read {
                group.reads.push_back(slot);
            } else {
                call.in_doubt = call.kind.leaves_doubt();
                group.asks.push_back(slot);
            }
        }
        for group in &mut self.groups {
            if group.session_on == Some(at) {
                group.session.lost(&mut self.calls);
                group.settle(&mut self.calls, &mut self.random);
            }
            group.locate_on = group.locate_on.filter(|&link| link != at);
            group.doubted = group.doubted.filter(|&link| link != at);
            match group.leader {
                Leader::Leading(link) if link == at => group.leader = Leader::seek(now),
                Leader::Seeking { target: Some(link), .. } if link == at => {
                    group.failures += 1;
                    group.leader = Leader::seek(group.seek_later(now, &mut self.random));
                }
                _ => {}
            }
        }
    }

    fn expire(&mut self, now: Ticks) {
        let mut expired = std::mem::take(&mut self.expired);
        self.calls.expire(now, &mut expired);
        for &slot in &expired {
            let call = self.calls.get(slot);
            if call.kind == CallKind::Write && call.sequence != 0 {
                let group = &mut self.groups[call.group as usize];
                group.session.expire(&mut self.calls, slot);
                group.settle(&mut self.calls, &mut self.random);
                continue;
            }
            let is_queued = !call.kind.is_of_link() && call.out_on.is_none();
            let may_be_made = call.in_doubt || call.out_on.is_some();
            match call.kind.leaves_doubt() && may_be_made {
                true => self.calls.unknown(slot, Reason::Deadline),
                false => self.calls.give_up(slot, Reason::Deadline),
            }
            if !is_queued {
                self.calls.close(slot);
            }
        }
        if !expired.is_empty() {
            for group in &mut self.groups {
                group.forget_reported(&mut self.calls);
            }
            for link in &mut self.links {
                link.own_queue.retain(|&id| self.calls.find(id).is_some());
            }
        }
        self.expired = expired;
    }

    /// Brings one group with work on: towards its leader, or its requests into the outbox.
    fn drive(&mut self, now: Ticks, place: usize) {
        let group = &mut self.groups[place];
        if !group.session.is_open()
            && !group.writes.is_empty()
            && let Leader::Leading(link) = group.leader
        {
            // A session begins with a fresh look at its leader.
            group.leader = Leader::Seeking { target: Some(link), asked: false, not_before: now };
        }
        match group.leader {
            Leader::Leading(link) => match self.links[link].want(now) {
                Ok(()) if self.links[link].is_open() => self.flush(now, place, link),
                Ok(()) => {}
                Err(at) => self.wake_at = self.wake_at.min(at),
            },
            Leader::Seeking { .. } => {
                let doubted = group.doubted;
                self.seek(now, place);
                // As long as nobody else leads it is the likeliest to.
                if let Some(link) = doubted.filter(|&link| self.links[link].is_open()) {
                    self.flush(now, place, link);
                }
            }
        }
    }

    /// Moves a group's requests into its leader's outbox.
    fn flush(&mut self, now: Ticks, place: usize, at: usize) {
        let Self { groups, links, calls, identity, .. } = self;
        let (group, link) = (&mut groups[place], &mut links[at]);
        let is_elsewhere = group.session_on.is_some_and(|link| link != at);
        while !is_elsewhere
            && group.session.may_send(now, !group.writes.is_empty())
            && !link.outbox.is_full()
        {
            let mut batch = BatchWriter::begin(&mut link.outbox, Kind::Writes, group.id, *identity);
            while batch.len() < ITEMS_MAX && batch.body_len() < BATCH_BYTES {
                let Some((slot, envelope)) = group.session.next(calls, &mut group.writes) else {
                    break;
                };
                batch.request(calls.id(slot).0, [&envelope.to_bytes(), &calls.get(slot).command]);
            }
            let count = batch.len();
            batch.finish();
            if count == 0 {
                break;
            }
            group.session_on = Some(at);
            link.owe(count, now);
        }
        while !group.reads.is_empty() && now >= group.reads_retry_at && !link.outbox.is_full() {
            // The reads of one frame may all see the same.
            let of = |slot: &u32| calls.get(*slot).consistency;
            let consistency = group.reads.front().map(of).expect("there is one");
            let (outbox, id) = (&mut link.outbox, group.id);
            let mut batch = BatchWriter::begin_reads(outbox, consistency, id, *identity);
            while batch.len() < ITEMS_MAX && batch.body_len() < BATCH_BYTES {
                let is_alike = |slot: &mut u32| calls.get(*slot).consistency == consistency;
                let Some(slot) = group.reads.pop_front_if(is_alike) else { break };
                let id = calls.id(slot).0;
                let call = calls.get_mut(slot);
                call.out_on = Some(at as u32);
                batch.request(id, [&call.command, &[]]);
            }
            let count = batch.len();
            batch.finish();
            link.owe(count, now);
        }
        if !group.locates.is_empty() && group.locate_on.is_none() {
            write_locate(&mut link.outbox, group.id, *identity);
            link.owe(1, now);
            group.locate_on = Some(at);
        }
        for retry_at in [group.session.retry_at, group.reads_retry_at] {
            if retry_at > now {
                self.wake_at = self.wake_at.min(retry_at);
            }
        }
        self.flush_asks(now, place, at);
    }

    /// Sends what is for one node alone.
    fn drive_own(&mut self, now: Ticks, at: usize) {
        let link = &mut self.links[at];
        if link.own_queue.is_empty() {
            return;
        }
        match link.want(now) {
            Ok(()) if link.is_open() => {
                while let Some(id) = link.own_queue.pop_front() {
                    let Some(slot) = self.calls.find(id) else { continue };
                    let call = self.calls.get_mut(slot);
                    if call.kind == CallKind::Status {
                        write_status(&mut link.outbox, self.identity);
                        link.status_out.push_back(id);
                    } else if call.kind == CallKind::Pause {
                        call.out_on = Some(at as u32);
                        LeadAsk::name(&mut call.command, id);
                        lead_wire::write_encoded(
                            &mut link.outbox,
                            GroupId(0),
                            self.identity,
                            &call.command,
                        );
                    } else if call.kind == CallKind::ReadAt {
                        call.out_on = Some(at as u32);
                        let (of, group) = (call.consistency, self.groups[call.group as usize].id);
                        let outbox = &mut link.outbox;
                        let mut batch = BatchWriter::begin_reads(outbox, of, group, self.identity);
                        batch.request(id, [&call.command, &[]]);
                        batch.finish();
                    } else {
                        call.out_on = Some(at as u32);
                        let group = self.groups[call.group as usize].id;
                        write_members(&mut link.outbox, group, self.identity, id);
                    }
                    link.owe(1, now);
                }
            }
            Ok(()) => {}
            Err(at) => self.wake_at = self.wake_at.min(at),
        }
    }

    /// The link to an address and shard; made if there is none.
    pub(super) fn link_to(&mut self, address: &str, shard: Option<ShardId>) -> usize {
        let is_it = |link: &Link| link.address == address && link.shard == shard;
        self.links.iter().position(is_it).unwrap_or_else(|| {
            self.links.push(Link::new(address, shard, self.outbox_bytes_max));
            self.links.len() - 1
        })
    }

    pub(super) fn wake_before(&mut self, at: Ticks) {
        self.wake_at = self.wake_at.min(at);
    }
}
