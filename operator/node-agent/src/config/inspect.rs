//! What a configuration file says, as far as it matters.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::write::PluginId;
use crate::facts::HandlerConfig;

/// A file that was understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// `version`; `None` if there is none, which containerd takes for 1.
    pub version: Option<i64>,
    /// `imports`, as written.
    pub imports: Vec<String>,
    /// Handlers under the id that the version asks for.
    pub handlers: BTreeMap<String, HandlerConfig>,
    /// Handlers under another id, which containerd ignores.
    pub ignored: BTreeMap<String, HandlerConfig>,
    /// Whether it has a table of CRI's, which in containerd 1.x replaces that of files read before.
    pub has_cri: bool,
    /// Whether it has settings whose names depend on the version.
    pub depends_on_version: bool,
    /// All of it.
    pub tree: Table,
}

/// What the parser says, with line and column, on one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotToml(String);

impl From<toml::de::Error> for NotToml {
    fn from(error: toml::de::Error) -> Self {
        // Where it is, the lines around it, and what it is; a condition's message has room for the first and the last.
        let text = error.to_string();
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let place = lines.next().unwrap_or_default();
        Self(match lines.next_back() {
            Some(what) => format!("{place}: {what}"),
            None => place.to_owned(),
        })
    }
}

/// Reads a file's text.
///
/// # Errors
/// [`NotToml`]
pub fn inspect(text: &str) -> Result<Document, NotToml> {
    let tree: Table = text.strip_prefix('\u{feff}').unwrap_or(text).parse()?;
    let version = tree.get("version").and_then(Value::as_integer);
    let imports = tree
        .get("imports")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let plugin = version.and_then(PluginId::of_version);
    let mut handlers = BTreeMap::new();
    let mut ignored = BTreeMap::new();
    for id in [PluginId::V2, PluginId::V3] {
        let found = runtimes(&tree, id.name()).into_iter().flatten();
        let found = found.filter_map(|(name, value)| {
            let table = value.as_table()?;
            Some((name.clone(), HandlerConfig::from_table(table)))
        });
        if plugin == Some(id) {
            handlers.extend(found);
        } else {
            ignored.extend(found);
        }
    }
    let has_cri = plugin.is_some_and(|plugin| {
        tree.get("plugins")
            .and_then(|plugins| plugins.get(plugin.name()))
            .is_some()
    });
    let depends_on_version = ["plugins", "disabled_plugins", "required_plugins", "imports"]
        .iter()
        .any(|key| match tree.get(*key) {
            None => false,
            Some(Value::Array(items)) => !items.is_empty(),
            Some(Value::Table(table)) => !table.is_empty(),
            Some(_) => true,
        });
    Ok(Document {
        version,
        imports,
        handlers,
        ignored,
        has_cri,
        depends_on_version,
        tree,
    })
}

/// Whether somebody followed docs/install-by-hand.md with this file.
pub fn by_hand(text: &str) -> bool {
    text.lines()
        .any(|line| line.trim_end() == "# wasmlet: begin")
}

/// The table of handlers under a plugin's id.
pub(crate) fn runtimes<'a>(tree: &'a Table, id: &str) -> Option<&'a Table> {
    tree.get("plugins")?
        .get(id)?
        .get("containerd")?
        .get("runtimes")?
        .as_table()
}
