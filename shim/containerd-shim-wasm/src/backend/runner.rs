//! WebAssembly containers: `wasmlet-run-<engine>`.
//!
//! The runner sets the container up and leaves; its grandchild is the container's init, waits on a
//! socket for the word to start, and is the shim's child by then.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use serde::Serialize;
use serde::de::DeserializeOwned;
use wasmlet_protocol::{ContainerRef, ControlReply, CreateReply, CreateRequest, GuestLimits, fd};

use super::program;
use crate::error::{Error, Result};
use crate::reaper::Reaper;
use crate::stdio::Descriptors;

/// What an init reads before it starts the guest.
const START_WORD: &[u8] = b"start container";

/// A container that a runner set up.
#[derive(Debug, Clone)]
pub struct Runner {
    program: PathBuf,
    container: ContainerRef,
}

impl Runner {
    /// The runner `program` and the container it is to act on.
    pub fn new(program: PathBuf, container: ContainerRef) -> Self {
        Self { program, container }
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Sets the container up and returns its init's process id.
    ///
    /// # Errors
    /// The runner's own failure, or that it died. Nothing of the container is left then.
    pub async fn create(
        &self,
        request: &CreateRequest,
        artifact: OwnedFd,
        stdio: Option<Descriptors>,
        reaper: &Reaper,
    ) -> Result<i32> {
        let (ours, theirs) = UnixStream::pair().map_err(Error::system("make a socket pair"))?;
        let mut command = self.command();
        command.arg("create");
        match stdio {
            Some(stdio) => {
                command
                    .stdin(stdio.stdin)
                    .stdout(stdio.stdout)
                    .stderr(stdio.stderr);
            }
            None => {
                command
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null());
            }
        }
        command
            .fd_mappings(vec![
                FdMapping {
                    parent_fd: theirs.into(),
                    child_fd: fd::CONTROL,
                },
                FdMapping {
                    parent_fd: artifact,
                    child_fd: fd::ARTIFACT,
                },
            ])
            .map_err(|error| self.broken(error.to_string()))?;
        let (_, exit) = reaper
            .spawn(&mut command)
            .map_err(|error| self.broken(error.to_string()))?;
        // The container's ends of its streams are now the runner's alone, as is its end of ours.
        drop(command);
        let reply = tokio::task::spawn_blocking({
            let request = json(request)?;
            move || converse(ours, &request)
        });
        let reply = reply
            .await
            .map_err(|error| self.broken(error.to_string()))?;
        let exit = exit.await.map_err(|error| self.broken(error.to_string()))?;
        let reply = reply.map_err(|error| self.broken(error.to_string()))?;
        let Some(reply) = reply else {
            return Err(self.broken(format!(
                "ended with status {} before it answered",
                exit.status
            )));
        };
        match reply {
            CreateReply::Created { pid, warnings } => {
                for warning in warnings {
                    tracing::warn!(
                        id = self.container.id,
                        warning,
                        "the node cannot give a container all"
                    );
                }
                Ok(pid)
            }
            CreateReply::Failed(failure) => Err(Error::Failure {
                program: self.name(),
                failure,
            }),
        }
    }

    /// Tells the init to start the guest.
    ///
    /// # Errors
    /// When the init is gone.
    pub fn start(&self) -> Result<()> {
        let folder = self.container.state_root.join(&self.container.id);
        let tell = || {
            // By descriptor: with containerd's longest ids the path would not fit a socket's address.
            let folder = File::open(&folder)?;
            let socket = format!("/proc/self/fd/{}/notify.sock", folder.as_raw_fd());
            UnixStream::connect(socket)?.write_all(START_WORD)
        };
        tell().map_err(Error::system("reach the container's init"))
    }

    /// Has the runner do something to the container: `start` (with hooks), `pause`, `resume`, `delete`.
    ///
    /// # Errors
    /// The runner's own failure, or that it died.
    pub async fn control(&self, verb: &str, reaper: &Reaper) -> Result<()> {
        let mut command = self.command();
        command.arg(verb).arg(json_text(&self.container)?);
        self.finish(&mut command, reaper).await
    }

    /// Changes the container's limits; `resources` is the JSON of OCI's `LinuxResources`, and `limits` are
    /// the guest's, where they change with them.
    ///
    /// # Errors
    /// The runner's own failure, or that it died.
    pub async fn update(
        &self,
        resources: &[u8],
        limits: Option<GuestLimits>,
        reaper: &Reaper,
    ) -> Result<()> {
        let resources = std::str::from_utf8(resources).map_err(|error| Error::BadRequest {
            what: format!("the resources are no JSON: {error}"),
        })?;
        let mut command = self.command();
        command
            .arg("update")
            .arg(json_text(&self.container)?)
            .arg(resources);
        if let Some(limits) = limits {
            command.arg(json_text(&limits)?);
        }
        self.finish(&mut command, reaper).await
    }

    async fn finish(&self, command: &mut Command, reaper: &Reaper) -> Result<()> {
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let output = program::output(command, reaper)
            .await
            .map_err(|error| self.broken(error.to_string()))?;
        if output.stdout.is_empty() {
            let line = output.stderr_line();
            return Err(self.broken(format!("ended with status {}: {line}", output.status)));
        }
        match parse(&self.program, &output.stdout)? {
            ControlReply::Done { warnings } => {
                for warning in warnings {
                    tracing::warn!(id = self.container.id, warning, "done, but not all of it");
                }
                Ok(())
            }
            ControlReply::Failed(failure) => Err(Error::Failure {
                program: self.name(),
                failure,
            }),
        }
    }

    /// Nothing of the shim's environment reaches a runner, and nothing of the image's either.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear();
        command
    }

    fn name(&self) -> String {
        self.program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    fn broken(&self, what: String) -> Error {
        Error::Program {
            program: self.program.clone(),
            what,
        }
    }
}

/// Sends the request, says that it is complete, and takes the answer. Reads one JSON document, not to
/// the end: the init may hold the socket until it starts the guest. `None` when no answer came.
fn converse(mut socket: UnixStream, request: &[u8]) -> io::Result<Option<CreateReply>> {
    let sent = socket
        .write_all(request)
        .and_then(|()| socket.shutdown(std::net::Shutdown::Write));
    let mut replies = serde_json::Deserializer::from_reader(&socket).into_iter();
    match replies.next() {
        Some(reply) => reply.map(Some).map_err(io::Error::from),
        // A runner that refuses early does not read everything; only its silence counts.
        None => sent.map(|()| None),
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::BadRequest {
        what: error.to_string(),
    })
}

fn json_text(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::BadRequest {
        what: error.to_string(),
    })
}

fn parse<T: DeserializeOwned>(program: &Path, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| Error::Program {
        program: program.to_owned(),
        what: format!("its answer is not understood: {error}"),
    })
}

/// A file as a descriptor that a child can be given.
pub(crate) fn descriptor(file: impl AsFd) -> Result<OwnedFd> {
    file.as_fd()
        .try_clone_to_owned()
        .map_err(Error::system("duplicate a descriptor"))
}
