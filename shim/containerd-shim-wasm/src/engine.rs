//! Engines on this node: runners found by name, each describing itself.
//!
//! A runner is a program `wasmlet-run-<engine>` in the folder of the shim's own program; dropping one
//! in is all it takes to add an engine.

mod describe;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use wasmlet_protocol::{
    COMPILER_PREFIX, Compiled, Description, GuestKind, GuestOption, Needs, PROTOCOL, ProfileKey,
    RUNNER_PREFIX, interface,
};

use crate::annotations::{DEFAULT_PROFILE, Settings, is_engine_name};
use crate::reaper::Reaper;

/// Engine that `auto` picks when nothing speaks against it.
const PREFERRED: &str = "wasmtime";

/// A runner and what it says of itself.
#[derive(Debug, Clone)]
pub struct Engine {
    /// The runner.
    pub runner: PathBuf,
    /// Its compile helper.
    pub compiler: PathBuf,
    /// What the runner says.
    pub description: Description,
}

/// Why no engine can be had.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Not installed.
    #[error("engine {name:?} is not installed on this node; installed: {installed}")]
    NotInstalled {
        /// What was asked for.
        name: String,
        /// What is there.
        installed: String,
    },
    /// None at all.
    #[error("no engine is installed: there is no {RUNNER_PREFIX}* in {}", folder.display())]
    None {
        /// Where it should be.
        folder: PathBuf,
    },
    /// The node cannot be looked at.
    #[error("cannot look for engines in {}", folder.display())]
    Folder {
        /// Where.
        folder: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// A runner does not describe itself.
    #[error("{} --describe failed: {what}", runner.display())]
    Describe {
        /// The runner.
        runner: PathBuf,
        /// What happened.
        what: String,
    },
    /// A runner of another version.
    #[error("{} speaks protocol {theirs}, this shim speaks {PROTOCOL}: install both from one release", runner.display())]
    Protocol {
        /// The runner.
        runner: PathBuf,
        /// Its protocol.
        theirs: u32,
    },
    /// It cannot run this guest.
    #[error("engine {engine} cannot run {guest}: {}{}", why.join("; "), others(can))]
    Cannot {
        /// Engine.
        engine: String,
        /// The guest's name.
        guest: String,
        /// Its reasons.
        why: Vec<String>,
        /// Installed engines that can.
        can: Vec<String>,
    },
    /// No engine can run this guest.
    #[error("no engine on this node can run {guest}: {}", why.join("; "))]
    NoneCan {
        /// The guest's name.
        guest: String,
        /// Each engine with its reasons.
        why: Vec<String>,
    },
    /// The profile.
    #[error("engine {engine} has no profile {profile:?}; it has: {available}")]
    Profile {
        /// Engine.
        engine: String,
        /// What was asked for.
        profile: String,
        /// What it has.
        available: String,
    },
    /// An option.
    #[error(
        "engine {engine} cannot honour the annotation wasmlet.dev/{option}: remove it or choose another engine"
    )]
    Option {
        /// Engine.
        engine: String,
        /// Key of the annotation.
        option: &'static str,
    },
}

fn others(can: &[String]) -> String {
    if can.is_empty() {
        String::new()
    } else {
        format!(
            "; set wasmlet.dev/engine to {}, or leave it out",
            can.join(" or ")
        )
    }
}

/// Folder with the programs: that of the shim's own file, links resolved.
///
/// # Errors
/// When the program's own path cannot be read.
pub fn folder() -> Result<PathBuf, EngineError> {
    let attempt = || -> io::Result<PathBuf> {
        let program = fs::read_link("/proc/self/exe")?;
        program
            .parent()
            .map(Path::to_owned)
            .ok_or_else(|| io::Error::other("the program has no folder"))
    };
    attempt().map_err(|source| EngineError::Folder {
        folder: PathBuf::from("/proc/self/exe"),
        source,
    })
}

/// Names of the engines in a folder, sorted.
///
/// # Errors
/// When the folder cannot be read.
pub fn installed(folder: &Path) -> Result<Vec<String>, EngineError> {
    let failed = |source| EngineError::Folder {
        folder: folder.to_owned(),
        source,
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if let Some(engine) = name
            .to_str()
            .and_then(|name| name.strip_prefix(RUNNER_PREFIX))
            && is_engine_name(engine)
        {
            names.push(engine.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The engine of that name.
///
/// # Errors
/// [`EngineError::NotInstalled`], with what there is.
pub fn named<'a>(name: &'a str, installed: &[String]) -> Result<&'a str, EngineError> {
    if installed.iter().any(|have| have == name) {
        return Ok(name);
    }
    Err(EngineError::NotInstalled {
        name: name.to_owned(),
        installed: installed.join(", "),
    })
}

/// The order in which `auto` asks the installed engines whether they can run a guest; the first that can
/// is taken.
///
/// For `wasi-nn` whoever has a plugin for it comes first, as that is why it was installed. Nothing is known
/// of the guest when `needs` is missing.
///
/// # Errors
/// [`EngineError::None`].
pub fn order(
    installed: &[String],
    needs: Option<&Needs>,
    folder: &Path,
) -> Result<Vec<String>, EngineError> {
    let wants_nn = needs.is_some_and(|needs| {
        needs
            .interfaces
            .iter()
            .any(|name| name == interface::WASI_NN)
    });
    let rank = |name: &str| match name {
        "wasmedge" if wants_nn => 0,
        PREFERRED => 1,
        "wasmedge" => 2,
        "wasmer" => 3,
        _ => 4,
    };
    let mut order = installed.to_vec();
    order.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.cmp(b)));
    if order.is_empty() {
        return Err(EngineError::None {
            folder: folder.to_owned(),
        });
    }
    Ok(order)
}

