//! Which nodes begin a change now.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use wasmlet_api::conditions::{self, Status};
use wasmlet_api::node::{Cause, Change, Phase};
use wasmlet_api::reasons::Reason;
use wasmlet_api::runtime::DeletionPolicy;
use wasmlet_api::{NodeRuntime, NodeTarget, WasmNode};

use super::accept::RuntimeView;
use super::action::{Action, Key, NodePart};
use super::budget::{self, Budget, Canaries, Gate};
use super::site::{Site, Standing, entry, ordered_any};
use super::usage::{self, Use};
use super::{Context, Draft, frozen, labels, retry};
use crate::world::Deleting;

/// So many nodes are asked for their pods in one plan; the others have their turn when these are known.
const CHECKS_AT_ONCE: usize = 20;

/// What keeps runtimes from going on, for their status. By position in the list of runtimes.
#[derive(Debug, Default)]
pub(super) struct Outlook<'a> {
    pub(super) canaries: Vec<Canaries<'a>>,
    pub(super) halted: Vec<Halt>,
}

/// Whether a runtime's rollout stands because of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Halt {
    Yes,
    No,
}

/// A runtime that a node does not have as it shall be.
struct Difference<'a> {
    handler: &'a str,
    have: Option<&'a NodeRuntime>,
    want: Option<&'a NodeRuntime>,
}

/// A node that may begin, if there is a slot for it.
struct Candidate<'a, 'b> {
    site: &'b Site<'a>,
    target: NodeTarget,
    causes: Vec<Cause>,
    rank: Rank,
}

/// Who comes first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// It has its slot already.
    Holds,
    Canary,
    Other,
}

/// Plans the beginning of changes.
pub(super) fn start<'a>(
    context: &Context<'_>,
    sites: &[Site<'a>],
    draft: &mut Draft,
) -> Outlook<'a> {
    let outlook = Outlook {
        canaries: context
            .runtimes
            .iter()
            .enumerate()
            .map(|(index, runtime)| budget::canaries(sites, index, runtime, context.now))
            .collect(),
        halted: context
            .runtimes
            .iter()
            .enumerate()
            .map(|(index, runtime)| {
                if budget::halted(sites, index, runtime) {
                    Halt::Yes
                } else {
                    Halt::No
                }
            })
            .collect(),
    };
    for canaries in &outlook.canaries {
        if let Gate::OpensAt(opens) = canaries.gate {
            draft.wake_at(opens);
        }
    }

    let mut checks: BTreeMap<(Option<Timestamp>, &str), &Site<'_>> = BTreeMap::new();
    let mut candidates = Vec::new();
    for site in sites.iter().filter(|site| site.open_change().is_none()) {
        match candidate(context, &outlook, site, &mut checks, draft) {
            Some(candidate) => candidates.push(candidate),
            None => release(site, draft),
        }
    }
    candidates.sort_by(|a, b| (&a.rank, a.site.name()).cmp(&(&b.rank, b.site.name())));
    let mut budget = Budget::new(sites, context.runtimes);
    for candidate in candidates {
        let holds = candidate.rank == Rank::Holds;
        if holds || budget.take(&candidate.site.involved(context.runtimes)) {
            begin(context, &candidate, draft);
        }
    }
    for (_, site) in checks.into_iter().take(CHECKS_AT_ONCE) {
        draft.node(
            site,
            Action::CheckUse {
                node: site.node.name.clone(),
                uid: site.node.uid.clone(),
            },
        );
    }
    outlook
}

/// Gives back the slot of a node that was claimed by an operator which died before it wrote down what for, and that may not begin now.
fn release(site: &Site<'_>, draft: &mut Draft) {
    let Some(found) = site.wasm_node else { return };
    let planned = draft
        .sequences
        .contains_key(&Key::Node(site.name().to_owned()));
    if site.change().is_none() && !ordered_any(found) && !planned {
        delete(site, found, draft);
    }
}

