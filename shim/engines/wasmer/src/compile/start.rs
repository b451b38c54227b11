//! The start function of a module, postponed.
//!
//! Wasmer calls it while it instantiates the module, and then the guest's fuel cannot be set yet and WASI has
//! no memory to work on. So it becomes an export that the runner calls when all is there.

use wasmer::sys::{FunctionMiddleware, MiddlewareError, ModuleMiddleware};
use wasmer::{ExportIndex, LocalFunctionIndex, ModuleInfo};

use crate::settings::START_FUNCTION;

/// Leaves the code as it is.
#[derive(Debug)]
struct Unchanged;

impl FunctionMiddleware<'_> for Unchanged {}

/// See the module.
#[derive(Debug)]
pub(super) struct Postponed;

impl ModuleMiddleware for Postponed {
    fn generate_function_middleware<'a>(
        &self,
        _: LocalFunctionIndex,
    ) -> Box<dyn FunctionMiddleware<'a> + 'a> {
        Box::new(Unchanged)
    }

    fn transform_module_info(&self, module: &mut ModuleInfo) -> Result<(), MiddlewareError> {
        if let Some(start) = module.start_function.take() {
            module
                .exports
                .insert(START_FUNCTION.to_owned(), ExportIndex::Function(start));
        }
        Ok(())
    }
}
