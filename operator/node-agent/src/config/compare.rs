//! Whether two trees differ in nothing but our handlers.

use toml::{Table, Value};

use super::is_ours;
use super::write::PluginId;
use crate::facts::HandlerConfig;

/// The tree without the handlers that `leave_out` names, and without the tables that this empties.
pub(crate) fn without(tree: &Table, leave_out: impl Fn(&str, &HandlerConfig) -> bool) -> Table {
    let mut tree = tree.clone();
    for id in [PluginId::V2, PluginId::V3] {
        let path = ["plugins", id.name(), "containerd", "runtimes"];
        if let Some(runtimes) = table_at(&mut tree, &path) {
            runtimes.retain(|name, value| {
                !value
                    .as_table()
                    .is_some_and(|table| leave_out(name, &HandlerConfig::from_table(table)))
            });
        }
        // Those above come and go with the handlers in them; an empty one says nothing to containerd.
        for depth in (1..=path.len()).rev() {
            let (last, above) = path[..depth].split_last().expect("depth is at least 1");
            if let Some(parent) = table_at(&mut tree, above) {
                let empty = parent
                    .get(*last)
                    .and_then(Value::as_table)
                    .is_some_and(Table::is_empty);
                if empty {
                    parent.remove(*last);
                }
            }
        }
    }
    tree
}

/// The first place where two trees differ.
pub(crate) fn difference(a: &Table, b: &Table) -> Option<String> {
    let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
    for key in keys {
        match (a.get(key), b.get(key)) {
            (Some(Value::Table(a)), Some(Value::Table(b))) => {
                if let Some(below) = difference(a, b) {
                    return Some(format!("{key:?}.{below}"));
                }
            }
            // NaN is not equal to itself, and nobody has one here: it counts as a difference.
            (Some(a), Some(b)) if a == b => {}
            _ => return Some(format!("{key:?}")),
        }
    }
    None
}

/// Leaves out what is ours, and the handlers of these names.
pub(crate) fn others(tree: &Table, carried: &[String]) -> Table {
    without(tree, |name, handler| {
        is_ours(handler) || carried.iter().any(|carried| carried == name)
    })
}

fn table_at<'a>(tree: &'a mut Table, path: &[&str]) -> Option<&'a mut Table> {
    path.iter().try_fold(tree, |table, key| {
        table.get_mut(*key).and_then(Value::as_table_mut)
    })
}
