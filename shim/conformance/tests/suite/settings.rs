//! What a pod can set, on every engine: fuel, time, stack, profile, the choice of the engine.

use std::process::Command;

use serde_json::json;
use wasmlet_conformance::{
    Ctx, Exit, Image, ImageForm, LONG, Runtime, Status, Target, TaskOptions, bin_dir, eventually,
};
use wasmlet_protocol::ExitCode;

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::wasm("fuel_is_counted_and_told", fuel_is_counted_and_told).row("fuel"),
    Case::wasm("a_run_ends_at_its_deadline", a_run_ends_at_its_deadline).row("timeout of a run"),
    Case::wasm("the_stack_has_a_limit", the_stack_has_a_limit).row("max-stack"),
    Case::wasm("update_moves_the_cap", update_moves_the_cap)
        .row("in-place resize of linear memory"),
    Case::wasm("a_listening_guest_has_no_deadline", no_deadline_for_servers)
        .row("listening socket (sock_accept)"),
    Case::wasm("what_hardened_switches_off", what_hardened_switches_off).row("profile hardened"),
    Case::wasm("a_pod_names_its_engine", a_pod_names_its_engine).auto_only(),
    Case::wasm("auto_goes_by_the_module", auto_goes_by_the_module).auto_only(),
    Case::wasm("an_engine_that_cannot_says_who_can", who_can).auto_only(),
    Case::wasm("inspect_tells_before_it_runs", inspect_tells).auto_only(),
];

const MIB: u64 = 1 << 20;

#[track_caller]
fn run_with(ctx: &Ctx, name: &str, guest: &str, settings: &[(&str, &str)]) -> Exit {
    ctx.run_with(name, guest, TaskOptions::default(), |spec| {
        settings.iter().fold(spec, |spec, (key, value)| {
            spec.annotation(&format!("wasmlet.dev/{key}"), value)
        })
    })
}

/// Why a guest with these settings is not created.
#[track_caller]
fn refused(ctx: &Ctx, name: &str, image: &Image, settings: &[(&str, &str)]) -> Status {
    let built = ctx.try_task(name, image, TaskOptions::default(), |spec| {
        settings.iter().fold(spec, |spec, (key, value)| {
            spec.annotation(&format!("wasmlet.dev/{key}"), value)
        })
    });
    built
        .err()
        .unwrap_or_else(|| panic!("{settings:?} was taken"))
}

#[track_caller]
fn assert_ends(exit: &Exit, code: ExitCode, sentence: &str) {
    assert_eq!(exit.code.cast_signed(), code.code(), "{exit:?}");
    let last = exit.stderr.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("wasmlet: /guest.wasm: ") && last.contains(sentence),
        "{exit:?}"
    );
}

fn fuel_is_counted_and_told(ctx: &Ctx) {
    let used = |exit: &Exit| {
        let line = exit.stderr.lines().find_map(|line| {
            line.strip_prefix("wasmlet: /guest.wasm: used ")?
                .split_once(' ')
        });
        let (number, rest) = line.unwrap_or_else(|| panic!("nothing is told: {exit:?}"));
        (number.parse::<u64>().expect("a number"), rest.to_owned())
    };
    let first = run_with(ctx, "first", "hello", &[("fuel", "1000000000")]);
    assert_eq!(first.code, 0, "{first:?}");
    let (needed, rest) = used(&first);
    assert!(needed > 10 && needed < 1_000_000, "{needed}");
    assert_eq!(rest, "of 1000000000 fuel");
    let again = run_with(ctx, "again", "hello", &[("fuel", "1000000000")]);
    assert_eq!(used(&again).0, needed, "the same guest needs the same");

    let spins = run_with(ctx, "spins", "spin", &[("fuel", "50000000")]);
    assert_ends(
        &spins,
        ExitCode::OutOfFuel,
        "out of fuel, limit 50000000: raise wasmlet.dev/fuel",
    );
    let free = run_with(ctx, "free", "hello", &[]);
    assert!(!free.stderr.contains("fuel"), "{free:?}");
}

