//! The shim's own command line: what containerd runs before it speaks to the socket.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use containerd_shim_protos::protobuf::Message;
use wasmlet_conformance::{
    Ctx, Guests, Raw, SHORT, Service, SpecBuilder, Target, Tmpfs, bin_dir, eventually, proc,
    socket_path,
};

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::wasm("version_and_info_are_told", version_and_info_are_told),
    Case::wasm(
        "start_without_parameters_prints_an_address",
        start_prints_an_address,
    ),
    Case::wasm(
        "start_with_parameters_answers_in_kind",
        start_answers_in_kind,
    ),
    Case::wasm(
        "start_for_a_container_of_a_pod_finds_its_shim",
        start_finds_the_pods_shim,
    ),
    Case::wasm("wrong_parameters_are_refused", wrong_parameters_are_refused),
    Case::wasm("the_socket_is_for_root_alone", the_socket_is_for_root_alone),
    Case::wasm("delete_of_nothing_succeeds", delete_of_nothing_succeeds),
    Case::ours(
        "a_root_that_the_caller_mounted_stays_mounted",
        a_root_that_the_caller_mounted,
    ),
];

/// A bundle that no containerd knows, and what `start` was answered for it.
struct Bundle<'a> {
    ctx: &'a Ctx,
    id: String,
    path: PathBuf,
}

impl<'a> Bundle<'a> {
    fn new(ctx: &'a Ctx, name: &str, spec: &SpecBuilder) -> Self {
        let id = ctx.id(name);
        let path = ctx.node().base().join("temp").join(&id);
        fs::create_dir_all(&path).expect("a folder can be made");
        fs::write(path.join("config.json"), spec.value().to_string()).expect("written");
        Self { ctx, id, path }
    }

    fn run(&self, verb: &str, stdin: &[u8]) -> Output {
        let mut child = Command::new(bin_dir().join("containerd-shim-wasm-v1"))
            .args(["-namespace", "conf", "-id", &self.id, "-address"])
            .arg(self.ctx.node().socket())
            .args(["-publish-binary", "/usr/bin/containerd"])
            .args(if verb == "delete" {
                vec!["-bundle"]
            } else {
                Vec::new()
            })
            .args(if verb == "delete" {
                vec![self.path.clone()]
            } else {
                Vec::new()
            })
            .arg(verb)
            .current_dir(&self.path)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env(
                "TTRPC_ADDRESS",
                format!("{}.ttrpc", self.ctx.node().socket().display()),
            )
            .env("GRPC_ADDRESS", self.ctx.node().socket())
            .env("NAMESPACE", "conf")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the shim can be started");
        // A shim that does not read its input has said no already.
        let _ = child.stdin.take().expect("piped").write_all(stdin);
        child.wait_with_output().expect("the shim ends")
    }

    /// Ends the shim behind an address.
    fn shut_down(&self, address: &str, service: Service) {
        let raw = Raw::connect(address, &self.id, service);
        let request = containerd_shim_protos::api::ShutdownRequest {
            id: self.id.clone(),
            now: true,
            ..Default::default()
        };
        raw.call::<_, containerd_shim_protos::api::Empty>("Shutdown", &request)
            .expect("shut down");
        let socket = socket_path(address);
        eventually(
            "the shim is gone with its socket",
            wasmlet_conformance::SHORT,
            || {
                if socket.exists() {
                    Err(socket.display().to_string())
                } else {
                    Ok(())
                }
            },
        );
    }
}

