//! Old frames of peers, kept to be delivered again.

use ringraft_net::Kind;

use crate::base::Base;
use crate::net::{Network, Piece};
use crate::random::Random;

/// Frames that are kept of one link, of each sort.
const OLD_MAX: usize = 32;

/// Frames of a link that may be delivered again.
#[derive(Debug, Default)]
pub(super) struct OldFrames {
    /// Of the last ones, more or less.
    late: Vec<Vec<u8>>,
    /// Of all that there ever were but beats, each as likely as any other.
    ever: Vec<Vec<u8>>,
    seen: u64,
    /// Of all answers to appends.
    answers: Vec<Vec<u8>>,
    answers_seen: u64,
}

/// What bytes of a peer begin with.
fn begins(bytes: &[u8], kinds: &[Kind]) -> bool {
    kinds.iter().any(|&kind| kind as u8 == bytes[5])
}

/// Keeps some of many, each as likely as any other; `seen` counts them.
fn keep_any(kept: &mut Vec<Vec<u8>>, seen: &mut u64, bytes: &[u8], random: &mut Random) {
    *seen += 1;
    if kept.len() < OLD_MAX {
        kept.push(bytes.to_vec());
    } else if let at @ 0..OLD_MAX = random.below(*seen) as usize {
        kept[at] = bytes.to_vec();
    }
}

impl OldFrames {
    pub(super) fn any(&self, random: &mut Random) -> Option<Vec<u8>> {
        let of = if random.coin() && !self.ever.is_empty() { &self.ever } else { &self.late };
        (!of.is_empty()).then(|| of[random.below(of.len() as u64) as usize].clone())
    }

    pub(super) fn keep(&mut self, bytes: Vec<u8>, random: &mut Random) {
        if !begins(&bytes, &[Kind::Beats, Kind::BeatReplies]) {
            keep_any(&mut self.ever, &mut self.seen, &bytes, random);
        }
        if self.late.len() < OLD_MAX {
            self.late.push(bytes);
        } else {
            self.late[random.below(OLD_MAX as u64) as usize] = bytes;
        }
    }

    pub(super) fn keep_answer(&mut self, bytes: &[u8], random: &mut Random) {
        if begins(bytes, &[Kind::AppendReplies]) {
            keep_any(&mut self.answers, &mut self.answers_seen, bytes, random);
        }
    }
}

impl Network {
    /// From now on answers are kept, to come again.
    pub(crate) fn keep_answers(&mut self) {
        self.keeps_answers = true;
    }

    /// An old answer of a shard of one node to the same of another comes again, if there is a
    /// connection.
    pub(crate) fn answer_again(&mut self, base: &mut Base, from: usize, to: usize, shard: u16) {
        let Some(old) = self.old.get(&(from, to, shard)).filter(|old| !old.answers.is_empty())
        else {
            return;
        };
        let at = base.random.below(old.answers.len() as u64) as usize;
        let bytes = old.answers[at].clone();
        let found = self.connections.iter().find_map(|(&id, connection)| {
            (0..2).find_map(|side| {
                let (end, other) = (connection.ends[side], connection.ends[1 - side]);
                let is_it = (end.owner.host, other.owner.host) == (from, to)
                    && connection.shard[side] == Some(shard);
                (is_it && end.is_open && !end.is_lost).then_some((id, side))
            })
        });
        if let Some((id, side)) = found {
            base.count("net: old answers again");
            self.push(base, id, side, Piece::Bytes(bytes));
        }
    }
}
