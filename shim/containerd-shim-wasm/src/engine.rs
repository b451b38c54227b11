//! Engines on this node: runners found by name, each describing itself.
//!
//! A runner is a program `wasmlet-run-<engine>` in the folder of the shim's own program; dropping one
//! in is all it takes to add an engine. What it says of itself is kept in `/run/wasmlet` for as long as
//! the program file stays the same, so a start does not pay for asking.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use wasmlet_protocol::{
    COMPILER_PREFIX, Description, GuestOption, PROTOCOL, ProfileKey, RUNNER_PREFIX,
};

use crate::annotations::{Settings, is_engine_name};
use crate::paths::RUN_DIR;
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

/// Picks the engine by name: the pod's, else the handler's, else the preferred one.
///
/// # Errors
/// [`EngineError::NotInstalled`] and [`EngineError::None`], with what there is.
pub fn choose<'a>(
    asked: Option<&'a str>,
    installed: &'a [String],
    folder: &Path,
) -> Result<&'a str, EngineError> {
    let name = match asked {
        Some(name) => name,
        None if installed.iter().any(|name| name == PREFERRED) => PREFERRED,
        None => installed
            .first()
            .map(String::as_str)
            .ok_or_else(|| EngineError::None {
                folder: folder.to_owned(),
            })?,
    };
    if installed.iter().any(|have| have == name) {
        return Ok(name);
    }
    Err(EngineError::NotInstalled {
        name: name.to_owned(),
        installed: installed.join(", "),
    })
}

/// Loads an engine of the folder.
///
/// # Errors
/// When its runner does not describe itself, or speaks another protocol.
pub async fn load(folder: &Path, name: &str, reaper: &Reaper) -> Result<Engine, EngineError> {
    let runner = folder.join(format!("{RUNNER_PREFIX}{name}"));
    let description = describe(&runner, reaper).await?;
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
        let name = asked.unwrap_or("default");
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

/// What tells one program file from another.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    path: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

#[derive(Serialize, Deserialize)]
struct Memo {
    identity: Identity,
    description: Description,
}

async fn describe(runner: &Path, reaper: &Reaper) -> Result<Description, EngineError> {
    let failed = |what: String| EngineError::Describe {
        runner: runner.to_owned(),
        what,
    };
    let meta = fs::metadata(runner).map_err(|error| failed(error.to_string()))?;
    let identity = Identity {
        path: runner.to_owned(),
        device: meta.dev(),
        inode: meta.ino(),
        size: meta.size(),
        changed: (meta.ctime(), meta.ctime_nsec()),
    };
    let name = runner.file_name().unwrap_or_default().to_string_lossy();
    let memo = Path::new(RUN_DIR).join(format!("{name}.{:x}.json", identity.inode));
    if let Some(known) = remembered(&memo, &identity) {
        return Ok(known);
    }
    let mut command = Command::new(runner);
    command
        .arg("--describe")
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    let output = crate::backend::program::output(&mut command, reaper)
        .await
        .map_err(|error| failed(error.to_string()))?;
    if output.status != 0 {
        return Err(failed(format!(
            "exit status {}: {}",
            output.status,
            output.stderr_line()
        )));
    }
    let description: Description =
        serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))?;
    remember(
        &memo,
        Memo {
            identity,
            description: description.clone(),
        },
    );
    Ok(description)
}

fn remembered(memo: &Path, identity: &Identity) -> Option<Description> {
    // Only root can write below /run/wasmlet. Anything unreadable is as good as nothing.
    let memo: Memo = serde_json::from_slice(&fs::read(memo).ok()?).ok()?;
    (memo.identity == *identity).then_some(memo.description)
}

fn remember(path: &Path, memo: Memo) {
    let temporary = path.with_extension(format!("new{}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        io::Write::write_all(&mut file, &serde_json::to_vec(&memo)?)?;
        fs::rename(&temporary, path)
    };
    if let Err(error) = write() {
        tracing::warn!(path = %path.display(), %error, "cannot remember what a runner says of itself");
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
        let folder = Path::new("/opt");
        assert_eq!(
            choose(Some("wasmer"), &have, folder).expect("there"),
            "wasmer"
        );
        assert_eq!(choose(None, &have, folder).expect("there"), "wasmtime");
        assert_eq!(
            choose(None, &names(&["toy"]), folder).expect("there"),
            "toy"
        );
        let error = choose(Some("wasmedge"), &have, folder)
            .expect_err("not there")
            .to_string();
        assert_eq!(
            error,
            "engine \"wasmedge\" is not installed on this node; installed: wasmer, wasmtime"
        );
        assert!(choose(None, &[], folder).is_err());
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
