//! The closed list of reasons: in conditions, events and metric labels. Free text goes into messages only.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// Why something is as it is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum Reason { $($(#[$doc])* $name,)+ }

        impl Reason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// As in the API and in metrics.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// The reason of this name: that of a condition.
            pub fn of(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.name() == name)
            }
        }
    };
}

reasons! {
    // Of a WasmRuntime.
    /// The operator works with it.
    Accepted,
    /// Another WasmRuntime, made earlier, has one of its handlers.
    HandlerConflict,
    /// A RuntimeClass of a name it needs is somebody else's.
    RuntimeClassConflict,
    /// All chosen nodes run what the spec asks for.
    AllNodesReady,
    /// No node is chosen.
    NoNodes,
    /// Nodes are being changed.
    RollingOut,
    /// The canary nodes are ready; waiting before the rest.
    CanaryWait,
    /// `rollout.paused`.
    Paused,
    /// Too many nodes failed; no further one is started.
    Halted,
    /// Nodes failed, fewer than would halt the rollout.
    NodesFailed,
    /// It is being removed from nodes.
    Removing,
    /// Pods use it.
    InUse,
    /// No pod uses it.
    NotInUse,
    /// Nothing is wrong.
    AsExpected,

    // Of a node, by the operator.
    /// The bundles are in the node's store.
    Staged,
    /// The stage pod's image cannot be pulled.
    ImagePullFailed,
    /// The image has another bundle than the one asked for.
    DigestMismatch,
    /// The stage pod failed for another reason.
    StageFailed,
    /// A pod of each runtime's own handler ran.
    Probed,
    /// A probe pod failed, or did not start in time.
    ProbeFailed,
    /// It took longer than `rollout.nodeTimeoutSeconds`.
    TimedOut,
    /// No agent has answered: its pod is not running on the node.
    AgentMissing,
    /// The node is not Ready.
    NodeNotReady,
    /// It succeeded.
    Succeeded,

    // Of a node, by its agent.
    /// The node is as ordered, verified.
    Applied,
    /// The agent is at it.
    Applying,
    /// Somebody else changed what the agent wrote.
    Drifted,
    /// Nobody did.
    InSync,
    /// The node is of a kind that cannot have wasmlet.
    UnsupportedNode,
    /// systemd does not answer, or is not there.
    NoSystemd,
    /// containerd does not run, or its version or socket cannot be had.
    NoContainerd,
    /// containerd's configuration cannot be read or understood.
    ConfigUnreadable,
    /// A handler of that name is in containerd's configuration already, by somebody else.
    HandlerTaken,
    /// What the node was asked for cannot be had by any node: a name or a number that no WasmRuntime can have.
    TargetInvalid,
    /// A bundle is not in the store, or not what its digest says.
    BundleMissing,
    /// A file could not be written: read-only, full, or not allowed.
    WriteFailed,
    /// containerd does not accept the new configuration, or something of the old would be lost.
    PreflightFailed,
    /// containerd did not come back after its restart.
    RestartFailed,
    /// containerd runs, and does not have the handlers.
    HandlerMissing,
    /// The shim does not answer, or a container of it did not run.
    ShimFailed,
    /// The change failed, and so did putting the node back.
    RollbackFailed,
    /// Another agent works on this node.
    AnotherAgent,
    /// The last change was interrupted; it was taken back.
    Interrupted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_written_as_it_is_named() {
        for reason in Reason::ALL {
            assert_eq!(
                serde_json::to_value(reason).unwrap(),
                serde_json::Value::from(reason.name())
            );
        }
    }
}
