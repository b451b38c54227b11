//! The compile helper: what it reports and what it refuses.

use std::fs;
use std::io::{BufRead, BufReader, Read, Seek};
use std::process::{Child, ChildStdin, Command, Stdio};

use wasmlet_protocol::{CompileReport, CompileRequest, FailureReason, GuestKind, PROTOCOL};

use crate::guests;
use crate::posture::status;
use crate::support::{compiler, describe, eventually, try_compile};

#[test]
fn facts_are_reported() {
    let (compiled, _) = try_compile(guests::library().as_bytes()).expect("it compiles");
    assert_eq!(compiled.kind, GuestKind::Module);
    assert_eq!(compiled.exports, ["_initialize", "work", "takes"]);
    assert!(!compiled.wants_listener);
    assert_eq!(compiled.min_memory, 65536);
    assert!(compiled.peak_memory > 1 << 20, "{}", compiled.peak_memory);

    let (compiled, _) = try_compile(guests::serves(false).as_bytes()).expect("it compiles");
    assert!(compiled.wants_listener);
    let (compiled, _) =
        try_compile(guests::command_component(true).as_bytes()).expect("it compiles");
    assert_eq!(compiled.kind, GuestKind::Component);
    assert_eq!(compiled.exports, ["wasi:cli/run@0.2.0"]);
}

#[track_caller]
fn refused(module: &[u8], reason: FailureReason, part: &str) {
    let failure = try_compile(module).expect_err("it is refused");
    assert_eq!(failure.reason, reason, "{}", failure.message);
    assert!(
        failure.message.starts_with("/guest.wasm: "),
        "{}",
        failure.message
    );
    assert!(
        failure.message.contains(part),
        "{part:?} is not in {:?}",
        failure.message
    );
    assert!(!failure.message.contains('\n'), "{:?}", failure.message);
}

#[test]
fn bad_modules_are_refused_with_the_reason() {
    use FailureReason::InvalidArgument;
    refused(b"", InvalidArgument, "empty");
    refused(b"#!/bin/sh\n", InvalidArgument, "neither WebAssembly nor");
    let whole = wat::parse_str(guests::library()).expect("valid text");
    refused(&whole[..whole.len() / 2], InvalidArgument, "unexpected end");
    refused(&whole[..6], InvalidArgument, "cut off after 6 bytes");
    refused(
        b"(module (func (result i32)))",
        InvalidArgument,
        "type mismatch",
    );
    refused(
        br#"(module (import "env" "host_thing" (func)))"#,
        InvalidArgument,
        "unknown import: `env::host_thing`",
    );
    refused(
        br#"(module (import "wasi_snapshot_preview1" "fd_write" (func)))"#,
        InvalidArgument,
        "incompatible import type for `wasi_snapshot_preview1::fd_write`",
    );
    refused(
        b"(module (memory 1 2 shared))",
        InvalidArgument,
        "switched off",
    );
    refused(
        br#"(component (import "my:own/thing" (instance (export "f" (func)))))"#,
        InvalidArgument,
        "my:own/thing",
    );
    refused(
        br#"(component (import "wasi:http/types@0.2.0" (instance (export "f" (func)))))"#,
        InvalidArgument,
        "wasi:http/types@0.2.0",
    );
}

#[test]
fn an_artifact_is_not_compiled_again() {
    let (_, mut artifact) = try_compile(b"(module)").expect("it compiles");
    let mut bytes = Vec::new();
    artifact
        .rewind()
        .and_then(|()| artifact.read_to_end(&mut bytes))
        .expect("it can be read");
    refused(
        &bytes,
        FailureReason::InvalidArgument,
        "precompiled native code",
    );
}

#[test]
fn the_runner_describes_itself() {
    let description = describe();
    assert_eq!(description.engine, "wasmtime");
    let names: Vec<&str> = description
        .profiles
        .iter()
        .map(|p| p.name.as_str())
        .collect();
    assert_eq!(names, ["default", "deterministic", "hardened"]);
    for profile in &description.profiles {
        assert_eq!(profile.compatibility.len(), 64);
        assert!(!profile.proposals.is_empty());
    }
    assert_eq!(describe(), description, "twice the same");
}

