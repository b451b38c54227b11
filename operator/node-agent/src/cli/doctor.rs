//! `wasmlet-node doctor`

use std::collections::BTreeMap;
use std::io::Write as _;

use clap::Args;
use k8s_openapi::api::core::v1::Node as KubeNode;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};

use super::Failure;
use super::plan::Node;
use crate::doctor::{Cluster, RuntimeClassFacts, examine};
use crate::errors::Chain;

/// Say in plain words why pods of a handler do not start on this node. Exit code 1 if something is wrong.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The handler: the `runtimeClassName` of the pod. May be given more than once.
    #[arg(long, value_name = "NAME", default_value = wasmlet_api::names::DEFAULT_HANDLER)]
    handler: Vec<String>,
    /// Name of this node in Kubernetes; without it the API server is not asked for the label and the RuntimeClass.
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    node_name: Option<String>,
    #[command(flatten)]
    node: Node,
}

/// Something is wrong with the node; what, was printed.
#[derive(Debug, thiserror::Error)]
#[error("{0} found; each with its remedy on standard output")]
struct Problems(String);

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        let facts = self.node.facts()?;
        let cluster = match &self.node_name {
            None => Err("no --node-name was given".to_owned()),
            Some(name) => tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(ask(name))
                .map_err(|error| Chain(&error).to_string()),
        };
        // Not print!, which panics when the reader has gone.
        let mut out = std::io::stdout();
        writeln!(
            out,
            "node: {}, {}, {} with containerd {}",
            facts.os.name, facts.architecture, facts.layout.distribution, facts.containerd
        )?;
        let mut problems = 0;
        for handler in &self.handler {
            let diagnosis = examine(&facts, &cluster, handler);
            problems += diagnosis.problems.len();
            write!(out, "{diagnosis}")?;
        }
        match problems {
            0 => Ok(()),
            1 => Err(Problems("1 problem".to_owned()).into()),
            count => Err(Problems(format!("{count} problems")).into()),
        }
    }
}

async fn ask(name: &str) -> Result<Cluster, kube::Error> {
    let client = Client::try_default().await?;
    let node: KubeNode = Api::all(client.clone()).get(name).await?;
    let classes: Api<RuntimeClass> = Api::all(client);
    let classes = classes.list(&ListParams::default()).await?;
    let runtime_classes = classes
        .items
        .into_iter()
        .map(|class| {
            let selector = class
                .scheduling
                .as_ref()
                .and_then(|scheduling| scheduling.node_selector.clone());
            let name = class.name_any();
            let facts = RuntimeClassFacts {
                handler: class.handler,
                node_selector: selector.unwrap_or_default(),
            };
            (name, facts)
        })
        .collect::<BTreeMap<_, _>>();
    Ok(Cluster {
        node: name.to_owned(),
        labels: node.labels().clone(),
        runtime_classes,
    })
}
