//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser};

use crate::client::{Node, Runtime};
use crate::error::Error;
use crate::http::{self, Load};
use crate::{memory, start, tenants};

/// Measure our shim against runc's on a running containerd. Meant to be called by hack/bench.
#[derive(Debug, Parser)]
#[command(name = "wasmlet-bench", version)]
pub(crate) enum Command {
    /// Time from creating a container to having deleted it
    Start {
        #[command(flatten)]
        common: Common,
        /// Rounds that count, after one that does not
        #[arg(long, default_value_t = 30)]
        rounds: usize,
        /// Pause between two containers, in milliseconds. The kernel makes the first change of a
        /// cgroup wait and spares those that follow at once; the pause gives everybody a first
        #[arg(long, default_value_t = 300)]
        pause: u64,
    },
    /// Memory of N idle containers, each with a shim of its own
    Memory {
        #[command(flatten)]
        common: Common,
        /// How many containers at once
        #[arg(long, value_delimiter = ',', default_value = "1,10,40")]
        counts: Vec<usize>,
    },
    /// Requests a second and their latency, of a component that our runner serves and of `wasmtime serve`
    Http {
        #[command(flatten)]
        containerd: Containerd,
        /// The component: examples/http-component
        #[arg(long)]
        wasm: PathBuf,
        /// Program to compare with (without it, nothing is compared)
        #[arg(long)]
        wasmtime: Option<PathBuf>,
        /// Folder for the raw data
        #[arg(long)]
        out: PathBuf,
        /// Rounds for each server, with and without slow clients
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Length of a round in seconds
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
        /// Clients at a time
        #[arg(long, default_value_t = 32)]
        connections: usize,
        /// Clients beside them that never finish a request
        #[arg(long, default_value_t = 400)]
        slow_clients: usize,
    },
    /// Latency of a tenant alone, and beside one that attacks the node
    Tenants {
        #[command(flatten)]
        containerd: Containerd,
        /// The tenant: examples/multi-tenant
        #[arg(long)]
        wasm: PathBuf,
        /// Folder for the raw data
        #[arg(long)]
        out: PathBuf,
        /// Engine of our containers (default: whichever `auto` takes)
        #[arg(long)]
        engine: Option<String>,
        /// Rounds alone and beside each attack
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Length of a round in seconds
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Containerd {
    /// containerd's socket
    #[arg(long)]
    address: PathBuf,
    /// ctr of that containerd, used to import images
    #[arg(long)]
    ctr: PathBuf,
    /// Snapshotter for the containers
    #[arg(long, default_value = "overlayfs")]
    snapshotter: String,
}

impl Containerd {
    async fn node(&self, engine: Option<&str>) -> Result<Node, Error> {
        Node::connect(&self.address, &self.ctr, &self.snapshotter, engine).await
    }
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    #[command(flatten)]
    containerd: Containerd,
    /// The guest, compiled for Linux
    #[arg(long)]
    linux: PathBuf,
    /// The same guest, compiled to WebAssembly
    #[arg(long)]
    wasm: PathBuf,
    /// Engine of our containers (default: whichever `auto` takes)
    #[arg(long)]
    engine: Option<String>,
    /// Measure only runc (when there is no shim of ours yet)
    #[arg(long)]
    runc_only: bool,
    /// Folder for the raw data and the plot
    #[arg(long)]
    out: PathBuf,
}

impl Command {
    pub(crate) fn run(self) -> Result<(), Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::Runtime)?;
        runtime.block_on(async {
            match self {
                Self::Start {
                    common,
                    rounds,
                    pause,
                } => {
                    let node = common.node().await?;
                    start::run(&node, &common.runtimes(), rounds, pause, &common.out).await
                }
                Self::Http {
                    containerd,
                    wasm,
                    wasmtime,
                    out,
                    rounds,
                    seconds,
                    connections,
                    slow_clients,
                } => {
                    let mut node = containerd.node(None).await?;
                    node.add_image(Runtime::Ours, &wasm)?;
                    let load = Load {
                        rounds,
                        seconds,
                        connections,
                        slow_clients,
                    };
                    http::run(&node, wasmtime.as_deref(), &wasm, load, &out).await
                }
                Self::Tenants {
                    containerd,
                    wasm,
                    out,
                    engine,
                    rounds,
                    seconds,
                } => {
                    let mut node = containerd.node(engine.as_deref()).await?;
                    node.add_image(Runtime::Ours, &wasm)?;
                    tenants::run(&node, rounds, seconds, &out).await
                }
                Self::Memory { common, counts } => {
                    let node = common.node().await?;
                    memory::run(&node, &common.runtimes(), &counts, &common.out).await
                }
            }
        })
    }
}

impl Common {
    async fn node(&self) -> Result<Node, Error> {
        let mut node = self.containerd.node(self.engine.as_deref()).await?;
        for runtime in self.runtimes() {
            let program = match runtime {
                Runtime::Ours => &self.wasm,
                Runtime::Runc => &self.linux,
            };
            node.add_image(runtime, program)?;
        }
        Ok(node)
    }

    fn runtimes(&self) -> Vec<Runtime> {
        if self.runc_only {
            vec![Runtime::Runc]
        } else {
            vec![Runtime::Ours, Runtime::Runc]
        }
    }
}
