//! The compile cache, through containerd: compiled once, checked always, never in the way.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use wasmlet_conformance::{
    Ctx, Exit, Guests, Image, NodeOptions, Target, TaskOptions, eventually, proc, wait_for,
};
use wasmlet_oci_image::{Image as OciImage, Layer};

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::wasm(
        "a_second_start_compiles_nothing",
        a_second_start_compiles_nothing,
    )
    .with_node(own_run),
    Case::wasm(
        "twenty_cold_starts_compile_once",
        twenty_cold_starts_compile_once,
    )
    .with_node(own_run),
    Case::wasm(
        "the_same_module_in_another_image_hits",
        the_same_module_in_another_image_hits,
    )
    .with_node(own_run),
    Case::wasm(
        "a_damaged_entry_is_compiled_again",
        a_damaged_entry_is_compiled_again,
    )
    .with_node(own_run),
    Case::wasm(
        "a_full_disk_costs_the_cache_only",
        a_full_disk_costs_the_cache_only,
    )
    .with_node(full_cache),
    Case::wasm("an_unsafe_folder_is_refused", an_unsafe_folder_is_refused).own_node(),
    Case::wasm(
        "a_killed_compiler_is_told_and_tried_again",
        a_killed_compiler_is_told,
    )
    .auto_only()
    .own_node(),
    Case::wasm("a_compile_has_its_time", a_compile_has_its_time).with_node(short_compile),
    Case::wasm("a_compile_has_its_memory", a_compile_has_its_memory)
        .with_node(small_compile)
        .alone(),
    Case::wasm(
        "a_small_pod_compiles_a_large_module",
        a_small_pod_compiles_a_large_module,
    )
    .auto_only()
    .own_node(),
];

fn own_run() -> NodeOptions {
    NodeOptions {
        own_run_kib: Some(4096),
        ..NodeOptions::default()
    }
}

fn full_cache() -> NodeOptions {
    NodeOptions {
        own_run_kib: Some(4096),
        cache_kib: Some(16),
        ..NodeOptions::default()
    }
}

fn short_compile() -> NodeOptions {
    NodeOptions {
        handler_settings: "CompileTimeoutSeconds = 1\n".into(),
        ..NodeOptions::default()
    }
}

fn small_compile() -> NodeOptions {
    NodeOptions {
        // Room for the helper's program, which otherwise is read from the disk again and again, and not
        // for the module.
        handler_settings: format!("CompileMemoryBytes = {}\n", 48 << 20),
        ..NodeOptions::default()
    }
}

/// A counter of the node.
#[track_caller]
fn counter(ctx: &Ctx, name: &str) -> u64 {
    let path = ctx.node().run_dir().join("cache-counters");
    let text = fs::read_to_string(&path).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().expect("a number"))
}

#[track_caller]
fn hello(ctx: &Ctx, name: &str) -> Exit {
    let exit = ctx.run(name, "hello", TaskOptions::default());
    assert_eq!(
        (exit.code, exit.stdout.as_str()),
        (0, "hello from the guest\n"),
        "{exit:?}"
    );
    exit
}

fn a_second_start_compiles_nothing(ctx: &Ctx) {
    hello(ctx, "first");
    assert_eq!((counter(ctx, "compile"), counter(ctx, "hit")), (1, 0));
    for number in 1..4 {
        hello(ctx, &format!("again{number}"));
        assert_eq!((counter(ctx, "compile"), counter(ctx, "hit")), (1, number));
    }
    let modes = [
        ("", 0o700),
        ("artifacts", 0o700),
        ("meta", 0o700),
        ("lock", 0o700),
    ];
    for (folder, mode) in modes {
        let path = ctx.node().cache().join(folder);
        let found = fs::metadata(&path)
            .expect("a folder of the cache")
            .permissions()
            .mode();
        assert_eq!(found & 0o777, mode, "{}", path.display());
    }
    assert_eq!(left_over(ctx), 0, "no temporary files");
}

fn left_over(ctx: &Ctx) -> usize {
    fs::read_dir(ctx.node().cache().join("tmp")).map_or(0, Iterator::count)
}

