//! The backend: ONNX on tract, on one thread.

use std::any::Any;
use std::cell::Cell;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::{Arc, Once};

use bytes::Bytes;
use prost::Message;
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::{
    DatumType, InferenceModelExt, IntoRunnable, SpecialOps, TValue, TVec, Tensor as Value,
    TractError, TractResult, TypedFact, TypedModel, TypedRunnableModel,
};
use tract_onnx::tract_core::ops::cast::cast;
use wasmtime_wasi_nn::backend::{
    BackendError, BackendExecutionContext, BackendFromDir, BackendGraph, BackendInner, Id,
    NamedTensor,
};
use wasmtime_wasi_nn::wit::{ExecutionTarget, GraphEncoding, TensorType};
use wasmtime_wasi_nn::{ExecutionContext, Graph, Tensor};

use crate::budget::{Budget, Taken};
use crate::error::{Error, one_line};
use crate::host::Onnx;

/// Stack of the thread that loads a model: tract's optimiser goes deep, and the guest's own stack has room
/// for host functions of the usual kind only. Untouched pages cost nothing.
const LOADING_STACK: usize = 16 << 20;

/// tract.
#[derive(Debug)]
pub struct Tract {
    budget: Budget,
}

impl Tract {
    /// A backend whose tensors count in that budget.
    pub fn new(budget: Budget) -> Self {
        Self { budget }
    }
}

impl BackendInner for Tract {
    fn encoding(&self) -> GraphEncoding {
        GraphEncoding::Onnx
    }

    fn load(&mut self, builders: &[&[u8]], target: ExecutionTarget) -> Result<Graph, BackendError> {
        if target != ExecutionTarget::Cpu {
            return Err(Error::Target(crate::host::target_name(target).to_owned()).into());
        }
        match builders {
            [model] => self.load_owned(model.to_vec()),
            _ => Err(Error::Builders(builders.len()).into()),
        }
    }

    fn as_dir_loadable(&mut self) -> Option<&mut dyn BackendFromDir> {
        None
    }
}

impl Onnx for Tract {
    fn load_owned(&mut self, model: Vec<u8>) -> Result<Graph, BackendError> {
        let loading = std::thread::Builder::new()
            .name("wasi-nn load".to_owned())
            .stack_size(LOADING_STACK)
            .spawn(|| guarded(|| Model::load(model)))
            .map_err(|error| Error::Thread(error.to_string()))?;
        let loaded = loading
            .join()
            .unwrap_or_else(|panic| Err(panic_text(&*panic)));
        let model = flat(loaded).map_err(Error::Load)?;
        let graph: Box<dyn BackendGraph> = Box::new(Loaded {
            model: Arc::new(model),
            budget: self.budget.clone(),
        });
        Ok(graph.into())
    }
}

/// A model ready to run.
#[derive(Debug)]
struct Model {
    plan: Arc<TypedRunnableModel>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

/// An input or an output.
#[derive(Debug)]
struct Port {
    name: String,
    kind: DatumType,
    /// A dimension that the model leaves open is none.
    shape: Vec<Option<usize>>,
}

impl Model {
    fn load(model: Vec<u8>) -> TractResult<Self> {
        let proto = ModelProto::decode(Bytes::from(model))?;
        // No folder: weights in files beside the model are refused, wherever the model came from.
        let parsed = tract_onnx::onnx().parse(&proto, None)?;
        drop(proto);
        if !parsed.unresolved_inputs.is_empty() {
            return Err(TractError::msg(format!(
                "it uses values that nothing in it computes: {}",
                parsed.unresolved_inputs.join(", ")
            )));
        }
        let model = parsed.model;
        // By the names that the file has for them: those of the optimised model differ.
        let inputs: Vec<String> = model
            .input_outlets()?
            .iter()
            .map(|outlet| model.node(outlet.node).name.clone())
            .collect();
        let outputs: Vec<String> = model
            .output_outlets()?
            .iter()
            .map(|outlet| match model.outlet_label(*outlet) {
                Some(label) => label.to_owned(),
                None => model.node(outlet.node).name.clone(),
            })
            .collect();
        let plan = sizes_as_numbers(model.into_typed()?)?
            .into_optimized()?
            .into_runnable()?;
        let typed = plan.model();
        let port =
            |(name, fact): (String, TractResult<&TypedFact>)| fact.map(|f| Port::new(name, f));
        let facts = (0..inputs.len()).map(|index| typed.input_fact(index));
        let inputs = inputs
            .into_iter()
            .zip(facts)
            .map(port)
            .collect::<TractResult<_>>()?;
        let facts = (0..outputs.len()).map(|index| typed.output_fact(index));
        let outputs = outputs
            .into_iter()
            .zip(facts)
            .map(port)
            .collect::<TractResult<_>>()?;
        Ok(Self {
            plan,
            inputs,
            outputs,
        })
    }

