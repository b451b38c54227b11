//! The changes of containerd's own files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use wasmlet_api::Digest;

use super::place::{Form, Place, text};
use super::{Candidate, FileChange, Ownership, PREFLIGHT, Refusal};
use crate::config::{self, ConfigError, Wanted, is_ours};
use crate::facts::{DROP_IN, HandlerConfig, HostFacts};
use crate::layout::Source;

/// What k3s and RKE2 need in a template of somebody's: all that they would write themselves.
const BASE_TEMPLATE: &str = "{{ template \"base\" . }}\n";
/// Permissions of a new file of containerd's: others' settings may be secrets, and containerd reads as root.
const CONFIG_MODE: u32 = 0o644;

/// The changes of containerd's own files, and what it would load then.
pub(super) struct Changes {
    /// Removals first.
    pub(super) files: Vec<FileChange>,
    /// None if nothing changes.
    pub(super) candidate: Option<Candidate>,
    /// Lines for people.
    pub(super) reasons: Vec<String>,
}

/// Our handlers in the file at `place`, and nowhere else. No place: nowhere.
pub(super) fn changes(
    facts: &HostFacts,
    place: Option<&Place>,
    ours: &BTreeMap<String, HandlerConfig>,
) -> Result<Changes, Refusal> {
    let wanted = match place {
        Some(place) => Some(wanted(facts, place, ours)?),
        None => None,
    };
    let mut changes = Vec::new();
    let mut reasons = Vec::new();
    let mut after = facts.files.clone();
    let mut paths: Vec<&PathBuf> = facts.files.keys().collect();
    if let Some(place) = place
        && !facts.files.contains_key(&place.path)
    {
        paths.push(&place.path);
    }
    // What is written last is where they go: a handler is in no two files meanwhile.
    paths.sort_by_key(|path| place.is_some_and(|place| place.path == **path));
    for path in paths {
        let here = place.filter(|place| place.path == *path);
        let base = base(facts, path)?;
        let new = match (here, &wanted) {
            (Some(place), Some(wanted)) => {
                Some(with_ours(facts, place, wanted, base.text.as_deref())?)
            }
            _ => base.text.clone(),
        };
        let current = text(facts, path)?;
        // One that is not ours any more, by somebody's hand, still loses its entry.
        let forgotten = here.is_none() && facts.owned.files.contains_key(path);
        if new == current && !forgotten {
            continue;
        }
        if let Some(end) = facts.symlinks.get(path)
            && new != current
        {
            return Err(Refusal::Symlink {
                path: path.clone(),
                end: end.clone(),
            });
        }
        if base.edited {
            reasons.push(format!(
                "{} was changed by somebody else since wasmlet-node wrote it; their changes stay",
                path.display()
            ));
        }
        after.insert(path.clone(), new.clone().map(String::into_bytes));
        changes.push(FileChange {
            path: path.clone(),
            before: current.map(String::into_bytes),
            after: new.map(String::into_bytes),
            mode: CONFIG_MODE,
            ownership: match here {
                Some(_) => Ownership::Keep(base.text.map(String::into_bytes)),
                None => Ownership::Drop,
            },
        });
    }
    let candidate = if changes.iter().any(FileChange::writes) {
        Some(candidate(facts, place, wanted.as_ref(), after)?)
    } else {
        None
    };
    Ok(Changes {
        files: changes,
        candidate,
        reasons,
    })
}

/// Our handlers, and those of others that have to be written along with them.
fn wanted(
    facts: &HostFacts,
    place: &Place,
    ours: &BTreeMap<String, HandlerConfig>,
) -> Result<Wanted, Refusal> {
    let mut carried = config::Carried::new();
    // containerd 1.x takes a file's table of handlers instead of its own default, not in addition to it (seen with 1.6.20 and 1.7.24:
    // "runc" is gone). So a file without any gets those that are in effect.
    if !facts.containerd.at_least(2, 0) && place.form == Form::InPlace {
        let effective = facts
            .effective
            .as_ref()
            .map_err(|why| Refusal::NoEffective { why: why.clone() })?;
        let there = super::place::document(facts, &place.tried_in)?;
        for (name, handler) in &effective.handlers {
            let in_file = there
                .as_ref()
                .is_some_and(|document| document.handlers.contains_key(name));
            if !in_file && !is_ours(handler) {
                carried.insert(name.clone(), handler.table.clone());
            }
        }
    }
    Ok(Wanted {
        plugin: place.plugin(),
        handlers: ours.clone(),
        carried,
        declare_version: place.declare.then_some(place.version),
    })
}

/// A file without us.
struct Base {
    /// `None`: no file.
    text: Option<String>,
    /// Whether somebody else has changed it since.
    edited: bool,
}

