//! What applying asks of the node beside its files. [`Host`] is the real one; the tests have one that plays containerd.

use std::path::Path;
use std::time::Duration;

use crate::errors::Chain;
use crate::facts::{HandlerConfig, Live, LiveError};
use crate::host::Host;
use crate::host::cri::Cri;
use crate::host::systemd::Command;
use crate::host::task::{self, Probe, ProbeError};

/// For a shim that is asked what it is.
const SHIM_ANSWER: Duration = Duration::from_secs(15);

/// Acts on the node.
pub trait Machine: Live + Sync {
    /// Restarts a unit and waits until systemd says that it runs.
    fn restart(
        &self,
        unit: &str,
        within: Duration,
    ) -> impl Future<Output = Result<(), LiveError>> + Send;

    /// Whether containerd says that it is ready for pods.
    fn is_ready(&self, socket: &Path) -> impl Future<Output = Result<bool, LiveError>> + Send;

    /// Runs the shim's program with a question that it answers at once: whether it can run here, and takes its settings.
    fn ask_shim(
        &self,
        program: &Path,
        question: Question<'_>,
    ) -> impl Future<Output = Result<(), LiveError>> + Send;

    /// Whether the API has the node Ready.
    fn node_ready(&self) -> impl Future<Output = NodeReady> + Send;

    /// Runs a container.
    fn probe(
        &self,
        socket: &Path,
        probe: &Probe,
    ) -> impl Future<Output = Result<(), ProbeError>> + Send;

    /// Removes what shims keep on the node beside their programs: compiled modules, records of containers. Nothing runs with them any more.
    fn remove_traces(&self) -> impl Future<Output = ()> + Send;
}

/// Whether the API has the node Ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeReady {
    /// It has.
    Yes,
    /// It has not.
    No,
    /// It did not answer, for the reason.
    Unknown(String),
    /// There is none to ask.
    NoApi,
}

/// What a shim is asked.
#[derive(Debug, Clone, Copy)]
pub enum Question<'a> {
    /// `-v`: its version.
    Version,
    /// `-info` with the handler's options, as containerd 2 asks it.
    Info(&'a HandlerConfig),
}

impl Machine for Host {
    async fn restart(&self, unit: &str, within: Duration) -> Result<(), LiveError> {
        self.systemd()
            .await?
            .restart(unit, within)
            .await
            .map_err(|error| LiveError::Command {
                command: format!("systemctl restart {unit}"),
                cause: Chain(&error).to_string(),
            })
    }

    async fn is_ready(&self, socket: &Path) -> Result<bool, LiveError> {
        Cri::new(socket)
            .is_ready()
            .await
            .map_err(|error| LiveError::NoCri {
                socket: socket.display().to_string(),
                cause: Chain(&error).to_string(),
            })
    }

    async fn ask_shim(&self, program: &Path, question: Question<'_>) -> Result<(), LiveError> {
        let command = match question {
            Question::Version => Command::new(program, ["-v"], SHIM_ANSWER),
            Question::Info(handler) => {
                let options = task::runtime_options(Path::new(&handler.config_path));
                Command::new(program, ["-info"], SHIM_ANSWER).input(task::encoded(&options))
            }
        };
        self.output(command).await.map(drop)
    }

    async fn node_ready(&self) -> NodeReady {
        let Some(node) = self.node() else {
            return NodeReady::NoApi;
        };
        match node.is_ready().await {
            Ok(true) => NodeReady::Yes,
            Ok(false) => NodeReady::No,
            Err(error) => NodeReady::Unknown(Chain(&error).to_string()),
        }
    }

    async fn probe(&self, socket: &Path, probe: &Probe) -> Result<(), ProbeError> {
        probe.run(socket).await
    }

    async fn remove_traces(&self) {
        Host::remove_traces(self).await;
    }
}
