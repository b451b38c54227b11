//! Where a container's cgroup is.

use std::path::{Path, PathBuf};

use super::{HostView, SpecError};

/// What systemd makes of a slice's name: `kubepods-pod1.slice` lies in `kubepods.slice`.
const SLICE: &str = ".slice";
/// Where a scope without a parent goes, as runc has it.
const DEFAULT_SLICE: &str = "system.slice";

/// The cgroup of container `id` that a specification asks for.
///
/// With the systemd driver that is `SLICE:PREFIX:NAME`, which libcgroups understands on cgroup v2 alone. On v1 and
/// on hybrid nodes it would make a cgroup with just that name in the hierarchy's root, outside of the pod's; there, the
/// path is what systemd would make of it, and libcgroups makes the last folder itself.
pub(super) fn path(
    asked: Option<&Path>,
    id: &str,
    host: &impl HostView,
) -> Result<PathBuf, SpecError> {
    match asked {
        None => Ok(PathBuf::from("/wasmlet").join(id)),
        // With an empty path libcgroups would take the cgroup this process is in for the container's,
        // and kill everything in it at delete.
        Some(path) if path == Path::new("") || path == Path::new("/") => Err(invalid(
            path,
            "is no cgroup of the container's own".to_owned(),
        )),
        Some(path) if host.has_cgroup_v1() => scope(path),
        Some(path) => Ok(path.to_owned()),
    }
}

/// The folder of a scope; any other path stays as it is.
fn scope(path: &Path) -> Result<PathBuf, SpecError> {
    let parts: Vec<&str> = path
        .to_str()
        .filter(|text| !text.starts_with('/'))
        .map(|text| text.split(':').collect())
        .unwrap_or_default();
    let [slice, prefix, name] = parts[..] else {
        return Ok(path.to_owned());
    };
    let slice = if slice.is_empty() {
        DEFAULT_SLICE
    } else {
        slice
    };
    let parents = expand(slice).ok_or_else(|| {
        invalid(
            path,
            format!("needs the name of a slice before the first colon, not {slice:?}"),
        )
    })?;
    if name.is_empty() || name.contains('/') || prefix.contains('/') {
        return Err(invalid(path, "needs a name after its colons".to_owned()));
    }
    Ok(parents.join(if name.ends_with(SLICE) {
        name.to_owned()
    } else {
        format!("{prefix}-{name}.scope")
    }))
}

/// `a-b.slice` → `/a.slice/a-b.slice`; `-.slice` is the root (systemd.slice(5)).
fn expand(slice: &str) -> Option<PathBuf> {
    let name = slice.strip_suffix(SLICE)?;
    let mut path = PathBuf::from("/");
    if name == "-" {
        return Some(path);
    }
    let mut prefix = String::new();
    for part in name.split('-') {
        if part.is_empty() || part.contains('/') {
            return None;
        }
        if !prefix.is_empty() {
            prefix.push('-');
        }
        prefix.push_str(part);
        path.push(format!("{prefix}{SLICE}"));
    }
    Some(path)
}

fn invalid(path: &Path, what: String) -> SpecError {
    SpecError::Invalid {
        field: "linux.cgroupsPath".to_owned(),
        detail: format!("{:?} {what}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_lies_in_its_slices() {
        let of = |path: &str| scope(Path::new(path)).expect("a cgroup");
        assert_eq!(
            of("kubepods-burstable-pod1_2.slice:cri-containerd:abc"),
            Path::new(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-abc.scope"
            )
        );
        assert_eq!(of(":ctr:abc"), Path::new("/system.slice/ctr-abc.scope"));
        assert_eq!(of("-.slice:ctr:abc"), Path::new("/ctr-abc.scope"));
        assert_eq!(
            of("a.slice:x:a-b.slice"),
            Path::new("/a.slice/a-b.slice"),
            "a name that says slice is one"
        );
    }

    #[test]
    fn paths_stay() {
        for path in ["/kubepods/pod1/abc", "/a:b:c", "plain"] {
            assert_eq!(scope(Path::new(path)), Ok(PathBuf::from(path)));
        }
    }

    #[test]
    fn what_is_no_slice_is_refused() {
        for path in [
            "a:b:c",
            "a-.slice:b:c",
            "../up.slice:b:c",
            "a.slice:b:",
            "a.slice:../b:c",
        ] {
            let error = scope(Path::new(path)).expect_err(path).to_string();
            assert!(error.contains("linux.cgroupsPath"), "{error}");
        }
    }
}
