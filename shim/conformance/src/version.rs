//! Which containerd releases are on this machine.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use wasmlet_test_guests::cache_dir;

/// A containerd release and where its programs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// `1.6.20`, as in its folder's name and in the tests' names.
    pub name: String,
    /// Folder with `containerd`, `ctr` and `containerd-shim-runc-v2`.
    pub bin: PathBuf,
}

/// Why a release cannot be tested here.
#[derive(Debug)]
pub enum VersionError {
    /// Its programs are neither installed nor in the cache folder.
    Missing {
        /// The release asked for.
        name: String,
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
}

impl std::fmt::Display for VersionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self::Missing { name, looked } = self;
        let looked: Vec<_> = looked.iter().map(|dir| dir.display().to_string()).collect();
        write!(
            f,
            "containerd {name} is not in {}: run hack/setup",
            looked.join(" nor in ")
        )
    }
}

impl std::error::Error for VersionError {}

impl Version {
    /// The releases to test: `WASMLET_CONTAINERD_VERSIONS`, or the oldest and the newest supported.
    pub fn wanted() -> Vec<String> {
        let list = env::var("WASMLET_CONTAINERD_VERSIONS").unwrap_or_default();
        let list = if list.trim().is_empty() {
            "1.6.20,2.3.7"
        } else {
            &list
        };
        list.split(',')
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
            .collect()
    }

    /// Finds release `name`: in the cache folder, or as the system's own containerd.
    pub fn find(name: &str) -> Result<Self, VersionError> {
        let cached = cache_dir().join("containerd").join(name).join("bin");
        let looked = vec![cached, PathBuf::from("/usr/bin")];
        match looked.iter().find(|bin| reports(bin, name)) {
            Some(bin) => Ok(Self {
                name: name.to_owned(),
                bin: bin.clone(),
            }),
            None => Err(VersionError::Missing {
                name: name.to_owned(),
                looked,
            }),
        }
    }

    /// Schema of the configuration file: 3 since containerd 2.0.
    pub fn config_schema(&self) -> u32 {
        if self.name.starts_with("1.") { 2 } else { 3 }
    }
}

/// Whether `bin/containerd` is release `name`.
fn reports(bin: &Path, name: &str) -> bool {
    let Ok(output) = Command::new(bin.join("containerd"))
        .arg("--version")
        .output()
    else {
        return false;
    };
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    // "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3"
    words.split_whitespace().nth(2).is_some_and(|word| {
        let word = word.trim_start_matches('v');
        word.split(['~', '+', '-']).next() == Some(name)
    })
}
