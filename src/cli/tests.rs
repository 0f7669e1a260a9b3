//! What the command line understands.

use super::*;
use clap::CommandFactory;
use clap::error::ErrorKind;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

fn refused(line: &str) -> ErrorKind {
    parse(line).expect_err(line).kind()
}

fn endpoints(cli: &Cli) -> Vec<String> {
    cli.global.endpoints.iter().map(ToString::to_string).collect()
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

/// Goal: global flags work before and after the verb, and have the documented defaults.
#[test]
fn global_flags_go_anywhere() {
    let before = "ringraft --endpoints h:1,[::1]:2 --group 7 --output json --timeout 250ms get k";
    let after = "ringraft get k --endpoints h:1,[::1]:2 --group 7 -o json --timeout 250ms";
    for line in [before, after] {
        let cli = parse(line).expect(line);
        assert_eq!(endpoints(&cli), ["h:1", "[::1]:2"]);
        assert_eq!(cli.global.group(), GroupId(7));
        assert_eq!(cli.global.output, Output::Json);
        assert_eq!(cli.global.timeout, Duration::from_millis(250));
    }
    let cli = parse("ringraft status").expect("status");
    assert_eq!(cli.global.group(), GroupId(1));
    assert_eq!(cli.global.output, Output::Table);
    assert_eq!(cli.global.timeout, Duration::from_secs(5));
    if std::env::var_os("RINGRAFT_ENDPOINTS").is_none() {
        assert_eq!(endpoints(&cli).join(","), ENDPOINTS_DEFAULT);
    }
}

/// Goal: every documented form of every verb is understood.
#[test]
fn every_verb_is_understood() {
    for line in [
        "ringraft put k v",
        "ringraft put k -v --prev",
        "ringraft put k -",
        "ringraft get k --revision 3",
        "ringraft del k --prefix",
        "ringraft del a z",
        "ringraft range a",
        "ringraft range a z --limit 10 --revision 3 --keys-only",
        "ringraft range a --prefix --count-only",
        "ringraft txn --if mod(k)=3 --if version(k)>1 --then get_k --else del_k",
        "ringraft txn --stdin",
        "ringraft log-level debug --http h:1,h:2",
        "ringraft snapshot ls",
        "ringraft snapshot ls --group 1,2 --node a,2 --http h:1",
        "ringraft snapshot take --group 1 --group 2 --node 3 --wait",
        "ringraft init --nodes a=h:1,b=h:11,c=h:21/5/6 --out d --groups 3 --profile container",
        "ringraft init --join d=h:31 --number 7 --out d",
        "ringraft format --config a.toml",
        "ringraft node --config a.toml",
        "ringraft node ls --group 1,2",
        "ringraft node --endpoints h:1 ls",
        "ringraft node add 4 --peer h:2 --client h:1 --incarnation 00000000000000ff --yes",
        "ringraft node promote 4 --allow-unready --expected 7 --group 1",
        "ringraft node demote 4 --yes --timeout 1m",
        "ringraft node remove 4 --allow-majority",
        "ringraft node refresh a.toml --addresses --http 4=h:3,5=[::1]:4 --yes",
        "ringraft node replace 1 4 --peer h:2 --client h:1 --catch-up 5m",
        "ringraft node replace 1 4 --yes",
        "ringraft node prepare --voters 1,2,4 --learners 5",
        "ringraft node commit --yes",
        "ringraft node abort --output json",
        "ringraft dev",
        "ringraft dev --nodes 5 --dir d --base-port 9000 --shards 2 --groups 16 --profile p",
        "ringraft dev --output json",
        "ringraft dev restart 2 --dir d",
        "ringraft wal ls --dir d",
        "ringraft wal dump --config a.toml",
        "ringraft wal verify --dir d --output json",
        "ringraft bench fsync --methods dsync --sizes 4096 --depths 1,2 --spaces zeroed",
        "ringraft bench floor --outstanding 1000 --no-sync",
        "ringraft bench commit --outstanding 1 --connections 1 --value-bytes 128 --keys 9 --groups 2 --seconds 3",
        "ringraft bench read --output json",
    ] {
        parse(line).unwrap_or_else(|error| panic!("{line}\n{error}"));
    }
}

/// Goal: what contradicts itself or is out of bounds is refused before anything is tried.
#[test]
fn nonsense_is_refused() {
    assert_eq!(refused("ringraft put k"), ErrorKind::MissingRequiredArgument);
    assert_eq!(refused("ringraft get k --group 0"), ErrorKind::ValueValidation);
    assert_eq!(refused("ringraft get k --endpoints h"), ErrorKind::ValueValidation);
    assert_eq!(refused("ringraft get k --timeout 5h"), ErrorKind::ValueValidation);
    assert_eq!(refused("ringraft range a b --prefix"), ErrorKind::ArgumentConflict);
    assert_eq!(refused("ringraft txn --stdin --then x"), ErrorKind::ArgumentConflict);
    assert_eq!(refused("ringraft wal ls"), ErrorKind::MissingRequiredArgument);
    assert_eq!(refused("ringraft wal ls --dir d --config f"), ErrorKind::ArgumentConflict);
    assert_eq!(refused("ringraft dev --nodes 16"), ErrorKind::ValueValidation);
    assert_eq!(refused("ringraft log-level loud"), ErrorKind::InvalidValue);
    assert_eq!(refused("ringraft node"), ErrorKind::MissingRequiredArgument);
    assert_eq!(refused("ringraft node add 4 --peer h:2"), ErrorKind::MissingRequiredArgument);
    assert_eq!(refused("ringraft node replace 1 4 --peer h:2"), ErrorKind::MissingRequiredArgument);
    assert_eq!(refused("ringraft node promote 0"), ErrorKind::ValueValidation);
    assert_eq!(refused("ringraft node prepare"), ErrorKind::MissingRequiredArgument);
    assert_eq!(refused("ringraft node refresh"), ErrorKind::MissingRequiredArgument);
    assert_eq!(refused("ringraft node refresh a --http h:1"), ErrorKind::ValueValidation);
    assert_eq!(refused("ringraft node refresh a --http 0=h:1"), ErrorKind::ValueValidation);
    let zero = "ringraft node add 4 --peer h:2 --client h:1 --incarnation 0";
    assert_eq!(refused(zero), ErrorKind::ValueValidation);
    assert_eq!(refused("ringraft putt k v"), ErrorKind::InvalidSubcommand);
}
