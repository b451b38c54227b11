//! `start`: containerd gets the address of the pod's socket.
//!
//! The first container of a pod brings the shim up: the socket is bound, the process forks while it has
//! one thread and no runtime yet, and the child serves on the socket that already takes connections. So
//! there is no second exec and nothing to wait for. Every further container finds the socket and only
//! gets its address.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use containerd_shim::Flags;
use nix::sys::stat::{Mode, umask};

use crate::bootstrap::{self, BootstrapError, StartParams};
use crate::options::{self, OptionsError};
use crate::route::SANDBOX_ID;
use crate::serve::{self, ServeError, Serving};
use crate::spec::{self, SpecError};

/// Why the shim cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Parameters.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// Runtime options.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The bundle.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The socket.
    #[error("cannot listen on {}", path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The cgroup that the node's options name.
    #[error("cannot move the shim into the cgroup {cgroup}")]
    Cgroup {
        /// Its path.
        cgroup: String,
        /// What the library says.
        #[source]
        source: containerd_shim::Error,
    },
    /// Another system call.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The reply cannot be encoded.
    #[error("cannot encode the reply")]
    Reply(#[source] containerd_shim_protos::protobuf::Error),
    /// The serving process failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::System { what, source }
}

pub(super) fn run(flags: &Flags) -> Result<(), StartError> {
    let params = bootstrap::start_params(&bootstrap::read_stdin()?, flags, |name| {
        std::env::var(name).ok()
    })?;
    let shim_cgroup = options::decode(params.options.as_ref())?.shim_cgroup;
    let bundle = super::bundle(flags).map_err(system("find the bundle"))?;
    let group = spec::load(&bundle)?
        .annotation(SANDBOX_ID)
        .unwrap_or(&flags.id)
        .to_owned();
    let address = bootstrap::socket_address(&params, &flags.namespace, &group);
    let socket = PathBuf::from(address.strip_prefix("unix://").unwrap_or(&address));

    // containerd 1.x finds a running shim again by this file.
    std::fs::write(bundle.join("address"), &address).map_err(system("write the address file"))?;
    let Some(listener) = listen(&socket)? else {
        return reply(&address, &params);
    };
    let oom_score = parent_oom_score();
    match wasmlet_sys::fork_single_threaded().map_err(system("fork"))? {
        wasmlet_sys::Fork::Parent(child) => {
            if let Some(cgroup) = shim_cgroup
                && let Err(source) = containerd_shim::cgroup::add_task_to_cgroup(
                    &cgroup,
                    child.as_raw().cast_unsigned(),
                )
            {
                if let Err(error) = nix::sys::signal::kill(child, nix::sys::signal::SIGKILL) {
                    eprintln!("cannot end the shim that could not be confined: {error}");
                }
                // The socket goes too, or the next container would find nobody behind it.
                let _ = std::fs::remove_file(&socket);
                return Err(StartError::Cgroup { cgroup, source });
            }
            reply(&address, &params)
        }
        wasmlet_sys::Fork::Child => {
            detach().map_err(system("detach from containerd"))?;
            let serving = Serving {
                listener,
                socket,
                namespace: flags.namespace.clone(),
                grpc_address: params.grpc_address,
                ttrpc_address: params.ttrpc_address,
                bundle,
                verbosity: params.verbosity,
                oom_score_of_containerd: oom_score,
                is_moved: shim_cgroup.is_some(),
            };
            Ok(serve::serve(serving)?)
        }
    }
}

/// Binds the socket, for root alone; `None` when somebody serves there already.
fn listen(path: &Path) -> Result<Option<UnixListener>, StartError> {
    let failed = |source| StartError::Socket {
        path: path.to_owned(),
        source,
    };
    if let Some(folder) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(folder)
            .map_err(failed)?;
    }
    // A second attempt is for a socket whose shim has died.
    for _ in 0..2 {
        // The socket is made with its final mode: between a bind and a chmod anybody could connect.
        let before = umask(Mode::from_bits_truncate(0o177));
        let bound = UnixListener::bind(path);
        umask(before);
        match bound {
            Ok(listener) => {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
                    .map_err(failed)?;
                return Ok(Some(listener));
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if UnixStream::connect(path).is_ok() {
                    return Ok(None);
                }
                std::fs::remove_file(path).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Err(failed(io::ErrorKind::AddrInUse.into()))
}

fn reply(address: &str, params: &StartParams) -> Result<(), StartError> {
    let bytes = bootstrap::encode_reply(address, params.reply).map_err(StartError::Reply)?;
    let mut stdout = io::stdout();
    stdout
        .write_all(&bytes)
        .and_then(|()| stdout.flush())
        .map_err(system("answer"))
}

/// Leaves containerd's session and its pipes: it reads our standard output to the end.
fn detach() -> io::Result<()> {
    nix::unistd::setsid()?;
    std::env::set_current_dir("/")?;
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    Ok(())
}

fn parent_oom_score() -> Option<i32> {
    let parent = std::os::unix::process::parent_id();
    std::fs::read_to_string(format!("/proc/{parent}/oom_score_adj"))
        .ok()?
        .trim()
        .parse()
        .ok()
}
