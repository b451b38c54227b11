//! What `cargo tree --prefix depth --format '{p}|{l}'` says: the crates that are linked into one program.
//!
//! Not `cargo metadata`: its graph has the features of the whole workspace, and crates that this program does not link.

use std::collections::{BTreeMap, BTreeSet};

/// A crate in one version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// What is known of a crate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Crate {
    /// Of our own workspace.
    pub(crate) ours: bool,
    /// As its manifest says it.
    pub(crate) licence: String,
    /// What it links itself.
    pub(crate) uses: BTreeSet<Id>,
}

/// The crates of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tree {
    /// The program's own crate.
    pub(crate) root: Id,
    pub(crate) crates: BTreeMap<Id, Crate>,
}

/// Why a text is no such tree.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TreeError {
    #[error(
        "line {line} is not \"DEPTHname vVERSION|LICENCE\" but \"{text}\": call cargo tree with --prefix depth --format '{{p}}|{{l}}'"
    )]
    Line { line: usize, text: String },
    #[error("line {line} is deeper by more than one level than the line before")]
    Depth { line: usize },
    #[error("there is no crate in it")]
    Empty,
}

/// Reads the tree. A branch that was printed before is left out by cargo and marked with `(*)`.
pub(crate) fn parse(text: &str) -> Result<Tree, TreeError> {
    let mut crates: BTreeMap<Id, Crate> = BTreeMap::new();
    let mut above: Vec<Id> = Vec::new();
    for (number, text) in text.lines().enumerate() {
        if text.trim().is_empty() {
            continue;
        }
        let line = number + 1;
        let bad = || TreeError::Line {
            line,
            text: text.to_owned(),
        };
        let name_at = text
            .find(|letter: char| !letter.is_ascii_digit())
            .ok_or_else(bad)?;
        let depth: usize = text[..name_at].parse().map_err(|_| bad())?;
        let (package, licence) = text[name_at..].rsplit_once('|').ok_or_else(bad)?;
        let mut words = package.split(' ');
        let name = words
            .next()
            .filter(|name| !name.is_empty())
            .ok_or_else(bad)?;
        let version = words
            .next()
            .and_then(|version| version.strip_prefix('v'))
            .ok_or_else(bad)?;
        // Only a crate of a path has something more in parentheses.
        let ours = words.any(|word| word.starts_with("(/"));
        let id = Id {
            name: name.to_owned(),
            version: version.to_owned(),
        };
        if depth > above.len() {
            return Err(TreeError::Depth { line });
        }
        above.truncate(depth);
        if let Some(parent) = above.last() {
            crates
                .entry(parent.clone())
                .or_default()
                .uses
                .insert(id.clone());
        }
        let known = crates.entry(id.clone()).or_default();
        known.ours = ours;
        known.licence = licence.trim().trim_end_matches("(*)").trim().to_owned();
        above.push(id);
    }
    let root = above.first().cloned().ok_or(TreeError::Empty)?;
    Ok(Tree { root, crates })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str, version: &str) -> Id {
        Id {
            name: name.into(),
            version: version.into(),
        }
    }

    #[test]
    fn the_graph_is_that_of_the_tree() {
        let text = "0app v0.1.0 (/src/app)|Apache-2.0\n\
                    1one v1.0.0|MIT OR Apache-2.0\n\
                    2both v2.0.0|MIT\n\
                    1ours v0.1.0 (/src/ours)|Apache-2.0\n\
                    2both v2.0.0|MIT (*)\n";
        let tree = parse(text).unwrap();
        assert_eq!(tree.root, id("app", "0.1.0"));
        assert_eq!(tree.crates.len(), 4);
        assert!(tree.crates[&id("ours", "0.1.0")].ours);
        assert!(!tree.crates[&id("one", "1.0.0")].ours);
        assert_eq!(tree.crates[&id("both", "2.0.0")].licence, "MIT");
        for user in [id("one", "1.0.0"), id("ours", "0.1.0")] {
            assert!(tree.crates[&user].uses.contains(&id("both", "2.0.0")));
        }
    }

    #[test]
    fn what_is_no_tree_is_refused_with_its_line() {
        assert_eq!(parse(""), Err(TreeError::Empty));
        assert!(matches!(
            parse("0app v1|MIT\nnonsense"),
            Err(TreeError::Line { line: 2, .. })
        ));
        assert_eq!(
            parse("0app v1|MIT\n2far v1|MIT"),
            Err(TreeError::Depth { line: 2 })
        );
    }
}
