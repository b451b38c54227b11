//! Hooks of the spec: all kinds, in their order, for wasm containers as for Linux ones.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use wasmlet_conformance::{Ctx, Guests, Image, SpecBuilder, Status, Target, TaskOptions};
use wasmlet_oci_image::{Image as OciImage, Layer};
use wasmlet_protocol::ExitCode;

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::all(
        "hooks_of_every_kind_run_in_order",
        hooks_of_every_kind_run_in_order,
    ),
    Case::all(
        "a_hook_that_fails_fails_the_create",
        a_hook_that_fails_fails_the_create,
    ),
    Case::all(
        "a_start_hook_that_fails_fails_the_guest",
        a_start_hook_that_fails,
    ),
    Case::all(
        "a_poststop_hook_that_fails_fails_nothing",
        a_poststop_hook_that_fails,
    ),
];

/// Where the folder of the marks is in the container.
const MARKS: &str = "/marks";

/// An image with `guest` and the static program that a hook inside it needs.
fn image(ctx: &Ctx, guest: &str) -> Image {
    let target = ctx.runtime().target();
    let path = match target {
        Target::Linux => "guest",
        _ => "guest.wasm",
    };
    let bytes = |name: &str, target| Guests::shared().bytes(name, target).expect("compiled");
    let layer = Layer::new()
        .folder("marks", 0o755)
        .file(path, 0o755, bytes(guest, target))
        .file("mark", 0o755, bytes("mark", Target::Linux));
    let name = format!("hooks-{}-{}", guest.replace('_', "-"), ctx.runtime().name());
    let image = OciImage::new().entrypoint([format!("/{path}")]);
    Image::new(&name, [image.layer(layer)])
}

/// The folder on the node in which hooks leave their marks.
fn marks(ctx: &Ctx) -> PathBuf {
    let folder = ctx.node().base().join("temp").join(ctx.id("marks"));
    fs::create_dir_all(&folder).expect("a folder can be made");
    folder
}

/// A hook that notes `stage` and what it sees of its surroundings.
fn hook(program: &Path, stage: &str, folder: &Path) -> Value {
    let file = folder.join("order").display().to_string();
    json!([{ "path": program, "args": ["mark", file, stage] }])
}

/// Hooks of all kinds, in the order of their stages.
const STAGES: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// How long the startContainer hook takes, so that whoever does not wait for it is found out.
const START_MILLIS: &str = "300";

fn all_hooks(folder: &Path) -> Value {
    let on_node = Guests::shared().path("mark", Target::Linux);
    let on_node = on_node
        .expect("compiled")
        .canonicalize()
        .expect("it is there");
    let hooks: serde_json::Map<_, _> = STAGES
        .into_iter()
        .map(|stage| {
            // The only one that runs where the guest will.
            let hook = match stage {
                "startContainer" => {
                    let mut hook = hook(Path::new("/mark"), stage, Path::new(MARKS));
                    hook[0]["args"]
                        .as_array_mut()
                        .expect("arguments")
                        .push(json!(START_MILLIS));
                    hook
                }
                _ => hook(&on_node, stage, folder),
            };
            (stage.to_owned(), hook)
        })
        .collect();
    hooks.into()
}

fn with_marks(spec: SpecBuilder, folder: &Path) -> SpecBuilder {
    spec.bind(&folder.display().to_string(), MARKS, &["rw"])
}

/// Lines that the hooks have left: `STAGE STATUS inside|outside`.
#[track_caller]
fn left(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("order")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The lines in the order that the runtime under test owes: runc 1.1 runs the poststart hooks by
/// Create already, so with it only the order of the others counts.
#[track_caller]
fn in_order(ctx: &Ctx, folder: &Path) -> Vec<String> {
    let mut lines = left(folder);
    if !ctx.runtime().is_wasm() {
        lines.retain(|line| !line.starts_with("poststart "));
    }
    lines
}

/// What is left by the stages up to `last`.
fn expected(ctx: &Ctx, last: &str) -> Vec<&'static str> {
    let all = [
        "prestart creating outside",
        "createRuntime creating outside",
        "createContainer creating outside",
        "startContainer created inside",
        "poststart running outside",
        "poststop stopped outside",
    ];
    let end = STAGES.iter().position(|stage| *stage == last);
    let mut lines = all[..=end.expect("a stage")].to_vec();
    if !ctx.runtime().is_wasm() {
        lines.retain(|line| !line.starts_with("poststart "));
    }
    lines
}

