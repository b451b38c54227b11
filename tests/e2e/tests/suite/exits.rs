//! How a container's end looks to its user, and what Kubernetes makes of it.
//!
//! The limits' own ends (fuel, time, stack, memory) are rows of docs/troubleshooting.md: topic `bad_input`.

use serde_json::json;
use wasmlet_e2e::{Container, Ended, LONG, Namespace, Pod, PodSpec};

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
];

/// A guest that ends with this code, in a pod of this name.
#[track_caller]
pub(crate) fn ends_with(ns: &Namespace, name: &str, code: u8) -> PodSpec {
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
    // Files in memory are what no cap on linear memory stops.
    let fill = Container::new("guest", &ns.cluster().guest("fill"))
        .args(["/scratch/file"])
        .limits("32Mi", "250m")
        .mount("scratch", "/scratch");
    // A tmpfs is as large as the pod's limit; the second container keeps the first from filling it.
    let room =
        Container::shell("room", &ns.cluster().busybox(), "sleep 3600").limits("64Mi", "50m");
    let scratch = json!({ "emptyDir": { "medium": "Memory" } });
    let pods: Vec<_> = ns
        .cluster()
        .nodes()
        .iter()
        // The kill and the end are told in two ways that race: once is not enough to see.
        .flat_map(|node| (1..=5).map(move |number| (node, format!("{}-{number}", node.name))))
        .map(|(node, name)| {
            let pod = PodSpec::wasm(&name)
                .on_node(&node.name)
                .volume("scratch", scratch.clone())
                .container(fill.clone())
                .container(room.clone());
            (node, ns.start(pod))
        })
        .collect();
    for (node, pod) in &pods {
        let ended = pod.until_container_ended("guest");
        assert_eq!(
            (ended.code, ended.reason.as_str()),
            (137, "OOMKilled"),
            "{} on {}: {ended:?}",
            pod.name(),
            node.runtime
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
        // An annotation takes nothing away from the limit.
        (
            limit("larger").annotation("wasmlet.dev/memory", "512Mi"),
            32..64,
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
    // Kubelets before 1.36 show CrashLoopBackOff as the state meanwhile, later ones the last end.
    let event = pod.until_event("BackOff");
    assert!(
        event
            .message
            .contains("Back-off restarting failed container guest"),
        "{event}"
    );
    let last = until_restarted(&pod, 2);
    assert_eq!(
        (last.code, last.reason.as_str()),
        (121, "Error"),
        "{last:?}"
    );
    assert!(last.message.contains("trapped"), "{last:?}");
    pod.until_previous_log("guest", "trapped");
}
