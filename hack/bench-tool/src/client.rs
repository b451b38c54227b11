//! One containerd and the calls a container's life consists of.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use containerd_client::Client;
use containerd_client::services::v1::container::Runtime as ContainerRuntime;
use containerd_client::services::v1::snapshots::{PrepareSnapshotRequest, RemoveSnapshotRequest};
use containerd_client::services::v1::{
    Container, CreateContainerRequest, CreateTaskRequest, DeleteContainerRequest,
    DeleteTaskRequest, KillRequest, StartRequest, WaitRequest,
};
use containerd_client::types::Mount;
use nix::sys::stat::Mode;
use prost::Message;
use prost_types::Any;
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status};
use wasmlet_oci_image::{Archive, Image, Layer};

use crate::error::{Error, file};
use crate::spec;

const NAMESPACE: &str = "bench";
const OPTIONS_TYPE: &str = "runtimeoptions.v1.Options";
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/// No step of a container's life takes this long; something hangs.
const DEADLINE: Duration = Duration::from_secs(60);
/// Nor does creating a task, in which a module is compiled: the shim ends that after 300 s.
const CREATE_DEADLINE: Duration = Duration::from_secs(330);

/// Which engine our shim is to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub(crate) enum Engine {
    /// Whichever the shim picks by itself.
    Auto,
    Wasmtime,
    Wasmer,
    Wasmedge,
}

/// Which shim runs a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Runtime {
    Ours(Engine),
    Runc,
}

impl Runtime {
    /// Its name in the figures: our shim's is the engine's, where one was asked for.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours(Engine::Auto) => "ours",
            Self::Ours(Engine::Wasmtime) => "wasmtime",
            Self::Ours(Engine::Wasmer) => "wasmer",
            Self::Ours(Engine::Wasmedge) => "wasmedge",
            Self::Runc => "runc",
        }
    }

    fn containerd_type(self) -> &'static str {
        match self {
            Self::Ours(_) => "io.containerd.wasm.v1",
            Self::Runc => "io.containerd.runc.v2",
        }
    }

    /// Where the program is in its image.
    fn program(self) -> &'static str {
        match self {
            Self::Ours(_) => "/guest.wasm",
            Self::Runc => "/guest",
        }
    }
}

/// A program in an image that containerd has, and who is to run it.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    pub(crate) runtime: Runtime,
    /// Snapshot under its containers.
    parent: String,
    /// Options of the shim.
    options: Option<Any>,
}

impl Guest {
    /// What its containers are created from.
    pub(crate) fn spec(&self, id: &str) -> Value {
        let mut spec = spec::config(self.runtime.program(), id);
        match self.runtime {
            Runtime::Ours(Engine::Auto) | Runtime::Runc => {}
            Runtime::Ours(_) => {
                spec["annotations"]["wasmlet.dev/engine"] = self.runtime.name().into();
            }
        }
        spec
    }

    /// The same guest for a shim with the settings of a file.
    pub(crate) fn with_settings(&self, path: &Path) -> Self {
        let message = RuntimeOptions {
            type_url: String::new(),
            config_path: path.to_string_lossy().into_owned(),
        };
        let options = Any {
            type_url: OPTIONS_TYPE.into(),
            value: message.encode_to_vec(),
        };
        Self {
            options: Some(options),
            ..self.clone()
        }
    }
}

/// `runtimeoptions.v1.Options`, the part that every containerd passes on.
#[derive(Clone, PartialEq, prost::Message)]
struct RuntimeOptions {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(string, tag = "2")]
    config_path: String,
}

/// A containerd that images are put into.
pub(crate) struct Node {
    client: Client,
    address: PathBuf,
    ctr: PathBuf,
    snapshotter: String,
    /// Images by their names, with the snapshot of each.
    images: HashMap<String, String>,
    temp: tempfile::TempDir,
}

