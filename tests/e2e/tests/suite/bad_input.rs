//! What is wrong with a pod is told to whoever made it, within seconds, and costs nobody else anything.
//!
//! Each row of docs/troubleshooting.md is made to happen on each node, and what the user reads must be the row's
//! words: a row without a case fails, and a case without a row.

use std::collections::BTreeSet;
use std::time::Duration;

use wasmlet_e2e::{Container, Namespace, Node, Pod, PodSpec, State, TemporaryClass, eventually};

use crate::case::Case;
use crate::table::{Row, rows, says};

mod pods;

use pods::{Bad, ENDED, REFUSED, Try};

pub(crate) const CASES: &[Case] = &[
    Case::new("every_row_of_the_page_has_a_case", every_row_has_a_case).ci(),
    Case::new("what_cannot_run_is_refused_in_the_pages_words", refused).ci(),
    Case::new("what_is_ended_says_why_in_the_pages_words", ended).ci(),
    Case::new("a_limit_that_is_too_small_never_hangs", tiny_limits),
];

/// For the user to learn what is wrong: an image is pulled, and some are compiled.
const TOLD: Duration = Duration::from_secs(60);

/// For all the bad pods of a node to be gone again.
const GONE: &str = "--timeout=60s";

fn every_row_has_a_case(_: &Namespace) {
    let rows = rows();
    let written: BTreeSet<_> = rows.iter().map(|row| row.message.as_str()).collect();
    assert_eq!(written.len(), rows.len(), "a row is there twice");
    let made: BTreeSet<_> = REFUSED.iter().chain(ENDED).map(|bad| bad.message).collect();
    let without_case: Vec<_> = written.difference(&made).collect();
    let without_row: Vec<_> = made.difference(&written).collect();
    assert!(
        without_case.is_empty() && without_row.is_empty(),
        "rows of docs/troubleshooting.md without a case: {without_case:#?}; cases without a row: {without_row:#?}"
    );
}

fn refused(ns: &Namespace) {
    on_each_node(ns, REFUSED);
}

fn ended(ns: &Namespace) {
    on_each_node(ns, ENDED);
}

fn on_each_node(ns: &Namespace, bad: &'static [Bad]) {
    let rows = rows();
    for node in ns.cluster().nodes() {
        let missing = TemporaryClass::new(ns.cluster(), "wasm-missing", &[]);
        let unready = TemporaryClass::new(ns.cluster(), "wasm", &[("wasmlet.dev/ready", "never")]);
        let started: Vec<_> = bad
            .iter()
            .map(|bad| start(ns, node, bad, &missing, &unready))
            .collect();
        let wrong: Vec<_> = bad
            .iter()
            .zip(&started)
            .filter_map(|(bad, started)| {
                started
                    .outcome(
                        bad.message,
                        rows.iter().find(|row| row.message == bad.message),
                    )
                    .err()
            })
            .collect();
        assert!(
            wrong.is_empty(),
            "on {}:\n{}",
            node.runtime,
            wrong.join("\n")
        );
        the_node_is_well(ns, node);
    }
}

/// The bad pods go, and a good one comes.
#[track_caller]
fn the_node_is_well(ns: &Namespace, node: &Node) {
    ns.kubectl().answer(&["delete", "pods", "--all", GONE]);
    let hello = Container::new("hello", &ns.cluster().guest("hello"));
    let (_, ended) = ns.run_pod(PodSpec::wasm("good").on_node(&node.name).container(hello));
    assert_eq!(
        (ended.code, ended.reason.as_str()),
        (0, "Completed"),
        "{ended:?}"
    );
    ns.pod("good").delete();
}

/// What came of an attempt.
enum Started<'a> {
    /// It is being tried.
    Pod(Pod<'a>),
    /// All that there is to say about it.
    Said(String),
}

