//! containerd's CRI: version, status, pods.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    ListPodSandboxRequest, PodSandboxFilter, PodSandboxState, PodSandboxStateValue, StatusRequest,
    VersionRequest,
};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::facts::CriAnswer;

/// For one call.
const ANSWER: Duration = Duration::from_secs(15);

/// Why containerd's CRI did not answer.
#[derive(Debug, thiserror::Error)]
pub enum CriError {
    /// Nobody listens, or not for us.
    #[error("cannot connect to {}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// A call failed.
    #[error("{call} failed: {}", status.message())]
    Call {
        /// Which.
        call: &'static str,
        /// The answer.
        status: Box<tonic::Status>,
    },
}

/// A containerd.
#[derive(Debug, Clone)]
pub struct Cri {
    socket: PathBuf,
}

/// A pod's sandbox, as containerd has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// `namespace/name` of the pod.
    pub pod: String,
    /// Its runtime handler.
    pub handler: String,
}

/// A connection to a Unix socket, for gRPC.
///
/// # Errors
/// Of connect(2), inside tonic's.
pub(crate) async fn channel(socket: &Path) -> Result<Channel, tonic::transport::Error> {
    let socket = socket.to_owned();
    Endpoint::from_static("http://containerd.invalid")
        .connect_timeout(ANSWER)
        .timeout(ANSWER)
        .connect_with_connector(tower_service(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        }))
        .await
}

/// A function as a service; all of tower for this would be much.
fn tower_service<F>(function: F) -> Connector<F> {
    Connector(function)
}

#[derive(Clone)]
struct Connector<F>(F);

impl<F, Fut, R, E> tower_service::Service<Uri> for Connector<F>
where
    F: FnMut(Uri) -> Fut,
    Fut: Future<Output = Result<R, E>>,
{
    type Response = R;
    type Error = E;
    type Future = Fut;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Fut {
        (self.0)(uri)
    }
}

impl Cri {
    /// At this socket.
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    async fn client(&self) -> Result<RuntimeServiceClient<Channel>, CriError> {
        let channel = channel(&self.socket)
            .await
            .map_err(|source| CriError::Connect {
                socket: self.socket.clone(),
                source,
            })?;
        // The status of a containerd with many handlers is larger than tonic's 4 MB only if something is wrong.
        Ok(RuntimeServiceClient::new(channel))
    }

    /// Version and loaded configuration.
    ///
    /// # Errors
    /// [`CriError`]
    pub async fn answer(&self) -> Result<CriAnswer, CriError> {
        let mut client = self.client().await?;
        let version = client
            .version(VersionRequest {
                version: String::new(),
            })
            .await
            .map_err(failed("Version"))?
            .into_inner();
        let status = client
            .status(StatusRequest { verbose: true })
            .await
            .map_err(failed("Status"))?
            .into_inner();
        Ok(CriAnswer {
            version: version.runtime_version,
            info: status.info.into_iter().collect(),
        })
    }

    /// Whether containerd says that it is ready for pods (`RuntimeReady`; that a CNI is there is not its own affair).
    ///
    /// # Errors
    /// [`CriError`]
    pub async fn is_ready(&self) -> Result<bool, CriError> {
        let status = self
            .client()
            .await?
            .status(StatusRequest { verbose: false })
            .await
            .map_err(failed("Status"))?
            .into_inner();
        let conditions = status.status.map(|status| status.conditions);
        Ok(conditions
            .into_iter()
            .flatten()
            .any(|condition| condition.r#type == "RuntimeReady" && condition.status))
    }

    /// The sandboxes that are ready.
    ///
    /// # Errors
    /// [`CriError`]
    pub async fn sandboxes(&self) -> Result<Vec<Sandbox>, CriError> {
        let request = ListPodSandboxRequest {
            filter: Some(PodSandboxFilter {
                state: Some(PodSandboxStateValue {
                    state: PodSandboxState::SandboxReady.into(),
                }),
                ..Default::default()
            }),
        };
        let list = self
            .client()
            .await?
            .list_pod_sandbox(request)
            .await
            .map_err(failed("ListPodSandbox"))?
            .into_inner();
        Ok(list
            .items
            .into_iter()
            .map(|item| {
                let metadata = item.metadata.unwrap_or_default();
                Sandbox {
                    pod: format!("{}/{}", metadata.namespace, metadata.name),
                    handler: item.runtime_handler,
                }
            })
            .collect())
    }
}

fn failed(call: &'static str) -> impl FnOnce(tonic::Status) -> CriError {
    move |status| CriError::Call {
        call,
        status: Box::new(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("containerd.sock");
        let error = Cri::new(&socket).answer().await.unwrap_err();
        assert!(matches!(error, CriError::Connect { .. }), "{error}");
        assert!(error.to_string().contains("containerd.sock"), "{error}");
    }
}
