//! `ringraft-sim`: runs whole clusters in virtual time, with faults, and judges histories that were
//! recorded elsewhere.
#![forbid(unsafe_code)]

mod check;
#[cfg(ringraft_plant)]
mod plants;
mod simulate;

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Worlds are made of small pieces, and are built and thrown away by the thousand.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    let mut out = io::stdout();
    match run(&arguments, &mut out).and_then(|code| out.flush().map(|()| code)) {
        Ok(code) => code,
        // Whoever read along has seen enough, as `head` has; the code is that of a process that the
        // system ends for it (128 and SIGPIPE), so that nobody takes a seed that broke for clean.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::from(141),
        Err(error) => {
            eprintln!("standard output: {error}");
            ExitCode::from(2)
        }
    }
}

/// Does what was asked, and says what came of it.
fn run(arguments: &Arguments, out: &mut impl Write) -> io::Result<ExitCode> {
    match &arguments.command {
        Some(Command::Check(check)) => check.run(out),
        #[cfg(ringraft_plant)]
        Some(Command::Plants(plants)) => plants.run(out),
        None => arguments.simulate.run(out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pipe whose reader is gone.
    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A reader that has gone is an error to the caller, and no panic.
    #[test]
    fn a_reader_may_go() {
        let words = "ringraft-sim --seed 1 --nodes 1 --groups-max 1 --safety-max 1 --jobs 1";
        let arguments = Arguments::try_parse_from(words.split(' ')).expect("they are known");
        let error = run(&arguments, &mut Gone).expect_err("nobody reads");
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }
}
