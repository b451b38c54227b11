//! A container and its task, through containerd's client API.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use containerd_client::services::v1::container::Runtime as ContainerRuntime;
use containerd_client::services::v1::snapshots::{PrepareSnapshotRequest, RemoveSnapshotRequest};
use containerd_client::services::v1::{
    CloseIoRequest, Container, CreateContainerRequest, CreateTaskRequest, DeleteContainerRequest,
    DeleteProcessRequest, DeleteTaskRequest, ExecProcessRequest, GetRequest, KillRequest,
    ListPidsRequest, MetricsRequest, PauseTaskRequest, ResizePtyRequest, ResumeTaskRequest,
    StartRequest, UpdateTaskRequest, WaitRequest,
};
use containerd_client::types::Mount;
use containerd_client::types::v1::Process;
use prost_types::Any;
use serde_json::Value;

use crate::client::{block_on, in_namespace};
use crate::images::{SNAPSHOTTER, gc_root, unpack};
use crate::node::NAMESPACE;
use crate::{Ctx, Fifos, Image, LONG, Node, Runtime, SHORT, SpecBuilder, Status};

/// Type of a runtime spec in a message.
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
const RESOURCES_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

/// What a task is made of beside its image.
#[derive(Clone, Default)]
pub struct TaskOptions {
    /// Arguments behind the image's entrypoint.
    pub args: Vec<String>,
    /// Connect stdin.
    pub stdin: bool,
    /// Give the process a terminal.
    pub terminal: bool,
    /// Where output goes instead of the FIFOs: a `file://` or `binary://` URI.
    pub log: Option<String>,
    /// How long the caller of Create waits.
    pub patience: Option<Duration>,
    /// Changes the spec at last.
    pub spec: Option<fn(SpecBuilder) -> SpecBuilder>,
}

impl TaskOptions {
    /// With these arguments.
    pub fn args<S: Into<String>>(args: impl IntoIterator<Item = S>) -> Self {
        Self {
            args: args.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// Connects stdin.
    #[must_use]
    pub fn stdin(mut self) -> Self {
        self.stdin = true;
        self
    }

    /// Sends output to a `file://` or `binary://` URI. The FIFOs stay silent, so wait with
    /// [`Task::wait_code`].
    #[must_use]
    pub fn log(mut self, uri: impl Into<String>) -> Self {
        self.log = Some(uri.into());
        self
    }

    /// Gives Create up after this time, as a client whose own deadline is over.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Asks for a terminal.
    #[must_use]
    pub fn terminal(mut self) -> Self {
        self.terminal = true;
        self
    }
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Exit status: own code, or 128 + signal.
    pub code: u32,
    /// Everything from stdout.
    pub stdout: String,
    /// Everything from stderr; empty with a terminal.
    pub stderr: String,
}

/// See the module. Removed with its context, not when dropped.
pub struct Task<'a> {
    ctx: &'a Ctx,
    /// Container id.
    pub id: String,
    /// Process id that Create gave.
    pub pid: u32,
    /// stdio of the init.
    pub io: Fifos,
    execs: Mutex<HashMap<String, Fifos>>,
}

type Answer<T> = Result<T, Status>;

impl<'a> Task<'a> {
    /// Container with the spec given, on a snapshot of `image`; no task yet.
    pub(crate) fn make_container(
        ctx: &Ctx,
        id: &str,
        image: &Image,
        build: impl FnOnce(SpecBuilder) -> SpecBuilder,
        args: &[String],
    ) -> Answer<Vec<Mount>> {
        let node = ctx.node();
        image.import(node, NAMESPACE);
        let resolved = image.resolve(node, NAMESPACE)?;
        let parent = unpack(node, NAMESPACE, &resolved)?;
        let prepare = PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: id.to_owned(),
            parent,
            labels: gc_root(),
        };
        let mounts = block_on(
            node.client()
                .snapshots()
                .prepare(in_namespace(prepare, NAMESPACE)),
        )?;
        let mut spec = SpecBuilder::new(resolved.args.iter().chain(args).cloned());
        for variable in &resolved.env {
            spec = spec.env(variable);
        }
        if !resolved.cwd.is_empty() {
            spec = spec.cwd(&resolved.cwd);
        }
        if let Some(profile) = ctx.runtime().profile() {
            spec = spec.annotation("wasmlet.dev/profile", profile);
        }
        let spec = build(spec.cgroup(&format!("{}/{id}", node.cgroup())));
        let container = Container {
            id: id.to_owned(),
            image: image.name.clone(),
            runtime: Some(ContainerRuntime {
                name: ctx.runtime().containerd_type().to_owned(),
                options: ctx.runtime_options(),
            }),
            spec: Some(json_any(SPEC_TYPE, spec.value())),
            snapshotter: SNAPSHOTTER.to_owned(),
            snapshot_key: id.to_owned(),
            ..Container::default()
        };
        let request = CreateContainerRequest {
            container: Some(container),
        };
        block_on(
            node.client()
                .containers()
                .create(in_namespace(request, NAMESPACE)),
        )?;
        Ok(mounts.into_inner().mounts)
    }

