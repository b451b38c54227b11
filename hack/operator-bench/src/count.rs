//! Calls of the API server, by what they are about.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use kube::Client;

use crate::error::{Error, api};

/// Resources that the operator has to do with. Leases are left out: they are renewed by the clock, whatever the number of nodes.
const RESOURCES: [&str; 7] = [
    "events",
    "nodes",
    "pods",
    "runtimeclasses",
    "wasmnodes",
    "wasmruntimes",
    "configmaps",
];

/// Number of calls by `VERB resource/subresource`. A patch that is a server-side apply has the verb APPLY.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Calls(BTreeMap<String, u64>);

impl Calls {
    /// What the API server has counted since its start.
    pub(crate) async fn of(client: &Client) -> Result<Self, Error> {
        let request = hyper::Request::get("/metrics")
            .body(Vec::new())
            .expect("a constant request");
        let text = client
            .request_text(request)
            .await
            .map_err(api("get", "/metrics"))?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut calls = BTreeMap::new();
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix("apiserver_request_total{"));
        for line in lines {
            let Some((labels, value)) = line.split_once("} ") else {
                continue;
            };
            let label = |name: &str| {
                let (_, rest) = labels.split_once(&format!("{name}=\""))?;
                rest.split_once('"').map(|(value, _)| value)
            };
            let resource = label("resource").unwrap_or_default();
            if !RESOURCES.contains(&resource) {
                continue;
            }
            let mut key = format!("{} {resource}", label("verb").unwrap_or_default());
            if let Some(subresource) = label("subresource").filter(|name| !name.is_empty()) {
                key = format!("{key}/{subresource}");
            }
            // Written as a float, whole all the same.
            let value = value.trim().parse::<f64>().unwrap_or_default() as u64;
            *calls.entry(key).or_default() += value;
        }
        Self(calls)
    }

    /// What came after `before`, less `own`.
    pub(crate) fn since(&self, before: &Self, own: &Self) -> Self {
        let each = self.0.iter().map(|(key, now)| {
            let of = |calls: &Self| calls.0.get(key).copied().unwrap_or_default();
            (
                key.clone(),
                now.saturating_sub(of(before)).saturating_sub(of(own)),
            )
        });
        Self(each.filter(|(_, count)| *count > 0).collect())
    }

    /// All of them.
    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// By kind, most frequent first.
    pub(crate) fn sorted(&self) -> Vec<(&str, u64)> {
        let mut all: Vec<_> = self
            .0
            .iter()
            .map(|(key, count)| (key.as_str(), *count))
            .collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        all
    }
}

/// Calls that this program makes itself.
#[derive(Debug, Default)]
pub(crate) struct Own(Mutex<Calls>);

impl Own {
    /// One more.
    pub(crate) fn add(&self, key: &str) {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *calls.0.entry(key.to_owned()).or_default() += 1;
    }

    /// All since the last time.
    pub(crate) fn take(&self) -> Calls {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
apiserver_request_total{code="200",group="wasmlet.dev",resource="wasmnodes",scope="resource",subresource="status",verb="APPLY",version="v1alpha1"} 12
apiserver_request_total{code="409",group="wasmlet.dev",resource="wasmnodes",scope="resource",subresource="status",verb="APPLY",version="v1alpha1"} 1
apiserver_request_total{code="200",group="",resource="nodes",scope="resource",subresource="",verb="PATCH",version="v1"} 3
apiserver_request_total{code="200",group="coordination.k8s.io",resource="leases",scope="resource",subresource="",verb="PUT",version="v1"} 900
"#;

    #[test]
    fn calls_are_added_up_over_their_outcomes_and_own_ones_are_not_counted() {
        let calls = Calls::parse(TEXT);
        assert_eq!(
            calls.sorted(),
            [("APPLY wasmnodes/status", 13), ("PATCH nodes", 3)]
        );
        let own = Own::default();
        own.add("APPLY wasmnodes/status");
        let rest = calls.since(&Calls::default(), &own.take());
        assert_eq!(rest.total(), 15);
        assert_eq!(calls.since(&calls, &own.take()).total(), 0);
    }
}