fn a_run_ends_at_its_deadline(ctx: &Ctx) {
    for guest in ["spin", "sleep"] {
        let exit = run_with(ctx, guest, guest, &[("timeout", "400ms")]);
        assert_ends(
            &exit,
            ExitCode::Deadline,
            "ran into its time limit of 400ms: raise wasmlet.dev/timeout",
        );
    }
    assert_eq!(
        run_with(ctx, "quick", "hello", &[("timeout", "1h")]).code,
        0
    );
}

fn the_stack_has_a_limit(ctx: &Ctx) {
    let exit = run_with(ctx, "t", "endless_recursion", &[("max-stack", "256Ki")]);
    assert_ends(
        &exit,
        ExitCode::Trap,
        "stack overflow, limit 262144 bytes: raise wasmlet.dev/max-stack",
    );
    let exit = run_with(ctx, "larger", "endless_recursion", &[("max-stack", "8Mi")]);
    assert_ends(&exit, ExitCode::Trap, "stack overflow, limit 8388608 bytes");
    assert_eq!(
        run_with(ctx, "fits", "hello", &[("max-stack", "256Ki")]).code,
        0
    );
    let refused = refused(ctx, "huge", &ctx.image("hello"), &[("max-stack", "64Gi")]);
    assert!(refused.message().contains("max-stack"), "{refused}");
}

/// A larger limit gives the guest more linear memory, a smaller one no more.
fn update_moves_the_cap(ctx: &Ctx) {
    let image = ctx.image("grow_forever");
    let task = ctx
        .try_task("t", &image, TaskOptions::default(), |spec| {
            spec.memory(16 * MIB)
        })
        .expect("created");
    task.start().expect("started");
    let count = |letter: char| task.io.stdout.text().matches(letter).count() as u64;
    let refused_again = || {
        let before = count('n');
        eventually("the guest is refused", LONG, || {
            (count('n') > before + 2)
                .then_some(())
                .ok_or_else(|| "not yet".to_owned())
        });
        count('y') * 64 * 1024
    };
    let first = refused_again();
    assert!(first > 4 * MIB && first < 16 * MIB, "{first}");
    let larger = json!({ "memory": { "limit": 24 * MIB, "swap": 24 * MIB } });
    task.update(&larger).expect("updated");
    eventually("the guest gets more", LONG, || {
        (count('y') * 64 * 1024 >= first + 7 * MIB)
            .then_some(())
            .ok_or_else(|| "not yet".to_owned())
    });
    let second = refused_again();
    assert!(second < 24 * MIB, "{second}");
    assert_eq!(refused_again(), second, "that is all");
}

fn no_deadline_for_servers(ctx: &Ctx) {
    let status = refused(ctx, "t", &ctx.image("serve"), &[("timeout", "1s")]);
    assert!(
        status
            .message()
            .contains("wasmlet.dev/timeout is the time of a run, and this module serves for ever"),
        "{status}"
    );
}

fn what_hardened_switches_off(ctx: &Ctx) {
    for (name, text, lacks) in [
        (
            "simd",
            r#"(module (func (export "_start") (drop (v128.const i32x4 0 0 0 0))))"#,
            "simd",
        ),
        (
            "memory64",
            r#"(module (memory i64 1) (func (export "_start")))"#,
            "memory64",
        ),
    ] {
        let image = Image::of_wat(&format!("hardened-{name}"), text);
        let status = refused(ctx, name, &image, &[("profile", "hardened")]);
        let sentence = format!("its profile hardened has {lacks} switched off");
        assert!(status.message().contains(&sentence), "{status}");
    }
    let exit = run_with(ctx, "fine", "hello", &[("profile", "hardened")]);
    assert_eq!(exit.code, 0, "{exit:?}");
}

