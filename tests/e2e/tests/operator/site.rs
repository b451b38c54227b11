//! The cluster as a case finds it: with wasmlet on all nodes, or with nothing of it.
//!
//! ```text
//!            bring(Installed)            case        leave: as Helm installed it
//!   Clean ───────────────────▶ Installed ────▶ Installed
//!     ▲                            │
//!     └────── bring(Clean) ────────┘        leave: files of every node as before, byte by byte
//!
//!   after a failure: unknown; the next bring() removes everything by force, and makes changed nodes anew
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use wasmlet_e2e::operator::{Bundle, CHANGE, Helm, NAMESPACE, RELEASE, Wasmlet};
use wasmlet_e2e::{
    Cluster, Container, Kubectl, LONG, Namespace, Node, NodeControl, NodeFiles, PodSpec, UnitLife,
    eventually,
};

/// How a case wants the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing of wasmlet is there.
    Clean,
    /// As Helm installs it, on all nodes, at rest.
    Installed,
}

/// What the process knows between cases.
#[derive(Default)]
struct Known {
    /// None: anything may be on the nodes.
    state: Option<State>,
    /// The files of each node before the first case.
    before: BTreeMap<String, NodeFiles>,
}

static KNOWN: Mutex<Known> = Mutex::new(Known {
    state: None,
    before: BTreeMap::new(),
});

fn known() -> MutexGuard<'static, Known> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// After a failure nobody knows how things are.
pub(crate) fn forget() {
    known().state = None;
}

/// Folders of ours that stay, empty: they were the mount points of the agent, which cannot remove what it is mounted on.
const EMPTY: [&str; 3] = ["/etc/wasmlet", "/opt/wasmlet", "/var/lib/wasmlet"];

/// What a case works on.
pub(crate) struct Site<'a> {
    pub(crate) ns: &'a Namespace,
    pub(crate) wasmlet: Wasmlet,
    pub(crate) control: NodeControl,
}

impl<'a> Site<'a> {
    pub(crate) fn new(ns: &'a Namespace) -> Self {
        let cluster = ns.cluster();
        let control = cluster.control();
        Self {
            ns,
            wasmlet: Wasmlet::new(cluster),
            control: control.expect("a case without nodes to change is left out"),
        }
    }

