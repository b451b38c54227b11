//! What the agent says about its node, and how it becomes the status of the WasmNode.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use tokio::sync::watch;
use wasmlet_api::conditions::{APPLIED, DRIFTED, Status, condition};
use wasmlet_api::names::AGENT_MANAGER;
use wasmlet_api::node::{AgentState, AgentStatus, Failure};
use wasmlet_api::reasons::Reason;
use wasmlet_api::{Digest, WasmNode};

use crate::errors::Chain;

/// The longest pause between two tries to write a status.
const PAUSE: Duration = Duration::from_secs(60);

/// What the agent says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// All but `lastError`, whose time is made here.
    pub agent: AgentStatus,
    /// Whether the node is as ordered.
    pub applied: Applied,
    /// Whether it stayed so.
    pub drift: Drift,
    /// Whether pods may count on what was applied.
    pub trust: Trust,
    /// Why the last change failed.
    pub last_error: Option<LastError>,
    /// Versions of the bundles in the store.
    pub versions: BTreeMap<Digest, String>,
    /// The WasmNode's generation that `agent.observedRevision` is of.
    pub generation: Option<i64>,
}

/// A failure, and when it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastError {
    /// What kind.
    pub reason: Reason,
    /// What happened.
    pub message: String,
    /// When.
    pub time: Timestamp,
}

impl LastError {
    /// Seen now.
    pub fn now(reason: Reason, message: String) -> Self {
        Self {
            reason,
            message,
            time: Timestamp::now(),
        }
    }
}

/// Whether the node is as ordered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Applied {
    /// Nothing was ordered.
    #[default]
    NotAsked,
    /// The agent is at it.
    Applying,
    /// It is, verified.
    Yes,
    /// It is not.
    No(Reason, String),
}

/// Whether the node stayed as it was applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Drift {
    /// Nothing was applied, or not looked at since.
    #[default]
    Unknown,
    /// It did.
    InSync,
    /// It did not, and is being repaired.
    Repairing(String),
    /// It did not, and was repaired.
    Repaired(String),
    /// It did not, and cannot be repaired.
    Failed(Reason, String),
}

/// Whether pods may count on what was applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Trust {
    /// They may, as far as is known.
    #[default]
    Yes,
    /// The node is not as applied, and could not be repaired again and again: its runtimes are not reported, so that it gets no pods.
    No,
}

impl Report {
    /// The agent's conditions.
    pub fn conditions(&self, old: &[Condition], now: Timestamp) -> Vec<Condition> {
        let mut conditions = Vec::new();
        let mut add = |type_, status, reason: Reason, message: String| {
            let now = Time(now);
            let name = reason.name();
            conditions.push(condition(
                old,
                type_,
                status,
                name,
                message,
                self.generation,
                &now,
            ));
        };
        match &self.applied {
            Applied::NotAsked => {}
            Applied::Applying => add(
                APPLIED,
                Status::Unknown,
                Reason::Applying,
                "the agent carries the order out".to_owned(),
            ),
            Applied::Yes => add(
                APPLIED,
                Status::True,
                Reason::Applied,
                "the node is as ordered, verified".to_owned(),
            ),
            Applied::No(reason, message) => add(APPLIED, Status::False, *reason, message.clone()),
        }
        match &self.drift {
            Drift::Unknown => {}
            Drift::InSync => add(
                DRIFTED,
                Status::False,
                Reason::InSync,
                "the node is as it was applied".to_owned(),
            ),
            Drift::Repairing(what) => add(DRIFTED, Status::True, Reason::Drifted, what.clone()),
            Drift::Repaired(what) => add(
                DRIFTED,
                Status::False,
                Reason::InSync,
                format!("repaired: {what}"),
            ),
            Drift::Failed(reason, message) => add(
                DRIFTED,
                Status::True,
                *reason,
                format!("it could not be repaired: {message}"),
            ),
        }
        conditions
    }

    /// The patch of the status, for server-side apply: the agent's part, and nothing else.
    fn patch(&self, name: &str, conditions: &[Condition]) -> serde_json::Value {
        let mut agent = self.agent.clone();
        agent.last_error = self.last_error.as_ref().map(|error| Failure {
            reason: error.reason,
            message: error.message.clone(),
            time: Some(Time(error.time)),
        });
        serde_json::json!({
            "apiVersion": "wasmlet.dev/v1alpha1",
            "kind": "WasmNode",
            "metadata": { "name": name },
            "status": { "agent": agent, "conditions": conditions },
        })
    }
}

