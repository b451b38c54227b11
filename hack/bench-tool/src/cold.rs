//! Cold: the first start of a module on a node, compiling included, against the engine's own
//! command-line program that compiles and runs it; and the second start, which compiles nothing.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::str::FromStr;
use std::time::Instant;

use tokio::process::Command;

use crate::client::{Engine, Guest, Node, Runtime};
use crate::error::{Error, file};
use crate::figures::{Figures, print_ratio};
use crate::first::{Counters, Fresh};
use crate::life::{self, Output, in_turn, milliseconds};

/// An engine's own command-line program: `ENGINE=PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cli {
    engine: Engine,
    program: PathBuf,
}

impl FromStr for Cli {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (engine, program) = text
            .split_once('=')
            .ok_or_else(|| format!("{text:?} is not of the form ENGINE=PATH"))?;
        let engine = match engine {
            "wasmtime" => Engine::Wasmtime,
            "wasmedge" => Engine::Wasmedge,
            _ => {
                return Err(format!(
                    "no command-line program of {engine:?} is known; known: wasmtime, wasmedge"
                ));
            }
        };
        Ok(Self {
            engine,
            program: program.into(),
        })
    }
}

impl Cli {
    /// The calls that compile and run a module once, none of which uses a cache.
    fn calls(&self, module: &Path, compiled: &Path) -> Vec<Command> {
        let call = |arguments: &[&std::ffi::OsStr]| {
            let mut command = Command::new(&self.program);
            command
                .args(arguments)
                .stdin(Stdio::null())
                .kill_on_drop(true);
            command
        };
        match self.engine {
            // It compiles whenever it runs.
            Engine::Auto | Engine::Wasmtime | Engine::Wasmer => {
                vec![call(&["run".as_ref(), module.as_ref()])]
            }
            // `wasmedge run` of the module itself would interpret it.
            Engine::Wasmedge => vec![
                call(&["compile".as_ref(), module.as_ref(), compiled.as_ref()]),
                call(&["run".as_ref(), compiled.as_ref()]),
            ],
        }
    }

    /// Milliseconds from the first call to the end of the last.
    async fn run(&self, module: &Path) -> Result<f64, Error> {
        let compiled = module.with_extension("compiled.so");
        let began = Instant::now();
        for mut command in self.calls(module, &compiled) {
            let output = command.output().await.map_err(file(&self.program))?;
            if !output.status.success() {
                return Err(Error::Cli {
                    program: self.program.clone(),
                    status: output.status,
                    stderr: String::from_utf8_lossy(&output.stderr).trim_end().into(),
                });
            }
        }
        let took = began.elapsed();
        if compiled.exists() {
            std::fs::remove_file(&compiled).map_err(file(&compiled))?;
        }
        Ok(milliseconds(took))
    }
}

/// How often, and against what.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    /// Programs to compare with, of the engines that are measured.
    pub(crate) cli: Vec<Cli>,
}

/// Who is measured in a round.
#[derive(Clone, Copy)]
enum Subject<'a> {
    Ours(&'a Guest),
    Cli(&'a Cli),
}

pub(crate) async fn run(
    node: &Node,
    guests: &[Guest],
    module: &Path,
    counters: &Counters,
    plan: &Plan,
    out: &Path,
) -> Result<(), Error> {
    let rounds = plan.rounds;
    let wanted = |cli: &&Cli| {
        let runtime = Runtime::Ours(cli.engine);
        guests.iter().any(|guest| guest.runtime == runtime)
    };
    let mut subjects: Vec<Subject> = guests.iter().map(Subject::Ours).collect();
    subjects.extend(plan.cli.iter().filter(wanted).map(Subject::Cli));
    let names = guests.iter().flat_map(|guest| {
        let name = guest.runtime.name();
        [first(name), second(name), cli(name)]
    });
    let mut figures = Figures::new("ms", names);
    for round in 1..=rounds {
        for subject in in_turn(&subjects, round) {
            match subject {
                Subject::Cli(program) => {
                    let name = cli(Runtime::Ours(program.engine).name());
                    figures.add(&name, round, program.run(module).await?);
                }
                Subject::Ours(guest) => {
                    let name = guest.runtime.name();
                    let fresh = Fresh::new(node, guest)?;
                    for (name, compiles) in [(first(name), 1), (second(name), 0)] {
                        let id = format!("cold-{name}-{round}").replace(' ', "-");
                        let start = life::whole(node, &fresh.guest, &id, Output::Nothing);
                        figures.add(&name, round, counters.expect(compiles, &id, start).await?);
                    }
                    fresh.remove()?;
                }
            }
        }
    }
    let title = format!("a module that the node has not compiled yet, {rounds} interleaved rounds");
    figures.publish(out, "cold", &title)?;
    figures.draw(
        out,
        "cold",
        "first and second start, and the engine's own program",
        |name| figures.median(name).is_some(),
    )?;
    for guest in guests {
        let name = guest.runtime.name();
        print_ratio(
            &format!("cold.{name}_vs_cli"),
            figures.ratio(&first(name), &cli(name)),
        );
        let again = figures.ratio(&second(name), &first(name));
        print_ratio(&format!("cold.{name}_second_vs_first"), again);
    }
    Ok(())
}

fn first(engine: &str) -> String {
    format!("{engine} first")
}

fn second(engine: &str) -> String {
    format!("{engine} second")
}

fn cli(engine: &str) -> String {
    format!("{engine} cli")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_named_by_their_engines() {
        let cli: Cli = "wasmedge=/a=b".parse().unwrap();
        assert_eq!(cli.program, PathBuf::from("/a=b"));
        assert_eq!(cli.calls("m".as_ref(), "c".as_ref()).len(), 2);
        for wrong in ["wasmtime", "wasmer=/usr/bin/wasmer"] {
            wrong.parse::<Cli>().unwrap_err();
        }
    }
}