fn base(facts: &HostFacts, path: &Path) -> Result<Base, Refusal> {
    let current = text(facts, path)?;
    let owned = facts.owned.files.get(path);
    let Some(current) = current else {
        // Gone by somebody's hand: what was there before us is not brought back.
        return Ok(Base {
            text: None,
            edited: false,
        });
    };
    if let Some(owned) = owned
        && Digest::of(current.as_bytes()) == owned.written
    {
        let text = match &owned.original {
            None => None,
            Some(bytes) => {
                Some(
                    String::from_utf8(bytes.clone()).map_err(|_| Refusal::NotText {
                        path: path.to_owned(),
                    })?,
                )
            }
        };
        return Ok(Base {
            text,
            edited: false,
        });
    }
    let error = |source| Refusal::Config {
        path: path.to_owned(),
        source,
    };
    let template = matches!(&facts.layout.source, Source::GoTemplate { path: t } if t == path);
    let stripped = if template {
        config::remove_from_template(&current)
    } else {
        config::remove(&current)
    }
    .map_err(error)?;
    let edited = owned.is_some();
    let had_ours = stripped != current;
    // What is left of a file that we made goes with us, if it is nothing.
    let drop_in = path.file_name().is_some_and(|name| name == DROP_IN);
    let made_by_us = match owned {
        Some(owned) => owned.original.is_none(),
        // Without the memory only the name can tell.
        None => had_ours && (drop_in || template),
    };
    let nothing = if template {
        stripped == BASE_TEMPLATE
    } else if drop_in {
        says_nothing(&stripped)
    } else {
        stripped.trim().is_empty()
    };
    let empty = made_by_us && nothing;
    Ok(Base {
        text: (!empty).then_some(stripped),
        edited,
    })
}

/// Nothing but a version.
fn says_nothing(text: &str) -> bool {
    config::inspect(text).is_ok_and(|document| document.tree.keys().all(|key| key == "version"))
}

fn with_ours(
    facts: &HostFacts,
    place: &Place,
    wanted: &Wanted,
    base: Option<&str>,
) -> Result<String, Refusal> {
    let error = |source| Refusal::Config {
        path: place.path.clone(),
        source,
    };
    match place.form {
        Form::DropIn => match base {
            // Ours, with something of somebody else's in it: it says that changes are undone.
            Some(_) if !facts.owned.files.contains_key(&place.path) => Err(Refusal::DropInTaken {
                path: place.path.clone(),
            }),
            _ => Ok(config::drop_in(place.version, wanted)),
        },
        Form::InPlace => config::insert(base.unwrap_or_default(), wanted).map_err(error),
        Form::GoTemplate => {
            let base = base.unwrap_or(BASE_TEMPLATE);
            config::insert_into_template(base, wanted).map_err(error)
        }
    }
}

/// What containerd would load, laid out in another folder.
fn candidate(
    facts: &HostFacts,
    place: Option<&Place>,
    wanted: Option<&Wanted>,
    mut files: BTreeMap<PathBuf, Option<Vec<u8>>>,
) -> Result<Candidate, Refusal> {
    let loaded = &facts.layout.loaded;
    // A distribution writes the file that is loaded from what we write: it is tried as if it had.
    let written_by_others: Vec<PathBuf> = match &facts.layout.source {
        Source::Own => Vec::new(),
        Source::GoTemplate { .. } | Source::TomlTemplate { .. } => vec![loaded.clone()],
        Source::Watched { .. } => config::merge_order(loaded, &facts.files),
    };
    for path in written_by_others {
        let Some(current) = text(facts, &path)? else {
            continue;
        };
        let error = |source: ConfigError| Refusal::Config {
            path: path.clone(),
            source,
        };
        let tried = match (place, wanted) {
            (Some(place), Some(wanted)) if place.tried_in == path && place.path != path => {
                config::insert(&current, wanted).map_err(error)?
            }
            _ => config::remove(&current).map_err(error)?,
        };
        files.insert(path, Some(tried.into_bytes()));
    }
    // A missing file is to containerd what an empty one is.
    files
        .entry(loaded.clone())
        .and_modify(|bytes| {
            bytes.get_or_insert_default();
        })
        .or_insert_with(|| Some(Vec::new()));
    let mut laid_out = BTreeMap::new();
    for path in config::merge_order(loaded, &files) {
        let Some(Some(bytes)) = files.get(&path) else {
            continue;
        };
        let not_text = || Refusal::NotText { path: path.clone() };
        let text = std::str::from_utf8(bytes).map_err(|_| not_text())?;
        let text = config::rewritten(text, Path::new(PREFLIGHT)).ok_or_else(not_text)?;
        laid_out.insert(path, text.into_bytes());
    }
    Ok(Candidate {
        files: laid_out,
        root: loaded.clone(),
        binary: facts.binary.clone(),
    })
}
