//! The compile helper: what it takes, and what it says of the rest.

use wasmlet_protocol::{FailureReason, GuestKind, proposal};

use crate::support::{Wishes, describe, try_compile, try_compile_for};

#[track_caller]
fn refused(guest: &str, reason: FailureReason, parts: &[&str]) {
    let failure = try_compile(guest.as_bytes()).expect_err("it is refused");
    assert_eq!(failure.reason, reason, "{}", failure.message);
    for part in parts {
        assert!(
            failure.message.contains(part),
            "{part:?} is not in {:?}",
            failure.message
        );
    }
}

#[test]
fn the_runner_describes_itself() {
    let description = describe();
    assert_eq!(description.engine, "wasmedge");
    assert_eq!(description.version, "0.17.1");
    assert_eq!(description.runs, [GuestKind::Module]);
    assert_eq!(
        description.interfaces,
        ["wasi-preview1", "listen", "wasmedge-sockets"]
    );
    let names: Vec<&str> = description
        .profiles
        .iter()
        .map(|p| p.name.as_str())
        .collect();
    assert_eq!(names, ["default", "hardened"]);
}

#[test]
fn what_cannot_be_had_is_refused_with_what_there_is() {
    refused(
        r#"(module (import "env" "magic" (func)) (func (export "_start")))"#,
        FailureReason::InvalidArgument,
        &[
            "env.magic",
            "unknown",
            "WASI preview 1",
            "wasi_snapshot_preview1",
        ],
    );
    refused(
        r#"(module (import "wasi_snapshot_preview1" "fd_write" (func (param i64)))
            (func (export "_start")))"#,
        FailureReason::InvalidArgument,
        &["fd_write", "other types"],
    );
    refused(
        r#"(module (import "wasi_ephemeral_nn" "load" (func)) (func (export "_start")))"#,
        FailureReason::InvalidArgument,
        &["wasi_ephemeral_nn.load", "no plugin", "wasmtime"],
    );
    refused(
        "(component)",
        FailureReason::Unsupported,
        &["component", "wasmtime"],
    );
}

#[test]
fn both_accepts_are_there() {
    let import = |name: &str, parameters: &str| {
        format!(
            r#"(module (import "wasi_snapshot_preview1" "{name}"
                 (func (param {parameters}) (result i32)))
               (func (export "_start")))"#
        )
    };
    for (guest, listens) in [
        (import("sock_accept", "i32 i32 i32"), true),
        (import("sock_accept", "i32 i32"), true),
        (import("sock_accept_v2", "i32 i32 i32"), false),
    ] {
        let (compiled, _) = try_compile(guest.as_bytes()).expect("it compiles");
        assert_eq!(compiled.wants_listener, listens, "{guest}");
    }
}

/// Proposals, each with a module that needs it.
const PROPOSALS: &[(&str, &str)] = &[
    (
        proposal::SIMD,
        "(module (func (result v128) (v128.const i32x4 0 0 0 0)))",
    ),
    (
        proposal::RELAXED_SIMD,
        "(module (func (param v128) (result v128)
           (i8x16.relaxed_swizzle (local.get 0) (local.get 0))))",
    ),
    (proposal::TAIL_CALL, "(module (func (return_call 0)))"),
    (
        proposal::EXTENDED_CONST,
        "(module (global i32 (i32.add (i32.const 1) (i32.const 2))))",
    ),
    (proposal::MULTI_MEMORY, "(module (memory 1) (memory 1))"),
    (proposal::MEMORY64, "(module (memory i64 1))"),
    (
        proposal::FUNCTION_REFERENCES,
        "(module (type $t (func)) (func (param (ref $t))))",
    ),
    (proposal::GC, "(module (type (struct (field i32))))"),
    (proposal::EXCEPTIONS, "(module (tag $e) (func (throw $e)))"),
    (
        proposal::LEGACY_EXCEPTIONS,
        "(module (func try catch_all end))",
    ),
    (proposal::THREADS, "(module (memory 1 1 shared))"),
    (
        proposal::STACK_SWITCHING,
        "(module (type $f (func)) (type $c (cont $f)) (func (param (ref $c))))",
    ),
    (
        proposal::WIDE_ARITHMETIC,
        "(module (func (param i64 i64) (result i64 i64)
           (i64.mul_wide_s (local.get 0) (local.get 1))))",
    ),
    (
        proposal::CUSTOM_PAGE_SIZES,
        "(module (memory 1 (pagesize 1)))",
    ),
];

/// An upgrade of the library cannot switch a proposal on unseen.
#[test]
fn every_profile_takes_the_proposals_it_names_and_no_other() {
    for (profile, wanted) in [
        (
            "default",
            "simd relaxed-simd tail-call extended-const multi-memory function-references",
        ),
        (
            "hardened",
            "tail-call extended-const multi-memory function-references",
        ),
    ] {
        let wishes = Wishes {
            profile,
            ..Wishes::NONE
        };
        let taken: Vec<&str> = PROPOSALS
            .iter()
            .filter(|(_, guest)| try_compile_for(guest.as_bytes(), wishes).is_ok())
            .map(|(name, _)| *name)
            .collect();
        assert_eq!(taken.join(" "), wanted, "{profile}");
        let description = describe();
        let told = description
            .profiles
            .iter()
            .find(|p| p.name == profile)
            .map(|p| p.proposals.join(" "));
        assert_eq!(told.as_deref(), Some(wanted), "{profile}");
    }
}

#[test]
fn what_a_profile_switches_off_is_told_with_what_to_do() {
    let hardened = Wishes {
        profile: "hardened",
        ..Wishes::NONE
    };
    let (_, simd) = PROPOSALS[0];
    let failure = try_compile_for(simd.as_bytes(), hardened).expect_err("no vectors");
    assert!(
        failure.message.contains("the profile hardened") && failure.message.contains("SIMD"),
        "{}",
        failure.message
    );
}