/// A container without a task.
pub(crate) struct Prepared {
    rootfs: Vec<Mount>,
    stdout_path: String,
    stdout: pipe::Receiver,
    stderr_path: String,
    stderr: pipe::Receiver,
}

/// A container whose task was created.
pub(crate) struct Created {
    id: String,
    /// Process id of its init.
    pub(crate) pid: u32,
    stdout: pipe::Receiver,
    /// Nothing is expected there; what comes explains a failure.
    stderr: pipe::Receiver,
    wait: JoinHandle<
        Result<
            (
                Response<containerd_client::services::v1::WaitResponse>,
                Instant,
            ),
            Status,
        >,
    >,
}

impl Node {
    pub(crate) async fn connect(
        address: &Path,
        ctr: &Path,
        snapshotter: &str,
    ) -> Result<Self, Error> {
        let client = Client::from_path(address)
            .await
            .map_err(|source| Error::Connect {
                path: address.into(),
                source,
            })?;
        Ok(Self {
            client,
            address: address.into(),
            ctr: ctr.into(),
            snapshotter: snapshotter.into(),
            images: HashMap::new(),
            temp: tempfile::tempdir().map_err(file("a temporary folder"))?,
        })
    }

    /// A folder of this run, for whatever a measurement keeps until its end.
    pub(crate) fn temp(&self) -> &Path {
        self.temp.path()
    }

    /// Has containerd take in an image of one program, where it has not yet.
    pub(crate) fn guest(&mut self, runtime: Runtime, program: &Path) -> Result<Guest, Error> {
        let kind = runtime.program().trim_start_matches('/');
        let stem = program.file_stem().unwrap_or_default().to_string_lossy();
        let name = format!("docker.io/library/bench-{stem}-{kind}:latest");
        let parent = match self.images.get(&name) {
            Some(parent) => parent.clone(),
            None => {
                let parent = self.import(&name, runtime.program(), program)?;
                self.images.insert(name, parent.clone());
                parent
            }
        };
        Ok(Guest {
            runtime,
            parent,
            options: None,
        })
    }

    /// Builds an image of one program and has containerd take it in; gives its snapshot.
    fn import(&self, name: &str, place: &str, program: &Path) -> Result<String, Error> {
        let content = std::fs::read(program).map_err(file(program))?;
        let layer = Layer::new().file(place.trim_start_matches('/'), 0o755, content);
        let image = Image::new().entrypoint([place]).layer(layer);
        let tar = self.temp.path().join("image.tar");
        let built = Archive::new().image(name, image).write(&tar)?;
        let chain = built.into_iter().find_map(|manifest| manifest.chain_id);
        let chain = chain.ok_or_else(|| Error::NoLayers { name: name.into() })?;

        let mut command = Command::new(&self.ctr);
        command
            .arg("--address")
            .arg(&self.address)
            .args(["--namespace", NAMESPACE]);
        command
            .args(["images", "import", "--snapshotter", &self.snapshotter])
            .arg(&tar);
        let output = command.output().map_err(file(&self.ctr))?;
        if !output.status.success() {
            let output = String::from_utf8_lossy(&output.stderr).into_owned();
            let name = name.into();
            return Err(Error::Import { name, output });
        }
        Ok(chain)
    }

    /// A container that idles or ends by itself.
    pub(crate) async fn create(&self, guest: &Guest, id: &str) -> Result<Created, Error> {
        self.create_with(guest, id, &guest.spec(id)).await
    }

    /// Pipes, snapshot and container, without a task.
    pub(crate) async fn prepare(&self, guest: &Guest, id: &str) -> Result<Prepared, Error> {
        self.prepare_with(guest, id, &guest.spec(id)).await
    }

