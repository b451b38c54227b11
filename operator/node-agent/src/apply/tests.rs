//! Applying on a machine that plays systemd and containerd, killed at every moment.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use futures::FutureExt as _;
use wasmlet_api::Digest;
use wasmlet_api::names::NODE_STATE;
use wasmlet_api::reasons::Reason;

use super::machine::{Machine, NodeReady, Question};
use super::state::State;
use super::steps::{Killed, LEFT};
use super::{Applier, For, Node, Now, Probing, Restarted, below};
use crate::facts::{
    Active, CriAnswer, Dump, Effective, HandlerConfig, HostFacts, Live, LiveError, OsRelease,
    Owned, Running, Unit, Version,
};
use crate::host::task::{Probe, ProbeError};
use crate::layout::{Distribution, Layout, Source};
use crate::plan::{
    Candidate, Change, Expectations, FileChange, LinkChange, Ownership, Plan, Restart,
};

pub(crate) const CACHE: &str = "/var/lib/wasmlet/cache";
pub(crate) const CONFIG: &str = "/etc/containerd/config.toml";
const LINK: &str = "/opt/wasmlet/runtimes/wasm";
const SETTINGS: &str = "/etc/wasmlet/wasm.toml";
const DROPPED: &str = "/etc/wasmlet/old.toml";

pub(crate) const RUNC: &str = r#"
version = 2
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"#;
const WASM: &str = r#"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.wasm]
runtime_type = "io.containerd.wasm.v1"
runtime_path = "/opt/wasmlet/runtimes/wasm/bin/containerd-shim-wasm-v1"
"#;

fn with_wasm() -> String {
    format!("{RUNC}{WASM}")
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// containerd does not start with the new configuration.
    Restart,
    /// Neither with the old one.
    EveryRestart,
    /// `-v` of the new shim.
    NewShim,
    /// The container.
    Probe,
    /// `config dump`.
    Dump,
}

/// Its containerd reads its file when it is restarted, as the real one does.
pub(crate) struct Fake {
    root: PathBuf,
    fault: Fault,
    loaded: Mutex<String>,
    restarts: Mutex<u32>,
    runs: Mutex<bool>,
}

impl Fake {
    fn handlers(text: &str) -> BTreeMap<String, HandlerConfig> {
        Effective::parse(text).unwrap().handlers
    }

    fn on_disk(&self) -> String {
        std::fs::read_to_string(below(&self.root, Path::new(CONFIG))).unwrap()
    }
}

impl Live for Fake {
    async fn units(&self, names: &[&str]) -> Result<Vec<Unit>, LiveError> {
        Ok(names
            .iter()
            .filter(|name| **name == "containerd.service")
            .map(|name| Unit {
                name: (*name).to_owned(),
                active: Active::Running,
                command: vec![],
            })
            .collect())
    }

    async fn cri(&self, _: &Path) -> Result<CriAnswer, LiveError> {
        let runtimes: serde_json::Map<_, _> = Self::handlers(&self.loaded.lock().unwrap())
            .into_iter()
            .map(|(name, handler)| {
                let value = serde_json::json!({
                    "runtimeType": handler.runtime_type, "runtimePath": handler.runtime_path,
                });
                (name, value)
            })
            .collect();
        let config = serde_json::json!({ "containerd": { "runtimes": runtimes } });
        Ok(CriAnswer {
            version: "1.7.24".into(),
            info: BTreeMap::from([("config".to_owned(), config.to_string())]),
        })
    }

    async fn version(&self, _: &Path) -> Result<String, LiveError> {
        Ok("containerd 1.7.24".into())
    }

    async fn dump(&self, _: &Path, config: &Path) -> Result<Dump, LiveError> {
        if self.fault == Fault::Dump {
            return Err(LiveError::NotRecorded("dump".into()));
        }
        let text = std::fs::read_to_string(below(&self.root, config)).unwrap();
        Ok(Dump { text })
    }

    async fn machine(&self) -> Result<String, LiveError> {
        Ok("x86_64".into())
    }
}

impl Machine for Fake {
    async fn restart(&self, unit: &str, _: Duration) -> Result<(), LiveError> {
        *self.restarts.lock().unwrap() += 1;
        let text = self.on_disk();
        let is_new = text.contains("runtimes.wasm");
        let fails = self.fault == Fault::EveryRestart || (self.fault == Fault::Restart && is_new);
        *self.runs.lock().unwrap() = !fails;
        if fails {
            return Err(LiveError::Command {
                command: format!("systemctl restart {unit}"),
                cause: "failed".into(),
            });
        }
        *self.loaded.lock().unwrap() = text;
        Ok(())
    }

