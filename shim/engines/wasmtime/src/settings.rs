//! The settings of Wasmtime, one place for runner and compile helper.
//!
//! A profile is a set of settings that changes compiled code, so each has artifacts of its own.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};
use wasmlet_protocol::{GuestKind, proposal};
use wasmtime::{Config, WasmBacktraceDetails};

/// Version of Wasmtime, which is pinned exactly in the workspace.
pub const VERSION: &str = "48.0.8";

/// Names this build; see `build.rs`.
pub const BUILD_ID: &str = concat!(env!("CARGO_PKG_VERSION"), "-", env!("WASMLET_BUILD_ID"));

/// A named set of settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// WebAssembly 3.0 without threads.
    Default,
    /// The same on every processor and in every run.
    Deterministic,
    /// For guests that nobody trusts: WebAssembly 2.0 without vectors, metered and interruptible.
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
    pub fn proposals(self) -> Vec<String> {
        proposal::ALL
            .into_iter()
            .filter(|name| match *name {
                proposal::TAIL_CALL
                | proposal::EXTENDED_CONST
                | proposal::MULTI_MEMORY
                | proposal::COMPONENT_MODEL => true,
                proposal::SIMD
                | proposal::RELAXED_SIMD
                | proposal::MEMORY64
                | proposal::FUNCTION_REFERENCES
                | proposal::GC
                | proposal::EXCEPTIONS => self != Self::Hardened,
                _ => false,
            })
            .map(str::to_owned)
            .collect()
    }

    /// Bytes of stack that a guest has whose pod says nothing: Wasmtime's own 512 KiB, and 1 MiB for the
    /// profile that promises it.
    pub const fn stack(self) -> u64 {
        match self {
            Self::Default | Self::Deterministic => 512 << 10,
            Self::Hardened => 1 << 20,
        }
    }

    /// Why guests get no wasi-nn in it, if they do not.
    pub const fn no_nn(self) -> Option<&'static str> {
        match self {
            Self::Default => None,
            Self::Deterministic => Some(
                "the profile deterministic has no wasi-nn: its kernels are chosen by the processor, and \
                 their results differ in the last digits; compute in the guest, or use the profile default",
            ),
            Self::Hardened => Some(
                "the profile hardened has no wasi-nn: models are computed by native code outside of the \
                 sandbox, and not metered; compute in the guest, or use the profile default",
            ),
        }
    }

    /// Hash over everything that decides whether an artifact loads, hexadecimal.
    ///
    /// `Engine::precompile_compatibility_hash` would be that, but it needs the compiler, and what
    /// has to be told is told by the runner. Wasmtime checks an artifact itself when it loads it,
    /// so a difference that this hash misses is an error message and not wrong code.
    pub fn compatibility(self) -> String {
        let mut hash = Sha256::new();
        for part in [VERSION, self.name(), std::env::consts::ARCH] {
            hash.update(part);
            hash.update([0]);
        }
        // A change of `config` below without a new number would leave the old artifacts in use.
        hash.update(SETTINGS_VERSION.to_le_bytes());
        hash.update(processor_features());
        let mut text = String::new();
        for byte in hash.finalize() {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

/// Counts the changes of [`Code::config`].
const SETTINGS_VERSION: u32 = 2;

/// Everything that decides about compiled code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// The set of settings.
    pub profile: Profile,
    /// The pod limits the guest's fuel.
    pub metered: bool,
    /// The pod limits the time of a request, and this guest serves requests: a component.
    pub interruptible: bool,
}

impl Code {
    /// The code of a guest of that kind.
    ///
    /// The time of a run is limited from outside, so a module's code needs nothing for it.
    pub fn new(profile: Profile, kind: GuestKind, metered: bool, timed: bool) -> Self {
        let is_hardened = profile == Profile::Hardened;
        Self {
            profile,
            metered: metered || is_hardened,
            interruptible: is_hardened || (timed && kind == GuestKind::Component),
        }
    }

    /// The settings that decide about compiled code, and how it is run.
    ///
    /// - Proposals: what Wasmtime has on by default and supports as tier 1, which is WebAssembly
    ///   3.0; threads are tier 2, shared memories escape the memory limit, and the feature is not
    ///   compiled in. Asynchronous components (WASI 0.3) are experimental and not compiled in.
    /// - 4 GiB are reserved for each linear memory (the default): less would put bounds checks
    ///   into the code. A reservation costs no memory.
    /// - Instances on demand: one container is one instance, a pool would only reserve.
    /// - Fuel and epochs are checks in the code: only where the pod or the profile asks for them.
    pub fn config(self) -> Config {
        let mut config = Config::new();
        config
            .consume_fuel(self.metered)
            .epoch_interruption(self.interruptible);
        match self.profile {
            Profile::Default => {}
            Profile::Deterministic => {
                config.relaxed_simd_deterministic(true);
            }
            Profile::Hardened => {
                config
                    .wasm_simd(false)
                    // Wasmtime refuses the one without the other.
                    .wasm_relaxed_simd(false)
                    .wasm_gc(false)
                    .wasm_function_references(false)
                    .wasm_exceptions(false)
                    .wasm_memory64(false);
            }
        }
        // By default the environment of the process decides.
        config.wasm_backtrace_details(WasmBacktraceDetails::Disable);
        #[cfg(feature = "compiler")]
        {
            config.strategy(wasmtime::Strategy::Cranelift);
            // Only unwinders outside Wasmtime read it, and there are none in a container.
            config.native_unwind_info(false);
            config.cranelift_nan_canonicalization(self.profile != Profile::Default);
        }
        config
    }
}

/// What the processor can do, as far as Cranelift makes use of it.
#[cfg(target_arch = "x86_64")]
fn processor_features() -> String {
    macro_rules! list {
        ($($name:tt),*) => {
            [$(($name, std::arch::is_x86_feature_detected!($name))),*]
        };
    }
    let features = list!(
        "cmpxchg16b",
        "sse3",
        "ssse3",
        "sse4.1",
        "sse4.2",
        "popcnt",
        "avx",
        "avx2",
        "fma",
        "bmi1",
        "bmi2",
        "avx512bitalg",
        "avx512dq",
        "avx512f",
        "avx512vl",
        "avx512vbmi",
        "avx512vnni",
        "avxvnni",
        "lzcnt"
    );
    features
        .iter()
        .filter(|(_, on)| *on)
        .fold(String::new(), |list, (name, _)| list + name + ",")
}

/// What the processor can do, as far as Cranelift makes use of it.
#[cfg(target_arch = "aarch64")]
fn processor_features() -> String {
    macro_rules! list {
        ($($name:tt),*) => {
            [$(($name, std::arch::is_aarch64_feature_detected!($name))),*]
        };
    }
    let features = list!("lse", "paca", "fp16", "dotprod", "i8mm");
    features
        .iter()
        .filter(|(_, on)| *on)
        .fold(String::new(), |list, (name, _)| list + name + ",")
}

/// Other processors: artifacts are not shared between nodes, and the check at loading remains.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn processor_features() -> String {
    String::new()
}

