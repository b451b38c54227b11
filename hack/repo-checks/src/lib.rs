//! Checks of the repository itself. The library judges texts; the tests in `tests/` read the files.
//!
//! [`ledger`] compares `docs/advisories.toml` with `Cargo.lock`.

#![forbid(unsafe_code)]

pub mod ledger;
