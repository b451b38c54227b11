//! How a change ends: it succeeded, it failed, or what failed was put back.

use wasmlet_api::NodeTarget;
use wasmlet_api::conditions::{self, Status};
use wasmlet_api::node::{AgentState, Failure, Phase};
use wasmlet_api::reasons::Reason;

use super::{Fault, Going};
use crate::plan::action::{Action, Tone};
use crate::plan::site::{Answer, Standing, agent, answer};
use crate::plan::{Draft, labels};

impl Going<'_> {
    pub(super) fn succeed(&self, draft: &mut Draft) {
        let target = &self.change.target;
        let standing = Standing {
            verified: target,
            open: None,
            ..self.site.standing()
        };
        let labels = labels::wanted(self.site, &standing, self.context.runtimes);
        if target.is_empty() && self.site.chosen.is_empty() {
            if let Some(fix) = labels::fix(self.site, labels) {
                draft.node(self.site, fix);
            }
            if let Some(uid) = self.wasm_node.metadata.uid.clone() {
                draft.node(
                    self.site,
                    Action::DeleteWasmNode {
                        node: self.site.node.name.clone(),
                        uid,
                    },
                );
            }
            self.note(
                Tone::Normal,
                Reason::Succeeded,
                "wasmlet was removed; the node is as it was before it".to_owned(),
                draft,
            );
            return;
        }
        let mut part = self.part();
        let probed = self.changed().is_empty();
        part.phase = Phase::Ready;
        part.verified = target.clone();
        part.change.finished = Some(self.context.time());
        part.change.failures = 0;
        if !probed {
            self.set(
                &mut part,
                conditions::PROBED,
                Status::True,
                Reason::Probed,
                "a pod of each changed runtime ran",
            );
        }
        self.write(part, draft);
        if let Some(fix) = labels::fix(self.site, labels) {
            draft.node(self.site, fix);
        }
        let what: Vec<_> = target
            .iter()
            .map(|runtime| format!("{} ({})", runtime.handler, runtime.digest.short()))
            .collect();
        self.note(
            Tone::Normal,
            Reason::Succeeded,
            format!("the node has {}, applied and probed", what.join(", ")),
            draft,
        );
    }

    pub(super) fn fail(&self, fault: Fault, draft: &mut Draft) {
        let ordered = self.ordered(&self.change.revision);
        let stands = ordered
            && answer(&self.wasm_node.spec, agent(self.wasm_node))
                == Answer::Said(AgentState::Applied);
        let mut part = self.part();
        let refused = ordered
            && answer(&self.wasm_node.spec, agent(self.wasm_node))
                == Answer::Said(AgentState::Refused);
        part.phase = if refused {
            Phase::Refused
        } else {
            Phase::Failed
        };
        part.change.failures += 1;
        part.change.failure = Some(Failure {
            reason: fault.reason,
            message: fault.message.clone(),
            time: Some(self.context.time()),
        });
        let failed_condition = match fault.reason {
            Reason::ProbeFailed | Reason::RuntimeClassConflict if stands => {
                Some(conditions::PROBED)
            }
            _ if !ordered => Some(conditions::STAGED),
            _ => None,
        };
        if let Some(type_) = failed_condition {
            self.set(
                &mut part,
                type_,
                Status::False,
                fault.reason,
                &fault.message,
            );
        }
        // What is applied and does not work is put back: the agent cannot know that it does not.
        if !stands {
            part.change.finished = Some(self.context.time());
        }
        let standing = Standing {
            open: None,
            ..self.site.standing()
        };
        self.write(part, draft);
        if stands {
            self.order_target(&NodeTarget::new(self.verified().to_vec()), draft);
        } else if let Some(fix) = labels::fix(
            self.site,
            labels::wanted(self.site, &standing, self.context.runtimes),
        ) {
            draft.node(self.site, fix);
        }
        self.note(
            Tone::Warning,
            fault.reason,
            format!("attempt {} failed: {}", self.change.attempt, fault.message),
            draft,
        );
    }

    /// The change has failed after it was applied, and the agent was told to go back to what was verified.
    pub(super) fn put_back(&self, draft: &mut Draft) {
        let back = NodeTarget::new(self.verified().to_vec());
        if !self.ordered(&back.revision()) {
            return self.order_target(&back, draft);
        }
        let trouble = match answer(&self.wasm_node.spec, agent(self.wasm_node)) {
            Answer::Said(AgentState::Applied) => None,
            Answer::Said(AgentState::RolledBack | AgentState::Broken | AgentState::Refused) => {
                Some(self.agent_fault().message)
            }
            Answer::None | Answer::Said(AgentState::Idle | AgentState::Applying) => {
                // The same time again as for the way there.
                let deadline = self.since() + self.timeout() + self.timeout();
                if self.context.now < deadline {
                    return draft.wake_at(deadline);
                }
                Some(self.agent_silent())
            }
        };
        let mut part = self.part();
        part.change.finished = Some(self.context.time());
        if let (Some(trouble), Some(failure)) = (trouble, &mut part.change.failure) {
            failure.message = format!(
                "{}; and the node could not be put back: {trouble}",
                failure.message
            );
        }
        self.write(part, draft);
        let standing = Standing {
            open: None,
            ..self.site.standing()
        };
        if let Some(fix) = labels::fix(
            self.site,
            labels::wanted(self.site, &standing, self.context.runtimes),
        ) {
            draft.node(self.site, fix);
        }
    }
}
