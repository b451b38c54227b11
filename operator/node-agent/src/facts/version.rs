//! containerd's version, in the many ways that distributions write it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A version, ordered by its numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number, 0 where there is none.
    pub patch: u32,
    /// All of it, as it was written.
    pub text: String,
}

/// A text in which no version was found.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0:?} is no version of containerd: it must begin with two numbers, as 1.7.24 or v2.1.9+unknown do"
)]
pub struct VersionError(pub String);

impl Version {
    /// From what containerd says of itself: `1.6.20~ds1`, `v2.3.2-k3s2`, `2.1.9+unknown`.
    pub fn parse(text: &str) -> Result<Self, VersionError> {
        let error = || VersionError(text.to_owned());
        let mut rest = text.trim().trim_start_matches('v');
        let mut numbers = [0_u32; 3];
        for (index, number) in numbers.iter_mut().enumerate() {
            let end = rest
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(rest.len());
            *number = rest[..end].parse().map_err(|_| error())?;
            match rest[end..].strip_prefix('.') {
                Some(next) if next.starts_with(|c: char| c.is_ascii_digit()) => rest = next,
                _ if index == 0 => return Err(error()),
                _ => break,
            }
        }
        let [major, minor, patch] = numbers;
        Ok(Self {
            major,
            minor,
            patch,
            text: text.trim().to_owned(),
        })
    }

    /// Whether it is this one or newer.
    pub fn at_least(&self, major: u32, minor: u32) -> bool {
        (self.major, self.minor) >= (major, minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn numbers(text: &str) -> (u32, u32, u32) {
        let version = Version::parse(text).unwrap();
        (version.major, version.minor, version.patch)
    }

    #[test]
    fn what_distributions_add_is_left_out() {
        assert_eq!(numbers("1.6.20~ds1"), (1, 6, 20));
        assert_eq!(numbers("v2.3.2-k3s2"), (2, 3, 2));
        assert_eq!(numbers("2.1.9+unknown"), (2, 1, 9));
        assert_eq!(numbers("v2.0.0-rc.3"), (2, 0, 0));
        assert_eq!(numbers("2.4"), (2, 4, 0));
        assert_eq!(numbers(" 1.7.28\n"), (1, 7, 28));
    }

    #[test]
    fn what_has_no_two_numbers_is_none() {
        for bad in ["", "v", "2", "two.one", "2.", "99999999999.1"] {
            assert_eq!(Version::parse(bad), Err(VersionError(bad.to_owned())));
        }
    }

    #[test]
    fn versions_are_compared_by_number() {
        let version = Version::parse("2.10.0").unwrap();
        assert!(version.at_least(2, 9));
        assert!(!version.at_least(3, 0));
        assert!(!Version::parse("1.7.99").unwrap().at_least(2, 0));
    }
}
