//! How many clients a node may have, whichever of its shards serves them. Who accepts takes a seat
//! for the connection; it travels with it, and comes free when it is dropped, wherever that is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The seats of a node.
#[derive(Clone, Debug)]
pub struct Seats {
    taken: Arc<AtomicUsize>,
    most: usize,
}

/// One client's. Free again when dropped.
#[derive(Debug)]
pub struct Seat(Arc<AtomicUsize>);

impl Seats {
    /// So many, all of them free.
    pub fn new(most: usize) -> Self {
        Self { taken: Arc::new(AtomicUsize::new(0)), most }
    }

    /// A seat, if there is a free one.
    pub fn take(&self) -> Option<Seat> {
        // Relaxed: the count guards nothing but itself.
        let taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
            (taken < self.most).then_some(taken + 1)
        });
        taken.is_ok().then(|| Seat(self.taken.clone()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let taken = self.0.fetch_sub(1, Ordering::Relaxed);
        assert!(taken > 0, "a seat that was never taken");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: no more seats than there are, and each is free again when it is left.
    #[test]
    fn seats_come_free() {
        let seats = Seats::new(2);
        let (first, second) = (seats.take(), seats.clone().take());
        assert!(first.is_some() && second.is_some() && seats.take().is_none());
        drop(second);
        let third = seats.take();
        assert!(third.is_some() && seats.take().is_none());
    }
}
