//! The compile helper, which compiles nothing: it checks, and what it publishes is the module.

use std::fs::File;
use std::io::Write;

use wasmi::{Engine, Error, ExternType, Module};
use wasmlet_compiler_core::{CompileError, Compiler, Source, Variant, one_line};
use wasmlet_protocol::GuestKind;

use crate::settings::{MODULE_LIMIT_BYTES, PROFILE, config};
use crate::{ENGINE, preview1};

/// Checks modules for the runner.
#[derive(Debug, Clone, Copy)]
pub struct Checker;

impl Compiler for Checker {
    fn engine(&self) -> &'static str {
        ENGINE
    }

    fn compile(
        &self,
        source: &Source<'_>,
        variant: &Variant,
        mut output: &File,
    ) -> Result<(), CompileError> {
        if variant.profile != PROFILE {
            return Err(CompileError::Profile {
                engine: ENGINE,
                profile: variant.profile.clone(),
            });
        }
        if source.kind == GuestKind::Component {
            return Err(CompileError::Unsupported(
                "it is a component, and this engine runs modules only".to_owned(),
            ));
        }
        if source.wasm.len() as u64 > MODULE_LIMIT_BYTES {
            return Err(CompileError::Unsupported(format!(
                "it has {} bytes, and this engine takes modules of up to {MODULE_LIMIT_BYTES}",
                source.wasm.len()
            )));
        }
        // As the runner will, with the same settings.
        let engine = Engine::new(&config(variant.metered));
        let module = Module::new(&engine, source.wasm)
            .map_err(|error: Error| CompileError::Invalid(one_line(&error.to_string())))?;
        check_imports(&module)?;
        output.write_all(source.wasm).map_err(CompileError::Write)
    }
}

/// What cannot be linked is never published, so it fails at Create and not when the guest starts.
fn check_imports(module: &Module) -> Result<(), CompileError> {
    for import in module.imports() {
        let name = format!("{}.{}", import.module(), import.name());
        let function = preview1::FUNCTIONS
            .iter()
            .find(|f| import.module() == preview1::MODULE && import.name() == f.name);
        let Some(function) = function else {
            return Err(CompileError::Imports(format!(
                "it imports {name}; this engine offers of {} only {}",
                preview1::MODULE,
                preview1::FUNCTIONS.map(|function| function.name).join(", ")
            )));
        };
        match import.ty() {
            ExternType::Func(ty) if *ty == function.ty() => {}
            other => {
                return Err(CompileError::Imports(format!(
                    "it imports {name} as {other:?}, which is a {:?}",
                    function.ty()
                )));
            }
        }
    }
    Ok(())
}
