//! The only writer of the node: carries a plan out, verifies it, or takes it back.
//!
//! ```text
//!  plan ─▶ still as planned? ─▶ preflight ─▶ journal ─▶ write ─▶ restart ─▶ verify ─▶ commit ─▶ tidy ─▶ (no journal)
//!              │ no                │ no                   └────────┴──────────┴─ no ─▶ roll back ─▶ (no journal)
//!              ▼                   ▼ nothing was touched
//! ```
//!
//! A new agent first looks at the journal ([`Applier::recover`]): what was not committed is taken back, what was is finished. So it does not
//! matter where one was killed, and a roll-back that was interrupted is done once more from its beginning.

pub mod files;
pub mod journal;
pub mod machine;
mod rollback;
pub mod state;
pub mod steps;
pub mod verify;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use wasmlet_api::Digest;
use wasmlet_api::names::NODE_STATE;
use wasmlet_api::reasons::Reason;

use crate::errors::Chain;
use crate::facts::{Effective, EffectiveError, HostFacts, LiveError, ORIGINALS, OWNED};
use crate::host::task::Cgroups;
use crate::plan::{Candidate, Change, Ownership, PREFLIGHT, Plan, Restart, Unmet};
use files::FileError;
use journal::{Entry, Journal, JournalError, Recorded, Stage};
use machine::{Machine, Question};
use steps::{Step, reached};
use verify::{Verify, VerifyError};

pub use rollback::{Now, Recovered};

/// Until systemd has restarted containerd; k3s and RKE2 restart everything with it.
const RESTART: Duration = Duration::from_secs(180);
/// Until containerd is back after that.
const BACK: Duration = Duration::from_secs(90);

/// Why a change failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Somebody changed it since the facts were gathered.
    #[error("{} was changed by somebody else at this moment; nothing was touched", .0.display())]
    Stale(PathBuf),
    /// A shim that does not even start.
    #[error("the shim of the new bundle does not run on this node; nothing was touched")]
    NewShim(#[source] LiveError),
    /// containerd did not show its candidate configuration.
    #[error("containerd does not accept the new configuration; nothing was touched")]
    Dump(#[source] LiveError),
    /// What it showed makes no sense.
    #[error(
        "what containerd makes of the new configuration cannot be understood; nothing was touched"
    )]
    Effective(#[source] EffectiveError),
    /// Something would be lost, or is missing.
    #[error("with the new configuration containerd would not be right; nothing was touched")]
    Preflight(#[source] Unmet),
    /// A file.
    #[error(transparent)]
    Write(#[from] FileError),
    /// The journal.
    #[error("the agent's journal")]
    Journal(#[from] JournalError),
    /// The restart.
    #[error("containerd was not restarted")]
    Restart(#[source] LiveError),
    /// The check afterwards.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// Putting it back.
    #[error("{first}; and putting the node back failed: {then}")]
    Rollback {
        /// What failed first.
        first: String,
        /// What failed then.
        then: String,
    },
}

impl ApplyError {
    /// What kind of failure it is.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Stale(_) => Reason::Drifted,
            Self::NewShim(LiveError::NoSystemd(_))
            | Self::Dump(LiveError::NoSystemd(_))
            | Self::Restart(LiveError::NoSystemd(_)) => Reason::NoSystemd,
            Self::NewShim(_) => Reason::ShimFailed,
            Self::Dump(_) | Self::Effective(_) | Self::Preflight(_) => Reason::PreflightFailed,
            Self::Write(_) | Self::Journal(_) => Reason::WriteFailed,
            Self::Restart(_) | Self::Verify(VerifyError::NotBack { .. }) => Reason::RestartFailed,
            Self::Verify(VerifyError::Handlers(_)) => Reason::HandlerMissing,
            Self::Verify(VerifyError::Node { .. }) => Reason::NodeNotReady,
            Self::Verify(VerifyError::Shim { .. } | VerifyError::Probe(_)) => Reason::ShimFailed,
            Self::Rollback { .. } => Reason::RollbackFailed,
        }
    }
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restarted {
    /// containerd was restarted.
    Once,
    /// It was not.
    No,
}

/// How a failed change ended.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub error: ApplyError,
    /// How the node is now.
    pub node: Node,
}

/// How the node is after a failed change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// Nothing was touched.
    Untouched,
    /// As before, verified; and how often containerd was restarted for it.
    PutBack {
        /// Restarts, the failed change's included.
        restarts: i64,
    },
    /// Neither.
    Broken,
}

/// Which order a plan is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct For {
    /// Its revision.
    pub revision: String,
    /// Its attempt.
    pub attempt: i64,
}

