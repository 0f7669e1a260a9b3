//! One seed after the other on threads of their own: what each came to, a panic included.
//!
//! A broken invariant is a panic, of the product or of a check. It is caught here and nowhere else,
//! in two ways: where panics unwind, at the run's call; where they abort, as in a release build, by
//! the hook, which hands its findings over and never comes back.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::sync::mpsc::{Sender, channel};
use std::thread;

#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, plant};

use crate::options::Asked;
use crate::trace;
use crate::world::{self, Ran};

/// Events that a failure shows.
const SHOWN: usize = 60;

/// A run that found something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What is broken.
    pub what: String,
    /// Where that was noticed.
    pub place: String,
    /// The last events, oldest first.
    pub events: Vec<String>,
}

/// What became of a seed.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Every check held.
    Passed(Ran),
    /// Something is broken.
    Failed(Violation),
}

/// What a run is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// The seed.
    pub seed: u64,
    /// What is asked for instead of what the seed draws.
    pub asked: Asked,
    /// The bug planted in the product, if this build has any.
    #[cfg(ringraft_plant)]
    pub plant: Option<Plant>,
    /// Events that a failure shows; zero: some.
    pub events: usize,
}

type Report = (u64, Outcome);

thread_local! {
    static FOUND: RefCell<Option<Violation>> = const { RefCell::new(None) };
    /// Where the hook of a build that aborts hands over, and what it is about.
    static DESK: RefCell<Option<(Sender<Report>, u64, usize)>> = const { RefCell::new(None) };
}

/// Has panics of runs noted instead of printed; all others go on as before.
fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !trace::is_running() {
                return before(info);
            }
            let desk = DESK.take();
            let shown = desk.as_ref().map_or(SHOWN, |desk| desk.2);
            let violation = Violation {
                what: message(info.payload()),
                place: info.location().map(ToString::to_string).unwrap_or_default(),
                events: trace::last(shown),
            };
            trace::finish();
            match desk {
                Some((sender, seed, _)) if cfg!(panic = "abort") => {
                    // If nobody waits for it any more, nobody misses it.
                    let _ = sender.send((seed, Outcome::Failed(violation)));
                    loop {
                        thread::park();
                    }
                }
                _ => FOUND.set(Some(violation)),
            }
        }));
    });
}

fn message(payload: &dyn Any) -> String {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => String::from("a panic without a word"),
    }
}

/// Runs one seed on this thread, and reports.
fn work(order: &Order, desk: &Sender<Report>) {
    let shown = if order.events == 0 { SHOWN } else { order.events };
    trace::keep(shown);
    DESK.set(Some((desk.clone(), order.seed, shown)));
    #[cfg(ringraft_plant)]
    plant(order.plant);
    let ran = panic::catch_unwind(AssertUnwindSafe(|| world::run(order.seed, &order.asked)));
    let outcome = match ran {
        Ok(ran) => Outcome::Passed(ran),
        Err(payload) => Outcome::Failed(FOUND.take().unwrap_or_else(|| Violation {
            what: message(&*payload),
            place: String::new(),
            events: Vec::new(),
        })),
    };
    // If nobody waits for it any more, nobody misses it.
    let _ = desk.send((order.seed, outcome));
}

/// Runs one order.
pub fn run(order: &Order) -> Outcome {
    let mut outcome = None;
    run_all(std::slice::from_ref(order).iter().cloned(), 1, |_, ran| {
        outcome = Some(ran);
        true
    });
    outcome.expect("an order has an outcome")
}

/// Runs orders on so many threads at once, as long as `each` says to go on.
pub fn run_all(
    orders: impl Iterator<Item = Order>,
    jobs: usize,
    mut each: impl FnMut(u64, Outcome) -> bool,
) {
    install_hook();
    let (desk, reports) = channel::<Report>();
    let mut orders = orders.peekable();
    let mut under_way = 0;
    let mut goes_on = true;
    loop {
        while goes_on
            && under_way < jobs
            && let Some(order) = orders.next()
        {
            under_way += 1;
            let desk = desk.clone();
            // A thread of its own for each: one that found something may never end.
            thread::Builder::new()
                .name(format!("seed-{}", order.seed))
                .stack_size(8 << 20)
                .spawn(move || work(&order, &desk))
                .expect("the system has room for a thread");
        }
        if under_way == 0 {
            return;
        }
        let (seed, outcome) = reports.recv().expect("this end holds a sender");
        under_way -= 1;
        goes_on &= each(seed, outcome);
    }
}
