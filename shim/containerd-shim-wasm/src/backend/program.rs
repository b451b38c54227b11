//! Runs a program to its end and takes what it prints.

use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::reaper::{Exit, Reaper};

/// A program of ours never prints more; what is over is cut off.
const MAX_OUTPUT_BYTES: u64 = 4 << 20;

/// What came of a program.
#[derive(Debug)]
pub struct Output {
    /// Exit code, or 128 plus the signal.
    pub status: u32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error, empty unless it was piped.
    pub stderr: Vec<u8>,
}

impl Output {
    /// The last line of standard error that holds anything, for messages.
    pub fn stderr_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr);
        text.lines()
            .rev()
            .map(str::trim)
            .find(|line| !line.is_empty())
            .unwrap_or("no message")
            .to_owned()
    }
}

/// Runs to the end. Standard output is piped here, standard error is the caller's choice.
///
/// # Errors
/// When the program cannot be started or its output cannot be read.
pub async fn output(command: &mut Command, reaper: &Reaper) -> io::Result<Output> {
    let (mut child, exit) = reaper.spawn(command.stdout(Stdio::piped()))?;
    finish(&mut child, exit).await
}

/// As [`output`], killed after `limit`: [`io::ErrorKind::TimedOut`] then.
///
/// # Errors
/// As [`output`].
pub async fn output_within(
    mut command: Command,
    reaper: &Reaper,
    limit: Duration,
) -> io::Result<Output> {
    let (mut child, exit) = reaper.spawn(command.stdout(Stdio::piped()))?;
    // Descriptors that were mapped into the program are its own from here on.
    drop(command);
    let pidfd = wasmlet_sys::pidfd_open(i32::try_from(child.id()).map_err(io::Error::other)?)?;
    let mut running = std::pin::pin!(finish(&mut child, exit));
    match tokio::time::timeout(limit, &mut running).await {
        Ok(output) => output,
        Err(_) => {
            wasmlet_sys::pidfd_send_signal(&pidfd, nix::libc::SIGKILL)?;
            running.await?;
            Err(io::Error::from(io::ErrorKind::TimedOut))
        }
    }
}

async fn finish(child: &mut Child, exit: oneshot::Receiver<Exit>) -> io::Result<Output> {
    let stdout = child.stdout.take().map(slurp);
    let stderr = child.stderr.take().map(slurp);
    let stdout = collect(stdout).await?;
    let stderr = collect(stderr).await?;
    let exit = exit.await.map_err(io::Error::other)?;
    Ok(Output {
        status: exit.status,
        stdout,
        stderr,
    })
}

type Slurp = tokio::task::JoinHandle<io::Result<Vec<u8>>>;

fn slurp(pipe: impl Read + Send + 'static) -> Slurp {
    tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        let mut bounded = pipe.take(MAX_OUTPUT_BYTES);
        bounded.read_to_end(&mut bytes)?;
        // Read on, or the program waits for ever on a full pipe.
        io::copy(&mut bounded.into_inner(), &mut io::sink())?;
        Ok(bytes)
    })
}

async fn collect(task: Option<Slurp>) -> io::Result<Vec<u8>> {
    match task {
        Some(task) => task.await.map_err(io::Error::other)?,
        None => Ok(Vec::new()),
    }
}
