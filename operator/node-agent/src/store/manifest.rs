//! `bundle.json`: what is in a bundle.
//!
//! ```json
//! {
//!   "schema": 1,
//!   "version": "0.1.0",
//!   "platform": "linux/amd64",
//!   "entries": [
//!     {"type": "file", "path": "bin/containerd-shim-wasm-v1", "mode": "0755", "size": 11241056, "sha256": "…"},
//!     {"type": "link", "path": "lib/libz.so.1", "target": "libz.so.1.3"}
//!   ]
//! }
//! ```
//!
//! The entries are sorted by path and folders are not listed: they are what the paths imply, with mode 0755. Everything belongs to root.
//! The bundle's digest is the SHA-256 of these bytes, so it says everything about the bundle.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wasmlet_api::Digest;

/// The one version of the format.
pub const SCHEMA: u32 = 1;
/// Name of the file in a bundle's folder.
pub const FILE_NAME: &str = "bundle.json";
/// Bound on the file, in bytes: ten thousand entries are about 2 MB.
pub const MAX_BYTES: u64 = 4 << 20;
/// Bound on links that lead to links.
const MAX_LINKS: usize = 8;

/// What is in a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Version of wasmlet.
    pub version: String,
    /// `linux/` and the architecture, as in OCI.
    pub platform: String,
    /// Sorted by path.
    pub entries: Vec<Entry>,
}

/// A file or link of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum Entry {
    /// A regular file.
    File {
        /// Relative, with `/` between plain names.
        path: String,
        /// Permissions.
        mode: FileMode,
        /// Bytes.
        size: u64,
        /// SHA-256 of the content, 64 hexadecimal digits.
        sha256: String,
    },
    /// A symbolic link to another entry.
    Link {
        /// As of a file.
        path: String,
        /// Relative to the link's folder.
        target: String,
    },
}

/// The two kinds of permissions in a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileMode {
    /// rwxr-xr-x.
    #[serde(rename = "0755")]
    Program,
    /// rw-r--r--.
    #[serde(rename = "0644")]
    Data,
}

impl FileMode {
    /// For chmod(2).
    pub fn bits(self) -> u32 {
        match self {
            Self::Program => 0o755,
            Self::Data => 0o644,
        }
    }
}

/// Why bytes are no `bundle.json`.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON of this form.
    #[error("bundle.json is not of the form that this version reads")]
    Form(#[source] serde_json::Error),
    /// Another version.
    #[error(
        "bundle.json has schema {0}, and this version reads {SCHEMA}: use the node image of the bundle's own version"
    )]
    Schema(u32),
    /// Not a plain path.
    #[error(
        "bundle.json lists {0:?}, which is no relative path of plain names in bin, lib or probe"
    )]
    Path(String),
    /// Not sorted, or twice.
    #[error("bundle.json lists {0:?} out of order or twice")]
    Order(String),
    /// A folder of a path is listed as a file.
    #[error("bundle.json lists {0:?} below a file or link")]
    Nested(String),
    /// Not 64 digits.
    #[error("bundle.json has no SHA-256 of {0:?}: {1:?}")]
    Sha256(String, String),
    /// A link out of the bundle, to nothing, or to itself.
    #[error("bundle.json lists the link {path:?} to {target:?}, which is no file of the bundle")]
    Link {
        /// The link.
        path: String,
        /// What it says.
        target: String,
    },
    /// Something that every bundle has is missing.
    #[error("bundle.json does not list the program or module {0:?}, which every bundle has")]
    Required(String),
}

impl Entry {
    /// Relative to the bundle's folder.
    pub fn path(&self) -> &str {
        match self {
            Self::File { path, .. } | Self::Link { path, .. } => path,
        }
    }
}

/// What every bundle has: the shim, and the module of the probe.
pub fn required() -> [(String, FileMode); 2] {
    [
        (
            format!("bin/{}", wasmlet_api::names::SHIM),
            FileMode::Program,
        ),
        ("probe/probe.wasm".to_owned(), FileMode::Data),
    ]
}

impl Manifest {
    /// Reads and checks `bundle.json`: what it returns can be laid out in a folder without leaving it.
    ///
    /// # Errors
    /// [`ManifestError`]
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(ManifestError::Form)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The bytes of `bundle.json`.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .expect("a manifest has only strings, numbers and lists");
        bytes.push(b'\n');
        bytes
    }

    /// The bundle's digest.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    /// Bytes of all files together.
    pub fn total_bytes(&self) -> u64 {
        self.entries
            .iter()
            .map(|entry| match entry {
                Entry::File { size, .. } => *size,
                Entry::Link { .. } => 0,
            })
            .fold(0, u64::saturating_add)
    }

    /// Whether it can be laid out safely, and has what every bundle has.
    ///
    /// # Errors
    /// [`ManifestError`]
    pub fn check(&self) -> Result<(), ManifestError> {
        if self.schema != SCHEMA {
            return Err(ManifestError::Schema(self.schema));
        }
        let by_path: BTreeMap<&str, &Entry> = self
            .entries
            .iter()
            .map(|entry| (entry.path(), entry))
            .collect();
        for (index, entry) in self.entries.iter().enumerate() {
            let path = entry.path();
            if !is_plain(path) {
                return Err(ManifestError::Path(path.to_owned()));
            }
            if index > 0 && self.entries[index - 1].path() >= path {
                return Err(ManifestError::Order(path.to_owned()));
            }
            let mut parents = path;
            while let Some((parent, _)) = parents.rsplit_once('/') {
                if by_path.contains_key(parent) {
                    return Err(ManifestError::Nested(path.to_owned()));
                }
                parents = parent;
            }
            match entry {
                Entry::File { sha256, .. } => {
                    let digest: Result<Digest, _> = format!("sha256:{sha256}").parse();
                    if digest.is_err() {
                        return Err(ManifestError::Sha256(path.to_owned(), sha256.clone()));
                    }
                }
                Entry::Link { target, .. } => {
                    if !leads_to_file(&by_path, path, target, MAX_LINKS) {
                        return Err(ManifestError::Link {
                            path: path.to_owned(),
                            target: target.clone(),
                        });
                    }
                }
            }
        }
        for (path, mode) in required() {
            match by_path.get(path.as_str()) {
                Some(Entry::File { mode: found, .. }) if *found == mode => {}
                _ => return Err(ManifestError::Required(path)),
            }
        }
        Ok(())
    }
}

