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
use std::os::fd::OwnedFd;
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
pub async fn open(
    streams: &Streams,
    id: &str,
    namespace: &str,
    reaper: &Reaper,
) -> Result<(Descriptors, Held), StdioError> {
    let mut held = Held::default();
    let stdin = if streams.stdin.is_empty() {
        null("stdin")?
    } else {
        let (reader, writer) = fifo::open_input(Path::new(&streams.stdin))?;
        held.stdin = Some(writer);
        reader.into()
    };
    if let Some(uri) = streams.stdout.strip_prefix("binary://") {
        let (logger, stdout, stderr) = Logger::start(uri, id, namespace, reaper).await?;
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
    let stdout = output("stdout", &streams.stdout, &mut held)?;
    let stderr = output("stderr", &streams.stderr, &mut held)?;
    Ok((
        Descriptors {
            stdin,
            stdout,
            stderr,
        },
        held,
    ))
}

fn output(stream: &'static str, uri: &str, held: &mut Held) -> Result<OwnedFd, StdioError> {
    if uri.is_empty() {
        return null(stream);
    }
    let path = match uri.split_once("://") {
        None | Some(("fifo", _)) => Path::new(uri.strip_prefix("fifo://").unwrap_or(uri)),
        Some(("file", path)) => return append(stream, Path::new(path)).map(OwnedFd::from),
        Some(_) => {
            return Err(StdioError::Scheme {
                stream,
                uri: uri.to_owned(),
            });
        }
    };
    let is_fifo = std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_fifo());
    if !is_fifo {
        return append(stream, path).map(OwnedFd::from);
    }
    let (keep, writer) = fifo::open_output(stream, path)?;
    held.outputs.push(keep);
    Ok(writer.into())
}

fn append(stream: &'static str, path: &Path) -> Result<File, StdioError> {
    let open = || -> io::Result<File> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        OpenOptions::new()
            .create(true)
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