    async fn prepare_with(&self, guest: &Guest, id: &str, spec: &Value) -> Result<Prepared, Error> {
        let (stdout_path, stdout) = self.pipe(id, "stdout")?;
        let (stderr_path, stderr) = self.pipe(id, "stderr")?;

        let prepare = PrepareSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: id.into(),
            parent: guest.parent.clone(),
            // Nothing refers to it until the container does, and the garbage collector never sleeps.
            labels: HashMap::from([("containerd.io/gc.root".into(), "bench".into())]),
        };
        let mounts = call(
            "Prepare",
            id,
            self.client.snapshots().prepare(request(prepare)),
        )
        .await?;

        let container = Container {
            id: id.into(),
            runtime: Some(ContainerRuntime {
                name: guest.runtime.containerd_type().into(),
                options: guest.options.clone(),
            }),
            spec: Some(Any {
                type_url: SPEC_TYPE.into(),
                value: spec.to_string().into_bytes(),
            }),
            snapshotter: self.snapshotter.clone(),
            snapshot_key: id.into(),
            ..Container::default()
        };
        let create = CreateContainerRequest {
            container: Some(container),
        };
        call(
            "Create container",
            id,
            self.client.containers().create(request(create)),
        )
        .await?;
        Ok(Prepared {
            rootfs: mounts.into_inner().mounts,
            stdout_path,
            stdout,
            stderr_path,
            stderr,
        })
    }

    /// Snapshot, container and task; waits for its end in the background, as every client does.
    pub(crate) async fn create_with(
        &self,
        guest: &Guest,
        id: &str,
        spec: &Value,
    ) -> Result<Created, Error> {
        let prepared = self.prepare_with(guest, id, spec).await?;
        let create = CreateTaskRequest {
            container_id: id.into(),
            rootfs: prepared.rootfs,
            stdout: prepared.stdout_path,
            stderr: prepared.stderr_path,
            ..CreateTaskRequest::default()
        };
        let task = call_within(
            CREATE_DEADLINE,
            "Create task",
            id,
            self.client.tasks().create(request(create)),
        )
        .await?;

        let wait = WaitRequest {
            container_id: id.into(),
            exec_id: String::new(),
        };
        let mut tasks = self.client.tasks();
        let wait = tokio::spawn(async move {
            let reply = tasks.wait(request(wait)).await?;
            Ok((reply, Instant::now()))
        });
        Ok(Created {
            id: id.into(),
            pid: task.into_inner().pid,
            stdout: prepared.stdout,
            stderr: prepared.stderr,
            wait,
        })
    }

    pub(crate) async fn start(&self, created: &Created) -> Result<(), Error> {
        let start = StartRequest {
            container_id: created.id.clone(),
            exec_id: String::new(),
        };
        call(
            "Start",
            &created.id,
            self.client.tasks().start(request(start)),
        )
        .await?;
        Ok(())
    }

    pub(crate) async fn kill(&self, created: &Created) -> Result<(), Error> {
        let kill = KillRequest {
            container_id: created.id.clone(),
            signal: 9,
            ..KillRequest::default()
        };
        call("Kill", &created.id, self.client.tasks().kill(request(kill))).await?;
        Ok(())
    }

    /// Task, container and snapshot.
    pub(crate) async fn delete(&self, id: &str) -> Result<(), Error> {
        let task = DeleteTaskRequest {
            container_id: id.into(),
        };
        call("Delete task", id, self.client.tasks().delete(request(task))).await?;
        self.discard(id).await
    }

    /// Container and snapshot of one that has no task.
    pub(crate) async fn discard(&self, id: &str) -> Result<(), Error> {
        let container = DeleteContainerRequest { id: id.into() };
        call(
            "Delete container",
            id,
            self.client.containers().delete(request(container)),
        )
        .await?;
        let snapshot = RemoveSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: id.into(),
        };
        call(
            "Remove snapshot",
            id,
            self.client.snapshots().remove(request(snapshot)),
        )
        .await?;
        for stream in ["stdout", "stderr"] {
            let path = self.pipe_path(id, stream);
            std::fs::remove_file(&path).map_err(file(&path))?;
        }
        Ok(())
    }

    fn pipe_path(&self, id: &str, stream: &str) -> PathBuf {
        self.temp.path().join(format!("{id}.{stream}"))
    }

    /// A named pipe, opened for reading before anybody writes.
    fn pipe(&self, id: &str, stream: &str) -> Result<(String, pipe::Receiver), Error> {
        let path = self.pipe_path(id, stream);
        nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|errno| file(&path)(errno.into()))?;
        let receiver = pipe::OpenOptions::new()
            .open_receiver(&path)
            .map_err(file(&path))?;
        Ok((path.to_string_lossy().into_owned(), receiver))
    }
}

