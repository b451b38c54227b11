//! Calling containerd's services from tests that are ordinary blocking functions.

use std::future::Future;
use std::sync::LazyLock;

use tokio::runtime::{Builder, Runtime};
pub use tonic::Status;

/// One for all tests: their threads block on it, its two threads do the work.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be built")
});

/// Runs a call to its end.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    RUNTIME.block_on(future)
}

/// Runs something beside the tests.
pub(crate) fn spawn<F>(future: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    RUNTIME.spawn(future);
}

/// A request in containerd namespace `namespace`.
pub(crate) fn in_namespace<T>(message: T, namespace: &str) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let value = namespace.parse().expect("a namespace is plain ASCII");
    request.metadata_mut().insert("containerd-namespace", value);
    request
}

/// `NotFound: no running task …`, for messages.
pub fn status_name(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}
