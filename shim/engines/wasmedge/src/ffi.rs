//! The part of WasmEdge's C API that is used, as in the headers of version 0.17.1.
//!
//! A test compiles these declarations against the headers, so that a wrong one is an error
//! (`tests/header.rs`).

use std::ffi::{c_char, c_int, c_void};

/// What a result says: how a guest ends itself is a success to the library.
pub(crate) mod code {
    pub(crate) const TERMINATED: u32 = 0x01;
    pub(crate) const COST_LIMIT_EXCEEDED: u32 = 0x03;
    pub(crate) const MEMORY_OUT_OF_BOUNDS: u32 = 0x408;
}

macro_rules! opaque {
    ($($name:ident),* $(,)?) => {$(
        /// An object of the library.
        #[repr(C)]
        pub(crate) struct $name {
            _private: [u8; 0],
        }
    )*};
}

opaque! {
    ConfigureContext,
    StatisticsContext,
    AstModuleContext,
    FunctionTypeContext,
    ImportTypeContext,
    ExportTypeContext,
    LoaderContext,
    ValidatorContext,
    ExecutorContext,
    StoreContext,
    ModuleInstanceContext,
    FunctionInstanceContext,
}

/// Bytes of somebody, not terminated.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct WeString {
    pub(crate) length: u32,
    pub(crate) buffer: *const c_char,
}

/// Bytes of somebody.
#[cfg(feature = "compiler")]
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Bytes {
    pub(crate) length: u32,
    pub(crate) buffer: *const u8,
}

/// How a call ended.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct WeResult {
    pub(crate) code: u32,
}

/// Type of a value.
#[cfg(feature = "compiler")]
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct ValType {
    pub(crate) data: [u8; 8],
}

/// A message of the library's log.
#[repr(C)]
pub(crate) struct LogMessage {
    pub(crate) message: WeString,
    pub(crate) logger: WeString,
    pub(crate) level: c_int,
    pub(crate) time: i64,
    pub(crate) thread: u64,
}

/// `WasmEdge_Proposal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) enum Proposal {
    ImportExportMutGlobals = 0,
    NonTrapFloatToIntConversions = 1,
    SignExtensionOperators = 2,
    MultiValue = 3,
    BulkMemoryOperations = 4,
    ReferenceTypes = 5,
    Simd = 6,
    TailCall = 7,
    ExtendedConst = 8,
    FunctionReferences = 9,
    Gc = 10,
    MultiMemories = 11,
    RelaxSimd = 12,
    Annotations = 13,
    ExceptionHandling = 14,
    Memory64 = 15,
    Threads = 16,
    Component = 17,
}

/// `WasmEdge_RunMode_Interpreter`.
#[cfg(feature = "compiler")]
pub(crate) const RUN_MODE_INTERPRETER: c_int = 0;
/// `WasmEdge_RunMode_AOT`.
pub(crate) const RUN_MODE_AOT: c_int = 2;
/// `WasmEdge_ExternalType_Function`.
pub(crate) const EXTERNAL_FUNCTION: c_int = 0;
/// `WasmEdge_LogLevel_Warn`.
pub(crate) const LOG_WARN: c_int = 3;

#[link(name = "wasmedge")]
unsafe extern "C" {
    pub(crate) fn WasmEdge_VersionGet() -> *const c_char;
    pub(crate) fn WasmEdge_LogOff();
    pub(crate) fn WasmEdge_LogSetLevel(level: c_int);
    pub(crate) fn WasmEdge_LogSetCallback(
        callback: Option<unsafe extern "C" fn(*const LogMessage)>,
    );
    pub(crate) fn WasmEdge_ResultOK(result: WeResult) -> bool;
    pub(crate) fn WasmEdge_ResultGetCode(result: WeResult) -> u32;
    pub(crate) fn WasmEdge_ResultGetMessage(result: WeResult) -> *const c_char;

    pub(crate) fn WasmEdge_ConfigureCreate() -> *mut ConfigureContext;
    pub(crate) fn WasmEdge_ConfigureAddProposal(
        configure: *mut ConfigureContext,
        proposal: Proposal,
    );
    pub(crate) fn WasmEdge_ConfigureRemoveProposal(
        configure: *mut ConfigureContext,
        proposal: Proposal,
    );
    pub(crate) fn WasmEdge_ConfigureSetRunMode(configure: *mut ConfigureContext, mode: c_int);
    pub(crate) fn WasmEdge_ConfigureStatisticsSetCostMeasuring(
        configure: *mut ConfigureContext,
        on: bool,
    );
    pub(crate) fn WasmEdge_ConfigureDelete(configure: *mut ConfigureContext);

    pub(crate) fn WasmEdge_LoaderCreate(configure: *const ConfigureContext) -> *mut LoaderContext;
    pub(crate) fn WasmEdge_LoaderParseFromFile(
        loader: *mut LoaderContext,
        module: *mut *mut AstModuleContext,
        path: *const c_char,
    ) -> WeResult;
    pub(crate) fn WasmEdge_LoaderDelete(loader: *mut LoaderContext);
    pub(crate) fn WasmEdge_ValidatorCreate(
        configure: *const ConfigureContext,
    ) -> *mut ValidatorContext;
    pub(crate) fn WasmEdge_ValidatorValidate(
        validator: *mut ValidatorContext,
        module: *const AstModuleContext,
    ) -> WeResult;
    pub(crate) fn WasmEdge_ValidatorDelete(validator: *mut ValidatorContext);

    pub(crate) fn WasmEdge_ASTModuleListExportsLength(module: *const AstModuleContext) -> u32;
    pub(crate) fn WasmEdge_ASTModuleListExports(
        module: *const AstModuleContext,
        exports: *mut *const ExportTypeContext,
        length: u32,
    ) -> u32;
    pub(crate) fn WasmEdge_ASTModuleDelete(module: *mut AstModuleContext);
    pub(crate) fn WasmEdge_ExportTypeGetExternalType(export: *const ExportTypeContext) -> c_int;
    pub(crate) fn WasmEdge_ExportTypeGetExternalName(export: *const ExportTypeContext) -> WeString;
    pub(crate) fn WasmEdge_ExportTypeGetFunctionType(
        module: *const AstModuleContext,
        export: *const ExportTypeContext,
    ) -> *const FunctionTypeContext;
    pub(crate) fn WasmEdge_FunctionTypeGetParametersLength(
        function: *const FunctionTypeContext,
    ) -> u32;
    pub(crate) fn WasmEdge_ModuleInstanceFindFunction(
        instance: *const ModuleInstanceContext,
        name: WeString,
    ) -> *mut FunctionInstanceContext;
    pub(crate) fn WasmEdge_ModuleInstanceCreateWASIWithFds(
        args: *const *const c_char,
        arg_length: u32,
        envs: *const *const c_char,
        env_length: u32,
        preopens: *const *const c_char,
        preopen_length: u32,
        stdin: i32,
        stdout: i32,
        stderr: i32,
    ) -> *mut ModuleInstanceContext;
}