/// Every engine that is installed, by annotation, by crun's key, and for one container of a pod.
fn a_pod_names_its_engine(ctx: &Ctx) {
    for engine in ["wasmtime", "wasmer", "wasmedge"] {
        for (key, value) in [("wasmlet.dev/engine", engine), ("run.oci.handler", engine)] {
            let name = format!("{engine}-{}", key.len());
            let exit = ctx.run_with(&name, "hello", TaskOptions::default(), |spec| {
                spec.annotation(key, value)
            });
            assert_eq!(exit.code, 0, "{engine}: {exit:?}");
            let said = format!("engine=\"{engine}\" reason=\"the pod's annotation\"");
            assert!(ctx.log().contains(&said), "{said} is not in the log");
        }
    }
}

fn auto_goes_by_the_module(ctx: &Ctx) {
    const WASIX: &str = r#"(import "wasix_32v1" "proc_exit2" (func (param i32)))"#;
    const SOCKETS: &str =
        r#"(import "wasi_snapshot_preview1" "sock_open" (func (param i32 i32 i32) (result i32)))"#;
    let module = |name, imports: &str| {
        let text =
            format!(r#"(module {imports} (memory (export "memory") 1) (func (export "_start")))"#);
        Image::of_wat(name, &text)
    };
    for (name, image, engine) in [
        ("plain", ctx.image("hello"), "wasmtime"),
        ("sockets", module("sockets", SOCKETS), "wasmedge"),
        ("wasix", module("wasix", WASIX), "wasmer"),
    ] {
        let exit = ctx.run_image(name, &image, TaskOptions::default(), |spec| spec);
        assert_eq!(exit.code, 0, "{exit:?}");
        let said = format!("reason=\"auto: {engine} is the first that can run it");
        assert!(ctx.log().contains(&said), "{said} is not in the log");
    }
    // What nobody offers is told engine by engine.
    let both = module("both", &format!("{WASIX} {SOCKETS}"));
    let status = refused(ctx, "both", &both, &[]);
    for sentence in [
        "no engine on this node can run /guest.wasm: ",
        "wasmtime: it does not offer ",
        "wasmer: it does not offer wasmedge-sockets",
        "wasmedge: it does not offer wasix",
    ] {
        assert!(status.message().contains(sentence), "{status}");
    }
}

fn who_can(ctx: &Ctx) {
    let component = Image::of_guest_as("hello", Target::Component, ImageForm::Gzip);
    for engine in ["wasmer", "wasmedge"] {
        let status = refused(ctx, engine, &component, &[("engine", engine)]);
        let sentence = format!(
            "engine {engine} cannot run /guest.wasm: it runs no components; set \
                                wasmlet.dev/engine to wasmtime, or leave it out"
        );
        assert!(status.message().contains(&sentence), "{status}");
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
    }
}

fn inspect_tells(ctx: &Ctx) {
    let inspect = |arguments: &[&str], bytes: &[u8]| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.wasm");
        std::fs::write(&path, bytes).expect("written");
        let output = Command::new(bin_dir().join("containerd-shim-wasm-v1"))
            .arg("inspect")
            .args(arguments)
            .arg(&path)
            .output()
            .expect("it runs");
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    assert_eq!(ctx.runtime(), Runtime::Wasm);
    let hello = wasmlet_conformance::Guests::shared()
        .bytes("hello", Target::Wasm)
        .expect("the guest can be compiled");
    let (fine, text, _) = inspect(&[], &hello);
    assert!(fine, "{text}");
    for line in [
        "interfaces  wasi-preview1",
        "auto        wasmtime",
        "wasmer",
        "wasmedge",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    let (fine, json, _) = inspect(&["--json"], &hello);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert!(fine && json["auto"] == "wasmtime" && json["guest"]["kind"] == "module");
    let (fine, text, error) = inspect(
        &[],
        br#"(module (import "env" "f" (func)) (func (export "_start")))"#,
    );
    assert!(!fine && text.contains("nothing offers env.f"), "{text}");
    assert!(error.contains("no engine on this node can run"), "{error}");
    let (fine, _, error) = inspect(&[], b"\0asm\x01\0\0\0\x01\xff");
    assert!(!fine && error.contains("not valid"), "{error}");
}