impl Created {
    /// Reads the line that the guest writes; gives the time its first byte came.
    pub(crate) async fn line(&mut self, expected: &'static str) -> Result<Instant, Error> {
        let mut text = Vec::new();
        let mut first = None;
        let read = async {
            let mut buffer = [0; 64];
            while text.len() < expected.len() {
                match self.stdout.read(&mut buffer).await? {
                    0 => break,
                    count => {
                        first.get_or_insert_with(Instant::now);
                        text.extend_from_slice(&buffer[..count]);
                    }
                }
            }
            Ok(())
        };
        within(DEADLINE, &self.id, "its first output", read)
            .await?
            .map_err(file("the container's stdout"))?;
        let got = String::from_utf8_lossy(&text).into_owned();
        match first {
            Some(first) if got == expected => Ok(first),
            _ => Err(Error::Output {
                id: self.id.clone(),
                got,
                expected,
                stderr: self.complaint(),
            }),
        }
    }

    /// What the container has written to stderr so far.
    pub(crate) fn complaint(&self) -> String {
        let mut buffer = [0; 4096];
        let count = self.stderr.try_read(&mut buffer).unwrap_or(0);
        String::from_utf8_lossy(&buffer[..count])
            .trim_end()
            .to_owned()
    }

    /// Waits for the end; gives the exit code and the time containerd told it.
    pub(crate) async fn ended(&mut self) -> Result<(u32, Instant), Error> {
        let joined = within(DEADLINE, &self.id, "its end", &mut self.wait).await?;
        // The task neither panics nor is aborted.
        let result = joined.unwrap_or_else(|error| Err(Status::internal(error.to_string())));
        let (reply, at) = result.map_err(|source| Error::Call {
            call: "Wait",
            id: self.id.clone(),
            source: Box::new(source),
        })?;
        Ok((reply.into_inner().exit_status, at))
    }
}

/// An address on this machine that nobody listens on.
pub(crate) async fn free_address() -> Result<SocketAddr, Error> {
    TcpListener::bind("127.0.0.1:0")
        .await
        .and_then(|socket| socket.local_addr())
        .map_err(Error::Runtime)
}

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let namespace = tonic::metadata::MetadataValue::from_static(NAMESPACE);
    request
        .metadata_mut()
        .insert("containerd-namespace", namespace);
    request
}

async fn call<T>(
    call: &'static str,
    id: &str,
    future: impl Future<Output = Result<T, Status>>,
) -> Result<T, Error> {
    call_within(DEADLINE, call, id, future).await
}

async fn call_within<T>(
    deadline: Duration,
    call: &'static str,
    id: &str,
    future: impl Future<Output = Result<T, Status>>,
) -> Result<T, Error> {
    within(deadline, id, call, future)
        .await?
        .map_err(|source| Error::Call {
            call,
            id: id.into(),
            source: Box::new(source),
        })
}

async fn within<F: Future>(
    deadline: Duration,
    id: &str,
    what: &'static str,
    future: F,
) -> Result<F::Output, Error> {
    tokio::time::timeout(deadline, future)
        .await
        .map_err(|_| Error::Late {
            id: id.into(),
            what,
            seconds: deadline.as_secs(),
        })
}