    /// Creates the task of a container made before.
    pub(crate) fn create(
        ctx: &'a Ctx,
        id: &str,
        rootfs: Vec<Mount>,
        options: &TaskOptions,
    ) -> Answer<Self> {
        let TaskOptions {
            stdin, terminal, ..
        } = *options;
        let io = Fifos::make(&ctx.node().base().join("fifo"), id, stdin, terminal);
        let output = |fifo: &crate::Reader| {
            let log = options.log.clone();
            log.unwrap_or_else(|| path_of(Some(fifo.path())))
        };
        let request = CreateTaskRequest {
            container_id: id.to_owned(),
            rootfs,
            stdin: path_of(io.stdin.as_deref()),
            stdout: output(&io.stdout),
            stderr: io.stderr.as_ref().map(output).unwrap_or_default(),
            terminal,
            ..CreateTaskRequest::default()
        };
        let mut request = in_namespace(request, NAMESPACE);
        if let Some(patience) = options.patience {
            request.set_timeout(patience);
        }
        let reply = ctx.tasks(async |mut tasks| tasks.create(request).await)?;
        Ok(Self {
            ctx,
            id: id.to_owned(),
            pid: reply.pid,
            io,
            execs: Mutex::default(),
        })
    }

    /// Starts the init; gives its process id.
    pub fn start(&self) -> Answer<u32> {
        let request = StartRequest {
            container_id: self.id.clone(),
            ..StartRequest::default()
        };
        let reply = self
            .ctx
            .tasks(async |mut tasks| tasks.start(in_namespace(request, NAMESPACE)).await)?;
        Ok(reply.pid)
    }

    /// Waits for the init's end; gives its status.
    pub fn wait_code(&self, within: Duration) -> Answer<u32> {
        self.wait_process("", within)
    }

    fn wait_process(&self, exec: &str, within: Duration) -> Answer<u32> {
        let request = WaitRequest {
            container_id: self.id.clone(),
            exec_id: exec.to_owned(),
        };
        let reply = self.ctx.tasks_within(within, async |mut tasks| {
            tasks.wait(in_namespace(request, NAMESPACE)).await
        })?;
        Ok(reply.exit_status)
    }

    /// Waits for the init's end and for the end of its output.
    #[track_caller]
    pub fn wait(&self) -> Exit {
        let code = match self.wait_code(LONG) {
            Ok(code) => code,
            Err(status) => panic!("cannot wait for {}: {status}", self.id),
        };
        let stdout = self.io.stdout.end(LONG);
        let stderr = self
            .io
            .stderr
            .as_ref()
            .map(|stderr| stderr.end(LONG))
            .unwrap_or_default();
        Exit {
            code,
            stdout,
            stderr,
        }
    }

    /// Sends a signal to the init.
    pub fn kill(&self, signal: i32) -> Answer<()> {
        self.kill_process("", signal, false)
    }

    /// Sends a signal to every process of the container.
    pub fn kill_all(&self, signal: i32) -> Answer<()> {
        self.kill_process("", signal, true)
    }

    /// Sends a signal to an exec.
    pub fn kill_exec(&self, exec: &str, signal: i32) -> Answer<()> {
        self.kill_process(exec, signal, false)
    }

    fn kill_process(&self, exec: &str, signal: i32, all: bool) -> Answer<()> {
        let request = KillRequest {
            container_id: self.id.clone(),
            exec_id: exec.to_owned(),
            signal: signal.cast_unsigned(),
            all,
        };
        self.ctx
            .tasks(async |mut tasks| tasks.kill(in_namespace(request, NAMESPACE)).await)
    }

    /// Deletes the task; gives its exit status.
    pub fn delete(&self) -> Answer<u32> {
        let request = DeleteTaskRequest {
            container_id: self.id.clone(),
        };
        let reply = self
            .ctx
            .tasks(async |mut tasks| tasks.delete(in_namespace(request, NAMESPACE)).await)?;
        Ok(reply.exit_status)
    }

