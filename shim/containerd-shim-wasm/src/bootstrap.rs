//! What `start` and `-info` read on stdin, and the reply in the form the caller understands.
//!
//! | containerd | stdin of `start` | reply |
//! |---|---|---|
//! | 1.6, 1.7, 2.0–2.2 | runtime options (`Any`) or nothing; the rest in flags and environment | a bare address: all of them take it for task API version 2 |
//! | 2.3 and later | `BootstrapParams` | `BootstrapResult` |
//!
//! A JSON reply would do for 1.7 to 2.2, but 1.6 takes any text for an address and dials it. Why the
//! version is 2 everywhere: docs/decisions/0007.

use std::io::{IsTerminal, Read};

use containerd_shim::bootstrap::{BootstrapParams, BootstrapResult, LogLevel};
use containerd_shim::{Flags, StartOpts};
use containerd_shim_protos::protobuf::{self, Enum, Message, well_known_types::any::Any};

use crate::log::Verbosity;

/// Bound on what is read from stdin, the same as containerd's own.
const MAX_INPUT_BYTES: u64 = 10 << 20;

/// What the reply says of us. From version 3 on containerd takes a shim for one that cleans its whole
/// pod up itself: it runs neither `start` nor `delete` for the pod's further containers and tells nobody
/// of their end when the shim dies. The task service is registered under both names all the same.
const SHIM_VERSION: i32 = 2;

/// The form of the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyForm {
    /// containerd before 2.3.
    BareAddress,
    /// containerd 2.3 and later.
    BootstrapResult,
}

/// What containerd tells a shim that it starts.
#[derive(Debug, PartialEq)]
pub struct StartParams {
    /// Socket for the events, ttrpc.
    pub ttrpc_address: String,
    /// containerd's main socket, gRPC.
    pub grpc_address: String,
    /// Folder for the shim's socket, if containerd has a wish.
    pub socket_dir: Option<String>,
    /// How much to log.
    pub verbosity: Verbosity,
    /// Runtime options.
    pub options: Option<Any>,
    /// How to answer.
    pub reply: ReplyForm,
}

/// Why stdin or the environment cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// Reading failed.
    #[error("cannot read standard input")]
    Read(#[source] std::io::Error),
    /// The message is for another shim.
    #[error(
        "bootstrap parameters are for {got_namespace}/{got_id}, the command line says {namespace}/{id}"
    )]
    Mismatch {
        /// Id on stdin.
        got_id: String,
        /// Namespace on stdin.
        got_namespace: String,
        /// Id on the command line.
        id: String,
        /// Namespace on the command line.
        namespace: String,
    },
    /// No way to publish events.
    #[error(
        "containerd's ttrpc address is missing: set TTRPC_ADDRESS or send bootstrap parameters"
    )]
    NoTtrpcAddress,
    /// Not a protobuf `Any`.
    #[error("standard input holds no runtime options")]
    Options(#[source] protobuf::Error),
}

/// Reads stdin (nothing from a terminal).
///
/// # Errors
/// When reading fails.
pub fn read_stdin() -> Result<Vec<u8>, BootstrapError> {
    let stdin = std::io::stdin();
    let mut input = Vec::new();
    if !stdin.is_terminal() {
        stdin
            .lock()
            .take(MAX_INPUT_BYTES)
            .read_to_end(&mut input)
            .map_err(BootstrapError::Read)?;
    }
    Ok(input)
}

/// The runtime options that `-info` gets on stdin, if any.
///
/// # Errors
/// When stdin is not empty and holds something else.
pub fn info_options(input: &[u8]) -> Result<Option<Any>, BootstrapError> {
    if input.is_empty() {
        return Ok(None);
    }
    Any::parse_from_bytes(input)
        .map(Some)
        .map_err(BootstrapError::Options)
}

/// Decides which protocol the caller speaks and brings both into one form.
///
/// # Errors
/// [`BootstrapError::Mismatch`] and [`BootstrapError::NoTtrpcAddress`].
pub fn start_params(
    input: &[u8],
    flags: &Flags,
    env: impl Fn(&str) -> Option<String>,
) -> Result<StartParams, BootstrapError> {
    let bootstrap = match BootstrapParams::parse_from_bytes(input) {
        Ok(params) if !input.is_empty() => checked(params, flags)?,
        _ => None,
    };
    let mut params = match bootstrap {
        Some(params) => StartParams {
            ttrpc_address: params.containerd_ttrpc_address,
            grpc_address: params.containerd_grpc_address,
            socket_dir: params.socket_dir.filter(|dir| !dir.is_empty()),
            // The enum is open: a level this program does not know counts by its number.
            verbosity: if params.log_level.value() <= LogLevel::LOG_LEVEL_DEBUG.value() {
                Verbosity::Debug
            } else {
                Verbosity::Normal
            },
            options: params
                .extensions
                .into_iter()
                .filter_map(|extension| extension.value.into_option())
                .find(crate::options::is_options),
            reply: ReplyForm::BootstrapResult,
        },
        None => StartParams {
            ttrpc_address: env("TTRPC_ADDRESS").unwrap_or_default(),
            grpc_address: env("GRPC_ADDRESS").unwrap_or_default(),
            socket_dir: None,
            verbosity: Verbosity::Normal,
            options: Any::parse_from_bytes(input)
                .ok()
                .filter(|any| !any.type_url.is_empty()),
            reply: ReplyForm::BareAddress,
        },
    };
    if !flags.address.is_empty() {
        params.grpc_address = flags.address.clone();
    }
    if flags.debug {
        params.verbosity = Verbosity::Debug;
    }
    if params.ttrpc_address.is_empty() {
        return Err(BootstrapError::NoTtrpcAddress);
    }
    Ok(params)
}