    pub(crate) fn cluster(&self) -> &'static Cluster {
        self.ns.cluster()
    }

    pub(crate) fn nodes(&self) -> &'static [Node] {
        self.cluster().nodes()
    }

    /// The names of the nodes.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.nodes().iter().map(|node| node.name.as_str()).collect()
    }

    pub(crate) fn helm(&self) -> Helm<'static> {
        Helm::new(self.cluster())
    }

    /// kubectl in wasmlet's own namespace.
    pub(crate) fn kubectl(&self) -> Kubectl<'static> {
        Kubectl::new(self.cluster().env(), NAMESPACE)
    }

    /// The release that is under test.
    #[track_caller]
    pub(crate) fn released(&self) -> Bundle {
        Bundle::released(self.cluster()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Makes the nodes as a case wants them.
    #[track_caller]
    pub(crate) fn bring(&self, wanted: State) {
        let now = known().state;
        match (now, wanted) {
            (Some(now), wanted) if now == wanted => {}
            (None, State::Clean) => self.raze(),
            (None, State::Installed) => {
                self.raze();
                self.install();
            }
            (Some(_), State::Clean) => self.uninstall(),
            (Some(_), State::Installed) => self.install(),
        }
        known().state = Some(wanted);
    }

    /// Looks whether a case has left the nodes as it found them.
    #[track_caller]
    pub(crate) fn leave(&self, state: State) {
        match state {
            State::Clean => self.assert_clean(),
            State::Installed => {
                self.wasmlet.until_ready(self.nodes().len());
                let spec = self.wasmlet.runtime().spec;
                assert_eq!(spec.artifact.digest.as_str(), self.released().digest);
            }
        }
    }

    /// As a user does it: one command, and a wait for the condition.
    #[track_caller]
    pub(crate) fn install(&self) {
        self.helm().install(&[]);
        self.wasmlet.until_ready(self.nodes().len());
    }

    /// As a user does it; nodes are then as they were.
    #[track_caller]
    pub(crate) fn uninstall(&self) {
        let said = self.helm().uninstall();
        assert!(said.ok, "helm uninstall: {}{}", said.stdout, said.stderr);
        self.until_no_agents();
        self.assert_clean();
    }

    /// Waits until no pod of wasmlet's own is left: what is on the nodes then stays.
    #[track_caller]
    pub(crate) fn until_no_agents(&self) {
        let kubectl = self.kubectl();
        eventually("no pod of wasmlet's own is left", LONG, || {
            let said = kubectl.run(&["get", "pods", "--output", "name"]);
            (said.ok && said.stdout.is_empty())
                .then_some(())
                .ok_or(said.stdout + &said.stderr)
        });
    }

    /// No object, no label, and every file as before the first case.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        let classes = self
            .kubectl()
            .answer(&["get", "runtimeclasses", "--output", "name"]);
        assert_eq!(classes, "", "RuntimeClasses are left");
        let labels = self.wasmlet.try_labels();
        let labels = labels.unwrap_or_else(|error| panic!("{error}"));
        let left: Vec<_> = labels.iter().filter(|(_, label)| label.is_some()).collect();
        assert!(left.is_empty(), "labels are left: {left:?}");
        let differences = self.differences();
        assert!(
            differences.is_empty(),
            "nodes are not as they were before wasmlet:\n{}",
            differences.join("\n")
        );
    }

    /// What is on the nodes that was not there before the first case, or is not there any more.
    #[track_caller]
    pub(crate) fn differences(&self) -> Vec<String> {
        let names = self.names();
        names
            .iter()
            .flat_map(|name| self.differences_of(name))
            .collect()
    }

    /// The same of one node.
    #[track_caller]
    pub(crate) fn differences_of(&self, node: &str) -> Vec<String> {
        let after = self.files(node);
        let differences = known().before[node].differences(&after);
        let counted = differences.into_iter().filter(|line| {
            !EMPTY.iter().any(|folder| {
                line.starts_with(&format!("{folder}: is new: d ")) && after.below(folder).len() == 1
            })
        });
        counted.map(|line| format!("{node}: {line}")).collect()
    }

    /// The same of a node whose agent goes on to live there: its folders, its lock and its notes do not count.
    #[track_caller]
    pub(crate) fn left_beside_agent(&self, node: &str) -> Vec<String> {
        let own = |path: &str| {
            let folders = [
                "/opt/wasmlet",
                "/opt/wasmlet/store",
                "/opt/wasmlet/store/.lock",
                "/var/lib/wasmlet",
            ];
            folders.contains(&path) || path.starts_with("/var/lib/wasmlet/agent")
        };
        let all = self.differences_of(node).into_iter();
        let path = |line: &str| line.split(": ").nth(1).unwrap_or_default().to_owned();
        all.filter(|line| !own(&path(line))).collect()
    }

    /// Removes everything without asking wasmlet, and makes nodes anew whose files are not as they were.
    #[track_caller]
    fn raze(&self) {
        let kubectl = self.kubectl();
        let mut before = known().before.clone();
        if before.is_empty() {
            for name in self.names() {
                before.insert(name.to_owned(), NodeFiles::read(&self.control, name));
            }
            known().before = before;
            // A cluster that another run has left behind is for nobody to repair.
            self.assert_clean();
            return;
        }
        drop(self.helm().run(&["uninstall", RELEASE, "--no-hooks"]));
        let crds = ["wasmruntimes.wasmlet.dev", "wasmnodes.wasmlet.dev"];
        // Nobody is there any more who would take the finalizer off.
        let runtimes = kubectl.run(&["get", "wasmruntimes", "--output", "name"]);
        for name in runtimes.stdout.lines() {
            kubectl.run(&[
                "patch",
                name,
                "--type=merge",
                "--patch",
                r#"{"metadata":{"finalizers":null}}"#,
            ]);
        }
        for crd in crds {
            kubectl.run(&["delete", "crd", crd, "--ignore-not-found", "--timeout=60s"]);
        }
        let kinds = "runtimeclasses,clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings,priorityclasses";
        for label in [
            "app.kubernetes.io/name=wasmlet",
            "app.kubernetes.io/managed-by=wasmlet-operator",
        ] {
            kubectl.run(&["delete", kinds, "--selector", label, "--ignore-not-found"]);
        }
        kubectl.run(&["delete", "runtimeclasses", "--all"]);
        kubectl.run(&[
            "delete",
            "namespace",
            NAMESPACE,
            "--ignore-not-found",
            "--timeout=120s",
        ]);
        kubectl.run(&[
            "label",
            "nodes",
            "--all",
            "wasmlet.dev/ready-",
            "wasmlet.dev/canary-",
            "pool-",
        ]);
        for node in self.nodes() {
            let is_changed = |name: &str| {
                self.control.try_sh(name, "true").map_or(true, |_| {
                    let after = NodeFiles::read(&self.control, name);
                    !before[name].differences(&after).is_empty()
                })
            };
            if is_changed(&node.name) {
                self.control.remove(&node.name);
                // What a distribution adds to it is no part of the version.
                let version = node
                    .containerd()
                    .split(['+', '~'])
                    .next()
                    .unwrap_or_default();
                let anew = self.control.add(version);
                assert_eq!(
                    anew, node.name,
                    "a node that was removed comes back under its name"
                );
            }
        }
        self.assert_clean();
    }

    /// A pod of a class runs on a node, and says what it should.
    #[track_caller]
    pub(crate) fn assert_runs(&self, node: &str, class: &str) {
        let name = format!("hello-{class}-on-{node}");
        let hello = Container::new("hello", &self.cluster().guest("hello"));
        // By the scheduler, so that the class' own selector is heeded.
        let pod = PodSpec::new(&name)
            .runtime_class(class)
            .set(
                "/spec/nodeSelector",
                json!({ "kubernetes.io/hostname": node }),
            )
            .container(hello);
        let (pod, ended) = self.ns.run_pod(pod);
        assert_eq!(ended.code, 0, "{ended:?}");
        pod.delete();
    }

    /// Waits until the only WasmRuntime has a condition with this status and reason.
    #[track_caller]
    pub(crate) fn until_condition(&self, type_: &str, status: &str, reason: &str) -> String {
        let what = format!("{type_}={status} with {reason}");
        self.wasmlet.until(&what, CHANGE, |runtime| {
            let condition = Wasmlet::condition(runtime, type_)?;
            (condition.status == status && condition.reason == reason).then_some(condition.message)
        })
    }

    /// An object of wasmlet's namespace or of the whole cluster.
    #[track_caller]
    pub(crate) fn get(&self, kind: &str, name: &str) -> Value {
        let text = self
            .kubectl()
            .answer(&["get", kind, name, "--output", "json"]);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{kind} {name}: {error}"))
    }

    /// The present life of each node's containerd.
    #[track_caller]
    pub(crate) fn containerds(&self) -> Vec<UnitLife> {
        self.names()
            .iter()
            .map(|name| self.control.containerd(name))
            .collect()
    }

    /// What is on a node's disk.
    #[track_caller]
    pub(crate) fn files(&self, node: &str) -> NodeFiles {
        NodeFiles::read(&self.control, node)
    }

    /// A file for kubectl; gives its path.
    #[track_caller]
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = std::env::temp_dir().join(format!("{}-{name}", self.ns.name()));
        match std::fs::write(&path, text) {
            Ok(()) => path.display().to_string(),
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }

    /// The agent's pod on a node.
    pub(crate) fn try_agent(&self, node: &str) -> Result<String, String> {
        let said = self.kubectl().run(&[
            "get",
            "pods",
            "--selector",
            "app.kubernetes.io/component=agent",
            "--field-selector",
            &format!("spec.nodeName={node}"),
            "--output",
            "json",
        ]);
        let list: Value = serde_json::from_str(&said.stdout).map_err(|_| said.stderr)?;
        let pods = list["items"].as_array().into_iter().flatten();
        let live = pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let names: Vec<_> = live
            .filter_map(|pod| pod["metadata"]["name"].as_str())
            .collect();
        match names[..] {
            [name] => Ok(name.to_owned()),
            _ => Err(format!("not one agent on {node}: {names:?}")),
        }
    }

    /// Replaces a node's agent, as a new version or a crash of its pod does, and waits for the next one to be ready.
    #[track_caller]
    pub(crate) fn replace_agent(&self, node: &str) {
        let old = self
            .try_agent(node)
            .unwrap_or_else(|error| panic!("{error}"));
        self.kubectl()
            .answer(&["delete", "pod", &old, "--wait=true"]);
        eventually(&format!("another agent runs on {node}"), LONG, || {
            let now = self.try_agent(node)?;
            let phase =
                self.kubectl()
                    .run(&["get", "pod", &now, "--output", "jsonpath={.status.phase}"]);
            (now != old && phase.stdout == "Running")
                .then_some(())
                .ok_or(format!("{now}: {}", phase.stdout))
        });
    }

    /// Does something on a node, which is undone when the value is dropped.
    #[track_caller]
    #[must_use]
    pub(crate) fn inject(&self, node: &str, inject: &str, undo: &'static str) -> Injected {
        self.control.sh(node, inject);
        Injected {
            control: self.control.clone(),
            node: node.to_owned(),
            undo,
        }
    }

    /// Everything that says why: objects, logs of operator and agents, journals.
    pub(crate) fn dump(&self, test: &str) -> String {
        let kubectl = self.kubectl();
        let mut text = self.wasmlet.told();
        let asked: [&[&str]; 4] = [
            &["get", "pods", "--output", "wide"],
            &["get", "wasmruntimes,wasmnodes", "--output", "yaml"],
            &[
                "get",
                "events",
                "--all-namespaces",
                "--sort-by=.lastTimestamp",
            ],
            &[
                "logs",
                "--selector",
                "app.kubernetes.io/name=wasmlet",
                "--prefix",
                "--tail=400",
                "--max-log-requests=30",
            ],
        ];
        let mut long = String::new();
        for arguments in asked {
            let said = kubectl.run(arguments);
            // Writing to a string cannot fail.
            let _ = writeln!(
                long,
                "---- kubectl {}\n{}{}",
                arguments.join(" "),
                said.stdout,
                said.stderr
            );
        }
        for node in self.names() {
            for unit in ["containerd", "kubelet"] {
                let journal = self
                    .control
                    .try_exec(node, &["journalctl", "--no-pager", "-n", "200", "-u", unit]);
                let _ = writeln!(
                    long,
                    "---- {unit} on {node}\n{}",
                    journal.unwrap_or_else(|error| error)
                );
            }
        }
        let file = std::env::temp_dir().join(format!("{}.txt", test.replace("::", ".")));
        let file = std::env::var_os("CARGO_TARGET_DIR")
            .map(|target| std::path::PathBuf::from(target).join("logs/operator"))
            .and_then(|folder| std::fs::create_dir_all(&folder).ok().map(|()| folder))
            .map_or(file, |folder| {
                folder.join(format!("{}.txt", test.replace("::", ".")))
            });
        let _ = match std::fs::write(&file, &long) {
            Ok(()) => write!(text, "\nin full: {}", file.display()),
            Err(error) => write!(text, "\n{}: {error}\n{long}", file.display()),
        };
        text
    }
}

/// What was done to a node; dropped, it is undone.
pub(crate) struct Injected {
    control: NodeControl,
    node: String,
    undo: &'static str,
}

impl Drop for Injected {
    fn drop(&mut self) {
        if let Err(error) = self.control.try_sh(&self.node, self.undo) {
            // The node is made anew before the next case.
            forget();
            eprintln!(
                "what was done to {} could not be undone: {error}",
                self.node
            );
        }
    }
}

/// For a case that waits on purpose to see that nothing happens: longer than a change takes to begin.
pub(crate) const QUIET: Duration = Duration::from_secs(15);