fn delete(site: &Site<'_>, found: &WasmNode, draft: &mut Draft) {
    if let Some(uid) = &found.metadata.uid {
        draft.node(
            site,
            Action::DeleteWasmNode {
                node: site.node.name.clone(),
                uid: uid.clone(),
            },
        );
    }
}

/// What a node would be changed to now; none: nothing, or not yet.
fn candidate<'a, 'b>(
    context: &Context<'_>,
    outlook: &Outlook<'_>,
    site: &'b Site<'a>,
    checks: &mut BTreeMap<(Option<Timestamp>, &'b str), &'b Site<'a>>,
    draft: &mut Draft,
) -> Option<Candidate<'a, 'b>> {
    let differences = differences(context, site);
    let verified = NodeTarget::new(site.verified().to_vec());
    // What was ordered last is not what is verified (a failed change whose target nobody wants any more), or what is verified does not
    // work any more.
    let leftover = site.broken()
        || site
            .wasm_node
            .is_some_and(|found| ordered_any(found) && found.spec.revision != verified.revision());
    if differences.is_empty() && !leftover {
        rest(context, site, draft);
        return None;
    }
    if !site.healthy() {
        return None;
    }

    let mut target = verified.runtimes;
    let mut causes = Vec::new();
    let mut rank = Rank::Other;
    for difference in &differences {
        if !permitted(context, outlook, site, difference, checks, draft) {
            continue;
        }
        target.retain(|runtime| runtime.handler != difference.handler);
        target.extend(difference.want.cloned());
        causes.push(cause(context, difference.handler));
        if is_canary(context, outlook, site, difference.handler) {
            rank = Rank::Canary;
        }
    }
    let target = NodeTarget::new(target);
    let brings = !causes.is_empty();
    // With differences that may not begin yet, a leftover waits with them: it is their failure. But a broken node goes back to what was
    // verified: its slot may be what the others wait for.
    let clears = leftover
        && (differences.is_empty() || site.broken() || site.claimed())
        && !paused(context, site);
    if !brings && clears {
        let all = site.involved(context.runtimes);
        causes = all
            .into_iter()
            .map(|handler| cause(context, handler))
            .collect();
    }
    if !(brings || clears) || clashes(&target) || pauses(context, site, &target, &causes, draft) {
        return None;
    }
    if site.claimed() || site.broken() {
        rank = Rank::Holds;
    }
    Some(Candidate {
        site,
        target,
        causes,
        rank,
    })
}

/// A node that has what it shall have: without a WasmNode if that is nothing; else the failure of a change that nobody wants any more is
/// forgotten.
fn rest(context: &Context<'_>, site: &Site<'_>, draft: &mut Draft) {
    let Some(found) = site.wasm_node else { return };
    let verified = site.verified();
    if site.chosen.is_empty() && verified.is_empty() {
        delete(site, found, draft);
        return;
    }
    let standing = site.standing();
    let works = verified.iter().all(|good| standing.ready(good));
    let status = found.status.clone().unwrap_or_default();
    let stale = status.phase != Some(Phase::Ready)
        || site.change().is_some_and(|last| last.failure.is_some());
    if works && stale && ordered_any(found) {
        draft.node(
            site,
            Action::WriteNode {
                node: site.node.name.clone(),
                part: Box::new(NodePart {
                    phase: Phase::Ready,
                    change: Change {
                        revision: found.spec.revision.clone(),
                        attempt: found.spec.attempt,
                        target: verified.to_vec(),
                        finished: Some(context.time()),
                        ..Change::default()
                    },
                    verified: verified.to_vec(),
                    // Of what runs; what the forgotten change left in them says nothing any more.
                    conditions: [
                        (conditions::STAGED, Reason::Staged),
                        (conditions::PROBED, Reason::Probed),
                    ]
                    .map(|(type_, reason)| {
                        conditions::condition(
                            &status.conditions,
                            type_,
                            Status::True,
                            reason.name(),
                            "of what runs on the node",
                            found.metadata.generation,
                            &context.time(),
                        )
                    })
                    .to_vec(),
                }),
            },
        );
    }
}

/// Whether somebody paused a runtime that a change of the node concerns.
fn paused(context: &Context<'_>, site: &Site<'_>) -> bool {
    site.involved(context.runtimes)
        .into_iter()
        .filter_map(|handler| context.runtime(handler))
        .any(|runtime| is_paused(runtime))
}

fn is_paused(runtime: &RuntimeView<'_>) -> bool {
    runtime.spec().rollout.paused && runtime.deleting == Deleting::No
}

fn differences<'c>(context: &'c Context<'_>, site: &'c Site<'_>) -> Vec<Difference<'c>> {
    site.involved(context.runtimes)
        .into_iter()
        .filter_map(|handler| {
            let have = entry(site.verified(), handler);
            let chosen = site
                .chosen
                .iter()
                .map(|index| &context.runtimes[*index])
                .find(|runtime| runtime.handler() == handler);
            let want = match chosen {
                Some(runtime) => Some(&runtime.want),
                None if frozen(handler, context.runtimes) => have,
                None => None,
            };
            (have != want).then_some(Difference {
                handler,
                have,
                want,
            })
        })
        .collect()
}

fn cause(context: &Context<'_>, handler: &str) -> Cause {
    context.runtime(handler).map_or_else(
        || Cause {
            handler: handler.to_owned(),
            generation: 0,
            retry: String::new(),
        },
        |runtime| runtime.cause.clone(),
    )
}

fn is_canary(context: &Context<'_>, outlook: &Outlook<'_>, site: &Site<'_>, handler: &str) -> bool {
    context
        .runtimes
        .iter()
        .zip(&outlook.canaries)
        .any(|(runtime, canaries)| {
            runtime.handler() == handler && canaries.names.contains(site.name())
        })
}

/// Whether a runtime may be changed on a node now, as far as the runtime is concerned.
fn permitted<'a, 'b>(
    context: &Context<'_>,
    outlook: &Outlook<'_>,
    site: &'b Site<'a>,
    difference: &Difference<'_>,
    checks: &mut BTreeMap<(Option<Timestamp>, &'b str), &'b Site<'a>>,
    draft: &mut Draft,
) -> bool {
    let runtime = context.runtime(difference.handler);
    if let Some(runtime) = runtime
        && (is_paused(runtime)
            || (difference.want.is_some() && !may_install(context, outlook, site, runtime)))
    {
        return false;
    }
    unused(context, site, difference, runtime, checks, draft)
}

fn may_install(
    context: &Context<'_>,
    outlook: &Outlook<'_>,
    site: &Site<'_>,
    runtime: &RuntimeView<'_>,
) -> bool {
    let index = context
        .runtimes
        .iter()
        .position(|found| found.uid == runtime.uid);
    let Some(index) = index else { return false };
    let canaries = &outlook.canaries[index];
    let in_turn = canaries.gate == Gate::Open || canaries.names.contains(site.name());
    // A node that failed is not a further one; it is what a halted rollout waits for.
    let halted = outlook.halted[index] == Halt::Yes && !budget::failing(site, runtime);
    runtime.has_finalizer() && in_turn && !halted
}

/// Whether no pod uses the handlers that the node would lose; if it is not known, asks.
fn unused<'a, 'b>(
    context: &Context<'_>,
    site: &'b Site<'a>,
    difference: &Difference<'_>,
    runtime: Option<&RuntimeView<'_>>,
    checks: &mut BTreeMap<(Option<Timestamp>, &'b str), &'b Site<'a>>,
    draft: &mut Draft,
) -> bool {
    let lost = lost(difference.have, difference.want);
    let force =
        runtime.is_some_and(|runtime| runtime.spec().deletion_policy == DeletionPolicy::Force);
    if lost.is_empty() || force {
        return true;
    }
    let label = wasmlet_api::names::ready_label(difference.handler);
    if difference.want.is_none() && site.node.label(&label).is_some() {
        // The label goes first, so that no pod comes after the list.
        return false;
    }
    match usage::of(context, site, &lost) {
        Use::Free => true,
        Use::Unknown(last) => {
            checks.insert((last, &site.node.name), site);
            false
        }
        Use::By { again, .. } => {
            draft.wake_at(again);
            false
        }
    }
}

/// Handlers that a node has and would not have any more.
pub(super) fn lost(have: Option<&NodeRuntime>, want: Option<&NodeRuntime>) -> BTreeSet<String> {
    let names = |runtime: Option<&NodeRuntime>| -> BTreeSet<String> {
        runtime
            .into_iter()
            .flat_map(NodeRuntime::handlers)
            .map(|handler| handler.name)
            .collect()
    };
    &names(have) - &names(want)
}

/// Whether two runtimes of a target have one handler: an older one grew into a newer one's name. Nothing is changed until one gives way.
fn clashes(target: &NodeTarget) -> bool {
    let mut seen = BTreeSet::new();
    !target
        .runtimes
        .iter()
        .flat_map(NodeRuntime::handlers)
        .all(|handler| seen.insert(handler.name))
}

/// Whether the same change failed on the node, and its pause is not over.
fn pauses(
    context: &Context<'_>,
    site: &Site<'_>,
    target: &NodeTarget,
    causes: &[Cause],
    draft: &mut Draft,
) -> bool {
    let same = site
        .change()
        .is_some_and(|change| change.target == target.runtimes && change.causes == causes);
    match retry::at(site, context.settings) {
        Some(at) if same && context.now < at => {
            draft.wake_at(at);
            true
        }
        _ => false,
    }
}

/// Claims the node: the change is written down first, then the label goes, so that whoever comes after knows why it is `false`.
fn begin(context: &Context<'_>, candidate: &Candidate<'_, '_>, draft: &mut Draft) {
    let site = candidate.site;
    let revision = candidate.target.revision();
    let last = site.change();
    let again = last.is_some_and(|change| {
        change.target == candidate.target.runtimes && change.causes == candidate.causes
    });
    // Never the pair that an agent has seen last.
    let attempt = [
        last.map(|change| (change.revision.as_str(), change.attempt)),
        site.wasm_node
            .map(|found| (found.spec.revision.as_str(), found.spec.attempt)),
    ]
    .into_iter()
    .flatten()
    .filter(|(known, _)| *known == revision)
    .map(|(_, attempt)| attempt)
    .max()
    .unwrap_or_default()
        + 1;
    let change = Change {
        revision,
        attempt,
        target: candidate.target.runtimes.clone(),
        causes: candidate.causes.clone(),
        failures: last
            .filter(|_| again)
            .map(|change| change.failures)
            .unwrap_or_default(),
        since: Some(context.time()),
        finished: None,
        failure: None,
    };

    let standing = Standing {
        open: Some(&change),
        ..site.standing()
    };
    let labels = labels::fix(site, labels::wanted(site, &standing, context.runtimes));
    let removing = change
        .causes
        .iter()
        .all(|cause| entry(&change.target, &cause.handler).is_none());
    let generation = site
        .wasm_node
        .and_then(|found| found.metadata.generation)
        .or(Some(1));
    let unknown = |type_: &str| {
        conditions::condition(
            &[],
            type_,
            Status::Unknown,
            Reason::RollingOut.name(),
            "a change has begun",
            generation,
            &context.time(),
        )
    };
    if site.wasm_node.is_none() {
        draft.node(
            site,
            Action::CreateWasmNode {
                node: site.node.name.clone(),
                node_uid: site.node.uid.clone(),
            },
        );
    }
    draft.node(
        site,
        Action::WriteNode {
            node: site.node.name.clone(),
            part: Box::new(NodePart {
                phase: if removing {
                    Phase::Removing
                } else {
                    Phase::Staging
                },
                verified: site.verified().to_vec(),
                conditions: vec![unknown(conditions::STAGED), unknown(conditions::PROBED)],
                change,
            }),
        },
    );
    if let Some(fix) = labels {
        draft.node(site, fix);
    }
}
