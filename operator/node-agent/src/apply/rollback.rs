//! Takes a change back, and finishes or takes back what an earlier agent left.

use wasmlet_api::reasons::Reason;

use super::journal::{Entry, Stage};
use super::machine::Machine;
use super::steps::{Step, reached};
use super::verify::{Verify, has};
use super::{Applier, ApplyError, BACK, Direction, Failed, Node, RESTART, below, files, said};

/// What had become of the change of an earlier agent.
#[derive(Debug)]
pub struct Recovered {
    /// What was ordered.
    pub revision: String,
    /// Which attempt.
    pub attempt: i64,
    /// What it is now.
    pub now: Now,
    /// Folders that it made.
    pub made_folders: Vec<std::path::PathBuf>,
    /// How often containerd was restarted for it.
    pub restarts: i64,
}

/// How an interrupted change ended.
#[derive(Debug)]
pub enum Now {
    /// It had been verified, and is finished.
    Finished,
    /// It was taken back, and the node is as before, verified.
    TakenBack,
    /// It could not be taken back.
    Broken(ApplyError),
}

impl Applier {
    /// Puts everything back after a failure.
    pub(super) async fn roll_back(
        &self,
        machine: &impl Machine,
        entry: Entry,
        first: ApplyError,
    ) -> Failed {
        let restarts_so_far = i64::from(entry.stage >= Stage::Restarting);
        match self.take_back(machine, &entry).await {
            Ok(restarts) => Failed {
                error: first,
                node: Node::PutBack {
                    restarts: restarts + restarts_so_far,
                },
            },
            Err(then) => Failed {
                error: ApplyError::Rollback {
                    first: said(&first),
                    then: said(&then),
                },
                node: Node::Broken,
            },
        }
    }

    /// The bytes back, one restart if there had been one, the old state verified, the journal closed. It can be done again.
    async fn take_back(&self, machine: &impl Machine, entry: &Entry) -> Result<i64, ApplyError> {
        reached(Step::RollbackBegun, &self.state);
        for change in entry.before_restart.iter().rev() {
            self.change(change, Direction::Back)?;
            reached(Step::Restored, &self.state);
        }
        for folder in entry.made_folders.iter().rev() {
            files::remove_empty(&below(&self.root, folder))?;
        }
        let mut restarts = 0;
        if let (Stage::Restarting, Some(unit)) = (entry.stage, &entry.unit) {
            let restarted = machine.restart(unit, RESTART).await;
            restarts = 1;
            reached(Step::RollbackRestarted, &self.state);
            let verify = Verify {
                unit,
                socket: &entry.socket,
                within: BACK,
            };
            let verified = verify
                .running(machine, |running| match &entry.handlers {
                    Some(wanted) => has(wanted, running),
                    None => Ok(()),
                })
                .await;
            match (restarted, verified) {
                // systemd may have started it once more by itself (Restart=), after the job had failed.
                (_, Ok(_)) => {}
                (Err(error), Err(_)) => return Err(ApplyError::Restart(error)),
                (Ok(()), Err(error)) => return Err(error.into()),
            }
        }
        self.journal.end()?;
        Ok(restarts)
    }

    /// Looks at the journal, and brings what is in it to an end.
    ///
    /// # Errors
    /// [`ApplyError::Journal`] if it cannot be read.
    pub async fn recover(&self, machine: &impl Machine) -> Result<Option<Recovered>, ApplyError> {
        let Some(mut entry) = self.journal.read()? else {
            return Ok(None);
        };
        tracing::info!(
            revision = entry.revision,
            attempt = entry.attempt,
            stage = ?entry.stage,
            "an earlier agent was interrupted"
        );
        let (revision, attempt) = (entry.revision.clone(), entry.attempt);
        let made_folders = entry.made_folders.clone();
        let restarted = i64::from(entry.stage >= Stage::Restarting && entry.unit.is_some());
        let (now, restarts) = match entry.stage {
            Stage::Committed => match self.finish(&mut entry) {
                Ok(()) => (Now::Finished, restarted),
                Err(error) => (Now::Broken(error), restarted),
            },
            Stage::Writing | Stage::Restarting => match self.take_back(machine, &entry).await {
                Ok(restarts) => (Now::TakenBack, restarted + restarts),
                Err(error) => (Now::Broken(error), restarted),
            },
        };
        Ok(Some(Recovered {
            revision,
            attempt,
            now,
            made_folders,
            restarts,
        }))
    }
}

impl Recovered {
    /// What kind of failure it is, if it is one.
    pub fn reason(&self) -> Option<Reason> {
        match self.now {
            Now::Finished => None,
            Now::TakenBack => Some(Reason::Interrupted),
            Now::Broken(_) => Some(Reason::RollbackFailed),
        }
    }
}
