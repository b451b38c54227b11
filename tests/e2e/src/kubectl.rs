//! kubectl: for what must be seen as the user sees it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::env::Env;
use crate::wait::wait_for;

/// kubectl with the cluster's configuration, in a namespace.
pub struct Kubectl<'a> {
    env: &'a Env,
    namespace: Option<&'a str>,
}

/// What kubectl said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Whether it went well.
    pub ok: bool,
    /// Its answer.
    pub stdout: String,
    /// Its complaints.
    pub stderr: String,
}

impl<'a> Kubectl<'a> {
    /// In a namespace, whether it is there or not.
    pub fn new(env: &'a Env, namespace: &'a str) -> Self {
        Self {
            env,
            namespace: Some(namespace),
        }
    }

    /// For manifests whose objects say themselves which namespaces they are in.
    pub fn anywhere(env: &'a Env) -> Self {
        Self {
            env,
            namespace: None,
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.env.kubectl);
        command.arg("--kubeconfig").arg(&self.env.kubeconfig);
        if let Some(namespace) = self.namespace {
            command.args(["--namespace", namespace]);
        }
        command.args(arguments);
        command
    }

    /// Runs it to its end, whatever comes of it.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Said {
        let done = self.command(arguments).stdin(Stdio::null()).output();
        let done = done.unwrap_or_else(|error| {
            panic!(
                "{}: {error}; WASMLET_E2E_KUBECTL names another",
                self.env.kubectl.display()
            )
        });
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said {
            ok: done.status.success(),
            stdout: text(&done.stdout),
            stderr: text(&done.stderr),
        }
    }

    /// Its answer; a complaint ends the test.
    #[track_caller]
    pub fn answer(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert!(said.ok, "kubectl {}: {}", arguments.join(" "), said.stderr);
        said.stdout
    }

    /// Starts it and reads what it says, until the value is dropped.
    #[track_caller]
    pub fn start(&self, arguments: &[&str]) -> Running {
        let mut command = self.command(arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.env.kubectl.display()));
        let lines = Arc::new(Mutex::new(Vec::new()));
        if let Some(stdout) = child.stdout.take() {
            let into = Arc::clone(&lines);
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    into.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(line);
                }
            });
        }
        Running {
            shown: arguments.join(" "),
            child,
            lines,
        }
    }
}

/// A kubectl that goes on, such as `logs -f` and `port-forward`.
pub struct Running {
    shown: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Running {
    /// Waits for a line that holds this text.
    #[track_caller]
    pub fn until_line(&self, text: &str, within: Duration) -> String {
        let found = wait_for(within, || {
            let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines
                .iter()
                .find(|line| line.contains(text))
                .cloned()
                .ok_or_else(|| lines.join("\n"))
        });
        match found {
            Ok(line) => line,
            Err(last) => panic!("kubectl {}: no line with {text:?}: {last}", self.shown),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
