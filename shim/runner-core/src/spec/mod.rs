//! Turns the spec of a Linux container into that of a wasm container.
//!
//! Pure: what has to be looked up on the node comes in through [`HostView`]. A guest makes no
//! system calls; the file systems that exist to talk to the kernel would only be ways into the
//! engine process (`/proc/self/mem`), so a wasm container gets none of them.

mod cgroup;
mod host;
mod mounts;

use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Capabilities, Capability, Hook, Linux, LinuxNamespaceType, Mount, MountBuilder,
    PosixRlimitType, Process, RootBuilder, Spec,
};

use wasmlet_protocol::GuestKind;

pub(crate) use host::{HostView, Node};

/// Why a spec cannot become a wasm container.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum SpecError {
    /// A section is missing.
    #[error("the section {0:?} is missing")]
    Missing(&'static str),
    /// A value does not fit.
    #[error("{field}: {detail}")]
    Invalid {
        /// Where.
        field: String,
        /// What.
        detail: String,
    },
    /// No mount namespace of its own.
    #[error(
        "linux.namespaces: a wasm container needs a new mount namespace (an entry of type \"mount\" \
         without a path)"
    )]
    MountNamespace,
    /// A mount that would let the guest out of its sandbox.
    #[error("the mount at {}: {detail}", destination.display())]
    Mount {
        /// Where in the container.
        destination: PathBuf,
        /// Why not.
        detail: String,
    },
}

/// The container's CPU limit, in processors.
pub(crate) fn processors(spec: &Spec) -> Option<f64> {
    let cpu = spec
        .linux()
        .as_ref()?
        .resources()
        .as_ref()?
        .cpu()
        .as_ref()?;
    // Without a limit the quota is missing, 0 or negative; 100 ms are the kernel's default.
    let quota = cpu.quota().filter(|quota| *quota > 0)?;
    let period = cpu.period().filter(|period| *period > 0).unwrap_or(100_000);
    Some(quota as f64 / period as f64)
}

/// What the request adds to the spec.
#[derive(Debug, Clone)]
pub(crate) struct Wanted<'a> {
    /// Container id, for the default cgroup.
    pub(crate) id: &'a str,
    /// The mounted root file system.
    pub(crate) rootfs: &'a Path,
    /// Arguments of the guest.
    pub(crate) args: &'a [String],
    /// Kind of guest.
    pub(crate) kind: GuestKind,
}

/// A spec for libcontainer, and what was taken out of it because this crate does it.
#[derive(Debug, Clone)]
pub(crate) struct WasmSpec {
    /// For libcontainer.
    pub(crate) spec: Spec,
    /// Working folder.
    pub(crate) cwd: PathBuf,
    /// The guest's environment.
    pub(crate) env: Vec<(String, String)>,
    /// Adjustment of the OOM killer's score.
    pub(crate) oom_score_adj: Option<i32>,
    /// Supplementary groups, as the node numbers them.
    pub(crate) groups: Vec<u32>,
    /// The container has a user namespace.
    pub(crate) own_users: bool,
    /// AppArmor profile.
    pub(crate) apparmor: Option<String>,
    /// Hooks that run in the init, right before the guest.
    pub(crate) start_container: Vec<Hook>,
    /// Destinations of the mounts that were kept.
    pub(crate) mounts: Vec<PathBuf>,
    /// What was left out, for people.
    pub(crate) warnings: Vec<String>,
}

