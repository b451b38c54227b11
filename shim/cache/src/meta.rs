//! The small text that commits an entry.
//!
//! ```text
//! wasmlet-cache 1 <sha256 of the second line>\n
//! {"key":"…","artifact":"…","length":…,"compiled":{…}}\n
//! ```
//! The digest of the text comes first and is checked first, so the JSON parser only ever sees bytes
//! that this crate wrote.

use serde::{Deserialize, Serialize};
use wasmlet_protocol::Compiled;

use crate::digest::Digest;
use crate::key::Key;

/// First words of the text; the number changes with its form.
const MAGIC: &str = "wasmlet-cache 1 ";

/// Longest text. A module has at most 256 names of exports in it.
pub(crate) const MAX_META_BYTES: u64 = 1 << 20;

/// What is known of a compiled module without opening it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// What it was compiled from and for.
    pub key: Key,
    /// Digest of the artifact.
    pub artifact: Digest,
    /// Length of the artifact in bytes.
    pub length: u64,
    /// What the compile helper found out about the module.
    pub compiled: Compiled,
}

/// Why a text is no [`Meta`].
#[derive(Debug, thiserror::Error)]
pub enum MetaSyntax {
    /// It does not begin as expected: empty, cut off, or of another version of this program.
    #[error("it does not begin with {MAGIC:?} and a digest")]
    Magic,
    /// Its bytes changed.
    #[error("its checksum does not match")]
    Checksum,
    /// It is not what this version expects in it.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// It is the entry of another key.
    #[error("it is the entry of the key {0}")]
    OtherKey(Key),
    /// It is longer than any entry.
    #[error("it is longer than {MAX_META_BYTES} bytes")]
    TooLong,
}

impl Meta {
    /// The text of an entry.
    ///
    /// # Errors
    /// [`MetaSyntax::TooLong`] when the module's names are too long for an entry.
    pub fn encode(&self) -> Result<Vec<u8>, MetaSyntax> {
        let mut body = serde_json::to_vec(self)?;
        body.push(b'\n');
        let mut text = format!("{MAGIC}{}\n", Digest::of(&body)).into_bytes();
        text.extend_from_slice(&body);
        if text.len() as u64 > MAX_META_BYTES {
            return Err(MetaSyntax::TooLong);
        }
        Ok(text)
    }

    /// Reads the text of an entry; any bytes may be given.
    ///
    /// # Errors
    /// When the bytes are not exactly what [`Meta::encode`] made.
    pub fn decode(text: &[u8]) -> Result<Meta, MetaSyntax> {
        if text.len() as u64 > MAX_META_BYTES {
            return Err(MetaSyntax::TooLong);
        }
        let rest = text
            .strip_prefix(MAGIC.as_bytes())
            .ok_or(MetaSyntax::Magic)?;
        let (digest, rest) = rest.split_at_checked(64).ok_or(MetaSyntax::Magic)?;
        let body = rest.strip_prefix(b"\n").ok_or(MetaSyntax::Magic)?;
        let digest: Digest = str::from_utf8(digest)
            .ok()
            .and_then(|digest| digest.parse().ok())
            .ok_or(MetaSyntax::Magic)?;
        if Digest::of(body) != digest {
            return Err(MetaSyntax::Checksum);
        }
        Ok(serde_json::from_slice(body)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wasmlet_protocol::GuestKind;

    use super::*;

    fn meta(exports: Vec<String>, length: u64) -> Meta {
        Meta {
            key: Key::new(&Digest::of(b"module"), "wasmtime", "c", "b", "default"),
            artifact: Digest::of(b"artifact"),
            length,
            compiled: Compiled {
                kind: GuestKind::Component,
                exports,
                wants_listener: true,
                needs: wasmlet_protocol::Needs::default(),
                min_memory: 65536,
                peak_memory: 1 << 30,
                millis: 12,
            },
        }
    }

    #[test]
    fn an_entry_longer_than_the_bound_is_refused_when_it_is_written() {
        let meta = meta(vec!["x".repeat(1 << 20)], 1);
        assert!(matches!(meta.encode(), Err(MetaSyntax::TooLong)));
    }

    #[test]
    fn a_text_of_another_version_is_named_as_such() {
        let text = meta(Vec::new(), 1).encode().expect("a short entry");
        let text = String::from_utf8(text)
            .expect("it is text")
            .replace("cache 1", "cache 2");
        assert!(matches!(
            Meta::decode(text.as_bytes()),
            Err(MetaSyntax::Magic)
        ));
    }

    proptest! {
        #[test]
        fn an_entry_survives_its_text(
            exports in proptest::collection::vec(".{0,40}", 0..20),
            length: u64,
        ) {
            let meta = meta(exports, length);
            let text = meta.encode().expect("a short entry");
            prop_assert_eq!(Meta::decode(&text).expect("its own text"), meta);
        }

        #[test]
        fn any_changed_byte_is_noticed(position: prop::sample::Index, flip in 1..=255_u8) {
            let mut text = meta(vec!["run".to_owned()], 7).encode().expect("a short entry");
            let position = position.index(text.len());
            text[position] ^= flip;
            prop_assert!(Meta::decode(&text).is_err());
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes: Vec<u8>) {
            prop_assert!(Meta::decode(&bytes).is_err());
        }

        #[test]
        fn any_json_with_a_right_checksum_is_parsed_without_a_panic(body in ".{0,200}") {
            let text = format!("{MAGIC}{}\n{body}", Digest::of(body.as_bytes()));
            prop_assert!(Meta::decode(text.as_bytes()).is_err());
        }
    }
}
