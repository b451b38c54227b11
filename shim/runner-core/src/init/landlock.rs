//! Landlock over what the guest may reach.
//!
//! WASI's own checks and the mount namespace come first; this is the wall behind them, kept by the
//! kernel. Nothing of it opens a path that is not listed, whatever happens inside the engine.

use std::os::fd::OwnedFd;
use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{FileStat, Mode, fstat, makedev};

use crate::engine::{Access, Preopen};

/// Newest interface that the rules below were written against. Older kernels enforce what they know.
const KNOWN: ABI = ABI::V6;

/// Files that glibc reads to look up host names; text, no code (see `names`).
const LOOKUP_FILES: [&str; 6] = [
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
];

/// Where the random numbers of a static program come from: the crate behind wasmtime's looks for
/// libc's getrandom with dlsym, finds nothing, and reads the device instead.
/// With their minor numbers (random(4)).
const RANDOM_DEVICES: [(&str, u64); 2] = [("/dev/random", 8), ("/dev/urandom", 9)];

/// Whether the node's kernel has Landlock switched on, seen by the runner outside of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnNode {
    /// So it has to work in the container, too.
    Available,
    /// Whoever reads the shim's log was told.
    Missing,
}

/// Why a guest is not restricted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LandlockError {
    #[error("landlock: {0}")]
    Rules(#[from] RulesetError),
    /// The library takes every error of the first call for a kernel without Landlock.
    #[error(
        "landlock works on this node and is refused in the container, which the pod's seccomp profile \
         can do: allow landlock_create_ruleset, landlock_add_rule and landlock_restrict_self in it"
    )]
    Refused,
}

/// Restricts this thread and all that it starts.
///
/// # Errors
/// When the kernel knows Landlock and still refuses.
pub(crate) fn restrict(preopens: &[Preopen], node: OnNode) -> Result<(), LandlockError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?
        .create()?;
    for preopen in preopens {
        rules = allow(rules, &preopen.host, rights(preopen.access))?;
    }
    for file in LOOKUP_FILES {
        rules = allow_file(rules, Path::new(file), is_regular)?;
    }
    for (device, minor) in RANDOM_DEVICES {
        rules = allow_file(rules, Path::new(device), |stat| is_device(stat, 1, minor))?;
    }
    let status = rules.restrict_self()?;
    match (node, status.ruleset) {
        (OnNode::Available, RulesetStatus::NotEnforced) => Err(LandlockError::Refused),
        _ => Ok(()),
    }
}

/// Lets a file be read if it is what its name says. The image can put anything there: a folder would
/// open all that is below it, a link whatever it points to. Through a link into a preopened folder
/// the file can be read all the same, by the rule of that folder.
fn allow_file(
    rules: RulesetCreated,
    path: &Path,
    is_right: impl FnOnce(&FileStat) -> bool,
) -> Result<RulesetCreated, RulesetError> {
    match open_itself(path) {
        Some((fd, stat)) if is_right(&stat) => {
            rules.add_rule(PathBeneath::new(fd, AccessFs::ReadFile))
        }
        _ => Ok(rules),
    }
}

/// Opens what has the name, without following a link in it.
fn open_itself(path: &Path) -> Option<(OwnedFd, FileStat)> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = open(path, flags, Mode::empty()).ok()?;
    let stat = fstat(&fd).ok()?;
    Some((fd, stat))
}

fn is_regular(stat: &FileStat) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFREG
}

fn is_device(stat: &FileStat, major: u64, minor: u64) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == makedev(major, minor)
}

fn allow(
    rules: RulesetCreated,
    path: &Path,
    rights: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    match PathFd::new(path) {
        Ok(fd) => rules.add_rule(PathBeneath::new(fd, rights)),
        // What the container's user cannot open now cannot be opened later either.
        Err(_) => Ok(rules),
    }
}

fn rights(access: Access) -> BitFlags<AccessFs> {
    // Nothing is ever executed, no device made or controlled.
    let never = AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev;
    match access {
        Access::ReadOnly => AccessFs::from_read(KNOWN) & !never,
        Access::ReadWrite => AccessFs::from_all(KNOWN) & !never,
    }
}

/// Looks whether this kernel has Landlock switched on.
pub(crate) fn on_node() -> OnNode {
    const CREATE_RULESET_VERSION: u32 = 1;
    // SAFETY: with this flag the call takes no attributes and returns a version number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0usize,
            CREATE_RULESET_VERSION,
        )
    };
    if version >= 1 {
        OnNode::Available
    } else {
        OnNode::Missing
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_what_a_name_stands_for_is_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "").expect("a file");
        symlink(&file, &link).expect("a link");
        let regular = |path: &Path| open_itself(path).is_some_and(|(_, stat)| is_regular(&stat));
        assert!(regular(&file));
        assert!(!regular(&link), "not even a link to a file");
        assert!(!regular(folder.path()), "a folder is no file");
        assert!(!regular(Path::new("/dev/zero")));
        assert!(!regular(&folder.path().join("missing")));

        let random = |path| open_itself(Path::new(path)).is_some_and(|(_, s)| is_device(&s, 1, 9));
        assert!(random("/dev/urandom"));
        assert!(!random("/dev/zero"));
        assert!(!random("/etc/passwd"));
    }
}
