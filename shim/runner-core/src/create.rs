//! The verb `create`.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::Path;
use std::time::Duration;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::unistd::Gid;
use oci_spec::runtime::Spec;
use wasmlet_protocol::{CreateReply, CreateRequest, Failure, FailureReason, PROTOCOL, fd};

use crate::engine::{Engine, Program};
use crate::failure::{Error, chain};
use crate::init::title::Strings;
use crate::init::{self, Init, Parts, StartHooks};
use crate::memory_cap::MemoryCap;
use crate::spec::{Node, Wanted, WasmSpec, processors, rewrite};
use crate::state::{Folders, Lock, remove_folders, stop_all};
use crate::{journal, names, rootfs};

/// Largest request: the arguments of one process fit many times.
const REQUEST_LIMIT_BYTES: u64 = 16 * 1024 * 1024;

/// Largest config.json, a bound against a mistake and not a promise.
const SPEC_LIMIT_BYTES: u64 = 64 * 1024 * 1024;

/// Answers the request on the control socket.
///
/// # Errors
/// When the answer cannot be written; there is nobody to tell then but the exit code.
pub(crate) fn run<E: Engine>(engine: E) -> io::Result<()> {
    let reply = match create(engine) {
        Ok((pid, warnings)) => CreateReply::Created { pid, warnings },
        Err(error) => CreateReply::Failed(error.into()),
    };
    answer(&reply)
}

fn answer(reply: &CreateReply) -> io::Result<()> {
    let json = serde_json::to_vec(reply)?;
    control().write_all(&json)
}

/// The control socket, which stays open until the process ends.
fn control() -> ManuallyDrop<File> {
    // SAFETY: the shim passed it as this descriptor; `ManuallyDrop` keeps it open, so no number is
    // ever closed twice. Were it not open, reads and writes would report that.
    ManuallyDrop::new(unsafe { File::from_raw_fd(fd::CONTROL) })
}

fn create<E: Engine>(engine: E) -> Result<(i32, Vec<String>), Error> {
    // First of all: from here on the runner is copied into the container.
    init::hidden::hide().map_err(|source| Error::Prepare {
        step: "hide /proc of this process",
        source,
    })?;
    let strings = Strings::find().map_err(|source| Error::Prepare {
        step: "find the command line",
        source,
    })?;
    prepare_descriptors()?;
    let mut request = read_request()?;
    answer_panics();
    engine.check(&request).map_err(Error::Engine)?;
    let folders = Folders::new(&request.container)?;
    if folders.state.exists() {
        return Err(Error::Exists {
            id: request.container.id,
            state_root: request.container.state_root,
        });
    }
    names::fix()?;
    journal::open().map_err(|source| Error::Prepare {
        step: "open the journal",
        source,
    })?;

    let config = request.bundle.join("config.json");
    let spec = read_spec(&config)?;
    let annotations = spec.annotations().clone();
    let wanted = Wanted {
        id: &request.container.id,
        rootfs: &request.rootfs,
        args: &request.args,
        kind: request.kind,
    };
    let mut wasm = rewrite(spec, &wanted, &Node).map_err(|source| Error::Spec {
        path: config.clone(),
        source,
    })?;
    if wasm.own_users && !request.systemd_cgroup {
        return Err(Error::UserNamespace);
    }
    if request.systemd_cgroup {
        request.systemd_cgroup = crate::scope::systemd_or_path(&mut wasm.spec);
    }
    let root = rootfs::check(&request.rootfs).map_err(|source| Error::Rootfs {
        path: request.rootfs.clone(),
        source,
    })?;
    if !wasm.mounts.iter().any(|mount| wasm.cwd.starts_with(mount)) {
        rootfs::create_working_folder(&root, &wasm.cwd);
    }
    drop(root);
    let mut warnings = std::mem::take(&mut wasm.warnings);
    warnings.extend(wasm.oom_score_adj.and_then(adjust_oom_score));
    let landlock = init::landlock::on_node();
    if landlock == init::landlock::OnNode::Missing {
        warnings.push(
            "this kernel has no Landlock: only WASI and the mount namespace keep the guest to its \
             folders"
                .to_owned(),
        );
    }

    let apparmor =
        init::apparmor::Profile::prepare(wasm.apparmor.as_deref()).map_err(|source| {
            Error::Apparmor {
                path: config,
                source,
            }
        })?;
    let groups: Vec<Gid> = wasm.groups.iter().copied().map(Gid::from_raw).collect();
    nix::unistd::setgroups(&groups).map_err(|e| Error::Prepare {
        step: "set the supplementary groups",
        source: e.into(),
    })?;

    let lock = lock(&folders)?;
    let facts = Facts {
        annotations,
        strings,
        apparmor,
        landlock,
    };
    let result = write_bundle(&folders, &wasm.spec, &request)
        .and_then(|()| build(engine, &request, &folders, wasm, facts));
    match result {
        Ok(pid) => {
            // Until the process ends, which is next.
            std::mem::forget(lock);
            Ok((pid, warnings))
        }
        Err(error) => {
            drop(lock);
            let cleaned =
                stop_all(&folders, &folders.saved()).and_then(|()| remove_folders(&folders));
            match cleaned {
                Ok(()) => Err(error),
                // A failed clean-up is told beside the first failure, never instead of it.
                Err(second) => {
                    let failure = Failure::from(error);
                    Err(Error::Engine(Failure {
                        reason: failure.reason,
                        message: format!("{}; and then: {second}", failure.message),
                    }))
                }
            }
        }
    }
}

