//! The folders a guest may reach.
//!
//! Never `/` itself: every OCI mount that is a folder, and the image's own top-level folders apart
//! from `/proc`, `/sys` and `/dev`. Looked up by the init inside the container, so that links mean
//! what they mean there.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};

use crate::engine::{Access, Preopen};
use crate::rootfs::top_level;

/// Names at the top of a file system that are the kernel's, not the image's.
const NOT_THE_IMAGES: [&str; 3] = ["proc", "sys", "dev"];

/// Everything the guest may reach, its working folder as `.` when that is not `/`.
///
/// # Errors
/// When the root folder cannot be read.
pub(crate) fn find(mounts: &[PathBuf], cwd: &Path) -> io::Result<Vec<Preopen>> {
    let mut preopens: Vec<Preopen> = Vec::new();
    for mount in mounts {
        add(
            &mut preopens,
            mount,
            &mount.to_string_lossy(),
            Origin::Mount,
        );
    }
    for name in top_level()? {
        let path = Path::new("/").join(&name);
        add(&mut preopens, &path, &path.to_string_lossy(), Origin::Image);
    }
    preopens.sort_by(|a, b| a.guest.cmp(&b.guest));
    if cwd != Path::new("/") {
        // Last: some guests take the first preopen that fits a relative path.
        add(&mut preopens, cwd, ".", Origin::Image);
    }
    Ok(preopens)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Somebody asked for it.
    Mount,
    /// It is in the image, where a link can say anything.
    Image,
}

fn add(preopens: &mut Vec<Preopen>, path: &Path, guest: &str, origin: Origin) {
    if preopens.iter().any(|known| known.guest == guest) {
        return;
    }
    // A link is followed here, once, with the container's root as its world.
    let Ok(host) = path.canonicalize() else {
        return;
    };
    if !fs::metadata(&host).is_ok_and(|meta| meta.is_dir()) {
        return;
    }
    let Some(Component::Normal(top)) = host.components().nth(1) else {
        return; // the root itself
    };
    let kernels = NOT_THE_IMAGES.iter().any(|name| top == *name);
    let asked_for = origin == Origin::Mount && host == path && host.components().count() > 2;
    if kernels && !asked_for {
        return;
    }
    let Ok(stat) = statvfs(&host) else { return };
    let access = if stat.flags().contains(FsFlags::ST_RDONLY) {
        Access::ReadOnly
    } else {
        Access::ReadWrite
    };
    preopens.push(Preopen {
        host,
        guest: guest.to_owned(),
        access,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_trees_and_the_root_are_never_among_them() {
        let mounts = ["/dev", "/dev/shm", "/proc", "/sys", "/", "/tmp"]
            .map(PathBuf::from)
            .to_vec();
        let found = find(&mounts, Path::new("/usr/share")).expect("the root can be read");
        let names: Vec<&str> = found.iter().map(|p| p.guest.as_str()).collect();
        for never in ["/", "/dev", "/proc", "/sys"] {
            assert!(!names.contains(&never), "{never} in {names:?}");
        }
        assert!(
            names.contains(&"/usr") && names.contains(&"/tmp"),
            "{names:?}"
        );
        assert_eq!(
            names.iter().filter(|n| **n == "/tmp").count(),
            1,
            "a mount is not listed twice"
        );
        assert_eq!(names.last(), Some(&"."));
        for preopen in &found {
            assert!(
                !preopen.host.starts_with("/proc") && !preopen.host.starts_with("/sys"),
                "{preopen:?}"
            );
        }
    }

    #[test]
    fn the_root_as_working_folder_adds_nothing() {
        let found = find(&[], Path::new("/")).expect("the root can be read");
        assert!(found.iter().all(|p| p.guest != "."));
        let dev = find(&[], Path::new("/dev")).expect("the root can be read");
        assert!(
            dev.iter().all(|p| p.guest != "."),
            "a working folder is no way into /dev"
        );
    }
}
