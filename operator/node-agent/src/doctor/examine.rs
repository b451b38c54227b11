//! Looks for what is wrong, from containerd outwards, and stops where nothing further can be known.

use std::path::{Path, PathBuf};

use wasmlet_api::Digest;
use wasmlet_api::names::{NODE_RUNTIMES, READY_TRUE, RUNTIME_TYPE, SHIM};

use super::Diagnosis;
use super::cluster::Cluster;
use super::finding::Finding;
use super::settings::{check_settings, engine};
use crate::config::{self, Document, PluginId};
use crate::facts::{Active, Bundle, HandlerConfig, HostFacts, Shim};
use crate::layout::Source;

/// Why pods of this handler do not start on this node. `cluster`: what the API server said, or why it was not asked.
pub fn examine(facts: &HostFacts, cluster: &Result<Cluster, String>, handler: &str) -> Diagnosis {
    let mut found = Diagnosis {
        handler: handler.to_owned(),
        problems: Vec::new(),
        unknown: Vec::new(),
    };
    containerd(facts, &mut found);
    if let Some(config) = loaded(facts, &mut found) {
        program(facts, &config, &mut found);
        settings(facts, &config, &mut found);
    }
    match cluster {
        Ok(cluster) => scheduling(cluster, &mut found),
        Err(why) => found
            .unknown
            .push(format!("the node's label and the RuntimeClass: {why}")),
    }
    found
}

/// Whether it runs, and would again.
fn containerd(facts: &HostFacts, found: &mut Diagnosis) {
    let state = match facts.unit.active {
        Active::Running => None,
        Active::Stopped => Some("stopped"),
        Active::Failed => Some("failed"),
    };
    match (state, &facts.running) {
        (Some(state), _) => found.problems.push(Finding::Stopped {
            unit: facts.unit.name.clone(),
            state,
        }),
        (None, Err(why)) => found.problems.push(Finding::Silent(why.clone())),
        (None, Ok(_)) => {}
    }
    let mut broken = false;
    for (path, document) in documents(facts) {
        if let Err(why) = document {
            broken = true;
            found.problems.push(Finding::NotToml { path, why });
        }
    }
    if let Err(why) = &facts.effective
        && !broken
    {
        found.problems.push(Finding::Unreadable(why.clone()));
    }
}

/// The handler as the running containerd has it, or else as its files have it.
fn loaded(facts: &HostFacts, found: &mut Diagnosis) -> Option<HandlerConfig> {
    let name = found.handler.clone();
    let unit = facts.layout.unit.clone();
    let in_files = facts
        .effective
        .as_ref()
        .ok()
        .and_then(|effective| effective.handlers.get(&name));
    let having: Vec<PathBuf> = read_files(facts)
        .into_iter()
        .filter(|(_, document)| document.handlers.contains_key(&name))
        .map(|(path, _)| path)
        .collect();
    if let [first, .., second] = having.as_slice() {
        found.problems.push(Finding::Twice {
            handler: name.clone(),
            first: first.clone(),
            second: second.clone(),
        });
    }
    let running = match &facts.running {
        Ok(running) => running.handlers.get(&name),
        // Why is said already; what the files say can still be looked at.
        Err(_) => {
            if in_files.is_none() && facts.effective.is_ok() {
                found.problems.push(absent(facts, &name));
            }
            return in_files.cloned();
        }
    };
    match (running, in_files) {
        (Some(running), Some(files)) if !running.starts_the_same(files) => {
            let handler = name;
            found.problems.push(Finding::LoadedOther { handler, unit });
            Some(running.clone())
        }
        (Some(running), _) => Some(running.clone()),
        (None, Some(files)) => {
            let handler = name;
            found.problems.push(Finding::NotLoaded { handler, unit });
            Some(files.clone())
        }
        (None, None) => {
            found.problems.push(absent(facts, &name));
            None
        }
    }
}