/// Makes the container's folder and takes its lock.
fn lock(folders: &Folders) -> Result<Lock, Error> {
    let write = |path: &Path, source| Error::WriteState {
        path: path.to_owned(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folders.bundle)
        .map_err(|e| write(&folders.bundle, e))?;
    Lock::take(folders).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Error::Exists {
            id: folders.id.clone(),
            state_root: folders.root.clone(),
        },
        _ => {
            // Nothing else can be in it yet; when it is not empty, it is somebody else's.
            let _ = fs::remove_dir(&folders.bundle);
            write(&folders.lock, error)
        }
    })
}

/// What the runner found out for the init before the container was there.
struct Facts {
    annotations: Option<std::collections::HashMap<String, String>>,
    strings: Strings,
    apparmor: Option<init::apparmor::Profile>,
    landlock: init::landlock::OnNode,
}

fn build<E: Engine>(
    engine: E,
    request: &CreateRequest,
    folders: &Folders,
    wasm: WasmSpec,
    facts: Facts,
) -> Result<i32, Error> {
    let cwd = wasm.cwd.clone();
    let setup = |error: &LibcontainerError| setup(error, &cwd);
    let cap = folders.memory_cap();
    let memory = MemoryCap::create(&cap, request.max_memory)
        .map_err(|source| Error::WriteState { path: cap, source })?;
    let program = Program {
        name: request.name.clone(),
        kind: request.kind,
        invoke: request.invoke.clone(),
        args: request.args.clone(),
        env: wasm.env,
        profile: request.profile.clone(),
        memory,
        fuel: request.fuel,
        timeout: request.timeout_millis.map(Duration::from_millis),
        max_stack: request.max_stack,
        processors: processors(&wasm.spec),
        listen: request.listen,
        nn_models: request.nn_models.clone(),
    };
    let init = Init::new(Parts {
        engine,
        program,
        cwd: wasm.cwd,
        mounts: wasm.mounts,
        landlock: facts.landlock,
        strings: facts.strings,
        apparmor: facts.apparmor,
        hooks: StartHooks {
            hooks: wasm.start_container,
            id: request.container.id.clone(),
            bundle: folders.bundle.clone(),
            annotations: facts.annotations,
        },
        ready: std::cell::RefCell::new(None),
    });
    let container = ContainerBuilder::new(request.container.id.clone(), SyscallType::default())
        .with_root_path(&request.container.state_root)
        .map_err(|e| setup(&e))?
        .with_executor(init)
        .with_console_socket(request.console_socket.as_ref())
        .validate_id()
        .map_err(|e| setup(&e))?
        .as_init(&folders.bundle)
        .with_systemd(request.systemd_cgroup)
        .with_detach(true)
        .build()
        .map_err(|e| setup(&e))?;
    container
        .pid()
        .map(|pid| pid.as_raw())
        .ok_or_else(|| Error::Setup {
            detail: "libcontainer reports no process".to_owned(),
        })
}

/// The best account of what went wrong in libcontainer's processes.
fn setup(error: &LibcontainerError, cwd: &Path) -> Error {
    let found = journal::read();
    if let Some(failure) = found.failure {
        return Error::Engine(failure);
    }
    // libcontainer enters the working folder before it changes the user, as runc does, and says
    // neither which one it is nor what to do about it.
    if let Some(cause) = found.event.as_deref().and_then(chdir_failure) {
        return Error::WorkingFolder {
            path: cwd.to_owned(),
            detail: cause.to_owned(),
        };
    }
    let mut detail = chain(error);
    if let Some(event) = found.event {
        detail = format!("{event} ({detail})");
    }
    Error::Setup { detail }
}

/// The cause when libcontainer's first error event is about the working folder.
fn chdir_failure(event: &str) -> Option<&str> {
    let (_, cause) = event.strip_prefix("failed to chdir")?.split_once(": ")?;
    Some(match cause {
        "ENOENT" => "there is no such folder",
        "ENOTDIR" => "a part of it is a file",
        "EACCES" => "the user may not enter it",
        "ELOOP" => "there are too many links in it",
        other => other,
    })
}

