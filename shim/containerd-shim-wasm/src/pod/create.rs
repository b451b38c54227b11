//! Brings a container up, or leaves nothing of it.
//!
//! ```text
//! request ─▶ spec checked, root file system mounted ─▶ routed ─▶ module compiled ─▶ Created
//! ```
//!
//! Whatever fails, each step takes back what it and the steps before it did.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use wasmlet_protocol::{
    Compiled, ContainerRef, CreateRequest as RunnerRequest, Description, GuestKind, PROTOCOL,
};

use super::Context;
use super::choice::{Chooser, Chosen};
use super::process::Process;
use super::request::CreateRequest;
use crate::annotations::{self, DEFAULT_PORT, Listen, Settings};
use crate::backend::compile::{self, Artifact, Module, Variant, Workshop};
use crate::backend::runc::{CreateOptions, ProcessIo, Runc};
use crate::backend::runner::Runner;
use crate::cgroup::Cgroup;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::record::{BackendRecord, Init, Record};
use crate::rootfs::{self, ROOTFS};
use crate::route::{self, First, Route};
use crate::spec::{self, Spec};
use crate::stdio::terminal::{ConsoleSocket, beside};
use crate::stdio::{self, Held, Streams, Use};

/// Who runs the container.
#[derive(Debug)]
pub(crate) enum Backend {
    Wasm {
        runner: Runner,
        /// The runner must start it, because there are hooks to run.
        has_poststart: bool,
        /// What the container's memory limit means for its guest.
        memory: MemoryRule,
    },
    Linux {
        runc: Runc,
        /// Its processes do not end with its init.
        shares_pid_namespace: bool,
    },
}

/// A container that was created.
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) backend: Backend,
    pub(crate) init: Process,
    pub(crate) pid: i32,
    pub(crate) cgroup: Cgroup,
    pub(crate) traces: Traces,
}

/// What a container leaves on the node besides its processes.
#[derive(Debug)]
pub(crate) struct Traces {
    /// Its root file system.
    pub(crate) rootfs: PathBuf,
    /// Where we mounted; none when the bundle brought its root file system, which is not ours to unmount.
    pub(crate) mount_point: Option<PathBuf>,
    pub(crate) record: PathBuf,
}

impl Traces {
    /// Removes them; reports what cannot be removed, and goes on.
    pub(crate) fn remove(&self) -> Result<()> {
        let unmounted = self.unmount();
        if let Err(error) = Record::remove(&self.record) {
            tracing::warn!(path = %self.record.display(), %error, "cannot remove a record");
        }
        unmounted
    }

    fn unmount(&self) -> Result<()> {
        match &self.mount_point {
            Some(mount_point) => rootfs::unmount_all(mount_point).map_err(Error::from),
            None => Ok(()),
        }
    }
}

/// Creates a container.
pub(crate) async fn create(context: &Context, request: &CreateRequest) -> Result<Created> {
    context.paths.create()?;
    let spec = spec::load(&request.bundle)?;
    let process = spec
        .process
        .as_ref()
        .ok_or(Error::SpecIncomplete { field: "process" })?;
    let root = spec
        .root
        .as_ref()
        .ok_or(Error::SpecIncomplete { field: "root" })?;
    if spec.linux.is_none() {
        return Err(Error::SpecIncomplete { field: "linux" });
    }
    if process.args.first().is_none_or(String::is_empty) {
        return Err(Error::SpecIncomplete {
            field: "process.args",
        });
    }
    let mount_point = request.bundle.join(ROOTFS);
    let traces = Traces {
        rootfs: request.bundle.join(&root.path),
        mount_point: (!request.rootfs.is_empty()).then(|| mount_point.clone()),
        record: context.paths.record(&request.id),
    };
    let is_undone = AtomicBool::new(true);
    let attempt = async {
        rootfs::mount_all(&request.rootfs, &mount_point)?;
        let attempt = Attempt {
            context,
            request,
            spec: &spec,
            traces: &traces,
            is_undone: &is_undone,
        };
        attempt.run().await
    };
    match attempt.await {
        Ok((backend, init, pid, cgroup)) => Ok(Created {
            backend,
            init,
            pid,
            cgroup,
            traces,
        }),
        Err(error) => {
            let cleanup = if is_undone.load(Ordering::Relaxed) {
                traces.remove()
            } else {
                // With the record kept, `delete` can try again.
                traces.unmount()
            };
            if let Err(cleanup) = cleanup {
                let cleanup = crate::chain(&cleanup);
                tracing::error!(
                    id = request.id,
                    cleanup,
                    "a failed create left something behind"
                );
            }
            Err(error)
        }
    }
}

