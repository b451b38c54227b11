//! Small disks that tests fill.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A tmpfs on a folder, gone when dropped.
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts it; `options` are those of tmpfs(5), `size=64k`.
    #[track_caller]
    pub fn on(folder: PathBuf, options: &str) -> Self {
        let none = MsFlags::empty();
        if let Err(error) = mount(Some("tmpfs"), &folder, Some("tmpfs"), none, Some(options)) {
            panic!("no tmpfs can be mounted on {}: {error}", folder.display());
        }
        Self(folder)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // A node's removal would find it otherwise.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}
