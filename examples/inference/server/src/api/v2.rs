//! The Open Inference Protocol, version 2, over HTTP with JSON (no extensions).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{App, MODEL_VERSION};
use crate::http::Response;
use crate::model::{Dim, Numbers, Output, RunFailure, TensorInfo};

mod numbers;

use numbers::Flat;

#[derive(Serialize)]
struct ServerMetadata {
    name: &'static str,
    version: &'static str,
    extensions: [&'static str; 0],
}

pub(super) fn server_metadata() -> Response {
    let body = ServerMetadata {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        extensions: [],
    };
    Response::json(200, &body)
}

pub(super) fn live() -> Response {
    #[derive(Serialize)]
    struct Body {
        live: bool,
    }
    Response::json(200, &Body { live: true })
}

pub(super) fn ready() -> Response {
    #[derive(Serialize)]
    struct Body {
        ready: bool,
    }
    Response::json(200, &Body { ready: true })
}

pub(super) fn model_ready(app: &App) -> Response {
    #[derive(Serialize)]
    struct Body<'a> {
        name: &'a str,
        ready: bool,
    }
    Response::json(
        200,
        &Body {
            name: &app.name,
            ready: true,
        },
    )
}

#[derive(Serialize)]
struct ModelMetadata<'a> {
    name: &'a str,
    versions: [&'static str; 1],
    platform: &'static str,
    inputs: Vec<TensorMetadata<'a>>,
    outputs: Vec<TensorMetadata<'a>>,
}

#[derive(Serialize)]
struct TensorMetadata<'a> {
    name: &'a str,
    datatype: &'static str,
    /// -1 where any length goes.
    shape: Vec<i64>,
}

impl<'a> From<&'a TensorInfo> for TensorMetadata<'a> {
    fn from(info: &'a TensorInfo) -> Self {
        let side = |dim: &Dim| match dim {
            Dim::Fixed(size) => i64::try_from(*size).unwrap_or(i64::MAX),
            Dim::Open => -1,
        };
        TensorMetadata {
            name: &info.name,
            datatype: info.datatype,
            shape: info.dims.iter().map(side).collect(),
        }
    }
}

pub(super) fn model_metadata(app: &App) -> Response {
    let body = ModelMetadata {
        name: &app.name,
        versions: [MODEL_VERSION],
        platform: "onnx",
        inputs: vec![app.model.input().into()],
        outputs: app.model.outputs().iter().map(Into::into).collect(),
    };
    Response::json(200, &body)
}

/// Unknown members, `parameters` among them, are ignored: that is what the protocol asks for.
#[derive(Deserialize)]
struct InferRequest {
    id: Option<String>,
    inputs: Vec<InputTensor>,
    #[serde(default)]
    outputs: Vec<WantedOutput>,
}

#[derive(Deserialize)]
struct InputTensor {
    name: String,
    shape: Vec<usize>,
    datatype: String,
    data: Flat,
}

#[derive(Deserialize)]
struct WantedOutput {
    name: String,
}

#[derive(Serialize)]
struct InferAnswer<'a> {
    model_name: &'a str,
    model_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    outputs: Vec<OutputTensor>,
}

#[derive(Serialize)]
struct OutputTensor {
    name: String,
    datatype: &'static str,
    shape: Vec<usize>,
    data: OutputData,
}

#[derive(Serialize)]
#[serde(untagged)]
enum OutputData {
    Float(Vec<f32>),
    Int(Vec<i32>),
}

impl From<Output> for OutputTensor {
    fn from(output: Output) -> Self {
        let (datatype, data) = match output.data {
            Numbers::Float(data) => ("FP32", OutputData::Float(data)),
            Numbers::Int(data) => ("INT32", OutputData::Int(data)),
        };
        OutputTensor {
            name: output.name,
            datatype,
            shape: output.shape,
            data,
        }
    }
}

/// What is wrong with a request to infer: the client's doing, all of it.
#[derive(Debug, thiserror::Error)]
enum InferError {
    #[error("not an inference request: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0} inputs given; the model takes one, {1:?}")]
    Inputs(usize, String),
    #[error("no input {0:?}; the model's is {1:?}")]
    InputName(String, String),
    #[error("datatype {0:?} given; the model takes \"FP32\"")]
    Datatype(String),
    #[error("shape {given:?} given; the model takes {wanted}")]
    Shape { given: Vec<usize>, wanted: String },
    #[error("{numbers} numbers in data, but shape {shape:?} has room for {room}")]
    Length {
        numbers: usize,
        shape: Vec<usize>,
        room: usize,
    },
    #[error("no output {0:?}; the model has {1}")]
    OutputName(String, String),
}

pub(super) fn infer(app: &mut App, body: &[u8], inference: &mut Option<Duration>) -> Response {
    let (request, input) = match checked(app, body) {
        Ok(checked) => checked,
        Err(error) => return Response::error(400, error),
    };
    let outputs = match app.timed(inference, |model| model.run(&input.shape, input.data.0)) {
        Ok(outputs) => outputs,
        // A shape the model declares open and then cannot work with is the client's choice; what
        // else fails is ours.
        Err(error @ (RunFailure::Run(_) | RunFailure::OutputType(_))) => {
            return Response::error(500, error);
        }
        Err(error @ RunFailure::Length { .. }) => return Response::error(400, error),
    };
    let wanted = |output: &Output| {
        request.outputs.is_empty()
            || request
                .outputs
                .iter()
                .any(|wanted| wanted.name == output.name)
    };
    let answer = InferAnswer {
        model_name: &app.name,
        model_version: MODEL_VERSION,
        id: request.id,
        outputs: outputs.into_iter().filter(wanted).map(Into::into).collect(),
    };
    Response::json(200, &answer)
}

fn checked(app: &App, body: &[u8]) -> Result<(InferRequest, InputTensor), InferError> {
    let mut request: InferRequest = serde_json::from_slice(body)?;
    let info = app.model.input();
    let input = match (request.inputs.pop(), request.inputs.len()) {
        (Some(input), 0) => input,
        (last, others) => {
            return Err(InferError::Inputs(
                others + usize::from(last.is_some()),
                info.name.clone(),
            ));
        }
    };
    if input.name != info.name {
        return Err(InferError::InputName(input.name, info.name.clone()));
    }
    if input.datatype != "FP32" {
        return Err(InferError::Datatype(input.datatype));
    }
    let fits = input.shape.len() == info.dims.len()
        && input
            .shape
            .iter()
            .zip(&info.dims)
            .all(|(side, dim)| match dim {
                Dim::Fixed(size) => side == size,
                Dim::Open => *side > 0,
            });
    if !fits {
        return Err(InferError::Shape {
            given: input.shape,
            wanted: info.to_string(),
        });
    }
    let room = input
        .shape
        .iter()
        .fold(1_usize, |room, side| room.saturating_mul(*side));
    if room != input.data.0.len() {
        return Err(InferError::Length {
            numbers: input.data.0.len(),
            shape: input.shape,
            room,
        });
    }
    let has = |name: &str| app.model.outputs().iter().any(|output| output.name == name);
    if let Some(unknown) = request.outputs.iter().find(|wanted| !has(&wanted.name)) {
        let names: Vec<String> = app
            .model
            .outputs()
            .iter()
            .map(|output| format!("{:?}", output.name))
            .collect();
        return Err(InferError::OutputName(
            unknown.name.clone(),
            names.join(", "),
        ));
    }
    Ok((request, input))
}
