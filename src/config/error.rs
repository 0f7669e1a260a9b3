//! A refused setting: where it is written, what is wrong with its value, and the cure.

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Why a configuration was refused. Shown with its line by miette, or as one plain sentence.
#[derive(Clone)]
pub struct ConfigError(Box<Inner>);

#[derive(Clone)]
enum Inner {
    /// The file can't be read at all.
    Unreadable { path: PathBuf, reason: String, cure: String },
    /// A place in a file is wrong.
    At {
        message: String,
        label: String,
        cure: String,
        span: Range<usize>,
        source: NamedSource<String>,
    },
}

impl ConfigError {
    pub(crate) fn unreadable(path: &Path, error: &std::io::Error, cure: String) -> Self {
        Self(Box::new(Inner::Unreadable { path: path.into(), reason: error.to_string(), cure }))
    }

    pub(crate) fn at(
        (name, text): (&str, &str),
        span: Range<usize>,
        message: String,
        label: String,
        cure: String,
    ) -> Self {
        let source = NamedSource::new(name, text.to_owned()).with_language("toml");
        Self(Box::new(Inner::At { message, label, cure, span, source }))
    }

    /// What to do about it.
    pub fn cure(&self) -> &str {
        match &*self.0 {
            Inner::Unreadable { cure, .. } | Inner::At { cure, .. } => cure,
        }
    }

    /// Line and column of the place, both from 1; `None` if the file couldn't be read.
    pub fn line_and_column(&self) -> Option<(usize, usize)> {
        match &*self.0 {
            Inner::Unreadable { .. } => None,
            Inner::At { span, source, .. } => Some(line_and_column(source.inner(), span.start)),
        }
    }
}

/// Line and column of a byte of a text, both from 1; the column counts characters.
fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..at.min(text.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let line_start =
        before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let column = String::from_utf8_lossy(&before[line_start..]).chars().count() + 1;
    (line, column)
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Inner::Unreadable { path, reason, .. } => {
                write!(f, "{}: cannot be read: {reason}", path.display())
            }
            Inner::At { message, source, span, .. } => {
                let (line, column) = line_and_column(source.inner(), span.start);
                write!(f, "{}:{line}:{column}: {message}", source.name())
            }
        }
    }
}

impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} (cure: {})", self.cure())
    }
}

impl std::error::Error for ConfigError {}

impl Diagnostic for ConfigError {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new("config"))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.cure()))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        match &*self.0 {
            Inner::Unreadable { .. } => None,
            Inner::At { source, .. } => Some(source),
        }
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        match &*self.0 {
            Inner::Unreadable { .. } => None,
            Inner::At { label, span, .. } => Some(Box::new(std::iter::once(
                LabeledSpan::new_with_span(Some(label.clone()), span.clone()),
            ))),
        }
    }
}
