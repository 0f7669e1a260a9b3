//! What waits to leave over one link as one frame per kind: the heartbeats of all groups, their
//! answers, and the answers to appends.
//!
//! A beat carries the sender shard's stamp and its newest durable sequence, so that a peer can
//! tell a living shard from a living process (docs/decisions/0002).

use ringraft_net::wire::{
    AppendReplies, AppendReplyItem, BeatItem, BeatReplies, BeatReplyItem, Beats,
};
use ringraft_net::{Identity, Outbox};
use ringraft_types::{Sequence, Ticks};

/// The staged items of one link. What would be one too many for a frame is not kept: a heartbeat
/// or an answer that is lost is as good as one lost on the wire.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    beats: Beats,
    beat_replies: BeatReplies,
    append_replies: AppendReplies,
    /// The newest stamp received over the link: what the next answer echoes.
    pub(crate) echo: Ticks,
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

    pub(crate) fn is_empty(&self) -> bool {
        self.beats.is_empty() && self.beat_replies.is_empty() && self.append_replies.is_empty()
    }

    /// Writes what waits, answers first: they free the other side's window.
    pub(crate) fn flush(
        &mut self,
        out: &mut Outbox,
        sender: Identity,
        stamp: Ticks,
        durable: Sequence,
    ) {
        if !self.append_replies.is_empty() {
            self.append_replies.write(out, sender);
        }
        if !self.beat_replies.is_empty() {
            self.beat_replies.write(out, sender, self.echo, durable);
        }
        if !self.beats.is_empty() {
            self.beats.write(out, sender, stamp, durable);
        }
        self.clear();
    }

    /// Forgets everything: the link is lost, and what it carried with it.
    pub(crate) fn clear(&mut self) {
        self.beats.clear();
        self.beat_replies.clear();
        self.append_replies.clear();
    }
}