#[track_caller]
fn text(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn version_and_info_are_told(_: &Ctx) {
    let shim = bin_dir().join("containerd-shim-wasm-v1");
    let run = |flag: &str| {
        Command::new(&shim)
            .arg(flag)
            .stdin(Stdio::null())
            .output()
            .expect("the shim can be started")
    };
    assert!(
        text(&run("-v")).contains("containerd-shim-wasm-v1"),
        "{:?}",
        run("-v")
    );
    let info = run("-info");
    assert!(info.status.success(), "{info:?}");
    let name = b"io.containerd.wasm.v1";
    assert!(
        info.stdout.windows(name.len()).any(|window| window == name),
        "RuntimeInfo names the runtime: {:?}",
        String::from_utf8_lossy(&info.stdout)
    );
}

fn start_prints_an_address(ctx: &Ctx) {
    let bundle = Bundle::new(ctx, "old", &SpecBuilder::new(["/a.wasm"]));
    let address = text(&bundle.run("start", b""));
    assert!(
        address.starts_with("unix:///run/containerd/s/"),
        "{address}"
    );
    assert_eq!(
        fs::read_to_string(bundle.path.join("address")).expect("written"),
        address
    );
    bundle.shut_down(&address, Service::V2);
}

/// What containerd 2.3 writes to stdin of `start`.
fn parameters(bundle: &Bundle<'_>, instance: &str) -> Vec<u8> {
    let params = BootstrapParams {
        instance_id: instance.to_owned(),
        namespace: "conf".to_owned(),
        containerd_grpc_address: bundle.ctx.node().socket().display().to_string(),
        containerd_ttrpc_address: format!("{}.ttrpc", bundle.ctx.node().socket().display()),
        ..Default::default()
    };
    params.write_to_bytes().expect("encoded")
}

fn start_answers_in_kind(ctx: &Ctx) {
    let bundle = Bundle::new(ctx, "new", &SpecBuilder::new(["/a.wasm"]));
    let output = bundle.run("start", &parameters(&bundle, &bundle.id));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let result = BootstrapResult::parse_from_bytes(&output.stdout).expect("a BootstrapResult");
    // Not 3: containerd would leave the end of the pod's other containers to the shim, also when that
    // is dead (docs/decisions/0007).
    assert_eq!((result.version, result.protocol.as_str()), (2, "ttrpc"));
    bundle.shut_down(&result.address, Service::V3);
}

fn start_finds_the_pods_shim(ctx: &Ctx) {
    let sandbox = Bundle::new(ctx, "sandbox", &SpecBuilder::new(["/pause"]));
    let address = text(&sandbox.run("start", b""));
    let spec = SpecBuilder::new(["/a.wasm"])
        .annotation("io.kubernetes.cri.sandbox-id", &sandbox.id)
        .annotation("io.kubernetes.cri.container-type", "container");
    let container = Bundle::new(ctx, "container", &spec);
    assert_eq!(
        text(&container.run("start", b"")),
        address,
        "one shim per pod"
    );
    sandbox.shut_down(&address, Service::V2);
}

fn wrong_parameters_are_refused(ctx: &Ctx) {
    let bundle = Bundle::new(ctx, "wrong", &SpecBuilder::new(["/a.wasm"]));
    let output = bundle.run("start", &parameters(&bundle, "somebody-else"));
    assert!(!output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("somebody-else") && said.contains(&bundle.id),
        "{said}"
    );
    fs::write(bundle.path.join("config.json"), "{ not json").expect("written");
    let output = bundle.run("start", b"");
    assert!(!output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("config.json"), "{said}");
    fs::remove_file(bundle.path.join("config.json")).expect("removed");
    assert!(!bundle.run("start", b"").status.success());
}

fn the_socket_is_for_root_alone(ctx: &Ctx) {
    let bundle = Bundle::new(ctx, "mode", &SpecBuilder::new(["/a.wasm"]));
    let address = text(&bundle.run("start", b""));
    let mode = fs::metadata(socket_path(&address))
        .expect("the socket")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let abstract_sockets = fs::read_to_string("/proc/net/unix").expect("readable");
    assert!(
        !abstract_sockets
            .lines()
            .any(|line| line.contains('@') && line.contains(&bundle.id)),
        "no abstract socket"
    );
    let shim = proc::all()
        .into_iter()
        .find(|pid| proc::cmdline(*pid).contains(&bundle.id))
        .expect("the shim runs");
    let environ = proc::environ(shim);
    for key in ["LD_PRELOAD", "RUST_LOG", "LISTEN_FDS"] {
        assert!(!environ.contains_key(key), "{key}");
    }
    bundle.shut_down(&address, Service::V2);
}

fn delete_of_nothing_succeeds(ctx: &Ctx) {
    use containerd_shim_protos::api::DeleteResponse;
    let bundle = Bundle::new(ctx, "nothing", &SpecBuilder::new(["/a.wasm"]));
    let output = bundle.run("delete", b"");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let reply = DeleteResponse::parse_from_bytes(&output.stdout).expect("a DeleteResponse");
    assert_eq!(reply.exit_status, 137);
}

/// Where a caller that mounts the root file system itself has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// `rootfs` in the bundle.
    InTheBundle,
    /// Somewhere else, named by an absolute path, as Docker does.
    Elsewhere,
}

