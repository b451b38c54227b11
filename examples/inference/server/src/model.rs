//! The ONNX model: reading it, what it takes and gives, running it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rten::{DataType, Dimension, Model, NodeId, RunError, Value, ValueType};
use rten_tensor::Tensor;
use rten_tensor::prelude::*;

use crate::picture::{Channels, Order, Shape};

/// One axis of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dim {
    /// Always this long.
    Fixed(usize),
    /// As long as the caller likes, for instance the batch.
    Open,
}

/// Name and shape of an input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name in the graph.
    pub name: String,
    /// Its axes.
    pub dims: Vec<Dim>,
    /// `FP32` and so on, as the Open Inference Protocol calls it.
    pub datatype: &'static str,
}

/// What the model gave for one output.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its numbers.
    pub data: Numbers,
}

/// The numbers of an output.
#[derive(Clone, Debug, PartialEq)]
pub enum Numbers {
    /// Of a float output.
    Float(Vec<f32>),
    /// Of an integer output.
    Int(Vec<i32>),
}

/// A loaded model of pictures.
pub struct Classifier {
    model: Model,
    input_id: NodeId,
    output_ids: Vec<NodeId>,
    input: TensorInfo,
    outputs: Vec<TensorInfo>,
    picture: Shape,
    classes: usize,
}

/// Why a model cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file.
    #[error("cannot read the model {path}; mount it there, or set MODEL", path = path.display())]
    Read {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not ONNX, or an operator nobody has.
    #[error("{path} is not an ONNX model this server can run", path = path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rten::LoadError,
    },
    /// Several inputs.
    #[error("the model has {0} inputs; this server feeds one, a picture")]
    Inputs(usize),
    /// No output.
    #[error("the model has no output")]
    NoOutput,
    /// Text and the like.
    #[error("input {name:?} of the model is of type {datatype}; this server feeds float32")]
    InputType {
        /// The input.
        name: String,
        /// Its type.
        datatype: &'static str,
    },
    /// Not the shape of a picture.
    #[error(
        "input {name:?} of the model has the shape {shape}; a picture is 1 x 1 or 3 x height x width, or \
         1 x height x width x 1 or 3"
    )]
    InputShape {
        /// The input.
        name: String,
        /// Its shape.
        shape: String,
    },
    /// Open height or width.
    #[error(
        "the model leaves height or width of input {name:?} open ({shape}): set SIZE to the side it was trained with"
    )]
    SizeOpen {
        /// The input.
        name: String,
        /// Its shape.
        shape: String,
    },
    /// Too large to be meant.
    #[error(
        "the model takes pictures of {width}x{height} pixels; at most 1024 per side are supported"
    )]
    Huge {
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
    },
    /// The first run.
    #[error("the model does not run on a picture of its own size")]
    FirstRun(#[source] RunFailure),
    /// Not one number per class.
    #[error(
        "the first output of the model has the shape {0:?}; a classifier gives one number per class"
    )]
    NotAClassifier(Vec<usize>),
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunFailure {
    /// The engine.
    #[error("the model failed: {0}")]
    Run(#[source] RunError),
    /// The caller.
    #[error("{numbers} numbers do not fill the shape {shape:?}")]
    Length {
        /// Numbers given.
        numbers: usize,
        /// Shape given.
        shape: Vec<usize>,
    },
    /// An output that is neither float nor integer, or a sequence.
    #[error("output {0:?} is not a tensor of float32 or int32")]
    OutputType(String),
}

impl Classifier {
    /// Reads the file, prepares it and runs it once, so that a model that cannot work is found
    /// before the first request.
    pub fn load(path: &Path, size: Option<usize>) -> Result<Classifier, ModelError> {
        let bytes = fs::read(path).map_err(|source| ModelError::Read {
            path: path.to_owned(),
            source,
        })?;
        let model = Model::load(bytes).map_err(|source| ModelError::Load {
            path: path.to_owned(),
            source,
        })?;
        Classifier::new(model, size)
    }

    fn new(model: Model, size: Option<usize>) -> Result<Classifier, ModelError> {
        let &[input_id] = model.input_ids() else {
            return Err(ModelError::Inputs(model.input_ids().len()));
        };
        let output_ids = model.output_ids().to_vec();
        if output_ids.is_empty() {
            return Err(ModelError::NoOutput);
        }
        let input = info(&model, input_id);
        if input.datatype != "FP32" {
            return Err(ModelError::InputType {
                name: input.name,
                datatype: input.datatype,
            });
        }
        let picture = picture_shape(&input, size)?;
        let outputs = output_ids.iter().map(|id| info(&model, *id)).collect();
        let mut classifier = Classifier {
            model,
            input_id,
            output_ids,
            input,
            outputs,
            picture,
            classes: 0,
        };

        let first = classifier
            .run(
                &classifier.picture_dims(),
                vec![0.0; classifier.picture_len()],
            )
            .map_err(ModelError::FirstRun)?
            .swap_remove(0);
        classifier.classes = match (&first.data, first.shape.iter().product::<usize>()) {
            (Numbers::Float(_), n) if n > 1 && first.shape.contains(&n) => n,
            _ => return Err(ModelError::NotAClassifier(first.shape)),
        };
        Ok(classifier)
    }

    /// What it takes.
    pub fn input(&self) -> &TensorInfo {
        &self.input
    }

    /// What it gives.
    pub fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    /// The picture it takes.
    pub fn picture(&self) -> Shape {
        self.picture
    }

    /// How many classes it tells apart.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// How many weights it has.
    pub fn parameters(&self) -> usize {
        self.model.total_params()
    }

    /// Runs it on numbers of any shape it accepts; every output, in the model's order.
    pub fn run(&self, shape: &[usize], data: Vec<f32>) -> Result<Vec<Output>, RunFailure> {
        let numbers = data.len();
        let tensor = Tensor::try_from_data(shape, data).map_err(|_| RunFailure::Length {
            numbers,
            shape: shape.to_vec(),
        })?;
        let values = self
            .model
            .run(vec![(self.input_id, tensor.into())], &self.output_ids, None)
            .map_err(RunFailure::Run)?;
        self.outputs
            .iter()
            .zip(values)
            .map(|(info, value)| output(&info.name, value))
            .collect()
    }

    /// The probability of each class for one picture.
    pub fn classify(&self, picture: Vec<f32>) -> Result<Vec<f32>, RunFailure> {
        let first = self.run(&self.picture_dims(), picture)?.swap_remove(0);
        match first.data {
            Numbers::Float(scores) => Ok(probabilities(scores)),
            Numbers::Int(_) => Err(RunFailure::OutputType(first.name)),
        }
    }

    fn picture_dims(&self) -> [usize; 4] {
        let Shape {
            channels,
            height,
            width,
            order,
        } = self.picture;
        let (channels, height, width) = (channels.count(), height as usize, width as usize);
        match order {
            Order::ChannelsFirst => [1, channels, height, width],
            Order::ChannelsLast => [1, height, width, channels],
        }
    }

    fn picture_len(&self) -> usize {
        self.picture_dims().iter().product()
    }
}

impl std::fmt::Display for TensorInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sides: Vec<String> = self
            .dims
            .iter()
            .map(|dim| match dim {
                Dim::Fixed(size) => size.to_string(),
                Dim::Open => "?".to_owned(),
            })
            .collect();
        f.write_str(&sides.join(" x "))
    }
}