    /// State of the init.
    pub fn state(&self) -> Answer<Process> {
        let request = GetRequest {
            container_id: self.id.clone(),
            ..GetRequest::default()
        };
        let reply = self
            .ctx
            .tasks(async |mut tasks| tasks.get(in_namespace(request, NAMESPACE)).await)?;
        reply
            .process
            .ok_or_else(|| Status::data_loss("a reply without a process"))
    }

    /// Freezes the container.
    pub fn pause(&self) -> Answer<()> {
        let request = PauseTaskRequest {
            container_id: self.id.clone(),
        };
        self.ctx
            .tasks(async |mut tasks| tasks.pause(in_namespace(request, NAMESPACE)).await)
    }

    /// Thaws the container.
    pub fn resume(&self) -> Answer<()> {
        let request = ResumeTaskRequest {
            container_id: self.id.clone(),
        };
        self.ctx
            .tasks(async |mut tasks| tasks.resume(in_namespace(request, NAMESPACE)).await)
    }

    /// Process ids of the container.
    pub fn pids(&self) -> Answer<Vec<u32>> {
        let request = ListPidsRequest {
            container_id: self.id.clone(),
        };
        let reply = self
            .ctx
            .tasks(async |mut tasks| tasks.list_pids(in_namespace(request, NAMESPACE)).await)?;
        Ok(reply.processes.iter().map(|process| process.pid).collect())
    }

    /// Changes limits, in the form of `linux.resources`.
    pub fn update(&self, resources: &Value) -> Answer<()> {
        let request = UpdateTaskRequest {
            container_id: self.id.clone(),
            resources: Some(json_any(RESOURCES_TYPE, resources)),
            ..UpdateTaskRequest::default()
        };
        self.ctx
            .tasks(async |mut tasks| tasks.update(in_namespace(request, NAMESPACE)).await)
    }

    /// The metrics message as the shim sent it.
    pub fn stats(&self) -> Answer<Any> {
        let request = MetricsRequest {
            filters: vec![format!("id=={}", self.id)],
        };
        let reply = self
            .ctx
            .tasks(async |mut tasks| tasks.metrics(in_namespace(request, NAMESPACE)).await)?;
        let metric = reply.metrics.into_iter().next();
        let data = metric
            .ok_or_else(|| Status::not_found("no metric for the task"))?
            .data;
        data.ok_or_else(|| Status::not_found("a metric without data"))
    }

    /// Says that stdin has ended.
    pub fn close_io(&self) -> Answer<()> {
        let request = CloseIoRequest {
            container_id: self.id.clone(),
            stdin: true,
            ..CloseIoRequest::default()
        };
        self.ctx
            .tasks(async |mut tasks| tasks.close_io(in_namespace(request, NAMESPACE)).await)
    }

    /// Sets the terminal's size.
    pub fn resize(&self, width: u32, height: u32) -> Answer<()> {
        self.resize_exec("", width, height)
    }

    /// Sets the size of an exec's terminal.
    pub fn resize_exec(&self, exec: &str, width: u32, height: u32) -> Answer<()> {
        let request = ResizePtyRequest {
            container_id: self.id.clone(),
            exec_id: exec.to_owned(),
            width,
            height,
        };
        self.ctx
            .tasks(async |mut tasks| tasks.resize_pty(in_namespace(request, NAMESPACE)).await)
    }

    /// Adds another process; it starts with [`Self::start_exec`].
    pub fn exec(&self, exec: &str, args: &[&str], stdin: bool) -> Answer<()> {
        self.add_exec(exec, SpecBuilder::new(args.iter().copied()), stdin)
    }

    /// Adds another process on a terminal of its own, with stdin; it starts with
    /// [`Self::start_exec`].
    pub fn exec_on_terminal(&self, exec: &str, args: &[&str]) -> Answer<()> {
        self.add_exec(
            exec,
            SpecBuilder::new(args.iter().copied()).terminal(),
            true,
        )
    }

