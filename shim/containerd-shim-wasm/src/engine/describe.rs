//! What a runner says of itself.
//!
//! It is kept in `/run/wasmlet` for as long as the program file stays the same, so a start does not pay for
//! asking.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use wasmlet_protocol::Description;

use super::EngineError;
use crate::paths::RUN_DIR;
use crate::reaper::Reaper;

/// Asks, and waits for nothing else.
pub(super) fn now(runner: &Path) -> Result<Description, EngineError> {
    let failed = |what: String| EngineError::Describe {
        runner: runner.to_owned(),
        what,
    };
    let output = describing(runner)
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(format!(
            "{}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))
}

/// What tells one program file from another.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    path: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

#[derive(Serialize, Deserialize)]
struct Memo {
    identity: Identity,
    description: Description,
}

pub(super) async fn remembered_or_now(
    runner: &Path,
    reaper: &Reaper,
) -> Result<Description, EngineError> {
    let failed = |what: String| EngineError::Describe {
        runner: runner.to_owned(),
        what,
    };
    let meta = fs::metadata(runner).map_err(|error| failed(error.to_string()))?;
    let identity = Identity {
        path: runner.to_owned(),
        device: meta.dev(),
        inode: meta.ino(),
        size: meta.size(),
        changed: (meta.ctime(), meta.ctime_nsec()),
    };
    let name = runner.file_name().unwrap_or_default().to_string_lossy();
    let memo = Path::new(RUN_DIR).join(format!("{name}.{:x}.json", identity.inode));
    if let Some(known) = remembered(&memo, &identity) {
        return Ok(known);
    }
    let output = crate::backend::program::output(&mut describing(runner), reaper)
        .await
        .map_err(|error| failed(error.to_string()))?;
    if output.status != 0 {
        return Err(failed(format!(
            "exit status {}: {}",
            output.status,
            output.stderr_line()
        )));
    }
    let description: Description =
        serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))?;
    remember(
        &memo,
        Memo {
            identity,
            description: description.clone(),
        },
    );
    Ok(description)
}

fn describing(runner: &Path) -> Command {
    let mut command = Command::new(runner);
    command
        .arg("--describe")
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    command
}

fn remembered(memo: &Path, identity: &Identity) -> Option<Description> {
    // Only root can write below /run/wasmlet. Anything unreadable is as good as nothing.
    let memo: Memo = serde_json::from_slice(&fs::read(memo).ok()?).ok()?;
    (memo.identity == *identity).then_some(memo.description)
}

fn remember(path: &Path, memo: Memo) {
    let temporary = path.with_extension(format!("new{}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        io::Write::write_all(&mut file, &serde_json::to_vec(&memo)?)?;
        fs::rename(&temporary, path)
    };
    if let Err(error) = write() {
        tracing::warn!(path = %path.display(), %error, "cannot remember what a runner says of itself");
    }
}
