//! What waits to leave over one link as one frame per kind: the heartbeats of all groups, their
//! answers, the answers to appends, and what followers ask for their reads, with the answers.
//!
//! Each says for how long the sender's disk has held its oldest write, so that a peer can tell a
//! shard that works from a process that lives (docs/decisions/0002), and whether its memory for
//! data is full.

use ringraft_net::wire::{
    AppendReplies, AppendReplyItem, BeatItem, BeatReplies, BeatReplyItem, Beats, Health,
    ReadAnswerItem, ReadAnswers, ReadAskItem, ReadAsks,
};
use ringraft_net::{Identity, Outbox};

/// The staged items of one link. What would be one too many for a frame is not kept: a heartbeat
/// or an answer that is lost is as good as one lost on the wire.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    beats: Beats,
    beat_replies: BeatReplies,
    append_replies: AppendReplies,
    read_asks: ReadAsks,
    read_answers: ReadAnswers,
    /// The peer must hear of this shard and its disk, be there a heartbeat or not.
    pub(crate) is_due: bool,
}

impl Staged {
    pub(crate) fn beat(&mut self, item: BeatItem) {
        if self.beats.len() < Beats::ITEMS_MAX {
            self.beats.push(item);
        }
    }

    pub(crate) fn beat_reply(&mut self, item: BeatReplyItem) {
        if self.beat_replies.len() < BeatReplies::ITEMS_MAX {
            self.beat_replies.push(item);
        }
    }

    pub(crate) fn append_reply(&mut self, item: AppendReplyItem) {
        if self.append_replies.len() < AppendReplies::ITEMS_MAX {
            self.append_replies.push(item);
        }
    }

    pub(crate) fn read_ask(&mut self, item: ReadAskItem) {
        if self.read_asks.len() < ReadAsks::ITEMS_MAX {
            self.read_asks.push(item);
        }
    }

    pub(crate) fn read_answer(&mut self, item: ReadAnswerItem) {
        if self.read_answers.len() < ReadAnswers::ITEMS_MAX {
            self.read_answers.push(item);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.is_due
            && self.beats.is_empty()
            && self.beat_replies.is_empty()
            && self.append_replies.is_empty()
            && self.read_asks.is_empty()
            && self.read_answers.is_empty()
    }

    /// Writes what waits, answers first: they free the other side's window. What finds no room is
    /// as good as lost on the wire.
    pub(crate) fn flush(&mut self, out: &mut Outbox, sender: Identity, health: Health) {
        if !self.append_replies.is_empty() && !out.is_urgent_full() {
            self.append_replies.write(out, sender, health);
        }
        if !self.beat_replies.is_empty() && !out.is_urgent_full() {
            self.beat_replies.write(out, sender, health);
        }
        if !self.read_asks.is_empty() && !out.is_urgent_full() {
            self.read_asks.write(out, sender, health);
        }
        if !self.read_answers.is_empty() && !out.is_urgent_full() {
            self.read_answers.write(out, sender, health);
        }
        if (!self.beats.is_empty() || self.is_due) && !out.is_urgent_full() {
            self.beats.write(out, sender, health);
        }
        self.clear();
    }

    /// Forgets everything: the link is lost, and what it carried with it.
    pub(crate) fn clear(&mut self) {
        self.beats.clear();
        self.beat_replies.clear();
        self.append_replies.clear();
        self.read_asks.clear();
        self.read_answers.clear();
        self.is_due = false;
    }
}
