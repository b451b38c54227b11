//! The only door in: ttrpc calls become requests, answers become messages. No logic.
//!
//! The same service is registered under two names: `containerd.task.v3.Task` is a renamed copy of
//! `containerd.task.v2.Task`, which containerd 1.x calls.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use containerd_shim_protos::api;
use containerd_shim_protos::protobuf::{EnumOrUnknown, Message, well_known_types::any::Any};
use containerd_shim_protos::shim::oci;
use containerd_shim_protos::shim_async::{Task, create_task};
use containerd_shim_protos::ttrpc::{self, asynchronous::Service, asynchronous::TtrpcContext};

use crate::error::{Error, Result};
use crate::events::{pack, timestamp};
use crate::options;
use crate::pod::Pod;
use crate::pod::request::{Answer, CreateRequest, Operation, Reach};
use crate::pod::state::State;
use crate::reply::status;
use crate::stdio::Streams;

/// The task service of one pod.
#[derive(Debug, Clone)]
pub struct TaskService {
    pod: Arc<Pod>,
}

impl TaskService {
    /// The service of `pod`.
    pub fn new(pod: Arc<Pod>) -> Self {
        Self { pod }
    }

    /// Both names.
    pub fn services(&self) -> HashMap<String, Service> {
        let mut services = create_task(Arc::new(self.clone()));
        for (name, service) in create_task(Arc::new(self.clone())) {
            services.insert(
                name.replace("containerd.task.v3.", "containerd.task.v2."),
                service,
            );
        }
        services
    }

    /// Who is not there is told before what is wrong with the request.
    fn known(&self, id: &str) -> ttrpc::Result<()> {
        self.pod
            .snapshot(id, None)
            .map(drop)
            .map_err(|error| status(&error))
    }

    async fn ask(&self, id: &str, operation: Operation) -> ttrpc::Result<Answer> {
        self.pod
            .ask(id, operation)
            .await
            .map_err(|error| status(&error))
    }

    async fn done(&self, id: &str, operation: Operation) -> ttrpc::Result<api::Empty> {
        self.ask(id, operation).await.map(|_| api::Empty::default())
    }
}

/// Empty is the init.
fn exec(exec_id: &str) -> Option<String> {
    (!exec_id.is_empty()).then(|| exec_id.to_owned())
}

/// An answer of another kind than the operation has is a mistake in this program.
fn unexpected(answer: &Answer) -> ttrpc::Error {
    let what = format!("the container gave an unexpected answer: {answer:?}");
    ttrpc::Error::RpcStatus(ttrpc::get_status(ttrpc::Code::INTERNAL, what))
}

fn streams(stdin: String, stdout: String, stderr: String, terminal: bool) -> Streams {
    Streams {
        stdin,
        stdout,
        stderr,
        terminal,
    }
}

fn create_request(request: api::CreateTaskRequest) -> Result<CreateRequest> {
    if !request.checkpoint.is_empty() {
        return Err(Error::RestoreUnsupported);
    }
    if request.id.is_empty() || request.id.contains('/') || request.id.starts_with('.') {
        return Err(Error::BadRequest {
            what: format!("{:?} cannot be a container's id", request.id),
        });
    }
    if !request.bundle.starts_with('/') {
        return Err(Error::BadRequest {
            what: format!("the bundle {:?} is no absolute path", request.bundle),
        });
    }
    Ok(CreateRequest {
        options: options::decode(request.options.as_ref())?,
        streams: streams(
            request.stdin,
            request.stdout,
            request.stderr,
            request.terminal,
        ),
        bundle: PathBuf::from(request.bundle),
        rootfs: request.rootfs,
        id: request.id,
    })
}

/// The bytes of an `Any` that carries a JSON document of OCI.
fn json(any: Option<Any>, what: &str) -> Result<Vec<u8>> {
    any.map(|any| any.value)
        .filter(|bytes| !bytes.is_empty())
        .ok_or_else(|| Error::BadRequest {
            what: format!("the request carries no {what}"),
        })
}

/// What is no JSON at all is told here and not by whoever gets it.
fn checked_json(bytes: Vec<u8>, what: &str) -> Result<Vec<u8>> {
    match serde_json::from_slice::<serde::de::IgnoredAny>(&bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(Error::BadRequest {
            what: format!("the {what} are no JSON: {error}"),
        }),
    }
}

fn checkpoint(request: &api::CheckpointTaskRequest) -> Result<Operation> {
    let options = match request.options.as_ref().filter(|any| !any.value.is_empty()) {
        Some(any) => oci::CheckpointOptions::parse_from_bytes(&any.value).map_err(|error| {
            Error::BadRequest {
                what: format!("the checkpoint's options: {error}"),
            }
        })?,
        None => oci::CheckpointOptions::default(),
    };
    let path = if request.path.is_empty() {
        &options.image_path
    } else {
        &request.path
    };
    Ok(Operation::Checkpoint {
        path: PathBuf::from(path),
        flags: checkpoint_flags(options),
    })
}

