//! When a node that failed is tried again.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use wasmlet_api::node::{AgentState, Change, Phase};
use wasmlet_api::reasons::Reason;

use super::Settings;
use super::site::{Answer, Site, answer, ordered_any};

/// First pause after the node was not touched: a pull is cheap.
const STAGE_PAUSE: SignedDuration = SignedDuration::from_secs(30);
/// Longest of those.
const STAGE_PAUSE_MAX: SignedDuration = SignedDuration::from_secs(10 * 60);
/// Longest pause after the node's containerd was changed and put back; also of nodes that cannot have wasmlet.
const PAUSE_MAX: SignedDuration = SignedDuration::from_secs(60 * 60);

/// When the last change of a node may be tried again; none: it did not fail.
pub(super) fn at(site: &Site<'_>, settings: &Settings) -> Option<Timestamp> {
    let change = site.change()?;
    let failure = change.failure.as_ref()?;
    let finished = change.finished.as_ref()?.0;
    if answered_late(site, change, failure.reason) {
        return Some(finished);
    }
    let refused = site
        .wasm_node
        .and_then(|found| found.status.as_ref()?.phase)
        == Some(Phase::Refused);
    let (first, most) = match failure.reason {
        _ if refused => (PAUSE_MAX, PAUSE_MAX),
        Reason::ImagePullFailed | Reason::DigestMismatch | Reason::StageFailed => {
            (STAGE_PAUSE, STAGE_PAUSE_MAX)
        }
        _ => (settings.retry_base.min(PAUSE_MAX), PAUSE_MAX),
    };
    Some(finished + grown(first, most, change.failures))
}

/// `first`, doubled for each failure after the first one, at most `most`.
fn grown(first: SignedDuration, most: SignedDuration, failures: i64) -> SignedDuration {
    let doublings = u32::try_from(failures.clamp(1, 20) - 1).unwrap_or_default();
    first
        .checked_mul(1 << doublings)
        .map_or(most, |pause| pause.min(most))
}

/// Whether the operator had given up waiting, and the agent has answered since: there is nothing to pause for.
fn answered_late(site: &Site<'_>, change: &Change, reason: Reason) -> bool {
    let waited = matches!(
        reason,
        Reason::TimedOut | Reason::AgentMissing | Reason::NodeNotReady
    );
    waited
        && site.wasm_node.is_some_and(|found| {
            ordered_any(found)
                && found.spec.revision == change.revision
                && found.spec.attempt == change.attempt
                && answer(&found.spec, site.standing().agent) == Answer::Said(AgentState::Applied)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_up_to_its_bound() {
        let seconds = |failures| grown(STAGE_PAUSE, STAGE_PAUSE_MAX, failures).as_secs();
        assert_eq!(
            [0, 1, 2, 3, 5, 6, 1000, i64::MAX].map(seconds),
            [30, 30, 60, 120, 480, 600, 600, 600]
        );
    }
}
