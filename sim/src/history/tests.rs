//! The format, byte by byte and back.

use super::*;

const GOLDEN: &str = r#"{"at":5,"client":1,"call":1,"event":"invoke","group":7,"ask":{"put":{"key":"a","value":"1"}}}
{"at":6,"client":2,"call":1,"event":"invoke","group":7,"ask":{"range":{"keys":{"prefix":""},"limit":3,"consistency":"stale"}}}
{"at":9,"client":1,"call":1,"event":"done","revision":1,"index":4,"reply":{"put":"none"}}
{"at":9,"client":2,"call":1,"event":"done","revision":1,"reply":{"range":{"count":1,"more":false,"keys":[{"key":"a","value":"1","create":1,"modified":1,"version":1}]}}}
{"at":9,"client":2,"call":2,"event":"invoke","group":7,"ask":{"delete":{"keys":{"between":["a",{"hex":"ff00"}]},"previous":true}}}
{"at":10,"client":1,"call":2,"event":"invoke","group":7,"ask":{"txn":{"compares":[{"key":"a","relation":"equal","to":{"value":"1"}}],"then":[{"put":{"key":"b","value":{"hex":"0a"}}}],"else":[{"range":{"keys":{"one":"a"}}}]}}}
{"at":11,"client":1,"call":2,"event":"not_done","why":"Busy"}
{"at":12,"client":2,"call":2,"event":"unknown","why":"deadline"}
{"at":12,"client":1,"call":3,"event":"invoke","group":7,"ask":{"set_history":5}}
{"at":12,"client":2,"call":3,"event":"invoke","group":7,"ask":"nothing"}
"#;

/// The format is stable: what was written once is read, and written the same again.
#[test]
fn golden_lines() {
    let history = History::read(GOLDEN.as_bytes()).expect("the format");
    assert_eq!(history.len(), 6);
    let mut written = Vec::new();
    history.write(&mut written).expect("memory takes everything");
    assert_eq!(String::from_utf8(written).expect("JSON is text"), GOLDEN);
    assert_eq!(history.calls()[4].outcome(), &Outcome::Unknown(Reason::Ended));
}

/// What doesn't fit is refused with its line.
#[test]
fn bad_lines_are_refused() {
    let read = |text: &str| History::read(text.as_bytes()).map(|_| ()).expect_err(text).to_string();
    let first = GOLDEN.lines().next().expect("it has lines");
    assert!(read(&format!("{first}\n{first}")).starts_with("line 2: call 1/1 began again"));
    let end = r#"{"at":4,"client":1,"call":1,"event":"unknown","why":"deadline"}"#;
    assert!(read(end).starts_with("line 1: call 1/1 ended, but doesn't run"));
    assert!(read(&format!("{first}\n{end}")).starts_with("line 2: an event at 4 us after"));
    let why = r#"{"at":4,"client":1,"call":1,"event":"unknown","why":"bored"}"#;
    assert!(read(why).contains("bored is no reason"));
    assert!(read("{").starts_with("line 1: "));
    assert!(read(&first.replace('7', "7,\"more\":1")).starts_with("line 1: "));
}

/// Files are put together by time; of equal times the beginnings come first.
#[test]
fn files_are_merged_by_time() {
    let lines: Vec<&str> = GOLDEN.lines().collect();
    let one = [lines[0], lines[2], lines[5], lines[6], lines[8]].join("\n");
    let two = [lines[1], lines[3], lines[4], lines[7], lines[9]].join("\n");
    let files = [one, two].map(|file| lines::parse(file.as_bytes()).expect("the format"));
    let merged = History::together(files.into()).expect("they fit");
    let whole = History::read(GOLDEN.as_bytes()).expect("the format");
    assert_eq!(merged.len(), whole.len());
    // 2/2 begins at the time at which 1/1 ends: only the one file knows which was first.
    let (ended, _) = merged.calls()[0].ended.as_ref().expect("it ended");
    assert!(merged.calls()[2].invoked < *ended);
    let (ended, _) = whole.calls()[0].ended.as_ref().expect("it ended");
    assert!(whole.calls()[2].invoked > *ended);
}

/// A command that owns its bytes is the wire's command.
#[test]
fn asks_are_commands() {
    for call in History::read(GOLDEN.as_bytes()).expect("the format").calls() {
        let mut bytes = Vec::new();
        call.ask.encode(&mut bytes).expect("within limits");
        let command = ringraft_types::command::Command::decode(&bytes).expect("just encoded");
        let mut ask = Ask::from(command);
        if let (Ask::Range(back), Ask::Range(asked)) = (&mut ask, &call.ask) {
            // The wire's frame has it, not the command.
            back.consistency = asked.consistency;
        }
        assert_eq!(ask, call.ask);
    }
}
