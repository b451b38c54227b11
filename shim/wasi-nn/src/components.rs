//! `wasi:nn`: wasi-nn of components.
//!
//! What is wrong is an `error` with a code and a sentence. Bad handles and, where a function has no way to
//! answer with an error, too many tensors are traps.

use wasmtime::component::{Component, HasData, Linker, Resource, ResourceTable};
use wasmtime::{Engine, Error as Trap, Result};
use wasmtime_wasi_nn::Tensor;
use wasmtime_wasi_nn::backend::NamedTensor;
use wasmtime_wasi_nn::wit::{
    ExecutionTarget as HostTarget, GraphEncoding as HostEncoding, TensorType as HostType,
};

use crate::budget::{Budget, One, Taken, Thing};
use crate::error::{Code, Error};
use crate::host::{ContextHandle, GraphHandle, Host, check_tensor};

/// Begin of the names of its interfaces.
pub const PREFIX: &str = "wasi:nn/";

/// The version that there is.
pub const VERSION: &str = "0.2.0-rc-2024-10-28";

mod bindings {
    wasmtime::component::bindgen!({
        world: "ml",
        path: "wit/wasi-nn.wit",
        with: {
            "wasi:nn/graph.graph": crate::components::GraphResource,
            "wasi:nn/tensor.tensor": crate::components::TensorResource,
            "wasi:nn/inference.graph-execution-context": crate::components::ContextResource,
            "wasi:nn/errors.error": crate::components::ErrorResource,
        },
        imports: { default: trappable },
    });
}
use bindings::wasi::nn::errors::ErrorCode;
use bindings::wasi::nn::graph::{ExecutionTarget, GraphEncoding};
use bindings::wasi::nn::tensor::TensorType;
use bindings::wasi::nn::{errors, graph, inference, tensor};

/// What a component has of wasi-nn.
#[derive(Debug)]
pub struct State {
    host: Host,
    /// Of its own, so that handles of wasi-nn are bounded apart from those of WASI.
    table: ResourceTable,
}

impl State {
    /// With nothing loaded.
    pub fn new(host: Host) -> Self {
        Self {
            host,
            table: ResourceTable::new(),
        }
    }
}

/// A graph of the guest's.
pub struct GraphResource(GraphHandle);

/// An execution context of the guest's.
pub struct ContextResource(ContextHandle);

/// A tensor of the guest's.
pub struct TensorResource {
    tensor: Tensor,
    _memory: Taken,
    _one: One,
}

/// An error that the guest was answered with.
pub struct ErrorResource {
    code: ErrorCode,
    text: String,
    _one: One,
}

/// Whether a component imports any of it.
pub fn wanted_by(engine: &Engine, component: &Component) -> bool {
    component
        .component_type()
        .imports(engine)
        .any(|(name, _)| name.starts_with(PREFIX))
}

/// Gives a linker the interfaces. `state` is asked at each call; a guest without a state of wasi-nn
/// traps.
///
/// # Errors
/// When the linker has interfaces of these names already.
pub fn add_to_linker<T: 'static>(
    linker: &mut Linker<T>,
    state: fn(&mut T) -> View<'_>,
) -> Result<()> {
    graph::add_to_linker::<_, Has>(linker, state)?;
    tensor::add_to_linker::<_, Has>(linker, state)?;
    inference::add_to_linker::<_, Has>(linker, state)?;
    errors::add_to_linker::<_, Has>(linker, state)
}

/// The state during a call.
#[derive(Debug)]
pub struct View<'a>(Option<&'a mut State>);

impl<'a> View<'a> {
    /// Of a guest that may have none.
    pub fn new(state: Option<&'a mut State>) -> Self {
        Self(state)
    }

    fn state(&mut self) -> Result<&mut State> {
        self.0
            .as_deref_mut()
            .ok_or_else(|| Trap::msg("wasi:nn: not set up"))
    }
}

struct Has;

impl HasData for Has {
    type Data<'a> = View<'a>;
}

/// What a function of wasi-nn answers.
type Answer<T> = Result<std::result::Result<T, Resource<ErrorResource>>>;

