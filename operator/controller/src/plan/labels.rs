//! The ready labels that a node shall have.

use std::collections::BTreeMap;

use wasmlet_api::names::{READY_FALSE, READY_TRUE, ready_label};

use super::accept::RuntimeView;
use super::action::Action;
use super::site::{Site, Standing, entry};

/// Values by key; none: absent. Only of handlers that are known: whatever else is on the node is somebody else's.
pub(super) type Labels = BTreeMap<String, Option<&'static str>>;

/// What the labels of a node shall be, when it stands like this.
///
/// `"true"` needs a runtime that was applied and probed as it is, that still chooses the node, and of which no change goes on.
pub(super) fn wanted(
    site: &Site<'_>,
    standing: &Standing<'_>,
    runtimes: &[RuntimeView<'_>],
) -> Labels {
    let mut handlers = site.involved(runtimes);
    // A label that somebody else put on a node that is not chosen would attract pods which cannot start.
    handlers.extend(runtimes.iter().map(RuntimeView::handler));
    handlers
        .into_iter()
        .map(|handler| {
            let value = if chosen(site, handler, runtimes) {
                value(handler, standing)
            } else {
                None
            };
            (ready_label(handler), value)
        })
        .collect()
}

/// Whether a runtime of this handler chooses the node, or would if it were accepted: then it stays as it is.
fn chosen(site: &Site<'_>, handler: &str, runtimes: &[RuntimeView<'_>]) -> bool {
    let accepted = site
        .chosen
        .iter()
        .any(|index| runtimes[*index].handler() == handler);
    accepted || super::frozen(handler, runtimes)
}

fn value(handler: &str, standing: &Standing<'_>) -> Option<&'static str> {
    let good = entry(standing.verified, handler);
    if let Some(change) = standing.open
        && change.causes.iter().any(|cause| cause.handler == handler)
    {
        return entry(&change.target, handler).map(|_| READY_FALSE);
    }
    match good {
        Some(good) if standing.ready(good) => Some(READY_TRUE),
        Some(_) => Some(READY_FALSE),
        // Tried, and not there: `false` tells it from a node whose turn has not come.
        None => standing
            .spec
            .filter(|_| standing.open.is_none())
            .map(|_| READY_FALSE),
    }
}

/// The action that makes them so; none if they are.
pub(super) fn fix(site: &Site<'_>, wanted: Labels) -> Option<Action> {
    let wrong: Labels = wanted
        .into_iter()
        .filter(|(key, value)| site.node.label(key) != *value)
        .collect();
    (!wrong.is_empty()).then(|| Action::Label {
        node: site.node.name.clone(),
        uid: site.node.uid.clone(),
        labels: wrong,
    })
}
