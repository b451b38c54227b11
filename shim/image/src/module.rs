//! A module's first bytes: is it WebAssembly, and is it nothing but WebAssembly?

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use wasmlet_protocol::FailureReason;

use crate::Limits;

/// `\0asm`, the beginning of modules and components.
const MAGIC: [u8; 4] = *b"\0asm";

/// Magic and version.
const HEADER_BYTES: usize = 8;

/// Beginning of an ELF file; what wasmtime's, Wasmer's and WasmEdge's native artifacts are.
const ELF: [u8; 4] = *b"\x7fELF";

/// `e_ident[EI_OSABI]` of wasmtime's artifacts.
const ELF_OSABI_WASMTIME: u8 = 200;

/// Beginning of Wasmer's artifacts that are not ELF.
const WASMER_ARTIFACT: &[u8] = b"wasmer-universal";

/// Custom sections with native code in them.
const NATIVE_SECTIONS: [&str; 2] = ["wasmedge", "wasmedge_aot"];

/// More sections than any compiler writes; a file with more is left to the engine's parser, which
/// refuses it or ignores what comes then.
const MAX_SECTIONS: usize = 100_000;

/// Bytes looked at to tell what a file is.
const HEAD_BYTES: usize = 64;

/// How a module is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The binary format: a module or a component.
    Binary,
    /// The text format.
    Text,
}

/// What makes a file native code instead of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// An artifact of wasmtime.
    Wasmtime,
    /// An artifact of Wasmer.
    Wasmer,
    /// Any other ELF file with a module's name.
    Elf,
    /// A module with native code in a custom section.
    Section(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Wasmtime => f.write_str("an artifact of wasmtime"),
            Refused::Wasmer => f.write_str("an artifact of Wasmer"),
            Refused::Elf => f.write_str("an ELF file"),
            Refused::Section(name) => {
                write!(f, "a module with native code in its section {name:?}")
            }
        }
    }
}

/// Why a file is no module that can be run.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// It is something else.
    #[error("is not a WebAssembly module: begins with {begins}")]
    NotWasm {
        /// Its first bytes, readable.
        begins: String,
    },
    /// It is empty.
    #[error("is not a WebAssembly module: the file is empty")]
    Empty,
    /// It ends within the header.
    #[error(
        "is a truncated WebAssembly module: {length} bytes, of which the header alone has {HEADER_BYTES}"
    )]
    Truncated {
        /// Its length.
        length: u64,
    },
    /// It is native code.
    #[error(
        "is {0}: precompiled native code is refused, put the .wasm it was compiled from into the image"
    )]
    Native(Refused),
    /// It is too long.
    #[error("has {length} bytes, more than the {limit} bytes that a module may have on this node")]
    TooLarge {
        /// Its length.
        length: u64,
        /// The bound.
        limit: u64,
    },
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
}

impl ModuleError {
    /// Whose turn it is.
    pub fn reason(&self) -> FailureReason {
        match self {
            ModuleError::NotWasm { .. }
            | ModuleError::Empty
            | ModuleError::Truncated { .. }
            | ModuleError::Native(_) => FailureReason::InvalidArgument,
            ModuleError::TooLarge { .. } => FailureReason::ResourceExhausted,
            ModuleError::Read(_) => FailureReason::Internal,
        }
    }
}

/// What a file's name promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    /// `.wasm`, or a layer's media type.
    Binary,
    /// `.wat`.
    Text,
    /// Nothing: the content decides.
    Nothing,
}

impl Promise {
    pub(crate) fn of_name(name: &str) -> Promise {
        if name.ends_with(".wasm") {
            Promise::Binary
        } else if name.ends_with(".wat") {
            Promise::Text
        } else {
            Promise::Nothing
        }
    }
}

