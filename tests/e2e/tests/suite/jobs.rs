//! Jobs and CronJobs of guests.

use serde_json::{Value, json};
use wasmlet_e2e::{Container, LONG, Namespace, PodSpec, eventually};

use crate::case::Case;
use crate::exits::ends_with;

pub(crate) const CASES: &[Case] = &[
    Case::new("a_job_is_done_when_its_guests_are", jobs).ci(),
    Case::new("a_job_that_fails_is_given_up", failing_jobs),
    Case::new("a_cron_job_makes_jobs", cron_jobs),
];

#[track_caller]
fn job(ns: &Namespace, name: &str, pod: PodSpec, spec: Value) {
    let mut spec = spec;
    spec["template"] = pod.into_template();
    ns.create_object(json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": name }, "spec": spec,
    }));
}

/// Waits for a condition of a Job; gives its reason, and the Job's status.
#[track_caller]
fn until_job(ns: &Namespace, name: &str, wanted: &str) -> (String, Value) {
    eventually(&format!("job {name} is {wanted}"), LONG, || {
        let status = ns.get(("batch/v1", "Job", name))["status"].take();
        let conditions = status["conditions"].as_array().into_iter().flatten();
        let found = conditions
            .into_iter()
            .find(|condition| condition["type"] == wanted && condition["status"] == "True");
        let reason =
            found.map(|condition| condition["reason"].as_str().unwrap_or_default().to_owned());
        reason
            .map(|reason| (reason, status.clone()))
            .ok_or_else(|| status.to_string())
    })
}

fn jobs(ns: &Namespace) {
    let pod = || ends_with(ns, "job", 0);
    job(
        ns,
        "three",
        pod(),
        json!({ "completions": 3, "parallelism": 2 }),
    );
    let (_, status) = until_job(ns, "three", "Complete");
    assert_eq!(status["succeeded"], 3, "{status}");
    // Each guest is told its own number.
    let indexed =
        PodSpec::wasm("job").container(Container::new("guest", &ns.cluster().guest("context")));
    job(
        ns,
        "indexed",
        indexed,
        json!({ "completions": 2, "completionMode": "Indexed", "parallelism": 2 }),
    );
    let (_, status) = until_job(ns, "indexed", "Complete");
    assert_eq!(status["completedIndexes"], "0,1", "{status}");
    let mut told: Vec<_> = ns
        .pods("batch.kubernetes.io/job-name=indexed")
        .iter()
        .filter_map(|pod| {
            let log = pod.logs("guest");
            log.lines().find_map(|line| {
                line.strip_prefix("env JOB_COMPLETION_INDEX=")
                    .map(str::to_owned)
            })
        })
        .collect();
    told.sort();
    assert_eq!(told, ["0", "1"]);
}

fn failing_jobs(ns: &Namespace) {
    job(
        ns,
        "twice",
        ends_with(ns, "job", 7),
        json!({ "backoffLimit": 1 }),
    );
    // A trap comes again with the same input; its exit code lets a Job give up at once.
    let trap = PodSpec::wasm("job").container(Container::new("guest", &ns.cluster().guest("trap")));
    let rule = json!({ "action": "FailJob", "onExitCodes": { "operator": "In", "values": [121] } });
    job(
        ns,
        "trapped",
        trap,
        json!({ "backoffLimit": 6, "podFailurePolicy": { "rules": [rule] } }),
    );
    let (reason, status) = until_job(ns, "twice", "Failed");
    assert_eq!(reason, "BackoffLimitExceeded");
    assert_eq!(status["failed"], 2, "{status}");
    let (reason, status) = until_job(ns, "trapped", "Failed");
    assert_eq!(
        (reason.as_str(), &status["failed"]),
        ("PodFailurePolicy", &json!(1)),
        "{status}"
    );
}

fn cron_jobs(ns: &Namespace) {
    ns.create_object(json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": "minutely" },
        "spec": {
            "schedule": "* * * * *",
            "jobTemplate": { "spec": { "template": ends_with(ns, "cron", 0).into_template() } },
        },
    }));
    ns.kubectl()
        .answer(&["create", "job", "by-hand", "--from=cronjob/minutely"]);
    until_job(ns, "by-hand", "Complete");
    eventually("a job of the schedule has succeeded", LONG, || {
        let status = ns.get(("batch/v1", "CronJob", "minutely"))["status"].take();
        let at = status["lastSuccessfulTime"].as_str();
        at.map(|_| ()).ok_or_else(|| status.to_string())
    });
}