/// Why no file that counts has the handler.
fn absent(facts: &HostFacts, name: &str) -> Finding {
    let handler = name.to_owned();
    let loaded = facts.layout.loaded.clone();
    let root_version = read_files(facts)
        .into_iter()
        .find(|(path, _)| *path == loaded)
        .map_or_else(|| "none".to_owned(), |(_, document)| version(&document));
    for (path, document) in read_files(facts) {
        if document.ignored.contains_key(name) {
            let right = document.version.and_then(PluginId::of_version);
            let (found, wanted) = match right {
                Some(PluginId::V2) => (PluginId::V3, PluginId::V2),
                Some(PluginId::V3) => (PluginId::V2, PluginId::V3),
                // Without a version it is version 1, under whose name nobody writes handlers any more.
                None => (PluginId::V2, PluginId::V2),
            };
            return Finding::WrongPlugin {
                handler,
                path,
                version: version(&document),
                found: found.name(),
                wanted: wanted.name(),
            };
        }
        if document.handlers.contains_key(name) {
            let later = read_files(facts)
                .into_iter()
                .skip_while(|(other, _)| *other != path)
                .skip(1)
                .filter(|(_, other)| other.has_cri)
                .map(|(other, _)| other)
                .last();
            return match later {
                Some(by) if !facts.containerd.at_least(2, 0) => {
                    Finding::Replaced { handler, path, by }
                }
                _ => Finding::VersionsDiffer {
                    handler,
                    version: version(&document),
                    path,
                    loaded,
                    root_version,
                },
            };
        }
    }
    if let Source::GoTemplate { path } | Source::TomlTemplate { path } = &facts.layout.source
        && let Some(Some(bytes)) = facts.files.get(path)
        && mentions(&String::from_utf8_lossy(bytes), name)
    {
        return Finding::NotRendered {
            handler,
            path: path.clone(),
            loaded,
            unit: facts.layout.unit.clone(),
        };
    }
    for (path, bytes) in &facts.bystanders {
        let document = std::str::from_utf8(bytes)
            .ok()
            .and_then(|text| config::inspect(text).ok());
        if document.is_some_and(|document| {
            document.handlers.contains_key(name) || document.ignored.contains_key(name)
        }) {
            return Finding::NotImported {
                handler,
                path: path.clone(),
                loaded,
            };
        }
    }
    Finding::NotInstalled(handler)
}

/// Whether a template has a table of the handler: it is no TOML, so its lines are looked at.
fn mentions(text: &str, name: &str) -> bool {
    text.lines().map(str::trim).any(|line| {
        [name.to_owned(), format!("\"{name}\""), format!("'{name}'")]
            .iter()
            .any(|key| line.starts_with('[') && line.ends_with(&format!(".runtimes.{key}]")))
    })
}

fn version(document: &Document) -> String {
    match document.version {
        Some(version) => version.to_string(),
        None => "1 (it says none)".to_owned(),
    }
}

/// For containerd 1.6 the type is the path: it reads `runtime_path` and starts pods without it.
fn is_wasmlet(config: &HandlerConfig) -> bool {
    config.runtime_type == RUNTIME_TYPE
        || (config::is_ours(config) && config.runtime_type == config.runtime_path)
}

