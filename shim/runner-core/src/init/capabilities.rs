//! Capabilities of the init while the guest runs.

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use wasmlet_protocol::GuestKind;

/// What changes the outcome of the file and socket calls that are made for a guest; it makes none
/// itself, so nothing else can be of use to it.
const USEFUL: [Capability; 5] = [
    // fd_filestat_set_*, path_* on files of others: as a Linux process of that user could
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    // binding a port below 1024: the runner's listen address, or a component's own sockets
    Capability::CAP_NET_BIND_SERVICE,
];

/// Leaves what an exec would have left, which a wasm container never does.
///
/// libcontainer sets the permitted and effective sets of the spec for every user and counts on the
/// exec to take them from those that are not root (capabilities(7): their sets become the ambient
/// one). Without this a guest of user 1000 could read the files of root.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn as_after_exec() -> Result<(), CapsError> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let ambient = caps::read(None, CapSet::Ambient)?;
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &ambient)?;
    }
    Ok(())
}

/// Drops everything that is of no use to the guest from every set.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn reduce(kind: GuestKind) -> Result<(), CapsError> {
    let keep: CapsHashSet = USEFUL
        .into_iter()
        // A module has no sockets but the one that was bound for it.
        .filter(|cap| *cap != Capability::CAP_NET_BIND_SERVICE || kind == GuestKind::Component)
        .collect();
    // The bounding set first: that needs CAP_SETPCAP, which goes next. Without it the set cannot
    // be changed, and without exec it means nothing.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for cap in caps::read(None, CapSet::Bounding)? {
            if !keep.contains(&cap) {
                caps::drop(None, CapSet::Bounding, cap)?;
            }
        }
    }
    for set in [
        CapSet::Ambient,
        CapSet::Inheritable,
        CapSet::Effective,
        CapSet::Permitted,
    ] {
        let kept: CapsHashSet = caps::read(None, set)?
            .intersection(&keep)
            .copied()
            .collect();
        caps::set(None, set, &kept)?;
    }
    Ok(())
}
