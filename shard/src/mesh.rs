//! The mesh: every lane (shards and control lanes) has one ring to and one from each other lane.
//! Lanes share nothing else: what concerns a group travels to the one lane that owns it (I-07).
//!
//! Three kinds of item travel, and each has one answer when there is no room (I-09):
//! - a **request** is refused where it entered ("busy") when the sender has `requests` of them
//!   outstanding towards that lane, or the ring has no room for it;
//! - a **reply** always fits: its slot was reserved with the request;
//! - a **notice** (neither answers nor is answered) comes back to the sender, who keeps it and
//!   stops taking in more, such as by not reading a socket.
//!
//! # Why a reply always fits
//! A ring has at least `notices + requests` slots. Requests and notices enter only while they leave
//! `requests` slots free, so there are never more than `slots - requests` of them in it. A lane
//! has at most `requests` requests outstanding towards another, each until its reply was *taken
//! from the ring*, so there are never more than `requests` replies in it. Together they fit.
//!
//! # Why nothing deadlocks
//! No call here waits, so no lane ever waits for another inside a turn, and there is no circle to
//! close. Every lane drains every ring in every turn whatever its own sends meet, since draining
//! needs no room anywhere: what must be sent because of what was drained is a reply, which fits,
//! or a request or notice, which may be refused. So every ring empties as long as its reader
//! turns. And a reader that could turn does turn: see the next section.
//!
//! # Why no wake-up is lost
//! A lane rings another only if that one sleeps. Both sides write first, fence, then look:
//! ```text
//! sender (ring_doorbells)            sleeper (may_park)
//!   push: tail = ..                    asleep = true, wanted = true where room is wanted
//!   fence SeqCst                       fence SeqCst
//!   look: asleep? -> clear, wake       look: any ring filled? -> clear, don't park
//! ```
//! The two fences have one order. If the sender's is first, the sleeper sees the item and doesn't
//! park. If the sleeper's is first, the sender sees the flag and wakes. A wake-up too many can
//! happen and does no harm. The same holds for a sleeper that waits for room: its look is at the
//! reader's position, the reader's write is `head`, and the reader's look is at `wanted` as well.

use crate::ring::sync::{Arc, AtomicBool, Ordering, fence};
use crate::ring::{Consumer, Padded, Producer, ring};

/// The wake call: how a sleeping lane is made to turn again. The reactor implements it (a message
/// to the lane's ring, an eventfd, a waker); it must be safe to call for a lane that is awake.
pub trait Wake {
    /// Makes the lane return from its sleep, now or, if it is about to sleep, at once then.
    fn wake(&self, lane: usize);
}

/// How much one lane may put before one other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeshLimits {
    /// Requests outstanding (sent, reply not yet taken) from one lane towards one other.
    pub requests: usize,
    /// Slots beyond those kept for replies: what requests and notices share.
    pub notices: usize,
}

/// What a slot carries besides the value: how it counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Notice,
    Request,
    Reply,
}

/// Flags that lanes show each other.
struct Board {
    lanes: usize,
    /// By lane: it is parked, or about to be.
    asleep: Box<[Padded<AtomicBool>]>,
    /// By writer and reader: the writer sleeps until the reader has taken something.
    wanted: Box<[AtomicBool]>,
}

impl Board {
    fn wanted(&self, writer: usize, reader: usize) -> &AtomicBool {
        &self.wanted[writer * self.lanes + reader]
    }
}

/// One lane's view of one other lane.
struct Neighbour<T> {
    out: Producer<(Kind, T)>,
    inbox: Consumer<(Kind, T)>,
    /// Requests we sent whose replies we have not taken: at most `limits.requests`.
    outstanding: usize,
    /// Requests we took and have not replied to: at most `limits.requests`.
    owed: usize,
    /// We pushed since the last `ring_doorbells`.
    pushed: bool,
    /// We took since the last `ring_doorbells`.
    taken: bool,
    /// The ring was full for something since the last `awake`.
    was_full: bool,
    /// And that something is kept back until there is room.
    wants_room: bool,
}

/// All ends of a mesh, before they are sent to their lanes.
pub struct Mesh<T> {
    ends: Vec<MeshEnd<T>>,
}

/// One lane's end of the mesh. Belongs to one thread at a time (I-08).
pub struct MeshEnd<T> {
    lane: usize,
    limits: MeshLimits,
    board: Arc<Board>,
    /// By lane; `None` at our own place.
    neighbours: Vec<Option<Neighbour<T>>>,
    /// Where the next drain begins, so that no lane is served last for ever.
    first: usize,
    /// Some neighbour is `pushed` or `taken`.
    touched: bool,
}

