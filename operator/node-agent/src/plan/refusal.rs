//! Why a node is not touched.

use std::path::PathBuf;

use wasmlet_api::Digest;
use wasmlet_api::reasons::Reason;

use crate::config::ConfigError;
use crate::facts::Version;

/// Why a node is not touched. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// A target that no WasmRuntime can have made.
    #[error("the target cannot be had by any node: {0}")]
    Target(String),
    /// Too old or not known.
    #[error(
        "containerd {0} is not supported: wasmlet runs with 1.6, 1.7 and 2.x (docs/support.md)"
    )]
    ContainerdVersion(Version),
    /// It does not answer, so nothing could be verified.
    #[error("containerd does not answer, so nothing that is changed could be verified: {why}")]
    NoContainerd {
        /// What happened.
        why: String,
    },
    /// A bundle is not usable.
    #[error(
        "bundle {digest} of handler {handler:?} is not in the node's store, or not usable: {why}"
    )]
    Bundle {
        /// Which.
        digest: Digest,
        /// Whose.
        handler: String,
        /// What is wrong with it.
        why: String,
    },
    /// Not text.
    #[error("{} is not UTF-8, so it is no configuration of containerd's", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be changed.
    #[error("{} cannot be changed", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ConfigError,
    },
    /// A handler of a needed name is in the effective configuration, and in no file that was looked at.
    #[error(
        "containerd has a handler {name:?} that wasmlet-node did not write (runtime_type {runtime_type:?}): remove it from the files that {} imports, or give the WasmRuntime another handler", loaded.display()
    )]
    Taken {
        /// The handler.
        name: String,
        /// Its type.
        runtime_type: String,
        /// The file that containerd loads.
        loaded: PathBuf,
    },
    /// Somebody else's file is where our drop-in goes.
    #[error("{} is there, and wasmlet-node did not write it: move it away", path.display())]
    DropInTaken {
        /// The file.
        path: PathBuf,
    },
    /// A version whose names we do not know.
    #[error("{} has version {version}, and wasmlet knows 2, 3 and 4: use a newer wasmlet", path.display())]
    ConfigVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: i64,
    },
    /// Version 1, said or meant.
    #[error(
        "{} has no version or version 1, whose plugins have other names: bring it to version 2 (containerd 2.x: containerd config migrate) and restart containerd", path.display()
    )]
    OldConfig {
        /// The file.
        path: PathBuf,
    },
    /// A link, which a rename would replace.
    #[error(
        "{} is a symbolic link to {}, and changing it would replace the link: put the file itself there", path.display(), end.display()
    )]
    Symlink {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        end: PathBuf,
    },
    /// `config dump` did not work.
    #[error(
        "what containerd makes of its configuration cannot be known, so it could not be checked that nothing of it is lost: {why}"
    )]
    NoEffective {
        /// What happened.
        why: String,
    },
}

impl Refusal {
    /// For the node's status.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Target(_) => Reason::TargetInvalid,
            Self::ContainerdVersion(_) => Reason::UnsupportedNode,
            Self::NoContainerd { .. } => Reason::NoContainerd,
            Self::Bundle { .. } => Reason::BundleMissing,
            Self::Taken { .. } | Self::DropInTaken { .. } => Reason::HandlerTaken,
            Self::Config { source, .. } => match source {
                ConfigError::Taken(_) | ConfigError::TakenByHand(_) => Reason::HandlerTaken,
                ConfigError::Parse(_)
                | ConfigError::Torn(_)
                | ConfigError::NoTable(_)
                | ConfigError::Damaged(_) => Reason::ConfigUnreadable,
            },
            Self::NotText { .. }
            | Self::ConfigVersion { .. }
            | Self::OldConfig { .. }
            | Self::Symlink { .. }
            | Self::NoEffective { .. } => Reason::ConfigUnreadable,
        }
    }
}
