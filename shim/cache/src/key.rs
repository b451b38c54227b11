//! What an artifact depends on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, DigestSyntax, Hasher};

/// Names a compiled module: a digest over everything that decides its bytes and whether it loads.
///
/// Whatever computes an artifact must see nothing that is missing here. Settings that a tenant may
/// choose (profile) are part of it; the node's own (engine, its settings, CPU features) are inside
/// the runner's compatibility hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(Digest);

impl Key {
    /// The key of a module compiled by one build of one engine for one profile.
    ///
    /// `compatibility` is [`wasmlet_protocol::ProfileKey::compatibility`], `build_id` is
    /// [`wasmlet_protocol::Description::build_id`]. Each input is preceded by its length, so no two
    /// lists of inputs are the same bytes.
    pub fn new(
        module: &Digest,
        engine: &str,
        compatibility: &str,
        build_id: &str,
        profile: &str,
    ) -> Key {
        let mut hasher = Hasher::new();
        let inputs: [&[u8]; 6] = [
            b"wasmlet cache key 1",
            module.as_bytes(),
            engine.as_bytes(),
            compatibility.as_bytes(),
            build_id.as_bytes(),
            profile.as_bytes(),
        ];
        for input in inputs {
            hasher.update(&(input.len() as u64).to_le_bytes());
            hasher.update(input);
        }
        Key(hasher.finish())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0)
    }
}

impl FromStr for Key {
    type Err = DigestSyntax;

    fn from_str(text: &str) -> Result<Key, DigestSyntax> {
        text.parse().map(Key)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_input_changes_the_key() {
        let module = Digest::of(b"module");
        let keys = HashSet::from([
            Key::new(&module, "wasmtime", "c", "b", "default"),
            Key::new(&Digest::of(b"other"), "wasmtime", "c", "b", "default"),
            Key::new(&module, "wasmedge", "c", "b", "default"),
            Key::new(&module, "wasmtime", "d", "b", "default"),
            Key::new(&module, "wasmtime", "c", "e", "default"),
            Key::new(&module, "wasmtime", "c", "b", "hardened"),
            // The same characters, cut elsewhere.
            Key::new(&module, "wasmtimec", "", "b", "default"),
            Key::new(&module, "wasmtime", "cb", "", "default"),
            Key::new(&module, "wasmtime", "c", "bdefault", ""),
        ]);
        assert_eq!(keys.len(), 9);
    }

    #[test]
    fn a_key_is_the_same_tomorrow() {
        // A change here makes every node compile everything again: change the version text above
        // with it, and say so in the changelog.
        let key = Key::new(&Digest::of(b"module"), "wasmtime", "c", "b", "default");
        assert_eq!(key, key.to_string().parse().expect("its own text"));
        assert_eq!(
            key.to_string(),
            "9465a5752e1fbe4670e539ce452a55e6343b2f63a253a14727ae92e1959ab20b"
        );
    }
}
