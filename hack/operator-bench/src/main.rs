//! `wasmlet-operator-bench`: what `hack/bench operator` calls once there is a control plane without nodes.
//!
//! ```text
//!   kube-apiserver, etcd          real; nothing else of a control plane runs, so what is counted is ours
//!     ▲        ▲       ▲
//!     │        │       └── measure   writes WasmRuntimes, waits for their status, reads the API server's counters
//!     │        └────────── simulate  nodes, their kubelets (pods end well, logs are served) and their agents (orders are answered)
//!     └─────────────────── wasmlet-operator, as it is shipped: the process that is measured
//! ```
//!
//! The operator's calls are the API server's count of all calls less those that the simulation made, of the resources that the operator
//! has to do with. They are the API server's word, not the operator's.

#![forbid(unsafe_code)]

mod count;
mod error;
mod logs;
mod measure;
mod operator;
mod simulate;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Measure the operator with simulated nodes. Meant to be called by hack/bench.
#[derive(Debug, Parser)]
#[command(name = "wasmlet-operator-bench", version)]
struct Arguments {
    /// The cluster: a control plane without nodes, scheduler and controllers
    #[arg(long)]
    kubeconfig: PathBuf,
    /// The operator's program
    #[arg(long)]
    operator: PathBuf,
    /// How many nodes
    #[arg(long)]
    nodes: usize,
    /// Address of this machine at which the API server reaches simulated kubelets
    #[arg(long)]
    address: std::net::IpAddr,
    /// Certificate for that address by the authority that the API server trusts
    #[arg(long)]
    certificate: PathBuf,
    /// Its key
    #[arg(long)]
    key: PathBuf,
    /// Where the operator's log goes
    #[arg(long)]
    log: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let run = || -> Result<(), error::Error> {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(error::Error::Runtime)?
            .block_on(measure::run(&arguments))
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = format!("wasmlet-operator-bench: {error}");
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
