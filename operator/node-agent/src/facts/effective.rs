//! What containerd makes of its configuration: the parts of `containerd config dump` that matter here.

use std::collections::BTreeMap;

use toml::{Table, Value};

/// Where a configuration of version 2 has CRI.
pub const CRI_V2: &str = "io.containerd.grpc.v1.cri";
/// Where one of version 3 or 4 has CRI's runtimes.
pub const CRI_V3: &str = "io.containerd.cri.v1.runtime";
/// Where one of version 3 or 4 has CRI's images.
pub const IMAGES_V3: &str = "io.containerd.cri.v1.images";

/// The effective configuration of CRI.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Effective {
    /// `version` of the dump.
    pub version: i64,
    /// By name.
    pub handlers: BTreeMap<String, HandlerConfig>,
    /// Image of pods' sandboxes.
    pub sandbox_image: Option<String>,
    /// Handler of pods without a RuntimeClass.
    pub default_handler: Option<String>,
    /// Whether images are pulled in the old way; `None`: this containerd knows only one.
    pub local_image_pull: Option<bool>,
    /// Address of the socket.
    pub socket: Option<String>,
}

/// One handler.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HandlerConfig {
    /// `runtime_type`.
    pub runtime_type: String,
    /// `runtime_path`; empty: the type names the program.
    pub runtime_path: String,
    /// `pod_annotations`, in their order.
    pub pod_annotations: Vec<String>,
    /// `container_annotations`, in their order.
    pub container_annotations: Vec<String>,
    /// `options.ConfigPath`; empty for none.
    pub config_path: String,
    /// All of it, as it was found; empty where only the fields above are known.
    pub table: Table,
}

/// Why a dump cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EffectiveError {
    /// Not TOML.
    #[error("containerd's effective configuration is not TOML")]
    Parse(#[source] toml::de::Error),
    /// Without CRI.
    #[error(
        "containerd's effective configuration has no plugin {CRI_V2} or {CRI_V3}: this containerd has no CRI"
    )]
    NoCri,
    /// A value of another type.
    #[error("containerd's effective configuration has no text at {0}")]
    Type(String),
}

impl Effective {
    /// From `containerd config dump`.
    ///
    /// # Errors
    /// [`EffectiveError`]
    pub fn parse(dump: &str) -> Result<Self, EffectiveError> {
        let tree: Table = dump.parse().map_err(EffectiveError::Parse)?;
        let version = tree.get("version").and_then(Value::as_integer).unwrap_or(1);
        let plugin = |id: &str| tree.get("plugins").and_then(|plugins| plugins.get(id));
        let cri = plugin(CRI_V3)
            .or_else(|| plugin(CRI_V2))
            .ok_or(EffectiveError::NoCri)?;
        let containerd = cri.get("containerd");
        let mut handlers = BTreeMap::new();
        let runtimes = containerd
            .and_then(|containerd| containerd.get("runtimes"))
            .and_then(Value::as_table);
        for (name, value) in runtimes.into_iter().flatten() {
            let table = value
                .as_table()
                .ok_or_else(|| EffectiveError::Type(format!("runtimes.{name}")))?;
            handlers.insert(name.clone(), HandlerConfig::from_table(table));
        }
        let images = plugin(IMAGES_V3);
        let pinned = images.and_then(|images| images.get("pinned_images"));
        let sandbox_image = pinned
            .and_then(|pinned| pinned.get("sandbox"))
            .or_else(|| cri.get("sandbox_image"));
        let default_handler =
            containerd.and_then(|containerd| containerd.get("default_runtime_name"));
        let local_image_pull = images.and_then(|images| images.get("use_local_image_pull"));
        // Version 4 has the sockets in plugins of their own.
        let socket = plugin("io.containerd.server.v1.grpc")
            .and_then(|server| server.get("address"))
            .or_else(|| tree.get("grpc").and_then(|grpc| grpc.get("address")));
        Ok(Self {
            version,
            handlers,
            sandbox_image: text(sandbox_image),
            default_handler: text(default_handler),
            local_image_pull: local_image_pull.and_then(Value::as_bool),
            socket: text(socket),
        })
    }

    /// `SystemdCgroup` of the handler that pods without a RuntimeClass get.
    pub fn systemd_cgroup(&self) -> Option<bool> {
        let name = self.default_handler.as_deref().unwrap_or("runc");
        let handler = self.handlers.get(name)?;
        handler
            .table
            .get("options")?
            .get("SystemdCgroup")?
            .as_bool()
    }
}

impl HandlerConfig {
    /// From its table in a configuration.
    pub fn from_table(table: &Table) -> Self {
        let list = |name: &str| {
            let items = table.get(name).and_then(Value::as_array);
            items
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        };
        let config_path = table
            .get("options")
            .and_then(|options| options.get("ConfigPath"));
        Self {
            runtime_type: text(table.get("runtime_type")).unwrap_or_default(),
            runtime_path: text(table.get("runtime_path")).unwrap_or_default(),
            pod_annotations: list("pod_annotations"),
            container_annotations: list("container_annotations"),
            config_path: text(config_path).unwrap_or_default(),
            table: table.clone(),
        }
    }

    /// Whether both start the same shim with the same settings; other fields are not looked at.
    pub fn starts_the_same(&self, other: &Self) -> bool {
        let key = |handler: &Self| {
            (
                handler.runtime_type.clone(),
                handler.runtime_path.clone(),
                handler.pod_annotations.clone(),
                handler.container_annotations.clone(),
                handler.config_path.clone(),
            )
        };
        key(self) == key(other)
    }
}

fn text(value: Option<&Value>) -> Option<String> {
    value
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}
