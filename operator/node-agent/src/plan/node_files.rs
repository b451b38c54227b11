//! The changes of our own files: settings and links.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use wasmlet_api::Digest;
use wasmlet_api::names::{NODE_RUNTIMES, NODE_SETTINGS, PASSED_ANNOTATIONS, RUNTIME_TYPE, SHIM};
use wasmlet_api::target::{NodeRuntime, NodeTarget};

use super::{Change, FileChange, LinkChange, Ownership, Refusal};
use crate::config;
use crate::facts::{Bundle, HandlerConfig, HostFacts, Shim};

/// Permissions of a settings file: nothing in it is secret.
const SETTINGS_MODE: u32 = 0o644;
/// Names of handlers end here, as in the schema of a WasmRuntime.
const MAX_HANDLER_BYTES: usize = 40;

/// What of ours comes before containerd may need it, and what goes after nothing needs it any more.
pub(super) struct Ours {
    /// Handlers by name.
    pub(super) handlers: BTreeMap<String, HandlerConfig>,
    /// Before the restart.
    pub(super) first: Vec<Change>,
    /// After it.
    pub(super) last: Vec<Change>,
}

/// The changes of settings and links.
pub(super) fn ours(facts: &HostFacts, target: &NodeTarget) -> Result<Ours, Refusal> {
    let mut handlers = BTreeMap::new();
    let mut first = Vec::new();
    let mut settings = BTreeSet::new();
    let systemd_cgroup = facts
        .effective
        .as_ref()
        .ok()
        .and_then(|effective| effective.systemd_cgroup());
    for runtime in &target.runtimes {
        check(runtime)?;
        usable(facts, runtime)?;
        for handler in runtime.handlers() {
            let path = settings_path(&handler.name);
            let text = config::settings(&handler, &runtime.options, systemd_cgroup);
            let before = facts.settings.get(&path).cloned();
            settings.insert(path.clone());
            if handlers
                .insert(handler.name.clone(), handler_config(facts, runtime, &path))
                .is_some()
            {
                return Err(Refusal::Target(format!(
                    "the handler {:?} is in it twice",
                    handler.name
                )));
            }
            if before.as_deref() != Some(text.as_bytes()) {
                let original = match facts.owned.files.get(&path) {
                    Some(owned) => owned.original.clone(),
                    None => before.clone(),
                };
                first.push(Change::File(FileChange {
                    path,
                    before,
                    after: Some(text.into_bytes()),
                    mode: SETTINGS_MODE,
                    ownership: Ownership::Keep(original),
                }));
            }
        }
        let end = link_end(&runtime.digest);
        let before = facts.links.get(&runtime.handler).cloned();
        if before.as_ref() != Some(&end) {
            first.push(Change::Link(LinkChange {
                path: Path::new(NODE_RUNTIMES).join(&runtime.handler),
                before,
                after: Some(end),
            }));
        }
    }
    let last = stale(facts, target, &settings);
    Ok(Ours {
        handlers,
        first,
        last,
    })
}

/// What was ours and is not wanted.
fn stale(facts: &HostFacts, target: &NodeTarget, settings: &BTreeSet<PathBuf>) -> Vec<Change> {
    let mut last = Vec::new();
    for (handler, end) in &facts.links {
        if !target
            .runtimes
            .iter()
            .any(|runtime| runtime.handler == *handler)
        {
            last.push(Change::Link(LinkChange {
                path: Path::new(NODE_RUNTIMES).join(handler),
                before: Some(end.clone()),
                after: None,
            }));
        }
    }
    for (path, owned) in &facts.owned.files {
        if !path.starts_with(NODE_SETTINGS) || settings.contains(path) {
            continue;
        }
        let before = facts.settings.get(path).cloned();
        let ours = before
            .as_deref()
            .is_some_and(|bytes| Digest::of(bytes) == owned.written);
        // A file of settings that somebody else changed is theirs now, but it was ours: what was there before comes back.
        let after = match (&before, ours, &owned.original) {
            (None, ..) => None,
            (Some(_), true, original) | (Some(_), false, original) => original.clone(),
        };
        last.push(Change::File(FileChange {
            path: path.clone(),
            before,
            after,
            mode: SETTINGS_MODE,
            ownership: Ownership::Drop,
        }));
    }
    last
}

