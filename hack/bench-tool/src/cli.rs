//! The command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser};

use crate::client::{Engine, Guest, Node, Runtime};
use crate::cold::{self, Cli};
use crate::crowd;
use crate::error::Error;
use crate::first::Counters;
use crate::http::{self, Load};
use crate::{memory, size, start, storm, tasks, tenants};

/// Measure our shim against runc's on a running containerd. Meant to be called by hack/bench.
#[derive(Debug, Parser)]
#[command(name = "wasmlet-bench", version)]
pub(crate) enum Command {
    /// Time from creating a container to having deleted it
    Start {
        #[command(flatten)]
        containerd: Containerd,
        #[command(flatten)]
        runtimes: Runtimes,
        /// Folder with the guests
        #[arg(long)]
        guests: PathBuf,
        /// Rounds that count, after one that does not
        #[arg(long, default_value_t = 30)]
        rounds: usize,
        #[command(flatten)]
        pause: Pause,
    },
    /// Warm starts of generated modules by their size
    Size {
        #[command(flatten)]
        containerd: Containerd,
        #[command(flatten)]
        engines: Engines,
        /// Sizes beside that of an empty module, in thousands of bytes
        #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
        sizes: Vec<usize>,
        /// Rounds that count, after one that does not
        #[arg(long, default_value_t = 30)]
        rounds: usize,
        #[command(flatten)]
        pause: Pause,
    },
    /// Starts beside containers that idle, and beside none
    Crowd {
        #[command(flatten)]
        containerd: Containerd,
        #[command(flatten)]
        runtimes: Runtimes,
        /// Folder with the guests
        #[arg(long)]
        guests: PathBuf,
        /// Containers that idle
        #[arg(long, default_value_t = 100)]
        crowd: usize,
        /// Times that they are started and stopped again
        #[arg(long, default_value_t = 3)]
        slices: usize,
        /// Starts in each slice beside them, and as many beside none
        #[arg(long, default_value_t = 10)]
        rounds: usize,
        #[command(flatten)]
        pause: Pause,
    },
    /// Memory of N idle containers, each with a shim of its own
    Memory {
        #[command(flatten)]
        containerd: Containerd,
        #[command(flatten)]
        runtimes: Runtimes,
        /// Folder with the guests
        #[arg(long)]
        guests: PathBuf,
        /// How many containers at once
        #[arg(long, value_delimiter = ',', default_value = "1,10,40")]
        counts: Vec<usize>,
        /// Rounds of them
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Then so many of the first runtime, once
        #[arg(long, default_value_t = 100)]
        crowd: usize,
        /// How long to see how much those work, in seconds
        #[arg(long, default_value_t = 60.0)]
        idle: f64,
    },
    /// Containers that are created, started, waited for and deleted in a second
    Tasks {
        #[command(flatten)]
        containerd: Containerd,
        #[command(flatten)]
        runtimes: Runtimes,
        /// Folder with the guests
        #[arg(long)]
        guests: PathBuf,
        /// Tasks of each runtime
        #[arg(long, default_value_t = 1000)]
        tasks: usize,
        /// At a time
        #[arg(long, default_value_t = 8)]
        at_once: usize,
        /// Slices of the tasks, taken in turn with those of the others
        #[arg(long, default_value_t = 10)]
        slices: usize,
    },
    /// First starts of a generated module, against the engine's own command-line program
    Cold {
        #[command(flatten)]
        containerd: Containerd,
        #[command(flatten)]
        engines: Engines,
        #[command(flatten)]
        first: First,
        /// An engine's own program, ENGINE=PATH (without it, nothing is compared)
        #[arg(long)]
        cli: Vec<Cli>,
        /// Rounds
        #[arg(long, default_value_t = 10)]
        rounds: usize,
    },
    /// Many first starts of a generated module at once, against one
    Storm {
        #[command(flatten)]
        containerd: Containerd,
        #[command(flatten)]
        engines: Engines,
        #[command(flatten)]
        first: First,
        /// Starts at once
        #[arg(long, default_value_t = 50)]
        starts: usize,
        /// Rounds
        #[arg(long, default_value_t = 10)]
        rounds: usize,
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
        /// Engine of our containers
        #[arg(long, value_enum, default_value_t = Engine::Auto)]
        engine: Engine,
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
    /// Folder for the raw data and the plot
    #[arg(long)]
    out: PathBuf,
}

impl Containerd {
    async fn node(&self) -> Result<Node, Error> {
        Node::connect(&self.address, &self.ctr, &self.snapshotter).await
    }
}

#[derive(Debug, Args)]
pub(crate) struct Engines {
    /// Engines of our containers
    #[arg(
        id = "engine",
        long = "engine",
        value_enum,
        value_delimiter = ',',
        default_value = "auto"
    )]
    list: Vec<Engine>,
}

impl Engines {
    fn runtimes(&self) -> Vec<Runtime> {
        self.list.iter().copied().map(Runtime::Ours).collect()
    }

    /// One program under each engine.
    fn guests(&self, node: &mut Node, module: &Path) -> Result<Vec<Guest>, Error> {
        let runtimes = self.runtimes();
        let guests = runtimes.iter().map(|&runtime| node.guest(runtime, module));
        guests.collect()
    }
}