/// Sends reports until the agent ends, as long as there is a WasmNode (its UID is in `there`). An API server that is away gets the newest when it is
/// back.
pub async fn send(
    client: Client,
    name: String,
    mut reports: watch::Receiver<Report>,
    mut there: watch::Receiver<Option<String>>,
) {
    let api: Api<WasmNode> = Api::all(client);
    let parameters = PatchParams::apply(AGENT_MANAGER).force();
    let mut sent: Option<Sent> = None;
    let mut pause = Duration::from_secs(1);
    loop {
        // Until the operator makes one there is nothing to write to.
        let Ok(uid) = there.wait_for(Option::is_some).await.map(|uid| uid.clone()) else {
            return;
        };
        let report = reports.borrow_and_update().clone();
        // Another WasmNode of the same name knows nothing yet.
        sent = sent.filter(|sent| sent.uid == uid);
        if sent.as_ref().is_none_or(|sent| sent.report != report) {
            match try_to_send(&api, &name, &parameters, &report, sent.as_ref()).await {
                Ok(conditions) => {
                    sent = Some(Sent {
                        uid,
                        report,
                        conditions,
                    });
                    pause = Duration::from_secs(1);
                }
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "the node's status was not written; trying again");
                    // Half fixed, half by chance: not all agents come at once to an API server that is back.
                    let millis = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                    let wait = Duration::from_millis(millis / 2 + fastrand::u64(..=millis / 2));
                    pause = (pause * 2).min(PAUSE);
                    // What is newer goes out as soon as the pause is over.
                    tokio::time::sleep(wait).await;
                    continue;
                }
            }
        }
        tokio::select! {
            changed = reports.changed() => if changed.is_err() { return },
            changed = there.changed() => if changed.is_err() { return },
        }
    }
}

/// What was written last, and to which object.
struct Sent {
    uid: Option<String>,
    report: Report,
    conditions: Vec<Condition>,
}

async fn try_to_send(
    api: &Api<WasmNode>,
    name: &str,
    parameters: &PatchParams,
    report: &Report,
    sent: Option<&Sent>,
) -> Result<Vec<Condition>, kube::Error> {
    let old = match sent {
        Some(sent) => sent.conditions.clone(),
        // The first: what an earlier agent said, for the times of its conditions.
        None => api
            .get(name)
            .await?
            .status
            .map(|status| status.conditions)
            .unwrap_or_default(),
    };
    let conditions = report.conditions(&old, Timestamp::now());
    let patch = report.patch(name, &conditions);
    api.patch_status(name, parameters, &Patch::Apply(patch))
        .await?;
    Ok(conditions)
}

/// What a report tells people beside its status: an event when something ended, or went wrong.
pub fn event(before: &Report, after: &Report) -> Option<(EventKind, Reason, String)> {
    if before.applied != after.applied {
        match &after.applied {
            Applied::Yes => {
                return Some((
                    EventKind::Normal,
                    Reason::Applied,
                    format!(
                        "the node has revision {} after {} ms",
                        after.agent.observed_revision, after.agent.last_change_millis
                    ),
                ));
            }
            Applied::No(reason, message) => {
                let how = match after.agent.state {
                    AgentState::Broken => "the node needs help",
                    _ => "the node is as before",
                };
                return Some((EventKind::Warning, *reason, format!("{how}: {message}")));
            }
            Applied::Applying | Applied::NotAsked => {}
        }
    }
    if before.drift != after.drift {
        return match &after.drift {
            Drift::Repairing(what) => Some((EventKind::Warning, Reason::Drifted, what.clone())),
            Drift::Failed(reason, message) => Some((EventKind::Warning, *reason, message.clone())),
            Drift::Repaired(what) => Some((
                EventKind::Normal,
                Reason::InSync,
                format!("repaired: {what}"),
            )),
            Drift::Unknown | Drift::InSync => None,
        };
    }
    None
}

/// How bad an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// Good to know.
    Normal,
    /// Somebody should look.
    Warning,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let mut report = Report {
            applied: Applied::No(Reason::ShimFailed, "one".into()),
            ..Report::default()
        };
        let first = report.conditions(&[], at(1));
        report.applied = Applied::No(Reason::RestartFailed, "two".into());
        let second = report.conditions(&first, at(2));
        assert_eq!(second[0].last_transition_time.0, at(1));
        assert_eq!(second[0].reason, "RestartFailed");
        report.applied = Applied::Yes;
        let third = report.conditions(&second, at(3));
        assert_eq!(third[0].last_transition_time.0, at(3));
    }

    #[test]
    fn the_patch_has_the_agents_part_and_nothing_else() {
        let patch = Report::default().patch("n", &[]);
        let keys = |value: &serde_json::Value| -> Vec<String> {
            value.as_object().unwrap().keys().cloned().collect()
        };
        assert_eq!(keys(&patch), ["apiVersion", "kind", "metadata", "status"]);
        assert_eq!(keys(&patch["status"]), ["agent", "conditions"]);
    }

    #[test]
    fn an_event_is_made_once_for_each_thing_that_happens() {
        let quiet = Report::default();
        let failed = Report {
            applied: Applied::No(Reason::ShimFailed, "it crashed".into()),
            ..Report::default()
        };
        let (kind, reason, message) = event(&quiet, &failed).unwrap();
        assert_eq!((kind, reason), (EventKind::Warning, Reason::ShimFailed));
        assert!(message.contains("as before"), "{message}");
        assert_eq!(event(&failed, &failed), None);
        assert_eq!(event(&quiet, &quiet), None);
    }
}
