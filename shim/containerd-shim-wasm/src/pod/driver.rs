//! The task that owns one container.
//!
//! It brings the container up, then takes requests one by one, asks [`super::queue`] whether they may be
//! done in the state the process is in, does them (`verbs`), and records and publishes what came
//! of it. The end of a process arrives here too, so a start is always published before its end.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use containerd_shim_protos::events::task as messages;
use containerd_shim_protos::protobuf::Message as _;
use containerd_shim_protos::types::mount::Mount;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::create::{self, Backend, Created, Traces};
use super::process::Process;
use super::queue::{Denied, Verb, Verdict, decide};
use super::request::{Answer, CreateRequest, Operation};
use super::state::State;
use super::verbs::{NO_EXEC, SIGKILL};
use super::{Context, Message, Seat, View, lock};
use crate::cgroup::{Cgroup, OomWatch};
use crate::error::{Error, Result};
use crate::events::{Event, timestamp};
use crate::reaper::Exit;
use crate::stdio::{Owner, Streams};

/// How long the answer about a container's end waits for the news of the kill that caused it: containerd may be away.
const OOM_NEWS_LIMIT: Duration = Duration::from_secs(2);

/// So long after a container came or went its shim gives memory back: until then it has better things to do, and a shim
/// whose only container is gone by then needs not.
const CALM: Duration = Duration::from_secs(1);

fn release_memory_soon() {
    tokio::spawn(async {
        tokio::time::sleep(CALM).await;
        wasmlet_sys::release_unused_memory();
    });
}

/// Drives a container from its creation to its deletion.
pub(crate) async fn drive(
    context: Arc<Context>,
    request: CreateRequest,
    view: Arc<Mutex<View>>,
    queue: mpsc::Receiver<Message>,
    seat: Seat,
    answer: oneshot::Sender<Result<u32>>,
) {
    match create::create(&context, &request).await {
        Ok(created) => {
            let pid = created.pid.cast_unsigned();
            let mut driver = Driver::new(context, &request, created, view);
            driver.publish_create(&request.rootfs);
            driver.show();
            release_memory_soon();
            // containerd may have given up; it will ask for the container's deletion then.
            drop(answer.send(Ok(pid)));
            driver.run(queue, seat).await;
        }
        Err(error) => {
            tracing::warn!(
                id = request.id,
                error = crate::chain(&error),
                "create failed"
            );
            if answer.is_closed() {
                seat.abandon();
            }
            drop(queue);
            drop(seat);
            drop(answer.send(Err(error)));
        }
    }
}

pub(super) struct Driver {
    pub(super) context: Arc<Context>,
    pub(super) id: String,
    pub(super) bundle: PathBuf,
    pub(super) backend: Backend,
    pub(super) cgroup: Cgroup,
    pub(super) traces: Traces,
    pub(super) init: Process,
    pub(super) execs: HashMap<String, Exec>,
    /// Every living process: which one, and how it ended.
    pub(super) ends: JoinSet<(Option<String>, Exit)>,
    /// Who owns the streams of its processes.
    pub(super) stream_owner: Owner,
    pub(super) oom: Option<OomWatch>,
    pub(super) oom_reported: u64,
    pub(super) view: Arc<Mutex<View>>,
}

/// A process that was added to the container.
pub(super) struct Exec {
    pub(super) spec: Vec<u8>,
    pub(super) process: Process,
}

/// Whether the container is still there after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Stay,
    Gone,
}

impl Driver {
    fn new(
        context: Arc<Context>,
        request: &CreateRequest,
        created: Created,
        view: Arc<Mutex<View>>,
    ) -> Self {
        let Created {
            backend,
            init,
            pid,
            cgroup,
            traces,
        } = created;
        // A wasm container is one process: when the kernel kills it for memory, its end is the news,
        // and the counter is looked at then. Not so in a scope: systemd may remove it, and the counter
        // with it, as soon as it is empty.
        let oom = match &backend {
            Backend::Wasm { .. } if !cgroup.is_scope() => None,
            Backend::Wasm { .. } | Backend::Linux { .. } => {
                cgroup.watch_oom().unwrap_or_else(|error| {
                    tracing::warn!(
                        id = request.id,
                        error = crate::chain(&error),
                        "no news of memory kills"
                    );
                    None
                })
            }
        };
        let mut driver = Self {
            context,
            id: request.id.clone(),
            bundle: request.bundle.clone(),
            backend,
            cgroup,
            traces,
            init,
            execs: HashMap::new(),
            ends: JoinSet::new(),
            stream_owner: request.options.stream_owner(),
            oom,
            oom_reported: 0,
            view,
        };
        driver.watch(pid, None);
        driver
    }

