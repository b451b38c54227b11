//! wasi-nn: models of the pod, computed by the runner.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use wasmlet_protocol::{FailureReason, NnModel};

use crate::support::{Container, Wishes, can_run, describe, eventually, try_compile_for};

/// `scores = picture × [[1 0] [0 1] [1 1]] + [10 20]`.
const LINEAR: &[u8] = include_bytes!("../../../../wasi-nn/tests/linear.onnx");

/// Computes the same with `wasi:nn`.
const COMPONENT: &str = include_str!("../../../../wasi-nn/tests/component.wat");

/// The model of the example: 1x1x32x32 to 36 numbers.
const GLYPH: &[u8] = include_bytes!("../../../../../examples/inference/model/glyph.onnx");

/// Some functions of wasi-nn and preview 1, memory, and what each test does.
fn module(body: &str) -> String {
    format!(
        r#"(module
  (import "wasi_ephemeral_nn" "load" (func $load (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_ephemeral_nn" "load_by_name" (func $load_by_name (param i32 i32 i32) (result i32)))
  (import "wasi_ephemeral_nn" "init_execution_context" (func $init (param i32 i32) (result i32)))
  (import "wasi_ephemeral_nn" "set_input" (func $set_input (param i32 i32 i32) (result i32)))
  (import "wasi_ephemeral_nn" "compute" (func $compute (param i32) (result i32)))
  (import "wasi_ephemeral_nn" "get_output" (func $get_output (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 4)
  (data (i32.const 0) "linear")
  (data (i32.const 64) "\01\00\00\00\03\00\00\00")
  (data (i32.const 80) "\00\00\80\3f\00\00\00\40\00\00\40\40")
  ;; Ends with the error's code, if it is one.
  (func $check (param $errno i32) (if (local.get $errno) (then (call $exit (local.get $errno)))))
  ;; A context on "linear"; at 128 are handles.
  (func $context (result i32)
    (call $check (call $load_by_name (i32.const 0) (i32.const 6) (i32.const 128)))
    (call $check (call $init (i32.load (i32.const 128)) (i32.const 132)))
    (i32.load (i32.const 132)))
  ;; The tensor at 192: so many dimensions from 64 on, of 32-bit floats, so many bytes from 80 on.
  (func $tensor (param $rank i32) (param $bytes i32) (result i32)
    (i32.store (i32.const 192) (i32.const 64))
    (i32.store (i32.const 196) (local.get $rank))
    (i32.store (i32.const 200) (i32.const 1))
    (i32.store (i32.const 204) (i32.const 80))
    (i32.store (i32.const 208) (local.get $bytes))
    (i32.const 192))
  (func (export "_start") {body}))"#
    )
}

/// Computes, and writes the two scores to stdout.
const COMPUTES: &str = "(local $c i32)
    (local.set $c (call $context))
    (call $check (call $set_input (local.get $c) (i32.const 0) (call $tensor (i32.const 2) (i32.const 12))))
    (call $check (call $compute (local.get $c)))
    (call $check (call $get_output (local.get $c) (i32.const 0) (i32.const 256) (i32.const 8) (i32.const 136)))
    (i32.store (i32.const 160) (i32.const 256))
    (i32.store (i32.const 164) (i32.load (i32.const 136)))
    (drop (call $write (i32.const 1) (i32.const 160) (i32.const 1) (i32.const 168)))";

fn linear(path: &str) -> Vec<NnModel> {
    vec![NnModel {
        name: "linear".to_owned(),
        path: PathBuf::from(path),
    }]
}

/// A container whose image has the model at `/models/linear.onnx`.
#[track_caller]
fn container(guest: &str) -> Container {
    with_model(guest, LINEAR)
}

#[track_caller]
fn with_model(guest: &str, model: &[u8]) -> Container {
    let mut container = Container::new(guest);
    put(&container.rootfs().join("models"), model);
    container.request.nn_models = linear("/models/linear.onnx");
    container
}

fn put(folder: &Path, model: &[u8]) {
    fs::create_dir_all(folder).expect("a folder");
    fs::write(folder.join("linear.onnx"), model).expect("a model");
}

fn scores(container: &Container) -> Vec<f32> {
    let bytes = fs::read(container.path("stdout")).expect("readable");
    let number = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("four bytes"));
    bytes.chunks_exact(4).map(number).collect()
}

#[test]
fn the_runner_says_that_it_has_it() {
    let description = describe();
    assert!(description.interfaces.iter().any(|name| name == "wasi-nn"));
    let options = serde_json::to_string(&description.options).expect("JSON");
    assert!(options.contains("nn-models"), "{options}");
}

#[test]
fn a_module_computes_a_model_of_the_image() {
    if !can_run() {
        return;
    }
    let (code, container) = container(&module(COMPUTES)).run();
    assert_eq!((code, container.read("stderr").as_str()), (0, ""));
    assert_eq!(scores(&container), [14.0, 25.0]);
}

#[test]
fn a_component_computes_a_model_of_the_image() {
    if !can_run() {
        return;
    }
    for function in ["run", "missing", "wrong-shape", "no-model"] {
        let mut container = container(COMPONENT);
        container.request.invoke = Some(function.to_owned());
        let (code, container) = container.run();
        assert_eq!(
            (code, container.read("stderr").as_str()),
            (0, ""),
            "{function}"
        );
    }
    let mut container = container(COMPONENT);
    container.request.invoke = Some("hoards".to_owned());
    let (code, container) = container.run();
    let stderr = container.read("stderr");
    assert_eq!(code, 121, "{stderr}");
    assert!(
        stderr.contains("a guest may have 1024 tensors and errors at a time"),
        "{stderr}"
    );
}

#[test]
fn a_model_may_be_in_a_volume_and_behind_a_link() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(module(COMPUTES));
    let volume = container.path("volume");
    put(&volume, LINEAR);
    container.spec["mounts"]
        .as_array_mut()
        .expect("a list")
        .push(json!({
            "destination": "/volume", "type": "bind", "source": volume,
            "options": ["rbind", "ro"],
        }));
    // As Kubernetes mounts a file of a ConfigMap: a link within the volume.
    std::os::unix::fs::symlink("linear.onnx", volume.join("link")).expect("a link");
    container.request.nn_models = linear("/volume/link");
    let (code, container) = container.run();
    assert_eq!((code, container.read("stderr").as_str()), (0, ""));
    assert_eq!(scores(&container), [14.0, 25.0]);
}

#[test]
fn a_link_out_of_the_container_leads_to_nothing() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(module(COMPUTES));
    put(&container.path("secret"), LINEAR);
    let target = container.path("secret").join("linear.onnx");
    fs::create_dir(container.rootfs().join("models")).expect("a folder");
    for (name, target) in [
        ("absolute", target.clone()),
        (
            "relative",
            Path::new("../../../../../../../../../")
                .join(target.strip_prefix("/").expect("absolute")),
        ),
    ] {
        let link = container.rootfs().join("models").join(name);
        std::os::unix::fs::symlink(target, link).expect("a link");
        container.request.nn_models = linear(&format!("/models/{name}"));
        let (failure, again) = container.fail();
        assert_eq!(failure.reason, FailureReason::InvalidArgument);
        assert!(
            failure
                .message
                .contains("there is no such file in the container"),
            "{failure:?}"
        );
        container = again;
    }
}

#[test]
fn a_model_that_cannot_be_used_fails_the_create() {
    if !can_run() {
        return;
    }
    let mut container = with_model(
        &module(COMPUTES),
        b"version https://git-lfs.github.com/spec/v1\n",
    );
    for (path, wanted) in [
        (
            "/models/none.onnx",
            "there is no such file in the container: check the path, and that the volume is mounted",
        ),
        ("/models", "it is not a file; name the .onnx file itself"),
        (
            "/models/linear.onnx",
            "it is no ONNX model: its bytes are not those of a protobuf message",
        ),
        (
            "/dev/null",
            "it leads to /dev/null: models have to be in a folder of the image or of a volume",
        ),
    ] {
        container.request.nn_models = linear(path);
        let (failure, again) = container.fail();
        assert_eq!(failure.reason, FailureReason::InvalidArgument);
        let whole = format!("annotation wasmlet.dev/nn-models: linear={path}: {wanted}");
        assert_eq!(failure.message, whole);
        container = again;
    }
    // One that does not fit beside what the guest may have.
    put(&container.rootfs().join("models"), GLYPH);
    container.request.nn_models = linear("/models/linear.onnx");
    container.request.max_memory = Some(512 << 10);
    let (failure, _) = container.fail();
    assert!(
        failure.message.ends_with(
            "a model of 318694 bytes takes about 956082 to load, and the guest may have 524288: raise the \
             container's memory limit or wasmlet.dev/memory"
        ),
        "{failure:?}"
    );
}

#[test]
fn a_guest_that_wants_no_model_needs_none() {
    if !can_run() {
        return;
    }
    let mut container =
        Container::new(r#"(module (memory (export "memory") 1) (func (export "_start")))"#);
    container.request.nn_models = linear("/nothing/here.onnx");
    assert_eq!(container.run().0, 0);
}

#[test]
fn what_is_inside_the_model_is_seen_when_it_is_loaded() {
    if !can_run() {
        return;
    }
    // The model as far as it looks like one: a graph with nothing in it.
    let (code, container) = with_model(&module(COMPUTES), &[0x08, 8, 0x3a, 2, 0x12, 0]).run();
    let stderr = container.read("stderr");
    assert_ne!(code, 0, "{stderr}");
    // And one that tract panics on: its output is computed by nobody.
    let mut broken = LINEAR.to_vec();
    let at = broken
        .windows(6)
        .rposition(|name| name == b"scores")
        .expect("the output");
    broken[at..at + 6].copy_from_slice(b"nobody");
    let (code, container) = with_model(&module(COMPUTES), &broken).run();
    let stderr = container.read("stderr");
    // NN_ERRNO runtime_error, from the guest itself.
    assert_eq!(code, 5, "{stderr}");
    assert!(
        stderr.starts_with(
            "wasmlet: wasi_ephemeral_nn.load_by_name: the model cannot be loaded: tract gave up: "
        ),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn bad_pointers_are_traps_and_mistakes_are_codes() {
    if !can_run() {
        return;
    }
    for body in [
        "(drop (call $load_by_name (i32.const -1) (i32.const 6) (i32.const 128)))",
        "(drop (call $load_by_name (i32.const 0) (i32.const 6) (i32.const 262141)))",
        "(drop (call $load (i32.const 262140) (i32.const 1) (i32.const 1) (i32.const 0) (i32.const 128)))",
        "(drop (call $set_input (call $context) (i32.const 0) (i32.const -4)))",
        "(drop (call $set_input (call $context) (i32.const 0) (call $tensor (i32.const -1) (i32.const 12))))",
        "(drop (call $set_input (call $context) (i32.const 0) (call $tensor (i32.const 2) (i32.const -1))))",
        "(drop (call $get_output (call $context) (i32.const 0) (i32.const -8) (i32.const 16) (i32.const 128)))",
    ] {
        let (code, container) = container(&module(body)).run();
        let stderr = container.read("stderr");
        assert_eq!(code, 121, "{body}: {stderr}");
        assert!(
            stderr.starts_with("wasmlet: /guest.wasm: trapped: wasi_ephemeral_nn.")
                && stderr.contains("are not in the guest's memory of 262144 bytes")
                && stderr.lines().count() == 1,
            "{stderr}"
        );
    }
    for (body, code, said) in [
        (
            "(call $check (call $load_by_name (i32.const 1) (i32.const 5) (i32.const 128)))",
            8,
            "no model is named \"inear\"; wasmlet.dev/nn-models names linear",
        ),
        (
            "(call $check (call $set_input (call $context) (i32.const 0) (call $tensor (i32.const 1) (i32.const 4))))",
            1,
            "the input picture is f32 1x3, and the guest passes f32 1",
        ),
        (
            "(call $check (call $compute (call $context)))",
            1,
            "the input picture is not set",
        ),
        (
            "(call $check (call $load (i32.const 160) (i32.const 0) (i32.const 2) (i32.const 0) (i32.const 128)))",
            2,
            "models in the encoding tensorflow cannot be loaded here; convert the model to ONNX",
        ),
        (
            "(loop $again (drop (call $context)) (br $again))",
            7,
            "a guest may have 16 graphs at a time",
        ),
    ] {
        let (seen, container) = container(&module(body)).run();
        let stderr = container.read("stderr");
        assert_eq!(seen, code, "{body}: {stderr}");
        assert!(stderr.trim_end().ends_with(said), "{stderr}");
    }
}

#[test]
fn models_and_tensors_count_as_the_guest_s_memory() {
    if !can_run() {
        return;
    }
    // The model takes about 780 KiB, the guest has four pages, and then takes what is left.
    let takes = module(
        "(call $check (call $load_by_name (i32.const 0) (i32.const 6) (i32.const 128)))
         (loop $again (br_if $again (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
         (call $exit (memory.size))",
    );
    let mut container = with_model(&takes, GLYPH);
    container.request.max_memory = Some(2 << 20);
    let (code, container) = container.run();
    // 2 MiB are 32 pages; 796,735 bytes are a little more than twelve of them.
    assert_eq!(code, 19, "{}", container.read("stderr"));
    // Too little while it is being loaded: an answer for the guest, and no kill.
    let grows_first = module(
        "(drop (memory.grow (i32.const 20)))
         (call $check (call $load_by_name (i32.const 0) (i32.const 6) (i32.const 128)))",
    );
    let mut container = with_model(&grows_first, GLYPH);
    container.request.max_memory = Some(2 << 20);
    let (code, container) = container.run();
    let stderr = container.read("stderr");
    assert_eq!(code, 7, "{stderr}");
    assert!(
        stderr.contains("raise the container's memory limit or wasmlet.dev/memory"),
        "{stderr}"
    );
}

#[test]
fn only_the_default_profile_has_it() {
    if !can_run() {
        return;
    }
    for (profile, wanted) in [
        ("hardened", "the profile hardened has no wasi-nn"),
        ("deterministic", "the profile deterministic has no wasi-nn"),
    ] {
        let wishes = Wishes {
            profile,
            ..Wishes::NONE
        };
        for guest in [module(COMPUTES).as_str(), COMPONENT] {
            let failure = try_compile_for(guest.as_bytes(), wishes).expect_err("refused");
            assert_eq!(failure.reason, FailureReason::Unsupported);
            assert!(failure.message.contains(wanted), "{failure:?}");
        }
    }
}

/// A guest that has loaded a model and waits is as locked in as any other, with one thread.
#[test]
fn a_loaded_model_leaves_no_thread_and_no_file_open() {
    if !can_run() {
        return;
    }
    let waits = module(
        "(drop (call $context))
         (i32.store (i32.const 160) (i32.const 0))
         (i32.store (i32.const 164) (i32.const 6))
         (drop (call $write (i32.const 1) (i32.const 160) (i32.const 1) (i32.const 168)))
         (i32.store (i32.const 528) (i32.const 1))
         (i64.store (i32.const 536) (i64.const 60000000000))
         (drop (call $poll (i32.const 512) (i32.const 600) (i32.const 1) (i32.const 700)))",
    );
    let mut created = container(&waits).created();
    created.start();
    eventually("the model is loaded", || {
        created.container.read("stdout") == "linear"
    });
    let proc = PathBuf::from(format!("/proc/{}", created.pid));
    let threads = fs::read_dir(proc.join("task")).expect("alive").count();
    assert_eq!(threads, 1);
    let open: Vec<_> = fs::read_dir(proc.join("fd"))
        .expect("alive")
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(|path| path.to_string_lossy().ends_with(".onnx"))
        .collect();
    assert!(open.is_empty(), "{open:?}");
    kill(Pid::from_raw(created.pid), Signal::SIGKILL).expect("alive");
    created.wait();
    created.delete();
}
