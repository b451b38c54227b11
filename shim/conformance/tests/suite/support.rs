//! docs/support.md: what each engine can do, as a table that these tests hold to be true.
//!
//! A case that names a row is run on every engine. Where the table says yes it must pass, and where it says
//! no it must fail: an engine that learns something makes a test fail until the table says so.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use wasmlet_conformance::Runtime;

const TEXT: &str = include_str!("../../../../docs/support.md");

/// First cell of the head of the table that is read.
const HEAD: &str = "what a guest needs";

/// Cells by row and engine.
static TABLE: LazyLock<BTreeMap<(String, String), bool>> = LazyLock::new(|| match parse(TEXT) {
    Ok(table) => table,
    Err(error) => panic!("docs/support.md: {error}"),
});

/// Whether the engine of a runtime does what the row is about.
#[track_caller]
pub(crate) fn says_yes(row: &str, runtime: Runtime) -> bool {
    let key = (row.to_owned(), runtime.engine().to_owned());
    match TABLE.get(&key) {
        Some(yes) => *yes,
        None => panic!("docs/support.md has no cell for {row:?} and {}", key.1),
    }
}

fn parse(text: &str) -> Result<BTreeMap<(String, String), bool>, String> {
    let cells = |line: &str| -> Option<Vec<String>> {
        let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
        Some(
            inner
                .split('|')
                .map(|cell| cell.trim().to_owned())
                .collect(),
        )
    };
    let mut lines = text
        .lines()
        .map(cells)
        .skip_while(|line| line.as_ref().is_none_or(|cells| cells[0] != HEAD));
    let engines = lines
        .next()
        .flatten()
        .ok_or(format!("no table whose head begins with {HEAD:?}"))?;
    let mut table = BTreeMap::new();
    for row in lines.skip(1).map_while(|line| line) {
        let name = &row[0];
        if row.len() != engines.len() {
            return Err(format!("the row {name:?} has {} cells", row.len()));
        }
        for (engine, cell) in engines.iter().zip(&row).skip(1) {
            let yes = match cell.split([' ', ':', ',']).next() {
                Some("yes") => true,
                Some("no") => false,
                _ => {
                    return Err(format!(
                        "{name:?}, {engine}: {cell:?} is neither yes nor no"
                    ));
                }
            };
            table.insert((name.clone(), engine.to_lowercase()), yes);
        }
    }
    Ok(table)
}
