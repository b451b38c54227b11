//! What is left of a test that failed: told in short in its message, in full in a file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod as PodObject;
use kube::api::{Api, ListParams, LogParams};

use crate::client::block_on;
use crate::namespace::Namespace;
use crate::status::{container_statuses, summary};

/// Lines of a container's log in a message.
const SHORT_LOG_LINES: i64 = 20;

/// Lines of a log in the file.
const LONG_LOG_LINES: i64 = 2000;

/// Units of a node whose journal is kept.
const UNITS: [&str; 2] = ["containerd", "kubelet"];

impl Namespace {
    /// Pods, events, logs; the file's path ends it.
    pub(crate) fn dump(&self, test: &str) -> String {
        let (short, long) = (
            self.tell(SHORT_LOG_LINES, false),
            self.tell(LONG_LOG_LINES, true),
        );
        let path = dump_folder().join(format!("{}.txt", test.replace("::", ".")));
        let written = std::fs::create_dir_all(dump_folder())
            .and_then(|()| std::fs::write(&path, long + &self.journals()));
        match written {
            Ok(()) => format!("{short}in full: {}", path.display()),
            Err(error) => format!(
                "{short}in full: {} cannot be written: {error}",
                path.display()
            ),
        }
    }

    fn tell(&self, log_lines: i64, with_objects: bool) -> String {
        let mut text = format!("---- namespace {}\n", self.name());
        let pods: Api<PodObject> = self.api();
        let list = match block_on(pods.list(&ListParams::default())) {
            Ok(list) => list.items,
            Err(error) => return format!("{text}its pods cannot be listed: {error}\n"),
        };
        for pod in &list {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "pod {name} on {}: {}",
                node.unwrap_or("no node"),
                summary(pod)
            );
        }
        match self.events(None) {
            Ok(events) => {
                for event in events {
                    let _ = writeln!(text, "event {event}");
                }
            }
            Err(error) => {
                let _ = writeln!(text, "no events: {error}");
            }
        }
        for pod in &list {
            self.tell_logs(&mut text, pod, log_lines);
            if with_objects {
                let object = serde_json::to_string_pretty(pod).unwrap_or_default();
                let _ = writeln!(text, "{object}");
            }
        }
        text
    }

    fn tell_logs(&self, text: &mut String, pod: &PodObject, lines: i64) {
        let pods: Api<PodObject> = self.api();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        for container in container_statuses(pod) {
            for previous in [true, false] {
                if previous && container.restart_count == 0 {
                    continue;
                }
                let parameters = LogParams {
                    container: Some(container.name.clone()),
                    previous,
                    tail_lines: Some(lines),
                    ..LogParams::default()
                };
                // There is none of a container that never ran.
                let Ok(log) = block_on(pods.logs(name, &parameters)) else {
                    continue;
                };
                let which = if previous { "previous log" } else { "log" };
                let _ = writeln!(text, "{which} of {name}/{}:\n{log}", container.name);
            }
        }
    }

    /// The nodes' side, where the nodes are within reach.
    fn journals(&self) -> String {
        let mut text = String::new();
        let Some(control) = self.cluster().control() else {
            return text;
        };
        for node in self.cluster().nodes() {
            for unit in UNITS {
                let command = ["journalctl", "--no-pager", "-n", "400", "-u", unit];
                let journal = control
                    .try_exec(&node.name, &command)
                    .unwrap_or_else(|error| error);
                let _ = writeln!(text, "---- {unit} on {}\n{journal}", node.name);
            }
        }
        text
    }
}

/// Beside the other logs of `hack/test`.
fn dump_folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    target
        .unwrap_or_else(|| root.join("target"))
        .join("logs/e2e")
}
