//! What the driver does for each verb that was accepted: have the backend do it, record and publish it.

use std::path::PathBuf;
use std::time::Duration;

use containerd_shim_protos::events::task as messages;
use serde::Deserialize;
use wasmlet_protocol::GuestLimits;

use super::create::Backend;
use super::driver::{Driver, Exec};
use super::process::Process;
use super::request::{Answer, Reach};
use super::state::State;
use crate::backend::runc::ProcessIo;
use crate::error::{Error, Result};
use crate::events::{Event, timestamp};
use crate::reaper::Exit;
use crate::stdio::terminal::{ConsoleSocket, beside};
use crate::stdio::{self, Held, Streams, Use};

pub(super) const SIGKILL: u32 = 9;
/// A killed init must be gone within this time; containerd waits 5 s for a clean-up.
const KILL_TIMEOUT: Duration = Duration::from_secs(4);
/// Why there is no exec, for the reader of a failed probe's event, and what to do instead.
pub(super) const NO_EXEC: &str = "there is no second process to start in a WebAssembly guest; give probes and hooks \
     httpGet, tcpSocket, grpc or sleep instead of exec, and use kubectl debug for a shell beside it";

impl Driver {
    pub(super) async fn start(&mut self) -> Result<Answer> {
        let reaper = &self.context.reaper;
        match &self.backend {
            Backend::Wasm {
                runner,
                has_poststart: true,
                ..
            } => runner.control("start", reaper).await?,
            Backend::Wasm {
                runner,
                has_poststart: false,
                ..
            } => runner.start()?,
            Backend::Linux { runc, .. } => runc.start(&self.id, &self.bundle, reaper).await?,
        }
        let pid = self.init.state.pid().unwrap_or_default();
        self.init.state = self.init.state.started(pid);
        let pid = pid.cast_unsigned();
        self.publish(&Event::Start(messages::TaskStart {
            container_id: self.id.clone(),
            pid,
            ..Default::default()
        }));
        Ok(Answer::Pid(pid))
    }

    pub(super) fn add_exec(
        &mut self,
        exec: String,
        spec: Vec<u8>,
        streams: Streams,
    ) -> Result<Answer> {
        if self.execs.contains_key(&exec) {
            return Err(Error::ExecExists {
                id: self.id.clone(),
                exec,
            });
        }
        self.publish(&Event::ExecAdded(messages::TaskExecAdded {
            container_id: self.id.clone(),
            exec_id: exec.clone(),
            ..Default::default()
        }));
        let process = Process::planned(streams);
        self.execs.insert(exec, Exec { spec, process });
        Ok(Answer::Done)
    }

    pub(super) async fn start_exec(&mut self, exec: String) -> Result<Answer> {
        let Backend::Linux { runc, .. } = &self.backend else {
            return Err(self.not_for_wasm(NO_EXEC));
        };
        let Exec { spec, process } = self.execs.get(&exec).ok_or_else(|| self.unknown(&exec))?;
        let reaper = &self.context.reaper;
        let what = Use {
            streams: &process.streams,
            owner: self.stream_owner,
            id: &exec,
            namespace: &self.context.namespace,
            reaper,
        };
        let (pid, held) = if process.streams.terminal {
            let socket = self.context.paths.console_socket(&self.id, Some(&exec));
            let console = ConsoleSocket::bind(socket)?;
            let io = ProcessIo::Console(console.path().to_owned());
            let started = runc.exec(&self.id, &exec, spec, &self.bundle, io, reaper);
            let (pid, terminal) = beside(started, console.accept(what)).await?;
            (pid, terminal.map(Held::with_terminal))
        } else {
            let (descriptors, held) = stdio::open(what).await?;
            let io = ProcessIo::Descriptors(descriptors);
            let started = runc.exec(&self.id, &exec, spec, &self.bundle, io, reaper);
            (started.await?, Ok(held))
        };
        let (held, failure) = match held {
            Ok(held) => (held, None),
            Err(error) => (Held::default(), Some(error)),
        };
        self.watch(pid, Some(exec.clone()));
        let runs = match self.execs.get_mut(&exec) {
            Some(Exec { process, .. }) => process.runs(pid, held),
            None => Ok(()),
        };
        runs?;
        if let Some(error) = failure {
            // It runs, and nobody would ever see what it says; its end is told like any other.
            self.process(Some(&exec))?.signal(SIGKILL.cast_signed())?;
            return Err(error.into());
        }
        let pid = pid.cast_unsigned();
        self.publish(&Event::ExecStarted(messages::TaskExecStarted {
            container_id: self.id.clone(),
            exec_id: exec,
            pid,
            ..Default::default()
        }));
        Ok(Answer::Pid(pid))
    }

