//! A containerd of the test's own, with nothing shared with one that runs on the machine.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use containerd_client::services::v1::container::Runtime;
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::{Container, CreateContainerRequest};
use containerd_client::tonic::Request;
use containerd_client::with_namespace;
use wasmlet_cache::{Blobs, Cache, Options};
use wasmlet_image::content::{ContentError, resolve_image};
use wasmlet_image::{Limits, ResolvedLayer};
use wasmlet_oci_image::Archive;

pub(crate) const NAMESPACE: &str = "image-test";

/// A running containerd, and a store of modules; both vanish with the test.
pub(crate) struct Node {
    // Before the folder, which it writes to until it is dead.
    containerd: Daemon,
    /// Where its programs are.
    bin: PathBuf,
    pub(crate) cache: Cache,
    pub(crate) temp: tempfile::TempDir,
}

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.kill().expect("it is ours");
        self.0.wait().expect("it is ours");
    }
}

/// The folder with containerd's programs, or why none can be started.
fn usable() -> Result<PathBuf, String> {
    let bin = std::env::var_os("WASMLET_CONTAINERD_BIN")
        .map(PathBuf::from)
        .ok_or("WASMLET_CONTAINERD_BIN names no folder with containerd")?;
    let uid = |me: fs::Metadata| std::os::unix::fs::MetadataExt::uid(&me);
    if !fs::metadata("/proc/self").is_ok_and(|me| uid(me) == 0) {
        return Err("containerd needs root".to_owned());
    }
    Ok(bin)
}

impl Node {
    /// `None` (and a line that says so) where containerd cannot run. `WASMLET_CONTAINERD_BIN` names the
    /// folder with `containerd` and `ctr`; `hack/test conformance` sets it, and `WASMLET_REQUIRE=1`,
    /// with which what would be skipped fails.
    pub(crate) fn start() -> Option<Node> {
        Node::start_with(|_| {})
    }

    pub(crate) fn start_with(prepare: impl FnOnce(&Path)) -> Option<Node> {
        match usable() {
            Ok(bin) => Some(Node::start_from(bin, prepare)),
            Err(reason) => {
                let required = std::env::var_os("WASMLET_REQUIRE").is_some_and(|on| on == "1");
                assert!(!required, "{reason}");
                println!("skipped: {reason}");
                None
            }
        }
    }

    fn start_from(bin: PathBuf, prepare: impl FnOnce(&Path)) -> Node {
        let temp = tempfile::Builder::new()
            .prefix("wasmlet-")
            .tempdir()
            .expect("a folder");
        let at = |name: &str| temp.path().join(name);
        prepare(temp.path());
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  address = {:?}\n[ttrpc]\n  address = {:?}\n",
            at("root"),
            at("state"),
            at("sock"),
            at("sock.ttrpc"),
        );
        fs::write(at("config.toml"), config).expect("it can be written");
        let log = fs::File::create(at("log")).expect("it can be made");
        // Dies with the test, even when that is killed.
        let spawned = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(bin.join("containerd"))
            .arg("--config")
            .arg(at("config.toml"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let containerd = Daemon(spawned.expect("setpriv (of util-linux) starts"));
        let options = Options {
            dir: at("cache"),
            run_dir: at("run"),
            ..Options::default()
        };
        let cache = Cache::open(options).expect("the store opens");
        let mut node = Node {
            containerd,
            bin,
            cache,
            temp,
        };
        node.wait_until_it_answers();
        node
    }

    fn wait_until_it_answers(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while UnixStream::connect(self.address()).is_err() || !self.try_ctr(&["version"]) {
            let log = || fs::read_to_string(self.temp.path().join("log")).unwrap_or_default();
            let ended = self.containerd.0.try_wait().expect("it is ours");
            assert!(ended.is_none(), "containerd ended: {ended:?}\n{}", log());
            assert!(
                Instant::now() < deadline,
                "containerd does not answer\n{}",
                log()
            );
            std::thread::yield_now();
        }
    }

    pub(crate) fn address(&self) -> PathBuf {
        self.temp.path().join("sock")
    }

    fn ctr_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.bin.join("ctr"));
        command
            .arg("--address")
            .arg(self.address())
            .args(["--namespace", NAMESPACE]);
        command.args(arguments);
        command
    }

    fn try_ctr(&self, arguments: &[&str]) -> bool {
        self.ctr_command(arguments)
            .output()
            .expect("ctr starts")
            .status
            .success()
    }

    #[track_caller]
    pub(crate) fn ctr(&self, arguments: &[&str]) {
        let output = self.ctr_command(arguments).output().expect("ctr starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ctr {arguments:?}: {errors}");
    }

    #[track_caller]
    pub(crate) fn import(&self, archive: &Archive) {
        let path = self.temp.path().join("image.tar");
        archive.write(&path).expect("the image can be built");
        let path = path.to_str().expect("a short path");
        self.ctr(&["images", "import", "--no-unpack", "--all-platforms", path]);
    }

    /// Makes a container of an image, as containerd's clients do; nothing of it runs.
    #[track_caller]
    pub(crate) fn create(&self, id: &str, image: &str) {
        let mut container = Container {
            id: id.to_owned(),
            image: image.to_owned(),
            runtime: Some(Runtime {
                name: "io.containerd.wasm.v1".to_owned(),
                options: None,
            }),
            ..Container::default()
        };
        container.spec.insert(Default::default()).type_url = "types.containerd.io/x".to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("an event loop");
        runtime.block_on(async {
            let channel = containerd_client::connect(self.address())
                .await
                .expect("it answers");
            let request = CreateContainerRequest {
                container: Some(container),
            };
            ContainersClient::new(channel)
                .create(with_namespace!(request, NAMESPACE))
                .await
                .expect("a container can be made");
        });
    }

    pub(crate) fn modules(&self) -> &Blobs {
        self.cache.modules()
    }

    pub(crate) fn resolve(&self, id: &str) -> Result<ResolvedLayer, ContentError> {
        self.resolve_within(id, &Limits::default())
    }

    pub(crate) fn resolve_within(
        &self,
        id: &str,
        limits: &Limits,
    ) -> Result<ResolvedLayer, ContentError> {
        resolve_image(&self.address(), NAMESPACE, id, self.modules(), None, limits)
    }

    /// Where containerd keeps a blob.
    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").expect("a digest");
        self.temp
            .path()
            .join("root/io.containerd.content.v1.content/blobs/sha256")
            .join(hex)
    }

    #[track_caller]
    pub(crate) fn stored(&self) -> usize {
        fs::read_dir(self.temp.path().join("cache/modules"))
            .expect("a folder")
            .count()
    }
}
