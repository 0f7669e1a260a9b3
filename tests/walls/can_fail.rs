//! The walls can fail: each rule complains about a small offence, and not about its absence.

use super::*;

fn wall(folder: &str) -> &'static Wall {
    WALLS.iter().find(|wall| wall.folder == folder).expect("a row of the table")
}

#[test]
fn manifests() {
    let complain = |text| manifest_complaints("Cargo.toml", text, wall("shard/raft")).len();
    assert_eq!(complain("[dependencies]\nringraft-types.workspace = true\nthiserror = \"2\""), 0);
    assert_eq!(complain("[dependencies]\nringraft-wal.workspace = true"), 1);
    assert_eq!(complain("[dependencies]\nrand = \"1\""), 1);
    assert_eq!(complain("[dev-dependencies]\nrand = \"1\""), 0);
    assert_eq!(complain("[dev-dependencies]\nringraft-wal.workspace = true"), 1);
    assert_eq!(complain("[target.'cfg(unix)'.dependencies]\nlibc = \"0.2\""), 1);
}

#[test]
fn paths_in_code() {
    let raft = |text| path_complaints("shard/raft/src/a.rs", text, wall("shard/raft")).len();
    assert_eq!(raft("use ringraft_types::Term; use std::fmt;"), 0);
    assert_eq!(raft("use std::{fmt, time::Duration};"), 1);
    assert_eq!(raft("fn f() { std::thread::yield_now() }"), 1);
    assert_eq!(raft("use ringraft_wal::Log; use rand::random;"), 2);
    assert_eq!(raft("#[cfg(test)]\nmod tests { use std::fs; }"), 0);
    let src = |file| path_complaints(file, "use glommio::Task;", wall("")).len();
    assert_eq!(src("src/reactor.rs"), 1);
    assert_eq!(src("src/control/http.rs"), 0);
    assert_eq!(path_complaints("src/a.rs", "use ringraft_raft::Raft;", wall("")).len(), 1);
}

#[test]
fn clocks() {
    assert_eq!(clock_complaints("src/a.rs", "let now = Instant::now(); // Instant").len(), 1);
    assert_eq!(clock_complaints("src/a.rs", "rustix::time::clock_gettime(x);").len(), 1);
    assert_eq!(clock_complaints("src/a.rs", "fn f(now: Ticks) {}").len(), 0);
    assert!(is_listed("src/control/http.rs", CLOCK_FILES));
    assert!(!is_listed("src/controller.rs", CLOCK_FILES));
}

#[test]
fn unsafe_code() {
    let block = |above: &str| format!("fn f() {{\n{above}\nunsafe {{ g() }}\n}}");
    assert_eq!(unsafe_complaints("src/boot.rs", &block("// SAFETY: x.")).len(), 1);
    assert_eq!(unsafe_complaints("src/reactor.rs", &block("// SAFETY: x.")).len(), 0);
    assert_eq!(unsafe_complaints("src/reactor.rs", &block("// Trust me.")).len(), 1);
    assert_eq!(unsafe_complaints("src/reactor.rs", "unsafe fn f() {}").len(), 1);
    assert_eq!(unsafe_complaints("src/reactor.rs", "/// # Safety\nunsafe fn f() {}").len(), 0);
    assert_eq!(unsafe_complaints("src/boot.rs", "#![deny(unsafe_code)] // unsafe").len(), 0);
}

#[test]
fn invariants() {
    let lines = "- **Asserted** a\n- **Checked** b\n- **Covers** V1\n";
    let document = format!("# D\n\n## I-01 One\n{lines}\n## I-02 Two\n{lines}{NOT_YET}\n");
    let complain = |used: &[&str]| {
        let used = used.iter().map(|id| (id.to_string(), "a.rs".to_string())).collect();
        invariant_complaints(&document, &used).len()
    };
    assert_eq!(complain(&["I-01", "V1"]), 0);
    assert_eq!(complain(&[]), 1, "defined and not used");
    assert_eq!(complain(&["I-01", "I-03"]), 1, "used and not defined");
    assert_eq!(complain(&["I-01", "I-02"]), 1, "used and said not to be");
    assert_eq!(complain(&["I-01", "V2"]), 1, "an unknown promise");
    assert_eq!(ids("(I-01, xI-02, I-003x) I-3 I-04.", "I-", 2).len(), 2);
}

#[test]
fn document_paths() {
    let text = "`a/b.rs` `c.rs` `wal/src/{a,b}.rs` a/d.rs `x/e.md`";
    assert_eq!(Vec::from_iter(paths_in_document(text)), ["a/b.rs", "x/e.md"]);
}

#[test]
fn module_lines() {
    let module = |file: Option<&str>| source::Module {
        parents: vec![],
        name: "b".to_string(),
        file: file.map(str::to_string),
    };
    let meant = |file, given| module_files(file, &module(given), is_entrance(file))[0].clone();
    assert_eq!(meant("wal/src/lib.rs", None), Path::new("wal/src/b.rs"));
    assert_eq!(meant("wal/src/a.rs", None), Path::new("wal/src/a/b.rs"));
    assert_eq!(meant("tests/a.rs", None), Path::new("tests/b.rs"));
    assert_eq!(meant("tests/a.rs", Some("a/b.rs")), Path::new("tests/a/b.rs"));
    assert!(is_entrance("shard/raft/tests/paper.rs") && !is_entrance("shard/src/turn.rs"));
    let manifest = "[[bench]]\nname = \"a\"\npath = \"micro/a.rs\"\n[lib]\nname = \"b\"";
    assert_eq!(targets("benches/Cargo.toml", manifest), ["benches/micro/a.rs"]);
    assert!(is_entrance("benches/benches/pack.rs") && !is_entrance("tests/walls/source.rs"));
}

#[test]
fn file_names() {
    assert!(is_empty_name("utils.rs") && is_empty_name("disk_helpers") && is_empty_name("common"));
    assert!(!is_empty_name("command.rs") && !is_empty_name("commonplace.rs"));
}
