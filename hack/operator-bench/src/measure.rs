//! One measurement: an installation, an upgrade, and a restart of the operator.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;
use wasmlet_api::{Digest, WasmRuntime};

use crate::Arguments;
use crate::count::{Calls, Own};
use crate::error::{Error, api};
use crate::logs;
use crate::operator::{Operator, Usage};
use crate::simulate::{self, Kubelets};

/// The WasmRuntime.
const NAME: &str = "wasm";
/// For one rollout on a busy machine; 5,000 nodes take some minutes.
const ROLLOUT: Duration = Duration::from_secs(3600);
/// How long calls of a restarted operator are counted.
const RESTARTED: Duration = Duration::from_secs(20);

/// Measures, and prints the figures.
pub(crate) async fn run(arguments: &Arguments) -> Result<(), Error> {
    let count = arguments.nodes;
    let client = client(&arguments.kubeconfig).await?;
    let port = logs::serve(arguments.address, &arguments.certificate, &arguments.key).await?;
    let kubelets = Kubelets {
        address: arguments.address,
        port,
    };
    simulate::create(&client, count, kubelets).await?;
    let own = Arc::new(Own::default());
    let mut simulation = tokio::task::JoinSet::new();
    simulation.spawn(simulate::kubelets(client.clone(), Arc::clone(&own)));
    simulation.spawn(simulate::agents(client.clone(), Arc::clone(&own)));
    let runtimes: Api<WasmRuntime> = Api::all(client.clone());
    let (mut operator, _) =
        Operator::start(&arguments.operator, &arguments.kubeconfig, &arguments.log).await?;

    let mut bench = Bench {
        client,
        own,
        runtimes,
        simulation,
        count,
    };
    let runtime = serde_json::from_value(runtime()).expect("a WasmRuntime");
    let begun = bench.begin(&operator).await?;
    bench.own.add("POST wasmruntimes");
    bench
        .runtimes
        .create(&PostParams::default(), &runtime)
        .await
        .map_err(api("create", "the WasmRuntime"))?;
    bench.end("install", begun, &mut operator).await?;

    let begun = bench.begin(&operator).await?;
    let next = json!({ "spec": { "artifact": { "digest": Digest::of(b"upgrade") } } });
    bench.own.add("PATCH wasmruntimes");
    bench
        .runtimes
        .patch(NAME, &PatchParams::default(), &Patch::Merge(&next))
        .await
        .map_err(api("patch", "the WasmRuntime"))?;
    bench.end("upgrade", begun, &mut operator).await?;
    print_plans(&operator.metrics()?, count);

    operator.kill().await?;
    bench.own.take();
    let before = Calls::of(&bench.client).await?;
    let (mut operator, ready) =
        Operator::start(&arguments.operator, &arguments.kubeconfig, &arguments.log).await?;
    // A span to count in, not a wait for anything.
    tokio::time::sleep(RESTARTED).await;
    operator.still_runs()?;
    let calls = Calls::of(&bench.client)
        .await?
        .since(&before, &bench.own.take());
    let usage = operator.usage()?;
    println!(
        "seconds_to_ready.operator.n{count}.restart {:.1}",
        ready.as_secs_f64()
    );
    print_calls(&calls, count, "restart");
    print_usage(&usage, None, count, "restart");
    operator.kill().await
}

/// What figures are differences to.
struct Begun {
    calls: Calls,
    usage: Usage,
    at: Instant,
}

struct Bench {
    client: Client,
    own: Arc<Own>,
    runtimes: Api<WasmRuntime>,
    simulation: tokio::task::JoinSet<String>,
    count: usize,
}

impl Bench {
    async fn begin(&self, operator: &Operator) -> Result<Begun, Error> {
        self.own.take();
        Ok(Begun {
            calls: Calls::of(&self.client).await?,
            usage: operator.usage()?,
            at: Instant::now(),
        })
    }

