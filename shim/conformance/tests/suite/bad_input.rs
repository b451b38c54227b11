//! Bad images, bad settings, bad bundles: each is refused with a sentence that helps, and nothing is
//! left of it.

use std::fs;

use serde_json::json;
use tonic::Code;
use wasmlet_conformance::{Ctx, Guests, Image, Runtime, SpecBuilder, Status, Target, TaskOptions};
use wasmlet_oci_image::{Image as OciImage, Layer};

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::wasm("what_is_no_module_is_refused", what_is_no_module_is_refused),
    Case::wasm(
        "modules_that_cannot_run_are_refused",
        modules_that_cannot_run_are_refused,
    ),
    Case::wasm(
        "entrypoints_that_are_no_files_are_refused",
        entrypoints_that_are_no_files_are_refused,
    ),
    Case::wasm(
        "an_entrypoint_does_not_leave_the_image",
        an_entrypoint_does_not_leave_the_image,
    ),
    Case::wasm("annotations_are_checked", annotations_are_checked).auto_only(),
    Case::wasm("precompiled_code_is_refused", precompiled_code_is_refused).auto_only(),
    Case::wasm(
        "an_incomplete_spec_is_refused",
        an_incomplete_spec_is_refused,
    ),
    Case::wasm(
        "a_mebibyte_of_annotations_is_no_problem",
        a_mebibyte_of_annotations_is_no_problem,
    ),
    Case::wasm(
        "a_hostile_root_cannot_reach_the_host",
        a_hostile_root_cannot_reach_the_host,
    ),
    Case::wasm(
        "a_working_folder_that_is_missing_is_named",
        missing_working_folder,
    ),
    Case::wasm(
        "functions_that_cannot_be_called_are_refused",
        functions_that_cannot_be_called,
    ),
];

/// An image with one file as its entrypoint.
fn image_of(name: &str, path: &str, bytes: impl Into<Vec<u8>>) -> Image {
    image_with(
        name,
        path,
        Layer::new().file(path.trim_start_matches('/'), 0o755, bytes),
    )
}

fn image_with(name: &str, entrypoint: &str, layer: Layer) -> Image {
    let layer = layer.folder("tmp", 0o1777);
    Image::new(
        &format!("bad-{name}"),
        [OciImage::new().entrypoint([entrypoint]).layer(layer)],
    )
}

/// Why a task of the image is not created, or not started.
#[track_caller]
fn refusal(
    ctx: &Ctx,
    name: &str,
    image: &Image,
    spec: impl FnOnce(SpecBuilder) -> SpecBuilder,
) -> Status {
    match ctx.try_task(name, image, TaskOptions::default(), spec) {
        Err(status) => status,
        Ok(task) => match task.start() {
            Err(status) => status,
            Ok(_) => {
                let exit = task.wait();
                panic!("{name} was run: {exit:?}")
            }
        },
    }
}

/// The refusal must be the pod owner's to mend, and say exactly this.
#[track_caller]
fn assert_refused(ctx: &Ctx, name: &str, image: &Image, sentence: &str) {
    assert_says(&refusal(ctx, name, image, |spec| spec), sentence);
}

#[track_caller]
fn assert_says(status: &Status, sentence: &str) {
    assert!(
        status.message().contains(sentence),
        "expected {sentence:?}, got {status}"
    );
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
}

#[track_caller]
fn wasm(name: &str) -> Vec<u8> {
    Guests::shared()
        .bytes(name, Target::Wasm)
        .expect("the guest can be compiled")
}

fn what_is_no_module_is_refused(ctx: &Ctx) {
    let cases: [(&str, &[u8], &str); 4] = [
        (
            "text",
            b"hello",
            "the entrypoint /a.wasm is not a WebAssembly module: begins with \"hello\"",
        ),
        (
            "empty",
            b"",
            "the entrypoint /a.wasm is not a WebAssembly module: the file is empty",
        ),
        (
            "header",
            b"\0asm\x01",
            "the entrypoint /a.wasm is a truncated WebAssembly module: 5 bytes, of which the header \
             alone has 8",
        ),
        (
            "script",
            b"#!/bin/sh\nexit 0\n",
            "the entrypoint /a.wasm is not a WebAssembly module: begins with",
        ),
    ];
    for (name, bytes, sentence) in cases {
        assert_refused(ctx, name, &image_of(name, "/a.wasm", bytes), sentence);
    }
}

