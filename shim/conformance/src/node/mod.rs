//! A private containerd: own root, state, socket and configuration in one short-named folder.
//!
//! ```text
//! /tmp/wlc-<pid of the tests>-<n>/   c.sock  config.toml  containerd.log  root/ state/ cni/ fifo/ log/
//! /sys/fs/cgroup/*/wlc-<pid>-<n>/    parent of all containers
//! ```
//!
//! Dropping a [`Node`] stops and removes everything of it. Tests that were killed leave their
//! nodes behind; [`sweep_stale`] removes those at the next start.

mod config;
mod remove;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use containerd_client::services::v1::CreateNamespaceRequest;
use containerd_client::services::v1::Namespace;
use nix::mount::{MsFlags, mount};
use tonic::transport::Channel;

use crate::client::{block_on, in_namespace};
use crate::{LONG, Version, wait_for};

pub(crate) use config::PAUSE_IMAGE;
pub(crate) use remove::cgroups_where;
pub use remove::sweep_stale;

/// containerd namespace of the tests that use its client API.
pub const NAMESPACE: &str = "conf";

/// How a node differs from the usual one.
#[derive(Debug, Clone, Default)]
pub struct NodeOptions {
    /// More lines for the settings file of the wasm handlers (`ConfigPath`).
    pub handler_settings: String,
    /// Variables for containerd beside `PATH`.
    pub environment: BTreeMap<String, String>,
    /// A `/run/wasmlet` of its own, of this size in KiB, in a mount namespace of its own: what the
    /// shims count there is of this node alone.
    pub own_run_kib: Option<u32>,
    /// Put the folder of compiled modules on a file system of this size in KiB.
    pub cache_kib: Option<u32>,
    /// Programs to drop into the folder of the shim, which then is one of the node's own.
    pub programs: Vec<PathBuf>,
}

/// See the module.
pub struct Node {
    version: Version,
    base: PathBuf,
    options: NodeOptions,
    containerd: Mutex<Option<Child>>,
    channel: RwLock<Channel>,
    images: Mutex<BTreeSet<(String, String)>>,
}

fn settings_file(base: &Path, engine: Option<&str>) -> PathBuf {
    match engine {
        None => base.join("handler.toml"),
        Some(engine) => base.join(format!("handler-{engine}.toml")),
    }
}