/// What the schema of a WasmRuntime promises, for targets that come from a file.
fn check(runtime: &NodeRuntime) -> Result<(), Refusal> {
    let name = &runtime.handler;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    let valid = name.len() <= MAX_HANDLER_BYTES
        && bytes.first().copied().is_some_and(plain)
        && bytes.last().copied().is_some_and(plain)
        && bytes.iter().all(|byte| plain(*byte) || *byte == b'-');
    if !valid {
        return Err(Refusal::Target(format!(
            "the handler {name:?} must have 1 to {MAX_HANDLER_BYTES} of a-z, 0-9 and - with none at the ends"
        )));
    }
    let options = &runtime.options;
    let numbers = [
        ("cacheMaxBytes", options.cache_max_bytes),
        ("compileMemoryBytes", options.compile_memory_bytes),
        ("compileTimeoutSeconds", options.compile_timeout_seconds),
    ];
    for (key, number) in numbers {
        if number.is_some_and(|number| i64::try_from(number).is_err()) {
            return Err(Refusal::Target(format!(
                "{key} of the handler {name:?} must be below 2^63"
            )));
        }
    }
    Ok(())
}

/// Whether the bundle is there, and for this machine.
fn usable(facts: &HostFacts, runtime: &NodeRuntime) -> Result<(), Refusal> {
    let machine = &facts.architecture;
    let why = match facts.bundles.get(&runtime.digest) {
        None => "it is not there; stage it (wasmlet-node stage)".to_owned(),
        Some(Bundle::Broken(why)) => why.clone(),
        Some(Bundle::Listed { platform, shim, .. }) => match shim {
            _ if *platform != format!("linux/{machine}") => {
                format!("it is for {platform}, and this node is linux/{machine}")
            }
            Shim::Program { architecture } if architecture == machine => return Ok(()),
            Shim::Program { architecture } => {
                format!("its bin/{SHIM} is for {architecture}, and this node is {machine}")
            }
            Shim::Missing => format!("it has no bin/{SHIM}"),
            Shim::NotExecutable(mode) => {
                format!("its bin/{SHIM} has mode {mode:04o}, which nobody may execute")
            }
            Shim::NoProgram(why) => format!("its bin/{SHIM} is no program: {why}"),
        },
    };
    Err(Refusal::Bundle {
        digest: runtime.digest.clone(),
        handler: runtime.handler.clone(),
        why,
    })
}

/// A handler of a runtime, as it has to be in containerd's configuration.
fn handler_config(facts: &HostFacts, runtime: &NodeRuntime, settings: &Path) -> HandlerConfig {
    let passed: Vec<String> = PASSED_ANNOTATIONS.map(str::to_owned).to_vec();
    let path = format!("{NODE_RUNTIMES}/{}/bin/{SHIM}", runtime.handler);
    HandlerConfig {
        // containerd 1.6 reads `runtime_path` and starts pods without it (seen on 1.6.20); all versions take a path for a type.
        runtime_type: if facts.containerd.at_least(1, 7) {
            RUNTIME_TYPE.to_owned()
        } else {
            path.clone()
        },
        runtime_path: path,
        pod_annotations: passed.clone(),
        container_annotations: passed,
        config_path: settings.display().to_string(),
        table: toml::Table::new(),
    }
}

/// The settings file of a handler.
pub(crate) fn settings_path(handler: &str) -> PathBuf {
    Path::new(NODE_SETTINGS).join(format!("{handler}.toml"))
}

/// Where the link of a runtime leads.
pub(crate) fn link_end(digest: &Digest) -> PathBuf {
    Path::new("../store").join(digest.hex())
}
