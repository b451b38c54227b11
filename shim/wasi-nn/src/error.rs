//! What can go wrong, and as which code a guest sees it.

use wasmtime_wasi_nn::backend::BackendError;

/// The classes of errors that both ABIs have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The guest's arguments are wrong.
    InvalidArgument,
    /// There is no backend for models in this form.
    InvalidEncoding,
    /// The model or its computation is.
    RuntimeError,
    /// It is not supported here.
    UnsupportedOperation,
    /// It takes more memory than there is.
    TooLarge,
    /// No model has that name.
    NotFound,
}

/// Why a guest's call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name nobody gave.
    #[error("no model is named {name:?}; wasmlet.dev/nn-models names {known}")]
    NoSuchModel {
        /// What the guest asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A model's file.
    #[error(transparent)]
    Model(#[from] crate::models::ModelError),
    /// Another form than ONNX.
    #[error("models in the encoding {0} cannot be loaded here; convert the model to ONNX")]
    Encoding(String),
    /// Another place than the processor.
    #[error("this host computes on its CPU only, and the guest asks for the target {0}")]
    Target(String),
    /// Weights beside the model, or several models.
    #[error("an ONNX model is one buffer, and the guest passes {0}")]
    Builders(usize),
    /// A handle the guest was not given.
    #[error("there is no {what} with the handle {handle}")]
    Handle {
        /// What the handle should be of.
        what: &'static str,
        /// The handle.
        handle: u32,
    },
    /// Too many of something.
    #[error("a guest may have {limit} {what} at a time")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many it may have.
        limit: usize,
    },
    /// A size beyond our own bounds.
    #[error("{what} has {bytes} bytes, and at most {limit} are taken")]
    TooLong {
        /// What it is.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The bound.
        limit: u64,
    },
    /// More dimensions than anything has.
    #[error("a tensor of {0} dimensions is not taken; at most {max} are", max = crate::MAX_RANK)]
    Rank(u64),
    /// More memory than the container may have.
    #[error(
        "{what} takes about {bytes} bytes of memory, which is more than is left of {limit}: raise the \
         container's memory limit or wasmlet.dev/memory"
    )]
    Memory {
        /// For what.
        what: &'static str,
        /// How much.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A tensor that is no tensor.
    #[error("the tensor {shape} of {kind} has {wanted} bytes, and the guest passes {given}")]
    Length {
        /// Its dimensions.
        shape: String,
        /// Its type.
        kind: String,
        /// Bytes by shape and type.
        wanted: u64,
        /// Bytes passed.
        given: u64,
    },
    /// A value of an enumeration that it does not have.
    #[error("{value} is no {what}")]
    Value {
        /// Name of the enumeration.
        what: &'static str,
        /// What the guest passed.
        value: u32,
    },
    /// A name that is no text.
    #[error("the name of the model is not UTF-8")]
    NotText,
    /// An input or output the model does not have.
    #[error("the model has no {what} {asked}; it has {known}")]
    NoSuchTensor {
        /// `input` or `output`.
        what: &'static str,
        /// Index or name.
        asked: String,
        /// Those it has, with their names.
        known: String,
    },
    /// An input that does not fit the model.
    #[error("the input {name} is {wanted}, and the guest passes {given}")]
    Input {
        /// Its name.
        name: String,
        /// Type and shape by the model.
        wanted: String,
        /// Type and shape of what the guest passes.
        given: String,
    },
    /// Not all inputs are there.
    #[error("the input {0} is not set")]
    MissingInput(String),
    /// One is there twice.
    #[error("the input {0} is passed twice")]
    InputTwice(String),
    /// Nothing was computed.
    #[error("there is no output yet: compute comes first")]
    NotComputed,
    /// A type of numbers that wasi-nn has no name for.
    #[error("the {what} {name} is of type {kind}, which wasi-nn does not have")]
    Type {
        /// `input` or `output`.
        what: &'static str,
        /// Its name.
        name: String,
        /// The model's type.
        kind: String,
    },
    /// The guest's buffer.
    #[error("the output has {wanted} bytes, and the guest's buffer {given}")]
    Buffer {
        /// Bytes of the output.
        wanted: u64,
        /// Bytes of the buffer.
        given: u64,
    },
    /// What is in the model cannot be used.
    #[error("the model cannot be loaded: {0}")]
    Load(String),
    /// A model that can be loaded and not be run.
    #[error("the model cannot be computed: {0}")]
    Compute(String),
    /// No thread to load a model in.
    #[error(
        "no thread to load the model in: {0}; does the container's pids limit leave room for one?"
    )]
    Thread(String),
    /// An error of a backend that is not ours.
    #[error("{0}")]
    Backend(String),
}

impl Error {
    /// The class.
    pub fn code(&self) -> Code {
        match self {
            Self::NoSuchModel { .. } => Code::NotFound,
            Self::Encoding(_) => Code::InvalidEncoding,
            Self::Target(_) | Self::Type { .. } => Code::UnsupportedOperation,
            Self::Builders(_)
            | Self::Handle { .. }
            | Self::Rank(_)
            | Self::Length { .. }
            | Self::Value { .. }
            | Self::NotText
            | Self::NoSuchTensor { .. }
            | Self::Input { .. }
            | Self::MissingInput(_)
            | Self::InputTwice(_) => Code::InvalidArgument,
            Self::TooMany { .. }
            | Self::TooLong { .. }
            | Self::Memory { .. }
            | Self::Buffer { .. } => Code::TooLarge,
            Self::Model(_)
            | Self::NotComputed
            | Self::Load(_)
            | Self::Compute(_)
            | Self::Thread(_)
            | Self::Backend(_) => Code::RuntimeError,
        }
    }
}

/// The way through the backend's traits.
impl From<Error> for BackendError {
    fn from(error: Error) -> Self {
        Self::BackendAccess(wasmtime::Error::new(error))
    }
}

/// And back.
impl From<BackendError> for Error {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::BackendAccess(error) => match error.downcast::<Self>() {
                Ok(ours) => ours,
                Err(error) => Self::Backend(format!("{error:#}")),
            },
            BackendError::InvalidNumberOfBuilders(_, given) => Self::Builders(given),
            other => Self::Backend(other.to_string()),
        }
    }
}

/// A text on one line and of bounded length: what a library says of a model quotes the model.
pub(crate) fn one_line(text: &str) -> String {
    const MAX: usize = 300;
    let mut line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX)
        .collect();
    if text.chars().nth(MAX).is_some() {
        line.push('…');
    }
    line
}