    async fn is_ready(&self, _: &Path) -> Result<bool, LiveError> {
        Ok(*self.runs.lock().unwrap())
    }

    async fn ask_shim(&self, program: &Path, question: Question<'_>) -> Result<(), LiveError> {
        if self.fault == Fault::NewShim && matches!(question, Question::Version) {
            assert!(program.starts_with("/opt/wasmlet/store"), "{program:?}");
            return Err(LiveError::NotRecorded("-v".into()));
        }
        Ok(())
    }

    async fn node_ready(&self) -> NodeReady {
        NodeReady::NoApi
    }

    async fn probe(&self, _: &Path, probe: &Probe) -> Result<(), ProbeError> {
        if self.fault == Fault::Probe {
            return Err(ProbeError::Outcome {
                handler: probe.handler.clone(),
                code: 125,
                stdout: String::new(),
                said: String::new(),
            });
        }
        Ok(())
    }

    async fn remove_traces(&self) {
        let state = State::read(&below(&self.root, Path::new(NODE_STATE))).unwrap();
        let last = state.last.expect("an order");
        assert_eq!(last.outcome, None, "killed now, nobody would remove them");
        std::fs::remove_dir_all(below(&self.root, Path::new(CACHE))).unwrap();
    }
}

pub(crate) struct Fixture {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) machine: Fake,
}

type Tree = BTreeMap<PathBuf, Vec<u8>>;

impl Fixture {
    pub(crate) fn new(fault: Fault) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        std::fs::create_dir_all(below(&root, Path::new(CACHE))).unwrap();
        for (path, text) in [(CONFIG, RUNC), (DROPPED, "old")] {
            let path = below(&root, Path::new(path));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let machine = Fake {
            root,
            fault,
            loaded: Mutex::new(RUNC.to_owned()),
            restarts: Mutex::new(0),
            runs: Mutex::new(true),
        };
        Self { dir, machine }
    }

    fn facts(&self) -> HostFacts {
        let loaded = self.machine.loaded.lock().unwrap().clone();
        HostFacts {
            bystanders: BTreeMap::new(),
            symlinks: BTreeMap::new(),
            os: OsRelease::default(),
            architecture: "amd64".into(),
            layout: Layout {
                distribution: Distribution::Containerd,
                unit: "containerd.service".into(),
                socket: "/run/containerd/containerd.sock".into(),
                loaded: CONFIG.into(),
                source: Source::Own,
            },
            unit: Unit {
                name: "containerd.service".into(),
                active: Active::Running,
                command: vec![],
            },
            containerd: Version::parse("1.7.24").unwrap(),
            binary: "/usr/bin/containerd".into(),
            files: BTreeMap::new(),
            effective: Ok(Effective::parse(&self.machine.on_disk()).unwrap()),
            running: Ok(Running {
                handlers: Fake::handlers(&loaded),
                ..Running::default()
            }),
            settings: BTreeMap::new(),
            links: BTreeMap::new(),
            bundles: BTreeMap::new(),
            owned: Owned::read(self.dir.path()).unwrap(),
            other_runtimes: Default::default(),
        }
    }

    fn plan(&self) -> Plan {
        let file = |path: &str, before: Option<&str>, after: Option<&str>, ownership| {
            Change::File(FileChange {
                path: path.into(),
                before: before.map(|text| text.as_bytes().to_vec()),
                after: after.map(|text| text.as_bytes().to_vec()),
                mode: 0o644,
                ownership,
            })
        };
        let wasm = with_wasm();
        let handlers = Fake::handlers(&wasm);
        Plan {
            before_restart: vec![
                file(
                    SETTINGS,
                    None,
                    Some("Engine = \"auto\"\n"),
                    Ownership::Keep(None),
                ),
                Change::Link(LinkChange {
                    path: LINK.into(),
                    before: None,
                    after: Some("../store/1".into()),
                }),
                file(
                    CONFIG,
                    Some(RUNC),
                    Some(&wasm),
                    Ownership::Keep(Some(RUNC.into())),
                ),
            ],
            preflight: Some(Candidate {
                files: BTreeMap::from([(PathBuf::from(CONFIG), wasm.clone().into_bytes())]),
                root: CONFIG.into(),
                binary: "/usr/bin/containerd".into(),
            }),
            restart: Restart::Unit {
                name: "containerd.service".into(),
            },
            expect: Expectations {
                others: BTreeMap::from([("runc".to_owned(), handlers["runc"].clone())]),
                ours: BTreeMap::from([("wasm".to_owned(), handlers["wasm"].clone())]),
                ..Expectations::default()
            },
            after_restart: vec![file(DROPPED, Some("old"), None, Ownership::Drop)],
            reasons: vec![],
            advice: vec![],
            written_path: None,
            config_version: 2,
        }
    }

