//! Types of conditions, and how one is changed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// WasmRuntime: the operator works with it (no other runtime has its handlers).
pub const ACCEPTED: &str = "Accepted";
/// WasmRuntime: every chosen node runs what the spec asks for.
pub const READY: &str = "Ready";
/// WasmRuntime: nodes are being changed.
pub const PROGRESSING: &str = "Progressing";
/// WasmRuntime: a node could not be changed; the rollout stands if its threshold is reached.
pub const DEGRADED: &str = "Degraded";
/// WasmRuntime: it cannot be removed, or removed from a node, because pods use it.
pub const IN_USE: &str = "InUse";

/// WasmNode, by the operator: the bundles are in the node's store.
pub const STAGED: &str = "Staged";
/// WasmNode, by the operator: a pod of each runtime's own handler ran on the node.
pub const PROBED: &str = "Probed";
/// WasmNode, by the agent: the node is as its spec says, verified.
pub const APPLIED: &str = "Applied";
/// WasmNode, by the agent: somebody else changed what the agent wrote; it is being repaired.
pub const DRIFTED: &str = "Drifted";

/// The three values of a condition's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody can tell.
    Unknown,
}

impl Status {
    /// As in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Status {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// A condition as it is to be written: `lastTransitionTime` is the old one's as long as the status stays.
pub fn condition(
    old: &[Condition],
    type_: &str,
    status: Status,
    reason: &str,
    message: impl Into<String>,
    generation: Option<i64>,
    now: &Time,
) -> Condition {
    let since = find(old, type_)
        .filter(|old| old.status == status.name())
        .map_or_else(|| now.clone(), |old| old.last_transition_time.clone());
    Condition {
        type_: type_.to_owned(),
        status: status.name().to_owned(),
        reason: reason.to_owned(),
        message: message.into(),
        observed_generation: generation,
        last_transition_time: since,
    }
}

/// The condition of a type.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|found| found.type_ == type_)
}

/// Whether a condition is there and has this status.
pub fn is(conditions: &[Condition], type_: &str, status: Status) -> bool {
    find(conditions, type_).is_some_and(|found| found.status == status.name())
}
