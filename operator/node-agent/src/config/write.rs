//! What we write, through typed values: whatever a name contains, it stays a name.

use std::collections::BTreeMap;

use toml_edit::{Array, DocumentMut, Item, Key, Table, Value};
use wasmlet_api::handlers::Handler;
use wasmlet_api::target::Options;

use crate::facts::HandlerConfig;
use crate::facts::effective::{CRI_V2, CRI_V3};

/// Where a file of a certain version has CRI's runtimes. One of another version is silently ignored by containerd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PluginId {
    /// Of `version = 2`.
    V2,
    /// Of `version = 3` and `version = 4`.
    V3,
}

impl PluginId {
    /// Of the file's version, if it is a supported one.
    pub fn of_version(version: i64) -> Option<Self> {
        match version {
            2 => Some(Self::V2),
            3 | 4 => Some(Self::V3),
            _ => None,
        }
    }

    /// As in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::V2 => CRI_V2,
            Self::V3 => CRI_V3,
        }
    }
}

/// Handlers of others that have to be in the same file as ours, because there they replace a default.
pub type Carried = BTreeMap<String, toml::Table>;

/// Our handlers in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Where they go.
    pub plugin: PluginId,
    /// By name.
    pub handlers: BTreeMap<String, HandlerConfig>,
    /// By name.
    pub carried: Carried,
    /// The version to declare in a file that has none.
    pub declare_version: Option<i64>,
}

impl Wanted {
    /// The tables as text, with their full names.
    pub(crate) fn tables(&self) -> String {
        let mut document = DocumentMut::new();
        let root = document.as_table_mut();
        let runtimes = implicit(
            implicit(
                implicit(implicit(root, "plugins"), self.plugin.name()),
                "containerd",
            ),
            "runtimes",
        );
        for (name, table) in &self.carried {
            runtimes.insert_formatted(&key(name), Item::Table(from_tree(table)));
        }
        for (name, handler) in &self.handlers {
            runtimes.insert_formatted(&key(name), Item::Table(handler_table(handler)));
        }
        document.to_string()
    }
}

/// A drop-in with our handlers. Its version is the root file's: containerd 2.0 to 2.2 do not migrate the others along with a newer one.
pub fn drop_in(version: i64, wanted: &Wanted) -> String {
    format!(
        "# Written by wasmlet-node, which undoes changes here.\nversion = {version}\n\n{}",
        wanted.tables()
    )
}

/// A handler's settings file.
pub fn settings(handler: &Handler, options: &Options, systemd_cgroup: Option<bool>) -> String {
    let mut document = DocumentMut::new();
    let root = document.as_table_mut();
    let engine = handler.engine.map_or("auto", |engine| engine.name());
    root.insert("Engine", Item::Value(string(engine)));
    if let Some(systemd) = systemd_cgroup {
        root.insert("SystemdCgroup", value(systemd));
    }
    let numbers = [
        ("CacheMaxBytes", options.cache_max_bytes),
        ("CompileMemoryBytes", options.compile_memory_bytes),
        ("CompileCpus", options.compile_cpus.map(u64::from)),
        ("CompileTimeoutSeconds", options.compile_timeout_seconds),
    ];
    for (key, number) in numbers {
        if let Some(number) = number {
            // TOML's numbers end at 2^63 - 1, and a plan refuses larger ones before it comes here.
            root.insert(key, value(i64::try_from(number).unwrap_or(i64::MAX)));
        }
    }
    format!("# Written by wasmlet-node, which undoes changes here.\n{document}")
}

/// A handler's table.
pub(crate) fn handler_table(handler: &HandlerConfig) -> Table {
    let mut table = Table::new();
    table.insert("runtime_type", Item::Value(string(&handler.runtime_type)));
    table.insert("runtime_path", Item::Value(string(&handler.runtime_path)));
    for (key, list) in [
        ("pod_annotations", &handler.pod_annotations),
        ("container_annotations", &handler.container_annotations),
    ] {
        let array: Array = list.iter().map(|text| string(text)).collect();
        table.insert(key, Item::Value(Value::Array(array)));
    }
    let mut options = Table::new();
    options.insert("ConfigPath", Item::Value(string(&handler.config_path)));
    table.insert("options", Item::Table(options));
    table
}

/// A text as TOML 1.0 has it on one line. toml_edit itself would write a text with line ends over several lines, of which one could look
/// like a marker of ours, and would use escapes of TOML 1.1, which containerd does not know.
fn string(text: &str) -> Value {
    quoted(text)
        .parse()
        .expect("JSON's escapes are also TOML's, and the one byte that JSON leaves is escaped")
}

/// A key, likewise.
pub(crate) fn key(name: &str) -> Key {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if !name.is_empty() && name.bytes().all(bare) {
        Key::new(name)
    } else {
        quoted(name)
            .parse()
            .expect("a text in quotes is a key, too")
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text)
        .to_string()
        .replace('\u{7f}', "\\u007f")
}

fn value(value: impl Into<Value>) -> Item {
    Item::Value(value.into())
}

fn implicit<'a>(parent: &'a mut Table, key: &str) -> &'a mut Table {
    let mut table = Table::new();
    table.set_implicit(true);
    let item = parent.entry(key).or_insert(Item::Table(table));
    item.as_table_mut()
        .expect("the document is new, and has only tables of ours")
}

fn from_tree(tree: &toml::Table) -> Table {
    let mut table = Table::new();
    // Plain values first: after a sub-table they would belong to it.
    for (key, item) in tree {
        if let Some(plain) = plain(item) {
            table.insert_formatted(&self::key(key), Item::Value(plain));
        }
    }
    for (key, item) in tree {
        if let toml::Value::Table(inner) = item {
            table.insert_formatted(&self::key(key), Item::Table(from_tree(inner)));
        }
    }
    table
}

fn plain(item: &toml::Value) -> Option<Value> {
    Some(match item {
        toml::Value::String(text) => string(text),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => (*number).into(),
        toml::Value::Boolean(truth) => (*truth).into(),
        toml::Value::Datetime(time) => {
            let parsed: toml_edit::Datetime = time
                .to_string()
                .parse()
                .expect("both crates read what the other writes");
            parsed.into()
        }
        toml::Value::Array(items) => Value::Array(items.iter().filter_map(inline).collect()),
        toml::Value::Table(_) => return None,
    })
}

/// As in an array, where tables are inline.
fn inline(item: &toml::Value) -> Option<Value> {
    match item {
        toml::Value::Table(table) => Some(Value::InlineTable(from_tree(table).into_inline_table())),
        other => plain(other),
    }
}
