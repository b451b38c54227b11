//! Plans and diagnoses of recorded nodes (tests/recorded/README.md), and that a removal is the inverse of what it removes.

mod support;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use support::{Node, folder, names, target};
use wasmlet_api::target::NodeTarget;
use wasmlet_node_agent::config::is_ours;
use wasmlet_node_agent::doctor::{Cluster, examine};
use wasmlet_node_agent::errors::Chain;
use wasmlet_node_agent::facts::{Effective, HostFacts};
use wasmlet_node_agent::plan::{Change, PREFLIGHT, Shown, plan};

/// Environment variable: what the tests expect is written anew.
const UPDATE: &str = "UPDATE_GOLDEN";

#[test]
fn plans_and_diagnoses_are_as_recorded() {
    let mut differences = String::new();
    for name in names() {
        let node = Node::new(&name);
        let facts = node.facts();
        let texts = [
            ("plan.txt", planned(&facts, &target())),
            ("remove.txt", planned(&facts, &NodeTarget::default())),
            ("doctor.txt", diagnosed(&node, &facts)),
        ];
        for (file, text) in texts {
            compare(&folder().join(&name).join(file), &text, &mut differences);
        }
    }
    assert!(
        differences.is_empty(),
        "{differences}\nif this is right: {UPDATE}=1 cargo test -p wasmlet-node-agent --test recorded"
    );
}

#[test]
fn what_a_plan_does_its_removal_undoes_byte_for_byte() {
    for (node, facts) in planned_nodes() {
        let before = node.tree();
        let first = plan(&facts, &target()).unwrap();
        node.apply(&first);
        assert_ne!(node.tree(), before, "{}", node.name);

        let again = plan(&node.facts_after(&facts, &first), &target()).unwrap();
        assert!(again.is_nothing(), "{}: {:?}", node.name, again);

        let removal = plan(&node.facts_after(&facts, &first), &NodeTarget::default()).unwrap();
        node.apply(&removal);
        assert_eq!(node.tree(), before, "{}", node.name);
    }
}

#[test]
fn the_doctor_finds_nothing_wrong_with_a_node_as_planned() {
    for (node, facts) in planned_nodes() {
        let first = plan(&facts, &target()).unwrap();
        node.apply(&first);
        let facts = node.facts_after(&facts, &first);
        for handler in first.expect.ours.keys() {
            let diagnosis = examine(&facts, &Err("not asked".to_owned()), handler);
            assert_eq!(diagnosis.problems, [], "{}", node.name);
        }
        // One thing less, and it is found.
        let mut without = facts.clone();
        without.links.clear();
        let diagnosis = examine(&without, &Err("not asked".to_owned()), "wasm");
        assert_eq!(diagnosis.problems.len(), 1, "{}: {diagnosis}", node.name);
    }
}

#[test]
fn what_somebody_else_wrote_meanwhile_stays_after_the_removal() {
    const THEIRS: &str = "# somebody's line\n";
    for (node, facts) in planned_nodes() {
        let before = node.tree();
        let first = plan(&facts, &target()).unwrap();
        node.apply(&first);
        let written = first.written_path.clone().unwrap();
        let path = node.path(&written);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}{THEIRS}")).unwrap();

        let repair = plan(&node.facts_after(&facts, &first), &target()).unwrap();
        node.apply(&repair);
        assert!(
            plan(&node.facts_after(&facts, &first), &target())
                .unwrap()
                .is_nothing(),
            "{}",
            node.name
        );
        let removal = plan(&node.facts_after(&facts, &first), &NodeTarget::default()).unwrap();
        node.apply(&removal);

        let mut after = node.tree();
        match (after.remove(&written), before.get(&written)) {
            // A drop-in is ours alone and says so.
            (None, None) => {}
            (Some(left), original) => {
                let original = original.cloned().unwrap_or_default();
                let rest = left
                    .strip_prefix("{{ template \"base\" . }}\n")
                    .filter(|_| original.is_empty())
                    .unwrap_or(&left);
                let added = rest
                    .strip_prefix(&original)
                    .unwrap_or_else(|| panic!("{}: {left}", node.name));
                assert_eq!(added.trim_start_matches('\n'), THEIRS, "{}", node.name);
            }
            (None, Some(_)) => panic!("{}: {} is gone", node.name, written.display()),
        }
        let mut before = before;
        before.remove(&written);
        assert_eq!(after, before, "{}", node.name);
    }
}

#[test]
fn a_removal_without_the_agents_memory_takes_out_what_is_ours() {
    for (node, facts) in planned_nodes() {
        let before = node.tree();
        let first = plan(&facts, &target()).unwrap();
        node.apply(&first);
        fs::remove_dir_all(support::below(node.root(), wasmlet_api::names::NODE_STATE)).unwrap();
        let removal = plan(&node.facts_after(&facts, &first), &NodeTarget::default()).unwrap();
        node.apply(&removal);
        let mut after = node.tree();
        // The settings cannot be told from an administrator's, and are of no effect.
        after.retain(|path, _| !path.starts_with("/etc/wasmlet"));
        let written = first.written_path.clone().unwrap();
        if !before.contains_key(&written) {
            // Whether an empty file was there before is what only the memory knew.
            let left = after.remove(&written).unwrap_or_default();
            assert!(left.is_empty(), "{}", node.name);
        }
        assert_eq!(after, before, "{}", node.name);
    }
}

