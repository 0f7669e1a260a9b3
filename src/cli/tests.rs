//! What the command line understands.

use super::*;
use clap::CommandFactory;

pub(super) fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

/// Goal: clap's own checks of the definition hold.
#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

/// Goal: the help by task names every command that isn't hidden, and no other.
#[test]
fn the_help_names_every_command() {
    let mut command = Cli::command();
    command.build();
    let listed: Vec<&str> = COMMANDS_BY_TASK
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next())
        .collect();
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        assert!(listed.contains(&sub.get_name()), "{} is not in the help", sub.get_name());
    }
    for name in listed {
        assert!(command.find_subcommand(name).is_some(), "{name} is in the help only");
    }
}
