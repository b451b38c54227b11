//! The cluster under test.

use std::sync::LazyLock;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace as NamespaceObject, Node as NodeObject};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use wasmlet_oci_image::Item;
use wasmlet_test_guests::Target;

use crate::client::block_on;
use crate::control::NodeControl;
use crate::env::Env;
use crate::images::{ImageRef, Images};
use crate::wait::{SHORT, wait_for};

/// The label of every namespace of the tests; its value is the run.
pub(crate) const RUN_LABEL: &str = "wasmlet.dev/e2e";

/// The label of nodes that have the shim, by which the RuntimeClasses choose them.
const NODE_LABEL: &str = "wasmlet.dev/ready=true";

/// The RuntimeClasses that must be there.
const RUNTIME_CLASSES: [&str; 4] = ["wasm", "wasm-wasmtime", "wasm-wasmedge", "wasm-wasmer"];

/// A namespace of a run that is over can be removed after this.
const STALE: Duration = Duration::from_secs(3600);

/// A node, as it was when the tests began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// `containerd://2.3.7`.
    pub runtime: String,
    /// Its address inside the cluster.
    pub address: String,
}

impl Node {
    /// containerd's release: `2.3.7`.
    pub fn containerd(&self) -> &str {
        self.runtime
            .strip_prefix("containerd://")
            .unwrap_or(&self.runtime)
    }
}

/// Whether a cluster must have wasmlet when the tests begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wasmlet {
    Installed,
    Absent,
}

/// The cluster under test, and the registry it pulls from.
pub struct Cluster {
    env: Env,
    run: String,
    client: Client,
    nodes: Vec<Node>,
    images: Images,
}

impl Cluster {
    /// The one of this process. Whatever is missing ends the process' tests with the same message each.
    #[track_caller]
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<Result<Cluster, String>> =
            LazyLock::new(|| Cluster::connect(Wasmlet::Installed));
        match &*SHARED {
            Ok(cluster) => cluster,
            Err(error) => panic!("{error}"),
        }
    }

    /// The one of this process, for tests that install wasmlet themselves: its nodes have none of it.
    #[track_caller]
    pub fn without_wasmlet() -> &'static Self {
        static BARE: LazyLock<Result<Cluster, String>> =
            LazyLock::new(|| Cluster::connect(Wasmlet::Absent));
        match &*BARE {
            Ok(cluster) => cluster,
            Err(error) => panic!("{error}"),
        }
    }

    /// Connects, and looks whether what the tests need is there.
    fn connect(wasmlet: Wasmlet) -> Result<Self, String> {
        let env = Env::read().map_err(with_source)?;
        let path = env.kubeconfig.display().to_string();
        let client =
            block_on(client_for(&env, None)).map_err(|error| format!("{path}: {error}"))?;
        let which = match wasmlet {
            Wasmlet::Installed => ListParams::default().labels(NODE_LABEL),
            Wasmlet::Absent => ListParams::default(),
        };
        let nodes = wait_for(SHORT, || {
            ready_nodes(&client, &which).map_err(|error| format!("{path}: {error}"))
        })?;
        let classes: Api<RuntimeClass> = Api::all(client.clone());
        for class in RUNTIME_CLASSES {
            let found =
                block_on(classes.get_opt(class)).map_err(|error| format!("{path}: {error}"))?;
            match (wasmlet, found) {
                (Wasmlet::Installed, None) => {
                    return Err(format!(
                        "RuntimeClass {class} is not there: install wasmlet on the nodes first"
                    ));
                }
                (Wasmlet::Absent, Some(_)) => {
                    return Err(format!(
                        "RuntimeClass {class} is there: these tests install wasmlet themselves, on a cluster without it"
                    ));
                }
                _ => {}
            }
        }
        let images = Images::new(env.registry.clone());
        let cluster = Self {
            env,
            run: random_hex(),
            client,
            nodes,
            images,
        };
        cluster.remove_stale();
        Ok(cluster)
    }

    /// What the surroundings say.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// The nodes with wasmlet that were ready when the tests began.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A node by name.
    #[track_caller]
    pub fn node(&self, name: &str) -> &Node {
        let found = self.nodes.iter().find(|node| node.name == name);
        found.unwrap_or_else(|| panic!("there is no node {name:?}: {:?}", self.nodes))
    }

    /// What may break nodes, where the nodes are there to be broken.
    pub fn control(&self) -> Option<NodeControl> {
        self.env.cluster.as_deref().map(NodeControl::new)
    }

    /// The client, for what the harness has no words for.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A client that has a token and nothing else.
    #[track_caller]
    pub fn client_with_token(&self, token: &str) -> Client {
        match block_on(client_for(&self.env, Some(token))) {
            Ok(client) => client,
            Err(error) => panic!("{}: {error}", self.env.kubeconfig.display()),
        }
    }

    /// Name of this run, in a label of all its namespaces.
    pub fn run_id(&self) -> &str {
        &self.run
    }

    /// The image of a guest of `tests/guests`, compiled to a core module.
    #[track_caller]
    pub fn guest(&self, name: &str) -> String {
        self.images.guest(name, Target::Wasm).by_tag()
    }

    /// The image of a guest compiled for something else.
    #[track_caller]
    pub fn guest_for(&self, name: &str, target: Target) -> String {
        self.images.guest(name, target).by_tag()
    }

    /// The image of a module in WebAssembly text.
    #[track_caller]
    pub fn wat(&self, name: &str, text: &str) -> String {
        self.images.wat(name, text).by_tag()
    }

    /// An image, artifact or index of anything, below `e2e/`.
    #[track_caller]
    pub fn image(&self, name: &str, items: impl IntoIterator<Item = impl Into<Item>>) -> ImageRef {
        self.images.of(
            &format!("e2e/{name}"),
            items.into_iter().map(Into::into).collect(),
        )
    }

    /// busybox.
    #[track_caller]
    pub fn busybox(&self) -> String {
        self.images.busybox().by_tag()
    }

    /// The image of `examples/inference`; none if this run was not given it.
    pub fn inference(&self) -> Option<String> {
        let archive = self.env.inference_image.as_deref()?;
        Some(self.images.archive("e2e/inference", archive).by_tag())
    }

    /// A document of the API server by its path, for example through a node's proxy.
    pub fn get_raw(&self, path: &str) -> Result<Value, String> {
        let request = kube::core::request::Request::new(path);
        let request = request
            .list(&ListParams::default())
            .map_err(|error| error.to_string())?;
        let (mut head, body) = request.into_parts();
        // `list` has put a query behind the path.
        head.uri = path.parse().map_err(|error| format!("{path}: {error}"))?;
        let request = hyper::Request::from_parts(head, body);
        block_on(self.client.request(request)).map_err(|error| format!("{path}: {error}"))
    }

    /// Removes what a run left that was ended, or kept its remains.
    fn remove_stale(&self) {
        let namespaces: Api<NamespaceObject> = Api::all(self.client.clone());
        let Ok(list) = block_on(namespaces.list(&ListParams::default().labels(RUN_LABEL))) else {
            return;
        };
        for namespace in list.items {
            let created = namespace.metadata.creation_timestamp.map(|time| time.0);
            let age = created.map(|at| k8s_openapi::jiff::Timestamp::now().duration_since(at));
            let is_stale = age.is_some_and(|age| age.as_secs().unsigned_abs() > STALE.as_secs());
            if let Some(name) = namespace.metadata.name.filter(|_| is_stale) {
                eprintln!("e2e: removing namespace {name}, left by an earlier run");
                // Not worth failing for: the next run looks again.
                drop(block_on(namespaces.delete(&name, &DeleteParams::default())));
            }
        }
    }
}

