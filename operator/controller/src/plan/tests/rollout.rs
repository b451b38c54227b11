//! Installing and upgrading.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use wasmlet_api::conditions::{DEGRADED, PROBED, PROGRESSING, READY, STAGED, Status};
use wasmlet_api::names::PURPOSE_STAGE;
use wasmlet_api::node::Phase;
use wasmlet_api::reasons::Reason;

use super::*;

#[test]
fn a_fresh_cluster_gets_its_canary_then_the_others() {
    let mut bench = Bench::new(3, |_| {});
    bench.settle();
    assert_eq!(bench.in_change(), ["n0"]);
    assert_eq!(bench.label("n0"), Some("false"));
    assert_eq!(bench.label("n1"), None, "its turn has not come");
    bench.flow();
    for node in ["n0", "n1", "n2"] {
        assert_eq!(bench.phase(node), Some(Phase::Ready));
        assert_eq!(bench.label(node), Some("true"));
    }
    assert_eq!(bench.reason(READY), "AllNodesReady");
    assert_eq!(bench.reason(PROGRESSING), "AllNodesReady");
    assert!(bench.cluster.world.pods.is_empty(), "no pod is left");
    assert_eq!(bench.round(), []);
}

#[test]
fn a_node_costs_the_same_calls_in_a_small_and_in_a_large_rollout() {
    let calls = |nodes| {
        let mut bench = Bench::new(nodes, |runtime| {
            runtime.spec.rollout.max_unavailable = IntOrString::String("50%".to_owned());
        });
        bench.flow();
        let install = bench.cluster.calls_of_nodes.values().copied().max();
        bench.cluster.calls_of_nodes.clear();
        bench.upgrade("two");
        bench.flow();
        let upgrade = bench.cluster.calls_of_nodes.values().copied().max();
        bench.cluster.calls_of_nodes.clear();
        bench.cluster.delete_runtime("wasm");
        bench.flow();
        let removal = bench.cluster.calls_of_nodes.values().copied().max();
        (install, upgrade, removal)
    };
    let (small, large) = (calls(2), calls(40));
    println!("API calls per node: install, upgrade, removal = {large:?}");
    assert_eq!(small, large);
    assert_eq!(large, (Some(14), Some(13), Some(7)));
}

#[test]
fn a_rollout_is_as_wide_as_max_unavailable() {
    let mut bench = Bench::new(10, |runtime| {
        runtime.spec.rollout.canary.nodes = 0;
        runtime.spec.rollout.max_unavailable = IntOrString::String("30%".to_owned());
    });
    bench.settle();
    assert_eq!(bench.in_change().len(), 3);
    bench.flow();
    assert_eq!(bench.reason(READY), "AllNodesReady");
}

#[test]
fn others_wait_for_the_canaries_and_their_time() {
    let mut bench = Bench::new(5, |runtime| {
        runtime.spec.rollout.canary.nodes = 2;
        runtime.spec.rollout.canary.wait_seconds = 600;
        runtime.spec.rollout.max_unavailable = IntOrString::Int(5);
    });
    bench.cluster.edit_node("n4", |node| {
        node.labels
            .insert(names::CANARY_LABEL.to_owned(), "true".to_owned());
    });
    bench.settle();
    assert_eq!(
        bench.in_change(),
        ["n0", "n4"],
        "the labelled one, and the first by name"
    );
    bench.flow();
    assert_eq!(bench.in_change(), Vec::<&str>::new());
    assert_eq!(bench.reason(PROGRESSING), "CanaryWait");
    let wake = bench.plan().wake.expect("asks to be woken");
    assert_eq!((wake - bench.cluster.now).get_seconds(), 600);
    bench.cluster.pass(600);
    bench.settle();
    assert_eq!(bench.in_change().len(), 3);
}

