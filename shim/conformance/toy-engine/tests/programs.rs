//! The two programs as the shim calls them, without a container.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::process::{Command, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use wasmlet_protocol::{
    CompileReport, CompileRequest, Compiled, Description, Failure, FailureReason, GuestKind,
    GuestOption, PROTOCOL, fd,
};

/// Runs the helper; gives what it reports and what it wrote.
fn compile(module: &[u8], profile: &str) -> (Result<Compiled, Failure>, Vec<u8>) {
    let mut input = tempfile::tempfile().expect("a file");
    input.write_all(module).expect("written");
    input.rewind().expect("rewound");
    let mut output = tempfile::tempfile().expect("a file");
    let request = CompileRequest {
        protocol: PROTOCOL,
        name: "/guest.wasm".to_owned(),
        profile: profile.to_owned(),
        metered: false,
        interruptible: false,
        unoptimised: false,
        cgroup_procs: Vec::new(),
        parent: None,
        time_limit_seconds: Some(60),
    };
    let answer = Command::new(env!("CARGO_BIN_EXE_wasmlet-aot-toy"))
        .arg("compile")
        .arg(serde_json::to_string(&request).expect("JSON"))
        .stdin(input)
        .stdout(Stdio::piped())
        .fd_mappings(vec![FdMapping {
            parent_fd: output.try_clone().expect("a second descriptor").into(),
            child_fd: fd::COMPILE_OUTPUT,
        }])
        .expect("no two of a number")
        .output()
        .expect("the helper starts");
    assert!(answer.status.success(), "{answer:?}");
    let report = match serde_json::from_slice(&answer.stdout).expect("a report") {
        CompileReport::Compiled(compiled) => Ok(compiled),
        CompileReport::Failed(failure) => Err(failure),
    };
    (report, bytes(&mut output))
}

fn bytes(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut bytes))
        .expect("it can be read");
    bytes
}

#[track_caller]
fn refused(module: &[u8], reason: FailureReason, part: &str) {
    let (report, _) = compile(module, "default");
    let failure = report.expect_err("it is refused");
    assert_eq!(failure.reason, reason, "{failure:?}");
    assert!(failure.message.starts_with("/guest.wasm: "), "{failure:?}");
    assert!(failure.message.contains(part), "{failure:?}");
    assert!(!failure.message.contains('\n'), "{failure:?}");
}

/// What the shim makes of an engine is in these words: a change of them is a decision.
#[test]
fn the_description_is_this() {
    let answer = Command::new(env!("CARGO_BIN_EXE_wasmlet-run-toy"))
        .arg("--describe")
        .env_clear()
        .output()
        .expect("the runner starts");
    assert!(answer.status.success(), "{answer:?}");
    let described: Description = serde_json::from_slice(&answer.stdout).expect("a description");
    let mut json: serde_json::Value = serde_json::from_slice(&answer.stdout).expect("JSON");
    // Of this build and of this version of the list of functions.
    for (name, length) in [("build_id", 22), ("compatibility", 64)] {
        let value = match name {
            "build_id" => json["build_id"].take(),
            _ => json["profiles"][0]["compatibility"].take(),
        };
        assert_eq!(value.as_str().map(str::len), Some(length), "{name}");
    }
    let golden = serde_json::json!({
        "protocol": 1,
        "engine": "toy",
        "version": "2.0.0",
        "build_id": null,
        "runs": ["module"],
        "interfaces": ["wasi-preview1"],
        "options": ["fuel", "memory"],
        "profiles": [{
            "name": "default",
            "compatibility": null,
            "proposals": ["tail-call", "extended-const", "multi-memory"],
        }],
        "memory_reserve": 32 << 20,
        "memory_reserve_per_gib": 3 << 20,
    });
    assert_eq!(json, golden);
    assert_eq!(described.runs, [GuestKind::Module]);
    assert_eq!(described.options, [GuestOption::Fuel, GuestOption::Memory]);
}

#[test]
fn the_artifact_is_the_checked_module() {
    let text = r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "_start")))"#;
    let wasm = wat::parse_str(text).expect("valid text");
    let (report, artifact) = compile(text.as_bytes(), "default");
    let compiled = report.expect("it is taken");
    assert_eq!(artifact, wasm);
    assert_eq!(compiled.kind, GuestKind::Module);
    assert_eq!(compiled.exports, ["_start"]);
    assert_eq!(compiled.needs.interfaces, ["wasi-preview1"]);
}

#[test]
fn what_would_not_run_is_refused_with_the_reason() {
    use FailureReason::{InvalidArgument, Unsupported};
    refused(b"(component)", Unsupported, "runs modules only");
    refused(b"\x7fELF and so on", InvalidArgument, "native code");
    refused(
        b"(module (func (result i32)))",
        InvalidArgument,
        "type mismatch",
    );
    refused(
        br#"(module (import "wasi_snapshot_preview1" "path_open" (func)))"#,
        InvalidArgument,
        "it imports wasi_snapshot_preview1.path_open; this engine offers of \
         wasi_snapshot_preview1 only args_get, args_sizes_get, ",
    );
    refused(
        br#"(module (import "wasi_snapshot_preview1" "proc_exit" (func)))"#,
        InvalidArgument,
        "it imports wasi_snapshot_preview1.proc_exit as",
    );
    refused(b"(module (memory i64 1))", InvalidArgument, "memory64");
    let large = format!(r#"(module (memory 32) (data "{}"))"#, "x".repeat(1 << 20));
    refused(
        large.as_bytes(),
        Unsupported,
        "this engine takes modules of up to 524288",
    );
    let (report, _) = compile(b"(module)", "hardened");
    let failure = report.expect_err("there is no such profile");
    assert_eq!(failure.reason, InvalidArgument);
    assert_eq!(
        failure.message,
        "/guest.wasm: toy has no profile \"hardened\""
    );
}
