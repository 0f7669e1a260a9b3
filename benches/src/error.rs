//! What can keep a benchmark from giving a figure. A figure that can't be trusted is an error, not
//! a lower figure.

use std::io;

/// Why a benchmark gave no result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// An option, or a relation between two, that makes no sense.
    #[error("{what}")]
    Options {
        /// The option, its value and what it may be.
        what: String,
    },
    /// The file system keeps its files in memory: its syncs cost nothing and mean nothing.
    #[error(
        "{dir} is on {file_system}, which keeps files in memory: a sync there measures nothing; \
         choose a directory on the disk that will hold the log"
    )]
    FileSystem {
        /// The directory asked for.
        dir: String,
        /// The file system's name.
        file_system: &'static str,
    },
    /// The kernel gave no io_uring.
    #[error("io_uring is not available: {source}")]
    Ring {
        /// What the kernel said.
        source: io::Error,
    },
    /// The operating system refused something.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, with the object's name.
        doing: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A write took fewer bytes than it was given.
    #[error("a write of {asked} bytes took {took}")]
    ShortWrite {
        /// Bytes given.
        asked: usize,
        /// Bytes taken.
        took: usize,
    },
    /// The other end went away in the middle of a run.
    #[error("the other end closed the connection in the middle of the run")]
    Closed,
}

impl BenchError {
    /// An error of the operating system, with what was being done.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    /// An option that makes no sense.
    pub(crate) fn options(what: impl Into<String>) -> Self {
        Self::Options { what: what.into() }
    }
}
