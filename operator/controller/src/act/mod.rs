//! The only part that writes to the API server: one call for each action.

pub mod backoff;
mod calls;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::runtime::events::{Recorder, Reporter};

use crate::metrics::Metrics;
use crate::plan::{Action, Sequence};
use crate::watch::Caches;

/// A call that takes longer has failed. Less than what is left of a lease that could not be renewed ([`crate::lease`]), so that nothing
/// is under way when somebody else takes over.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(6);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// The API server refused it, or could not be reached.
    #[error("cannot {verb} {resource} {name}")]
    Api {
        /// Of the call.
        verb: &'static str,
        /// Of the call.
        resource: &'static str,
        /// Of the object.
        name: String,
        /// As the client says it.
        #[source]
        source: Box<kube::Error>,
    },
    /// It took too long.
    #[error("no answer within {seconds} s to {verb} {resource} {name}", seconds = CALL_TIMEOUT.as_secs())]
    Timeout {
        /// Of the call.
        verb: &'static str,
        /// Of the call.
        resource: &'static str,
        /// Of the object.
        name: String,
    },
    /// The object is not in the cache any more; the next plan knows.
    #[error("{resource} {name} is gone")]
    Gone {
        /// Of the call.
        resource: &'static str,
        /// Of the object.
        name: String,
    },
}

/// What kind of failure it is; a label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// 409: somebody was faster.
    Conflict,
    /// 404.
    NotFound,
    /// 401 and 403: the operator's rights do not suffice.
    Forbidden,
    /// 400 and 422: the API server does not accept the object.
    Invalid,
    /// 429, 5xx.
    Server,
    /// No connection.
    Away,
    /// No answer.
    Timeout,
}

impl FailureKind {
    /// As in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Conflict => "Conflict",
            Self::NotFound => "NotFound",
            Self::Forbidden => "Forbidden",
            Self::Invalid => "Invalid",
            Self::Server => "Server",
            Self::Away => "Away",
            Self::Timeout => "Timeout",
        }
    }
}

impl ActError {
    /// What kind of failure it is.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Timeout { .. } => FailureKind::Timeout,
            Self::Gone { .. } => FailureKind::NotFound,
            Self::Api { source, .. } => match &**source {
                kube::Error::Api(status) => match status.code {
                    409 => FailureKind::Conflict,
                    404 => FailureKind::NotFound,
                    401 | 403 => FailureKind::Forbidden,
                    400 | 422 => FailureKind::Invalid,
                    _ => FailureKind::Server,
                },
                _ => FailureKind::Away,
            },
        }
    }

    /// Whether the API server as a whole does not answer, so that other calls need not be tried.
    pub fn is_everywhere(&self) -> bool {
        matches!(self.kind(), FailureKind::Away | FailureKind::Timeout)
    }
}

/// Does what was planned.
#[derive(Clone)]
pub struct Executor {
    client: Client,
    namespace: String,
    caches: Arc<Caches>,
    recorder: Recorder,
    metrics: Arc<Metrics>,
}

impl Executor {
    /// For stage and probe pods in `namespace`; `identity` is in events.
    pub fn new(
        client: Client,
        namespace: &str,
        identity: &str,
        caches: Arc<Caches>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let reporter = Reporter {
            controller: wasmlet_api::names::OPERATOR_MANAGER.to_owned(),
            instance: Some(identity.to_owned()),
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            namespace: namespace.to_owned(),
            caches,
            metrics,
        }
    }

    /// Does the actions of a sequence, until one fails.
    ///
    /// # Errors
    /// Of the first that fails.
    pub async fn perform(&self, sequence: &Sequence) -> Result<(), ActError> {
        for action in &sequence.actions {
            let (verb, resource) = action.call();
            let started = std::time::Instant::now();
            let result = tokio::time::timeout(CALL_TIMEOUT, self.call(action))
                .await
                .unwrap_or_else(|_| {
                    Err(ActError::Timeout {
                        verb,
                        resource,
                        name: calls::name(action),
                    })
                });
            self.metrics
                .called(verb, resource, started.elapsed(), result.as_ref().err());
            match (action, result) {
                (_, Ok(())) => self.metrics.done(action),
                // An event that is not written keeps nothing from going on.
                (Action::Note(_), Err(error)) => {
                    tracing::warn!(error = %crate::watch::chain(&error), "an event was not written");
                }
                (_, Err(error)) => return Err(error),
            }
        }
        Ok(())
    }
}
