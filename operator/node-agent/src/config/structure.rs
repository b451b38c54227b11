//! Setting and removing handlers one by one, where no block can be cut.

use toml_edit::{DocumentMut, Item, TableLike};

use super::block::newline_of;
use super::is_ours;
use super::write::{PluginId, Wanted, handler_table, key};
use crate::facts::HandlerConfig;

/// Whether a block's headers can name tables below the handlers' table of this document: not if that or one above is inline.
pub(crate) fn takes_headers(document: &DocumentMut, plugin: PluginId) -> bool {
    let mut item = document.as_item();
    for key in ["plugins", plugin.name(), "containerd", "runtimes"] {
        match item.get(key) {
            None => return true,
            Some(Item::Table(_)) => item = &item[key],
            Some(_) => return false,
        }
    }
    true
}

/// Sets the handlers in an inline table. `None`: something on the way there is no table.
pub(crate) fn set(text: &str, wanted: &Wanted) -> Option<String> {
    let mut document: DocumentMut = text.parse().ok()?;
    let mut item = document.as_item_mut();
    for key in ["plugins", wanted.plugin.name(), "containerd", "runtimes"] {
        let table = item.as_table_like_mut()?;
        if !table.contains_key(key) {
            table.insert(key, Item::Value(toml_edit::InlineTable::new().into()));
        }
        item = table.get_mut(key)?;
    }
    let runtimes = item.as_table_like_mut()?;
    for (name, handler) in &wanted.handlers {
        let table = handler_table(handler).into_inline_table();
        runtimes
            .entry_format(&key(name))
            .or_insert(Item::Value(table.into()));
    }
    Some(with_newlines_of(text, document.to_string()))
}

/// Removes our handlers wherever they are, with the tables above that this empties.
pub(crate) fn unset(text: &str) -> Option<String> {
    let mut document: DocumentMut = text.parse().ok()?;
    for plugin in [PluginId::V2, PluginId::V3] {
        remove_ours(document.as_table_mut(), plugin);
    }
    Some(with_newlines_of(text, document.to_string()))
}

fn remove_ours(root: &mut dyn TableLike, plugin: PluginId) {
    let path = ["plugins", plugin.name(), "containerd", "runtimes"];
    let Some(runtimes) = table_at(root, &path) else {
        return;
    };
    let ours: Vec<String> = runtimes
        .iter()
        .filter(|(_, item)| {
            let table: Option<toml::Table> = item.as_table_like().and_then(tree);
            table.is_some_and(|table| is_ours(&HandlerConfig::from_table(&table)))
        })
        .map(|(name, _)| name.to_owned())
        .collect();
    for name in &ours {
        runtimes.remove(name);
    }
    if ours.is_empty() {
        return;
    }
    for depth in (1..=path.len()).rev() {
        let (last, above) = path[..depth].split_last().expect("depth is at least 1");
        if let Some(parent) = table_at(root, above) {
            // One that has a header of its own was there before us, or is somebody's who wants to see it.
            let empty = parent.get(last).is_some_and(|item| {
                item.as_table_like().is_some_and(TableLike::is_empty)
                    && item.as_table().is_none_or(toml_edit::Table::is_implicit)
                    && item.is_table()
            });
            if empty {
                parent.remove(last);
            }
        }
    }
}

fn table_at<'a>(root: &'a mut dyn TableLike, path: &[&str]) -> Option<&'a mut dyn TableLike> {
    let mut table = root;
    for key in path {
        table = table.get_mut(key)?.as_table_like_mut()?;
    }
    Some(table)
}

fn tree(table: &dyn TableLike) -> Option<toml::Table> {
    let mut copy = DocumentMut::new();
    for (key, item) in table.iter() {
        copy.insert(key, item.clone());
    }
    copy.to_string().parse().ok()
}

/// toml_edit writes `\n` in what it changes; a file all of whose lines end in `\r\n` stays one.
fn with_newlines_of(before: &str, after: String) -> String {
    let all_crlf = before.matches('\n').count() == before.matches("\r\n").count();
    if newline_of(before) == "\r\n" && all_crlf {
        after.replace("\r\n", "\n").replace('\n', "\r\n")
    } else {
        after
    }
}
