//! `binary://` log drivers: a program that containerd names and that reads the output.
//!
//! Protocol (containerd's `docs/runtime-v2.md`, "Logging"): the program gets standard output on
//! descriptor 3, standard error on 4, and closes 5 when it is ready. Query parameters become its
//! arguments, `key value` each; `CONTAINER_ID` and `CONTAINER_NAMESPACE` are in its environment.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use tokio::sync::oneshot;

use super::{StdioError, Use};
use crate::reaper::Exit;

/// How a URI that names a logger begins.
pub(super) const SCHEME: &str = "binary://";

/// A logger must be ready within this time, the same as containerd's own.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// A running logger. It ends by itself when the container's descriptors are closed.
#[derive(Debug)]
pub struct Logger {
    /// Kept so that the reaper knows somebody asked.
    _exit: oneshot::Receiver<Exit>,
}

impl Logger {
    /// Starts the program and waits until it is ready.
    pub(super) async fn start(what: Use<'_>) -> Result<(Self, OwnedFd, OwnedFd), StdioError> {
        let Use {
            streams,
            owner,
            id,
            namespace,
            reaper,
        } = what;
        let uri = &streams.stdout;
        let (program, arguments) = split(uri.strip_prefix(SCHEME).unwrap_or(uri));
        let failed = |source| StdioError::Logger {
            program: program.clone(),
            source,
        };
        let (stdout_reader, stdout) = io::pipe().map_err(StdioError::Pipe)?;
        let (stderr_reader, stderr) = io::pipe().map_err(StdioError::Pipe)?;
        owner.own("stdout", &stdout)?;
        owner.own("stderr", &stderr)?;
        let (mut ready, ready_writer) = io::pipe().map_err(StdioError::Pipe)?;
        let mut command = Command::new(&program);
        command
            .args(&arguments)
            .env_clear()
            .env("CONTAINER_ID", id)
            .env("CONTAINER_NAMESPACE", namespace)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .fd_mappings(vec![
                FdMapping {
                    parent_fd: stdout_reader.into(),
                    child_fd: 3,
                },
                FdMapping {
                    parent_fd: stderr_reader.into(),
                    child_fd: 4,
                },
                FdMapping {
                    parent_fd: ready_writer.into(),
                    child_fd: 5,
                },
            ])
            .map_err(|collision| failed(io::Error::other(collision)))?;
        let (child, exit) = reaper.spawn(&mut command).map_err(failed)?;
        // Our copies of its ends: it must be the only one to hold them.
        drop(command);
        let pid = child.id();
        let waiting = tokio::task::spawn_blocking(move || {
            let mut byte = [0];
            ready.read(&mut byte)
        });
        match tokio::time::timeout(READY_TIMEOUT, waiting).await {
            Ok(Ok(Ok(_))) => Ok((Self { _exit: exit }, stdout.into(), stderr.into())),
            Ok(Ok(Err(source))) => Err(failed(source)),
            Ok(Err(join)) => Err(failed(io::Error::other(join))),
            Err(_) => {
                let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX));
                if let Err(error) = nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL) {
                    tracing::warn!(%error, "cannot kill a logger that is not ready");
                }
                let text = format!("it was not ready after {} s", READY_TIMEOUT.as_secs());
                Err(failed(io::Error::new(io::ErrorKind::TimedOut, text)))
            }
        }
    }
}

/// `/path?key=value&flag=` into the program and `key value flag`.
fn split(uri: &str) -> (PathBuf, Vec<String>) {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let arguments = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .flat_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            [decode(key), decode(value)]
        })
        .filter(|argument| !argument.is_empty())
        .collect();
    (PathBuf::from(decode(path)), arguments)
}

/// Percent-decoding (RFC 3986, 2.1); a stray `%` stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = (first == b'%')
            .then(|| std::str::from_utf8(tail.get(..2)?).ok())
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(if first == b'+' { b' ' } else { first });
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_becomes_arguments() {
        let (program, arguments) = split("/usr/bin/log%20it?id=a%26b&verbose=");
        assert_eq!(program, PathBuf::from("/usr/bin/log it"));
        assert_eq!(arguments, ["id", "a&b", "verbose"]);
    }

    #[test]
    fn a_stray_percent_stays() {
        assert_eq!(decode("100%"), "100%");
        assert_eq!(decode("%zz"), "%zz");
    }
}
