//! The lock by which a node's agent sees that a bundle is in use.
//!
//! A bundle is a folder with `bundle.json` (operator/README.md); this program is in its `bin`. A shim holds a shared flock on the folder for as long as
//! it lives, and the agent removes a bundle when it can have an exclusive one. The kernel drops it with the process, however that ends; runners and
//! helpers do not get the descriptor (O_CLOEXEC).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

/// Takes the lock of the bundle whose `bin` this is. None: the programs are in no bundle.
///
/// # Errors
/// Of open(2) and flock(2); `WouldBlock` if the bundle is being removed at this moment.
pub fn hold(programs: &Path) -> io::Result<Option<Flock<File>>> {
    let Some(bundle) = programs.parent() else {
        return Ok(None);
    };
    if !bundle.join("bundle.json").exists() {
        return Ok(None);
    }
    // The standard library adds O_CLOEXEC.
    let folder = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_DIRECTORY.bits())
        .open(bundle)?;
    Flock::lock(folder, FlockArg::LockSharedNonblock)
        .map(Some)
        .map_err(|(_, errno): (_, Errno)| errno.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exclusive(bundle: &Path) -> Result<Flock<File>, (File, Errno)> {
        Flock::lock(File::open(bundle).unwrap(), FlockArg::LockExclusiveNonblock)
    }

    #[test]
    fn a_bundle_is_in_use_while_a_shim_of_it_lives() {
        let dir = tempfile::tempdir().unwrap();
        let programs = dir.path().join("bin");
        std::fs::create_dir(&programs).unwrap();
        assert!(hold(&programs).unwrap().is_none());

        std::fs::write(dir.path().join("bundle.json"), "{}").unwrap();
        let one = hold(&programs).unwrap().unwrap();
        let two = hold(&programs).unwrap().unwrap();
        drop(one);
        assert_eq!(exclusive(dir.path()).unwrap_err().1, Errno::EWOULDBLOCK);
        drop(two);
        let agent = exclusive(dir.path()).unwrap();
        assert_eq!(
            hold(&programs).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        drop(agent);
    }
}
