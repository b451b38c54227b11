//! Linux containers: runc, as under `io.containerd.runc.v2`.
//!
//! The spec goes to runc unchanged. What failed is decided by runc's exit status, and told in the words
//! of the last error of its JSON log.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::reaper::Reaper;
use crate::stdio::Descriptors;

/// The program when the node's options name none.
const DEFAULT_PROGRAM: &str = "runc";
/// Where it is looked for when containerd itself has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why runc did not do it.
#[derive(Debug, thiserror::Error)]
pub enum RuncError {
    /// It cannot be started.
    #[error("cannot run {}; install runc or set BinaryName in the runtime's options", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// It says no.
    #[error("runc {verb} failed: {message}")]
    Failed {
        /// What it was asked for.
        verb: &'static str,
        /// What it logged.
        message: String,
    },
    /// It did not leave the process id it should.
    #[error("runc {verb} left no process id in {}", path.display())]
    NoPid {
        /// What it was asked for.
        verb: &'static str,
        /// Where it should be.
        path: PathBuf,
    },
}

/// runc for the containers of one namespace.
#[derive(Debug, Clone)]
pub struct Runc {
    program: PathBuf,
    root: PathBuf,
    systemd_cgroup: bool,
}

/// What the node's options say about every container that runc creates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CreateOptions {
    /// `--no-pivot`.
    pub no_pivot_root: bool,
    /// `--no-new-keyring`.
    pub no_new_keyring: bool,
}

/// How a process gets its streams.
#[derive(Debug)]
pub enum ProcessIo {
    /// These descriptors.
    Descriptors(Descriptors),
    /// A terminal, sent to this socket.
    Console(PathBuf),
}

