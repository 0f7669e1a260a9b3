//! A node file's text with other rows in its list of nodes, and all else as it was: order,
//! comments, blank lines. A comment right above a row belongs to it and goes with it.

use super::rows::{Fate, Row};
use crate::cli::init;
use crate::config::{Addresses, Member};
use ringraft_types::NodeId;
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, Value};

/// The text with every row as it is to be.
///
/// # Errors
/// If it has no list of nodes that can be written.
pub(super) fn edit(text: &str, rows: &[Row]) -> Result<String, String> {
    if rows.iter().all(|row| matches!(row.fate, Fate::Same | Fate::Kept(_))) {
        return Ok(text.to_owned());
    }
    let mut document: DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| error.to_string())?;
    let orphans = match document.get_mut("nodes") {
        Some(Item::ArrayOfTables(list)) => edit_tables(list, rows)?,
        Some(Item::Value(Value::Array(list))) => {
            edit_array(list, rows)?;
            Vec::new()
        }
        _ => return Err("it has no list of nodes".to_owned()),
    };
    orphans.into_iter().rev().for_each(|orphan| keep(&mut document, &orphan));
    let after = document.to_string();
    // The editor writes line feeds only.
    let are_all_crlf = text.matches('\n').count() == text.matches("\r\n").count();
    Ok(if are_all_crlf { after.replace('\n', "\r\n") } else { after })
}

/// What stood above a row that is gone, and where that was.
struct Orphan {
    position: isize,
    text: String,
}

/// Rows as `[[nodes]]`. Returns what stood above those that are gone and isn't about them.
fn edit_tables(list: &mut ArrayOfTables, rows: &[Row]) -> Result<Vec<Orphan>, String> {
    let mut orphans = Vec::new();
    for Row { member, fate } in rows {
        let at = list.iter().position(|table| is_of(table, member.id));
        match (fate, at) {
            (Fate::Same | Fate::Kept(_), _) => {}
            (Fate::Added, None) => list.push(table_of(member)?),
            (Fate::Changed(from), Some(at)) => {
                let table = list.get_mut(at).ok_or("a row is gone")?;
                move_row(table, from, &member.addresses)?;
            }
            (Fate::Removed, Some(at)) => {
                let table = list.remove(at);
                let above = table.decor().prefix().and_then(|above| above.as_str());
                let position = table.position().unwrap_or_default();
                orphans.push(Orphan { position, text: not_about(above.unwrap_or_default()) });
            }
            _ => return Err(format!("node {} isn't where it was", member.id)),
        }
    }
    orphans.sort_by_key(|orphan| orphan.position);
    Ok(orphans)
}

/// Rows as `nodes = [{ … }, …]`.
fn edit_array(list: &mut Array, rows: &[Row]) -> Result<(), String> {
    for Row { member, fate } in rows {
        let is_it = |value: &Value| value.as_inline_table().is_some_and(|it| is_of(it, member.id));
        let at = list.iter().position(is_it);
        match (fate, at) {
            (Fate::Same | Fate::Kept(_), _) => {}
            (Fate::Added, None) => {
                let above = list.iter().last().and_then(|last| last.decor().prefix()?.as_str());
                let above = above.unwrap_or_default().lines().last().map(str::to_owned);
                let is_in_rows = list.iter().any(|row| {
                    row.decor().prefix().and_then(|it| it.as_str()).unwrap_or("").contains('\n')
                });
                let above = match (is_in_rows, above) {
                    (true, above) => format!("\n{}", above.unwrap_or_default()),
                    (false, _) => " ".to_owned(),
                };
                let row = Value::InlineTable(inline_of(member));
                list.push_formatted(row.decorated(above, ""));
            }
            (Fate::Changed(from), Some(at)) => {
                let value = list.get_mut(at).and_then(Value::as_inline_table_mut);
                move_row(value.ok_or("a row is gone")?, from, &member.addresses)?;
            }
            (Fate::Removed, Some(at)) => drop(list.remove(at)),
            _ => return Err(format!("node {} isn't where it was", member.id)),
        }
    }
    Ok(())
}

fn is_of(row: &dyn TableLike, node: NodeId) -> bool {
    row.get("id").and_then(Item::as_integer) == Some(i64::from(node.get()))
}

/// A new row, as `ringraft init` writes them.
fn table_of(member: &Member) -> Result<Table, String> {
    let text = init::row(member);
    let made: DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| error.to_string())?;
    let row = made.get("nodes").and_then(Item::as_array_of_tables).and_then(|rows| rows.get(0));
    let mut row = row.cloned().ok_or("a row is no row")?;
    // After the row before it.
    row.set_position(None);
    Ok(row)
}

fn inline_of(member: &Member) -> InlineTable {
    let Addresses { peer, client, http } = &member.addresses;
    let mut row = InlineTable::new();
    row.insert("id", i64::from(member.id.get()).into());
    row.insert("name", member.name.as_str().into());
    row.insert("peer", peer.to_string().into());
    row.insert("client", client.to_string().into());
    row.insert("http", http.to_string().into());
    row
}

/// Writes the addresses that differ over the old ones.
fn move_row(row: &mut dyn TableLike, from: &Addresses, to: &Addresses) -> Result<(), String> {
    let pairs = [
        ("peer", &from.peer, &to.peer),
        ("client", &from.client, &to.client),
        ("http", &from.http, &to.http),
    ];
    for (key, from, to) in pairs {
        if from == to {
            continue;
        }
        let value = row.get_mut(key).and_then(Item::as_value_mut);
        let value = value.ok_or_else(|| format!("a row has no {key}"))?;
        let decor = value.decor().clone();
        *value = to.to_string().into();
        *value.decor_mut() = decor;
    }
    Ok(())
}

/// Of what stands above a row, what isn't about it: all but the comments right above it.
fn not_about(above: &str) -> String {
    let mut lines: Vec<&str> = above.split_inclusive('\n').collect();
    while lines.last().is_some_and(|line| line.trim_start().starts_with('#')) {
        lines.pop();
    }
    while lines.last().is_some_and(|line| line.trim().is_empty()) {
        lines.pop();
    }
    lines.concat()
}

/// Puts what stood above a row that is gone above what follows it.
fn keep(document: &mut DocumentMut, orphan: &Orphan) {
    if orphan.text.is_empty() {
        return;
    }
    let tables = document.iter_mut().flat_map(|(_, item)| match item {
        Item::Table(table) => vec![table],
        Item::ArrayOfTables(list) => list.iter_mut().collect(),
        _ => Vec::new(),
    });
    let follows = |table: &&mut Table| table.position().is_some_and(|at| at > orphan.position);
    let next = tables.filter(follows).min_by_key(|table| table.position());
    match next {
        Some(table) => {
            let above = table.decor().prefix().and_then(|it| it.as_str()).unwrap_or("").to_owned();
            table.decor_mut().set_prefix(format!("{}{above}", orphan.text));
        }
        None => {
            let end = document.trailing().as_str().unwrap_or("").to_owned();
            document.set_trailing(format!("{}{end}", orphan.text));
        }
    }
}

#[cfg(test)]
mod tests;
