//! From a module to an artifact: the cache, and on a miss the engine's compile helper.
//!
//! The helper is a process of its own in the node's compile cgroup ([`super::compile_cgroup`]), because
//! compiling does not fit into the limits of the pod that needs it: a 15 MB module took 430 MB. Its time
//! is bounded, and of many starts of one module one compiles while the others wait for the entry
//! (`compile_queue`).

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use wasmlet_cache::{Cache, Digest, Entry, Key, KeyLock, Staged};
use wasmlet_protocol::{CompileReport, CompileRequest, Compiled, FailureReason, PROTOCOL, fd};

use super::compile_cgroup::{CompileCgroup, Slot, Slots};
use super::compile_queue::{Queue, Turn};
use super::program::{self, Output};
use super::runner::descriptor;
use crate::annotations::{DEFAULT_PROFILE, Settings};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::options::{CompileBounds, Options};
use crate::reaper::Reaper;

/// Version of what is kept as facts about a module: the release's, and a number that changes with what
/// `wasmlet-inspect` reads of it.
const FACTS_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " 1");

/// Time for one module when the node's options say nothing.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

/// Time for systemd to set the bounds of a slice.
const SYSTEMD_TIMEOUT: Duration = Duration::from_secs(20);

/// A module that waits to be run.
#[derive(Debug)]
pub struct Module {
    /// Its bytes.
    pub file: File,
    /// For messages: its path in the image, or its digest.
    pub name: String,
    /// Its digest where that is known already.
    pub digest: Option<Digest>,
}

/// A module that can be run.
#[derive(Debug)]
pub struct Artifact {
    /// Verified, open for reading.
    pub file: OwnedFd,
    /// What the helper learned about it.
    pub compiled: Compiled,
}

/// Opens the node's cache.
///
/// # Errors
/// When the folder is not fit to hold what every pod of the node will map and run.
pub async fn open_cache(options: &Options) -> Result<Arc<Cache>> {
    let mut settings = wasmlet_cache::Options::default();
    if let Some(dir) = &options.cache_dir {
        settings.dir.clone_from(dir);
    }
    if let Some(bytes) = options.cache_max_bytes {
        settings.max_bytes = bytes;
    }
    blocking(move || Cache::open(settings).map_err(Error::from))
        .await
        .map(Arc::new)
}

/// What an artifact is compiled for, as the pod says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// Profile by name.
    pub profile: String,
    /// The pod limits fuel.
    pub metered: bool,
    /// The pod limits time.
    pub interruptible: bool,
}

impl Variant {
    /// The variant that a pod's settings ask for.
    pub fn of(settings: &Settings) -> Self {
        Self {
            profile: settings
                .profile
                .clone()
                .unwrap_or_else(|| DEFAULT_PROFILE.to_owned()),
            metered: settings.fuel.is_some(),
            interruptible: settings.timeout.is_some(),
        }
    }

    /// Its name in the key of the cache.
    fn key_name(&self) -> String {
        let mut name = self.profile.clone();
        for (is_set, suffix) in [(self.metered, "+fuel"), (self.interruptible, "+timeout")] {
            if is_set {
                name.push_str(suffix);
            }
        }
        name
    }
}

/// Makes artifacts: the node's cache, and helpers with bounds.
#[derive(Debug)]
pub struct Workshop<'a> {
    /// The node's cache.
    pub cache: Arc<Cache>,
    /// Bounds on a helper.
    pub bounds: &'a CompileBounds,
    /// Who waits for helpers.
    pub reaper: &'a Reaper,
    /// The shim's own program, which reads what a module needs.
    pub inspector: PathBuf,
}

/// A module with its digest.
#[derive(Debug)]
pub struct Hashed {
    module: Module,
    digest: Digest,
}

impl Hashed {
    /// Its name, for messages.
    pub fn name(&self) -> &str {
        &self.module.name
    }
}

/// First words of the keys under which facts about modules are kept; they name no engine.
const FACTS: &str = "inspect";