/// Makes a wasm container's spec.
///
/// # Errors
/// When a section is missing, or something is asked for that a wasm container must not have.
pub(crate) fn rewrite(
    mut spec: Spec,
    wanted: &Wanted<'_>,
    host: &impl HostView,
) -> Result<WasmSpec, SpecError> {
    if !spec.version().starts_with("1.") {
        return Err(SpecError::Invalid {
            field: "ociVersion".to_owned(),
            detail: format!("{:?} is not a version 1", spec.version()),
        });
    }
    let mut warnings = Vec::new();

    let readonly = spec
        .root()
        .as_ref()
        .ok_or(SpecError::Missing("root"))?
        .readonly();
    // Said in any case: oci-spec's default is true, the specification's is false.
    let root = RootBuilder::default()
        .path(wanted.rootfs)
        .readonly(readonly.unwrap_or(false));
    spec.set_root(Some(root.build().map_err(|e| invalid("root", &e))?));

    let mut process = spec
        .process()
        .clone()
        .ok_or(SpecError::Missing("process"))?;
    let terminal = process.terminal().unwrap_or(false);
    let cwd = working_folder(&process)?;
    let env = environment(&process);
    let oom_score_adj = process.oom_score_adj();
    let apparmor = process.apparmor_profile().clone();
    let linux = spec.linux().clone().ok_or(SpecError::Missing("linux"))?;
    let own_users = has_own_users(&linux);
    let groups = groups(&process, &linux)?;
    rewrite_process(&mut process, wanted, &cwd, &env, &mut warnings);
    let hooks = spec.hooks().clone();
    let start_container = hooks
        .as_ref()
        .and_then(|hooks| hooks.start_container().clone())
        .unwrap_or_default();
    if start_container.is_empty() {
        // Hooks get the whole set; without any, nobody needs more than the guest will have.
        reduce_capabilities(&mut process, wanted.kind);
    }
    spec.set_process(Some(process));

    let mut linux = linux;
    rewrite_linux(&mut linux, wanted, host)?;
    spec.set_linux(Some(linux));

    let kept = mounts::filter(
        spec.mounts().clone().unwrap_or_default(),
        mounts::Terminal::from(terminal),
        host,
        &mut warnings,
    )?;
    let destinations = kept.iter().map(|m| m.destination().clone()).collect();
    spec.set_mounts(Some(with_dev(kept)?));

    if let Some(mut hooks) = hooks {
        hooks.set_start_container(None);
        let any = [
            hooks.prestart(),
            hooks.create_runtime(),
            hooks.create_container(),
            hooks.poststart(),
            hooks.poststop(),
        ]
        .into_iter()
        .any(|list| list.as_ref().is_some_and(|list| !list.is_empty()));
        // libcontainer makes two round trips between its processes for an empty section.
        spec.set_hooks(any.then_some(hooks));
    }

    Ok(WasmSpec {
        spec,
        cwd,
        env,
        oom_score_adj,
        groups,
        own_users,
        apparmor,
        start_container,
        mounts: destinations,
        warnings,
    })
}

fn working_folder(process: &Process) -> Result<PathBuf, SpecError> {
    let cwd = process.cwd();
    if cwd.as_os_str().is_empty() {
        return Ok(PathBuf::from("/"));
    }
    if !cwd.is_absolute() {
        return Err(SpecError::Invalid {
            field: "process.cwd".to_owned(),
            detail: format!("{} is not an absolute path", cwd.display()),
        });
    }
    Ok(cwd.clone())
}

/// The guest's environment: the last value of a name counts, `HOME` is always there.
///
/// Without `HOME` libcontainer asks glibc for the user's home folder inside the image, which is a
/// name-service lookup ruled by the image's own `nsswitch.conf`.
fn environment(process: &Process) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = Vec::new();
    for entry in process.env().iter().flatten() {
        let Some((name, value)) = entry.split_once('=') else {
            continue;
        };
        if name.is_empty() {
            continue;
        }
        match env.iter_mut().find(|(known, _)| known == name) {
            Some(known) => known.1 = value.to_owned(),
            None => env.push((name.to_owned(), value.to_owned())),
        }
    }
    let home = if process.user().uid() == 0 {
        "/root"
    } else {
        "/"
    };
    match env.iter_mut().find(|(name, _)| name == "HOME") {
        Some(known) if known.1.is_empty() => known.1 = home.to_owned(),
        Some(_) => {}
        None => env.push(("HOME".to_owned(), home.to_owned())),
    }
    env
}

fn has_own_users(linux: &Linux) -> bool {
    linux
        .namespaces()
        .iter()
        .flatten()
        .any(|ns| ns.typ() == LinuxNamespaceType::User)
}

/// Supplementary groups as the node numbers them: libcontainer needs a `/proc` in the container to
/// set them, so the runner sets them before, when it is still in the node's user namespace.
fn groups(process: &Process, linux: &Linux) -> Result<Vec<u32>, SpecError> {
    let wanted = process.user().additional_gids().clone().unwrap_or_default();
    if !has_own_users(linux) {
        return Ok(wanted);
    }
    let mappings = linux.gid_mappings().clone().unwrap_or_default();
    wanted
        .into_iter()
        .map(|gid| {
            mappings
                .iter()
                .find(|map| gid >= map.container_id() && gid - map.container_id() < map.size())
                .and_then(|map| map.host_id().checked_add(gid - map.container_id()))
                .ok_or_else(|| SpecError::Invalid {
                    field: "process.user.additionalGids".to_owned(),
                    detail: format!("the group {gid} is not in linux.gidMappings"),
                })
        })
        .collect()
}