impl Runc {
    /// runc with its states in `root`.
    pub fn new(program: Option<&str>, root: PathBuf, systemd_cgroup: bool) -> Self {
        Self {
            program: program.unwrap_or(DEFAULT_PROGRAM).into(),
            root,
            systemd_cgroup,
        }
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The systemd cgroup driver was asked for.
    pub fn systemd_cgroup(&self) -> bool {
        self.systemd_cgroup
    }

    /// Creates a container and returns its init's process id.
    ///
    /// # Errors
    /// [`RuncError`].
    pub async fn create(
        &self,
        id: &str,
        bundle: &Path,
        options: CreateOptions,
        io: ProcessIo,
        reaper: &Reaper,
    ) -> Result<i32, RuncError> {
        let pid_file = bundle.join("init.pid");
        let mut command = self.command(bundle);
        command
            .arg("create")
            .arg("--bundle")
            .arg(bundle)
            .arg("--pid-file")
            .arg(&pid_file);
        if options.no_pivot_root {
            command.arg("--no-pivot");
        }
        if options.no_new_keyring {
            command.arg("--no-new-keyring");
        }
        attach(&mut command, io);
        command.arg(id);
        self.run("create", command, bundle, reaper).await?;
        read_pid("create", pid_file)
    }

    /// Starts a created container.
    ///
    /// # Errors
    /// [`RuncError`].
    pub async fn start(&self, id: &str, bundle: &Path, reaper: &Reaper) -> Result<(), RuncError> {
        self.simple("start", &[OsStr::new(id)], bundle, reaper)
            .await
    }

    /// Adds a process; `spec` is the JSON of OCI's `process`. Returns its process id.
    ///
    /// # Errors
    /// [`RuncError`].
    pub async fn exec(
        &self,
        id: &str,
        exec: &str,
        spec: &[u8],
        bundle: &Path,
        io: ProcessIo,
        reaper: &Reaper,
    ) -> Result<i32, RuncError> {
        let spec_file = bundle.join(format!("{exec}.process.json"));
        let pid_file = bundle.join(format!("{exec}.pid"));
        write_private(&spec_file, spec).map_err(|source| RuncError::Failed {
            verb: "exec",
            message: format!("cannot write {}: {source}", spec_file.display()),
        })?;
        let mut command = self.command(bundle);
        command
            .arg("exec")
            .arg("--process")
            .arg(&spec_file)
            .arg("--pid-file")
            .arg(&pid_file)
            .arg("--detach");
        attach(&mut command, io);
        command.arg(id);
        let result = self.run("exec", command, bundle, reaper).await;
        remove(&spec_file);
        result?;
        let pid = read_pid("exec", pid_file.clone());
        remove(&pid_file);
        pid
    }

    /// Sends a signal to the init, or to every process of the container.
    ///
    /// # Errors
    /// [`RuncError`].
    pub async fn kill(
        &self,
        id: &str,
        signal: u32,
        all: bool,
        bundle: &Path,
        reaper: &Reaper,
    ) -> Result<(), RuncError> {
        let signal = signal.to_string();
        let mut arguments: Vec<&OsStr> = Vec::new();
        if all {
            arguments.push(OsStr::new("--all"));
        }
        arguments.extend([OsStr::new(id), OsStr::new(&signal)]);
        self.simple("kill", &arguments, bundle, reaper).await
    }

    /// Freezes the container.
    ///
    /// # Errors
    /// [`RuncError`].
    pub async fn pause(&self, id: &str, bundle: &Path, reaper: &Reaper) -> Result<(), RuncError> {
        self.simple("pause", &[OsStr::new(id)], bundle, reaper)
            .await
    }

    /// Thaws the container.
    ///
    /// # Errors
    /// [`RuncError`].
    pub async fn resume(&self, id: &str, bundle: &Path, reaper: &Reaper) -> Result<(), RuncError> {
        self.simple("resume", &[OsStr::new(id)], bundle, reaper)
            .await
    }

    /// Changes the container's limits; `resources` is the JSON of OCI's `LinuxResources`.
    ///
    /// # Errors
    /// [`RuncError`].
    pub async fn update(
        &self,
        id: &str,
        resources: &[u8],
        bundle: &Path,
        reaper: &Reaper,
    ) -> Result<(), RuncError> {
        let file = bundle.join("update.json");
        write_private(&file, resources).map_err(|source| RuncError::Failed {
            verb: "update",
            message: format!("cannot write {}: {source}", file.display()),
        })?;
        let arguments = [OsStr::new("--resources"), file.as_os_str(), OsStr::new(id)];
        let result = self.simple("update", &arguments, bundle, reaper).await;
        remove(&file);
        result
    }

    /// Writes the container to `path`; `flags` are further ones of `runc checkpoint`.
    ///
    /// # Errors
    /// [`RuncError`].
    pub async fn checkpoint(
        &self,
        id: &str,
        path: &Path,
        flags: &[String],
        bundle: &Path,
        reaper: &Reaper,
    ) -> Result<(), RuncError> {
        let mut arguments = vec![OsStr::new("--image-path"), path.as_os_str()];
        arguments.extend(flags.iter().map(OsStr::new));
        arguments.push(OsStr::new(id));
        self.simple("checkpoint", &arguments, bundle, reaper).await
    }

    /// Processes that are creating the container at this moment. One outlives the shim that started it.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn creators(&self, id: &str) -> io::Result<Vec<i32>> {
        let mut pids = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // Gone between the listing and here is not creating anything.
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if self.is_create(&line, id) {
                pids.push(pid);
            }
        }
        Ok(pids)
    }

    /// Whether a process with this command line was started by [`Runc::create`].
    fn is_create(&self, line: &[u8], id: &str) -> bool {
        let words: Vec<&[u8]> = line
            .strip_suffix(b"\0")
            .unwrap_or(line)
            .split(|b| *b == 0)
            .collect();
        let root = [b"--root", self.root.as_os_str().as_bytes()];
        words.contains(&b"create".as_slice())
            && words.windows(2).any(|pair| pair == root)
            && words.last() == Some(&id.as_bytes())
    }

    /// Removes what is left of a container; kills what still runs. None left is fine.
    ///
    /// # Errors
    /// [`RuncError`].
    pub async fn delete(&self, id: &str, bundle: &Path, reaper: &Reaper) -> Result<(), RuncError> {
        // With --force a container that runc does not know is no error.
        self.simple(
            "delete",
            &[OsStr::new("--force"), OsStr::new(id)],
            bundle,
            reaper,
        )
        .await
    }

    async fn simple(
        &self,
        verb: &'static str,
        arguments: &[&OsStr],
        bundle: &Path,
        reaper: &Reaper,
    ) -> Result<(), RuncError> {
        let mut command = self.command(bundle);
        command
            .arg(verb)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.run(verb, command, bundle, reaper).await
    }

    fn command(&self, bundle: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            // containerd's own: distributions that bring a runc in a folder of theirs name it there. It is the
            // node's word; nothing of an image or a pod reaches this process's environment.
            .env(
                "PATH",
                std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into()),
            )
            // Without it runc looks for a user session to ask about rootless containers.
            .env("XDG_RUNTIME_DIR", "/run")
            .arg("--root")
            .arg(&self.root)
            .arg("--log")
            .arg(log_file(bundle))
            .args(["--log-format", "json"]);
        if self.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        command
    }

    async fn run(
        &self,
        verb: &'static str,
        mut command: Command,
        bundle: &Path,
        reaper: &Reaper,
    ) -> Result<(), RuncError> {
        remove(&log_file(bundle));
        let (_, exit) = reaper
            .spawn(&mut command)
            .map_err(|source| RuncError::Start {
                program: self.program.clone(),
                source,
            })?;
        // The container's ends of its streams belong to the container alone from here on.
        drop(command);
        let status = exit.await.map_or(255, |exit| exit.status);
        if status == 0 {
            return Ok(());
        }
        let message = last_error(&log_file(bundle))
            .unwrap_or_else(|| format!("it ended with status {status} and logged nothing"));
        Err(RuncError::Failed { verb, message })
    }
}

