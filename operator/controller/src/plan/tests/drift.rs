//! What somebody else changes, and nodes that do not stay as they were made.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use wasmlet_api::conditions::{DEGRADED, READY, Status};
use wasmlet_api::node::Phase;
use wasmlet_api::reasons::Reason;

use super::*;
use crate::world::Health;

#[test]
fn what_somebody_takes_away_is_put_back() {
    let mut bench = Bench::new(1, |_| {});
    bench.flow();
    let whole = bench.cluster.world.clone();
    bench.cluster.edit_node("n0", |node| {
        node.labels.remove(names::READY_LABEL);
    });
    bench.cluster.world.classes.remove("wasm");
    let probe = bench
        .cluster
        .world
        .classes
        .get_mut("wasm-wasmtime")
        .unwrap();
    Arc::make_mut(probe).scheduling = None;
    bench.settle();
    assert_eq!(bench.label("n0"), Some("true"));
    for (name, class) in &whole.classes {
        assert_eq!(
            bench.cluster.world.classes[name].scheduling,
            class.scheduling
        );
    }
    bench.cluster.world.wasm_nodes.remove("n0");
    bench.flow();
    assert_eq!(
        bench.phase("n0"),
        Some(Phase::Ready),
        "changed anew: nothing is known of it"
    );
}

#[test]
fn a_node_whose_agent_reports_it_broken_loses_its_label_and_is_ordered_anew() {
    let mut bench = Bench::new(2, |_| {});
    bench.flow();
    bench.cluster.agent("n1", Outcome::Breaks);
    bench.settle();
    assert_eq!(bench.label("n1"), Some("false"));
    assert_eq!(bench.label("n0"), Some("true"));
    let counts = bench.runtime("wasm").status.clone().unwrap().nodes;
    assert_eq!((counts.ready, counts.updating), (1, 1));
    bench.flow();
    assert_eq!(bench.label("n1"), Some("true"));
}

/// As an agent that cannot repair what somebody else changed: it does not count on its runtimes any more.
fn not_repaired(bench: &mut Bench, node: &str) {
    let found = bench.cluster.world.wasm_nodes.get_mut(node).unwrap();
    let status = Arc::make_mut(found).status.get_or_insert_default();
    status.agent.as_mut().expect("an agent").runtimes.clear();
    let drifted = conditions::condition(
        &[],
        conditions::DRIFTED,
        Status::True,
        Reason::ConfigUnreadable.name(),
        "it could not be repaired: somebody's typing error",
        Some(1),
        &Time(bench.cluster.now),
    );
    status.conditions.push(drifted);
}

#[test]
fn a_node_that_cannot_be_repaired_takes_no_pods_and_is_ordered_anew() {
    let mut bench = Bench::new(3, |_| {});
    bench.flow();
    let runtimes = status(&bench, "n1").agent.unwrap().runtimes;
    // While its node is not Ready nothing is ordered.
    bench
        .cluster
        .edit_node("n1", |node| node.health = Health::NotReady);
    not_repaired(&mut bench, "n1");
    bench.settle();
    assert_eq!(bench.label("n1"), Some("false"));
    assert_eq!(bench.label("n0"), Some("true"));
    assert_eq!(bench.cluster.orders(), Vec::<String>::new());
    let failures = bench.runtime("wasm").status.clone().unwrap().failures;
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].node, "n1");
    assert_eq!(failures[0].reason, Reason::ConfigUnreadable);
    assert!(failures[0].message.contains("typing error"), "{failures:?}");
    assert_eq!(bench.reason(DEGRADED), "NodesFailed");
    assert_eq!(bench.reason(READY), "NodesFailed");

    bench
        .cluster
        .edit_node("n1", |node| node.health = Health::Ready);
    bench.settle();
    assert_eq!(bench.cluster.orders(), ["n1"], "the same again");
    bench.cluster.agent("n1", Outcome::RollsBack);
    not_repaired(&mut bench, "n1");
    bench.settle();
    assert_eq!(bench.label("n1"), Some("false"));
    assert_eq!(bench.failure("n1"), Some(Reason::ShimFailed));
    assert_eq!(bench.reason(DEGRADED), "NodesFailed", "nothing stands");

    // The agent could repair it after all.
    bench.cluster.agent("n1", Outcome::Applies);
    let found = bench.cluster.world.wasm_nodes.get_mut("n1").unwrap();
    let agent = Arc::make_mut(found).status.as_mut().unwrap().agent.as_mut();
    agent.unwrap().runtimes = runtimes;
    bench.settle();
    assert_eq!(bench.label("n1"), Some("true"));
    assert_eq!(bench.phase("n1"), Some(Phase::Ready));
    assert_eq!(bench.reason(READY), "AllNodesReady");
}
