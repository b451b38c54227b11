//! The agent: a loop that keeps its node as ordered.
//!
//! ```text
//!  WasmNode (watch) ──┐                        ┌─▶ status of the WasmNode (server-side apply)
//!  or a file ─────────┼─▶ Keeper ─▶ Report ────┼─▶ events, metrics
//!  a clock (drift) ───┘                        └─▶ without an operator: labels of the node
//! ```
//!
//! One task decides and acts, and nothing else does; an API server that is away holds nothing up. The end of the agent changes nothing on the
//! node, except that it takes its own empty folders with it where nothing is installed.

mod difference;
pub mod http;
pub mod keeper;
pub mod orders;
pub mod remove;
pub mod report;
pub mod tidy;
mod told;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use wasmlet_api::names::{AGENT_MANAGER, NODE_STORE, READY_FALSE, READY_TRUE, ready_label};
use wasmlet_api::node::AgentState;
use wasmlet_api::reasons::Reason;
use wasmlet_api::{Digest, NodeTarget, WasmNode};

use crate::apply::state::{Outcome, StateError};
use crate::apply::{Applier, LockError};
use crate::errors::Chain;
use crate::facts::Choices;
use crate::host::Host;
use crate::host::node::OwnNode;
use crate::store::stage::{self, StageError};
use http::{Health, ListenError};
use keeper::{Check, Keeper};
use orders::{ConfigError, Wanted};
use report::{EventKind, Report};

/// Between two looks at the configuration file: a ConfigMap takes up to a minute to get into a pod anyway.
const FILE_LOOK: Duration = Duration::from_secs(5);
/// Between two collections of old bundles.
const COLLECT: Duration = Duration::from_secs(3600);
/// After a change, until the bundle that was replaced may be removed.
const SETTLED: Duration = Duration::from_secs(60);
/// A node that cannot be repaired is tried again after a growing pause, at most this.
const MAX_PAUSE: Duration = Duration::from_secs(600);

/// How the agent runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The node's name.
    pub node: String,
    /// Where orders come from.
    pub orders: Orders,
    /// Between two looks for drift.
    pub check_interval: Duration,
    /// Address of `/livez`, `/readyz`, `/metrics`.
    pub listen: SocketAddr,
    /// What an administrator said about the node.
    pub choices: Choices,
}

/// Where orders come from.
#[derive(Debug, Clone)]
pub enum Orders {
    /// The node's WasmNode.
    Operator,
    /// A file.
    File {
        /// Its path.
        path: PathBuf,
        /// The bundle in this image.
        bundle: PathBuf,
    },
}