#[test]
fn a_paused_rollout_starts_nothing_and_finishes_what_goes_on() {
    let mut bench = Bench::new(3, |_| {});
    bench.settle();
    bench.edit(|spec| spec.rollout.paused = true);
    bench.flow();
    assert_eq!(bench.phase("n0"), Some(Phase::Ready));
    assert_eq!(bench.phase("n1"), None);
    assert_eq!(bench.reason(PROGRESSING), "Paused");
    bench.edit(|spec| spec.rollout.paused = false);
    bench.flow();
    assert_eq!(bench.phase("n2"), Some(Phase::Ready));
}

/// (what fails, expected reason)
#[test]
fn a_failed_upgrade_leaves_the_old_one_ready_and_halts() {
    type Break = fn(&mut Bench);
    let cases: [(&str, Break, Reason); 5] = [
        (
            "agent rolls back",
            |bench| {
                bench.work(PodState::Succeeded, Outcome::Applies);
                bench.settle();
                bench.work(PodState::Succeeded, Outcome::RollsBack);
            },
            Reason::ShimFailed,
        ),
        (
            "another digest in the image",
            |bench| {
                bench.work(Bench::failed(10, "found sha256:x"), Outcome::Applies);
            },
            Reason::DigestMismatch,
        ),
        (
            "disk full",
            |bench| {
                bench.work(Bench::failed(12, "no room"), Outcome::Applies);
            },
            Reason::StageFailed,
        ),
        (
            "image not there",
            |bench| {
                let state = PodState::Waiting {
                    reason: "ImagePullBackOff".to_owned(),
                    message: "not found".to_owned(),
                };
                bench.work(state, Outcome::Applies);
                bench.settle();
                assert_eq!(bench.failure("n0"), None, "pulls are tried for a while");
                bench.cluster.pass(91);
            },
            Reason::ImagePullFailed,
        ),
        (
            "probe fails",
            |bench| {
                bench.work(PodState::Succeeded, Outcome::Applies);
                bench.settle();
                bench.work(PodState::Succeeded, Outcome::Applies);
                bench.settle();
                bench.work(Bench::failed(1, "trap"), Outcome::Applies);
                bench.settle();
                bench.work(PodState::Succeeded, Outcome::Applies);
            },
            Reason::ProbeFailed,
        ),
    ];
    for (what, fail, reason) in cases {
        let mut bench = Bench::new(3, |_| {});
        bench.flow();
        bench.upgrade("two");
        bench.settle();
        assert_eq!(bench.label("n0"), Some("false"), "{what}");
        fail(&mut bench);
        bench.settle();
        assert_eq!(bench.failure("n0"), Some(reason), "{what}");
        assert_eq!(bench.phase("n0"), Some(Phase::Failed), "{what}");
        assert_eq!(bench.label("n0"), Some("true"), "{what}: the old one works");
        assert_eq!(bench.in_change(), Vec::<&str>::new(), "{what}");
        assert_eq!(bench.reason(PROGRESSING), "Halted", "{what}");
        assert_eq!(bench.reason(DEGRADED), "Halted", "{what}");
        assert_eq!(bench.label("n1"), Some("true"), "{what}: untouched");

        // A fix needs no clean-up.
        bench.upgrade("three");
        bench.flow();
        assert_eq!(bench.reason(READY), "AllNodesReady", "{what}");
    }
}

#[test]
fn going_back_leaves_nothing_of_the_failure() {
    let mut bench = Bench::new(2, |_| {});
    bench.flow();
    bench.upgrade("two");
    bench.settle();
    bench.work(Bench::failed(10, "found sha256:x"), Outcome::Applies);
    bench.settle();
    assert_eq!(bench.failure("n0"), Some(Reason::DigestMismatch));

    bench.upgrade("one");
    bench.flow();
    assert_eq!(bench.reason(READY), "AllNodesReady");
    assert_eq!(bench.failure("n0"), None);
    let status = bench.cluster.world.wasm_nodes["n0"].status.as_ref();
    for type_ in [STAGED, PROBED] {
        let found = status.map(|status| conditions::is(&status.conditions, type_, Status::True));
        assert_eq!(found, Some(true), "{type_}: {status:?}");
    }
}