impl Workshop<'_> {
    /// Reads a module once.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn hash(&self, module: Module) -> Result<Hashed> {
        blocking(move || {
            let digest = match module.digest {
                Some(digest) => digest,
                None => Digest::of_file(&module.file).map_err(Error::system("read the module"))?,
            };
            Ok(Hashed { module, digest })
        })
        .await
    }

    /// The artifact of a module for an engine, if there is one.
    ///
    /// # Errors
    /// When the engine has no such profile, or the cache cannot be read.
    pub async fn cached(
        &self,
        module: &Hashed,
        engine: &Engine,
        variant: &Variant,
    ) -> Result<Option<Artifact>> {
        let key = key(module, engine, variant)?;
        let cache = Arc::clone(&self.cache);
        let entry = blocking(move || cache.lookup_if_there(&key).map_err(Error::from)).await?;
        Ok(entry.map(Artifact::from))
    }

    /// The artifact of a module for an engine, compiled if it has to be.
    ///
    /// # Errors
    /// What is wrong with the module, which bound was hit, or what of the node failed.
    pub async fn artifact(
        &self,
        module: &Hashed,
        engine: &Engine,
        variant: &Variant,
    ) -> Result<Artifact> {
        let key = key(module, engine, variant)?;
        let cache = Arc::clone(&self.cache);
        let warm = blocking(move || cache.lookup(&key).map_err(Error::from)).await?;
        if let Some(entry) = warm {
            return Ok(entry.into());
        }
        let (lock, slot) = match self.turn(key, module).await? {
            Turn::Done(entry) => return Ok(entry.into()),
            Turn::Ours(lock, slot) => (lock, slot),
        };
        let helper = Helper {
            program: &engine.compiler,
            verb: "compile",
            doing: "compiling",
        };
        let compiled = self.job(module, helper, variant);
        compiled
            .make(Arc::clone(&self.cache), lock, slot, Record::Compile)
            .await
    }

    /// What a module is and needs, read from it if that was never done on this node.
    ///
    /// # Errors
    /// When it is no WebAssembly, which bound was hit, or what of the node failed.
    pub async fn facts(&self, module: &Hashed) -> Result<Compiled> {
        let key = Key::new(&module.digest, FACTS, "", FACTS_VERSION, "");
        let cache = Arc::clone(&self.cache);
        let known = blocking(move || cache.peek(&key).map_err(Error::from)).await?;
        if let Some(entry) = known {
            return Ok(entry.meta.compiled);
        }
        let (lock, slot) = match self.turn(key, module).await? {
            Turn::Done(entry) => return Ok(entry.meta.compiled),
            Turn::Ours(lock, slot) => (lock, slot),
        };
        let helper = Helper {
            program: &self.inspector,
            verb: crate::cli::inspect::FOR_SHIM,
            doing: "reading",
        };
        let variant = Variant::of(&Settings::default());
        let artifact = self
            .job(module, helper, &variant)
            .make(Arc::clone(&self.cache), lock, slot, Record::Nothing)
            .await?;
        Ok(artifact.compiled)
    }

    async fn turn(&self, key: Key, module: &Hashed) -> Result<Turn> {
        let queue = Queue {
            slots: Slots::of_node(self.bounds),
            // Whoever compiles needs at most the limit, and once more where the disk is full.
            patience: self.limit().saturating_mul(2),
        };
        queue.turn(&self.cache, key, module.name()).await
    }

    fn job<'a>(&'a self, module: &'a Hashed, helper: Helper<'a>, variant: &'a Variant) -> Job<'a> {
        Job {
            module,
            helper,
            variant,
            limit: self.limit(),
            bounds: self.bounds,
            reaper: self.reaper,
        }
    }

    fn limit(&self) -> Duration {
        self.bounds
            .compile_timeout_seconds
            .map_or(DEFAULT_TIMEOUT, Duration::from_secs)
    }
}

fn key(module: &Hashed, engine: &Engine, variant: &Variant) -> Result<Key> {
    let profile = engine.profile(Some(&variant.profile))?;
    Ok(Key::new(
        &module.digest,
        &engine.description.engine,
        &profile.compatibility,
        &engine.description.build_id,
        &variant.key_name(),
    ))
}

/// A program that reads a module on descriptor 0 and reports on descriptor 1.
#[derive(Clone, Copy)]
struct Helper<'a> {
    program: &'a Path,
    verb: &'static str,
    /// For messages.
    doing: &'static str,
}

/// How a helper is to compile.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effort {
    Optimised,
    Unoptimised,
}

/// Whether the node's figures count a job.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Record {
    Compile,
    Nothing,
}

