//! `wasmlet-node`: installs wasmlet on one node, checks it, and takes it back. What each command does is in the library.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser as _;
use wasmlet_node_agent::cli;

fn main() -> ExitCode {
    cli::Arguments::parse().run()
}
