//! Gives every build of this engine's programs a name: the hash of all that is compiled into them.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

/// Folders and files that end up in the programs, from the root of the repository.
const INPUTS: [&str; 8] = [
    "Cargo.lock",
    "rust-toolchain.toml",
    "shim/protocol",
    "shim/runner-core",
    "shim/compiler-core",
    "shim/inspect",
    "shim/engines/wasmer/Cargo.toml",
    "shim/engines/wasmer/src",
];

fn main() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    // `DefaultHasher::new` has fixed keys; a build name needs no cryptography.
    let mut hasher = DefaultHasher::new();
    for input in INPUTS {
        let path = root.join(input);
        println!("cargo::rerun-if-changed={}", path.display());
        let mut files = Vec::new();
        collect(&path, &mut files)?;
        files.sort();
        for file in files {
            file.strip_prefix(&root).unwrap_or(&file).hash(&mut hasher);
            fs::read(&file)?.hash(&mut hasher);
        }
    }
    for name in ["PROFILE", "OPT_LEVEL", "TARGET"] {
        std::env::var(name).unwrap_or_default().hash(&mut hasher);
    }
    println!("cargo::rustc-env=WASMLET_BUILD_ID={:016x}", hasher.finish());
    Ok(())
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            collect(&entry?.path(), files)?;
        }
    } else if path.exists() {
        files.push(path.to_owned());
    }
    Ok(())
}
