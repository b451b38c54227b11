//! The compile helper: Wasmer's Cranelift behind [`wasmlet_compiler_core`].

mod check;
mod start;

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use wasmer::sys::wasmparser::{Operator, Parser, Payload};
use wasmer::sys::{CompilerConfig, Cranelift as CraneliftConfig, EngineBuilder};
use wasmer::{CompileError as WasmerError, Engine, Module};
use wasmer_middlewares::Metering;
use wasmlet_compiler_core::{CompileError, Compiler, Source, Variant, one_line};
use wasmlet_protocol::GuestKind;

use crate::settings::Profile;

/// The engine's name for messages.
const ENGINE: &str = "wasmer";

/// The section of a module that is linked at run time.
const DYNAMIC_LINKING: &str = "dylink.0";

/// Fuel in the code until the runner sets it.
const NO_LIMIT: u64 = u64::MAX;

/// Wasmer's compiler.
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
        if source.kind == GuestKind::Component {
            return Err(CompileError::Unsupported(
                "wasmer runs modules, and this is a component; wasmtime runs components".to_owned(),
            ));
        }
        let metered = profile.metered(variant.metered);
        let shape = Shape::of(source.wasm);
        if shape.is_dynamic {
            return Err(CompileError::Unsupported(format!(
                "the module is linked at run time (it has a section {DYNAMIC_LINKING}), which takes a \
                 compiler in the container; link it statically"
            )));
        }
        if metered && shape.shares_memory {
            return Err(CompileError::Unsupported(
                "wasmer cannot limit the fuel of a module with threads, as each counts its own; leave \
                 wasmlet.dev/fuel out, or build the program without threads"
                    .to_owned(),
            ));
        }
        let engine = engine(profile, metered, source.wasm);
        let module = Module::new(&engine, source.wasm).map_err(|e| explain(&e, profile))?;
        let artifact = module
            .serialize()
            .map_err(|e| CompileError::Invalid(one_line(&e.to_string())))?;
        drop(module);
        output.write_all(&artifact).map_err(CompileError::Write)?;
        drop(artifact);
        check::load(output)
    }
}

/// An engine for one module: the counter of fuel belongs to it.
pub(crate) fn engine(profile: Profile, metered: bool, wasm: &[u8]) -> Engine {
    let mut config = CraneliftConfig::new();
    config.canonicalize_nans(profile.canonical_nans());
    let shape = Shape::of(wasm);
    // Each thread's instance of a module that shares its memory calls the start function for itself, as
    // such modules are built to be called.
    if shape.has_start && !shape.shares_memory {
        config.push_middleware(Arc::new(start::Postponed));
    }
    if metered {
        config.push_middleware(Arc::new(Metering::new(NO_LIMIT, |_: &Operator<'_>| 1)));
    }
    EngineBuilder::new(config)
        .set_features(Some(profile.features()))
        .engine()
        .into()
}

/// What is looked at before the compiler sees the module; of bytes that are no module it is nothing.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shape {
    has_start: bool,
    shares_memory: bool,
    is_dynamic: bool,
}

impl Shape {
    fn of(wasm: &[u8]) -> Self {
        use wasmer::sys::wasmparser::TypeRef;

        let mut shape = Self::default();
        for payload in Parser::new(0).parse_all(wasm) {
            match payload {
                Ok(Payload::StartSection { .. }) => shape.has_start = true,
                Ok(Payload::MemorySection(memories)) => {
                    shape.shares_memory |= memories.into_iter().flatten().any(|m| m.shared);
                }
                Ok(Payload::ImportSection(imports)) => {
                    shape.shares_memory |= imports
                        .into_imports()
                        .flatten()
                        .any(|import| matches!(import.ty, TypeRef::Memory(m) if m.shared));
                }
                Ok(Payload::CustomSection(section)) => {
                    shape.is_dynamic |= section.name() == DYNAMIC_LINKING;
                }
                Ok(_) => {}
                // The compiler says what is wrong.
                Err(_) => break,
            }
        }
        shape
    }
}

/// Wasmer's reason, with what to do where a proposal is switched off.
fn explain(error: &WasmerError, profile: Profile) -> CompileError {
    let reason = match error {
        WasmerError::Validate(reason) => one_line(reason),
        error => one_line(&error.to_string()),
    };
    CompileError::Invalid(
        if reason.contains("not enabled")
            || reason.contains("must be enabled")
            || reason.contains("support is not enabled")
        {
            format!(
                "{reason}: the profile {} of wasmer has this feature of WebAssembly switched off; build \
                 the program without it",
                profile.name()
            )
        } else {
            reason
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> Shape {
        Shape::of(&wat::parse_str(text).expect("valid text"))
    }

    #[test]
    fn what_matters_before_compiling_is_seen() {
        assert_eq!(shape("(module)"), Shape::default());
        assert!(shape("(module (func $f) (start $f))").has_start);
        assert!(shape("(module (memory 1 2 shared))").shares_memory);
        assert!(shape(r#"(module (import "env" "memory" (memory 1 2 shared)))"#).shares_memory);
        assert!(!shape(r#"(module (import "env" "memory" (memory 1 2)))"#).shares_memory);
        assert!(shape(r#"(module (@custom "dylink.0" "x"))"#).is_dynamic);
        assert_eq!(Shape::of(b"no module"), Shape::default());
    }
}
