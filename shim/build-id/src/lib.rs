//! For an engine's build script: a name for every build of its programs, the hash of all that is
//! compiled into them.
//!
//! The name is part of the cache's key (`docs/architecture.md`), so that no runner meets code that another
//! build compiled. Code that forgets an input here is reused when it must not be, so the inputs are whole
//! folders.

#![forbid(unsafe_code)]

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

/// What every engine is built from, from the root of the repository.
const SHARED: [&str; 6] = [
    "Cargo.lock",
    "rust-toolchain.toml",
    "shim/protocol",
    "shim/runner-core",
    "shim/compiler-core",
    "shim/inspect",
];

/// The hash so far.
#[derive(Debug)]
pub struct BuildId {
    root: PathBuf,
    hasher: DefaultHasher,
}

impl BuildId {
    /// What every engine shares, and the engine's own crate, whose `CARGO_MANIFEST_DIR` is given together
    /// with the root of the repository as seen from there. Has cargo run the build script again when one of
    /// the files changes.
    ///
    /// # Errors
    ///
    /// When one of the files cannot be read; the text names it.
    pub fn of(manifest_dir: &str, to_root: &str) -> io::Result<Self> {
        let crate_folder = Path::new(manifest_dir);
        let mut id = Self {
            root: crate_folder.join(to_root).canonicalize()?,
            // `DefaultHasher::new` has fixed keys; a build's name needs no cryptography.
            hasher: DefaultHasher::new(),
        };
        for shared in SHARED {
            id.add(&id.root.join(shared))?;
        }
        id.add(&crate_folder.join("Cargo.toml"))?;
        id.add(&crate_folder.join("src"))?;
        for name in ["PROFILE", "OPT_LEVEL", "TARGET"] {
            env::var(name).unwrap_or_default().hash(&mut id.hasher);
        }
        Ok(id)
    }

    /// A file, or all files of a folder.
    ///
    /// # Errors
    ///
    /// When one of them cannot be read; the text names it.
    pub fn add(&mut self, path: &Path) -> io::Result<()> {
        println!("cargo::rerun-if-changed={}", path.display());
        let mut files = Vec::new();
        collect(path, &mut files)?;
        // A folder is listed in any order.
        files.sort();
        for file in files {
            file.strip_prefix(&self.root)
                .unwrap_or(&file)
                .hash(&mut self.hasher);
            let content = fs::read(&file).map_err(|error| named(&file, &error))?;
            content.hash(&mut self.hasher);
        }
        Ok(())
    }

    /// A folder of the repository, from its root.
    ///
    /// # Errors
    ///
    /// As [`Self::add`].
    pub fn add_folder(&mut self, folder: &str) -> io::Result<()> {
        self.add(&self.root.join(folder))
    }

    /// Gives the crate the name as `WASMLET_BUILD_ID`.
    pub fn set(self) {
        println!(
            "cargo::rustc-env=WASMLET_BUILD_ID={:016x}",
            self.hasher.finish()
        );
    }
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(|error| named(path, &error))? {
        collect(&entry?.path(), files)?;
    }
    Ok(())
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
