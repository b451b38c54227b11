//! How a container's end looks to its user, and what Kubernetes makes of it.
//!
//! The limits' own ends (fuel, time, stack, memory) are rows of docs/troubleshooting.md: topic `bad_input`.

use serde_json::{Value, json};
use wasmlet_e2e::{Container, Ended, LONG, Namespace, Pod, PodSpec, eventually};

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::new(
        "codes_reasons_and_last_words_are_seen",
        codes_reasons_and_words,
    )
    .ci(),
    Case::new(
        "a_guest_that_is_killed_for_memory_is_oom_killed",
        oom_killed,
    )
    .ci(),
    Case::new(
        "memory_beyond_the_limit_is_refused_to_the_guest",
        memory_is_refused,
    ),
    Case::new("a_pod_past_its_deadline_is_ended", past_its_deadline),
    Case::new("a_restart_policy_is_kept", restart_policies),
    Case::new("who_fails_again_and_again_waits", crash_loop).ci(),
    Case::new("a_job_is_done_when_its_guests_are", jobs).ci(),
    Case::new("a_job_that_fails_is_given_up", failing_jobs),
    Case::new("a_cron_job_makes_jobs", cron_jobs),
];

/// A guest that ends with this code, in a pod of this name.
#[track_caller]
fn ends_with(ns: &Namespace, name: &str, code: u8) -> PodSpec {
    let image = ns.cluster().guest("exit_code");
    PodSpec::wasm(name).container(Container::new("guest", &image).args([code.to_string()]))
}

fn codes_reasons_and_words(ns: &Namespace) {
    let pods = [
        (0, "Completed"),
        (1, "Error"),
        (42, "Error"),
        (255, "Error"),
    ]
    .map(|(code, reason)| {
        (
            ns.start(ends_with(ns, &format!("code-{code}"), code)),
            code,
            reason,
        )
    });
    let trap = Container::new("guest", &ns.cluster().guest("trap"));
    let told = trap
        .clone()
        .set("/terminationMessagePolicy", "FallbackToLogsOnError");
    let told = ns.start(PodSpec::wasm("told").container(told));
    let untold = ns.start(PodSpec::wasm("untold").container(trap));
    for (pod, code, reason) in pods {
        let ended = pod.until_ended();
        assert_eq!(
            (ended.code, ended.reason.as_str()),
            (i32::from(code), reason),
            "{ended:?}"
        );
        let phase = if code == 0 { "Succeeded" } else { "Failed" };
        assert_eq!(
            pod.get().status.and_then(|status| status.phase).as_deref(),
            Some(phase)
        );
    }
    let ended = told.until_ended();
    assert_eq!(
        (ended.code, ended.reason.as_str()),
        (121, "Error"),
        "{ended:?}"
    );
    assert!(
        ended.message.contains("wasmlet: /guest.wasm: trapped: "),
        "{ended:?}"
    );
    assert_eq!(
        told.logs("guest"),
        ended.message,
        "the message is the log's end"
    );
    let ended = untold.until_ended();
    assert_eq!(
        (ended.code, ended.message.as_str()),
        (121, ""),
        "the policy is the pod's to choose"
    );
    let described = ns.kubectl().answer(&["describe", "pod", "told"]);
    assert!(
        described.contains("Exit Code:    121") && described.contains("trapped"),
        "{described}"
    );
}

fn oom_killed(ns: &Namespace) {
    // Neither is stopped by the cap on linear memory: one says that it is larger than the container's limit,
    // the other takes no linear memory.
    let grow = Container::new("guest", &ns.cluster().guest("grow")).limits("32Mi", "250m");
    let grow = |name: &str| {
        PodSpec::wasm(name)
            .annotation("wasmlet.dev/memory", "512Mi")
            .container(grow.clone())
    };
    let fill = Container::new("guest", &ns.cluster().guest("fill"))
        .args(["/scratch/file"])
        .limits("32Mi", "250m")
        .mount("scratch", "/scratch");
    // A tmpfs is as large as the pod's limit; the second container keeps the first from filling it.
    let room =
        Container::shell("room", &ns.cluster().busybox(), "sleep 3600").limits("64Mi", "50m");
    let fill = |name: &str| {
        PodSpec::wasm(name)
            .volume("scratch", json!({ "emptyDir": { "medium": "Memory" } }))
            .container(fill.clone())
            .container(room.clone())
    };
    // The kill and the end are told in two ways that race: once is not enough to see.
    let pods = [
        grow("grow-1"),
        grow("grow-2"),
        grow("grow-3"),
        fill("fill-1"),
        fill("fill-2"),
        fill("fill-3"),
    ]
    .map(|pod| ns.start(pod));
    for pod in &pods {
        let ended = pod.until_container_ended("guest");
        assert_eq!(
            (ended.code, ended.reason.as_str()),
            (137, "OOMKilled"),
            "{} on {}: {ended:?}",
            pod.name(),
            ns.cluster().node(&pod.node()).runtime
        );
    }
}

