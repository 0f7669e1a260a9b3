//! `ringraft-sim check FILE...`: reads a history of lines, and says whether it keeps what a
//! cluster promises.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ringraft_sim::checker::{Effort, Verdict, Violation, check};
use ringraft_sim::history::History;
use ringraft_sim::history::lines::{self, LinesError};

/// Checks a history that was recorded as lines of JSON (docs/FORMAT.md).
///
/// Several files are one history, put together by time: one per client, say. The exit code is 0
/// if the history keeps every promise, 1 if it breaks one, 2 if it can't be read.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The files of the history.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Why a history is not found to be right.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{}: {error}; check the path", file.display())]
    Open { file: PathBuf, error: io::Error },
    #[error("{}: {error}; docs/FORMAT.md has the format", file.display())]
    Read { file: PathBuf, error: LinesError },
    #[error("{0}")]
    Together(LinesError),
    #[error("violation: {0}")]
    Broken(#[from] Violation),
}

impl Check {
    /// Judges the files, and says what was found.
    pub(crate) fn run(&self, out: &mut impl Write) -> io::Result<ExitCode> {
        match self.judge() {
            Ok(verdict) => {
                writeln!(out, "{}", summary(&verdict))?;
                Ok(ExitCode::SUCCESS)
            }
            Err(failure) => {
                eprintln!("{failure}");
                let is_broken = matches!(failure, Failure::Broken(_));
                Ok(ExitCode::from(if is_broken { 1 } else { 2 }))
            }
        }
    }

    fn judge(&self) -> Result<Verdict, Failure> {
        let parse = |file: &PathBuf| {
            let opened = File::open(file);
            let opened = opened.map_err(|error| Failure::Open { file: file.clone(), error })?;
            let lines = lines::parse(BufReader::new(opened));
            lines.map_err(|error| Failure::Read { file: file.clone(), error })
        };
        let files = self.files.iter().map(parse).collect::<Result<_, _>>()?;
        Ok(check(&History::together(files).map_err(Failure::Together)?, &[], Effort::All)?)
    }
}

fn summary(verdict: &Verdict) -> String {
    let Verdict { groups, done, not_done, unknown, placed, revisions, whole, windows } = verdict;
    format!(
        "strictly serializable: groups {groups}, revisions {revisions}; calls {done} done, \
         {not_done} not done, {unknown} unknown, {placed} of these done after all; searched \
         too: groups whole {whole}, windows of the others {windows}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Face {
        #[command(flatten)]
        check: Check,
    }

    const PUT: &str = r#"{"at":1,"client":1,"call":1,"event":"invoke","group":1,"ask":{"put":{"key":"a","value":"1"}}}
{"at":2,"client":1,"call":1,"event":"done","revision":1,"reply":{"put":"none"}}
"#;
    const GET: &str = r#"{"at":3,"client":2,"call":1,"event":"invoke","group":1,"ask":{"range":{"keys":{"one":"a"}}}}
{"at":4,"client":2,"call":1,"event":"done","revision":1,"reply":{"range":{"count":0}}}
"#;

    fn judge(texts: &[&str]) -> Result<Verdict, Failure> {
        let folder = tempfile::tempdir().expect("a folder");
        let mut arguments = vec!["check".into()];
        for (number, text) in texts.iter().enumerate() {
            let path = folder.path().join(number.to_string());
            let mut file = File::create(&path).expect("a file");
            file.write_all(text.as_bytes()).expect("it has room");
            arguments.push(path.into_os_string());
        }
        Face::try_parse_from(arguments).expect("files are its arguments").check.judge()
    }

    /// A right history, one in two files that is broken, and two that are none.
    #[test]
    fn files_are_judged() {
        let verdict = judge(&[PUT]).expect("it is right");
        assert_eq!((verdict.done, verdict.whole), (1, 1));
        assert!(summary(&verdict).starts_with("strictly serializable: groups 1, revisions 1"));
        let broken = judge(&[PUT, GET]).expect_err("the read misses the write");
        assert!(matches!(broken, Failure::Broken(Violation::Answer { .. })), "{broken}");
        let syntax = judge(&[PUT, "{}\n"]).expect_err("not a line");
        assert!(matches!(syntax, Failure::Read { .. }), "{syntax}");
        let doubled = judge(&[PUT, PUT]).expect_err("a call that began twice");
        assert!(matches!(doubled, Failure::Together(_)), "{doubled}");
        let missing = Check { files: vec!["/nowhere".into()] }.judge().expect_err("no file");
        assert!(matches!(missing, Failure::Open { .. }), "{missing}");
        assert!(Face::try_parse_from(["check"]).is_err(), "a file is needed");
    }
}