struct Job<'a> {
    module: &'a Hashed,
    helper: Helper<'a>,
    variant: &'a Variant,
    limit: Duration,
    bounds: &'a CompileBounds,
    reaper: &'a Reaper,
}

impl Job<'_> {
    async fn make(
        &self,
        cache: Arc<Cache>,
        lock: KeyLock,
        slot: Slot,
        record: Record,
    ) -> Result<Artifact> {
        let mut staged = stage(&cache).await?;
        let mut result = self.run(&staged, Effort::Optimised).await;
        if let Err(error @ Error::CompilerCrashed { .. }) = &result {
            // Its optimisers are most of a compiler, and where its faults are.
            tracing::warn!(
                error = crate::chain(error),
                "this module is compiled once more, without optimisation"
            );
            staged = stage(&cache).await?;
            // What it says of a module that crashes it either way is the first crash.
            if let Ok(compiled) = self.run(&staged, Effort::Unoptimised).await {
                result = Ok(compiled);
            }
        }
        let compiled = match result {
            Err(Error::Failure { failure, .. }) if failure.reason == FailureReason::DiskFull => {
                tracing::warn!(failure.message, "this module is compiled into memory");
                staged = cache.stage_in_memory()?;
                self.run(&staged, Effort::Optimised).await?
            }
            other => other?,
        };
        // The next module need not wait for the disk.
        drop(slot);
        tracing::info!(
            module = self.module.name(),
            helper = %self.helper.program.display(),
            millis = compiled.millis,
            peak_memory = compiled.peak_memory,
            "{} done",
            self.helper.doing
        );
        let module = descriptor(&self.module.module.file)?;
        let (digest, name) = (self.module.digest, self.module.name().to_owned());
        blocking(move || {
            if record == Record::Compile {
                cache.record_compile(&compiled);
            }
            // The entry stands for these bytes on the whole node, so they must be what was compiled.
            let now =
                Digest::of_file(&File::from(module)).map_err(Error::system("read the module"))?;
            if now != digest {
                return Err(Error::Image(format!(
                    "{name} changed while it was compiled"
                )));
            }
            match cache.publish(&lock, staged, compiled.clone()) {
                Ok(entry) => Ok(entry.into()),
                Err(unpublished) => {
                    let error = crate::chain(&unpublished.error);
                    tracing::warn!(error, "a compiled module is not kept");
                    let file = unpublished.staged.into_uncached()?;
                    Ok(Artifact {
                        file: file.into(),
                        compiled,
                    })
                }
            }
        })
        .await
    }

    async fn run(&self, staged: &Staged, effort: Effort) -> Result<Compiled> {
        let cgroup = CompileCgroup::prepare(self.bounds)?;
        if let Some(command) = cgroup.bound() {
            self.set_bounds(command).await?;
        }
        let request = CompileRequest {
            protocol: PROTOCOL,
            name: self.module.name().to_owned(),
            profile: self.variant.profile.clone(),
            metered: self.variant.metered,
            interruptible: self.variant.interruptible,
            unoptimised: effort == Effort::Unoptimised,
            cgroup_procs: cgroup.procs_files(),
            parent: Some(std::process::id()),
            time_limit_seconds: Some(self.limit.as_secs()),
        };
        let request = serde_json::to_string(&request).map_err(|error| Error::BadRequest {
            what: error.to_string(),
        })?;
        let module = descriptor(&self.module.module.file)?;
        rewind(&module)?;
        let mut command = cgroup.command(self.helper.program, self.limit);
        command
            .arg(self.helper.verb)
            .arg(request)
            .env_clear()
            .stdin(module)
            .stderr(Stdio::piped())
            .fd_mappings(vec![FdMapping {
                parent_fd: descriptor(staged.file())?,
                child_fd: fd::COMPILE_OUTPUT,
            }])
            .map_err(|error| self.broken(error.to_string()))?;
        // On the main thread, as everything of this process that is asynchronous: the helper ends when
        // the thread does that started it (prctl(2), PR_SET_PDEATHSIG).
        let output = program::output_within(command, self.reaper, self.limit).await;
        self.judge(output, &cgroup)
    }

    async fn set_bounds(&self, mut command: Command) -> Result<()> {
        let program = PathBuf::from(command.get_program());
        let failed = |what| Error::Program {
            program: program.clone(),
            what,
        };
        command
            .env_clear()
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let output = program::output_within(command, self.reaper, SYSTEMD_TIMEOUT)
            .await
            .map_err(|error| failed(error.to_string()))?;
        if output.status == 0 {
            return Ok(());
        }
        Err(failed(format!(
            "cannot set the bounds of the node's compile slice, status {}: {}",
            output.status,
            output.stderr_line()
        )))
    }

    fn judge(&self, output: io::Result<Output>, cgroup: &CompileCgroup) -> Result<Compiled> {
        let output = match output {
            Ok(output) => output,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(self.out_of_time()),
            Err(error) => return Err(self.broken(error.to_string())),
        };
        if output.stdout.is_empty() {
            if cgroup.killed_for_memory(output.status) {
                return Err(Error::CompileBound {
                    module: self.module.name().to_owned(),
                    bound: format!(
                        "needs more than {} bytes of memory together with all that compiles on this \
                         node at the same time",
                        cgroup.memory_bytes()
                    ),
                    key: "CompileMemoryBytes",
                });
            }
            if cgroup.ended_for_time(output.status) {
                return Err(self.out_of_time());
            }
            let line = output.stderr_line();
            if let Some(signal) = crash(output.status) {
                return Err(Error::CompilerCrashed {
                    module: self.module.name().to_owned(),
                    program: self.helper.program.to_owned(),
                    signal,
                    line,
                });
            }
            return Err(self.broken(format!("ended with status {}: {line}", output.status)));
        }
        let report = serde_json::from_slice(&output.stdout)
            .map_err(|error| self.broken(format!("its report is not understood: {error}")))?;
        match report {
            CompileReport::Compiled(compiled) => Ok(compiled),
            CompileReport::Failed(failure) => Err(Error::Failure {
                program: format!("{} {}", self.helper.doing, self.module.name()),
                failure,
            }),
        }
    }

    fn out_of_time(&self) -> Error {
        Error::CompileBound {
            module: self.module.name().to_owned(),
            bound: format!("took longer than {} s", self.limit.as_secs()),
            key: "CompileTimeoutSeconds",
        }
    }

    fn broken(&self, what: String) -> Error {
        Error::Program {
            program: self.helper.program.to_owned(),
            what,
        }
    }
}

