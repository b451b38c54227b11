//! Recorded nodes as the tests use them: a copy with the bundle in its store.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use wasmlet_api::target::NodeTarget;
use wasmlet_api::{Digest, names};
use wasmlet_node_agent::facts::{
    Choices, FactsError, HostFacts, ORIGINALS, OWNED, Owned, OwnedFile, Recorded, Running, gather,
};
use wasmlet_node_agent::plan::{Change, Ownership, Plan};

/// The bundle that every node has.
const BUNDLE: &str = r#"{"schema":1,"version":"0.1.0","platform":"linux/amd64","entries":[]}"#;
/// The header of a program for x86_64 (elf(5)).
const ELF: &[u8] = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0";

/// The folder of recorded nodes.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded")
}

/// The names of all of them.
pub(crate) fn names() -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder())
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() >= 40, "only {names:?} are left");
    names
}

/// What every node shall have.
pub(crate) fn target() -> NodeTarget {
    let text = fs::read_to_string(folder().join("target.yaml")).unwrap();
    let text = text.replace("sha256:DIGEST", Digest::of(BUNDLE.as_bytes()).as_str());
    serde_saphyr::from_str(&text).unwrap()
}

/// A copy of a recorded node.
pub(crate) struct Node {
    pub(crate) name: String,
    root: TempDir,
}

impl Node {
    pub(crate) fn new(name: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        copy(&folder().join(name), root.path());
        let digest = Digest::of(BUNDLE.as_bytes());
        let bundle = below(root.path(), names::NODE_STORE).join(digest.hex());
        fs::create_dir_all(bundle.join("bin")).unwrap();
        fs::write(bundle.join("bundle.json"), BUNDLE).unwrap();
        let shim = bundle.join("bin").join(names::SHIM);
        fs::write(&shim, ELF).unwrap();
        fs::set_permissions(shim, fs::Permissions::from_mode(0o755)).unwrap();
        let name = name.to_owned();
        Self { name, root }
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn recorded(&self) -> Recorded {
        Recorded::read(self.root()).unwrap()
    }

    pub(crate) fn facts(&self) -> Result<HostFacts, FactsError> {
        let recorded = self.recorded();
        let choices = Choices::default();
        let gathering = gather(self.root(), &recorded, &choices);
        // Everything recorded is there at once: nothing in it waits.
        futures::executor::block_on(gathering)
    }

    /// The facts as they are once containerd has loaded what a plan wrote.
    pub(crate) fn facts_after(&self, before: &HostFacts, plan: &Plan) -> HostFacts {
        let mut facts = self.facts().unwrap();
        let running = facts.running.get_or_insert_with_running();
        running.extend(plan.expect.ours.clone());
        // What was recorded is a dump of the files as they were.
        facts.effective = before.effective.clone();
        if let Ok(effective) = &mut facts.effective {
            effective.handlers.extend(plan.expect.ours.clone());
        }
        facts
    }

    /// Does what a plan says, as far as files go.
    pub(crate) fn apply(&self, plan: &Plan) {
        let mut owned = Owned::read(self.root()).unwrap();
        for change in plan.before_restart.iter().chain(&plan.after_restart) {
            match change {
                Change::File(change) => {
                    let path = self.path(&change.path);
                    assert_eq!(fs::read(&path).ok(), change.before, "{}", path.display());
                    match &change.after {
                        Some(bytes) => {
                            fs::create_dir_all(path.parent().unwrap()).unwrap();
                            fs::write(&path, bytes).unwrap();
                        }
                        None if change.before.is_some() => fs::remove_file(&path).unwrap(),
                        None => {}
                    }
                    match &change.ownership {
                        Ownership::Keep(original) => {
                            let written = Digest::of(change.after.as_deref().unwrap());
                            let file = OwnedFile {
                                original: original.clone(),
                                written,
                            };
                            owned.files.insert(change.path.clone(), file);
                        }
                        Ownership::Drop => {
                            owned.files.remove(&change.path);
                        }
                    }
                }
                Change::Link(change) => {
                    let path = self.path(&change.path);
                    assert_eq!(fs::read_link(&path).ok(), change.before);
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    if change.before.is_some() {
                        fs::remove_file(&path).unwrap();
                    }
                    if let Some(end) = &change.after {
                        symlink(end, &path).unwrap();
                    }
                }
            }
        }
        let originals = below(self.root(), ORIGINALS);
        fs::create_dir_all(&originals).unwrap();
        for bytes in owned
            .files
            .values()
            .filter_map(|file| file.original.as_ref())
        {
            fs::write(originals.join(Digest::of(bytes).hex()), bytes).unwrap();
        }
        fs::write(below(self.root(), OWNED), owned.to_json()).unwrap();
    }

    /// Where a path of the node is.
    pub(crate) fn path(&self, path: &Path) -> PathBuf {
        self.root().join(path.strip_prefix("/").unwrap())
    }

    /// All its files but those in our own folders of `/opt` and `/var`.
    pub(crate) fn tree(&self) -> BTreeMap<PathBuf, String> {
        let mut tree = BTreeMap::new();
        collect(self.root(), Path::new("/"), &mut tree);
        tree.retain(|path, _| {
            !path.starts_with(names::NODE_ROOT) && !path.starts_with(names::NODE_STATE)
        });
        tree
    }
}

/// What containerd runs with, to be changed.
trait RunningHandlers {
    fn get_or_insert_with_running(
        &mut self,
    ) -> &mut BTreeMap<String, wasmlet_node_agent::facts::HandlerConfig>;
}

impl RunningHandlers for Result<Running, String> {
    fn get_or_insert_with_running(
        &mut self,
    ) -> &mut BTreeMap<String, wasmlet_node_agent::facts::HandlerConfig> {
        &mut self
            .as_mut()
            .expect("containerd runs on this node")
            .handlers
    }
}

/// A path below a folder.
pub(crate) fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.strip_prefix('/').unwrap())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}

fn collect(root: &Path, path: &Path, tree: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(root.join(path.strip_prefix("/").unwrap())).unwrap() {
        let entry = entry.unwrap();
        let path = path.join(entry.file_name());
        if entry.path().is_dir() {
            collect(root, &path, tree);
        } else if entry.path().is_file() {
            tree.insert(path, fs::read_to_string(entry.path()).unwrap());
        }
    }
}
