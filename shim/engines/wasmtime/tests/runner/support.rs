//! Drives the two programs as the shim does: compiles a guest, makes a bundle, creates a container,
//! starts it, and sees how it ends.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};
use wasmlet_protocol::{
    CompileReport, CompileRequest, Compiled, ContainerRef, ControlReply, CreateReply,
    CreateRequest, Description, Failure, PROTOCOL, fd,
};

use crate::engine;

/// How long anything may take on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Path of one of the two programs: as built for this test, or those of a release in the folder
/// that `WASMLET_TEST_BIN` names.
fn program((name, built): (&str, &str)) -> PathBuf {
    match std::env::var_os("WASMLET_TEST_BIN") {
        Some(folder) => Path::new(&folder).join(name),
        None => PathBuf::from(built),
    }
}

pub(crate) fn runner() -> PathBuf {
    program(engine::RUNNER)
}

pub(crate) fn compiler() -> PathBuf {
    program(engine::COMPILER)
}

/// Whether containers can be made here; says why not.
pub(crate) fn can_run() -> bool {
    if nix::unistd::geteuid().is_root() {
        // The init of a container becomes a child of this process, as it does of a shim.
        // SAFETY: prctl with these arguments only sets a flag of this process.
        let done = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
        assert_eq!(done, 0, "this process can be a subreaper");
        return true;
    }
    eprintln!("skipped: containers need root");
    false
}

/// Whether containers can be made here, of components.
pub(crate) fn can_run_components() -> bool {
    if !engine::COMPONENTS {
        eprintln!("skipped: {} has no components", engine::NAME);
        return false;
    }
    can_run()
}

pub(crate) fn describe() -> Description {
    let output = Command::new(runner())
        .arg("--describe")
        .output()
        .expect("the runner starts");
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("a description")
}

/// What a container asks for that decides about its guest's code.
#[derive(Clone, Copy)]
pub(crate) struct Wishes {
    pub(crate) profile: &'static str,
    pub(crate) fuel: Option<u64>,
    pub(crate) timeout_millis: Option<u64>,
}

impl Wishes {
    pub(crate) const NONE: Self = Self {
        profile: "default",
        fuel: None,
        timeout_millis: None,
    };
}

/// Compiles; the artifact or why there is none.
pub(crate) fn try_compile(module: &[u8]) -> Result<(Compiled, File), Failure> {
    try_compile_for(module, Wishes::NONE)
}

/// Compiles for such a container.
pub(crate) fn try_compile_for(module: &[u8], wishes: Wishes) -> Result<(Compiled, File), Failure> {
    let request = CompileRequest {
        protocol: PROTOCOL,
        name: "/guest.wasm".to_owned(),
        profile: wishes.profile.to_owned(),
        metered: wishes.fuel.is_some(),
        interruptible: wishes.timeout_millis.is_some(),
        unoptimised: false,
        cgroup_procs: Vec::new(),
        parent: None,
        time_limit_seconds: None,
    };
    let artifact = tempfile::tempfile().expect("a temporary file");
    let mut input = tempfile::tempfile().expect("a temporary file");
    input
        .write_all(module)
        .and_then(|()| input.rewind())
        .expect("the module can be written");
    let mut command = Command::new(compiler());
    command
        .arg("compile")
        .arg(serde_json::to_string(&request).expect("a request is JSON"))
        .stdin(input)
        .fd_mappings(vec![FdMapping {
            parent_fd: artifact.try_clone().expect("a descriptor").into(),
            child_fd: fd::COMPILE_OUTPUT,
        }])
        .expect("no collision");
    let output = command.output().expect("the helper starts");
    assert!(output.status.success(), "{output:?}");
    match serde_json::from_slice(&output.stdout).expect("a report") {
        CompileReport::Compiled(compiled) => Ok((compiled, artifact)),
        CompileReport::Failed(failure) => Err(failure),
    }
}

/// A container to be, with the usual spec of containerd cut down.
pub(crate) struct Container {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) request: CreateRequest,
    pub(crate) spec: Value,
    pub(crate) artifact: File,
}

/// A container that was created.
pub(crate) struct Created {
    pub(crate) container: Container,
    pub(crate) pid: i32,
    pub(crate) warnings: Vec<String>,
    ended: Option<i32>,
}

/// A test that fails leaves nothing behind.
impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() && self.request.container.state_root.exists() {
            let container = serde_json::to_string(&self.request.container).unwrap_or_default();
            let _ = Command::new(runner()).arg("delete").arg(container).output();
        }
    }
}

