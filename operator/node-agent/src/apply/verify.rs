//! Whether the node is as it should be, asked of the node itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::machine::{Machine, NodeReady, Question};
use crate::errors::Chain;
use crate::facts::{Active, LiveError, Running};
use crate::host::task::{Cgroups, Probe, ProbeError};
use crate::plan::Expectations;

/// Between two looks at a containerd that is starting.
const LOOK: Duration = Duration::from_millis(250);

/// What to verify, and how long it may take.
#[derive(Debug, Clone)]
pub struct Verify<'a> {
    /// containerd's unit.
    pub unit: &'a str,
    /// containerd's socket.
    pub socket: &'a Path,
    /// Until containerd is back.
    pub within: Duration,
}

/// What is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// containerd did not come back.
    #[error("containerd was not back within {} s: {last}; see journalctl -u {unit} on the node", within.as_secs())]
    NotBack {
        /// Its unit.
        unit: String,
        /// How long it was waited.
        within: Duration,
        /// What was wrong last.
        last: String,
    },
    /// containerd runs, and its handlers are not the right ones.
    #[error("containerd runs, and {0}")]
    Handlers(String),
    /// The kubelet does not like it.
    #[error("containerd runs, and the node was not Ready again within {} s", within.as_secs())]
    Node {
        /// How long it was waited.
        within: Duration,
    },
    /// The shim.
    #[error("the shim of handler {handler} does not work on this node")]
    Shim {
        /// Which handler.
        handler: String,
        /// What it did.
        #[source]
        source: LiveError,
    },
    /// A container.
    #[error(transparent)]
    Probe(#[from] ProbeError),
}

impl Verify<'_> {
    /// Waits until containerd runs, is ready, and `check` finds what it has loaded right.
    ///
    /// # Errors
    /// [`VerifyError::NotBack`], [`VerifyError::Handlers`]
    pub async fn running(
        &self,
        machine: &impl Machine,
        check: impl Fn(&Running) -> Result<(), String>,
    ) -> Result<Running, VerifyError> {
        let until = Instant::now() + self.within;
        loop {
            let last = match self.look(machine).await {
                Ok(running) => match check(&running) {
                    Ok(()) => return Ok(running),
                    Err(problem) if Instant::now() >= until => {
                        return Err(VerifyError::Handlers(problem));
                    }
                    // Where the distribution reloads by itself it may still be the old one that answers.
                    Err(_) => {
                        tokio::time::sleep(LOOK).await;
                        continue;
                    }
                },
                Err(last) => last,
            };
            if Instant::now() >= until {
                return Err(VerifyError::NotBack {
                    unit: self.unit.to_owned(),
                    within: self.within,
                    last,
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn look(&self, machine: &impl Machine) -> Result<Running, String> {
        let units = machine
            .units(&[self.unit])
            .await
            .map_err(|error| Chain(&error).to_string())?;
        match units.first() {
            Some(unit) if unit.active == Active::Running => {}
            Some(unit) => return Err(format!("{} is {:?}", unit.name, unit.active)),
            None => return Err(format!("systemd does not know {}", self.unit)),
        }
        let ready = machine.is_ready(self.socket).await;
        match ready.map_err(|error| Chain(&error).to_string())? {
            true => {}
            false => return Err("its CRI is not ready".to_owned()),
        }
        let answer = machine
            .cri(self.socket)
            .await
            .map_err(|error| Chain(&error).to_string())?;
        Running::parse(&answer).map_err(|error| Chain(&error).to_string())
    }

    /// Waits until the API has the node Ready. An API that does not answer says nothing about the node.
    ///
    /// # Errors
    /// [`VerifyError::Node`]
    pub async fn node(&self, machine: &impl Machine) -> Result<(), VerifyError> {
        let until = Instant::now() + self.within;
        loop {
            match machine.node_ready().await {
                NodeReady::Yes | NodeReady::NoApi => return Ok(()),
                NodeReady::Unknown(why) => {
                    tracing::warn!(why, "whether the node is Ready is not known; going on");
                    return Ok(());
                }
                NodeReady::No if Instant::now() >= until => {
                    return Err(VerifyError::Node {
                        within: self.within,
                    });
                }
                NodeReady::No => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// Asks every handler's shim, and runs a container of each.
    ///
    /// # Errors
    /// [`VerifyError::Shim`], [`VerifyError::Probe`]
    pub async fn handlers(
        &self,
        machine: &impl Machine,
        expect: &Expectations,
        cgroups: Cgroups,
        scratch: &Path,
    ) -> Result<(), VerifyError> {
        for (name, handler) in &expect.ours {
            let program = PathBuf::from(&handler.runtime_path);
            machine
                .ask_shim(&program, Question::Info(handler))
                .await
                .map_err(|source| VerifyError::Shim {
                    handler: name.clone(),
                    source,
                })?;
            // bin/<program> of the bundle.
            let bundle = program.ancestors().nth(2).unwrap_or(Path::new("/"));
            let probe = Probe {
                handler: name.clone(),
                runtime_type: handler.runtime_type.clone(),
                runtime_path: program.clone(),
                config_path: PathBuf::from(&handler.config_path),
                module: bundle.join("probe/probe.wasm"),
                cgroups,
                scratch: scratch.join("probe"),
                // With a cold cache it is compiled first, behind all else that compiles on the node.
                within: Duration::from_secs(60),
            };
            machine.probe(self.socket, &probe).await?;
        }
        Ok(())
    }
}

/// Whether all of these handlers are there, for a node that was put back.
pub(crate) fn has(wanted: &BTreeSet<String>, running: &Running) -> Result<(), String> {
    match wanted
        .iter()
        .find(|name| !running.handlers.contains_key(*name))
    {
        Some(name) => Err(format!(
            "the handler {name:?} that was there before is missing"
        )),
        None => Ok(()),
    }
}