    /// All but the agent's own state, whose lock and originals come and go.
    fn tree(&self) -> Tree {
        fn walk(root: &Path, folder: &Path, tree: &mut Tree) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let inside = path.strip_prefix(root).unwrap().to_owned();
                if inside == Path::new("var") {
                    continue;
                }
                if path.is_symlink() {
                    let end = std::fs::read_link(&path).unwrap();
                    tree.insert(inside, end.into_os_string().into_encoded_bytes());
                } else if path.is_dir() {
                    tree.insert(inside, b"folder".to_vec());
                    walk(root, &path, tree);
                } else {
                    tree.insert(inside, std::fs::read(&path).unwrap());
                }
            }
        }
        let mut tree = Tree::new();
        walk(self.dir.path(), self.dir.path(), &mut tree);
        tree
    }

    async fn apply(&self, applier: &Applier) -> Result<(Restarted, Vec<PathBuf>), super::Failed> {
        let order = For {
            revision: "r".into(),
            attempt: 1,
        };
        let (facts, plan) = (self.facts(), self.plan());
        applier
            .apply(&self.machine, &facts, &plan, &order, Probing::Handlers)
            .await
    }

    pub(crate) fn lock(&self) -> Applier {
        Applier::lock(self.dir.path()).unwrap()
    }

    #[track_caller]
    fn assert_is_new(&self) {
        assert_eq!(self.machine.on_disk(), with_wasm());
        assert!(
            self.machine
                .loaded
                .lock()
                .unwrap()
                .contains("runtimes.wasm")
        );
        assert!(!below(self.dir.path(), Path::new(DROPPED)).exists());
        let owned = Owned::read(self.dir.path()).unwrap();
        let config = &owned.files[Path::new(CONFIG)];
        assert_eq!(config.original.as_deref(), Some(RUNC.as_bytes()));
        assert_eq!(config.written, Digest::of(with_wasm().as_bytes()));
    }

    #[track_caller]
    fn assert_is_old(&self, before: &Tree) {
        assert_eq!(self.tree(), *before);
        assert!(
            !self
                .machine
                .loaded
                .lock()
                .unwrap()
                .contains("runtimes.wasm")
        );
        assert_eq!(Owned::read(self.dir.path()).unwrap(), Owned::default());
    }

    #[track_caller]
    fn assert_no_journal(&self) {
        let state = below(self.dir.path(), Path::new(wasmlet_api::names::NODE_STATE));
        for name in ["journal", "journal.new", "preflight"] {
            assert!(!state.join(name).exists(), "{name} is left");
        }
    }
}

#[tokio::test]
async fn a_plan_is_carried_out_with_one_restart() {
    let fixture = Fixture::new(Fault::None);
    let applier = fixture.lock();
    let (restarted, made) = fixture.apply(&applier).await.unwrap();
    assert_eq!(restarted, Restarted::Once);
    assert!(
        made.contains(&PathBuf::from("/opt/wasmlet/runtimes")),
        "{made:?}"
    );
    fixture.assert_is_new();
    fixture.assert_no_journal();
    assert_eq!(*fixture.machine.restarts.lock().unwrap(), 1);
}

#[tokio::test]
async fn what_fails_before_the_journal_touches_nothing() {
    for (fault, reason) in [
        (Fault::NewShim, Reason::ShimFailed),
        (Fault::Dump, Reason::PreflightFailed),
    ] {
        let fixture = Fixture::new(fault);
        let before = fixture.tree();
        let failed = fixture.apply(&fixture.lock()).await.unwrap_err();
        assert_eq!(
            (failed.node, failed.error.reason()),
            (Node::Untouched, reason)
        );
        fixture.assert_is_old(&before);
        fixture.assert_no_journal();
        assert_eq!(*fixture.machine.restarts.lock().unwrap(), 0);
    }
}

