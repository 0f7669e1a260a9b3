//! How a node is told to stop: SIGTERM or SIGINT, as bytes in a socket, so that a thread can sleep
//! on them.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;

/// The end of a socket that a signal writes to.
#[derive(Debug)]
pub struct StopSignals {
    signalled: UnixStream,
}

impl StopSignals {
    /// From now on SIGTERM and SIGINT are noted instead of ending the process.
    pub fn install() -> io::Result<Self> {
        let (signalled, signal) = UnixStream::pair()?;
        pipe::register(SIGTERM, signal.try_clone()?)?;
        pipe::register(SIGINT, signal)?;
        Ok(Self { signalled })
    }

    /// Sleeps until a signal comes.
    pub fn wait(&self) {
        loop {
            match (&self.signalled).read(&mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // An error can't be waited out: stopping is the safe side.
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Sleeps until a signal comes or the time is over; says whether a signal came.
    pub fn wait_for(&self, time: std::time::Duration) -> io::Result<bool> {
        self.signalled.set_read_timeout(Some(time))?;
        let came = match (&self.signalled).read(&mut [0]) {
            Ok(_) => Ok(true),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock
                | io::ErrorKind::TimedOut
                | io::ErrorKind::Interrupted => Ok(false),
                _ => Err(error),
            },
        };
        self.signalled.set_read_timeout(None)?;
        came
    }
}
