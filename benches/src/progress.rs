//! A progress bar, for a person at a terminal; for anybody else nothing is drawn. It is moved by a
//! thread that measures nothing, four times a second.

use std::io::{IsTerminal, stderr};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Time between two drawings.
const PERIOD: Duration = Duration::from_millis(250);

/// The bar of one run. Removed when dropped.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
}

impl Progress {
    /// A bar for a run that takes about `total`.
    pub(crate) fn new(name: &str, total: Duration) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let target = ProgressDrawTarget::stderr_with_hz(4);
            let length = u64::try_from(total.as_millis()).unwrap_or(u64::MAX);
            let bar = ProgressBar::with_draw_target(Some(length), target);
            let style = ProgressStyle::with_template("{msg} {wide_bar} {percent:>3} %")
                .expect("the template is valid");
            bar.set_style(style);
            bar.set_message(name.to_owned());
            bar
        });
        Self { bar, started: Instant::now() }
    }

    /// Draws until `done` says so; without a bar it returns at once.
    pub(crate) fn draw_until(&self, done: impl Fn() -> bool) {
        let Some(bar) = &self.bar else { return };
        while !done() {
            bar.set_position(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(0));
            thread::sleep(PERIOD);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