    async fn run(&mut self, mut queue: mpsc::Receiver<Message>, seat: Seat) {
        loop {
            tokio::select! {
                // Requests before ends: a request that came first is answered first.
                biased;
                message = queue.recv() => {
                    let Some(Message { operation, answer }) = message else { return };
                    let (result, after) = self.handle(operation).await;
                    self.show();
                    if after == After::Gone {
                        if answer.is_closed() {
                            seat.abandon();
                        }
                        // Whoever waits in the queue learns that the container is gone.
                        drop(queue);
                        drop(seat);
                        release_memory_soon();
                        drop(answer.send(result));
                        return;
                    }
                    // A caller that is gone has its answer in the events.
                    drop(answer.send(result));
                }
                Some(end) = self.ends.join_next() => self.ended(end).await,
                () = sign(self.oom.as_ref()) => self.report_oom(),
            }
        }
    }

    async fn handle(&mut self, operation: Operation) -> (Result<Answer>, After) {
        match self.decide(&operation) {
            Ok(Verdict::Accept) => {}
            Ok(Verdict::Ignore) => return (Ok(Answer::Done), After::Stay),
            Ok(Verdict::Deny(denied)) => return (Err(self.denied(denied)), After::Stay),
            Err(error) => return (Err(error), After::Stay),
        }
        let result = match operation {
            Operation::Start { exec: None } => self.start().await,
            Operation::Start { exec: Some(exec) } => self.start_exec(exec).await,
            Operation::Delete { exec: None } => match self.delete().await {
                Ok(answer) => return (Ok(answer), After::Gone),
                Err(error) => Err(error),
            },
            Operation::Delete { exec: Some(exec) } => self.delete_exec(&exec),
            Operation::Pause => self.pause().await,
            Operation::Resume => self.resume().await,
            Operation::Kill {
                exec,
                signal,
                reach,
            } => self.kill(exec.as_deref(), signal, reach).await,
            Operation::Update { resources } => self.update(&resources).await,
            Operation::Exec {
                exec,
                spec,
                streams,
            } => self.add_exec(exec, spec, streams),
            Operation::Checkpoint { path, flags } => self.checkpoint(path, &flags).await,
            Operation::ResizePty {
                exec,
                width,
                height,
            } => self.resize(exec.as_deref(), width, height),
            Operation::CloseStdin { exec } => self.process_mut(exec.as_deref()).map(|process| {
                process.held.close_stdin();
                Answer::Done
            }),
            Operation::Stats => self.stats(),
            Operation::Pids => self.pids(),
        };
        (result, After::Stay)
    }

    fn decide(&self, operation: &Operation) -> Result<Verdict> {
        let (verb, exec) = operation.verb();
        if let (Verb::Exec, Backend::Wasm { .. }) = (verb, &self.backend) {
            return Err(self.not_for_wasm(NO_EXEC));
        }
        if let (Verb::Checkpoint, Backend::Wasm { .. }) = (verb, &self.backend) {
            return Err(self.not_for_wasm("a WebAssembly guest cannot be written to disk"));
        }
        let process = match exec {
            None => &self.init,
            Some(exec) => {
                &self
                    .execs
                    .get(exec)
                    .ok_or_else(|| self.unknown(exec))?
                    .process
            }
        };
        // An added process that was not started is nothing yet that a signal could reach.
        if let (Verb::Kill, Some(_), State::Created { .. }) = (verb, exec, process.state) {
            return Ok(Verdict::Deny(Denied {
                verb,
                state: process.state.name(),
            }));
        }
        Ok(decide(&process.state, verb))
    }

