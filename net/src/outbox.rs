//! What waits to be sent on one connection: two buffers, of which one fills with new frames while
//! the other belongs to the kernel (I-08), and beside them a lane for what is urgent.
//!
//! Bounded by a limit in bytes; a full outbox makes its owner stop producing (it stops reading the
//! connection, or answers busy).
//!
//! Between peers all but appends is urgent: it is small, and others wait for it to know who lives.
//! Urgent frames keep their order. They go before the appends that wait, at the next end of a
//! frame; one that is partly sent is finished first. Appends get their share between two flights
//! of urgent frames. As long as little waits, everything leaves in one send, appends first.
//!
//! ```text
//!   ordinary   [ append | append | append | append ]       sent up to here, in mid-frame
//!                         ~~~~~~^  ^                       gap: here urgent ones may go
//!   urgent     [ answers | beats ]
//! ```

use crate::frame::{self, Kind};

/// A buffer keeps this much memory while it is idle, bytes.
const IDLE_BYTES: usize = 64 << 10;

/// Up to so many ordinary bytes leave in one send with the urgent ones; of more, so many leave
/// between two flights of urgent ones.
const SHARE_BYTES: usize = 64 << 10;

/// Urgent bytes that may wait: a beat and all answers of ten thousand groups.
const URGENT_BYTES_MAX: usize = 1 << 20;

/// A bounded queue of bytes, double-buffered.
#[derive(Debug)]
pub struct Outbox {
    /// Appends between peers, and all else that isn't urgent.
    ordinary: Lane,
    urgent: Lane,
    /// Bytes at the front of what fills that are no frames: nothing goes before them.
    pushed: usize,
    /// Where urgent frames may go: at the end of a frame in what flies, not before it is reached.
    gap: usize,
    /// Which lane's bytes were given to be sent last.
    gave_urgent: bool,
    limit: usize,
}

/// Bytes in one order.
#[derive(Debug)]
struct Lane {
    /// Takes new frames.
    filling: Vec<u8>,
    /// Handed to the kernel; not touched until all of it is sent.
    flying: Vec<u8>,
    /// How much of `flying` is sent.
    flown: usize,
}

impl Lane {
    const fn new() -> Self {
        Self { filling: Vec::new(), flying: Vec::new(), flown: 0 }
    }

    fn waiting(&self) -> usize {
        self.filling.len() + self.flying.len() - self.flown
    }

    fn has_landed(&self) -> bool {
        self.flown == self.flying.len()
    }

    /// All that flew has landed: what filled flies.
    fn fly(&mut self) {
        assert!(self.has_landed(), "what flies belongs to the kernel (I-08)");
        self.flying.clear();
        self.flown = 0;
        if self.flying.capacity() > IDLE_BYTES && self.filling.len() < IDLE_BYTES {
            self.flying.shrink_to(IDLE_BYTES);
        }
        std::mem::swap(&mut self.filling, &mut self.flying);
    }
}

impl Outbox {
    /// An empty outbox that is full at `limit` bytes. Allocates with the first frame.
    pub const fn new(limit: usize) -> Self {
        Self {
            ordinary: Lane::new(),
            urgent: Lane::new(),
            pushed: 0,
            gap: 0,
            gave_urgent: false,
            limit,
        }
    }

    /// The buffer that new frames of a kind are appended to.
    pub(crate) fn filling(&mut self, kind: Kind) -> &mut Vec<u8> {
        if kind.is_urgent() { &mut self.urgent.filling } else { &mut self.ordinary.filling }
    }

    /// Appends bytes that are not a frame, such as a handshake, or frames of another outbox. Nothing
    /// that is written later goes before them.
    pub fn push(&mut self, bytes: &[u8]) {
        self.ordinary.filling.extend_from_slice(bytes);
        self.pushed = self.ordinary.filling.len();
    }

    /// Bytes that wait, those in flight included.
    pub fn waiting(&self) -> usize {
        self.ordinary.waiting() + self.urgent.waiting()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting() == 0
    }

