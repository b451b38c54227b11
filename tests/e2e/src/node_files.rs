//! What is written on a node's disk: to compare before and after.

use std::collections::{BTreeMap, BTreeSet};

use crate::control::NodeControl;

/// Everything below these, as far as it is there: where an installation of wasmlet has any business.
const TOPS: &str = "/etc /opt /usr/local /root /home /srv /var/lib/wasmlet /var/log/wasmlet";

/// What the node changes there by itself.
const OWN: [&str; 5] = [
    "/etc/kubernetes/",
    "/etc/mtab",
    "/etc/resolv.conf",
    "/etc/.updated",
    "/etc/machine-id",
];

/// Type, mode, owner and link target of everything, then the digest of each file. `-xdev` is left out: what a test has
/// mounted there is part of it.
const SCRIPT: &str = r#"
for top in TOPS; do
    [ -e "$top" ] || continue
    find "$top" -printf '%p\t%y %m %U:%G %l\n'
    find "$top" -type f -exec sha256sum {} + | sed 's/^\([0-9a-f]*\)  \(.*\)$/\2\t\1/'
done
"#;

/// The files of a node, by path: type, mode, owner, target of a link, content's digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFiles(BTreeMap<String, String>);

impl NodeFiles {
    /// Reads them.
    #[track_caller]
    pub fn read(control: &NodeControl, node: &str) -> Self {
        Self::parse(&control.sh(node, &SCRIPT.replace("TOPS", TOPS)))
    }

    fn parse(said: &str) -> Self {
        let mut files = BTreeMap::<String, String>::new();
        for (path, what) in said.lines().filter_map(|line| line.split_once('\t')) {
            if OWN.iter().any(|own| path.starts_with(own)) {
                continue;
            }
            let known = files.entry(path.to_owned()).or_default();
            if !known.is_empty() {
                known.push(' ');
            }
            known.push_str(what.trim_end());
        }
        Self(files)
    }

    /// The paths below a folder, that folder included.
    pub fn below(&self, folder: &str) -> Vec<&str> {
        let inside = format!("{folder}/");
        let all = self.0.keys().map(String::as_str);
        all.filter(|path| *path == folder || path.starts_with(&inside))
            .collect()
    }

    /// What is not the same, a line each; empty if all is.
    pub fn differences(&self, after: &Self) -> Vec<String> {
        let paths: BTreeSet<_> = self.0.keys().chain(after.0.keys()).collect();
        let line = |path: &String| match (self.0.get(path), after.0.get(path)) {
            (Some(old), Some(new)) if old == new => None,
            (Some(old), Some(new)) => Some(format!("{path}: was {old}, is {new}")),
            (Some(_), None) => Some(format!("{path}: is gone")),
            (None, Some(new)) => Some(format!("{path}: is new: {new}")),
            (None, None) => None,
        };
        paths.into_iter().filter_map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_mode_or_link_is_a_difference_and_nothing_else_is() {
        let before = NodeFiles::parse(
            "/etc/a\tf 644 0:0 \n/etc/a\t11\n/etc/l\tl 777 0:0 a\n/etc/machine-id\tf 444 0:0 \n",
        );
        assert_eq!(before.differences(&before), Vec::<String>::new());
        assert_eq!(before.below("/etc"), ["/etc/a", "/etc/l"]);
        let after = NodeFiles::parse(
            "/etc/a\tf 600 0:0 \n/etc/a\t12\n/etc/l\tl 777 0:0 b\n/etc/n\td 755 0:0\n",
        );
        assert_eq!(
            before.differences(&after),
            [
                "/etc/a: was f 644 0:0 11, is f 600 0:0 12",
                "/etc/l: was l 777 0:0 a, is l 777 0:0 b",
                "/etc/n: is new: d 755 0:0",
            ]
        );
    }
}
