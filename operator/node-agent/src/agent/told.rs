//! What an agent remembers of its orders, as it is told to others.

use wasmlet_api::node::{ActiveRuntime, AgentState};

use super::report::{Applied, LastError, Report, Trust};
use crate::apply::state::{Outcome, State};

impl Report {
    /// Takes over what is remembered; the rest of the report stays.
    pub(super) fn tell(&mut self, state: &State) {
        self.agent.version = env!("CARGO_PKG_VERSION").to_owned();
        self.agent.restarts = state.restarts;
        self.agent.rollbacks = state.rollbacks;
        self.agent.repairs = state.repairs;
        self.agent.last_change_millis = state.last_change_millis;
        let applied = state.applied.as_ref().filter(|_| self.trust == Trust::Yes);
        self.agent.runtimes = applied
            .into_iter()
            .flat_map(|target| &target.runtimes)
            .map(|runtime| ActiveRuntime {
                handler: runtime.handler.clone(),
                digest: runtime.digest.clone(),
                version: self
                    .versions
                    .get(&runtime.digest)
                    .cloned()
                    .unwrap_or_default(),
            })
            .collect();
        let Some(last) = &state.last else { return };
        self.agent.observed_revision.clone_from(&last.revision);
        self.agent.observed_attempt = last.attempt;
        let (agent_state, error) = match &last.outcome {
            None => (AgentState::Applying, None),
            Some(Outcome::Applied) => (AgentState::Applied, None),
            Some(Outcome::RolledBack(reason, message)) => {
                (AgentState::RolledBack, Some((*reason, message)))
            }
            Some(Outcome::Broken(reason, message)) => {
                (AgentState::Broken, Some((*reason, message)))
            }
            Some(Outcome::Refused(reason, message)) => {
                (AgentState::Refused, Some((*reason, message)))
            }
        };
        self.agent.state = agent_state;
        self.applied = match (&last.outcome, error) {
            (None, _) => Applied::Applying,
            (Some(_), None) => Applied::Yes,
            (Some(_), Some((reason, message))) => Applied::No(reason, message.clone()),
        };
        match error {
            // Its time is when it was seen first.
            Some((reason, message))
                if self
                    .last_error
                    .as_ref()
                    .is_none_or(|last| (last.reason, &last.message) != (reason, message)) =>
            {
                self.last_error = Some(LastError::now(reason, message.clone()));
            }
            Some(_) => {}
            None if agent_state == AgentState::Applied => self.last_error = None,
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use wasmlet_api::NodeTarget;
    use wasmlet_api::reasons::Reason;

    use super::*;
    use crate::apply::state::Order;

    fn ended(outcome: Option<Outcome>) -> State {
        State {
            last: Some(Order {
                revision: "r".to_owned(),
                attempt: 2,
                begun: 1,
                outcome,
            }),
            ..State::default()
        }
    }

    #[test]
    fn a_failure_keeps_its_time_and_goes_with_the_next_success() {
        let mut report = Report::default();
        let failed = Outcome::RolledBack(Reason::ShimFailed, "no answer".to_owned());
        report.tell(&ended(Some(failed.clone())));
        assert_eq!(report.agent.state, AgentState::RolledBack);
        assert_eq!(
            report.applied,
            Applied::No(Reason::ShimFailed, "no answer".to_owned())
        );
        let first = report.last_error.clone();
        assert!(first.is_some());

        report.tell(&ended(Some(failed)));
        assert_eq!(report.last_error, first, "the same failure, seen again");
        report.tell(&ended(None));
        assert_eq!(report.agent.state, AgentState::Applying);
        assert_eq!(report.last_error, first, "until the next try has succeeded");
        report.tell(&ended(Some(Outcome::Applied)));
        assert_eq!((report.applied, report.last_error), (Applied::Yes, None));
        assert_eq!(report.agent.observed_attempt, 2);
    }

    #[test]
    fn the_runtimes_of_a_node_that_is_not_trusted_are_not_told() {
        let runtime = serde_json::json!({
            "handler": "wasm", "digest": format!("sha256:{}", "1".repeat(64)),
        });
        let state = State {
            applied: Some(NodeTarget::new(vec![
                serde_json::from_value(runtime).unwrap(),
            ])),
            ..ended(Some(Outcome::Applied))
        };
        let mut report = Report::default();
        report.tell(&state);
        assert_eq!(report.agent.runtimes.len(), 1);
        report.trust = Trust::No;
        report.tell(&state);
        assert_eq!(report.agent.runtimes, []);
        assert_eq!(report.agent.state, AgentState::Applied);
    }
}
