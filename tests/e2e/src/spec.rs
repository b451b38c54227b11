//! How a pod is written down in a test.

use serde_json::{Value, json};

use crate::manifest::set_at;

/// Seconds that a pod of a test gets to stop: busybox's shell does not heed SIGTERM.
const GRACE_SECONDS: u32 = 5;

/// One container of a pod.
#[derive(Debug, Clone)]
pub struct Container(Value);

impl Container {
    /// A container of an image.
    pub fn new(name: &str, image: &str) -> Self {
        Self(json!({ "name": name, "image": image }))
    }

    /// A container that runs a shell script in a busybox image.
    pub fn shell(name: &str, image: &str, script: &str) -> Self {
        Self::new(name, image).command(["sh", "-c", script])
    }

    /// `args`: what comes after the image's entrypoint.
    #[must_use]
    pub fn args<S: AsRef<str>>(self, args: impl IntoIterator<Item = S>) -> Self {
        let args: Vec<_> = args
            .into_iter()
            .map(|arg| arg.as_ref().to_owned())
            .collect();
        self.set("/args", args)
    }

    /// `command`: instead of the image's entrypoint.
    #[must_use]
    pub fn command<S: AsRef<str>>(self, command: impl IntoIterator<Item = S>) -> Self {
        let command: Vec<_> = command
            .into_iter()
            .map(|arg| arg.as_ref().to_owned())
            .collect();
        self.set("/command", command)
    }

    /// A variable of the environment.
    #[must_use]
    pub fn env(self, name: &str, value: &str) -> Self {
        self.set("/env/-", json!({ "name": name, "value": value }))
    }

    /// A variable whose value comes from elsewhere: `{"fieldRef": …}`, `{"secretKeyRef": …}`.
    #[must_use]
    pub fn env_from(self, name: &str, source: impl Into<Value>) -> Self {
        self.set(
            "/env/-",
            json!({ "name": name, "valueFrom": source.into() }),
        )
    }

    /// A volume of the pod at a path.
    #[must_use]
    pub fn mount(self, volume: &str, path: &str) -> Self {
        self.set(
            "/volumeMounts/-",
            json!({ "name": volume, "mountPath": path }),
        )
    }

    /// A volume of the pod at a path, which may only be read.
    #[must_use]
    pub fn mount_read_only(self, volume: &str, path: &str) -> Self {
        self.set(
            "/volumeMounts/-",
            json!({ "name": volume, "mountPath": path, "readOnly": true }),
        )
    }

    /// Limits, which are the requests as well.
    #[must_use]
    pub fn limits(self, memory: &str, cpu: &str) -> Self {
        self.set("/resources/limits", json!({ "memory": memory, "cpu": cpu }))
    }

    /// Anything else, by JSON pointer from the container: `/securityContext/runAsUser`.
    #[must_use]
    #[track_caller]
    pub fn set(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        set_at(&mut self.0, pointer, value.into());
        self
    }

    /// The container as it stands in a manifest.
    pub fn into_value(self) -> Value {
        self.0
    }
}

/// A pod that is not created yet.
#[derive(Debug, Clone)]
pub struct PodSpec(Value);

impl PodSpec {
    /// A pod without a RuntimeClass, which runs once.
    pub fn new(name: &str) -> Self {
        Self(json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": name, "labels": { "app": name } },
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": GRACE_SECONDS,
                // What most tests do not need, and nodes must make for each pod.
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
            },
        }))
    }

    /// A pod with RuntimeClass `wasm`, which runs once.
    pub fn wasm(name: &str) -> Self {
        Self::new(name).runtime_class("wasm")
    }

    /// Another RuntimeClass.
    #[must_use]
    pub fn runtime_class(self, name: &str) -> Self {
        self.set("/spec/runtimeClassName", name)
    }

    /// An annotation.
    #[must_use]
    pub fn annotation(self, key: &str, value: &str) -> Self {
        let key = key.replace('~', "~0").replace('/', "~1");
        self.set(&format!("/metadata/annotations/{key}"), value)
    }

    /// A label.
    #[must_use]
    pub fn label(self, key: &str, value: &str) -> Self {
        let key = key.replace('~', "~0").replace('/', "~1");
        self.set(&format!("/metadata/labels/{key}"), value)
    }

    /// One more container.
    #[must_use]
    pub fn container(self, container: Container) -> Self {
        self.set("/spec/containers/-", container.0)
    }

    /// One more init container.
    #[must_use]
    pub fn init(self, container: Container) -> Self {
        self.set("/spec/initContainers/-", container.0)
    }

    /// A volume: `json!({ "emptyDir": {} })`.
    #[must_use]
    pub fn volume(self, name: &str, mut source: Value) -> Self {
        source["name"] = name.into();
        self.set("/spec/volumes/-", source)
    }

    /// An empty folder as a volume.
    #[must_use]
    pub fn empty_dir(self, name: &str) -> Self {
        self.volume(name, json!({ "emptyDir": {} }))
    }

    /// On this node and no other; the scheduler still looks whether there is room.
    #[must_use]
    pub fn on_node(self, node: &str) -> Self {
        self.set(
            "/spec/nodeSelector",
            json!({ "kubernetes.io/hostname": node }),
        )
    }

    /// `Always`, `OnFailure`, `Never`.
    #[must_use]
    pub fn restart_policy(self, policy: &str) -> Self {
        self.set("/spec/restartPolicy", policy)
    }

    /// Anything else, by JSON pointer from the pod: `/spec/hostNetwork`.
    #[must_use]
    #[track_caller]
    pub fn set(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        set_at(&mut self.0, pointer, value.into());
        self
    }

    /// The pod's name.
    pub fn name(&self) -> &str {
        self.0["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// The manifest.
    pub fn into_value(self) -> Value {
        self.0
    }

    /// What stands below `template` of a Deployment or Job: the pod without its name.
    pub fn into_template(self) -> Value {
        let labels = &self.0["metadata"]["labels"];
        let annotations = &self.0["metadata"]["annotations"];
        json!({
            "metadata": { "labels": labels, "annotations": annotations },
            "spec": self.0["spec"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_put_together() {
        let pod = PodSpec::wasm("p")
            .annotation("wasmlet.dev/engine", "wasmer")
            .empty_dir("v")
            .container(
                Container::new("c", "i")
                    .args(["x"])
                    .env("A", "b")
                    .mount_read_only("v", "/v"),
            )
            .container(Container::shell("d", "busybox", "true"))
            .into_value();
        assert_eq!(pod["spec"]["runtimeClassName"], "wasm");
        assert_eq!(
            pod["metadata"]["annotations"]["wasmlet.dev/engine"],
            "wasmer"
        );
        assert_eq!(
            pod["spec"]["volumes"],
            json!([{ "name": "v", "emptyDir": {} }])
        );
        assert_eq!(
            pod["spec"]["containers"],
            json!([
                {
                    "name": "c", "image": "i", "args": ["x"],
                    "env": [{ "name": "A", "value": "b" }],
                    "volumeMounts": [{ "name": "v", "mountPath": "/v", "readOnly": true }],
                },
                { "name": "d", "image": "busybox", "command": ["sh", "-c", "true"] },
            ])
        );
    }
}
