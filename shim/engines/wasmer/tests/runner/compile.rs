//! The compile helper: what it reports and what it refuses.

use std::io::{Read, Seek};

use wasmlet_protocol::{FailureReason, GuestKind};

use crate::guests;
use crate::support::{Container, Wishes, can_run, describe, try_compile, try_compile_for};

#[test]
fn facts_are_reported() {
    let (compiled, _) = try_compile(guests::library().as_bytes()).expect("it compiles");
    assert_eq!(compiled.kind, GuestKind::Module);
    assert_eq!(compiled.exports, ["_initialize", "work", "takes"]);
    assert!(!compiled.wants_listener);
    assert_eq!(compiled.min_memory, 65536);
    let (compiled, _) = try_compile(guests::serves(false).as_bytes()).expect("it compiles");
    assert!(compiled.wants_listener);
}

#[track_caller]
fn refused_with(module: &[u8], wishes: Wishes, reason: FailureReason, part: &str) {
    let failure = try_compile_for(module, wishes).expect_err("it is refused");
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

#[track_caller]
fn refused(module: &[u8], reason: FailureReason, part: &str) {
    refused_with(module, Wishes::NONE, reason, part);
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
    refused(b"(module (memory i64 1))", InvalidArgument, "switched off");
    refused(b"(component)", Unsupported, "wasmtime runs components");
    refused(
        br#"(module (@custom "dylink.0" "x"))"#,
        Unsupported,
        "link it statically",
    );
}

#[test]
fn imports_that_nobody_offers_are_named() {
    use FailureReason::InvalidArgument;
    refused(
        br#"(module (import "env" "host_thing" (func)))"#,
        InvalidArgument,
        "there is no function env.host_thing; this engine offers modules WASI preview 1",
    );
    refused(
        br#"(module (import "wasi_snapshot_preview1" "fd_write" (func)))"#,
        InvalidArgument,
        "fd_write is a function (i32 i32 i32 i32) -> (i32) and wanted as () -> ()",
    );
    refused(
        br#"(module (import "wasi_ephemeral_nn" "load" (func)))"#,
        InvalidArgument,
        "wasi_ephemeral_nn.load (wasi-nn)",
    );
    refused(
        br#"(module (import "wasi_snapshot_preview1" "sock_open" (func)))"#,
        InvalidArgument,
        "sock_open (a socket function of WasmEdge's)",
    );
    refused(
        br#"(module (import "env" "g" (global i32)))"#,
        InvalidArgument,
        "env.g is a global",
    );
    let many: String = (0..9)
        .map(|n| format!(r#"(import "env" "f{n}" (func))"#))
        .collect();
    refused(
        format!("(module {many})").as_bytes(),
        InvalidArgument,
        "env.f4; and 4 more",
    );
}

#[test]
fn fuel_of_threads_is_refused() {
    let threads = br#"(module (memory (export "memory") 1 2 shared) (func (export "_start")))"#;
    let wishes = Wishes {
        fuel: Some(1),
        ..Wishes::NONE
    };
    refused_with(
        threads,
        wishes,
        FailureReason::Unsupported,
        "cannot limit the fuel of a module with threads",
    );
    try_compile(threads).expect("without fuel");
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
    assert_eq!(description.engine, "wasmer");
    assert_eq!(description.runs, [GuestKind::Module]);
    let names: Vec<&str> = description
        .profiles
        .iter()
        .map(|p| p.name.as_str())
        .collect();
    assert_eq!(names, ["default", "deterministic", "hardened"]);
    assert_eq!(describe(), description, "twice the same");
}

#[test]
fn a_component_is_refused_with_the_engine_that_runs_it() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(guests::exits(0));
    container.request.kind = GuestKind::Component;
    let (failure, _) = container.fail();
    assert_eq!(failure.reason, FailureReason::Unsupported);
    assert!(
        failure.message.contains("wasmlet.dev/engine to wasmtime"),
        "{}",
        failure.message
    );
}
