//! Looks at a node.

use std::path::Path;

use super::{HostFacts, Live};
use crate::layout::Distribution;

/// What an administrator said about the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choices {
    /// The distribution; none: it is recognised.
    pub distribution: Option<Distribution>,
}

/// Why nothing can be known about the node.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {}

/// Looks at the node whose files are below `root`.
///
/// # Errors
/// [`FactsError`]
pub async fn gather(_: &Path, _: &impl Live, _: &Choices) -> Result<HostFacts, FactsError> {
    std::future::pending().await
}
