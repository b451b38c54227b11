//! `inspect`: what a module needs, which of this node's engines can run it, and why not the others.
//!
//! The same reading, with the bounds of a compile helper and its answer as JSON, is what the shim has done
//! by a child before `auto` chooses: the bytes are a stranger's.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;
use wasmlet_cache::Digest;
use wasmlet_compiler_core::{CompileError, Compiler, MODULE_LIMIT_BYTES, Source, Variant};
use wasmlet_inspect::{Facts, InvalidModule, SourceError};
use wasmlet_protocol::{Compiled, GuestKind};

use crate::annotations::{DEFAULT_PORT, Settings};
use crate::engine::{self, EngineError};

/// First word of the command line.
pub const WORD: &str = "inspect";

/// First word of the command line when the shim asks: a request in JSON follows, as for a compile helper.
pub const FOR_SHIM: &str = "inspect-for-shim";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// Not one module.
    #[error(
        "usage: containerd-shim-wasm-v1 {WORD} [--json] MODULE (a .wasm or .wat file, or - for standard input)"
    )]
    Usage,
    /// The file.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// More than any module that compiles.
    #[error("{} is larger than {} MiB", .0.display(), MODULE_LIMIT_BYTES >> 20)]
    TooLarge(PathBuf),
    /// It is no WebAssembly.
    #[error("{}", path.display())]
    Source {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        #[source]
        source: SourceError,
    },
    /// It is not valid.
    #[error("{}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: InvalidModule,
    },
    /// The engines.
    #[error(transparent)]
    Engines(#[from] EngineError),
    /// The answer cannot be written.
    #[error("cannot write the answer")]
    Write(#[source] io::Error),
    /// Nothing here can run it.
    #[error("no engine on this node can run {}", .0.display())]
    NoEngine(PathBuf),
    /// The request of the shim.
    #[error("no report could be written")]
    NoReport,
}

/// The whole answer.
#[derive(Debug, Serialize)]
struct Answer {
    digest: String,
    bytes: u64,
    guest: Compiled,
    engines: Vec<Verdict>,
    /// What `auto` picks for a pod without other settings.
    auto: Option<String>,
}

/// One engine.
#[derive(Debug, Serialize)]
struct Verdict {
    engine: String,
    version: Option<String>,
    /// Its profiles, each with what the guest needs and it lacks.
    profiles: BTreeMap<String, Vec<String>>,
    /// Why nothing can be said of it.
    broken: Option<String>,
}

impl Verdict {
    fn can(&self) -> bool {
        self.profiles.values().any(Vec::is_empty)
    }
}

pub(super) fn run(arguments: &[OsString]) -> Result<(), InspectError> {
    let (json, path) = match arguments {
        [path] if path != "--json" && path != "--help" => (false, path),
        [word, path] if word == "--json" => (true, path),
        _ => return Err(InspectError::Usage),
    };
    let path = Path::new(path);
    let answer = inspect(path)?;
    let text = if json {
        serde_json::to_string_pretty(&answer).map_err(|error| InspectError::Write(error.into()))?
            + "\n"
    } else {
        describe(path, &answer)
    };
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(InspectError::Write)?;
    if answer.engines.iter().any(Verdict::can) {
        Ok(())
    } else {
        Err(InspectError::NoEngine(path.to_owned()))
    }
}

fn inspect(path: &Path) -> Result<Answer, InspectError> {
    let named = |source| InspectError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let limit = MODULE_LIMIT_BYTES + 1;
    if path == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    }
    .map_err(named)?;
    if bytes.len() as u64 > MODULE_LIMIT_BYTES {
        return Err(InspectError::TooLarge(path.to_owned()));
    }
    let digest = Digest::of(&bytes).to_string();
    let length = bytes.len() as u64;
    let (wasm, kind) = wasmlet_inspect::wasm(bytes).map_err(|source| InspectError::Source {
        path: path.to_owned(),
        source,
    })?;
    let facts = wasmlet_inspect::facts(&wasm, kind).map_err(|source| InspectError::Invalid {
        path: path.to_owned(),
        source,
    })?;
    let guest = guest(facts);
    let folder = engine::folder()?;
    let installed = engine::installed(&folder)?;
    // What a module needs can be told without an engine, too.
    let order = if installed.is_empty() {
        Vec::new()
    } else {
        engine::order(&installed, Some(&guest.needs), &folder)?
    };
    let mut engines = Vec::new();
    let mut auto = None;
    for name in order {
        let verdict = match engine::load_blocking(&folder, &name) {
            Ok(engine) => {
                if auto.is_none() && engine.objections(&guest, &Settings::default()).is_empty() {
                    auto = Some(name.clone());
                }
                let profiles = engine.description.profiles.iter();
                Verdict {
                    version: Some(engine.description.version.clone()),
                    profiles: profiles
                        .map(|p| (p.name.clone(), engine.lacks(&guest, Some(&p.name))))
                        .collect(),
                    engine: name,
                    broken: None,
                }
            }
            Err(error) => Verdict {
                engine: name,
                version: None,
                profiles: BTreeMap::new(),
                broken: Some(crate::chain(&error)),
            },
        };
        engines.push(verdict);
    }
    Ok(Answer {
        digest,
        bytes: length,
        guest,
        engines,
        auto,
    })
}

