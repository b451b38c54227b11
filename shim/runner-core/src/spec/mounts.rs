//! Which mounts a wasm container gets.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::Mount;

use super::SpecError;
use super::host::{HostView, SourceKind, Submounts, is_kernel_type};

/// Whether the container has a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Terminal {
    Yes,
    No,
}

impl From<bool> for Terminal {
    fn from(terminal: bool) -> Self {
        if terminal { Self::Yes } else { Self::No }
    }
}

/// Kernel file systems that every Linux container gets from containerd, so that nobody asked for
/// them: left out without a word.
const USUAL: &[&str] = &["proc", "sysfs", "cgroup", "cgroup2", "mqueue", "devpts"];

/// Keeps the mounts that a guest may have, and warns of those that it cannot reach.
///
/// # Errors
/// When somebody asked for a view into the kernel or at a device: leaving that out in silence
/// would start a container without what it needs.
pub(super) fn filter(
    mounts: Vec<Mount>,
    terminal: Terminal,
    host: &impl HostView,
    warnings: &mut Vec<String>,
) -> Result<Vec<Mount>, SpecError> {
    let mut kept = Vec::with_capacity(mounts.len());
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    for mount in mounts {
        let shows = match judge(&mount, terminal, host, warnings)? {
            Judgement::LeftOut => continue,
            Judgement::Kept(shows) => shows,
        };
        let destination = mount.destination().clone();
        match shows {
            Shows::Folder => folders.push(destination),
            Shows::File => files.push(destination),
            Shows::Nothing => {}
        }
        kept.push(mount);
    }
    for file in files {
        if !reachable(&file, &folders)
            && !EVERY_POD_HAS.iter().any(|usual| file == Path::new(usual))
        {
            warnings.push(format!(
                "the guest cannot reach the file mounted at {}: it opens files through folders, and \
                 none of its folders has this one; mount it below a folder of its own",
                file.display()
            ));
        }
    }
    Ok(kept)
}

/// Whether a mount stays, and what is there then.
enum Judgement {
    LeftOut,
    Kept(Shows),
}

enum Shows {
    Folder,
    File,
    Nothing,
}

/// Files that the kubelet and Docker mount into every container: nobody asked for them.
const EVERY_POD_HAS: [&str; 4] = [
    "/dev/termination-log",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
];

/// Whether a file is in a folder that the guest gets (see `init::preopens`): a mount, or a folder at
/// the top of the image, which libcontainer makes for the mount where it is missing.
fn reachable(file: &Path, folders: &[PathBuf]) -> bool {
    let in_mount = folders
        .iter()
        .any(|folder| folder != Path::new("/dev") && file.starts_with(folder));
    let depth = file.components().count() - 1; // without the root
    in_mount || depth > 1 && !file.starts_with("/dev")
}

/// Whether a path is in one of the trees that a wasm container does not have.
pub(super) fn in_kernel_tree(path: &Path) -> bool {
    path.starts_with("/proc") || path.starts_with("/sys")
}

fn judge(
    mount: &Mount,
    terminal: Terminal,
    host: &impl HostView,
    warnings: &mut Vec<String>,
) -> Result<Judgement, SpecError> {
    let destination = mount.destination();
    let refuse = |detail: String| {
        Err(SpecError::Mount {
            destination: destination.clone(),
            detail,
        })
    };
    if !destination.is_absolute() {
        return refuse("the destination is not an absolute path".to_owned());
    }
    if destination
        .components()
        .any(|part| part == Component::ParentDir)
    {
        return refuse("the destination has a \"..\" in it".to_owned());
    }
    if destination
        .components()
        .all(|part| part == Component::RootDir)
    {
        return refuse("nothing can be mounted over the root file system".to_owned());
    }

    let kind = mount.typ().as_deref().unwrap_or("none");
    let options = mount.options().as_deref().unwrap_or(&[]);
    let recursive = options.iter().any(|option| option == "rbind");
    let bind = kind == "bind" || recursive || options.iter().any(|option| option == "bind");

    if bind && is_kernel_type(kind) {
        // libcontainer goes by the type of some of them and by the options of others.
        return refuse(format!("a bind mount cannot be of type {kind}"));
    }
    let mut shows = Shows::Folder;
    if !bind {
        if kind == "devpts" && terminal == Terminal::Yes {
            return Ok(Judgement::Kept(Shows::Nothing));
        }
        if USUAL.contains(&kind) {
            return Ok(Judgement::LeftOut);
        }
        if is_kernel_type(kind) {
            return refuse(format!(
                "a wasm container cannot have a file system of type {kind}"
            ));
        }
    } else {
        let Some(source) = mount.source() else {
            return refuse("a bind mount needs a source".to_owned());
        };
        let submounts = if recursive {
            Submounts::Included
        } else {
            Submounts::Left
        };
        let found = match host.source(source, submounts) {
            Ok(found) => found,
            Err(error) => return refuse(format!("its source {}: {error}", source.display())),
        };
        let what = match found {
            SourceKind::Folder => None,
            SourceKind::File => {
                shows = Shows::File;
                None
            }
            SourceKind::Nothing => {
                shows = Shows::Nothing;
                None
            }
            SourceKind::Device => Some("is a device".to_owned()),
            SourceKind::DeviceTree => Some("is part of the node's device tree".to_owned()),
            SourceKind::Kernel { file_system } => Some(format!("is on a {file_system}")),
            SourceKind::Below { path, file_system } => Some(format!(
                "has a {file_system} below it, at {}",
                path.display()
            )),
        };
        if let Some(what) = what {
            return refuse(format!(
                "its source {} {what}, through which a guest could reach the process that runs \
                 it; mount the folders that it needs one by one",
                source.display()
            ));
        }
    }

    if in_kernel_tree(destination) {
        warnings.push(format!(
            "the mount at {} is left out: a wasm container has no /proc and no /sys",
            destination.display()
        ));
        return Ok(Judgement::LeftOut);
    }
    if destination == Path::new("/dev") && kind != "tmpfs" {
        return refuse("a wasm container's /dev is a tmpfs of its own".to_owned());
    }
    Ok(Judgement::Kept(shows))
}
