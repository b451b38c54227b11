//! The plan.

use std::collections::{BTreeMap, BTreeSet};

use wasmlet_api::target::NodeTarget;

use super::place::{Place, place};
use super::{Change, Expectations, Plan, Refusal, Restart, containerd, node_files};
use crate::config::{self, ConfigError, is_ours};
use crate::facts::{HandlerConfig, HostFacts};
use crate::layout::Source;

/// What has to happen to the node so that it has the target, and nothing else of ours.
///
/// # Errors
/// [`Refusal`]: the node is left as it is.
pub fn plan(facts: &HostFacts, target: &NodeTarget) -> Result<Plan, Refusal> {
    let removing = target.runtimes.is_empty();
    let version = &facts.containerd;
    if !removing && (!version.at_least(1, 6) || version.at_least(3, 0)) {
        return Err(Refusal::ContainerdVersion(version.clone()));
    }
    let ours = node_files::ours(facts, target)?;
    let place = if removing { None } else { Some(place(facts)?) };
    if !removing {
        if let Err(why) = &facts.running {
            return Err(Refusal::NoContainerd { why: why.clone() });
        }
        not_taken(facts, &ours.handlers)?;
    }
    let changes = containerd::changes(facts, place.as_ref(), &ours.handlers)?;
    let expect = expectations(facts, &ours.handlers);
    let mut reasons = Vec::new();
    if let Some(place) = &place {
        reasons.push(format!("{}: {}", place.path.display(), place.why));
    }
    reasons.extend(changes.reasons);
    let (restart, why) = restart(facts, &ours.handlers, changes.candidate.is_none());
    reasons.push(why);

    let mut before_restart = ours.first;
    before_restart.extend(changes.files.into_iter().map(Change::File));
    Ok(Plan {
        before_restart,
        preflight: changes.candidate,
        restart,
        expect,
        after_restart: ours.last,
        reasons,
        advice: advice(facts, place.as_ref()),
        config_version: match &place {
            Some(place) => place.version,
            None => facts.effective.as_ref().map_or(0, |found| found.version),
        },
        written_path: place.map(|place| place.path),
    })
}

/// Whether somebody else has one of our names, in whatever file.
fn not_taken(facts: &HostFacts, ours: &BTreeMap<String, HandlerConfig>) -> Result<(), Refusal> {
    let effective = facts
        .effective
        .as_ref()
        .map_err(|why| Refusal::NoEffective { why: why.clone() })?;
    for path in config::merge_order(&facts.layout.loaded, &facts.files) {
        let Some(document) = super::place::document(facts, &path)? else {
            continue;
        };
        if let Some(name) = ours
            .keys()
            .find(|name| document.handlers.contains_key(*name))
        {
            let by_hand = super::place::text(facts, &path)?.is_some_and(|t| config::by_hand(&t));
            let source = if by_hand {
                ConfigError::TakenByHand(name.clone())
            } else {
                ConfigError::Taken(name.clone())
            };
            return Err(Refusal::Config { path, source });
        }
    }
    for name in ours.keys() {
        if let Some(found) = effective.handlers.get(name)
            && !is_ours(found)
        {
            return Err(Refusal::Taken {
                name: name.clone(),
                runtime_type: found.runtime_type.clone(),
                loaded: facts.layout.loaded.clone(),
            });
        }
    }
    Ok(())
}

fn expectations(facts: &HostFacts, ours: &BTreeMap<String, HandlerConfig>) -> Expectations {
    let Ok(effective) = &facts.effective else {
        return Expectations {
            ours: ours.clone(),
            gone: gone(facts, ours),
            ..Expectations::default()
        };
    };
    let others = effective
        .handlers
        .iter()
        .filter(|(_, handler)| !is_ours(handler))
        .map(|(name, handler)| (name.clone(), handler.clone()))
        .collect();
    Expectations {
        others,
        sandbox_image: effective.sandbox_image.clone(),
        default_handler: effective.default_handler.clone(),
        ours: ours.clone(),
        gone: gone(facts, ours),
    }
}

/// Handlers of ours that are there and not wanted.
fn gone(facts: &HostFacts, ours: &BTreeMap<String, HandlerConfig>) -> BTreeSet<String> {
    let effective = facts.effective.iter().flat_map(|found| &found.handlers);
    let running = facts.running.iter().flat_map(|found| &found.handlers);
    effective
        .chain(running)
        .filter(|(name, handler)| is_ours(handler) && !ours.contains_key(*name))
        .map(|(name, _)| name.clone())
        .collect()
}

/// Whether containerd has to read its configuration again, and why or why not.
fn restart(
    facts: &HostFacts,
    ours: &BTreeMap<String, HandlerConfig>,
    unchanged: bool,
) -> (Restart, String) {
    let why = match &facts.running {
        Err(_) if unchanged => None,
        Err(_) => Some("it does not answer, and its configuration changes".to_owned()),
        Ok(running) => {
            let missing = ours
                .iter()
                .find_map(|(name, wanted)| match running.handlers.get(name) {
                    None => Some(format!("the running one has no handler {name:?}")),
                    Some(found) if !found.starts_the_same(wanted) => Some(format!(
                        "the handler {name:?} of the running one is not as wanted"
                    )),
                    Some(_) => None,
                });
            let extra = running
                .handlers
                .iter()
                .find(|(name, handler)| is_ours(handler) && !ours.contains_key(*name))
                .map(|(name, _)| {
                    format!("the running one has the handler {name:?}, which is not wanted")
                });
            missing.or(extra)
        }
    };
    let unit = &facts.layout.unit;
    match why {
        None => (
            Restart::No,
            "no restart: the running containerd has loaded what is wanted".to_owned(),
        ),
        Some(why) if matches!(facts.layout.source, Source::Watched { .. }) => (
            Restart::Watched,
            format!(
                "no restart: {} reloads containerd by itself; {why}",
                facts.layout.distribution
            ),
        ),
        Some(why) => (
            Restart::Unit { name: unit.clone() },
            format!("restart of {unit}: {why}"),
        ),
    }
}

fn advice(facts: &HostFacts, place: Option<&Place>) -> Vec<String> {
    let mut advice = Vec::new();
    if place.is_none() {
        return advice;
    }
    if let (Ok(effective), Ok(running)) = (&facts.effective, &facts.running) {
        let not_loaded: Vec<_> = effective
            .handlers
            .iter()
            .filter(|(name, handler)| !is_ours(handler) && !running.handlers.contains_key(*name))
            .map(|(name, _)| format!("{name:?}"))
            .collect();
        if !not_loaded.is_empty() {
            advice.push(format!(
                "containerd's files have handlers of others that the running one has not loaded ({}): its next restart loads them",
                not_loaded.join(", ")
            ));
        }
        // Seen on 2.3.7: its transfer service pulls such an image and unpacks nothing of it, so that no container of it starts.
        if facts.containerd.at_least(2, 3) && effective.local_image_pull == Some(false) {
            advice.push(
                "images whose platform is wasi/wasm or wasip1/wasm do not start here: build them for linux too, or set use_local_image_pull = true in [plugins.\"io.containerd.cri.v1.images\"] of containerd's configuration and restart it".to_owned(),
            );
        }
    }
    advice
}
