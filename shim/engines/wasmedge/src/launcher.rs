//! Starts a program of this engine with the C library and the loader that it was linked for.
//!
//! libwasmedge wants a newer C library than the oldest nodes have. So it lies in a folder of its own with
//! everything that it is linked to, loader included, and nothing of the node's libraries is involved:
//!
//! ```text
//! <folder>/bin/wasmlet-run-wasmedge            this launcher, static
//! <folder>/lib/wasmedge/wasmlet-wasmedge-runner
//! <folder>/lib/wasmedge/ld-linux-*.so.*, libc.so.6, libwasmedge.so.0, …
//! <folder>/lib/wasmedge/llvm/                  libLLVM: for the compile helper alone
//! ```

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// So that a launcher is another file whenever what it starts is: the shim remembers what a runner says of
/// itself for as long as the runner's file stays the same.
#[used]
static BUILD_ID: &str = env!("WASMLET_BUILD_ID");

/// Where the libraries are while developing, with what cargo built beside the launcher: a build for nodes
/// knows no such folder.
const DEVELOPING: Option<&str> = option_env!("WASMLET_WASMEDGE_LIBRARIES");

/// Replaces this process by `program`, which finds its libraries in `folders` below `lib/wasmedge`.
///
/// Returns only when that cannot be done, with the exit code.
pub(crate) fn start(program: &str, folders: &[&str]) -> ExitCode {
    let error = match command(program, folders) {
        // Descriptors are inherited as they are: the runner gets its socket and its artifact as numbers.
        Ok(mut command) => command.exec(),
        Err(error) => error,
    };
    eprintln!(
        "{program} cannot be started: {error}; install wasmlet's lib/wasmedge beside its bin"
    );
    ExitCode::from(127)
}

fn command(program: &str, folders: &[&str]) -> io::Result<Command> {
    let own = fs::read_link("/proc/self/exe")?;
    let bin = own
        .parent()
        .ok_or_else(|| io::Error::other("the launcher has no folder"))?;
    let (program_path, home) = match DEVELOPING {
        Some(libraries) => (bin.join(program), PathBuf::from(libraries)),
        None => {
            let home = bin.join("../lib/wasmedge").canonicalize()?;
            (home.join(program), home)
        }
    };
    let mut libraries = OsString::new();
    for folder in folders {
        if !libraries.is_empty() {
            libraries.push(":");
        }
        libraries.push(home.join(folder));
    }
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| program.into());
    let mut command = Command::new(loader(&home)?);
    command
        // Nothing that changes what is loaded, whoever starts this.
        .env_clear()
        .arg("--inhibit-cache")
        .arg("--library-path")
        .arg(libraries)
        .arg("--argv0")
        .arg(name)
        .arg(program_path)
        .args(arguments);
    Ok(command)
}

/// The loader has a name of its own on every architecture, and there is one.
fn loader(home: &Path) -> io::Result<PathBuf> {
    let failed =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", home.display()));
    for entry in fs::read_dir(home).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if is_loader(&name) {
            return Ok(home.join(name));
        }
    }
    Err(failed(io::Error::new(
        io::ErrorKind::NotFound,
        "there is no ld-linux-*.so.* in it",
    )))
}

fn is_loader(name: &OsStr) -> bool {
    name.to_str()
        .is_some_and(|name| name.starts_with("ld-linux-") && name.contains(".so."))
}
