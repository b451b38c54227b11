//! The commands of `wasmlet-node`. Each is a file; this one gives them logs, an exit code and last words.

mod agent;
mod bundle;

mod doctor;
mod plan;
mod remove;
mod stage;
mod target;

use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::errors::Chain;

/// Where the kubelet looks for why a container ended.
const TERMINATION_LOG: &str = "/dev/termination-log";
/// What the kubelet takes of it, in bytes.
const TERMINATION_LOG_BYTES: usize = 4096;

/// Installs wasmlet on a node, checks it, and takes it back.
#[derive(Debug, Parser)]
#[command(
    name = "wasmlet-node",
    version,
    about,
    after_help = "docs/node-agent.md tells what each command does and needs."
)]
pub struct Arguments {
    /// What is logged, on stderr: error, warn, info, debug or trace, also for one module (`info,wasmlet_node_agent::apply=debug`).
    #[arg(long, env = "WASMLET_LOG", default_value = "info", global = true)]
    log: String,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Agent(agent::Arguments),
    Bundle(bundle::Arguments),
    Remove(remove::Arguments),
    Doctor(doctor::Arguments),
    Plan(plan::Arguments),
    Stage(stage::Arguments),
}

/// How a command ended badly.
#[derive(Debug)]
pub struct Failure {
    /// What to say.
    pub error: Box<dyn Error>,
    /// What to end with.
    pub code: u8,
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            error: Box::new(error),
            code: 1,
        }
    }
}

/// The filter of the log is not understood.
#[derive(Debug, thiserror::Error)]
#[error("--log {0:?} is no filter: use a level, or MODULE=LEVEL with commas between")]
struct LogFilter(String, #[source] tracing_subscriber::filter::ParseError);

impl Arguments {
    /// Runs the command.
    pub fn run(self) -> ExitCode {
        let ended = start_logs(self.log).and_then(|()| match self.command {
            Command::Agent(arguments) => arguments.run(),
            Command::Bundle(arguments) => arguments.run(),
            Command::Remove(arguments) => arguments.run(),
            Command::Doctor(arguments) => arguments.run(),
            Command::Plan(arguments) => arguments.run(),
            Command::Stage(arguments) => arguments.run(),
        });
        match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                let text = Chain(&*failure.error).to_string();
                eprintln!("wasmlet-node: {text}");
                leave_last_words(&text);
                ExitCode::from(failure.code)
            }
        }
    }
}

/// Cannot start the runtime.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the event loop")]
struct EventLoop(#[source] std::io::Error);

/// Runs something asynchronous on this thread: an agent has one thing to do at a time, and threads cost memory.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(EventLoop)?
        .block_on(work)
}

fn start_logs(filter: String) -> Result<(), Failure> {
    let parsed = tracing_subscriber::EnvFilter::builder()
        .parse(&filter)
        .map_err(|error| Failure {
            error: Box::new(LogFilter(filter, error)),
            code: 2,
        })?;
    tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    Ok(())
}

/// So that `kubectl describe pod` says why. Only where the kubelet has made the file: elsewhere stderr is enough.
fn leave_last_words(text: &str) {
    let words = &text.as_bytes()[..text.len().min(TERMINATION_LOG_BYTES)];
    match OpenOptions::new().write(true).open(TERMINATION_LOG) {
        Ok(mut file) => {
            if let Err(error) = file.write_all(words) {
                eprintln!("wasmlet-node: cannot write {TERMINATION_LOG}: {error}");
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => eprintln!("wasmlet-node: cannot open {TERMINATION_LOG}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }
}