/// A helper that waits for its module on a pipe, with a shell for its shim.
struct Waiting {
    shell: Child,
    helper: i32,
    /// The helper reads on until this is closed.
    _module: ChildStdin,
}

impl Waiting {
    #[track_caller]
    fn start() -> Self {
        let request = CompileRequest {
            protocol: PROTOCOL,
            name: "/guest.wasm".to_owned(),
            profile: "default".to_owned(),
            metered: false,
            interruptible: false,
            unoptimised: false,
            cgroup_procs: Vec::new(),
            parent: Some(4242),
            time_limit_seconds: Some(7),
        };
        let request = serde_json::to_string(&request).expect("a request is JSON");
        // A shell gives what it runs in the background no stdin of its own accord.
        let script =
            r#"exec 5<&0; "$0" compile "${1%%4242*}$$${1#*4242}" <&5 >/dev/null & echo $!; wait"#;
        let mut shell = Command::new("/bin/sh")
            .args(["-c", script])
            .arg(compiler())
            .arg(request)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("there is a shell");
        let module = shell.stdin.take().expect("it is piped");
        let mut line = String::new();
        BufReader::new(shell.stdout.take().expect("it is piped"))
            .read_line(&mut line)
            .expect("it says the helper's process id");
        let helper = line.trim().parse().expect("a number");
        Self {
            shell,
            helper,
            _module: module,
        }
    }

    fn lives(&self) -> bool {
        !matches!(
            status(self.helper, "State").as_deref().map(|s| &s[..1]),
            None | Some("Z" | "X")
        )
    }
}

#[test]
fn the_helper_bounds_itself() {
    let mut waiting = Waiting::start();
    let limits = format!("/proc/{}/limits", waiting.helper);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let expected = [
        ("Max cpu time", 7 * cpus, 7 * cpus + 5),
        ("Max file size", 512 << 20, 512 << 20),
        ("Max core file size", 0, 0),
    ];
    eventually("the limits are set", || {
        let text = fs::read_to_string(&limits).expect("the helper waits");
        expected.iter().all(|(name, soft, hard)| {
            text.lines().any(|line| {
                let fields: Vec<&str> = line
                    .strip_prefix(name)
                    .map(|rest| rest.split_whitespace().collect())
                    .unwrap_or_default();
                fields.starts_with(&[&soft.to_string(), &hard.to_string()])
            })
        })
    });
    waiting.shell.kill().expect("it is our child");
    waiting.shell.wait().expect("it is our child");
}

#[test]
fn the_helper_ends_with_the_shim_that_asked() {
    let mut waiting = Waiting::start();
    eventually("the helper runs", || {
        fs::read(format!("/proc/{}/comm", waiting.helper))
            .is_ok_and(|n| n.starts_with(b"wasmlet-aot"))
    });
    assert!(waiting.lives());
    waiting.shell.kill().expect("it is our child");
    waiting.shell.wait().expect("it is our child");
    eventually("the helper is gone", || !waiting.lives());
}

#[test]
fn a_helper_whose_shim_is_gone_does_not_begin() {
    let request = CompileRequest {
        protocol: PROTOCOL,
        name: "/guest.wasm".to_owned(),
        profile: "default".to_owned(),
        metered: false,
        interruptible: false,
        unoptimised: false,
        cgroup_procs: Vec::new(),
        // No process has this number.
        parent: Some(u32::MAX),
        time_limit_seconds: None,
    };
    let output = Command::new(compiler())
        .arg("compile")
        .arg(serde_json::to_string(&request).expect("a request is JSON"))
        .stdin(Stdio::null())
        .output()
        .expect("the helper starts");
    let CompileReport::Failed(failure) = serde_json::from_slice(&output.stdout).expect("a report")
    else {
        panic!("it compiled");
    };
    assert_eq!(failure.reason, FailureReason::Internal);
    assert!(failure.message.contains("is gone"), "{}", failure.message);
}
