//! What the surroundings tell the tests, in environment variables.

use std::path::PathBuf;

use crate::registry::{Registry, RegistryError};

/// Why the tests cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum EnvError {
    /// Nothing names a cluster.
    #[error(
        "no cluster: neither WASMLET_E2E_KUBECONFIG nor KUBECONFIG is set; `hack/test e2e` brings one up"
    )]
    NoKubeconfig,
    /// Nothing names a registry.
    #[error(
        "no registry: WASMLET_E2E_REGISTRY is not set; give HOST:PORT[/prefix] of one over plain HTTP that \
         this machine and the nodes reach, or run `hack/test e2e`, which brings one up"
    )]
    NoRegistry,
    /// The registry's name is wrong.
    #[error("WASMLET_E2E_REGISTRY")]
    Registry(#[source] RegistryError),
    /// There is no such subset.
    #[error("WASMLET_E2E_SUBSET={0}: there is only `ci`; leave it out for all tests")]
    Subset(String),
}

/// The environment of a run.
#[derive(Debug, Clone)]
pub struct Env {
    /// Where the cluster is.
    pub kubeconfig: PathBuf,
    /// Where images go.
    pub registry: Registry,
    /// The `hack/cluster` cluster's name, if the nodes are its own and may be broken.
    pub cluster: Option<String>,
    /// The inference example's image.
    pub inference_image: Option<PathBuf>,
    /// Whether the namespaces stay.
    pub keep: bool,
    /// Whether only the quick cases are run.
    pub quick: bool,
    /// The program `kubectl`.
    pub kubectl: PathBuf,
    /// The program `helm`.
    pub helm: PathBuf,
    /// What `hack/images --push` left: `images.json`, `values.yaml` and the trees.
    pub images: Option<PathBuf>,
}

impl Env {
    /// Reads the process' environment.
    pub fn read() -> Result<Self, EnvError> {
        Self::from(|name| std::env::var(name).ok())
    }

    fn from(variable: impl Fn(&str) -> Option<String>) -> Result<Self, EnvError> {
        let get = |name: &str| variable(name).filter(|value| !value.is_empty());
        // KUBECONFIG may be a list, as kubectl has it; the tests want one file.
        let first = |list: String| list.split(':').next().unwrap_or_default().to_owned();
        let kubeconfig = get("WASMLET_E2E_KUBECONFIG")
            .or_else(|| get("KUBECONFIG").map(first))
            .ok_or(EnvError::NoKubeconfig)?;
        let registry = get("WASMLET_E2E_REGISTRY").ok_or(EnvError::NoRegistry)?;
        let quick = match get("WASMLET_E2E_SUBSET").as_deref() {
            None | Some("all") => false,
            Some("ci") => true,
            Some(other) => return Err(EnvError::Subset(other.to_owned())),
        };
        Ok(Self {
            kubeconfig: kubeconfig.into(),
            registry: registry.parse().map_err(EnvError::Registry)?,
            cluster: get("WASMLET_E2E_CLUSTER"),
            inference_image: get("WASMLET_E2E_INFERENCE_IMAGE").map(PathBuf::from),
            keep: get("WASMLET_E2E_KEEP").is_some_and(|value| value == "1"),
            quick,
            kubectl: get("WASMLET_E2E_KUBECTL").map_or_else(|| "kubectl".into(), PathBuf::from),
            helm: get("WASMLET_E2E_HELM").map_or_else(|| "helm".into(), PathBuf::from),
            images: get("WASMLET_E2E_IMAGES").map(PathBuf::from),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Env, EnvError> {
        Env::from(|name| {
            let found = variables.iter().find(|(known, _)| *known == name)?;
            Some(found.1.to_owned())
        })
    }

    #[test]
    fn what_is_missing_is_told_with_the_remedy() {
        let error = read(&[]).expect_err("no cluster").to_string();
        assert!(error.contains("hack/test e2e"), "{error}");
        let error = read(&[("KUBECONFIG", "/a")]).expect_err("no registry");
        assert!(
            error.to_string().contains("WASMLET_E2E_REGISTRY"),
            "{error}"
        );
    }

    #[test]
    fn the_variable_of_the_tests_goes_before_the_one_of_kubectl() {
        let registry = ("WASMLET_E2E_REGISTRY", "10.0.0.1:5000");
        let env = read(&[("KUBECONFIG", "/a:/b"), registry]).expect("complete");
        assert_eq!(env.kubeconfig, PathBuf::from("/a"));
        let own = ("WASMLET_E2E_KUBECONFIG", "/c");
        let env = read(&[("KUBECONFIG", "/a"), own, registry]).expect("complete");
        assert_eq!(env.kubeconfig, PathBuf::from("/c"));
        assert!(!env.quick && !env.keep && env.cluster.is_none());
    }

    #[test]
    fn a_subset_that_is_not_there_is_refused() {
        let base = [("KUBECONFIG", "/a"), ("WASMLET_E2E_REGISTRY", "r:1")];
        let with = |value| [base[0], base[1], ("WASMLET_E2E_SUBSET", value)];
        assert!(read(&with("ci")).expect("known").quick);
        assert!(!read(&with("")).expect("unset").quick);
        assert!(matches!(read(&with("fast")), Err(EnvError::Subset(_))));
    }
}
