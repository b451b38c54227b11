//! Puts our handlers into a file's text, and takes them out.

use super::block::{self, Torn};
use super::compare::{difference, others};
use super::inspect::{Document, NotToml, by_hand, inspect};
use super::is_ours;
use super::structure;
use super::write::Wanted;

/// Why a file cannot be changed. The caller says which file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not TOML.
    #[error("it is not TOML: correct it, or put back what containerd was started with")]
    Parse(#[source] NotToml),
    /// A marker without its other half.
    #[error(
        "line {0} is a marker of wasmlet-node without its other half: remove the lines that wasmlet-node wrote there, with both markers"
    )]
    Torn(usize),
    /// Somebody else's handler has a name that is needed.
    #[error(
        "it has a handler {0:?} that wasmlet-node did not write: remove it, or give the WasmRuntime another handler"
    )]
    Taken(String),
    /// As before, from the page for administrators.
    #[error(
        "it has the handler {0:?} from an installation by hand: remove that as docs/install-by-hand.md says under \"Removing\""
    )]
    TakenByHand(String),
    /// Something is where a table has to be.
    #[error("plugins.{0:?}.containerd.runtimes is not a table, so no handler can be added to it")]
    NoTable(&'static str),
    /// A change would have touched more than ours. Nothing was written.
    #[error("a change of our handlers would also change {0}: report this with the file")]
    Damaged(String),
}

/// The text with exactly these handlers of ours.
///
/// # Errors
/// [`ConfigError`]
pub fn insert(text: &str, wanted: &Wanted) -> Result<String, ConfigError> {
    let base = remove(text)?;
    if wanted.handlers.is_empty() {
        return Ok(base);
    }
    let mut before = parse(&base)?;
    let base = match wanted.declare_version {
        None => base,
        Some(version) => {
            before.tree.insert("version".to_owned(), version.into());
            block::prepend_version(&base, version)
        }
    };
    for name in wanted.handlers.keys() {
        if before.handlers.contains_key(name) {
            return Err(if by_hand(&base) {
                ConfigError::TakenByHand(name.clone())
            } else {
                ConfigError::Taken(name.clone())
            });
        }
    }
    let document = base
        .parse::<toml_edit::DocumentMut>()
        .expect("the other parser has read it, and both are of one grammar");
    let after = if structure::takes_headers(&document, wanted.plugin) {
        block::append(&base, wanted)
    } else {
        structure::set(&base, wanted).ok_or(ConfigError::NoTable(wanted.plugin.name()))?
    };
    let carried: Vec<String> = wanted.carried.keys().cloned().collect();
    let tree = parse(&after)?.tree;
    unchanged(&others(&before.tree, &[]), &others(&tree, &carried))?;
    Ok(after)
}

/// A Go template's text with exactly these handlers of ours. What it renders to is compared by the caller, in the file that was
/// rendered last.
///
/// # Errors
/// [`ConfigError`]
pub fn insert_into_template(text: &str, wanted: &Wanted) -> Result<String, ConfigError> {
    let base = remove_from_template(text)?;
    if wanted.handlers.is_empty() {
        return Ok(base);
    }
    if by_hand(&base) {
        let name = wanted.handlers.keys().next().cloned();
        return Err(ConfigError::TakenByHand(name.unwrap_or_default()));
    }
    Ok(block::append(&base, wanted))
}

/// A Go template's text without our block.
///
/// # Errors
/// [`ConfigError`]
pub fn remove_from_template(text: &str) -> Result<String, ConfigError> {
    let split = block::split(text).map_err(|Torn { line }| ConfigError::Torn(line))?;
    Ok(split.map_or_else(|| text.to_owned(), |split| split.rest))
}

/// The text without any handler of ours.
///
/// # Errors
/// [`ConfigError`]
pub fn remove(text: &str) -> Result<String, ConfigError> {
    let split = block::split(text).map_err(|Torn { line }| ConfigError::Torn(line))?;
    let rest = match &split {
        // Somebody's table between our markers is not cut away with them.
        Some(split) if only_ours(&split.inner, &split.carried) => split.rest.clone(),
        Some(_) | None => text.to_owned(),
    };
    let document = match inspect(&rest) {
        Ok(document) => document,
        // What cannot be read has no handlers to set apart; without a block it is as it was.
        Err(_) => return Ok(rest),
    };
    let still = document.handlers.values().chain(document.ignored.values());
    if !still.into_iter().any(is_ours) {
        return Ok(rest);
    }
    let after = structure::unset(&rest).ok_or(ConfigError::NoTable("…"))?;
    let tree = parse(&after)?.tree;
    unchanged(&others(&document.tree, &[]), &others(&tree, &[]))?;
    Ok(after)
}

fn only_ours(inner: &str, carried: &[String]) -> bool {
    match inspect(inner) {
        Ok(document) => others(&document.tree, carried)
            .keys()
            .all(|key| key == "version"),
        // Half a table: the whole text is looked at instead.
        Err(_) => false,
    }
}

fn unchanged(before: &toml::Table, after: &toml::Table) -> Result<(), ConfigError> {
    match difference(before, after) {
        None => Ok(()),
        Some(place) => Err(ConfigError::Damaged(place)),
    }
}

fn parse(text: &str) -> Result<Document, ConfigError> {
    inspect(text).map_err(ConfigError::Parse)
}
