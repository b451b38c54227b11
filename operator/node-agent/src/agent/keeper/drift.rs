//! Whether the node is still as it was applied, and its repair.

use std::time::{Duration, Instant};

use wasmlet_api::NodeTarget;
use wasmlet_api::reasons::Reason;

use super::Keeper;
use crate::agent::difference::{Fingerprint, difference, fingerprint, is_bookkeeping, stamp_of};
use crate::agent::report::{Drift, Trust};
use crate::apply::machine::Machine;
use crate::apply::state::{Order, Outcome};
use crate::apply::{ApplyError, For, Node, Probing};
use crate::errors::Chain;
use crate::facts::HostFacts;
use crate::plan::Plan;

/// Even if no file seems to have changed, all is looked at so often.
const FULL_LOOK: Duration = Duration::from_secs(600);
/// After so many checks in a row that found the node not as applied and could not repair it, its runtimes are not reported any more: one may
/// have met a containerd that was just being restarted.
const FAILED_CHECKS: u32 = 2;

/// What checks have found so far.
#[derive(Default)]
pub(super) struct Checks {
    looked: Option<Looked>,
    /// In a row, and to now.
    failed: u32,
}

impl Checks {
    /// The next check looks at everything.
    pub(super) fn forget(&mut self) {
        self.looked = None;
    }
}

/// The last look that found all in order.
struct Looked {
    fingerprint: Fingerprint,
    at: Instant,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// Nothing was applied, so there is nothing to check.
    Nothing,
    /// All is as applied.
    InSync,
    /// It was not, and is again.
    Repaired(String),
    /// It was not, and could not be repaired.
    Failed(String),
}

impl<M: Machine> Keeper<M> {
    /// Compares the node with what was applied, and repairs it.
    pub async fn check(&mut self) -> Check {
        if let Some(Order {
            outcome: Some(Outcome::Broken(..)),
            ..
        }) = &self.state.last
        {
            self.recover().await;
            if let Some(Outcome::Broken(_, message)) = self.outcome() {
                return Check::Failed(message.clone());
            }
        }
        let Some(target) = self.state.applied.clone() else {
            return Check::Nothing;
        };
        if self.looks_the_same() {
            return Check::InSync;
        }
        let (facts, plan) = match self.plan(&target).await {
            Ok(found) => found,
            Err((reason, message)) => return self.not_repaired(reason, message),
        };
        // Who lost its trust is verified before it has it again, even if somebody else put the node in order.
        let trusted = self.checks.failed < FAILED_CHECKS;
        if plan.is_nothing() && trusted {
            self.checks.looked = Some(Looked {
                fingerprint: fingerprint(&self.root, &facts),
                at: Instant::now(),
            });
            self.in_order(Drift::InSync);
            return Check::InSync;
        }
        if is_bookkeeping(&plan) && trusted {
            return self.keep_books(&facts, &plan).await;
        }
        let what = if plan.is_nothing() || is_bookkeeping(&plan) {
            "somebody else put it in order".to_owned()
        } else {
            difference(&plan)
        };
        tracing::warn!(what, "the node is not as it was applied; repairing it");
        self.report
            .send_modify(|report| report.drift = Drift::Repairing(what.clone()));
        let order = self.last_order();
        if let Err((reason, message)) = self.check_bundles(&plan).await {
            return self.not_repaired(reason, message);
        }
        let repaired = self.apply(&facts, &plan, &order, Probing::Handlers).await;
        let check = match repaired {
            Ok(_) => {
                self.state.repairs += 1;
                self.applied_after_all(&target);
                self.in_order(Drift::Repaired(what.clone()));
                Check::Repaired(what)
            }
            Err((error, node)) => self.repair_failed(&error, node),
        };
        self.remember();
        self.show();
        check
    }

    /// Somebody else changed a file, and nothing that is ours in it: only the list of owned files is brought up to date.
    async fn keep_books(&mut self, facts: &HostFacts, plan: &Plan) -> Check {
        let order = self.last_order();
        match self.apply(facts, plan, &order, Probing::No).await {
            Ok(_) => {
                self.in_order(Drift::InSync);
                Check::InSync
            }
            Err((error, node)) => self.repair_failed(&error, node),
        }
    }

    fn repair_failed(&mut self, error: &ApplyError, node: Node) -> Check {
        let (reason, message) = (error.reason(), Chain(error).to_string());
        if node == Node::Broken {
            // The journal has what was there before; the next check goes on with it, as after an order that broke the node.
            self.end_order(Outcome::Broken(reason, message.clone()));
        }
        self.not_repaired(reason, message)
    }

    fn last_order(&self) -> For {
        match &self.state.last {
            Some(last) => For {
                revision: last.revision.clone(),
                attempt: last.attempt,
            },
            None => For {
                revision: String::new(),
                attempt: 0,
            },
        }
    }

    /// An order for what is on the node now failed while it could not be repaired; the repair, verified, has carried it out.
    fn applied_after_all(&mut self, target: &NodeTarget) {
        if let Some(last) = &mut self.state.last
            && last.revision == target.revision()
            && let Some(Outcome::RolledBack(..)) = last.outcome
        {
            last.outcome = Some(Outcome::Applied);
        }
    }

    /// The node is as applied, or is again.
    pub(super) fn in_order(&mut self, drift: Drift) {
        self.checks.failed = 0;
        self.report.send_modify(|report| {
            report.drift = drift;
            report.trust = Trust::Yes;
        });
        self.show();
    }

    fn not_repaired(&mut self, reason: Reason, message: String) -> Check {
        tracing::error!(
            reason = reason.name(),
            message,
            "the node is not as applied"
        );
        self.checks.forget();
        self.checks.failed += 1;
        let trust = if self.checks.failed < FAILED_CHECKS {
            Trust::Yes
        } else {
            Trust::No
        };
        self.report.send_modify(|report| {
            report.drift = Drift::Failed(reason, message.clone());
            report.trust = trust;
        });
        self.show();
        Check::Failed(message)
    }

    fn looks_the_same(&self) -> bool {
        self.checks.looked.as_ref().is_some_and(|looked| {
            looked.at.elapsed() < FULL_LOOK
                && looked
                    .fingerprint
                    .iter()
                    .all(|(path, stamp)| stamp_of(path) == *stamp)
        })
    }
}
