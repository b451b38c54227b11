//! The container's init: from libcontainer's hands to the guest's end.
//!
//! libcontainer clones this process and never execs it. In order:
//!
//! 1. `validate`, before the container counts as created, so that what fails here fails Create:
//!    panic hook, `/proc` entry, signals, process title, listening socket, artifact.
//! 2. The init waits for the start message.
//! 3. `exec`: startContainer hooks, then the posture in which a guest runs, each step taking away
//!    what the one before still needed: AppArmor, descriptors, capabilities, Landlock, seccomp. Then the guest.

pub(crate) mod apparmor;
mod capabilities;
mod fds;
pub(crate) mod hidden;
pub(crate) mod landlock;
pub(crate) mod preopens;
mod seccomp;
pub(crate) mod signals;
pub(crate) mod title;

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::PathBuf;
use std::rc::Rc;

use libcontainer::container::{ContainerStatus, State};
use libcontainer::hooks::run_hooks;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use oci_spec::runtime::{Hook, Spec};
use wasmlet_protocol::{ExitCode, Failure, FailureReason, fd};

use crate::deadline;
use crate::engine::{End, Engine, Guest, GuestExit, Program, Surroundings};
use crate::failure::{chain, one_line};
use crate::journal;
use crate::listen::Listener;
use crate::report;

/// What the init is made of; libcontainer clones it across processes.
pub(crate) struct Init<E: Engine>(Rc<Parts<E>>);

/// See [`Init`].
pub(crate) struct Parts<E: Engine> {
    pub(crate) engine: E,
    pub(crate) program: Program,
    pub(crate) cwd: PathBuf,
    pub(crate) mounts: Vec<PathBuf>,
    pub(crate) landlock: landlock::OnNode,
    pub(crate) strings: title::Strings,
    pub(crate) apparmor: Option<apparmor::Profile>,
    pub(crate) hooks: StartHooks,
    pub(crate) ready: RefCell<Option<Ready<E::Guest>>>,
}

/// The startContainer hooks and what they are told.
pub(crate) struct StartHooks {
    pub(crate) hooks: Vec<Hook>,
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) annotations: Option<HashMap<String, String>>,
}

/// What `validate` leaves for `exec`.
pub(crate) struct Ready<G> {
    guest: G,
    listener: Option<Listener>,
}

impl<E: Engine> Init<E> {
    pub(crate) fn new(parts: Parts<E>) -> Self {
        Self(Rc::new(parts))
    }
}

impl<E: Engine> Clone for Init<E> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<E: Engine> Executor for Init<E> {
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        self.0.prepare().map_err(|failure| {
            journal::leave(&failure);
            ExecutorValidationError::ArgValidationError(failure.message)
        })
    }

    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // The guest gets its environment from the engine; this process has none (see `title`).
        Ok(())
    }

    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        let program = &self.0.program;
        let how = self
            .0
            .run()
            .unwrap_or_else(|reason| GuestExit::StartFailed(one_line(&reason)).into());
        end(report::exit(&program.name, &how, program.fuel))
    }
}

impl<E: Engine> Parts<E> {
    /// Everything that can fail early.
    fn prepare(&self) -> Result<(), Failure> {
        report::panics_end_the_container(&self.program.name);
        // The answer is the runner's: as long as the init holds the socket, the shim sees no end.
        close(fd::CONTROL);
        // libcontainer has changed the user.
        hidden::hide().map_err(|e| internal("hide /proc of this process", &e))?;
        capabilities::as_after_exec().map_err(|e| Failure {
            reason: FailureReason::Internal,
            message: format!("capabilities cannot be set: {e}"),
        })?;
        signals::install().map_err(|e| internal("signal handlers", &e))?;
        title::set_name(&format!("wasmlet {}", base_name(&self.program.name)));
        // SAFETY: libcontainer's init has one thread. Nothing reads the environment from here on:
        // `setup_envs` is ours, hooks get an environment of their own, and the engine gets the
        // guest's as data.
        unsafe {
            self.strings
                .overwrite(&format!("wasmlet {}", self.program.name));
        };
        let listener = match self.program.listen {
            None => None,
            Some(address) => Some(Listener::bind(address).map_err(|error| Failure {
                reason: FailureReason::InvalidArgument,
                message: format!(
                    "cannot listen on {address}: {error}; set wasmlet.dev/listen to another \
                     address, or to none"
                ),
            })?),
        };
        // SAFETY: the shim passed the artifact as this descriptor (checked in `create`), and
        // nothing else in this process owns it.
        let artifact = unsafe { File::from_raw_fd(fd::ARTIFACT) };
        let guest = self.engine.load(artifact, &self.program)?;
        self.ready.replace(Some(Ready { guest, listener }));
        Ok(())
    }

    /// From the start message to the guest's end.
    fn run(&self) -> Result<End, String> {
        let Ready { guest, listener } = self
            .ready
            .take()
            .ok_or("the init was started without having been prepared")?;
        self.start_hooks()?;
        if let Some(profile) = &self.apparmor {
            profile
                .apply()
                .map_err(|e| format!("AppArmor profile: {e}"))?;
        }
        journal::forget();
        let preopens = preopens::find(&self.mounts, &self.cwd)
            .map_err(|e| format!("the root folder cannot be read: {e}"))?;

        let mut keep = vec![fd::ARTIFACT];
        keep.extend(listener.as_ref().map(AsRawFd::as_raw_fd));
        fds::close_all_except(&keep)
            .map_err(|e| format!("descriptors cannot be closed: {e} (needs Linux 5.9)"))?;
        capabilities::reduce(self.program.kind)
            .map_err(|e| format!("capabilities cannot be dropped: {e}"))?;
        landlock::restrict(&preopens, self.landlock).map_err(|e| chain(&e))?;
        seccomp::forbid_new_code().map_err(|e| chain(&e))?;

        // The pages of libcontainer's deep frames and of its freed data.
        wasmlet_sys::release_unused_memory();
        // A guest that serves has a limit for each request, which only its engine can keep.
        if let (Some(limit), None) = (self.program.timeout, &listener) {
            deadline::set(&self.program.name, limit)
                .map_err(|e| format!("no timer for wasmlet.dev/timeout: {e}"))?;
        }
        Ok(guest.run(&self.program, Surroundings { preopens, listener }))
    }

    /// By us and not by libcontainer, which would leave with 255 and no word when one fails.
    fn start_hooks(&self) -> Result<(), String> {
        if self.hooks.hooks.is_empty() {
            return Ok(());
        }
        let mut state = State::new(
            &self.hooks.id,
            ContainerStatus::Created,
            i32::try_from(std::process::id()).ok(),
            self.hooks.bundle.clone(),
        );
        state.annotations.clone_from(&self.hooks.annotations);
        let env: HashMap<String, String> = self.program.env.iter().cloned().collect();
        run_hooks(
            Some(&self.hooks.hooks),
            Some(&state),
            None,
            None,
            Some(&env),
        )
        .map_err(|e| format!("startContainer hook: {}", chain(&e)))
    }
}

/// Leaves at once: no destructor and no exit handler of this half-copied process may run.
pub(crate) fn end(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

fn close(fd: i32) {
    // SAFETY: the init never uses the control socket; `create` only lets go of it in the runner's
    // main process. A descriptor that is not open is no harm.
    unsafe { libc::close(fd) };
}

fn internal(what: &str, error: &io::Error) -> Failure {
    Failure {
        reason: FailureReason::Internal,
        message: format!("{what}: {error}"),
    }
}

fn base_name(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// The code with which a container ends that could not be started.
pub(crate) const START_FAILED: i32 = ExitCode::StartFailed.code();
