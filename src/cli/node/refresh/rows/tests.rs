//! What becomes of nodes, whatever the groups say.

use super::*;
use crate::changes::plan::tests::found;
use crate::config::Machine;
use ringraft_types::Phase;
use std::path::Path;

/// Node 1's file, with nodes 1 to 3 where the groups of these tests have them.
fn config() -> Config {
    let mut text = "[cluster]\nid = \"00000000000000000000000000000007\"\n[node]\nid = 1\n\
                    data_dir = \"d\"\n"
        .to_owned();
    for (id, name) in [(1, "a"), (2, "b"), (3, "c")] {
        text += &format!(
            "[[nodes]]\nid = {id}\nname = \"{name}\"\npeer = \"h:{id}1\"\nclient = \"h:{id}0\"\n\
             http = \"h:{id}2\"\n"
        );
    }
    Config::from_text(Path::new("a.toml"), &text, &Machine::any()).expect("sound")
}

fn group(group: u64, voters: &[u32], learners: &[u32]) -> (GroupId, GroupMembers) {
    (GroupId(group), found(Phase::Stable, voters, &[], learners))
}

fn moved(mut of: (GroupId, GroupMembers), node: u32, host: &str) -> (GroupId, GroupMembers) {
    for member in of.1.members.members.iter_mut().filter(|member| member.node.get() == node) {
        member.peer = format!("{host}:{node}1");
        member.client = format!("{host}:{node}0");
    }
    of
}

fn rows_of(known: &[(GroupId, GroupMembers)], wishes: &Wishes) -> Result<Vec<Row>, Failure> {
    rows(&config(), &said(known), wishes)
}

/// Each node with what becomes of it, in a letter.
fn fates(known: &[(GroupId, GroupMembers)], wishes: &Wishes) -> Vec<(u32, char)> {
    let letter = |fate: &Fate| match fate {
        Fate::Same => '=',
        Fate::Kept(_) => 'k',
        Fate::Added => '+',
        Fate::Changed(_) => '~',
        Fate::Removed => '-',
    };
    let rows = rows_of(known, wishes).expect("a plan");
    rows.iter().map(|row| (row.member.id.get(), letter(&row.fate))).collect()
}

/// Goal: a node is in the file if any group names it, as a voter, as a learner, or as one that
/// leaves yet; else it goes. The file's own node stays in any case.
#[test]
fn the_file_has_the_nodes_of_all_groups() {
    let wishes = Wishes::default();
    let three = || group(1, &[1, 2, 3], &[]);
    assert_eq!(fates(&[three()], &wishes), [(1, '='), (2, '='), (3, '=')]);
    let known = [three(), group(2, &[2, 3, 4], &[])];
    assert_eq!(fates(&known, &wishes), [(1, '='), (2, '='), (3, '='), (4, '+')]);
    assert_eq!(differing(&known), [GroupId(2)]);
    let known = [group(1, &[2, 4], &[5]), group(2, &[2, 4], &[5])];
    assert_eq!(fates(&known, &wishes), [(1, 'k'), (2, '='), (3, '-'), (4, '+'), (5, '+')]);
    let held = [(GroupId(1), found(Phase::Held, &[1, 2], &[1, 3], &[]))];
    assert_eq!(fates(&held, &wishes), [(1, '='), (2, '='), (3, '=')], "it may be given up");
}

/// Goal: where the file has a node elsewhere than the groups, the file stays unless somebody says
/// that the groups are right; where its own node is isn't for the groups to say.
#[test]
fn addresses_are_taken_if_that_is_said() {
    let wishes = Wishes::default();
    let known = [moved(moved(group(1, &[1, 2, 3], &[]), 2, "g"), 1, "g")];
    assert_eq!(fates(&known, &wishes), [(1, 'k'), (2, 'k'), (3, '=')]);
    let wishes = Wishes { takes_addresses: true, ..wishes };
    assert_eq!(fates(&known, &wishes), [(1, 'k'), (2, '~'), (3, '=')]);
    let row = &rows_of(&known, &wishes).expect("a plan")[1];
    let Addresses { peer, client, http } = &row.member.addresses;
    assert_eq!([peer, client, http].map(ToString::to_string), ["g:21", "g:20", "g:22"]);
    let two = [known[0].clone(), group(2, &[1, 2, 3], &[])];
    let failure = rows_of(&two, &wishes).expect_err("which of them?");
    assert!(failure.message.contains("for group 1, and at"), "{failure:?}");
    let unknown = [group(1, &[1, 2, 3], &[])].map(|mut it| {
        it.1.members.members[1].peer = String::new();
        it
    });
    assert_eq!(fates(&unknown, &wishes), [(1, '='), (2, '='), (3, '=')], "nothing else is said");
}

/// Goal: a node that is added is called as it calls itself, and serves HTTP where somebody says, or
/// beside its client port; what isn't known, and what can't be, is refused with a cure.
#[test]
fn newcomers_are_told_in_full() {
    let four = || group(1, &[1, 2, 3, 4], &[]);
    let added = |wishes: &Wishes| {
        let row = rows_of(&[four()], wishes).expect("a plan").remove(3);
        (row.member.name, row.member.addresses.http.to_string())
    };
    let told = |text: &str| (text.to_owned(), "h:42".to_owned());
    assert_eq!(added(&Wishes::default()), told("node-4"));
    let named = |name: &str| Wishes {
        names: BTreeMap::from([(NodeId(4), name.to_owned())]),
        ..Wishes::default()
    };
    assert_eq!(added(&named("d")), told("d"));
    assert_eq!(added(&named("b")), told("node-4"), "another node's name in this file");
    let served = |node: u32, at: &str| Wishes {
        http: BTreeMap::from([(NodeId(node), at.parse().expect("an address"))]),
        ..Wishes::default()
    };
    assert_eq!(added(&served(4, "h:99")).1, "h:99");
    let refused = |known: &[(GroupId, GroupMembers)], wishes: &Wishes| {
        let failure = rows_of(known, wishes).expect_err("no plan");
        assert!(failure.cure.is_some(), "{failure:?}");
        failure.message
    };
    let clash = refused(&[four()], &served(4, "h:32"));
    assert!(clash.contains("h:32 is another port's"), "{clash}");
    let nobody = refused(&[four()], &served(2, "h:99"));
    assert!(nobody.contains("node 2 is neither added nor changed"), "{nobody}");
    let mut nowhere = four();
    nowhere.1.members.members[3].client = String::new();
    let nowhere = refused(&[nowhere], &Wishes::default());
    assert!(nowhere.contains("node 4 has no client address"), "{nowhere}");
    let many: Vec<u32> = (4..=16).collect();
    let many = refused(&[group(1, &[1, 2, 3], &many)], &Wishes::default());
    assert!(many.contains("16 nodes, and a file names 15 at most"), "{many}");
}