#[test]
fn containerd_itself_sees_our_handlers_and_nothing_else_changed() {
    let mut tried = 0;
    for (node, facts) in planned_nodes() {
        let recorded = node.recorded();
        let said = recorded.version.clone().unwrap_or_default();
        let Some(program) = program(&facts, &said) else {
            println!(
                "{}: skipped, {said:?} is not on this machine: hack/setup",
                node.name
            );
            continue;
        };
        let made = plan(&facts, &target()).unwrap();
        let candidate = made.preflight.clone().unwrap();
        let laid_out = tempfile::tempdir().unwrap();
        for (path, bytes) in &candidate.files {
            let text = String::from_utf8(bytes.clone()).unwrap();
            let text = text.replace(PREFLIGHT, laid_out.path().to_str().unwrap());
            let file = laid_out.path().join(path.strip_prefix("/").unwrap());
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let root = laid_out
            .path()
            .join(candidate.root.strip_prefix("/").unwrap());
        let after = dump(&program, &root);
        if let Err(unmet) = made.expect.candidate(&after) {
            panic!("{}: {unmet}", node.name);
        }
        let before = facts.effective.clone().unwrap();
        let mut names: Vec<_> = before.handlers.keys().cloned().collect();
        names.extend(made.expect.ours.keys().cloned());
        names.sort();
        assert_eq!(
            after.handlers.keys().cloned().collect::<Vec<_>>(),
            names,
            "{}",
            node.name
        );
        tried += 1;
    }
    println!("{tried} recorded nodes were tried on real releases of containerd");
}

/// The nodes that can have the target.
fn planned_nodes() -> Vec<(Node, HostFacts)> {
    let nodes: Vec<_> = names()
        .iter()
        .filter_map(|name| {
            let node = Node::new(name);
            let facts = node.facts().ok()?;
            let made = plan(&facts, &target()).ok()?;
            let effective = facts.effective.as_ref().ok()?;
            let clean = !effective.handlers.values().any(is_ours);
            (clean && !made.is_nothing()).then_some((node, facts))
        })
        .collect();
    assert!(
        nodes.len() >= 20,
        "only {} can have the target",
        nodes.len()
    );
    nodes
}

fn planned<E: std::error::Error + 'static>(
    facts: &Result<HostFacts, E>,
    target: &NodeTarget,
) -> String {
    let facts = match facts {
        Ok(facts) => facts,
        Err(error) => return format!("refused: {}\n", Chain(error)),
    };
    match plan(facts, target) {
        Ok(made) => Shown { facts, plan: &made }.to_string(),
        Err(refusal) => format!(
            "refused ({}): {}\n",
            refusal.reason().name(),
            Chain(&refusal)
        ),
    }
}

fn diagnosed<E: std::error::Error + 'static>(node: &Node, facts: &Result<HostFacts, E>) -> String {
    match facts {
        Ok(facts) => {
            let cluster = match fs::read(node.root().join("cluster.json")) {
                Ok(text) => Ok(serde_json::from_slice::<Cluster>(&text).unwrap()),
                Err(_) => Err("not asked".to_owned()),
            };
            examine(facts, &cluster, "wasm").to_string()
        }
        Err(error) => format!("wasmlet-node: {}\n", Chain(error)),
    }
}

fn compare(file: &Path, text: &str, differences: &mut String) {
    if std::env::var_os(UPDATE).is_some() {
        fs::write(file, text).unwrap();
        return;
    }
    let expected = fs::read_to_string(file).unwrap_or_default();
    if expected != text {
        let diff = similar::TextDiff::from_lines(expected.as_str(), text);
        let diff = diff.unified_diff().to_string();
        writeln!(differences, "{}:\n{diff}", file.display()).unwrap();
    }
}

/// The release that the node was recorded with, as hack/setup has it.
fn program(facts: &HostFacts, said: &str) -> Option<std::path::PathBuf> {
    let folder = wasmlet_test_guests::cache_dir().join("containerd");
    fs::read_dir(folder)
        .ok()?
        .filter_map(Result::ok)
        .map(|entry| entry.path().join("bin/containerd"))
        .find(|program| {
            let output = Command::new(program).arg("--version").output();
            output.is_ok_and(|output| {
                let text = String::from_utf8_lossy(&output.stdout);
                let release = text.split_whitespace().nth(2).unwrap_or_default();
                let release = release.split(['~', '+']).next().unwrap_or_default();
                !release.is_empty()
                    && (facts.containerd.text.starts_with(release) || said.contains(release))
            })
        })
}

fn dump(program: &Path, config: &Path) -> Effective {
    let output = Command::new(program)
        .arg("--config")
        .arg(config)
        .args(["config", "dump"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", config.display());
    Effective::parse(&String::from_utf8(output.stdout).unwrap()).unwrap()
}

#[test]
fn a_plan_touches_nothing_outside_the_folders_that_the_agent_has() {
    let allowed = [
        "/etc/wasmlet/",
        "/etc/containerd/",
        "/etc/k0s/",
        "/var/lib/rancher/",
        "/data/rke2/agent/etc/containerd/",
        "/var/snap/microk8s/current/args/",
        "/opt/wasmlet/runtimes/",
    ];
    for (node, facts) in planned_nodes() {
        let made = plan(&facts, &target()).unwrap();
        for change in made.before_restart.iter().chain(&made.after_restart) {
            let path = match change {
                Change::File(change) => &change.path,
                Change::Link(change) => &change.path,
            };
            assert!(
                allowed.iter().any(|folder| path.starts_with(folder)),
                "{}: {}",
                node.name,
                path.display()
            );
        }
    }
}
