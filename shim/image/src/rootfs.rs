//! Form A: the entrypoint inside a container's root file system.
//!
//! ```text
//! args[0] ─▶ candidates (as is; cut at each '#') ─▶ where execvp would look ─▶ openat2 inside the root
//!         ─▶ what kind of file ─▶ first bytes ─▶ Wasm | Linux | NotFound | error
//! ```
//! The kernel resolves every path with the image's root as `/`, so a symbolic link leads nowhere
//! else, and nothing is opened before it is known to be a regular file: a FIFO cannot block, a
//! device cannot notice.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, SFlag, fstat};
use wasmlet_protocol::FailureReason;

use crate::module::{Promise, inspect};
use crate::{Form, Limits, ModuleError};

/// Where execvp looks when the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Longest path the kernel takes, with its end.
const PATH_MAX: usize = 4096;

/// How often a path is resolved again when somebody renames folders below it.
const MAX_RACES: usize = 16;

/// What a container's entrypoint is.
#[derive(Debug)]
pub enum Entrypoint {
    /// A module.
    Wasm(Module),
    /// A file that is no module: a program or a script, runc's job.
    Linux {
        /// Where it is inside the image.
        path_in_image: String,
    },
    /// There is no such file. Not the last word for a Linux container: a volume may bring it.
    NotFound {
        /// Where it was looked for, inside the image.
        tried: Vec<String>,
    },
}