/// Whether shims are tried, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probing {
    /// Each handler runs a container.
    Handlers,
    /// Only containerd is looked at.
    No,
}

/// The agent's state folder is another agent's.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Held.
    #[error("another agent works on this node: it holds {}; there may be one DaemonSet of wasmlet's agent in a cluster, and no other installer", .0.display())]
    Held(PathBuf),
    /// Of the file system.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The one writer of a node.
#[derive(Debug)]
pub struct Applier {
    /// `/`, but in tests.
    root: PathBuf,
    state: PathBuf,
    journal: Journal,
    _lock: Flock<std::fs::File>,
}

impl Applier {
    /// Takes the node's lock.
    ///
    /// # Errors
    /// [`LockError`]
    pub fn lock(root: &Path) -> Result<Self, LockError> {
        let state = below(root, Path::new(NODE_STATE));
        make_private(&state)?;
        let path = state.join("lock");
        let file = std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(FileError::io("open", &path))?;
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => return Err(LockError::Held(path)),
            Err((_, errno)) => return Err(FileError::io("lock", &path)(errno.into()).into()),
        };
        Ok(Self {
            root: root.to_owned(),
            journal: Journal::new(&state),
            state,
            _lock: lock,
        })
    }

    /// The agent's state folder.
    pub fn state_folder(&self) -> &Path {
        &self.state
    }

    /// Carries a plan out.
    ///
    /// # Errors
    /// [`Failed`], which says how the node is now.
    pub async fn apply(
        &self,
        machine: &impl Machine,
        facts: &HostFacts,
        plan: &Plan,
        order: &For,
        probing: Probing,
    ) -> Result<(Restarted, Vec<PathBuf>), Failed> {
        let untouched = |error: ApplyError| Failed {
            error,
            node: Node::Untouched,
        };
        self.is_as_planned(plan).map_err(untouched)?;
        self.ask_new_shims(machine, plan).await.map_err(untouched)?;
        if let Some(candidate) = &plan.preflight {
            self.preflight(machine, plan, candidate)
                .await
                .map_err(untouched)?;
        }
        let mut entry = self.begin(facts, plan, order).map_err(untouched)?;
        reached(Step::Begun, &self.state);
        match self
            .carry_out(machine, facts, plan, &mut entry, probing)
            .await
        {
            Ok(restarted) => match self.finish(&mut entry) {
                Ok(()) => Ok((restarted, entry.made_folders)),
                // It is verified and stays so; what is left to tidy is done by the next look at the journal.
                Err(error) => Err(Failed {
                    error,
                    node: Node::Broken,
                }),
            },
            Err(error) => Err(self.roll_back(machine, entry, error).await),
        }
    }

    fn is_as_planned(&self, plan: &Plan) -> Result<(), ApplyError> {
        for change in plan.before_restart.iter().chain(&plan.after_restart) {
            match change {
                Change::File(file) => {
                    if files::read(&below(&self.root, &file.path))? != file.before {
                        return Err(ApplyError::Stale(file.path.clone()));
                    }
                }
                Change::Link(link) => {
                    if files::read_link(&below(&self.root, &link.path))? != link.before {
                        return Err(ApplyError::Stale(link.path.clone()));
                    }
                }
            }
        }
        Ok(())
    }

    /// Before anything leads to them.
    async fn ask_new_shims(&self, machine: &impl Machine, plan: &Plan) -> Result<(), ApplyError> {
        for change in &plan.before_restart {
            let Change::Link(link) = change else { continue };
            let (Some(target), Some(folder)) = (&link.after, link.path.parent()) else {
                continue;
            };
            let program = lexically(&folder.join(target))
                .join("bin")
                .join(wasmlet_api::names::SHIM);
            machine
                .ask_shim(&program, Question::Version)
                .await
                .map_err(ApplyError::NewShim)?;
        }
        Ok(())
    }

    async fn preflight(
        &self,
        machine: &impl Machine,
        plan: &Plan,
        candidate: &Candidate,
    ) -> Result<(), ApplyError> {
        let folder = below(&self.root, Path::new(PREFLIGHT));
        remove_folder(&folder)?;
        for (path, bytes) in &candidate.files {
            // As private as the original may be: registry passwords are in such files.
            files::write(&below(&folder, path), Some(bytes), 0o600)?;
        }
        let config = below(Path::new(PREFLIGHT), &candidate.root);
        let dumped = machine.dump(&candidate.binary, &config).await;
        remove_folder(&folder)?;
        let effective = Effective::parse(&dumped.map_err(ApplyError::Dump)?.text)
            .map_err(ApplyError::Effective)?;
        plan.expect
            .candidate(&effective)
            .map_err(ApplyError::Preflight)
    }

    fn begin(&self, facts: &HostFacts, plan: &Plan, order: &For) -> Result<Entry, ApplyError> {
        let (owned, originals) = owned_after(facts, plan);
        let mut blobs: BTreeMap<Digest, Vec<u8>> = BTreeMap::new();
        let mut keep = |bytes: &[u8]| {
            let digest = Digest::of(bytes);
            blobs.insert(digest.clone(), bytes.to_vec());
            digest
        };
        let mut record = |change: &Change| match change {
            Change::File(file) => Recorded::File {
                path: file.path.clone(),
                before: file.before.as_deref().map(&mut keep),
                after: file.after.as_deref().map(&mut keep),
                mode: file.mode,
            },
            Change::Link(link) => Recorded::Link {
                path: link.path.clone(),
                before: link.before.clone(),
                after: link.after.clone(),
            },
        };
        let before_restart: Vec<_> = plan.before_restart.iter().map(&mut record).collect();
        let after_restart: Vec<_> = plan.after_restart.iter().map(&mut record).collect();
        let owned = keep(&owned);
        let originals = originals.iter().map(|bytes| keep(bytes)).collect();
        let mut made_folders: Vec<PathBuf> = Vec::new();
        for recorded in &before_restart {
            for folder in files::missing_folders(&below(&self.root, recorded.path())) {
                let folder = above(&self.root, &folder);
                if !made_folders.contains(&folder) {
                    made_folders.push(folder);
                }
            }
        }
        let entry = Entry {
            stage: Stage::Writing,
            revision: order.revision.clone(),
            attempt: order.attempt,
            before_restart,
            after_restart,
            made_folders,
            unit: match &plan.restart {
                Restart::Unit { name } => Some(name.clone()),
                Restart::No | Restart::Watched => None,
            },
            socket: facts.layout.socket.clone(),
            handlers: facts
                .running
                .as_ref()
                .ok()
                .map(|running| running.handlers.keys().cloned().collect()),
            owned,
            originals,
        };
        self.journal
            .begin(&entry, blobs.values().map(Vec::as_slice))?;
        Ok(entry)
    }

    async fn carry_out(
        &self,
        machine: &impl Machine,
        facts: &HostFacts,
        plan: &Plan,
        entry: &mut Entry,
        probing: Probing,
    ) -> Result<Restarted, ApplyError> {
        for change in entry.before_restart.clone() {
            self.change(&change, Direction::Forward)?;
            reached(Step::Changed, &self.state);
        }
        let mut restarted = Restarted::No;
        if let Some(unit) = entry.unit.clone() {
            self.journal.advance(entry, Stage::Restarting)?;
            reached(Step::RestartMarked, &self.state);
            restarted = Restarted::Once;
            machine
                .restart(&unit, RESTART)
                .await
                .map_err(ApplyError::Restart)?;
            reached(Step::Restarted, &self.state);
        }
        let verify = Verify {
            unit: &facts.layout.unit,
            socket: &facts.layout.socket,
            within: BACK,
        };
        let mut expect = plan.expect.clone();
        if let (Restarted::No, Ok(running)) = (restarted, &facts.running) {
            // What others have written into the files since containerd started is not loaded, and is not to be.
            expect
                .others
                .retain(|name, _| running.handlers.contains_key(name));
            expect.default_handler.clone_from(&running.default_handler);
            expect.sandbox_image.clone_from(&running.sandbox_image);
        }
        verify
            .running(machine, |running| {
                expect.running(running).map_err(|unmet| unmet.to_string())
            })
            .await?;
        if restarted == Restarted::Once {
            verify.node(machine).await?;
        }
        if probing == Probing::Handlers {
            let cgroups = match facts
                .effective
                .as_ref()
                .ok()
                .and_then(Effective::systemd_cgroup)
            {
                Some(true) => Cgroups::Systemd,
                Some(false) | None => Cgroups::Cgroupfs,
            };
            verify
                .handlers(machine, &plan.expect, cgroups, &self.state)
                .await?;
        }
        reached(Step::Verified, &self.state);
        self.journal.advance(entry, Stage::Committed)?;
        reached(Step::Committed, &self.state);
        Ok(restarted)
    }

    /// What is left to do once a change is committed. It can be done again.
    pub(crate) fn finish(&self, entry: &mut Entry) -> Result<(), ApplyError> {
        let originals = below(&self.root, Path::new(ORIGINALS));
        let keep: BTreeSet<&str> = entry.originals.iter().map(Digest::hex).collect();
        for digest in &entry.originals {
            let bytes = self.journal.bytes(digest)?;
            files::write(&originals.join(digest.hex()), Some(&bytes), 0o600)?;
        }
        let owned = self.journal.bytes(&entry.owned)?;
        files::write(&below(&self.root, Path::new(OWNED)), Some(&owned), 0o600)?;
        reached(Step::Owned, &self.state);
        for name in list(&originals)? {
            if !keep.contains(name.as_str()) {
                files::write(&originals.join(name), None, 0)?;
            }
        }
        for change in &entry.after_restart {
            self.change(change, Direction::Tidy)?;
            reached(Step::Tidied, &self.state);
        }
        self.journal.end()?;
        Ok(())
    }

    /// Makes one change, or takes it back. Somebody else's edit in between is left as it is; the next look finds it.
    fn change(&self, change: &Recorded, direction: Direction) -> Result<(), ApplyError> {
        let path = below(&self.root, change.path());
        match change {
            Recorded::File {
                before,
                after,
                mode,
                ..
            } => {
                let (from, to) = direction.of(before, after);
                let found = files::read(&path)?.as_deref().map(Digest::of);
                if found == *to {
                    return Ok(());
                }
                if found != *from {
                    tracing::warn!(path = %path.display(), "somebody else changed it meanwhile; it is left so");
                    return match direction {
                        Direction::Forward => Err(ApplyError::Stale(change.path().to_owned())),
                        Direction::Tidy | Direction::Back => Ok(()),
                    };
                }
                let bytes = to.as_ref().map(|to| self.journal.bytes(to)).transpose()?;
                files::write(&path, bytes.as_deref(), *mode)?;
            }
            Recorded::Link { before, after, .. } => {
                let (_, to) = direction.of(before, after);
                files::link(&path, to.as_deref())?;
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// Somebody else's edit makes the change fail.
    Forward,
    /// After all is verified.
    Tidy,
    Back,
}

impl Direction {
    fn of<'a, T>(self, before: &'a T, after: &'a T) -> (&'a T, &'a T) {
        match self {
            Self::Forward | Self::Tidy => (before, after),
            Self::Back => (after, before),
        }
    }
}

/// The list of owned files when the plan has been carried out, and the originals in it.
fn owned_after(facts: &HostFacts, plan: &Plan) -> (Vec<u8>, Vec<Vec<u8>>) {
    let mut owned = facts.owned.clone();
    for change in plan.before_restart.iter().chain(&plan.after_restart) {
        let Change::File(file) = change else { continue };
        match &file.ownership {
            Ownership::Keep(original) => {
                let entry = crate::facts::OwnedFile {
                    original: original.clone(),
                    written: Digest::of(file.after.as_deref().unwrap_or_default()),
                };
                owned.files.insert(file.path.clone(), entry);
            }
            Ownership::Drop => {
                owned.files.remove(&file.path);
            }
        }
    }
    let originals = owned
        .files
        .values()
        .filter_map(|file| file.original.clone())
        .collect();
    (owned.to_json(), originals)
}

/// A path of the host below a root.
pub(crate) fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The path of the host for one below a root.
fn above(root: &Path, path: &Path) -> PathBuf {
    Path::new("/").join(path.strip_prefix(root).unwrap_or(path))
}

/// Without `..`, which our own links have.
fn lexically(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

fn make_private(folder: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir_all(folder).map_err(FileError::io("create", folder))?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
        .map_err(FileError::io("set the mode of", folder))
}

fn remove_folder(folder: &Path) -> Result<(), FileError> {
    match std::fs::remove_dir_all(folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(FileError::io("remove", folder)(source)),
    }
}

fn list(folder: &Path) -> Result<Vec<String>, FileError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(FileError::io("list", folder)(source)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(FileError::io("list", folder))?;
        names.extend(entry.file_name().into_string().ok());
    }
    Ok(names)
}

/// For a message: an error with its causes.
fn said(error: &ApplyError) -> String {
    Chain(error).to_string()
}
