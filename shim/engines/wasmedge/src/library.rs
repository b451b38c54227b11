//! The library's C API with owners and errors.

use std::ffi::{CStr, CString, c_char};
use std::ptr::{self, NonNull};
use std::sync::{Mutex, PoisonError};

use wasmlet_protocol::proposal;

use crate::ffi::{self, Proposal, WeResult, WeString};
use crate::settings::{Profile, VERSION};

/// What a call of the library says of its failure, on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LibraryError {
    /// The library's number; see [`ffi::code`].
    pub(crate) code: u32,
    /// Its words.
    pub(crate) text: String,
}

impl LibraryError {
    /// Adds what the log said: its first line repeats the reason in other words, the last ones say where.
    fn with_details(mut self, said: &[String]) -> Self {
        let details: Vec<&str> = said
            .iter()
            .map(|line| line.trim())
            .filter(|line| !line.contains(&self.text) && !line.is_empty())
            .take(4)
            .collect();
        if !details.is_empty() {
            self.text = format!("{} ({})", self.text, details.join("; "));
        }
        self
    }
}

impl std::fmt::Display for LibraryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// Warnings and errors of the library's log while somebody collects them.
static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// What the library's log says.
unsafe extern "C" fn collect(message: *const ffi::LogMessage) {
    // SAFETY: the library passes a message that lives through the call.
    let text = unsafe { text(&(*message).message) };
    LOG.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(text);
}

/// Makes the library silent and checks that it is the one these programs were made for.
///
/// Its log goes to stdout otherwise, which is the guest's.
///
/// # Errors
/// When it is another version.
pub(crate) fn start() -> Result<(), String> {
    // SAFETY: none of the calls has preconditions; the callback lives as long as the program.
    let version = unsafe {
        ffi::WasmEdge_LogSetCallback(Some(collect));
        ffi::WasmEdge_LogOff();
        CStr::from_ptr(ffi::WasmEdge_VersionGet())
    };
    if version.to_bytes() == VERSION.as_bytes() {
        return Ok(());
    }
    Err(format!(
        "libwasmedge is version {}, and this program is made for {VERSION}",
        version.to_string_lossy()
    ))
}

/// Runs something with the library's log on; gives what it said.
fn logged<T>(call: impl FnOnce() -> T) -> (T, Vec<String>) {
    // SAFETY: no preconditions.
    unsafe { ffi::WasmEdge_LogSetLevel(ffi::LOG_WARN) };
    let value = call();
    // SAFETY: no preconditions.
    unsafe { ffi::WasmEdge_LogOff() };
    let said = std::mem::take(&mut *LOG.lock().unwrap_or_else(PoisonError::into_inner));
    (value, said)
}

/// The result of a call, and with an error what the log said of it.
fn logged_result(call: impl FnOnce() -> WeResult) -> Result<Vec<String>, LibraryError> {
    let (result, said) = logged(call);
    match check(result) {
        Ok(_) => Ok(said),
        Err(error) => Err(error.with_details(&said)),
    }
}

/// The same for a call that the SDK makes.
#[cfg(feature = "compiler")]
pub(crate) fn logged_sdk<T>(
    call: impl FnOnce() -> wasmedge_sdk::WasmEdgeResult<T>,
) -> Result<T, LibraryError> {
    let (result, said) = logged(call);
    result.map_err(|error| {
        let error = LibraryError {
            // Only the runner asks for it.
            code: 0,
            text: error.to_string(),
        };
        error.with_details(&said)
    })
}

/// The code of a success, of which there are two; see [`ffi::code::TERMINATED`].
pub(crate) fn check(result: WeResult) -> Result<u32, LibraryError> {
    // SAFETY: no preconditions; the message is a constant of the library.
    let (ok, code, text) = unsafe {
        (
            ffi::WasmEdge_ResultOK(result),
            ffi::WasmEdge_ResultGetCode(result),
            CStr::from_ptr(ffi::WasmEdge_ResultGetMessage(result)),
        )
    };
    if ok {
        return Ok(code);
    }
    Err(LibraryError {
        code,
        text: text.to_string_lossy().into_owned(),
    })
}

/// A name for the library, which reads it during the call.
pub(crate) fn name(text: &str) -> WeString {
    WeString {
        // No name in a module is longer than its 32-bit length.
        length: u32::try_from(text.len()).unwrap_or(u32::MAX),
        buffer: text.as_ptr().cast::<c_char>(),
    }
}