#[cfg(all(test, feature = "compiler"))]
mod tests {
    use wasmtime::Engine;
    use wasmtime::component::Component;

    use super::*;

    /// Proposals, each with a module or component that needs it.
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
        ("component-model", "(component)"),
        (
            "component-model-async",
            "(component (type (stream u8)) (type $f (func async)) (import \"f\" (func (type $f))))",
        ),
        (
            "component-model-error-context",
            "(component (type error-context))",
        ),
    ];

    /// What the profiles take: `default`, `deterministic`, `hardened`. A new Wasmtime that changes this
    /// list is a decision.
    const GOLDEN: &str = "\
mutable-global                 on  on  on
sign-extension                 on  on  on
saturating-float-to-int        on  on  on
multi-value                    on  on  on
bulk-memory                    on  on  on
reference-types                on  on  on
simd                           on  on  off
relaxed-simd                   on  on  off
tail-call                      on  on  on
extended-const                 on  on  on
multi-memory                   on  on  on
memory64                       on  on  off
function-references            on  on  off
gc                             on  on  off
exceptions                     on  on  off
legacy-exceptions              off off off
threads                        off off off
stack-switching                off off off
wide-arithmetic                off off off
custom-page-sizes              off off off
component-model                on  on  on
component-model-async          off off off
component-model-error-context  off off off
";

    fn engine(profile: Profile) -> Engine {
        let code = Code::new(profile, GuestKind::Module, false, false);
        Engine::new(&code.config()).expect("wasmtime starts")
    }

    #[test]
    fn the_proposals_of_the_profiles_are_these() {
        let engines = Profile::ALL.map(engine);
        let mut seen = String::new();
        for (name, text) in PROPOSALS {
            let wasm = wat::parse_str(text).unwrap_or_else(|e| panic!("{name}: {e}"));
            let on = engines.each_ref().map(|engine| {
                if text.starts_with("(component") {
                    engine.precompile_component(&wasm).is_ok()
                } else {
                    engine.precompile_module(&wasm).is_ok()
                }
            });
            let words = on.map(|on| if on { "on" } else { "off" });
            let line = format!("{name:<30} {:<3} {:<3} {:<3}", words[0], words[1], words[2]);
            let _ = writeln!(seen, "{}", line.trim_end());
            // What the runner says of itself is what its engine does.
            if proposal::ALL.contains(name) {
                for (profile, on) in Profile::ALL.into_iter().zip(on) {
                    let said = profile.proposals().iter().any(|said| said == name);
                    assert_eq!(said, on, "{name} in the profile {}", profile.name());
                }
            }
        }
        assert_eq!(seen, GOLDEN);
        // The bytes above reach Wasmtime's own compiler, so nothing is on by mistake of the text.
        Component::new(&engine(Profile::Default), "(component)")
            .expect_err("the text format is not built in");
    }

    #[test]
    fn limits_that_need_code_are_in_the_code() {
        for (profile, metered, timed, kind, wanted) in [
            (
                Profile::Default,
                false,
                false,
                GuestKind::Component,
                (false, false),
            ),
            (
                Profile::Default,
                true,
                true,
                GuestKind::Module,
                (true, false),
            ),
            (
                Profile::Default,
                true,
                true,
                GuestKind::Component,
                (true, true),
            ),
            (
                Profile::Hardened,
                false,
                false,
                GuestKind::Module,
                (true, true),
            ),
        ] {
            let code = Code::new(profile, kind, metered, timed);
            assert_eq!((code.metered, code.interruptible), wanted);
        }
    }

    #[test]
    fn profiles_have_names_and_hashes_of_their_own() {
        for profile in Profile::ALL {
            assert_eq!(Profile::from_name(profile.name()), Some(profile));
            let hash = profile.compatibility();
            assert_eq!(hash.len(), 64);
            assert_eq!(hash, profile.compatibility());
        }
        assert_eq!(Profile::from_name("fast"), None);
    }

    #[test]
    fn the_version_is_that_of_the_library() {
        let lock = include_str!("../../../../Cargo.lock");
        let entry = format!("name = \"wasmtime\"\nversion = \"{VERSION}\"");
        assert!(lock.contains(&entry), "VERSION is not what Cargo.lock has");
    }
}
