//! The forms in which a module can come.

use wasmlet_conformance::{Ctx, Guests, Image, ImageForm, Target, TaskOptions};
use wasmlet_oci_image::{Artifact, Image as OciImage, Layer, Platform, media_type};

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::all(
        "layers_may_be_gzip_zstd_or_plain",
        layers_may_be_gzip_zstd_or_plain,
    ),
    Case::all(
        "an_index_gives_the_manifest_for_this_node",
        an_index_gives_the_manifest_for_this_node,
    ),
    Case::wasm("text_is_compiled_too", text_is_compiled_too),
    Case::wasm("a_module_needs_no_suffix", a_module_needs_no_suffix),
    Case::wasm("a_component_runs", a_component_runs).wasmtime_only(),
    Case::wasm(
        "a_function_can_be_called_by_name",
        a_function_can_be_called_by_name,
    ),
    Case::wasm(
        "wasm_and_linux_live_in_one_image",
        wasm_and_linux_live_in_one_image,
    ),
    Case::wasm(
        "an_image_for_the_wasm_platform_runs",
        an_image_for_the_wasm_platform_runs,
    ),
    Case::wasm(
        "artifacts_of_every_layer_type_run",
        artifacts_of_every_layer_type_run,
    ),
    Case::wasm(
        "an_entrypoint_may_be_a_link_inside_the_image",
        an_entrypoint_may_be_a_link,
    ),
];

#[track_caller]
fn guest(name: &str, target: Target) -> Vec<u8> {
    Guests::shared()
        .bytes(name, target)
        .expect("the guest can be compiled")
}

#[track_caller]
fn says_hello(ctx: &Ctx, name: &str, image: &Image) {
    says_hello_with(ctx, name, image, TaskOptions::default());
}

#[track_caller]
fn says_hello_with(ctx: &Ctx, name: &str, image: &Image, options: TaskOptions) {
    let exit = ctx.run_image(name, image, options, |spec| spec);
    assert_eq!(
        (exit.code, exit.stdout.as_str()),
        (0, "hello from the guest\n"),
        "{exit:?}"
    );
}

fn layers_may_be_gzip_zstd_or_plain(ctx: &Ctx) {
    for form in [ImageForm::Gzip, ImageForm::Zstd, ImageForm::Plain] {
        let image = Image::of_guest_as("hello", ctx.runtime().target(), form);
        says_hello(ctx, &format!("{form:?}").to_lowercase(), &image);
    }
}

fn an_index_gives_the_manifest_for_this_node(ctx: &Ctx) {
    let path = if ctx.runtime().is_wasm() {
        "a.wasm"
    } else {
        "a"
    };
    let of = |platform: Platform, guest: Vec<u8>| {
        let layer = Layer::new().file(path, 0o755, guest);
        OciImage::new()
            .platform(platform)
            .entrypoint([format!("/{path}")])
            .layer(layer)
    };
    let target = ctx.runtime().target();
    let image = Image::new(
        &format!("index-{}", ctx.runtime().name()),
        [
            of(Platform::new("linux", "s390x"), guest("exit_code", target)),
            of(Platform::host(), guest("hello", target)),
        ],
    );
    says_hello(ctx, "t", &image);
}

