//! Pods, through the CRI of the node's containerd.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use k8s_cri::v1 as api;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use tonic::transport::Channel;

use crate::client::block_on;
use crate::{Ctx, Image, LONG, Node, SHORT, Status, eventually, wait_for};

/// containerd namespace of the CRI.
pub(crate) const CRI_NAMESPACE: &str = "k8s.io";

/// Label on every pod of a test.
const LABEL: &str = "conformance.wasmlet.test/tag";

/// See the module.
pub struct Cri<'a> {
    ctx: &'a Ctx,
}

/// A running sandbox.
pub struct Pod<'a> {
    cri: Cri<'a>,
    /// Sandbox id.
    pub id: String,
    config: api::PodSandboxConfig,
    pids: Pids,
    log_dir: PathBuf,
}

/// Whose processes a container of a pod sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pids {
    /// Its own.
    OfContainer,
    /// Those of the whole pod (`shareProcessNamespace: true`).
    OfPod,
}

impl Pids {
    fn mode(self) -> i32 {
        match self {
            Self::OfContainer => api::NamespaceMode::Container.into(),
            Self::OfPod => api::NamespaceMode::Pod.into(),
        }
    }
}

/// What a container of a pod is made of.
#[derive(Debug, Clone, Default)]
pub struct PodContainer {
    /// Arguments behind the image's entrypoint.
    pub args: Vec<String>,
    /// Variables.
    pub env: Vec<(String, String)>,
    /// Memory limit in bytes; 0 is none.
    pub memory: i64,
    /// Host folder, folder in the container, read-only.
    pub mounts: Vec<(String, String, bool)>,
}

impl<'a> Cri<'a> {
    #[track_caller]
    pub(crate) fn new(ctx: &'a Ctx) -> Self {
        let cri = Self { ctx };
        cri.import(&Image::pause());
        cri
    }

    fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.ctx.node().channel())
    }

    /// Imports an image and waits until the CRI knows it.
    #[track_caller]
    pub fn import(&self, image: &Image) {
        image.import(self.ctx.node(), CRI_NAMESPACE);
        let mut client = ImageServiceClient::new(self.ctx.node().channel());
        eventually("the CRI knows an imported image", SHORT, || {
            let spec = api::ImageSpec {
                image: image.name.clone(),
                ..Default::default()
            };
            let request = api::ImageStatusRequest {
                image: Some(spec),
                verbose: false,
            };
            match block_on(client.image_status(request)) {
                Ok(reply) if reply.get_ref().image.is_some() => Ok(()),
                Ok(_) => Err(format!("{} is not there", image.name)),
                Err(status) => Err(status.to_string()),
            }
        });
    }

    /// Runs a sandbox in the host's network.
    #[track_caller]
    pub fn pod(&self, name: &str, annotations: &[(&str, &str)]) -> Pod<'a> {
        match self.try_pod(name, annotations) {
            Ok(pod) => pod,
            Err(status) => panic!("cannot run pod {name}: {status}"),
        }
    }

    /// Runs a sandbox whose containers see each other's processes.
    #[track_caller]
    pub fn pod_with_shared_pids(&self, name: &str) -> Pod<'a> {
        match self.run_pod(name, &[], Pids::OfPod) {
            Ok(pod) => pod,
            Err(status) => panic!("cannot run pod {name}: {status}"),
        }
    }

    /// [`Self::pod`], or why it does not run.
    #[track_caller]
    pub fn try_pod(&self, name: &str, annotations: &[(&str, &str)]) -> Result<Pod<'a>, Status> {
        self.run_pod(name, annotations, Pids::OfContainer)
    }

    fn run_pod(
        &self,
        name: &str,
        annotations: &[(&str, &str)],
        pids: Pids,
    ) -> Result<Pod<'a>, Status> {
        let node = self.ctx.node();
        let mut annotations = map(annotations);
        if let Some(profile) = self.ctx.runtime().profile() {
            let key = "wasmlet.dev/profile".to_owned();
            annotations.entry(key).or_insert_with(|| profile.to_owned());
        }
        let uid = self.ctx.id(name);
        let log_dir = node.base().join("log").join(&uid);
        fs::create_dir_all(&log_dir).expect("a folder for logs can be made");
        let options = api::NamespaceOption {
            network: api::NamespaceMode::Node.into(),
            pid: pids.mode(),
            ipc: api::NamespaceMode::Pod.into(),
            ..Default::default()
        };
        let cgroup = format!("{}/{uid}", node.cgroup());
        self.ctx.note_pod_cgroup(&cgroup);
        let config = api::PodSandboxConfig {
            metadata: Some(api::PodSandboxMetadata {
                name: name.to_owned(),
                uid,
                namespace: "conformance".to_owned(),
                attempt: 0,
            }),
            log_directory: log_dir.display().to_string(),
            labels: map(&[(LABEL, self.ctx.tag())]),
            annotations,
            linux: Some(api::LinuxPodSandboxConfig {
                cgroup_parent: cgroup,
                security_context: Some(api::LinuxSandboxSecurityContext {
                    namespace_options: Some(options),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let request = api::RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: self.ctx.runtime().handler().to_owned(),
        };
        let reply = call(self.runtime().run_pod_sandbox(request))?;
        self.ctx.note_sandbox(CRI_NAMESPACE, &reply.pod_sandbox_id);
        Ok(Pod {
            cri: Cri { ctx: self.ctx },
            id: reply.pod_sandbox_id,
            config,
            pids,
            log_dir,
        })
    }
}

impl Pod<'_> {
    /// Creates and starts a container; gives its id.
    #[track_caller]
    pub fn start(&self, name: &str, image: &Image, options: &PodContainer) -> String {
        let id = match self.create(name, image, options) {
            Ok(id) => id,
            Err(status) => panic!("cannot create container {name}: {status}"),
        };
        if let Err(status) = self.start_container(&id) {
            panic!("cannot start container {name}: {status}");
        }
        id
    }

    /// Creates a container; gives its id.
    pub fn create(
        &self,
        name: &str,
        image: &Image,
        options: &PodContainer,
    ) -> Result<String, Status> {
        self.cri.import(image);
        let resources = api::LinuxContainerResources {
            memory_limit_in_bytes: options.memory,
            ..Default::default()
        };
        let config = api::ContainerConfig {
            metadata: Some(api::ContainerMetadata {
                name: name.to_owned(),
                attempt: 0,
            }),
            image: Some(api::ImageSpec {
                image: image.name.clone(),
                ..Default::default()
            }),
            args: options.args.clone(),
            envs: options.env.iter().map(key_value).collect(),
            mounts: options.mounts.iter().map(mount).collect(),
            labels: map(&[(LABEL, self.cri.ctx.tag())]),
            log_path: format!("{name}.log"),
            linux: Some(api::LinuxContainerConfig {
                resources: Some(resources),
                security_context: Some(api::LinuxContainerSecurityContext {
                    namespace_options: Some(api::NamespaceOption {
                        network: api::NamespaceMode::Node.into(),
                        pid: self.pids.mode(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
            }),
            ..Default::default()
        };
        let request = api::CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let id = call(self.cri.runtime().create_container(request))?.container_id;
        self.cri.ctx.note_pod_container(&id);
        Ok(id)
    }

    /// Starts a created container.
    pub fn start_container(&self, id: &str) -> Result<(), Status> {
        let request = api::StartContainerRequest {
            container_id: id.to_owned(),
        };
        call(self.cri.runtime().start_container(request)).map(drop)
    }

    /// Status of a container.
    pub fn status(&self, id: &str) -> Result<api::ContainerStatus, Status> {
        let request = api::ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: false,
        };
        let reply = call(self.cri.runtime().container_status(request))?;
        reply
            .status
            .ok_or_else(|| Status::data_loss("a reply without a status"))
    }

    /// Whether the sandbox runs.
    pub fn is_ready(&self) -> Result<bool, Status> {
        let request = api::PodSandboxStatusRequest {
            pod_sandbox_id: self.id.clone(),
            verbose: false,
        };
        let reply = call(self.cri.runtime().pod_sandbox_status(request))?;
        let state = reply.status.map(|status| status.state);
        Ok(state == Some(api::PodSandboxState::SandboxReady.into()))
    }

    /// Waits until a container has exited; gives its status.
    #[track_caller]
    pub fn exited(&self, id: &str, within: Duration) -> api::ContainerStatus {
        eventually("the container has exited", within, || {
            let status = self.status(id).map_err(|status| status.to_string())?;
            if status.state == i32::from(api::ContainerState::ContainerExited) {
                Ok(status)
            } else {
                Err(format!("{id} is in state {}", status.state))
            }
        })
    }

    /// Log of a container in the CRI's format.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.log_dir.join(format!("{name}.log"))).unwrap_or_default()
    }

    /// Waits until a container's log contains `text`.
    #[track_caller]
    pub fn wait_log(&self, name: &str, text: &str) {
        eventually("the container has logged", LONG, || {
            let log = self.log(name);
            if log.contains(text) {
                Ok(())
            } else {
                Err(format!("no {text:?} in {log:?}"))
            }
        });
    }

    /// Runs a command in a container; gives its exit code, stdout and stderr.
    pub fn exec(&self, id: &str, command: &[&str]) -> Result<(i32, String, String), Status> {
        let request = api::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.iter().map(|&word| word.to_owned()).collect(),
            timeout: 20,
        };
        let reply = call(self.cri.runtime().exec_sync(request))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((reply.exit_code, text(&reply.stdout), text(&reply.stderr)))
    }

    /// Stops a container with a grace period in seconds.
    pub fn stop(&self, id: &str, grace: i64) -> Result<(), Status> {
        let request = api::StopContainerRequest {
            container_id: id.to_owned(),
            timeout: grace,
        };
        call(self.cri.runtime().stop_container(request)).map(drop)
    }

    /// Removes a container.
    pub fn remove(&self, id: &str) -> Result<(), Status> {
        let request = api::RemoveContainerRequest {
            container_id: id.to_owned(),
        };
        call(self.cri.runtime().remove_container(request)).map(drop)
    }

    /// CPU and memory of a container.
    pub fn stats(&self, id: &str) -> Result<api::ContainerStats, Status> {
        let request = api::ContainerStatsRequest {
            container_id: id.to_owned(),
        };
        let reply = call(self.cri.runtime().container_stats(request))?;
        reply
            .stats
            .ok_or_else(|| Status::data_loss("a reply without stats"))
    }

    /// Changes the memory limit of a container.
    pub fn update_memory(&self, id: &str, bytes: i64) -> Result<(), Status> {
        let request = api::UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(api::LinuxContainerResources {
                memory_limit_in_bytes: bytes,
                ..Default::default()
            }),
            ..Default::default()
        };
        call(self.cri.runtime().update_container_resources(request)).map(drop)
    }

    /// Process id of the shim that serves the pod.
    #[track_caller]
    pub fn shim_pid(&self) -> i32 {
        crate::oracle::shim_of(&self.id, &self.cri.ctx.node().socket())
            .unwrap_or_else(|| panic!("no shim for sandbox {}", self.id))
    }

    /// Socket of the shim that serves the pod.
    pub fn shim_socket(&self) -> PathBuf {
        let node = self.cri.ctx.node();
        crate::oracle::socket_of(&node.socket(), CRI_NAMESPACE, &self.id)
    }

    /// Processes, cgroups and records that are there of the containers in `ids`, one line each.
    pub fn alive(&self, ids: &[String]) -> Vec<String> {
        crate::Oracle::alive(self.cri.ctx.node(), ids)
    }

    /// Process id of a container's or the sandbox's init.
    #[track_caller]
    pub fn init_pid(&self, id: &str) -> i32 {
        let path = self
            .cri
            .ctx
            .node()
            .bundle(CRI_NAMESPACE, id)
            .join("init.pid");
        let from_file = fs::read_to_string(path)
            .ok()
            .and_then(|text| text.trim().parse().ok());
        from_file.unwrap_or_else(|| init_of(self.cri.ctx.node(), id))
    }

    /// Stops and removes the pod with everything in it.
    pub fn delete(&self) -> Result<(), Status> {
        remove_pod(self.cri.ctx.node(), &self.id)
    }
}

/// Init's process id as containerd tells it.
#[track_caller]
fn init_of(node: &Node, id: &str) -> i32 {
    use containerd_client::services::v1::GetRequest;
    let request = GetRequest {
        container_id: id.to_owned(),
        ..GetRequest::default()
    };
    let request = crate::client::in_namespace(request, CRI_NAMESPACE);
    match block_on(node.client().tasks().get(request)) {
        Ok(reply) => {
            let process = reply.into_inner().process.expect("a task has a process");
            process.pid.cast_signed()
        }
        Err(status) => panic!("no task {id}: {status}"),
    }
}

/// Removes every pod of a test.
pub(crate) fn remove_pods(ctx: &Ctx) {
    let mut client = RuntimeServiceClient::new(ctx.node().channel());
    let filter = api::PodSandboxFilter {
        label_selector: map(&[(LABEL, ctx.tag())]),
        ..Default::default()
    };
    let request = api::ListPodSandboxRequest {
        filter: Some(filter),
    };
    let Ok(reply) = call(client.list_pod_sandbox(request)) else {
        return;
    };
    for pod in reply.items {
        ctx.note_sandbox(CRI_NAMESPACE, &pod.id);
        let gone = wait_for(SHORT, || remove_pod(ctx.node(), &pod.id));
        if let Err(status) = gone {
            eprintln!("cannot remove pod {}: {status}", pod.id);
        }
    }
    remove_pod_cgroups(ctx);
}

/// Removes the pods' own cgroups, as the kubelet would: they are its, not the runtime's. What the
/// runtime left inside keeps them from going, and the oracle sees that.
fn remove_pod_cgroups(ctx: &Ctx) {
    for root in crate::proc::cgroup_roots() {
        for pod in ctx.pod_cgroups() {
            let path = root.join(pod.trim_start_matches('/'));
            // A process that ended a moment ago still keeps its cgroup busy.
            let _ = wait_for(SHORT, || match fs::remove_dir(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            });
        }
    }
}

fn remove_pod(node: &Node, id: &str) -> Result<(), Status> {
    let mut client = RuntimeServiceClient::new(node.channel());
    let stop = api::StopPodSandboxRequest {
        pod_sandbox_id: id.to_owned(),
    };
    call(client.stop_pod_sandbox(stop))?;
    let remove = api::RemovePodSandboxRequest {
        pod_sandbox_id: id.to_owned(),
    };
    call(client.remove_pod_sandbox(remove)).map(drop)
}

fn call<T>(future: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Status> {
    block_on(async {
        match tokio::time::timeout(LONG, future).await {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded("the CRI did not answer")),
        }
    })
}

fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn key_value((key, value): &(String, String)) -> api::KeyValue {
    api::KeyValue {
        key: key.clone(),
        value: value.clone(),
    }
}

fn mount((host, container, readonly): &(String, String, bool)) -> api::Mount {
    api::Mount {
        host_path: host.clone(),
        container_path: container.clone(),
        readonly: *readonly,
        ..Default::default()
    }
}
