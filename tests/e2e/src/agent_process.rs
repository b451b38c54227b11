//! The agent's process on a node, seen from the machine: to kill it at a moment that is chosen, not hit.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Calls with which an agent changes a node or its own journal.
const CALLS: &str = "rename,renameat,renameat2,symlinkat,linkat,unlink,unlinkat";

/// strace on an agent, which kills it with SIGKILL when it is about to make the chosen call.
pub struct DeathAt {
    strace: Child,
    agent: u32,
}

impl DeathAt {
    /// Arranges for the death of the agent of a node (of this machine's hack/cluster) before its `nth` call, from 1.
    pub fn before_call(node: &str, nth: usize) -> Result<Self, String> {
        let agent = agent_of(node)?;
        let strace = Command::new("strace")
            .args(["--follow-forks", "--quiet=all", "--output=/dev/null"])
            .arg(format!("--trace={CALLS}"))
            .arg(format!("--inject={CALLS}:signal=KILL:when={nth}"))
            .arg(format!("--attach={agent}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|error| format!("strace: {error}; install it: apt-get install strace"))?;
        let mut death = Self { strace, agent };
        // Attached, or ended with an error of its own.
        let attached = crate::wait::wait_for(crate::wait::SHORT, || {
            if let Ok(Some(status)) = death.strace.try_wait() {
                return Ok(Err(format!("strace has ended: {status}")));
            }
            if tracer_of(agent)? == death.strace.id() {
                return Ok(Ok(()));
            }
            Err(format!("process {agent} is not traced"))
        });
        attached.and_then(|outcome| outcome)?;
        Ok(death)
    }

    /// Whether it is dead, or about to be waited for by whoever started it.
    pub fn has_died(&self) -> bool {
        !Path::new(&format!("/proc/{}/status", self.agent)).exists()
            || status_line(self.agent, "State:").is_ok_and(|state| state.starts_with('Z'))
    }
}

impl Drop for DeathAt {
    fn drop(&mut self) {
        // It ends with the agent; else it lets go of it.
        drop(self.strace.kill());
        drop(self.strace.wait());
    }
}

/// The only process on this machine that is the agent of a node: its name and its environment say so.
fn agent_of(node: &str) -> Result<u32, String> {
    let wanted = format!("NODE_NAME={node}");
    let entries = fs::read_dir("/proc").map_err(|error| format!("/proc: {error}"))?;
    let is_agent = |pid: &u32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        name.trim() == "wasmlet-node"
            && environment
                .split(|byte| *byte == 0)
                .any(|variable| variable == wanted.as_bytes())
    };
    let pids: Vec<u32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(is_agent)
        .collect();
    match pids[..] {
        [pid] => Ok(pid),
        _ => Err(format!("not one agent of {node} on this machine: {pids:?}")),
    }
}

fn tracer_of(pid: u32) -> Result<u32, String> {
    let tracer = status_line(pid, "TracerPid:")?;
    tracer
        .parse()
        .map_err(|_| format!("/proc/{pid}/status: TracerPid {tracer:?}"))
}

fn status_line(pid: u32, key: &str) -> Result<String, String> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(key));
    value
        .map(|value| value.trim().to_owned())
        .ok_or_else(|| format!("{path} has no {key}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_nobody_traces_has_no_tracer() {
        assert_eq!(tracer_of(std::process::id()), Ok(0));
    }

    #[test]
    fn an_agent_that_is_not_there_is_not_found() {
        let error = agent_of("no-such-node").expect_err("there is none");
        assert!(error.contains("no-such-node"), "{error}");
    }
}
