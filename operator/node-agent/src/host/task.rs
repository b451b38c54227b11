//! One container through containerd's task API, to see that a shim works.
//!
//! It is in a containerd namespace of our own, where the kubelet does not look, and needs neither image nor snapshot: its root file system
//! is a folder of the agent's with the bundle's module in it (a copy: libcontainer makes `/dev` and others there). What it prints comes back through FIFOs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use containerd_client::services::v1 as api;
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::namespaces_client::NamespacesClient;
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::types::Mount;
use nix::sys::stat::Mode;
use prost::Message as _;
use prost_types::Any;
use tokio::net::unix::pipe;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use wasmlet_api::names::PROBE_LINE;

use super::last_lines;

/// containerd's namespace for probes.
pub const NAMESPACE: &str = "wasmlet-probe";
/// What is kept of a probe's output, in bytes: what a pipe holds. A probe writes one line.
const OUTPUT_BYTES: usize = 65536;
/// For what follows a failure.
const CLEAN_UP: Duration = Duration::from_secs(10);
/// A probe's memory, in bytes: a hundred times what one takes.
const MEMORY_BYTES: u64 = 256 << 20;

/// A container to run.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Handler, for messages and names.
    pub handler: String,
    /// `runtime_type` of the handler.
    pub runtime_type: String,
    /// `runtime_path` of the handler: the shim's program.
    pub runtime_path: PathBuf,
    /// Settings of the handler.
    pub config_path: PathBuf,
    /// The module, `probe.wasm` of the bundle.
    pub module: PathBuf,
    /// How the node's cgroups are named.
    pub cgroups: Cgroups,
    /// Folder in which its FIFOs may be; the same on the host.
    pub scratch: PathBuf,
    /// How long it may take.
    pub within: Duration,
}

/// Who makes cgroups on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cgroups {
    /// systemd: names are `slice:prefix:name`.
    Systemd,
    /// The runtime itself: names are paths.
    Cgroupfs,
}

/// Why a container did not run.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// containerd's socket.
    #[error("cannot connect to containerd at {}", .0.display())]
    Connect(PathBuf, #[source] tonic::transport::Error),
    /// A call of containerd's.
    #[error("a container of handler {handler} failed at {step}: {}{said}", status.message())]
    Call {
        /// Which handler.
        handler: String,
        /// Which call.
        step: &'static str,
        /// containerd's answer, which has the shim's in it.
        status: Box<Status>,
        /// What it wrote to stderr.
        said: String,
    },
    /// It did not end.
    #[error("a container of handler {handler} did not end within {} s{said}", within.as_secs())]
    Silent {
        /// Which handler.
        handler: String,
        /// How long it was waited.
        within: Duration,
        /// What it wrote to stderr.
        said: String,
    },
    /// It ended otherwise.
    #[error(
        "a container of handler {handler} ended with {code} and wrote {stdout:?}, not 0 and {PROBE_LINE:?}{said}"
    )]
    Outcome {
        /// Which handler.
        handler: String,
        /// Its exit code.
        code: u32,
        /// Its output.
        stdout: String,
        /// What it wrote to stderr.
        said: String,
    },
    /// Its files.
    #[error("cannot make {} for a container", .0.display())]
    Scratch(PathBuf, #[source] std::io::Error),
}

/// `runtimeoptions.v1.Options`.
#[derive(Clone, PartialEq, prost::Message)]
struct RuntimeOptions {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(string, tag = "2")]
    config_path: String,
}

/// The options with which containerd starts and asks a shim, as CRI makes them from `options.ConfigPath`.
pub fn runtime_options(config_path: &Path) -> Any {
    let options = RuntimeOptions {
        type_url: String::new(),
        config_path: config_path.display().to_string(),
    };
    Any {
        type_url: "runtimeoptions.v1.Options".to_owned(),
        value: options.encode_to_vec(),
    }
}

struct Clients {
    containers: ContainersClient<Channel>,
    tasks: TasksClient<Channel>,
    namespaces: NamespacesClient<Channel>,
}

impl Clients {
    async fn new(socket: &Path) -> Result<Self, ProbeError> {
        let channel = super::cri::channel(socket)
            .await
            .map_err(|source| ProbeError::Connect(socket.to_owned(), source))?;
        Ok(Self {
            containers: ContainersClient::new(channel.clone()),
            tasks: TasksClient::new(channel.clone()),
            namespaces: NamespacesClient::new(channel),
        })
    }
}

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let namespace = tonic::metadata::MetadataValue::from_static(NAMESPACE);
    request
        .metadata_mut()
        .insert("containerd-namespace", namespace);
    request
}