/// A module inside an image.
#[derive(Debug)]
pub struct Module {
    /// Open for reading at offset 0.
    pub file: File,
    /// Where it is inside the image, as it was asked for (links not resolved).
    pub path_in_image: String,
    /// The function to call: what comes after `#`.
    pub func: Option<String>,
    /// How it is written.
    pub form: Form,
    /// Its length in bytes.
    pub length: u64,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The container has no command.
    #[error("the container has no command: process.args[0] is empty")]
    NoCommand,
    /// A path or name cannot be one.
    #[error("the entrypoint {path:?} cannot be a path: {problem}")]
    BadPath {
        /// As given, cut off where it is long.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// There is something that is no file.
    #[error("the entrypoint {path} is {what}, not a file")]
    NotAFile {
        /// Inside the image.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// Its links go in circles.
    #[error("the entrypoint {path} cannot be followed: too many symbolic links")]
    Links {
        /// Inside the image.
        path: String,
    },
    /// It is a file with a module's name or beginning that cannot be run.
    #[error("the entrypoint {path} {source}")]
    Module {
        /// Inside the image.
        path: String,
        /// Why.
        source: ModuleError,
    },
    /// `#` without a function.
    #[error("the entrypoint {path:?} names no function after '#'")]
    NoFunction {
        /// As given.
        path: String,
    },
    /// The kernel has no `openat2(2)`.
    #[error("this kernel cannot look inside an image safely: openat2(2) needs Linux 5.6 or newer")]
    OldKernel,
    /// A system call failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl ResolveError {
    /// Whose turn it is.
    pub fn reason(&self) -> FailureReason {
        match self {
            ResolveError::NoCommand
            | ResolveError::BadPath { .. }
            | ResolveError::NotAFile { .. }
            | ResolveError::Links { .. }
            | ResolveError::NoFunction { .. } => FailureReason::InvalidArgument,
            ResolveError::Module { source, .. } => source.reason(),
            ResolveError::OldKernel => FailureReason::Unsupported,
            ResolveError::Io { .. } => FailureReason::Internal,
        }
    }
}

/// Finds out what a container runs.
///
/// `args0` is `process.args[0]`, `path_env` the value of `PATH` in the container's environment,
/// `cwd` its working folder. A name without a slash is looked for along `PATH`, as by execvp, and
/// one that ends in `.wasm` or `.wat` in the working folder as well, since image authors write
/// `ENTRYPOINT ["app.wasm"]`. `path#func` names a function of a module; a file whose own name has a
/// `#` comes first.
///
/// # Errors
/// When the entrypoint is there and cannot be run, with a sentence that says why; when a system
/// call fails.
pub fn resolve(
    rootfs: &Path,
    args0: &str,
    path_env: Option<&str>,
    cwd: &str,
    limits: &Limits,
) -> Result<Entrypoint, ResolveError> {
    check_text(args0)?;
    let path_env = path_env.unwrap_or(DEFAULT_PATH);
    if path_env.len() > MAX_PATH_ENV_BYTES || cwd.len() > MAX_CWD_BYTES {
        return Err(ResolveError::BadPath {
            path: args0.chars().take(80).collect(),
            problem: "the container's PATH or working folder is too long",
        });
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = open(rootfs, flags, Mode::empty()).map_err(|errno| ResolveError::Io {
        action: "open the container's root file system",
        path: rootfs.to_owned(),
        source: errno.into(),
    })?;
    let search = Search {
        root,
        rootfs,
        path_env,
        cwd,
        limits,
    };

    let mut tried = Vec::new();
    if let Some(found) = search.find(args0, &mut tried)? {
        return Ok(match found {
            (path_in_image, Some(module)) => {
                Entrypoint::Wasm(module.into_module(path_in_image, None))
            }
            (path_in_image, None) => Entrypoint::Linux { path_in_image },
        });
    }
    for (cut, _) in args0.match_indices('#').take(MAX_CUTS) {
        let (path, func) = (&args0[..cut], &args0[cut + 1..]);
        if path.is_empty() {
            continue;
        }
        // Only a module has functions: `/bin/sh#x` is not `/bin/sh`.
        if let Some((path_in_image, Some(module))) = search.find(path, &mut tried)? {
            if func.is_empty() {
                return Err(ResolveError::NoFunction {
                    path: args0.to_owned(),
                });
            }
            return Ok(Entrypoint::Wasm(
                module.into_module(path_in_image, Some(func)),
            ));
        }
    }
    Ok(Entrypoint::NotFound { tried })
}

fn check_text(args0: &str) -> Result<(), ResolveError> {
    let problem = if args0.is_empty() {
        return Err(ResolveError::NoCommand);
    } else if args0.contains('\0') {
        "it has a NUL byte in it"
    } else if args0.len() >= PATH_MAX {
        "it is longer than 4095 bytes"
    } else {
        return Ok(());
    };
    let path = args0.chars().take(80).collect();
    Err(ResolveError::BadPath { path, problem })
}

/// A module that was found, before it is known by which name.
struct FoundModule {
    file: File,
    form: Form,
    length: u64,
}

impl FoundModule {
    fn into_module(self, path_in_image: String, func: Option<&str>) -> Module {
        let FoundModule { file, form, length } = self;
        Module {
            file,
            path_in_image,
            func: func.map(str::to_owned),
            form,
            length,
        }
    }
}

/// Longest `PATH`: what execve(2) takes for one string (MAX_ARG_STRLEN). It is the image's word.
const MAX_PATH_ENV_BYTES: usize = 128 << 10;
/// Longest working folder: PATH_MAX.
const MAX_CWD_BYTES: usize = 4096;
/// Folders of `PATH` that are looked into: each costs a system call, and a line in the error.
const MAX_FOLDERS: usize = 64;

/// Places where `#` may end the path: a file's name may hold one, hardly more.
const MAX_CUTS: usize = 4;

struct Search<'a> {
    root: OwnedFd,
    rootfs: &'a Path,
    path_env: &'a str,
    cwd: &'a str,
    limits: &'a Limits,
}

impl Search<'_> {
    /// Looks a name or path up: where it was found, and the module if it is one.
    fn find(
        &self,
        name: &str,
        tried: &mut Vec<String>,
    ) -> Result<Option<(String, Option<FoundModule>)>, ResolveError> {
        if name.contains('/') {
            return self.look(absolute(self.cwd, name), true, tried);
        }
        for folder in self.path_env.split(':').take(MAX_FOLDERS) {
            // An empty element is the working folder.
            let folder = absolute(self.cwd, if folder.is_empty() { "." } else { folder });
            if let Some(found) = self.look(absolute(&folder, name), false, tried)? {
                return Ok(Some(found));
            }
        }
        if Promise::of_name(name) != Promise::Nothing {
            return self.look(absolute(self.cwd, name), true, tried);
        }
        Ok(None)
    }

    /// Looks at one path. Along `PATH` (not `explicit`) what is no file is passed over, as execvp
    /// does.
    fn look(
        &self,
        path: String,
        explicit: bool,
        tried: &mut Vec<String>,
    ) -> Result<Option<(String, Option<FoundModule>)>, ResolveError> {
        let found = match self.open(&path) {
            Ok(Some(found)) => found,
            Ok(None) => {
                tried.push(path);
                return Ok(None);
            }
            Err(ResolveError::NotAFile { .. } | ResolveError::Links { .. }) if !explicit => {
                tried.push(path);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let length = found
            .metadata()
            .map_err(|error| self.failed("look at", &path, error))?
            .size();
        match inspect(&found, length, Promise::of_name(&path), self.limits) {
            Ok(Some(form)) => Ok(Some((
                path,
                Some(FoundModule {
                    file: found,
                    form,
                    length,
                }),
            ))),
            Ok(None) => Ok(Some((path, None))),
            Err(source) => Err(ResolveError::Module { path, source }),
        }
    }

    /// Opens a regular file inside the root; `None` when there is none.
    fn open(&self, path: &str) -> Result<Option<File>, ResolveError> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let mut races = 0;
        let place = loop {
            match openat2(&self.root, path, how) {
                Ok(place) => break place,
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG) => return Ok(None),
                Err(Errno::ELOOP) => {
                    return Err(ResolveError::Links {
                        path: path.to_owned(),
                    });
                }
                Err(Errno::ENOSYS) => return Err(ResolveError::OldKernel),
                Err(Errno::EAGAIN) if races < MAX_RACES => races += 1,
                Err(errno) => return Err(self.failed("look inside the image at", path, errno)),
            }
        };
        let stat = fstat(&place).map_err(|errno| self.failed("look at", path, errno))?;
        let what = match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFREG => {
                // The descriptor is ours, so this is no path of the image any more.
                let again = format!("/proc/self/fd/{}", place.as_raw_fd());
                let file = File::open(again).map_err(|error| self.failed("open", path, error))?;
                return Ok(Some(file));
            }
            SFlag::S_IFDIR => "a folder",
            SFlag::S_IFIFO => "a FIFO",
            SFlag::S_IFSOCK => "a socket",
            SFlag::S_IFCHR | SFlag::S_IFBLK => "a device",
            _ => "of an unknown kind",
        };
        Err(ResolveError::NotAFile {
            path: path.to_owned(),
            what,
        })
    }

    fn failed(
        &self,
        action: &'static str,
        path: &str,
        error: impl Into<io::Error>,
    ) -> ResolveError {
        let path = self.rootfs.join(path.trim_start_matches('/'));
        ResolveError::Io {
            action,
            path,
            source: error.into(),
        }
    }
}

/// A path as seen from the root. Dots stay: the kernel resolves them after links.
fn absolute(cwd: &str, path: &str) -> String {
    if path.starts_with('/') {
        return path.to_owned();
    }
    let path = path.trim_start_matches("./");
    let path = if path == "." { "" } else { path };
    let cwd = cwd.trim_end_matches('/');
    let slash = if cwd.is_empty() || cwd.starts_with('/') {
        ""
    } else {
        "/"
    };
    if path.is_empty() && !cwd.is_empty() {
        return format!("{slash}{cwd}");
    }
    format!("{slash}{cwd}/{path}")
}
