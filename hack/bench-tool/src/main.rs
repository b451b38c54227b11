//! `wasmlet-bench`: what `hack/bench` calls once a containerd and the programs are there.
//!
//! Both runtimes are driven by the same code through containerd's client API, with the same spec, the
//! same snapshotter and the same pipes, so that what differs between two figures is the runtime.

#![forbid(unsafe_code)]

mod cgroup;
mod cli;
mod client;
mod cold;
mod crowd;
mod error;
mod figures;
mod first;
mod http;
mod life;
mod memory;
mod module;
mod plot;
mod proc;
mod size;
mod spec;
mod start;
mod stats;
mod storm;
mod tasks;
mod tenants;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::Command::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = format!("wasmlet-bench: {error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(inner) = cause {
                text.push_str(&format!(": {inner}"));
                cause = inner.source();
            }
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