    /// Waits for the end of the rollout and prints its figures.
    async fn end(
        &mut self,
        what: &str,
        begun: Begun,
        operator: &mut Operator,
    ) -> Result<(), Error> {
        self.until_ready(operator).await?;
        let took = begun.at.elapsed();
        let count = self.count;
        let calls = Calls::of(&self.client)
            .await?
            .since(&begun.calls, &self.own.take());
        let usage = operator.usage()?;
        println!("seconds.operator.n{count}.{what} {:.1}", took.as_secs_f64());
        print_calls(&calls, count, what);
        print_usage(&usage, Some(&begun.usage), count, what);
        Ok(())
    }

    async fn until_ready(&mut self, operator: &mut Operator) -> Result<(), Error> {
        let begun = Instant::now();
        loop {
            operator.still_runs()?;
            if let Some(Ok(ended)) = self.simulation.try_join_next() {
                return Err(Error::Simulation(ended));
            }
            self.own.add("GET wasmruntimes");
            let runtime = self
                .runtimes
                .get(NAME)
                .await
                .map_err(api("get", "the WasmRuntime"))?;
            let status = runtime.status.unwrap_or_default();
            let ready = usize::try_from(status.nodes.ready).unwrap_or_default();
            if ready == self.count && status.observed_generation == runtime.metadata.generation {
                return Ok(());
            }
            if begun.elapsed() > ROLLOUT || status.nodes.failed > 0 {
                let last = serde_json::to_string(&status).unwrap_or_default();
                return Err(operator.late("all nodes are ready", begun.elapsed(), &last));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

async fn client(path: &Path) -> Result<Client, Error> {
    let unusable = |source: Box<dyn std::error::Error + Send + Sync>| Error::Kubeconfig {
        path: path.to_owned(),
        source,
    };
    let file = Kubeconfig::read_from(path).map_err(|error| unusable(error.into()))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .map_err(|error| unusable(error.into()))?;
    Client::try_from(config).map_err(|error| unusable(error.into()))
}

/// Paced as a large cluster would be: a tenth of the nodes at a time.
fn runtime() -> serde_json::Value {
    json!({
        "apiVersion": "wasmlet.dev/v1alpha1", "kind": "WasmRuntime", "metadata": { "name": NAME },
        "spec": {
            "handler": "wasm",
            "artifact": { "image": "registry.example/wasmlet/node:bench", "digest": Digest::of(b"install") },
            "rollout": { "maxUnavailable": "10%", "canary": { "nodes": 1 } },
        },
    })
}

fn print_calls(calls: &Calls, count: usize, what: &str) {
    let total = calls.total();
    for (key, number) in calls.sorted() {
        println!("    {number:8}  {key}");
    }
    println!("calls.operator.n{count}.{what} {total}");
    println!(
        "calls_per_node.operator.n{count}.{what} {:.2}",
        total as f64 / count as f64
    );
}

fn print_usage(usage: &Usage, before: Option<&Usage>, count: usize, what: &str) {
    let cpu = usage.cpu_seconds - before.map_or(0.0, |before| before.cpu_seconds);
    println!(
        "pss_mb.operator.n{count}.{what} {:.1}",
        usage.pss_kb as f64 / 1024.0
    );
    println!(
        "peak_rss_mb.operator.n{count}.{what} {:.1}",
        usage.peak_rss_kb as f64 / 1024.0
    );
    println!("cpu_seconds.operator.n{count}.{what} {cpu:.2}");
}

/// The operator's own histogram of how long it thinks, as a mean.
fn print_plans(metrics: &str, count: usize) {
    let value = |suffix: &str| {
        metrics.lines().find_map(|line| {
            let (name, value) = line.split_once(' ')?;
            (name.contains("plan") && name.split('{').next()?.ends_with(suffix))
                .then(|| value.parse::<f64>().ok())?
        })
    };
    match (value("_seconds_sum"), value("_seconds_count")) {
        (Some(sum), Some(plans)) if plans > 0.0 => {
            println!("plans.operator.n{count} {plans}");
            println!("ms_per_plan.operator.n{count} {:.2}", 1000.0 * sum / plans);
        }
        _ => println!("(the operator has no metric of how long a plan takes)"),
    }
}
