//! The settings of Wasmi, one place for runner and compile helper.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};
use wasmi::{CompilationMode, Config};
use wasmlet_protocol::{ProfileKey, proposal};

use crate::preview1;

/// Version of Wasmi, which is pinned exactly in `Cargo.toml`.
pub const VERSION: &str = "2.0.0";

/// Names this build; see `build.rs`.
pub const BUILD_ID: &str = concat!(env!("CARGO_PKG_VERSION"), "-", env!("WASMLET_BUILD_ID"));

/// The one profile. `hardened` and `deterministic` promise what this engine does not do, so they are not
/// listed and the shim refuses them.
pub const PROFILE: &str = "default";

/// Largest module in bytes: what Wasmi makes of it lives in the container, in the runner's reserve.
pub const MODULE_LIMIT_BYTES: u64 = 512 << 10;

/// Proposals that the profile takes, sorted as in [`proposal::ALL`].
pub const PROPOSALS: [&str; 3] = [
    proposal::TAIL_CALL,
    proposal::EXTENDED_CONST,
    proposal::MULTI_MEMORY,
];

/// How Wasmi reads and runs a module. It counts fuel where the pod limits that.
pub fn config(is_metered: bool) -> Config {
    let mut config = Config::default();
    config
        .consume_fuel(is_metered)
        // All at once, before the guest starts: what is not valid is found by the helper, and nothing is
        // translated on the guest's fuel.
        .compilation_mode(CompilationMode::Eager)
        .ignore_custom_sections(true);
    config
}

/// The profile as the runner describes it.
pub fn profile() -> ProfileKey {
    ProfileKey {
        name: PROFILE.to_owned(),
        compatibility: compatibility(),
        proposals: PROPOSALS.map(str::to_owned).to_vec(),
    }
}

/// Hash over everything that decides whether an artifact runs: of a module itself that is who reads it,
/// and which functions there are to import.
fn compatibility() -> String {
    let mut hash = Sha256::new();
    let functions = preview1::FUNCTIONS.iter().map(|function| function.name);
    for part in [VERSION, PROFILE]
        .into_iter()
        .chain(PROPOSALS)
        .chain(functions)
    {
        hash.update(part);
        hash.update([0]);
    }
    let mut text = String::new();
    for byte in hash.finalize() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use wasmi::{Engine, Module};

    use super::*;

    /// A module for each proposal that modules can need.
    const MODULES: [(&str, &str); 14] = [
        (
            proposal::SIMD,
            "(module (func (result v128) (v128.const i32x4 0 0 0 0)))",
        ),
        (
            proposal::RELAXED_SIMD,
            "(module (func (param v128) (result v128)
               (i8x16.relaxed_swizzle (local.get 0) (local.get 0))))",
        ),
        (proposal::TAIL_CALL, "(module (func (return_call 0)))"),
        (
            proposal::EXTENDED_CONST,
            "(module (global i32 (i32.add (i32.const 1) (i32.const 2))))",
        ),
        (proposal::MULTI_MEMORY, "(module (memory 1) (memory 1))"),
        (proposal::MEMORY64, "(module (memory i64 1))"),
        (
            proposal::FUNCTION_REFERENCES,
            "(module (type $t (func)) (func (param (ref $t))))",
        ),
        (proposal::GC, "(module (type (struct (field i32))))"),
        (proposal::EXCEPTIONS, "(module (tag $e) (func (throw $e)))"),
        (
            proposal::LEGACY_EXCEPTIONS,
            "(module (func try catch_all end))",
        ),
        (proposal::THREADS, "(module (memory 1 1 shared))"),
        (
            proposal::STACK_SWITCHING,
            "(module (type $f (func)) (type $c (cont $f)) (func (param (ref $c))))",
        ),
        (
            proposal::WIDE_ARITHMETIC,
            "(module (func (param i64 i64) (result i64 i64)
               (i64.mul_wide_s (local.get 0) (local.get 1))))",
        ),
        (
            proposal::CUSTOM_PAGE_SIZES,
            "(module (memory 1 (pagesize 1)))",
        ),
    ];

    #[test]
    fn what_is_said_of_proposals_is_what_wasmi_does() {
        for is_metered in [false, true] {
            let engine = Engine::new(&config(is_metered));
            let taken: Vec<&str> = MODULES
                .iter()
                .filter(|(name, text)| {
                    let wasm = wat::parse_str(text).unwrap_or_else(|e| panic!("{name}: {e}"));
                    Module::new(&engine, &wasm).is_ok()
                })
                .map(|(name, _)| *name)
                .collect();
            assert_eq!(taken, PROPOSALS);
        }
        // Those of components are the rest.
        assert_eq!(MODULES.len() + 2, proposal::ALL.len());
    }

    #[test]
    fn the_version_is_that_of_the_library() {
        let lock = include_str!("../../../../Cargo.lock");
        let entry = format!("name = \"wasmi\"\nversion = \"{VERSION}\"");
        assert!(lock.contains(&entry), "VERSION is not what Cargo.lock has");
    }
}
