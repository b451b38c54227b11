//! Landlock over what the guest may reach.
//!
//! WASI's own checks and the mount namespace come first; this is the wall behind them, kept by the
//! kernel. Nothing of it opens a path that is not listed, whatever happens inside the engine.

use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, Scope,
};

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
const RANDOM_DEVICES: [&str; 2] = ["/dev/random", "/dev/urandom"];

/// Restricts this thread and all that it starts.
///
/// # Errors
/// When the kernel knows Landlock and still refuses.
pub(crate) fn restrict(preopens: &[Preopen]) -> Result<(), RulesetError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?
        .create()?;
    for preopen in preopens {
        rules = allow(rules, &preopen.host, rights(preopen.access))?;
    }
    for file in LOOKUP_FILES.into_iter().chain(RANDOM_DEVICES) {
        rules = allow(rules, Path::new(file), AccessFs::ReadFile.into())?;
    }
    rules.restrict_self()?;
    Ok(())
}

fn allow(
    rules: landlock::RulesetCreated,
    path: &Path,
    rights: BitFlags<AccessFs>,
) -> Result<landlock::RulesetCreated, RulesetError> {
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

/// Whether this kernel has Landlock switched on.
pub(crate) fn available() -> bool {
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
    version >= 1
}
