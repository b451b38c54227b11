//! May it be done? A verb and a state in, a verdict out; nothing is done here.
//!
//! Every verb is answered in every state by name, so a new verb does not compile until all of them
//! are decided.

use super::state::State;

/// What containerd can ask of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Start it.
    Start,
    /// Freeze the container.
    Pause,
    /// Thaw the container.
    Resume,
    /// Send a signal.
    Kill,
    /// Forget it and what it left.
    Delete,
    /// Change the container's limits.
    Update,
    /// Add a process to the container.
    Exec,
    /// Write the container to disk.
    Checkpoint,
    /// Change the size of the terminal.
    ResizePty,
    /// Close standard input.
    CloseIo,
    /// Report what it uses.
    Stats,
    /// Report its processes.
    Pids,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Do it.
    Accept,
    /// It is so already: answer as if it had been done.
    Ignore,
    /// Refuse.
    Deny(Denied),
}

/// A refusal: the state and what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot {} a {state} process", verb.name())]
pub struct Denied {
    /// What was asked.
    pub verb: Verb,
    /// Name of the state.
    pub state: &'static str,
}

impl Verb {
    /// Every verb, for tests.
    pub const ALL: [Self; 12] = [
        Self::Start,
        Self::Pause,
        Self::Resume,
        Self::Kill,
        Self::Delete,
        Self::Update,
        Self::Exec,
        Self::Checkpoint,
        Self::ResizePty,
        Self::CloseIo,
        Self::Stats,
        Self::Pids,
    ];

    /// As it stands in a sentence: "cannot … a stopped process".
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Kill => "signal",
            Self::Delete => "delete",
            Self::Update => "update",
            Self::Exec => "add a process to",
            Self::Checkpoint => "checkpoint",
            Self::ResizePty => "resize the terminal of",
            Self::CloseIo => "close the standard input of",
            Self::Stats => "report the usage of",
            Self::Pids => "list the processes of",
        }
    }
}

