//! Terminals: the runtime sends the master of a pty over a socket, the shim copies.
//!
//! Both directions go through one fixed buffer each. A reader that stands still stops the copy, then
//! the pty fills, then the process waits.
//!
//! Output goes to a FIFO, to a file (`file://`) or to a logger (`binary://`).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::OFlag;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::logger::Logger;
use super::{Owner, StdioError, Streams, Use, append, is_binary, is_fifo, output_path};

/// Buffer of one direction, in bytes: a pty gives at most 4 KiB at a time.
const BUFFER_BYTES: usize = 4096;
/// The runtime has this long to send the terminal.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a runtime sends the terminal; the socket's file goes with it.
#[derive(Debug)]
pub struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ConsoleSocket {
    /// Listens on `path`, for root alone.
    ///
    /// # Errors
    /// When the socket cannot be bound.
    pub fn bind(path: PathBuf) -> Result<Self, StdioError> {
        let bind = || -> io::Result<UnixListener> {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&path)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
            Ok(listener)
        };
        let listener = bind().map_err(StdioError::Terminal)?;
        Ok(Self { listener, path })
    }

    /// Its path, for `--console-socket`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the terminal and starts to copy between it and the streams.
    ///
    /// # Errors
    /// When no terminal comes, or a stream cannot be opened.
    pub async fn accept(self, what: Use<'_>) -> Result<Terminal, StdioError> {
        let receive = async {
            let (stream, _) = self.listener.accept().await?;
            // Readiness can be reported in error, so a read that would wait is tried again.
            stream
                .async_io(Interest::READABLE, || {
                    wasmlet_sys::receive_descriptor(stream.as_fd())
                })
                .await
        };
        let master = tokio::time::timeout(ACCEPT_TIMEOUT, receive)
            .await
            .map_err(io::Error::from)
            .flatten()
            .map_err(StdioError::Terminal)?;
        Terminal::start(master, what).await
    }
}

/// Awaits the runtime that sends a terminal, and the terminal. The runtime waits until its end of it was
/// taken; one that fails before that sends none, so its failure ends the wait.
///
/// # Errors
/// The runtime's failure. That no terminal came from one that succeeded is inside.
pub async fn beside<T, E>(
    runtime: impl Future<Output = Result<T, E>>,
    terminal: impl Future<Output = Result<Terminal, StdioError>>,
) -> Result<(T, Result<Terminal, StdioError>), E> {
    let (mut runtime, mut terminal) = (std::pin::pin!(runtime), std::pin::pin!(terminal));
    tokio::select! {
        result = &mut runtime => {
            let value = result?;
            Ok((value, terminal.await))
        }
        terminal = &mut terminal => Ok((runtime.await?, terminal)),
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a console socket");
        }
    }
}

/// A terminal and its two copies.
#[derive(Debug)]
pub struct Terminal {
    master: Arc<AsyncFd<OwnedFd>>,
    input: Option<Input>,
    output: JoinHandle<()>,
    _logger: Option<Logger>,
}

/// The copy into the terminal, and how it is told that no more comes.
#[derive(Debug)]
struct Input {
    task: JoinHandle<()>,
    last: Arc<Notify>,
}

/// Where a terminal's output goes.
enum Sink {
    /// A FIFO or a logger's pipe.
    Pipe(Arc<AsyncFd<OwnedFd>>),
    /// A regular file, to which epoll(7) does not apply.
    File(File),
}

impl Terminal {
    async fn start(master: OwnedFd, what: Use<'_>) -> Result<Self, StdioError> {
        let Streams { stdin, stdout, .. } = what.streams;
        let master = nonblocking(File::from(master)).map_err(StdioError::Terminal)?;
        let master = Arc::new(master);
        let input = match stdin.as_str() {
            "" => None,
            path => {
                let last = Arc::new(Notify::new());
                let from = open_fifo("stdin", Path::new(path), what.owner)?;
                let task = tokio::spawn(copy_in(from, Arc::clone(&master), Arc::clone(&last)));
                Some(Input { task, last })
            }
        };
        let mut logger = None;
        let sink = match stdout.as_str() {
            "" => None,
            uri if is_binary(uri) => {
                let (started, pipe, _) = Logger::start(what).await?;
                logger = Some(started);
                let pipe = nonblocking(File::from(pipe)).map_err(StdioError::Terminal)?;
                Some(Sink::Pipe(Arc::new(pipe)))
            }
            uri => {
                let path = output_path("stdout", uri)?;
                Some(if is_fifo(&path) {
                    Sink::Pipe(open_fifo("stdout", &path, what.owner)?)
                } else {
                    Sink::File(append("stdout", uri, &path)?)
                })
            }
        };
        let output = match sink {
            None => tokio::spawn(discard(Arc::clone(&master))),
            Some(sink) => tokio::spawn(copy_out(Arc::clone(&master), sink)),
        };
        Ok(Self {
            master,
            input,
            output,
            _logger: logger,
        })
    }