#[derive(Debug, Args)]
pub(crate) struct Runtimes {
    #[command(flatten)]
    engines: Engines,
    /// Measure only runc (when there is no shim of ours yet)
    #[arg(long)]
    runc_only: bool,
}

impl Runtimes {
    /// A guest of the folder under each runtime: NAME for Linux, NAME.wasm for ours.
    fn guests(&self, node: &mut Node, folder: &Path, name: &str) -> Result<Vec<Guest>, Error> {
        let mut guests = Vec::new();
        if !self.runc_only {
            let module = folder.join(name).with_extension("wasm");
            guests = self.engines.guests(node, &module)?;
        }
        guests.push(node.guest(Runtime::Runc, &folder.join(name))?);
        Ok(guests)
    }
}

#[derive(Debug, Args)]
pub(crate) struct First {
    /// Size of the module, in thousands of bytes
    #[arg(long, default_value_t = 3000)]
    size: usize,
    /// Where the shims count what they compile
    #[arg(long, default_value = "/run/wasmlet/cache-counters")]
    counters: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Pause {
    /// Pause between two containers, in milliseconds. The kernel makes the first change of a
    /// cgroup wait and spares those that follow at once; the pause gives everybody a first
    #[arg(id = "pause", long = "pause", default_value_t = 300)]
    milliseconds: u64,
}

impl Pause {
    fn duration(&self) -> Duration {
        Duration::from_millis(self.milliseconds)
    }
}

impl Command {
    pub(crate) fn run(self) -> Result<(), Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::Runtime)?;
        runtime.block_on(self.measure())
    }

    async fn measure(self) -> Result<(), Error> {
        match self {
            Self::Start {
                containerd,
                runtimes,
                guests,
                rounds,
                pause,
            } => {
                let mut node = containerd.node().await?;
                let guests = runtimes.guests(&mut node, &guests, "hello")?;
                start::run(&node, &guests, rounds, pause.duration(), &containerd.out).await
            }
            Self::Size {
                containerd,
                engines,
                sizes,
                rounds,
                pause,
            } => {
                let mut node = containerd.node().await?;
                let (runtimes, pause) = (engines.runtimes(), pause.duration());
                size::run(&mut node, &runtimes, &sizes, rounds, pause, &containerd.out).await
            }
            Self::Crowd {
                containerd,
                runtimes,
                guests,
                crowd,
                slices,
                rounds,
                pause,
            } => {
                let mut node = containerd.node().await?;
                let hello = runtimes.guests(&mut node, &guests, "hello")?;
                let idle = runtimes.guests(&mut node, &guests, "idle")?;
                let guests: Vec<(Guest, Guest)> = hello.into_iter().zip(idle).collect();
                let plan = crowd::Plan {
                    slices,
                    rounds,
                    crowd,
                    pause: pause.duration(),
                };
                crowd::run(&node, &guests, plan, &containerd.out).await
            }
            Self::Memory {
                containerd,
                runtimes,
                guests,
                counts,
                rounds,
                crowd,
                idle,
            } => {
                let mut node = containerd.node().await?;
                let guests = runtimes.guests(&mut node, &guests, "idle")?;
                let plan = memory::Plan {
                    rounds,
                    counts,
                    crowd,
                    idle: Duration::from_secs_f64(idle),
                };
                memory::run(&node, &guests, &plan, &containerd.out).await
            }
            Self::Tasks {
                containerd,
                runtimes,
                guests,
                tasks,
                at_once,
                slices,
            } => {
                let mut node = containerd.node().await?;
                let guests = runtimes.guests(&mut node, &guests, "hello")?;
                let plan = tasks::Plan {
                    tasks,
                    at_once,
                    slices,
                };
                tasks::run(&node, &guests, plan, &containerd.out).await
            }
            Self::Cold {
                containerd,
                engines,
                first,
                cli,
                rounds,
            } => {
                let mut node = containerd.node().await?;
                let module = size::write_module(&node, first.size)?;
                let guests = engines.guests(&mut node, &module)?;
                let counters = Counters::at(first.counters);
                let plan = cold::Plan { rounds, cli };
                cold::run(&node, &guests, &module, &counters, &plan, &containerd.out).await
            }
            Self::Storm {
                containerd,
                engines,
                first,
                starts,
                rounds,
            } => {
                let mut node = containerd.node().await?;
                let module = size::write_module(&node, first.size)?;
                let guests = engines.guests(&mut node, &module)?;
                let counters = Counters::at(first.counters);
                storm::run(&node, &guests, &counters, starts, rounds, &containerd.out).await
            }
            Self::Http {
                containerd,
                wasm,
                wasmtime,
                rounds,
                seconds,
                connections,
                slow_clients,
            } => {
                let mut node = containerd.node().await?;
                let guest = node.guest(Runtime::Ours(Engine::Auto), &wasm)?;
                let load = Load {
                    rounds,
                    seconds,
                    connections,
                    slow_clients,
                };
                let out = &containerd.out;
                http::run(&node, &guest, wasmtime.as_deref(), &wasm, load, out).await
            }
            Self::Tenants {
                containerd,
                wasm,
                engine,
                rounds,
                seconds,
            } => {
                let mut node = containerd.node().await?;
                let guest = node.guest(Runtime::Ours(engine), &wasm)?;
                tenants::run(&node, &guest, rounds, seconds, &containerd.out).await
            }
        }
    }
}