#[test]
fn going_back_is_not_ready_while_a_node_takes_no_pods() {
    let mut bench = Bench::new(2, |_| {});
    bench.flow();
    bench.upgrade("two");
    bench.settle();
    bench.work(PodState::Succeeded, Outcome::Applies);
    bench.settle();
    bench.work(PodState::Succeeded, Outcome::RollsBack);
    bench.settle();
    assert_eq!(bench.failure("n0"), Some(Reason::ShimFailed));

    bench.upgrade("one");
    let mut claimed = 0;
    for _ in 0..50 {
        bench.round();
        if bench.label("n0") == Some("false") {
            claimed += 1;
            assert_ne!(bench.reason(READY), "AllNodesReady");
        }
        bench.work(PodState::Succeeded, Outcome::Applies);
    }
    assert!(claimed > 0, "the failed order is replaced");
    assert_eq!(bench.label("n0"), Some("true"));
    assert_eq!(bench.reason(READY), "AllNodesReady");
}

#[test]
fn a_fix_of_the_image_alone_is_tried_at_once() {
    let mut bench = Bench::new(2, |_| {});
    bench.settle();
    bench.work(Bench::failed(10, ""), Outcome::Applies);
    bench.settle();
    assert_eq!(bench.failure("n0"), Some(Reason::DigestMismatch));
    assert_eq!(bench.round(), [], "the pause is not over");
    bench.edit(|spec| spec.artifact.image = "registry.example/other:1".to_owned());
    bench.flow();
    assert_eq!(bench.reason(READY), "AllNodesReady");
}

#[test]
fn the_annotation_retries_at_once() {
    let mut bench = Bench::new(1, |_| {});
    bench.settle();
    bench.work(Bench::failed(1, ""), Outcome::Applies);
    bench.settle();
    let runtime = bench.cluster.world.runtimes.get_mut("wasm").unwrap();
    Arc::make_mut(runtime).metadata.annotations =
        Some([(names::RETRY_ANNOTATION.to_owned(), "1".to_owned())].into());
    bench.settle();
    assert_eq!(bench.in_change(), ["n0"]);
}

#[test]
fn a_failed_node_is_tried_again_after_growing_pauses() {
    let mut bench = Bench::new(2, |_| {});
    let mut pauses = Vec::new();
    for attempt in 1..=4 {
        bench.settle();
        bench.work(PodState::Succeeded, Outcome::Applies);
        bench.settle();
        bench.work(PodState::Succeeded, Outcome::RollsBack);
        bench.settle();
        let change = status(&bench, "n0").change.unwrap();
        assert_eq!((change.attempt, change.failures), (attempt, attempt));
        let wake = bench.plan().wake.expect("asks to be woken");
        pauses.push((wake - bench.cluster.now).get_seconds() / 60);
        bench.cluster.now = wake;
    }
    assert_eq!(pauses, [5, 10, 20, 40]);
    bench.flow();
    assert_eq!(bench.reason(READY), "AllNodesReady", "it goes on by itself");
}

#[test]
fn a_node_whose_agent_is_silent_fails_and_takes_its_slot_until_it_answers() {
    let mut bench = Bench::new(3, |runtime| {
        runtime.spec.rollout.failure_threshold = 5;
        runtime.spec.rollout.canary.nodes = 0;
    });
    bench.settle();
    for pod in bench.cluster.running_pods() {
        bench.cluster.kubelet(&pod, PodState::Succeeded);
    }
    bench.settle();
    bench.cluster.pass(600);
    bench.settle();
    assert_eq!(bench.failure("n0"), Some(Reason::AgentMissing));
    assert_eq!(
        bench.in_change(),
        Vec::<&str>::new(),
        "its state is not known"
    );
    assert_eq!(bench.label("n0"), Some("false"));
    bench.flow();
    assert_eq!(
        bench.reason(READY),
        "AllNodesReady",
        "no pause once it has answered"
    );
}