#[tokio::test]
async fn a_failure_puts_every_byte_back_with_one_more_restart() {
    for (fault, reason) in [
        (Fault::Restart, Reason::RestartFailed),
        (Fault::Probe, Reason::ShimFailed),
    ] {
        let fixture = Fixture::new(fault);
        let before = fixture.tree();
        let failed = fixture.apply(&fixture.lock()).await.unwrap_err();
        assert_eq!(failed.error.reason(), reason);
        assert_eq!(failed.node, Node::PutBack { restarts: 2 });
        fixture.assert_is_old(&before);
        fixture.assert_no_journal();
    }
}

#[tokio::test(start_paused = true)]
async fn a_roll_back_that_fails_says_both_and_is_tried_again() {
    let mut fixture = Fixture::new(Fault::EveryRestart);
    let before = fixture.tree();
    let applier = fixture.lock();
    let failed = fixture.apply(&applier).await.unwrap_err();
    assert_eq!(failed.node, Node::Broken);
    assert_eq!(failed.error.reason(), Reason::RollbackFailed);
    fixture.machine.fault = Fault::None;
    let recovered = applier.recover(&fixture.machine).await.unwrap().unwrap();
    assert!(matches!(recovered.now, Now::TakenBack), "{recovered:?}");
    fixture.assert_is_old(&before);
    fixture.assert_no_journal();
}

#[tokio::test]
async fn a_file_that_somebody_changed_meanwhile_stops_everything() {
    let fixture = Fixture::new(Fault::None);
    let facts = fixture.facts();
    let plan = fixture.plan();
    std::fs::write(
        below(fixture.dir.path(), Path::new(CONFIG)),
        "# mine\nversion = 2\n",
    )
    .unwrap();
    let before = fixture.tree();
    let order = For {
        revision: "r".into(),
        attempt: 1,
    };
    let failed = fixture
        .lock()
        .apply(&fixture.machine, &facts, &plan, &order, Probing::Handlers)
        .await
        .unwrap_err();
    assert_eq!(failed.error.reason(), Reason::Drifted);
    assert_eq!(failed.node, Node::Untouched);
    assert_eq!(fixture.tree(), before);
}

#[tokio::test]
async fn two_agents_do_not_work_on_one_node() {
    let fixture = Fixture::new(Fault::None);
    let first = fixture.lock();
    let second = Applier::lock(fixture.dir.path()).unwrap_err();
    assert!(second.to_string().contains("another agent"), "{second}");
    drop(first);
    fixture.lock();
}

/// Kills the agent at its `moment`; whether it came to that.
async fn killed_at(fixture: &Fixture, moment: usize) -> Option<super::steps::Step> {
    let applier = fixture.lock();
    LEFT.set(Some(moment));
    let ended = AssertUnwindSafe(fixture.apply(&applier))
        .catch_unwind()
        .await;
    LEFT.set(None);
    match ended {
        Ok(_) => None,
        Err(cause) => Some(cause.downcast::<Killed>().expect("a test's own panic").0),
    }
}

/// After any number of kills the node is the old or the new, whole.
async fn every_moment(fault: Fault, steps: &mut Vec<&'static str>) {
    for moment in 0.. {
        let fixture = Fixture::new(fault);
        let before = fixture.tree();
        let Some(step) = killed_at(&fixture, moment).await else {
            assert!(moment > 5, "only {moment} moments");
            return;
        };
        steps.push(step.name());
        // The next agent is killed, too, at each of its own moments.
        for again in 0.. {
            let applier = fixture.lock();
            LEFT.set(Some(again));
            let ended = AssertUnwindSafe(applier.recover(&fixture.machine))
                .catch_unwind()
                .await;
            LEFT.set(None);
            let Ok(recovered) = ended else { continue };
            fixture.assert_no_journal();
            match recovered.unwrap().map(|recovered| recovered.now) {
                Some(Now::TakenBack) => fixture.assert_is_old(&before),
                Some(Now::Finished) => fixture.assert_is_new(),
                // A recovery that was killed at its very end.
                None => {}
                Some(Now::Broken(error)) => panic!("{}: {error}", step.name()),
            }
            break;
        }
    }
}

#[tokio::test]
async fn an_agent_that_is_killed_at_any_moment_leaves_the_old_or_the_new() {
    // A kill is no failure: only what else panics is shown.
    let shown = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<Killed>() {
            shown(info);
        }
    }));
    let mut steps = Vec::new();
    every_moment(Fault::None, &mut steps).await;
    every_moment(Fault::Probe, &mut steps).await;
    for step in super::steps::Step::ALL {
        assert!(
            steps.contains(&step.name()),
            "nobody was killed at {}",
            step.name()
        );
    }
}