fn twenty_cold_starts_compile_once(ctx: &Ctx) {
    let names: Vec<String> = (0..20).map(|number| format!("t{number}")).collect();
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| hello(ctx, name));
        }
    });
    assert_eq!(counter(ctx, "compile"), 1);
}

fn the_same_module_in_another_image_hits(ctx: &Ctx) {
    hello(ctx, "first");
    let bytes = Guests::shared()
        .bytes("hello", Target::Wasm)
        .expect("compiled");
    let layer = Layer::new().file("other/name.wasm", 0o644, bytes);
    let image = OciImage::new()
        .entrypoint(["/other/name.wasm"])
        .layer(layer);
    let image = Image::new("same-module", [image]);
    let exit = ctx.run_image("second", &image, TaskOptions::default(), |spec| spec);
    assert_eq!(exit.code, 0);
    assert_eq!(counter(ctx, "compile"), 1);
    ctx.run("third", "exit_code", TaskOptions::default());
    assert_eq!(
        counter(ctx, "compile"),
        2,
        "another module is another entry"
    );
}

/// The only artifact of the cache.
#[track_caller]
fn artifact(ctx: &Ctx) -> PathBuf {
    let folder = ctx.node().cache().join("artifacts");
    // What the shim read of the module is an entry of its own, a line of text.
    let is_code = |path: &PathBuf| !fs::read(path).is_ok_and(|b| b.starts_with(b"facts about "));
    let mut files = fs::read_dir(folder)
        .expect("the cache")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(is_code);
    let first = files.next().expect("an artifact");
    assert!(files.next().is_none(), "one module, one artifact");
    first
}

fn a_damaged_entry_is_compiled_again(ctx: &Ctx) {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 6] = [
        ("flip", |path| {
            let mut bytes = fs::read(path).expect("readable");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            replace(path, &bytes);
        }),
        ("truncate", |path| {
            let bytes = fs::read(path).expect("readable");
            replace(path, &bytes[..bytes.len() / 2]);
        }),
        ("empty", |path| replace(path, b"")),
        ("writable", |path| {
            fs::set_permissions(path, fs::Permissions::from_mode(0o666)).expect("changed");
        }),
        ("link", |path| {
            fs::remove_file(path).expect("removed");
            std::os::unix::fs::symlink("/bin/true", path).expect("linked");
        }),
        ("gone", |path| fs::remove_file(path).expect("removed")),
    ];
    hello(ctx, "first");
    for (number, (name, damage)) in (1..).zip(damages) {
        damage(&artifact(ctx));
        hello(ctx, name);
        assert_eq!(counter(ctx, "compile"), 1 + number, "{name}");
        assert_eq!(counter(ctx, "corrupt"), number, "{name} is counted");
        let mode = fs::symlink_metadata(artifact(ctx))
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(
            mode & 0o777,
            0o400,
            "{name}: the new one is as it should be"
        );
    }
}

/// Other bytes in the same file.
fn replace(path: &Path, bytes: &[u8]) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("changed");
    fs::write(path, bytes).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o400)).expect("changed");
}

fn a_full_disk_costs_the_cache_only(ctx: &Ctx) {
    hello(ctx, "first");
    hello(ctx, "second");
    assert_eq!(counter(ctx, "compile"), 2, "nothing could be kept");
    assert_eq!(left_over(ctx), 0);
    let log = ctx.log();
    let reasons: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert!(
        reasons
            .iter()
            .any(|line| line.contains("compiled into memory")),
        "the reason is logged: {reasons:?}"
    );
}

fn an_unsafe_folder_is_refused(ctx: &Ctx) {
    hello(ctx, "first");
    let cache = ctx.node().cache();
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).expect("changed");
    let refused = ctx
        .try_task(
            "second",
            &ctx.image("hello"),
            TaskOptions::default(),
            |spec| spec,
        )
        .err()
        .expect("others could have put native code there");
    let sentence = format!(
        "{} has mode 0777, so other users can put native code into it",
        cache.display()
    );
    assert!(refused.message().contains(&sentence), "{refused}");
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o700)).expect("changed");
    hello(ctx, "third");
}