impl Container {
    /// For a guest in WebAssembly text or binary form.
    #[track_caller]
    pub(crate) fn new(module: impl AsRef<[u8]>) -> Self {
        Self::with(module, Wishes::NONE)
    }

    /// For a guest, with settings of the pod.
    #[track_caller]
    pub(crate) fn with(module: impl AsRef<[u8]>, wishes: Wishes) -> Self {
        let (compiled, artifact) =
            try_compile_for(module.as_ref(), wishes).expect("the guest compiles");
        // Where the real ones are: in memory.
        let folder = tempfile::Builder::new()
            .prefix("wasmlet-test-")
            .tempdir_in("/run")
            .expect("a folder in /run");
        let id = folder
            .path()
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let id = id.trim_start_matches('.').to_owned();
        let rootfs = folder.path().join("rootfs");
        fs::create_dir(&rootfs).expect("a root file system");
        let request = CreateRequest {
            protocol: PROTOCOL,
            container: ContainerRef {
                id: id.clone(),
                state_root: folder.path().join("state"),
            },
            bundle: folder.path().to_owned(),
            rootfs,
            systemd_cgroup: false,
            console_socket: None,
            name: "/guest.wasm".to_owned(),
            kind: compiled.kind,
            invoke: None,
            args: vec!["guest.wasm".to_owned()],
            profile: wishes.profile.to_owned(),
            max_memory: None,
            listen: None,
            fuel: wishes.fuel,
            timeout_millis: wishes.timeout_millis,
            max_stack: None,
            nn_models: Vec::new(),
        };
        Self {
            spec: spec(&id),
            folder,
            request,
            artifact,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn rootfs(&self) -> &Path {
        &self.request.rootfs
    }

    /// Text that the guest wrote.
    #[track_caller]
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("the file is there")
    }

    /// Runs `create` with stdout and stderr in files of that name, and stdin from a file if there
    /// is one.
    #[track_caller]
    pub(crate) fn create(self) -> Result<Created, Box<(Failure, Self)>> {
        let (mut child, mut control) = self.spawn();
        let mut reply = Vec::new();
        control
            .read_to_end(&mut reply)
            .expect("the runner answers and closes");
        let status = child.wait().expect("it is our child");
        assert!(
            status.success(),
            "{status}, stderr: {}",
            self.read("stderr")
        );
        match serde_json::from_slice(&reply).expect("a reply") {
            CreateReply::Created { pid, warnings } => Ok(Created {
                container: self,
                pid,
                warnings,
                ended: None,
            }),
            CreateReply::Failed(failure) => Err(Box::new((failure, self))),
        }
    }

    /// Starts `create` and hands over the request.
    #[track_caller]
    pub(crate) fn spawn(&self) -> (Child, UnixStream) {
        fs::write(self.path("config.json"), self.spec.to_string()).expect("the bundle is writable");
        let stdin = match File::open(self.path("stdin")) {
            Ok(file) => Stdio::from(file),
            Err(_) => Stdio::null(),
        };
        let out = |name: &str| File::create(self.path(name)).expect("the folder is writable");
        let (mut ours, theirs) = UnixStream::pair().expect("a socket pair");
        let mut command = Command::new(runner());
        command
            .arg("create")
            .stdin(stdin)
            .stdout(out("stdout"))
            .stderr(out("stderr"))
            .fd_mappings(vec![
                FdMapping {
                    parent_fd: theirs.into(),
                    child_fd: fd::CONTROL,
                },
                FdMapping {
                    parent_fd: OwnedFd::from(self.artifact.try_clone().expect("a descriptor")),
                    child_fd: fd::ARTIFACT,
                },
            ])
            .expect("no collision");
        let child = command.spawn().expect("the runner starts");
        drop(command);
        ours.write_all(&serde_json::to_vec(&self.request).expect("a request is JSON"))
            .expect("the runner reads");
        ours.shutdown(Shutdown::Write).expect("it is open");
        ours.set_read_timeout(Some(DEADLINE)).expect("a time-out");
        (child, ours)
    }

    /// Creates and expects that to work.
    #[track_caller]
    pub(crate) fn created(self) -> Created {
        match self.create() {
            Ok(created) => created,
            Err(refused) => panic!("not created: {:?}", refused.0),
        }
    }

    /// Creates, starts, waits for the end, deletes. Gives the exit code.
    #[track_caller]
    pub(crate) fn run(self) -> (i32, Self) {
        let mut created = self.created();
        created.start();
        let code = created.wait();
        (code, created.delete())
    }

    /// Creates and expects that to fail; nothing may be left.
    #[track_caller]
    pub(crate) fn fail(self) -> (Failure, Self) {
        match self.create() {
            Ok(created) => {
                created.delete();
                panic!("it was created");
            }
            Err(refused) => {
                let (failure, container) = *refused;
                container.assert_nothing_left();
                (failure, container)
            }
        }
    }

    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let id = &self.request.container.id;
        let Ok(entries) = fs::read_dir("/sys/fs/cgroup") else {
            return Vec::new();
        };
        entries
            .flatten()
            .map(|entry| entry.path().join("wasmlet-test").join(id))
            .chain([Path::new("/sys/fs/cgroup/wasmlet-test").join(id)])
            .filter(|path| path.exists())
            .collect()
    }

    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        let state = &self.request.container.state_root;
        if let Ok(entries) = fs::read_dir(state) {
            let left: Vec<_> = entries.flatten().map(|e| e.path()).collect();
            assert!(left.is_empty(), "left behind: {left:?}");
        }
        let cgroups = self.cgroups();
        assert!(cgroups.is_empty(), "left behind: {cgroups:?}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("proc is there");
        let folder = self.folder.path().to_string_lossy().into_owned();
        assert!(!mounts.contains(&folder), "mounts left behind in {folder}");
    }
}

