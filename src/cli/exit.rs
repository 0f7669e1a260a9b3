//! Exit codes: a script can tell what happened without reading a message.

use super::output::{self, Output};
use crate::config::ConfigError;
use serde_json::json;
use std::io::IsTerminal;
use std::process::ExitCode;

/// How a command ended. The number is an interface: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Answered, and the answer is no.
    No = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The request was refused and has had no effect.
    NotDone = 3,
    /// Nobody knows whether the write was done.
    Unknown = 4,
    /// No node answered, or none in time; the request was not sent.
    Unavailable = 5,
    /// The configuration is refused.
    Config = 6,
    /// The kernel refuses io_uring.
    Uring = 7,
    /// The data directory is refused.
    DataDir = 8,
    /// The log is damaged.
    Damaged = 9,
    /// The machine refused something else.
    Environment = 10,
    /// The level that was asked for isn't reached in time; a write is committed all the same.
    NotReached = 11,
}

impl Exit {
    /// All of them, with what they mean for a script.
    pub const ALL: [(Self, &'static str); 12] = [
        (Self::Ok, "done"),
        (Self::No, "answered no: the key doesn't exist (get), a compare didn't hold (txn)"),
        (Self::Usage, "the command line is wrong; nothing was tried"),
        (Self::NotDone, "definitely not done: refused, and without effect"),
        (Self::Unknown, "unknown: the write may or may not have been done"),
        (Self::Unavailable, "no node answered in time; nothing was done"),
        (Self::Config, "the configuration file is refused"),
        (Self::Uring, "the kernel refuses io_uring, or is too old"),
        (Self::DataDir, "the data directory is refused: missing, foreign, in use, not empty"),
        (Self::Damaged, "the log is damaged"),
        (
            Self::Environment,
            "the machine refused something else: a port taken, a file not writable",
        ),
        (
            Self::NotReached,
            "the level isn't reached in time (barrier, --ack); a write is done all the same",
        ),
    ];

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::No => "no",
            Self::Usage => "usage",
            Self::NotDone => "not_done",
            Self::Unknown => "unknown",
            Self::Unavailable => "unavailable",
            Self::Config => "config",
            Self::Uring => "io_uring",
            Self::DataDir => "data_dir",
            Self::Damaged => "damaged",
            Self::Environment => "environment",
            Self::NotReached => "not_reached",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The table of `ringraft exit-codes`.
pub(crate) fn table() -> String {
    let row = |(exit, meaning): &(Exit, &str)| format!("{:>3}  {meaning}", *exit as u8);
    let rows: Vec<String> = Exit::ALL.iter().map(row).collect();
    format!("Exit codes:\n{}", rows.join("\n"))
}

/// Why a command didn't do what it was asked for, with the cure.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened, in one sentence.
    pub message: String,
    /// What to do about it, if anything.
    pub cure: Option<String>,
    /// The line of a configuration file that is to blame.
    pub(crate) config: Option<ConfigError>,
}

impl Failure {
    /// A failure without a cure.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), cure: None, config: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = Some(cure.into());
        self
    }

    /// Something that the machine refused: what was tried, and what it said.
    pub(crate) fn environment(tried: impl std::fmt::Display, error: &std::io::Error) -> Self {
        Self::new(Exit::Environment, format!("{tried}: {error}"))
    }

    /// Shows it: to people on stderr, to machines as the last line of stdout as well.
    pub(crate) fn show(&self, output: Output) {
        match &self.config {
            Some(config) => {
                // A sentence is broken for people only: who searches a file or a pipe finds it.
                let wrap = std::io::stderr().is_terminal();
                let handler = move |_: &_| -> Box<dyn miette::ReportHandler> {
                    Box::new(miette::MietteHandlerOpts::new().wrap_lines(wrap).build())
                };
                // Refused if a failure was shown before, by the same handler.
                let _ = miette::set_hook(Box::new(handler));
                eprintln!("{:?}", miette::Report::new(config.clone()));
            }
            None => {
                eprintln!("error: {}", self.message);
                if let Some(cure) = &self.cure {
                    eprintln!("  cure: {cure}");
                }
            }
        }
        if output == Output::Json {
            let error = error_json(self.exit, &self.message, self.cure.as_deref());
            // Whoever read the pipe is gone: the exit code still tells.
            let _ = output::json(&error);
        }
    }
}

/// A failure for machines.
pub(crate) fn error_json(exit: Exit, message: &str, cure: Option<&str>) -> serde_json::Value {
    json!({"error": exit.name(), "exit": exit as u8, "message": message, "cure": cure})
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self {
            exit: Exit::Config,
            message: error.to_string(),
            cure: Some(error.cure().to_owned()),
            config: Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the numbers are those that are documented, without a gap.
    #[test]
    fn the_numbers_are_fixed() {
        for (number, (exit, _)) in Exit::ALL.iter().enumerate() {
            assert_eq!(*exit as usize, number);
        }
        assert!(table().contains("  4  unknown: the write may or may not have been done"));
    }
}
