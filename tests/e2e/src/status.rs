//! What a pod's status says, in the words of the tests.

use std::fmt;

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

/// What became of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code.
    pub code: i32,
    /// `Completed`, `Error`, `OOMKilled`.
    pub reason: String,
    /// The termination message.
    pub message: String,
}

/// Where a container stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It does not run, for a reason: `ContainerCreating`, `CrashLoopBackOff`, `ErrImagePull`.
    Waiting {
        /// Why.
        reason: String,
        /// The same for people.
        message: String,
    },
    /// It runs.
    Running,
    /// It has ended.
    Ended(Ended),
}

impl State {
    pub(crate) fn of(state: Option<&ContainerState>) -> Self {
        let waiting = |reason: &str, message: &str| Self::Waiting {
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        let Some(state) = state else {
            return waiting("", "the kubelet has not said anything of it yet");
        };
        if state.running.is_some() {
            return Self::Running;
        }
        if let Some(ended) = &state.terminated {
            return Self::Ended(Ended {
                code: ended.exit_code,
                reason: ended.reason.clone().unwrap_or_default(),
                message: ended.message.clone().unwrap_or_default(),
            });
        }
        let of = state.waiting.as_ref();
        waiting(
            of.and_then(|waiting| waiting.reason.as_deref())
                .unwrap_or_default(),
            of.and_then(|waiting| waiting.message.as_deref())
                .unwrap_or_default(),
        )
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting { reason, message } => write!(f, "waiting ({reason}: {message})"),
            Self::Running => f.write_str("running"),
            Self::Ended(Ended {
                code,
                reason,
                message,
            }) => {
                write!(f, "ended with {code} ({reason}: {})", message.trim_end())
            }
        }
    }
}

/// An event about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Name of what it is about.
    pub about: String,
    /// `Normal` or `Warning`.
    pub kind: String,
    /// `Pulled`, `FailedCreatePodSandBox`.
    pub reason: String,
    /// For people.
    pub message: String,
    /// How often.
    pub count: i32,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {} x{}: {}",
            self.about, self.kind, self.reason, self.count, self.message
        )
    }
}

/// The statuses of a pod's containers: init containers, containers, ephemeral ones.
pub(crate) fn container_statuses(pod: &Pod) -> Vec<&ContainerStatus> {
    let Some(status) = &pod.status else {
        return Vec::new();
    };
    let lists = [
        &status.init_container_statuses,
        &status.container_statuses,
        &status.ephemeral_container_statuses,
    ];
    lists.into_iter().flatten().flatten().collect()
}

/// Whether a condition of the pod is true.
pub(crate) fn condition(pod: &Pod, name: &str) -> bool {
    let conditions = pod
        .status
        .iter()
        .filter_map(|status| status.conditions.as_ref())
        .flatten();
    conditions
        .into_iter()
        .any(|condition| condition.type_ == name && condition.status == "True")
}

/// A pod's state in one line, for messages.
pub(crate) fn summary(pod: &Pod) -> String {
    let status = pod.status.as_ref();
    let phase = status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("no phase");
    let mut text = phase.to_owned();
    if pod.metadata.deletion_timestamp.is_some() {
        text += ", terminating";
    }
    if let Some(status) = status {
        for word in [&status.reason, &status.message].into_iter().flatten() {
            text += &format!(", {word}");
        }
    }
    for container in container_statuses(pod) {
        let state = State::of(container.state.as_ref());
        let ready = if container.ready {
            "ready"
        } else {
            "not ready"
        };
        text += &format!(
            "; {}: {state}, {ready}, restarts {}",
            container.name, container.restart_count
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "p" },
            "status": {
                "phase": "Running",
                "conditions": [{ "type": "Ready", "status": "True" }],
                "initContainerStatuses": [{
                    "name": "i", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                    "state": { "terminated": { "exitCode": 0, "reason": "Completed" } },
                }],
                "containerStatuses": [{
                    "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 2,
                    "state": { "waiting": { "reason": "CrashLoopBackOff", "message": "back-off" } },
                }],
            },
        }))
        .expect("a pod")
    }

    #[test]
    fn a_pod_is_told_in_one_line() {
        assert_eq!(
            summary(&pod()),
            "Running; i: ended with 0 (Completed: ), ready, restarts 0; c: waiting (CrashLoopBackOff: \
             back-off), not ready, restarts 2"
        );
        assert!(condition(&pod(), "Ready") && !condition(&pod(), "Initialized"));
    }

    #[test]
    fn a_container_without_a_state_waits() {
        assert!(matches!(State::of(None), State::Waiting { .. }));
    }
}
