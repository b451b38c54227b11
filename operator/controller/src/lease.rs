//! Leader election by a Lease: of several replicas one acts.
//!
//! ```text
//!  follower ──the lease is free, released, or was not renewed for DURATION──▶ leader
//!  leader ──renewed every PERIOD; not for DEADLINE: lost──▶ the process ends, another replica takes over
//!  leader ──SIGTERM: released──▶ the process ends, another replica takes over at once
//! ```
//!
//! Writes carry the version that was read, so of two that try one fails. A leader that cannot renew stops DURATION - DEADLINE before anybody
//! else may begin, which is longer than any of its calls takes. No clocks are compared: a follower measures on its own since when a lease
//! has not changed.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};

use tokio::time::Instant;

use crate::act::CALL_TIMEOUT;

/// A lease that was not renewed for so long may be taken.
const DURATION: Duration = Duration::from_secs(20);
/// A leader that could not renew for so long has lost it.
const DEADLINE: Duration = Duration::from_secs(12);
/// Between two renewals, and between two looks of a follower.
const PERIOD: Duration = Duration::from_secs(3);

const _: () = assert!(
    DEADLINE.as_secs() + CALL_TIMEOUT.as_secs() < DURATION.as_secs(),
    "a call may be under way when another replica begins"
);

/// Why a lease could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// As the client says it.
    #[error("cannot {verb} lease {name}")]
    Api {
        /// Of the call.
        verb: &'static str,
        /// Of the lease.
        name: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// It took too long.
    #[error("no answer within {seconds} s about lease {name}", seconds = CALL_TIMEOUT.as_secs())]
    Timeout {
        /// Of the lease.
        name: String,
    },
    /// It is somebody else's.
    #[error("lease {name} was taken by {holder}")]
    Taken {
        /// Of the lease.
        name: String,
        /// Who has it.
        holder: String,
    },
    /// It could not be renewed in time.
    #[error("lease {name} could not be renewed for {seconds} s", seconds = DEADLINE.as_secs())]
    Lost {
        /// Of the lease.
        name: String,
        /// The last failure.
        #[source]
        source: Box<LeaseError>,
    },
}

/// A replica that stands for election.
#[derive(Debug)]
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
}

/// A replica that was elected.
#[derive(Debug)]
pub struct Leader {
    candidate: Candidate,
    lease: Lease,
    renewed: Instant,
}

/// What a follower saw, and since when.
struct Sight {
    version: Option<String>,
    since: Instant,
}

impl Candidate {
    /// For a lease in a namespace; `identity` names this replica.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
        }
    }

    /// Waits until it is elected. Failures are logged and tried again.
    pub async fn elected(self) -> Leader {
        let mut sight = None;
        loop {
            match self.try_once(&mut sight).await {
                Ok(Some(lease)) => {
                    return Leader {
                        candidate: self,
                        lease,
                        renewed: Instant::now(),
                    };
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(error = %crate::watch::chain(&error), "the lease could not be tried");
                }
            }
            tokio::time::sleep(PERIOD.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
        }
    }

    async fn try_once(&self, sight: &mut Option<Sight>) -> Result<Option<Lease>, LeaseError> {
        let found = self.call("get", self.api.get_opt(&self.name)).await?;
        let Some(found) = found else {
            let lease = self.mine(None);
            return self
                .call("create", self.api.create(&PostParams::default(), &lease))
                .await
                .map(Some)
                .or_else(lost_race);
        };
        let version = found.metadata.resource_version.clone();
        let seen = sight.get_or_insert_with(|| Sight {
            version: version.clone(),
            since: Instant::now(),
        });
        if seen.version != version {
            *seen = Sight {
                version,
                since: Instant::now(),
            };
        }
        let holder = holder(&found);
        let free = holder.is_empty() || holder == self.identity || seen.since.elapsed() >= DURATION;
        if !free {
            return Ok(None);
        }
        self.write(&self.mine(Some(&found)))
            .await
            .map(Some)
            .or_else(lost_race)
    }

    /// The lease as held by this replica, on top of what was found.
    fn mine(&self, found: Option<&Lease>) -> Lease {
        let now = MicroTime(Timestamp::now());
        let old = found
            .and_then(|found| found.spec.clone())
            .unwrap_or_default();
        let same = old.holder_identity.as_deref() == Some(&self.identity);
        Lease {
            metadata: found.map_or_else(
                || ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                |found| found.metadata.clone(),
            ),
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: if same {
                    old.acquire_time
                } else {
                    Some(now.clone())
                },
                renew_time: Some(now),
                lease_transitions: Some(
                    old.lease_transitions.unwrap_or_default() + i32::from(!same),
                ),
                ..LeaseSpec::default()
            }),
        }
    }

    async fn write(&self, lease: &Lease) -> Result<Lease, LeaseError> {
        let params = PostParams::default();
        let replace = self.api.replace(&self.name, &params, lease);
        self.call("update", replace).await
    }

    async fn call<T>(
        &self,
        verb: &'static str,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, LeaseError> {
        match tokio::time::timeout(CALL_TIMEOUT, call).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(source)) => Err(LeaseError::Api {
                verb,
                name: self.name.clone(),
                source: Box::new(source),
            }),
            Err(_) => Err(LeaseError::Timeout {
                name: self.name.clone(),
            }),
        }
    }
}

