//! `ringraft-sim`: runs whole clusters in virtual time, with faults, and judges histories that were
//! recorded elsewhere.
#![forbid(unsafe_code)]

mod check;
#[cfg(ringraft_plant)]
mod plants;
mod simulate;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs whole clusters in virtual time, with faults, and checks what they promise.
#[derive(Debug, Parser)]
#[command(name = "ringraft-sim", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    simulate: simulate::Simulate,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Check),
    #[cfg(ringraft_plant)]
    Plants(plants::Plants),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::Check(check)) => check.run(),
        #[cfg(ringraft_plant)]
        Some(Command::Plants(plants)) => plants.run(),
        None => arguments.simulate.run(),
    }
}