fn attach(command: &mut Command, io: ProcessIo) {
    match io {
        ProcessIo::Descriptors(stdio) => {
            command
                .stdin(stdio.stdin)
                .stdout(stdio.stdout)
                .stderr(stdio.stderr);
        }
        ProcessIo::Console(socket) => {
            command.arg("--console-socket").arg(socket);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
        }
    }
}

fn log_file(bundle: &Path) -> PathBuf {
    bundle.join("runc.log.json")
}

fn read_pid(verb: &'static str, path: PathBuf) -> Result<i32, RuncError> {
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    text.trim()
        .parse()
        .map_err(|_| RuncError::NoPid { verb, path })
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    io::Write::write_all(&mut file, bytes)
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove a file of the bundle");
    }
}

/// One line of runc's JSON log.
#[derive(Deserialize)]
struct LogLine {
    level: String,
    msg: String,
}

fn last_error(log: &Path) -> Option<String> {
    let text = std::fs::read_to_string(log).ok()?;
    let lines = text
        .lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<LogLine>(line).ok());
    lines
        .filter(|line| line.level == "error" || line.level == "fatal")
        .map(|line| line.msg)
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_create_is_known_by_its_command_line() {
        let runc = Runc::new(None, "/run/w/r".into(), false);
        let line = b"runc\0--root\0/run/w/r\0create\0--bundle\0/b\0c1\0";
        assert!(runc.is_create(line, "c1"));
        assert!(!runc.is_create(line, "c"));
        assert!(!Runc::new(None, "/run/w".into(), false).is_create(line, "c1"));
        assert!(!runc.is_create(b"runc\0--root\0/run/w/r\0delete\0c1\0", "c1"));
        assert!(!runc.is_create(b"", ""));
    }

    #[test]
    fn the_last_error_of_the_log_is_told() {
        let dir = tempfile::tempdir().expect("a folder");
        let log = log_file(dir.path());
        let text = concat!(
            "{\"level\":\"error\",\"msg\":\"first\",\"time\":\"t\"}\n",
            "{\"level\":\"error\",\"msg\":\"second\",\"time\":\"t\"}\n",
            "{\"level\":\"warning\",\"msg\":\"later\",\"time\":\"t\"}\nnot json\n",
        );
        std::fs::write(&log, text).expect("written");
        assert_eq!(last_error(&log).as_deref(), Some("second"));
        assert_eq!(last_error(Path::new("/no/log")), None);
    }
}
