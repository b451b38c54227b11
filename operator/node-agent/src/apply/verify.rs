//! Whether the node is as it should be, asked of the node itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::machine::{Machine, Question};
use crate::errors::Chain;
use crate::facts::{Active, Live, LiveError, Running};
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
    #[error("containerd runs, and {}", .0.join("; "))]
    Handlers(Vec<String>),
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
    /// Waits until containerd runs, is ready, and `problems` finds none in what it has loaded.
    ///
    /// # Errors
    /// [`VerifyError::NotBack`], [`VerifyError::Handlers`]
    pub async fn running(
        &self,
        machine: &impl Machine,
        problems: impl Fn(&Running) -> Vec<String>,
    ) -> Result<Running, VerifyError> {
        let until = Instant::now() + self.within;
        loop {
            let last = match self.look(machine).await {
                Ok(running) => {
                    let problems = problems(&running);
                    if problems.is_empty() {
                        return Ok(running);
                    }
                    // It may still be the old one that answers.
                    if Instant::now() >= until {
                        return Err(VerifyError::Handlers(problems));
                    }
                    continue_after().await;
                    continue;
                }
                Err(last) => last,
            };
            if Instant::now() >= until {
                return Err(VerifyError::NotBack {
                    unit: self.unit.to_owned(),
                    within: self.within,
                    last,
                });
            }
            continue_after().await;
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
                runtime_path: program.clone(),
                config_path: PathBuf::from(&handler.config_path),
                root: bundle.join("probe"),
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

/// Names that are missing from what runs, for a node that was put back.
pub(crate) fn missing(wanted: &BTreeSet<String>, running: &Running) -> Vec<String> {
    wanted
        .iter()
        .filter(|name| !running.handlers.contains_key(*name))
        .map(|name| format!("handler {name} is missing"))
        .collect()
}

async fn continue_after() {
    tokio::time::sleep(LOOK).await;
}
