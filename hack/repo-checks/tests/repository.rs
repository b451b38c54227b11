//! The checks on this repository's own files.

use std::fs;
use std::path::{Path, PathBuf};

use wasmlet_repo_checks::ledger::{Ledger, locked};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[track_caller]
fn read(path: &str) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn holds(path: &Path, text: &str) -> bool {
    if path.is_dir() {
        let Ok(entries) = fs::read_dir(path) else {
            return false;
        };
        return entries.flatten().any(|entry| holds(&entry.path(), text));
    }
    fs::read_to_string(path).is_ok_and(|content| content.contains(text))
}

#[test]
fn no_locked_crate_has_a_flaw_of_the_ledger() {
    let ledger: Ledger =
        toml::from_str(&read("docs/advisories.toml")).expect("docs/advisories.toml");
    let packages = locked(&read("Cargo.lock")).expect("Cargo.lock");
    let findings = ledger.check(&packages, |path, text| holds(&root().join(path), text));
    let lines: Vec<String> = findings
        .iter()
        .map(|finding| format!("- {finding}"))
        .collect();
    assert!(
        lines.is_empty(),
        "the ledger's findings:\n{}",
        lines.join("\n")
    );
}

#[test]
fn the_changelog_has_known_headings_only() {
    let known = [
        "### Added",
        "### Changed",
        "### Fixed",
        "### Removed",
        "### Security",
    ];
    for line in read("CHANGELOG.md")
        .lines()
        .filter(|line| line.starts_with("### "))
    {
        assert!(
            known.contains(&line),
            "CHANGELOG.md: unknown heading {line:?}, use one of {known:?}"
        );
    }
}

#[test]
fn decisions_are_numbered_without_gaps_and_hold_their_sections() {
    let mut names: Vec<String> = fs::read_dir(root().join("docs/decisions"))
        .expect("docs/decisions")
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".md"))
        .collect();
    names.sort();
    for (position, name) in names.iter().enumerate() {
        let number = format!("{:04}-", position + 1);
        assert!(
            name.starts_with(&number),
            "docs/decisions/{name}: expected a name that starts with {number}"
        );
        let text = read(&format!("docs/decisions/{name}"));
        for section in ["## Decision", "## Why", "## Drawbacks", "## Rejected"] {
            assert!(
                text.contains(section),
                "docs/decisions/{name}: section {section:?} is missing"
            );
        }
    }
}