/// The signal of a program that ended by a fault of its own. SIGKILL and SIGXCPU are bounds, the others
/// somebody's wish.
fn crash(status: u32) -> Option<u32> {
    use nix::libc::{SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV};
    let signal = status.checked_sub(128)?;
    [SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV]
        .contains(&signal.cast_signed())
        .then_some(signal)
}

/// A place for an artifact: on the disk, or in memory where that cannot be.
async fn stage(cache: &Arc<Cache>) -> Result<Staged> {
    let cache = Arc::clone(cache);
    blocking(move || {
        cache
            .stage()
            .or_else(|error| {
                tracing::warn!(
                    error = crate::chain(&error),
                    "this module is compiled into memory"
                );
                cache.stage_in_memory()
            })
            .map_err(Error::from)
    })
    .await
}

impl From<Entry> for Artifact {
    fn from(entry: Entry) -> Self {
        Self {
            file: entry.artifact.into(),
            compiled: entry.meta.compiled,
        }
    }
}

/// The helper reads from the start; looking at the module's first bytes has moved the offset, which
/// duplicates of a descriptor share.
fn rewind(module: &OwnedFd) -> Result<()> {
    nix::unistd::lseek(module, 0, nix::unistd::Whence::SeekSet)
        .map(drop)
        .map_err(|error| Error::System {
            what: "rewind the module".to_owned(),
            source: error.into(),
        })
}

/// Runs what may wait for a disk or a lock beside the event loop.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::System {
            what: "finish a task".to_owned(),
            source: io::Error::other(error),
        })?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_is_a_signal_that_a_program_earns_itself() {
        for (status, signal) in [
            (0, None),
            (1, None),
            (127, None),
            (128 + 9, None),
            (128 + 15, None),
            (128 + 24, None),
            (128 + 4, Some(4)),
            (128 + 6, Some(6)),
            (128 + 11, Some(11)),
        ] {
            assert_eq!(crash(status), signal, "{status}");
        }
    }
}