impl<T: Send> Mesh<T> {
    /// Connects this many lanes, each with each other.
    ///
    /// # Panics
    /// If a limit is zero.
    pub fn new(lanes: usize, limits: MeshLimits) -> Self {
        assert!(limits.requests > 0, "no request could ever be sent");
        assert!(limits.notices > 0, "nothing but replies could ever be sent");
        let flag = |_| AtomicBool::new(false);
        let board = Arc::new(Board {
            lanes,
            asleep: (0..lanes).map(flag).map(Padded).collect(),
            wanted: (0..lanes * lanes).map(flag).collect(),
        });
        let mut ends: Vec<MeshEnd<T>> = (0..lanes)
            .map(|lane| MeshEnd {
                lane,
                limits,
                board: board.clone(),
                neighbours: (0..lanes).map(|_| None).collect(),
                first: 0,
                touched: false,
            })
            .collect();
        let slots = limits.requests + limits.notices;
        for low in 0..lanes {
            for high in low + 1..lanes {
                let (up_out, up_inbox) = ring(slots);
                let (down_out, down_inbox) = ring(slots);
                ends[low].neighbours[high] = Some(Neighbour::new(up_out, down_inbox));
                ends[high].neighbours[low] = Some(Neighbour::new(down_out, up_inbox));
            }
        }
        Self { ends }
    }

    /// The ends, by lane.
    pub fn into_ends(self) -> Vec<MeshEnd<T>> {
        self.ends
    }
}

impl<T> Neighbour<T> {
    fn new(out: Producer<(Kind, T)>, inbox: Consumer<(Kind, T)>) -> Self {
        Self {
            out,
            inbox,
            outstanding: 0,
            owed: 0,
            pushed: false,
            taken: false,
            was_full: false,
            wants_room: false,
        }
    }
}

impl<T> MeshEnd<T> {
    /// Which lane this is.
    #[inline]
    pub fn lane(&self) -> usize {
        self.lane
    }

    /// How many lanes the mesh has, this one included.
    #[inline]
    pub fn lanes(&self) -> usize {
        self.neighbours.len()
    }

    #[inline]
    fn neighbour(&mut self, lane: usize) -> &mut Neighbour<T> {
        self.neighbours[lane].as_mut().expect("a lane doesn't send to itself")
    }

    /// Sends a notice: an item that has no reply.
    ///
    /// # Errors
    /// Gives the item back if there is no room. Keep it, take in no more of its kind, and call
    /// [`MeshEnd::want_room`] before sleeping on it.
    #[inline]
    pub fn send(&mut self, to: usize, item: T) -> Result<(), T> {
        self.push(to, Kind::Notice, item)
    }

    /// Sends a request, and reserves the slot of its reply.
    ///
    /// # Errors
    /// Gives the item back if there is no room: answer "busy" where it entered.
    #[inline]
    pub fn request(&mut self, to: usize, item: T) -> Result<(), T> {
        let requests_max = self.limits.requests;
        let neighbour = self.neighbour(to);
        assert!(neighbour.outstanding <= requests_max);
        if neighbour.outstanding == requests_max {
            return Err(item);
        }
        neighbour.outstanding += 1;
        self.push(to, Kind::Request, item).inspect_err(|_| self.neighbour(to).outstanding -= 1)
    }

    /// Replies to a request that was drained from this lane. Always fits.
    ///
    /// # Panics
    /// If that lane is owed no reply: the slot belongs to another.
    #[inline]
    pub fn reply(&mut self, to: usize, item: T) {
        let neighbour = self.neighbour(to);
        assert!(neighbour.owed > 0, "a reply without a request");
        neighbour.owed -= 1;
        assert!(self.push(to, Kind::Reply, item).is_ok(), "a reply's slot was reserved");
    }

    #[inline]
    fn push(&mut self, to: usize, kind: Kind, item: T) -> Result<(), T> {
        let spare = if kind == Kind::Reply { 0 } else { self.limits.requests };
        let neighbour = self.neighbour(to);
        if let Err((_, item)) = neighbour.out.push_leaving(spare, (kind, item)) {
            neighbour.was_full = true;
            return Err(item);
        }
        neighbour.pushed = true;
        self.touched = true;
        Ok(())
    }

