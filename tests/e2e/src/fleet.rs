//! Twenty pods on one node, which are to outlive what is done to the node.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{Container, LONG, Namespace, Pod, PodSpec, SHORT, eventually};
use serde_json::Value;

use crate::nodes::OnNode;

const PODS: usize = 20;

/// Every so many is a server, the others write a line each tenth of a second.
const SERVERS: usize = 5;

/// They take turns.
const ENGINES: [&str; 3] = ["wasmtime", "wasmedge", "wasmer"];

const LABEL: &str = "fleet=yes";

/// For a node's pods to be set up again, all at once.
const ALL_READY: Duration = Duration::from_secs(240);

/// The pods.
pub struct Fleet<'a> {
    ns: &'a Namespace,
    node: &'a OnNode,
}

/// One of them, as the kubelet tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The container's id in containerd.
    pub id: String,
    /// How often the container was started again.
    pub restarts: u64,
    is_ready: bool,
    address: String,
    /// How its container before this one ended; null for the first.
    pub last: Value,
}

impl<'a> Fleet<'a> {
    /// Starts all and waits until they are ready.
    #[track_caller]
    pub fn start(ns: &'a Namespace, node: &'a OnNode) -> Self {
        let (ticks, serves) = (ns.cluster().guest("term"), ns.cluster().guest("serve"));
        for index in 0..PODS {
            let image = if index % SERVERS == 0 {
                &serves
            } else {
                &ticks
            };
            let pod = PodSpec::wasm(&name(index))
                .on_node(node.name())
                .restart_policy("Always")
                .label("fleet", "yes")
                .annotation("wasmlet.dev/engine", ENGINES[index % ENGINES.len()]);
            ns.start(pod.container(Container::new("guest", image)));
        }
        let fleet = Self { ns, node };
        fleet.until("all are ready", |_, seen| seen.is_ready);
        fleet
    }

    /// A pod that writes lines, for what is done to one of them.
    pub fn victim(&self) -> Pod<'a> {
        self.ns.pod(&name(1))
    }

    /// All, by name.
    #[track_caller]
    pub fn seen(&self) -> BTreeMap<String, Seen> {
        self.try_seen().unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_seen(&self) -> Result<BTreeMap<String, Seen>, String> {
        let said = self
            .ns
            .kubectl()
            .run(&["get", "pods", "--selector", LABEL, "--output", "json"]);
        if !said.ok {
            return Err(said.stderr);
        }
        let list: Value = serde_json::from_str(&said.stdout).map_err(|error| error.to_string())?;
        let pods = list["items"].as_array().into_iter().flatten();
        let each = pods.map(|pod| {
            let status = &pod["status"];
            let container = &status["containerStatuses"][0];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let seen = Seen {
                id: text(&container["containerID"]),
                restarts: container["restartCount"].as_u64().unwrap_or(0),
                is_ready: container["ready"] == true && status["phase"] == "Running",
                address: text(&status["podIP"]),
                last: container["lastState"]["terminated"].clone(),
            };
            (text(&pod["metadata"]["name"]), seen)
        });
        Ok(each.collect())
    }

    /// Waits until something is true of each; gives them as they are then.
    #[track_caller]
    pub fn until(&self, what: &str, is_so: impl Fn(&str, &Seen) -> bool) -> BTreeMap<String, Seen> {
        eventually(what, ALL_READY, || {
            let seen = self.try_seen()?;
            let other: BTreeMap<_, _> = seen
                .iter()
                .filter(|(name, seen)| !is_so(name, seen))
                .collect();
            if seen.len() == PODS && other.is_empty() {
                Ok(seen)
            } else {
                Err(format!("of {} pods not: {other:#?}", seen.len()))
            }
        })
    }

    /// Waits until each is ready in a container that it did not have before.
    #[track_caller]
    pub fn until_all_restarted(&self, before: &BTreeMap<String, Seen>) {
        self.until("all are ready in new containers", |name, seen| {
            let old = &before[name];
            seen.is_ready && seen.id != old.id && seen.restarts > old.restarts
        });
    }

    /// Fails unless these run in the containers that they had, and nobody started them again.
    #[track_caller]
    pub fn assert_untouched(&self, before: &BTreeMap<String, Seen>, which: impl Fn(&str) -> bool) {
        let now = self.seen();
        for (name, old) in before.iter().filter(|(name, _)| which(name)) {
            assert_eq!(now.get(name), Some(old), "pod {name}");
        }
    }

    /// Fails unless the ones that write lines go on, and the servers answer. A server has then ended.
    #[track_caller]
    pub fn assert_alive(&self) {
        let before = self.ticks().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(before.len(), PODS - PODS / SERVERS, "{before:?}");
        eventually("all go on to write lines", SHORT, || {
            let now = self.ticks()?;
            let stuck: Vec<_> = before
                .iter()
                .filter(|(name, tick)| now.get(*name).is_none_or(|now| now <= *tick))
                .collect();
            stuck
                .is_empty()
                .then_some(())
                .ok_or_else(|| format!("no line after {stuck:?}"))
        });
        let seen = self.seen();
        for server in (0..PODS).step_by(SERVERS).map(name) {
            let address = &seen[&server].address;
            let script = format!("timeout 10 bash -c 'cat </dev/tcp/{address}/8080'");
            assert_eq!(self.node.sh(&script), "served\n", "pod {server}: {seen:?}");
        }
    }

    /// The last line of each that writes, by pod.
    fn ticks(&self) -> Result<BTreeMap<String, u64>, String> {
        let many = (2 * PODS).to_string();
        let requests = format!("--max-log-requests={many}");
        let said = self.ns.kubectl().run(&[
            "logs",
            "--selector",
            LABEL,
            "--tail=1",
            "--prefix",
            &requests,
        ]);
        if !said.ok {
            return Err(said.stderr);
        }
        // [pod/fleet-01/guest] tick 40
        let lines = said.stdout.lines().filter_map(|line| {
            let (head, tick) = line.split_once("] tick ")?;
            let name = head.strip_prefix("[pod/")?.split('/').next()?;
            Some((name.to_owned(), tick.parse().ok()?))
        });
        Ok(lines.collect())
    }

    /// Deletes all; none may stay.
    #[track_caller]
    pub fn delete(self) {
        let kubectl = self.ns.kubectl();
        kubectl.answer(&["delete", "pods", "--selector", LABEL, "--wait=false"]);
        eventually("all pods are gone", LONG, || {
            let said = kubectl.run(&["get", "pods", "--selector", LABEL, "--no-headers"]);
            let is_none = said.ok && said.stdout.is_empty();
            is_none.then_some(()).ok_or(said.stdout + &said.stderr)
        });
    }
}

fn name(index: usize) -> String {
    format!("fleet-{index:02}")
}
