//! The advisory ledger against the lock file.
//!
//! Pure: texts in, findings out. Whether a guard is in the tree is asked through a function.

use std::collections::BTreeMap;

use semver::{Version, VersionReq};
use serde::Deserialize;

/// `docs/advisories.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// Flaws with a fixed release.
    #[serde(default)]
    pub advisory: Vec<Advisory>,
    /// Flaws without one.
    #[serde(default)]
    pub open: Vec<Open>,
    /// Versions somebody has read up on.
    #[serde(default)]
    pub reviewed: Vec<Reviewed>,
}

/// A flaw with a fixed release.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Advisory {
    /// Its public number.
    pub id: String,
    /// The crate it is in.
    #[serde(rename = "crate")]
    pub krate: String,
    /// Which versions do not have it.
    pub fixed: VersionReq,
    /// In a few words.
    pub what: String,
}

/// A flaw without a fixed release, and our defence.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Open {
    /// Its public number, or a name of ours.
    pub id: String,
    /// The crate it is in.
    #[serde(rename = "crate")]
    pub krate: String,
    /// The newest release known to have it.
    pub seen: Version,
    /// In a few words.
    pub what: String,
    /// Files or folders, one of which holds the defence.
    pub guards: Vec<String>,
    /// A text that stands where the defence is.
    pub search: String,
}

/// A version somebody has read the upstream advisories for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reviewed {
    /// The crate.
    #[serde(rename = "crate")]
    pub krate: String,
    /// The version.
    pub version: Version,
    /// The day, for the next reader.
    pub on: String,
}

/// What is wrong, each in one line with what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// A locked version has a published flaw.
    #[error("{krate} {locked} has {id} ({what}): lock a version {fixed}")]
    Vulnerable {
        /// The crate.
        krate: String,
        /// Its locked version.
        locked: Version,
        /// The flaw.
        id: String,
        /// In a few words.
        what: String,
        /// What does not have it.
        fixed: VersionReq,
    },
    /// The defence against an open flaw is not in the tree.
    #[error(
        "{krate} {locked} has {id} and no file under {guards:?} holds {search:?}: the defence is gone or has moved"
    )]
    Unguarded {
        /// The crate.
        krate: String,
        /// Its locked version.
        locked: Version,
        /// The flaw.
        id: String,
        /// Where the defence should be.
        guards: Vec<String>,
        /// What was looked for.
        search: String,
    },
    /// A release newer than any that was looked at.
    #[error(
        "{krate} {locked} is newer than {seen}, the last release looked at for {id}: see whether it is fixed and update docs/advisories.toml"
    )]
    Unseen {
        /// The crate.
        krate: String,
        /// Its locked version.
        locked: Version,
        /// The last release looked at.
        seen: Version,
        /// The flaw.
        id: String,
    },
    /// Nobody has read up on the locked version.
    #[error(
        "{krate} {locked} was not reviewed, {reviewed} was: read its upstream advisories and changes, then update docs/advisories.toml"
    )]
    Unreviewed {
        /// The crate.
        krate: String,
        /// Its locked version.
        locked: Version,
        /// The version in the ledger.
        reviewed: Version,
    },
}

/// Reads the names and versions in a `Cargo.lock`.
pub fn locked(text: &str) -> Result<BTreeMap<String, Vec<Version>>, toml::de::Error> {
    #[derive(Deserialize)]
    struct Lock {
        package: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        version: Version,
    }
    let mut packages: BTreeMap<String, Vec<Version>> = BTreeMap::new();
    for package in toml::from_str::<Lock>(text)?.package {
        packages
            .entry(package.name)
            .or_default()
            .push(package.version);
    }
    Ok(packages)
}

