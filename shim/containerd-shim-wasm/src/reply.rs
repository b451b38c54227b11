//! The only door out for errors: a status code and a sentence.
//!
//! containerd acts on the code (NotFound means "already gone"), the kubelet shows the sentence.

use std::io::ErrorKind;

use containerd_shim_protos::ttrpc::{self, Code};
use wasmlet_protocol::FailureReason;

use crate::cgroup::CgroupError;
use crate::error::Error;
use crate::stdio::StdioError;

/// Turns an error into what ttrpc sends.
pub fn status(error: &Error) -> ttrpc::Error {
    ttrpc::Error::RpcStatus(ttrpc::get_status(code(error), crate::chain(error)))
}

/// The code for each cause.
pub fn code(error: &Error) -> Code {
    match error {
        Error::UnknownContainer(_) | Error::UnknownExec { .. } | Error::Gone(_) => Code::NOT_FOUND,
        // The cgroup went before the question came.
        Error::Cgroup(CgroupError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => {
            Code::NOT_FOUND
        }
        Error::ContainerExists(_) | Error::ExecExists { .. } => Code::ALREADY_EXISTS,
        Error::Denied { .. } | Error::NoTerminal { .. } => Code::FAILED_PRECONDITION,
        Error::NotForWasm { .. } | Error::RestoreUnsupported => Code::UNIMPLEMENTED,
        Error::BadRequest { .. }
        | Error::LimitTooSmall { .. }
        | Error::Options(_)
        | Error::Annotation(_)
        | Error::Spec(_)
        | Error::SpecIncomplete { .. }
        | Error::Entrypoint(_)
        | Error::Image(_)
        | Error::Engine(_)
        | Error::Stdio(
            StdioError::Scheme { .. } | StdioError::Open { .. } | StdioError::Logger { .. },
        ) => Code::INVALID_ARGUMENT,
        Error::Failure { failure, .. } => match failure.reason {
            FailureReason::InvalidArgument => Code::INVALID_ARGUMENT,
            FailureReason::Unsupported => Code::UNIMPLEMENTED,
            FailureReason::ResourceExhausted | FailureReason::DiskFull => Code::RESOURCE_EXHAUSTED,
            FailureReason::NotFound => Code::NOT_FOUND,
            FailureReason::Internal => Code::INTERNAL,
        },
        Error::CompileBound { .. } => Code::RESOURCE_EXHAUSTED,
        Error::Stdio(StdioError::Terminal(_) | StdioError::Pipe(_) | StdioError::Owner { .. })
        | Error::Runc(_)
        | Error::Program { .. }
        | Error::CompilerCrashed { .. }
        | Error::Cache(_)
        | Error::Rootfs(_)
        | Error::Cgroup(_)
        | Error::Record(_)
        | Error::Path(_)
        | Error::System { .. } => Code::INTERNAL,
    }
}
