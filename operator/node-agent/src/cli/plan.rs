//! `wasmlet-node plan`

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use wasmlet_api::target::NodeTarget;

use super::{Failure, target};
use crate::facts::{Choices, HostFacts, Recorded, gather};
use crate::host::Host;
use crate::layout::Distribution;
use crate::plan::{Shown, plan};

/// Say what would be done to this node so that it has a target, and change nothing.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The target: a NodeTarget in YAML, as in the agent's ConfigMap. Without it: what removing wasmlet would do.
    #[arg(long, value_name = "FILE")]
    target: Option<PathBuf>,
    /// There is no other way; the flag is for scripts that say so.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    node: Node,
}

/// Which node.
#[derive(Debug, Args)]
pub(super) struct Node {
    /// A recorded node instead of this one: a folder with its files, and recorded.json with the answers of systemd and containerd.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// The node's distribution, where it is not recognised: containerd, k3s, rke2, k0s or microk8s.
    #[arg(long, value_name = "NAME")]
    distribution: Option<Distribution>,
}

impl Node {
    /// Looks at it.
    pub(super) fn facts(&self) -> Result<HostFacts, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let choices = Choices {
            distribution: self.distribution,
        };
        let facts = match &self.root {
            Some(root) => {
                let recorded = Recorded::read(root)?;
                runtime.block_on(gather(root, &recorded, &choices))?
            }
            None => runtime.block_on(gather("/".as_ref(), &Host::default(), &choices))?,
        };
        Ok(facts)
    }
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        let target = match &self.target {
            Some(file) => target::read(file)?,
            None => NodeTarget::default(),
        };
        let facts = self.node.facts()?;
        let plan = plan(&facts, &target)?;
        let shown = Shown {
            facts: &facts,
            plan: &plan,
        };
        // Not print!, which panics when the reader has gone.
        write!(std::io::stdout(), "{shown}")?;
        Ok(())
    }
}