/// A module whose compilation takes a while.
pub(crate) fn large(name: &str, functions: usize) -> Image {
    arithmetic(name, functions, 60)
}

/// A module with functions of so many steps each.
fn arithmetic(name: &str, functions: usize, steps: usize) -> Image {
    let mut text =
        String::from("(module (memory (export \"memory\") 1) (func (export \"_start\"))\n");
    for number in 0..functions {
        text.push_str(&format!(
            "(func (param i64 i64) (result i64) (local i64) i64.const {number}\n"
        ));
        for step in 0..steps {
            text.push_str(&format!(
                "local.get 0 i64.mul local.tee 2 local.get 1 i64.const {step} i64.xor i64.add \
                 local.get 2 i64.popcnt i64.sub\n"
            ));
        }
        text.push_str(")\n");
    }
    text.push(')');
    let module = wat::parse_str(&text).expect("good text");
    let layer = Layer::new().file("a.wasm", 0o644, module);
    Image::new(name, [OciImage::new().entrypoint(["/a.wasm"]).layer(layer)])
}

/// The compile helper of this test's shim.
pub(crate) fn compiler(ctx: &Ctx) -> Option<i32> {
    proc::all().into_iter().find(|pid| {
        proc::cmdline(*pid).contains("wasmlet-aot-")
            && proc::parent(*pid).is_some_and(|shim| proc::cmdline(shim).contains(&ctx.id("")))
    })
}

fn a_killed_compiler_is_told(ctx: &Ctx) {
    let image = large("large-killed", 3000);
    std::thread::scope(|scope| {
        let create = scope.spawn(|| {
            ctx.try_task("t", &image, TaskOptions::default(), |spec| spec)
                .err()
        });
        let pid = eventually("the compiler runs", wasmlet_conformance::LONG, || {
            compiler(ctx).ok_or_else(|| "no compiler".to_owned())
        });
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGKILL,
        )
        .expect("it runs");
        let refused = create
            .join()
            .expect("no panic")
            .expect("nothing was compiled");
        assert!(refused.message().contains("compil"), "{refused}");
    });
    assert_eq!(left_over(ctx), 0);
    let exit = ctx.run_image("again", &image, TaskOptions::default(), |spec| spec);
    assert_eq!(exit.code, 0);
}

/// containerd 1.x knows no such code.
#[track_caller]
fn assert_exhausted(ctx: &Ctx, refused: &wasmlet_conformance::Status) {
    let code = match ctx.node().version().config_schema() {
        2 => tonic::Code::Unknown,
        _ => tonic::Code::ResourceExhausted,
    };
    assert_eq!(refused.code(), code, "{refused}");
}

fn a_compile_has_its_time(ctx: &Ctx) {
    let image = large("large-time", 12_000);
    let begun = std::time::Instant::now();
    let refused = ctx
        .try_task("t", &image, TaskOptions::default(), |spec| spec)
        .err()
        .expect("a second is not enough");
    assert!(
        refused.message().contains("CompileTimeoutSeconds"),
        "{refused}"
    );
    assert_exhausted(ctx, &refused);
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    let gone = wait_for(wasmlet_conformance::SHORT, || match compiler(ctx) {
        None => Ok(()),
        Some(pid) => Err(pid),
    });
    assert_eq!(gone, Ok(()), "the compiler was ended");
}

fn a_compile_has_its_memory(ctx: &Ctx) {
    // A compiler holds all of a function in memory.
    let image = arithmetic("large-memory", 2, 60_000);
    let refused = ctx
        .try_task("t", &image, TaskOptions::default(), |spec| spec)
        .err()
        .expect("48 MiB are not enough");
    assert!(
        refused.message().contains("CompileMemoryBytes"),
        "{refused}"
    );
    assert_exhausted(ctx, &refused);
}

fn a_small_pod_compiles_a_large_module(ctx: &Ctx) {
    let image = large("large-small", 3000);
    let exit = ctx.run_image("t", &image, TaskOptions::default(), |spec| {
        spec.memory(32 << 20)
    });
    assert_eq!(exit.code, 0, "{exit:?}");
}
