//! What can be wrong, and what to do about it.

use std::path::PathBuf;

use wasmlet_api::names::SHIM;

use super::settings::SettingsError;

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// The unit does not run.
    #[error("containerd does not run: {unit} is {state}")]
    Stopped {
        /// The unit.
        unit: String,
        /// `stopped` or `failed`.
        state: &'static str,
    },
    /// It runs and does not answer.
    #[error("containerd's CRI does not answer: {0}")]
    Silent(String),
    /// Its files cannot be read by it.
    #[error(
        "containerd cannot read its configuration as it is on the disk, and would not start with it again: {0}"
    )]
    Unreadable(String),
    /// A file that it reads is not TOML.
    #[error("{} is not TOML: {why}", path.display())]
    NotToml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        why: String,
    },
    /// The handler is nowhere.
    #[error("no runtime for {0:?} is configured: no file of containerd's has it")]
    NotInstalled(String),
    /// It is in a file that containerd does not read.
    #[error("no runtime for {handler:?} is configured: {} has it, and containerd does not read that file", path.display())]
    NotImported {
        /// The handler.
        handler: String,
        /// The file.
        path: PathBuf,
        /// The file that would have to import it.
        loaded: PathBuf,
    },
    /// It is under the id of another version.
    #[error("no runtime for {handler:?} is configured: {} has it under plugins.{found:?}, which containerd ignores in a file of version {version}", path.display())]
    WrongPlugin {
        /// The handler.
        handler: String,
        /// The file.
        path: PathBuf,
        /// `version` of the file as it reads.
        version: String,
        /// The id it is under.
        found: &'static str,
        /// The id it has to be under.
        wanted: &'static str,
    },
    /// A drop-in of another version than the root.
    #[error("no runtime for {handler:?} is configured: {} has version {version} and {} has version {root_version}, and containerd 2.0 to 2.2 loses what differs", path.display(), loaded.display())]
    VersionsDiffer {
        /// The handler.
        handler: String,
        /// The file.
        path: PathBuf,
        /// Its version.
        version: String,
        /// The file that imports it.
        loaded: PathBuf,
        /// Its version.
        root_version: String,
    },
    /// Another file replaces CRI's table.
    #[error("no runtime for {handler:?} is configured: {} has it, and {} replaces all of CRI's settings (containerd 1.x merges no tables)", path.display(), by.display())]
    Replaced {
        /// The handler.
        handler: String,
        /// The file that has it.
        path: PathBuf,
        /// The file that is read later.
        by: PathBuf,
    },
    /// In the template, and not in what was rendered.
    #[error("no runtime for {handler:?} is configured: {} has it, and {} was rendered before that", path.display(), loaded.display())]
    NotRendered {
        /// The handler.
        handler: String,
        /// The template.
        path: PathBuf,
        /// What is rendered from it.
        loaded: PathBuf,
        /// The unit that renders it.
        unit: String,
    },
    /// In the files, and not loaded.
    #[error(
        "no runtime for {handler:?} is configured: containerd's files have it, and the running containerd was started before that"
    )]
    NotLoaded {
        /// The handler.
        handler: String,
        /// The unit.
        unit: String,
    },
    /// Loaded in another form than the files have.
    #[error(
        "the running containerd has the handler {handler:?} in another form than its files: it was started before they changed"
    )]
    LoadedOther {
        /// The handler.
        handler: String,
        /// The unit.
        unit: String,
    },
    /// In two files.
    #[error("two files have the handler {handler:?}: {} and {}", first.display(), second.display())]
    Twice {
        /// The handler.
        handler: String,
        /// The one that is read first.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// Of another runtime.
    #[error("the handler {handler:?} is of runtime_type {runtime_type:?}, which is not wasmlet")]
    Foreign {
        /// The handler.
        handler: String,
        /// Its type.
        runtime_type: String,
    },
    /// The link is not there.
    #[error("runtime_path of {handler:?} is {path}, and {} is not there", link.display())]
    NoLink {
        /// The handler.
        handler: String,
        /// `runtime_path`.
        path: String,
        /// The link it goes through.
        link: PathBuf,
    },
    /// The bundle is not there or not usable.
    #[error("the programs of {handler:?} cannot be used: {why}")]
    Bundle {
        /// The handler.
        handler: String,
        /// What is wrong.
        why: String,
    },
    /// No settings file.
    #[error("the settings file of {handler:?}, {}, is not there", path.display())]
    NoSettings {
        /// The handler.
        handler: String,
        /// `ConfigPath`.
        path: PathBuf,
    },
    /// A bad one.
    #[error("the settings file of {handler:?}, {}, is not usable: {why}", path.display())]
    Settings {
        /// The handler.
        handler: String,
        /// `ConfigPath`.
        path: PathBuf,
        /// What is wrong.
        why: SettingsError,
    },
    /// No RuntimeClass.
    #[error("the cluster has no RuntimeClass with the handler {0:?}")]
    NoClass(String),
    /// The class of that name is for another handler.
    #[error("the RuntimeClass {class:?} has the handler {found:?}")]
    ClassOfOther {
        /// The class.
        class: String,
        /// Its handler.
        found: String,
    },
    /// The scheduler does not send pods here.
    #[error(
        "node {node} does not have the label {key}={wanted} that RuntimeClass {class:?} selects (it has {found})"
    )]
    Label {
        /// The node.
        node: String,
        /// The class.
        class: String,
        /// The label.
        key: String,
        /// Its value in the selector.
        wanted: String,
        /// Its value at the node, or `no such label`.
        found: String,
    },
    /// Nothing more can be said: the node cannot have it.
    #[error("{0}")]
    Node(String),
}

