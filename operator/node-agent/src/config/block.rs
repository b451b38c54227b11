//! The block between two marker lines.

use super::write::Wanted;

const BEGIN: &str = "# wasmlet-node: begin";
const END: &str = "# wasmlet-node: end";
/// After [`BEGIN`]: the line before had no end, so ours put one there.
const JOINED: &str = "after a line without an end";
/// After [`BEGIN`]: the names of handlers of others in the block.
const CARRIES: &str = "carries ";
/// After [`BEGIN`]: the block begins with the file's version.
const VERSION: &str = "with the version";

/// A text with a block, in three parts; together they are the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Split {
    /// The text without the block.
    pub(crate) rest: String,
    /// The block without its marker lines.
    pub(crate) inner: String,
    /// Handlers of others in the block.
    pub(crate) carried: Vec<String>,
}

/// Whether there are markers that do not belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Torn {
    /// Line of the marker without its other half, from 1.
    pub(crate) line: usize,
}

/// Puts the tables behind the text.
pub(crate) fn append(text: &str, wanted: &Wanted) -> String {
    let newline = newline_of(text);
    let mut notes = Vec::new();
    let joined = !text.is_empty() && !text.ends_with('\n');
    if joined {
        notes.push(JOINED.to_owned());
    }
    if !wanted.carried.is_empty() {
        let names: Vec<_> = wanted.carried.keys().map(|name| quoted(name)).collect();
        notes.push(format!("{CARRIES}{}", names.join(" ")));
    }
    let mut block = String::new();
    block.push_str(BEGIN);
    for (index, note) in notes.iter().enumerate() {
        block.push_str(if index == 0 { ": " } else { "; " });
        block.push_str(note);
    }
    block.push_str("\n# Written by wasmlet-node, which undoes changes here.\n");
    block.push_str(&wanted.tables());
    block.push_str(END);
    block.push('\n');
    if newline != "\n" {
        block = block.replace('\n', newline);
    }
    let between = if joined { newline } else { "" };
    format!("{text}{between}{block}")
}

/// Puts `version = N` in front of a text that has none, marked, so that [`split`] takes it out again.
pub(crate) fn prepend_version(text: &str, version: i64) -> String {
    let newline = newline_of(text);
    let (bom, rest) = match text.strip_prefix('\u{feff}') {
        Some(rest) => ("\u{feff}", rest),
        None => ("", text),
    };
    format!("{bom}{BEGIN}: {VERSION}{newline}version = {version}{newline}{END}{newline}{rest}")
}

/// Takes all blocks out. `None`: there are none.
pub(crate) fn split(text: &str) -> Result<Option<Split>, Torn> {
    let mut rest = String::new();
    let mut inner = String::new();
    let mut carried = Vec::new();
    let mut open: Option<usize> = None;
    let mut found = false;
    // Where the text ended without a newline, and how long ours is there.
    let mut joined: Option<(usize, usize)> = None;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let bare = line.trim_start_matches('\u{feff}').trim_end();
        let torn = Torn { line: index + 1 };
        if bare == BEGIN
            || bare
                .strip_prefix(BEGIN)
                .is_some_and(|n| n.starts_with(": "))
        {
            if open.is_some() {
                return Err(torn);
            }
            open = Some(index + 1);
            found = true;
            if line.starts_with('\u{feff}') {
                rest.push('\u{feff}');
            }
            let notes = bare.strip_prefix(BEGIN).unwrap_or_default();
            for note in notes.trim_start_matches(": ").split("; ") {
                if note == JOINED {
                    let newline = if rest.ends_with("\r\n") { 2 } else { 1 };
                    joined = Some((rest.len(), newline));
                } else if let Some(names) = note.strip_prefix(CARRIES) {
                    carried.extend(unquoted(names));
                }
            }
        } else if bare == END {
            if open.take().is_none() {
                return Err(torn);
            }
        } else if open.is_some() {
            inner.push_str(line);
        } else {
            rest.push_str(line);
        }
    }
    // Only if nobody has put something behind our block since.
    if let Some((length, newline)) = joined
        && rest.len() == length
    {
        rest.truncate(length - newline);
    }
    match open {
        Some(line) => Err(Torn { line }),
        None if found => Ok(Some(Split {
            rest,
            inner,
            carried,
        })),
        None => Ok(None),
    }
}

/// `\r\n` if the first line ends so.
pub(crate) fn newline_of(text: &str) -> &'static str {
    match text.split_inclusive('\n').next() {
        Some(line) if line.ends_with("\r\n") => "\r\n",
        _ => "\n",
    }
}

/// JSON's quotes: a name cannot leave the comment.
fn quoted(name: &str) -> String {
    serde_json::Value::from(name)
        .to_string()
        .replace(' ', "\\u0020")
}

fn unquoted(names: &str) -> impl Iterator<Item = String> + '_ {
    names
        .split(' ')
        .filter_map(|name| serde_json::from_str(name).ok())
}
