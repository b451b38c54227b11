//! Random clusters, random outcomes, an operator that dies between any two calls.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::prelude::*;
use wasmlet_api::node::{AgentState, Change};
use wasmlet_api::{NodeRuntime, WasmNode};

use super::*;
use crate::world::{Health, World};

const NODES: u8 = 7;

#[derive(Debug, Clone)]
enum Event {
    /// The operator plans and does so many calls before it dies and starts anew.
    Operate(u8),
    Agent(u8, Outcome),
    Pod(u8, PodState),
    Pass(u16),
    Join(u8),
    Vanish(u8),
    Health(u8, Health),
    /// Label `pool=no` there and not there: the runtime chooses nodes without it by the label `pool`.
    Pool(u8),
    Upgrade(u8),
    Paused(bool),
    Tenant(u8),
    TenantsLeave,
    StealLabel(u8),
    StealClass,
    /// An agent says something without having been asked.
    Trouble(u8),
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        6 => Just(Outcome::Applies),
        2 => Just(Outcome::RollsBack),
        1 => Just(Outcome::Breaks),
        1 => Just(Outcome::Refuses),
    ]
}

fn pod_state() -> impl Strategy<Value = PodState> {
    prop_oneof![
        6 => Just(PodState::Succeeded),
        1 => Just(PodState::Running),
        1 => Just(Bench::failed(1, "random")),
        1 => Just(Bench::failed(10, "another digest")),
        1 => Just(PodState::Waiting {
            reason: "ErrImagePull".to_owned(),
            message: "random".to_owned(),
        }),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let health = prop_oneof![Just(Health::Ready), Just(Health::NotReady)];
    prop_oneof![
        20 => (0u8..12).prop_map(Event::Operate),
        12 => (0..NODES, outcome()).prop_map(|(node, outcome)| Event::Agent(node, outcome)),
        16 => (any::<u8>(), pod_state()).prop_map(|(pod, state)| Event::Pod(pod, state)),
        6 => (0u16..900).prop_map(Event::Pass),
        2 => (0..NODES).prop_map(Event::Join),
        1 => (0..NODES).prop_map(Event::Vanish),
        2 => (0..NODES, health).prop_map(|(node, health)| Event::Health(node, health)),
        2 => (0..NODES).prop_map(Event::Pool),
        2 => (0u8..3).prop_map(Event::Upgrade),
        1 => any::<bool>().prop_map(Event::Paused),
        1 => (0..NODES).prop_map(Event::Tenant),
        1 => Just(Event::TenantsLeave),
        1 => (0..NODES).prop_map(Event::StealLabel),
        1 => Just(Event::StealClass),
        1 => (0..NODES).prop_map(Event::Trouble),
    ]
}

fn name(node: u8) -> String {
    format!("n{node}")
}

fn open(found: &WasmNode) -> bool {
    super::super::site::change(found).is_none_or(|change| change.finished.is_none())
}

fn last(found: &WasmNode) -> Option<&Change> {
    super::super::site::change(found)
}

fn of_wasm(list: &[NodeRuntime]) -> Option<&NodeRuntime> {
    list.iter().find(|runtime| runtime.handler == "wasm")
}

/// Nodes that are in change, or that a change left in a state which is not known to be good; counted from the objects, in words of
/// its own.
fn unavailable(world: &World) -> BTreeSet<String> {
    world
        .wasm_nodes
        .iter()
        .filter(|(name, _)| world.nodes.contains_key(*name))
        .filter(|(_, found)| {
            let agent = found
                .status
                .as_ref()
                .and_then(|status| status.agent.as_ref());
            let ordered = !found.spec.revision.is_empty();
            let answered = agent.is_some_and(|agent| {
                (agent.observed_revision.as_str(), agent.observed_attempt)
                    == (found.spec.revision.as_str(), found.spec.attempt)
            });
            let broken = agent.is_some_and(|agent| agent.state == AgentState::Broken);
            open(found) || (ordered && (!answered || broken))
        })
        .map(|(name, _)| name.clone())
        .collect()
}

/// What must hold of each call: of how many nodes are in change, judged from the world just before it; of who comes first and whether
/// anybody may, from the world that was planned over (what the plan itself does to other nodes cannot be part of its reasons).
#[track_caller]
fn judge(planned: &World, before: &World, after: &World, action: &Action) {
    let claims = |node: &str| {
        !before.wasm_nodes.get(node).is_some_and(|found| open(found))
            && after.wasm_nodes.get(node).is_some_and(|found| open(found))
    };
    match action {
        Action::CreateWasmNode { node, .. } | Action::WriteNode { node, .. } if claims(node) => {
            let held = unavailable(before).contains(node);
            let runtime = &before.runtimes["wasm"];
            let spec = &runtime.spec;
            let most = match &spec.rollout.max_unavailable {
                IntOrString::Int(most) => usize::try_from(*most).expect("from the test"),
                IntOrString::String(_) => unreachable!("the test has numbers"),
            };
            let now = unavailable(after);
            assert!(
                held || now.len() <= most,
                "{node} was started with {most} allowed: {now:?}"
            );
            if runtime.metadata.deletion_timestamp.is_some() {
                return;
            }
            assert!(!spec.rollout.paused, "{node} was started while paused");
            let chosen = |node: &crate::world::NodeFacts| node.label("pool") == Some("yes");
            // What takes it away, or goes back to what was verified, waits for no canary.
            let brings = last(&after.wasm_nodes[node]).is_none_or(|change| {
                let status = after.wasm_nodes[node].status.clone().unwrap_or_default();
                of_wasm(&change.target)
                    .is_some_and(|after| of_wasm(&status.verified) != Some(after))
            });
            if !brings {
                return;
            }
            let digest = &spec.artifact.digest;
            let has = |node: &str| {
                planned.wasm_nodes.get(node).is_some_and(|found| {
                    let status = found.status.clone().unwrap_or_default();
                    of_wasm(&status.verified).is_some_and(|good| good.digest == *digest)
                })
            };
            let refused = |node: &str| {
                planned.wasm_nodes.get(node).is_some_and(|found| {
                    let status = found.status.clone().unwrap_or_default();
                    let of_now = last(found).is_none_or(|change| {
                        change.finished.is_some()
                            || (&change.revision, change.attempt)
                                == (&found.spec.revision, found.spec.attempt)
                    });
                    let says_so = status.agent.is_some_and(|agent| {
                        of_now
                            && agent.state == AgentState::Refused
                            && agent.observed_revision == found.spec.revision
                            && agent.observed_attempt == found.spec.attempt
                    });
                    status.phase == Some(wasmlet_api::node::Phase::Refused) || says_so
                })
            };
            let canary = planned
                .nodes
                .values()
                .filter(|node| chosen(node) && !refused(&node.name))
                .find(|found| {
                    found.health == Health::Ready
                        || planned
                            .wasm_nodes
                            .get(&found.name)
                            .is_some_and(|found| open(found))
                })
                .map(|node| node.name.clone());
            if let Some(canary) = canary {
                assert!(
                    canary == *node || has(&canary),
                    "{node} was started before the canary {canary} had {digest}"
                );
            }
            let failing = planned
                .nodes
                .values()
                .filter(|found| chosen(found) && !refused(&found.name) && !has(&found.name))
                .filter(|found| {
                    planned
                        .wasm_nodes
                        .get(&found.name)
                        .and_then(|found| last(found))
                        .is_some_and(|change| {
                            let of_now = of_wasm(&change.target)
                                .is_some_and(|target| target.digest == *digest)
                                && change.causes.iter().any(|cause| {
                                    Some(cause.generation)
                                        == planned.runtimes["wasm"].metadata.generation
                                });
                            of_now && (change.failure.is_some() || change.failures > 0)
                        })
                })
                .map(|node| node.name.clone())
                .collect::<BTreeSet<_>>();
            let threshold = usize::try_from(spec.rollout.failure_threshold).expect("from the test");
            assert!(
                failing.len() < threshold || failing.contains(node),
                "{node} was started with {failing:?} failed"
            );
        }
        Action::Label { node, labels, .. } => {
            if labels.get(names::READY_LABEL) != Some(&Some("true")) {
                return;
            }
            let found = &before.wasm_nodes[node];
            let status = found.status.clone().unwrap_or_default();
            let agent = status.agent.expect("an agent has answered");
            let good = of_wasm(&status.verified).expect("something was verified");
            let active = agent
                .runtimes
                .iter()
                .find(|active| active.handler == "wasm")
                .expect("the agent has it");
            assert_eq!(active.digest, good.digest);
            assert!(
                !open(found),
                "{node} was labelled in the middle of a change"
            );
            assert!(
                matches!(agent.state, AgentState::Applied | AgentState::RolledBack),
                "{node} was labelled with the agent at {:?}",
                agent.state
            );
        }
        _ => {}
    }
}

fn act(bench: &mut Bench, most: usize) -> usize {
    let mut calls = 0;
    let planned = bench.cluster.world.clone();
    for sequence in bench.plan().sequences {
        for action in sequence.actions {
            if calls == most {
                return calls;
            }
            calls += 1;
            let before = bench.cluster.world.clone();
            if let Action::Label { node, labels, .. } = &action
                && labels.get(names::READY_LABEL) == Some(&Some("true"))
            {
                // Known to the simulation alone: a probe of just this bundle ended well on just this node.
                let good = of_wasm(
                    &before.wasm_nodes[node]
                        .status
                        .clone()
                        .unwrap_or_default()
                        .verified,
                )
                .expect("something was verified")
                .digest
                .as_str()
                .to_owned();
                let probed = &bench.cluster.probed[&before.nodes[node].uid];
                assert!(
                    probed.contains(&("wasm".to_owned(), good.clone())),
                    "{node} was labelled without a probe of {good}"
                );
            }
            if bench.cluster.apply(&action).is_err() {
                // As the executor does: the rest of the sequence is left out.
                break;
            }
            judge(&planned, &before, &bench.cluster.world, &action);
        }
    }
    calls
}

fn happen(bench: &mut Bench, event: Event) {
    let cluster = &mut bench.cluster;
    match event {
        Event::Operate(most) => {
            act(bench, usize::from(most));
        }
        Event::Agent(node, outcome) => {
            if cluster.orders().contains(&name(node)) {
                cluster.agent(&name(node), outcome);
            }
        }
        Event::Trouble(node) => {
            let ordered = cluster
                .world
                .wasm_nodes
                .get(&name(node))
                .is_some_and(|found| !found.spec.revision.is_empty());
            if ordered {
                cluster.agent(&name(node), Outcome::Breaks);
            }
        }
        Event::Pod(pod, state) => {
            let running = cluster.running_pods();
            if !running.is_empty() {
                let pod = &running[usize::from(pod) % running.len()];
                cluster.kubelet(pod, state);
            }
        }
        Event::Pass(seconds) => cluster.pass(i64::from(seconds)),
        Event::Join(node) => {
            if !cluster.world.nodes.contains_key(&name(node)) {
                join(cluster, node);
            }
        }
        Event::Vanish(node) => cluster.vanish(&name(node)),
        Event::Health(node, health) => {
            cluster.edit_node(&name(node), |node| node.health = health);
        }
        Event::Pool(node) => cluster.edit_node(&name(node), |node| {
            let pool = node.labels.entry("pool".to_owned()).or_default();
            *pool = if pool == "yes" { "no" } else { "yes" }.to_owned();
        }),
        Event::Upgrade(bundle) => bench.upgrade(&format!("bundle {bundle}")),
        Event::Paused(paused) => bench.edit(|spec| spec.rollout.paused = paused),
        Event::Tenant(node) => {
            if cluster
                .world
                .nodes
                .get(&name(node))
                .is_some_and(|node| node.label(names::READY_LABEL) == Some("true"))
            {
                cluster
                    .tenants
                    .push((name(node), format!("t/{node}"), "wasm".to_owned()));
            }
        }
        Event::TenantsLeave => cluster.tenants.clear(),
        Event::StealLabel(node) => cluster.edit_node(&name(node), |node| {
            node.labels.remove(names::READY_LABEL);
        }),
        Event::StealClass => {
            cluster.world.classes.remove("wasm");
        }
    }
}

fn join(cluster: &mut Cluster, node: u8) {
    cluster.join(&name(node));
    cluster.edit_node(&name(node), |node| {
        node.labels.insert("pool".to_owned(), "yes".to_owned());
    });
}

fn bench(max_unavailable: i32, failure_threshold: i32, wait_seconds: i32) -> Bench {
    let mut bench = Bench::new(0, |runtime| {
        let spec = &mut runtime.spec;
        spec.node_selector
            .insert("pool".to_owned(), "yes".to_owned());
        spec.rollout.max_unavailable = IntOrString::Int(max_unavailable);
        spec.rollout.failure_threshold = failure_threshold;
        spec.rollout.canary.wait_seconds = wait_seconds;
    });
    for node in 0..NODES - 2 {
        join(&mut bench.cluster, node);
    }
    bench
}

/// Failures stop, and everything goes on.
fn heal(bench: &mut Bench) {
    bench.edit(|spec| spec.rollout.paused = false);
    bench.cluster.tenants.clear();
    for node in 0..NODES {
        bench
            .cluster
            .edit_node(&name(node), |node| node.health = Health::Ready);
    }
    for _ in 0..3_000 {
        let acted = act(bench, usize::MAX) > 0;
        let worked = bench.work(PodState::Succeeded, Outcome::Applies);
        if acted || worked {
            continue;
        }
        match bench.plan().wake {
            Some(wake) => bench.cluster.now = wake,
            None => return,
        }
    }
    panic!("no end; still {:?}", bench.plan());
}

fn cases() -> ProptestConfig {
    ProptestConfig {
        max_shrink_iters: 4_000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn whatever_happens_the_rules_hold_and_the_cluster_ends_well(
        events in prop::collection::vec(event(), 1..160),
        max_unavailable in 1i32..4,
        failure_threshold in 1i32..4,
        wait_seconds in prop_oneof![Just(0i32), Just(300)],
    ) {
        let mut bench = bench(max_unavailable, failure_threshold, wait_seconds);
        for event in events {
            happen(&mut bench, event);
        }
        heal(&mut bench);

        let world = &bench.cluster.world;
        let digest = &world.runtimes["wasm"].spec.artifact.digest;
        for node in world.nodes.values() {
            let chosen = node.label("pool") == Some("yes");
            let expected = chosen.then_some("true");
            prop_assert_eq!(node.label(names::READY_LABEL), expected, "{}", &node.name);
            let found = world.wasm_nodes.get(&node.name);
            prop_assert_eq!(found.is_some(), chosen, "{}", &node.name);
            if let Some(found) = found {
                let agent = found.status.as_ref().unwrap().agent.as_ref().unwrap();
                prop_assert_eq!(&agent.runtimes[0].digest, digest);
            }
        }
        prop_assert!(world.pods.is_empty(), "pods are left: {:?}", world.pods.keys());
        prop_assert_eq!(bench.plan().sequences, vec![], "a cluster in order needs nothing");
    }

    #[test]
    fn whatever_happens_a_deleted_runtime_leaves_nothing(
        events in prop::collection::vec(event(), 1..80),
    ) {
        let mut bench = bench(2, 2, 0);
        for event in events {
            happen(&mut bench, event);
        }
        bench.cluster.delete_runtime("wasm");
        heal(&mut bench);
        let world = &bench.cluster.world;
        prop_assert!(world.runtimes.is_empty());
        prop_assert!(world.wasm_nodes.is_empty(), "{:?}", world.wasm_nodes.keys());
        prop_assert!(world.classes.is_empty(), "{:?}", world.classes.keys());
        prop_assert!(world.pods.is_empty(), "{:?}", world.pods.keys());
        for node in world.nodes.values() {
            prop_assert_eq!(node.label(names::READY_LABEL), None);
        }
    }
}
