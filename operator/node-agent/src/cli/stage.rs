//! `wasmlet-node stage`

use std::path::PathBuf;

use clap::Args;
use wasmlet_api::Digest;
use wasmlet_api::names::NODE_STORE;

use super::Failure;
use crate::store::stage::{self, Staged};

/// Put the bundle of this image into the node's store.
///
/// Exit codes: 0 it is there, checked; 10 it is another bundle than the expected one; 11 it is damaged, or there is none; 12 the disk is
/// full; 13 the store may not be written; 14 it is for another architecture; 2 wrong arguments; 1 anything else.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The bundle's folder.
    #[arg(long, value_name = "DIR", default_value = "/bundle")]
    from: PathBuf,
    /// The node's store.
    #[arg(long, value_name = "DIR", default_value = NODE_STORE)]
    store: PathBuf,
    /// The digest that the bundle must have.
    #[arg(long, value_name = "DIGEST")]
    expect: Digest,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        match stage::stage(&self.from, &self.store, &self.expect) {
            Ok(staged) => {
                let what = match staged {
                    Staged::Copied => "copied to",
                    Staged::Present => "already in",
                    Staged::Repaired => "damaged before, replaced in",
                };
                println!("{} {what} {}", self.expect, self.store.display());
                Ok(())
            }
            Err(error) => Err(Failure {
                code: error.exit().code(),
                error: Box::new(error),
            }),
        }
    }
}
