//! A shim's own socket, spoken to directly: what containerd never asks is asked here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use containerd_shim_protos::Client;
use containerd_shim_protos::api;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::ttrpc::{self, Code};

use crate::{LONG, Node};

/// Name under which a shim serves tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// containerd 1.6 and 1.7.
    V2,
    /// containerd 2.x.
    V3,
}

impl Service {
    const fn name(self) -> &'static str {
        match self {
            Self::V2 => "containerd.task.v2.Task",
            Self::V3 => "containerd.task.v3.Task",
        }
    }
}

/// What a shim answers when it refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// ttrpc status code.
    pub code: Code,
    /// Its sentence.
    pub message: String,
}

/// See the module.
pub struct Raw {
    client: Client,
    service: Service,
    id: String,
}

impl Raw {
    /// Connects to the shim that serves container `id`.
    #[track_caller]
    pub(crate) fn of_container(node: &Node, namespace: &str, id: &str, service: Service) -> Self {
        let address = address(&node.bundle(namespace, id));
        let client = Client::connect(&address)
            .unwrap_or_else(|error| panic!("cannot connect to the shim at {address}: {error}"));
        Self {
            client,
            service,
            id: id.to_owned(),
        }
    }

    /// Connects to a shim's address, as its `start` printed it.
    #[track_caller]
    pub fn connect(address: &str, id: &str, service: Service) -> Self {
        let client = Client::connect(address)
            .unwrap_or_else(|error| panic!("cannot connect to the shim at {address}: {error}"));
        Self {
            client,
            service,
            id: id.to_owned(),
        }
    }

    /// The container that calls without an id of their own are about.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Calls any method.
    #[track_caller]
    pub fn call<Q: Message, A: Message>(&self, method: &str, message: &Q) -> Result<A, Refusal> {
        let request = ttrpc::Request {
            service: self.service.name().to_owned(),
            method: method.to_owned(),
            payload: message.write_to_bytes().expect("a message can be encoded"),
            timeout_nano: i64::try_from(Duration::as_nanos(&LONG)).expect("fits"),
            ..ttrpc::Request::default()
        };
        match self.client.request(request) {
            Ok(response) => Ok(A::parse_from_bytes(&response.payload)
                .unwrap_or_else(|error| panic!("{method} answers with another message: {error}"))),
            Err(ttrpc::Error::RpcStatus(status)) => Err(Refusal {
                code: status.code(),
                message: status.message().to_owned(),
            }),
            Err(error) => panic!("{method} got no answer: {error}"),
        }
    }

    /// Process id of the shim and of the init, as Connect tells.
    pub fn shim(&self) -> Result<(u32, u32), Refusal> {
        let request = api::ConnectRequest {
            id: self.id.clone(),
            ..Default::default()
        };
        let reply: api::ConnectResponse = self.call("Connect", &request)?;
        Ok((reply.shim_pid, reply.task_pid))
    }

    /// State of a container or exec.
    pub fn state(&self, id: &str, exec: &str) -> Result<api::StateResponse, Refusal> {
        let request = api::StateRequest {
            id: id.to_owned(),
            exec_id: exec.to_owned(),
            ..Default::default()
        };
        self.call("State", &request)
    }

    /// Starts a container or exec.
    pub fn start(&self, id: &str, exec: &str) -> Result<api::StartResponse, Refusal> {
        let request = api::StartRequest {
            id: id.to_owned(),
            exec_id: exec.to_owned(),
            ..Default::default()
        };
        self.call("Start", &request)
    }

    /// Deletes a container or exec.
    pub fn delete(&self, id: &str, exec: &str) -> Result<api::DeleteResponse, Refusal> {
        let request = api::DeleteRequest {
            id: id.to_owned(),
            exec_id: exec.to_owned(),
            ..Default::default()
        };
        self.call("Delete", &request)
    }

    /// Sends a signal.
    pub fn kill(&self, id: &str, exec: &str, signal: u32) -> Result<(), Refusal> {
        let request = api::KillRequest {
            id: id.to_owned(),
            exec_id: exec.to_owned(),
            signal,
            ..Default::default()
        };
        self.call::<_, api::Empty>("Kill", &request).map(drop)
    }

    /// Waits for the end of a container or exec.
    pub fn wait(&self, id: &str, exec: &str) -> Result<api::WaitResponse, Refusal> {
        let request = api::WaitRequest {
            id: id.to_owned(),
            exec_id: exec.to_owned(),
            ..Default::default()
        };
        self.call("Wait", &request)
    }
}

/// Where the shim of a bundle listens.
#[track_caller]
fn address(bundle: &Path) -> String {
    let read = |name: &str| std::fs::read_to_string(bundle.join(name)).ok();
    if let Some(text) = read("bootstrap.json") {
        let json: serde_json::Value = serde_json::from_str(&text).expect("bootstrap.json is JSON");
        return json["address"].as_str().expect("an address").to_owned();
    }
    match read("address") {
        Some(text) => text.trim().to_owned(),
        None => panic!("no shim address in {}", bundle.display()),
    }
}

/// Path of the socket behind an address.
pub fn socket_path(address: &str) -> PathBuf {
    PathBuf::from(address.strip_prefix("unix://").unwrap_or(address))
}
