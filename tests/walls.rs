//! The walls of the house: who may name whom, where unsafe may live, who may read a clock, which
//! invariants are stated and used, and that no file is dead. Reads text only, never writes.

#[path = "walls/can_fail.rs"]
mod can_fail;
#[path = "walls/plants.rs"]
mod plants;
#[path = "walls/source.rs"]
mod source;

use source::{code_only, comments_only, is_behind, modules, paths, tokens, without_tests};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// A crate's wall: which of our crates it may name, and what else it must not.
struct Wall {
    folder: &'static str,
    ours: &'static [&'static str],
    paths_forbidden: &'static [&'static str],
    packages_forbidden: &'static [&'static str],
    /// Whether unsafe code is forbidden by the compiler in the whole crate.
    forbids_unsafe: bool,
}

const STD_IO: &[&str] = &[
    "std::time",
    "std::thread",
    "std::net",
    "std::fs",
    "std::sync",
    "std::env",
    "std::process",
    "core::time",
    "core::sync",
];
const CLOCKS: &[&str] = &["std::time::Instant", "std::time::SystemTime", "core::time::Instant"];
const CLOCK_WORDS: &[&str] = &["Instant", "SystemTime", "clock_gettime", "ClockId"];
const WORLD: &[&str] = &[
    "core_affinity",
    "getrandom",
    "glommio",
    "hyper",
    "io-uring",
    "libc",
    "memmap2",
    "mio",
    "rand",
    "rustix",
    "signal-hook",
    "socket2",
    "tokio",
];

/// The one crate of ours that only tests may name: its checkers judge histories of real processes.
const TESTS_OURS: (&str, &str) = ("Cargo.toml", "ringraft-sim");

/// One row per crate. A new edge needs a decision record.
const WALLS: &[Wall] = &[
    Wall {
        folder: "shard/types",
        ours: &[],
        paths_forbidden: STD_IO,
        packages_forbidden: WORLD,
        forbids_unsafe: true,
    },
    Wall {
        folder: "shard/raft",
        ours: &["ringraft-types"],
        paths_forbidden: STD_IO,
        packages_forbidden: WORLD,
        forbids_unsafe: true,
    },
    Wall {
        folder: "wal",
        ours: &["ringraft-types"],
        paths_forbidden: CLOCKS,
        packages_forbidden: &["glommio", "hyper", "mio", "rand", "getrandom", "tokio"],
        forbids_unsafe: false,
    },
    Wall {
        folder: "net",
        ours: &["ringraft-types"],
        paths_forbidden: &[],
        packages_forbidden: &["glommio", "hyper", "io-uring", "tokio"],
        forbids_unsafe: false,
    },
    Wall {
        folder: "shard",
        ours: &["ringraft-types", "ringraft-raft", "ringraft-wal", "ringraft-net"],
        paths_forbidden: &["std::time", "std::fs", "std::net", "std::process", "std::env"],
        packages_forbidden: WORLD,
        forbids_unsafe: false,
    },
    Wall {
        folder: "benches",
        ours: &[
            "ringraft-types",
            "ringraft-raft",
            "ringraft-wal",
            "ringraft-net",
            "ringraft-shard",
        ],
        paths_forbidden: &[],
        packages_forbidden: &["glommio", "hyper", "tokio"],
        forbids_unsafe: false,
    },
    Wall {
        folder: "sim",
        ours: &[
            "ringraft-types",
            "ringraft-raft",
            "ringraft-wal",
            "ringraft-net",
            "ringraft-shard",
        ],
        paths_forbidden: &[],
        packages_forbidden: &["glommio", "hyper", "io-uring", "tokio"],
        forbids_unsafe: true,
    },
    Wall {
        folder: "fuzz",
        ours: &["ringraft", "ringraft-types", "ringraft-net", "ringraft-wal"],
        paths_forbidden: &[],
        packages_forbidden: &["glommio", "hyper", "io-uring", "tokio"],
        forbids_unsafe: false,
    },
    Wall {
        folder: "",
        ours: &[
            "ringraft-types",
            "ringraft-raft",
            "ringraft-wal",
            "ringraft-net",
            "ringraft-shard",
            "ringraft-benches",
        ],
        // It composes groups from settings; what they decide is theirs.
        paths_forbidden: &[
            "ringraft_raft::Raft",
            "ringraft_raft::Input",
            "ringraft_raft::Output",
            "ringraft_raft::Message",
        ],
        packages_forbidden: &["tokio"],
        forbids_unsafe: false,
    },
];

