//! Standard streams of a container.
//!
//! What containerd names in a request becomes the container's descriptors 0, 1 and 2 themselves:
//!
//! ```text
//! FIFO, file://   container ──────────────▶ FIFO or file            (nothing in between)
//! binary://       container ──▶ pipe ─────▶ logger program
//! terminal        container ──▶ pty ──▶ shim, fixed buffers ──▶ FIFO
//! ```
//!
//! With a FIFO the shim copies nothing, so a slow reader holds the writer up and never grows the
//! shim. It keeps a reading end of its own open ([`fifo::Keep`]), so that a restart of containerd
//! neither breaks the guest's pipe nor loses what is in it.
//!
//! These names come from containerd over a socket that only root can open. Annotations, labels and
//! the image have no say in them.

pub mod fifo;
pub mod logger;
pub mod terminal;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::reaper::Reaper;
use fifo::Keep;
use logger::Logger;

/// What containerd asks for; empty is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Streams {
    /// Path of a FIFO.
    pub stdin: String,
    /// Path of a FIFO, `file://` or `binary://`.
    pub stdout: String,
    /// As `stdout`; unused with a terminal.
    pub stderr: String,
    /// The process has a terminal.
    pub terminal: bool,
}

/// Who owns the FIFOs and pipes of a container: where a user namespace maps the container's root to
/// somebody else, that one, so that `/dev/stdout` can be opened again inside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Owner {
    /// User id on the node; with the group's 0, nothing is changed.
    pub uid: u32,
    /// Group id on the node.
    pub gid: u32,
}

impl Owner {
    fn own(self, stream: &'static str, file: &impl AsFd) -> Result<(), StdioError> {
        if self == Self::default() {
            return Ok(());
        }
        nix::unistd::fchown(file, Some(self.uid.into()), Some(self.gid.into())).map_err(|errno| {
            StdioError::Owner {
                stream,
                uid: self.uid,
                gid: self.gid,
                source: errno.into(),
            }
        })
    }
}

/// Streams, and for whom.
#[derive(Debug, Clone, Copy)]
pub struct Use<'a> {
    /// What containerd asks for.
    pub streams: &'a Streams,
    /// Who owns them.
    pub owner: Owner,
    /// Id of the container or process, for a logger.
    pub id: &'a str,
    /// containerd's namespace, for a logger.
    pub namespace: &'a str,
    /// Starts loggers.
    pub reaper: &'a Reaper,
}

