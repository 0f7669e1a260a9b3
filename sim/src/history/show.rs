//! A call as a person reads it: what was asked and answered, in the words of the format.

use std::fmt;

use serde::Serialize;

use super::{Call, Outcome, Reason};

/// Characters of an ask or a reply that are shown.
const SHOWN_MAX: usize = 600;

/// A part of the format, cut if it is long.
pub(crate) fn json(part: &impl Serialize) -> String {
    let mut text = serde_json::to_string(part).expect("it has no maps and no numbers but integers");
    // What isn't printable ASCII is written as hex, so every byte is a character.
    if text.len() > SHOWN_MAX {
        text.truncate(SHOWN_MAX);
        text.push('…');
    }
    text
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, group, ask, invoked, .. } = self;
        write!(f, "call {name} of group {group}, {}..", invoked.at)?;
        match &self.ended {
            Some((moment, _)) => write!(f, "{} us: ", moment.at)?,
            None => f.write_str(" us: ")?,
        }
        write!(f, "{} -> ", json(ask))?;
        match self.outcome() {
            Outcome::NotDone(reason) => write!(f, "not done ({reason})"),
            Outcome::Unknown(reason) => write!(f, "unknown ({reason})"),
            Outcome::Done(answer) => {
                write!(f, "done, revision {}", answer.revision)?;
                if let Some(index) = answer.index {
                    write!(f, ", index {index}")?;
                }
                write!(f, ": {}", json(&answer.reply))
            }
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deadline => f.write_str("deadline"),
            Self::Ended => f.write_str("ended"),
            Self::Refused(status) => write!(f, "{status:?}"),
        }
    }
}
