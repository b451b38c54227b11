//! The name of the registry that images are pushed to and pulled from.

use std::fmt;
use std::str::FromStr;

/// Why a registry's name is none.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not HOST:PORT or HOST:PORT/prefix, without a scheme")]
pub struct RegistryError {
    text: String,
}

/// A registry over plain HTTP, by a name that means the same here and on the nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    address: String,
    prefix: String,
}

impl Registry {
    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The repository's path below `/v2/`.
    pub fn repository(&self, name: &str) -> String {
        if self.prefix.is_empty() {
            return name.to_owned();
        }
        format!("{}/{name}", self.prefix)
    }

    /// What a pod's `image` says, without tag and digest.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{}", self.address, self.repository(name))
    }
}

impl FromStr for Registry {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self, RegistryError> {
        let (address, prefix) = text
            .trim_end_matches('/')
            .split_once('/')
            .unwrap_or((text, ""));
        let address = address.trim_end_matches('/');
        let is_address = address
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !is_address {
            return Err(RegistryError {
                text: text.to_owned(),
            });
        }
        Ok(Self {
            address: address.to_owned(),
            prefix: prefix.to_owned(),
        })
    }
}

impl fmt::Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_put_together() {
        let plain: Registry = "10.1.2.3:5000".parse().expect("a registry");
        assert_eq!(plain.image("busybox"), "10.1.2.3:5000/busybox");
        let below: Registry = "localhost:5001/a/b/".parse().expect("a registry");
        assert_eq!(below.image("busybox"), "localhost:5001/a/b/busybox");
        assert_eq!(below.repository("busybox"), "a/b/busybox");
        assert_eq!(below.to_string(), "localhost:5001/a/b");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "http://a:5000", "localhost", ":5000", "a:port/x"] {
            let error = text.parse::<Registry>().expect_err(text).to_string();
            assert!(error.contains("HOST:PORT"), "{error}");
        }
    }
}