#[test]
fn a_node_that_is_not_ready_is_not_started_and_not_waited_for() {
    let mut bench = Bench::new(3, |_| {});
    bench
        .cluster
        .edit_node("n0", |node| node.health = crate::world::Health::NotReady);
    bench.flow();
    assert_eq!(bench.phase("n0"), None);
    assert_eq!(bench.phase("n1"), Some(Phase::Ready));
    assert_eq!(bench.phase("n2"), Some(Phase::Ready));
    bench
        .cluster
        .edit_node("n0", |node| node.health = crate::world::Health::Ready);
    bench.flow();
    assert_eq!(bench.reason(READY), "AllNodesReady");
}

#[test]
fn a_node_that_cannot_have_it_is_counted_apart() {
    let mut bench = Bench::new(2, |_| {});
    bench.settle();
    bench.work(PodState::Succeeded, Outcome::Applies);
    bench.settle();
    bench.work(PodState::Succeeded, Outcome::Refuses);
    bench.flow();
    assert_eq!(bench.phase("n0"), Some(Phase::Refused));
    assert_eq!(bench.phase("n1"), Some(Phase::Ready));
    assert_eq!(bench.reason(READY), "AllNodesReady");
    assert_eq!(bench.reason(DEGRADED), "UnsupportedNode");
    let counts = bench.runtime("wasm").status.clone().unwrap().nodes;
    assert_eq!((counts.selected, counts.ready, counts.refused), (2, 1, 1));
}

#[test]
fn a_change_that_nobody_wants_any_more_ends_before_its_order() {
    let mut bench = Bench::new(2, |_| {});
    bench.flow();
    bench.upgrade("two");
    bench.settle();
    bench.upgrade("one");
    bench.settle();
    assert_eq!(bench.in_change(), Vec::<&str>::new());
    assert_eq!(bench.label("n0"), Some("true"));
    bench.flow();
    assert_eq!(bench.reason(READY), "AllNodesReady");
}

#[test]
fn a_second_runtime_with_a_handler_of_the_first_is_not_accepted() {
    let mut bench = Bench::new(1, |_| {});
    let mut second = build::runtime("wasm-wasmtime", "two");
    second.metadata.creation_timestamp = "2025-06-01T00:00:00Z"
        .parse()
        .ok()
        .map(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time);
    bench.cluster.world.runtimes.insert("second".to_owned(), {
        second.metadata.name = Some("second".to_owned());
        Arc::new(second)
    });
    bench.flow();
    let status = bench.runtime("second").status.clone().unwrap();
    let accepted = conditions::find(&status.conditions, conditions::ACCEPTED).unwrap();
    assert_eq!(accepted.reason, "HandlerConflict");
    assert!(
        accepted.message.contains("WasmRuntime wasm,"),
        "{}",
        accepted.message
    );
    assert_eq!(bench.reason(READY), "AllNodesReady");
}

#[test]
fn runtimes_are_changed_independently() {
    let mut bench = Bench::new(2, |_| {});
    let mut second = build::runtime("other", "two");
    second.spec.rollout.paused = true;
    bench
        .cluster
        .world
        .runtimes
        .insert("other".to_owned(), Arc::new(second));
    bench.flow();
    assert_eq!(bench.reason(READY), "AllNodesReady");
    bench
        .cluster
        .edit_runtime("other", |spec| spec.rollout.paused = false);
    bench.settle();
    assert_eq!(bench.label("n0"), Some("true"), "of the other one only");
    bench.flow();
    let spec = &bench.cluster.world.wasm_nodes["n1"].spec;
    assert_eq!(spec.runtimes.len(), 2);
}

#[test]
fn a_class_that_is_somebody_elses_is_not_touched() {
    let mut bench = Bench::new(1, |_| {});
    let foreign = k8s_openapi::api::node::v1::RuntimeClass {
        handler: "other".to_owned(),
        ..Default::default()
    };
    bench
        .cluster
        .world
        .classes
        .insert("wasm".to_owned(), Arc::new(foreign.clone()));
    bench.flow();
    assert_eq!(*bench.cluster.world.classes["wasm"], foreign);
    assert_eq!(bench.reason(DEGRADED), "RuntimeClassConflict");
    bench.cluster.delete_runtime("wasm");
    bench.flow();
    assert_eq!(*bench.cluster.world.classes["wasm"], foreign);
}