/// The only files that may hold unsafe code.
const UNSAFE_FILES: &[&str] = &[
    "shard/src/ring.rs",
    "wal/src/block.rs",
    "wal/src/buffer.rs",
    "wal/src/sealed.rs",
    "wal/src/device/uring.rs",
    "wal/tests/ring/mod.rs",
    "wal/tests/uring.rs",
    "src/reactor.rs",
    "src/reactor/start.rs",
    "benches/micro/ring_ops.rs",
    "benches/src/ring.rs",
];

/// Who may read a clock: the one reader, the lanes that aren't hot, the client, what measures.
const CLOCK_FILES: &[&str] = &[
    "src/clock.rs",
    "src/cli",
    "src/control",
    "net/src/client",
    "net/src/client.rs",
    "benches",
    "sim",
    "tests",
];

/// Who may name the control lane's packages.
const CONTROL_FILES: &[&str] = &["src/control", "src/control.rs", "tests"];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] =
    &["utils", "util", "common", "helpers", "helper", "manager", "managers", "misc"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files of the repository with this ending, relative to the root, in order.
fn files(ending: &str) -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder of the repository can be listed") {
            let path = entry.expect("a folder of the repository can be listed").path();
            let name = path.file_name().expect("an entry has a name").to_string_lossy();
            let is_output = name.starts_with('.') || name == "target" || name == "ringraft-dev";
            if path.is_dir() && !is_output {
                walk(&path, found);
            } else if path.is_file() {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), &mut found);
    let relative = |path: PathBuf| {
        path.strip_prefix(root()).expect("found below the root").to_string_lossy().into_owned()
    };
    let mut found: Vec<_> =
        found.into_iter().map(relative).filter(|path| path.ends_with(ending)).collect();
    found.sort();
    found
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn is_listed(file: &str, list: &[&str]) -> bool {
    list.iter().any(|entry| file == *entry || Path::new(file).starts_with(entry))
}

/// The crate that a file belongs to: the wall with the longest folder before it.
fn wall_of(file: &str) -> &'static Wall {
    WALLS
        .iter()
        .filter(|wall| wall.folder.is_empty() || Path::new(file).starts_with(wall.folder))
        .max_by_key(|wall| wall.folder.len())
        .expect("the root's wall takes what is left")
}

/// Whether a file is part of a crate's library or binary, not of its tests.
fn is_product(file: &str) -> bool {
    let inside = file.strip_prefix(wall_of(file).folder).expect("the folder is a prefix");
    inside.trim_start_matches('/').starts_with("src/") && !is_test_file(file)
}

fn is_test_file(file: &str) -> bool {
    Path::new(file).components().any(|part| {
        let Component::Normal(part) = part else { return false };
        part == "tests.rs" || part == "tests"
    })
}

fn hold(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// A folder of ours with a manifest has a row in the table.
#[test]
fn every_crate_has_a_wall() {
    let known: BTreeSet<_> = WALLS.iter().map(|wall| wall.folder).collect();
    hold(
        files("Cargo.toml")
            .iter()
            .map(|file| file.trim_end_matches("Cargo.toml").trim_end_matches('/'))
            .filter(|folder| !known.contains(folder))
            .map(|folder| format!("{folder}: a crate without a row in WALLS"))
            .collect(),
    );
}

/// What a manifest depends on against its wall; tests may use packages, but not other crates.
fn manifest_complaints(file: &str, text: &str, wall: &Wall) -> Vec<String> {
    let manifest: toml::Table = text.parse().unwrap_or_else(|error| panic!("{file}: {error}"));
    let mut complaints = Vec::new();
    let mut check = |section: &str, table: Option<&toml::Value>| {
        for name in table.and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys) {
            let is_ours = name.starts_with("ringraft");
            let is_forbidden = if is_ours {
                let is_tests_own =
                    section == "dev-dependencies" && (file, name.as_str()) == TESTS_OURS;
                !wall.ours.contains(&name.as_str()) && !is_tests_own
            } else {
                section != "dev-dependencies" && wall.packages_forbidden.contains(&name.as_str())
            };
            if is_forbidden {
                complaints.push(format!("{file}: {section} must not name {name}"));
            }
        }
    };
    for section in ["dependencies", "build-dependencies", "dev-dependencies"] {
        check(section, manifest.get(section));
        let targets = manifest.get("target").and_then(toml::Value::as_table);
        for target in targets.into_iter().flat_map(toml::Table::values) {
            check(section, target.get(section));
        }
    }
    complaints
}