/// Below one of a bundle's folders, without dots, empty names or characters that a terminal or shell would take otherwise.
fn is_plain(path: &str) -> bool {
    let mut parts = path.split('/');
    let top = parts.next();
    path.len() <= 512
        && matches!(top, Some("bin" | "lib" | "probe"))
        && path.contains('/')
        && parts.all(|name| {
            !name.is_empty()
                && name.len() <= 255
                && name != "."
                && name != ".."
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte))
        })
}

fn leads_to_file(by_path: &BTreeMap<&str, &Entry>, link: &str, target: &str, links: usize) -> bool {
    let mut parts: Vec<&str> = link.split('/').collect();
    parts.pop();
    for name in target.split('/') {
        match name {
            "" | "." => return false,
            // Out of the bundle: there is nothing left to go up from.
            ".." => {
                if parts.pop().is_none() {
                    return false;
                }
            }
            name => parts.push(name),
        }
    }
    let path = parts.join("/");
    match by_path.get(path.as_str()) {
        Some(Entry::File { .. }) => true,
        Some(Entry::Link { target, .. }) if links > 0 => {
            leads_to_file(by_path, &path, target, links - 1)
        }
        Some(Entry::Link { .. }) | None => false,
    }
}

/// This machine's platform as OCI names it.
pub fn host_platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("linux/{architecture}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, mode: FileMode) -> Entry {
        Entry::File {
            path: path.to_owned(),
            mode,
            size: 1,
            sha256: Digest::of(b"x").hex().to_owned(),
        }
    }

    fn link(path: &str, target: &str) -> Entry {
        Entry::Link {
            path: path.to_owned(),
            target: target.to_owned(),
        }
    }

    fn manifest(more: Vec<Entry>) -> Manifest {
        let mut entries = more;
        entries.push(file("bin/containerd-shim-wasm-v1", FileMode::Program));
        entries.push(file("probe/probe.wasm", FileMode::Data));
        entries.sort_by(|a, b| a.path().cmp(b.path()));
        Manifest {
            schema: SCHEMA,
            version: "0.0.0".into(),
            platform: "linux/amd64".into(),
            entries,
        }
    }

    #[test]
    fn what_was_written_is_read_again() {
        let manifest = manifest(vec![
            file("lib/libz.so.1.3", FileMode::Data),
            link("lib/libz.so.1", "libz.so.1.3"),
            link("lib/libz.so", "libz.so.1"),
            link("lib/deep/z", "../libz.so"),
        ]);
        assert_eq!(Manifest::parse(&manifest.to_bytes()).unwrap(), manifest);
    }

    #[test]
    fn paths_that_leave_the_bundle_are_refused() {
        for bad in [
            "/bin/x",
            "bin/../x",
            "bin/./x",
            "bin//x",
            "bin/",
            "bin",
            "etc/x",
            "../x",
            "bin/a b",
            "bin/\u{1b}[2J",
            "bundle.json",
        ] {
            let found = manifest(vec![file(bad, FileMode::Data)]).check();
            assert!(
                matches!(found, Err(ManifestError::Path(_))),
                "{bad}: {found:?}"
            );
        }
    }

    #[test]
    fn links_that_leave_the_bundle_or_lead_nowhere_are_refused() {
        for bad in [
            "/etc/passwd",
            "../../etc/passwd",
            "../..",
            "nothing",
            "self",
            "",
            ".",
        ] {
            let found = manifest(vec![link("lib/self", bad)]).check();
            assert!(
                matches!(found, Err(ManifestError::Link { .. })),
                "{bad}: {found:?}"
            );
        }
    }

    #[test]
    fn nothing_lies_below_a_link() {
        let found = manifest(vec![
            link("lib/a", "../bin/containerd-shim-wasm-v1"),
            file("lib/a/b", FileMode::Data),
        ])
        .check();
        assert!(matches!(found, Err(ManifestError::Nested(_))), "{found:?}");
    }

    #[test]
    fn order_and_completeness_are_part_of_the_form() {
        let mut unsorted = manifest(vec![]);
        unsorted.entries.reverse();
        assert!(matches!(unsorted.check(), Err(ManifestError::Order(_))));
        let mut twice = manifest(vec![]);
        twice.entries.insert(0, twice.entries[0].clone());
        assert!(matches!(twice.check(), Err(ManifestError::Order(_))));
        let mut without_shim = manifest(vec![]);
        without_shim.entries.remove(0);
        assert!(matches!(
            without_shim.check(),
            Err(ManifestError::Required(_))
        ));
        let mut newer = manifest(vec![]);
        newer.schema = 2;
        assert!(matches!(newer.check(), Err(ManifestError::Schema(2))));
    }

    #[test]
    fn a_key_that_is_not_known_is_an_error() {
        let text = String::from_utf8(manifest(vec![]).to_bytes()).unwrap();
        let text = text.replacen("\"size\"", "\"setuid\": true, \"size\"", 1);
        assert!(matches!(
            Manifest::parse(text.as_bytes()),
            Err(ManifestError::Form(_))
        ));
    }
}