fn memory_is_refused(ns: &Namespace) {
    let guest = Container::new("guest", &ns.cluster().guest("grow"));
    let limit = |name: &str| PodSpec::wasm(name).container(guest.clone().limits("64Mi", "250m"));
    let pods = [
        (limit("limit"), 32..64),
        (
            limit("annotation").annotation("wasmlet.dev/memory", "8Mi"),
            4..8,
        ),
    ]
    .map(|(pod, range)| (ns.start(pod), range));
    for (pod, range) in pods {
        let ended = pod.until_ended();
        assert_eq!(
            (ended.code, ended.reason.as_str()),
            (0, "Completed"),
            "{ended:?}"
        );
        let log = pod.logs("guest");
        let had = log
            .lines()
            .find_map(|line| line.strip_prefix("refused after ")?.strip_suffix(" MiB"));
        let had: u32 = had
            .and_then(|had| had.parse().ok())
            .unwrap_or_else(|| panic!("{log}"));
        assert!(range.contains(&had), "{} got {had} MiB", pod.name());
    }
}

fn past_its_deadline(ns: &Namespace) {
    let guest = Container::new("guest", &ns.cluster().guest("sleep"));
    let pod = PodSpec::wasm("late")
        .set("/spec/activeDeadlineSeconds", 3)
        .restart_policy("Always")
        .container(guest);
    let pod = ns.start(pod);
    pod.until("its deadline is over", LONG, |object| {
        let status = object.status.as_ref()?;
        let is_over = status.phase.as_deref() == Some("Failed")
            && status.reason.as_deref() == Some("DeadlineExceeded");
        is_over.then_some(())
    });
    let ended = pod.until_container_ended("guest");
    assert_eq!(ended.code, 143, "{ended:?}");
}

fn restart_policies(ns: &Namespace) {
    let start = |name: &str, code: u8, policy: &str| {
        ns.start(ends_with(ns, name, code).restart_policy(policy))
    };
    let again = [
        start("always-0", 0, "Always"),
        start("always-1", 1, "Always"),
        start("on-failure-1", 1, "OnFailure"),
    ];
    let once = [
        (start("on-failure-0", 0, "OnFailure"), 0),
        (start("never-0", 0, "Never"), 0),
        (start("never-1", 1, "Never"), 1),
    ];
    for pod in again {
        until_restarted(&pod, 1);
    }
    for (pod, code) in once {
        assert_eq!(pod.until_ended().code, code);
        assert_eq!(pod.restarts("guest"), 0, "{}", pod.name());
    }
}

/// Waits until a container was restarted so often; gives the end before the last time.
#[track_caller]
fn until_restarted(pod: &Pod<'_>, times: i32) -> Ended {
    pod.until(&format!("restarted {times} times"), LONG, |object| {
        let status = object
            .status
            .as_ref()?
            .container_statuses
            .as_ref()?
            .first()?;
        let last = status.last_state.as_ref()?.terminated.as_ref()?;
        (status.restart_count >= times).then(|| Ended {
            code: last.exit_code,
            reason: last.reason.clone().unwrap_or_default(),
            message: last.message.clone().unwrap_or_default(),
        })
    })
}

fn crash_loop(ns: &Namespace) {
    let trap = Container::new("guest", &ns.cluster().guest("trap"))
        .set("/terminationMessagePolicy", "FallbackToLogsOnError");
    let pod = ns.start(
        PodSpec::wasm("pod")
            .restart_policy("Always")
            .container(trap),
    );
    let message = pod.until_waiting("guest", "CrashLoopBackOff");
    assert!(
        message.contains("restarting failed container=guest"),
        "{message}"
    );
    let last = until_restarted(&pod, 2);
    assert_eq!(
        (last.code, last.reason.as_str()),
        (121, "Error"),
        "{last:?}"
    );
    assert!(last.message.contains("trapped"), "{last:?}");
    assert!(pod.previous_logs("guest").contains("trapped"));
    pod.until_event("BackOff");
}

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
