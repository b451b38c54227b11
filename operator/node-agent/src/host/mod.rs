//! The node itself: its systemd, its containerd.
//!
//! Nothing here needs more than two sockets of the host: programs of the host are run by its systemd, as transient units. The agent enters
//! none of the host's namespaces and mounts nothing.

pub mod cri;
pub mod node;
mod pipes;
mod private;
pub mod systemd;
pub mod task;

use std::path::Path;
use std::time::Duration;

use crate::errors::Chain;
use crate::facts::{CriAnswer, Dump, Live, LiveError, Unit};
use cri::Cri;
use node::OwnNode;
use systemd::{Command, Systemd};

/// Compiled modules, and what shims know of running containers: docs/architecture.md, "Where things are on a node".
const CACHE: &str = "/var/lib/wasmlet/cache";
const RUN: &str = "/run/wasmlet";
/// For a program of the host that removes something.
const REMOVE: Duration = Duration::from_secs(60);
/// For a program that only says something.
const ASK: Duration = Duration::from_secs(30);

/// The node that the agent runs on.
#[derive(Clone, Default)]
pub struct Host {
    node: Option<OwnNode>,
}

impl Host {
    /// With the API server's view of it.
    pub fn with_node(node: OwnNode) -> Self {
        Self { node: Some(node) }
    }

    /// The API server's view of it, where there is one.
    pub(crate) fn node(&self) -> Option<&OwnNode> {
        self.node.as_ref()
    }

    /// Runs a program of the host to its end and wants exit code 0.
    ///
    /// # Errors
    /// [`LiveError`]
    pub async fn output(&self, command: Command) -> Result<Vec<u8>, LiveError> {
        let line = command.line();
        let failed = |cause: String| LiveError::Command {
            command: line.clone(),
            cause,
        };
        let systemd = self.systemd().await?;
        let output = systemd
            .run(command)
            .await
            .map_err(|error| failed(Chain(&error).to_string()))?;
        if output.ended != systemd::Ended::Exited(0) {
            return Err(failed(format!(
                "{}{}",
                output.ended,
                last_lines(&output.stderr)
            )));
        }
        Ok(output.stdout)
    }

    /// Runs a program of the host that removes something; what cannot be removed stays and is logged.
    pub(crate) async fn tidy(&self, program: &str, arguments: &[&str]) {
        let command = Command::new(Path::new(program), arguments, REMOVE);
        let line = command.line();
        match self.output(command).await {
            Ok(_) => {}
            // rmdir says so of folders that were never made.
            Err(error) if error.to_string().contains("No such file") => {}
            Err(error) => {
                tracing::warn!(command = line, error = %Chain(&error), "not all was removed");
            }
        }
    }

    /// Removes what shims keep on a node beside their programs.
    pub(crate) async fn remove_traces(&self) {
        if let Err(error) = std::fs::remove_dir_all(CACHE)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = CACHE, %error, "the cache stays");
        }
        self.tidy("/bin/rm", &["-rf", "--one-file-system", RUN])
            .await;
    }

    /// Connects to systemd.
    ///
    /// # Errors
    /// [`LiveError::NoSystemd`]
    pub async fn systemd(&self) -> Result<Systemd, LiveError> {
        Systemd::connect()
            .await
            .map_err(|error| LiveError::NoSystemd(Chain(&error).to_string()))
    }
}

/// The end of what a program wrote, for a message.
pub(crate) fn last_lines(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(5)..];
    if last.is_empty() {
        String::new()
    } else {
        format!(": {}", last.join(" | "))
    }
}

impl Live for Host {
    async fn units(&self, names: &[&str]) -> Result<Vec<Unit>, LiveError> {
        let systemd = self.systemd().await?;
        let mut found = Vec::new();
        for name in names {
            match systemd.unit(name).await {
                Ok(Some(unit)) => found.push(unit),
                Ok(None) => {}
                Err(error) => return Err(LiveError::NoSystemd(Chain(&error).to_string())),
            }
        }
        Ok(found)
    }

    async fn cri(&self, socket: &Path) -> Result<CriAnswer, LiveError> {
        Cri::new(socket)
            .answer()
            .await
            .map_err(|error| LiveError::NoCri {
                socket: socket.display().to_string(),
                cause: Chain(&error).to_string(),
            })
    }

    async fn version(&self, program: &Path) -> Result<String, LiveError> {
        let stdout = self
            .output(Command::new(program, ["--version"], ASK))
            .await?;
        Ok(String::from_utf8_lossy(&stdout).trim().to_owned())
    }

    async fn dump(&self, program: &Path, config: &Path) -> Result<Dump, LiveError> {
        let config = config.display().to_string();
        let command = Command::new(program, ["--config", &config, "config", "dump"], ASK);
        let line = command.line();
        let stdout = self.output(command).await?;
        let text = String::from_utf8(stdout).map_err(|error| LiveError::Command {
            command: line,
            cause: format!("its output is not UTF-8: {error}"),
        })?;
        Ok(Dump { text })
    }

    async fn machine(&self) -> Result<String, LiveError> {
        Ok(nix::sys::utsname::uname()
            .map_err(|errno| LiveError::Command {
                command: "uname".to_owned(),
                cause: errno.to_string(),
            })?
            .machine()
            .to_string_lossy()
            .into_owned())
    }
}