impl Ledger {
    /// Everything wrong with the locked packages. `holds(path, text)` says whether a file at or
    /// below a path of the repository contains a text.
    pub fn check(
        &self,
        packages: &BTreeMap<String, Vec<Version>>,
        holds: impl Fn(&str, &str) -> bool,
    ) -> Vec<Finding> {
        let mut findings = Vec::new();
        let versions = |krate: &str| packages.get(krate).into_iter().flatten().cloned();
        for advisory in &self.advisory {
            for locked in versions(&advisory.krate) {
                if !advisory.fixed.matches(&locked) {
                    findings.push(Finding::Vulnerable {
                        krate: advisory.krate.clone(),
                        locked,
                        id: advisory.id.clone(),
                        what: advisory.what.clone(),
                        fixed: advisory.fixed.clone(),
                    });
                }
            }
        }
        for open in &self.open {
            for locked in versions(&open.krate) {
                if locked > open.seen {
                    findings.push(Finding::Unseen {
                        krate: open.krate.clone(),
                        locked: locked.clone(),
                        seen: open.seen.clone(),
                        id: open.id.clone(),
                    });
                }
                if !open.guards.iter().any(|path| holds(path, &open.search)) {
                    findings.push(Finding::Unguarded {
                        krate: open.krate.clone(),
                        locked,
                        id: open.id.clone(),
                        guards: open.guards.clone(),
                        search: open.search.clone(),
                    });
                }
            }
        }
        for reviewed in &self.reviewed {
            for locked in versions(&reviewed.krate) {
                if locked != reviewed.version {
                    findings.push(Finding::Unreviewed {
                        krate: reviewed.krate.clone(),
                        locked,
                        reviewed: reviewed.version.clone(),
                    });
                }
            }
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEDGER: &str = r#"
        [[advisory]]
        id = "A-1"
        crate = "one"
        fixed = ">=0.5.5"
        what = "a hole"

        [[open]]
        id = "A-2"
        crate = "two"
        seen = "1.0.0"
        what = "another"
        guards = ["src"]
        search = "defence"

        [[reviewed]]
        crate = "three"
        version = "3.0.0"
        on = "2026-01-01"
    "#;

    #[track_caller]
    fn check(name: &str, version: &str, guarded: bool) -> Vec<Finding> {
        let lock = format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n");
        let ledger: Ledger = toml::from_str(LEDGER).unwrap();
        ledger.check(&locked(&lock).unwrap(), |path, text| {
            assert_eq!((path, text), ("src", "defence"));
            guarded
        })
    }

    #[test]
    fn an_old_version_is_found_and_a_fixed_one_is_not() {
        assert!(matches!(
            check("one", "0.5.4", true)[..],
            [Finding::Vulnerable { .. }]
        ));
        assert_eq!(check("one", "0.5.5", true), []);
        assert_eq!(check("one", "0.7.0", true), []);
    }

    #[test]
    fn an_open_flaw_needs_its_guard() {
        assert!(matches!(
            check("two", "1.0.0", false)[..],
            [Finding::Unguarded { .. }]
        ));
        assert_eq!(check("two", "1.0.0", true), []);
    }

    #[test]
    fn a_release_newer_than_the_last_seen_asks_for_a_look() {
        assert!(matches!(
            check("two", "1.0.1", true)[..],
            [Finding::Unseen { .. }]
        ));
    }

    #[test]
    fn a_version_nobody_reviewed_is_found_in_both_directions() {
        assert!(matches!(
            check("three", "3.0.1", true)[..],
            [Finding::Unreviewed { .. }]
        ));
        assert!(matches!(
            check("three", "2.9.0", true)[..],
            [Finding::Unreviewed { .. }]
        ));
        assert_eq!(check("three", "3.0.0", true), []);
    }

    #[test]
    fn crates_that_are_not_locked_are_not_judged() {
        assert_eq!(check("four", "0.0.1", false), []);
    }

    #[test]
    fn a_misspelt_key_is_an_error() {
        assert!(toml::from_str::<Ledger>("[[advisories]]\nid = \"x\"").is_err());
    }
}
