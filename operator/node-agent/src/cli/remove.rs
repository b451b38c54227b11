//! `wasmlet-node remove`

use std::time::Duration;

use clap::Args;

use super::{Failure, block_on};
use crate::agent::remove::{self, RemoveError, Users};
use crate::facts::Choices;
use crate::layout::Distribution;

/// Take everything of wasmlet's off this node: configuration, links, settings, bundles, caches.
///
/// Exit codes: 0 the node is as before wasmlet; 20 pods still use it; 21 another agent works on the node; 1 anything else.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of this node, for its labels; without it they are left alone.
    #[arg(long, env = "NODE_NAME")]
    node: Option<String>,
    /// Do not wait for pods that use it. Those go on, and cannot be stopped properly any more.
    #[arg(long)]
    force: bool,
    /// Seconds to wait for pods that use it, and for an agent that is ending.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    /// The node's distribution, where it is not recognised.
    #[arg(long, value_name = "NAME")]
    distribution: Option<Distribution>,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        let users = if self.force {
            Users::LeaveBehind
        } else {
            Users::WaitFor
        };
        let choices = Choices {
            distribution: self.distribution,
        };
        let timeout = Duration::from_secs(self.timeout);
        block_on(async {
            remove::run(self.node.as_deref(), choices, users, timeout)
                .await
                .map_err(|error| Failure {
                    code: match &error {
                        RemoveError::InUse { .. } => 20,
                        RemoveError::Lock(_) => 21,
                        _ => 1,
                    },
                    error: Box::new(error),
                })
        })
    }
}