/// # Safety
/// The string must be one that the library has just given, and its owner must live.
unsafe fn text(string: &WeString) -> String {
    if string.buffer.is_null() {
        return String::new();
    }
    // SAFETY: the library gives pointer and length of its own string.
    let bytes =
        unsafe { std::slice::from_raw_parts(string.buffer.cast::<u8>(), string.length as usize) };
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether code is to run as compiled, or modules are only to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Only artifacts are taken.
    Artifact,
    /// Modules, which are never run.
    #[cfg(feature = "compiler")]
    Module,
}

/// The library's settings.
#[derive(Debug)]
pub(crate) struct Configure(NonNull<ffi::ConfigureContext>);

/// Every proposal the library knows, with our name of those that a profile can take.
const PROPOSALS: [(Proposal, Option<&str>); 18] = [
    (Proposal::ImportExportMutGlobals, None),
    (Proposal::NonTrapFloatToIntConversions, None),
    (Proposal::SignExtensionOperators, None),
    (Proposal::MultiValue, None),
    (Proposal::BulkMemoryOperations, None),
    (Proposal::ReferenceTypes, None),
    (Proposal::Simd, Some(proposal::SIMD)),
    (Proposal::TailCall, Some(proposal::TAIL_CALL)),
    (Proposal::ExtendedConst, Some(proposal::EXTENDED_CONST)),
    (Proposal::RelaxSimd, Some(proposal::RELAXED_SIMD)),
    (Proposal::Annotations, Some("annotations")),
    (Proposal::ExceptionHandling, Some(proposal::EXCEPTIONS)),
    (Proposal::Memory64, Some(proposal::MEMORY64)),
    (Proposal::Threads, Some(proposal::THREADS)),
    (Proposal::Component, Some(proposal::COMPONENT_MODEL)),
    (Proposal::MultiMemories, Some(proposal::MULTI_MEMORY)),
    // Before function references, which it is made of: the library refuses the other order.
    (Proposal::Gc, Some(proposal::GC)),
    (
        Proposal::FunctionReferences,
        Some(proposal::FUNCTION_REFERENCES),
    ),
];

impl Configure {
    /// Everything a profile says, and nothing that the library has on by itself.
    pub(crate) fn new(profile: Profile, metered: bool, purpose: Use) -> Self {
        // SAFETY: no preconditions.
        let configure = unsafe { ffi::WasmEdge_ConfigureCreate() };
        let configure =
            Self(NonNull::new(configure).expect("the library has memory for its settings"));
        for (proposal, name) in PROPOSALS {
            // SAFETY: the object lives.
            unsafe {
                if name.is_none_or(|name| profile.proposals().contains(&name)) {
                    ffi::WasmEdge_ConfigureAddProposal(configure.as_ptr(), proposal);
                } else {
                    ffi::WasmEdge_ConfigureRemoveProposal(configure.as_ptr(), proposal);
                }
            }
        }
        let mode = match purpose {
            Use::Artifact => ffi::RUN_MODE_AOT,
            #[cfg(feature = "compiler")]
            Use::Module => ffi::RUN_MODE_INTERPRETER,
        };
        // SAFETY: the object lives.
        unsafe {
            ffi::WasmEdge_ConfigureSetRunMode(configure.as_ptr(), mode);
            ffi::WasmEdge_ConfigureStatisticsSetCostMeasuring(configure.as_ptr(), metered);
        }
        configure
    }

    pub(crate) fn as_ptr(&self) -> *mut ffi::ConfigureContext {
        self.0.as_ptr()
    }
}

impl Drop for Configure {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and nobody else owns it.
        unsafe { ffi::WasmEdge_ConfigureDelete(self.as_ptr()) };
    }
}

/// A module that was parsed and validated.
#[derive(Debug)]
pub(crate) struct Module(NonNull<ffi::AstModuleContext>);

/// An exported function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Export {
    pub(crate) name: String,
    /// None for what is not a function.
    pub(crate) parameters: Option<u32>,
}

impl Module {
    /// Loads an artifact; only compiled code is ever taken.
    ///
    /// The library goes back to its interpreter where it finds something wrong with the compiled code of
    /// some kinds of file, and says so in its log alone. So a word of warning is an error here.
    pub(crate) fn of_artifact(configure: &Configure, path: &CStr) -> Result<Self, LibraryError> {
        let (module, warnings) = Self::parse(configure, |loader, module| {
            // SAFETY: loader and path live through the call, and there is room for the module.
            unsafe { ffi::WasmEdge_LoaderParseFromFile(loader, module, path.as_ptr()) }
        })?;
        if warnings.is_empty() {
            Ok(module)
        } else {
            Err(LibraryError {
                code: 0,
                text: format!("only compiled code is run: {}", warnings.join("; ")),
            })
        }
    }