async fn client_for(env: &Env, who: Option<&str>) -> Result<Client, Box<dyn std::error::Error>> {
    let mut file = Kubeconfig::read_from(&env.kubeconfig)?;
    if let Some(token) = who {
        let user = serde_json::from_value(serde_json::json!({ "token": token }))?;
        for named in &mut file.auth_infos {
            named.auth_info = Some(AuthInfo::clone(&user));
        }
    }
    let mut config =
        kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    // A followed log is silent for as long as the guest is.
    config.read_timeout = None;
    Ok(Client::try_from(config)?)
}

fn ready_nodes(client: &Client, which: &ListParams) -> Result<Vec<Node>, String> {
    let nodes: Api<NodeObject> = Api::all(client.clone());
    let list = block_on(nodes.list(which)).map_err(|error| error.to_string())?;
    let mut ready: Vec<_> = list.items.into_iter().filter_map(ready_node).collect();
    ready.sort_by(|a, b| a.name.cmp(&b.name));
    if ready.is_empty() {
        let label = which.label_selector.as_deref().unwrap_or("any or no label");
        Err(format!("no node with {label} is Ready"))
    } else {
        Ok(ready)
    }
}

fn ready_node(node: NodeObject) -> Option<Node> {
    let status = node.status?;
    let is_ready = status
        .conditions
        .iter()
        .flatten()
        .any(|c| c.type_ == "Ready" && c.status == "True");
    let address = status
        .addresses
        .into_iter()
        .flatten()
        .find(|address| address.type_ == "InternalIP");
    is_ready.then_some(())?;
    Some(Node {
        name: node.metadata.name?,
        runtime: status.node_info?.container_runtime_version,
        address: address?.address,
    })
}

/// An error with its causes in one line.
pub(crate) fn with_source(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}

/// Eight hexadecimal digits that no other call has given.
pub(crate) fn random_hex() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    let number = RandomState::new().hash_one(std::process::id());
    format!("{:08x}", number & 0xffff_ffff)
}
