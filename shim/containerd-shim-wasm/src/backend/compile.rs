//! From a module to an artifact: the cache, and on a miss the engine's compile helper.
//!
//! The helper is a process of its own in the node's compile cgroup ([`super::compile_cgroup`]), because
//! compiling does not fit into the limits of the pod that needs it: a 15 MB module took 430 MB. Its time
//! is bounded, and of many starts of one module one compiles while the others wait for the entry.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use wasmlet_cache::{Cache, Digest, Entry, Key, KeyLock, Staged};
use wasmlet_protocol::{CompileReport, CompileRequest, Compiled, FailureReason, PROTOCOL, fd};

use super::compile_cgroup::{CompileCgroup, Slot};
use super::program::{self, Output};
use super::runner::descriptor;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::options::{CompileBounds, Options};
use crate::reaper::Reaper;

/// Time for one module when the node's options say nothing.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

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

/// The artifact of a module for an engine and profile, compiled if it has to be.
///
/// # Errors
/// What is wrong with the module, which bound was hit, or what of the node failed.
pub async fn artifact(
    cache: Arc<Cache>,
    module: Module,
    engine: &Engine,
    profile: &str,
    bounds: &CompileBounds,
    reaper: &Reaper,
) -> Result<Artifact> {
    let key_profile = engine.profile(Some(profile))?;
    let (name, compatibility) = (key_profile.name.clone(), key_profile.compatibility.clone());
    let (engine_name, build_id) = (
        engine.description.engine.clone(),
        engine.description.build_id.clone(),
    );
    let of_task = Arc::clone(&cache);
    let (module, digest, key, warm) = blocking(move || {
        let digest = match module.digest {
            Some(digest) => digest,
            None => Digest::of_file(&module.file).map_err(Error::system("read the module"))?,
        };
        let key = Key::new(&digest, &engine_name, &compatibility, &build_id, &name);
        let entry = of_task.lookup(&key)?;
        Ok((module, digest, key, entry))
    })
    .await?;
    if let Some(entry) = warm {
        return Ok(entry.into());
    }

    let limit = bounds
        .compile_timeout_seconds
        .map_or(DEFAULT_TIMEOUT, Duration::from_secs);
    // Whoever holds the lock compiles for at most `limit`.
    let deadline = Instant::now() + limit * 2;
    let of_task = Arc::clone(&cache);
    let (lock, entry) = blocking(move || {
        let lock = of_task.lock_until(&key, deadline)?;
        let entry = of_task.lookup_locked(&lock)?;
        Ok((lock, entry))
    })
    .await?;
    if let Some(entry) = entry {
        return Ok(entry.into());
    }
    let job = Job {
        module: &module,
        digest,
        engine,
        profile,
        limit,
        bounds,
        reaper,
    };
    job.compile(cache, lock).await
}

struct Job<'a> {
    module: &'a Module,
    digest: Digest,
    engine: &'a Engine,
    profile: &'a str,
    limit: Duration,
    bounds: &'a CompileBounds,
    reaper: &'a Reaper,
}

impl Job<'_> {
    async fn compile(&self, cache: Arc<Cache>, lock: KeyLock) -> Result<Artifact> {
        let of_task = Arc::clone(&cache);
        let staged = blocking(move || {
            of_task
                .stage()
                .or_else(|error| {
                    tracing::warn!(
                        error = crate::chain(&error),
                        "this module is compiled into memory"
                    );
                    of_task.stage_in_memory()
                })
                .map_err(Error::from)
        });
        let mut staged = staged.await?;
        let compiled = match self.run(&staged).await {
            Err(Error::Failure { failure, .. }) if failure.reason == FailureReason::DiskFull => {
                tracing::warn!(failure.message, "this module is compiled into memory");
                staged = cache.stage_in_memory()?;
                self.run(&staged).await?
            }
            other => other?,
        };
        tracing::info!(
            module = self.module.name,
            engine = self.engine.description.engine,
            millis = compiled.millis,
            peak_memory = compiled.peak_memory,
            "compiled"
        );
        let module = descriptor(&self.module.file)?;
        let (digest, name) = (self.digest, self.module.name.clone());
        blocking(move || {
            cache.record_compile(&compiled);
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

    async fn run(&self, staged: &Staged) -> Result<Compiled> {
        let cgroup = CompileCgroup::prepare(self.bounds)?;
        let _slot: Slot = blocking(Slot::take).await?;
        let request = CompileRequest {
            protocol: PROTOCOL,
            name: self.module.name.clone(),
            profile: self.profile.to_owned(),
            cgroup_procs: cgroup.procs_files(),
            parent: Some(std::process::id()),
            time_limit_seconds: Some(self.limit.as_secs()),
        };
        let request = serde_json::to_string(&request).map_err(|error| Error::BadRequest {
            what: error.to_string(),
        })?;
        let module = descriptor(&self.module.file)?;
        rewind(&module)?;
        let mut command = cgroup.command(&self.engine.compiler);
        command
            .arg("compile")
            .arg(request)
            .env_clear()
            .stdin(module)
            .stderr(Stdio::piped())
            .fd_mappings(vec![FdMapping {
                parent_fd: descriptor(staged.file())?,
                child_fd: fd::COMPILE_OUTPUT,
            }])
            .map_err(|error| self.broken(error.to_string()))?;
        let output = program::output_within(command, self.reaper, self.limit).await;
        self.judge(output, &cgroup)
    }

    fn judge(&self, output: io::Result<Output>, cgroup: &CompileCgroup) -> Result<Compiled> {
        let output = match output {
            Ok(output) => output,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(Error::CompileBound {
                    module: self.module.name.clone(),
                    bound: format!("took longer than {} s", self.limit.as_secs()),
                    key: "CompileTimeoutSeconds",
                });
            }
            Err(error) => return Err(self.broken(error.to_string())),
        };
        if output.stdout.is_empty() {
            if cgroup.killed_for_memory(output.status) {
                return Err(Error::CompileBound {
                    module: self.module.name.clone(),
                    bound: format!("needs more than {} bytes of memory", cgroup.memory_bytes()),
                    key: "CompileMemoryBytes",
                });
            }
            let line = output.stderr_line();
            return Err(self.broken(format!("ended with status {}: {line}", output.status)));
        }
        let report = serde_json::from_slice(&output.stdout)
            .map_err(|error| self.broken(format!("its report is not understood: {error}")))?;
        match report {
            CompileReport::Compiled(compiled) => Ok(compiled),
            CompileReport::Failed(failure) => Err(Error::Failure {
                program: format!("compiling {}", self.module.name),
                failure,
            }),
        }
    }

    fn broken(&self, what: String) -> Error {
        Error::Program {
            program: self.engine.compiler.clone(),
            what,
        }
    }
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