impl Created {
    /// Tells the init to run the guest, as the shim does.
    #[track_caller]
    pub(crate) fn start(&self) {
        let state = self.container.request.container.state_root.clone();
        let socket = state
            .join(&self.container.request.container.id)
            .join("notify.sock");
        let mut stream = UnixStream::connect(socket).expect("the init listens");
        stream
            .write_all(b"start container")
            .expect("the init reads");
    }

    /// The exit code: the guest's, or 128 and the signal.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> i32 {
        let started = Instant::now();
        loop {
            if let Some(code) = self.try_wait() {
                return code;
            }
            assert!(started.elapsed() < DEADLINE, "the guest does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn try_wait(&mut self) -> Option<i32> {
        if self.ended.is_none() {
            self.ended = match waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(_, code)) => Some(code),
                Ok(WaitStatus::Signaled(_, signal, _)) => Some(128 + signal as i32),
                Ok(_) => None,
                Err(error) => panic!("{} is not a child of ours: {error}", self.pid),
            };
        }
        self.ended
    }

    #[track_caller]
    pub(crate) fn control(&self, words: &[&str]) -> ControlReply {
        control(&self.container.request.container, words)
    }

    /// Deletes and checks that nothing is left.
    #[track_caller]
    pub(crate) fn delete(self) -> Container {
        assert_eq!(self.control(&["delete"]), done());
        if self.ended.is_none() {
            let _ = waitpid(Pid::from_raw(self.pid), None);
        }
        self.container.assert_nothing_left();
        self.container
    }
}

/// The answer when all went well.
pub(crate) fn done() -> ControlReply {
    ControlReply::Done {
        warnings: Vec::new(),
    }
}

/// Runs a verb on a container.
#[track_caller]
pub(crate) fn control(container: &ContainerRef, words: &[&str]) -> ControlReply {
    let container = serde_json::to_string(container).expect("JSON");
    let (verb, rest) = words.split_first().expect("a verb");
    let output: Output = Command::new(runner())
        .arg(verb)
        .arg(container)
        .args(rest)
        .output()
        .expect("the runner starts");
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("a reply")
}

/// Waits for a condition.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(
            started.elapsed() < DEADLINE,
            "not within the deadline: {what}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn spec(id: &str) -> Value {
    let capabilities = json!([
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_MKNOD",
        "CAP_NET_BIND_SERVICE",
        "CAP_NET_RAW",
        "CAP_SETFCAP",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_SETUID",
        "CAP_SYS_CHROOT",
        "CAP_AUDIT_WRITE"
    ]);
    json!({
        "ociVersion": "1.0.2-dev",
        "root": {"path": "rootfs"},
        "hostname": "guest",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/guest.wasm"],
            "env": ["PATH=/usr/bin", "GREETING=hello"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
            "noNewPrivileges": true,
        },
        "linux": {
            "cgroupsPath": format!("/wasmlet-test/{id}"),
            "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                {"type": "network"}],
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc",
                "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
                "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/run", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        ],
    })
}
