//! A fourth engine, dropped into the folder of a shim that has never heard of it: what
//! docs/adding-an-engine.md promises.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use wasmlet_conformance::{
    Ctx, Guests, Image, ImageForm, LONG, NodeOptions, PodContainer, Target, TaskOptions,
};
use wasmlet_protocol::ExitCode;

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::wasm("a_dropped_engine_runs_a_pod", a_dropped_engine_runs_a_pod)
        .auto_only()
        .with_node(with_toy),
    Case::wasm("its_limits_are_kept", its_limits_are_kept)
        .auto_only()
        .with_node(with_toy),
    Case::wasm("what_it_lacks_is_refused", what_it_lacks_is_refused)
        .auto_only()
        .with_node(with_toy),
    Case::wasm("inspect_lists_it_after_others", inspect_lists_it)
        .auto_only()
        .with_node(with_toy),
    Case::wasm("without_its_files_it_is_gone", without_its_files)
        .auto_only()
        .with_node(with_toy),
];

const PROGRAMS: [&str; 2] = ["wasmlet-run-toy", "wasmlet-aot-toy"];

const ENGINE: (&str, &str) = ("wasmlet.dev/engine", "toy");

/// Room for `/run/wasmlet` in KiB, so that nothing of the toy is remembered on the machine.
const RUN_KIB: u32 = 4096;

fn with_toy() -> NodeOptions {
    NodeOptions {
        programs: toy().to_vec(),
        own_run_kib: Some(RUN_KIB),
        ..NodeOptions::default()
    }
}

/// The toy's programs, built once as a plain `cargo build` does.
#[track_caller]
fn toy() -> &'static [PathBuf; 2] {
    static TOY: OnceLock<[PathBuf; 2]> = OnceLock::new();
    TOY.get_or_init(|| {
        let output = Command::new(env!("CARGO"))
            .args(["build", "--locked", "--package", "wasmlet-toy-engine"])
            .arg("--message-format=json-render-diagnostics")
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .expect("cargo starts");
        assert!(output.status.success(), "the toy engine does not build");
        let text = String::from_utf8_lossy(&output.stdout);
        PROGRAMS.map(|name| built(&text, name))
    })
}

/// The path of a program in cargo's messages.
#[track_caller]
fn built(messages: &str, name: &str) -> PathBuf {
    let path = messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        if message["target"]["name"] != name {
            return None;
        }
        message["executable"].as_str().map(PathBuf::from)
    });
    path.unwrap_or_else(|| panic!("cargo built no {name}"))
}

fn args(args: &[&str]) -> PodContainer {
    PodContainer {
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        ..PodContainer::default()
    }
}

fn a_dropped_engine_runs_a_pod(ctx: &Ctx) {
    let cri = ctx.cri();
    let pod = cri.pod("p", &[ENGINE]);
    let id = pod.start("hello", &ctx.image("hello"), &PodContainer::default());
    let status = pod.exited(&id, LONG);
    assert_eq!((status.exit_code, status.reason.as_str()), (0, "Completed"));
    pod.wait_log("hello", "stdout F hello from the guest");
    pod.wait_log("hello", "stderr F hello on stderr");
    let id = pod.start("code", &ctx.image("exit_code"), &args(&["7"]));
    assert_eq!(pod.exited(&id, LONG).exit_code, 7);
    assert_eq!(pod.log("code"), "", "nothing was said");
    // From the cache this time.
    let id = pod.start("again", &ctx.image("exit_code"), &args(&["9"]));
    assert_eq!(pod.exited(&id, LONG).exit_code, 9);
    let log = ctx.log();
    assert!(
        log.contains(r#"engine="toy" reason="the pod's annotation""#),
        "{log}"
    );
    pod.delete().expect("deleted");
}

fn its_limits_are_kept(ctx: &Ctx) {
    let exit = |name: &str, guest: &str, key: &str, value: &str| {
        ctx.run_with(name, guest, TaskOptions::default(), |spec| {
            spec.annotation(ENGINE.0, ENGINE.1).annotation(key, value)
        })
    };
    let spent = exit("spin", "spin", "wasmlet.dev/fuel", "1000000");
    assert_eq!(spent.code, ExitCode::OutOfFuel.code().cast_unsigned());
    assert_eq!(spent.stdout, "ready\n");
    assert!(
        spent
            .stderr
            .contains("out of fuel, limit 1000000: raise wasmlet.dev/fuel"),
        "{}",
        spent.stderr
    );
    let enough = exit("hello", "hello", "wasmlet.dev/fuel", "1000000");
    assert_eq!(
        (enough.code, enough.stdout.as_str()),
        (0, "hello from the guest\n")
    );
    assert!(
        enough.stderr.contains("of 1000000 fuel"),
        "{}",
        enough.stderr
    );
    let capped = exit("grow", "grow", "wasmlet.dev/memory", "8Mi");
    assert_eq!(capped.code, 0, "{capped:?}");
    let had: u32 = capped
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("refused after ")?.split(' ').next())
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("never refused: {capped:?}"));
    assert!((4..8).contains(&had), "{had} MiB of 8");
}

