//! systemd's name for a container's cgroup, where libcontainer cannot give it to systemd.
//!
//! libcontainer knows the systemd driver on pure cgroup v2 alone: elsewhere it takes `slice:prefix:name` for
//! the name of a folder at the top of every hierarchy, outside the pod's limits and out of the kubelet's sight.
//! There the cgroup is made where systemd would have made it, in the slice that the kubelet has made already.
//! systemd does not know the scope, as it knows no cgroup of the other driver.

use std::path::{Path, PathBuf};

use libcgroups::common::{CgroupSetup, get_cgroup_setup};
use oci_spec::runtime::Spec;

/// runc's, for a container that names none.
const DEFAULT_SLICE: &str = "system.slice";

/// Whether systemd can be asked for a cgroup; if not, the specification names the folder itself afterwards.
pub(crate) fn systemd_or_path(spec: &mut Spec) -> bool {
    // What cannot be told is told by libcontainer, which looks at the same.
    if matches!(get_cgroup_setup(), Ok(CgroupSetup::Unified) | Err(_)) {
        return true;
    }
    let mut linux = spec.linux().clone();
    if let Some(linux) = &mut linux {
        let path = linux.cgroups_path().as_deref().and_then(folder_of);
        if path.is_some() {
            linux.set_cgroups_path(path);
        }
    }
    spec.set_linux(linux);
    false
}

/// Where systemd has `slice:prefix:name`; none if it is of another form.
fn folder_of(path: &Path) -> Option<PathBuf> {
    let parts: Vec<_> = path.to_str()?.split(':').collect();
    let [slice, prefix, name] = parts[..] else {
        return None;
    };
    let is_plain = |part: &str| !part.contains('/');
    if name.is_empty() || ![slice, prefix, name].into_iter().all(is_plain) {
        return None;
    }
    let slice = if slice.is_empty() {
        DEFAULT_SLICE
    } else {
        slice
    };
    let mut folder = slice_folder(slice)?;
    folder.push(match prefix {
        "" => format!("{name}.scope"),
        prefix => format!("{prefix}-{name}.scope"),
    });
    Some(folder)
}

/// A dash in a slice's name is a step down: `a-b.slice` is in `a.slice` (systemd.slice(5)).
fn slice_folder(slice: &str) -> Option<PathBuf> {
    let name = slice.strip_suffix(".slice")?;
    let mut folder = PathBuf::from("/");
    if name == "-" {
        return Some(folder);
    }
    let mut so_far = String::new();
    for part in name.split('-') {
        if part.is_empty() {
            return None;
        }
        so_far += part;
        folder.push(format!("{so_far}.slice"));
        so_far.push('-');
    }
    Some(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_below_its_slices() {
        for (path, folder) in [
            (
                "kubepods-burstable-pod1_2.slice:cri-containerd:abc",
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-abc.scope",
            ),
            (":docker:abc", "/system.slice/docker-abc.scope"),
            ("user.slice::abc", "/user.slice/abc.scope"),
            ("-.slice:p:abc", "/p-abc.scope"),
        ] {
            assert_eq!(folder_of(Path::new(path)), Some(folder.into()), "{path}");
        }
    }

    #[test]
    fn what_is_no_scope_stays_as_it_is() {
        for path in [
            "/kubepods/pod1/abc",
            "a:b",
            "a.slice:p:",
            "a:p:abc",
            "a--b.slice:p:abc",
            "a.slice:../../p:abc",
            "a.slice:p:abc/..",
        ] {
            assert_eq!(folder_of(Path::new(path)), None, "{path}");
        }
    }
}