    /// Whether the limit is reached: begin no further frame until some bytes are sent. What is
    /// urgent has a limit of its own.
    pub fn is_full(&self) -> bool {
        self.ordinary.waiting() >= self.limit
    }

    /// Whether as many urgent bytes wait as may: begin no further urgent frame, who doesn't take
    /// these isn't served by more.
    pub fn is_urgent_full(&self) -> bool {
        self.urgent.waiting() >= URGENT_BYTES_MAX
    }

    /// What to send next; `None` if nothing waits. The bytes stay where they are, unchanged, until
    /// [`sent`](Self::sent) has accounted for all of them; frames begun meanwhile go to the other
    /// buffer. Call again after a short send for what is next: the rest, or what is urgent.
    pub fn take_for_send(&mut self) -> Option<&[u8]> {
        if self.ordinary.has_landed() && self.urgent.has_landed() {
            self.begin_flight();
        }
        let Self { ordinary, urgent, gap, .. } = self;
        let mut end = ordinary.flying.len();
        if urgent.has_landed() && !urgent.filling.is_empty() {
            *gap = frame_end(&ordinary.flying, *gap, ordinary.flown);
            if ordinary.flown == *gap {
                urgent.fly();
                *gap = frame_end(&ordinary.flying, *gap, *gap + SHARE_BYTES);
            } else {
                end = *gap;
            }
        }
        self.gave_urgent = !urgent.has_landed();
        let rest = if self.gave_urgent {
            &urgent.flying[urgent.flown..]
        } else {
            &ordinary.flying[ordinary.flown..end]
        };
        (!rest.is_empty()).then_some(rest)
    }

    /// Nothing flies: what filled takes off.
    fn begin_flight(&mut self) {
        let Self { ordinary, urgent, .. } = self;
        ordinary.fly();
        self.gap = std::mem::take(&mut self.pushed);
        if ordinary.flying.len() <= SHARE_BYTES && !urgent.filling.is_empty() {
            // Small enough for one send; urgent frames that come while it flies come after it.
            ordinary.flying.append(&mut urgent.filling);
            urgent.filling.shrink_to(IDLE_BYTES);
            self.gap = ordinary.flying.len();
        }
    }

    /// The kernel took the first `count` bytes of what [`take_for_send`](Self::take_for_send) gave
    /// last.
    ///
    /// # Panics
    /// If it claims more than it was given.
    pub fn sent(&mut self, count: usize) {
        let lane = if self.gave_urgent { &mut self.urgent } else { &mut self.ordinary };
        assert!(count <= lane.flying.len() - lane.flown, "more bytes sent than given");
        lane.flown += count;
    }

    /// Takes everything that waits, for who carries the bytes itself; nothing may be in flight.
    pub fn take_all(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(part) = self.take_for_send() {
            bytes.extend_from_slice(part);
            let count = part.len();
            self.sent(count);
        }
        bytes
    }

    /// Drops everything that waits: the connection is gone. Not while a send is in flight.
    pub fn clear(&mut self) {
        *self = Self::new(self.limit);
    }
}

