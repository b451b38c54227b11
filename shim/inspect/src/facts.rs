//! Facts about a guest that are read from its bytes.

use std::collections::BTreeSet;

use wasmlet_protocol::{GuestKind, Needs, interface, proposal};
use wasmparser::{
    ComponentExternalKind, ExternalKind, Parser, Payload, TypeRef, Validator, WasmFeatures,
};

use crate::one_line;

/// Most exports that are listed.
const MAX_EXPORTS: usize = 256;

/// Most unknown imports that are listed, and the longest name of one in characters.
const MAX_UNKNOWN: usize = 32;
const MAX_NAME: usize = 120;

/// Functions of preview 1 on sockets; all others that begin with `sock_` are WasmEdge's.
const PREVIEW1_SOCKETS: [&str; 4] = ["sock_accept", "sock_recv", "sock_send", "sock_shutdown"];

/// What is known of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Kind of guest.
    pub kind: GuestKind,
    /// Names of the exported functions of a module, of everything that a component exports; at most 256.
    pub exports: Vec<String>,
    /// It wants a listening socket.
    pub wants_listener: bool,
    /// Minimum linear memory in bytes, all memories of all modules in it together.
    ///
    /// Of a component every module counts once, which is how components are built from modules; what
    /// it really needs is seen when it is instantiated.
    pub min_memory: u64,
    /// What it takes to run it.
    pub needs: Needs,
}

/// The bytes are no valid WebAssembly, whatever is switched on.
#[derive(Debug, thiserror::Error)]
#[error("the WebAssembly is not valid: {0}")]
pub struct InvalidModule(String);

/// Reads a guest in binary form.
///
/// # Errors
/// When it is not valid, even with every proposal that is known here.
pub fn facts(wasm: &[u8], kind: GuestKind) -> Result<Facts, InvalidModule> {
    let proposals = proposals(wasm)?;
    let mut found = Found::default();
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.map_err(invalid)?;
        match &payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::MemorySection(memories) => {
                for memory in memories.clone().into_iter().flatten() {
                    found.memory(&memory);
                }
            }
            // Imports of a module inside a component are the component's own affair.
            _ if depth > 0 => {}
            _ => found.outside(&payload)?,
        }
    }
    Ok(found.facts(kind, proposals))
}

fn invalid(error: impl std::fmt::Display) -> InvalidModule {
    InvalidModule(one_line(&error.to_string()))
}

#[derive(Default)]
struct Found {
    exports: Vec<String>,
    serves: bool,
    memory: u64,
    interfaces: BTreeSet<&'static str>,
    unknown: BTreeSet<String>,
    /// Memories that are imported: a thread's is the engine's to give.
    memory_imports: BTreeSet<String>,
}

impl Found {
    fn memory(&mut self, memory: &wasmparser::MemoryType) {
        let page = 1_u64
            .checked_shl(memory.page_size_log2.unwrap_or(16))
            .unwrap_or(u64::MAX);
        self.memory = self
            .memory
            .saturating_add(memory.initial.saturating_mul(page));
    }

