//! A guest sees the same WASI in our containers as with what its engine's makers run guests with.
//!
//! Where a folder can be written to, every answer has to be the same to the errno. In a folder that
//! cannot, it is the kernel that refuses here and the engine there, so only that both refuse is the same.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use wasmlet_conformance::{Ctx, EngineTool, Guests, Target, TaskOptions};

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::wasm(
        "files_are_as_with_the_engines_own_tool",
        files_are_as_with_the_engines_own_tool,
    ),
    Case::wasm(
        "a_read_only_folder_is_as_with_the_engines_own_tool",
        a_read_only_folder,
    ),
    Case::wasm(
        "exit_codes_are_as_with_the_engines_own_tool",
        exit_codes_are_as_with_the_engines_own_tool,
    ),
];

/// What is tried where everything is allowed, in this order.
const WRITABLE: &[&[&str]] = &[
    &["read", "/data/file"],
    &["read", "/data/file/"],
    &["read", "/data/missing"],
    &["read", "/data/folder/../file"],
    &["read", "/data/../file"],
    &["read", "/data/../../etc/hostname"],
    &["read", "/data/inside"],
    &["read", "/data/outside"],
    &["read", "/data/absolute"],
    &["read", "/data/round"],
    &["read", "/data/folder"],
    &["list", "/data/folder"],
    &["list", "/data/file"],
    &["stat", "/data/"],
    &["stat", "/data/folder/"],
    &["stat", "/data/file/"],
    &["write", "/data/new", "one "],
    &["append", "/data/new", "two"],
    &["read", "/data/new"],
    &["write", "/data/folder", "x"],
    &["write", "/data/new/", "x"],
    &["write", "/data/outside", "x"],
    &["mkdir", "/data/made"],
    &["mkdir", "/data/made"],
    &["mkdir", "/data/made/deep/er"],
    &["rename", "/data/new", "/data/made/new"],
    &["rename", "/data/made", "/data/made/below"],
    &["rename", "/data/missing", "/data/found"],
    &["rename", "/data/made/new", "/data/../new"],
    &["rename", "/data/file", "/data/folder"],
    &["link", "/data/file", "/data/second"],
    &["read", "/data/second"],
    &["link", "/data/folder", "/data/third"],
    &["link", "/data/outside", "/data/fourth"],
    &["truncate", "/data/second"],
    &["read", "/data/file"],
    &["truncate", "/data/folder"],
    &["unlink", "/data/second"],
    &["unlink", "/data/folder"],
    &["unlink", "/data/missing"],
    &["unlink", "/data/inside/"],
    &["list", "/data/made"],
];

/// What is tried where nothing may change.
const READ_ONLY: &[&[&str]] = &[
    &["read", "/data/file"],
    &["read", "/data/inside"],
    &["list", "/data/folder"],
    &["stat", "/data/file"],
    &["write", "/data/file", "x"],
    &["append", "/data/file", "x"],
    &["write", "/data/new", "x"],
    &["mkdir", "/data/made"],
    &["rename", "/data/file", "/data/moved"],
    &["truncate", "/data/file"],
    &["unlink", "/data/file"],
    &["unlink", "/data/inside"],
    &["read", "/data/file"],
];

/// A folder with everything that is tried.
fn folder(ctx: &Ctx, name: &str) -> PathBuf {
    let path = ctx.node().base().join("temp").join(ctx.id(name));
    fs::create_dir_all(path.join("data/folder")).expect("a folder can be made");
    fs::write(path.join("secret"), "secret\n").expect("written");
    let data = path.join("data");
    fs::write(data.join("file"), "original\n").expect("written");
    fs::write(data.join("folder/within"), "").expect("written");
    for (link, target) in [
        ("inside", "folder/../file"),
        ("outside", "../secret"),
        ("absolute", "/etc/hostname"),
        ("round", "round"),
    ] {
        symlink(target, data.join(link)).expect("linked");
    }
    data
}

/// The tool of this runtime's engine, or nothing where its makers have none in a package.
fn tool(ctx: &Ctx) -> Option<EngineTool> {
    EngineTool::of(ctx.runtime().engine())
}

fn in_container(ctx: &Ctx, arguments: &[&str], data: &Path, access: &str) -> Vec<String> {
    let options = TaskOptions::args(arguments.iter().copied());
    let exit = ctx.run_with("t", "files", options, |spec| {
        spec.bind(&data.display().to_string(), "/data", &[access])
    });
    assert_eq!(exit.code, 0, "{exit:?}");
    exit.stdout.lines().map(str::to_owned).collect()
}

/// What both said.
fn both(ctx: &Ctx, tool: EngineTool, tried: &[&[&str]], writable: bool) -> [Vec<String>; 2] {
    let arguments = tried.concat();
    let module = Guests::shared()
        .path("files", Target::Wasm)
        .expect("the guest can be compiled");
    let theirs = tool.run(
        &module,
        &arguments,
        (&folder(ctx, "theirs"), "/data", writable),
    );
    assert_eq!(theirs.code, 0, "{theirs:?}");
    let theirs: Vec<String> = theirs.stdout.lines().map(str::to_owned).collect();
    let access = if writable { "rw" } else { "ro" };
    let ours = in_container(ctx, &arguments, &folder(ctx, "ours"), access);
    assert_eq!(theirs.len(), tried.len(), "{theirs:#?}");
    assert_eq!(ours.len(), tried.len(), "{ours:#?}");
    [ours, theirs]
}

fn assert_same(ours: &[String], theirs: &[String]) {
    let different: Vec<_> = ours.iter().zip(theirs).filter(|(a, b)| a != b).collect();
    assert!(different.is_empty(), "ours, theirs: {different:#?}");
}

fn files_are_as_with_the_engines_own_tool(ctx: &Ctx) {
    let Some(tool) = tool(ctx) else { return };
    let [ours, theirs] = both(ctx, tool, WRITABLE, true);
    assert_same(&ours, &theirs);
}

fn a_read_only_folder(ctx: &Ctx) {
    let Some(tool) = tool(ctx) else { return };
    let refused_or_not = |lines: Vec<String>| -> Vec<String> {
        let short = |line: String| match line.split_once(": ") {
            Some((what, answer)) if !answer.starts_with("ok") => format!("{what}: refused"),
            _ => line,
        };
        lines.into_iter().map(short).collect()
    };
    let [ours, theirs] = both(ctx, tool, READ_ONLY, false).map(refused_or_not);
    assert_same(&ours, &theirs);
}

fn exit_codes_are_as_with_the_engines_own_tool(ctx: &Ctx) {
    let Some(tool) = tool(ctx) else { return };
    let module = Guests::shared()
        .path("exit_code", Target::Wasm)
        .expect("the guest can be compiled");
    let data = folder(ctx, "data");
    for code in ["0", "1", "42", "120"] {
        let theirs = tool.run(&module, &[code], (&data, "/data", true));
        let exit = ctx.run(&format!("t{code}"), "exit_code", TaskOptions::args([code]));
        assert_eq!(exit.code.cast_signed(), theirs.code, "{exit:?} {theirs:?}");
    }
}