impl Finding {
    /// What to do.
    pub fn remedy(&self) -> String {
        match self {
            Self::Stopped { unit, .. } => {
                format!("systemctl status {unit}; journalctl -u {unit}; then systemctl start {unit}")
            }
            Self::Silent(_) => {
                "look at containerd's log (journalctl); that the plugin cri is not among disabled_plugins; and that the socket is mounted, if this is a pod".to_owned()
            }
            Self::Unreadable(_) | Self::NotToml { .. } => {
                "correct the file before anything restarts containerd; `containerd config dump` shows whether it can be read".to_owned()
            }
            Self::NotInstalled(_) => {
                "install wasmlet on this node: choose it in a WasmRuntime, or docs/install-by-hand.md".to_owned()
            }
            Self::NotImported { path, loaded, .. } => format!(
                "let {} import it (imports = [\"{}/*.toml\"], containerd 2.x only), or put the handler into {} itself; then restart containerd",
                loaded.display(),
                path.parent().unwrap_or(path).display(),
                loaded.display()
            ),
            Self::WrongPlugin { path, wanted, .. } => format!(
                "put the table under [plugins.{wanted:?}.containerd.runtimes] in {}, and restart containerd",
                path.display()
            ),
            Self::VersionsDiffer { path, root_version, .. } => format!(
                "give {} version {root_version} and that version's plugin id, and restart containerd",
                path.display()
            ),
            Self::Replaced { by, .. } => format!(
                "put the handler into {}, the last file with CRI's settings, and restart containerd",
                by.display()
            ),
            Self::NotRendered { unit, .. }
            | Self::NotLoaded { unit, .. }
            | Self::LoadedOther { unit, .. } => format!("systemctl restart {unit}"),
            Self::Twice { second, .. } => format!(
                "remove it from one of them; {} is read later and counts",
                second.display()
            ),
            Self::Foreign { handler, .. } => format!(
                "remove that handler from containerd's configuration, or give the WasmRuntime another one than {handler:?}"
            ),
            Self::NoLink { .. } | Self::NoSettings { .. } => {
                "let the agent write it again (annotation wasmlet.dev/retry on the WasmRuntime)".to_owned()
            }
            Self::Bundle { .. } => format!(
                "stage the bundle again (annotation wasmlet.dev/retry on the WasmRuntime, or wasmlet-node stage); its bin/{SHIM} must be a program for this node"
            ),
            Self::Settings { path, .. } => format!(
                "correct {}; the shim reads it at the next pod, without a restart",
                path.display()
            ),
            Self::NoClass(_) => {
                "kubectl apply -f manifests/runtimeclasses.yaml; the operator makes them by itself".to_owned()
            }
            Self::ClassOfOther { class, .. } => format!(
                "kubectl delete runtimeclass {class}, and apply manifests/runtimeclasses.yaml"
            ),
            Self::Label { key, wanted, node, .. } => format!(
                "kubectl get wasmnode {node} says why the operator has not labelled it; without the operator: kubectl label node {node} {key}={wanted}"
            ),
            Self::Node(_) => "as it says".to_owned(),
        }
    }
}