fn modules_that_cannot_run_are_refused(ctx: &Ctx) {
    let hello = wasm("hello");
    let half = hello[..hello.len() / 2].to_vec();
    assert_refused(ctx, "half", &image_of("half", "/a.wasm", half), "/a.wasm: ");
    for (guest, sentence) in [
        ("unknown_import", "/a.wasm: "),
        (
            "no_start",
            "the module exports no _start, so it is not a command; name one of its functions as \
             PATH#FUNCTION: answer, work",
        ),
        ("threads", "/a.wasm: "),
    ] {
        // Wasmer has the proposal that it needs, outside the profile `hardened`, so `auto` finds an engine, too.
        if guest == "threads" && ctx.runtime() == Runtime::Wasmer {
            continue;
        }
        let name = guest.replace('_', "-");
        let status = refusal(
            ctx,
            &name,
            &image_of(&name, "/a.wasm", wasm(guest)),
            |spec| match (guest, ctx.runtime()) {
                ("threads", Runtime::Wasm) => spec.annotation("wasmlet.dev/engine", "wasmtime"),
                _ => spec,
            },
        );
        assert_says(&status, sentence);
        let must_name = match guest {
            "unknown_import" => vec!["somewhere_else", "not_there"],
            "no_start" => vec!["_start", "answer", "work"],
            _ => vec!["threads"],
        };
        for word in must_name {
            assert!(status.message().contains(word), "no {word:?} in {status}");
        }
    }
}

fn entrypoints_that_are_no_files_are_refused(ctx: &Ctx) {
    let folder = image_with("folder", "/a.wasm", Layer::new().folder("a.wasm", 0o755));
    assert_refused(
        ctx,
        "folder",
        &folder,
        "the entrypoint /a.wasm is a folder, not a file",
    );
    let fifo = image_with("fifo", "/a.wasm", Layer::new().fifo("a.wasm", 0o644));
    assert_refused(
        ctx,
        "fifo",
        &fifo,
        "the entrypoint /a.wasm is a FIFO, not a file",
    );
    let device = image_with(
        "device",
        "/a.wasm",
        Layer::new().char_device("a.wasm", 1, 8, 0o666),
    );
    let status = refusal(ctx, "device", &device, |spec| spec);
    assert_says(&status, "the entrypoint /a.wasm is a");
    assert!(status.message().contains("device, not a file"), "{status}");
    let round = image_with("round", "/a.wasm", Layer::new().symlink("a.wasm", "a.wasm"));
    assert_refused(
        ctx,
        "round",
        &round,
        "the entrypoint /a.wasm cannot be followed: too many symbolic links",
    );
    let missing = image_of("missing", "/b.wasm", wasm("hello"));
    let status = refusal(ctx, "missing", &missing, |spec| {
        spec.set("/process/args", json!(["/a.wasm"]))
    });
    assert_says(&status, "/a.wasm");
}

fn an_entrypoint_does_not_leave_the_image(ctx: &Ctx) {
    // A good module on the host, where links of the image point.
    let host = ctx.node().base().join("temp").join(ctx.id("host.wasm"));
    fs::write(&host, wasm("hello")).expect("written");
    let target = host.display().to_string();
    let up = format!("../../../../../../../../../..{target}");
    for (name, link) in [("absolute", &target), ("relative", &up)] {
        let image = image_with(name, "/a.wasm", Layer::new().symlink("a.wasm", link));
        let status = refusal(ctx, name, &image, |spec| spec);
        assert_says(&status, "/a.wasm");
    }
    let image = image_of("plain", "/b.wasm", wasm("hello"));
    let status = refusal(ctx, "dots", &image, |spec| {
        spec.set("/process/args", json!([format!("/../../../../..{target}")]))
    });
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
}

fn annotations_are_checked(ctx: &Ctx) {
    let image = image_of("annotated", "/a.wasm", wasm("hello"));
    let cases = [
        (
            "wasmlet.dev/colour",
            "red",
            "annotation \"wasmlet.dev/colour\" is not known; the keys below wasmlet.dev/ are engine, fuel, listen, max-stack, memory, nn-models, profile, timeout",
        ),
        (
            "wasmlet.dev/engine",
            "v8",
            "engine \"v8\" is not installed on this node; installed: ",
        ),
        (
            "wasmlet.dev/memory",
            "lots",
            "annotation wasmlet.dev/memory: \"lots\" is not valid; use",
        ),
        (
            "wasmlet.dev/memory",
            "-1",
            "annotation wasmlet.dev/memory: \"-1\" is not valid; use",
        ),
        (
            "wasmlet.dev/profile",
            "fast",
            "annotation wasmlet.dev/profile: \"fast\" is not valid; use",
        ),
        (
            "wasmlet.dev/listen",
            "http://x",
            "annotation wasmlet.dev/listen: \"http://x\" is not valid; use",
        ),
        (
            "wasmlet.dev/timeout",
            "soon",
            "annotation wasmlet.dev/timeout: \"soon\" is not valid; use",
        ),
        (
            "wasmlet.dev/fuel",
            "1e9",
            "annotation wasmlet.dev/fuel: \"1e9\" is not valid; use",
        ),
    ];
    for (number, (key, value, sentence)) in cases.into_iter().enumerate() {
        let status = refusal(ctx, &format!("a{number}"), &image, |spec| {
            spec.annotation(key, value)
        });
        assert_says(&status, sentence);
    }
    let exit = ctx.run_image("other", &image, TaskOptions::default(), |spec| {
        spec.annotation("example.org/wasmlet.dev", "x")
            .annotation("wasmlet.development/x", "y")
    });
    assert_eq!(exit.code, 0, "annotations of others are not ours to judge");
}