struct Attempt<'a> {
    context: &'a Context,
    request: &'a CreateRequest,
    spec: &'a Spec,
    traces: &'a Traces,
    /// Nothing is left of what was begun.
    is_undone: &'a AtomicBool,
}

type Outcome = Result<(Backend, Process, i32, Cgroup)>;

impl Attempt<'_> {
    async fn run(&self) -> Outcome {
        if route::first(self.spec) == First::Sandbox {
            return self.linux().await;
        }
        match self.route()? {
            Route::Linux => self.linux().await,
            Route::File(module) => {
                let func = module.func.clone();
                let name = module.path_in_image.clone();
                let module = Module {
                    file: module.file,
                    name: name.clone(),
                    digest: None,
                };
                let cache = compile::open_cache(&self.request.options).await?;
                self.wasm(cache, module, name, func).await
            }
            Route::Artifact { tried } => {
                let cache = compile::open_cache(&self.request.options).await?;
                let (module, func) = self.layer(&cache, &tried).await?;
                let name = module.name.clone();
                self.wasm(cache, module, name, func).await
            }
        }
    }

    fn route(&self) -> Result<Route> {
        let process = self
            .spec
            .process
            .as_ref()
            .ok_or(Error::SpecIncomplete { field: "process" })?;
        let name = process.args.first().ok_or(Error::SpecIncomplete {
            field: "process.args",
        })?;
        let rootfs = &self.traces.rootfs;
        let is_empty = std::fs::read_dir(rootfs)
            .map_err(Error::system(format!("read {}", rootfs.display())))?
            .next()
            .is_none();
        if is_empty {
            return Ok(Route::Artifact {
                tried: vec![name.clone()],
            });
        }
        let entrypoint = wasmlet_image::rootfs::resolve(
            rootfs,
            name,
            self.spec.env("PATH"),
            &process.cwd.to_string_lossy(),
            &wasmlet_image::Limits::default(),
        )?;
        Ok(route::route(entrypoint, route::Rootfs::Filled))
    }

    /// The wasm layer of an OCI artifact, through a short-lived child: talking to containerd takes
    /// more memory than all the rest of the shim.
    async fn layer(
        &self,
        cache: &wasmlet_cache::Cache,
        tried: &[String],
    ) -> Result<(Module, Option<String>)> {
        let layer = crate::cli::resolve_image::in_child(
            &self.context.address,
            &self.context.namespace,
            &self.request.id,
            cache,
            &self.context.reaper,
        )
        .await?;
        let Some(layer) = layer else {
            let tried = tried.join(", ");
            return Err(Error::Image(format!(
                "there is no {tried} in it, and it is no OCI artifact with a wasm layer"
            )));
        };
        let (layer, file) = layer;
        let func = tried
            .first()
            .and_then(|name| name.split_once('#'))
            .map(|(_, func)| func.to_owned());
        let name = format!("{} sha256:{}", layer.image, layer.digest);
        let module = Module {
            file,
            name,
            digest: Some(layer.digest),
        };
        Ok((module, func.filter(|func| !func.is_empty())))
    }

    async fn wasm(
        &self,
        cache: Arc<wasmlet_cache::Cache>,
        module: Module,
        name: String,
        invoke: Option<String>,
    ) -> Outcome {
        let Self {
            context,
            request,
            spec,
            ..
        } = self;
        let container = spec.annotation(route::CONTAINER_NAME);
        let settings = annotations::parse(&spec.annotations, container)?;
        let workshop = Workshop {
            cache,
            bounds: &request.options.compile,
            reaper: &context.reaper,
            inspector: context.engines.join(crate::PROGRAM),
        };
        let module = workshop.hash(module).await?;
        let chooser = Chooser {
            folder: &context.engines,
            reaper: &context.reaper,
            workshop: &workshop,
            settings: &settings,
            handler: request.options.engine.as_deref(),
        };
        let Chosen {
            engine,
            artifact,
            reason,
        } = chooser.choose(&module).await?;
        tracing::info!(
            id = request.id,
            engine = engine.description.engine,
            reason,
            "engine chosen"
        );
        let memory = MemoryRule::new(&settings, &engine);
        let max_memory = memory.cap(spec.memory_limit())?;
        let listen = listen(&settings, &artifact)?;

        let runner = Runner::new(
            engine.runner.clone(),
            ContainerRef {
                id: request.id.clone(),
                state_root: context.paths.runner_root(),
            },
        );
        self.record(
            BackendRecord::Runner {
                program: engine.runner.clone(),
            },
            None,
        )?;
        let console = self.console()?;
        let runner_request = RunnerRequest {
            protocol: PROTOCOL,
            container: ContainerRef {
                id: request.id.clone(),
                state_root: context.paths.runner_root(),
            },
            bundle: request.bundle.clone(),
            rootfs: self.traces.rootfs.clone(),
            systemd_cgroup: self.systemd_cgroup(),
            console_socket: console.as_ref().map(|socket| socket.path().to_owned()),
            name,
            kind: artifact.compiled.kind,
            args: arguments(spec, invoke.as_deref()),
            invoke,
            profile: Variant::of(&settings).profile,
            max_memory,
            listen,
            fuel: settings.fuel,
            timeout_millis: settings
                .timeout
                .map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
            max_stack: settings.max_stack,
            nn_models: settings.nn_models.clone(),
        };
        let (descriptors, mut held) = match console {
            Some(_) => (None, Held::default()),
            None => {
                let (descriptors, held) = self.streams().await?;
                (Some(descriptors), held)
            }
        };
        let attempt = async {
            let pid = runner
                .create(&runner_request, artifact.file, descriptors, &context.reaper)
                .await?;
            if let Some(console) = console {
                held = Held::with_terminal(console.accept(self.stream_use()).await?);
            }
            let cgroup = Cgroup::of(pid)?;
            self.record(
                BackendRecord::Runner {
                    program: engine.runner.clone(),
                },
                Init::of(pid).ok(),
            )?;
            let init = Process::created(pid, request.streams.clone(), held)?;
            Ok((pid, cgroup, init))
        };
        match attempt.await {
            Ok((pid, cgroup, init)) => {
                let has_poststart = spec
                    .hooks
                    .as_ref()
                    .is_some_and(|hooks| !hooks.poststart.is_empty());
                Ok((
                    Backend::Wasm {
                        runner,
                        has_poststart,
                        memory,
                    },
                    init,
                    pid,
                    cgroup,
                ))
            }
            // A runner that says why has removed everything; it may have refused because the
            // container is somebody else's.
            Err(error @ Error::Failure { .. }) => Err(error),
            // One that was killed has removed nothing.
            Err(error) => {
                self.note_undo(runner.control("delete", &context.reaper).await);
                Err(error)
            }
        }
    }

    async fn linux(&self) -> Outcome {
        let Self {
            context,
            request,
            spec,
            ..
        } = self;
        let runc = Runc::new(
            request.options.binary_name.as_deref(),
            context.paths.runc_root(),
            self.systemd_cgroup(),
        );
        let backend = BackendRecord::Runc {
            program: runc.program().to_owned(),
            systemd_cgroup: runc.systemd_cgroup(),
        };
        self.record(backend.clone(), None)?;
        let console = self.console()?;
        let mut held = Held::default();
        let io = match &console {
            Some(socket) => ProcessIo::Console(socket.path().to_owned()),
            None => {
                let (descriptors, kept) = self.streams().await?;
                held = kept;
                ProcessIo::Descriptors(descriptors)
            }
        };
        let options = CreateOptions {
            no_pivot_root: request.options.no_pivot_root,
            no_new_keyring: request.options.no_new_keyring,
        };
        let created = runc.create(&request.id, &request.bundle, options, io, &context.reaper);
        let rest = async {
            let pid = match console {
                Some(console) => {
                    let terminal = console.accept(self.stream_use());
                    let (pid, terminal) = beside(created, terminal).await?;
                    held = Held::with_terminal(terminal?);
                    pid
                }
                None => created.await?,
            };
            let cgroup = Cgroup::of(pid)?;
            self.record(backend, Init::of(pid).ok())?;
            let init = Process::created(pid, request.streams.clone(), held)?;
            Ok((pid, cgroup, init))
        };
        match rest.await {
            Ok((pid, cgroup, init)) => {
                let shares_pid_namespace = !spec.has_own_pid_namespace();
                Ok((
                    Backend::Linux {
                        runc,
                        shares_pid_namespace,
                    },
                    init,
                    pid,
                    cgroup,
                ))
            }
            Err(error) => {
                let undo = runc.delete(&request.id, &request.bundle, &context.reaper);
                self.note_undo(undo.await.map_err(Error::from));
                Err(error)
            }
        }
    }

    fn note_undo(&self, undo: Result<()>) {
        if let Err(cleanup) = undo {
            self.is_undone.store(false, Ordering::Relaxed);
            tracing::error!(
                id = self.request.id,
                cleanup = crate::chain(&cleanup),
                "cannot undo a create"
            );
        }
    }

    fn stream_use(&self) -> Use<'_> {
        Use {
            streams: &self.request.streams,
            owner: self.request.options.stream_owner(),
            id: &self.request.id,
            namespace: &self.context.namespace,
            reaper: &self.context.reaper,
        }
    }

    async fn streams(&self) -> Result<(stdio::Descriptors, Held)> {
        Ok(stdio::open(self.stream_use()).await?)
    }

    fn console(&self) -> Result<Option<ConsoleSocket>> {
        let Streams { terminal, .. } = self.request.streams;
        if !terminal {
            return Ok(None);
        }
        Ok(Some(ConsoleSocket::bind(
            self.context.paths.console_socket(&self.request.id, None),
        )?))
    }

    fn systemd_cgroup(&self) -> bool {
        let Options { systemd_cgroup, .. } = self.request.options;
        systemd_cgroup.unwrap_or_else(|| self.spec.has_systemd_cgroup_path())
    }

    fn record(&self, backend: BackendRecord, init: Option<Init>) -> Result<()> {
        let record = Record {
            backend,
            mount_point: self.traces.mount_point.clone(),
            init,
        };
        Ok(record.save(&self.traces.record)?)
    }
}

