//! A target from a file.

use std::path::{Path, PathBuf};

use wasmlet_api::target::NodeTarget;

/// Why a file is no target.
#[derive(Debug, thiserror::Error)]
pub(super) enum TargetError {
    /// It cannot be read.
    #[error("the target {} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not a target.
    #[error("{} is no target: it must be the YAML of a NodeTarget (operator/README.md)", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<serde_saphyr::Error>,
    },
}

/// Reads it, and puts it in order.
///
/// # Errors
/// [`TargetError`]
pub(super) fn read(path: &Path) -> Result<NodeTarget, TargetError> {
    let text = std::fs::read_to_string(path).map_err(|source| TargetError::Read {
        path: path.to_owned(),
        source,
    })?;
    let target: NodeTarget =
        serde_saphyr::from_str(&text).map_err(|source| TargetError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
    Ok(NodeTarget::new(target.runtimes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "runtimes: []\nruntime: x\n").unwrap();
        let error = read(file.path()).unwrap_err();
        let text = crate::errors::Chain(&error).to_string();
        assert!(text.contains("runtime"), "{text}");
    }
}
