//! Gives imports the names by which WasmEdge knows them.
//!
//! WasmEdge had a `sock_accept` before WASI had one, with another signature, and keeps the name for it. The
//! function of WASI preview 1 is there as `sock_accept_v2`. So a module that imports WASI's is compiled
//! with that name in its place; nothing else of it changes.

use std::borrow::Cow;

use wasmparser::{Parser, Payload, TypeRef, ValType};

const MODULE: &str = "wasi_snapshot_preview1";
const WASIS: &str = "sock_accept";
const LIBRARYS: &str = "sock_accept_v2";

/// Number of the import section (WebAssembly, binary format).
const IMPORT_SECTION: u8 = 2;

/// The module with the library's names.
///
/// # Errors
/// When it is not valid.
pub(super) fn imports(wasm: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    let mut signatures: Vec<Option<usize>> = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(|error| error.to_string())? {
            Payload::TypeSection(types) => {
                for ty in types.into_iter_err_on_gc_types() {
                    // Types of other kinds are no reason to stop: the library says what it thinks of them.
                    let Ok(ty) = ty else { return Ok(wasm.into()) };
                    let is_all_i32 = ty.params().iter().all(|ty| *ty == ValType::I32);
                    signatures.push(is_all_i32.then(|| ty.params().len()));
                }
            }
            Payload::ImportSection(section) => {
                let range = section.range();
                let mut names = Vec::new();
                for import in section.into_imports() {
                    let import = import.map_err(|error| error.to_string())?;
                    if import.module == MODULE
                        && import.name == WASIS
                        && let TypeRef::Func(index) = import.ty
                        && signatures.get(index as usize) == Some(&Some(3))
                    {
                        names.push(offset(wasm, import.name));
                    }
                }
                return Ok(replace(wasm, range, &names));
            }
            _ => {}
        }
    }
    Ok(wasm.into())
}

/// Where a piece of the module is in it.
fn offset(wasm: &[u8], piece: &str) -> usize {
    piece.as_ptr() as usize - wasm.as_ptr() as usize
}

/// Writes the import section anew, with another name at each of the offsets.
fn replace<'a>(wasm: &'a [u8], section: std::ops::Range<usize>, names: &[usize]) -> Cow<'a, [u8]> {
    if names.is_empty() {
        return wasm.into();
    }
    let mut content = Vec::new();
    let mut copied = section.start;
    for name in names {
        // Before it is its length, which is one byte for a name that short, unless somebody wrote it with
        // more than it takes.
        let length = length_before(wasm, *name);
        content.extend_from_slice(&wasm[copied..length]);
        content.extend(leb128(LIBRARYS.len()));
        content.extend_from_slice(LIBRARYS.as_bytes());
        copied = name + WASIS.len();
    }
    content.extend_from_slice(&wasm[copied..section.end]);

    // The section's own head is its number and its length.
    let length = length_before(wasm, section.start);
    let mut result = wasm[..length].to_vec();
    debug_assert_eq!(
        result.last(),
        Some(&IMPORT_SECTION),
        "the number is before the length"
    );
    result.extend(leb128(content.len()));
    result.extend(content);
    result.extend_from_slice(&wasm[section.end..]);
    result.into()
}

/// Where the LEB128 number begins that ends right before `end`: it is one of the at most five bytes before,
/// all of which but the last have the highest bit set, and what precedes it does not belong to it.
fn length_before(wasm: &[u8], end: usize) -> usize {
    let mut start = end - 1;
    while end - start < 5 && start > 0 && wasm[start - 1] & 0x80 != 0 {
        start -= 1;
    }
    start
}

fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}
