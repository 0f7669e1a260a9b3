//! `ringraft-sim`: judges histories that were recorded elsewhere.
#![forbid(unsafe_code)]

mod check;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Checks what clusters promise.
#[derive(Debug, Parser)]
#[command(name = "ringraft-sim", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Check),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Check(check) => check.run(),
    }
}
