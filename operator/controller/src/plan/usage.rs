//! Which pods keep a runtime on a node.

use std::collections::BTreeSet;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::Context;
use super::site::Site;

/// So long a list of a node's pods is worth something.
const FRESH: SignedDuration = SignedDuration::from_secs(15);

/// What is known of the pods that use some handlers on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Use {
    /// Not asked, or too long ago; since when the last list is.
    Unknown(Option<Timestamp>),
    /// None uses them.
    Free,
    /// These do, as `namespace/name`.
    By {
        pods: Vec<String>,
        /// When to ask again.
        again: Timestamp,
    },
}

/// Pods with one of the handlers on a node, from the last list of them.
pub(super) fn of(context: &Context<'_>, site: &Site<'_>, handlers: &BTreeSet<String>) -> Use {
    let Some(usage) = context
        .world
        .usage
        .get(site.name())
        .filter(|usage| usage.node_uid == site.node.uid)
    else {
        return Use::Unknown(None);
    };
    let again = usage.checked + FRESH;
    if context.now >= again {
        return Use::Unknown(Some(usage.checked));
    }
    let pods = users(context, site, handlers);
    if pods.is_empty() {
        Use::Free
    } else {
        Use::By { pods, again }
    }
}

/// Those of the last list, however old.
pub(super) fn users(
    context: &Context<'_>,
    site: &Site<'_>,
    handlers: &BTreeSet<String>,
) -> Vec<String> {
    let Some(usage) = context
        .world
        .usage
        .get(site.name())
        .filter(|usage| usage.node_uid == site.node.uid)
    else {
        return Vec::new();
    };
    usage
        .pods
        .iter()
        .filter(|(_, class)| {
            // A class that is gone by now had the name of its handler, if it was ours.
            let handler = context
                .world
                .classes
                .get(class)
                .map_or(class.as_str(), |class| &class.handler);
            handlers.contains(handler)
        })
        .map(|(pod, _)| pod.clone())
        .collect()
}