    fn run(&self, inputs: TVec<TValue>) -> Result<TVec<TValue>, Error> {
        let computed = guarded(|| self.plan.run(inputs));
        flat(computed).map_err(Error::Compute)
    }
}

/// Makes 64-bit integers of outputs that are sizes of tensors: tract computes with those as formulas.
fn sizes_as_numbers(mut model: TypedModel) -> TractResult<TypedModel> {
    let mut outputs = model.output_outlets()?.to_vec();
    for (index, outlet) in outputs.iter_mut().enumerate() {
        if model.outlet_fact(*outlet)?.datum_type == DatumType::TDim {
            let name = format!("wasmlet.output.{index}");
            if let Some(wire) = model
                .wire_node(name, cast(DatumType::I64), &[*outlet])?
                .first()
            {
                *outlet = *wire;
            }
        }
    }
    model.select_output_outlets(&outputs)?;
    Ok(model)
}

impl Port {
    fn new(name: String, fact: &TypedFact) -> Self {
        Self {
            name,
            kind: fact.datum_type,
            shape: fact
                .shape
                .iter()
                .map(|dim| usize::try_from(dim.to_i64().ok()?).ok())
                .collect(),
        }
    }

    /// What the guest passes, as tract takes it.
    fn value(&self, tensor: &Tensor) -> Result<Value, Error> {
        let shape: Vec<usize> = tensor.dimensions.iter().map(|d| *d as usize).collect();
        let kind = kind_of(tensor.ty);
        let open = self.shape.iter().zip(&shape);
        let fits = self.shape.len() == shape.len()
            && open.fold(true, |fits, (wanted, given)| {
                fits && wanted.is_none_or(|wanted| wanted == *given)
            });
        let Some(kind) = kind.filter(|kind| *kind == self.kind && fits) else {
            return Err(Error::Input {
                name: self.name.clone(),
                wanted: describe(kind_name(self.kind), self.shape.iter().copied()),
                given: describe(type_name(tensor.ty), shape.into_iter().map(Some)),
            });
        };
        let wanted = shape
            .iter()
            .try_fold(kind.size_of(), |bytes, dim| bytes.checked_mul(*dim));
        if wanted != Some(tensor.data.len()) {
            return Err(Error::Length {
                shape: describe("", shape.into_iter().map(Some)),
                kind: type_name(tensor.ty).to_owned(),
                wanted: wanted.unwrap_or(usize::MAX) as u64,
                given: tensor.data.len() as u64,
            });
        }
        // Zeros first, as every safe way to make one of bytes copies them.
        let mut value = Value::zero_dt(kind, &shape)
            .map_err(|e| Error::Compute(one_line(&format!("{e:#}"))))?;
        value.as_bytes_mut().copy_from_slice(&tensor.data);
        Ok(value)
    }