/// A bundle whose root file system is a mount of the caller's.
fn bundle_with_root<'a>(ctx: &'a Ctx, name: &str, place: Place) -> (Bundle<'a>, Tmpfs) {
    let target = ctx.runtime().target();
    let program = match target {
        Target::Linux => "guest",
        _ => "guest.wasm",
    };
    let mut spec = SpecBuilder::new([format!("/{program}")]).cgroup(&format!(
        "{}/{}",
        ctx.node().cgroup(),
        ctx.id(name)
    ));
    let temp = ctx.node().base().join("temp");
    let root = match place {
        Place::InTheBundle => temp.join(ctx.id(name)).join("rootfs"),
        Place::Elsewhere => {
            let root = temp.join(ctx.id(&format!("{name}-root")));
            spec = spec.set("/root/path", serde_json::json!(root));
            root
        }
    };
    let bundle = Bundle::new(ctx, name, &spec);
    fs::create_dir(&root).expect("a folder can be made");
    let root = Tmpfs::on(root, "size=16m,mode=755");
    let bytes = Guests::shared().bytes("sleep", target).expect("compiled");
    let file = root.path().join(program);
    fs::write(&file, bytes).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("a program");
    (bundle, root)
}

/// Creates and starts the bundle's container; gives the init's process id.
#[track_caller]
fn start_in(bundle: &Bundle<'_>, raw: &Raw) -> i32 {
    let options = bundle.ctx.runtime_options().expect("ours has options");
    let request = containerd_shim_protos::api::CreateTaskRequest {
        id: bundle.id.clone(),
        bundle: bundle.path.display().to_string(),
        options: Some(
            containerd_shim_protos::protobuf::well_known_types::any::Any {
                type_url: options.type_url,
                value: options.value,
                ..Default::default()
            },
        )
        .into(),
        ..Default::default()
    };
    let created: containerd_shim_protos::api::CreateTaskResponse =
        raw.call("Create", &request).expect("created");
    raw.start(&bundle.id, "").expect("started");
    created.pid.cast_signed()
}

#[track_caller]
fn is_mounted(root: &Tmpfs) {
    let point = root.path().display().to_string();
    assert!(
        proc::mount_points().contains(&point),
        "{point} was unmounted"
    );
    let entries = fs::read_dir(root.path()).expect("a folder");
    assert!(
        entries
            .filter_map(Result::ok)
            .any(|entry| entry.file_name().to_string_lossy().starts_with("guest")),
        "the caller's files are gone"
    );
}

fn a_root_that_the_caller_mounted(ctx: &Ctx) {
    for (name, place) in [("in", Place::InTheBundle), ("else", Place::Elsewhere)] {
        stays_after_delete(ctx, &format!("{name}-deleted"), place);
        stays_after_a_killed_shim(ctx, &format!("{name}-killed"), place);
    }
}

fn stays_after_delete(ctx: &Ctx, name: &str, place: Place) {
    let (bundle, root) = bundle_with_root(ctx, name, place);
    let address = text(&bundle.run("start", b""));
    let raw = Raw::connect(&address, &bundle.id, Service::V2);
    start_in(&bundle, &raw);
    raw.kill(&bundle.id, "", 9).expect("killed");
    raw.wait(&bundle.id, "").expect("ended");
    raw.delete(&bundle.id, "").expect("deleted");
    is_mounted(&root);
    bundle.shut_down(&address, Service::V2);
    is_mounted(&root);
    if place == Place::Elsewhere {
        // What then is in the bundle nobody can know any more.
        let output = bundle.run("delete", b"");
        assert!(output.status.success(), "{output:?}");
        is_mounted(&root);
    }
}

fn stays_after_a_killed_shim(ctx: &Ctx, name: &str, place: Place) {
    let (bundle, root) = bundle_with_root(ctx, name, place);
    let address = text(&bundle.run("start", b""));
    let raw = Raw::connect(&address, &bundle.id, Service::V2);
    let init = start_in(&bundle, &raw);
    let (shim, _) = raw.shim().expect("connected");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(shim.cast_signed()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .expect("it runs");
    eventually("the shim is gone", SHORT, || {
        if proc::is_running(shim.cast_signed()) {
            Err("it lives".to_owned())
        } else {
            Ok(())
        }
    });
    let output = bundle.run("delete", b"");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    is_mounted(&root);
    assert!(!proc::is_running(init), "the init is gone");
}