    /// Looks at a module that is not to be run.
    #[cfg(feature = "compiler")]
    pub(crate) fn of_bytes(configure: &Configure, wasm: &[u8]) -> Result<Self, LibraryError> {
        let bytes = bytes(wasm);
        let (module, _) = Self::parse(configure, |loader, module| {
            // SAFETY: loader and bytes live through the call, and there is room for the module.
            unsafe { ffi::WasmEdge_LoaderParseFromBytes(loader, module, bytes) }
        })?;
        Ok(module)
    }

    fn parse(
        configure: &Configure,
        parse: impl FnOnce(*mut ffi::LoaderContext, *mut *mut ffi::AstModuleContext) -> WeResult,
    ) -> Result<(Self, Vec<String>), LibraryError> {
        let mut module = ptr::null_mut();
        // SAFETY: the settings live, and the loader is not used once it is deleted.
        let mut warnings = unsafe {
            let loader = ffi::WasmEdge_LoaderCreate(configure.as_ptr());
            let parsed = logged_result(|| parse(loader, &raw mut module));
            ffi::WasmEdge_LoaderDelete(loader);
            parsed?
        };
        let module = Self(NonNull::new(module).ok_or_else(|| LibraryError {
            code: 0,
            text: "the library gives no module and no reason".to_owned(),
        })?);
        // SAFETY: settings and module live, and the validator is not used once it is deleted.
        unsafe {
            let validator = ffi::WasmEdge_ValidatorCreate(configure.as_ptr());
            let valid =
                logged_result(|| ffi::WasmEdge_ValidatorValidate(validator, module.as_ptr()));
            ffi::WasmEdge_ValidatorDelete(validator);
            warnings.extend(valid?);
        }
        Ok((module, warnings))
    }

    pub(crate) fn as_ptr(&self) -> *mut ffi::AstModuleContext {
        self.0.as_ptr()
    }

    /// What it exports.
    pub(crate) fn exports(&self) -> Vec<Export> {
        // SAFETY: the module lives, and owns what the list points to.
        unsafe {
            let length = ffi::WasmEdge_ASTModuleListExportsLength(self.as_ptr());
            let mut list = vec![ptr::null(); length as usize];
            ffi::WasmEdge_ASTModuleListExports(self.as_ptr(), list.as_mut_ptr(), length);
            list.into_iter()
                .map(|export| Export {
                    name: text(&ffi::WasmEdge_ExportTypeGetExternalName(export)),
                    parameters: (ffi::WasmEdge_ExportTypeGetExternalType(export)
                        == ffi::EXTERNAL_FUNCTION)
                        .then(|| {
                            ffi::WasmEdge_FunctionTypeGetParametersLength(
                                ffi::WasmEdge_ExportTypeGetFunctionType(self.as_ptr(), export),
                            )
                        }),
                })
                .collect()
        }
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: the library gave it away in `parse`.
        unsafe { ffi::WasmEdge_ASTModuleDelete(self.as_ptr()) };
    }
}

/// WASI preview 1 with the library's own socket functions.
#[derive(Debug)]
pub(crate) struct Wasi(NonNull<ffi::ModuleInstanceContext>);

/// What a guest finds around it.
#[derive(Debug, Default)]
pub(crate) struct WasiSettings {
    pub(crate) args: Vec<CString>,
    pub(crate) env: Vec<CString>,
    /// `GUEST:HOST`, or `GUEST:HOST:readonly`.
    pub(crate) preopens: Vec<CString>,
    /// Descriptor of the process that is the guest's stdin.
    pub(crate) stdin: i32,
}

impl Wasi {
    pub(crate) fn new(settings: &WasiSettings) -> Option<Self> {
        let pointers = |list: &[CString]| -> Vec<*const c_char> {
            list.iter().map(|text| text.as_ptr()).collect()
        };
        // Three lists of bounded size: that of a command line.
        let length = |list: &[CString]| u32::try_from(list.len()).unwrap_or(u32::MAX);
        let (args, env, preopens) = (
            pointers(&settings.args),
            pointers(&settings.env),
            pointers(&settings.preopens),
        );
        // SAFETY: lists and strings live through the call, which copies them.
        let instance = unsafe {
            ffi::WasmEdge_ModuleInstanceCreateWASIWithFds(
                args.as_ptr(),
                length(&settings.args),
                env.as_ptr(),
                length(&settings.env),
                preopens.as_ptr(),
                length(&settings.preopens),
                settings.stdin,
                1,
                2,
            )
        };
        NonNull::new(instance).map(Self)
    }