impl State {
    fn answer<T>(&mut self, done: std::result::Result<T, Error>) -> Answer<T> {
        match done {
            Ok(answer) => Ok(Ok(answer)),
            Err(error) => {
                let resource = ErrorResource {
                    code: code_of(error.code()),
                    text: error.to_string(),
                    _one: self.host.budget.one(Thing::Resource)?,
                };
                Ok(Err(self.table.push(resource)?))
            }
        }
    }

    /// A tensor that counts.
    fn tensor(budget: &Budget, tensor: Tensor) -> std::result::Result<TensorResource, Error> {
        check_tensor(tensor.dimensions.len() as u64, tensor.data.len() as u64)?;
        Ok(TensorResource {
            _one: budget.one(Thing::Resource)?,
            _memory: budget.take("a tensor", tensor.data.len() as u64)?,
            tensor,
        })
    }

    fn compute(
        &mut self,
        context: &Resource<ContextResource>,
        inputs: Vec<(String, Resource<TensorResource>)>,
    ) -> Answer<Vec<(String, Resource<TensorResource>)>> {
        let mut named = Vec::new();
        let mut memory = Vec::new();
        for (name, tensor) in inputs {
            let TensorResource {
                tensor, _memory, ..
            } = self.table.delete(tensor)?;
            named.push(NamedTensor { name, tensor });
            memory.push(_memory);
        }
        let budget = self.host.budget.clone();
        let context = self.table.get_mut(context)?;
        let computed = context
            .0
            .context
            .compute_with_io(named)
            .map_err(Error::from)
            .and_then(|outputs| {
                outputs
                    .into_iter()
                    .map(|output| Ok((output.name, Self::tensor(&budget, output.tensor)?)))
                    .collect::<std::result::Result<Vec<_>, Error>>()
            });
        drop(memory);
        let outputs = match computed {
            Ok(outputs) => outputs,
            Err(error) => return self.answer(Err(error)),
        };
        let mut answer = Vec::new();
        for (name, tensor) in outputs {
            answer.push((name, self.table.push(tensor)?));
        }
        Ok(Ok(answer))
    }
}

impl graph::Host for View<'_> {
    fn load(
        &mut self,
        builders: Vec<Vec<u8>>,
        encoding: GraphEncoding,
        target: ExecutionTarget,
    ) -> Answer<Resource<GraphResource>> {
        let state = self.state()?;
        let sizes: Vec<usize> = builders.iter().map(Vec::len).collect();
        let content = || builders.into_iter().next().unwrap_or_default();
        let loaded = state
            .host
            .load(&sizes, encoding_of(encoding), target_of(target), content)
            .and_then(|loaded| state.host.graph(loaded));
        state.new_graph(loaded)
    }

    fn load_by_name(&mut self, name: String) -> Answer<Resource<GraphResource>> {
        let state = self.state()?;
        let loaded = state
            .host
            .load_by_name(&name)
            .and_then(|loaded| state.host.graph(loaded));
        state.new_graph(loaded)
    }
}

impl State {
    fn new_graph(
        &mut self,
        loaded: std::result::Result<GraphHandle, Error>,
    ) -> Answer<Resource<GraphResource>> {
        match loaded {
            Ok(graph) => Ok(Ok(self.table.push(GraphResource(graph))?)),
            Err(error) => self.answer(Err(error)),
        }
    }
}

impl graph::HostGraph for View<'_> {
    fn init_execution_context(
        &mut self,
        graph: Resource<GraphResource>,
    ) -> Answer<Resource<ContextResource>> {
        let state = self.state()?;
        match state.table.get(&graph)?.0.context(&state.host.budget) {
            Ok(context) => Ok(Ok(state.table.push(ContextResource(context))?)),
            Err(error) => state.answer(Err(error)),
        }
    }

    fn drop(&mut self, graph: Resource<GraphResource>) -> Result<()> {
        self.state()?.table.delete(graph)?;
        Ok(())
    }
}

impl inference::Host for View<'_> {}

impl inference::HostGraphExecutionContext for View<'_> {
    fn compute(
        &mut self,
        context: Resource<ContextResource>,
        inputs: Vec<(String, Resource<TensorResource>)>,
    ) -> Answer<Vec<(String, Resource<TensorResource>)>> {
        self.state()?.compute(&context, inputs)
    }

    fn drop(&mut self, context: Resource<ContextResource>) -> Result<()> {
        self.state()?.table.delete(context)?;
        Ok(())
    }
}