/// Lets go of what the shim may have left open, and keeps hooks from inheriting the rest.
fn prepare_descriptors() -> Result<(), Error> {
    let prepare = |step, source| Error::Prepare { step, source };
    // SAFETY: at this point the process owns nothing but descriptors 0 to 4: it has only looked at
    // its own /proc entry.
    let result = unsafe { libc::syscall(libc::SYS_close_range, fd::ARTIFACT + 1, u32::MAX, 0) };
    if result != 0 {
        return Err(prepare("close descriptors", io::Error::last_os_error()));
    }
    // SAFETY: the borrow is used in this function only; were the descriptor not open, the calls
    // would report that.
    let artifact = unsafe { BorrowedFd::borrow_raw(fd::ARTIFACT) };
    for fd in [control().as_fd(), artifact] {
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(|errno| {
            prepare(
                "descriptors 3 and 4 must be the control socket and the artifact",
                errno.into(),
            )
        })?;
    }
    let stat = nix::sys::stat::fstat(artifact)
        .map_err(|errno| prepare("look at the artifact", errno.into()))?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(Error::Artifact {
            fd: artifact.as_raw_fd(),
            detail: "it is no regular file".to_owned(),
        });
    }
    Ok(())
}

fn read_request() -> Result<CreateRequest, Error> {
    let mut json = Vec::new();
    (&mut *control())
        .take(REQUEST_LIMIT_BYTES)
        .read_to_end(&mut json)
        .map_err(|source| Error::ReadRequest {
            fd: fd::CONTROL,
            source,
        })?;
    let request: CreateRequest = serde_json::from_slice(&json).map_err(Error::ParseRequest)?;
    if request.protocol != PROTOCOL {
        return Err(Error::Protocol {
            theirs: request.protocol,
            ours: PROTOCOL,
        });
    }
    Ok(request)
}

fn read_spec(path: &Path) -> Result<Spec, Error> {
    let read = |source| Error::ReadSpec {
        path: path.to_owned(),
        source,
    };
    let mut json = Vec::new();
    File::open(path)
        .and_then(|file| file.take(SPEC_LIMIT_BYTES).read_to_end(&mut json))
        .map_err(read)?;
    serde_json::from_slice(&json).map_err(|source| Error::ParseSpec {
        path: path.to_owned(),
        source,
    })
}

/// libcontainer reads its spec from a bundle; hooks are told of this one.
fn write_bundle(folders: &Folders, spec: &Spec, request: &CreateRequest) -> Result<(), Error> {
    let write = |path: &Path, source| Error::WriteState {
        path: path.to_owned(),
        source,
    };
    let config = folders.bundle.join("config.json");
    let json = serde_json::to_vec(spec).map_err(|e| write(&config, e.into()))?;
    fs::write(&config, json).map_err(|e| write(&config, e))?;
    let link = folders.bundle.join("rootfs");
    match fs::remove_file(&link) {
        // Left by a runner that was killed.
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(write(&link, error)),
    }
    symlink(&request.rootfs, &link).map_err(|e| write(&link, e))?;
    folders
        .note_cgroup(spec, request.systemd_cgroup)
        .map_err(|e| write(&folders.cgroup_note(), e))
}

/// Sets the OOM killer's score before libcontainer runs, to which a refusal is fatal.
///
/// Lowering the score takes CAP_SYS_RESOURCE, which nested nodes do not have.
fn adjust_oom_score(score: i32) -> Option<String> {
    fs::write("/proc/self/oom_score_adj", score.to_string())
        .err()
        .map(|error| format!("oom_score_adj {score} is refused on this node: {error}"))
}

/// A panic of the runner is an answer, too; one of the processes that libcontainer cloned from it
/// is left for the runner to tell.
fn answer_panics() {
    let main = std::process::id();
    std::panic::set_hook(Box::new(move |panic| {
        let failure = Failure {
            reason: FailureReason::Internal,
            message: format!(
                "internal error of the runner: {}",
                crate::failure::one_line(&panic.to_string())
            ),
        };
        if std::process::id() == main {
            // Nobody is left to tell when this fails.
            let _ = answer(&CreateReply::Failed(failure));
        } else {
            journal::leave(&failure);
        }
        init::end(1);
    }));
}

#[cfg(test)]
mod tests {
    use super::chdir_failure;

    #[test]
    fn events_about_the_working_folder_are_told_from_others() {
        assert_eq!(
            chdir_failure("failed to chdir, e: ENOENT"),
            Some("there is no such folder")
        );
        assert_eq!(
            chdir_failure("failed to chdir to cwd, err: EIO, cwd: \"/x\""),
            Some("EIO, cwd: \"/x\"")
        );
        assert_eq!(chdir_failure("failed to bind mount, err: ENOENT"), None);
    }
}
