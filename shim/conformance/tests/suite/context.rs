//! What a guest is given: arguments, environment, working folder, user.

use std::collections::BTreeSet;
use std::time::SystemTime;

use wasmlet_conformance::{Ctx, Image, TaskOptions};
use wasmlet_oci_image::{Image as OciImage, Layer};

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::all("arguments_arrive", arguments_arrive),
    Case::all("environment_is_the_specs", environment_is_the_specs),
    Case::all("working_folder_is_set", working_folder_is_set)
        .row("relative paths start in the working folder"),
    Case::all(
        "entrypoint_and_command_are_joined",
        entrypoint_and_command_are_joined,
    ),
    Case::all(
        "clocks_go_and_random_bytes_differ",
        clocks_go_and_random_bytes_differ,
    ),
];

fn arguments_arrive(ctx: &Ctx) {
    let exit = ctx.run(
        "t",
        "context",
        TaskOptions::args(["one", "two words", "", "vier=4"]),
    );
    let args: Vec<_> = exit
        .stdout
        .lines()
        .filter(|line| line.starts_with("arg "))
        .collect();
    assert_eq!(args, ["arg one", "arg two words", "arg ", "arg vier=4"]);
}

fn environment_is_the_specs(ctx: &Ctx) {
    let exit = ctx.run_with("t", "context", TaskOptions::default(), |spec| {
        spec.env("COLOUR=blue").env("EMPTY=").env("EQUALS=a=b")
    });
    let mut env: Vec<_> = exit
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("env "))
        .collect();
    env.sort_unstable();
    // HOME may be added by a runtime, nothing else.
    env.retain(|line| !line.starts_with("HOME="));
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(env, ["COLOUR=blue", "EMPTY=", "EQUALS=a=b", path]);
}

/// The guest's own image with another configuration and more files.
fn image(ctx: &Ctx, name: &str, change: impl Fn(OciImage, &str) -> OciImage) -> Image {
    let program = wasmlet_conformance::Guests::shared()
        .bytes("context", ctx.runtime().target())
        .expect("the guest can be compiled");
    let path = if ctx.runtime().is_wasm() {
        "app.wasm"
    } else {
        "app"
    };
    let layer = Layer::new()
        .file(path, 0o755, program)
        .folder("work", 0o755)
        .file("work/here.txt", 0o644, "found\n")
        .folder("tmp", 0o777);
    let image = OciImage::new().layer(layer);
    Image::new(
        &format!("{name}-{}", ctx.runtime().name()),
        [change(image, &format!("/{path}"))],
    )
}

fn working_folder_is_set(ctx: &Ctx) {
    let image = image(ctx, "cwd", |image, path| {
        image.entrypoint([path]).working_dir("/work")
    });
    let exit = ctx.run_image("t", &image, TaskOptions::default(), |spec| spec);
    // WASI has no call that asks for the working folder; its C library starts from "/".
    if !ctx.runtime().is_wasm() {
        assert!(exit.stdout.contains("cwd /work\n"), "{exit:?}");
    }
    assert!(
        exit.stdout.contains("here found\n"),
        "a relative path starts there: {exit:?}"
    );
}

fn entrypoint_and_command_are_joined(ctx: &Ctx) {
    let image = image(ctx, "joined", |image, path| {
        image
            .entrypoint([path, "fixed"])
            .cmd(["default"])
            .env("FROM_IMAGE=yes")
    });
    let exit = ctx.run_image("t", &image, TaskOptions::args(["more"]), |spec| spec);
    let args: Vec<_> = exit
        .stdout
        .lines()
        .filter(|line| line.starts_with("arg "))
        .collect();
    assert_eq!(args, ["arg fixed", "arg default", "arg more"]);
    assert!(exit.stdout.contains("env FROM_IMAGE=yes\n"), "{exit:?}");
}

/// Value of the line `NAME VALUE`.
#[track_caller]
fn value<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in {text:?}"))
        .trim()
}

fn clocks_go_and_random_bytes_differ(ctx: &Ctx) {
    let now = || {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.expect("after 1970").as_secs()
    };
    let mut random = BTreeSet::new();
    for name in ["first", "second"] {
        let before = now();
        let exit = ctx.run(name, "clock", TaskOptions::default());
        assert_eq!(exit.code, 0, "{exit:?}");
        let realtime: u64 = value(&exit.stdout, "realtime").parse().expect("a number");
        assert!(
            (before..=now()).contains(&realtime),
            "{realtime} is not now"
        );
        let passed: u64 = value(&exit.stdout, "monotonic").parse().expect("a number");
        assert!(passed >= 20_000_000, "only {passed} ns passed in 20 ms");
        let bytes = value(&exit.stdout, "random").to_owned();
        assert_ne!(bytes, "0".repeat(32));
        random.insert(bytes);
    }
    assert_eq!(random.len(), 2, "the same bytes twice: {random:?}");
}