/// `Some` when the message is for this shim, `None` when it is no bootstrap message at all.
fn checked(
    params: BootstrapParams,
    flags: &Flags,
) -> Result<Option<BootstrapParams>, BootstrapError> {
    if params.instance_id == flags.id && params.namespace == flags.namespace {
        return Ok(Some(params));
    }
    // Runtime options are an `Any`, whose two fields have the numbers and types of the first two
    // of BootstrapParams. A message with more in it is a real one, for somebody else.
    let more = !params.containerd_ttrpc_address.is_empty()
        || !params.containerd_grpc_address.is_empty()
        || !params.extensions.is_empty()
        || params.log_level.value() != 0;
    if more {
        return Err(BootstrapError::Mismatch {
            got_id: params.instance_id,
            got_namespace: params.namespace,
            id: flags.id.clone(),
            namespace: flags.namespace.clone(),
        });
    }
    Ok(None)
}

/// Address of the socket for a group of containers, as containerd expects it.
pub fn socket_address(params: &StartParams, namespace: &str, group: &str) -> String {
    let start = StartOpts {
        address: params.grpc_address.clone(),
        namespace: namespace.to_owned(),
        socket_dir: params.socket_dir.clone(),
        ..Default::default()
    };
    start.socket_address(group)
}

/// The reply to `start`.
///
/// # Errors
/// When protobuf cannot encode it, which needs an address of more than 2 GiB.
pub fn encode_reply(address: &str, form: ReplyForm) -> Result<Vec<u8>, protobuf::Error> {
    match form {
        ReplyForm::BareAddress => Ok(address.as_bytes().to_vec()),
        ReplyForm::BootstrapResult => BootstrapResult {
            version: SHIM_VERSION,
            address: address.to_owned(),
            protocol: "ttrpc".to_owned(),
            ..Default::default()
        }
        .write_to_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use containerd_shim::bootstrap::Extension;
    use containerd_shim_protos::protobuf::EnumOrUnknown;

    use super::*;

    fn flags() -> Flags {
        Flags {
            id: "c1".into(),
            namespace: "k8s.io".into(),
            address: "/run/c.sock".into(),
            ..Default::default()
        }
    }

    fn env(name: &str) -> Option<String> {
        (name == "TTRPC_ADDRESS").then(|| "/run/c.sock.ttrpc".to_owned())
    }

    fn options() -> Any {
        Any {
            type_url: "containerd.runc.v1.Options".into(),
            value: vec![0x48, 1],
            ..Default::default()
        }
    }

    fn bootstrap() -> BootstrapParams {
        BootstrapParams {
            instance_id: "c1".into(),
            namespace: "k8s.io".into(),
            log_level: EnumOrUnknown::new(LogLevel::LOG_LEVEL_INFO),
            containerd_ttrpc_address: "/run/new.ttrpc".into(),
            containerd_grpc_address: "/run/c.sock".into(),
            extensions: vec![Extension {
                value: Some(options()).into(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn nothing_on_stdin_is_an_old_containerd() {
        let params = start_params(&[], &flags(), env).expect("complete");
        assert_eq!(params.reply, ReplyForm::BareAddress);
        assert_eq!(params.ttrpc_address, "/run/c.sock.ttrpc");
        assert_eq!(params.options, None);
    }

    #[test]
    fn options_on_stdin_are_an_old_containerd() {
        let input = options().write_to_bytes().expect("encodes");
        let params = start_params(&input, &flags(), env).expect("complete");
        assert_eq!(params.reply, ReplyForm::BareAddress);
        assert_eq!(params.options, Some(options()));
    }

    #[test]
    fn bootstrap_parameters_are_a_new_containerd() {
        let input = bootstrap().write_to_bytes().expect("encodes");
        let params = start_params(&input, &flags(), |_| None).expect("complete");
        assert_eq!(params.reply, ReplyForm::BootstrapResult);
        assert_eq!(params.ttrpc_address, "/run/new.ttrpc");
        assert_eq!(params.options, Some(options()));
        assert_eq!(params.verbosity, Verbosity::Normal);
    }

    #[test]
    fn bootstrap_parameters_of_another_shim_are_refused() {
        let mut other = bootstrap();
        other.instance_id = "c2".into();
        let input = other.write_to_bytes().expect("encodes");
        let error = start_params(&input, &flags(), env).expect_err("a mix-up");
        assert!(error.to_string().contains("k8s.io/c2"), "{error}");
    }

    #[test]
    fn a_shim_that_cannot_publish_events_does_not_start() {
        let error = start_params(&[], &flags(), |_| None).expect_err("no address");
        assert!(error.to_string().contains("TTRPC_ADDRESS"), "{error}");
    }

    #[test]
    fn an_old_containerd_gets_nothing_but_the_address() {
        let reply = encode_reply("unix:///run/s/1", ReplyForm::BareAddress).expect("encodes");
        assert_eq!(reply, b"unix:///run/s/1");
        let reply = encode_reply("unix:///run/s/1", ReplyForm::BootstrapResult).expect("encodes");
        let result = BootstrapResult::parse_from_bytes(&reply).expect("decodes");
        assert_eq!(
            (result.version, result.address.as_str()),
            (SHIM_VERSION, "unix:///run/s/1")
        );
    }
}
