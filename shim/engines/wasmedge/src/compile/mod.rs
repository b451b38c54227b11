//! The compile helper's engine: one module in, one shared object out.

mod check;
mod rename;
mod scratch;
mod sdk;

use std::fs::File;
use std::io;

use wasmlet_compiler_core::{CompileError, Source, Variant};
use wasmlet_protocol::GuestKind;

use crate::library::{self, Configure, LibraryError, Module, Use};
use crate::settings::Profile;
use scratch::Scratch;

const ENGINE: &str = "wasmedge";

/// WasmEdge's compiler.
#[derive(Debug, Clone, Copy)]
pub struct WasmEdge;

impl wasmlet_compiler_core::Compiler for WasmEdge {
    fn engine(&self) -> &'static str {
        ENGINE
    }

    fn compile(
        &self,
        source: &Source<'_>,
        variant: &Variant,
        output: &File,
    ) -> Result<(), CompileError> {
        let profile =
            Profile::from_name(&variant.profile).ok_or_else(|| CompileError::Profile {
                engine: ENGINE,
                profile: variant.profile.clone(),
            })?;
        if source.kind == GuestKind::Component {
            return Err(CompileError::Unsupported(
                "wasmedge runs modules, and this is a component: choose wasmtime with \
                 wasmlet.dev/engine"
                    .to_owned(),
            ));
        }
        let engine = |reason: String| CompileError::Engine {
            engine: ENGINE,
            reason,
        };
        library::start().map_err(engine)?;
        let metered = profile.is_metered(variant.metered);

        // First what is quick: whether the module is valid and has all that it imports.
        let wasm = rename::imports(source.wasm)
            .map_err(|error| CompileError::Invalid(wasmlet_compiler_core::one_line(&error)))?;
        let module = Module::of_bytes(&Configure::new(profile, metered, Use::Module), &wasm)
            .map_err(|error| CompileError::Invalid(explain(&error, profile)))?;
        check::imports(&module)?;
        drop(module);

        let scratch = Scratch::new()
            .map_err(|error| engine(format!("no temporary file system for the linker: {error}")))?;
        let compiler = sdk::Compiler::new(profile, metered, variant.unoptimised)
            .map_err(|error| engine(format!("no compiler: {error}")))?;
        compiler
            .compile(&wasm, &scratch)
            .map_err(|error| CompileError::Invalid(explain(&error, profile)))?;
        drop(compiler);

        // Loaded as the runner will, so that what does not load is never published.
        let configure = Configure::new(profile, metered, Use::Artifact);
        Module::of_artifact(&configure, &scratch.c_path(sdk::ARTIFACT))
            .map_err(|error| CompileError::Load(error.to_string()))?;
        let mut artifact = scratch.open(sdk::ARTIFACT).map_err(CompileError::Write)?;
        let mut output = output;
        io::copy(&mut artifact, &mut output).map_err(CompileError::Write)?;
        Ok(())
    }
}

/// The library's reason, with what to do where a proposal is switched off.
fn explain(error: &LibraryError, profile: Profile) -> String {
    let reason = wasmlet_compiler_core::one_line(&error.text);
    if reason.contains("requires enabling") {
        return format!(
            "{reason}: the profile {} of wasmedge has this feature of WebAssembly switched off; build \
             the program without it, or choose another engine with wasmlet.dev/engine",
            profile.name()
        );
    }
    reason
}
