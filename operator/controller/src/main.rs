//! The operator's program; everything is in the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser as _;
use wasmlet_controller::cli::{Arguments, main as run};

fn main() -> ExitCode {
    run(Arguments::parse())
}