    pub(super) async fn pause(&mut self) -> Result<Answer> {
        let reaper = &self.context.reaper;
        match &self.backend {
            Backend::Wasm { runner, .. } => runner.control("pause", reaper).await?,
            Backend::Linux { runc, .. } => runc.pause(&self.id, &self.bundle, reaper).await?,
        }
        self.init.state = self.init.state.paused();
        self.publish(&Event::Paused(messages::TaskPaused {
            container_id: self.id.clone(),
            ..Default::default()
        }));
        Ok(Answer::Done)
    }

    pub(super) async fn resume(&mut self) -> Result<Answer> {
        let reaper = &self.context.reaper;
        match &self.backend {
            Backend::Wasm { runner, .. } => runner.control("resume", reaper).await?,
            Backend::Linux { runc, .. } => runc.resume(&self.id, &self.bundle, reaper).await?,
        }
        self.init.state = self.init.state.resumed();
        self.publish(&Event::Resumed(messages::TaskResumed {
            container_id: self.id.clone(),
            ..Default::default()
        }));
        Ok(Answer::Done)
    }

    pub(super) async fn kill(
        &mut self,
        exec: Option<&str>,
        signal: u32,
        reach: Reach,
    ) -> Result<Answer> {
        let process = self.process(exec)?;
        let number = i32::try_from(signal)
            .ok()
            .filter(|number| (1..=64).contains(number))
            .ok_or_else(|| Error::BadRequest {
                what: format!("there is no signal {signal}"),
            })?;
        match (&self.backend, exec) {
            (Backend::Linux { runc, .. }, None) => {
                let (all, reaper) = (reach == Reach::Container, &self.context.reaper);
                let sent = runc.kill(&self.id, signal, all, &self.bundle, reaper).await;
                // runc refuses a container whose init has just ended, which we may not know yet.
                // Nothing is left to signal then, whatever its words are.
                if let Err(error) = sent
                    && !process.has_ended()?
                {
                    return Err(error.into());
                }
            }
            // A wasm container is one process, so one is all.
            (Backend::Wasm { .. }, _) | (Backend::Linux { .. }, Some(_)) => {
                process.signal(number)?;
            }
        }
        // A frozen process does not die before it is thawed.
        if signal == SIGKILL
            && let (Backend::Wasm { .. }, State::Paused { .. }) = (&self.backend, self.init.state)
        {
            self.resume().await?;
        }
        Ok(Answer::Done)
    }

    pub(super) async fn update(&self, resources: &[u8]) -> Result<Answer> {
        let reaper = &self.context.reaper;
        match &self.backend {
            Backend::Wasm { runner, memory, .. } => {
                let limits = match memory_limit(resources)? {
                    Some(limit) => Some(GuestLimits {
                        max_memory: memory.cap(limit)?,
                    }),
                    None => None,
                };
                runner.update(resources, limits, reaper).await?;
            }
            Backend::Linux { runc, .. } => {
                runc.update(&self.id, resources, &self.bundle, reaper)
                    .await?;
            }
        }
        Ok(Answer::Done)
    }

    pub(super) async fn checkpoint(&self, path: PathBuf, flags: &[String]) -> Result<Answer> {
        let Backend::Linux { runc, .. } = &self.backend else {
            return Err(self.not_for_wasm("a WebAssembly guest cannot be written to disk"));
        };
        let reaper = &self.context.reaper;
        runc.checkpoint(&self.id, &path, flags, &self.bundle, reaper)
            .await?;
        self.publish(&Event::Checkpointed(messages::TaskCheckpointed {
            container_id: self.id.clone(),
            checkpoint: path.to_string_lossy().into_owned(),
            ..Default::default()
        }));
        Ok(Answer::Done)
    }

    pub(super) fn resize(&self, exec: Option<&str>, width: u16, height: u16) -> Result<Answer> {
        let terminal = self.process(exec)?.held.terminal();
        let terminal = terminal.ok_or_else(|| Error::NoTerminal {
            id: self.id.clone(),
        })?;
        terminal
            .resize(width, height)
            .map_err(Error::system("resize the terminal"))?;
        Ok(Answer::Done)
    }

    pub(super) fn stats(&self) -> Result<Answer> {
        Ok(Answer::Usage(self.cgroup.usage()?))
    }