    /// Whether a request to this lane would be taken now. What is true stays true until we send.
    #[inline]
    pub fn has_room(&mut self, to: usize) -> bool {
        let requests_max = self.limits.requests;
        let neighbour = self.neighbour(to);
        neighbour.outstanding < requests_max && neighbour.out.free() > requests_max
    }

    /// Requests sent to this lane whose replies were not drained yet.
    #[inline]
    pub fn outstanding(&self, to: usize) -> usize {
        self.neighbours[to].as_ref().map_or(0, |neighbour| neighbour.outstanding)
    }

    /// Says that work for this lane, just refused, is kept back: if we sleep, the lane wakes us
    /// when it has taken something, even if it sends nothing. Forgotten at the next
    /// [`MeshEnd::awake`]. A request refused for want of credit needs no wish: the reply that
    /// brings it wakes us.
    pub fn want_room(&mut self, to: usize) {
        let neighbour = self.neighbour(to);
        neighbour.wants_room = neighbour.was_full;
    }

    /// Takes at most `max_per_ring` items from each lane, in turns, and says how many in all.
    pub fn drain(&mut self, max_per_ring: usize, mut f: impl FnMut(usize, T)) -> usize {
        let lanes = self.lanes();
        let requests_max = self.limits.requests;
        let mut total = 0;
        for step in 0..lanes {
            let from = (self.first + step) % lanes;
            let Some(neighbour) = &mut self.neighbours[from] else { continue };
            let Neighbour { inbox, outstanding, owed, taken, .. } = neighbour;
            let count = inbox.drain(max_per_ring, |(kind, item)| {
                match kind {
                    Kind::Notice => {}
                    Kind::Request => {
                        *owed += 1;
                        assert!(*owed <= requests_max, "a lane sent more than its credit");
                    }
                    Kind::Reply => {
                        assert!(*outstanding > 0, "a reply to no request");
                        *outstanding -= 1;
                    }
                }
                f(from, item);
            });
            if count > 0 {
                *taken = true;
                self.touched = true;
                total += count;
            }
        }
        self.first = (self.first + 1) % lanes.max(1);
        total
    }

    /// Wakes the sleepers among the lanes that we sent to, or that wait for room we made, since the
    /// last call. Once per turn, after its last send and drain: so a turn wakes a lane once.
    pub fn ring_doorbells(&mut self, wake: &impl Wake) {
        if !self.touched {
            return;
        }
        self.touched = false;
        // Pairs with the fence in `may_park`: either that lane sees our `tail` and `head`, or we
        // see its flags.
        fence(Ordering::SeqCst);
        for (lane, neighbour) in self.neighbours.iter_mut().enumerate() {
            let Some(neighbour) = neighbour else { continue };
            let mut due = std::mem::take(&mut neighbour.pushed);
            if std::mem::take(&mut neighbour.taken) {
                let wanted = self.board.wanted(lane, self.lane);
                // Relaxed, both: ordered by the fence above; pairs with the store in `may_park`.
                if wanted.load(Ordering::Relaxed) {
                    wanted.store(false, Ordering::Relaxed);
                    due = true;
                }
            }
            let asleep = &self.board.asleep[lane].0;
            // Relaxed, both: the flag carries no data, the fence above orders it; pairs with the
            // store in `may_park`. Of several senders one wins the swap and wakes.
            if due && asleep.load(Ordering::Relaxed) && asleep.swap(false, Ordering::Relaxed) {
                wake.wake(lane);
            }
        }
    }

    /// Announces that this lane is about to sleep, and says whether it may: not if anything waits
    /// in a ring, nor if room came up that was wanted. After `true`, whoever sends wakes us; call
    /// [`MeshEnd::awake`] when the sleep is over, for whatever reason.
    ///
    /// # Panics
    /// If `ring_doorbells` is due: others could sleep for ever.
    pub fn may_park(&mut self) -> bool {
        assert!(!self.touched, "doorbells first");
        // Relaxed, both: ordered before the looks below by the fence; they pair with the loads in
        // `ring_doorbells` of the others. A swap, so that it and the senders' swaps have one order.
        self.board.asleep[self.lane].0.swap(true, Ordering::Relaxed);
        for (lane, neighbour) in self.neighbours.iter().enumerate() {
            if neighbour.as_ref().is_some_and(|neighbour| neighbour.wants_room) {
                self.board.wanted(self.lane, lane).store(true, Ordering::Relaxed);
            }
        }
        // Pairs with the fence in `ring_doorbells`.
        fence(Ordering::SeqCst);
        if self.has_cause() {
            self.awake();
            return false;
        }
        true
    }