impl Probe {
    /// Runs it to its end and wants exit code 0 and [`PROBE_LINE`].
    ///
    /// # Errors
    /// [`ProbeError`]; nothing of it stays as far as containerd lets us clean up.
    pub async fn run(&self, socket: &Path) -> Result<(), ProbeError> {
        let mut clients = Clients::new(socket).await?;
        let id = format!("{}-{:08x}", self.handler, fastrand::u32(..));
        let streams = Streams::new(&self.scratch.join(&id))?;
        let root = streams.folder.join("root");
        place(&self.module, &root).map_err(|error| ProbeError::Scratch(root, error))?;
        let call = |step, status: Status, streams: &Streams| ProbeError::Call {
            handler: self.handler.clone(),
            step,
            status: Box::new(status),
            said: last_lines(&streams.stderr()),
        };
        let ran = tokio::time::timeout(self.within, self.drive(&mut clients, &id, &streams)).await;
        clean_up(&mut clients, &id).await;
        let code = match ran {
            Ok(Ok(code)) => code,
            Ok(Err((step, status))) => return Err(call(step, status, &streams)),
            Err(_) => {
                return Err(ProbeError::Silent {
                    handler: self.handler.clone(),
                    within: self.within,
                    said: last_lines(&streams.stderr()),
                });
            }
        };
        let stdout = String::from_utf8_lossy(&streams.stdout()).into_owned();
        if code == 0 && stdout.lines().any(|line| line == PROBE_LINE) {
            Ok(())
        } else {
            Err(ProbeError::Outcome {
                handler: self.handler.clone(),
                code,
                stdout,
                said: last_lines(&streams.stderr()),
            })
        }
    }

    async fn drive(
        &self,
        clients: &mut Clients,
        id: &str,
        streams: &Streams,
    ) -> Result<u32, (&'static str, Status)> {
        let options = runtime_options(&self.config_path);
        let container = api::Container {
            id: id.to_owned(),
            runtime: Some(api::container::Runtime {
                name: self.runtime_type.clone(),
                options: Some(options),
            }),
            spec: Some(Any {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/Spec".to_owned(),
                value: self.spec(id),
            }),
            ..Default::default()
        };
        clients
            .containers
            .create(request(api::CreateContainerRequest {
                container: Some(container),
            }))
            .await
            .map_err(|status| ("creating it", status))?;
        let root = Mount {
            r#type: "bind".to_owned(),
            source: streams.path("root"),
            target: String::new(),
            options: vec!["rbind".to_owned(), "rw".to_owned()],
        };
        clients
            .tasks
            .create(request(api::CreateTaskRequest {
                container_id: id.to_owned(),
                rootfs: vec![root],
                stdout: streams.path("stdout"),
                stderr: streams.path("stderr"),
                // As CRI does it, so that a containerd which finds the shim for this finds it for pods.
                runtime_path: self.runtime_path.display().to_string(),
                // The container's options: containerd 2 takes none of this kind here.
                ..Default::default()
            }))
            .await
            .map_err(|status| ("creating its task", status))?;
        clients
            .tasks
            .start(request(api::StartRequest {
                container_id: id.to_owned(),
                ..Default::default()
            }))
            .await
            .map_err(|status| ("starting it", status))?;
        // After the start: waiting for one that has ended answers at once.
        let ended = clients
            .tasks
            .wait(request(api::WaitRequest {
                container_id: id.to_owned(),
                ..Default::default()
            }))
            .await
            .map_err(|status| ("waiting for it", status))?;
        Ok(ended.into_inner().exit_status)
    }

    /// config.json (OCI runtime specification 1.0) of a container that has nothing.
    fn spec(&self, id: &str) -> Vec<u8> {
        let cgroup = match self.cgroups {
            Cgroups::Systemd => format!("system.slice:{NAMESPACE}:{id}"),
            Cgroups::Cgroupfs => format!("/{NAMESPACE}/{id}"),
        };
        let namespaces: Vec<_> = ["pid", "ipc", "uts", "mount", "network"]
            .iter()
            .map(|kind| serde_json::json!({ "type": kind }))
            .collect();
        let spec = serde_json::json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": { "uid": 65534, "gid": 65534 },
                "args": ["/probe.wasm"],
                "env": ["PATH=/"],
                "cwd": "/",
                "noNewPrivileges": true,
            },
            "root": { "path": "rootfs", "readonly": true },
            "linux": {
                "namespaces": namespaces,
                "cgroupsPath": cgroup,
                "resources": { "memory": { "limit": MEMORY_BYTES } },
            },
        });
        spec.to_string().into_bytes()
    }
}

