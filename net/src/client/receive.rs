//! What servers answer, and what the core makes of it.

use ringraft_types::{Index, Revision, Status, Ticks};

use super::calls::CallKind;
use super::core::Core;
use super::group::Leader;
use super::link::{LinkId, State, Trouble};
use super::session::Advice;
use super::{Answer, Reason};
use crate::barrier_wire::BarrierReply;
use crate::client_wire::{self, ErrorFrame, LocateReply, Reply};
use crate::error::WireError;
use crate::frame::{Frame, Kind};
use crate::handshake::Welcome;
use crate::inbox::Inbox;
use crate::lead_wire::LeadReply;
use crate::members_wire::MembersReply;

/// Nodes beside the endpoints that are remembered: far more than a cluster has. More are not asked.
const KNOWN_MAX: usize = 64;

impl Core {
    /// Bytes have arrived in a link's inbox.
    pub fn received(&mut self, now: Ticks, link: LinkId) {
        let at = link.0 as usize;
        if self.links[at].state == State::Greeting && !self.welcomed(now, at) {
            return;
        }
        if !self.links[at].is_open() {
            return;
        }
        self.links[at].heard = now;
        for group in self.groups.iter_mut().filter(|group| group.doubted == Some(at)) {
            group.found(at);
        }
        let mut inbox = std::mem::take(&mut self.links[at].inbox);
        match self.take_frames(now, at, &mut inbox) {
            Ok(()) => self.links[at].inbox = inbox,
            Err(trouble) => self.fail(now, at, trouble),
        }
    }

    /// Reads the server's answer to the greeting; whether frames may follow.
    fn welcomed(&mut self, now: Ticks, at: usize) -> bool {
        let link = &mut self.links[at];
        let Some(bytes) = link.inbox.take_handshake() else { return false };
        let hello = link.hello.expect("the greeting was sent");
        let verdict = Welcome::decode(&bytes)
            .and_then(|welcome| welcome.judge(&hello).map(|_version| welcome));
        match verdict {
            Ok(welcome) => {
                link.welcome = Some(welcome);
                link.failures = 0;
                link.enter(State::Open, now);
                true
            }
            Err(code) => {
                let address = link.address.clone();
                self.fail(now, at, Trouble::Refused { address, code });
                false
            }
        }
    }