/// Cargo keeps the crates apart as the table says.
#[test]
fn manifests_keep_to_their_walls() {
    let complain = |file: &String| manifest_complaints(file, &read(file), wall_of(file));
    hold(files("Cargo.toml").iter().flat_map(complain).collect());
}

/// What a product file names against its crate's wall.
fn path_complaints(file: &str, text: &str, wall: &Wall) -> Vec<String> {
    let mut forbidden: Vec<String> =
        wall.paths_forbidden.iter().map(|path| path.to_string()).collect();
    forbidden.extend(wall.packages_forbidden.iter().map(|package| package.replace('-', "_")));
    let ours = WALLS.iter().map(|other| package_of(other.folder));
    forbidden.extend(
        ours.filter(|name| !wall.ours.contains(&name.as_str()) && *name != package_of(wall.folder))
            .map(|name| name.replace('-', "_")),
    );
    if !is_listed(file, CONTROL_FILES) {
        forbidden.extend(["glommio", "hyper", "http_body_util"].map(str::to_string));
    }
    paths(&without_tests(&code_only(text)))
        .iter()
        .filter(|(_, path)| forbidden.iter().any(|wall| is_behind(path, wall)))
        .map(|(line, path)| format!("{file}:{line}: must not name {path}"))
        .collect()
}

fn package_of(folder: &str) -> String {
    match folder.rsplit('/').next() {
        None | Some("") => "ringraft".to_string(),
        Some(name) => format!("ringraft-{name}"),
    }
}

/// No crate names in code what its wall forbids; the hot lane doesn't name the control lane's.
#[test]
fn code_keeps_to_its_walls() {
    let complain = |file: &String| path_complaints(file, &read(file), wall_of(file));
    hold(files(".rs").iter().filter(|file| is_product(file)).flat_map(complain).collect());
}

/// Clock readings in a file: the word, wherever it comes from.
fn clock_complaints(file: &str, text: &str) -> Vec<String> {
    tokens(&without_tests(&code_only(text)))
        .iter()
        .filter(|token| CLOCK_WORDS.contains(&token.text))
        .map(|token| format!("{file}:{}: {} reads a clock", token.line, token.text))
        .collect()
}

/// Time is an argument: only `src/clock.rs` reads it, and who isn't in the hot lane.
#[test]
fn only_the_clock_reads_the_clock() {
    let is_told = |file: &&String| is_product(file) && !is_listed(file, CLOCK_FILES);
    let complain = |file: &String| clock_complaints(file, &read(file));
    hold(files(".rs").iter().filter(is_told).flat_map(complain).collect());
}

/// Unsafe outside of the list, or without a word on why it is sound.
fn unsafe_complaints(file: &str, text: &str) -> Vec<String> {
    let code = code_only(text);
    let lines: Vec<&str> = text.lines().collect();
    let tokens = tokens(&code);
    let mut complaints = Vec::new();
    for (at, token) in tokens.iter().enumerate().filter(|(_, token)| token.text == "unsafe") {
        let line = token.line;
        if !UNSAFE_FILES.contains(&file) {
            complaints.push(format!("{file}:{line}: unsafe outside of the list in tests/walls.rs"));
            continue;
        }
        // A declaration states what its caller owes; a block or an impl says why it is sound.
        let is_declaration = matches!(tokens.get(at + 1), Some(next) if next.text == "fn");
        let (word, reach) = if is_declaration { ("# Safety", 30) } else { ("SAFETY:", 8) };
        let above = &lines[line.saturating_sub(reach + 1)..line];
        if !above.iter().any(|line| line.contains(word)) {
            complaints.push(format!("{file}:{line}: unsafe without `{word}` above it"));
        }
    }
    complaints
}

/// Unsafe lives in a short named list, and each use says why it is sound.
#[test]
fn unsafe_lives_in_the_named_list() {
    hold(files(".rs").iter().flat_map(|file| unsafe_complaints(file, &read(file))).collect());
    for wall in WALLS.iter().filter(|wall| wall.forbids_unsafe) {
        let entrance = format!("{}/src/lib.rs", wall.folder);
        if root().join(&entrance).exists() {
            let code = code_only(&read(&entrance));
            assert!(code.contains("#![forbid(unsafe_code)]"), "{entrance} must forbid unsafe code");
        }
    }
}

