//! The serving process: everything between the fork in `start` and the shutdown.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use containerd_shim_protos::ttrpc::asynchronous::{Server, transport::Listener};
use tokio::signal::unix::{SignalKind, signal};

use crate::cgroup::settle_ahead;
use crate::engine;
use crate::events::Outbox;
use crate::log::Verbosity;
use crate::paths::Paths;
use crate::pod::ending::Ending;
use crate::pod::{Context, Pod};
use crate::reaper::Reaper;
use crate::service::TaskService;

/// The last events have this long to be delivered; containerd waits 3 s for a shutdown.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// The answer to the shutdown itself has to leave before the server ends.
const LAST_ANSWER: Duration = Duration::from_millis(20);

/// What the process serves.
#[derive(Debug)]
pub struct Serving {
    /// Bound and listening.
    pub listener: UnixListener,
    /// Its file, removed at the end.
    pub socket: PathBuf,
    /// containerd's namespace.
    pub namespace: String,
    /// containerd's gRPC socket.
    pub grpc_address: String,
    /// containerd's socket for events.
    pub ttrpc_address: String,
    /// Bundle of the first container: where the log goes.
    pub bundle: PathBuf,
    /// How much to log.
    pub verbosity: Verbosity,
    /// containerd's `oom_score_adj`, where it could be read.
    pub oom_score_of_containerd: Option<i32>,
    /// The process is being moved into the cgroup that the node's options name.
    pub is_moved: bool,
}

/// Why the process cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A system call.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
    /// The folder of the engines.
    #[error(transparent)]
    Engines(#[from] engine::EngineError),
    /// The ttrpc server.
    #[error("the ttrpc server cannot start")]
    Server(#[source] containerd_shim_protos::ttrpc::Error),
}

/// Serves until containerd shuts the shim down.
///
/// # Errors
/// When the process cannot begin to serve.
pub fn serve(serving: Serving) -> Result<(), ServeError> {
    // One thread serves everything; what blocks runs on threads that end soon after.
    wasmlet_sys::limit_heap_arenas(1);
    if !serving.is_moved {
        // It ends by itself, long before the runtime does.
        drop(settle_ahead());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // A buffer for 1024 is 12 kB in every shim.
        .max_io_events_per_tick(64)
        .max_blocking_threads(16)
        .thread_keep_alive(Duration::from_millis(200))
        .build()
        .map_err(|source| ServeError::System {
            what: "start the runtime",
            source,
        })?;
    runtime.block_on(run(serving))
}

async fn run(serving: Serving) -> Result<(), ServeError> {
    crate::log::to_bundle(&serving.bundle, serving.verbosity);
    raise_oom_score(serving.oom_score_of_containerd);
    let system = |what| move |source| ServeError::System { what, source };
    let reaper = Reaper::start().map_err(system("wait for children"))?;
    let programs = engine::folder()?;
    // Before the first container: from then on its programs are needed. Kept until the process ends.
    let _bundle = crate::bundle_lock::hold(&programs).map_err(system("lock the bundle"))?;
    let (outbox, publisher) = Outbox::start(&serving.ttrpc_address, &serving.namespace);
    let context = Context {
        paths: Paths::new(&serving.grpc_address, &serving.namespace),
        namespace: serving.namespace,
        address: serving.grpc_address,
        engines: programs,
        reaper,
        publisher,
    };
    let ending = Arc::new(Ending::new(serving.socket));
    let service = TaskService::new(Arc::new(Pod::new(context, Arc::clone(&ending))));
    serving
        .listener
        .set_nonblocking(true)
        .map_err(system("prepare the socket"))?;
    let listener = Listener::try_from(serving.listener).map_err(system("listen on the socket"))?;
    let mut server = Server::new()
        .add_listener(listener)
        .register_service(service.services());
    server.start().await.map_err(ServeError::Server)?;

    // A shim is ended by containerd's Shutdown. A stray SIGTERM (a node's shutdown sends it to
    // everybody) must not take the containers with it before their own grace period is over.
    let mut terminate = signal(SignalKind::terminate()).map_err(system("handle SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("handle SIGINT"))?;
    loop {
        tokio::select! {
            () = ending.wait() => break,
            _ = terminate.recv() => tracing::info!("SIGTERM ignored: containerd shuts a shim down"),
            _ = interrupt.recv() => tracing::info!("SIGINT ignored: containerd shuts a shim down"),
        }
    }
    tokio::time::sleep(LAST_ANSWER).await;
    server.stop_listen().await;
    if !outbox.flush(FLUSH_TIMEOUT).await {
        tracing::warn!("events are left in the outbox");
    }
    Ok(())
}

/// Highest `oom_score_adj` (proc(5)).
const OOM_SCORE_ADJ_MAX: i32 = 1000;

/// The kernel shall take a shim before it takes containerd.
fn raise_oom_score(of_containerd: Option<i32>) {
    let Some(score) = of_containerd.filter(|score| *score < OOM_SCORE_ADJ_MAX) else {
        return;
    };
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", (score + 1).to_string()) {
        tracing::warn!(%error, "cannot set the shim's oom_score_adj");
    }
}