    fn add_exec(&self, exec: &str, spec: SpecBuilder, stdin: bool) -> Answer<()> {
        let process = &spec.value()["process"];
        let terminal = process["terminal"] == true;
        let dir = self.ctx.node().base().join("fifo");
        let io = Fifos::make(&dir, &format!("{}-{exec}", self.id), stdin, terminal);
        let request = ExecProcessRequest {
            container_id: self.id.clone(),
            exec_id: exec.to_owned(),
            stdin: path_of(io.stdin.as_deref()),
            stdout: path_of(Some(io.stdout.path())),
            stderr: path_of(io.stderr.as_ref().map(crate::Reader::path)),
            terminal,
            spec: Some(json_any(PROCESS_TYPE, process)),
        };
        self.ctx
            .tasks(async |mut tasks| tasks.exec(in_namespace(request, NAMESPACE)).await)?;
        self.execs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(exec.to_owned(), io);
        Ok(())
    }

    /// Starts an exec; gives its process id.
    pub fn start_exec(&self, exec: &str) -> Answer<u32> {
        let request = StartRequest {
            container_id: self.id.clone(),
            exec_id: exec.to_owned(),
        };
        let reply = self
            .ctx
            .tasks(async |mut tasks| tasks.start(in_namespace(request, NAMESPACE)).await)?;
        Ok(reply.pid)
    }

    /// Works with the stdio of an exec that was added.
    #[track_caller]
    pub fn with_exec_io<T>(&self, exec: &str, work: impl FnOnce(&Fifos) -> T) -> T {
        let execs = self.execs.lock().unwrap_or_else(PoisonError::into_inner);
        work(execs.get(exec).expect("the exec was added"))
    }

    /// Waits for an exec's end.
    #[track_caller]
    pub fn wait_exec(&self, exec: &str) -> Exit {
        let code = match self.wait_process(exec, LONG) {
            Ok(code) => code,
            Err(status) => panic!("cannot wait for exec {exec} of {}: {status}", self.id),
        };
        self.with_exec_io(exec, |io| {
            let stdout = io.stdout.end(LONG);
            let stderr = io
                .stderr
                .as_ref()
                .map(|stderr| stderr.end(LONG))
                .unwrap_or_default();
            Exit {
                code,
                stdout,
                stderr,
            }
        })
    }

    /// Waits for an exec's end but not for that of its output, which its children may hold.
    #[track_caller]
    pub fn wait_code_of(&self, exec: &str) -> u32 {
        match self.wait_process(exec, LONG) {
            Ok(code) => code,
            Err(status) => panic!("cannot wait for exec {exec} of {}: {status}", self.id),
        }
    }

    /// Deletes an exec that has ended.
    pub fn delete_exec(&self, exec: &str) -> Answer<u32> {
        let request = DeleteProcessRequest {
            container_id: self.id.clone(),
            exec_id: exec.to_owned(),
        };
        let reply = self.ctx.tasks(async |mut tasks| {
            tasks.delete_process(in_namespace(request, NAMESPACE)).await
        })?;
        Ok(reply.exit_status)
    }

    /// Waits for the last of these events (without the `/tasks/`) and checks that they were all, in
    /// this order.
    #[track_caller]
    pub fn assert_topics(&self, expected: &[&str]) {
        let mut expected = expected.to_vec();
        if self.ctx.runtime() == Runtime::Runc && expected.last() == Some(&"delete") {
            // Its shim may end before its last event has left.
            expected.pop();
        }
        if let Some(last) = expected.last() {
            self.ctx.events().wait(&self.id, last, SHORT);
        }
        let mut topics = self.topics();
        if self.ctx.runtime() == Runtime::Runc {
            topics.truncate(expected.len());
        }
        assert_eq!(topics, expected);
    }

    /// Events of this container so far, without the `/tasks/`.
    pub fn topics(&self) -> Vec<String> {
        self.ctx.events().topics(&self.id)
    }
}

pub(crate) fn json_any(kind: &str, value: &Value) -> Any {
    Any {
        type_url: kind.to_owned(),
        value: value.to_string().into_bytes(),
    }
}

fn path_of(path: Option<&std::path::Path>) -> String {
    path.map(|path| path.display().to_string())
        .unwrap_or_default()
}

pub(crate) fn remove_snapshot(node: &Node, namespace: &str, key: &str) -> Answer<()> {
    let request = RemoveSnapshotRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        key: key.to_owned(),
    };
    block_on(
        node.client()
            .snapshots()
            .remove(in_namespace(request, namespace)),
    )
    .map(drop)
}

pub(crate) fn remove_container(node: &Node, namespace: &str, id: &str) -> Answer<()> {
    let request = DeleteContainerRequest { id: id.to_owned() };
    block_on(
        node.client()
            .containers()
            .delete(in_namespace(request, namespace)),
    )
    .map(drop)
}
