//! `wasmlet-node agent`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Failure, block_on};
use crate::agent::{self, Orders, Settings};
use crate::facts::Choices;
use crate::layout::Distribution;

/// Keep this node as it is ordered: by its WasmNode, or by a file.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of this node.
    #[arg(long, env = "NODE_NAME")]
    node: String,
    /// Without an operator: what the node shall have, as YAML (docs/node-agent.md). It is read anew when it changes.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// With --config: the bundle that a runtime without a digest means.
    #[arg(long, value_name = "DIR", default_value = "/bundle")]
    bundle: PathBuf,
    /// Seconds between two looks whether somebody else changed the node.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    check_interval: u64,
    /// Address of /livez, /readyz and /metrics.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:8081")]
    listen: SocketAddr,
    /// The node's distribution, where it is not recognised: containerd, k3s, rke2, k0s, microk8s.
    #[arg(long, value_name = "NAME")]
    distribution: Option<Distribution>,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        let orders = match self.config {
            None => Orders::Operator,
            Some(path) => Orders::File {
                path,
                bundle: self.bundle,
            },
        };
        let settings = Settings {
            node: self.node,
            orders,
            check_interval: Duration::from_secs(self.check_interval),
            listen: self.listen,
            choices: Choices {
                distribution: self.distribution,
            },
        };
        block_on(async { Ok(agent::run(settings).await?) })
    }
}
