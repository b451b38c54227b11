//! Why a pod of a handler does not start on this node, in plain words: a pure function of facts.
//!
//! ```text
//!  containerd runs? ─▶ reads its files? ─▶ has loaded the handler? ─▶ its program? its settings? ─▶ label, RuntimeClass?
//! ```

mod cluster;
mod examine;
mod finding;
mod settings;

pub use cluster::{Cluster, RuntimeClassFacts};
pub use examine::examine;
pub use finding::Finding;
pub use settings::{SettingsError, check_settings};

use std::fmt;

/// What was found about one handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// The handler.
    pub handler: String,
    /// What is wrong; none if nothing is.
    pub problems: Vec<Finding>,
    /// What could not be looked at.
    pub unknown: Vec<String>,
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            0 => writeln!(f, "handler {:?}: nothing is wrong", self.handler)?,
            1 => writeln!(f, "handler {:?}: 1 problem", self.handler)?,
            count => writeln!(f, "handler {:?}: {count} problems", self.handler)?,
        }
        for problem in &self.problems {
            writeln!(f, "- {problem}")?;
            writeln!(f, "  remedy: {}", problem.remedy())?;
        }
        for unknown in &self.unknown {
            writeln!(f, "not looked at: {unknown}")?;
        }
        Ok(())
    }
}
