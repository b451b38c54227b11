//! `/livez`, `/readyz` and `/metrics`.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tokio::net::TcpListener;
use tokio::sync::watch;
use wasmlet_api::node::AgentState;

use super::report::{Drift, Report};

/// Without progress of the agent for so long `/livez` fails: longer than the longest change with all its waits.
const STUCK: Duration = Duration::from_secs(900);
/// A client that sends no request for so long is hung up on.
const HEADERS: Duration = Duration::from_secs(10);

/// Label of a histogram: `outcome`.
type Outcome = [(&'static str, &'static str); 1];

/// What the agent's loop tells the server.
#[derive(Debug)]
pub struct Health {
    started: Instant,
    ready: AtomicBool,
    /// Milliseconds after `started`.
    progress: AtomicU64,
    /// How long changes took, by how they ended.
    changes: Family<Outcome, Histogram, fn() -> Histogram>,
}

impl Health {
    /// Not ready yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            ready: AtomicBool::new(false),
            progress: AtomicU64::new(0),
            changes: Family::new_with_constructor(|| {
                Histogram::new([0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 180.0, 600.0])
            }),
        })
    }

    /// The node was looked at.
    pub fn ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
        self.progress();
    }

    /// The loop came round.
    pub fn progress(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.progress.store(millis, Ordering::Relaxed);
    }

    /// A change ended.
    pub fn changed(&self, state: AgentState, took: Duration) {
        self.changes
            .get_or_create(&[("outcome", state_name(state))])
            .observe(took.as_secs_f64());
    }

    fn is_stuck(&self) -> bool {
        let progress = Duration::from_millis(self.progress.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(progress) > STUCK
    }
}

/// Cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {0}: name another address with --listen")]
pub struct ListenError(SocketAddr, #[source] std::io::Error);

/// Serves for ever.
///
/// # Errors
/// [`ListenError`]
pub async fn serve(
    address: SocketAddr,
    health: Arc<Health>,
    reports: watch::Receiver<Report>,
) -> Result<Infallible, ListenError> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| ListenError(address, error))?;
    let mut registry = Registry::with_prefix("wasmlet_node");
    registry.register_with_unit(
        "change_duration",
        "How long changes of the node took, from facts to verified or put back",
        Unit::Seconds,
        health.changes.clone(),
    );
    registry.register_collector(Box::new(Reported(reports)));
    let registry = Arc::new(registry);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, or a client that has gone: the next may work.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (health, registry) = (Arc::clone(&health), Arc::clone(&registry));
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(&request, &health, &registry);
                async move { Ok::<_, Infallible>(answer) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a client of the health server");
            }
        });
    }
}

fn answer(
    request: &Request<Incoming>,
    health: &Health,
    registry: &Registry,
) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
    }
    match request.uri().path() {
        "/livez" if health.is_stuck() => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "the agent has not come round for a quarter of an hour\n".to_owned(),
        ),
        "/livez" => text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" if health.ready.load(Ordering::Relaxed) => {
            text(StatusCode::OK, "ok\n".to_owned())
        }
        "/readyz" => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "the node was not looked at yet\n".to_owned(),
        ),
        "/metrics" => metrics(registry),
        _ => text(
            StatusCode::NOT_FOUND,
            "there is /livez, /readyz and /metrics\n".to_owned(),
        ),
    }
}

fn metrics(registry: &Registry) -> Response<Full<Bytes>> {
    let mut body = String::new();
    match prometheus_client::encoding::text::encode(&mut body, registry) {
        Ok(()) => {
            let mut response = Response::new(Full::from(body));
            response.headers_mut().insert(
                hyper::header::CONTENT_TYPE,
                hyper::header::HeaderValue::from_static(
                    "application/openmetrics-text; version=1.0.0; charset=utf-8",
                ),
            );
            response
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}

/// Series that are in the report.
struct Reported(watch::Receiver<Report>);

impl fmt::Debug for Reported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reported")
    }
}

impl Collector for Reported {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let report = self.0.borrow().clone();
        let agent = &report.agent;
        let counters = [
            (
                "containerd_restarts",
                "How often the agent restarted containerd",
                agent.restarts,
            ),
            (
                "rollbacks",
                "How often the agent put the node back",
                agent.rollbacks,
            ),
            (
                "repairs",
                "How often the agent repaired what somebody else had changed",
                agent.repairs,
            ),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(u64::try_from(value).unwrap_or(0));
            let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        let drifted = matches!(report.drift, Drift::Repairing(_) | Drift::Failed(..));
        let gauges = [
            (
                "drifted",
                "Whether the node is not as it was applied",
                i64::from(drifted),
            ),
            (
                "bundles",
                "Bundles in the node's store",
                i64::try_from(agent.staged.len()).unwrap_or(0),
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        let help = "1 for the state that the agent is in";
        let gauge = ConstGauge::new(0i64);
        let mut states = encoder.encode_descriptor("state", help, None, gauge.metric_type())?;
        for state in STATES {
            let gauge = ConstGauge::new(i64::from(state == agent.state));
            gauge.encode(states.encode_family(&[("state", state_name(state))])?)?;
        }
        Ok(())
    }
}

const STATES: [AgentState; 6] = [
    AgentState::Idle,
    AgentState::Applying,
    AgentState::Applied,
    AgentState::RolledBack,
    AgentState::Broken,
    AgentState::Refused,
];

fn state_name(state: AgentState) -> &'static str {
    match state {
        AgentState::Idle => "Idle",
        AgentState::Applying => "Applying",
        AgentState::Applied => "Applied",
        AgentState::RolledBack => "RolledBack",
        AgentState::Broken => "Broken",
        AgentState::Refused => "Refused",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn health_and_metrics_are_served() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let health = Health::new();
        let (sender, receiver) = watch::channel(Report::default());
        let server = tokio::spawn(serve(address, Arc::clone(&health), receiver));
        while tokio::net::TcpStream::connect(address).await.is_err() {
            assert!(!server.is_finished());
            tokio::task::yield_now().await;
        }
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 503"));
        health.ready();
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200"));
        sender.send_modify(|report| {
            report.agent.restarts = 3;
            report.agent.state = AgentState::Applied;
        });
        health.changed(AgentState::Applied, Duration::from_secs(2));
        let metrics = get(address, "/metrics").await;
        for line in [
            "wasmlet_node_containerd_restarts_total 3",
            "wasmlet_node_state{state=\"Applied\"} 1",
            "wasmlet_node_state{state=\"Broken\"} 0",
            "wasmlet_node_change_duration_seconds_count{outcome=\"Applied\"} 1",
            "wasmlet_node_drifted 0",
        ] {
            assert!(metrics.contains(line), "no {line:?} in {metrics}");
        }
        assert!(get(address, "/other").await.starts_with("HTTP/1.1 404"));
        server.abort();
    }
}
