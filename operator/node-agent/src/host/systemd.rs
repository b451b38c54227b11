//! systemd, through its private socket.
//!
//! `/run/systemd/private` speaks D-Bus without a bus daemon in between: it is there on every machine with systemd, also where
//! dbus is not installed or has to be restarted together with what we restart. systemd lets root do everything there and asks for no
//! capability. The protocol is org.freedesktop.systemd1(5).

use std::ffi::OsStr;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt as _;
use tokio::net::UnixStream;
use zbus::message::Type;
use zbus::zvariant::{Fd, OwnedObjectPath, OwnedValue, Value};
use zbus::{Connection, MatchRule, Message, MessageStream};

use super::pipes::{Stream, input_pipe, read_both};
use super::private::Private;
use crate::facts::{Active, Unit};

/// systemd's own socket.
pub const SOCKET: &str = "/run/systemd/private";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PATH: &str = "/org/freedesktop/systemd1";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// Name of every transient unit of ours, before a number.
const TRANSIENT: &str = "wasmlet-node-run-";
/// For an answer to a question. systemd answers at once unless it is stuck.
const ANSWER: Duration = Duration::from_secs(25);

/// Why systemd did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// There is no socket, or nobody answers at it.
    #[error(
        "cannot connect to systemd at {SOCKET}: the node must run systemd, and the agent's pod must have the host's /run/systemd and be root"
    )]
    Connect(#[source] zbus::Error),
    /// A method failed.
    #[error("systemd refused {method} of {subject}")]
    Call {
        /// Which.
        method: &'static str,
        /// On what.
        subject: String,
        /// Its answer.
        #[source]
        source: Box<zbus::Error>,
    },
    /// No answer.
    #[error("systemd did not answer {method} of {subject} within {} s", .within.as_secs())]
    Silent {
        /// Which.
        method: &'static str,
        /// On what.
        subject: String,
        /// How long it was waited.
        within: Duration,
    },
    /// A property is not what the manual says.
    #[error("systemd has no property {property} of the right type for {subject}")]
    Property {
        /// Which.
        property: &'static str,
        /// Of what.
        subject: String,
    },
    /// The connection ended.
    #[error("systemd closed the connection while {subject} was waited for")]
    Closed {
        /// Which unit.
        subject: String,
    },
    /// The job did not end well.
    #[error("systemd's job for {unit} ended with {result:?}; see journalctl -u {unit} on the node")]
    Job {
        /// Which unit.
        unit: String,
        /// `failed`, `timeout`, `canceled`, `dependency`, …
        result: String,
    },
    /// No pipe.
    #[error("cannot make a pipe for the output of a program")]
    Pipe(#[source] std::io::Error),
    /// The output cannot be read.
    #[error("cannot read the output of {0}")]
    Output(String, #[source] std::io::Error),
}

/// A program of the host.
#[derive(Debug, Clone)]
pub struct Command {
    program: PathBuf,
    arguments: Vec<String>,
    within: Duration,
    input: Vec<u8>,
}

impl Command {
    /// With its arguments, and how long it may take.
    pub fn new<S: AsRef<OsStr>>(
        program: &Path,
        arguments: impl IntoIterator<Item = S>,
        within: Duration,
    ) -> Self {
        Self {
            program: program.to_owned(),
            arguments: arguments
                .into_iter()
                .map(|argument| argument.as_ref().to_string_lossy().into_owned())
                .collect(),
            within,
            input: Vec::new(),
        }
    }

    /// What it reads from its standard input; at most a pipe's capacity, 64 kB.
    #[must_use]
    pub fn input(mut self, bytes: Vec<u8>) -> Self {
        self.input = bytes;
        self
    }

    /// For messages.
    pub fn line(&self) -> String {
        let mut line = self.program.display().to_string();
        for argument in &self.arguments {
            line.push(' ');
            line.push_str(argument);
        }
        line
    }
}

/// What a program left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub ended: Ended,
    /// Its output, at most 4 MB.
    pub stdout: Vec<u8>,
    /// Its messages.
    pub stderr: Vec<u8>,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// Otherwise; systemd's word for it: `timeout`, `exec-condition`, `resources`, …
    Otherwise(String),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(203) => f.write_str("it could not be executed"),
            Self::Exited(code) => write!(f, "it ended with {code}"),
            Self::Killed(signal) => write!(f, "it was killed by signal {signal}"),
            Self::Otherwise(word) => write!(f, "systemd says {word:?}"),
        }
    }
}