    pub(crate) fn as_ptr(&self) -> *mut ffi::ModuleInstanceContext {
        self.0.as_ptr()
    }
}

#[cfg(feature = "compiler")]
pub(crate) use compiling::Import;

#[cfg(feature = "compiler")]
fn bytes(bytes: &[u8]) -> ffi::Bytes {
    ffi::Bytes {
        // Modules are smaller: compiler-core bounds what is read.
        length: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        buffer: bytes.as_ptr(),
    }
}

#[cfg(feature = "compiler")]
mod compiling {
    use super::*;

    /// What a module wants, and whether it can be had.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Import {
        pub(crate) module: String,
        pub(crate) name: String,
        pub(crate) offer: Offer,
    }

    /// What there is for an import.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Offer {
        /// The very thing.
        Given,
        /// A function of that name with another signature.
        OtherType,
        /// Nothing.
        Missing,
    }

    impl Module {
        /// Everything that it imports, compared with what there is.
        pub(crate) fn imports(&self, wasi: &Wasi) -> Vec<Import> {
            // SAFETY: the module lives, and owns what the list points to.
            unsafe {
                let length = ffi::WasmEdge_ASTModuleListImportsLength(self.as_ptr());
                let mut list = vec![ptr::null(); length as usize];
                ffi::WasmEdge_ASTModuleListImports(self.as_ptr(), list.as_mut_ptr(), length);
                list.into_iter()
                    .map(|import| {
                        let module = text(&ffi::WasmEdge_ImportTypeGetModuleName(import));
                        let name = text(&ffi::WasmEdge_ImportTypeGetExternalName(import));
                        let is_function = ffi::WasmEdge_ImportTypeGetExternalType(import)
                            == ffi::EXTERNAL_FUNCTION;
                        let offer = if module == "wasi_snapshot_preview1" && is_function {
                            let wanted =
                                ffi::WasmEdge_ImportTypeGetFunctionType(self.as_ptr(), import);
                            wasi.offer(&name, wanted)
                        } else {
                            Offer::Missing
                        };
                        Import {
                            module,
                            name,
                            offer,
                        }
                    })
                    .collect()
            }
        }
    }

    impl Wasi {
        /// # Safety
        /// The type must live.
        unsafe fn offer(&self, name: &str, wanted: *const ffi::FunctionTypeContext) -> Offer {
            // SAFETY: the instance lives and owns its functions, which own their types; the caller
            // vouches for the other type.
            unsafe {
                let function =
                    ffi::WasmEdge_ModuleInstanceFindFunction(self.as_ptr(), super::name(name));
                if function.is_null() {
                    return Offer::Missing;
                }
                let given = ffi::WasmEdge_FunctionInstanceGetFunctionType(function);
                if are_equal(&parameters(given), &parameters(wanted))
                    && are_equal(&returns(given), &returns(wanted))
                {
                    Offer::Given
                } else {
                    Offer::OtherType
                }
            }
        }
    }

    impl Drop for Wasi {
        fn drop(&mut self) {
            // SAFETY: made by `new`; the runner leaves through `_exit` before this could run while a
            // store knows the instance.
            unsafe { ffi::WasmEdge_ModuleInstanceDelete(self.as_ptr()) };
        }
    }

    /// # Safety
    /// The type must live.
    unsafe fn parameters(function: *const ffi::FunctionTypeContext) -> Vec<ffi::ValType> {
        // SAFETY: the caller vouches for the type; the list has room for as many as there are.
        unsafe {
            let length = ffi::WasmEdge_FunctionTypeGetParametersLength(function);
            let mut list = vec![ffi::ValType::default(); length as usize];
            ffi::WasmEdge_FunctionTypeGetParameters(function, list.as_mut_ptr(), length);
            list
        }
    }

    /// # Safety
    /// The type must live.
    unsafe fn returns(function: *const ffi::FunctionTypeContext) -> Vec<ffi::ValType> {
        // SAFETY: as above.
        unsafe {
            let length = ffi::WasmEdge_FunctionTypeGetReturnsLength(function);
            let mut list = vec![ffi::ValType::default(); length as usize];
            ffi::WasmEdge_FunctionTypeGetReturns(function, list.as_mut_ptr(), length);
            list
        }
    }

    fn are_equal(one: &[ffi::ValType], other: &[ffi::ValType]) -> bool {
        one.len() == other.len()
            && one.iter().zip(other).all(|(one, other)| {
                // SAFETY: both are types that the library gave.
                unsafe { ffi::WasmEdge_ValTypeIsEqual(*one, *other) }
            })
    }
}
#[cfg(feature = "compiler")]
pub(crate) use compiling::Offer;
