//! `wasmlet-operator cleanup`: deletes every WasmRuntime and waits until the operator that runs has cleaned every node. For the chart's
//! pre-delete hook.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kube::api::{Api, DeleteParams, ListParams};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use wasmlet_api::{WasmNode, WasmRuntime, conditions};

use crate::act::CALL_TIMEOUT;
use crate::watch::chain;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(2);
/// So many lines are printed of what is left.
const LINES: usize = 50;

/// Why it is not clean.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// Time is up.
    #[error(
        "not clean after {seconds} s; left:\n  {left}\nDelete the pods that are named, or set spec.deletionPolicy to Force; see that the operator and the agents run; then try again.{last}"
    )]
    TimedOut {
        /// How long was waited.
        seconds: u64,
        /// What is left, a line each.
        left: String,
        /// The last failure of a call, if there was one.
        last: String,
    },
}

/// Deletes, waits, and prints what changes, each time as a line through `print`.
///
/// # Errors
/// If it is not clean in time.
pub async fn cleanup(
    client: Client,
    timeout: Duration,
    print: impl Fn(&str),
) -> Result<(), CleanupError> {
    let deadline = Instant::now() + timeout;
    let mut said = BTreeSet::new();
    let mut last = String::new();
    loop {
        let left = match look(&client).await {
            Ok(left) => {
                last.clear();
                Some(left)
            }
            Err(error) => {
                last = chain(&error);
                print(&format!("the API server: {last}"));
                None
            }
        };
        if let Some(left) = &left {
            if left.is_empty() {
                print("clean: no WasmRuntime and no WasmNode is left");
                return Ok(());
            }
            for line in left.difference(&said) {
                print(line);
            }
            said.clone_from(left);
        }
        if Instant::now() >= deadline {
            let mut lines: Vec<_> = said.iter().take(LINES).cloned().collect();
            if said.len() > LINES {
                lines.push(format!("and {} more", said.len() - LINES));
            }
            return Err(CleanupError::TimedOut {
                seconds: timeout.as_secs(),
                left: lines.join("\n  "),
                last: if last.is_empty() {
                    String::new()
                } else {
                    format!(" The last call failed: {last}")
                },
            });
        }
        tokio::time::sleep(PERIOD.min(deadline.saturating_duration_since(Instant::now()))).await;
    }
}

/// Deletes what is there, and says what is left.
async fn look(client: &Client) -> Result<BTreeSet<String>, kube::Error> {
    let runtimes = Api::<WasmRuntime>::all(client.clone());
    let mut left = BTreeSet::new();
    for runtime in list(&runtimes).await? {
        let name = runtime.name_any();
        if runtime.metadata.deletion_timestamp.is_none() {
            match runtimes.delete(&name, &DeleteParams::background()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        left.insert(of_runtime(&runtime));
    }
    for node in list(&Api::<WasmNode>::all(client.clone())).await? {
        left.insert(of_node(&node));
    }
    Ok(left)
}

/// All of them; none if the kind is not known: then nothing was ever installed.
async fn list<K>(api: &Api<K>) -> Result<Vec<K>, kube::Error>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let call = async {
        let mut params = ListParams::default().limit(500);
        let mut all = Vec::new();
        loop {
            let page = api.list(&params).await?;
            all.extend(page.items);
            match page.metadata.continue_ {
                Some(token) if !token.is_empty() => params.continue_token = Some(token),
                _ => return Ok(all),
            }
        }
    };
    match tokio::time::timeout(CALL_TIMEOUT * 5, call).await {
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(Vec::new()),
        Ok(result) => result,
        Err(elapsed) => Err(kube::Error::Service(Box::new(elapsed))),
    }
}

fn of_runtime(runtime: &WasmRuntime) -> String {
    let name = runtime.name_any();
    let Some(status) = &runtime.status else {
        return format!("WasmRuntime {name}: the operator has not looked at it");
    };
    let said = |type_: &str| {
        conditions::find(&status.conditions, type_)
            .filter(|found| found.status == "True")
            .map(|found| format!("; {}: {}", found.reason, found.message))
            .unwrap_or_default()
    };
    format!(
        "WasmRuntime {name}: {} nodes to be cleaned{}{}",
        status.nodes.removing,
        said(conditions::IN_USE),
        said(conditions::DEGRADED)
    )
}

fn of_node(node: &WasmNode) -> String {
    let name = node.name_any();
    let status = node.status.as_ref();
    let phase = status
        .and_then(|status| status.phase)
        .map_or("no phase", |phase| phase.name());
    let failure = status
        .and_then(|status| status.change.as_ref()?.failure.as_ref())
        .map(|failure| format!(", {}: {}", failure.reason.name(), failure.message))
        .unwrap_or_default();
    format!("node {name}: {phase}{failure}")
}