/// The ids with this prefix and this many digits at least, such as `I-07` or `V13`.
fn ids(text: &str, prefix: &str, digits_min: usize) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices(prefix) {
        let is_start = !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '-' || c == '_');
        let rest = &text[at + prefix.len()..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let is_end = !rest[digits..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
        if is_start && is_end && digits >= digits_min {
            found.insert(text[at..at + prefix.len() + digits].to_string());
        }
    }
    found
}

/// Marks an invariant of docs/INVARIANTS.md that no code asserts yet.
const NOT_YET: &str = "not asserted yet";

/// What the document and the code say of the invariants, against each other.
/// `used` holds, for each id in comments of the code, one file that names it.
fn invariant_complaints(document: &str, used: &BTreeMap<String, String>) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut defined = BTreeSet::new();
    for section in document.split("\n## ").skip(1) {
        let title = section.lines().next().unwrap_or_default();
        let Some(id) = ids(title, "I-", 2).pop_first() else { continue };
        match (used.get(&id), section.contains(NOT_YET)) {
            (None, false) => complaints.push(format!("{id} is defined, and used by no code")),
            (Some(file), true) => {
                complaints.push(format!("{id} is `{NOT_YET}` by the document, but {file} names it"))
            }
            _ => {}
        }
        for line in ["- **Asserted** ", "- **Checked** ", "- **Covers** "] {
            if !section.contains(line) {
                complaints.push(format!("{id} has no line `{line}`"));
            }
        }
        if !defined.insert(id.clone()) {
            complaints.push(format!("{id} is defined twice"));
        }
    }
    let promised = ids(document, "V", 1);
    for (id, file) in used {
        let is_known = if id.starts_with('V') { &promised } else { &defined };
        if !is_known.contains(id) {
            complaints.push(format!("{file}: {id} isn't defined in docs/INVARIANTS.md"));
        }
    }
    complaints
}

/// Each invariant named by code is defined, and each defined is named by code.
#[test]
fn invariants_are_defined_and_used() {
    let mut used = BTreeMap::new();
    for file in files(".rs").iter().filter(|file| !file.starts_with("tests/walls")) {
        let text = read(file);
        let comments = comments_only(&text);
        let mut found = ids(&text, "I-", 2);
        found.append(&mut ids(&comments, "V", 1));
        for id in found {
            used.entry(id).or_insert_with(|| file.clone());
        }
    }
    hold(invariant_complaints(&read("docs/INVARIANTS.md"), &used));
}

/// Paths in back quotes that a document gives to files of the repository.
fn paths_in_document(text: &str) -> BTreeSet<String> {
    let is_path = |word: &&str| {
        word.contains('/')
            && [".rs", ".md", ".toml"].iter().any(|ending| word.ends_with(ending))
            && !word.contains(['{', '*', '<', ' ', '~'])
            && !word.starts_with('/')
    };
    text.split('`').skip(1).step_by(2).filter(is_path).map(str::to_string).collect()
}

/// The files that the documents point at exist.
#[test]
fn documents_point_at_files_that_exist() {
    let missing = |file: &String| {
        let gone: Vec<String> = paths_in_document(&read(file))
            .into_iter()
            .filter(|path| !root().join(path).exists())
            .map(|path| format!("{file}: `{path}` doesn't exist"))
            .collect();
        gone
    };
    let is_ours = |file: &&String| file.starts_with("docs/") || file.as_str() == "README.md";
    hold(files(".md").iter().filter(is_ours).flat_map(missing).collect());
}

/// The tests that a document names: functions and transcripts.
fn tests_in_document(text: &str) -> BTreeSet<&str> {
    let is_test = |word: &&str| {
        word.ends_with(".txt")
            || word.contains('_') && word.bytes().all(|it| it == b'_' || it.is_ascii_alphanumeric())
    };
    text.split('`').skip(1).step_by(2).filter(is_test).collect()
}