/// Loads an engine of the folder.
///
/// # Errors
/// When its runner does not describe itself, or speaks another protocol.
pub async fn load(folder: &Path, name: &str, reaper: &Reaper) -> Result<Engine, EngineError> {
    let runner = folder.join(format!("{RUNNER_PREFIX}{name}"));
    let description = describe::remembered_or_now(&runner, reaper).await?;
    engine(folder, name, runner, description)
}

/// As [`load`], for a program that waits for nothing else.
///
/// # Errors
/// As [`load`].
pub fn load_blocking(folder: &Path, name: &str) -> Result<Engine, EngineError> {
    let runner = folder.join(format!("{RUNNER_PREFIX}{name}"));
    let description = describe::now(&runner)?;
    engine(folder, name, runner, description)
}

fn engine(
    folder: &Path,
    name: &str,
    runner: PathBuf,
    description: Description,
) -> Result<Engine, EngineError> {
    if description.protocol != PROTOCOL {
        return Err(EngineError::Protocol {
            runner,
            theirs: description.protocol,
        });
    }
    Ok(Engine {
        compiler: folder.join(format!("{COMPILER_PREFIX}{name}")),
        runner,
        description,
    })
}

impl Engine {
    /// The profile that the pod asks for.
    ///
    /// # Errors
    /// When the engine has none of that name.
    pub fn profile(&self, asked: Option<&str>) -> Result<&ProfileKey, EngineError> {
        let name = asked.unwrap_or(DEFAULT_PROFILE);
        let profiles = &self.description.profiles;
        profiles
            .iter()
            .find(|profile| profile.name == name)
            .ok_or_else(|| EngineError::Profile {
                engine: self.description.engine.clone(),
                profile: name.to_owned(),
                available: profiles
                    .iter()
                    .map(|p| p.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            })
    }

    /// Why it cannot run a guest with a pod's settings, one phrase for each reason; none when it can.
    pub fn objections(&self, guest: &Compiled, settings: &Settings) -> Vec<String> {
        let mut objections = self.lacks(guest, settings.profile.as_deref());
        if let Err(error) = self.profile(settings.profile.as_deref()) {
            objections.push(error.to_string());
        }
        if let Err(error) = self.check(settings) {
            objections.push(error.to_string());
        }
        objections
    }

    /// What a guest needs and this engine does not have, in one of its profiles.
    pub fn lacks(&self, guest: &Compiled, profile: Option<&str>) -> Vec<String> {
        let Description {
            runs, interfaces, ..
        } = &self.description;
        if !runs.contains(&guest.kind) {
            return vec![match guest.kind {
                GuestKind::Component => "it runs no components".to_owned(),
                GuestKind::Module => "it runs no modules".to_owned(),
            }];
        }
        let mut lacks = Vec::new();
        let needs = &guest.needs;
        let missing = |have: &[String], wanted: &[String]| -> Vec<String> {
            let list = wanted.iter().filter(|name| !have.contains(name));
            list.cloned().collect()
        };
        // A runner from before it could say so says nothing.
        if !interfaces.is_empty() {
            let missing = missing(interfaces, &needs.interfaces);
            if !missing.is_empty() {
                lacks.push(format!("it does not offer {}", missing.join(", ")));
            }
        }
        if !needs.unknown.is_empty() {
            lacks.push(format!("nothing offers {}", needs.unknown.join(", ")));
        }
        if let Ok(profile) = self.profile(profile)
            && !profile.proposals.is_empty()
        {
            let missing = missing(&profile.proposals, &needs.proposals);
            if !missing.is_empty() {
                lacks.push(format!(
                    "its profile {} has {} switched off",
                    profile.name,
                    missing.join(", ")
                ));
            }
        }
        lacks
    }

    /// Refuses what the engine cannot honour: a limit is never ignored.
    ///
    /// # Errors
    /// The first such setting.
    pub fn check(&self, settings: &Settings) -> Result<(), EngineError> {
        let asked = [
            (GuestOption::Fuel, "fuel", settings.fuel.is_some()),
            (GuestOption::Timeout, "timeout", settings.timeout.is_some()),
            (
                GuestOption::MaxStack,
                "max-stack",
                settings.max_stack.is_some(),
            ),
            (GuestOption::Memory, "memory", settings.memory.is_some()),
            (
                GuestOption::Listen,
                "listen",
                matches!(settings.listen, crate::annotations::Listen::At(_)),
            ),
            (
                GuestOption::NnModels,
                "nn-models",
                !settings.nn_models.is_empty(),
            ),
        ];
        for (option, key, is_asked) in asked {
            if is_asked && !self.description.options.contains(&option) {
                return Err(EngineError::Option {
                    engine: self.description.engine.clone(),
                    option: key,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_asked_engine_is_taken_or_refused_with_what_there_is() {
        let have = names(&["wasmer", "wasmtime"]);
        assert_eq!(named("wasmer", &have).expect("there"), "wasmer");
        let error = named("wasmedge", &have).expect_err("not there").to_string();
        assert_eq!(
            error,
            "engine \"wasmedge\" is not installed on this node; installed: wasmer, wasmtime"
        );
    }

    #[test]
    fn auto_asks_in_a_fixed_order() {
        let folder = Path::new("/opt");
        let needs = |interfaces: &[&str]| Needs {
            interfaces: names(interfaces),
            ..Needs::default()
        };
        let have = names(&["a-toy", "wasmedge", "wasmer", "wasmtime"]);
        let asked = |needs: Option<&Needs>| order(&have, needs, folder).expect("some").join(" ");
        assert_eq!(asked(None), "wasmtime wasmedge wasmer a-toy");
        let nn = needs(&["wasi-nn", "wasi-preview1"]);
        assert_eq!(asked(Some(&nn)), "wasmedge wasmtime wasmer a-toy");
        assert!(order(&[], None, folder).is_err());
    }

    fn engine(runs: &[GuestKind], interfaces: &[&str], options: &[GuestOption]) -> Engine {
        Engine {
            runner: PathBuf::from("/r"),
            compiler: PathBuf::from("/c"),
            description: Description {
                protocol: PROTOCOL,
                engine: "toy".to_owned(),
                version: "1".to_owned(),
                build_id: "b".to_owned(),
                runs: runs.to_vec(),
                interfaces: names(interfaces),
                options: options.to_vec(),
                profiles: vec![ProfileKey {
                    name: "default".to_owned(),
                    compatibility: "c".to_owned(),
                    proposals: names(&["simd"]),
                }],
                memory_reserve: 0,
                memory_reserve_per_gib: 0,
            },
        }
    }

    fn guest(kind: GuestKind, interfaces: &[&str], proposals: &[&str]) -> Compiled {
        Compiled {
            kind,
            exports: Vec::new(),
            wants_listener: false,
            needs: Needs {
                interfaces: names(interfaces),
                unknown: Vec::new(),
                proposals: names(proposals),
            },
            min_memory: 0,
            peak_memory: 0,
            millis: 0,
        }
    }

    #[test]
    fn every_reason_against_an_engine_is_told() {
        let toy = engine(&[GuestKind::Module], &["wasi-preview1"], &[]);
        let plain = guest(GuestKind::Module, &["wasi-preview1"], &["simd"]);
        assert!(toy.objections(&plain, &Settings::default()).is_empty());
        let component = guest(GuestKind::Component, &[], &["component-model"]);
        assert_eq!(toy.lacks(&component, None), ["it runs no components"]);

        let mut other = guest(GuestKind::Module, &["wasix"], &["simd", "gc"]);
        other.needs.unknown = names(&["env.f"]);
        let settings = Settings {
            fuel: Some(1),
            ..Settings::default()
        };
        assert_eq!(
            toy.objections(&other, &settings),
            [
                "it does not offer wasix",
                "nothing offers env.f",
                "its profile default has gc switched off",
                "engine toy cannot honour the annotation wasmlet.dev/fuel: remove it or choose another \
                 engine",
            ]
        );
        let settings = Settings {
            profile: Some("hardened".to_owned()),
            ..Settings::default()
        };
        assert_eq!(
            toy.objections(&plain, &settings),
            ["engine toy has no profile \"hardened\"; it has: default"]
        );
    }

    #[test]
    fn a_refusal_names_who_can() {
        let error = EngineError::Cannot {
            engine: "wasmer".to_owned(),
            guest: "/a.wasm".to_owned(),
            why: names(&["it runs no components"]),
            can: names(&["wasmtime"]),
        };
        assert_eq!(
            error.to_string(),
            "engine wasmer cannot run /a.wasm: it runs no components; set wasmlet.dev/engine to \
             wasmtime, or leave it out"
        );
    }

    #[test]
    fn only_runners_are_engines() {
        let dir = tempfile::tempdir().expect("a folder");
        for name in [
            "wasmlet-run-toy",
            "wasmlet-run-UP",
            "wasmlet-aot-toy",
            "containerd-shim-wasm-v1",
        ] {
            fs::write(dir.path().join(name), "").expect("written");
        }
        assert_eq!(installed(dir.path()).expect("readable"), ["toy"]);
    }
}