/// Why streams cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StdioError {
    /// Opening failed.
    #[error("cannot open {} for {stream}", path.display())]
    Open {
        /// Which stream.
        stream: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The owner cannot be set.
    #[error("cannot give {stream} to user {uid} and group {gid}")]
    Owner {
        /// Which stream.
        stream: &'static str,
        /// `IoUid`.
        uid: u32,
        /// `IoGid`.
        gid: u32,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// A scheme nobody knows.
    #[error("{uri:?} cannot be used for {stream}: use the path of a FIFO, file:// or binary://")]
    Scheme {
        /// Which stream.
        stream: &'static str,
        /// What was asked for.
        uri: String,
    },
    /// The logger program did not come up.
    #[error("the logger {} did not start", program.display())]
    Logger {
        /// The program.
        program: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// A terminal did not come up.
    #[error("no terminal from the runtime")]
    Terminal(#[source] io::Error),
    /// A pipe cannot be made.
    #[error("cannot make a pipe")]
    Pipe(#[source] io::Error),
}

/// The descriptors for a process without a terminal.
#[derive(Debug)]
pub struct Descriptors {
    /// Descriptor 0.
    pub stdin: OwnedFd,
    /// Descriptor 1.
    pub stdout: OwnedFd,
    /// Descriptor 2.
    pub stderr: OwnedFd,
}

/// What the shim holds of a process's streams while the process is known.
#[derive(Debug, Default)]
pub struct Held {
    stdin: Option<File>,
    outputs: Vec<Keep>,
    logger: Option<Logger>,
    terminal: Option<terminal::Terminal>,
}

impl Held {
    /// Closes standard input: the process sees its end once containerd's writers are gone too.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
        if let Some(terminal) = &mut self.terminal {
            terminal.close_input();
        }
    }

    /// The process has a terminal.
    pub fn terminal(&self) -> Option<&terminal::Terminal> {
        self.terminal.as_ref()
    }

    /// The process has ended: what it wrote stays until it was read or [`Held`] is dropped.
    pub fn ended(&mut self) {
        self.stdin = None;
        self.outputs.iter_mut().for_each(Keep::writer_ended);
    }

    pub(crate) fn with_terminal(terminal: terminal::Terminal) -> Self {
        Self {
            terminal: Some(terminal),
            ..Self::default()
        }
    }
}

/// Opens the streams of a process without a terminal.
///
/// # Errors
/// [`StdioError`], with the path and the stream.
pub async fn open(what: Use<'_>) -> Result<(Descriptors, Held), StdioError> {
    let Use { streams, owner, .. } = what;
    let mut held = Held::default();
    let stdin = if streams.stdin.is_empty() {
        null("stdin")?
    } else {
        let (reader, writer) = fifo::open_input(Path::new(&streams.stdin))?;
        owner.own("stdin", &reader)?;
        held.stdin = Some(writer);
        reader.into()
    };
    if is_binary(&streams.stdout) {
        let (logger, stdout, stderr) = Logger::start(what).await?;
        held.logger = Some(logger);
        return Ok((
            Descriptors {
                stdin,
                stdout,
                stderr,
            },
            held,
        ));
    }
    let stdout = output("stdout", &streams.stdout, owner, &mut held)?;
    let stderr = output("stderr", &streams.stderr, owner, &mut held)?;
    Ok((
        Descriptors {
            stdin,
            stdout,
            stderr,
        },
        held,
    ))
}

fn is_binary(uri: &str) -> bool {
    uri.starts_with(logger::SCHEME)
}

/// The path that an output's URI names.
fn output_path(stream: &'static str, uri: &str) -> Result<PathBuf, StdioError> {
    match uri.split_once("://") {
        None => Ok(PathBuf::from(uri)),
        Some(("fifo" | "file", path)) => Ok(PathBuf::from(path)),
        Some(_) => Err(StdioError::Scheme {
            stream,
            uri: uri.to_owned(),
        }),
    }
}

/// Whatever the URI says: opened as a file, a FIFO without a reader would hold up the whole pod.
fn is_fifo(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_fifo())
}

fn output(
    stream: &'static str,
    uri: &str,
    owner: Owner,
    held: &mut Held,
) -> Result<OwnedFd, StdioError> {
    if uri.is_empty() {
        return null(stream);
    }
    let path = output_path(stream, uri)?;
    if !is_fifo(&path) {
        return append(stream, uri, &path).map(OwnedFd::from);
    }
    let (keep, writer) = fifo::open_output(stream, &path)?;
    owner.own(stream, &writer)?;
    held.outputs.push(keep);
    Ok(writer.into())
}

/// Opens a file to append to. One that `file://` names is made; a bare path is a FIFO's, and where that
/// was, its owner has given up.
fn append(stream: &'static str, uri: &str, path: &Path) -> Result<File, StdioError> {
    let is_wanted = uri.starts_with("file://");
    let open = || -> io::Result<File> {
        if let Some(folder) = path.parent().filter(|_| is_wanted) {
            std::fs::create_dir_all(folder)?;
        }
        OpenOptions::new()
            .create(is_wanted)
            .append(true)
            .mode(0o640)
            .open(path)
    };
    open().map_err(|source| StdioError::Open {
        stream,
        path: path.to_owned(),
        source,
    })
}

fn null(stream: &'static str) -> Result<OwnedFd, StdioError> {
    let path = Path::new("/dev/null");
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map(OwnedFd::from)
        .map_err(|source| StdioError::Open {
            stream,
            path: path.to_owned(),
            source,
        })
}
