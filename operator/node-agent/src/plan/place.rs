//! Which file our handlers go into, and why.

use std::path::PathBuf;

use super::Refusal;
use crate::config::{self, Document, PluginId};
use crate::facts::{DROP_IN, HostFacts};
use crate::layout::Source;

/// Where our handlers go.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    /// The file that is written.
    pub(super) path: PathBuf,
    /// In which form.
    pub(super) form: Form,
    /// The file whose handlers they join once containerd has loaded it all; in it they are tried.
    pub(super) tried_in: PathBuf,
    /// Version of the file.
    pub(super) version: i64,
    /// Whether the file has to be given that version.
    pub(super) declare: bool,
    /// Why there, for people.
    pub(super) why: String,
}

/// In which form our handlers are in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// It has nothing else.
    DropIn,
    /// Between what is there already.
    InPlace,
    /// At the end of a Go template.
    GoTemplate,
}

impl Place {
    /// Where CRI's handlers are in a file of that version.
    pub(super) fn plugin(&self) -> PluginId {
        match self.version {
            2 => PluginId::V2,
            _ => PluginId::V3,
        }
    }
}

/// Which file our handlers go into.
pub(super) fn place(facts: &HostFacts) -> Result<Place, Refusal> {
    let loaded = &facts.layout.loaded;
    let document = document(facts, loaded)?;
    // In 1.x the last file with a table of CRI's has all that counts.
    let deciding = deciding(facts)?;
    let (version, declare) = version(facts, loaded, document.as_ref())?;
    let two = facts.containerd.at_least(2, 0);
    let shown = loaded.display();

    if let Source::Watched { folder } = &facts.layout.source {
        let (version, tried_in) = match deciding {
            Some((path, version)) => (version, path),
            None => (version, loaded.clone()),
        };
        return Ok(Place {
            path: folder.join(DROP_IN),
            form: Form::DropIn,
            tried_in,
            version,
            declare: false,
            why: format!(
                "a drop-in, because {} merges the files in {} and reloads by itself",
                facts.layout.distribution,
                folder.display()
            ),
        });
    }
    let imports = document
        .map(|document| document.imports)
        .unwrap_or_default();
    if two && let Some((import, path)) = config::covers(&imports, loaded, DROP_IN) {
        return Ok(Place {
            tried_in: path.clone(),
            path,
            form: Form::DropIn,
            version,
            declare: false,
            why: format!(
                "a drop-in, because {shown} imports {import:?}, and containerd {} merges files key by key",
                facts.containerd
            ),
        });
    }
    let no_drop_in = if two {
        format!("{shown} imports no pattern of files")
    } else {
        format!(
            "in containerd {} an imported file would replace all of CRI's settings",
            facts.containerd
        )
    };
    let in_place = |path: PathBuf, why: String| Place {
        tried_in: path.clone(),
        path,
        form: Form::InPlace,
        version,
        declare,
        why,
    };
    Ok(match &facts.layout.source {
        Source::GoTemplate { path } => Place {
            path: path.clone(),
            form: Form::GoTemplate,
            tried_in: loaded.clone(),
            version,
            declare: false,
            why: format!(
                "the template, because {} renders {shown} anew at each start, and {no_drop_in}",
                facts.layout.distribution
            ),
        },
        Source::TomlTemplate { path } => Place {
            tried_in: loaded.clone(),
            ..in_place(
                path.clone(),
                format!(
                    "the template, because {} renders {shown} from it at each start, and {no_drop_in}",
                    facts.layout.distribution
                ),
            )
        },
        Source::Own | Source::Watched { .. } => match deciding {
            Some((path, version)) if !two && path != *loaded => Place {
                version,
                declare: false,
                ..in_place(
                    path.clone(),
                    format!(
                        "in place, because {} is the last file with settings of CRI's, and {no_drop_in}",
                        path.display()
                    ),
                )
            },
            _ => in_place(loaded.clone(), format!("in place, because {no_drop_in}")),
        },
    })
}

/// The version of the file that containerd loads, and whether it has to be written into it.
fn version(
    facts: &HostFacts,
    path: &std::path::Path,
    document: Option<&Document>,
) -> Result<(i64, bool), Refusal> {
    // A file of version 1 has other names of plugins; one without any means the same in each version.
    let newest = if facts.containerd.at_least(2, 0) {
        3
    } else {
        2
    };
    let Some(document) = document else {
        return Ok((newest, true));
    };
    let path = path.to_owned();
    match document.version {
        None if !document.depends_on_version => Ok((newest, true)),
        None | Some(..=1) => Err(Refusal::OldConfig { path }),
        Some(version) if PluginId::of_version(version).is_some() => Ok((version, false)),
        Some(version) => Err(Refusal::ConfigVersion { path, version }),
    }
}

/// The last of the files that has a table of CRI's, and its version.
fn deciding(facts: &HostFacts) -> Result<Option<(PathBuf, i64)>, Refusal> {
    let mut found = None;
    for path in config::merge_order(&facts.layout.loaded, &facts.files) {
        if let Some(Document {
            version: Some(version),
            has_cri: true,
            ..
        }) = document(facts, &path)?
        {
            found = Some((path, version));
        }
    }
    Ok(found)
}

/// A file without what is ours in it.
pub(super) fn document(
    facts: &HostFacts,
    path: &std::path::Path,
) -> Result<Option<Document>, Refusal> {
    let Some(text) = text(facts, path)? else {
        return Ok(None);
    };
    let config_error = |source| Refusal::Config {
        path: path.to_owned(),
        source,
    };
    let text = config::remove(&text).map_err(config_error)?;
    config::inspect(&text)
        .map(Some)
        .map_err(|source| config_error(config::ConfigError::Parse(source)))
}

/// A file's text.
pub(super) fn text(facts: &HostFacts, path: &std::path::Path) -> Result<Option<String>, Refusal> {
    let Some(Some(bytes)) = facts.files.get(path) else {
        return Ok(None);
    };
    match String::from_utf8(bytes.clone()) {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(Refusal::NotText {
            path: path.to_owned(),
        }),
    }
}
