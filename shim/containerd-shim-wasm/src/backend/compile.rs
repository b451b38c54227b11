//! From a module to an artifact: the cache, and on a miss the engine's compile helper.
//!
//! The helper is a process of its own in the node's compile cgroup ([`super::compile_cgroup`]), because
//! compiling does not fit into the limits of the pod that needs it: a 15 MB module took 430 MB. Its time
//! is bounded, and of many starts of one module one compiles while the others wait for the entry. Nobody
//! holds a module's lock while it waits for a place to compile at, and every wait has an end.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use wasmlet_cache::{Cache, Digest, Entry, Key, KeyLock, Staged};
use wasmlet_protocol::{CompileReport, CompileRequest, Compiled, FailureReason, PROTOCOL, fd};

use super::compile_cgroup::{CompileCgroup, Slot, Slots};
use super::program::{self, Output};
use super::runner::descriptor;
use crate::annotations::{DEFAULT_PROFILE, Settings};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::options::{CompileBounds, Options};
use crate::reaper::Reaper;

/// Version of what is kept as facts about a module: this build's, whose parser read it.
const FACTS_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " 1");

/// Time for one module when the node's options say nothing.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

/// Between two looks whether it is this process's turn: grows from the first to the second. The end of
/// who has it is no event on any descriptor.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

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

/// Those who wait to compile.
struct Queue {
    slots: Slots,
    patience: Duration,
}

/// The end of a wait.
#[derive(Debug)]
enum Turn {
    /// Somebody else has compiled it.
    Done(Entry),
    /// This process does.
    Ours(KeyLock, Slot),
}

/// A look at the queue.
enum Look {
    Turn(Box<Turn>),
    /// Somebody compiles this very module.
    SameModule,
    /// All places are taken.
    NoPlace,
}

