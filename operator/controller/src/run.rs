//! The operator's life: caches, election, and the loop of looking, planning and acting.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::sync::Notify;

use crate::act::backoff::Backoff;
use crate::act::{ActError, Executor, FailureKind};
use crate::cache::Synced;
use crate::lease::{Candidate, Leader, LeaseError};
use crate::metrics::Metrics;
use crate::plan::{Key, Plan, Sequence, Settings, plan};
use crate::seed;
use crate::serve::{self, Pulse, ServeError, Told};
use crate::watch::{Caches, chain, watch_all};

/// Events come in flocks: after the first one, this is waited for the others.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// The loop turns at least so often.
const IDLE: Duration = Duration::from_secs(60);
/// A WasmRuntime's status, which counts nodes, is written at most once in this time.
const STATUS_REST: Duration = Duration::from_secs(1);
/// So many sequences a round has for each call at a time: then all is planned anew. With more, thousands of nodes that may all change would
/// be one round of minutes, in which no status is written and no failure halts anything.
const ROUND: usize = 8;
/// Longest pause while the API server is away.
const AWAY_MAX: Duration = Duration::from_secs(10);
/// Name of the Lease.
pub const LEASE: &str = "wasmlet-operator";

/// How the operator is to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the planner is told.
    pub settings: Settings,
    /// Name of this replica.
    pub identity: String,
    /// Where health and metrics are served.
    pub listen: SocketAddr,
    /// Whether other replicas may be there.
    pub election: Election,
    /// Calls of the API server at a time.
    pub max_concurrent: usize,
    /// ConfigMap with WasmRuntimes that are made once.
    pub runtimes: Option<String>,
}

/// Whether replicas agree on who acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Election {
    /// By a Lease.
    Lease,
    /// Somebody else sees to it that there is one only.
    None,
}

