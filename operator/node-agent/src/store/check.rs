//! Whether a folder is the bundle that it should be: every file of it, and nothing else.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use wasmlet_api::Digest;

use super::manifest::{Entry, FILE_NAME, MAX_BYTES, Manifest, ManifestError};
use crate::folder::{Folder, Kind};

/// Why a folder is not the bundle that it should be.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Of the file system.
    #[error("cannot {what} {path}", path = .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Too large to be one.
    #[error("{path} has more than {MAX_BYTES} bytes", path = .0.display())]
    TooLarge(PathBuf),
    /// Another bundle.
    #[error("{path} has the digest {found}, and {expected} is asked for", path = .path.display())]
    Digest {
        /// The bundle's folder.
        path: PathBuf,
        /// What it should be.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// bundle.json makes no sense.
    #[error("{path} is no bundle", path = .path.display())]
    Manifest {
        /// The bundle's folder.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: ManifestError,
    },
    /// A file is not what bundle.json says.
    #[error("{path} is not as bundle.json says: {what} is {found}, not {expected}", path = .path.display())]
    Differs {
        /// The file.
        path: PathBuf,
        /// Which property.
        what: &'static str,
        /// As bundle.json says.
        expected: String,
        /// As it is.
        found: String,
    },
    /// A file that bundle.json does not list.
    #[error("{path} is not in bundle.json", path = .0.display())]
    Unlisted(PathBuf),
}

pub(crate) fn io(what: &'static str, path: PathBuf) -> impl FnOnce(io::Error) -> CheckError {
    move |source| CheckError::Io { what, path, source }
}

/// Reads a bundle's `bundle.json` and compares its digest, where one is expected.
///
/// # Errors
/// [`CheckError`]
pub fn read_manifest(
    folder: &Folder,
    expected: Option<&Digest>,
) -> Result<(Manifest, Vec<u8>), CheckError> {
    let path = folder.path().join(FILE_NAME);
    let file = folder
        .file(Path::new(FILE_NAME))
        .map_err(io("open", path.clone()))?;
    let mut bytes = Vec::new();
    let read = file
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(io("read", path.clone()))?;
    if read as u64 > MAX_BYTES {
        return Err(CheckError::TooLarge(path));
    }
    let found = Digest::of(&bytes);
    if let Some(expected) = expected
        && *expected != found
    {
        return Err(CheckError::Digest {
            path: folder.path().to_owned(),
            expected: expected.clone(),
            found,
        });
    }
    let manifest = Manifest::parse(&bytes).map_err(|source| CheckError::Manifest {
        path: folder.path().to_owned(),
        source,
    })?;
    Ok((manifest, bytes))
}

/// Checks a bundle in the store: digest, every file's content, mode and owner, every link, and that there is nothing else.
///
/// # Errors
/// [`CheckError`]
pub fn check(folder: &Folder, expected: &Digest) -> Result<Manifest, CheckError> {
    let (manifest, _) = read_manifest(folder, Some(expected))?;
    check_entries(folder, &manifest, &[FILE_NAME])?;
    Ok(manifest)
}

/// As [`check`], with the names that may be at the top beside the bundle's folders.
pub(crate) fn check_entries(
    folder: &Folder,
    manifest: &Manifest,
    beside: &[&str],
) -> Result<(), CheckError> {
    for entry in &manifest.entries {
        let inside = Path::new(entry.path());
        let path = folder.path().join(inside);
        let stat = folder.stat(inside).map_err(io("look at", path.clone()))?;
        let differs = |what, expected: String, found: String| {
            Err(CheckError::Differs {
                path: path.clone(),
                what,
                expected,
                found,
            })
        };
        match entry {
            Entry::Link { target, .. } => {
                if Kind::of(&stat) != Kind::Link {
                    return differs(
                        "its kind",
                        "a link".into(),
                        format!("{:?}", Kind::of(&stat)),
                    );
                }
                let says = folder
                    .read_link(inside)
                    .map_err(io("read the link", path.clone()))?;
                if says != Path::new(target) {
                    return differs("its target", target.clone(), says.display().to_string());
                }
            }
            Entry::File {
                mode, size, sha256, ..
            } => {
                if Kind::of(&stat) != Kind::File {
                    return differs(
                        "its kind",
                        "a file".into(),
                        format!("{:?}", Kind::of(&stat)),
                    );
                }
                let found = stat.st_mode & 0o7777;
                if found != mode.bits() {
                    return differs(
                        "its mode",
                        format!("{:04o}", mode.bits()),
                        format!("{found:04o}"),
                    );
                }
                let me = nix::unistd::geteuid().as_raw();
                if stat.st_uid != me {
                    return differs("its owner", me.to_string(), stat.st_uid.to_string());
                }
                let file = folder.file(inside).map_err(io("open", path.clone()))?;
                let (length, found) = hash(file, io::sink()).map_err(io("read", path.clone()))?;
                if length != *size {
                    return differs("its size", size.to_string(), length.to_string());
                }
                if found != *sha256 {
                    return differs("its SHA-256", sha256.clone(), found);
                }
            }
        }
    }
    nothing_else(folder, manifest, beside)
}

fn nothing_else(folder: &Folder, manifest: &Manifest, beside: &[&str]) -> Result<(), CheckError> {
    let mut unseen = vec![PathBuf::new()];
    while let Some(inside) = unseen.pop() {
        let here = folder
            .folder(&inside)
            .map_err(io("open", folder.path().join(&inside)))?;
        for name in here.list().map_err(io("list", here.path().to_owned()))? {
            let path = inside.join(&name);
            if inside.as_os_str().is_empty() && beside.iter().any(|beside| *beside == name) {
                continue;
            }
            let stat = here
                .stat(Path::new(&name))
                .map_err(io("look at", folder.path().join(&path)))?;
            let listed = |test: &dyn Fn(&str) -> bool| {
                manifest.entries.iter().any(|entry| test(entry.path()))
            };
            let known = if Kind::of(&stat) == Kind::Folder {
                listed(&|entry| Path::new(entry) != path && Path::new(entry).starts_with(&path))
            } else {
                listed(&|entry| Path::new(entry) == path)
            };
            if !known {
                return Err(CheckError::Unlisted(folder.path().join(&path)));
            }
            if Kind::of(&stat) == Kind::Folder {
                unseen.push(path);
            }
        }
    }
    Ok(())
}

/// Copies a file, and says its length and SHA-256 in hexadecimal digits.
pub(crate) fn hash(mut from: File, mut to: impl io::Write) -> io::Result<(u64, String)> {
    use std::fmt::Write as _;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut length = 0;
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        to.write_all(&buffer[..read])?;
        length += read as u64;
    }
    let mut digits = String::with_capacity(64);
    for byte in hasher.finalize() {
        // Writing into a String cannot fail.
        let _ = write!(digits, "{byte:02x}");
    }
    Ok((length, digits))
}
