//! How a node differs from what it should be, and how to see cheaply that it does not.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use wasmlet_api::Digest;
use wasmlet_api::names::NODE_RUNTIMES;

use crate::apply::{below, files};
use crate::facts::HostFacts;
use crate::plan::{Change, Plan, Restart};
use crate::store::collect;

/// Inode, length and time of the last change.
pub(super) type Stamp = (u64, u64, SystemTime);
/// Files, and what they were.
pub(super) type Fingerprint = Vec<(PathBuf, Option<Stamp>)>;

/// Whether no byte of the node changes.
pub(super) fn is_bookkeeping(plan: &Plan) -> bool {
    plan.restart == Restart::No
        && plan
            .before_restart
            .iter()
            .chain(&plan.after_restart)
            .all(|change| matches!(change, Change::File(file) if !file.writes()))
}

/// What a plan changes, for people.
pub(super) fn difference(plan: &Plan) -> String {
    let mut paths: BTreeSet<String> = BTreeSet::new();
    for change in plan.before_restart.iter().chain(&plan.after_restart) {
        paths.insert(match change {
            Change::File(file) => file.path.display().to_string(),
            Change::Link(link) => link.path.display().to_string(),
        });
    }
    let mut parts = Vec::new();
    if !paths.is_empty() {
        let paths: Vec<String> = paths.into_iter().collect();
        parts.push(format!("somebody else changed {}", paths.join(", ")));
    }
    if plan.restart != Restart::No {
        parts.push("the running containerd has not loaded wasmlet's handlers".to_owned());
    }
    parts.join("; ")
}

/// Files that decide what containerd does, ours, and containerd's socket, which is another after each of its starts.
pub(super) fn fingerprint(root: &Path, facts: &HostFacts) -> Fingerprint {
    let links = Path::new(NODE_RUNTIMES);
    facts
        .files
        .keys()
        .chain(facts.settings.keys())
        .cloned()
        .chain(facts.links.keys().map(|name| links.join(name)))
        .chain([
            facts.layout.socket.clone(),
            facts.layout.loaded.clone(),
            PathBuf::from(wasmlet_api::names::NODE_SETTINGS),
            links.to_owned(),
            facts.binary.clone(),
        ])
        .map(|path| {
            let path = below(root, &path);
            let stamp = stamp_of(&path);
            (path, stamp)
        })
        .collect()
}

/// Inode, length and time of the last change.
pub(super) fn stamp_of(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = path.symlink_metadata().ok()?;
    Some((metadata.ino(), metadata.len(), metadata.modified().ok()?))
}

/// The bundles that links lead to.
pub(super) fn linked(runtimes: &Path) -> Vec<Digest> {
    let Ok(entries) = std::fs::read_dir(runtimes) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| files::read_link(&entry.path()).ok().flatten())
        .filter_map(|end| end.file_name().and_then(collect::bundle_name))
        .collect()
}
