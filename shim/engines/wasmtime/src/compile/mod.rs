//! The compile helper: one module or component in, one artifact out, then it ends.
//!
//! It runs in a cgroup of the node with its own bounds and reads bytes that nobody has checked; a
//! crash here is an error message in a pod and nothing more.

mod bounds;
mod check;
mod facts;
mod source;

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, FromRawFd};
use std::process::ExitCode;
use std::time::Instant;

use wasmlet_protocol::{
    CompileReport, CompileRequest, Compiled, Failure, FailureReason, GuestKind, PROTOCOL, fd,
};
use wasmtime::Engine;

use crate::settings::Profile;

/// Largest module that is read: far more than any that compiles within the bounds of a node.
const MODULE_LIMIT_BYTES: u64 = 512 << 20;

/// Why there is no artifact.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompileError {
    #[error("the shim speaks protocol {0}, this helper {PROTOCOL}; install both from one release")]
    Protocol(u32),
    #[error("wasmtime has no profile {0:?}")]
    Profile(String),
    #[error("cannot follow process {parent}, the shim that asked for this: {source}")]
    Parent { parent: u32, source: io::Error },
    #[error("process {parent}, the shim that asked for this, is gone")]
    Orphan { parent: u32 },
    #[error("cannot limit the {what} of the compile helper: {source}")]
    Limit {
        what: &'static str,
        source: io::Error,
    },
    #[error("cannot join {}: {source}", path.display())]
    Cgroup {
        path: std::path::PathBuf,
        source: io::Error,
    },
    #[error("the module cannot be read: {0}")]
    Read(#[source] io::Error),
    #[error("the module is larger than {} MiB", MODULE_LIMIT_BYTES >> 20)]
    TooLarge,
    #[error(transparent)]
    Source(#[from] source::SourceError),
    #[error("wasmtime does not start: {0}")]
    Engine(String),
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Imports(#[from] check::ImportError),
    #[error("the artifact cannot be written: {0}")]
    Write(#[source] io::Error),
    #[error("the artifact does not load: {0}")]
    Load(String),
}

impl CompileError {
    fn reason(&self) -> FailureReason {
        match self {
            Self::Profile(_) | Self::Source(_) | Self::Invalid(_) => FailureReason::InvalidArgument,
            Self::Imports(error) => error.reason(),
            Self::TooLarge => FailureReason::ResourceExhausted,
            Self::Write(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                FailureReason::ResourceExhausted
            }
            Self::Write(error) if is_full(error) => FailureReason::DiskFull,
            Self::Protocol(_)
            | Self::Parent { .. }
            | Self::Orphan { .. }
            | Self::Limit { .. }
            | Self::Cgroup { .. }
            | Self::Read(_)
            | Self::Engine(_)
            | Self::Write(_)
            | Self::Load(_) => FailureReason::Internal,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// The main function of the helper: `compile REQUEST`, with the request as JSON.
///
/// Exit code 0 when a report was written, whatever it says; 2 for a wrong command line; 1 when the
/// report could not be written.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os()
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    let request: CompileRequest = match arguments.as_slice() {
        [_, verb, request] if verb == "compile" => match serde_json::from_str(request) {
            Ok(request) => request,
            Err(error) => {
                eprintln!("REQUEST is not valid: {error}");
                return ExitCode::from(2);
            }
        },
        _ => {
            eprintln!(
                "usage: wasmlet-aot-wasmtime compile REQUEST (JSON; the shim runs this program, \
                 with the module on descriptor 0 and an empty file on descriptor 3)"
            );
            return ExitCode::from(2);
        }
    };
    report_panics(&request.name);
    let report = match compile(&request) {
        Ok(compiled) => CompileReport::Compiled(compiled),
        Err(error) => CompileReport::Failed(Failure {
            reason: error.reason(),
            message: format!("{}: {error}", request.name),
        }),
    };
    match write_report(&report) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the report cannot be written: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write_report(report: &CompileReport) -> io::Result<()> {
    let json = serde_json::to_vec(report)?;
    let mut stdout = io::stdout().lock();
    stdout.write_all(&json)?;
    stdout.flush()
}

/// A panic of the compiler is a report like every other.
fn report_panics(name: &str) {
    let name = name.to_owned();
    std::panic::set_hook(Box::new(move |panic| {
        let message = format!(
            "{name}: internal error of the compiler: {}",
            one_line(&panic.to_string())
        );
        let failure = Failure {
            reason: FailureReason::Internal,
            message,
        };
        // Nobody is left to tell when this fails.
        let _ = write_report(&CompileReport::Failed(failure));
        std::process::abort();
    }));
}

fn compile(request: &CompileRequest) -> Result<Compiled, CompileError> {
    if request.protocol != PROTOCOL {
        return Err(CompileError::Protocol(request.protocol));
    }
    let profile = Profile::from_name(&request.profile)
        .ok_or_else(|| CompileError::Profile(request.profile.clone()))?;
    // Before the first byte of the module, and before there are threads.
    bounds::follow_parent(request)?;
    bounds::join(&request.cgroup_procs)?;
    bounds::apply(request)?;

    let started = Instant::now();
    let (wasm, kind) = source::wasm(read()?)?;
    let engine = Engine::new(&profile.config()).map_err(|e| CompileError::Engine(text(&e)))?;
    let artifact = match kind {
        GuestKind::Module => engine.precompile_module(&wasm),
        GuestKind::Component => engine.precompile_component(&wasm),
    }
    .map_err(|error| CompileError::Invalid(explain(&error, profile)))?;
    let memory = facts::minimum_memory(&wasm);
    drop(wasm);
    let output = output();
    (&*output)
        .write_all(&artifact)
        .map_err(CompileError::Write)?;
    drop(artifact);

    // What was written is loaded as the runner will, so that an artifact that does not load is
    // never published.
    let file = File::from(
        output
            .as_fd()
            .try_clone_to_owned()
            .map_err(CompileError::Write)?,
    );
    let facts = check::load(&engine, kind, file)?;
    Ok(Compiled {
        kind,
        exports: facts.exports,
        wants_listener: facts.wants_listener,
        min_memory: memory,
        peak_memory: bounds::peak_memory(),
        millis: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

fn read() -> Result<Vec<u8>, CompileError> {
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .take(MODULE_LIMIT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(CompileError::Read)?;
    if bytes.len() as u64 > MODULE_LIMIT_BYTES {
        return Err(CompileError::TooLarge);
    }
    Ok(bytes)
}

fn output() -> ManuallyDrop<File> {
    // SAFETY: the shim passes the output as this descriptor and nothing else in this process owns
    // it; `ManuallyDrop` keeps a number from being closed that was never open.
    ManuallyDrop::new(unsafe { File::from_raw_fd(fd::COMPILE_OUTPUT) })
}

/// The engine's reason, with what to do where a proposal is switched off.
fn explain(error: &wasmtime::Error, profile: Profile) -> String {
    let reason = text(error);
    if reason.contains("not enabled")
        || reason.contains("must be enabled")
        || reason.contains("support is not enabled")
    {
        return format!(
            "{reason}: the profile {} has this feature of WebAssembly switched off; build the \
             program without it",
            profile.name()
        );
    }
    reason
}

/// An error and its causes on one line.
pub(crate) fn text(error: &wasmtime::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let part = one_line(&cause.to_string());
        if !parts.last().is_some_and(|last| last.contains(&part)) {
            parts.push(part);
        }
    }
    parts.join(": ")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