fn rewrite_process(
    process: &mut Process,
    wanted: &Wanted<'_>,
    cwd: &Path,
    env: &[(String, String)],
    warnings: &mut Vec<String>,
) {
    // libcontainer looks for arguments only after the container was reported as created.
    process.set_args(Some(match wanted.args {
        [] => vec![wanted.id.to_owned()],
        args => args.to_vec(),
    }));
    process.set_env(Some(
        env.iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect(),
    ));
    process.set_cwd(cwd.to_owned());
    process.set_no_new_privileges(Some(true));
    process.set_apparmor_profile(None);
    process.user_mut().set_additional_gids(None);
    if process
        .selinux_label()
        .as_ref()
        .is_some_and(|label| !label.is_empty())
    {
        warnings.push(
            "the SELinux label is not applied: the runtime library has no SELinux".to_owned(),
        );
    }
    // A refusal is an error to libcontainer; see `create::adjust_oom_score`.
    process.set_oom_score_adj(None);
    if let Some(limits) = process.rlimits().clone() {
        let (address_space, others): (Vec<_>, Vec<_>) = limits
            .into_iter()
            .partition(|l| l.typ() == PosixRlimitType::RlimitAs);
        if !address_space.is_empty() {
            warnings.push(
                "RLIMIT_AS is not applied: a linear memory reserves 4 GiB of addresses whatever \
                 its size, use the memory limit instead"
                    .to_owned(),
            );
        }
        process.set_rlimits(Some(others));
    }
}

/// What changes the outcome of the calls that are made for a guest; see `init::capabilities`.
const USEFUL: [Capability; 5] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::NetBindService,
];

fn reduce_capabilities(process: &mut Process, kind: GuestKind) {
    let Some(mut sets) = process.capabilities().clone() else {
        return;
    };
    let reduce = |set: &Option<Capabilities>| -> Option<Capabilities> {
        set.as_ref()
            .map(|set| set.iter().filter(|c| USEFUL.contains(c)).copied().collect())
    };
    // The bounding set cannot be reduced later, when CAP_SETPCAP is gone; binding a port for a
    // module needs the capability in the effective set alone.
    sets.set_bounding(reduce(sets.bounding()).map(|mut set| {
        if kind == GuestKind::Module {
            set.remove(&Capability::NetBindService);
        }
        set
    }));
    sets.set_effective(reduce(sets.effective()));
    sets.set_permitted(reduce(sets.permitted()));
    sets.set_inheritable(reduce(sets.inheritable()));
    sets.set_ambient(reduce(sets.ambient()));
    process.set_capabilities(Some(sets));
}

fn rewrite_linux(
    linux: &mut Linux,
    wanted: &Wanted<'_>,
    host: &impl HostView,
) -> Result<(), SpecError> {
    let own_mounts = linux
        .namespaces()
        .iter()
        .flatten()
        .any(|ns| ns.typ() == LinuxNamespaceType::Mount && ns.path().is_none());
    if !own_mounts {
        return Err(SpecError::MountNamespace);
    }
    let cgroup = cgroup::path(linux.cgroups_path().as_deref(), wanted.id, host)?;
    linux.set_cgroups_path(Some(cgroup));
    // There is no proc and no sys to mask, and nobody to use a device.
    linux.set_masked_paths(outside_kernel_trees(linux.masked_paths().as_ref()));
    linux.set_readonly_paths(outside_kernel_trees(linux.readonly_paths().as_ref()));
    linux.set_devices(None);
    Ok(())
}

fn outside_kernel_trees(paths: Option<&Vec<String>>) -> Option<Vec<String>> {
    let kept: Vec<String> = paths?
        .iter()
        .filter(|path| !mounts::in_kernel_tree(Path::new(path)))
        .cloned()
        .collect();
    (!kept.is_empty()).then_some(kept)
}

/// libcontainer creates its device nodes and links in `/dev`: without a file system of its own
/// there they would land in the image.
fn with_dev(mut mounts: Vec<Mount>) -> Result<Vec<Mount>, SpecError> {
    if mounts
        .iter()
        .any(|mount| mount.destination() == Path::new("/dev"))
    {
        return Ok(mounts);
    }
    let dev = MountBuilder::default()
        .destination("/dev")
        .typ("tmpfs")
        .source("tmpfs")
        .options(
            ["nosuid", "strictatime", "mode=755", "size=64k"]
                .map(str::to_owned)
                .to_vec(),
        )
        .build()
        .map_err(|e| invalid("mounts", &e))?;
    mounts.insert(0, dev);
    Ok(mounts)
}

fn invalid(field: &str, error: &dyn std::error::Error) -> SpecError {
    SpecError::Invalid {
        field: field.to_owned(),
        detail: error.to_string(),
    }
}

#[cfg(test)]
mod tests;
