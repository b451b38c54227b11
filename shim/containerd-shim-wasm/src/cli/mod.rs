//! The command line that containerd uses, and the few words for ourselves.

mod delete;
mod info;
pub mod inspect;
pub mod resolve_image;
mod start;

use std::ffi::OsString;
use std::path::PathBuf;

use containerd_shim::Flags;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Flags that cannot be parsed.
    #[error("the command line cannot be parsed")]
    Flags(#[source] containerd_shim::Error),
    /// `start`.
    #[error("start")]
    Start(#[from] start::StartError),
    /// `delete`.
    #[error("delete")]
    Delete(#[from] delete::DeleteError),
    /// `-info`.
    #[error("-info")]
    Info(#[from] info::InfoError),
    /// `inspect`.
    #[error("inspect")]
    Inspect(#[from] inspect::InspectError),
    /// `resolve-image`.
    #[error("resolve-image")]
    ResolveImage(#[from] resolve_image::ResolveImageError),
}

const USAGE: &str = "usage: containerd-shim-wasm-v1 inspect [--json] MODULE, which tells what a module needs and \
                     which engines can run it, or\n       containerd-shim-wasm-v1 [-v] [-info] -namespace NS \
                     -id ID -address SOCKET [-bundle DIR] start|delete (containerd runs this program; see \
                     README.md)";

/// Runs the command line.
///
/// # Errors
/// Everything, for `main` to print.
pub fn run(arguments: Vec<OsString>) -> Result<(), CliError> {
    if arguments
        .first()
        .is_some_and(|word| word == resolve_image::WORD)
    {
        return Ok(resolve_image::run(arguments.get(1..).unwrap_or_default())?);
    }
    if let Some((word, rest)) = arguments.split_first() {
        if word == inspect::WORD {
            return Ok(inspect::run(rest)?);
        }
        if word == inspect::FOR_SHIM {
            return Ok(inspect::for_shim(rest)?);
        }
    }
    if arguments
        .iter()
        .any(|word| word == "--help" || word == "-h" || word == "-help")
    {
        println!("{USAGE}");
        return Ok(());
    }
    let flags = containerd_shim::parse(&arguments).map_err(CliError::Flags)?;
    if flags.version {
        info::print_version();
        return Ok(());
    }
    if flags.info {
        return Ok(info::run()?);
    }
    match flags.action.as_str() {
        "start" => Ok(start::run(&needed(flags)?)?),
        "delete" => Ok(delete::run(&needed(flags)?)?),
        "" => Err(CliError::Usage(USAGE.to_owned())),
        other => Err(CliError::Usage(format!(
            "unknown action {other:?}; {USAGE}"
        ))),
    }
}

/// Both actions need to know which container is meant.
fn needed(flags: Flags) -> Result<Flags, CliError> {
    for (name, value) in [("-id", &flags.id), ("-namespace", &flags.namespace)] {
        if value.is_empty() {
            return Err(CliError::Usage(format!("{name} is missing; {USAGE}")));
        }
        if value.contains('/') {
            return Err(CliError::Usage(format!(
                "{name} {value:?} must not contain a slash"
            )));
        }
    }
    Ok(flags)
}

/// The bundle: named, or the working folder.
fn bundle(flags: &Flags) -> std::io::Result<PathBuf> {
    if flags.bundle.is_empty() {
        std::env::current_dir()
    } else {
        Ok(PathBuf::from(&flags.bundle))
    }
}
