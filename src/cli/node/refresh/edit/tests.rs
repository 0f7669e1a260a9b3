//! Texts before and after.

use super::*;
use crate::config::{Config, Machine};
use std::path::Path;

/// As an operator has it: comments, an order of their own, a section between the rows.
const FILE: &str = r#"# node a, kept by hand

[cluster]
id = "00000000000000000000000000000007" # the cluster

[node]
id = 1
data_dir = "a-data"

[listen]
# Where this node listens.
#peer = "0.0.0.0:7401"

# rack 2
[[nodes]]
id = 2
name = "b"
peer = "h:21"   # the second network
client = "h:20"
http = "h:22"

# rack 1
[[nodes]]
id = 1
name = "a"
peer = "h:11"
client = "h:10"
http = "h:12"

# How much is logged.
[log]
level = "warn"

# rack 3: above the last
[[nodes]]
id = 3
name = "c"
client = "h:30"
peer = "h:31"
http = "h:32"
# The end.
"#;

fn read(text: &str) -> Config {
    let config = Config::from_text(Path::new("a.toml"), text, &Machine::any());
    config.unwrap_or_else(|error| panic!("{error:?}\n{text}"))
}

fn member(id: u32, host: &str) -> Member {
    let address = |port: u32| format!("{host}:{id}{port}").parse().expect("an address");
    let addresses = Addresses { peer: address(1), client: address(0), http: address(2) };
    let name = char::from(b'a' - 1 + id as u8).to_string();
    Member { id: NodeId(id), name, addresses }
}

fn row(id: u32, fate: Fate) -> Row {
    Row { member: member(id, "h"), fate }
}

fn moved(id: u32, to: &str) -> Row {
    Row { member: member(id, to), fate: Fate::Changed(member(id, "h").addresses) }
}

fn done(text: &str, rows: &[Row]) -> String {
    edit(text, rows).expect("a list of nodes")
}

/// Goal: only the lines of rows that change are others afterwards; what stood above a row that goes
/// and is about something else stays, and a comment right above it goes.
#[test]
fn only_rows_change() {
    let rows = [row(1, Fate::Same), row(2, Fate::Removed), moved(3, "g"), row(4, Fate::Added)];
    let after = done(FILE, &rows);
    let expected = FILE
        .replace(
            "# rack 2\n[[nodes]]\nid = 2\nname = \"b\"\npeer = \"h:21\"   # the second network\n\
             client = \"h:20\"\nhttp = \"h:22\"\n\n",
            "",
        )
        .replace("h:30", "g:30")
        .replace("h:31", "g:31")
        .replace("h:32", "g:32")
        .replace("# The end.\n", &format!("{}# The end.\n", init::row(&member(4, "h"))));
    assert_eq!(after, expected);
    let (before, after) = (read(FILE), read(&after));
    assert_eq!(after.nodes, [member(1, "h"), member(3, "g"), member(4, "h")]);
    assert_eq!(Config { nodes: before.nodes.clone(), ..after }, before);
    assert_eq!(done(FILE, &[row(1, Fate::Same), row(2, Fate::Kept("why".into()))]), FILE);
}

/// Goal: what stood above the last of the file, and above two rows that go one after the other, is
/// kept, in its order.
#[test]
fn what_is_not_about_a_row_is_kept() {
    let text =
        FILE.replace("# rack 1", "# above a\n\n# rack 1").replace("id = 1\ndata", "id = 3\ndata");
    let after = done(&text, &[row(1, Fate::Removed), row(2, Fate::Removed), row(3, Fate::Same)]);
    let above = "#peer = \"0.0.0.0:7401\"\n\n# above a\n\n# How much is logged.\n[log]\n";
    assert!(after.contains(above), "{after}");
    assert!(!after.contains("rack 1") && !after.contains("rack 2"), "{after}");
    let last = FILE.replace("# rack 3", "# about nothing\n\n# rack 3");
    let after = done(&last, &[row(3, Fate::Removed)]);
    assert!(after.ends_with("level = \"warn\"\n\n# about nothing\n# The end.\n"), "{after}");
}

/// Goal: a list in one line, or in lines of its own, is changed in its own way.
#[test]
fn inline_lists_stay_inline() {
    let of = |id: u32| {
        let row = inline_of(&member(id, "h")).to_string();
        row.trim().to_owned()
    };
    let rows = [row(1, Fate::Same), row(2, Fate::Removed), moved(3, "g"), row(4, Fate::Added)];
    let head = "[cluster]\nid = \"00000000000000000000000000000007\"\n[node]\nid = 1\n\
                data_dir = \"d\"\n";
    let line = format!("nodes = [{}, {}, {}]\n{head}", of(1), of(2), of(3));
    let after = done(&line, &rows);
    let third = of(3).replace("h:", "g:");
    assert_eq!(after, format!("nodes = [{}, {third}, {}]\n{head}", of(1), of(4)));
    let lines = format!("nodes = [\n  {},\n  {},\n  {},\n]\n{head}", of(1), of(2), of(3));
    let after = done(&lines, &rows);
    assert_eq!(after, format!("nodes = [\n  {},\n  {third},\n  {},\n]\n{head}", of(1), of(4)));
    assert_eq!(read(&after).nodes.len(), 3);
}

/// Goal: what `ringraft init` writes is written on as it would have been, and lines end as before.
#[test]
fn the_file_of_init_stays_its_own() {
    let nodes: Vec<Member> = (1..=4).map(|id| member(id, "h")).collect();
    let file = |nodes: &[Member]| {
        init::NodeFile {
            cluster: ringraft_types::ClusterId(7),
            nodes,
            node: &nodes[0],
            data_dir: "d",
            profile: None,
            settings: Vec::new(),
        }
        .text()
    };
    let (three, four) = (file(&nodes[..3]), file(&nodes));
    let four = four.replacen("a cluster of 4", "a cluster of 3", 1);
    assert_eq!(done(&three, &[row(4, Fate::Added)]), four);
    assert_eq!(done(&four, &[row(4, Fate::Removed)]), three);
    let crlf = |text: &str| text.replace('\n', "\r\n");
    assert_eq!(done(&crlf(&three), &[row(4, Fate::Added)]), crlf(&four));
    assert!(done(&four, &[row(1, Fate::Removed)]).contains("#http = \"h:12\"\n\n[[nodes]]"));
}