impl Node {
    /// Starts containerd and waits until it answers.
    #[track_caller]
    pub fn start(version: &Version, options: NodeOptions) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let base = PathBuf::from(format!("/tmp/wlc-{}-{number}", std::process::id()));
        for dir in ["root", "state", "temp", "opt", "cni", "fifo", "log"] {
            fs::create_dir_all(base.join(dir))
                .unwrap_or_else(|error| panic!("cannot create {}/{dir}: {error}", base.display()));
        }
        let cache = base.join("cache");
        let text = format!(
            "CacheDir = \"{}\"\n{}",
            cache.display(),
            options.handler_settings
        );
        for engine in config::HANDLER_ENGINES {
            let line = engine.map_or(String::new(), |name| format!("Engine = \"{name}\"\n"));
            fs::write(settings_file(&base, engine), line + &text)
                .expect("a settings file can be written");
        }
        if let Some(kib) = options.cache_kib {
            fs::create_dir_all(&cache).expect("a folder can be made");
            let size = format!("size={kib}k,mode=0700");
            mount(
                Some("tmpfs"),
                &cache,
                Some("tmpfs"),
                MsFlags::empty(),
                Some(size.as_str()),
            )
            .expect("a tmpfs can be mounted");
        }
        let config = config::render(version, &base, |engine| settings_file(&base, engine));
        fs::write(base.join("config.toml"), config).expect("config.toml can be written");
        if !options.programs.is_empty() {
            install(&base.join("bin"), &options.programs);
        }
        let child = spawn(version, &base, &options);
        let node = Self {
            channel: RwLock::new(connect(&base)),
            version: version.clone(),
            base,
            options,
            containerd: Mutex::new(Some(child)),
            images: Mutex::default(),
        };
        node.wait_ready();
        let request = CreateNamespaceRequest {
            namespace: Some(Namespace {
                name: NAMESPACE.to_owned(),
                ..Namespace::default()
            }),
        };
        block_on(
            node.client()
                .namespaces()
                .create(in_namespace(request, NAMESPACE)),
        )
        .unwrap_or_else(|status| panic!("cannot create namespace {NAMESPACE}: {status}"));
        node
    }

    /// The release this node runs.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// The node's folder.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// containerd's socket.
    pub fn socket(&self) -> PathBuf {
        self.base.join("c.sock")
    }

    /// Settings file of the handler for an engine; of `wasm`, which leaves the engine to `auto`, for none.
    pub fn handler_settings(&self, engine: Option<&str>) -> PathBuf {
        settings_file(&self.base, engine)
    }

    /// Folder of the compiled modules.
    pub fn cache(&self) -> PathBuf {
        self.base.join("cache")
    }

    /// Cgroup that all containers of this node are placed under, as an absolute cgroup path.
    pub fn cgroup(&self) -> String {
        remove::cgroup_of(&self.base)
    }

    /// Folder of the shim and the engines.
    pub fn programs(&self) -> PathBuf {
        programs(&self.base, &self.options)
    }

    /// Folder of a task's bundle.
    pub fn bundle(&self, namespace: &str, id: &str) -> PathBuf {
        self.base
            .join("state/io.containerd.runtime.v2.task")
            .join(namespace)
            .join(id)
    }

    /// `/run/wasmlet` as the shims of this node see it.
    pub fn run_dir(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root/run/wasmlet", self.pid()))
    }

    /// containerd's process id.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        let child = self
            .containerd
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        child.as_ref().expect("containerd runs").id().cast_signed()
    }

    /// Client of containerd's services.
    pub(crate) fn client(&self) -> containerd_client::Client {
        self.channel
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .into()
    }

    /// Channel to containerd, for the CRI.
    pub(crate) fn channel(&self) -> Channel {
        self.channel
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Kills containerd the hard way. Shims and containers go on.
    pub fn kill(&self) {
        let mut slot = self
            .containerd
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(mut child) = slot.take() {
            // Failure means that it is dead already, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts containerd again after [`Self::kill`] and waits until it answers.
    #[track_caller]
    pub fn restart(&self) {
        let child = spawn(&self.version, &self.base, &self.options);
        *self
            .containerd
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(child);
        *self.channel.write().unwrap_or_else(PoisonError::into_inner) = connect(&self.base);
        self.wait_ready();
    }

    /// The last lines of containerd's log, which the shims write to as well, that name `tag`.
    pub fn log_of(&self, tag: &str) -> String {
        let log = fs::read(self.base.join("containerd.log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().filter(|line| line.contains(tag)).collect();
        let from = lines.len().saturating_sub(60);
        lines[from..].join("\n")
    }

    /// Lines of the log from byte `from` on; [`Self::log_len`] gives the byte.
    pub fn log_from(&self, from: u64) -> String {
        let log = fs::read(self.base.join("containerd.log")).unwrap_or_default();
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(log.len());
        String::from_utf8_lossy(&log[from..]).into_owned()
    }

    /// Length of the log in bytes.
    pub fn log_len(&self) -> u64 {
        fs::metadata(self.base.join("containerd.log")).map_or(0, |meta| meta.len())
    }

    /// Imports a docker or OCI archive into `namespace` unless `name` is there already; `build`
    /// makes it.
    #[track_caller]
    pub(crate) fn import(&self, namespace: &str, name: &str, build: impl FnOnce() -> PathBuf) {
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (namespace.to_owned(), name.to_owned());
        if images.contains(&key) {
            return;
        }
        let archive = build();
        let output = Command::new(self.version.bin.join("ctr"))
            .arg("--address")
            .arg(self.socket())
            .args([
                "--namespace",
                namespace,
                "images",
                "import",
                "--no-unpack",
                "--all-platforms",
            ])
            .arg(&archive)
            .output()
            .expect("ctr can be started");
        assert!(
            output.status.success(),
            "ctr images import {}: {}",
            archive.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        images.insert(key);
    }

    #[track_caller]
    fn wait_ready(&self) {
        let answer = wait_for(LONG, || {
            block_on(self.client().version().version(in_namespace((), NAMESPACE)))
                .map_err(|status| status.to_string())
        });
        if let Err(error) = answer {
            panic!(
                "containerd {} does not answer: {error}; its log ends with:\n{}",
                self.version.name,
                self.log_of("")
            );
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        let left = remove::remove(&self.base);
        if !left.is_empty() {
            eprintln!("left of {}:\n  {}", self.base.display(), left.join("\n  "));
        }
    }
}

/// Folders with our programs: `WASMLET_BIN_DIR`, or `target/dist/bin` of this clone.
pub fn bin_dir() -> PathBuf {
    match std::env::var_os("WASMLET_BIN_DIR") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/dist/bin"),
    }
}

fn programs(base: &Path, options: &NodeOptions) -> PathBuf {
    if options.programs.is_empty() {
        bin_dir()
    } else {
        base.join("bin")
    }
}

/// Copies our programs and `more` into a folder.
///
/// The shim has to be a copy: it looks for engines where its own file is, links resolved. So has what is
/// dropped in. The rest may bring libraries beside it and is linked to.
#[track_caller]
fn install(folder: &Path, more: &[PathBuf]) {
    let copy = |from: &Path| {
        let to = folder.join(from.file_name().expect("a program has a name"));
        if let Err(error) = fs::copy(from, &to) {
            panic!(
                "cannot copy {} to {}: {error}",
                from.display(),
                to.display()
            );
        }
    };
    fs::create_dir_all(folder).expect("a folder for programs can be made");
    let ours = bin_dir().canonicalize().expect("our programs are built");
    for entry in fs::read_dir(&ours).expect("our programs can be listed") {
        let path = entry.expect("our programs can be listed").path();
        if path
            .file_name()
            .is_some_and(|name| name == "containerd-shim-wasm-v1")
        {
            copy(&path);
        } else {
            let link = folder.join(path.file_name().unwrap_or_default());
            std::os::unix::fs::symlink(&path, link).expect("a link can be made");
        }
    }
    more.iter().for_each(|path| copy(path));
}

fn spawn(version: &Version, base: &Path, options: &NodeOptions) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(base.join("containerd.log"))
        .expect("containerd.log can be opened");
    let path = format!(
        "{}:{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        programs(base, options).display(),
        version.bin.display()
    );
    let program = version.bin.join("containerd");
    let mut command = match options.own_run_kib {
        None => Command::new(program),
        Some(kib) => {
            let mut command = Command::new("/usr/bin/unshare");
            // Mounts that the machine makes later still arrive, those made here stay here.
            command.args(["--mount", "--propagation", "slave", "/bin/sh", "-ec"]);
            command.arg(format!(
                "mkdir -p /run/wasmlet\n\
                 mount -t tmpfs -o mode=0711,size={kib}k tmpfs /run/wasmlet\n\
                 exec \"$0\" \"$@\""
            ));
            command.arg(program);
            command
        }
    };
    command
        .arg("--config")
        .arg(base.join("config.toml"))
        .env_clear()
        .env("PATH", path)
        .envs(&options.environment)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a descriptor can be doubled"))
        .stderr(log)
        // Ctrl-C is for the tests, which then stop containerd themselves.
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start containerd {}: {error}", version.name))
}

fn connect(base: &Path) -> Channel {
    let socket = base.join("c.sock");
    let connection = wait_for(LONG, || {
        block_on(containerd_client::connect(&socket)).map_err(|error| format!("{error:?}"))
    });
    connection.unwrap_or_else(|error| {
        let log = fs::read_to_string(base.join("containerd.log")).unwrap_or_default();
        panic!("cannot connect to {}: {error}\n{log}", socket.display())
    })
}