/// The first end of a frame at or after `least`, or the end of all. One is known at `end`.
fn frame_end(frames: &[u8], mut end: usize, least: usize) -> usize {
    while end < least && end < frames.len() {
        end += frame::frame_bytes(&frames[end..]);
    }
    assert!(end <= frames.len(), "only whole frames fly");
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{FrameHeader, FrameWriter, Identity};
    use ringraft_types::GroupId;
    use ringraft_types::limits::FRAME_HEADER_BYTES;

    /// Writes a frame of `bytes` bytes in all, which names itself in its header.
    fn write(outbox: &mut Outbox, kind: Kind, name: u64, bytes: usize) {
        let mut frame = FrameWriter::begin(outbox, kind, GroupId(name), Identity::default());
        frame.extend(&vec![0xee; bytes - FRAME_HEADER_BYTES]);
        frame.finish();
    }

    /// Names of whole frames.
    fn names(mut bytes: &[u8]) -> Vec<u64> {
        let mut names = Vec::new();
        while let Some(head) = bytes.first_chunk() {
            let header = FrameHeader::decode(head).expect("a frame begins here");
            names.push(header.group.0);
            bytes = &bytes[header.frame_bytes()..];
        }
        assert!(bytes.is_empty());
        names
    }

    /// Lets `most` bytes be sent of what is next, and says which frames these bytes are.
    fn send(outbox: &mut Outbox, most: usize) -> Vec<u64> {
        let part = outbox.take_for_send().unwrap_or_default();
        let part = part[..part.len().min(most)].to_vec();
        outbox.sent(part.len());
        names(&part)
    }

    /// Short sends come out in order, and what is added in flight doesn't move what flies.
    #[test]
    fn short_sends_keep_order() {
        let mut outbox = Outbox::new(10);
        assert_eq!(outbox.take_for_send(), None);
        outbox.push(b"hello");
        assert_eq!(outbox.take_for_send(), Some(&b"hello"[..]));
        let place = outbox.take_for_send().expect("unsent").as_ptr();
        outbox.push(&[b'w'; 100_000]);
        assert!(outbox.is_full());
        assert_eq!(outbox.take_for_send().expect("unsent").as_ptr(), place);
        outbox.sent(2);
        assert_eq!(outbox.take_for_send(), Some(&b"llo"[..]));
        outbox.sent(3);
        assert_eq!(outbox.take_for_send().expect("unsent").len(), 100_000);
        assert_eq!(outbox.waiting(), 100_000);
        outbox.sent(100_000);
        assert_eq!(outbox.take_for_send(), None);
        assert!(outbox.is_empty() && !outbox.is_full());
    }

    /// What is left of a short send comes before what was added since.
    #[test]
    fn all_is_taken_in_order() {
        let mut outbox = Outbox::new(10);
        outbox.push(b"hello");
        outbox.take_for_send();
        outbox.sent(2);
        outbox.push(b" world");
        assert_eq!(outbox.take_all(), b"llo world");
        assert!(outbox.is_empty() && outbox.take_all().is_empty());
    }

    /// What is urgent goes before what waits, but doesn't cut a frame that is partly sent.
    #[test]
    fn urgent_frames_go_at_the_next_end_of_a_frame() {
        let mut outbox = Outbox::new(1 << 20);
        for name in 1..=3 {
            write(&mut outbox, Kind::Append, name, 100_000);
        }
        let place = outbox.take_for_send().expect("unsent").as_ptr();
        outbox.sent(150_000);
        write(&mut outbox, Kind::BeatReplies, 11, 100);
        write(&mut outbox, Kind::Beats, 12, 100);
        let rest = outbox.take_for_send().expect("unsent");
        assert_eq!((rest.as_ptr(), rest.len()), (place.wrapping_add(150_000), 50_000));
        outbox.sent(50_000);
        let part = outbox.take_for_send().expect("unsent");
        assert_eq!(names(part), [11, 12]);
        outbox.sent(150);
        write(&mut outbox, Kind::Beats, 13, 100);
        assert_eq!(outbox.take_for_send().expect("unsent").len(), 50, "the rest of number 12");
        outbox.sent(50);
        assert_eq!(send(&mut outbox, usize::MAX), [3], "its share");
        assert_eq!(send(&mut outbox, usize::MAX), [13]);
        assert!(outbox.is_empty());
    }

    /// Little of everything leaves in one send, and later beats don't pass earlier ones.
    #[test]
    fn little_leaves_together() {
        let mut outbox = Outbox::new(1 << 20);
        write(&mut outbox, Kind::Beats, 11, 100);
        write(&mut outbox, Kind::Append, 1, SHARE_BYTES / 2);
        write(&mut outbox, Kind::Append, 2, SHARE_BYTES / 2);
        assert_eq!(names(outbox.take_for_send().expect("unsent")), [1, 2, 11]);
        outbox.sent(SHARE_BYTES / 2);
        write(&mut outbox, Kind::Beats, 12, 100);
        assert_eq!(names(outbox.take_for_send().expect("unsent")), [2, 11]);
        outbox.sent(SHARE_BYTES / 2);
        assert_eq!(send(&mut outbox, usize::MAX), [11]);
        assert_eq!(send(&mut outbox, usize::MAX), [12]);
    }

    /// Beats without end don't keep the appends waiting.
    #[test]
    fn urgent_frames_starve_nobody() {
        let mut outbox = Outbox::new(1 << 20);
        for name in 1..=8 {
            write(&mut outbox, Kind::Append, name, SHARE_BYTES / 2);
        }
        let mut came = Vec::new();
        for name in 11..=16 {
            write(&mut outbox, Kind::Beats, name, 100);
            came.extend(send(&mut outbox, usize::MAX));
        }
        assert_eq!(came, [11, 1, 2, 12, 13, 3, 4, 14, 15, 5, 6]);
    }

    /// Nothing goes before a handshake, however much waits behind it.
    #[test]
    fn nothing_goes_before_a_handshake() {
        let mut outbox = Outbox::new(1 << 20);
        outbox.push(b"welcome");
        write(&mut outbox, Kind::Append, 1, 100_000);
        write(&mut outbox, Kind::Beats, 11, 100);
        assert_eq!(outbox.take_for_send(), Some(&b"welcome"[..]));
        outbox.sent(7);
        assert_eq!(send(&mut outbox, usize::MAX), [11]);
        assert_eq!(send(&mut outbox, usize::MAX), [1]);
    }

    /// Urgent frames have room when the rest is full, and a bound of their own.
    #[test]
    fn the_urgent_lane_is_bounded() {
        let mut outbox = Outbox::new(100_000);
        write(&mut outbox, Kind::Append, 1, 100_000);
        assert!(outbox.is_full() && !outbox.is_urgent_full());
        write(&mut outbox, Kind::AppendReplies, 11, URGENT_BYTES_MAX);
        assert!(outbox.is_urgent_full());
        assert_eq!(send(&mut outbox, usize::MAX), [11]);
        assert!(outbox.is_full() && !outbox.is_urgent_full());
        assert_eq!(send(&mut outbox, usize::MAX), [1]);
        outbox.take_for_send();
        for lane in [&outbox.ordinary, &outbox.urgent] {
            assert!(lane.filling.capacity() <= URGENT_BYTES_MAX.max(100_000));
        }
    }

    /// However frames and short sends fall, each frame comes out whole and each lane in its order.
    #[test]
    fn every_cut_gives_whole_frames_in_order() {
        let mut overtakings = 0;
        for seed in 0..300u64 {
            let mut state = seed;
            let mut random = |below: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) % below
            };
            let (mut outbox, mut bytes) = (Outbox::new(1 << 20), Vec::new());
            let mut made = [0, 100];
            while made != [30, 130] || !outbox.is_empty() {
                let lane = random(4) as usize;
                if lane < 2 && made[lane] % 100 < 30 {
                    let kind = [Kind::Append, Kind::Beats][lane];
                    let most = [40_000, 400][lane];
                    write(
                        &mut outbox,
                        kind,
                        made[lane],
                        FRAME_HEADER_BYTES + random(most) as usize,
                    );
                    made[lane] += 1;
                } else if let Some(part) = outbox.take_for_send() {
                    let count = random(part.len() as u64 + 1) as usize;
                    bytes.extend_from_slice(&part[..count]);
                    outbox.sent(count);
                }
            }
            let came = names(&bytes);
            let (urgent, ordinary): (Vec<u64>, Vec<u64>) =
                came.iter().partition(|&&name| name >= 100);
            assert_eq!(urgent, (100..130).collect::<Vec<u64>>(), "seed {seed}");
            assert_eq!(ordinary, (0..30).collect::<Vec<u64>>(), "seed {seed}");
            overtakings += came.windows(2).filter(|pair| pair[0] >= 100 && pair[1] < 100).count();
        }
        assert!(overtakings > 300, "{overtakings}");
    }
}