#[cfg(feature = "compiler")]
#[link(name = "wasmedge")]
unsafe extern "C" {
    pub(crate) fn WasmEdge_LoaderParseFromBytes(
        loader: *mut LoaderContext,
        module: *mut *mut AstModuleContext,
        bytes: Bytes,
    ) -> WeResult;

    pub(crate) fn WasmEdge_ASTModuleListImportsLength(module: *const AstModuleContext) -> u32;
    pub(crate) fn WasmEdge_ASTModuleListImports(
        module: *const AstModuleContext,
        imports: *mut *const ImportTypeContext,
        length: u32,
    ) -> u32;
    pub(crate) fn WasmEdge_ImportTypeGetExternalType(import: *const ImportTypeContext) -> c_int;
    pub(crate) fn WasmEdge_ImportTypeGetModuleName(import: *const ImportTypeContext) -> WeString;
    pub(crate) fn WasmEdge_ImportTypeGetExternalName(import: *const ImportTypeContext) -> WeString;
    pub(crate) fn WasmEdge_ImportTypeGetFunctionType(
        module: *const AstModuleContext,
        import: *const ImportTypeContext,
    ) -> *const FunctionTypeContext;
    pub(crate) fn WasmEdge_FunctionInstanceGetFunctionType(
        function: *const FunctionInstanceContext,
    ) -> *const FunctionTypeContext;
    pub(crate) fn WasmEdge_FunctionTypeGetParameters(
        function: *const FunctionTypeContext,
        list: *mut ValType,
        length: u32,
    ) -> u32;
    pub(crate) fn WasmEdge_FunctionTypeGetReturnsLength(
        function: *const FunctionTypeContext,
    ) -> u32;
    pub(crate) fn WasmEdge_FunctionTypeGetReturns(
        function: *const FunctionTypeContext,
        list: *mut ValType,
        length: u32,
    ) -> u32;
    pub(crate) fn WasmEdge_ValTypeIsEqual(one: ValType, other: ValType) -> bool;
    pub(crate) fn WasmEdge_ModuleInstanceDelete(instance: *mut ModuleInstanceContext);
}

#[cfg(feature = "runner")]
#[link(name = "wasmedge")]
unsafe extern "C" {
    pub(crate) fn WasmEdge_StatisticsCreate() -> *mut StatisticsContext;
    pub(crate) fn WasmEdge_StatisticsSetCostLimit(statistics: *mut StatisticsContext, limit: u64);
    pub(crate) fn WasmEdge_StatisticsGetTotalCost(statistics: *const StatisticsContext) -> u64;
    pub(crate) fn WasmEdge_StoreCreate() -> *mut StoreContext;
    pub(crate) fn WasmEdge_ExecutorCreate(
        configure: *const ConfigureContext,
        statistics: *mut StatisticsContext,
    ) -> *mut ExecutorContext;
    pub(crate) fn WasmEdge_ExecutorRegisterImport(
        executor: *mut ExecutorContext,
        store: *mut StoreContext,
        import: *const ModuleInstanceContext,
    ) -> WeResult;
    pub(crate) fn WasmEdge_ExecutorInstantiate(
        executor: *mut ExecutorContext,
        instance: *mut *mut ModuleInstanceContext,
        store: *mut StoreContext,
        module: *const AstModuleContext,
    ) -> WeResult;
    /// `WasmEdge_Value` is left out: functions are called without parameters, and nobody asks for what
    /// they return.
    pub(crate) fn WasmEdge_ExecutorInvoke(
        executor: *mut ExecutorContext,
        function: *const FunctionInstanceContext,
        parameters: *const c_void,
        parameter_length: u32,
        returns: *mut c_void,
        return_length: u32,
    ) -> WeResult;
    pub(crate) fn WasmEdge_ModuleInstanceWASIGetExitCode(
        instance: *const ModuleInstanceContext,
    ) -> u32;
    pub(crate) fn WasmEdge_ModuleInstanceWASIGetNativeHandler(
        instance: *const ModuleInstanceContext,
        fd: i32,
        handle: *mut u64,
    ) -> u32;
}
