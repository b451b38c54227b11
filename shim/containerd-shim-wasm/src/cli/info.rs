//! `-v` and `-info`: what this program is.

use std::io::{self, Write};

use containerd_shim_protos::protobuf::{self, Message};
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};

use crate::bootstrap::{self, BootstrapError};
use crate::options::{self, OptionsError};

/// Runtime type in containerd's configuration.
const RUNTIME: &str = "io.containerd.wasm.v1";

/// Why it cannot tell.
#[derive(Debug, thiserror::Error)]
pub enum InfoError {
    /// Standard input.
    #[error(transparent)]
    Input(#[from] BootstrapError),
    /// Runtime options that no container could be created with.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The answer cannot be encoded.
    #[error("cannot encode the answer")]
    Encode(#[from] protobuf::Error),
    /// The answer cannot be written.
    #[error("cannot write the answer")]
    Write(#[source] io::Error),
}

pub(super) fn print_version() {
    println!("containerd-shim-wasm-v1:");
    println!("  Version:  {}", env!("CARGO_PKG_VERSION"));
    match crate::engine::folder().and_then(|folder| crate::engine::installed(&folder)) {
        Ok(engines) if engines.is_empty() => println!("  Engines:  none installed"),
        Ok(engines) => println!("  Engines:  {}", engines.join(", ")),
        Err(error) => println!("  Engines:  {}", crate::chain(&error)),
    }
}

/// containerd 2 asks at its start, so a mistake in the options shows before the first pod.
pub(super) fn run() -> Result<(), InfoError> {
    options::decode(bootstrap::info_options(&bootstrap::read_stdin()?)?.as_ref())?;
    let version = RuntimeVersion {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Default::default()
    };
    let info = RuntimeInfo {
        name: RUNTIME.to_owned(),
        version: Some(version).into(),
        ..Default::default()
    };
    io::stdout()
        .write_all(&info.write_to_bytes()?)
        .map_err(InfoError::Write)
}