    fn take_frames(&mut self, now: Ticks, at: usize, inbox: &mut Inbox) -> Result<(), Trouble> {
        let address = |core: &Self| core.links[at].address.clone();
        loop {
            let frame = match inbox.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(()),
                Err(error) => return Err(Trouble::Frame { address: address(self), error }),
            };
            if let Err(error) = self.take_frame(now, at, &frame) {
                return Err(Trouble::Wire { address: address(self), error });
            }
        }
    }

    fn take_frame(&mut self, now: Ticks, at: usize, frame: &Frame<'_>) -> Result<(), WireError> {
        match frame.header.kind {
            Kind::Replies => self.take_replies(now, at, frame)?,
            Kind::LocateReply => {
                let reply = LocateReply::read(frame)?;
                self.links[at].owed = self.links[at].owed.saturating_sub(1);
                self.take_locate_reply(now, at, frame, reply);
            }
            Kind::StatusReply => {
                let link = &mut self.links[at];
                link.owed = link.owed.saturating_sub(1);
                let slot = link.status_out.pop_front().and_then(|id| self.calls.find(id));
                if let Some(slot) = slot {
                    self.complete_with_body(slot, frame.body);
                }
            }
            Kind::MembersReply => {
                let reply = MembersReply::read(frame)?;
                self.links[at].owed = self.links[at].owed.saturating_sub(1);
                self.take_members_reply(now, at, frame, &reply);
            }
            Kind::LeadReply => {
                let reply = LeadReply::read(frame)?;
                self.links[at].owed = self.links[at].owed.saturating_sub(1);
                self.take_lead_reply(now, at, frame, &reply);
            }
            Kind::BarrierReply => {
                let reply = BarrierReply::read(frame)?;
                self.links[at].owed = self.links[at].owed.saturating_sub(1);
                self.take_barrier_reply(now, at, frame, &reply);
            }
            Kind::Error => {
                let ErrorFrame { code, sentence } = ErrorFrame::read(frame)?;
                let (address, sentence) = (self.links[at].address.clone(), sentence.to_owned());
                self.trouble = Some(Trouble::Server { address, code, sentence });
            }
            kind => {
                let value = kind as u64;
                return Err(WireError::Field { kind, field: "kind", value });
            }
        }
        Ok(())
    }

    fn take_replies(&mut self, now: Ticks, at: usize, frame: &Frame<'_>) -> Result<(), WireError> {
        let replies = client_wire::replies(frame)?;
        let link = &mut self.links[at];
        link.owed = link.owed.saturating_sub(replies.len());
        let Some(place) = self.place_of(frame.header.group) else { return Ok(()) };
        let mut advice = Advice::Continue;
        for reply in replies.iter() {
            // A late or doubled reply finds nobody.
            let Some(slot) = self.calls.find(reply.call) else { continue };
            if self.calls.get(slot).group as usize != place {
                continue;
            }
            let (group, calls) = (&mut self.groups[place], &mut self.calls);
            let call = calls.get(slot);
            let next = match call.kind {
                CallKind::Write if call.sequence != 0 && group.session_on == Some(at) => {
                    let advice = group.session.reply(calls, slot, &reply);
                    if calls.get(slot).kind == CallKind::Barrier {
                        group.asks.push_back(slot);
                    }
                    advice
                }
                CallKind::Read if call.out_on == Some(at as u32) => {
                    self.take_read_reply(place, slot, &reply)
                }
                CallKind::ReadAt if call.out_on == Some(at as u32) => {
                    let Reply { status, flags, revision, index, body, .. } = reply;
                    match status {
                        Status::Ok => calls.done(slot, Answer { flags, revision, index, body }),
                        _ => calls.not_done(slot, Reason::Refused(status)),
                    }
                    calls.close(slot);
                    continue;
                }
                _ => continue,
            };
            if next != Advice::Continue {
                self.groups[place].hint = Some(reply.hint).filter(|hint| hint.0 != 0);
                advice = if advice == Advice::Seek { advice } else { next };
            }
        }
        self.groups[place].settle(&mut self.calls, &mut self.random);
        self.heed(now, at, place, advice);
        Ok(())
    }

    /// Does what the answers of one frame call for: goes on, waits a little, or looks for another
    /// leader.
    pub(super) fn heed(&mut self, now: Ticks, at: usize, place: usize, advice: Advice) {
        let group = &mut self.groups[place];
        if advice == Advice::Continue {
            group.failures = 0;
            return;
        }
        // Refusals of one pipeline that come in several frames are one failure.
        if now >= group.session.retry_at {
            let backoff = self.random.backoff(group.failures);
            group.failures += 1;
            group.session.retry_at = now.after(backoff);
            group.reads_retry_at = now.after(backoff);
        }
        if advice == Advice::Seek && group.leader == Leader::Leading(at) {
            // With a hint the next is asked at once, the first time.
            let is_hinted = group.hint.is_some() && group.failures <= 1;
            let later = group.seek_later(now, &mut self.random);
            group.leader = Leader::seek(if is_hinted { now } else { later });
        }
    }

    fn take_read_reply(&mut self, place: usize, slot: u32, reply: &Reply<'_>) -> Advice {
        let Reply { status, flags, revision, index, body, .. } = *reply;
        self.calls.get_mut(slot).out_on = None;
        if status == Status::Ok {
            self.calls.done(slot, Answer { flags, revision, index, body });
            self.calls.close(slot);
            return Advice::Continue;
        }
        if !status.is_retryable() {
            self.calls.not_done(slot, Reason::Refused(status));
            self.calls.close(slot);
            return Advice::Continue;
        }
        self.groups[place].reads.push_back(slot);
        match status {
            Status::NotLeader | Status::NoSuchGroup | Status::Unknown => Advice::Seek,
            _ => Advice::Pause,
        }
    }

    pub(super) fn complete_with_body(&mut self, slot: u32, body: &[u8]) {
        let (revision, index) = (Revision(0), Index(0));
        self.calls.done(slot, Answer { flags: 0, revision, index, body });
        self.calls.close(slot);
    }

    /// Asks the next node who leads.
    pub(super) fn seek(&mut self, now: Ticks, place: usize) {
        let group = &mut self.groups[place];
        let Leader::Seeking { target, asked, not_before } = group.leader else {
            unreachable!("only called while seeking")
        };
        if now < not_before {
            self.wake_before(not_before);
            return;
        }
        // Who doesn't answer isn't waited for; an answer that comes late counts all the same.
        let answers = target.filter(|&target| !self.links[target].is_doubted(now));
        let asked = asked && answers.is_some();
        let Some(target) = answers.or_else(|| self.choose(now, place)) else {
            let at = self.groups[place].seek_later(now, &mut self.random);
            self.groups[place].leader = Leader::seek(at);
            self.wake_before(at);
            return;
        };
        let (group, link) = (&mut self.groups[place], &mut self.links[target]);
        let mut asked = asked;
        match link.want(now) {
            Ok(()) if link.is_open() && !asked => {
                client_wire::write_locate(&mut link.outbox, group.id, self.identity);
                link.owe(1, now);
                asked = true;
            }
            Ok(()) => {}
            Err(at) => self.wake_before(at),
        }
        if let Some(at) = self.links[target].doubted_at() {
            self.wake_before(at);
        }
        let group = &mut self.groups[place];
        group.leader = Leader::Seeking { target: Some(target), asked, not_before };
    }

    /// Whom to ask: the hinted node, else the endpoints, the members, and the nodes that other groups
    /// named, in turn; `None` if all of them failed just now, or don't answer. The others' nodes matter to a group
    /// that was never found: the only endpoint may be the one that is down.
    fn choose(&mut self, now: Ticks, place: usize) -> Option<usize> {
        let group = &mut self.groups[place];
        let hint = group.hint.take();
        let hinted = group.members.iter().find(|member| Some(member.node) == hint).cloned();
        if let Some(member) = hinted {
            let link = self.link_to(&member.address, Some(member.shard));
            if !self.is_node_doubted(now, &member.address) {
                return Some(link);
            }
        }
        let named = self.endpoints.len() + self.groups[place].members.len();
        let all = named + self.known.len();
        for _ in 0..all {
            let group = &mut self.groups[place];
            let turn = group.next_asked % all;
            group.next_asked = turn + 1;
            let (address, shard) = match turn.checked_sub(self.endpoints.len()) {
                None => (self.endpoints[turn].clone(), None),
                Some(_) if turn >= named => (self.known[turn - named].clone(), None),
                Some(at) => (group.members[at].address.clone(), Some(group.members[at].shard)),
            };
            if !self.is_node_doubted(now, &address) {
                return Some(self.link_to(&address, shard));
            }
        }
        None
    }

    /// Whether a link to this address is doubted.
    fn is_node_doubted(&self, now: Ticks, address: &str) -> bool {
        self.links.iter().any(|link| link.address == address && link.is_doubted(now))
    }

    fn take_locate_reply(&mut self, now: Ticks, at: usize, frame: &Frame<'_>, reply: LocateReply) {
        let Some(place) = self.place_of(frame.header.group) else { return };
        for slot in std::mem::take(&mut self.groups[place].locates) {
            self.complete_with_body(slot, frame.body);
        }
        let group = &mut self.groups[place];
        group.locate_on = group.locate_on.filter(|&link| link != at);
        if !reply.members.is_empty() {
            group.members.clone_from(&reply.members);
        }
        for member in &reply.members {
            let is_known = self.endpoints.iter().chain(&self.known).any(|it| *it == member.address);
            if !is_known && self.known.len() < KNOWN_MAX {
                self.known.push(member.address.clone());
            }
        }
        let group = &mut self.groups[place];
        let Leader::Seeking { target, asked, .. } = group.leader else { return };
        let welcome = self.links[at].welcome.expect("an open link was welcomed");
        let leader = reply.members.iter().find(|member| member.node == reply.leader);
        if reply.leader == welcome.sender.node && reply.ready && reply.status == Status::Ok {
            let shard = leader.map_or(welcome.shard, |member| member.shard);
            let address = self.links[at].address.clone();
            let link =
                if shard == welcome.shard { at } else { self.link_to(&address, Some(shard)) };
            let group = &mut self.groups[place];
            group.session.open(reply.applied);
            (group.session.retry_at, group.reads_retry_at) = (now, now);
            group.absent = 0;
            let silent = group.doubted.filter(|&doubted| doubted != link);
            group.found(link);
            if let Some(silent) = silent {
                let address = self.links[silent].address.clone();
                let waited_us = now.since(self.links[silent].heard).0;
                self.fail(now, silent, Trouble::Silent { address, waited_us });
            }
            return;
        }
        if target != Some(at) || !asked {
            return;
        }
        let later = group.seek_later(now, &mut self.random);
        if reply.status == Status::NoSuchGroup {
            self.no_such_group(place, later);
            return;
        }
        group.absent = 0;
        group.failures += 1;
        let next = leader.filter(|member| member.node != welcome.sender.node).cloned();
        // A node that doesn't answer may have been the leader until just now.
        let next = next.filter(|member| !self.is_node_doubted(now, &member.address));
        let group = &mut self.groups[place];
        let is_new = group.failures <= 2;
        match next {
            Some(member) => {
                let link = self.link_to(&member.address, Some(member.shard));
                let not_before = if is_new { now } else { later };
                self.groups[place].leader =
                    Leader::Seeking { target: Some(link), asked: false, not_before };
            }
            // It leads but isn't ready: it is asked again.
            None if reply.leader == welcome.sender.node => {
                group.leader =
                    Leader::Seeking { target: Some(at), asked: false, not_before: later };
            }
            None => group.leader = Leader::seek(later),
        }
    }

    /// A node doesn't know the group. When all that were asked say so, nothing can be done for it.
    fn no_such_group(&mut self, place: usize, not_before: Ticks) {
        let group = &mut self.groups[place];
        group.absent += 1;
        group.failures += 1;
        group.leader = Leader::seek(not_before);
        if group.absent >= self.endpoints.len().max(group.members.len()) {
            group.session.refuse_waiting(&mut self.calls, Reason::Refused(Status::NoSuchGroup));
            group.settle(&mut self.calls, &mut self.random);
            let waiting = group.writes.drain(..).chain(group.reads.drain(..));
            for slot in waiting.chain(group.asks.drain(..)) {
                let reason = Reason::Refused(Status::NoSuchGroup);
                let call = self.calls.get(slot);
                match call.kind.leaves_doubt() && call.in_doubt {
                    true => self.calls.unknown(slot, reason),
                    false => self.calls.give_up(slot, reason),
                }
                self.calls.close(slot);
            }
        }
    }
}