fn hooks_of_every_kind_run_in_order(ctx: &Ctx) {
    let folder = marks(ctx);
    let image = image(ctx, "hello");
    let options = TaskOptions::default();
    let task = ctx
        .try_task("t", &image, options, |spec| {
            with_marks(spec, &folder).set("/hooks", all_hooks(&folder))
        })
        .expect("created");
    assert_eq!(
        in_order(ctx, &folder),
        expected(ctx, "createContainer"),
        "by Create"
    );
    task.start().expect("started");
    let exit = task.wait();
    assert_eq!(
        (exit.code, exit.stdout.as_str()),
        (0, "hello from the guest\n"),
        "{exit:?}"
    );
    assert_eq!(
        in_order(ctx, &folder),
        expected(ctx, "poststart"),
        "by Start"
    );
    task.delete().expect("deleted");
    assert_eq!(
        in_order(ctx, &folder),
        expected(ctx, "poststop"),
        "by Delete"
    );
    let poststart = left(&folder)
        .iter()
        .filter(|line| line.starts_with("poststart "))
        .count();
    assert_eq!(poststart, 1, "{:?}", left(&folder));
}

/// Why a task is not created.
#[track_caller]
fn refusal(ctx: &Ctx, name: &str, kind: &str, hook: &Value) -> Status {
    let image = image(ctx, "hello");
    let hooks = json!({ kind: [hook] });
    ctx.try_task(name, &image, TaskOptions::default(), |spec| {
        spec.set("/hooks", hooks)
    })
    .err()
    .unwrap_or_else(|| panic!("created in spite of a {kind} hook that fails"))
}

fn a_hook_that_fails_fails_the_create(ctx: &Ctx) {
    for kind in &STAGES[..3] {
        let name = kind.to_lowercase();
        let status = refusal(ctx, &name, kind, &json!({ "path": "/bin/false" }));
        assert!(status.message().contains("hook"), "{kind}: {status}");
        let name = format!("{name}-missing");
        let status = refusal(ctx, &name, kind, &json!({ "path": "/no/such/hook" }));
        assert!(status.message().contains("hook"), "{kind}: {status}");
    }
}

fn a_start_hook_that_fails(ctx: &Ctx) {
    let folder = marks(ctx);
    let image = image(ctx, "hello");
    // Its folder is missing, so it fails.
    let failing = hook(
        Path::new("/mark"),
        "startContainer",
        Path::new("/no/such/folder"),
    );
    let task = ctx
        .try_task("t", &image, TaskOptions::default(), |spec| {
            with_marks(spec, &folder).set("/hooks", json!({ "startContainer": failing }))
        })
        .expect("created");
    // The init has answered Start before; its end is all that it can tell. runc's ends with 1.
    task.start().expect("started");
    let exit = task.wait();
    assert_ne!(exit.code, 0, "{exit:?}");
    assert_eq!(exit.stdout, "", "the guest did not run: {exit:?}");
    if ctx.runtime().is_wasm() {
        assert_eq!(exit.code.cast_signed(), ExitCode::StartFailed.code());
        assert_eq!(exit.stderr.lines().count(), 1, "one line: {exit:?}");
        assert!(exit.stderr.contains("startContainer"), "{exit:?}");
    }
}

fn a_poststop_hook_that_fails(ctx: &Ctx) {
    let folder = marks(ctx);
    let image = image(ctx, "exit_code");
    let exit = ctx.run_image("t", &image, TaskOptions::args(["3"]), |spec| {
        let mut hooks = all_hooks(&folder);
        let after = hooks["poststop"].take();
        hooks["poststop"] = json!([{ "path": "/bin/false" }, after[0]]);
        with_marks(spec, &folder).set("/hooks", hooks)
    });
    assert_eq!(exit.code, 3, "{exit:?}");
    if ctx.runtime().is_wasm() {
        // runc leaves the others out.
        let lines = left(&folder);
        assert_eq!(
            lines.last().map(String::as_str),
            Some("poststop stopped outside"),
            "{lines:?}"
        );
    }
}
