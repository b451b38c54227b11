//! Arguments, logs, and how the process ends.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use k8s_openapi::jiff::SignedDuration;
use kube::{Client, Config};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tracing_subscriber::EnvFilter;

use crate::cleanup::{CleanupError, cleanup};
use crate::plan::Settings;
use crate::run::{Election, Options, RunError, run};
use crate::watch::chain;

/// Where the kubelet looks for a container's last words.
const TERMINATION_LOG: &str = "/dev/termination-log";
/// What the kubelet takes of it.
const TERMINATION_BYTES: usize = 4096;

/// Puts wasmlet on the nodes of a cluster, and keeps it there.
#[derive(Debug, Parser)]
#[command(name = "wasmlet-operator", version)]
pub struct Arguments {
    /// What is logged, for example `info` or `wasmlet_controller=debug,kube=info`. The default leaves out what the client logs of
    /// failed connections: the watches and calls that fail by them say so.
    #[arg(
        long,
        env = "WASMLET_LOG",
        default_value = "info,kube_client::client::builder=off",
        global = true
    )]
    log: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the operator.
    Run(RunArguments),
    /// Delete all WasmRuntimes and wait until every node is clean. The operator and the agents must run meanwhile.
    Cleanup(CleanupArguments),
}

#[derive(Debug, clap::Args)]
struct RunArguments {
    /// Namespace of the operator; stage and probe pods and the lease are in it.
    #[arg(long, env = "POD_NAMESPACE", default_value = "wasmlet")]
    namespace: String,
    /// Name of this replica, in the lease and in events.
    #[arg(long, env = "POD_NAME", default_value = "wasmlet-operator")]
    identity: String,
    /// Address for /livez, /readyz and /metrics.
    #[arg(long, env = "WASMLET_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Act without a lease: only where no second replica can be.
    #[arg(long, env = "WASMLET_NO_LEADER_ELECT")]
    no_leader_elect: bool,
    /// Calls of the API server at a time, from 1 to 256.
    #[arg(long, env = "WASMLET_MAX_CONCURRENT", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    max_concurrent: u16,
    /// First pause before a node is tried again whose change was put back; it doubles up to an hour. For example 5m, 30s.
    #[arg(long, env = "WASMLET_RETRY_BASE", default_value = "5m", value_parser = duration)]
    retry_base: Duration,
    /// ConfigMap in the operator's namespace with a WasmRuntime in each key *.yaml, which are applied once.
    #[arg(long, env = "WASMLET_RUNTIMES_CONFIGMAP")]
    runtimes_configmap: Option<String>,
}

#[derive(Debug, clap::Args)]
struct CleanupArguments {
    /// How long to wait. For example 10m.
    #[arg(long, env = "WASMLET_CLEANUP_TIMEOUT", default_value = "10m", value_parser = duration)]
    timeout: Duration,
}

/// What a text lacks to be a duration.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no duration: write a number and s, m or h, for example 90s")]
struct DurationError(String);

fn duration(text: &str) -> Result<Duration, DurationError> {
    let wrong = || DurationError(text.to_owned());
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return Err(wrong()),
    };
    let number: u32 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    if number == 0 {
        return Err(wrong());
    }
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