/// A connection to systemd.
#[derive(Debug)]
pub struct Systemd {
    connection: Connection,
}

type Properties = Vec<(&'static str, Value<'static>)>;
type Auxiliary = Vec<(&'static str, Properties)>;

impl Systemd {
    /// Connects.
    ///
    /// # Errors
    /// [`SystemdError::Connect`]
    pub async fn connect() -> Result<Self, SystemdError> {
        Self::connect_to(Path::new(SOCKET)).await
    }

    async fn connect_to(socket: &Path) -> Result<Self, SystemdError> {
        let connecting = async {
            let stream = UnixStream::connect(socket).await?;
            zbus::connection::Builder::socket(Private(stream))
                .p2p()
                .build()
                .await
        };
        let connection = tokio::time::timeout(ANSWER, connecting)
            .await
            .map_err(|_| silent("the greeting", SOCKET))?
            .map_err(SystemdError::Connect)?;
        Ok(Self { connection })
    }

    /// A unit, if systemd knows it.
    ///
    /// # Errors
    /// [`SystemdError`]
    pub async fn unit(&self, name: &str) -> Result<Option<Unit>, SystemdError> {
        let path = self.load(name).await?;
        let load: String = self.property(name, &path, UNIT, "LoadState").await?;
        if load != "loaded" {
            return Ok(None);
        }
        let state: String = self.property(name, &path, UNIT, "ActiveState").await?;
        let active = match state.as_str() {
            "active" | "reloading" | "activating" => Active::Running,
            "failed" => Active::Failed,
            _ => Active::Stopped,
        };
        Ok(Some(Unit {
            name: name.to_owned(),
            active,
            command: self.command_line(name, &path).await?,
        }))
    }

    /// The moment at which a unit became active last, in microseconds since boot (of the monotonic clock); 0: never.
    ///
    /// # Errors
    /// [`SystemdError`]
    pub async fn active_since(&self, name: &str) -> Result<u64, SystemdError> {
        let path = self.load(name).await?;
        self.property(name, &path, UNIT, "ActiveEnterTimestampMonotonic")
            .await
    }

    async fn command_line(
        &self,
        name: &str,
        path: &OwnedObjectPath,
    ) -> Result<Vec<String>, SystemdError> {
        // (path, arguments, ignore failure, four times, pid, code, status)
        type Exec = (String, Vec<String>, bool, u64, u64, u64, u64, u32, i32, i32);
        let lines: Vec<Exec> = self.property(name, path, SERVICE, "ExecStart").await?;
        Ok(lines
            .into_iter()
            .next()
            .map(|(program, arguments, ..)| {
                // The first argument is the program's name again.
                std::iter::once(program)
                    .chain(arguments.into_iter().skip(1))
                    .collect()
            })
            .unwrap_or_default())
    }

    /// Restarts a unit and waits until the job has ended, well.
    ///
    /// # Errors
    /// [`SystemdError`]; the unit's state is not known then.
    pub async fn restart(&self, name: &str, within: Duration) -> Result<(), SystemdError> {
        // A unit that failed too often in a short time is not started again until this is forgotten. One that did not fail is no error.
        self.call("ResetFailedUnit", name, &(name,)).await.ok();
        self.job("RestartUnit", name, &(name, "replace"), within)
            .await
    }

    /// Runs a program of the host as a transient unit, and waits for its end.
    ///
    /// # Errors
    /// [`SystemdError`]; that it failed is no error.
    pub async fn run(&self, command: Command) -> Result<Output, SystemdError> {
        let unit = format!("{TRANSIENT}{:016x}.service", fastrand::u64(..));
        let line = command.line();
        let ran = self.run_as(&unit, command).await;
        // Whatever happened, nothing of it stays: a unit that has ended well is "active (exited)" until it is stopped.
        let stopped = self
            .job("StopUnit", &unit, &(&unit, "replace"), ANSWER)
            .await;
        self.call("ResetFailedUnit", &unit, &(&unit,)).await.ok();
        if let (Ok(_), Err(error)) = (&ran, stopped)
            && !is_no_such_unit(&error)
        {
            tracing::warn!(%unit, command = %line, error = %crate::errors::Chain(&error), "a transient unit stays");
        }
        ran
    }

    async fn run_as(&self, unit: &str, command: Command) -> Result<Output, SystemdError> {
        let line = command.line();
        let (mut out, out_end) = Stream::new().map_err(SystemdError::Pipe)?;
        let (mut err, err_end) = Stream::new().map_err(SystemdError::Pipe)?;
        let input = input_pipe(&command.input).map_err(SystemdError::Pipe)?;
        let program = command.program.display().to_string();
        let mut arguments = vec![program.clone()];
        arguments.extend(command.arguments);
        let micros = u64::try_from(command.within.as_micros()).unwrap_or(u64::MAX);
        let fd = |fd: OwnedFd| Value::from(Fd::from(fd));
        let properties: Properties = vec![
            ("Description", Value::from(format!("wasmlet-node: {line}"))),
            // The job has ended when the program has.
            ("Type", Value::from("oneshot")),
            // Keeps the unit, with how it ended, until it is stopped.
            ("RemainAfterExit", Value::from(true)),
            ("TimeoutStartUSec", Value::from(micros)),
            // Nothing else is waited for, and nothing waits for it.
            ("DefaultDependencies", Value::from(false)),
            ("ExecStart", Value::from(vec![(program, arguments, false)])),
            ("StandardInputFileDescriptor", fd(input)),
            ("StandardOutputFileDescriptor", fd(out_end)),
            ("StandardErrorFileDescriptor", fd(err_end)),
        ];
        let auxiliary: Auxiliary = Vec::new();
        let body = (unit, "fail", properties, auxiliary);
        let job = tokio::select! {
            job = self.job("StartTransientUnit", unit, &body, command.within + ANSWER) => job,
            // Not until their end: systemd keeps the other ends open as long as the unit is there.
            never = read_both(&mut out, &mut err) => match never {},
        };
        drop(body);
        match job {
            // That it "failed" is how the program ended; its properties say how.
            Ok(()) | Err(SystemdError::Job { .. }) => {}
            Err(error) => return Err(error),
        }
        let unread = |error| SystemdError::Output(line.clone(), error);
        Ok(Output {
            ended: self.ended(unit).await?,
            stdout: out.rest().map_err(unread)?,
            stderr: err.rest().map_err(unread)?,
        })
    }

    async fn ended(&self, unit: &str) -> Result<Ended, SystemdError> {
        let path = self.load(unit).await?;
        let result: String = self.property(unit, &path, SERVICE, "Result").await?;
        let status: i32 = self
            .property(unit, &path, SERVICE, "ExecMainStatus")
            .await?;
        Ok(match result.as_str() {
            "success" | "exit-code" => Ended::Exited(status),
            "signal" | "core-dump" => Ended::Killed(status),
            _ => Ended::Otherwise(result),
        })
    }

    /// Stops the transient units that an agent left which was killed.
    ///
    /// # Errors
    /// [`SystemdError`]
    pub async fn stop_leftovers(&self) -> Result<(), SystemdError> {
        type Listed = (
            String,
            String,
            String,
            String,
            String,
            String,
            OwnedObjectPath,
            u32,
            String,
            OwnedObjectPath,
        );
        let pattern = format!("{TRANSIENT}*");
        let answer = self
            .call(
                "ListUnitsByPatterns",
                &pattern,
                &(Vec::<String>::new(), vec![pattern.as_str()]),
            )
            .await?;
        let units: Vec<Listed> =
            answer
                .body()
                .deserialize()
                .map_err(|source: zbus::Error| SystemdError::Call {
                    method: "ListUnitsByPatterns",
                    subject: pattern.clone(),
                    source: Box::new(source),
                })?;
        for unit in units.into_iter().map(|listed| listed.0) {
            tracing::info!(%unit, "stopping what an earlier agent left");
            match self
                .job("StopUnit", &unit, &(&unit, "replace"), ANSWER)
                .await
            {
                Ok(()) => {}
                Err(error) if is_no_such_unit(&error) => {}
                Err(error) => return Err(error),
            }
            self.call("ResetFailedUnit", &unit, &(&unit,)).await.ok();
        }
        Ok(())
    }

    async fn load(&self, name: &str) -> Result<OwnedObjectPath, SystemdError> {
        let answer = self.call("LoadUnit", name, &(name,)).await?;
        answer
            .body()
            .deserialize()
            .map_err(|source: zbus::Error| SystemdError::Call {
                method: "LoadUnit",
                subject: name.to_owned(),
                source: Box::new(source),
            })
    }

    async fn property<T>(
        &self,
        subject: &str,
        path: &OwnedObjectPath,
        interface: &str,
        property: &'static str,
    ) -> Result<T, SystemdError>
    where
        T: TryFrom<OwnedValue>,
    {
        let answer = self
            .call_at(
                path.as_str(),
                PROPERTIES,
                "Get",
                subject,
                &(interface, property),
            )
            .await?;
        let value: OwnedValue =
            answer
                .body()
                .deserialize()
                .map_err(|source: zbus::Error| SystemdError::Call {
                    method: "Get",
                    subject: subject.to_owned(),
                    source: Box::new(source),
                })?;
        T::try_from(value).map_err(|_| SystemdError::Property {
            property,
            subject: subject.to_owned(),
        })
    }

    /// Calls a method that returns a job, and waits until that has ended.
    async fn job<B>(
        &self,
        method: &'static str,
        unit: &str,
        body: &B,
        within: Duration,
    ) -> Result<(), SystemdError>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
    {
        // Before the call: a job can end before its answer is here.
        let rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .interface(MANAGER)
            .and_then(|rule| rule.member("JobRemoved"))
            .map(|rule| rule.build());
        let failed = |source| SystemdError::Call {
            method,
            subject: unit.to_owned(),
            source: Box::new(source),
        };
        let rule = rule.map_err(failed)?;
        let mut removed = MessageStream::for_match_rule(rule, &self.connection, Some(1024))
            .await
            .map_err(failed)?;
        let answer = self.call(method, unit, body).await?;
        let job: OwnedObjectPath = answer.body().deserialize().map_err(failed)?;
        let ended = async {
            while let Some(message) = removed.next().await {
                let message = message.map_err(failed)?;
                let (_, path, _, result): (u32, OwnedObjectPath, String, String) =
                    message.body().deserialize().map_err(failed)?;
                if path == job {
                    return Ok(result);
                }
            }
            Err(SystemdError::Closed {
                subject: unit.to_owned(),
            })
        };
        let result =
            tokio::time::timeout(within, ended)
                .await
                .map_err(|_| SystemdError::Silent {
                    method,
                    subject: unit.to_owned(),
                    within,
                })??;
        if result == "done" {
            Ok(())
        } else {
            Err(SystemdError::Job {
                unit: unit.to_owned(),
                result,
            })
        }
    }

    async fn call<B>(
        &self,
        method: &'static str,
        subject: &str,
        body: &B,
    ) -> Result<Message, SystemdError>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
    {
        self.call_at(PATH, MANAGER, method, subject, body).await
    }

    async fn call_at<B>(
        &self,
        path: &str,
        interface: &str,
        method: &'static str,
        subject: &str,
        body: &B,
    ) -> Result<Message, SystemdError>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
    {
        let call = self
            .connection
            .call_method(None::<&str>, path, Some(interface), method, body);
        tokio::time::timeout(ANSWER, call)
            .await
            .map_err(|_| silent(method, subject))?
            .map_err(|source: zbus::Error| SystemdError::Call {
                method,
                subject: subject.to_owned(),
                source: Box::new(source),
            })
    }
}

fn silent(method: &'static str, subject: &str) -> SystemdError {
    SystemdError::Silent {
        method,
        subject: subject.to_owned(),
        within: ANSWER,
    }
}

fn is_no_such_unit(error: &SystemdError) -> bool {
    let SystemdError::Call { source, .. } = error else {
        return false;
    };
    matches!(&**source, zbus::Error::MethodError(name, ..)
        if name.as_str() == "org.freedesktop.systemd1.NoSuchUnit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_machine_without_systemd_is_told_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let error = Systemd::connect_to(&dir.path().join("private"))
            .await
            .unwrap_err();
        assert!(matches!(error, SystemdError::Connect(_)), "{error}");
        assert!(error.to_string().contains("must run systemd"), "{error}");
    }

    #[test]
    fn a_command_is_shown_as_it_is_typed() {
        let command = Command::new(Path::new("/bin/echo"), ["a", "b"], ASK);
        assert_eq!(command.line(), "/bin/echo a b");
    }

    const ASK: Duration = Duration::from_secs(1);
}
