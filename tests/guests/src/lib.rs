//! The programs that run inside the containers under test, and their compilation.
//!
//! `programs/NAME.c` is compiled for Linux (static) and for WASI, so that one behaviour is one source
//! on every runtime; `programs/NAME.wat` is wasm only. Results are cached by content below `target/`.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex, PoisonError};

use sha2::{Digest, Sha256};

/// zig's own default is 16 MiB, which a small container cannot give.
const STACK: &str = "-Wl,-z,stack-size=65536";

/// What a guest is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A static Linux program.
    Linux,
    /// A core module for WASI preview 1.
    Wasm,
    /// A component for WASI preview 2, made from the module.
    Component,
}

/// Why a guest cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// No compiler for the target.
    #[error(
        "no C compiler for wasm32-wasi: neither zig (PATH or the cache folder) nor clang with \
         wasi-libc was found; run hack/setup"
    )]
    NoWasiCompiler,
    /// There is no such source.
    #[error("tests/guests/programs/ has neither {name}.c nor {name}.wat")]
    NoSource {
        /// The guest's name.
        name: String,
    },
    /// The compiler refused.
    #[error("{command} failed:\n{output}")]
    Compile {
        /// What was called.
        command: String,
        /// What it said.
        output: String,
    },
    /// WebAssembly text that is not.
    #[error("tests/guests/programs/{name}.wat is wrong")]
    Wat {
        /// The guest's name.
        name: String,
        /// What the parser says.
        #[source]
        source: Box<wat::Error>,
    },
    /// The module does not make a component.
    #[error("{name} cannot be made a component: {reason}")]
    Component {
        /// The guest's name.
        name: String,
        /// What the encoder says.
        reason: String,
    },
    /// A file cannot be read or written.
    #[error("{}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
}

/// The folder of guests and what was compiled of it.
pub struct Guests {
    sources: PathBuf,
    cache: PathBuf,
    built: Mutex<BTreeMap<(String, Target), PathBuf>>,
}

impl Guests {
    /// The one of this process.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<Guests> = LazyLock::new(|| {
            let root = Path::new(env!("CARGO_MANIFEST_DIR"));
            Guests {
                sources: root.join("programs"),
                cache: root.join("../../target/test-guests"),
                built: Mutex::default(),
            }
        });
        &SHARED
    }

    /// Names of all guests.
    pub fn names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.sources) else {
            return Vec::new();
        };
        let mut names: Vec<_> = entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let kind = path.extension()?.to_str()?;
                let name = path.file_stem()?.to_str()?.to_owned();
                matches!(kind, "c" | "wat").then_some(name)
            })
            .collect();
        names.sort();
        names
    }

    /// Bytes of guest `name`.
    pub fn bytes(&self, name: &str, target: Target) -> Result<Vec<u8>, GuestError> {
        read(&self.path(name, target)?)
    }

    /// The program file of guest `name`, compiled when it was not before.
    pub fn path(&self, name: &str, target: Target) -> Result<PathBuf, GuestError> {
        // Held while compiling: two tests that want one guest must not write one file.
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (name.to_owned(), target);
        if let Some(path) = built.get(&key) {
            return Ok(path.clone());
        }
        let path = self.build(name, target)?;
        built.insert(key, path.clone());
        Ok(path)
    }

    fn build(&self, name: &str, target: Target) -> Result<PathBuf, GuestError> {
        let c = self.sources.join(format!("{name}.c"));
        let text = self.sources.join(format!("{name}.wat"));
        let (source, compiler) = if c.exists() {
            (c, Compiler::find(target)?)
        } else if text.exists() {
            (text, Compiler::Wat)
        } else {
            return Err(GuestError::NoSource {
                name: name.to_owned(),
            });
        };
        let mut hash = Sha256::new();
        hash.update(read(&source)?);
        for beside in ["guest.h".to_owned(), format!("{name}.wit")] {
            let beside = self.sources.join(beside);
            if beside.exists() {
                hash.update(read(&beside)?);
            }
        }
        hash.update(format!("{target:?} {compiler:?} {STACK}"));
        let mut key = String::new();
        for byte in hash.finalize().iter().take(8) {
            // Writing to a string cannot fail.
            let _ = write!(key, "{byte:02x}");
        }
        let path = self.cache.join(format!("{name}-{key}"));
        if path.exists() {
            return Ok(path);
        }
        fs::create_dir_all(&self.cache).map_err(|source| GuestError::File {
            path: self.cache.clone(),
            source,
        })?;
        // Renamed when complete: another test process may look at the same time.
        let half = self
            .cache
            .join(format!(".{name}-{key}-{}", std::process::id()));
        compiler.compile(name, &source, &half)?;
        if target == Target::Component {
            let component = self.componentize(name, read(&half)?)?;
            write(&half, &component)?;
        }
        fs::rename(&half, &path).map_err(|source| GuestError::File {
            path: path.clone(),
            source,
        })?;
        Ok(path)
    }

    /// Puts the preview 1 adapter around a command module, and around what `programs/NAME.wit` adds to
    /// its imports.
    fn componentize(&self, name: &str, mut module: Vec<u8>) -> Result<Vec<u8>, GuestError> {
        use wasi_preview1_component_adapter_provider as adapter;
        use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
        let failed = |reason: String| GuestError::Component {
            name: name.to_owned(),
            reason,
        };
        let wit = self.sources.join(format!("{name}.wit"));
        if wit.exists() {
            let mut resolve = wit_parser::Resolve::default();
            let (package, _) = resolve
                .push_path(&wit)
                .map_err(|error| failed(format!("{error:#}")))?;
            let world = resolve
                .select_world(&[package], Some("guest"))
                .map_err(|error| failed(format!("{error:#}")))?;
            embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
                .map_err(|error| failed(format!("{error:#}")))?;
        }
        let encode = || {
            ComponentEncoder::default()
                .validate(true)
                .module(&module)?
                .adapter(
                    adapter::WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME,
                    adapter::WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
                )?
                .encode()
        };
        encode().map_err(|error| failed(format!("{error:#}")))
    }
}