    /// What was computed, as the guest takes it.
    fn tensor(&self, value: &Value) -> Result<Tensor, Error> {
        let unsupported = || Error::Type {
            what: "output",
            name: self.name.clone(),
            kind: kind_name(value.datum_type()),
        };
        let ty = type_of(value.datum_type()).ok_or_else(unsupported)?;
        if !value.is_plain_ram() {
            return Err(unsupported());
        }
        let dimensions = value
            .shape()
            .iter()
            .map(|dim| u32::try_from(*dim))
            .collect::<Result<_, _>>()
            .map_err(|_| Error::TooLong {
                what: "an output",
                bytes: value.as_bytes().len() as u64,
                limit: u64::from(u32::MAX),
            })?;
        Ok(Tensor::new(dimensions, ty, value.as_bytes().to_vec()))
    }
}

/// A loaded model as a graph of wasi-nn.
struct Loaded {
    model: Arc<Model>,
    budget: Budget,
}

impl BackendGraph for Loaded {
    fn init_execution_context(&self) -> Result<ExecutionContext, BackendError> {
        let context: Box<dyn BackendExecutionContext> = Box::new(Context {
            inputs: self.model.inputs.iter().map(|_| None).collect(),
            outputs: None,
            model: Arc::clone(&self.model),
            budget: self.budget.clone(),
        });
        Ok(context.into())
    }
}

/// What a guest computes with.
struct Context {
    model: Arc<Model>,
    budget: Budget,
    /// They stay for the next computation.
    inputs: Vec<Option<Held>>,
    outputs: Option<Vec<Held>>,
}

/// A tensor and the memory it takes.
struct Held {
    value: TValue,
    _memory: Taken,
}

impl Context {
    fn hold(&self, value: TValue) -> Result<Held, Error> {
        let bytes = (value.volume() as u64).saturating_mul(value.datum_type().size_of() as u64);
        Ok(Held {
            _memory: self.budget.take("a tensor", bytes)?,
            value,
        })
    }

    fn set(&mut self, index: usize, tensor: &Tensor) -> Result<(), Error> {
        let value = self.model.inputs[index].value(tensor)?;
        // What was there before is given back first.
        self.inputs[index] = None;
        self.inputs[index] = Some(self.hold(value.into())?);
        Ok(())
    }

    /// Computes all outputs from inputs that are all there.
    fn run(&self, inputs: TVec<TValue>) -> Result<Vec<Held>, Error> {
        self.model
            .run(inputs)?
            .into_iter()
            .map(|value| self.hold(value))
            .collect()
    }

    fn compute_held(&mut self) -> Result<(), Error> {
        self.outputs = None;
        let mut values = TVec::new();
        for (port, input) in self.model.inputs.iter().zip(&self.inputs) {
            let input = input
                .as_ref()
                .ok_or_else(|| Error::MissingInput(port.name.clone()))?;
            values.push(input.value.clone());
        }
        self.outputs = Some(self.run(values)?);
        Ok(())
    }

    fn compute_named(&self, named: Vec<NamedTensor>) -> Result<Vec<NamedTensor>, Error> {
        let mut inputs: Vec<Option<Held>> = self.model.inputs.iter().map(|_| None).collect();
        for NamedTensor { name, tensor } in named {
            let index = find("input", &self.model.inputs, &Id::Name(name))?;
            let port = &self.model.inputs[index];
            if inputs[index].is_some() {
                return Err(Error::InputTwice(port.name.clone()));
            }
            inputs[index] = Some(self.hold(port.value(&tensor)?.into())?);
        }
        let mut values = TVec::new();
        for (port, input) in self.model.inputs.iter().zip(&inputs) {
            let input = input
                .as_ref()
                .ok_or_else(|| Error::MissingInput(port.name.clone()))?;
            values.push(input.value.clone());
        }
        self.run(values)?
            .iter()
            .zip(&self.model.outputs)
            .map(|(held, port)| {
                Ok(NamedTensor {
                    name: port.name.clone(),
                    tensor: port.tensor(&held.value)?,
                })
            })
            .collect()
    }
}

impl BackendExecutionContext for Context {
    fn set_input(&mut self, id: Id, tensor: &Tensor) -> Result<(), BackendError> {
        let index = find("input", &self.model.inputs, &id)?;
        Ok(self.set(index, tensor)?)
    }