/// The verdict.
pub fn decide(state: &State, verb: Verb) -> Verdict {
    let deny = Verdict::Deny(Denied {
        verb,
        state: state.name(),
    });
    match state {
        State::Created { .. } => match verb {
            Verb::Start
            | Verb::Kill
            // Deleting what was never started ends it first.
            | Verb::Delete
            | Verb::Update
            | Verb::ResizePty
            | Verb::CloseIo
            | Verb::Stats
            | Verb::Pids => Verdict::Accept,
            Verb::Pause | Verb::Resume | Verb::Exec | Verb::Checkpoint => deny,
        },
        State::Running { .. } => match verb {
            Verb::Pause
            | Verb::Kill
            | Verb::Update
            | Verb::Exec
            | Verb::Checkpoint
            | Verb::ResizePty
            | Verb::CloseIo
            | Verb::Stats
            | Verb::Pids => Verdict::Accept,
            Verb::Resume => Verdict::Ignore,
            Verb::Start | Verb::Delete => deny,
        },
        State::Paused { .. } => match verb {
            Verb::Resume
            | Verb::Kill
            | Verb::Update
            | Verb::Checkpoint
            | Verb::ResizePty
            | Verb::CloseIo
            | Verb::Stats
            | Verb::Pids => Verdict::Accept,
            Verb::Pause => Verdict::Ignore,
            Verb::Start | Verb::Delete | Verb::Exec => deny,
        },
        State::Stopped { .. } => match verb {
            Verb::Delete => Verdict::Accept,
            // A signal that races with the end of its process has nothing left to do, and a
            // terminal or a standard input went with it.
            Verb::Kill | Verb::CloseIo | Verb::ResizePty => Verdict::Ignore,
            // What it used is asked for to tell why it ended, and until it is deleted containerd takes
            // a container without any process for one that was never there.
            Verb::Stats | Verb::Pids => Verdict::Accept,
            Verb::Start
            | Verb::Pause
            | Verb::Resume
            | Verb::Update
            | Verb::Exec
            | Verb::Checkpoint => deny,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::*;
    use crate::reaper::Exit;

    const CREATED: State = State::Created { pid: Some(7) };
    const RUNNING: State = State::Running { pid: 7 };
    const PAUSED: State = State::Paused { pid: 7 };

    fn stopped() -> State {
        RUNNING.ended(Exit {
            status: 0,
            at: SystemTime::UNIX_EPOCH,
        })
    }

    #[track_caller]
    fn assert_denied(state: &State, verb: Verb) {
        assert_eq!(
            decide(state, verb),
            Verdict::Deny(Denied {
                verb,
                state: state.name()
            })
        );
    }

    #[test]
    fn a_process_starts_once() {
        assert_eq!(decide(&CREATED, Verb::Start), Verdict::Accept);
        assert_denied(&RUNNING, Verb::Start);
        assert_denied(&PAUSED, Verb::Start);
        assert_denied(&stopped(), Verb::Start);
    }

    #[test]
    fn a_signal_after_the_end_is_no_error() {
        assert_eq!(decide(&stopped(), Verb::Kill), Verdict::Ignore);
    }

    #[test]
    fn a_process_that_was_never_started_can_be_killed_and_deleted() {
        assert_eq!(decide(&CREATED, Verb::Kill), Verdict::Accept);
        assert_eq!(decide(&CREATED, Verb::Delete), Verdict::Accept);
    }

    #[test]
    fn a_living_process_is_not_deleted() {
        assert_denied(&RUNNING, Verb::Delete);
        assert_denied(&PAUSED, Verb::Delete);
    }

    #[test]
    fn pause_and_resume_are_idempotent() {
        assert_eq!(decide(&PAUSED, Verb::Pause), Verdict::Ignore);
        assert_eq!(decide(&RUNNING, Verb::Resume), Verdict::Ignore);
    }

    #[test]
    fn a_refusal_reads_as_a_sentence() {
        let Verdict::Deny(denied) = decide(&stopped(), Verb::Exec) else {
            panic!("accepted")
        };
        assert_eq!(
            denied.to_string(),
            "cannot add a process to a stopped process"
        );
    }

    /// Something that happens: containerd asks, or the process ends.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Ask(Verb),
        End(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => proptest::sample::select(Verb::ALL.to_vec()).prop_map(Step::Ask),
            1 => any::<u32>().prop_map(Step::End),
        ]
    }

    /// What a driver does with an accepted verb, as far as the state goes.
    fn apply(state: State, verb: Verb) -> State {
        match verb {
            Verb::Start => state.started(7),
            Verb::Pause => state.paused(),
            Verb::Resume => state.resumed(),
            Verb::Kill
            | Verb::Delete
            | Verb::Update
            | Verb::Exec
            | Verb::Checkpoint
            | Verb::ResizePty
            | Verb::CloseIo
            | Verb::Stats
            | Verb::Pids => state,
        }
    }

    proptest! {
        #[test]
        fn any_order_of_verbs_keeps_the_rules(steps in proptest::collection::vec(step(), 0..60)) {
            let mut state = CREATED;
            let (mut starts, mut first_end) = (0, None);
            for step in steps {
                let before = state;
                match step {
                    Step::End(status) => {
                        let exit = Exit { status, at: SystemTime::UNIX_EPOCH };
                        first_end.get_or_insert(exit);
                        state = state.ended(exit);
                    }
                    Step::Ask(verb) => match decide(&state, verb) {
                        Verdict::Accept => {
                            state = apply(state, verb);
                            starts += u32::from(verb == Verb::Start);
                        }
                        Verdict::Ignore => prop_assert_eq!(apply(state, verb), before),
                        Verdict::Deny(denied) => prop_assert_eq!(denied.state, before.name()),
                    },
                }
                prop_assert!(starts <= 1, "started {} times", starts);
                prop_assert_eq!(state.exit(), first_end, "the first end is the one that counts");
                prop_assert_eq!(state.pid(), Some(7), "an init's process id never changes");
                let may_delete = decide(&state, Verb::Delete) == Verdict::Accept;
                let alive = matches!(state, State::Running { .. } | State::Paused { .. });
                prop_assert_ne!(may_delete, alive);
            }
        }
    }
}