#[test]
fn a_digest_that_is_on_the_node_needs_no_stage_pod() {
    let mut bench = Bench::new(1, |_| {});
    bench.flow();
    let digest = wasmlet_api::Digest::of(b"two");
    let found = bench.cluster.world.wasm_nodes.get_mut("n0").unwrap();
    let status = Arc::make_mut(found).status.as_mut().unwrap();
    status.agent.as_mut().unwrap().staged = vec![digest];
    bench.upgrade("two");
    bench.settle();
    assert_eq!(bench.phase("n0"), Some(Phase::Applying));
    assert!(
        !bench
            .cluster
            .world
            .pods
            .values()
            .any(|pod| pod.purpose == PURPOSE_STAGE)
    );
}

#[test]
fn a_node_that_comes_back_with_another_uid_is_another_node() {
    let mut bench = Bench::new(1, |_| {});
    bench.flow();
    let old = bench.cluster.world.wasm_nodes["n0"].clone();
    bench.cluster.vanish("n0");
    bench.cluster.join("n0");
    // The garbage collector has not been there yet.
    bench.cluster.world.wasm_nodes.insert("n0".to_owned(), old);
    bench.flow();
    assert_eq!(bench.label("n0"), Some("true"));
    assert_eq!(
        bench.cluster.world.wasm_nodes["n0"].spec.node_uid,
        bench.cluster.world.nodes["n0"].uid
    );
}

#[test]
fn five_thousand_nodes_at_rest_need_no_call() {
    let mut bench = Bench::new(5_000, |runtime| {
        runtime.spec.rollout.max_unavailable = IntOrString::String("100%".to_owned());
    });
    let begun = std::time::Instant::now();
    let first = bench.plan();
    println!(
        "5,000 nodes, none changed yet: planned in {:?}",
        begun.elapsed()
    );
    assert_eq!(first.wake, None);
    bench.flow();
    assert_eq!(bench.reason(READY), "AllNodesReady");
    let begun = std::time::Instant::now();
    let rest = bench.plan();
    println!("5,000 nodes at rest: planned in {:?}", begun.elapsed());
    assert_eq!(rest.sequences, []);
    bench.upgrade("two");
    bench.edit(|spec| spec.rollout.canary.nodes = 0);
    bench.settle();
    let begun = std::time::Instant::now();
    let busy = bench.plan();
    println!(
        "5,000 nodes, all in change: planned in {:?}",
        begun.elapsed()
    );
    assert_eq!(busy.sequences, []);
    assert_eq!(bench.in_change().len(), 5_000);
}

#[test]
fn a_claim_of_an_operator_that_died_gives_its_slot_back_if_it_may_not_begin() {
    let mut bench = Bench::new(3, |_| {});
    bench.settle();
    // n0 is ready, and the operator dies just after it has made n1's WasmNode.
    while bench.phase("n0") != Some(Phase::Ready) {
        bench.work(PodState::Succeeded, Outcome::Applies);
        let plan = bench.plan();
        for action in plan
            .sequences
            .into_iter()
            .flat_map(|sequence| sequence.actions)
        {
            let claims = matches!(&action, Action::CreateWasmNode { node, .. } if node == "n1");
            bench.cluster.apply(&action).unwrap();
            if claims {
                break;
            }
        }
    }
    if !bench.cluster.world.wasm_nodes.contains_key("n1") {
        let create = Action::CreateWasmNode {
            node: "n1".to_owned(),
            node_uid: bench.cluster.world.nodes["n1"].uid.clone(),
        };
        bench.cluster.apply(&create).unwrap();
    }
    // Now the canary is the first again, and there is one slot.
    bench.upgrade("two");
    bench.settle();
    assert_eq!(bench.in_change(), ["n0"]);
    bench.flow();
    assert_eq!(bench.reason(READY), "AllNodesReady");
}
