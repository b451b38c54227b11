//! exec and attach: a container's streams over the API server.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{AttachParams, AttachedProcess};
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::task::JoinHandle;

use crate::client::{block_on, spawn};
use crate::pod::Pod;
use crate::wait::wait_for;

/// For a program run by exec.
const EXEC_LIMIT: Duration = Duration::from_secs(60);

/// What became of a program that was run in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// Its exit code.
    pub code: i32,
    /// What it wrote.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Executed {
    pub(crate) async fn run(
        pod: &Pod<'_>,
        container: &str,
        command: &[&str],
    ) -> Result<Self, String> {
        let run = async {
            let parameters = AttachParams::default().container(container);
            let mut process = pod
                .api()
                .exec(pod.name(), command.iter().copied(), &parameters)
                .await
                .map_err(|error| error.to_string())?;
            let status = process.take_status();
            let (stdout, stderr) = (process.stdout(), process.stderr());
            let mut out = Vec::new();
            let mut err = Vec::new();
            let read_out = async {
                if let Some(mut stream) = stdout {
                    stream.read_to_end(&mut out).await?;
                }
                Ok::<_, std::io::Error>(())
            };
            let read_err = async {
                if let Some(mut stream) = stderr {
                    stream.read_to_end(&mut err).await?;
                }
                Ok::<_, std::io::Error>(())
            };
            futures::future::try_join(read_out, read_err)
                .await
                .map_err(|error| error.to_string())?;
            let status = match status {
                Some(status) => status.await,
                None => None,
            };
            let code = exit_code(status.as_ref())?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Ok(Self {
                code,
                stdout: text(&out),
                stderr: text(&err),
            })
        };
        let late = || format!("no end within {} s", EXEC_LIMIT.as_secs());
        tokio::time::timeout(EXEC_LIMIT, run)
            .await
            .unwrap_or_else(|_| Err(late()))
    }
}

/// The exit code that the kubelet reports, or its reason for not having run the program.
fn exit_code(status: Option<&Status>) -> Result<i32, String> {
    let Some(status) = status else {
        return Err("the connection ended without a status".to_owned());
    };
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status
        .details
        .iter()
        .filter_map(|details| details.causes.as_ref())
        .flatten();
    let code = causes
        .filter(|cause| cause.reason.as_deref() == Some("ExitCode"))
        .find_map(|cause| cause.message.as_ref()?.parse().ok());
    code.ok_or_else(|| {
        status
            .message
            .clone()
            .unwrap_or_else(|| format!("{status:?}"))
    })
}

/// `attach`: what a running container writes from now on, and its standard input if it has one.
pub struct Attached {
    text: Arc<Mutex<String>>,
    stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    reader: JoinHandle<()>,
    // Closes the connection when dropped.
    process: AttachedProcess,
}

impl Attached {
    #[track_caller]
    pub(crate) fn start(pod: &Pod<'_>, container: &str) -> Self {
        let spec = pod.get().spec.unwrap_or_default();
        let of = spec.containers.iter().find(|known| known.name == container);
        let has_stdin = of.and_then(|container| container.stdin).unwrap_or(false);
        let parameters = AttachParams::default()
            .container(container)
            .stdin(has_stdin)
            .stderr(false);
        let attached = block_on(pod.api().attach(pod.name(), &parameters));
        let mut process = attached
            .unwrap_or_else(|error| panic!("attach to {}/{container}: {error}", pod.name()));
        let text = Arc::new(Mutex::new(String::new()));
        let stdin = process.stdin().map(|stdin| Box::new(stdin) as _);
        let stdout = process.stdout();
        let into = Arc::clone(&text);
        let reader = spawn(async move {
            let Some(mut stdout) = stdout else { return };
            let mut block = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut block).await {
                let part = String::from_utf8_lossy(&block[..count]);
                into.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push_str(&part);
            }
        });
        Self {
            text,
            stdin,
            reader,
            process,
        }
    }

    /// Writes to the container's standard input.
    #[track_caller]
    pub fn write(&mut self, text: &str) {
        let stdin = self
            .stdin
            .as_mut()
            .expect("the container's spec has `stdin: true`");
        let written = block_on(async {
            stdin.write_all(text.as_bytes()).await?;
            stdin.flush().await
        });
        if let Err(error) = written {
            panic!("the container's stdin: {error}");
        }
    }

    /// Waits until the container has written this.
    #[track_caller]
    pub fn until(&self, wanted: &str, within: Duration) {
        let seen = wait_for(within, || {
            let text = self
                .text
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            if text.contains(wanted) {
                Ok(())
            } else {
                Err(text)
            }
        });
        if let Err(last) = seen {
            panic!("attached and did not see {wanted:?}; seen: {last:?}");
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.process.abort();
        self.reader.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn exit_codes_are_read_from_the_status() {
        let status = |value| serde_json::from_value::<Status>(value).expect("a status");
        let success = status(json!({ "status": "Success" }));
        assert_eq!(exit_code(Some(&success)), Ok(0));
        let failed = status(json!({
            "status": "Failure", "reason": "NonZeroExitCode",
            "details": { "causes": [{ "reason": "ExitCode", "message": "7" }] },
        }));
        assert_eq!(exit_code(Some(&failed)), Ok(7));
        let refused = status(json!({ "status": "Failure", "message": "not supported" }));
        assert_eq!(exit_code(Some(&refused)), Err("not supported".to_owned()));
        assert!(exit_code(None).is_err());
    }
}