/// What containerd starts for a pod.
fn program(facts: &HostFacts, config: &HandlerConfig, found: &mut Diagnosis) {
    let handler = found.handler.clone();
    if !is_wasmlet(config) {
        found.problems.push(Finding::Foreign {
            handler,
            runtime_type: config.runtime_type.clone(),
        });
        return;
    }
    if !config::is_ours(config) {
        found.unknown.push(format!(
            "the programs of {handler:?}, which was installed by hand: {SHIM} -v on the node says whether containerd finds them"
        ));
        return;
    }
    let path = Path::new(&config.runtime_path);
    let runtime = path
        .strip_prefix(NODE_RUNTIMES)
        .ok()
        .and_then(|rest| rest.iter().next())
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let Some(end) = facts.links.get(runtime) else {
        found.problems.push(Finding::NoLink {
            handler,
            path: config.runtime_path.clone(),
            link: Path::new(NODE_RUNTIMES).join(runtime),
        });
        return;
    };
    let digest: Option<Digest> = end
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| format!("sha256:{name}").parse().ok());
    let bundle = digest.as_ref().and_then(|digest| facts.bundles.get(digest));
    let machine = &facts.architecture;
    let why = match bundle {
        None => format!(
            "{NODE_RUNTIMES}/{runtime} leads to {}, which is not there",
            end.display()
        ),
        Some(Bundle::Broken(why)) => format!("the bundle {} is broken: {why}", end.display()),
        Some(Bundle::Listed { shim, .. }) => match shim {
            Shim::Program { architecture } if architecture == machine => return,
            Shim::Program { architecture } => {
                format!("bin/{SHIM} is for {architecture}, and this node is {machine}")
            }
            Shim::Missing => format!("bin/{SHIM} is missing"),
            Shim::NotExecutable(mode) => {
                format!("bin/{SHIM} has mode {mode:04o}, which nobody may execute")
            }
            Shim::NoProgram(why) => format!("bin/{SHIM} is no program: {why}"),
        },
    };
    found.problems.push(Finding::Bundle { handler, why });
}

/// What the shim reads for each pod.
fn settings(facts: &HostFacts, config: &HandlerConfig, found: &mut Diagnosis) {
    let foreign = !is_wasmlet(config);
    if config.config_path.is_empty() || foreign {
        return;
    }
    let handler = found.handler.clone();
    let path = PathBuf::from(&config.config_path);
    match facts.settings.get(&path) {
        None => found.problems.push(Finding::NoSettings { handler, path }),
        Some(bytes) => match check_settings(bytes) {
            Err(why) => found
                .problems
                .push(Finding::Settings { handler, path, why }),
            Ok(()) => {
                if let Some(engine) = engine(bytes)
                    && !config::is_ours(config)
                {
                    found
                        .unknown
                        .push(format!("whether engine {engine:?} is installed"));
                }
            }
        },
    }
}

/// Whether pods are sent here.
fn scheduling(cluster: &Cluster, found: &mut Diagnosis) {
    let handler = found.handler.clone();
    if let Some(class) = cluster.runtime_classes.get(&handler)
        && class.handler != handler
    {
        found.problems.push(Finding::ClassOfOther {
            class: handler,
            found: class.handler.clone(),
        });
        return;
    }
    let mut classes = cluster
        .runtime_classes
        .iter()
        .filter(|(name, class)| {
            // Those of probes select no node, on purpose.
            class.handler == handler && !name.starts_with("wasmlet-probe-")
        })
        .peekable();
    if classes.peek().is_none() {
        found.problems.push(Finding::NoClass(handler));
        return;
    }
    for (name, class) in classes {
        for (key, wanted) in &class.node_selector {
            let has = cluster.labels.get(key);
            if has != Some(wanted) {
                let found_value = match has {
                    None => "no such label".to_owned(),
                    Some(value) if wanted == READY_TRUE => {
                        format!("{value:?}: it is being changed, or could not be")
                    }
                    Some(value) => format!("{value:?}"),
                };
                found.problems.push(Finding::Label {
                    node: cluster.node.clone(),
                    class: name.clone(),
                    key: key.clone(),
                    wanted: wanted.clone(),
                    found: found_value,
                });
            }
        }
    }
}

/// The files that containerd reads, in its order, those that cannot be understood left out.
fn read_files(facts: &HostFacts) -> Vec<(PathBuf, Document)> {
    documents(facts)
        .into_iter()
        .filter_map(|(path, document)| Some((path, document.ok()?)))
        .collect()
}

fn documents(facts: &HostFacts) -> Vec<(PathBuf, Result<Document, String>)> {
    config::merge_order(&facts.layout.loaded, &facts.files)
        .into_iter()
        .filter_map(|path| {
            let bytes = facts.files.get(&path)?.as_deref()?;
            let document = match std::str::from_utf8(bytes) {
                Ok(text) => config::inspect(text).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            Some((path, document))
        })
        .collect()
}
