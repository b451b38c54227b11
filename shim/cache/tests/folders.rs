//! Opening a store: what its folders must be.

mod support;

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::Path;

use support::{Fixture, options};
use wasmlet_cache::{Cache, Error, Options};
use wasmlet_protocol::FailureReason;

#[track_caller]
fn refused(options: Options) -> Error {
    let error = Cache::open(options).expect_err("such a folder is refused");
    assert_eq!(error.reason(), FailureReason::Internal);
    error
}

/// Spoils one folder of a store and tells what opening it again says.
#[track_caller]
fn spoiled(folder: &str, spoil: impl FnOnce(&Path)) -> (String, Error) {
    let store = Fixture::new();
    let path = store.temp.path().join(folder);
    spoil(&path);
    (
        path.display().to_string(),
        refused(options(store.temp.path())),
    )
}

const FOLDERS: [&str; 7] = [
    "cache",
    "run",
    "cache/meta",
    "cache/artifacts",
    "cache/modules",
    "cache/lock",
    "run/verified",
];

#[test]
fn a_folder_that_is_a_link_is_refused() {
    for folder in FOLDERS {
        let (path, error) = spoiled(folder, |path| {
            let moved = path.with_file_name("moved");
            fs::rename(path, &moved).expect("it was there");
            symlink(moved, path).expect("the name is free");
        });
        assert!(
            matches!(
                &error,
                Error::NotAFolder {
                    what: "a symbolic link",
                    ..
                }
            ) && error.to_string().contains(&path),
            "{error}"
        );
    }
}

#[test]
fn a_folder_that_is_a_file_is_refused() {
    for folder in FOLDERS {
        let (_, error) = spoiled(folder, |path| {
            fs::remove_dir_all(path).expect("it was there");
            fs::write(path, "").expect("the name is free");
        });
        assert!(
            matches!(error, Error::NotAFolder { what: "a file", .. }),
            "{error}"
        );
    }
}

#[test]
fn a_folder_that_others_can_write_is_refused() {
    for folder in FOLDERS {
        for mode in [0o770, 0o702, 0o1777] {
            let (path, error) = spoiled(folder, |path| {
                fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
            });
            assert!(matches!(error, Error::FolderMode { .. }), "{error}");
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("{path} has mode {mode:04o}")),
                "{error}"
            );
        }
    }
}

#[test]
fn a_folder_of_somebody_else_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can give folders away");
        return;
    }
    for folder in FOLDERS {
        let (path, error) = spoiled(folder, |path| {
            let other = Some(nix::unistd::Uid::from_raw(65534));
            nix::unistd::chown(path, other, None).expect("root may");
        });
        let expected = format!("{path} belongs to user 65534, not to user 0");
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
}

#[test]
fn missing_folders_are_made_private_whatever_the_umask() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let mut options = options(temp.path());
    options.dir = temp.path().join("a/b/cache");
    Cache::open(options.clone()).expect("it opens");
    let mode = fs::metadata(&options.dir)
        .expect("it was made")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o700);
    Cache::open(options).expect("and a second time");
}

#[test]
fn a_readable_folder_is_good_enough() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let options = options(temp.path());
    DirBuilder::new()
        .mode(0o755)
        .create(&options.dir)
        .expect("the name is free");
    Cache::open(options).expect("nobody else can write it");
}
