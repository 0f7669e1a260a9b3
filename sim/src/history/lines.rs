//! A history as lines of JSON, one event a line. `docs/FORMAT.md` has the format; it is stable:
//! what writes it and what reads it may be of different versions.

use std::io::{self, BufRead, Write};

use ringraft_types::{GroupId, Index, Revision, Status, Ticks};
use serde::{Deserialize, Serialize};

use super::{Answer, Ask, Call, CallName, History, HistoryError, Outcome, Reason, Reply};

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Microseconds; all files of one history count from the same instant.
    pub at: u64,
    /// The client.
    pub client: u64,
    /// The client's number for the call.
    pub call: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// The call began; written before the first byte is sent.
    Invoke {
        /// The group asked.
        group: u64,
        /// What is asked.
        ask: Ask,
    },
    /// It was done; written after the answer came.
    Done {
        /// The machine's revision after the write, or that the read saw.
        revision: u64,
        /// The Raft index, if it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        index: Option<u64>,
        /// The machine's result.
        reply: Reply,
    },
    /// It was definitely not done, and never will be.
    NotDone {
        /// Why.
        why: Why,
    },
    /// What became of it is not known.
    Unknown {
        /// Why.
        why: Why,
    },
}

/// Why a call was not done, or why that isn't known: `deadline`, `ended`, or the server's status
/// by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Why(pub Reason);

impl From<Why> for String {
    fn from(why: Why) -> Self {
        why.0.to_string()
    }
}

impl TryFrom<String> for Why {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        match name.as_str() {
            "deadline" => return Ok(Self(Reason::Deadline)),
            "ended" => return Ok(Self(Reason::Ended)),
            _ => {}
        }
        let mut statuses = (0..=u8::MAX).filter_map(Status::from_u8);
        let status = statuses.find(|status| format!("{status:?}") == name);
        let unknown = || format!("{name} is no reason: deadline, ended, or a status such as Busy");
        status.map(|status| Self(Reason::Refused(status))).ok_or_else(unknown)
    }
}

/// Why a history can't be read.
#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    /// The file can't be read.
    #[error("line {line}: {error}")]
    Io {
        /// Which line, from 1.
        line: u64,
        /// Why.
        error: io::Error,
    },
    /// A line isn't one of the format.
    #[error("line {line}: {error}")]
    Syntax {
        /// Which line, from 1.
        line: u64,
        /// What is wrong.
        error: serde_json::Error,
    },
    /// A line doesn't fit those before it.
    #[error("line {line}: {error}")]
    History {
        /// Which line, from 1; blank ones don't count.
        line: u64,
        /// What is wrong.
        error: HistoryError,
    },
    /// A line doesn't fit those that are before it when all files are put together.
    #[error("{0}")]
    Together(HistoryError),
}

impl Line {
    fn invoke(call: &Call) -> Self {
        let event = Event::Invoke { group: call.group.0, ask: call.ask.clone() };
        let CallName { client, number } = call.name;
        Self { at: call.invoked.at.0, client, call: number, event }
    }

    fn end(call: &Call, at: Ticks, outcome: &Outcome) -> Self {
        let event = match outcome {
            Outcome::Done(answer) => Event::Done {
                revision: answer.revision.0,
                index: answer.index.map(|index| index.0),
                reply: answer.reply.clone(),
            },
            Outcome::NotDone(reason) => Event::NotDone { why: Why(*reason) },
            Outcome::Unknown(reason) => Event::Unknown { why: Why(*reason) },
        };
        let CallName { client, number } = call.name;
        Self { at: at.0, client, call: number, event }
    }

    /// Writes the line.
    ///
    /// # Errors
    /// If the writer fails.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        out.write_all(b"\n")
    }
}

impl History {
    /// Adds what a line says.
    ///
    /// # Errors
    /// If it doesn't fit; nothing is recorded then.
    pub fn push(&mut self, line: Line) -> Result<(), HistoryError> {
        let (at, name) = (Ticks(line.at), CallName { client: line.client, number: line.call });
        let outcome = match line.event {
            Event::Invoke { group, ask } => {
                return self.invoke(at, name, GroupId(group), ask).map(|_| ());
            }
            Event::Done { revision, index, reply } => Outcome::Done(Answer {
                revision: Revision(revision),
                index: index.map(Index),
                reply,
            }),
            Event::NotDone { why } => Outcome::NotDone(why.0),
            Event::Unknown { why } => Outcome::Unknown(why.0),
        };
        self.end(at, name, outcome).map(|_| ())
    }

    /// Writes the history, one event a line, in order.
    ///
    /// # Errors
    /// If the writer fails.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut lines = Vec::with_capacity(2 * self.len());
        for call in self.calls() {
            lines.push((call.invoked.order, Line::invoke(call)));
            if let Some((moment, outcome)) = &call.ended {
                lines.push((moment.order, Line::end(call, moment.at, outcome)));
            }
        }
        lines.sort_by_key(|(order, _)| *order);
        lines.iter().try_for_each(|(_, line)| line.write(out))
    }

    /// Reads one file. Its lines are in order, also those of equal times.
    ///
    /// # Errors
    /// If a line can't be read, is not of the format, or doesn't fit those before it.
    pub fn read(file: impl BufRead) -> Result<Self, LinesError> {
        let mut history = Self::new();
        for (line, number) in parse(file)?.into_iter().zip(1..) {
            history.push(line).map_err(|error| LinesError::History { line: number, error })?;
        }
        Ok(history)
    }

    /// Puts the lines of several files together, by time; of equal times the beginnings come
    /// first, so that nothing is claimed to have gone before that didn't.
    ///
    /// # Errors
    /// If they don't fit each other.
    pub fn together(files: Vec<Vec<Line>>) -> Result<Self, LinesError> {
        let is_alone = files.len() == 1;
        let mut lines: Vec<Line> = files.into_iter().flatten().collect();
        if !is_alone {
            lines.sort_by_key(|line| (line.at, !matches!(line.event, Event::Invoke { .. })));
        }
        let mut history = Self::new();
        lines.into_iter().try_for_each(|line| history.push(line)).map_err(LinesError::Together)?;
        Ok(history)
    }
}

/// Reads the lines of a file.
///
/// # Errors
/// If a line can't be read, or is not of the format.
pub fn parse(file: impl BufRead) -> Result<Vec<Line>, LinesError> {
    let mut lines = Vec::new();
    for (text, line) in file.lines().zip(1..) {
        let text = text.map_err(|error| LinesError::Io { line, error })?;
        if !text.trim().is_empty() {
            let parsed = serde_json::from_str(&text);
            lines.push(parsed.map_err(|error| LinesError::Syntax { line, error })?);
        }
    }
    Ok(lines)
}