fn holder(lease: &Lease) -> &str {
    lease
        .spec
        .as_ref()
        .and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default()
}

fn is_conflict(error: &LeaseError) -> bool {
    matches!(error, LeaseError::Api { source, .. } if matches!(&**source, kube::Error::Api(status) if status.code == 409))
}

fn lost_race(error: LeaseError) -> Result<Option<Lease>, LeaseError> {
    if is_conflict(&error) {
        Ok(None)
    } else {
        Err(error)
    }
}

impl Leader {
    /// Renews the lease as long as that works.
    ///
    /// # Errors
    /// When it is lost. Whoever led must stop at once.
    pub async fn keep(&mut self) -> LeaseError {
        loop {
            tokio::time::sleep(PERIOD).await;
            let left = DEADLINE.saturating_sub(self.renewed.elapsed());
            let started = Instant::now();
            let renewal = tokio::time::timeout(left, self.renew()).await;
            match renewal {
                // Counted from before the call: the server may have written it then.
                Ok(Ok(())) => self.renewed = started,
                Ok(Err(taken @ LeaseError::Taken { .. })) => return taken,
                Ok(Err(error)) => {
                    if self.renewed.elapsed() >= DEADLINE {
                        return self.lost(error);
                    }
                    tracing::warn!(error = %crate::watch::chain(&error), "the lease could not be renewed");
                }
                Err(_) => {
                    let name = self.candidate.name.clone();
                    return self.lost(LeaseError::Timeout { name });
                }
            }
        }
    }

    fn lost(&self, source: LeaseError) -> LeaseError {
        LeaseError::Lost {
            name: self.candidate.name.clone(),
            source: Box::new(source),
        }
    }

    async fn renew(&mut self) -> Result<(), LeaseError> {
        let candidate = &self.candidate;
        match candidate.write(&candidate.mine(Some(&self.lease))).await {
            Ok(lease) => self.lease = lease,
            Err(error) if is_conflict(&error) => {
                // Somebody wrote it: another replica, or a person who put a label on it.
                let found = candidate
                    .call("get", candidate.api.get(&candidate.name))
                    .await?;
                if holder(&found) != candidate.identity {
                    return Err(LeaseError::Taken {
                        name: candidate.name.clone(),
                        holder: holder(&found).to_owned(),
                    });
                }
                self.lease = candidate.write(&candidate.mine(Some(&found))).await?;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Lets go of it, so that nobody has to wait.
    ///
    /// # Errors
    /// If the API server does not take it; then it runs out.
    pub async fn release(self) -> Result<(), LeaseError> {
        let mut lease = self.candidate.mine(Some(&self.lease));
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
        }
        self.candidate.write(&lease).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests;
