//! The settings of WasmEdge, one place for runner and compile helper.
//!
//! A profile is a set of settings that changes compiled code, so each has artifacts of its own.
//!
//! | | `default` | `hardened` |
//! |---|---|---|
//! | SIMD, relaxed SIMD | on | off |
//! | tail calls, extended constants, several memories, function references | on | on |
//! | memory64, exceptions | off | off |
//! | garbage collection, threads, components | off | off |
//! | fuel metering in the code | where fuel is asked for | always |
//! | stack | 1 MiB | 1 MiB |
//!
//! What WasmEdge cannot do: it has no canonical NaNs, so that `hardened` lacks them (a matter of
//! determinism, not of safety), and there is no profile `deterministic`.
//!
//! Off in every profile, although the library has them on:
//!
//! - memory64: compiled code does not check the bounds of 64-bit addresses (docs/advisories.toml).
//! - exceptions: the compiler does not know them and makes code that traps.
//! - garbage collection: its objects are outside of the linear memory that is limited.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};
use wasmlet_protocol::proposal;

/// Version of the library that these programs are made for, and refuse to run without.
pub const VERSION: &str = "0.17.1";

/// Names this build; see `build.rs`.
pub const BUILD_ID: &str = concat!(env!("CARGO_PKG_VERSION"), "-", env!("WASMLET_BUILD_ID"));

/// The guest's stack where the pod does not say otherwise, in bytes.
pub const DEFAULT_STACK: u64 = 1 << 20;

/// Counts the changes of what follows: without a new number the old artifacts would stay in use.
const SETTINGS_VERSION: u32 = 1;

/// A named set of settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// WebAssembly 3.0 without what WasmEdge's compiled code does not do safely.
    Default,
    /// As little as programs for WASI need.
    Hardened,
}

impl Profile {
    /// Every profile there is.
    pub const ALL: [Self; 2] = [Self::Default, Self::Hardened];

    /// The name in the annotation `wasmlet.dev/profile`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Hardened => "hardened",
        }
    }

    /// The profile of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.name() == name)
    }

    /// Proposals of WebAssembly that it takes, by their names in [`wasmlet_protocol::proposal`].
    pub const fn proposals(self) -> &'static [&'static str] {
        match self {
            Self::Default => &[
                proposal::SIMD,
                proposal::RELAXED_SIMD,
                proposal::TAIL_CALL,
                proposal::EXTENDED_CONST,
                proposal::MULTI_MEMORY,
                proposal::FUNCTION_REFERENCES,
            ],
            Self::Hardened => &[
                proposal::TAIL_CALL,
                proposal::EXTENDED_CONST,
                proposal::MULTI_MEMORY,
                proposal::FUNCTION_REFERENCES,
            ],
        }
    }

    /// Whether compiled code counts what it costs.
    pub const fn is_metered(self, fuel_is_limited: bool) -> bool {
        match self {
            Self::Default => fuel_is_limited,
            Self::Hardened => true,
        }
    }

    /// Hash over everything that decides whether an artifact runs here, hexadecimal.
    ///
    /// The library checks of an artifact only the version of its own format, so all else has to be in
    /// this hash: above all what the processor can do, for which code is compiled.
    pub fn compatibility(self) -> String {
        let mut hash = Sha256::new();
        for part in [VERSION, self.name(), std::env::consts::ARCH] {
            hash.update(part);
            hash.update([0]);
        }
        hash.update(SETTINGS_VERSION.to_le_bytes());
        for name in self.proposals() {
            hash.update(name);
            hash.update([0]);
        }
        for word in processor() {
            hash.update(word.to_le_bytes());
        }
        let mut text = String::new();
        for byte in hash.finalize() {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

/// Everything by which LLVM tells processors apart: the registers of CPUID with model and features, and
/// which of them the kernel has switched on.
#[cfg(target_arch = "x86_64")]
fn processor() -> Vec<u64> {
    use std::arch::x86_64::{__cpuid, __cpuid_count};

    let mut words = Vec::new();
    let mut add = |low: u32, high: u32| words.push(u64::from(low) | u64::from(high) << 32);
    let vendor = __cpuid(0);
    add(vendor.ebx, vendor.ecx);
    // EBX of this leaf has the number of the core that asks.
    let features = __cpuid(1);
    add(features.eax, features.edx);
    add(features.ecx, 0);
    if vendor.eax >= 7 {
        let zero = __cpuid_count(7, 0);
        add(zero.ebx, zero.ecx);
        add(zero.edx, 0);
        if zero.eax >= 1 {
            let one = __cpuid_count(7, 1);
            add(one.eax, one.edx);
        }
    }
    if __cpuid(0x8000_0000).eax >= 0x8000_0001 {
        let extended = __cpuid(0x8000_0001);
        add(extended.ecx, extended.edx);
    }
    // The bit says that XGETBV may be used; these need more than the processor.
    for on in [
        std::arch::is_x86_feature_detected!("avx"),
        std::arch::is_x86_feature_detected!("avx512f"),
    ] {
        words.push(u64::from(on));
    }
    words
}

/// Everything by which LLVM tells processors apart: what the kernel says that they have.
#[cfg(target_arch = "aarch64")]
fn processor() -> Vec<u64> {
    let mut words = Vec::new();
    for on in [
        std::arch::is_aarch64_feature_detected!("lse"),
        std::arch::is_aarch64_feature_detected!("paca"),
        std::arch::is_aarch64_feature_detected!("fp16"),
        std::arch::is_aarch64_feature_detected!("dotprod"),
        std::arch::is_aarch64_feature_detected!("i8mm"),
        std::arch::is_aarch64_feature_detected!("sve"),
        std::arch::is_aarch64_feature_detected!("sve2"),
        std::arch::is_aarch64_feature_detected!("bf16"),
    ] {
        words.push(u64::from(on));
    }
    // LLVM's name of the processor comes from here.
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("CPU "))
        .take(5)
        .collect();
    let hash = Sha256::digest(model.join("\n"));
    words.extend(hash.chunks_exact(8).map(|chunk| {
        chunk
            .iter()
            .fold(0, |word, byte| word << 8 | u64::from(*byte))
    }));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_has_artifacts_of_its_own() {
        let hashes = Profile::ALL.map(Profile::compatibility);
        assert_ne!(hashes[0], hashes[1]);
        assert_eq!(
            hashes,
            Profile::ALL.map(Profile::compatibility),
            "it stays the same"
        );
        assert!(hashes.iter().all(|hash| hash.len() == 64));
    }

    #[test]
    fn no_profile_takes_what_compiled_code_does_not_do_safely() {
        for profile in Profile::ALL {
            for never in [
                proposal::MEMORY64,
                proposal::EXCEPTIONS,
                proposal::LEGACY_EXCEPTIONS,
                proposal::GC,
                proposal::THREADS,
                proposal::COMPONENT_MODEL,
            ] {
                assert!(
                    !profile.proposals().contains(&never),
                    "{never} in {}",
                    profile.name()
                );
            }
        }
        assert!(!Profile::Hardened.proposals().contains(&proposal::SIMD));
    }

    #[test]
    fn metering_is_compiled_in_where_it_is_asked_for_and_when_hardened() {
        assert!(!Profile::Default.is_metered(false));
        assert!(Profile::Default.is_metered(true));
        assert!(Profile::Hardened.is_metered(false));
    }
}