/// Why a task of a guest is not created.
#[track_caller]
fn refusal(ctx: &Ctx, name: &str, image: &Image, annotations: &[(&str, &str)]) -> String {
    let built = ctx.try_task(name, image, TaskOptions::default(), |spec| {
        annotations
            .iter()
            .fold(spec.annotation(ENGINE.0, ENGINE.1), |spec, (key, value)| {
                spec.annotation(key, value)
            })
    });
    match built {
        Ok(_) => panic!("{name} was created"),
        Err(status) => {
            assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
            status.message().to_owned()
        }
    }
}

#[track_caller]
fn says(sentence: &str, part: &str) {
    assert!(sentence.contains(part), "{part:?} is not in {sentence:?}");
}

fn what_it_lacks_is_refused(ctx: &Ctx) {
    let hello = ctx.image("hello");
    for (option, value) in [("timeout", "500ms"), ("max-stack", "1Mi"), ("listen", "80")] {
        let key = format!("wasmlet.dev/{option}");
        says(
            &refusal(ctx, option, &hello, &[(&key, value)]),
            &format!(
                "engine toy cannot honour the annotation {key}: remove it or choose another engine"
            ),
        );
    }
    says(
        &refusal(
            ctx,
            "profile",
            &hello,
            &[("wasmlet.dev/profile", "hardened")],
        ),
        "engine toy has no profile \"hardened\"; it has: default",
    );
    let component = Image::of_guest_as("partial", Target::Component, ImageForm::Gzip);
    let sentence = refusal(ctx, "component", &component, &[]);
    says(
        &sentence,
        "engine toy cannot run /guest.wasm: it runs no components; set",
    );
    says(&sentence, "wasmtime");
    // Known to be WASI from its imports, and still not among what the toy has.
    says(
        &refusal(ctx, "files", &ctx.image("files"), &[]),
        "it imports wasi_snapshot_preview1.",
    );
}

/// `inspect` by the node's own shim.
fn inspect(ctx: &Ctx, guest: &str, target: Target) -> (Output, String) {
    let path = Guests::shared()
        .path(guest, target)
        .expect("the guest builds");
    let output = Command::new(ctx.node().programs().join("containerd-shim-wasm-v1"))
        .arg("inspect")
        .arg(&path)
        .env_clear()
        .output()
        .expect("the shim starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, text)
}

/// The line about an engine, and how many there are before it.
fn find<'a>(text: &'a str, engine: &str) -> Option<(usize, &'a str)> {
    text.lines()
        .filter_map(|line| line.strip_prefix("engine "))
        .map(str::trim_start)
        .enumerate()
        .find(|(_, line)| line.starts_with(&format!("{engine} ")))
}

#[track_caller]
fn line<'a>(text: &'a str, engine: &str) -> (usize, &'a str) {
    find(text, engine).unwrap_or_else(|| panic!("no engine {engine} in:\n{text}"))
}

fn inspect_lists_it(ctx: &Ctx) {
    let (output, text) = inspect(ctx, "hello", Target::Wasm);
    assert!(output.status.success(), "{output:?}");
    let (place, verdict) = line(&text, "toy");
    assert_eq!(verdict, "toy 2.0.0: yes, in the profiles default");
    // An interpreter comes after everything that compiles.
    let engines = text.lines().filter(|l| l.starts_with("engine ")).count();
    assert_eq!(place, engines - 1, "{text}");
    assert!(text.contains("auto        wasmtime\n"), "{text}");

    let (output, text) = inspect(ctx, "partial", Target::Component);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        line(&text, "toy").1,
        "toy 2.0.0: no: default (it runs no components)"
    );

    // And so `auto` does not take it.
    let exit = ctx.run("auto", "hello", TaskOptions::default());
    assert_eq!(exit.code, 0, "{exit:?}");
    let log = ctx.log();
    assert!(
        log.contains("auto: wasmtime is the first that can run it"),
        "{log}"
    );
}

fn without_its_files(ctx: &Ctx) {
    let exit = ctx.run_with("before", "hello", TaskOptions::default(), |spec| {
        spec.annotation(ENGINE.0, ENGINE.1)
    });
    assert_eq!(exit.code, 0, "{exit:?}");
    for name in PROGRAMS {
        fs::remove_file(ctx.node().programs().join(name)).expect("it was there");
    }
    let sentence = refusal(ctx, "after", &ctx.image("hello"), &[]);
    says(
        &sentence,
        "engine \"toy\" is not installed on this node; installed: ",
    );
    says(&sentence, "wasmtime");
    let (_, text) = inspect(ctx, "hello", Target::Wasm);
    assert!(find(&text, "toy").is_none(), "{text}");
    let exit = ctx.run("others", "hello", TaskOptions::default());
    assert_eq!(exit.code, 0, "the others go on: {exit:?}");
}