/// Folder of downloaded and built programs, outside the clone.
pub fn cache_dir() -> PathBuf {
    if let Some(dir) = env::var_os("WASMLET_CACHE_DIR") {
        return dir.into();
    }
    if let Some(dir) = env::var_os("XDG_CACHE_HOME") {
        return PathBuf::from(dir).join("wasmlet");
    }
    PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache/wasmlet")
}

/// How a source becomes a program.
#[derive(Debug)]
enum Compiler {
    Native,
    Zig(PathBuf),
    Clang,
    Wat,
}

impl Compiler {
    fn find(target: Target) -> Result<Self, GuestError> {
        if target == Target::Linux {
            return Ok(Self::Native);
        }
        let cached = cache_dir().join("zig/ziglang/zig");
        let candidates = [PathBuf::from("zig"), cached];
        for zig in candidates {
            if Command::new(&zig)
                .arg("version")
                .output()
                .is_ok_and(|out| out.status.success())
            {
                return Ok(Self::Zig(zig));
            }
        }
        if Path::new("/usr/lib/wasm32-wasi/crt1-command.o").exists() {
            return Ok(Self::Clang);
        }
        Err(GuestError::NoWasiCompiler)
    }

    fn compile(&self, name: &str, source: &Path, output: &Path) -> Result<(), GuestError> {
        let mut command = match self {
            Self::Wat => {
                let bytes = wat::parse_file(source).map_err(|source| GuestError::Wat {
                    name: name.to_owned(),
                    source: Box::new(source),
                })?;
                return write(output, &bytes);
            }
            Self::Native => {
                let mut command = Command::new("gcc");
                command.args(["-static", "-Os", "-s", "-pthread"]);
                command
            }
            Self::Zig(zig) => {
                let mut command = Command::new(zig);
                command.args(["cc", "-target", "wasm32-wasi", "-Os", "-s", STACK]);
                command.env("ZIG_GLOBAL_CACHE_DIR", cache_dir().join("zig/cache"));
                command.env("ZIG_LOCAL_CACHE_DIR", cache_dir().join("zig/cache"));
                command
            }
            Self::Clang => {
                let mut command = Command::new("clang");
                command.args(["--target=wasm32-wasi", "-Os", "-s", STACK]);
                command
            }
        };
        command
            .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(output)
            .arg(source);
        let done = command.output().map_err(|error| GuestError::File {
            path: command.get_program().into(),
            source: error,
        })?;
        if done.status.success() {
            return Ok(());
        }
        Err(GuestError::Compile {
            command: format!("{command:?}"),
            output: String::from_utf8_lossy(&done.stderr).into_owned(),
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, GuestError> {
    fs::read(path).map_err(|source| GuestError::File {
        path: path.to_owned(),
        source,
    })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), GuestError> {
    fs::write(path, bytes).map_err(|source| GuestError::File {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All Rust below a folder.
    fn sources(folder: &Path, text: &mut String) {
        for entry in fs::read_dir(folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .filter_map(Result::ok)
        {
            let path = entry.path();
            if path.is_dir() {
                sources(&path, text);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                text.push_str(&read(&path).map_or_else(
                    |error| panic!("{error}"),
                    |bytes| String::from_utf8_lossy(&bytes).into_owned(),
                ));
            }
        }
    }

    #[test]
    fn every_guest_has_a_test() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut text = String::new();
        for folder in [
            "shim/conformance/tests",
            "shim/conformance/src",
            "tests/e2e/tests",
            "tests/e2e/src",
        ] {
            sources(&root.join(folder), &mut text);
        }
        for name in Guests::shared().names() {
            assert!(
                text.contains(&format!("\"{name}\"")),
                "no test runs tests/guests/programs/{name}"
            );
        }
    }
}
