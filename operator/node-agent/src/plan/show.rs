//! A plan for people: why, then what, as a unified diff.

use std::fmt;
use std::path::Path;

use similar::TextDiff;

use super::{Change, FileChange, LinkChange, Plan, Restart};
use crate::facts::HostFacts;

/// A plan with the node it is for, to be written.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// The node.
    pub facts: &'a HostFacts,
    /// What has to happen to it.
    pub plan: &'a Plan,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = self.facts;
        writeln!(
            f,
            "node: {}, {}, {} with containerd {}",
            facts.os.name, facts.architecture, facts.layout.distribution, facts.containerd
        )?;
        for reason in &self.plan.reasons {
            writeln!(f, "why: {reason}")?;
        }
        for advice in &self.plan.advice {
            writeln!(f, "advice: {advice}")?;
        }
        if self.plan.is_nothing() {
            return writeln!(f, "nothing to do");
        }
        let mut step = 0;
        let mut next = |f: &mut fmt::Formatter<'_>, text: &str| {
            step += 1;
            writeln!(f, "\n{step}. {text}")
        };
        for change in &self.plan.before_restart {
            next(f, &title(change))?;
            diff(f, change)?;
        }
        if let Some(candidate) = &self.plan.preflight {
            next(
                f,
                &format!(
                    "before the last of these: {} shows that it understands them and loses nothing",
                    candidate.binary.display()
                ),
            )?;
        }
        match &self.plan.restart {
            Restart::No => {}
            Restart::Unit { name } => next(f, &format!("restart {name}"))?,
            Restart::Watched => next(f, "wait until containerd has the handlers")?,
        }
        for change in &self.plan.after_restart {
            next(f, &title(change))?;
            diff(f, change)?;
        }
        Ok(())
    }
}

fn title(change: &Change) -> String {
    match change {
        Change::File(FileChange {
            path,
            before,
            after,
            ..
        }) => {
            let verb = match (before, after) {
                (before, after) if before == after => "forget",
                (None, _) => "make",
                (_, None) => "remove",
                _ => "change",
            };
            format!("{verb} {}", path.display())
        }
        Change::Link(LinkChange { path, after, .. }) => match after {
            Some(_) => format!("link {}", path.display()),
            None => format!("remove {}", path.display()),
        },
    }
}

fn diff(f: &mut fmt::Formatter<'_>, change: &Change) -> fmt::Result {
    match change {
        Change::File(FileChange {
            path,
            before,
            after,
            ..
        }) => {
            let text = |bytes: &Option<Vec<u8>>| {
                String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned()
            };
            let name = |bytes: &Option<Vec<u8>>| match bytes {
                Some(_) => path.display().to_string(),
                None => "/dev/null".to_owned(),
            };
            let (old, new) = (text(before), text(after));
            let diff = TextDiff::from_lines(&old, &new);
            let unified = diff
                .unified_diff()
                .header(&name(before), &name(after))
                .to_string();
            f.write_str(&unified)
        }
        Change::Link(LinkChange { before, after, .. }) => {
            let line = |f: &mut fmt::Formatter<'_>, sign: char, end: &Path| {
                writeln!(f, "{sign}-> {}", end.display())
            };
            if let Some(end) = before {
                line(f, '-', end)?;
            }
            if let Some(end) = after {
                line(f, '+', end)?;
            }
            Ok(())
        }
    }
}