    /// A process has ended.
    pub(super) async fn ended(
        &mut self,
        end: std::result::Result<(Option<String>, Exit), tokio::task::JoinError>,
    ) {
        let (exec, exit) = match end {
            Ok(end) => end,
            Err(error) => return tracing::error!(id = self.id, %error, "a process was lost"),
        };
        // The kill for memory before the end it caused. CRI learns of the end from the answer to its Wait and
        // of the kill from the event, two ways of which the first is the shorter: who is first decides
        // whether users read OOMKilled or Error (containerd#8180), so the answer waits for the event.
        self.report_oom();
        if self.oom_reported > 0 && !self.context.publisher.flush(OOM_NEWS_LIMIT).await {
            tracing::warn!(
                id = self.id,
                "containerd learns of the end before the kill for memory"
            );
        }
        if exec.is_none()
            && let Backend::Linux {
                runc,
                shares_pid_namespace: true,
            } = &self.backend
        {
            let reaper = &self.context.reaper;
            if let Err(error) = runc
                .kill(&self.id, SIGKILL, true, &self.bundle, reaper)
                .await
            {
                tracing::debug!(
                    id = self.id,
                    error = crate::chain(&error),
                    "no process is left"
                );
            }
        }
        let process = match &exec {
            None => &mut self.init,
            Some(exec) => match self.execs.get_mut(exec) {
                Some(exec) => &mut exec.process,
                None => return,
            },
        };
        process.end(exit);
        let pid = process.state.pid().unwrap_or_default().cast_unsigned();
        // In containerd's events the init's process has the id of its container.
        self.publish(&Event::Exit(messages::TaskExit {
            container_id: self.id.clone(),
            id: exec.clone().unwrap_or_else(|| self.id.clone()),
            pid,
            exit_status: exit.status,
            exited_at: Some(timestamp(exit.at)).into(),
            ..Default::default()
        }));
        self.show();
        if let Ok(process) = self.process(exec.as_deref()) {
            process.announce_end();
        }
    }

    fn report_oom(&mut self) {
        // The cgroup may be gone already, and its counter with it.
        let Ok(kills) = self.cgroup.oom_kills() else {
            return;
        };
        if kills > self.oom_reported {
            self.oom_reported = kills;
            self.publish(&Event::Oom(messages::TaskOOM {
                container_id: self.id.clone(),
                ..Default::default()
            }));
        }
    }

    pub(super) fn watch(&mut self, pid: i32, exec: Option<String>) {
        let exit = self.context.reaper.watch(pid);
        self.ends.spawn(async move {
            // The reaper lives as long as the shim; without it nothing is known but that it ended.
            let unknown = Exit {
                status: 255,
                at: std::time::SystemTime::now(),
            };
            (exec, exit.await.unwrap_or(unknown))
        });
    }

    pub(super) fn process(&self, exec: Option<&str>) -> Result<&Process> {
        match exec {
            None => Ok(&self.init),
            Some(exec) => self
                .execs
                .get(exec)
                .map(|exec| &exec.process)
                .ok_or_else(|| self.unknown(exec)),
        }
    }

    pub(super) fn process_mut(&mut self, exec: Option<&str>) -> Result<&mut Process> {
        match exec {
            None => Ok(&mut self.init),
            Some(name) => {
                let unknown = self.unknown(name);
                self.execs
                    .get_mut(name)
                    .map(|exec| &mut exec.process)
                    .ok_or(unknown)
            }
        }
    }

    pub(super) fn publish(&self, event: &Event) {
        self.context.publisher.publish(event);
    }

    fn publish_create(&self, rootfs: &[Mount]) {
        let Streams {
            stdin,
            stdout,
            stderr,
            terminal,
        } = self.init.streams.clone();
        let io = messages::TaskIO {
            stdin,
            stdout,
            stderr,
            terminal,
            ..Default::default()
        };
        self.publish(&Event::Create(Box::new(messages::TaskCreate {
            container_id: self.id.clone(),
            bundle: self.bundle.to_string_lossy().into_owned(),
            rootfs: rootfs.iter().filter_map(event_mount).collect(),
            io: Some(io).into(),
            pid: self.init.state.pid().unwrap_or_default().cast_unsigned(),
            ..Default::default()
        })));
    }

    /// Lets others see how things stand.
    fn show(&self) {
        let mut view = lock(&self.view);
        view.init = Some(self.init.snapshot());
        view.execs = self
            .execs
            .iter()
            .map(|(name, exec)| (name.clone(), exec.process.snapshot()))
            .collect();
    }

    fn denied(&self, denied: Denied) -> Error {
        Error::Denied {
            id: self.id.clone(),
            denied,
        }
    }

    pub(super) fn not_for_wasm(&self, what: &'static str) -> Error {
        Error::NotForWasm {
            id: self.id.clone(),
            what,
        }
    }

    pub(super) fn unknown(&self, exec: &str) -> Error {
        Error::UnknownExec {
            id: self.id.clone(),
            exec: exec.to_owned(),
        }
    }
}

async fn sign(watch: Option<&OomWatch>) {
    match watch {
        Some(watch) => watch.sign().await,
        None => std::future::pending().await,
    }
}

/// The same message is generated twice, for the service and for the events, and the type of the
/// second has no public name; the bytes are the same.
fn event_mount<M: containerd_shim_protos::protobuf::Message>(mount: &Mount) -> Option<M> {
    M::parse_from_bytes(&mount.write_to_bytes().ok()?).ok()
}
