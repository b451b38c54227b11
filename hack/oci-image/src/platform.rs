//! Which operating system and processor an image is for.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::Error;

/// An OCI platform: `os/architecture[/variant]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Platform {
    /// Processor, in Go's words: `amd64`, `arm64`, `wasm`.
    pub architecture: String,
    /// Operating system: `linux`, `wasi`, `wasip1`.
    pub os: String,
    /// For example `v8`; most platforms have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform `os/architecture`.
    pub fn new(os: &str, architecture: &str) -> Self {
        Self {
            architecture: architecture.into(),
            os: os.into(),
            variant: None,
        }
    }

    /// Linux on the processor this program runs on: what a containerd here picks by default.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            // Go and Rust agree on the others we could meet (riscv64, s390x, …).
            other => other,
        };
        Self::new("linux", architecture)
    }

    /// What Wasm OCI artifacts declare: `wasip1/wasm`.
    pub fn wasm() -> Self {
        Self::new("wasip1", "wasm")
    }
}

impl Default for Platform {
    fn default() -> Self {
        Self::host()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if let Some(variant) = &self.variant {
            write!(f, "/{variant}")?;
        }
        Ok(())
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::Platform { text: text.into() };
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(bad());
        }
        match parts[..] {
            [os, architecture] => Ok(Self::new(os, architecture)),
            [os, architecture, variant] => Ok(Self {
                variant: Some(variant.into()),
                ..Self::new(os, architecture)
            }),
            _ => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read_and_written_alike() {
        for text in ["linux/amd64", "linux/arm/v7", "wasip1/wasm"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_form_expected() {
        for text in ["", "linux", "linux/", "/amd64", "a/b/c/d"] {
            let error = text.parse::<Platform>().unwrap_err().to_string();
            assert!(error.contains("os/architecture"), "{text:?}: {error}");
        }
    }
}
