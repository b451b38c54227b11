//! Objects that many tests need beside their pods.

use k8s_openapi::ByteString;
use serde_json::{Map, Value, json};

use crate::namespace::Namespace;

impl Namespace {
    /// A ConfigMap of any bytes, by key.
    #[track_caller]
    pub fn config_map<B: AsRef<[u8]>>(&self, name: &str, entries: &[(&str, B)]) {
        self.create_object(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name },
            "binaryData": encoded(entries),
        }));
    }

    /// A ConfigMap of text, by key. Variables of the environment come from these only.
    #[track_caller]
    pub fn config_map_of_text(&self, name: &str, entries: &[(&str, &str)]) {
        let data: Map<_, _> = entries
            .iter()
            .map(|(key, text)| ((*key).to_owned(), (*text).into()))
            .collect();
        self.create_object(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": data,
        }));
    }

    /// A Secret, by key.
    #[track_caller]
    pub fn secret<B: AsRef<[u8]>>(&self, name: &str, entries: &[(&str, B)]) {
        self.create_object(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name },
            "data": encoded(entries),
        }));
    }

    /// A Service in front of the pods with the label `app`; gives its address inside the cluster.
    #[track_caller]
    pub fn service(&self, name: &str, app: &str, port: u16, target: u16) -> String {
        let service = self.create_object(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
            "spec": {
                "selector": { "app": app },
                "ports": [{ "port": port, "targetPort": target }],
            },
        }));
        let address = service["spec"]["clusterIP"].as_str();
        address
            .expect("a service of this type has an address")
            .to_owned()
    }

    /// Opens a Service on every node; gives the port.
    #[track_caller]
    pub fn open_service(&self, name: &str) -> u16 {
        let key = ("v1", "Service", name);
        let service = self.patch(key, &json!({ "spec": { "type": "NodePort" } }));
        let port = service["spec"]["ports"][0]["nodePort"].as_u64();
        port.and_then(|port| port.try_into().ok())
            .expect("a node port")
    }

    /// Sets a Deployment's number of pods.
    #[track_caller]
    pub fn scale(&self, deployment: &str, replicas: u32) {
        let key = ("apps/v1", "Deployment", deployment);
        self.patch(key, &json!({ "spec": { "replicas": replicas } }));
    }
}

fn encoded<B: AsRef<[u8]>>(entries: &[(&str, B)]) -> Map<String, Value> {
    let each = entries.iter().map(|(key, bytes)| {
        let bytes = ByteString(bytes.as_ref().to_vec());
        (
            (*key).to_owned(),
            serde_json::to_value(bytes).expect("base64 is JSON"),
        )
    });
    each.collect()
}