/// Why the agent ended, or did not start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Another agent.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// What it remembers.
    #[error("what an earlier agent left cannot be used")]
    State(#[from] StateError),
    /// The API.
    #[error("cannot talk to the Kubernetes API: the pod needs its service account's token")]
    Api(#[source] Box<kube::Error>),
    /// Where it serves.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// No signals.
    #[error("cannot wait for signals")]
    Signal(#[source] std::io::Error),
    /// Its file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its own bundle.
    #[error("the bundle of this image cannot be brought to the node's store")]
    Stage(#[from] StageError),
    /// A task that never ends ended.
    #[error("the agent's {0} ended; starting anew")]
    Task(&'static str),
}

/// Runs until SIGTERM.
///
/// # Errors
/// [`AgentError`]
pub async fn run(settings: Settings) -> Result<(), AgentError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(AgentError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AgentError::Signal)?;
    let client = match (Client::try_default().await, &settings.orders) {
        (Ok(client), _) => Some(client),
        (Err(error), Orders::Operator) => return Err(AgentError::Api(Box::new(error))),
        (Err(error), Orders::File { .. }) => {
            tracing::warn!(error = %Chain(&error), "no Kubernetes API: the node's labels are left alone");
            None
        }
    };
    let applier = Applier::lock(Path::new("/"))?;
    let health = Health::new();
    let (reports, report) = watch::channel(Report::default());
    let mut server = tokio::spawn(http::serve(
        settings.listen,
        Arc::clone(&health),
        report.clone(),
    ));
    let host = match &client {
        Some(client) => Host::with_node(OwnNode::new(client.clone(), &settings.node)),
        None => Host::default(),
    };
    tidy::leftovers(&host).await;
    let (wanted, orders) = watch::channel(None);
    let mut background = tokio::task::JoinSet::new();
    if let Some(client) = &client {
        background.spawn(tell(client.clone(), settings.clone(), report.clone()));
        if let Orders::Operator = settings.orders {
            let name = settings.node.clone();
            let (there, exists) = watch::channel(None);
            background.spawn(orders::follow(
                client.clone(),
                name.clone(),
                wanted.clone(),
                there,
            ));
            background.spawn(report::send(client.clone(), name, report.clone(), exists));
        }
    }
    let keeper = Keeper::new(
        host,
        Path::new("/"),
        settings.choices.clone(),
        applier,
        reports.clone(),
    )
    .await?;
    let mut agent = Agent {
        keeper,
        settings,
        health,
        reports,
        wanted,
        orders,
        own: None,
        file_error: None,
        labels: None,
        retry: None,
        pause: FILE_LOOK,
        checked: Instant::now(),
        check_pause: Duration::ZERO,
        collected: Instant::now(),
    };
    tidy::probes(&agent.keeper).await;
    agent.health.ready();
    let (stop, stopping) = watch::channel(false);
    let ended = {
        let mut work = std::pin::pin!(agent.work(stopping));
        loop {
            tokio::select! {
                ended = &mut work => break ended,
                served = &mut server => match served {
                    Ok(Err(error)) => break Err(error.into()),
                    Ok(Ok(never)) => match never {},
                    Err(_) => break Err(AgentError::Task("health server")),
                },
                Some(_) = background.join_next() => break Err(AgentError::Task("connection to the API")),
                // What was begun is brought to its end; if that takes too long for the kubelet, the next agent does it.
                _ = terminate.recv() => { stop.send_replace(true); }
                _ = interrupt.recv() => { stop.send_replace(true); }
            }
        }
    };
    ended?;
    tracing::info!("asked to end");
    tidy::at_end(&agent.keeper).await;
    Ok(())
}

struct Agent {
    keeper: Keeper<Host>,
    settings: Settings,
    health: Arc<Health>,
    reports: watch::Sender<Report>,
    wanted: watch::Sender<Option<Wanted>>,
    orders: watch::Receiver<Option<Wanted>>,
    /// Digest of the bundle in this image.
    own: Option<Digest>,
    /// What was last wrong with the file.
    file_error: Option<String>,
    /// What the node's labels were last made.
    labels: Option<BTreeMap<String, &'static str>>,
    /// Without an operator: when an order that failed is tried again.
    retry: Option<Instant>,
    /// The pause before that.
    pause: Duration,
    checked: Instant,
    /// Beside the interval, after a repair that failed.
    check_pause: Duration,
    collected: Instant,
}

impl Agent {
    async fn work(&mut self, mut stop: watch::Receiver<bool>) -> Result<(), AgentError> {
        while !*stop.borrow_and_update() {
            self.turn().await?;
            self.health.progress();
            let pause = match self.settings.orders {
                Orders::Operator => self.settings.check_interval,
                Orders::File { .. } => FILE_LOOK.min(self.settings.check_interval),
            };
            tokio::select! {
                _ = stop.changed() => {}
                changed = self.orders.changed() => {
                    if changed.is_err() {
                        return Err(AgentError::Task("watch"));
                    }
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
        Ok(())
    }

    /// What is to be done now: an order that is not carried out yet, a look for drift, old bundles.
    async fn turn(&mut self) -> Result<(), AgentError> {
        self.read_file();
        let wanted = self.orders.borrow_and_update().clone();
        if let Some(mut wanted) = wanted {
            self.retry_failed(&mut wanted);
            self.reports
                .send_modify(|report| report.generation = wanted.generation);
            if !self.is_done(&wanted) {
                self.carry_out(&wanted).await?;
            }
            self.label(&wanted.target).await;
        }
        if self.checked.elapsed() >= self.settings.check_interval + self.check_pause {
            self.checked = Instant::now();
            match self.keeper.check().await {
                Check::Failed(_) => {
                    let pause = (self.check_pause * 2).max(self.settings.check_interval);
                    self.check_pause = pause.min(MAX_PAUSE);
                }
                Check::Nothing | Check::InSync | Check::Repaired(_) => {
                    self.check_pause = Duration::ZERO;
                }
            }
        }
        if self.collected.elapsed() >= COLLECT {
            self.collected = Instant::now();
            self.keeper.tidy().await;
        }
        Ok(())
    }

    fn read_file(&mut self) {
        let Orders::File { path, bundle } = &self.settings.orders else {
            return;
        };
        if self.own.is_none() && bundle.exists() {
            match stage::digest(bundle) {
                Ok(digest) => self.own = Some(digest),
                Err(error) => {
                    tracing::error!(error = %Chain(&error), "this image's bundle cannot be used");
                }
            }
        }
        match orders::read(path, self.own.as_ref(), bundle) {
            Ok(wanted) => {
                self.file_error = None;
                self.wanted.send_if_modified(|current| {
                    let differs = current.as_ref() != Some(&wanted);
                    *current = Some(wanted);
                    differs
                });
            }
            // What was wanted before stays wanted: a typing error in a ConfigMap must not take a node down.
            Err(error) => {
                let error = Chain(&error).to_string();
                // It is read again every few seconds, and said once.
                if self.file_error.as_ref() != Some(&error) {
                    tracing::error!(error, "the configuration is left as it was");
                    self.file_error = Some(error);
                }
            }
        }
    }

    /// Without an operator nobody counts attempts: one that failed is followed by the next, after a growing pause.
    fn retry_failed(&mut self, wanted: &mut Wanted) {
        let Orders::File { .. } = self.settings.orders else {
            return;
        };
        let Some(last) = &self.keeper.state().last else {
            return;
        };
        if last.revision != wanted.order.revision {
            self.retry = None;
            self.pause = FILE_LOOK;
            return;
        }
        wanted.order.attempt = last.attempt;
        match &last.outcome {
            Some(Outcome::RolledBack(..)) => match self.retry {
                None => {
                    self.pause = (self.pause * 2).min(MAX_PAUSE);
                    self.retry = Some(Instant::now() + self.pause);
                }
                Some(at) if at <= Instant::now() => {
                    self.retry = None;
                    wanted.order.attempt += 1;
                }
                Some(_) => {}
            },
            // A removal that was ordered by `wasmlet-node remove` is not this agent's.
            Some(Outcome::Applied | Outcome::Broken(..) | Outcome::Refused(..)) | None => {}
        }
    }

    fn is_done(&self, wanted: &Wanted) -> bool {
        self.keeper.state().last.as_ref().is_some_and(|last| {
            (&last.revision, last.attempt) == (&wanted.order.revision, wanted.order.attempt)
                && last.outcome.is_some()
        })
    }

    async fn carry_out(&mut self, wanted: &Wanted) -> Result<(), AgentError> {
        self.claim(&wanted.target).await;
        if let Err(error) = self.stage_own(&wanted.target).await {
            // The plan says that the bundle is missing; this says why.
            tracing::error!(error = %Chain(&error), "this image's bundle was not staged");
        }
        let started = Instant::now();
        self.keeper
            .order(wanted.order.clone(), &wanted.target)
            .await;
        let state = self.reports.borrow().agent.state;
        self.health.changed(state, started.elapsed());
        self.checked = Instant::now();
        // A shim that was being started from the old bundle has its lock by then.
        self.collected = Instant::now()
            .checked_sub(COLLECT - SETTLED)
            .unwrap_or(self.collected);
        tidy::probes(&self.keeper).await;
        Ok(())
    }

    async fn stage_own(&self, target: &NodeTarget) -> Result<(), StageError> {
        let (Orders::File { bundle, .. }, Some(own)) = (&self.settings.orders, &self.own) else {
            return Ok(());
        };
        if !target.runtimes.iter().any(|runtime| runtime.digest == *own) {
            return Ok(());
        }
        let (bundle, own) = (bundle.clone(), own.clone());
        let staged =
            tokio::task::spawn_blocking(move || stage::stage(&bundle, Path::new(NODE_STORE), &own));
        match staged.await {
            Ok(result) => result.map(drop),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Before a change: no new pods.
    async fn claim(&mut self, target: &NodeTarget) {
        let labels = target
            .runtimes
            .iter()
            .map(|runtime| (ready_label(&runtime.handler), READY_FALSE))
            .collect();
        self.set_labels(labels).await;
    }

    /// After a change, and whenever it is looked: pods may come where the runtime is on the node and in order.
    async fn label(&mut self, target: &NodeTarget) {
        let works = {
            let report = self.reports.borrow();
            report.agent.state != AgentState::Broken && report.trust == report::Trust::Yes
        };
        let has = |handler: &str| {
            let applied = self.keeper.state().applied.as_ref();
            applied.is_some_and(|applied| {
                applied
                    .runtimes
                    .iter()
                    .any(|runtime| runtime.handler == handler)
            })
        };
        let labels = target
            .runtimes
            .iter()
            .map(|runtime| {
                let ready = has(&runtime.handler) && works;
                let value = if ready { READY_TRUE } else { READY_FALSE };
                (ready_label(&runtime.handler), value)
            })
            .collect();
        self.set_labels(labels).await;
    }

    async fn set_labels(&mut self, labels: BTreeMap<String, &'static str>) {
        let Orders::File { .. } = self.settings.orders else {
            // The operator's.
            return;
        };
        let Some(node) = self.keeper.machine().node() else {
            return;
        };
        if self.labels.as_ref() == Some(&labels) {
            return;
        }
        match node.set_ready_labels(&labels).await {
            Ok(()) => self.labels = Some(labels),
            Err(error) => {
                self.labels = None;
                tracing::warn!(error = %Chain(&error), "the node's labels were not written; trying again");
            }
        }
    }
}

/// Makes events of what happens, on the object that people look at.
async fn tell(client: Client, settings: Settings, mut reports: watch::Receiver<Report>) {
    let node = OwnNode::new(client.clone(), &settings.node);
    let reporter = Reporter {
        controller: AGENT_MANAGER.to_owned(),
        instance: Some(settings.node.clone()),
    };
    let recorder = Recorder::new(client.clone(), reporter);
    let mut before = reports.borrow_and_update().clone();
    while reports.changed().await.is_ok() {
        let after = reports.borrow_and_update().clone();
        let event = report::event(&before, &after);
        before = after;
        let Some((kind, reason, message)) = event else {
            continue;
        };
        let event = Event {
            type_: match kind {
                EventKind::Normal => EventType::Normal,
                EventKind::Warning => EventType::Warning,
            },
            reason: reason.name().to_owned(),
            // events.k8s.io takes 1024 characters.
            note: Some(message.chars().take(1024).collect()),
            action: action(reason).to_owned(),
            secondary: None,
        };
        let about = match settings.orders {
            Orders::Operator => {
                use kube::Resource as _;
                let api: kube::Api<WasmNode> = kube::Api::all(client.clone());
                let found = api.get(&settings.node).await;
                found.map(|found| found.object_ref(&()))
            }
            Orders::File { .. } => {
                use kube::Resource as _;
                node.get().await.map(|found| found.object_ref(&()))
            }
        };
        let published = match about {
            Ok(about) => recorder.publish(&event, &about).await,
            Err(error) => Err(error),
        };
        if let Err(error) = published {
            // Events are best effort; the status says the same.
            tracing::warn!(error = %Chain(&error), reason = reason.name(), "an event was not written");
        }
    }
}

fn action(reason: Reason) -> &'static str {
    match reason {
        Reason::Drifted | Reason::InSync => "Repair",
        _ => "Apply",
    }
}
