//! From what is in the image to WebAssembly in binary form.

use std::borrow::Cow;

use wasmlet_protocol::GuestKind;

use crate::one_line;

/// Why the bytes are not WebAssembly.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SourceError {
    /// No bytes at all.
    #[error("the file is empty")]
    Empty,
    /// An engine's artifact, or any other ELF file.
    #[error(
        "the file is precompiled native code, which would run outside the sandbox; ship the .wasm \
         it was made from"
    )]
    Precompiled,
    /// Something else.
    #[error("the file is neither WebAssembly nor WebAssembly text")]
    NotWasm,
    /// Text with a mistake, which is named.
    #[error("the WebAssembly text is not valid: {0}")]
    Text(String),
    /// Not even a header.
    #[error("the file is cut off after {0} bytes")]
    Truncated(usize),
    /// A version of the format that is unknown.
    #[error(
        "the file has version {0:#x} of the WebAssembly format, which is neither a module (1) nor a \
         component (0x1000d)"
    )]
    Version(u32),
}

const MAGIC: &[u8] = b"\0asm";

/// How native code of the engines begins: ELF, and the two forms of Wasmer's artifacts.
const PRECOMPILED: [&[u8]; 3] = [b"\x7fELF", b"wasmer-universal", b"WASMER"];

/// The binary form, and whether it is a module or a component.
///
/// # Errors
/// When it is neither, with the reason.
pub fn wasm(bytes: Vec<u8>) -> Result<(Vec<u8>, GuestKind), SourceError> {
    if bytes.is_empty() {
        return Err(SourceError::Empty);
    }
    // Wasmtime's artifacts are ELF files, WasmEdge's are shared objects. None is ever accepted.
    if PRECOMPILED.iter().any(|magic| bytes.starts_with(magic)) {
        return Err(SourceError::Precompiled);
    }
    let bytes = if bytes.starts_with(MAGIC) {
        bytes
    } else if MAGIC.starts_with(&bytes) {
        return Err(SourceError::Truncated(bytes.len()));
    } else if looks_like_text(&bytes) {
        match wat::parse_bytes(&bytes) {
            Ok(Cow::Owned(binary)) => binary,
            Ok(Cow::Borrowed(binary)) => binary.to_vec(),
            Err(error) => return Err(SourceError::Text(one_line(&error.to_string()))),
        }
    } else {
        return Err(SourceError::NotWasm);
    };
    let version: [u8; 4] = bytes
        .get(4..8)
        .and_then(|version| version.try_into().ok())
        .ok_or(SourceError::Truncated(bytes.len()))?;
    let kind = match u32::from_le_bytes(version) {
        1 => GuestKind::Module,
        0x1_000d => GuestKind::Component,
        other => return Err(SourceError::Version(other)),
    };
    Ok((bytes, kind))
}

/// Text begins with a parenthesis or a comment.
fn looks_like_text(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let text = text.trim_start_matches('\u{feff}').trim_start();
    text.starts_with('(') || text.starts_with(";;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_binary() {
        let (bytes, kind) = wasm(b"  ;; a comment\n(module)".to_vec()).expect("valid text");
        assert_eq!(kind, GuestKind::Module);
        assert!(bytes.starts_with(MAGIC));
        let (_, kind) = wasm(b"(component)".to_vec()).expect("valid text");
        assert_eq!(kind, GuestKind::Component);
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        for (bytes, error) in [
            (&b""[..], SourceError::Empty),
            (b"\x7fELF\x02\x01", SourceError::Precompiled),
            (b"#!/bin/sh", SourceError::NotWasm),
            (b"\xff\xfe", SourceError::NotWasm),
            (b"\0as", SourceError::Truncated(3)),
            (b"\0asm\x01\0", SourceError::Truncated(6)),
            (b"\0asm\x02\0\0\0", SourceError::Version(2)),
        ] {
            assert_eq!(wasm(bytes.to_vec()).expect_err("refused"), error);
        }
        let error = wasm(b"(module (func $x".to_vec()).expect_err("refused");
        assert!(
            matches!(&error, SourceError::Text(t) if t.contains("expected")),
            "{error}"
        );
    }
}