    /// A section of the guest itself.
    fn outside(&mut self, payload: &Payload<'_>) -> Result<(), InvalidModule> {
        match payload {
            Payload::ImportSection(imports) => {
                for import in imports.clone().into_imports() {
                    let import = import.map_err(invalid)?;
                    self.module_import(import.module, import.name, import.ty);
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports.clone() {
                    let export = export.map_err(invalid)?;
                    if export.kind == ExternalKind::Func {
                        self.export(export.name);
                    }
                }
            }
            Payload::ComponentImportSection(imports) => {
                for import in imports.clone() {
                    self.component_import(import.map_err(invalid)?.name.name);
                }
            }
            Payload::ComponentExportSection(exports) => {
                for export in exports.clone() {
                    let export = export.map_err(invalid)?;
                    let name = export.name.name;
                    self.export(name);
                    if export.kind == ComponentExternalKind::Instance
                        && name.starts_with("wasi:http/incoming-handler@")
                    {
                        self.serves = true;
                        self.interfaces.insert(interface::WASI_HTTP);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn export(&mut self, name: &str) {
        if self.exports.len() < MAX_EXPORTS {
            self.exports.push(name.to_owned());
        }
    }

    fn module_import(&mut self, module: &str, name: &str, ty: TypeRef) {
        let known = match (module, name) {
            ("wasi_snapshot_preview1", "sock_accept") => interface::LISTEN,
            ("wasi_snapshot_preview1", name)
                if name.starts_with("sock_") && !PREVIEW1_SOCKETS.contains(&name) =>
            {
                interface::WASMEDGE_SOCKETS
            }
            ("wasi_snapshot_preview1", _) => interface::WASI_PREVIEW1,
            ("wasi_unstable", _) => interface::WASI_UNSTABLE,
            ("wasi_ephemeral_nn", _) => interface::WASI_NN,
            ("wasix_32v1" | "wasix_64v1", _) => interface::WASIX,
            ("wasi", "thread-spawn") => interface::WASI_THREADS,
            _ => {
                let full = full_name(module, name);
                if matches!(ty, TypeRef::Memory(_)) {
                    self.memory_imports.insert(full);
                } else {
                    self.unknown(full);
                }
                return;
            }
        };
        self.interfaces.insert(known);
    }

    fn component_import(&mut self, name: &str) {
        let known = if name.starts_with("wasi:http/") {
            interface::WASI_HTTP
        } else if name.starts_with("wasi:nn/") {
            interface::WASI_NN
        } else if name.starts_with("wasi:")
            && name
                .rsplit_once('@')
                .is_some_and(|(_, version)| version.starts_with("0.2."))
        {
            interface::WASI_02
        } else {
            self.unknown(name.chars().take(MAX_NAME).collect());
            return;
        };
        self.interfaces.insert(known);
    }

    fn unknown(&mut self, name: String) {
        if self.unknown.len() < MAX_UNKNOWN {
            self.unknown.insert(name);
        }
    }

    fn facts(mut self, kind: GuestKind, proposals: Vec<String>) -> Facts {
        if self.interfaces.contains(interface::WASMEDGE_SOCKETS) {
            // It opens its own sockets, and its `sock_accept` has another signature.
            self.interfaces.remove(interface::LISTEN);
        }
        let has_threads = [interface::WASIX, interface::WASI_THREADS]
            .iter()
            .any(|name| self.interfaces.contains(name));
        if !has_threads {
            for name in std::mem::take(&mut self.memory_imports) {
                self.unknown(name);
            }
        }
        Facts {
            kind,
            exports: self.exports,
            wants_listener: self.serves || self.interfaces.contains(interface::LISTEN),
            min_memory: self.memory,
            needs: Needs {
                interfaces: self.interfaces.into_iter().map(str::to_owned).collect(),
                unknown: self.unknown.into_iter().collect(),
                proposals,
            },
        }
    }
}

fn full_name(module: &str, name: &str) -> String {
    format!("{module}.{name}").chars().take(MAX_NAME).collect()
}

/// What each name of a proposal switches on.
const FEATURES: [(&str, WasmFeatures); proposal::ALL.len()] = [
    (proposal::SIMD, WasmFeatures::SIMD),
    (proposal::RELAXED_SIMD, WasmFeatures::RELAXED_SIMD),
    (proposal::TAIL_CALL, WasmFeatures::TAIL_CALL),
    (proposal::EXTENDED_CONST, WasmFeatures::EXTENDED_CONST),
    (proposal::MULTI_MEMORY, WasmFeatures::MULTI_MEMORY),
    (proposal::MEMORY64, WasmFeatures::MEMORY64),
    (
        proposal::FUNCTION_REFERENCES,
        WasmFeatures::FUNCTION_REFERENCES,
    ),
    (proposal::GC, WasmFeatures::GC),
    (proposal::EXCEPTIONS, WasmFeatures::EXCEPTIONS),
    (proposal::LEGACY_EXCEPTIONS, WasmFeatures::LEGACY_EXCEPTIONS),
    (proposal::THREADS, WasmFeatures::THREADS),
    (proposal::STACK_SWITCHING, WasmFeatures::STACK_SWITCHING),
    (proposal::WIDE_ARITHMETIC, WasmFeatures::WIDE_ARITHMETIC),
    (proposal::CUSTOM_PAGE_SIZES, WasmFeatures::CUSTOM_PAGE_SIZES),
    (proposal::COMPONENT_MODEL, WasmFeatures::COMPONENT_MODEL),
    (proposal::COMPONENT_MODEL_ASYNC, WasmFeatures::CM_ASYNC),
];

/// Version 2.0 of the standard without SIMD: what every engine takes.
const BASE: WasmFeatures = WasmFeatures::WASM2
    .difference(WasmFeatures::SIMD)
    .union(WasmFeatures::GC_TYPES);

/// The proposals without which the guest is not valid.
///
/// A proposal that only makes others possible is named with them (function references with GC).
fn proposals(wasm: &[u8]) -> Result<Vec<String>, InvalidModule> {
    let is_valid = |features| {
        Validator::new_with_features(features)
            .validate_all(wasm)
            .map(drop)
    };
    if is_valid(BASE).is_ok() {
        return Ok(Vec::new());
    }
    let all = FEATURES
        .iter()
        .fold(BASE, |all, (_, feature)| all.union(*feature));
    is_valid(all).map_err(invalid)?;
    Ok(FEATURES
        .iter()
        .filter(|(_, feature)| is_valid(without(all, *feature)).is_err())
        .map(|(name, _)| (*name).to_owned())
        .collect())
}

/// A set without a proposal and those that contain it.
fn without(all: WasmFeatures, feature: WasmFeatures) -> WasmFeatures {
    let rest = all.difference(feature);
    if feature == WasmFeatures::FUNCTION_REFERENCES {
        rest.difference(WasmFeatures::GC.union(WasmFeatures::STACK_SWITCHING))
    } else {
        rest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Facts {
        let (wasm, kind) = crate::wasm(text.as_bytes().to_vec()).expect("valid text");
        facts(&wasm, kind).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn all_memories_count() {
        let size = |text| read(text).min_memory;
        assert_eq!(size("(module)"), 0);
        assert_eq!(size("(module (memory 2))"), 2 * 65536);
        assert_eq!(size("(module (memory 2 5) (memory 1))"), 3 * 65536);
        assert_eq!(
            size("(component (core module (memory 1)) (core module (memory 4)))"),
            5 * 65536
        );
    }

    #[test]
    fn interfaces_are_told_by_the_imports() {
        let import =
            |module: &str, name: &str| format!(r#"(module (import "{module}" "{name}" (func)))"#);
        for (module, name, wanted) in [
            ("wasi_snapshot_preview1", "fd_write", "wasi-preview1"),
            ("wasi_snapshot_preview1", "sock_send", "wasi-preview1"),
            ("wasi_snapshot_preview1", "sock_accept", "listen"),
            ("wasi_snapshot_preview1", "sock_open", "wasmedge-sockets"),
            (
                "wasi_snapshot_preview1",
                "sock_accept_v2",
                "wasmedge-sockets",
            ),
            ("wasi_unstable", "fd_write", "wasi-unstable"),
            ("wasi_ephemeral_nn", "load", "wasi-nn"),
            ("wasix_32v1", "thread_spawn_v2", "wasix"),
            ("wasi", "thread-spawn", "wasi-threads"),
        ] {
            let facts = read(&import(module, name));
            assert_eq!(facts.needs.interfaces, [wanted]);
            assert_eq!(facts.wants_listener, wanted == "listen");
            assert!(facts.needs.unknown.is_empty());
        }
        let facts = read(&import("env", "abort"));
        assert_eq!(facts.needs.unknown, ["env.abort"]);
        assert!(facts.needs.interfaces.is_empty());
    }

    #[test]
    fn a_guest_with_sockets_of_its_own_gets_none() {
        let facts = read(
            r#"(module
                (import "wasi_snapshot_preview1" "sock_accept" (func))
                (import "wasi_snapshot_preview1" "sock_listen" (func)))"#,
        );
        assert_eq!(facts.needs.interfaces, ["wasmedge-sockets"]);
        assert!(!facts.wants_listener);
    }

    #[test]
    fn a_threads_memory_is_no_unknown_import() {
        let memory = r#"(import "env" "memory" (memory 1 1 shared))"#;
        let alone = read(&format!("(module {memory})"));
        assert_eq!(alone.needs.unknown, ["env.memory"]);
        let threads = read(&format!(
            r#"(module {memory} (import "wasix_32v1" "thread_spawn_v2" (func)))"#
        ));
        assert!(threads.needs.unknown.is_empty());
        assert_eq!(threads.needs.proposals, ["threads"]);
    }

    #[test]
    fn components_are_told_by_what_they_import_and_export() {
        let facts = read(
            r#"(component
                (import "wasi:cli/environment@0.2.6" (instance))
                (import "wasi:nn/graph@0.2.0-rc-2024-10-28" (instance))
                (import "wasi:cli/environment@0.3.0" (instance))
                (core module (import "env" "f" (func)) (func (export "inner")))
                (instance $i)
                (export "wasi:http/incoming-handler@0.2.0" (instance $i)))"#,
        );
        assert_eq!(facts.needs.interfaces, ["wasi-0.2", "wasi-http", "wasi-nn"]);
        assert_eq!(facts.needs.unknown, ["wasi:cli/environment@0.3.0"]);
        assert_eq!(facts.exports, ["wasi:http/incoming-handler@0.2.0"]);
        assert_eq!(facts.needs.proposals, ["component-model"]);
        assert!(facts.wants_listener);
    }

    #[test]
    fn exports_are_functions() {
        let facts = read(r#"(module (memory (export "m") 1) (func (export "_start")))"#);
        assert_eq!(facts.exports, ["_start"]);
        assert!(facts.needs.proposals.is_empty());
    }

    #[test]
    fn every_proposal_is_seen_where_it_is_needed() {
        for (text, wanted) in [
            (
                "(module (func (result v128) (v128.const i32x4 0 0 0 0)))",
                "simd",
            ),
            (
                "(module (func (param v128) (result v128)
                   (i8x16.relaxed_swizzle (local.get 0) (local.get 0))))",
                "simd relaxed-simd",
            ),
            ("(module (func (return_call 0)))", "tail-call"),
            (
                "(module (global i32 (i32.add (i32.const 1) (i32.const 2))))",
                "extended-const",
            ),
            ("(module (memory 1) (memory 1))", "multi-memory"),
            ("(module (memory i64 1))", "memory64"),
            (
                "(module (type $t (func)) (func (param (ref $t))))",
                "function-references",
            ),
            ("(module (type (struct (field i32))))", "gc"),
            ("(module (tag $e) (func (throw $e)))", "exceptions"),
            ("(module (func try catch_all end))", "legacy-exceptions"),
            ("(module (memory 1 1 shared))", "threads"),
            (
                "(module (func (param i64 i64) (result i64 i64)
                   (i64.mul_wide_s (local.get 0) (local.get 1))))",
                "wide-arithmetic",
            ),
            ("(module (memory 1 (pagesize 1)))", "custom-page-sizes"),
        ] {
            let found = read(text).needs.proposals;
            for name in wanted.split(' ') {
                assert!(found.iter().any(|f| f == name), "{text}: {found:?}");
            }
        }
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for wasm in [&b"\0asm\x01\0\0\0\x01\xff"[..], b"\0asm\x01\0\0\0\x0b\x01"] {
            let error = facts(wasm, GuestKind::Module).expect_err("not valid");
            assert!(
                error
                    .to_string()
                    .starts_with("the WebAssembly is not valid: ")
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes: Vec<u8>) {
            let mut wasm = b"\0asm\x01\0\0\0".to_vec();
            wasm.append(&mut bytes);
            let _ = facts(&wasm, GuestKind::Module);
        }
    }
}