impl Queue {
    /// Waits until the module is compiled, or can be by this process: both its lock and a place are
    /// taken, or neither.
    async fn turn(&self, cache: &Arc<Cache>, key: Key, module: &str) -> Result<Turn> {
        let start = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut no_place: Option<Instant> = None;
        loop {
            let (of_task, slots) = (Arc::clone(cache), self.slots.clone());
            let look = blocking(move || look(&of_task, &key, &slots)).await?;
            if let Look::Turn(turn) = look {
                return Ok(*turn);
            }
            if matches!(look, Look::NoPlace) {
                no_place = Some(Instant::now());
            }
            let left = self.patience.saturating_sub(start.elapsed());
            if left.is_zero() {
                // Others who wait for a place hold the module's lock for the moment of their look.
                let missing = match no_place {
                    Some(at) if at.elapsed() < LONGEST_PAUSE * 20 => Missing::Place,
                    _ => Missing::Lock,
                };
                return Err(self.too_long(module, missing));
            }
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn too_long(&self, module: &str, what: Missing) -> Error {
        let seconds = self.patience.as_secs();
        let (bound, key) = match what {
            Missing::Lock => (
                format!("for another container has not come to an end in {seconds} s"),
                "CompileTimeoutSeconds",
            ),
            Missing::Place => (
                format!(
                    "did not begin within {seconds} s, as other modules took all {} places for \
                     compiling on this node",
                    self.slots.count()
                ),
                "CompileCpus",
            ),
        };
        Error::CompileBound {
            module: module.to_owned(),
            bound,
            key,
        }
    }
}

/// What a wait ended without.
enum Missing {
    /// The module's lock.
    Lock,
    /// A place.
    Place,
}

fn look(cache: &Cache, key: &Key, slots: &Slots) -> Result<Look> {
    let Some(lock) = cache.try_lock(key)? else {
        return Ok(Look::SameModule);
    };
    if let Some(entry) = cache.lookup_locked(&lock)? {
        return Ok(Look::Turn(Box::new(Turn::Done(entry))));
    }
    Ok(match slots.try_take()? {
        Some(slot) => Look::Turn(Box::new(Turn::Ours(lock, slot))),
        None => Look::NoPlace,
    })
}

/// A program that reads a module on descriptor 0 and reports on descriptor 1.
#[derive(Clone, Copy)]
struct Helper<'a> {
    program: &'a Path,
    verb: &'static str,
    /// For messages.
    doing: &'static str,
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

    async fn run(&self, staged: &Staged) -> Result<Compiled> {
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
    use wasmlet_protocol::GuestKind;

    use super::super::compile_cgroup::tests::slots;
    use super::*;

    /// A cache, a module that is not in it, and a queue with one place.
    struct Node {
        _folder: tempfile::TempDir,
        cache: Arc<Cache>,
        key: Key,
        queue: Queue,
    }

    fn node(patience: Duration) -> Node {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(wasmlet_cache::Options {
            dir: folder.path().join("cache"),
            run_dir: folder.path().join("run"),
            ..wasmlet_cache::Options::default()
        })
        .expect("a new cache");
        let digest = "ab".repeat(32).parse().expect("a digest");
        Node {
            cache: Arc::new(cache),
            key: Key::new(&digest, "engine", "compatibility", "build", "default"),
            queue: Queue {
                slots: slots(folder.path(), 1),
                patience,
            },
            _folder: folder,
        }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime")
            .block_on(future)
    }

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(30);

    #[test]
    fn without_a_free_place_a_wait_ends_with_what_to_do_and_leaves_the_module_to_others() {
        let node = node(SHORT);
        let _taken = node.queue.slots.try_take().expect("works").expect("free");
        let error = run(node.queue.turn(&node.cache, node.key, "/a.wasm")).expect_err("no place");
        let text = error.to_string();
        assert!(
            text.starts_with("compiling /a.wasm did not begin within 0 s"),
            "{text}"
        );
        assert!(
            text.contains("all 1 places") && text.contains("CompileCpus"),
            "{text}"
        );
        let lock = node.cache.try_lock(&node.key).expect("works");
        assert!(lock.is_some(), "the module's lock is free");
    }

    #[test]
    fn a_module_that_somebody_compiles_is_waited_for_without_a_place() {
        let node = node(SHORT);
        let _compiles = node
            .cache
            .try_lock(&node.key)
            .expect("works")
            .expect("free");
        let error = run(node.queue.turn(&node.cache, node.key, "/a.wasm")).expect_err("locked");
        assert!(
            error.to_string().contains("CompileTimeoutSeconds"),
            "{error}"
        );
        let slot = node.queue.slots.try_take().expect("works");
        assert!(slot.is_some(), "the place is free");
    }

    #[test]
    fn a_place_that_becomes_free_is_taken() {
        let node = node(LONG);
        let taken = node.queue.slots.try_take().expect("works").expect("free");
        let turn = run(async {
            let wait = node.queue.turn(&node.cache, node.key, "/a.wasm");
            let free = async move {
                tokio::task::yield_now().await;
                drop(taken);
            };
            tokio::join!(wait, free).0
        });
        assert!(matches!(turn, Ok(Turn::Ours(..))), "{turn:?}");
        assert!(node.queue.slots.try_take().expect("works").is_none());
    }

    #[test]
    fn what_somebody_else_compiled_is_used_although_no_place_is_free() {
        let node = node(LONG);
        let _taken = node.queue.slots.try_take().expect("works").expect("free");
        let lock = node
            .cache
            .try_lock(&node.key)
            .expect("works")
            .expect("free");
        let staged = node.cache.stage().expect("an empty file");
        io::Write::write_all(&mut staged.file(), b"artifact").expect("there is room");
        let compiled = Compiled {
            kind: GuestKind::Module,
            exports: Vec::new(),
            wants_listener: false,
            needs: wasmlet_protocol::Needs::default(),
            min_memory: 0,
            peak_memory: 0,
            millis: 0,
        };
        let turn = run(async {
            let wait = node.queue.turn(&node.cache, node.key, "/a.wasm");
            let publish = async {
                tokio::task::yield_now().await;
                node.cache
                    .publish(&lock, staged, compiled)
                    .expect("published");
                drop(lock);
            };
            tokio::join!(wait, publish).0
        });
        assert!(matches!(turn, Ok(Turn::Done(_))), "{turn:?}");
    }
}