    /// Sets its size in characters.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        wasmlet_sys::resize_terminal(self.master.get_ref(), columns, rows)
    }

    /// Copies what is in the FIFO already and no further input.
    pub fn close_input(&mut self) {
        if let Some(input) = &self.input {
            input.last.notify_one();
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(input) = self.input.take() {
            input.task.abort();
        }
        self.output.abort();
    }
}

fn nonblocking(file: File) -> io::Result<AsyncFd<OwnedFd>> {
    use nix::fcntl::{FcntlArg, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    wasmlet_sys::watched(file.into())
}

/// Both ends of the FIFO at once, so that neither a missing peer nor one that leaves ends the copy.
fn open_fifo(
    stream: &'static str,
    path: &Path,
    owner: Owner,
) -> Result<Arc<AsyncFd<OwnedFd>>, StdioError> {
    let failed = |source| StdioError::Open {
        stream,
        path: path.to_owned(),
        source,
    };
    let fifo = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(failed)?;
    owner.own(stream, &fifo)?;
    let fifo = wasmlet_sys::watched(fifo.into()).map_err(failed)?;
    Ok(Arc::new(fifo))
}

async fn copy_in(from: Arc<AsyncFd<OwnedFd>>, to: Arc<AsyncFd<OwnedFd>>, last: Arc<Notify>) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let bytes = tokio::select! {
            biased;
            bytes = read(&from, &mut buffer) => bytes,
            () = last.notified() => {
                // Our own writing end keeps the FIFO from ending, so its being empty is the end.
                while wasmlet_sys::bytes_readable(from.get_ref()).is_ok_and(|bytes| bytes > 0) {
                    let Ok(bytes) = read(&from, &mut buffer).await else { return };
                    if !write_all(&to, buffer.get(..bytes).unwrap_or_default()).await {
                        return;
                    }
                }
                return;
            }
        };
        match bytes {
            Ok(0) | Err(_) => return,
            Ok(bytes) => {
                if !write_all(&to, buffer.get(..bytes).unwrap_or_default()).await {
                    return;
                }
            }
        }
    }
}

async fn copy_out(from: Arc<AsyncFd<OwnedFd>>, to: Sink) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let chunk = match read(&from, &mut buffer).await {
            // EIO is how a master says that no process has the terminal open any more.
            Ok(0) | Err(_) => break,
            Ok(bytes) => buffer.get(..bytes).unwrap_or_default(),
        };
        let is_written = match &to {
            Sink::Pipe(pipe) => write_all(pipe, chunk).await,
            Sink::File(file) => append_all(file, chunk).await,
        };
        if !is_written {
            // The process must not wait for a peer that is gone.
            return discard(from).await;
        }
    }
    if let Sink::Pipe(pipe) = to {
        // The last words may still be in the FIFO, which ends for its reader when it is empty.
        let mut pause = Duration::from_millis(1);
        while wasmlet_sys::bytes_readable(pipe.get_ref()).is_ok_and(|bytes| bytes > 0) {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }
}

/// Whether everything could be written.
async fn write_all(to: &AsyncFd<OwnedFd>, mut chunk: &[u8]) -> bool {
    while !chunk.is_empty() {
        match write(to, chunk).await {
            Ok(bytes) => chunk = chunk.get(bytes..).unwrap_or_default(),
            Err(error) => {
                tracing::debug!(%error, "a terminal's peer is gone");
                return false;
            }
        }
    }
    true
}

/// Whether everything could be written; beside the event loop, because a disk may take its time.
async fn append_all(file: &File, chunk: &[u8]) -> bool {
    let written = file.try_clone().map(|mut file| {
        let chunk = chunk.to_vec();
        tokio::task::spawn_blocking(move || io::Write::write_all(&mut file, &chunk))
    });
    let result = match written {
        Ok(task) => task
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error))),
        Err(error) => Err(error),
    };
    if let Err(error) = &result {
        tracing::warn!(%error, "a terminal's output cannot be written to its file");
    }
    result.is_ok()
}

async fn discard(from: Arc<AsyncFd<OwnedFd>>) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while read(&from, &mut buffer).await.is_ok_and(|bytes| bytes > 0) {}
}

async fn read(fd: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        let mut guard = fd.readable().await?;
        if let Ok(result) = guard.try_io(|inner| Ok(nix::unistd::read(inner.get_ref(), buffer)?)) {
            return result;
        }
    }
}

async fn write(fd: &AsyncFd<OwnedFd>, bytes: &[u8]) -> io::Result<usize> {
    loop {
        let mut guard = fd.writable().await?;
        if let Ok(result) = guard.try_io(|inner| Ok(nix::unistd::write(inner.get_ref(), bytes)?)) {
            return result;
        }
    }
}
