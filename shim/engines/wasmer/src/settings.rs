//! The settings of Wasmer, one place for runner and compile helper.
//!
//! A profile is a set of settings that changes compiled code, so each has artifacts of its own.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};
use wasmer::sys::{CpuFeature, Features};
use wasmlet_protocol::proposal;

/// Version of Wasmer, which is pinned exactly in the workspace.
pub const VERSION: &str = "7.3.0";

/// Names this build; see `build.rs`.
pub const BUILD_ID: &str = concat!(env!("CARGO_PKG_VERSION"), "-", env!("WASMLET_BUILD_ID"));

/// Name under which a module exports the function that it wants called at its instantiation.
///
/// The runner calls it itself, once the fuel is counted and WASI is there. The name has a character that
/// no compiler puts into one; a module that exports such a name by itself is called through it once more,
/// which is its own affair.
pub const START_FUNCTION: &str = "wasmlet:start";

/// Counts the changes of what decides about compiled code; without a new number the old artifacts would
/// stay in use.
const SETTINGS_VERSION: u32 = 1;

/// A named set of settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// WebAssembly 2.0, and of 3.0 what Wasmer's Cranelift has; threads, which WASIX is for.
    Default,
    /// The same on every processor and in every run.
    Deterministic,
    /// For guests that nobody trusts: WebAssembly 2.0 without vectors, metered.
    Hardened,
}

impl Profile {
    /// Every profile there is.
    pub const ALL: [Self; 3] = [Self::Default, Self::Deterministic, Self::Hardened];

