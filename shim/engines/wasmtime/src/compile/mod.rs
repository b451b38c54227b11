//! The compile helper: Cranelift behind [`wasmlet_compiler_core`].

mod check;

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

use wasmlet_compiler_core::{CompileError, Compiler, Source, Variant, one_line};
use wasmlet_protocol::GuestKind;
use wasmtime::Engine;

use crate::settings::{Code, Profile};

/// The engine's name for messages.
const ENGINE: &str = "wasmtime";

/// Wasmtime's compiler.
#[derive(Debug, Clone, Copy)]
pub struct Cranelift;

impl Compiler for Cranelift {
    fn engine(&self) -> &'static str {
        ENGINE
    }

    fn compile(
        &self,
        source: &Source<'_>,
        variant: &Variant,
        mut output: &File,
    ) -> Result<(), CompileError> {
        let profile =
            Profile::from_name(&variant.profile).ok_or_else(|| CompileError::Profile {
                engine: ENGINE,
                profile: variant.profile.clone(),
            })?;
        let code = Code::new(profile, source.kind, variant.metered, variant.interruptible);
        let engine = Engine::new(&code.config()).map_err(|e| does_not_start(&e))?;
        let artifact = match source.kind {
            GuestKind::Module => engine.precompile_module(source.wasm),
            GuestKind::Component => engine.precompile_component(source.wasm),
        }
        .map_err(|error| CompileError::Invalid(explain(&error, profile)))?;
        output.write_all(&artifact).map_err(CompileError::Write)?;
        drop(artifact);
        // What was written is loaded as the runner will.
        let file = output
            .as_fd()
            .try_clone_to_owned()
            .map_err(CompileError::Write)?;
        check::load(&engine, source.kind, profile, File::from(file))
    }
}

fn does_not_start(error: &wasmtime::Error) -> CompileError {
    CompileError::Engine {
        engine: ENGINE,
        reason: text(error),
    }
}

/// The engine's reason, with what to do where a proposal is switched off.
fn explain(error: &wasmtime::Error, profile: Profile) -> String {
    let reason = text(error);
    if reason.contains("not enabled")
        || reason.contains("must be enabled")
        || reason.contains("support is not enabled")
    {
        return format!(
            "{reason}: the profile {} has this feature of WebAssembly switched off; build the \
             program without it",
            profile.name()
        );
    }
    reason
}

/// An error and its causes on one line.
pub(crate) fn text(error: &wasmtime::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let part = one_line(&cause.to_string());
        if !parts.last().is_some_and(|last| last.contains(&part)) {
            parts.push(part);
        }
    }
    parts.join(": ")
}
