//! File systems that are full, and file systems that cannot hold code. Needs root.

mod support;

use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use support::{Fixture, artifact, compiled, content, key, options};
use wasmlet_cache::{Cache, Error};
use wasmlet_protocol::FailureReason;

/// A small tmpfs, unmounted with the test.
struct Tmpfs(PathBuf);

impl Tmpfs {
    /// `None` (and a line that says so) without the right to mount.
    fn mount(path: &Path, flags: MsFlags, settings: &str) -> Option<Tmpfs> {
        std::fs::create_dir_all(path).expect("a folder");
        match mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(settings)) {
            Ok(()) => Some(Tmpfs(path.to_owned())),
            Err(errno) => {
                println!("skipped: cannot mount a tmpfs: {errno}");
                None
            }
        }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).expect("what was mounted can be unmounted");
    }
}

#[test]
fn a_full_disk_is_named_and_the_artifact_can_be_used_uncached() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let Some(disk) = Tmpfs::mount(
        &temp.path().join("cache"),
        MsFlags::empty(),
        "size=256k,mode=0700",
    ) else {
        return;
    };
    let cache = Cache::open(options(temp.path())).expect("it opens");
    let store = Fixture { temp, cache };
    let _disk = disk; // unmounted before the folder is removed
    let kept = artifact(1, 50_000);
    store.publish(&key("kept"), &kept);

    // The helper fills the disk up to the last page, so there is none for the entry's text.
    let lock = store.cache.lock(&key("full")).expect("free");
    let staged = store.cache.stage().expect("a file");
    let mut length = 0;
    let page = artifact(2, 4096);
    let error = loop {
        match staged.file().write_all_at(&page, length) {
            Ok(()) => length += 4096,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    let back = store
        .cache
        .publish(&lock, staged, compiled())
        .expect_err("the disk is full");
    assert!(
        matches!(back.error, Error::NoSpace { .. }),
        "{}",
        back.error
    );
    assert_eq!(back.error.reason(), FailureReason::ResourceExhausted);
    let folder = store.path("").display().to_string();
    assert!(
        back.error
            .to_string()
            .contains(folder.trim_end_matches('/')),
        "{}",
        back.error
    );
    let file = back
        .staged
        .into_uncached()
        .expect("it is complete all the same");
    assert_eq!(file.metadata().expect("an open file").len(), length);

    // While it is in use: the entry that was there still is, and what is not can be in memory.
    assert_eq!(
        content(&store.lookup(&key("kept")).expect("a hit").artifact),
        kept
    );
    let memory = store.cache.stage_in_memory().expect("memory");
    memory
        .file()
        .write_all_at(&kept, 0)
        .expect("memory is not full");
    assert_eq!(content(&memory.into_uncached().expect("complete")), kept);

    // Freed: everything works again.
    drop((file, lock));
    store.publish(&key("full"), &artifact(3, 50_000));
    assert!(store.lookup(&key("full")).is_some());
}

#[test]
fn a_full_run_folder_costs_counts_and_seals_and_nothing_else() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let Some(disk) = Tmpfs::mount(
        &temp.path().join("run"),
        MsFlags::empty(),
        "size=64k,mode=0700",
    ) else {
        return;
    };
    let cache = Cache::open(options(temp.path())).expect("it opens");
    let filler = temp.path().join("run/filler");
    let store = Fixture { temp, cache };
    let _disk = disk; // unmounted before the folder is removed
    let full = std::fs::write(&filler, vec![1; 1 << 20]).expect_err("it is small");
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    let bytes = artifact(1, 5000);
    store.publish(&key("one"), &bytes);
    for _ in 0..3 {
        assert_eq!(
            content(&store.lookup(&key("one")).expect("a hit").artifact),
            bytes
        );
    }
    assert_eq!(
        store.cache.counters().expect("readable").hit,
        0,
        "nothing could be counted"
    );
    std::fs::remove_file(filler).expect("it is ours");
    store.seal(&key("one"), &bytes);
    assert!(store.cache.counters().expect("readable").hit > 0);
}

#[test]
fn a_file_system_without_inodes_left_is_named_when_the_store_is_opened() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let path = temp.path().join("cache");
    let Some(disk) = Tmpfs::mount(&path, MsFlags::empty(), "nr_inodes=2,mode=0700") else {
        return;
    };
    let _disk = disk;
    let error = Cache::open(options(temp.path())).expect_err("there is no room for its folders");
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    assert!(
        error.to_string().contains(&path.display().to_string()),
        "{error}"
    );
}

#[test]
fn a_file_system_that_cannot_hold_code_is_refused() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let path = temp.path().join("cache");
    let Some(disk) = Tmpfs::mount(&path, MsFlags::MS_NOEXEC, "mode=0700") else {
        return;
    };
    let _disk = disk;
    let error = Cache::open(options(temp.path())).expect_err("noexec");
    assert!(matches!(error, Error::NoExec { .. }), "{error}");
}
