//! Whether the bundles of a change are in the node's store, and what brings them there.

use std::collections::BTreeSet;

use k8s_openapi::jiff::SignedDuration;
use wasmlet_api::Digest;
use wasmlet_api::exit::StageExit;
use wasmlet_api::reasons::Reason;

use super::super::action::Action;
use super::super::site::agent;
use super::{Fault, Going, POD_GRACE, Step, pod_words};
use crate::objects::pods;
use crate::world::{PodFacts, PodState};

/// So long an image may fail to be pulled: the kubelet tries again meanwhile.
const PULL_PATIENCE: SignedDuration = SignedDuration::from_secs(90);

impl Going<'_> {
    /// Whether the bundles are in the node's store.
    pub(super) fn stage(&self) -> Step {
        let wanted: BTreeSet<&Digest> = self
            .changed()
            .into_iter()
            .map(|runtime| &runtime.digest)
            .collect();
        let there: BTreeSet<&Digest> = agent(self.wasm_node)
            .map(|agent| agent.staged.iter().collect())
            .unwrap_or_default();
        let mut waits = Vec::new();
        for digest in wanted.difference(&there) {
            match self.stage_one(digest) {
                Step::Done => {}
                Step::Waits(again) => waits.push(again),
                other => return other,
            }
        }
        if waits.is_empty() {
            Step::Done
        } else {
            Step::Waits(waits.into_iter().flatten().min())
        }
    }

    fn stage_one(&self, digest: &Digest) -> Step {
        let source = self
            .changed()
            .into_iter()
            .filter(|runtime| runtime.digest == *digest)
            .find_map(|runtime| self.runtime(&runtime.handler));
        let Some(runtime) = source else {
            // Its WasmRuntime is gone: `superseded` ends the change in this case, unless it is frozen.
            return Step::Waits(None);
        };
        let name = pods::stage_name(self.site.name(), &self.site.node.uid, self.change, digest);
        let Some(pod) = self.pod(&name) else {
            return Step::Needs(Action::CreatePod(Box::new(pods::stage(
                &self.context.settings.namespace,
                &name,
                self.site.node,
                runtime.object,
                self.change,
                digest,
            ))));
        };
        let deadline = pod.created + pods::STAGE_DEADLINE + POD_GRACE;
        match &pod.state {
            PodState::Succeeded => Step::Done,
            PodState::Failed {
                reason,
                message,
                exit_code,
            } => Step::Failed(stage_fault(pod, reason, message, *exit_code)),
            PodState::Waiting { reason, message } if pull_failed(reason) => {
                let patience = if reason == "InvalidImageName" {
                    pod.created
                } else {
                    pod.created + PULL_PATIENCE
                };
                if self.context.now < patience {
                    return Step::Waits(Some(patience));
                }
                Step::Failed(Fault {
                    reason: Reason::ImagePullFailed,
                    message: format!(
                        "image {} of WasmRuntime {} cannot be pulled on the node: {reason}: {message}; check spec.artifact.image and spec.artifact.pullSecrets",
                        runtime.spec().artifact.image,
                        runtime.name,
                    ),
                })
            }
            PodState::Waiting { .. } | PodState::Running => {
                if self.context.now < deadline {
                    Step::Waits(Some(deadline))
                } else {
                    Step::Failed(self.pod_stuck(pod, Reason::StageFailed))
                }
            }
        }
    }
}

fn pull_failed(reason: &str) -> bool {
    matches!(
        reason,
        "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "RegistryUnavailable"
            | "ImageInspectError"
            | "SignatureValidationFailed"
    )
}

fn stage_fault(pod: &PodFacts, reason: &str, message: &str, exit_code: Option<i32>) -> Fault {
    let exit = exit_code.and_then(StageExit::of);
    Fault {
        reason: if exit == Some(StageExit::DigestMismatch) {
            Reason::DigestMismatch
        } else {
            Reason::StageFailed
        },
        message: format!(
            "stage pod {} failed: {}",
            pod.name,
            pod_words(reason, message, exit_code)
        ),
    }
}