/// A root file system with a module in it.
fn place(module: &Path, root: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let set =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
    std::fs::create_dir(root)?;
    // Whatever the umask is: the container's user is nobody.
    set(root, 0o755)?;
    let file = root.join("probe.wasm");
    std::fs::write(&file, std::fs::read(module)?)?;
    set(&file, 0o644)
}

/// Ends and removes one container, whatever state it is in.
async fn clean_up(clients: &mut Clients, id: &str) {
    let work = async {
        let container_id = id.to_owned();
        let kill = api::KillRequest {
            container_id: container_id.clone(),
            // SIGKILL
            signal: 9,
            all: true,
            ..Default::default()
        };
        // Each of these is refused for something that is not there, or not there any more; the last one tells whether it worked.
        if clients.tasks.kill(request(kill)).await.is_ok() {
            let wait = api::WaitRequest {
                container_id: container_id.clone(),
                ..Default::default()
            };
            clients.tasks.wait(request(wait)).await.ok();
        }
        let task = api::DeleteTaskRequest {
            container_id: container_id.clone(),
        };
        clients.tasks.delete(request(task)).await.ok();
        clients
            .containers
            .delete(request(api::DeleteContainerRequest { id: container_id }))
            .await
    };
    match tokio::time::timeout(CLEAN_UP, work).await {
        Ok(Ok(_)) => {}
        Ok(Err(status)) if status.code() == Code::NotFound => {}
        Ok(Err(status)) => {
            tracing::warn!(
                container = id,
                error = status.message(),
                "a probe's container stays"
            );
        }
        Err(_) => tracing::warn!(
            container = id,
            "a probe's container stays: containerd is silent"
        ),
    }
}

/// Removes what probes left that were interrupted, and the namespace with them.
///
/// # Errors
/// [`ProbeError`]
pub async fn remove_leftovers(socket: &Path) -> Result<(), ProbeError> {
    let mut clients = Clients::new(socket).await?;
    let call = |step, status| ProbeError::Call {
        handler: String::new(),
        step,
        status: Box::new(status),
        said: String::new(),
    };
    let list = clients
        .containers
        .list(request(api::ListContainersRequest::default()))
        .await
        .map_err(|status| call("listing containers", status))?
        .into_inner();
    for container in list.containers {
        clean_up(&mut clients, &container.id).await;
    }
    let namespace = api::DeleteNamespaceRequest {
        name: NAMESPACE.to_owned(),
    };
    match clients.namespaces.delete(namespace).await {
        Ok(_) => Ok(()),
        // There was none.
        Err(status) if status.code() == Code::NotFound => Ok(()),
        Err(status) => Err(call("removing the namespace", status)),
    }
}

/// The two FIFOs of a probe, removed with it.
struct Streams {
    folder: PathBuf,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
}

impl Streams {
    fn new(folder: &Path) -> Result<Self, ProbeError> {
        std::fs::create_dir_all(folder)
            .map_err(|error| ProbeError::Scratch(folder.to_owned(), error))?;
        let open = |name: &str| {
            let path = folder.join(name);
            nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)
                .map_err(std::io::Error::from)
                .and_then(|()| pipe::OpenOptions::new().open_receiver(&path))
                .map_err(|error| ProbeError::Scratch(path, error))
        };
        Ok(Self {
            stdout: open("stdout")?,
            stderr: open("stderr")?,
            folder: folder.to_owned(),
        })
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn stdout(&self) -> Vec<u8> {
        written(&self.stdout)
    }

    fn stderr(&self) -> Vec<u8> {
        written(&self.stderr)
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            tracing::warn!(path = %self.folder.display(), %error, "a probe's folder stays");
        }
    }
}

/// What is in a FIFO now: all of it, once its writer has ended.
fn written(pipe: &pipe::Receiver) -> Vec<u8> {
    let mut bytes = vec![0; OUTPUT_BYTES];
    // Not through the runtime's readiness: the descriptor does not block.
    let read = nix::unistd::read(pipe, &mut bytes).unwrap_or(0);
    bytes.truncate(read);
    bytes
}

/// For an `Any` on a shim's standard input.
pub fn encoded(any: &Any) -> Vec<u8> {
    any.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_written_is_there_after_the_writer_has_gone() {
        let dir = tempfile::tempdir().unwrap();
        let streams = Streams::new(&dir.path().join("x")).unwrap();
        assert_eq!(streams.stdout(), b"");
        std::fs::write(streams.path("stdout"), "one\ntwo\n").unwrap();
        assert_eq!(streams.stdout(), b"one\ntwo\n");
        let folder = streams.folder.clone();
        drop(streams);
        assert!(!folder.exists());
    }
}
