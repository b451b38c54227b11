//! `wasmlet-node bundle`

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use crate::store::{make, manifest};

/// Make a bundle from what hack/build built, and print its digest.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Folder with `bin` and `lib`.
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// Folder to make.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Version that the bundle says it has.
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    version: String,
    /// What the programs are for, as OCI names it.
    #[arg(long, default_value_t = manifest::host_platform())]
    platform: String,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        let manifest = make::make(&self.from, &self.to, &self.version, &self.platform)?;
        println!("{}", manifest.digest());
        Ok(())
    }
}
