//! `delete`: cleans up after a container whose shim is gone (or was never heard of).
//!
//! containerd runs this when a shim died, and publishes the container's end itself. It must finish
//! within 5 s, may run twice, and finds what to do in the container's [`crate::record`].

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use containerd_shim::Flags;
use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::protobuf::{self, Message};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use wasmlet_protocol::ContainerRef;

use crate::backend::runc::Runc;
use crate::backend::runner::Runner;
use crate::error::Error;
use crate::events::timestamp;
use crate::paths::Paths;
use crate::reaper::Reaper;
use crate::record::{BackendRecord, Init, Record};
use crate::rootfs::{self, ROOTFS};

/// A killed init has this long to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);
/// A creation that its shim did not live to see the end of is given this long before it is killed.
const CREATE_TIMEOUT: Duration = Duration::from_secs(2);
/// What the container's end counts as: 128 + SIGKILL.
const KILLED: u32 = 137;

/// Why the clean-up is not complete.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// A system call.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// A step.
    #[error(transparent)]
    Step(#[from] Error),
    /// The answer cannot be encoded.
    #[error("cannot encode the answer")]
    Encode(#[from] protobuf::Error),
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> DeleteError {
    move |source| DeleteError::System { what, source }
}

pub(super) fn run(flags: &Flags) -> Result<(), DeleteError> {
    // containerd logs what comes on stderr.
    crate::log::to_stderr(crate::log::Verbosity::Normal);
    let bundle = super::bundle(flags).map_err(system("find the bundle"))?;
    // Steps that are not done are told in the log; the others are still done.
    std::env::set_current_dir("/").map_err(system("leave the bundle"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("start the runtime"))?;
    let pid = runtime.block_on(clean(flags, &bundle))?;
    let response = DeleteResponse {
        pid: pid.unwrap_or_default().cast_unsigned(),
        exit_status: KILLED,
        exited_at: Some(timestamp(SystemTime::now())).into(),
        ..Default::default()
    };
    io::stdout()
        .write_all(&response.write_to_bytes()?)
        .map_err(system("answer"))
}

async fn clean(flags: &Flags, bundle: &Path) -> Result<Option<i32>, DeleteError> {
    let reaper = Reaper::start().map_err(system("wait for children"))?;
    let paths = Paths::new(&flags.address, &flags.namespace);
    let path = paths.record(&flags.id);
    let record = Record::load(&path).map_err(Error::from)?;
    let mut failed = None;
    let mut note = |step: Result<(), Error>| {
        if let Err(error) = step {
            tracing::error!(
                id = flags.id,
                error = crate::chain(&error),
                "clean-up is not complete"
            );
            failed.get_or_insert(error);
        }
    };
    if let Some(record) = &record {
        if let Some(init) = &record.init {
            note(kill(init));
        }
        note(backend(record, flags, bundle, &paths, &reaper).await);
    }
    // Without a record nothing was done beyond the mount, if that.
    let mount_point = match &record {
        Some(record) => record.mount_point.clone(),
        None => Some(bundle.join(ROOTFS)),
    };
    if let Some(mount_point) = mount_point {
        note(rootfs::unmount_all(&mount_point).map_err(Error::from));
    }
    if let Some(error) = failed {
        return Err(error.into());
    }
    Record::remove(&path).map_err(system("remove the container's record"))?;
    remove_dead_socket(bundle);
    Ok(record.and_then(|record| record.init).map(|init| init.pid))
}

fn kill(init: &Init) -> Result<(), Error> {
    let failed = |source| Error::System {
        what: format!("end process {}", init.pid),
        source,
    };
    let pidfd = match wasmlet_sys::pidfd_open(init.pid) {
        Ok(pidfd) => pidfd,
        Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    // Only now, with the pidfd in hand, does the comparison hold for what is signalled.
    if !init.lives() {
        return Ok(());
    }
    match wasmlet_sys::pidfd_send_signal(&pidfd, nix::libc::SIGKILL) {
        Err(error) if error.raw_os_error() != Some(nix::libc::ESRCH) => return Err(failed(error)),
        _ => {}
    }
    match ended_within(&pidfd, KILL_TIMEOUT) {
        Ok(true) => Ok(()),
        Ok(false) => Err(failed(io::ErrorKind::TimedOut.into())),
        Err(error) => Err(failed(error)),
    }
}

fn ended_within(pidfd: &OwnedFd, time: Duration) -> io::Result<bool> {
    let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
    let ended = poll(
        &mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)],
        timeout,
    )?;
    Ok(ended > 0)
}

/// What a dead shim was creating must come to its end, or it comes to life after it was removed.
fn let_creation_end(runc: &Runc, id: &str) -> io::Result<()> {
    for pid in runc.creators(id)? {
        let pidfd = match wasmlet_sys::pidfd_open(pid) {
            Ok(pidfd) => pidfd,
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => continue,
            Err(error) => return Err(error),
        };
        if ended_within(&pidfd, CREATE_TIMEOUT)? || !runc.creators(id)?.contains(&pid) {
            continue;
        }
        tracing::warn!(id, pid, "runc create goes on without its shim; killing it");
        wasmlet_sys::pidfd_send_signal(&pidfd, nix::libc::SIGKILL)?;
        if !ended_within(&pidfd, KILL_TIMEOUT)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Ok(())
}

async fn backend(
    record: &Record,
    flags: &Flags,
    bundle: &Path,
    paths: &Paths,
    reaper: &Arc<Reaper>,
) -> Result<(), Error> {
    match &record.backend {
        BackendRecord::Runner { program } => {
            let container = ContainerRef {
                id: flags.id.clone(),
                state_root: paths.runner_root(),
            };
            Runner::new(program.clone(), container)
                .control("delete", reaper)
                .await
        }
        BackendRecord::Runc {
            program,
            systemd_cgroup,
        } => {
            let runc = Runc::new(program.to_str(), paths.runc_root(), *systemd_cgroup);
            let_creation_end(&runc, &flags.id)
                .map_err(Error::system("wait for the end of runc create"))?;
            Ok(runc.delete(&flags.id, bundle, reaper).await?)
        }
    }
}

/// The socket of a shim that died stays behind; its address is in the bundle.
fn remove_dead_socket(bundle: &Path) {
    let Ok(address) = std::fs::read_to_string(bundle.join("address")) else {
        return;
    };
    let path = Path::new(address.strip_prefix("unix://").unwrap_or(&address));
    let refused = std::os::unix::net::UnixStream::connect(path)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    if refused && let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "cannot remove a dead socket");
    }
}
