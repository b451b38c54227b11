//! Names of the proposals of WebAssembly, as in <https://github.com/WebAssembly/proposals> without
//! spaces.

/// All that a module can need beyond version 2.0 of the standard without SIMD, which every engine takes.
pub const ALL: [&str; 16] = [
    SIMD,
    RELAXED_SIMD,
    TAIL_CALL,
    EXTENDED_CONST,
    MULTI_MEMORY,
    MEMORY64,
    FUNCTION_REFERENCES,
    GC,
    EXCEPTIONS,
    LEGACY_EXCEPTIONS,
    THREADS,
    STACK_SWITCHING,
    WIDE_ARITHMETIC,
    CUSTOM_PAGE_SIZES,
    COMPONENT_MODEL,
    COMPONENT_MODEL_ASYNC,
];

/// Vectors of 128 bits.
pub const SIMD: &str = "simd";
/// Vector instructions whose results may differ between processors.
pub const RELAXED_SIMD: &str = "relaxed-simd";
/// Calls that take the place of their caller.
pub const TAIL_CALL: &str = "tail-call";
/// Additions and multiplications in constant expressions.
pub const EXTENDED_CONST: &str = "extended-const";
/// More than one linear memory.
pub const MULTI_MEMORY: &str = "multi-memory";
/// Linear memories with 64-bit addresses.
pub const MEMORY64: &str = "memory64";
/// Typed references to functions.
pub const FUNCTION_REFERENCES: &str = "function-references";
/// Structs and arrays that the engine collects.
pub const GC: &str = "gc";
/// Exceptions as in WebAssembly 3.0.
pub const EXCEPTIONS: &str = "exceptions";
/// Exceptions as browsers had them first.
pub const LEGACY_EXCEPTIONS: &str = "legacy-exceptions";
/// Shared memories and atomics.
pub const THREADS: &str = "threads";
/// Continuations.
pub const STACK_SWITCHING: &str = "stack-switching";
/// Additions and multiplications of 128 bits.
pub const WIDE_ARITHMETIC: &str = "wide-arithmetic";
/// Memory pages that are not 64 KiB.
pub const CUSTOM_PAGE_SIZES: &str = "custom-page-sizes";
/// Components.
pub const COMPONENT_MODEL: &str = "component-model";
/// Asynchronous components (WASI 0.3).
pub const COMPONENT_MODEL_ASYNC: &str = "component-model-async";
