//! Mounts: what is granted works, read-only is read-only whichever way a guest tries.

use std::fs;
use std::path::PathBuf;

use wasmlet_conformance::{Ctx, TaskOptions};

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::all("the_images_files_are_there", the_images_files_are_there),
    Case::all(
        "a_writable_mount_is_written_through",
        a_writable_mount_is_written_through,
    ),
    Case::all(
        "a_read_only_mount_cannot_be_changed",
        a_read_only_mount_cannot_be_changed,
    )
    .row("hard links in a read-only folder are refused"),
    Case::all(
        "a_read_only_root_cannot_be_changed",
        a_read_only_root_cannot_be_changed,
    ),
    Case::all("a_tmpfs_can_be_written", a_tmpfs_can_be_written),
    Case::all("a_single_file_can_be_mounted", a_single_file_can_be_mounted),
    Case::all("mounts_inside_mounts_work", mounts_inside_mounts_work),
];

/// A host folder of this test with a file in it.
fn folder(ctx: &Ctx, name: &str) -> PathBuf {
    let path = ctx.node().base().join("temp").join(ctx.id(name));
    fs::create_dir_all(&path).expect("a folder can be made");
    fs::write(path.join("file"), "original\n").expect("a file can be written");
    path
}

/// Runs the `files` guest; gives its lines.
fn files(ctx: &Ctx, name: &str, args: &[&str], mounts: &[(&PathBuf, &str, &str)]) -> Vec<String> {
    let options = TaskOptions::args(args.iter().copied());
    let exit = ctx.run_with(name, "files", options, |mut spec| {
        for (source, destination, access) in mounts {
            spec = spec.bind(&source.display().to_string(), destination, &[access]);
        }
        spec
    });
    assert_eq!(exit.code, 0, "{exit:?}");
    exit.stdout.lines().map(str::to_owned).collect()
}

fn the_images_files_are_there(ctx: &Ctx) {
    let lines = files(
        ctx,
        "t",
        &["read", "/etc/hostname", "read", "/etc/nothing"],
        &[],
    );
    assert_eq!(
        lines,
        ["read /etc/hostname: ok image", "read /etc/nothing: ENOENT"]
    );
}

fn a_writable_mount_is_written_through(ctx: &Ctx) {
    let host = folder(ctx, "rw");
    let lines = files(
        ctx,
        "t",
        &[
            "read",
            "/mnt/file",
            "write",
            "/mnt/new",
            "text",
            "unlink",
            "/mnt/file",
            "mkdir",
            "/mnt/sub",
        ],
        &[(&host, "/mnt", "rw")],
    );
    assert_eq!(
        lines,
        [
            "read /mnt/file: ok original",
            "write /mnt/new: ok",
            "unlink /mnt/file: ok",
            "mkdir /mnt/sub: ok"
        ]
    );
    assert_eq!(
        fs::read_to_string(host.join("new")).expect("written"),
        "text"
    );
    assert!(!host.join("file").exists());
    assert!(host.join("sub").is_dir());
}

fn a_read_only_mount_cannot_be_changed(ctx: &Ctx) {
    let (locked, open) = (folder(ctx, "ro"), folder(ctx, "rw"));
    let lines = files(
        ctx,
        "t",
        &[
            "read",
            "/ro/file",
            "write",
            "/ro/file",
            "changed",
            "write",
            "/ro/new",
            "changed",
            "append",
            "/ro/file",
            "changed",
            "unlink",
            "/ro/file",
            "mkdir",
            "/ro/sub",
            "truncate",
            "/ro/file",
            "rename",
            "/ro/file",
            "/rw/taken",
            "rename",
            "/rw/file",
            "/ro/given",
            "link",
            "/ro/file",
            "/rw/linked",
            "write",
            "/rw/linked",
            "changed",
            "write",
            "/rw/../ro/file",
            "changed",
            "write",
            "/ro/file/",
            "changed",
        ],
        &[(&locked, "/ro", "ro"), (&open, "/rw", "rw")],
    );
    assert_eq!(lines[0], "read /ro/file: ok original");
    for line in &lines[1..] {
        // The new file in the writable folder is fine: it is not the locked one.
        assert!(
            !line.ends_with(": ok") || line.starts_with("write /rw/linked"),
            "{line}"
        );
    }
    assert_eq!(
        fs::read_to_string(locked.join("file")).expect("there"),
        "original\n"
    );
    let left: Vec<_> = fs::read_dir(&locked).expect("a folder").collect();
    assert_eq!(left.len(), 1, "nothing was added: {left:?}");
}

fn a_read_only_root_cannot_be_changed(ctx: &Ctx) {
    let options = TaskOptions::args(["write", "/etc/hostname", "x", "write", "/data/new", "x"]);
    let exit = ctx.run_with("t", "files", options, |spec| {
        spec.set("/root/readonly", serde_json::json!(true))
    });
    for line in exit.stdout.lines() {
        assert!(!line.ends_with(": ok"), "{line}");
    }
    assert_eq!(exit.stdout.lines().count(), 2);
}

fn a_tmpfs_can_be_written(ctx: &Ctx) {
    let options = TaskOptions::args([
        "write",
        "/scratch/a",
        "text",
        "read",
        "/scratch/a",
        "list",
        "/scratch",
    ]);
    let exit = ctx.run_with("t", "files", options, |spec| spec.tmpfs("/scratch"));
    let lines: Vec<_> = exit.stdout.lines().collect();
    assert_eq!(
        lines,
        [
            "write /scratch/a: ok",
            "read /scratch/a: ok text",
            "list /scratch: ok a"
        ]
    );
}

fn a_single_file_can_be_mounted(ctx: &Ctx) {
    let host = folder(ctx, "one").join("file");
    let lines = files(
        ctx,
        "t",
        &[
            "read",
            "/etc/settings",
            "read",
            "/etc/hostname",
            "write",
            "/etc/settings",
            "x",
        ],
        &[(&host, "/etc/settings", "ro")],
    );
    assert_eq!(
        lines[..2],
        [
            "read /etc/settings: ok original",
            "read /etc/hostname: ok image"
        ]
    );
    assert!(!lines[2].ends_with(": ok"), "{lines:?}");
    assert_eq!(fs::read_to_string(host).expect("there"), "original\n");
}

fn mounts_inside_mounts_work(ctx: &Ctx) {
    let (outer, inner) = (folder(ctx, "outer"), folder(ctx, "inner"));
    fs::create_dir_all(outer.join("deep")).expect("a folder can be made");
    let lines = files(
        ctx,
        "t",
        &[
            "write",
            "/mnt/deep/new",
            "x",
            "write",
            "/mnt/new",
            "x",
            "list",
            "/mnt/deep",
        ],
        &[(&outer, "/mnt", "ro"), (&inner, "/mnt/deep", "rw")],
    );
    assert_eq!(lines[0], "write /mnt/deep/new: ok", "{lines:?}");
    assert!(!lines[1].ends_with(": ok"), "{lines:?}");
    assert!(
        lines[2].contains("file") && lines[2].contains("new"),
        "{lines:?}"
    );
    assert!(inner.join("new").exists());
}