/// Whatever is said to be shown by a test is shown by one that exists.
#[test]
fn features_are_shown_by_tests_that_exist() {
    let code: Vec<String> = files(".rs").iter().map(|file| read(file)).collect();
    let exists = |test: &str| match test.ends_with(".txt") {
        true => root().join("shard/raft/tests/transcripts").join(test).exists(),
        false => code.iter().any(|text| text.contains(&format!("fn {test}("))),
    };
    for document in ["docs/FEATURES.md", "docs/TESTING.md"] {
        let text = read(document);
        let named = tests_in_document(&text);
        assert!(named.len() > 50, "{named:?}");
        let gone = named.into_iter().filter(|test| !exists(test));
        hold(gone.map(|test| format!("{document}: there is no test `{test}`")).collect());
    }
}

/// The files that a `mod` line may mean: the first that exists counts.
fn module_files(file: &str, module: &source::Module, is_root: bool) -> Vec<PathBuf> {
    let path = Path::new(file);
    let folder = path.parent().expect("a file has a folder").to_path_buf();
    if let Some(given) = &module.file {
        let mut meant = PathBuf::new();
        for part in folder.join(given).components() {
            match part {
                Component::ParentDir => drop(meant.pop()),
                part => meant.push(part),
            }
        }
        return vec![meant];
    }
    let stem = path.file_stem().expect("a file has a name");
    let mut inside = if is_root || stem == "mod" { folder } else { folder.join(stem) };
    inside.extend(&module.parents);
    let name = module.name.trim_start_matches("r#");
    vec![inside.join(format!("{name}.rs")), inside.join(name).join("mod.rs")]
}

/// Whether Cargo compiles the file without a `mod` line, by its place alone.
fn is_entrance(file: &str) -> bool {
    let inside = file.strip_prefix(wall_of(file).folder).expect("the folder is a prefix");
    let parts: Vec<&str> = inside.trim_start_matches('/').split('/').collect();
    matches!(
        parts[..],
        ["build.rs"]
            | ["src", "lib.rs" | "main.rs"]
            | ["src", "bin", _]
            | ["tests" | "benches" | "examples", _]
            | ["tests" | "benches" | "examples", _, "main.rs"]
    )
}

/// The files that a manifest says are compiled.
fn targets(file: &str, text: &str) -> Vec<String> {
    let manifest: toml::Table = text.parse().unwrap_or_else(|error| panic!("{file}: {error}"));
    let folder = Path::new(file).parent().expect("a manifest has a folder");
    let lists = ["bin", "test", "bench", "example"].map(|kind| manifest.get(kind));
    lists
        .into_iter()
        .flatten()
        .flat_map(|list| list.as_array().into_iter().flatten())
        .chain(manifest.get("lib"))
        .filter_map(|target| target.get("path")?.as_str())
        .map(|path| folder.join(path).to_string_lossy().into_owned())
        .collect()
}

/// Every source file is reached by `mod` lines from a file that Cargo compiles.
#[test]
fn no_file_is_dead() {
    let all: BTreeSet<String> = files(".rs").into_iter().collect();
    let named: BTreeSet<String> =
        files("Cargo.toml").iter().flat_map(|file| targets(file, &read(file))).collect();
    let is_compiled = |file: &&String| is_entrance(file) || named.contains(*file);
    let mut waiting: Vec<String> = all.iter().filter(is_compiled).cloned().collect();
    let mut reached: BTreeSet<String> = waiting.iter().cloned().collect();
    let mut complaints = Vec::new();
    while let Some(file) = waiting.pop() {
        let is_root = is_entrance(&file) || named.contains(&file);
        for module in modules(&read(&file)) {
            let meant = module_files(&file, &module, is_root);
            let mut found = meant.iter().map(|path| path.to_string_lossy().into_owned());
            match found.find(|path| all.contains(path)) {
                Some(path) => {
                    if reached.insert(path.clone()) {
                        waiting.push(path);
                    }
                }
                None => complaints.push(format!("{file}: `mod {}` has no file", module.name)),
            }
        }
    }
    complaints.extend(all.difference(&reached).map(|file| format!("{file}: no `mod` reaches it")));
    hold(complaints);
}

/// Whether a part of a path says nothing about what is inside.
fn is_empty_name(part: &str) -> bool {
    let stem = part.split('.').next().unwrap_or(part);
    stem.split(['_', '-']).any(|word| EMPTY_NAMES.contains(&word))
}

/// A file is named for what it holds.
#[test]
fn files_are_named_for_what_they_hold() {
    let named = |file: &&String| file.split('/').any(is_empty_name);
    let complain = |file: &String| format!("{file}: the name says nothing about what is inside");
    hold(files("").iter().filter(named).map(complain).collect());
}
