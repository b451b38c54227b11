//! A guest run by what an engine's makers run guests with: what our containers must do the same as.
//!
//! `hack/setup engine-tools` fetches both. Wasmtime's is its Python package, whose WASI is that of
//! `wasmtime run`; Wasmer's is in no package.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use wasmlet_test_guests::cache_dir;

/// Folder, name in the guest, whether it can be written to.
type Folder<'a> = (&'a Path, &'a str, bool);

/// How a guest ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    /// Exit code of the tool, which is the guest's.
    pub code: i32,
    /// What the guest wrote.
    pub stdout: String,
    /// What the guest or the tool wrote.
    pub stderr: String,
}

/// One engine's tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineTool {
    /// Wasmtime's Python package.
    Wasmtime,
    /// WasmEdge's command-line program.
    WasmEdge,
}

/// What `wasmtime run` does, with the functions of the Python package:
/// `HOST GUEST rw|ro MODULE ARGUMENT…`.
const WASMTIME: &str = r#"
import sys
from wasmtime import Engine, ExitTrap, Linker, Module, Store, WasiConfig
host, guest, access, module, *arguments = sys.argv[1:]
wasi = WasiConfig()
wasi.argv = [module, *arguments]
wasi.inherit_stdout()
wasi.inherit_stderr()
wasi.preopen_dir(host, guest, access == "rw")
engine = Engine()
store = Store(engine)
store.set_wasi(wasi)
linker = Linker(engine)
linker.define_wasi()
instance = linker.instantiate(store, Module.from_file(engine, module))
try:
    instance.exports(store)["_start"](store)
except ExitTrap as end:
    sys.exit(end.code)
"#;

impl EngineTool {
    /// That of the engine, where there is one.
    pub fn of(engine: &str) -> Option<Self> {
        match engine {
            "wasmtime" => Some(Self::Wasmtime),
            "wasmedge" => Some(Self::WasmEdge),
            _ => None,
        }
    }

    /// Runs a module with arguments and one folder.
    ///
    /// # Panics
    ///
    /// When the tool cannot be started.
    #[track_caller]
    pub fn run(self, module: &Path, arguments: &[&str], folder: Folder) -> Ran {
        let mut command = self.command(module, folder);
        let Output {
            status,
            stdout,
            stderr,
        } = command
            .args(arguments)
            .output()
            .unwrap_or_else(|error| panic!("{command:?}: {error}; run hack/setup engine-tools"));
        Ran {
            code: status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    fn command(self, module: &Path, (host, guest, writable): Folder) -> Command {
        let tools = cache_dir().join("engine-tools");
        match self {
            Self::Wasmtime => {
                let mut command = Command::new("python3");
                command
                    .env("PYTHONPATH", tools.join("wasmtime"))
                    .env("PYTHONDONTWRITEBYTECODE", "1")
                    .args(["-c", WASMTIME])
                    .arg(host)
                    .args([guest, if writable { "rw" } else { "ro" }])
                    .arg(module);
                command
            }
            Self::WasmEdge => {
                let libraries = cache_dir().join("wasmedge/lib");
                let mut path = libraries.clone().into_os_string();
                path.push(":");
                path.push(libraries.join("llvm"));
                let mut command = Command::new(loader(&libraries));
                let access = if writable { "" } else { ":readonly" };
                command
                    .arg("--inhibit-cache")
                    .arg("--library-path")
                    .arg(path)
                    .arg(tools.join("wasmedge"))
                    .arg("--dir")
                    .arg(format!("{guest}:{}{access}", host.display()))
                    .arg(module);
                command
            }
        }
    }
}

/// The loader that came with the libraries; a name that is not there is told when it is started.
fn loader(libraries: &Path) -> PathBuf {
    let entries = std::fs::read_dir(libraries).into_iter().flatten();
    let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let is_loader = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("ld-linux-"))
    };
    paths
        .find(is_loader)
        .unwrap_or_else(|| libraries.join("ld-linux.so"))
}
