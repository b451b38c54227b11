//! Which engine runs a guest.
//!
//! ```text
//! annotation ─┐                     ┌─ can run it ────────────▶ artifact
//! handler ────┼─▶ named? ─▶ engine ─┴─ cannot ─▶ refused, with the reasons and who can
//! auto ───────┘     └─ no ─▶ the first of a fixed order that can run what the guest needs
//! ```
//!
//! A warm start parses nothing: what a guest needs is kept with its artifacts.

use std::path::Path;

use wasmlet_protocol::Compiled;

use crate::annotations::Settings;
use crate::backend::compile::{Artifact, Hashed, Variant, Workshop};
use crate::engine::{self, Engine, EngineError};
use crate::error::Result;
use crate::reaper::Reaper;

/// Stands for "whichever can run it" in a handler's options, as in the annotation.
const AUTO: &str = "auto";

/// An engine and what it runs.
pub(super) struct Chosen {
    pub(super) engine: Engine,
    pub(super) artifact: Artifact,
    /// Why this engine, for the log.
    pub(super) reason: String,
}

/// What is known before the guest is looked at.
pub(super) struct Chooser<'a> {
    pub(super) folder: &'a Path,
    pub(super) reaper: &'a Reaper,
    pub(super) workshop: &'a Workshop<'a>,
    pub(super) settings: &'a Settings,
    /// The handler's engine.
    pub(super) handler: Option<&'a str>,
}

impl Chooser<'_> {
    pub(super) async fn choose(&self, module: &Hashed) -> Result<Chosen> {
        let installed = engine::installed(self.folder)?;
        let asked = match (self.settings.engine.as_deref(), self.handler) {
            (Some(name), _) => Some((name, "the pod's annotation")),
            (None, Some(name)) if name != AUTO => Some((name, "the handler's option Engine")),
            (None, _) => None,
        };
        match asked {
            Some((name, reason)) => {
                let name = engine::named(name, &installed)?;
                self.pinned(name, &installed, module, reason).await
            }
            None => self.auto(&installed, module).await,
        }
    }

    async fn pinned(
        &self,
        name: &str,
        installed: &[String],
        module: &Hashed,
        reason: &str,
    ) -> Result<Chosen> {
        let engine = self.load(name).await?;
        let variant = Variant::of(self.settings);
        engine.profile(Some(&variant.profile))?;
        engine.check(self.settings)?;
        let cached = self.workshop.cached(module, &engine, &variant).await?;
        let artifact = match cached {
            Some(artifact) => artifact,
            None => {
                let facts = self.workshop.facts(module).await?;
                let why = engine.lacks(&facts, Some(&variant.profile));
                if !why.is_empty() {
                    return Err(EngineError::Cannot {
                        engine: name.to_owned(),
                        guest: module.name().to_owned(),
                        why,
                        can: self.able(installed, &facts).await,
                    }
                    .into());
                }
                self.workshop.artifact(module, &engine, &variant).await?
            }
        };
        Ok(Chosen {
            engine,
            artifact,
            reason: reason.to_owned(),
        })
    }

    async fn auto(&self, installed: &[String], module: &Hashed) -> Result<Chosen> {
        let variant = Variant::of(self.settings);
        let order = engine::order(installed, None, self.folder)?;
        let mut facts = None;
        // The usual case: the first engine has the artifact, and what it knows of the guest speaks
        // against no engine before it.
        if let Some(first) = order.first()
            && let Ok(engine) = self.load(first).await
            && engine.profile(Some(&variant.profile)).is_ok()
            && let Some(artifact) = self.workshop.cached(module, &engine, &variant).await?
        {
            let needs = &artifact.compiled.needs;
            let is_first =
                engine::order(installed, Some(needs), self.folder)?.first() == Some(first);
            if is_first
                && engine
                    .objections(&artifact.compiled, self.settings)
                    .is_empty()
            {
                return Ok(Chosen {
                    reason: reason(&engine, &artifact.compiled, &[]),
                    engine,
                    artifact,
                });
            }
            facts = Some(artifact.compiled);
        }
        let facts = match facts {
            Some(facts) => facts,
            None => self.workshop.facts(module).await?,
        };
        let mut against = Vec::new();
        for name in engine::order(installed, Some(&facts.needs), self.folder)? {
            let engine = match self.load(&name).await {
                Ok(engine) => engine,
                Err(error) => {
                    against.push(format!("{name}: {}", crate::chain(&error)));
                    continue;
                }
            };
            let objections = engine.objections(&facts, self.settings);
            if objections.is_empty() {
                return Ok(Chosen {
                    artifact: self.workshop.artifact(module, &engine, &variant).await?,
                    reason: reason(&engine, &facts, &against),
                    engine,
                });
            }
            against.push(format!("{name}: {}", objections.join(", ")));
        }
        Err(EngineError::NoneCan {
            guest: module.name().to_owned(),
            why: against,
        }
        .into())
    }

    /// Names of the engines that can run a guest.
    async fn able(&self, installed: &[String], facts: &Compiled) -> Vec<String> {
        let mut able = Vec::new();
        for name in installed {
            if let Ok(engine) = self.load(name).await
                && engine.objections(facts, self.settings).is_empty()
            {
                able.push(name.clone());
            }
        }
        able
    }

    async fn load(&self, name: &str) -> Result<Engine> {
        Ok(engine::load(self.folder, name, self.reaper).await?)
    }
}

/// Why `auto` took an engine: what the guest is and needs, and who was asked before.
fn reason(engine: &Engine, guest: &Compiled, against: &[String]) -> String {
    let mut needs = guest.needs.interfaces.clone();
    needs.extend(guest.needs.proposals.iter().cloned());
    let needs = if needs.is_empty() {
        "nothing".to_owned()
    } else {
        needs.join(", ")
    };
    let mut text = format!(
        "auto: {} is the first that can run it; it needs {needs}",
        engine.description.engine
    );
    if !against.is_empty() {
        text.push_str(&format!(" ({})", against.join("; ")));
    }
    text
}
