//! Whether what an agent applied works, and the pod that shows it.

use wasmlet_api::NodeRuntime;
use wasmlet_api::names::probe_class;
use wasmlet_api::node::Phase;
use wasmlet_api::reasons::Reason;

use super::super::action::Action;
use super::super::{Draft, classes};
use super::{Fault, Going, POD_GRACE, Step, pod_words};
use crate::objects::pods;
use crate::world::{PodState, ProbeLog};

impl Going<'_> {
    pub(super) fn probe(&self, draft: &mut Draft) {
        for runtime in self.changed() {
            match self.probe_one(runtime) {
                Step::Done => {}
                Step::Waits(until) => {
                    return self.wait(draft, until, |own| {
                        format!(
                            "the probe pod did not end within {} s",
                            own.timeout().as_secs()
                        )
                    });
                }
                Step::Needs(action) => {
                    if self.part().phase != Phase::Probing {
                        let mut part = self.part();
                        part.phase = Phase::Probing;
                        self.write(part, draft);
                    }
                    return draft.node(self.site, action);
                }
                Step::Failed(fault) => return self.fail(fault, draft),
            }
        }
        self.succeed(draft);
    }

    /// Whether a pod of the runtime's own handler ran. The engines' handlers differ from it by one line of settings, and the agent
    /// has asked the shim with each of them: a pod for each would cost a node four times the calls.
    fn probe_one(&self, wanted: &NodeRuntime) -> Step {
        let Some(runtime) = self.runtime(&wanted.handler) else {
            // Deleted without its finalizer: the removal that follows needs no probe.
            return Step::Done;
        };
        let class = probe_class(&wanted.handler);
        match self.context.world.classes.get(&class) {
            Some(found) if !classes::is_ours(found) => {
                return Step::Failed(Fault {
                    reason: Reason::RuntimeClassConflict,
                    message: format!(
                        "RuntimeClass {class} is somebody else's, and the probe needs it; delete it: kubectl delete runtimeclass {class}"
                    ),
                });
            }
            Some(_) => {}
            None => return Step::Waits(None),
        }
        let name = pods::probe_name(
            self.site.name(),
            &self.site.node.uid,
            self.change,
            &wanted.handler,
        );
        let Some(pod) = self.pod(&name) else {
            return Step::Needs(Action::CreatePod(Box::new(pods::probe(
                &self.context.settings.namespace,
                &name,
                self.site.node,
                runtime.object,
                self.change,
            ))));
        };
        let fault = |message: String| {
            Step::Failed(Fault {
                reason: Reason::ProbeFailed,
                message,
            })
        };
        match &pod.state {
            PodState::Succeeded => match self.context.world.probes.get(&pod.uid) {
                Some(ProbeLog::Ok) => Step::Done,
                Some(ProbeLog::Other(line)) => fault(format!(
                    "probe pod {} of handler {} ended well without saying so; its last line is {line:?}: another runtime has answered for the shim",
                    pod.name, wanted.handler
                )),
                None => Step::Needs(Action::ReadProbe {
                    pod: pod.name.clone(),
                    uid: pod.uid.clone(),
                }),
            },
            PodState::Failed {
                reason,
                message,
                exit_code,
            } => fault(format!(
                "probe pod {} of handler {} failed: {}; kubectl -n {} describe pod {} says more",
                pod.name,
                wanted.handler,
                pod_words(reason, message, *exit_code),
                self.context.settings.namespace,
                pod.name
            )),
            PodState::Waiting { .. } | PodState::Running => {
                let deadline = pod.created + pods::PROBE_DEADLINE + POD_GRACE;
                if self.context.now < deadline {
                    Step::Waits(Some(deadline))
                } else {
                    Step::Failed(self.pod_stuck(pod, Reason::ProbeFailed))
                }
            }
        }
    }
}