/// The flags of `runc checkpoint` that stand for containerd's options.
fn checkpoint_flags(options: oci::CheckpointOptions) -> Vec<String> {
    let switches = [
        (!options.exit, "--leave-running"),
        (options.open_tcp, "--tcp-established"),
        (options.external_unix_sockets, "--ext-unix-sk"),
        (options.terminal, "--shell-job"),
        (options.file_locks, "--file-locks"),
    ];
    let mut flags: Vec<String> = switches
        .into_iter()
        .filter(|(is_on, _)| *is_on)
        .map(|(_, flag)| flag.to_owned())
        .collect();
    let values = [
        ("--manage-cgroups-mode", options.cgroups_mode),
        ("--work-path", options.work_path),
    ];
    for (flag, value) in values {
        if !value.is_empty() {
            flags.extend([flag.to_owned(), value]);
        }
    }
    for namespace in options.empty_namespaces {
        flags.extend(["--empty-ns".to_owned(), namespace]);
    }
    flags
}

fn size(value: u32) -> Result<u16> {
    u16::try_from(value).map_err(|_| Error::BadRequest {
        what: format!("a terminal cannot have {value} rows or columns"),
    })
}

fn process_info((pid, exec): (u32, Option<String>)) -> api::ProcessInfo {
    let mut info = api::ProcessInfo {
        pid,
        ..Default::default()
    };
    if let Some(exec_id) = exec {
        let details = oci::ProcessDetails {
            exec_id,
            ..Default::default()
        };
        if let Ok(bytes) = details.write_to_bytes() {
            info.info = Some(pack("containerd.runc.v1.ProcessDetails", bytes)).into();
        }
    }
    info
}

#[async_trait]
impl Task for TaskService {
    async fn state(
        &self,
        _: &TtrpcContext,
        request: api::StateRequest,
    ) -> ttrpc::Result<api::StateResponse> {
        let exec = exec(&request.exec_id);
        let (bundle, process) = self
            .pod
            .snapshot(&request.id, exec.as_deref())
            .map_err(|error| status(&error))?;
        let task_status = match process.state {
            State::Created { .. } => api::Status::CREATED,
            State::Running { .. } => api::Status::RUNNING,
            State::Paused { .. } => api::Status::PAUSED,
            State::Stopped { .. } => api::Status::STOPPED,
        };
        let exit = process.state.exit();
        Ok(api::StateResponse {
            id: request.id,
            bundle: bundle.to_string_lossy().into_owned(),
            pid: process.state.pid().unwrap_or_default().cast_unsigned(),
            status: EnumOrUnknown::new(task_status),
            stdin: process.streams.stdin,
            stdout: process.streams.stdout,
            stderr: process.streams.stderr,
            terminal: process.streams.terminal,
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exit.map(|exit| timestamp(exit.at)).into(),
            exec_id: request.exec_id,
            ..Default::default()
        })
    }

    async fn create(
        &self,
        _: &TtrpcContext,
        request: api::CreateTaskRequest,
    ) -> ttrpc::Result<api::CreateTaskResponse> {
        let created = async { self.pod.create(create_request(request)?).await }.await;
        let pid = created.map_err(|error| status(&error))?;
        Ok(api::CreateTaskResponse {
            pid,
            ..Default::default()
        })
    }

    async fn start(
        &self,
        _: &TtrpcContext,
        request: api::StartRequest,
    ) -> ttrpc::Result<api::StartResponse> {
        match self
            .ask(
                &request.id,
                Operation::Start {
                    exec: exec(&request.exec_id),
                },
            )
            .await?
        {
            Answer::Pid(pid) => Ok(api::StartResponse {
                pid,
                ..Default::default()
            }),
            other => Err(unexpected(&other)),
        }
    }

    async fn delete(
        &self,
        _: &TtrpcContext,
        request: api::DeleteRequest,
    ) -> ttrpc::Result<api::DeleteResponse> {
        match self
            .ask(
                &request.id,
                Operation::Delete {
                    exec: exec(&request.exec_id),
                },
            )
            .await?
        {
            Answer::Deleted { pid, exit } => Ok(api::DeleteResponse {
                pid,
                exit_status: exit.status,
                exited_at: Some(timestamp(exit.at)).into(),
                ..Default::default()
            }),
            other => Err(unexpected(&other)),
        }
    }

    async fn pids(
        &self,
        _: &TtrpcContext,
        request: api::PidsRequest,
    ) -> ttrpc::Result<api::PidsResponse> {
        match self.ask(&request.id, Operation::Pids).await? {
            Answer::Processes(processes) => Ok(api::PidsResponse {
                processes: processes.into_iter().map(process_info).collect(),
                ..Default::default()
            }),
            other => Err(unexpected(&other)),
        }
    }

    async fn pause(
        &self,
        _: &TtrpcContext,
        request: api::PauseRequest,
    ) -> ttrpc::Result<api::Empty> {
        self.done(&request.id, Operation::Pause).await
    }