/// Tells whether an open regular file is a module: `Ok(None)` when it is none and its name did not
/// promise one.
pub(crate) fn inspect(
    file: &File,
    length: u64,
    promise: Promise,
    limits: &Limits,
) -> Result<Option<Form>, ModuleError> {
    let mut head = [0; HEAD_BYTES];
    let count = read_at_most(file, &mut head, 0).map_err(ModuleError::Read)?;
    let head = &head[..count];

    let form = if head.starts_with(&MAGIC) {
        Form::Binary
    } else if let Some(refused) = native(head, promise) {
        return Err(ModuleError::Native(refused));
    } else {
        match promise {
            Promise::Nothing => return Ok(None),
            Promise::Text if looks_like_text(head) => Form::Text,
            Promise::Binary | Promise::Text if head.is_empty() => return Err(ModuleError::Empty),
            Promise::Binary if MAGIC.starts_with(head) => {
                return Err(ModuleError::Truncated { length });
            }
            Promise::Binary | Promise::Text => {
                return Err(ModuleError::NotWasm {
                    begins: readable(head),
                });
            }
        }
    };
    if length > limits.max_module_bytes {
        return Err(ModuleError::TooLarge {
            length,
            limit: limits.max_module_bytes,
        });
    }
    if form == Form::Binary {
        if head.len() < HEADER_BYTES {
            return Err(ModuleError::Truncated { length });
        }
        if let Some(name) = native_section(file, length).map_err(ModuleError::Read)? {
            return Err(ModuleError::Native(Refused::Section(name)));
        }
    }
    Ok(Some(form))
}

fn native(head: &[u8], promise: Promise) -> Option<Refused> {
    if head.starts_with(&ELF) {
        return match (head.get(7), promise) {
            (Some(&ELF_OSABI_WASMTIME), _) => Some(Refused::Wasmtime),
            (_, Promise::Nothing) => None, // an ordinary program
            _ => Some(Refused::Elf),
        };
    }
    head.starts_with(WASMER_ARTIFACT).then_some(Refused::Wasmer)
}

/// The text format is one parenthesised form, after white space and comments (`;; …`, `(; … ;)`).
fn looks_like_text(head: &[u8]) -> bool {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let first = head.iter().find(|byte| !byte.is_ascii_whitespace());
    matches!(first, Some(b'(' | b';'))
}

/// The first bytes of a file for a message: as text where they are text, else in hexadecimal.
fn readable(head: &[u8]) -> String {
    let head = &head[..head.len().min(16)];
    if head
        .iter()
        .all(|byte| byte.is_ascii_graphic() || *byte == b' ')
    {
        return format!("{:?}", String::from_utf8_lossy(head));
    }
    let bytes: Vec<String> = head
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("bytes {}", bytes.join(" "))
}

/// Looks for a custom section with native code: the name of the first one.
///
/// Only lengths and names are read. Whatever is malformed ends the search: the engine's parser
/// refuses it with a better message.
fn native_section(file: &File, length: u64) -> io::Result<Option<String>> {
    let mut offset = HEADER_BYTES as u64;
    for _ in 0..MAX_SECTIONS {
        // Section id, its length, the length of a name, and the longest name that matters.
        let mut head = [0; 32];
        let count = read_at_most(file, &mut head, offset)?;
        let Some((&id, rest)) = head[..count].split_first() else {
            return Ok(None);
        };
        let Some((size, body)) = leb128(rest) else {
            return Ok(None);
        };
        if id == 0
            && let Some((name_length, rest)) = leb128(body)
            && let Some(name) = rest.get(..name_length as usize)
            && let Some(found) = NATIVE_SECTIONS
                .iter()
                .find(|native| native.as_bytes() == name)
        {
            return Ok(Some((*found).to_owned()));
        }
        let header = (count - body.len()) as u64;
        offset += header + u64::from(size);
        if offset >= length {
            return Ok(None);
        }
    }
    Ok(None)
}

/// An unsigned 32-bit number of the binary format, and what comes after it.
fn leb128(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((u32::try_from(value).ok()?, &bytes[index + 1..]));
        }
    }
    None
}

fn read_at_most(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
