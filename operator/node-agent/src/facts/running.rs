//! What the running containerd has loaded: CRI's Status with `verbose`, whose `info` has `config` as JSON.
//!
//! All versions from 1.6 answer it, also those without `RuntimeHandlers` (those are only in 2.0 and newer). The names of the fields are
//! the JSON tags of containerd's `PluginConfig` and `Runtime`: `runtimeType`, `runtimePath`, `PodAnnotations`,
//! `ContainerAnnotations`, `options`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::effective::HandlerConfig;
use super::live::CriAnswer;

/// What the running containerd has loaded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Running {
    /// By name; their `table` is empty.
    pub handlers: BTreeMap<String, HandlerConfig>,
    /// Image of pods' sandboxes, where this version says it here.
    pub sandbox_image: Option<String>,
    /// Handler of pods without a RuntimeClass.
    pub default_handler: Option<String>,
}

/// Why the answer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunningError {
    /// No `config`.
    #[error("containerd's CRI status has no \"config\": is this socket containerd's?")]
    NoConfig,
    /// Not JSON.
    #[error("containerd's CRI status has a \"config\" that is not JSON")]
    Json(#[source] serde_json::Error),
    /// Without handlers.
    #[error("containerd's CRI status has no \"containerd.runtimes\" in \"config\"")]
    NoHandlers,
}

impl Running {
    /// From CRI's answer.
    ///
    /// # Errors
    /// [`RunningError`]
    pub fn parse(answer: &CriAnswer) -> Result<Self, RunningError> {
        let text = answer.info.get("config").ok_or(RunningError::NoConfig)?;
        let config: Value = serde_json::from_str(text).map_err(RunningError::Json)?;
        let containerd = config.get("containerd");
        let runtimes = containerd
            .and_then(|containerd| containerd.get("runtimes"))
            .and_then(Value::as_object)
            .ok_or(RunningError::NoHandlers)?;
        let handlers = runtimes
            .iter()
            .map(|(name, value)| (name.clone(), handler(value)))
            .collect();
        let default_handler =
            containerd.and_then(|containerd| containerd.get("defaultRuntimeName"));
        Ok(Self {
            handlers,
            sandbox_image: string(config.get("sandboxImage")),
            default_handler: string(default_handler),
        })
    }
}

fn handler(value: &Value) -> HandlerConfig {
    let list = |name: &str| {
        let items = value.get(name).and_then(Value::as_array);
        items
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    let config_path = value
        .get("options")
        .and_then(|options| options.get("ConfigPath"));
    HandlerConfig {
        runtime_type: string(value.get("runtimeType")).unwrap_or_default(),
        runtime_path: string(value.get("runtimePath")).unwrap_or_default(),
        pod_annotations: list("PodAnnotations"),
        container_annotations: list("ContainerAnnotations"),
        config_path: string(config_path).unwrap_or_default(),
        table: toml::Table::new(),
    }
}

fn string(value: Option<&Value>) -> Option<String> {
    value
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}
