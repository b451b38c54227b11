//! Metrics, in Prometheus' text format. Labels come from closed lists, names of handlers, and digests; never from free text or nodes.

use std::fmt;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use wasmlet_api::node::Phase;

use crate::act::ActError;
use crate::plan::{Action, Census};

/// Seconds: a call takes milliseconds, or hangs until [`crate::act::CALL_TIMEOUT`].
const CALL_BUCKETS: [f64; 8] = [0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 6.0];
/// Seconds: 5,000 nodes are planned in some tens of milliseconds.
const PLAN_BUCKETS: [f64; 8] = [0.001, 0.0025, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0];
/// Seconds: a node takes from seconds to `nodeTimeoutSeconds`.
const CHANGE_BUCKETS: [f64; 9] = [5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    verb: &'static str,
    resource: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallFailure {
    verb: &'static str,
    resource: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPhase {
    phase: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Installed {
    handler: String,
    version: String,
    digest: String,
}

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    leader: Gauge,
    phases: Family<ByPhase, Gauge>,
    installed: Family<Installed, Gauge>,
    failed_nodes: Family<ByReason, Gauge>,
    restarts: Gauge,
    rollbacks: Gauge,
    repairs: Gauge,
    rollouts: Family<ByReason, Counter>,
    changes: Family<ByReason, Counter>,
    change_seconds: Histogram,
    calls: Family<Call, Counter>,
    call_failures: Family<CallFailure, Counter>,
    call_seconds: Histogram,
    plans: Counter<u64, AtomicU64>,
    plan_seconds: Histogram,
    /// So that versions which no node has any more go.
    last: Mutex<Census>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("wasmlet_operator"),
            leader: Gauge::default(),
            phases: Family::default(),
            installed: Family::default(),
            failed_nodes: Family::default(),
            restarts: Gauge::default(),
            rollbacks: Gauge::default(),
            repairs: Gauge::default(),
            rollouts: Family::default(),
            changes: Family::default(),
            change_seconds: Histogram::new(CHANGE_BUCKETS),
            calls: Family::default(),
            call_failures: Family::default(),
            call_seconds: Histogram::new(CALL_BUCKETS),
            plans: Counter::default(),
            plan_seconds: Histogram::new(PLAN_BUCKETS),
            last: Mutex::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register(
            "leader",
            "1 if this replica is the one that acts",
            self.leader.clone(),
        );
        r.register("nodes", "WasmNodes by phase", self.phases.clone());
        r.register(
            "node_runtimes",
            "Nodes by what was verified on them",
            self.installed.clone(),
        );
        r.register(
            "nodes_failed",
            "Nodes whose last change failed, by reason",
            self.failed_nodes.clone(),
        );
        r.register(
            "node_containerd_restarts",
            "Restarts of containerd by the agents of all nodes that are there, since each was installed",
            self.restarts.clone(),
        );
        r.register(
            "node_rollbacks",
            "Roll-backs by the agents of all nodes that are there, since each was installed",
            self.rollbacks.clone(),
        );
        r.register(
            "node_repairs",
            "Repairs of foreign changes by the agents of all nodes that are there, since each was installed",
            self.repairs.clone(),
        );
        r.register(
            "rollout_transitions",
            "New reasons of the condition Progressing of WasmRuntimes",
            self.rollouts.clone(),
        );
        r.register(
            "node_changes",
            "Changes of nodes that ended, by reason: Succeeded, or why they failed",
            self.changes.clone(),
        );
        r.register(
            "node_change_seconds",
            "From the claim of a node until its change succeeded",
            self.change_seconds.clone(),
        );
        r.register(
            "api_calls",
            "Calls of the API server, watches and their lists not included",
            self.calls.clone(),
        );
        r.register(
            "api_call_failures",
            "Those that failed, by reason",
            self.call_failures.clone(),
        );
        r.register(
            "api_call_seconds",
            "How long calls took",
            self.call_seconds.clone(),
        );
        r.register(
            "plans",
            "How often the cluster was planned",
            self.plans.clone(),
        );
        r.register(
            "plan_seconds",
            "How long planning took",
            self.plan_seconds.clone(),
        );
    }

    /// As Prometheus reads it.
    ///
    /// # Errors
    /// None that a String can have.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// A call of the API server ended.
    pub fn called(
        &self,
        verb: &'static str,
        resource: &'static str,
        took: Duration,
        error: Option<&ActError>,
    ) {
        self.calls.get_or_create(&Call { verb, resource }).inc();
        self.call_seconds.observe(took.as_secs_f64());
        if let Some(error) = error {
            self.call_failures
                .get_or_create(&CallFailure {
                    verb,
                    resource,
                    reason: error.kind().name(),
                })
                .inc();
        }
    }

    /// An action was done.
    pub fn done(&self, action: &Action) {
        match action {
            Action::WriteNode { part, .. } => {
                let change = &part.change;
                let (Some(since), Some(finished)) = (&change.since, &change.finished) else {
                    return;
                };
                let reason = match &change.failure {
                    Some(failure) => failure.reason.name(),
                    None if part.phase == Phase::Pending => return,
                    None => {
                        let took = finished.0.duration_since(since.0);
                        self.change_seconds.observe(took.as_secs_f64());
                        wasmlet_api::reasons::Reason::Succeeded.name()
                    }
                };
                self.changes.get_or_create(&ByReason { reason }).inc();
            }
            Action::Note(note) => {
                if let crate::plan::About::Runtime { .. } = note.about {
                    let reason = note.reason.name();
                    self.rollouts.get_or_create(&ByReason { reason }).inc();
                }
            }
            _ => {}
        }
    }

    /// The cluster was planned.
    pub fn planned(&self, took: Duration, census: &Census) {
        self.plans.inc();
        self.plan_seconds.observe(took.as_secs_f64());
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if *last == *census {
            return;
        }
        for phase in Phase::ALL {
            let number = census.phases.get(&phase).copied().unwrap_or_default();
            let phase = phase.name();
            self.phases.get_or_create(&ByPhase { phase }).set(number);
        }
        for reason in last.failures.keys() {
            let reason = reason.name();
            self.failed_nodes.remove(&ByReason { reason });
        }
        for (reason, number) in &census.failures {
            let reason = reason.name();
            self.failed_nodes
                .get_or_create(&ByReason { reason })
                .set(*number);
        }
        let labels = |(handler, version, digest): &(String, String, String)| Installed {
            handler: handler.clone(),
            version: version.clone(),
            digest: digest.clone(),
        };
        for key in last.digests.keys() {
            self.installed.remove(&labels(key));
        }
        for (key, number) in &census.digests {
            self.installed.get_or_create(&labels(key)).set(*number);
        }
        self.restarts.set(census.restarts);
        self.rollbacks.set(census.rollbacks);
        self.repairs.set(census.repairs);
        *last = census.clone();
    }

    /// This replica acts, or does not any more.
    pub fn leads(&self, leads: i64) {
        self.leader.set(leads);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_no_node_has_any_more_has_no_series() {
        let metrics = Metrics::default();
        let census = |digest: &str| Census {
            digests: [(("wasm".to_owned(), "1".to_owned(), digest.to_owned()), 3)].into(),
            ..Census::default()
        };
        metrics.planned(Duration::ZERO, &census("one"));
        metrics.planned(Duration::ZERO, &census("two"));
        let text = metrics.text().unwrap();
        assert!(text.contains(r#"digest="two"} 3"#), "{text}");
        assert!(!text.contains(r#"digest="one""#), "{text}");
    }
}
