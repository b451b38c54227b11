//! Which backend a container gets. Pure: what is known about it in, the decision out.

use wasmlet_image::rootfs::{Entrypoint, Module};

use crate::spec::Spec;

/// Annotation in which CRI says what a container is.
const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";
/// Annotation in which CRI names the pod's sandbox; all containers of a pod share a shim by it.
pub const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";
/// Annotation in which CRI names the container as the pod's author does.
pub const CONTAINER_NAME: &str = "io.kubernetes.cri.container-name";

/// What has to be looked at next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// A pod's sandbox: a Linux container, whatever is in it.
    Sandbox,
    /// Any other container: its entrypoint decides.
    Entrypoint,
}

/// The decision.
#[derive(Debug)]
pub enum Route {
    /// runc.
    Linux,
    /// A runner, with a module of the image's file system.
    File(Module),
    /// A runner, with a layer of an OCI artifact, if the image is one.
    Artifact {
        /// Paths that were looked for in vain, for the message when it is none.
        tried: Vec<String>,
    },
}

/// Before the image is looked at.
pub fn first(spec: &Spec) -> First {
    match spec.annotation(CONTAINER_TYPE) {
        Some("sandbox") => First::Sandbox,
        _ => First::Entrypoint,
    }
}

/// What the root file system holds at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rootfs {
    /// No entry: an OCI artifact unpacks to nothing.
    Empty,
    /// Something.
    Filled,
}

/// After the entrypoint was looked for.
pub fn route(entrypoint: Entrypoint, rootfs: Rootfs) -> Route {
    match (entrypoint, rootfs) {
        (Entrypoint::Wasm(module), _) => Route::File(module),
        (Entrypoint::Linux { .. }, _) => Route::Linux,
        (Entrypoint::NotFound { tried }, Rootfs::Empty) => Route::Artifact { tried },
        (Entrypoint::NotFound { tried }, Rootfs::Filled) => {
            // A program may come with a volume, which the root file system does not show; runc sees
            // it, and says what is missing otherwise. A module cannot be meant for runc.
            let is_module = |path: &String| path.ends_with(".wasm") || path.ends_with(".wat");
            if tried.iter().any(is_module) {
                Route::Artifact { tried }
            } else {
                Route::Linux
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn not_found(path: &str) -> Entrypoint {
        Entrypoint::NotFound {
            tried: vec![path.to_owned()],
        }
    }

    #[test]
    fn a_sandbox_is_never_wasm() {
        let mut spec = Spec::default();
        assert_eq!(first(&spec), First::Entrypoint);
        spec.annotations
            .insert(CONTAINER_TYPE.into(), "container".into());
        assert_eq!(first(&spec), First::Entrypoint);
        spec.annotations
            .insert(CONTAINER_TYPE.into(), "sandbox".into());
        assert_eq!(first(&spec), First::Sandbox);
    }

    #[test]
    fn a_program_of_the_image_goes_to_runc() {
        let linux = Entrypoint::Linux {
            path_in_image: "/bin/sh".into(),
        };
        assert!(matches!(route(linux, Rootfs::Filled), Route::Linux));
        assert!(matches!(
            route(not_found("/mnt/tool"), Rootfs::Filled),
            Route::Linux
        ));
    }

    #[test]
    fn an_empty_root_file_system_is_an_artifact() {
        assert!(matches!(
            route(not_found("/"), Rootfs::Empty),
            Route::Artifact { .. }
        ));
    }

    #[test]
    fn a_module_that_is_not_there_is_not_left_to_runc() {
        assert!(matches!(
            route(not_found("/a.wasm"), Rootfs::Filled),
            Route::Artifact { .. }
        ));
    }
}
