//! The command line of a runner.

use std::io::{self, Write};
use std::process::ExitCode;

use oci_spec::runtime::LinuxResources;
use serde::de::DeserializeOwned;
use wasmlet_protocol::{ContainerRef, GuestLimits};

use crate::control::{self, Verb};
use crate::create;
use crate::engine::Engine;

/// What a runner was asked to do.
#[derive(Debug, PartialEq)]
enum Command {
    Describe,
    Create,
    Control(Verb, ContainerRef),
}

/// Why a command line makes no sense.
#[derive(Debug, thiserror::Error)]
enum UsageError {
    #[error(
        "usage: {0} --describe | create | start|delete|pause|resume CONTAINER | update CONTAINER \
         RESOURCES (CONTAINER and RESOURCES are JSON; the shim runs this program)"
    )]
    Usage(String),
    #[error("{what} is not valid: {source}")]
    Json {
        what: &'static str,
        source: serde_json::Error,
    },
}

/// The main function of a runner.
///
/// Exit code 0 when the verb was answered, whatever the answer; 2 for a wrong command line; 1 when
/// the answer could not be given.
pub fn main<E: Engine>(engine: E) -> ExitCode {
    let arguments: Vec<String> = std::env::args_os()
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    let command = match parse(&arguments) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    forget_listen_fds();
    let done = match command {
        Command::Create => create::run(engine),
        Command::Control(verb, container) => print(&control::run(&verb, &container)),
        Command::Describe => match engine.describe() {
            Ok(description) => print(&description),
            Err(failure) => Err(io::Error::other(failure.message)),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wasmlet: {error}");
            ExitCode::FAILURE
        }
    }
}

/// libcontainer takes the variable for descriptors that it should pass on to the container.
#[expect(
    clippy::disallowed_methods,
    reason = "it is libcontainer in this very process that reads it"
)]
fn forget_listen_fds() {
    // SAFETY: the runner has one thread, and nothing of it has run yet.
    unsafe { std::env::remove_var("LISTEN_FDS") };
}

fn print(answer: &impl serde::Serialize) -> io::Result<()> {
    let mut json = serde_json::to_vec(answer)?;
    json.push(b'\n');
    io::stdout().write_all(&json)
}

fn parse(arguments: &[String]) -> Result<Command, UsageError> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (name, words) = words
        .split_first()
        .map_or(("runner", &[][..]), |(n, w)| (*n, w));
    let container = |text| json("CONTAINER", text);
    Ok(match words {
        ["--describe"] => Command::Describe,
        ["create"] => Command::Create,
        ["start", c] => Command::Control(Verb::Start, container(c)?),
        ["delete", c] => Command::Control(Verb::Delete, container(c)?),
        ["pause", c] => Command::Control(Verb::Pause, container(c)?),
        ["resume", c] => Command::Control(Verb::Resume, container(c)?),
        ["update", c, resources] => {
            let container = container(c)?;
            let resources: LinuxResources = json("RESOURCES", resources)?;
            Command::Control(Verb::Update(Box::new(resources), None), container)
        }
        ["update", c, resources, limits] => {
            let container = container(c)?;
            let resources: LinuxResources = json("RESOURCES", resources)?;
            let limits: GuestLimits = json("LIMITS", limits)?;
            Command::Control(Verb::Update(Box::new(resources), Some(limits)), container)
        }
        _ => return Err(UsageError::Usage(name.to_owned())),
    })
}

fn json<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, UsageError> {
    serde_json::from_str(text).map_err(|source| UsageError::Json { what, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn verbs_are_understood() {
        let one = r#"{"id":"one","state_root":"/s"}"#;
        let container = ContainerRef {
            id: "one".to_owned(),
            state_root: "/s".into(),
        };
        let good = |w: &[&str]| parse(&words(w)).expect("a good command line");
        assert_eq!(good(&["r", "--describe"]), Command::Describe);
        assert_eq!(good(&["r", "create"]), Command::Create);
        assert_eq!(
            good(&["r", "pause", one]),
            Command::Control(Verb::Pause, container)
        );
        let Command::Control(Verb::Update(resources, limits), _) = good(&[
            "r",
            "update",
            one,
            r#"{"memory":{"limit":5}}"#,
            r#"{"max_memory":4}"#,
        ]) else {
            panic!("not an update");
        };
        assert_eq!(limits.and_then(|limits| limits.max_memory), Some(4));
        assert_eq!(resources.memory().as_ref().and_then(|m| m.limit()), Some(5));
    }

    #[test]
    fn nonsense_is_told() {
        for (line, said) in [
            (&["r"][..], "usage: r --describe"),
            (&[], "usage"),
            (&["r", "create", "x"], "usage"),
            (&["r", "delete", "nojson"], "CONTAINER is not valid"),
            (&["r", "update", "{}", "{}"], "CONTAINER is not valid"),
            (
                &["r", "update", r#"{"id":"one","state_root":"/s"}"#, "5"],
                "RESOURCES is not valid",
            ),
        ] {
            let error = parse(&words(line)).expect_err("nonsense").to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
