//! A compile helper without its engine.
//!
//! A helper is a program `wasmlet-aot-<engine>` whose main function is [`main`] with a [`Compiler`]. One
//! module or component in, one artifact out, then it ends:
//!
//! ```text
//! shim ──request (argv), module (fd 0)──▶ bounds ─▶ source ─▶ Compiler::compile ─▶ artifact (fd 3)
//!      ◀──report (fd 1)───────────────────────────────────── facts ◀──────┘
//! ```
//!
//! It runs in a cgroup of the node with its own bounds and reads bytes that nobody has checked; a crash
//! here is an error message in a pod and nothing more.

mod bounds;
mod error;

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::process::ExitCode;
use std::time::Instant;

use wasmlet_protocol::{
    CompileReport, CompileRequest, Compiled, Failure, FailureReason, GuestKind, PROTOCOL, fd,
};

pub use error::CompileError;

/// Largest module that is read, in bytes: far more than any that compiles within the bounds of a node.
pub const MODULE_LIMIT_BYTES: u64 = 512 << 20;

/// An engine's compiler.
pub trait Compiler {
    /// The engine's name, as in the program's.
    fn engine(&self) -> &'static str;

    /// Compiles a guest, writes the artifact, and checks that it loads and that the runner has all that
    /// it imports, so that what cannot run is never published.
    ///
    /// `output` is an empty file without a name, open for reading and writing, at its start.
    ///
    /// # Errors
    /// What is wrong with the guest, or what of the node failed.
    fn compile(
        &self,
        source: &Source<'_>,
        variant: &Variant,
        output: &File,
    ) -> Result<(), CompileError>;
}

/// What is to be compiled: WebAssembly as to its first eight bytes, and nothing is known of the rest.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Name for messages.
    pub name: &'a str,
    /// The binary form.
    pub wasm: &'a [u8],
    /// What its header says.
    pub kind: GuestKind,
}

/// What it is compiled for: all but the last is part of the artifact's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// Profile by name.
    pub profile: String,
    /// The code has to count fuel.
    pub metered: bool,
    /// The code of a server has to be one that can be interrupted.
    pub interruptible: bool,
    /// The compiler crashed on the module before: another way through it is wanted, if there is one, and
    /// slower code is fine.
    pub unoptimised: bool,
}

/// The main function of a helper: `compile REQUEST`, with the request as JSON.
///
/// Exit code 0 when a report was written, whatever it says; 2 for a wrong command line; 1 when the
/// report could not be written.
pub fn main(compiler: impl Compiler) -> ExitCode {
    let arguments: Vec<String> = std::env::args_os()
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    match arguments.as_slice() {
        [_, verb, request] if verb == "compile" => answer(&compiler, request),
        _ => {
            eprintln!(
                "usage: {}{} compile REQUEST (JSON; the shim runs this program, with the module on \
                 descriptor 0 and an empty file on descriptor 3)",
                wasmlet_protocol::COMPILER_PREFIX,
                compiler.engine()
            );
            ExitCode::from(2)
        }
    }
}

/// Answers one request, which is JSON: all of [`main`] but the command line.
pub fn answer(compiler: &impl Compiler, request: &str) -> ExitCode {
    let request: CompileRequest = match serde_json::from_str(request) {
        Ok(request) => request,
        Err(error) => {
            eprintln!("REQUEST is not valid: {error}");
            return ExitCode::from(2);
        }
    };
    report_panics(&request.name);
    let report = match compile(compiler, &request) {
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

fn compile(compiler: &impl Compiler, request: &CompileRequest) -> Result<Compiled, CompileError> {
    if request.protocol != PROTOCOL {
        return Err(CompileError::Protocol(request.protocol));
    }
    // Before the first byte of the module, and before there are threads.
    bounds::follow_parent(request)?;
    bounds::join(&request.cgroup_procs)?;
    bounds::apply(request)?;

    let started = Instant::now();
    let (wasm, kind) = wasmlet_inspect::wasm(read()?)?;
    let source = Source {
        name: &request.name,
        wasm: &wasm,
        kind,
    };
    let variant = Variant {
        profile: request.profile.clone(),
        metered: request.metered,
        interruptible: request.interruptible,
        unoptimised: request.unoptimised,
    };
    compiler.compile(&source, &variant, &output())?;
    // After the engine, whose words about what is not valid are better.
    let facts = wasmlet_inspect::facts(&wasm, kind)?;
    Ok(Compiled {
        kind,
        exports: facts.exports,
        wants_listener: facts.wants_listener,
        needs: facts.needs,
        min_memory: facts.min_memory,
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

/// Whitespace of any kind becomes single spaces.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