    /// Whether anything waits in a ring, or room came up that was wanted: who spins before it
    /// parks looks here.
    pub fn has_cause(&mut self) -> bool {
        let requests_max = self.limits.requests;
        self.neighbours.iter_mut().flatten().any(|neighbour| {
            !neighbour.inbox.is_empty()
                || (neighbour.wants_room && neighbour.out.free() > requests_max)
        })
    }

    /// Ends a sleep: the others no longer ring, and wishes for room are forgotten (retry, and wish
    /// again if refused again).
    pub fn awake(&mut self) {
        // Relaxed: too late a sight of it costs one wake-up too many. A swap as in `may_park`.
        self.board.asleep[self.lane].0.swap(false, Ordering::Relaxed);
        for (lane, neighbour) in self.neighbours.iter_mut().enumerate() {
            let Some(neighbour) = neighbour else { continue };
            neighbour.was_full = false;
            if std::mem::take(&mut neighbour.wants_room) {
                // Relaxed: as above.
                self.board.wanted(self.lane, lane).store(false, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::cell::RefCell;

    const LIMITS: MeshLimits = MeshLimits { requests: 2, notices: 2 };

    #[derive(Default)]
    struct Woken(RefCell<Vec<usize>>);

    impl Wake for Woken {
        fn wake(&self, lane: usize) {
            self.0.borrow_mut().push(lane);
        }
    }

    fn pair<T: Send>() -> (MeshEnd<T>, MeshEnd<T>) {
        let mut ends = Mesh::new(2, LIMITS).into_ends();
        let high = ends.pop().expect("two ends");
        (ends.pop().expect("two ends"), high)
    }

    /// A request over the credit comes back; the reply, once taken, restores the credit.
    #[test]
    fn requests_are_bounded_by_credit() {
        let (mut a, mut b) = pair();
        assert_eq!(a.request(1, 1), Ok(()));
        assert_eq!(a.request(1, 2), Ok(()));
        assert!(!a.has_room(1));
        assert_eq!(b.drain(9, |_, _| {}), 2);
        assert_eq!(a.request(1, 3), Err(3), "the ring is empty, the credit is not back");
        b.reply(0, 10);
        assert_eq!(a.request(1, 3), Err(3), "the reply was sent, not taken");
        assert_eq!(a.drain(9, |from, item| assert_eq!((from, item), (1, 10))), 1);
        assert_eq!(a.outstanding(1), 1);
        assert_eq!(a.request(1, 3), Ok(()));
    }

    /// With both directions as full as they get, every reply still fits.
    #[test]
    fn a_reply_fits_into_a_full_ring() {
        let (mut a, mut b) = pair();
        for (end, other) in [(&mut a, 1), (&mut b, 0)] {
            assert_eq!(end.request(other, 0), Ok(()));
            assert_eq!(end.request(other, 0), Ok(()));
        }
        assert_eq!(a.drain(9, |_, _| {}), 2);
        assert_eq!(b.drain(9, |_, _| {}), 2);
        for (end, other) in [(&mut a, 1), (&mut b, 0)] {
            assert_eq!(end.send(other, 0), Ok(()));
            assert_eq!(end.send(other, 0), Ok(()));
            assert_eq!(end.send(other, 7), Err(7), "the rest is for replies");
            end.reply(other, 0);
            end.reply(other, 0);
        }
        assert_eq!(a.drain(9, |_, _| {}), 4);
        assert_eq!(b.drain(9, |_, _| {}), 4);
    }

    /// A reply that nobody asked for would take another's slot.
    #[test]
    #[should_panic(expected = "a reply without a request")]
    fn a_reply_needs_a_request() {
        pair().0.reply(1, 0);
    }

    /// Only a sleeper is woken, and once, however many items and senders there are.
    #[test]
    fn a_turn_wakes_a_sleeper_once() {
        let [mut a, mut b, mut c] =
            <[MeshEnd<u8>; 3]>::try_from(Mesh::new(3, LIMITS).into_ends()).ok().expect("three");
        let woken = Woken::default();
        assert_eq!(a.send(2, 1), Ok(()));
        a.ring_doorbells(&woken);
        assert!(woken.0.borrow().is_empty(), "lane 2 is awake");
        assert!(!c.may_park(), "an item waits");
        assert_eq!(c.drain(9, |_, _| {}), 1);
        c.ring_doorbells(&woken);
        assert!(c.may_park());
        assert_eq!(a.send(2, 1), Ok(()));
        assert_eq!(a.send(2, 2), Ok(()));
        assert_eq!(b.send(2, 3), Ok(()));
        a.ring_doorbells(&woken);
        b.ring_doorbells(&woken);
        a.ring_doorbells(&woken);
        assert_eq!(*woken.0.borrow(), [2]);
        c.awake();
        let mut from = Vec::new();
        assert_eq!(c.drain(1, |lane, _| from.push(lane)), 2);
        assert_eq!(c.drain(1, |lane, _| from.push(lane)), 1);
        from.sort_unstable();
        assert_eq!(from, [0, 0, 1], "at most one per ring and call");
    }

    /// A sender that sleeps on work kept back is woken when there is room, though nothing is sent.
    #[test]
    fn room_wakes_who_wanted_it() {
        let (mut a, mut b) = pair::<u8>();
        let woken = Woken::default();
        assert_eq!(a.send(1, 1), Ok(()));
        assert_eq!(a.send(1, 2), Ok(()));
        assert_eq!(a.send(1, 3), Err(3));
        a.want_room(1);
        a.ring_doorbells(&woken);
        assert!(a.may_park());
        assert_eq!(b.drain(1, |_, _| {}), 1);
        b.ring_doorbells(&woken);
        assert_eq!(*woken.0.borrow(), [0]);
        a.awake();
        assert_eq!(a.send(1, 3), Ok(()));
        assert_eq!(a.send(1, 4), Err(4));
        a.want_room(1);
        assert_eq!(b.drain(1, |_, _| {}), 1);
        a.ring_doorbells(&woken);
        assert!(!a.may_park(), "there is room already");
        assert_eq!(a.send(1, 4), Ok(()));
    }

    /// Three lanes ask each other, parking whenever they may: every request gets its reply, and
    /// nobody sleeps for ever.
    #[test]
    fn stress_three_lanes() {
        const REQUESTS: u64 = 50_000;
        #[derive(Clone, Copy)]
        enum Item {
            Ask(u64),
            Tell(u64),
        }
        struct Threads(Vec<std::thread::Thread>);
        impl Wake for Threads {
            fn wake(&self, lane: usize) {
                self.0[lane].unpark();
            }
        }
        fn run(mut end: MeshEnd<Item>, wake: &Threads) {
            let lanes = end.lanes();
            let mut asked = vec![0; lanes];
            let mut told = vec![0; lanes];
            let mut served = vec![0; lanes];
            let mut items = Vec::new();
            loop {
                end.drain(7, |from, item| items.push((from, item)));
                for (from, item) in items.drain(..) {
                    match item {
                        Item::Ask(number) => {
                            assert_eq!(number, served[from]);
                            served[from] += 1;
                            end.reply(from, Item::Tell(number));
                        }
                        Item::Tell(number) => {
                            assert_eq!(number, told[from]);
                            told[from] += 1;
                        }
                    }
                }
                let own = end.lane();
                for to in (0..lanes).filter(|&to| to != own) {
                    while asked[to] < REQUESTS {
                        if end.request(to, Item::Ask(asked[to])).is_err() {
                            end.want_room(to);
                            break;
                        }
                        asked[to] += 1;
                    }
                }
                end.ring_doorbells(wake);
                let mut others = (0..lanes).filter(|&lane| lane != own);
                if others.all(|lane| told[lane] == REQUESTS && served[lane] == REQUESTS) {
                    return;
                }
                if end.may_park() {
                    std::thread::park();
                    end.awake();
                }
            }
        }
        let ends = Mesh::new(3, MeshLimits { requests: 5, notices: 2 }).into_ends();
        let mut starts = Vec::new();
        let threads: Vec<_> = ends
            .into_iter()
            .map(|end| {
                let (start, wait) = std::sync::mpsc::channel::<std::sync::Arc<Threads>>();
                starts.push(start);
                std::thread::spawn(move || run(end, &wait.recv().expect("the threads start")))
            })
            .collect();
        let wake = threads.iter().map(|thread| thread.thread().clone()).collect();
        let wake = std::sync::Arc::new(Threads(wake));
        for start in starts {
            start.send(wake.clone()).expect("the lane waits");
        }
        for thread in threads {
            thread.join().expect("no lane panics");
        }
    }
}