    /// The name in the annotation `wasmlet.dev/profile`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Deterministic => "deterministic",
            Self::Hardened => "hardened",
        }
    }

    /// The profile of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.name() == name)
    }

    /// The proposals of WebAssembly that it takes, sorted as in [`proposal::ALL`].
    ///
    /// Tail calls, 64-bit memories, typed references to functions and garbage collection are not in Wasmer's
    /// Cranelift; additions of 128 bits are, and no standard yet.
    pub fn proposals(self) -> Vec<String> {
        let features = self.features();
        proposal::ALL
            .into_iter()
            .filter(|name| match *name {
                proposal::SIMD => features.simd,
                proposal::RELAXED_SIMD => features.relaxed_simd,
                proposal::EXTENDED_CONST => features.extended_const,
                proposal::MULTI_MEMORY => features.multi_memory,
                proposal::EXCEPTIONS => features.exceptions,
                proposal::THREADS => features.threads,
                _ => false,
            })
            .map(str::to_owned)
            .collect()
    }

    /// What is switched on in Wasmer. Nothing is by default, so that an upgrade adds nothing unseen.
    ///
    /// - Relaxed vector instructions may differ between processors, threads between runs: neither is
    ///   deterministic.
    pub fn features(self) -> Features {
        let mut features = Features::none();
        features
            .bulk_memory(true)
            .reference_types(true)
            .multi_value(true)
            .extended_const(true)
            .multi_memory(true)
            .simd(self != Self::Hardened)
            .exceptions(self != Self::Hardened)
            .relaxed_simd(self == Self::Default)
            .threads(self == Self::Default);
        features
    }

    /// Bytes of stack that a guest has whose pod says nothing: Wasmer's own 1 MiB.
    pub const fn stack(self) -> u64 {
        1 << 20
    }

    /// Whether the code counts fuel.
    pub const fn metered(self, asked: bool) -> bool {
        asked || matches!(self, Self::Hardened)
    }

    /// Whether NaNs are the same on every processor.
    pub const fn canonical_nans(self) -> bool {
        !matches!(self, Self::Default)
    }

    /// Hash over everything that decides whether an artifact loads, hexadecimal.
    ///
    /// Wasmer compares its own format's version and the processor's features when it loads an artifact, so
    /// a difference that this hash misses is an error message.
    pub fn compatibility(self) -> String {
        let mut hash = Sha256::new();
        for part in [VERSION, self.name(), std::env::consts::ARCH] {
            hash.update(part);
            hash.update([0]);
        }
        hash.update(SETTINGS_VERSION.to_le_bytes());
        for feature in CpuFeature::for_host() {
            hash.update(feature.to_string());
            hash.update([0]);
        }
        let mut text = String::new();
        for byte in hash.finalize() {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

#[cfg(all(test, feature = "compiler"))]
mod tests {
    use super::*;

    /// Proposals, each with a module that needs it.
    const PROPOSALS: &[(&str, &str)] = &[
        (
            "mutable-global",
            r#"(module (global (export "g") (mut i32) (i32.const 0)))"#,
        ),
        (
            "sign-extension",
            "(module (func (result i32) (i32.extend8_s (i32.const 1))))",
        ),
        (
            "saturating-float-to-int",
            "(module (func (result i32) (i32.trunc_sat_f32_s (f32.const 1))))",
        ),
        (
            "multi-value",
            "(module (func (result i32 i32) (i32.const 1) (i32.const 2)))",
        ),
        (
            "bulk-memory",
            "(module (memory 1) (func (memory.fill (i32.const 0) (i32.const 0) (i32.const 1))))",
        ),
        (
            "reference-types",
            "(module (func (result externref) (ref.null extern)))",
        ),
        (
            "simd",
            "(module (func (result v128) (v128.const i32x4 0 0 0 0)))",
        ),
        (
            "relaxed-simd",
            "(module (func (param v128) (result v128)
               (i8x16.relaxed_swizzle (local.get 0) (local.get 0))))",
        ),
        ("tail-call", "(module (func (return_call 0)))"),
        (
            "extended-const",
            "(module (global i32 (i32.add (i32.const 1) (i32.const 2))))",
        ),
        ("multi-memory", "(module (memory 1) (memory 1))"),
        ("memory64", "(module (memory i64 1))"),
        (
            "function-references",
            "(module (type $t (func)) (func (param (ref $t))))",
        ),
        ("gc", "(module (type (struct (field i32))))"),
        ("exceptions", "(module (tag $e) (func (throw $e)))"),
        ("legacy-exceptions", "(module (func try catch_all end))"),
        ("threads", "(module (memory 1 1 shared))"),
        (
            "stack-switching",
            "(module (type $f (func)) (type $c (cont $f)) (func (param (ref $c))))",
        ),
        (
            "wide-arithmetic",
            "(module (func (param i64 i64) (result i64 i64)
               (i64.mul_wide_s (local.get 0) (local.get 1))))",
        ),
        ("custom-page-sizes", "(module (memory 1 (pagesize 1)))"),
    ];

    /// What each profile takes, in the order of [`Profile::ALL`]. A new Wasmer that changes this list is a
    /// decision.
    const TAKEN: &str = "\
mutable-global on on on
sign-extension on on on
saturating-float-to-int on on on
multi-value on on on
bulk-memory on on on
reference-types on on on
simd on on off
relaxed-simd on off off
tail-call off off off
extended-const on on on
multi-memory on on on
memory64 off off off
function-references off off off
gc off off off
exceptions on on off
legacy-exceptions off off off
threads on off off
stack-switching off off off
wide-arithmetic off off off
custom-page-sizes off off off
";

    fn takes(profile: Profile, name: &str, text: &str) -> bool {
        let wasm = wat::parse_str(text).unwrap_or_else(|e| panic!("{name}: {e}"));
        let engine = crate::compile::engine(profile, false, &wasm);
        wasmer::Module::new(&engine, &wasm).is_ok()
    }

    #[test]
    fn the_proposals_of_every_profile_are_these() {
        let mut seen = String::new();
        for (name, text) in PROPOSALS {
            let _ = write!(seen, "{name}");
            for profile in Profile::ALL {
                let on = takes(profile, name, text);
                let _ = write!(seen, " {}", if on { "on" } else { "off" });
                if proposal::ALL.contains(name) {
                    let said = profile.proposals().iter().any(|said| said == name);
                    assert_eq!(said, on, "{name} in {}", profile.name());
                }
            }
            seen.push('\n');
        }
        assert_eq!(seen, TAKEN);
    }

    #[test]
    fn profiles_have_names_and_hashes_of_their_own() {
        let mut hashes = Vec::new();
        for profile in Profile::ALL {
            assert_eq!(Profile::from_name(profile.name()), Some(profile));
            let hash = profile.compatibility();
            assert_eq!(hash.len(), 64);
            assert_eq!(hash, profile.compatibility());
            assert!(!hashes.contains(&hash));
            hashes.push(hash);
        }
        assert_eq!(Profile::from_name("fast"), None);
    }

    #[test]
    fn the_version_is_that_of_the_library() {
        let lock = include_str!("../../../../Cargo.lock");
        let entry = format!("name = \"wasmer\"\nversion = \"{VERSION}\"");
        assert!(lock.contains(&entry), "VERSION is not what Cargo.lock has");
    }
}
