//! Health and metrics over HTTP.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use crate::cache::Synced;
use crate::metrics::Metrics;
use crate::watch::Caches;

/// A loop that has not turned for so long hangs. Far above the longest round: each of its calls has a bound, and the API server's
/// absence does not stop the loop.
const HANGS: Duration = Duration::from_secs(180);
/// For a client to send its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be had.
    #[error("cannot listen on {address}; choose another one with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// When the main loop turned last.
#[derive(Debug)]
pub struct Pulse {
    begun: Instant,
    /// Milliseconds since `begun`.
    last: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            last: AtomicU64::new(0),
        }
    }
}

impl Pulse {
    /// It turns.
    pub fn beat(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    fn silent_for(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.begun.elapsed().saturating_sub(last)
    }
}

/// What is told.
#[derive(Debug)]
pub struct Told {
    /// Of the main loop.
    pub pulse: Pulse,
    /// Ready when they are synced; a follower is ready, too.
    pub caches: Arc<Caches>,
    /// At `/metrics`.
    pub metrics: Arc<Metrics>,
}

/// Opens the port.
///
/// # Errors
/// If it cannot be had.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Listen { address, source })
}

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, told: Arc<Told>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, or a client that left: neither may end the process.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let told = Arc::clone(&told);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let answer = answer(&request, &told);
                async { Ok::<_, Infallible>(answer) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
}

fn answer(request: &Request<Incoming>, told: &Told) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/livez") => live(told),
        (&Method::GET, "/readyz") => ready(told),
        (&Method::GET, "/metrics") => match told.metrics.text() {
            Ok(text) => (StatusCode::OK, text),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        },
        _ => (
            StatusCode::NOT_FOUND,
            "there are /livez, /readyz and /metrics\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    response
}

fn live(told: &Told) -> (StatusCode, String) {
    let silent = told.pulse.silent_for();
    if silent < HANGS {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the main loop has not turned for {} s\n", silent.as_secs()),
        )
    }
}

fn ready(told: &Told) -> (StatusCode, String) {
    match told.caches.synced() {
        Synced::Yes => (StatusCode::OK, "ok\n".to_owned()),
        Synced::No => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the API server's lists are not complete yet\n".to_owned(),
        ),
    }
}
