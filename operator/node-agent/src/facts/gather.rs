//! Looks at a node.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use wasmlet_api::Digest;
use wasmlet_api::names::{NODE_RUNTIMES, NODE_SETTINGS, NODE_STORE};
use wasmlet_api::reasons::Reason;

use super::bundle;
use super::effective::Effective;
use super::live::{Live, LiveError};
use super::os::OsRelease;
use super::owned::{Owned, OwnedError, below};
use super::recognise::{CRIO, Files, locate, recognise, unit_names};
use super::running::Running;
use super::version::{Version, VersionError};
use super::{Bundle, HostFacts};
use crate::config;
use crate::errors::Chain;
use crate::layout::{Distribution, Layout, Source};

/// A configuration larger than this is a mistake.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// Name of our drop-in. It is late in the order of names.
pub const DROP_IN: &str = "99-wasmlet.toml";

/// What an administrator said about the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choices {
    /// The distribution; none: it is recognised.
    pub distribution: Option<Distribution>,
}

/// Why nothing can be known about the node, or it cannot have wasmlet.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// An operating system on which nothing can be installed.
    #[error("nodes with {what} cannot have wasmlet installed: {way}")]
    Unsupported {
        /// Its name.
        what: String,
        /// What to do instead.
        way: &'static str,
    },
    /// CRI-O.
    #[error(
        "CRI-O runs on this node, and wasmlet is a shim of containerd: take nodes with containerd, or, if the kubelet uses a containerd here all the same, say --distribution containerd"
    )]
    Crio,
    /// No unit of any distribution.
    #[error(
        "systemd knows no containerd on this node (looked for {}): is this a node of Kubernetes?",
        unit_names().join(", ")
    )]
    NoContainerd,
    /// More than one distribution runs.
    #[error("both {0} and {1} run on this node: say which is the kubelet's with --distribution")]
    Ambiguous(Distribution, Distribution),
    /// Another distribution runs than was said.
    #[error(
        "this node was said to be of {declared} (--distribution {declared}), and {found} runs on it: correct it, or leave it out"
    )]
    OtherDistribution {
        /// What was said.
        declared: Distribution,
        /// What runs.
        found: Distribution,
    },
    /// A path with a variable in it.
    #[error(
        "{unit} names its configuration {path:?}, with a variable that only systemd knows: write the path into the unit"
    )]
    ConfigPath {
        /// The unit.
        unit: String,
        /// What it says.
        path: String,
    },
    /// systemd.
    #[error(
        "systemd cannot be asked: mount /run/systemd of the node, and see that it is systemd that runs it"
    )]
    Systemd(#[source] LiveError),
    /// The machine or the version cannot be known.
    #[error("the node's containerd cannot be asked for its version")]
    Version(#[source] LiveError),
    /// Not a version.
    #[error("the node's containerd says a version that cannot be understood")]
    NoVersion(#[from] VersionError),
    /// The machine's architecture cannot be known.
    #[error("the node's architecture cannot be had")]
    Machine(#[source] LiveError),
    /// A file or folder cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is too large for what it should be.
    #[error("{} has more than {MAX_FILE_BYTES} bytes, which no configuration has", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// What the agent wrote before cannot be known.
    #[error("what was written on this node before cannot be known")]
    Owned(#[from] OwnedError),
}

impl FactsError {
    /// For the node's status.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unsupported { .. }
            | Self::Crio
            | Self::Ambiguous(..)
            | Self::OtherDistribution { .. } => Reason::UnsupportedNode,
            Self::Systemd(_) => Reason::NoSystemd,
            Self::NoContainerd | Self::Version(_) | Self::NoVersion(_) | Self::Machine(_) => {
                Reason::NoContainerd
            }
            Self::ConfigPath { .. }
            | Self::Read { .. }
            | Self::TooLarge { .. }
            | Self::Owned(_) => Reason::ConfigUnreadable,
        }
    }
}

/// Looks at the node whose files are below `root` (`/` on the node itself), and which `live` asks.
///
/// # Errors
/// [`FactsError`]
pub async fn gather(
    root: &Path,
    live: &impl Live,
    choices: &Choices,
) -> Result<HostFacts, FactsError> {
    let disk = Disk { root };
    let os_text = match disk.read(Path::new("/etc/os-release"))? {
        Some(text) => Some(text),
        None => disk.read(Path::new("/usr/lib/os-release"))?,
    };
    let os = OsRelease::parse(&String::from_utf8_lossy(&os_text.unwrap_or_default()));
    let units = live
        .units(&unit_names())
        .await
        .map_err(FactsError::Systemd)?;
    let (distribution, unit) = recognise(&os, &units, choices.distribution)?;
    let (mut layout, binary) = locate(distribution, &unit, &disk)?;

    // A file that is missing is to containerd what an empty one is, but `config dump` of 1.x wants one.
    let dumped = match disk.read(&layout.loaded)? {
        Some(_) => layout.loaded.as_path(),
        None => Path::new("/dev/null"),
    };
    let effective = match live.dump(&binary, dumped).await {
        Ok(dump) => Effective::parse(&dump.text).map_err(|error| Chain(&error).to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Ok(Effective {
        socket: Some(socket),
        ..
    }) = &effective
    {
        layout.socket = socket.into();
    }
    let answer = live.cri(&layout.socket).await;
    let version = match &answer {
        Ok(answer) => answer.version.clone(),
        // `containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3`
        Err(_) => {
            let line = live.version(&binary).await.map_err(FactsError::Version)?;
            let word = line.split_whitespace().nth(2).map(str::to_owned);
            word.unwrap_or(line)
        }
    };
    let running = match &answer {
        Ok(answer) => Running::parse(answer).map_err(|error| Chain(&error).to_string()),
        Err(error) => Err(error.to_string()),
    };
    let owned = Owned::read(root)?;
    let (files, symlinks) = disk.configuration(&layout, &owned)?;
    let other_runtimes = units
        .iter()
        .filter(|unit| unit.name == CRIO)
        .map(|unit| unit.name.clone())
        .collect();
    Ok(HostFacts {
        os,
        architecture: oci_architecture(&live.machine().await.map_err(FactsError::Machine)?),
        unit,
        containerd: Version::parse(&version)?,
        binary,
        bystanders: disk.bystanders(&layout, &files)?,
        files,
        symlinks,
        effective,
        running,
        settings: disk.settings()?,
        links: disk.links()?,
        bundles: disk.bundles()?,
        owned,
        other_runtimes,
        layout,
    })
}

/// `uname -m` as OCI names it.
pub(super) fn oci_architecture(machine: &str) -> String {
    match machine.trim() {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
    .to_owned()
}

type Configuration = (
    BTreeMap<PathBuf, Option<Vec<u8>>>,
    BTreeMap<PathBuf, PathBuf>,
);

/// The node's files.
struct Disk<'a> {
    root: &'a Path,
}

impl Disk<'_> {
    /// What containerd loads, what that imports, what we may write, and what we have written.
    fn configuration(&self, layout: &Layout, owned: &Owned) -> Result<Configuration, FactsError> {
        let mut files = BTreeMap::new();
        let mut pending = vec![layout.loaded.clone()];
        match &layout.source {
            Source::Own => {}
            Source::GoTemplate { path } | Source::TomlTemplate { path } => {
                files.insert(path.clone(), self.read(path)?);
            }
            Source::Watched { folder } => {
                for path in self.list(folder)? {
                    if path.extension().is_some_and(|end| end == "toml") {
                        files.insert(path.clone(), self.read(&path)?);
                    }
                }
                let path = folder.join(DROP_IN);
                files.insert(path.clone(), self.read(&path)?);
            }
        }
        while let Some(path) = pending.pop() {
            if files.contains_key(&path) {
                continue;
            }
            let bytes = self.read(&path)?;
            let imports = bytes
                .as_deref()
                .and_then(|bytes| std::str::from_utf8(bytes).ok())
                .and_then(|text| config::inspect(text).ok())
                .map(|document| document.imports)
                .unwrap_or_default();
            for import in &imports {
                pending.extend(self.imported(&config::absolute(import, &path))?);
            }
            if let Some((_, drop_in)) = config::covers(&imports, &path, DROP_IN) {
                pending.push(drop_in);
            }
            files.insert(path, bytes);
        }
        for path in owned.files.keys() {
            if !path.starts_with(NODE_SETTINGS) && !files.contains_key(path) {
                files.insert(path.clone(), self.read(path)?);
            }
        }
        let mut symlinks = BTreeMap::new();
        for path in files.keys() {
            if let Ok(end) = std::fs::read_link(below(self.root, path)) {
                symlinks.insert(path.clone(), end);
            }
        }
        Ok((files, symlinks))
    }

    /// Files near the one that is loaded that look as if containerd read them.
    fn bystanders(
        &self,
        layout: &Layout,
        files: &BTreeMap<PathBuf, Option<Vec<u8>>>,
    ) -> Result<BTreeMap<PathBuf, Vec<u8>>, FactsError> {
        let Some(folder) = layout.loaded.parent() else {
            return Ok(BTreeMap::new());
        };
        let mut paths = Vec::new();
        for path in self.list(folder)? {
            if path.extension().is_some_and(|end| end == "d") {
                paths.extend(self.list(&path)?);
            } else {
                paths.push(path);
            }
        }
        let mut bystanders = BTreeMap::new();
        for path in paths {
            if path.extension().is_some_and(|end| end == "toml")
                && !files.contains_key(&path)
                && let Some(bytes) = self.read(&path)?
            {
                bystanders.insert(path, bytes);
            }
        }
        Ok(bystanders)
    }

    fn imported(&self, pattern: &Path) -> Result<Vec<PathBuf>, FactsError> {
        let (Some(folder), Some(name)) = (
            pattern.parent(),
            pattern.file_name().and_then(|name| name.to_str()),
        ) else {
            return Ok(Vec::new());
        };
        if !name.contains(['*', '?']) {
            return Ok(vec![pattern.to_owned()]);
        }
        let mut found = self.list(folder)?;
        found.retain(|path| {
            path.file_name()
                .and_then(|file| file.to_str())
                .is_some_and(|file| config::matches(name, file))
        });
        Ok(found)
    }

    fn settings(&self) -> Result<BTreeMap<PathBuf, Vec<u8>>, FactsError> {
        let mut settings = BTreeMap::new();
        for path in self.list(Path::new(NODE_SETTINGS))? {
            if path.extension().is_some_and(|end| end == "toml")
                && let Some(bytes) = self.read(&path)?
            {
                settings.insert(path, bytes);
            }
        }
        Ok(settings)
    }

    fn links(&self) -> Result<BTreeMap<String, PathBuf>, FactsError> {
        let mut links = BTreeMap::new();
        for path in self.list(Path::new(NODE_RUNTIMES))? {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            // A swap that was interrupted leaves a temporary name with a dot, which no handler has.
            if name.contains('.') {
                continue;
            }
            let end =
                std::fs::read_link(below(self.root, &path)).map_err(|source| FactsError::Read {
                    path: path.clone(),
                    source,
                })?;
            links.insert(name.to_owned(), end);
        }
        Ok(links)
    }

    fn bundles(&self) -> Result<BTreeMap<Digest, Bundle>, FactsError> {
        let mut bundles = BTreeMap::new();
        for path in self.list(Path::new(NODE_STORE))? {
            let name = path.file_name().and_then(|name| name.to_str());
            // Others are half made.
            let Some(digest) = name.and_then(|name| format!("sha256:{name}").parse().ok()) else {
                continue;
            };
            let bundle = bundle::look(&below(self.root, &path), &digest);
            bundles.insert(digest, bundle);
        }
        Ok(bundles)
    }

    /// A regular file's bytes, of the file that a link leads to.
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, FactsError> {
        let error = |source| FactsError::Read {
            path: path.to_owned(),
            source,
        };
        let file = below(self.root, path);
        let metadata = match std::fs::metadata(&file) {
            Ok(metadata) => metadata,
            Err(e) if absent(&e) => return Ok(None),
            Err(e) => return Err(error(e)),
        };
        if !metadata.is_file() {
            return Err(error(io::Error::other("it is not a regular file")));
        }
        if metadata.len() > MAX_FILE_BYTES {
            return Err(FactsError::TooLarge {
                path: path.to_owned(),
            });
        }
        match std::fs::read(&file) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if absent(&e) => Ok(None),
            Err(e) => Err(error(e)),
        }
    }

    /// A folder's entries by their paths on the host, sorted; none of one that is missing.
    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>, FactsError> {
        let error = |source| FactsError::Read {
            path: folder.to_owned(),
            source,
        };
        let entries = match std::fs::read_dir(below(self.root, folder)) {
            Ok(entries) => entries,
            Err(e) if absent(&e) => return Ok(Vec::new()),
            Err(e) => return Err(error(e)),
        };
        let mut paths = BTreeSet::new();
        for entry in entries {
            paths.insert(folder.join(entry.map_err(error)?.file_name()));
        }
        Ok(paths.into_iter().collect())
    }
}

fn absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

impl Files for Disk<'_> {
    fn text(&self, path: &Path) -> Option<String> {
        std::fs::read_to_string(below(self.root, path)).ok()
    }
}
