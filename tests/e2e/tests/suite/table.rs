//! The tables of docs/troubleshooting.md, as the cases read them.

/// A row: what the user reads, and how the container ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// The first column, `…` for what differs.
    pub(crate) message: String,
    /// Exit code and reason, of a container that ran.
    pub(crate) end: Option<(i32, String)>,
}

/// The rows of the page.
#[track_caller]
pub(crate) fn rows() -> Vec<Row> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/troubleshooting.md");
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let rows: Vec<_> = text.lines().filter_map(row).collect();
    assert!(!rows.is_empty(), "{path} has no table any more");
    rows
}

fn row(line: &str) -> Option<Row> {
    // No cell has a bar in it.
    let cells: Vec<_> = line
        .strip_prefix("| `")?
        .split('|')
        .map(str::trim)
        .collect();
    let (first, second) = (cells.first()?, cells.get(1)?);
    Some(Row {
        message: first.trim_end_matches('`').to_owned(),
        end: end(second),
    })
}

/// 137, `OOMKilled`
fn end(cell: &str) -> Option<(i32, String)> {
    let (code, reason) = cell.split_once(", ")?;
    Some((code.parse().ok()?, reason.trim_matches('`').to_owned()))
}

/// Whether a text holds what a row's message says: the parts between `…` in their order.
pub(crate) fn says(text: &str, message: &str) -> bool {
    let mut rest = text;
    for part in message.split('…').map(str::trim) {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}