impl tensor::Host for View<'_> {}

impl tensor::HostTensor for View<'_> {
    fn new(
        &mut self,
        dimensions: Vec<u32>,
        ty: TensorType,
        data: Vec<u8>,
    ) -> Result<Resource<TensorResource>> {
        let state = self.state()?;
        let tensor = Tensor::new(dimensions, type_of(ty), data);
        let tensor = State::tensor(&state.host.budget, tensor)?;
        Ok(state.table.push(tensor)?)
    }

    fn dimensions(&mut self, tensor: Resource<TensorResource>) -> Result<Vec<u32>> {
        Ok(self.state()?.table.get(&tensor)?.tensor.dimensions.clone())
    }

    fn ty(&mut self, tensor: Resource<TensorResource>) -> Result<TensorType> {
        Ok(type_to(self.state()?.table.get(&tensor)?.tensor.ty))
    }

    fn data(&mut self, tensor: Resource<TensorResource>) -> Result<Vec<u8>> {
        Ok(self.state()?.table.get(&tensor)?.tensor.data.clone())
    }

    fn drop(&mut self, tensor: Resource<TensorResource>) -> Result<()> {
        self.state()?.table.delete(tensor)?;
        Ok(())
    }
}

impl errors::Host for View<'_> {}

impl errors::HostError for View<'_> {
    fn code(&mut self, error: Resource<ErrorResource>) -> Result<ErrorCode> {
        Ok(self.state()?.table.get(&error)?.code)
    }

    fn data(&mut self, error: Resource<ErrorResource>) -> Result<String> {
        Ok(self.state()?.table.get(&error)?.text.clone())
    }

    fn drop(&mut self, error: Resource<ErrorResource>) -> Result<()> {
        self.state()?.table.delete(error)?;
        Ok(())
    }
}

fn code_of(code: Code) -> ErrorCode {
    match code {
        Code::InvalidArgument => ErrorCode::InvalidArgument,
        Code::InvalidEncoding => ErrorCode::InvalidEncoding,
        Code::RuntimeError => ErrorCode::RuntimeError,
        Code::UnsupportedOperation => ErrorCode::UnsupportedOperation,
        Code::TooLarge => ErrorCode::TooLarge,
        Code::NotFound => ErrorCode::NotFound,
    }
}

fn encoding_of(encoding: GraphEncoding) -> HostEncoding {
    match encoding {
        GraphEncoding::Openvino => HostEncoding::Openvino,
        GraphEncoding::Onnx => HostEncoding::Onnx,
        GraphEncoding::Tensorflow => HostEncoding::Tensorflow,
        GraphEncoding::Pytorch => HostEncoding::Pytorch,
        GraphEncoding::Tensorflowlite => HostEncoding::Tensorflowlite,
        GraphEncoding::Ggml => HostEncoding::Ggml,
        GraphEncoding::Autodetect => HostEncoding::Autodetect,
    }
}

fn target_of(target: ExecutionTarget) -> HostTarget {
    match target {
        ExecutionTarget::Cpu => HostTarget::Cpu,
        ExecutionTarget::Gpu => HostTarget::Gpu,
        ExecutionTarget::Tpu => HostTarget::Tpu,
    }
}

fn type_of(ty: TensorType) -> HostType {
    match ty {
        TensorType::Fp16 => HostType::Fp16,
        TensorType::Fp32 => HostType::Fp32,
        TensorType::Fp64 => HostType::Fp64,
        TensorType::Bf16 => HostType::Bf16,
        TensorType::U8 => HostType::U8,
        TensorType::I32 => HostType::I32,
        TensorType::I64 => HostType::I64,
    }
}

fn type_to(ty: HostType) -> TensorType {
    match ty {
        HostType::Fp16 => TensorType::Fp16,
        HostType::Fp32 => TensorType::Fp32,
        HostType::Fp64 => TensorType::Fp64,
        HostType::Bf16 => TensorType::Bf16,
        HostType::U8 => TensorType::U8,
        HostType::I32 => TensorType::I32,
        HostType::I64 => TensorType::I64,
    }
}