/// Why the program fails.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// `--log`
    #[error("--log {text:?} is no filter; for example info or wasmlet_controller=debug")]
    Log {
        /// What was given.
        text: String,
        /// What is wrong.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// No way to the API server.
    #[error(
        "it is not known how to reach the API server: run in a pod with a service account, or set KUBECONFIG"
    )]
    Config(#[source] Box<kube::config::InferConfigError>),
    /// The client cannot be made.
    #[error("cannot make a client of the API server")]
    Client(#[source] Box<kube::Error>),
    /// No threads, or no signals.
    #[error("cannot start")]
    Start(#[source] std::io::Error),
    /// The operator ended.
    #[error("the operator ends")]
    Run(#[source] RunError),
    /// The clean-up did not come to an end.
    #[error(transparent)]
    Cleanup(CleanupError),
}

/// Does what the arguments say; last words go to the log and to where the kubelet finds them.
pub fn main(arguments: Arguments) -> ExitCode {
    match start(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = chain(&error);
            tracing::error!(error = text, "wasmlet-operator fails");
            last_words(&text);
            ExitCode::FAILURE
        }
    }
}

fn last_words(text: &str) {
    let end = text.floor_char_boundary(text.len().min(TERMINATION_BYTES));
    // Not there outside of a pod.
    if let Err(error) = std::fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(TERMINATION_LOG)
        .and_then(|mut file| std::io::Write::write_all(&mut file, &text.as_bytes()[..end]))
    {
        tracing::debug!(%error, path = TERMINATION_LOG, "the last words were not left");
    }
}

fn start(arguments: Arguments) -> Result<(), CliError> {
    let filter = EnvFilter::try_new(&arguments.log);
    // Logs first: what is wrong with the filter is logged, too.
    let (filter, wrong) = match filter {
        Ok(filter) => (filter, None),
        Err(source) => (EnvFilter::new("info"), Some(source)),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    if let Some(source) = wrong {
        return Err(CliError::Log {
            text: arguments.log,
            source,
        });
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(CliError::Start)?;
    runtime.block_on(execute(arguments.command))
}

async fn execute(command: Command) -> Result<(), CliError> {
    let mut config = Config::infer()
        .await
        .map_err(|source| CliError::Config(Box::new(source)))?;
    // We back off ourselves, by object.
    config.default_retry = false;
    let client = Client::try_from(config).map_err(|source| CliError::Client(Box::new(source)))?;
    match command {
        Command::Run(arguments) => {
            let stop = Arc::new(Notify::new());
            let mut terminate = signal(SignalKind::terminate()).map_err(CliError::Start)?;
            let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::Start)?;
            let operator = run(client, arguments.into(), Arc::clone(&stop));
            let signals = async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                stop.notify_one();
                std::future::pending::<()>().await;
            };
            tokio::select! {
                result = operator => result.map_err(CliError::Run),
                () = signals => Ok(()),
            }
        }
        Command::Cleanup(arguments) => {
            cleanup(client, arguments.timeout, |line| tracing::info!("{line}"))
                .await
                .map_err(CliError::Cleanup)
        }
    }
}

impl From<RunArguments> for Options {
    fn from(arguments: RunArguments) -> Self {
        Self {
            settings: Settings {
                namespace: arguments.namespace,
                retry_base: SignedDuration::try_from(arguments.retry_base)
                    .unwrap_or(SignedDuration::MAX),
            },
            identity: arguments.identity,
            listen: arguments.listen,
            election: if arguments.no_leader_elect {
                Election::None
            } else {
                Election::Lease
            },
            max_concurrent: usize::from(arguments.max_concurrent),
            runtimes: arguments.runtimes_configmap,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, seconds) in [("90s", 90), ("5m", 300), ("2h", 7200)] {
            assert_eq!(duration(text).unwrap().as_secs(), seconds, "{text}");
        }
        for text in ["", "s", "5", "0s", "-1s", "5d", "1.5m", "5é"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn arguments_come_from_the_command_line() {
        let parsed = Arguments::try_parse_from([
            "wasmlet-operator",
            "run",
            "--namespace",
            "n",
            "--retry-base",
            "10s",
            "--max-concurrent",
            "4",
        ])
        .unwrap();
        let Command::Run(run) = parsed.command else {
            panic!("another command");
        };
        let options = Options::from(run);
        assert_eq!(options.settings.namespace, "n");
        assert_eq!(options.settings.retry_base.as_secs(), 10);
        assert_eq!(options.election, Election::Lease);
        for wrong in [
            vec!["wasmlet-operator", "run", "--max-concurrent", "0"],
            vec!["wasmlet-operator", "cleanup", "--timeout", "soon"],
        ] {
            assert!(Arguments::try_parse_from(wrong).is_err());
        }
    }
}
