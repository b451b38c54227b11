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
use nix::sys::stat::Mode;
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
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/// No step of a container's life takes this long; something hangs.
const DEADLINE: Duration = Duration::from_secs(60);

/// Which shim runs a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Runtime {
    Ours,
    Runc,
}

impl Runtime {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Runc => "runc",
        }
    }

    fn containerd_type(self) -> &'static str {
        match self {
            Self::Ours => "io.containerd.wasm.v1",
            Self::Runc => "io.containerd.runc.v2",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Ours => "/guest.wasm",
            Self::Runc => "/guest",
        }
    }
}

/// A containerd with the images in it.
pub(crate) struct Node {
    client: Client,
    address: PathBuf,
    ctr: PathBuf,
    snapshotter: String,
    /// Engine for our containers, where it is not left to `auto`.
    engine: Option<String>,
    /// Snapshot under each runtime's containers.
    parents: HashMap<Runtime, String>,
    temp: tempfile::TempDir,
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
        engine: Option<&str>,
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
            engine: engine.map(str::to_owned),
            parents: HashMap::new(),
            temp: tempfile::tempdir().map_err(file("a temporary folder"))?,
        })
    }

    /// Name of a runtime in the figures: our shim's is the engine's, where one was asked for.
    pub(crate) fn label(&self, runtime: Runtime) -> &str {
        match (runtime, &self.engine) {
            (Runtime::Ours, Some(engine)) => engine,
            _ => runtime.name(),
        }
    }

    /// Builds an image of one program and has containerd take it in.
    pub(crate) fn add_image(&mut self, runtime: Runtime, program: &Path) -> Result<(), Error> {
        let name = format!("docker.io/library/bench-{}:latest", runtime.name());
        let content = std::fs::read(program).map_err(file(program))?;
        let layer = Layer::new().file(runtime.program().trim_start_matches('/'), 0o755, content);
        let image = Image::new().entrypoint([runtime.program()]).layer(layer);
        let tar = self.temp.path().join(runtime.name()).with_extension("tar");
        let built = Archive::new().image(&name, image).write(&tar)?;
        let chain = built.into_iter().find_map(|manifest| manifest.chain_id);
        let chain = chain.ok_or_else(|| Error::NoLayers { name: name.clone() })?;

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
            return Err(Error::Import { name, output });
        }
        self.parents.insert(runtime, chain);
        Ok(())
    }

    /// What its containers are created from.
    pub(crate) fn spec(&self, runtime: Runtime, id: &str) -> Value {
        let mut spec = spec::config(runtime.program(), id);
        if let (Runtime::Ours, Some(engine)) = (runtime, &self.engine) {
            spec["annotations"]["wasmlet.dev/engine"] = engine.as_str().into();
        }
        spec
    }

    /// A container that idles or ends by itself.
    pub(crate) async fn create(&self, runtime: Runtime, id: &str) -> Result<Created, Error> {
        self.create_with(runtime, id, &self.spec(runtime, id)).await
    }

    /// Snapshot, container and task; waits for its end in the background, as every client does.
    pub(crate) async fn create_with(
        &self,
        runtime: Runtime,
        id: &str,
        spec: &Value,
    ) -> Result<Created, Error> {
        let (stdout_path, stdout) = self.pipe(id, "stdout")?;
        let (stderr_path, stderr) = self.pipe(id, "stderr")?;

        let prepare = PrepareSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: id.into(),
            parent: self.parents[&runtime].clone(),
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
                name: runtime.containerd_type().into(),
                options: None,
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

        let create = CreateTaskRequest {
            container_id: id.into(),
            rootfs: mounts.into_inner().mounts,
            stdout: stdout_path,
            stderr: stderr_path,
            ..CreateTaskRequest::default()
        };
        let task = call(
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
            stdout,
            stderr,
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
        within(&self.id, "its first output", read)
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
        let joined = within(&self.id, "its end", &mut self.wait).await?;
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
    within(id, call, future)
        .await?
        .map_err(|source| Error::Call {
            call,
            id: id.into(),
            source: Box::new(source),
        })
}

async fn within<F: Future>(id: &str, what: &'static str, future: F) -> Result<F::Output, Error> {
    tokio::time::timeout(DEADLINE, future)
        .await
        .map_err(|_| Error::Late {
            id: id.into(),
            what,
            seconds: DEADLINE.as_secs(),
        })
}
