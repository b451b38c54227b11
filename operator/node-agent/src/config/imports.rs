//! `imports`: which files containerd reads after which.
//!
//! A path with `*`, `?` or `[` is a pattern of Go's `filepath.Glob`, a relative one is relative to the folder of the file that has it. Files are read
//! depth first; in 1.x each replaces whole plugins of those before it, from 2.0 on they are merged key by key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, Value};

use super::inspect::inspect;

/// Bound on the files of one configuration: a loop ends here.
const MAX_FILES: usize = 256;

/// The import of a file that would also read a file of this name in its folder, as it is written there.
pub fn covers(imports: &[String], from: &Path, name: &str) -> Option<(String, PathBuf)> {
    imports.iter().find_map(|import| {
        let pattern = absolute(import, from);
        let last = pattern.file_name()?.to_str()?.to_owned();
        let folder = pattern.parent()?;
        let folder_is_plain = !folder.to_str()?.contains(['*', '?', '[', '\\']);
        // A plain path would read this one file, which is somebody's.
        let is_pattern = last.contains(['*', '?']);
        (is_pattern && folder_is_plain && matches(&last, name))
            .then(|| (import.clone(), folder.join(name)))
    })
}

/// The path of an import of the file `from`.
pub fn absolute(import: &str, from: &Path) -> PathBuf {
    from.parent().unwrap_or(Path::new("/")).join(import)
}

/// Whether a name fits a pattern of `*` and `?`. Other patterns of Go's fit nothing here: what cannot be judged is not relied on.
pub fn matches(pattern: &str, name: &str) -> bool {
    if pattern.contains(['[', '\\']) {
        return false;
    }
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    // Reachable positions in the pattern, after each character of the name.
    let mut at = vec![false; pattern.len() + 1];
    at[0] = true;
    let skip_stars = |at: &mut Vec<bool>| {
        for index in 0..pattern.len() {
            if at[index] && pattern[index] == '*' {
                at[index + 1] = true;
            }
        }
    };
    skip_stars(&mut at);
    for character in name {
        let mut next = vec![false; pattern.len() + 1];
        for index in 0..pattern.len() {
            if at[index] {
                match pattern[index] {
                    '*' => next[index] = true,
                    '?' => next[index + 1] = true,
                    same if same == character => next[index + 1] = true,
                    _ => {}
                }
            }
        }
        at = next;
        skip_stars(&mut at);
    }
    at[pattern.len()]
}

/// The files in the order in which containerd merges them, the later over the earlier. `files` has all that imports can name.
pub fn merge_order(root: &Path, files: &BTreeMap<PathBuf, Option<Vec<u8>>>) -> Vec<PathBuf> {
    let mut order = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        if order.contains(&path) || order.len() >= MAX_FILES {
            continue;
        }
        let Some(Some(bytes)) = files.get(&path) else {
            continue;
        };
        let imports = std::str::from_utf8(bytes)
            .ok()
            .and_then(|text| inspect(text).ok())
            .map(|document| document.imports)
            .unwrap_or_default();
        // A stack: the last import is put first.
        for import in imports.iter().rev() {
            for found in imported(&absolute(import, &path), files).into_iter().rev() {
                pending.push(found);
            }
        }
        order.push(path);
    }
    order
}

/// The files of an import, in the order of their names.
fn imported(pattern: &Path, files: &BTreeMap<PathBuf, Option<Vec<u8>>>) -> Vec<PathBuf> {
    let Some(last) = pattern.file_name().and_then(|name| name.to_str()) else {
        return Vec::new();
    };
    if !last.contains(['*', '?']) {
        return vec![pattern.to_owned()];
    }
    files
        .iter()
        .filter(|(path, bytes)| {
            bytes.is_some()
                && path.parent() == pattern.parent()
                && path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .is_some_and(|name| matches(last, name))
        })
        .map(|(path, _)| path.clone())
        .collect()
}

/// A file's text with its absolute imports below another folder, for a preflight. `None`: it is not TOML.
pub fn rewritten(text: &str, below: &Path) -> Option<String> {
    let mut document: DocumentMut = text.parse().ok()?;
    let Some(imports) = document.get_mut("imports") else {
        return Some(text.to_owned());
    };
    let imports = imports.as_array_mut()?;
    let mut changed = false;
    for import in imports.iter_mut() {
        let Some(path) = import.as_str().map(Path::new) else {
            continue;
        };
        if let Ok(relative) = path.strip_prefix("/") {
            let moved = below.join(relative).to_str()?.to_owned();
            let decor = import.decor().clone();
            *import = Value::from(moved);
            *import.decor_mut() = decor;
            changed = true;
        }
    }
    Some(if changed {
        document.to_string()
    } else {
        text.to_owned()
    })
}