    pub(super) fn pids(&self) -> Result<Answer> {
        if let State::Stopped { pid, .. } = self.init.state {
            let pid = pid.map(i32::cast_unsigned);
            return Ok(Answer::Processes(
                pid.into_iter().map(|pid| (pid, None)).collect(),
            ));
        }
        let added = |pid: u32| {
            let is = |exec: &Exec| exec.process.state.pid().map(i32::cast_unsigned) == Some(pid);
            self.execs
                .iter()
                .find(|(_, exec)| is(exec))
                .map(|(name, _)| name.clone())
        };
        let mut processes = self.cgroup.processes()?;
        if processes.is_empty() {
            // The init has died and nobody has told us yet. A container without processes is one that
            // containerd forgets when it comes back, and its exit code with it.
            processes.extend(self.init.state.pid().map(i32::cast_unsigned));
        }
        Ok(Answer::Processes(
            processes.into_iter().map(|pid| (pid, added(pid))).collect(),
        ))
    }

    pub(super) fn delete_exec(&mut self, exec: &str) -> Result<Answer> {
        let Exec { process, .. } = self.execs.remove(exec).ok_or_else(|| self.unknown(exec))?;
        Ok(deleted(&process))
    }

    pub(super) async fn delete(&mut self) -> Result<Answer> {
        if let State::Created { pid: Some(pid) } = self.init.state {
            self.end_unstarted(pid).await?;
        }
        let reaper = &self.context.reaper;
        match &self.backend {
            Backend::Wasm { runner, .. } => runner.control("delete", reaper).await?,
            Backend::Linux { runc, .. } => runc.delete(&self.id, &self.bundle, reaper).await?,
        }
        self.traces.remove()?;
        let answer = deleted(&self.init);
        if let Answer::Deleted { pid, exit } = &answer {
            self.publish(&Event::Delete(messages::TaskDelete {
                container_id: self.id.clone(),
                pid: *pid,
                exit_status: exit.status,
                exited_at: Some(timestamp(exit.at)).into(),
                ..Default::default()
            }));
        }
        Ok(answer)
    }

    /// Ends an init that waits for its start, and waits until it is gone.
    pub(super) async fn end_unstarted(&mut self, pid: i32) -> Result<()> {
        self.init.signal(SIGKILL.cast_signed())?;
        let gone = async {
            while self.init.state.exit().is_none() {
                match self.ends.join_next().await {
                    Some(end) => self.ended(end).await,
                    None => break,
                }
            }
        };
        tokio::time::timeout(KILL_TIMEOUT, gone)
            .await
            .map_err(|elapsed| Error::System {
                what: format!("end process {pid}"),
                source: elapsed.into(),
            })
    }
}

fn deleted(process: &Process) -> Answer {
    // Only an added process that was never started is deleted without an end.
    let never = Exit {
        status: 0,
        at: std::time::SystemTime::UNIX_EPOCH,
    };
    Answer::Deleted {
        pid: process.state.pid().unwrap_or_default().cast_unsigned(),
        exit: process.state.exit().unwrap_or(never),
    }
}

/// The memory limit in an update: nothing when it is left as it is, and `Some(None)` when it is lifted.
fn memory_limit(resources: &[u8]) -> Result<Option<Option<u64>>> {
    #[derive(Deserialize)]
    struct Resources {
        memory: Option<Memory>,
    }
    #[derive(Deserialize)]
    struct Memory {
        limit: Option<i64>,
    }
    let resources: Resources =
        serde_json::from_slice(resources).map_err(|error| Error::BadRequest {
            what: format!("the resources are not valid: {error}"),
        })?;
    let limit = resources.memory.and_then(|memory| memory.limit);
    Ok(limit
        // As the runtime specification has it: nothing is set.
        .filter(|limit| *limit != 0)
        .map(|limit| u64::try_from(limit).ok()))
}

#[cfg(test)]
mod tests {
    use super::memory_limit;

    #[test]
    fn the_memory_limit_of_an_update_is_found() {
        let limit = |json: &str| memory_limit(json.as_bytes()).expect("valid");
        assert_eq!(limit("{}"), None);
        assert_eq!(limit(r#"{"cpu":{"shares":2}}"#), None);
        assert_eq!(limit(r#"{"memory":{"swap":5}}"#), None);
        assert_eq!(limit(r#"{"memory":{"limit":0}}"#), None);
        assert_eq!(limit(r#"{"memory":{"limit":5}}"#), Some(Some(5)));
        assert_eq!(limit(r#"{"memory":{"limit":-1}}"#), Some(None));
        assert!(memory_limit(b"[]").is_err());
    }
}
