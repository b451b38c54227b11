//! Compiling, with the SDK of WasmEdge.
//!
//! Everything else goes through the same declarations as in the runner (`ffi.rs`), because what is checked
//! here must be what the runner does: the SDK gives names of imports only up to their first NUL, has one type
//! for all references that it does not know, and keeps its settings and modules to itself.

use wasmedge_sdk::config::{
    CommonConfigOptions, CompilerConfigOptions, Config, ConfigBuilder, StatisticsConfigOptions,
};
use wasmedge_sdk::{
    CompilerOptimizationLevel, CompilerOutputFormat, RunMode, WasmEdgeResult, WasmStandard,
};
use wasmlet_protocol::proposal;

use super::scratch::Scratch;
use crate::library::{LibraryError, logged_sdk};
use crate::settings::Profile;

/// The artifact's name in the scratch file system. The SDK adds its end.
pub(super) const ARTIFACT: &str = "artifact.so";

/// The compiler of one variant.
pub(super) struct Compiler(wasmedge_sdk::Compiler);

impl Compiler {
    /// # Errors
    /// When the library has none.
    pub(super) fn new(
        profile: Profile,
        metered: bool,
        unoptimised: bool,
    ) -> Result<Self, LibraryError> {
        let level = if unoptimised {
            CompilerOptimizationLevel::O0
        } else {
            CompilerOptimizationLevel::O3
        };
        logged_sdk(|| wasmedge_sdk::Compiler::new(Some(&config(profile, metered, level)?)))
            .map(Self)
    }

    /// Compiles a module to [`ARTIFACT`] in the scratch file system.
    ///
    /// # Errors
    /// What the library has against the module.
    pub(super) fn compile(&self, wasm: &[u8], scratch: &Scratch) -> Result<(), LibraryError> {
        let name = ARTIFACT.trim_end_matches(".so");
        logged_sdk(|| self.0.compile_from_bytes(wasm, name, scratch.root())).map(drop)
    }
}

/// Everything a profile says, and nothing that the library has on by itself; code for this very processor, in
/// a shared object.
fn config(
    profile: Profile,
    metered: bool,
    level: CompilerOptimizationLevel,
) -> WasmEdgeResult<Config> {
    let has = |name: &str| profile.proposals().contains(&name);
    // The oldest standard has every proposal off but the one that is not a choice.
    let common = CommonConfigOptions::from_wasm_standard(WasmStandard::Wasm1)
        .mutable_globals(true)
        .non_trap_conversions(true)
        .sign_extension_operators(true)
        .multi_value(true)
        .bulk_memory_operations(true)
        .reference_types(true)
        .simd(has(proposal::SIMD))
        .relax_simd(has(proposal::RELAXED_SIMD))
        .tail_call(has(proposal::TAIL_CALL))
        .extended_const(has(proposal::EXTENDED_CONST))
        .exception_handling(has(proposal::EXCEPTIONS))
        .memory64(has(proposal::MEMORY64))
        .threads(has(proposal::THREADS))
        .component_model(has(proposal::COMPONENT_MODEL))
        .multi_memories(has(proposal::MULTI_MEMORY))
        .gc(has(proposal::GC))
        .function_references(has(proposal::FUNCTION_REFERENCES))
        .annotations(false)
        .run_mode(RunMode::Aot);
    ConfigBuilder::new(common)
        .with_statistics_config(StatisticsConfigOptions::new().measure_cost(metered))
        .with_compiler_config(
            CompilerConfigOptions::new()
                .optimization_level(level)
                .out_format(CompilerOutputFormat::Native)
                .generic_binary(false)
                // Nobody asks compiled code to stop: a time limit ends the process.
                .interruptible(false),
        )
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asked of the library, which refuses some changes without a word.
    #[test]
    fn the_compiler_takes_the_proposals_of_a_profile_and_no_other() {
        for profile in Profile::ALL {
            let config = config(profile, false, CompilerOptimizationLevel::O3).expect("settings");
            let on: Vec<&str> = [
                (proposal::SIMD, config.simd_enabled()),
                (proposal::RELAXED_SIMD, config.relax_simd_enabled()),
                (proposal::TAIL_CALL, config.tail_call_enabled()),
                (proposal::EXTENDED_CONST, config.extended_const_enabled()),
                (proposal::MULTI_MEMORY, config.multi_memories_enabled()),
                (
                    proposal::FUNCTION_REFERENCES,
                    config.function_references_enabled(),
                ),
                (proposal::EXCEPTIONS, config.exception_handling_enabled()),
                (proposal::MEMORY64, config.memory64_enabled()),
                (proposal::THREADS, config.threads_enabled()),
                (proposal::COMPONENT_MODEL, config.component_model_enabled()),
                (proposal::GC, config.gc_enabled()),
                ("annotations", config.annotations_enabled()),
            ]
            .into_iter()
            .filter_map(|(name, on)| on.then_some(name))
            .collect();
            assert_eq!(on, profile.proposals(), "{}", profile.name());
            assert!(config.mutable_globals_enabled() && config.non_trap_conversions_enabled());
            assert!(config.sign_extension_operators_enabled() && config.multi_value_enabled());
            assert!(config.bulk_memory_operations_enabled() && config.reference_types_enabled());
        }
    }

    #[test]
    fn only_what_is_metered_counts_its_cost() {
        for metered in [false, true] {
            let config =
                config(Profile::Default, metered, CompilerOptimizationLevel::O3).expect("settings");
            assert_eq!(config.cost_measuring_enabled(), metered);
            assert!(!config.instruction_counting_enabled() && !config.time_measuring_enabled());
        }
    }

    #[test]
    fn the_artifact_is_a_shared_object_as_fast_as_it_gets() {
        let config =
            config(Profile::Hardened, true, CompilerOptimizationLevel::O3).expect("settings");
        assert_eq!(config.optimization_level(), CompilerOptimizationLevel::O3);
        assert_eq!(config.out_format(), CompilerOutputFormat::Native);
        assert_eq!(config.run_mode(), RunMode::Aot);
        assert!(!config.generic_binary_enabled() && !config.interruptible_enabled());
        assert!(!config.dump_ir_enabled());
    }
}