fn info(model: &Model, id: NodeId) -> TensorInfo {
    let node = model.node_info(id);
    let dims = node
        .as_ref()
        .and_then(|node| node.shape())
        .unwrap_or_default();
    TensorInfo {
        name: node
            .as_ref()
            .and_then(|node| node.name())
            .unwrap_or_default()
            .to_owned(),
        dims: dims
            .into_iter()
            .map(|dim| match dim {
                Dimension::Fixed(size) => Dim::Fixed(size),
                Dimension::Symbolic(_) => Dim::Open,
            })
            .collect(),
        datatype: match node.and_then(|node| node.dtype()) {
            Some(ValueType::Tensor(DataType::Float)) => "FP32",
            Some(ValueType::Tensor(DataType::Int32)) => "INT32",
            Some(ValueType::Tensor(DataType::Int8)) => "INT8",
            Some(ValueType::Tensor(DataType::UInt8)) => "UINT8",
            _ => "unknown",
        },
    }
}

fn picture_shape(input: &TensorInfo, size: Option<usize>) -> Result<Shape, ModelError> {
    let wrong = || ModelError::InputShape {
        name: input.name.clone(),
        shape: input.to_string(),
    };
    let &[batch, a, b, c] = input.dims.as_slice() else {
        return Err(wrong());
    };
    if !matches!(batch, Dim::Fixed(1) | Dim::Open) {
        return Err(wrong());
    }
    let channels = |dim| match dim {
        Dim::Fixed(1) => Some(Channels::Grey),
        Dim::Fixed(3) => Some(Channels::Rgb),
        _ => None,
    };
    let (channels, height, width, order) = match (channels(a), channels(c)) {
        (Some(channels), _) => (channels, b, c, Order::ChannelsFirst),
        (None, Some(channels)) => (channels, a, b, Order::ChannelsLast),
        (None, None) => return Err(wrong()),
    };
    let side = |dim| match (dim, size) {
        (Dim::Fixed(side), _) => Ok(side),
        (Dim::Open, Some(size)) => Ok(size),
        (Dim::Open, None) => Err(ModelError::SizeOpen {
            name: input.name.clone(),
            shape: input.to_string(),
        }),
    };
    let (height, width) = (side(height)?, side(width)?);
    match (u32::try_from(height), u32::try_from(width)) {
        (Ok(height @ 1..=1024), Ok(width @ 1..=1024)) => Ok(Shape {
            channels,
            height,
            width,
            order,
        }),
        _ => Err(ModelError::Huge { width, height }),
    }
}

fn output(name: &str, value: Value) -> Result<Output, RunFailure> {
    let shape = value.shape().to_vec();
    let data = match value {
        Value::FloatTensor(tensor) => Numbers::Float(tensor.into_data()),
        Value::Int32Tensor(tensor) => Numbers::Int(tensor.into_data()),
        _ => return Err(RunFailure::OutputType(name.to_owned())),
    };
    Ok(Output {
        name: name.to_owned(),
        shape,
        data,
    })
}

/// Scores as a distribution. A model that ends in a softmax has done it already; applied twice it
/// would flatten.
fn probabilities(mut scores: Vec<f32>) -> Vec<f32> {
    let sum: f32 = scores.iter().sum();
    if (sum - 1.0).abs() < 1e-3 && scores.iter().all(|score| (0.0..=1.0).contains(score)) {
        return scores;
    }
    // The largest first, so that nothing overflows.
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for score in &mut scores {
        *score = (*score - largest).exp();
    }
    let sum: f32 = scores.iter().sum();
    for score in &mut scores {
        *score /= sum;
    }
    scores
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
