//! AppArmor for a process that never execs.
//!
//! libcontainer sets the profile for the next exec, of which a wasm container has none. So the init
//! changes its own profile, right before the guest, when everything that a container's profile
//! forbids (mounts) is done. There is no `/proc` in the container; the runner passes the node's in
//! a descriptor, in which `self` is whoever looks.

use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

/// A profile to change to.
pub(crate) struct Profile {
    name: String,
    proc: OwnedFd,
}

/// Why a profile cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProfileError {
    #[error("process.apparmorProfile is {name:?}, but AppArmor is not enabled on this node")]
    NotEnabled { name: String },
    #[error("process.apparmorProfile: /proc cannot be opened: {0}")]
    Proc(#[source] io::Error),
}

impl Profile {
    /// Looks for AppArmor on the node; has to be done while `/proc` is there.
    ///
    /// # Errors
    /// When a profile is wanted and the node has no AppArmor.
    pub(crate) fn prepare(name: Option<&str>) -> Result<Option<Self>, ProfileError> {
        let Some(name) = name.filter(|name| !name.is_empty() && *name != "unconfined") else {
            return Ok(None);
        };
        let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled")
            .is_ok_and(|text| text.starts_with('Y'));
        if !enabled {
            return Err(ProfileError::NotEnabled {
                name: name.to_owned(),
            });
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let proc = open("/proc", flags, Mode::empty()).map_err(|e| ProfileError::Proc(e.into()))?;
        Ok(Some(Self {
            name: name.to_owned(),
            proc,
        }))
    }

    /// Changes the profile of the calling process.
    ///
    /// # Errors
    /// When the profile is not loaded, or may not be changed to.
    pub(crate) fn apply(&self) -> io::Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        // The first since Linux 5.8, the second before.
        let file = openat(
            &self.proc,
            "self/attr/apparmor/current",
            flags,
            Mode::empty(),
        )
        .or_else(|_| openat(&self.proc, "self/attr/current", flags, Mode::empty()))?;
        // One write, as the interface demands.
        fs::File::from(file).write_all(format!("changeprofile {}", self.name).as_bytes())
    }
}