fn guest(facts: Facts) -> Compiled {
    Compiled {
        kind: facts.kind,
        exports: facts.exports,
        wants_listener: facts.wants_listener,
        needs: facts.needs,
        min_memory: facts.min_memory,
        peak_memory: 0,
        millis: 0,
    }
}

fn describe(path: &Path, answer: &Answer) -> String {
    let Answer {
        digest,
        bytes,
        guest,
        engines,
        auto,
    } = answer;
    let list = |names: &[String]| {
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    };
    let kind = match guest.kind {
        GuestKind::Module => "module",
        GuestKind::Component => "component",
    };
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{key:<12}{value}");
    };
    line("file", &format!("{}, {bytes} bytes", path.display()));
    line("digest", &format!("sha256:{digest}"));
    line("kind", kind);
    line("interfaces", &list(&guest.needs.interfaces));
    if !guest.needs.unknown.is_empty() {
        line("unknown", &list(&guest.needs.unknown));
    }
    line("proposals", &list(&guest.needs.proposals));
    line("exports", &list(&guest.exports));
    line(
        "memory",
        &format!("{} bytes at its start", guest.min_memory),
    );
    if guest.wants_listener {
        line(
            "listens",
            &format!("on port {DEFAULT_PORT} unless wasmlet.dev/listen says otherwise"),
        );
    }
    for engine in engines {
        line("engine", &verdict(engine));
    }
    line("auto", auto.as_deref().unwrap_or("no engine can run it"));
    text
}

fn verdict(verdict: &Verdict) -> String {
    let Verdict {
        engine,
        version,
        profiles,
        broken,
    } = verdict;
    if let Some(broken) = broken {
        return format!("{engine}: {broken}");
    }
    let name = format!("{engine} {}", version.as_deref().unwrap_or_default());
    let can: Vec<&str> = profiles
        .iter()
        .filter(|(_, lacks)| lacks.is_empty())
        .map(|(name, _)| name.as_str())
        .collect();
    let cannot: Vec<String> = profiles
        .iter()
        .filter(|(_, lacks)| !lacks.is_empty())
        .map(|(name, lacks)| format!("{name} ({})", lacks.join("; ")))
        .collect();
    match (can.is_empty(), cannot.is_empty()) {
        (false, true) => format!("{name}: yes, in the profiles {}", can.join(", ")),
        (false, false) => format!(
            "{name}: yes, in the profiles {}; not in {}",
            can.join(", "),
            cannot.join(", ")
        ),
        (true, _) => format!("{name}: no: {}", cannot.join(", ")),
    }
}

pub(super) fn for_shim(arguments: &[OsString]) -> Result<(), InspectError> {
    let [request] = arguments else {
        return Err(InspectError::Usage);
    };
    let request = request.to_str().ok_or(InspectError::Usage)?;
    if wasmlet_compiler_core::answer(&Inspector, request) == ExitCode::SUCCESS {
        Ok(())
    } else {
        Err(InspectError::NoReport)
    }
}

/// A "compiler" whose report is all that is wanted: its artifact is a line of text.
struct Inspector;

impl Compiler for Inspector {
    fn engine(&self) -> &'static str {
        "inspect"
    }

    fn compile(
        &self,
        source: &Source<'_>,
        _: &Variant,
        mut output: &File,
    ) -> Result<(), CompileError> {
        writeln!(output, "facts about {} bytes", source.wasm.len()).map_err(CompileError::Write)
    }
}