fn text_is_compiled_too(ctx: &Ctx) {
    let text = "(module (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))
        (memory (export \"memory\") 1) (func (export \"_start\") (call $exit (i32.const 23))))";
    let layer = Layer::new().file("app.wat", 0o644, text);
    let image = Image::new(
        "text",
        [OciImage::new().entrypoint(["/app.wat"]).layer(layer)],
    );
    let exit = ctx.run_image("t", &image, TaskOptions::default(), |spec| spec);
    assert_eq!(exit.code, 23, "{exit:?}");
}

fn a_module_needs_no_suffix(ctx: &Ctx) {
    let layer = Layer::new().file("bin/app", 0o755, guest("hello", Target::Wasm));
    let image = Image::new(
        "no-suffix",
        [OciImage::new().entrypoint(["/bin/app"]).layer(layer)],
    );
    says_hello(ctx, "t", &image);
}

fn a_component_runs(ctx: &Ctx) {
    let image = Image::of_guest_as("hello", Target::Component, ImageForm::Gzip);
    says_hello(ctx, "hello", &image);
    let image = Image::of_guest_as("exit_code", Target::Component, ImageForm::Gzip);
    let exit = ctx.run_image("exit", &image, TaskOptions::args(["1"]), |spec| spec);
    assert_eq!(exit.code, 1);
    let image = Image::of_guest_as("context", Target::Component, ImageForm::Gzip);
    let exit = ctx.run_image("context", &image, TaskOptions::args(["x y"]), |spec| {
        spec.env("K=v")
    });
    assert!(
        exit.stdout.contains("arg x y\n") && exit.stdout.contains("env K=v\n"),
        "{exit:?}"
    );
}

fn a_function_can_be_called_by_name(ctx: &Ctx) {
    let layer = Layer::new().file("lib.wasm", 0o644, guest("functions", Target::Wasm));
    let image = Image::new(
        "functions",
        [OciImage::new().entrypoint(["/lib.wasm#hello"]).layer(layer)],
    );
    let exit = ctx.run_image("t", &image, TaskOptions::default(), |spec| spec);
    assert_eq!(
        (exit.code, exit.stdout.as_str()),
        (0, "hello from hello\n"),
        "{exit:?}"
    );
}

fn wasm_and_linux_live_in_one_image(ctx: &Ctx) {
    let layer = Layer::new()
        .file("app.wasm", 0o644, guest("hello", Target::Wasm))
        .file("tool", 0o755, guest("hello", Target::Linux));
    let image = Image::new(
        "both",
        [OciImage::new().entrypoint(["/app.wasm"]).layer(layer)],
    );
    says_hello(ctx, "wasm", &image);
    let exit = ctx.run_image("linux", &image, TaskOptions::default(), |spec| {
        spec.set("/process/args", serde_json::json!(["/tool"]))
    });
    assert_eq!(
        (exit.code, exit.stdout.as_str()),
        (0, "hello from the guest\n")
    );
}

fn an_image_for_the_wasm_platform_runs(ctx: &Ctx) {
    for os in ["wasi", "wasip1"] {
        let layer = Layer::new().file("a.wasm", 0o644, guest("hello", Target::Wasm));
        let image = OciImage::new()
            .platform(Platform::new(os, "wasm"))
            .entrypoint(["/a.wasm"])
            .layer(layer);
        says_hello(ctx, os, &Image::new(&format!("platform-{os}"), [image]));
    }
}

fn artifacts_of_every_layer_type_run(ctx: &Ctx) {
    let types = [
        ("plain", media_type::WASM, Target::Wasm),
        ("component", media_type::WASM_COMPONENT, Target::Component),
        ("content", media_type::WASM_CONTENT, Target::Wasm),
    ];
    for (name, kind, target) in types {
        if target == Target::Component && !ctx.runtime().runs_components() {
            continue;
        }
        let artifact = Artifact::new(kind, guest("hello", target));
        // Its config has no entrypoint; whoever makes the container names the program.
        let image = Image::new(&format!("artifact-{name}"), [artifact.clone()]);
        says_hello_with(ctx, name, &image, TaskOptions::args(["/app.wasm"]));
        let with_config = artifact
            .config_type(media_type::CONFIG)
            .entrypoint(["/app.wasm"]);
        let image = Image::new(&format!("artifact-{name}-config"), [with_config]);
        says_hello(ctx, &format!("{name}-config"), &image);
    }
}

fn an_entrypoint_may_be_a_link(ctx: &Ctx) {
    let layer = Layer::new()
        .file("opt/app/v1.wasm", 0o644, guest("hello", Target::Wasm))
        .symlink("app.wasm", "opt/app/v1.wasm");
    let image = Image::new(
        "linked",
        [OciImage::new().entrypoint(["/app.wasm"]).layer(layer)],
    );
    says_hello(ctx, "t", &image);
}
