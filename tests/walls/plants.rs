//! Planted bugs are reached in one way: a product's code under `cfg(ringraft_plant)` asks
//! `planted(...)` before it does anything, and each bug there is, is asked for somewhere.

use super::*;

/// The one file that may say more under the cfg: it defines the bugs.
const PLANTS: &str = "shard/types/src/plant.rs";

/// Code under the cfg that doesn't ask first.
fn plant_complaints(file: &str, text: &str) -> Vec<String> {
    let code = code_only(text);
    let tokens = tokens(&code);
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let mut complaints = Vec::new();
    for at in (0..tokens.len()).filter(|&at| text(at) == "ringraft_plant") {
        let before = ["#", "[", "cfg", "("];
        let is_plain = at >= 4
            && (0..4).all(|back| text(at - 4 + back) == before[back])
            && (text(at + 1), text(at + 2)) == (")", "]");
        let head = (at + 3..tokens.len()).take_while(|&at| !["{", ";"].contains(&text(at)));
        let asks = head.clone().any(|at| text(at) == "planted" && text(at + 1) == "(");
        let declares = text(at + 3) == "use"
            || (text(at + 3), text(at + 4), text(at + 5)) == ("pub", "mod", "plant");
        if !is_plain || !(asks || declares) {
            let line = tokens[at].line;
            complaints.push(format!("{file}:{line}: reached without asking `planted`"));
        }
    }
    complaints
}

/// The bugs that a file asks for.
fn asked_for(text: &str) -> BTreeSet<String> {
    let code = code_only(text);
    let tokens = tokens(&code);
    let names = tokens
        .windows(4)
        .filter(|four| (four[0].text, four[1].text, four[2].text) == ("(", "Plant", "::"));
    names.map(|four| four[3].text.to_string()).collect()
}

/// The bugs that there are: the names in the list, one a line.
fn plants(text: &str) -> BTreeSet<String> {
    let list = text.split("\nplants! {").nth(1).expect("the list of bugs");
    let list = list.split("\n}").next().expect("the list ends");
    let lines = list.lines().map(str::trim).filter(|line| !line.starts_with("///"));
    lines.filter_map(|line| line.strip_suffix(',')).map(str::to_string).collect()
}

fn is_searched(file: &str) -> bool {
    is_product(file) && file != PLANTS && !Path::new(file).starts_with("sim")
}

/// No release can have a bug of these, and no test build has one unless it is chosen.
#[test]
fn bugs_are_planted_behind_one_question() {
    let all = files(".rs");
    let searched = all.iter().filter(|file| is_searched(file));
    hold(searched.flat_map(|file| plant_complaints(file, &read(file))).collect());
}

/// A bug that nobody asks for would be found by nothing, and nobody would notice.
#[test]
fn every_bug_is_planted() {
    let all = files(".rs");
    let searched = all.iter().filter(|file| is_searched(file));
    let asked: BTreeSet<String> = searched.flat_map(|file| asked_for(&read(file))).collect();
    let there = plants(&read(PLANTS));
    assert!(there.len() > 16);
    assert_eq!(there, asked);
}

/// The rule can fail.
#[test]
fn the_rule_complains() {
    let complain = |text| plant_complaints("wal/src/a.rs", text).len();
    assert_eq!(complain("#[cfg(ringraft_plant)]\nif planted(Plant::A) { go_wrong() }"), 0);
    assert_eq!(complain("#[cfg(ringraft_plant)]\nlet a = a || planted(Plant::A);"), 0);
    assert_eq!(complain("#[cfg(ringraft_plant)]\nuse ringraft_types::plant::planted;"), 0);
    assert_eq!(complain("#[cfg(ringraft_plant)]\nlet a = true; planted(Plant::A);"), 1);
    assert_eq!(complain("#[cfg(ringraft_plant)]\nfn go() { planted(Plant::A) }"), 1);
    assert_eq!(complain("#[cfg(not(ringraft_plant))]\nif planted(Plant::A) {}"), 1);
    assert_eq!(complain("if cfg!(ringraft_plant) && planted(Plant::A) {}"), 1);
    assert_eq!(Vec::from_iter(asked_for("planted(Plant::A) || Plant::B")), ["A"]);
    assert_eq!(Vec::from_iter(plants("\nplants! {\n    /// One.\n    A,\n}\n")), ["A"]);
}