/// Why the operator ends.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Health and metrics.
    #[error("health and metrics cannot be served")]
    Serve(#[from] ServeError),
    /// Another replica acts now. The process ends, so that nothing of it goes on.
    #[error("this replica is not the leader any more")]
    Lease(#[source] LeaseError),
    /// A task that must not end has.
    #[error("{0} ended, which it must not")]
    TaskEnded(&'static str),
}

/// Runs until `stop` is notified; then finishes what is under way, and lets go of the lease.
///
/// # Errors
/// [`RunError`]
pub async fn run(client: Client, options: Options, stop: Arc<Notify>) -> Result<(), RunError> {
    let caches = Arc::new(Caches::default());
    let metrics = Arc::new(Metrics::default());
    let poke = Arc::new(Notify::new());
    let told = Arc::new(Told {
        pulse: Pulse::default(),
        caches: Arc::clone(&caches),
        metrics: Arc::clone(&metrics),
    });
    let listener = serve::listen(options.listen).await?;
    let serving = serve::serve(listener, Arc::clone(&told));
    let namespace = options.settings.namespace.clone();
    let watching = watch_all(
        client.clone(),
        &namespace,
        Arc::clone(&caches),
        Arc::clone(&poke),
    );
    let operator = Operator {
        executor: Executor::new(
            client.clone(),
            &options.settings.namespace,
            &options.identity,
            Arc::clone(&caches),
            Arc::clone(&metrics),
        ),
        client,
        options,
        caches,
        poke,
        told,
        stopping: AtomicBool::new(false),
    };
    // One task, so that whichever ends takes the others along, calls that are under way included.
    tokio::select! {
        result = operator.live(&stop) => result,
        () = serving => Err(RunError::TaskEnded("the server of health and metrics")),
        () = watching => Err(RunError::TaskEnded("a watch")),
    }
}

struct Operator {
    executor: Executor,
    client: Client,
    options: Options,
    caches: Arc<Caches>,
    poke: Arc<Notify>,
    told: Arc<Told>,
    stopping: AtomicBool,
}

impl Operator {
    async fn live(&self, stop: &Notify) -> Result<(), RunError> {
        let mut leader = match self.options.election {
            Election::None => None,
            Election::Lease => {
                let candidate = Candidate::new(
                    self.client.clone(),
                    &self.options.settings.namespace,
                    LEASE,
                    &self.options.identity,
                );
                tracing::info!(identity = self.options.identity, "waiting for the lease");
                tokio::select! {
                    leader = candidate.elected() => Some(leader),
                    () = self.pulse() => return Ok(()),
                    () = stop.notified() => return Ok(()),
                }
            }
        };
        tracing::info!("this replica acts");
        self.told.metrics.leads(1);
        let lost = async {
            match &mut leader {
                Some(leader) => leader.keep().await,
                None => std::future::pending().await,
            }
        };
        // Losing the lease drops the work where it stands; stopping lets it finish its round.
        tokio::select! {
            error = lost => return Err(RunError::Lease(error)),
            () = self.work(stop) => {}
        }
        if let Some(leader) = leader {
            self.release(leader).await;
        }
        Ok(())
    }

    async fn release(&self, leader: Leader) {
        self.told.metrics.leads(0);
        match leader.release().await {
            Ok(()) => tracing::info!("the lease is free"),
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the lease was not released; it runs out");
            }
        }
    }

    /// A follower lives as long as its runtime turns.
    async fn pulse(&self) {
        loop {
            self.told.pulse.beat();
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    }

    async fn work(&self, stop: &Notify) {
        let seeding = seed::seed(
            &self.client,
            &self.options.settings.namespace,
            self.options.runtimes.as_deref(),
        );
        tokio::join!(seeding, async {
            tokio::join!(self.rounds(), async {
                stop.notified().await;
                tracing::info!("stopping: what is under way is finished");
                self.stopping.store(true, Ordering::Relaxed);
                self.poke.notify_one();
            });
        });
    }

    fn stops(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    async fn rounds(&self) {
        let mut backoff = Backoff::default();
        let mut away = Duration::ZERO;
        let mut wake = Instant::now();
        while !self.stops() {
            self.told.pulse.beat();
            let asleep = wake.saturating_duration_since(Instant::now()).min(IDLE);
            tokio::select! {
                () = self.poke.notified() => {}
                () = tokio::time::sleep(asleep) => {}
            }
            if self.stops() {
                return;
            }
            tokio::time::sleep(DEBOUNCE + away).await;
            if self.caches.synced() == Synced::No {
                wake = Instant::now() + IDLE;
                continue;
            }
            let started = Instant::now();
            let world = self.caches.world();
            let plan = plan(&world, &self.options.settings, Timestamp::now());
            drop(world);
            self.told.metrics.planned(started.elapsed(), &plan.census);
            let round = self.act(plan, &mut backoff).await;
            wake = Instant::now() + round.again;
            away = match round.server {
                Server::There => Duration::ZERO,
                Server::Away => (away.max(DEBOUNCE) * 2)
                    .min(AWAY_MAX)
                    .mul_f64(0.75 + fastrand::f64() / 4.0),
            };
        }
    }

    async fn act(&self, plan: Plan, backoff: &mut Backoff) -> Round {
        let now = Instant::now();
        let planned: std::collections::BTreeSet<&Key> = plan
            .sequences
            .iter()
            .map(|sequence| &sequence.key)
            .collect();
        backoff.keep(|key| planned.contains(key), now);
        let mut round = Round {
            again: plan.wake.map_or(IDLE, until),
            server: Server::There,
        };
        let mut ready = Vec::new();
        for sequence in &plan.sequences {
            match backoff.held(&sequence.key, now) {
                Some(until) => round.soon(until.saturating_duration_since(now)),
                None => ready.push(sequence),
            }
        }
        if !ready.is_empty() {
            // What was done is the ground of the next plan, which may come to more.
            round.again = Duration::ZERO;
        }
        of_one_round(&mut ready, self.options.max_concurrent, |sequence| {
            &sequence.key
        });
        let away = AtomicBool::new(false);
        let results: Vec<_> = futures::stream::iter(ready)
            .map(|sequence| self.perform(sequence, &away))
            .buffer_unordered(self.options.max_concurrent)
            .filter_map(std::future::ready)
            .collect()
            .await;
        for (sequence, result) in results {
            let key = sequence.key.clone();
            match result {
                Ok(()) => {
                    let rest = match key {
                        Key::Status(_) => STATUS_REST,
                        _ => Duration::ZERO,
                    };
                    backoff.succeeded(key, Instant::now(), rest);
                }
                Err(error) => {
                    report(&key, &error);
                    backoff.failed(key, Instant::now(), fastrand::f64());
                }
            }
        }
        if away.load(Ordering::Relaxed) {
            round.server = Server::Away;
        }
        round
    }

    /// None: it was not begun, because the process stops, or because the API server has not answered to another one.
    async fn perform<'a>(
        &self,
        sequence: &'a Sequence,
        away: &AtomicBool,
    ) -> Option<(&'a Sequence, Result<(), ActError>)> {
        if self.stops() || away.load(Ordering::Relaxed) {
            return None;
        }
        let result = self.executor.perform(sequence).await;
        if result.as_ref().is_err_and(ActError::is_everywhere) {
            away.store(true, Ordering::Relaxed);
        }
        Some((sequence, result))
    }
}

/// How a round ended.
struct Round {
    /// When the next one is due, whatever happens.
    again: Duration,
    server: Server,
}

enum Server {
    There,
    Away,
}

impl Round {
    fn soon(&mut self, pause: Duration) {
        self.again = self.again.min(pause);
    }
}

/// Leaves what one round does: statuses before all else, and no more than [`ROUND`] for each call at a time.
fn of_one_round<T>(ready: &mut Vec<T>, concurrent: usize, key: impl Fn(&T) -> &Key) {
    ready.sort_by_key(|each| !matches!(key(each), Key::Status(_)));
    ready.truncate(concurrent * ROUND);
}

fn until(time: Timestamp) -> Duration {
    let left = time.duration_since(Timestamp::now());
    Duration::try_from(left).unwrap_or_default()
}

fn report(key: &Key, error: &ActError) {
    let text = chain(error);
    match error.kind() {
        FailureKind::Conflict | FailureKind::NotFound => {
            tracing::debug!(?key, error = text, "somebody was faster; planned anew");
        }
        FailureKind::Forbidden => tracing::error!(
            ?key,
            error = text,
            "the operator's rights do not suffice; install the ClusterRole and Role of this version"
        ),
        FailureKind::Invalid => {
            tracing::error!(?key, error = text, "the API server does not accept this");
        }
        FailureKind::Server | FailureKind::Away | FailureKind::Timeout => {
            tracing::warn!(?key, error = text, "failed; tried again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_bounded_and_writes_statuses_first() {
        let mut ready: Vec<Key> = (0..5_000).map(|n| Key::Node(format!("n{n}"))).collect();
        ready.push(Key::Status("wasm".to_owned()));
        of_one_round(&mut ready, 16, |key| key);
        assert_eq!(ready.len(), 16 * ROUND);
        assert_eq!(ready[0], Key::Status("wasm".to_owned()));
        assert_eq!(
            ready[1],
            Key::Node("n0".to_owned()),
            "the others in their order"
        );
    }
}
