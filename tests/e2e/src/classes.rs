//! RuntimeClasses of a test's own. They belong to no namespace, so the namespace's end does not remove them.

use std::collections::BTreeMap;

use k8s_openapi::api::node::v1::{RuntimeClass, Scheduling};
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams};

use crate::client::block_on;
use crate::cluster::{Cluster, RUN_LABEL, random_hex};

/// A RuntimeClass with a random name, which lives as long as the value.
pub struct TemporaryClass {
    cluster: &'static Cluster,
    name: String,
}

impl TemporaryClass {
    /// A class with a handler, whose pods go to nodes with these labels.
    #[track_caller]
    pub fn new(cluster: &'static Cluster, handler: &str, node_labels: &[(&str, &str)]) -> Self {
        let name = format!("e2e-{}", random_hex());
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let selector: BTreeMap<_, _> = node_labels.iter().map(owned).collect();
        let class = RuntimeClass {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some([(RUN_LABEL.to_owned(), cluster.run_id().to_owned())].into()),
                ..ObjectMeta::default()
            },
            handler: handler.to_owned(),
            scheduling: (!selector.is_empty()).then_some(Scheduling {
                node_selector: Some(selector),
                tolerations: None,
            }),
            overhead: None,
        };
        let created = block_on(Self::api(cluster).create(&PostParams::default(), &class));
        if let Err(error) = created {
            panic!("RuntimeClass {name} cannot be made: {error}");
        }
        Self { cluster, name }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn api(cluster: &Cluster) -> Api<RuntimeClass> {
        Api::all(cluster.client())
    }
}

impl Drop for TemporaryClass {
    fn drop(&mut self) {
        let deleted =
            block_on(Self::api(self.cluster).delete(&self.name, &DeleteParams::default()));
        if let Err(error) = deleted {
            eprintln!("e2e: RuntimeClass {} is left: {error}", self.name);
        }
    }
}
