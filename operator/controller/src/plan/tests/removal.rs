//! Taking it away again.

use k8s_openapi::api::core::v1::Taint;
use wasmlet_api::conditions::{IN_USE, PROGRESSING};
use wasmlet_api::runtime::DeletionPolicy;

use super::*;

fn clean(bench: &Bench) {
    let world = &bench.cluster.world;
    assert!(world.runtimes.is_empty(), "{:?}", world.runtimes.keys());
    assert!(world.wasm_nodes.is_empty(), "{:?}", world.wasm_nodes.keys());
    assert!(world.classes.is_empty(), "{:?}", world.classes.keys());
    assert!(world.pods.is_empty(), "{:?}", world.pods.keys());
    for node in world.nodes.values() {
        let left: Vec<_> = node
            .labels
            .keys()
            .filter(|key| key.starts_with("wasmlet.dev/ready"))
            .collect();
        assert!(left.is_empty(), "{}: {left:?}", node.name);
    }
}

#[test]
fn a_deleted_runtime_leaves_nothing() {
    let mut bench = Bench::new(3, |_| {});
    bench.flow();
    bench.cluster.delete_runtime("wasm");
    bench.flow();
    clean(&bench);
}

#[test]
fn a_runtime_that_is_deleted_in_the_middle_leaves_nothing() {
    for rounds in 0..12 {
        let mut bench = Bench::new(3, |_| {});
        for _ in 0..rounds {
            bench.round();
            bench.work(PodState::Succeeded, Outcome::Applies);
        }
        bench.cluster.delete_runtime("wasm");
        bench.flow();
        clean(&bench);
    }
}

#[test]
fn pods_that_use_it_keep_it_and_are_named() {
    let mut bench = Bench::new(2, |_| {});
    bench.flow();
    for (pod, class) in [("shop/web", "wasm-wasmtime"), ("shop/db", "runc")] {
        bench
            .cluster
            .tenants
            .push(("n1".to_owned(), pod.to_owned(), class.to_owned()));
    }
    bench.cluster.delete_runtime("wasm");
    bench.flow();
    assert!(bench.cluster.world.wasm_nodes.contains_key("n1"));
    assert!(!bench.cluster.world.wasm_nodes.contains_key("n0"));
    assert_eq!(bench.label("n1"), None, "no further pod comes");
    assert_eq!(bench.reason(IN_USE), "InUse");
    assert_eq!(bench.reason(PROGRESSING), "Removing");
    let status = bench.runtime("wasm").status.clone().unwrap();
    assert_eq!(status.used_by, ["shop/web"]);
    assert!(bench.plan().wake.is_some(), "asks again by itself");

    bench.cluster.tenants.clear();
    bench.cluster.pass(15);
    bench.flow();
    clean(&bench);
}

#[test]
fn force_does_not_ask() {
    let mut bench = Bench::new(1, |runtime| {
        runtime.spec.deletion_policy = DeletionPolicy::Force;
    });
    bench.flow();
    bench
        .cluster
        .tenants
        .push(("n0".to_owned(), "shop/web".to_owned(), "wasm".to_owned()));
    bench.cluster.delete_runtime("wasm");
    bench.flow();
    clean(&bench);
}

#[test]
fn a_node_that_is_not_chosen_any_more_is_cleaned() {
    type Edit = fn(&mut Bench);
    let cases: [(&str, Edit); 2] = [
        ("selector", |bench| {
            bench.edit(|spec| {
                spec.node_selector
                    .insert("kubernetes.io/hostname".to_owned(), "n0".to_owned());
            });
        }),
        ("taint", |bench| {
            bench.cluster.edit_node("n1", |node| {
                node.taints.push(Taint {
                    key: "dedicated".to_owned(),
                    value: None,
                    effect: "NoExecute".to_owned(),
                    time_added: None,
                });
            });
        }),
    ];
    for (what, edit) in cases {
        let mut bench = Bench::new(2, |_| {});
        bench.flow();
        edit(&mut bench);
        bench.flow();
        assert!(!bench.cluster.world.wasm_nodes.contains_key("n1"), "{what}");
        assert_eq!(bench.label("n1"), None, "{what}");
        assert_eq!(bench.label("n0"), Some("true"), "{what}");
    }
}

#[test]
fn an_engine_is_taken_away_only_when_no_pod_uses_it() {
    let mut bench = Bench::new(1, |_| {});
    bench.flow();
    bench.cluster.tenants.push((
        "n0".to_owned(),
        "shop/web".to_owned(),
        "wasm-wasmtime".to_owned(),
    ));
    bench.edit(|spec| spec.engines.clear());
    bench.flow();
    assert_eq!(
        bench.cluster.world.wasm_nodes["n0"].spec.runtimes[0]
            .engines
            .len(),
        1
    );
    bench.cluster.tenants.clear();
    bench.cluster.pass(15);
    bench.flow();
    assert_eq!(
        bench.cluster.world.wasm_nodes["n0"].spec.runtimes[0]
            .engines
            .len(),
        0
    );
    assert!(!bench.cluster.world.classes.contains_key("wasm-wasmtime"));
}

#[test]
fn a_removal_that_fails_is_tried_again_and_keeps_the_finalizer() {
    let mut bench = Bench::new(1, |_| {});
    bench.flow();
    bench.cluster.delete_runtime("wasm");
    bench.settle();
    bench.work(PodState::Succeeded, Outcome::RollsBack);
    bench.settle();
    let status = bench.runtime("wasm").status.clone().unwrap();
    assert_eq!(status.failures.len(), 1);
    assert_eq!(bench.label("n0"), None);
    let wake = bench.plan().wake.expect("asks to be woken");
    bench.cluster.now = wake;
    bench.flow();
    clean(&bench);
}

#[test]
fn a_node_that_vanishes_during_its_removal_is_not_waited_for() {
    let mut bench = Bench::new(1, |_| {});
    bench.flow();
    bench.cluster.delete_runtime("wasm");
    bench.settle();
    bench.cluster.vanish("n0");
    bench.flow();
    clean(&bench);
}
