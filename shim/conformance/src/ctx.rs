//! One test on one node and one runtime.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{DeleteTaskRequest, KillRequest};
use containerd_client::types::Mount;
use prost_types::Any;
use tonic::Code;
use tonic::transport::Channel;

use crate::client::{block_on, in_namespace};
use crate::node::NAMESPACE;
use crate::task::{remove_container, remove_snapshot};
use crate::{
    Cri, EventLog, Exit, Image, LONG, Node, Oracle, Raw, Runtime, SHORT, Service, SpecBuilder,
    Status, Task, TaskOptions, wait_for,
};

/// What a test works with. [`Ctx::finish`] ends a good one and checks what it left behind.
pub struct Ctx {
    node: Arc<Node>,
    runtime: Runtime,
    tag: String,
    events: EventLog,
    containers: Mutex<Vec<String>>,
    /// containerd namespace and id of every sandbox.
    sandboxes: Mutex<Vec<(String, String)>>,
    /// Cgroups of the pods.
    pod_cgroups: Mutex<Vec<String>>,
    /// Ids of the pods' containers.
    pod_containers: Mutex<Vec<String>>,
    oracle: Oracle,
    log_from: u64,
    finished: bool,
}

impl Ctx {
    /// Begins a test.
    #[track_caller]
    pub fn new(node: Arc<Node>, runtime: Runtime) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // In every id of the test, and in nothing else on this machine.
        let tag = format!("c{:x}n{number}", std::process::id());
        Self {
            events: EventLog::subscribe(node.channel(), NAMESPACE),
            oracle: Oracle::new(&node, &tag),
            log_from: node.log_len(),
            node,
            runtime,
            tag,
            containers: Mutex::default(),
            sandboxes: Mutex::default(),
            pod_cgroups: Mutex::default(),
            pod_containers: Mutex::default(),
            finished: false,
        }
    }

    /// The node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The runtime under test.
    pub fn runtime(&self) -> Runtime {
        self.runtime
    }

    /// Events of the tests' namespace since this test began.
    pub fn events(&self) -> &EventLog {
        &self.events
    }

    /// Text that all ids of this test contain.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The container id for a short name.
    pub fn id(&self, name: &str) -> String {
        format!("{}-{name}", self.tag)
    }

    /// The image of a guest for the runtime under test.
    #[track_caller]
    pub fn image(&self, guest: &str) -> Image {
        Image::of_guest(guest, self.runtime)
    }

    /// A created task of a guest.
    #[track_caller]
    pub fn task(&self, name: &str, guest: &str, options: TaskOptions) -> Task<'_> {
        self.task_with(name, guest, options, |spec| spec)
    }

    /// A created task of a guest, with changes to the spec.
    #[track_caller]
    pub fn task_with(
        &self,
        name: &str,
        guest: &str,
        options: TaskOptions,
        spec: impl FnOnce(SpecBuilder) -> SpecBuilder,
    ) -> Task<'_> {
        match self.try_task(name, &self.image(guest), options, spec) {
            Ok(task) => task,
            Err(status) => panic!("cannot create a task of {guest}: {status}"),
        }
    }

    /// A task of any image, or why it was not created.
    #[track_caller]
    pub fn try_task(
        &self,
        name: &str,
        image: &Image,
        options: TaskOptions,
        spec: impl FnOnce(SpecBuilder) -> SpecBuilder,
    ) -> Result<Task<'_>, Status> {
        let rootfs = self.container(name, image, &options, spec)?;
        Task::create(self, &self.id(name), rootfs, &options)
    }

    /// The container of [`Self::try_task`] without a task; gives the mounts of its root.
    pub fn container(
        &self,
        name: &str,
        image: &Image,
        options: &TaskOptions,
        spec: impl FnOnce(SpecBuilder) -> SpecBuilder,
    ) -> Result<Vec<Mount>, Status> {
        let id = self.id(name);
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(id.clone());
        let build = |builder: SpecBuilder| {
            spec(if options.terminal {
                builder.terminal()
            } else {
                builder
            })
        };
        Task::make_container(self, &id, image, build, &options.args)
    }

    /// A task of a container of [`Self::container`], or why it was not created.
    pub fn create(
        &self,
        name: &str,
        rootfs: Vec<Mount>,
        options: &TaskOptions,
    ) -> Result<Task<'_>, Status> {
        Task::create(self, &self.id(name), rootfs, options)
    }

    /// Another task of a container whose first one was deleted.
    #[track_caller]
    pub fn again(&self, name: &str, rootfs: Vec<Mount>) -> Task<'_> {
        match self.create(name, rootfs, &TaskOptions::default()) {
            Ok(task) => task,
            Err(status) => panic!("cannot create another task of {name}: {status}"),
        }
    }

    /// A created task of a guest that has started and said `ready`.
    #[track_caller]
    pub fn running(&self, name: &str, guest: &str, options: TaskOptions) -> Task<'_> {
        self.running_with(name, guest, options, |spec| spec)
    }

    /// [`Self::running`] with changes to the spec.
    #[track_caller]
    pub fn running_with(
        &self,
        name: &str,
        guest: &str,
        options: TaskOptions,
        spec: impl FnOnce(SpecBuilder) -> SpecBuilder,
    ) -> Task<'_> {
        let task = self.task_with(name, guest, options, spec);
        if let Err(status) = task.start() {
            panic!("cannot start a task of {guest}: {status}");
        }
        task.io.stdout.wait_for("ready", LONG);
        task
    }

    /// Runs a guest to its end and deletes the task.
    #[track_caller]
    pub fn run(&self, name: &str, guest: &str, options: TaskOptions) -> Exit {
        self.run_with(name, guest, options, |spec| spec)
    }

    /// [`Self::run`] with changes to the spec.
    #[track_caller]
    pub fn run_with(
        &self,
        name: &str,
        guest: &str,
        options: TaskOptions,
        spec: impl FnOnce(SpecBuilder) -> SpecBuilder,
    ) -> Exit {
        self.run_image(name, &self.image(guest), options, spec)
    }

    /// Runs an image to its end and deletes the task.
    #[track_caller]
    pub fn run_image(
        &self,
        name: &str,
        image: &Image,
        options: TaskOptions,
        spec: impl FnOnce(SpecBuilder) -> SpecBuilder,
    ) -> Exit {
        let task = match self.try_task(name, image, options, spec) {
            Ok(task) => task,
            Err(status) => panic!("cannot create a task of {}: {status}", image.name),
        };
        if let Err(status) = task.start() {
            panic!("cannot start {}: {status}", task.id);
        }
        let exit = task.wait();
        match task.delete() {
            Ok(code) => assert_eq!(
                code, exit.code,
                "Delete tells another exit status than Wait"
            ),
            Err(status) => panic!("cannot delete {}: {status}", task.id),
        }
        exit
    }

    /// A connection to the shim of the container `name` itself.
    #[track_caller]
    pub fn raw(&self, name: &str, service: Service) -> Raw {
        Raw::of_container(&self.node, NAMESPACE, &self.id(name), service)
    }

    /// The CRI of the node's containerd.
    #[track_caller]
    pub fn cri(&self) -> Cri<'_> {
        Cri::new(self)
    }

    /// Process id of the shim of the container `name`, if there is one now.
    pub fn find_shim(&self, name: &str) -> Option<i32> {
        crate::oracle::shim_of(&self.id(name), &self.node.socket())
    }

    /// What our shims keep below `/run/wasmlet` of the container `name`, one line each.
    pub fn records(&self, name: &str) -> Vec<String> {
        crate::oracle::records_of(&self.id(name))
    }

    /// Removes a container in the middle of a test, with whatever task it has.
    pub fn forget(&self, name: &str) {
        self.remove_container(&self.id(name));
    }

    /// Process id of the shim of the container `name`.
    #[track_caller]
    pub fn shim_pid(&self, name: &str) -> i32 {
        crate::oracle::shim_of(&self.id(name), &self.node.socket())
            .unwrap_or_else(|| panic!("no shim for {}", self.id(name)))
    }

    /// Goes on collecting events after containerd was started again.
    #[track_caller]
    pub fn follow_events(&self) {
        self.events.follow(self.node.channel(), NAMESPACE);
    }

    /// What containerd and the shims logged since the test began.
    pub fn log(&self) -> String {
        self.node.log_from(self.log_from)
    }

    /// Removes what the test made; whatever then is left of it fails the test.
    #[track_caller]
    pub fn finish(mut self) {
        self.finished = true;
        let containers = self.clean_up();
        let mut shims = take(&self.sandboxes);
        for id in shims
            .iter()
            .map(|(_, id)| id)
            .chain(&take(&self.pod_containers))
        {
            self.oracle.also(id);
        }
        shims.extend(containers.into_iter().map(|id| (NAMESPACE.to_owned(), id)));
        let residue = self.oracle.check(SHORT, &shims);
        assert!(residue.is_clean(), "left behind:\n{residue}");
    }

    /// Notes a sandbox, whose shim's socket must be gone in the end.
    pub(crate) fn note_sandbox(&self, namespace: &str, id: &str) {
        let mut sandboxes = self
            .sandboxes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        sandboxes.push((namespace.to_owned(), id.to_owned()));
    }

    /// Notes the cgroup of a pod, which the test removes.
    pub(crate) fn note_pod_cgroup(&self, path: &str) {
        let mut paths = self
            .pod_cgroups
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        paths.push(path.to_owned());
    }

    /// Cgroups of the pods.
    pub(crate) fn pod_cgroups(&self) -> Vec<String> {
        self.pod_cgroups
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Notes a pod's container, whose id carries no tag.
    pub(crate) fn note_pod_container(&self, id: &str) {
        let mut ids = self
            .pod_containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        ids.push(id.to_owned());
    }

    /// Options of the runtime for a container: our settings file, nothing for runc.
    pub fn runtime_options(&self) -> Option<Any> {
        if !self.runtime.is_ours() {
            return None;
        }
        let engine = self.runtime.handler_engine();
        let path = self.node.handler_settings(engine).display().to_string();
        // runtimeoptions.v1.Options, field 2: config_path.
        let mut value = vec![0x12, u8::try_from(path.len()).expect("a short path")];
        value.extend(path.bytes());
        Some(Any {
            type_url: "runtimeoptions.v1.Options".to_owned(),
            value,
        })
    }

    /// The socket of the shim of container `name`.
    pub fn shim_socket(&self, name: &str) -> std::path::PathBuf {
        crate::oracle::socket_of(&self.node.socket(), NAMESPACE, &self.id(name))
    }

    /// Calls the task service; a call that hangs fails.
    pub(crate) fn tasks<T>(
        &self,
        call: impl AsyncFnOnce(TasksClient<Channel>) -> Result<tonic::Response<T>, Status>,
    ) -> Result<T, Status> {
        self.tasks_within(LONG, call)
    }

    pub(crate) fn tasks_within<T>(
        &self,
        within: Duration,
        call: impl AsyncFnOnce(TasksClient<Channel>) -> Result<tonic::Response<T>, Status>,
    ) -> Result<T, Status> {
        let tasks = self.node.client().tasks();
        block_on(async {
            match tokio::time::timeout(within, call(tasks)).await {
                Ok(answer) => answer.map(tonic::Response::into_inner),
                Err(_) => Err(Status::deadline_exceeded(format!(
                    "containerd did not answer within {} s",
                    within.as_secs()
                ))),
            }
        })
    }

    /// Removes containers and pods; gives the ids of the containers.
    fn clean_up(&self) -> Vec<String> {
        crate::cri::remove_pods(self);
        let ids = take(&self.containers);
        for id in &ids {
            self.remove_container(id);
        }
        ids
    }

    fn remove_container(&self, id: &str) {
        let kill = KillRequest {
            container_id: id.to_owned(),
            signal: libc::SIGKILL.cast_unsigned(),
            all: true,
            ..KillRequest::default()
        };
        // No task, or one that has ended, is fine here; what matters is judged below.
        let _ = self.tasks(async |mut t| t.kill(in_namespace(kill, NAMESPACE)).await);
        let gone = wait_for(SHORT, || {
            let delete = DeleteTaskRequest {
                container_id: id.to_owned(),
            };
            match self.tasks(async |mut t| t.delete(in_namespace(delete, NAMESPACE)).await) {
                Err(status) if status.code() == Code::NotFound => Ok(()),
                Ok(_) => Ok(()),
                Err(status) => Err(status),
            }
        });
        if let Err(status) = gone {
            eprintln!("cannot delete task {id}: {status}");
        }
        for removed in [
            remove_container(&self.node, NAMESPACE, id),
            remove_snapshot(&self.node, NAMESPACE, id),
        ] {
            match removed {
                Err(status) if status.code() != Code::NotFound => {
                    eprintln!("cannot remove {id}: {status}");
                }
                _ => {}
            }
        }
    }
}

impl Drop for Ctx {
    fn drop(&mut self) {
        if !self.finished {
            eprintln!(
                "--- log of {} on containerd {}:\n{}\n---",
                self.tag,
                self.node.version().name,
                self.node.log_of(&self.tag)
            );
            let _ = self.clean_up();
        }
    }
}

fn take<T>(list: &Mutex<Vec<T>>) -> Vec<T> {
    std::mem::take(&mut *list.lock().unwrap_or_else(PoisonError::into_inner))
}