fn precompiled_code_is_refused(ctx: &Ctx) {
    // What our own compiler made of a module, put into an image by its author.
    ctx.run("warm", "hello", TaskOptions::default());
    let artifacts = ctx.node().cache().join("artifacts");
    let artifact = fs::read_dir(&artifacts)
        .expect("the cache")
        .filter_map(Result::ok)
        .next();
    let bytes = fs::read(artifact.expect("an artifact").path()).expect("readable");
    for path in ["/a.wasm", "/a.cwasm"] {
        let name = path.trim_start_matches("/a.");
        let status = refusal(ctx, name, &image_of(name, path, bytes.clone()), |spec| spec);
        assert_says(
            &status,
            "precompiled native code is refused, put the .wasm it was compiled from into the image",
        );
    }
}

fn an_incomplete_spec_is_refused(ctx: &Ctx) {
    let image = image_of("spec", "/a.wasm", wasm("hello"));
    type Change = fn(SpecBuilder) -> SpecBuilder;
    let cases: [(&str, Change, &str); 4] = [
        ("args", |spec| spec.remove("/process/args"), "process.args"),
        (
            "empty",
            |spec| spec.set("/process/args", json!([])),
            "process.args",
        ),
        (
            "blank",
            |spec| spec.set("/process/args", json!([""])),
            "process.args",
        ),
        (
            "process",
            |spec| spec.remove("/process"),
            "config.json has no process",
        ),
    ];
    for (name, change, sentence) in cases {
        assert_says(&refusal(ctx, name, &image, change), sentence);
    }
    let root = refusal(ctx, "root", &image, |spec| spec.remove("/root"));
    assert!(root.message().contains("root"), "{root}");
    let types = refusal(ctx, "types", &image, |spec| {
        spec.set("/process/env", json!({ "A": 1 }))
    });
    assert!(types.message().contains("config.json"), "{types}");
}

fn a_mebibyte_of_annotations_is_no_problem(ctx: &Ctx) {
    let value = "x".repeat(16 << 10);
    let exit = ctx.run_with("t", "hello", TaskOptions::default(), |mut spec| {
        for number in 0..64 {
            spec = spec.annotation(&format!("example.org/{number}"), &value);
        }
        spec
    });
    assert_eq!(
        (exit.code, exit.stdout.as_str()),
        (0, "hello from the guest\n")
    );
}

/// With wasm only: the Linux containers of such images are runc's to judge, and runc before its fix
/// of CVE-2026-41579 follows the link.
fn a_hostile_root_cannot_reach_the_host(ctx: &Ctx) {
    let canary = ctx.node().base().join("temp").join(ctx.id("canary"));
    fs::create_dir_all(canary.join("inner")).expect("a folder can be made");
    fs::write(canary.join("ptmx"), "mine\n").expect("written");
    let before = names(&canary);
    for folder in ["dev", "proc", "sys"] {
        let layer = Layer::new()
            .file("a.wasm", 0o755, wasm("hello"))
            .symlink(folder, &canary.display().to_string());
        let image = image_with(&format!("hostile-{folder}"), "/a.wasm", layer);
        let status = refusal(ctx, folder, &image, |spec| spec);
        assert_says(&status, &format!("/{folder}"));
        assert_eq!(names(&canary), before, "the host's folder was changed");
    }
}

fn names(folder: &std::path::Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .expect("a folder")
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    names.sort();
    names
}

fn missing_working_folder(ctx: &Ctx) {
    let image = image_of("cwd", "/a.wasm", wasm("hello"));
    let status = refusal(ctx, "relative", &image, |spec| spec.cwd("not/absolute"));
    assert!(status.message().contains("not/absolute"), "{status}");
    // A missing one is made, as runc does.
    let exit = ctx.run_image("made", &image, TaskOptions::default(), |spec| {
        spec.cwd("/made/here")
    });
    assert_eq!(exit.code, 0, "{exit:?}");
}

fn functions_that_cannot_be_called(ctx: &Ctx) {
    let cases = [
        ("absent", "/a.wasm#absent", "absent"),
        ("argument", "/a.wasm#with_argument", "with_argument"),
        (
            "nameless",
            "/a.wasm#",
            "the entrypoint \"/a.wasm#\" names no function after '#'",
        ),
        (
            "memory",
            "/a.wasm#memory",
            "the export memory is not a function",
        ),
    ];
    for (name, entrypoint, sentence) in cases {
        let layer = Layer::new().file("a.wasm", 0o644, wasm("functions"));
        let status = refusal(
            ctx,
            name,
            &image_with(&format!("function-{name}"), entrypoint, layer),
            |s| s,
        );
        assert_says(&status, sentence);
    }
}