fn start<'a>(
    ns: &'a Namespace,
    node: &Node,
    bad: &Bad,
    missing: &TemporaryClass,
    unready: &TemporaryClass,
) -> Started<'a> {
    let make = |make: fn(&Namespace) -> PodSpec| {
        make(ns).set("/metadata/name", bad.name).on_node(&node.name)
    };
    match bad.what {
        Try::Pod(pod) => Started::Pod(ns.start(make(pod))),
        Try::NoHandler(pod) => Started::Pod(ns.start(make(pod).runtime_class(missing.name()))),
        Try::NoNode(pod) => Started::Pod(ns.start(make(pod).runtime_class(unready.name()))),
        Try::Refused(pod) => Started::Said(match ns.try_create(make(pod).into_value()) {
            Ok(_) => "the API server has taken it".to_owned(),
            Err(error) => error,
        }),
        Try::Exec(pod) => {
            let pod = ns.start(make(pod));
            pod.until_running("guest");
            Started::Said(ns.kubectl().run(&["exec", pod.name(), "--", "sh"]).stderr)
        }
    }
}

impl Started<'_> {
    /// Whether the user reads the message, and the container has ended as the row says.
    fn outcome(&self, message: &str, row: Option<&Row>) -> Result<(), String> {
        let missing = |seen: &str| Err(format!("no {message:?}; there is:\n{seen}"));
        let pod = match self {
            Self::Said(text) if says(text, message) => return Ok(()),
            Self::Said(text) => return missing(text),
            Self::Pod(pod) => pod,
        };
        let seen = wasmlet_e2e::wait_for(TOLD, || {
            let told = told(pod);
            if told.iter().any(|text| says(text, message)) {
                Ok(())
            } else {
                Err(told.join("\n"))
            }
        });
        if let Err(told) = seen {
            return missing(&told);
        }
        let Some((code, reason)) = row.and_then(|row| row.end.as_ref()) else {
            return Ok(());
        };
        let ended = pod.until_ended();
        let is_so = ended.code == *code && ended.reason == *reason;
        // The pods have FallbackToLogsOnError.
        let is_told = says(&ended.message, message);
        (is_so && is_told).then_some(()).ok_or_else(|| {
            format!("{message:?} is in the log, and the container's end is {ended:?}")
        })
    }
}

/// All that `kubectl describe` and `kubectl logs` say of a pod.
fn told(pod: &Pod<'_>) -> Vec<String> {
    let object = pod.get();
    let mut texts = Vec::new();
    if let Some(status) = object.status {
        texts.extend(status.message);
        let conditions = status.conditions.into_iter().flatten();
        texts.extend(conditions.filter_map(|condition| condition.message));
    }
    match pod.state("guest") {
        State::Waiting { message, .. } => texts.push(message),
        State::Ended(ended) => {
            texts.push(ended.message);
            texts.push(pod.logs("guest"));
        }
        State::Running => {}
    }
    texts.extend(pod.events().iter().map(ToString::to_string));
    texts
}

fn tiny_limits(ns: &Namespace) {
    for node in ns.cluster().nodes() {
        let pods = ["512Ki", "1Mi", "2Mi", "4Mi", "6Mi"].map(|limit| {
            let guest = Container::new("guest", &ns.cluster().guest("hello"))
                .limits(limit, "100m")
                .set("/terminationMessagePolicy", "FallbackToLogsOnError");
            let pod = PodSpec::wasm(&format!("limit-{}", limit.to_lowercase()))
                .on_node(&node.name)
                .container(guest);
            (limit, ns.start(pod))
        });
        for (limit, pod) in pods {
            // Any end is an answer, and which one depends on the node. Its words have to speak of memory.
            let what = format!("{limit}: it runs, or the user learns why not");
            eventually(&what, TOLD, || {
                let told = told(&pod).join("\n");
                let is_told = ["memory", "OOM"].iter().any(|word| told.contains(word));
                let has_run = matches!(pod.state("guest"), State::Ended(ended) if ended.code == 0);
                if has_run || is_told {
                    Ok(())
                } else {
                    Err(told)
                }
            });
        }
        the_node_is_well(ns, node);
    }
}
