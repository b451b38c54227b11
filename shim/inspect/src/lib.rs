//! What a module or component needs, read from its bytes alone.
//!
//! ```text
//! file of the image ── source ──▶ WebAssembly in binary form ── facts ──▶ kind, exports, needs
//! ```
//!
//! The bytes are a stranger's. Nothing here is unsafe, runs anything of them or keeps more than bounded
//! lists; how long it takes grows with their size, so it is done in a helper with bounds, never in the
//! shim itself.
#![forbid(unsafe_code)]

mod facts;
mod source;

pub use facts::{Facts, InvalidModule, facts};
pub use source::{SourceError, wasm};

pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