    fn get_output(&mut self, id: Id) -> Result<Tensor, BackendError> {
        let index = find("output", &self.model.outputs, &id)?;
        let held = self
            .outputs
            .as_ref()
            .and_then(|outputs| outputs.get(index))
            .ok_or(Error::NotComputed)?;
        Ok(self.model.outputs[index].tensor(&held.value)?)
    }

    fn compute(
        &mut self,
        inputs: Option<Vec<NamedTensor>>,
    ) -> Result<Option<Vec<NamedTensor>>, BackendError> {
        match inputs {
            None => {
                self.compute_held()?;
                Ok(None)
            }
            Some(inputs) => Ok(Some(self.compute_named(inputs)?)),
        }
    }
}

/// Index of an input or output.
fn find(what: &'static str, ports: &[Port], id: &Id) -> Result<usize, Error> {
    let found = match id {
        Id::Index(index) => Some(*index as usize).filter(|index| *index < ports.len()),
        Id::Name(name) => ports.iter().position(|port| port.name == *name),
    };
    found.ok_or_else(|| Error::NoSuchTensor {
        what,
        asked: match id {
            Id::Index(index) => index.to_string(),
            Id::Name(name) => one_line(&format!("{name:?}")),
        },
        known: one_line(
            &ports
                .iter()
                .enumerate()
                .map(|(index, port)| format!("{index} ({})", port.name))
                .collect::<Vec<_>>()
                .join(", "),
        ),
    })
}

const TYPES: [(TensorType, DatumType, &str); 6] = [
    (TensorType::Fp16, DatumType::F16, "f16"),
    (TensorType::Fp32, DatumType::F32, "f32"),
    (TensorType::Fp64, DatumType::F64, "f64"),
    (TensorType::U8, DatumType::U8, "u8"),
    (TensorType::I32, DatumType::I32, "i32"),
    (TensorType::I64, DatumType::I64, "i64"),
];

fn kind_of(ty: TensorType) -> Option<DatumType> {
    TYPES.iter().find(|t| t.0 == ty).map(|t| t.1)
}

fn type_of(kind: DatumType) -> Option<TensorType> {
    TYPES.iter().find(|t| t.1 == kind).map(|t| t.0)
}

fn type_name(ty: TensorType) -> &'static str {
    TYPES.iter().find(|t| t.0 == ty).map_or("bf16", |t| t.2)
}

fn kind_name(kind: DatumType) -> String {
    match TYPES.iter().find(|t| t.1 == kind) {
        Some(known) => known.2.to_owned(),
        None => format!("{kind:?}").to_lowercase(),
    }
}

/// `f32 1x3x?x?`.
fn describe(kind: impl Display, shape: impl Iterator<Item = Option<usize>>) -> String {
    let dims: Vec<String> = shape
        .map(|dim| dim.map_or("?".to_owned(), |dim| dim.to_string()))
        .collect();
    let dims = if dims.is_empty() {
        "scalar".to_owned()
    } else {
        dims.join("x")
    };
    format!("{kind} {dims}").trim().to_owned()
}

thread_local! {
    /// A panic of this thread is the model's.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs tract on what a guest or a file made up.
///
/// tract has panics where a model breaks an assumption of its own. The runner takes a panic for its own
/// error and ends the container; here it is an error of the model.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if !GUARDED.get() {
                before(panic);
            }
        }));
    });
    GUARDED.set(true);
    // What a panic leaves half done is dropped: a model that is being loaded, or the state of one
    // computation, which begins anew each time.
    let done = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(false);
    done.map_err(|panic| panic_text(&*panic))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no reason given");
    one_line(&format!("tract gave up: {text}"))
}

fn flat<T>(outcome: Result<TractResult<T>, String>) -> Result<T, String> {
    outcome?.map_err(|error| one_line(&format!("{error:#}")))
}
