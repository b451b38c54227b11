//! What a spec means on this node: the sources of its mounts, and the kind of cgroups.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use libcgroups::common::{CgroupSetup, get_cgroup_setup};
use nix::sys::statfs::statfs;

/// Looks at the node on behalf of the spec rules.
pub(crate) trait HostView {
    /// What a bind mount of this path would show; with submounts when it is recursive.
    fn source(&self, path: &Path, submounts: Submounts) -> io::Result<SourceKind>;

    /// Whether controllers are on cgroup v1: on legacy and hybrid nodes.
    fn has_cgroup_v1(&self) -> bool;
}

/// Whether a bind mount takes along what is mounted below its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Submounts {
    Included,
    Left,
}

/// What the source of a bind mount is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SourceKind {
    /// A folder of people's files.
    Folder,
    /// A file of people's, or a socket or pipe.
    File,
    /// `/dev/null`, used to hide a file; there is nothing behind it.
    Nothing,
    /// A device node.
    Device,
    /// The node's device tree or a part of it.
    DeviceTree,
    /// A file system through which one talks to the kernel.
    Kernel { file_system: String },
    /// Such a file system is mounted below the source.
    Below { path: PathBuf, file_system: String },
}

/// This machine.
pub(crate) struct Node;

impl HostView for Node {
    fn source(&self, path: &Path, submounts: Submounts) -> io::Result<SourceKind> {
        let path = path.canonicalize()?;
        let kind = path.metadata()?.file_type();
        if kind.is_char_device() || kind.is_block_device() {
            return Ok(if path == Path::new("/dev/null") {
                SourceKind::Nothing
            } else {
                SourceKind::Device
            });
        }
        if let Some(name) = kernel_file_system(statfs(&path)?.filesystem_type().0) {
            return Ok(SourceKind::Kernel {
                file_system: name.to_owned(),
            });
        }
        if path.starts_with("/dev") && !path.starts_with("/dev/shm") {
            return Ok(SourceKind::DeviceTree);
        }
        if submounts == Submounts::Included {
            let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
            if let Some((path, file_system)) = kernel_mount_below(&mounts, &path) {
                return Ok(SourceKind::Below { path, file_system });
            }
        }
        Ok(if kind.is_dir() {
            SourceKind::Folder
        } else {
            SourceKind::File
        })
    }

    fn has_cgroup_v1(&self) -> bool {
        matches!(
            get_cgroup_setup(),
            Ok(CgroupSetup::Legacy | CgroupSetup::Hybrid)
        )
    }
}

/// Names of file systems that are interfaces of the kernel, with their magic numbers
/// (`linux/magic.h`; devtmpfs has that of tmpfs and is found by its name in mountinfo).
const KERNEL: &[(&str, i64)] = &[
    ("proc", 0x9fa0),
    ("sysfs", 0x6265_6572),
    ("cgroup", 0x0027_e0eb),
    ("cgroup2", 0x6367_7270),
    ("devpts", 0x1cd1),
    ("debugfs", 0x6462_6720),
    ("tracefs", 0x7472_6163),
    ("securityfs", 0x7363_6673),
    ("selinuxfs", 0xf97c_ff8c),
    ("bpf", 0xcafe_4a11),
    ("pstore", 0x6165_676c),
    ("efivarfs", 0xde5e_81e4),
    ("configfs", 0x6265_6570),
    ("binfmt_misc", 0x4249_4e4d),
    ("fusectl", 0x6573_5543),
    ("nsfs", 0x6e73_6673),
    ("mqueue", 0x1980_0202),
    ("resctrl", 0x0765_5821),
];

fn kernel_file_system(magic: i64) -> Option<&'static str> {
    KERNEL
        .iter()
        .find(|(_, known)| *known == magic)
        .map(|(name, _)| *name)
}

/// Whether a file system type, by name, is an interface of the kernel.
pub(crate) fn is_kernel_type(name: &str) -> bool {
    name == "devtmpfs" || KERNEL.iter().any(|(known, _)| *known == name)
}

/// The first kernel file system mounted below a folder, from the text of `mountinfo`.
fn kernel_mount_below(mountinfo: &str, folder: &Path) -> Option<(PathBuf, String)> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let point = PathBuf::from(unescape(left.split(' ').nth(4)?));
        let file_system = right.split(' ').next()?;
        (is_kernel_type(file_system) && point.starts_with(folder))
            .then(|| (point, file_system.to_owned()))
    })
}

/// mountinfo writes space, tab, line feed and backslash as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest
            .get(at + 1..at + 4)
            .and_then(|o| u8::from_str_radix(o, 8).ok());
        match code {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 8:1 / / rw - ext4 /dev/sda1 rw
23 22 0:5 / /proc rw - proc proc rw
24 22 0:6 / /srv/with\\040space/sys rw shared:7 - sysfs sysfs rw
25 22 0:7 / /srv/data rw - tmpfs tmpfs rw
26 22 0:8 / /srv/dev rw - devtmpfs udev rw
";

    #[test]
    fn kernel_mounts_below_a_source_are_found() {
        assert_eq!(
            kernel_mount_below(MOUNTS, Path::new("/")),
            Some((PathBuf::from("/proc"), "proc".to_owned()))
        );
        assert_eq!(
            kernel_mount_below(MOUNTS, Path::new("/srv/with space")),
            Some((PathBuf::from("/srv/with space/sys"), "sysfs".to_owned()))
        );
        assert_eq!(kernel_mount_below(MOUNTS, Path::new("/srv/data")), None);
        assert_eq!(
            kernel_mount_below(MOUNTS, Path::new("/srv/with")),
            None,
            "no part of a name"
        );
        assert!(kernel_mount_below(MOUNTS, Path::new("/srv/dev")).is_some());
    }

    #[test]
    fn this_machine_shows_its_kernel_trees() {
        let proc = Node
            .source(Path::new("/proc/self"), Submounts::Left)
            .expect("it is there");
        assert_eq!(
            proc,
            SourceKind::Kernel {
                file_system: "proc".to_owned()
            }
        );
        let zero = Node
            .source(Path::new("/dev/zero"), Submounts::Left)
            .expect("it is there");
        assert_eq!(zero, SourceKind::Device);
        let null = Node
            .source(Path::new("/dev/null"), Submounts::Left)
            .expect("it is there");
        assert_eq!(null, SourceKind::Nothing);
        let dev = Node
            .source(Path::new("/dev"), Submounts::Left)
            .expect("it is there");
        assert_eq!(dev, SourceKind::DeviceTree);
        let root = Node
            .source(Path::new("/"), Submounts::Included)
            .expect("it is there");
        assert!(matches!(root, SourceKind::Below { .. }), "{root:?}");
        let etc = Node
            .source(Path::new("/etc"), Submounts::Included)
            .expect("it is there");
        assert_eq!(etc, SourceKind::Folder);
        let file = Node
            .source(Path::new("/etc/passwd"), Submounts::Left)
            .expect("it is there");
        assert_eq!(file, SourceKind::File);
    }

    #[test]
    fn a_link_into_proc_is_seen_through() {
        let folder = tempfile::tempdir().expect("a folder");
        let link = folder.path().join("innocent");
        std::os::unix::fs::symlink("/proc", &link).expect("a link");
        let kind = Node.source(&link, Submounts::Left).expect("it is there");
        assert_eq!(
            kind,
            SourceKind::Kernel {
                file_system: "proc".to_owned()
            }
        );
    }
}
