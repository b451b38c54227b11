//! Gives every build of this engine's programs a name, in which the library they run with counts, and tells
//! the linker where that library is.

use std::env;
use std::fs;
use std::io;
use std::path::PathBuf;

use wasmlet_build_id::BuildId;

/// What the runner answers in other libraries' place (`src/run/interpose.rs`).
const INTERPOSED: [&str; 10] = [
    "stat",
    "open",
    "dlopen",
    "mmap",
    "_Znwm",
    "_ZdlPvm",
    "sigaction",
    "accept",
    "close",
    "epoll_wait",
];

/// The two programs that are linked to the library.
const LINKED: [&str; 2] = ["wasmlet-wasmedge-runner", "wasmlet-wasmedge-compiler"];

fn main() -> io::Result<()> {
    let mut id = BuildId::of(env!("CARGO_MANIFEST_DIR"), "../../..")?;
    link(&mut id)?;
    id.set();
    Ok(())
}

fn link(id: &mut BuildId) -> io::Result<()> {
    let Some(folder) = library_folder() else {
        println!(
            "cargo::warning=libwasmedge was not found: {} cannot be linked; run hack/setup wasmedge, or \
             point WASMEDGE_DIR at an installation of WasmEdge 0.17.1",
            LINKED.join(" and ")
        );
        return Ok(());
    };
    let library = folder.join("libwasmedge.so");
    id.add(&library)?;
    println!("cargo::rustc-link-search=native={}", folder.display());
    // Beside the library itself, to which the linker's name for it may be a link of another folder.
    let folder = match fs::canonicalize(&library)?.parent() {
        Some(parent) => parent.to_owned(),
        None => folder,
    };
    // The libraries that it is linked to itself want a newer C library than the linker may know.
    println!("cargo::rustc-link-arg=-Wl,--allow-shlib-undefined");
    // Found by the library's own, which come with a version that these do not have.
    for name in INTERPOSED {
        println!(
            "cargo::rustc-link-arg-bin=wasmlet-wasmedge-runner=-Wl,--export-dynamic-symbol={name}"
        );
    }
    // Only for developing: the programs of a node are started by their launchers, and name no folder of
    // the machine they were built on.
    let loader = fs::read_dir(&folder)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("ld-linux-"))
        });
    if let Some(loader) = loader
        && env::var("PROFILE").is_ok_and(|profile| profile == "debug")
    {
        println!(
            "cargo::rustc-env=WASMLET_WASMEDGE_LIBRARIES={}",
            folder.display()
        );
        println!(
            "cargo::rustc-link-arg=-Wl,--dynamic-linker={}",
            loader.display()
        );
        println!(
            "cargo::rustc-link-arg=-Wl,--disable-new-dtags,-rpath,{}",
            folder.display()
        );
    }
    Ok(())
}

/// The folder with `libwasmedge.so`: the one that is named, or the one that `hack/setup` makes.
fn library_folder() -> Option<PathBuf> {
    for name in [
        "WASMEDGE_LIB_DIR",
        "WASMEDGE_DIR",
        "WASMLET_CACHE_DIR",
        "XDG_CACHE_HOME",
    ] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let folder = |name: &str, below: &str| {
        let path = env::var_os(name).filter(|value| !value.is_empty())?;
        Some(PathBuf::from(path).join(below))
    };
    [
        folder("WASMEDGE_LIB_DIR", ""),
        folder("WASMEDGE_DIR", "lib"),
        folder("WASMEDGE_DIR", "lib64"),
        folder("WASMLET_CACHE_DIR", "wasmedge/lib"),
        folder("XDG_CACHE_HOME", "wasmlet/wasmedge/lib"),
        folder("HOME", ".cache/wasmlet/wasmedge/lib"),
    ]
    .into_iter()
    .flatten()
    .find(|folder| folder.join("libwasmedge.so").exists())
}
