//! How many nodes may be in change at a time, and which come first.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use wasmlet_api::names::CANARY_LABEL;
use wasmlet_api::node::{AgentState, Phase};

use super::accept::RuntimeView;
use super::site;
use super::site::{Site, answer, entry};

/// Slots of each handler: nodes that are in change or broken by one, and how many may be.
#[derive(Debug, Default)]
pub(super) struct Budget {
    slots: BTreeMap<String, Slots>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Slots {
    used: usize,
    most: usize,
}

impl Budget {
    pub(super) fn new(sites: &[Site<'_>], runtimes: &[RuntimeView<'_>]) -> Self {
        let mut nodes: BTreeMap<&str, usize> = BTreeMap::new();
        let mut slots: BTreeMap<String, Slots> = BTreeMap::new();
        for site in sites {
            let holds = site.claimed() || site.broken();
            for handler in site.involved(runtimes) {
                *nodes.entry(handler).or_default() += 1;
                slots.entry(handler.to_owned()).or_default().used += usize::from(holds);
            }
        }
        for (handler, slots) in &mut slots {
            let among = nodes.get(handler.as_str()).copied().unwrap_or_default();
            slots.most = runtimes
                .iter()
                .find(|runtime| runtime.accepted() && runtime.handler() == handler)
                .map_or(1, |runtime| {
                    most(&runtime.spec().rollout.max_unavailable, among)
                });
        }
        Self { slots }
    }

    /// Takes a slot of each handler for one node, or none of any.
    pub(super) fn take(&mut self, handlers: &BTreeSet<&str>) -> bool {
        let free = handlers.iter().all(|handler| {
            self.slots
                .get(*handler)
                .is_some_and(|slots| slots.used < slots.most)
        });
        if free {
            for handler in handlers {
                if let Some(slots) = self.slots.get_mut(*handler) {
                    slots.used += 1;
                }
            }
        }
        free
    }
}

/// `maxUnavailable` of so many nodes. What the schema does not let in counts as one.
pub(super) fn most(max_unavailable: &IntOrString, nodes: usize) -> usize {
    let most = match max_unavailable {
        IntOrString::Int(number) => usize::try_from(*number).unwrap_or(1),
        IntOrString::String(share) => share
            .strip_suffix('%')
            .and_then(|percent| percent.parse::<usize>().ok())
            .map_or(1, |percent| nodes * percent.min(100) / 100),
    };
    most.max(1)
}

/// The nodes that a runtime changes first, and whether the others may follow.
#[derive(Debug, Default)]
pub(super) struct Canaries<'a> {
    pub(super) names: BTreeSet<&'a str>,
    pub(super) gate: Gate,
    /// When the last of them became ready; none: not all are, or there are none.
    pub(super) ready_since: Option<Timestamp>,
}

/// Whether nodes that are no canaries may be changed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    #[default]
    Open,
    /// Canaries are not ready.
    Closed,
    /// From then on.
    OpensAt(Timestamp),
}

/// The canaries of the runtime at `index`.
///
/// Nodes that cannot have it, or that nobody hears of, are none: they would keep the others waiting for ever.
pub(super) fn canaries<'a>(
    sites: &[Site<'a>],
    index: usize,
    runtime: &RuntimeView<'_>,
    now: Timestamp,
) -> Canaries<'a> {
    let canary = &runtime.spec().rollout.canary;
    let number = usize::try_from(canary.nodes).unwrap_or_default();
    if number == 0 {
        return Canaries::default();
    }
    let mut able: Vec<&Site<'a>> = sites
        .iter()
        .filter(|site| site.chosen.contains(&index) && !refused(site))
        .filter(|site| site.healthy() || site.claimed())
        .collect();
    able.sort_by_key(|site| (site.node.label(CANARY_LABEL) != Some("true"), site.name()));
    able.truncate(number);

    let ready = able.iter().all(|site| done(site, runtime));
    let ready_since = ready
        .then(|| {
            able.iter()
                .filter_map(|site| Some(site.change()?.finished.as_ref()?.0))
                .max()
        })
        .flatten();
    let opens =
        ready_since.map(|since| since + SignedDuration::from_secs(i64::from(canary.wait_seconds)));
    Canaries {
        names: able.iter().map(|site| site.name()).collect(),
        gate: match opens {
            _ if !ready => Gate::Closed,
            Some(opens) if now < opens => Gate::OpensAt(opens),
            _ => Gate::Open,
        },
        ready_since,
    }
}

/// Whether the node has the runtime as it shall be, verified, and working.
pub(super) fn done(site: &Site<'_>, runtime: &RuntimeView<'_>) -> bool {
    let standing = site.standing();
    let settled = standing.open.is_none_or(|change| {
        change
            .causes
            .iter()
            .all(|cause| cause.handler != runtime.handler())
    });
    settled
        && entry(standing.verified, runtime.handler())
            .is_some_and(|good| *good == runtime.want && standing.ready(good))
}

/// Whether the agent says that the node cannot have wasmlet. Its answer to an earlier order does not count while a change is being staged.
pub(super) fn refused(site: &Site<'_>) -> bool {
    let Some(found) = site.wasm_node else {
        return false;
    };
    let says_so = answer(&found.spec, site::agent(found))
        == site::Answer::Said(AgentState::Refused)
        && site.open_change().is_none_or(|change| {
            (&change.revision, change.attempt) == (&found.spec.revision, found.spec.attempt)
        });
    let phase = found.status.as_ref().and_then(|status| status.phase);
    phase == Some(Phase::Refused) || (site::ordered_any(found) && says_so)
}

/// Whether a try of the runtime, as it is now, failed on the node, and none has succeeded since.
pub(super) fn failing(site: &Site<'_>, runtime: &RuntimeView<'_>) -> bool {
    let Some(change) = site.change() else {
        return false;
    };
    let same = change.causes.contains(&runtime.cause)
        && entry(&change.target, runtime.handler()) == Some(&runtime.want);
    let failed = change.failure.is_some() || change.failures > 0;
    same && failed
        && !refused(site)
        && entry(site.verified(), runtime.handler()) != Some(&runtime.want)
}

/// Whether so many nodes failed that no further one is started.
pub(super) fn halted(sites: &[Site<'_>], index: usize, runtime: &RuntimeView<'_>) -> bool {
    let threshold = usize::try_from(runtime.spec().rollout.failure_threshold).unwrap_or(1);
    let failing = sites
        .iter()
        .filter(|site| site.chosen.contains(&index) && failing(site, runtime))
        .count();
    failing >= threshold.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_down_and_never_to_none() {
        for (max, nodes, expected) in [
            (IntOrString::Int(1), 10, 1),
            (IntOrString::Int(7), 3, 7),
            (IntOrString::Int(-1), 3, 1),
            (IntOrString::String("10%".to_owned()), 5, 1),
            (IntOrString::String("10%".to_owned()), 29, 2),
            (IntOrString::String("100%".to_owned()), 29, 29),
            (IntOrString::String("ten".to_owned()), 29, 1),
        ] {
            assert_eq!(most(&max, nodes), expected, "{max:?} of {nodes}");
        }
    }
}
