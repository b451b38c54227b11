//! Mounts and unmounts a container's root file system.

use std::path::{Path, PathBuf};

use containerd_shim::mount;
use containerd_shim_protos::types::mount::Mount;
use nix::mount::MntFlags;

/// Name of the folder in a bundle that containerd mounts on.
pub const ROOTFS: &str = "rootfs";

/// Why a root file system cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// The mount point cannot be made.
    #[error("cannot make {}", path.display())]
    Create {
        /// The folder.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
    /// A mount was refused.
    #[error("cannot mount {kind} {from} on {}", path.display())]
    Mount {
        /// File system type.
        kind: String,
        /// Source.
        from: String,
        /// Mount point.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: Box<containerd_shim::Error>,
    },
    /// An unmount was refused.
    #[error("cannot unmount {}", path.display())]
    Unmount {
        /// Mount point.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: Box<containerd_shim::Error>,
    },
}

/// Mounts what containerd asks for on `target`, in order; with an empty list the bundle brings its
/// own root file system. What was mounted is unmounted again when a later one fails.
///
/// # Errors
/// One variant per cause, with the mount.
pub fn mount_all(mounts: &[Mount], target: &Path) -> Result<(), RootfsError> {
    if mounts.is_empty() {
        return Ok(());
    }
    std::fs::create_dir_all(target).map_err(|source| RootfsError::Create {
        path: target.to_owned(),
        source,
    })?;
    for entry in mounts {
        let on = if entry.target.is_empty() {
            target.to_owned()
        } else {
            target.join(entry.target.trim_start_matches('/'))
        };
        let mounted = mount::mount_rootfs(
            Some(entry.type_.as_str()).filter(|kind| !kind.is_empty()),
            Some(entry.source.as_str()).filter(|source| !source.is_empty()),
            &entry.options,
            &on,
        );
        if let Err(source) = mounted {
            let error = RootfsError::Mount {
                kind: entry.type_.clone(),
                from: entry.source.clone(),
                path: on,
                source: Box::new(source),
            };
            if let Err(cleanup) = unmount_all(target) {
                tracing::warn!(
                    error = crate::chain(&cleanup),
                    "a failed mount left something behind"
                );
            }
            return Err(error);
        }
    }
    // The library shortens long overlay options with a change of the working folder; staying
    // there would keep the image's layers busy for as long as the pod lives.
    if let Err(error) = std::env::set_current_dir("/") {
        tracing::warn!(%error, "cannot leave the working folder");
    }
    Ok(())
}

/// Unmounts everything on and below `target`. Nothing mounted is fine.
///
/// # Errors
/// When the kernel refuses.
pub fn unmount_all(target: &Path) -> Result<(), RootfsError> {
    mount::umount_recursive(
        target.to_str(),
        (MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).bits(),
    )
    .map_err(|source| RootfsError::Unmount {
        path: target.to_owned(),
        source: Box::new(source),
    })
}