    async fn resume(
        &self,
        _: &TtrpcContext,
        request: api::ResumeRequest,
    ) -> ttrpc::Result<api::Empty> {
        self.done(&request.id, Operation::Resume).await
    }

    async fn checkpoint(
        &self,
        _: &TtrpcContext,
        request: api::CheckpointTaskRequest,
    ) -> ttrpc::Result<api::Empty> {
        self.known(&request.id)?;
        let operation = checkpoint(&request).map_err(|error| status(&error))?;
        self.done(&request.id, operation).await
    }

    async fn kill(&self, _: &TtrpcContext, request: api::KillRequest) -> ttrpc::Result<api::Empty> {
        let operation = Operation::Kill {
            exec: exec(&request.exec_id),
            signal: request.signal,
            reach: if request.all {
                Reach::Container
            } else {
                Reach::Process
            },
        };
        self.done(&request.id, operation).await
    }

    async fn exec(
        &self,
        _: &TtrpcContext,
        request: api::ExecProcessRequest,
    ) -> ttrpc::Result<api::Empty> {
        self.known(&request.id)?;
        let spec = json(request.spec.into_option(), "process").map_err(|error| status(&error))?;
        if request.exec_id.is_empty() || request.exec_id.contains('/') {
            let what = format!("{:?} cannot be a process's id", request.exec_id);
            return Err(status(&Error::BadRequest { what }));
        }
        let streams = streams(
            request.stdin,
            request.stdout,
            request.stderr,
            request.terminal,
        );
        self.done(
            &request.id,
            Operation::Exec {
                exec: request.exec_id,
                spec,
                streams,
            },
        )
        .await
    }

    async fn resize_pty(
        &self,
        _: &TtrpcContext,
        request: api::ResizePtyRequest,
    ) -> ttrpc::Result<api::Empty> {
        self.known(&request.id)?;
        let sizes = size(request.width).and_then(|width| Ok((width, size(request.height)?)));
        let (width, height) = sizes.map_err(|error| status(&error))?;
        self.done(
            &request.id,
            Operation::ResizePty {
                exec: exec(&request.exec_id),
                width,
                height,
            },
        )
        .await
    }

    async fn close_io(
        &self,
        _: &TtrpcContext,
        request: api::CloseIORequest,
    ) -> ttrpc::Result<api::Empty> {
        if !request.stdin {
            // Nothing to close, for a container that must be there.
            let exec = exec(&request.exec_id);
            let known = self.pod.snapshot(&request.id, exec.as_deref());
            return known
                .map(|_| api::Empty::default())
                .map_err(|error| status(&error));
        }
        self.done(
            &request.id,
            Operation::CloseStdin {
                exec: exec(&request.exec_id),
            },
        )
        .await
    }

    async fn update(
        &self,
        _: &TtrpcContext,
        request: api::UpdateTaskRequest,
    ) -> ttrpc::Result<api::Empty> {
        self.known(&request.id)?;
        let resources = json(request.resources.into_option(), "resources")
            .and_then(|bytes| checked_json(bytes, "resources"))
            .map_err(|error| status(&error))?;
        self.done(&request.id, Operation::Update { resources })
            .await
    }

    async fn wait(
        &self,
        _: &TtrpcContext,
        request: api::WaitRequest,
    ) -> ttrpc::Result<api::WaitResponse> {
        let exec = exec(&request.exec_id);
        let exit = self
            .pod
            .wait(&request.id, exec.as_deref())
            .await
            .map_err(|error| status(&error))?;
        Ok(api::WaitResponse {
            exit_status: exit.status,
            exited_at: Some(timestamp(exit.at)).into(),
            ..Default::default()
        })
    }

    async fn stats(
        &self,
        _: &TtrpcContext,
        request: api::StatsRequest,
    ) -> ttrpc::Result<api::StatsResponse> {
        match self.ask(&request.id, Operation::Stats).await? {
            Answer::Usage(usage) => Ok(api::StatsResponse {
                stats: Some(usage).into(),
                ..Default::default()
            }),
            other => Err(unexpected(&other)),
        }
    }

    async fn connect(
        &self,
        _: &TtrpcContext,
        request: api::ConnectRequest,
    ) -> ttrpc::Result<api::ConnectResponse> {
        // The question is whether the shim lives. containerd, restarted between a start and its Create,
        // asks for a container that is not there; refused, it would forget the shim and leave it behind.
        let task = self.pod.snapshot(&request.id, None);
        let task_pid = task.map_or(None, |(_, process)| process.state.pid());
        Ok(api::ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: task_pid.unwrap_or_default().cast_unsigned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        })
    }

    async fn shutdown(
        &self,
        _: &TtrpcContext,
        _: api::ShutdownRequest,
    ) -> ttrpc::Result<api::Empty> {
        self.pod.shut_down();
        Ok(api::Empty::default())
    }
}
