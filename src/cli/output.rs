//! What goes to stdout: bare values and tables for people, one line of JSON for machines.

use super::exit::Failure;
use std::io::{ErrorKind, Write as _};

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// One line, the last on stdout.
    Json,
}

/// Prints a text and a newline.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    bytes(text.as_bytes())?;
    bytes(b"\n")
}

/// Prints one line of JSON.
pub(crate) fn json(value: &serde_json::Value) -> Result<(), Failure> {
    text(&value.to_string())
}

/// Prints bytes as they are.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        // The reader has seen enough, as `head` does: no reason to fail, or to stop a quorum.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error| Failure::environment("writing to stdout", &error)),
    }
}

/// A table without frames, as narrow as its content.
pub(crate) fn table(header: &[&str]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(header.iter().copied());
    table
}

/// A table as text, without the padding at both ends of its lines.
pub(crate) fn table_text(table: &comfy_table::Table) -> String {
    let line = |line: &'_ str| line.strip_prefix(' ').unwrap_or(line).trim_end().to_owned();
    table.to_string().lines().map(line).collect::<Vec<_>>().join("\n")
}
