//! The compile helper: what it reports and what it refuses.

use std::io::{Read, Seek};

use wasmlet_protocol::{FailureReason, GuestKind};

use crate::guests;
use crate::support::{describe, try_compile};

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
    use FailureReason::{InvalidArgument, Unsupported};
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
        Unsupported,
        "does not serve wasi:http yet",
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
    assert_eq!(description.profiles.len(), 1);
    assert_eq!(description.profiles[0].name, "default");
    assert_eq!(description.profiles[0].compatibility.len(), 64);
    assert_eq!(describe(), description, "twice the same");
}