/// The guest's arguments: its own name without the function, then the rest.
fn arguments(spec: &Spec, invoke: Option<&str>) -> Vec<String> {
    let mut args = spec
        .process
        .as_ref()
        .map(|process| process.args.clone())
        .unwrap_or_default();
    if let (Some(first), Some(function)) = (args.first_mut(), invoke)
        && let Some(path) = first
            .strip_suffix(function)
            .and_then(|rest| rest.strip_suffix('#'))
    {
        *first = path.to_owned();
    }
    args
}

/// The cap on linear memory: what the pod asks for, and at most the container's limit less what the
/// runner itself needs, so that the guest sees `memory.grow` fail before the kernel kills it.
#[derive(Debug)]
pub(crate) struct MemoryRule {
    /// `wasmlet.dev/memory`.
    asked: Option<u64>,
    description: Box<Description>,
}

impl MemoryRule {
    fn new(settings: &Settings, engine: &Engine) -> Self {
        Self {
            asked: settings.memory,
            description: Box::new(engine.description.clone()),
        }
    }

    /// The cap in bytes for a memory limit of the container.
    ///
    /// # Errors
    /// When the runner alone does not fit.
    pub(crate) fn cap(&self, limit: Option<u64>) -> Result<Option<u64>> {
        let Some(limit) = limit else {
            return Ok(self.asked);
        };
        let room = self.description.linear_memory(limit);
        if room == 0 {
            return Err(Error::LimitTooSmall {
                limit,
                engine: self.description.engine.clone(),
                reserve: self.description.memory_reserve,
            });
        }
        Ok(Some(self.asked.map_or(room, |memory| memory.min(room))))
    }
}

fn listen(settings: &Settings, artifact: &Artifact) -> Result<Option<SocketAddr>> {
    let Compiled {
        kind,
        wants_listener,
        ..
    } = artifact.compiled;
    let address = match settings.listen {
        Listen::At(_) if kind == GuestKind::Component && !wants_listener => {
            return Err(Error::BadRequest {
                what: "wasmlet.dev/listen: this component serves nothing, as it does not export \
                       wasi:http/incoming-handler; remove the annotation"
                    .to_owned(),
            });
        }
        Listen::At(address) => Some(address),
        Listen::IfWanted if wants_listener => {
            Some((std::net::Ipv4Addr::UNSPECIFIED, DEFAULT_PORT).into())
        }
        Listen::IfWanted | Listen::None => None,
    };
    if address.is_some() && settings.timeout.is_some() && kind == GuestKind::Module {
        return Err(Error::BadRequest {
            what:
                "wasmlet.dev/timeout is the time of a run, and this module serves for ever; bound \
                   requests in the program, or build it as a component that exports \
                   wasi:http/incoming-handler, where it is the time of one request"
                    .to_owned(),
        });
    }
    Ok(address)
}
