//! `wasi_ephemeral_nn`: wasi-nn of modules.
//!
//! The functions are those of the proposal's last witx file. Every pointer is checked against the guest's
//! memory before it is used; one that leads outside is a trap. Everything else that is wrong is an error
//! code for the guest, and a line on stderr for people, as a code says so little.

use std::io::Write;
use std::ops::Range;

use wasmtime::{Caller, Error as Trap, Linker, Module, Result};
use wasmtime_wasi_nn::Tensor;
use wasmtime_wasi_nn::backend::Id;
use wasmtime_wasi_nn::wit::{ExecutionTarget, GraphEncoding, TensorType};

use crate::error::{Code, Error};
use crate::host::{ContextHandle, GraphHandle, Host, check_tensor};
use crate::{MAX_NAME_BYTES, MAX_RANK};

/// Name of the imported module.
pub const NAMESPACE: &str = "wasi_ephemeral_nn";

/// Lines that a guest may cause on stderr; after that, its errors are its own affair.
const MAX_LINES: u32 = 32;

/// What a module has of wasi-nn.
#[derive(Debug)]
pub struct State {
    host: Host,
    graphs: Handles<GraphHandle>,
    contexts: Handles<ContextHandle>,
    lines: u32,
}

impl State {
    /// With nothing loaded.
    pub fn new(host: Host) -> Self {
        Self {
            host,
            graphs: Handles::default(),
            contexts: Handles::default(),
            lines: 0,
        }
    }
}

/// Things that a guest has numbers for. There is no function to give one back.
struct Handles<T>(Vec<T>);

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> std::fmt::Debug for Handles<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Handles").field(&self.0.len()).finish()
    }
}

impl<T> Handles<T> {
    fn insert(&mut self, thing: T) -> u32 {
        self.0.push(thing);
        // The budget ends far below.
        u32::try_from(self.0.len() - 1).unwrap_or(u32::MAX)
    }

    fn get(&mut self, what: &'static str, handle: u32) -> std::result::Result<&mut T, Error> {
        self.0
            .get_mut(handle as usize)
            .ok_or(Error::Handle { what, handle })
    }
}

/// Whether a module imports any of it.
pub fn wanted_by(module: &Module) -> bool {
    module.imports().any(|import| import.module() == NAMESPACE)
}

/// Gives a linker the functions. `state` is asked at each call; a guest without a state of wasi-nn
/// traps.
///
/// # Errors
/// When the linker has functions of these names already.
pub fn add_to_linker<T: 'static>(
    linker: &mut Linker<T>,
    state: fn(&mut T) -> Option<&mut State>,
) -> Result<()> {
    linker.func_wrap(
        NAMESPACE,
        "load",
        move |mut caller: Caller<'_, T>,
              builders: u32,
              count: u32,
              encoding: u32,
              target: u32,
              out: u32| {
            Call::new(&mut caller, state, "load")?.load(builders, count, encoding, target, out)
        },
    )?;
    linker.func_wrap(
        NAMESPACE,
        "load_by_name",
        move |mut caller: Caller<'_, T>, name: u32, length: u32, out: u32| {
            Call::new(&mut caller, state, "load_by_name")?.load_by_name(name, length, out)
        },
    )?;
    linker.func_wrap(
        NAMESPACE,
        "init_execution_context",
        move |mut caller: Caller<'_, T>, graph: u32, out: u32| {
            Call::new(&mut caller, state, "init_execution_context")?
                .init_execution_context(graph, out)
        },
    )?;
    linker.func_wrap(
        NAMESPACE,
        "set_input",
        move |mut caller: Caller<'_, T>, context: u32, index: u32, tensor: u32| {
            Call::new(&mut caller, state, "set_input")?.set_input(context, index, tensor)
        },
    )?;
    linker.func_wrap(
        NAMESPACE,
        "compute",
        move |mut caller: Caller<'_, T>, context: u32| {
            Call::new(&mut caller, state, "compute")?.compute(context)
        },
    )?;
    linker.func_wrap(
        NAMESPACE,
        "get_output",
        move |mut caller: Caller<'_, T>,
              context: u32,
              index: u32,
              buffer: u32,
              length: u32,
              out: u32| {
            Call::new(&mut caller, state, "get_output")?
                .get_output(context, index, buffer, length, out)
        },
    )?;
    Ok(())
}

/// A call of the guest: its memory and our state.
struct Call<'a> {
    memory: &'a mut [u8],
    state: &'a mut State,
    function: &'static str,
}

impl<'a> Call<'a> {
    fn new<T>(
        caller: &'a mut Caller<'_, T>,
        state: fn(&mut T) -> Option<&mut State>,
        function: &'static str,
    ) -> Result<Self> {
        let memory = caller
            .get_export("memory")
            .and_then(|export| export.into_memory())
            .ok_or_else(|| {
                Trap::msg(format!(
                    "{NAMESPACE}.{function}: the module exports no memory named memory"
                ))
            })?;
        let (memory, data) = memory.data_and_store_mut(caller);
        let state =
            state(data).ok_or_else(|| Trap::msg(format!("{NAMESPACE}.{function}: not set up")))?;
        Ok(Self {
            memory,
            state,
            function,
        })
    }

    fn load(
        mut self,
        builders: u32,
        count: u32,
        encoding: u32,
        target: u32,
        out: u32,
    ) -> Result<u32> {
        self.range("the result", out, 4)?;
        let mut parts = Vec::new();
        let list = self.range("the list of buffers", builders, u64::from(count) * 8)?;
        // More than one is an error that needs no list of them all.
        for entry in self.memory[list].chunks_exact(8).take(2) {
            parts.push((word(entry, 0), word(entry, 4)));
        }
        let mut ranges = Vec::new();
        for (address, length) in parts {
            ranges.push(self.range("the model", address, u64::from(length))?);
        }
        let done = encoding_of(encoding).and_then(|encoding| {
            let target = target_of(target)?;
            let sizes: Vec<usize> = match count {
                0..=1 => ranges.iter().map(ExactSizeIterator::len).collect(),
                _ => vec![0; count as usize],
            };
            let memory = &*self.memory;
            let content = || {
                ranges
                    .first()
                    .map_or(Vec::new(), |r| memory[r.clone()].to_vec())
            };
            let State { host, graphs, .. } = &mut *self.state;
            let loaded = host.load(&sizes, encoding, target, content)?;
            Ok(graphs.insert(host.graph(loaded)?))
        });
        self.answer_number(done, out)
    }

    fn load_by_name(mut self, name: u32, length: u32, out: u32) -> Result<u32> {
        self.range("the result", out, 4)?;
        let name = self.range("the name", name, u64::from(length))?;
        let State { host, graphs, .. } = &mut *self.state;
        let done = text(&self.memory[name]).and_then(|name| {
            let loaded = host.load_by_name(name)?;
            Ok(graphs.insert(host.graph(loaded)?))
        });
        self.answer_number(done, out)
    }

    fn init_execution_context(mut self, graph: u32, out: u32) -> Result<u32> {
        self.range("the result", out, 4)?;
        let State {
            host,
            graphs,
            contexts,
            ..
        } = &mut *self.state;
        let done = graphs
            .get("graph", graph)
            .and_then(|graph| graph.context(&host.budget))
            .map(|context| contexts.insert(context));
        self.answer_number(done, out)
    }

    fn set_input(mut self, context: u32, index: u32, tensor: u32) -> Result<u32> {
        // Dimensions as pointer and length, the type in a byte, the data as pointer and length.
        let record = self.range("the tensor", tensor, 20)?;
        let record = &self.memory[record];
        let (dimensions, rank) = (word(record, 0), word(record, 4));
        let ty = record[8];
        let (data, length) = (word(record, 12), word(record, 16));
        let dimensions = self.range("the dimensions", dimensions, u64::from(rank) * 4)?;
        let data = self.range("the tensor's data", data, u64::from(length))?;
        let (memory, contexts) = (&*self.memory, &mut self.state.contexts);
        let done = contexts
            .get("execution context", context)
            .and_then(|context| {
                check_tensor(u64::from(rank), u64::from(length))?;
                let tensor = Tensor {
                    dimensions: memory[dimensions]
                        .chunks_exact(4)
                        .take(MAX_RANK)
                        .map(|dimension| word(dimension, 0))
                        .collect(),
                    ty: type_of(ty)?,
                    data: memory[data].to_vec(),
                };
                Ok(context.context.set_input(Id::Index(index), &tensor)?)
            });
        self.answer(done)
    }

    fn compute(mut self, context: u32) -> Result<u32> {
        let done = self
            .state
            .contexts
            .get("execution context", context)
            .and_then(|context| Ok(context.context.compute()?));
        self.answer(done)
    }

    fn get_output(
        mut self,
        context: u32,
        index: u32,
        buffer: u32,
        length: u32,
        out: u32,
    ) -> Result<u32> {
        self.range("the result", out, 4)?;
        let buffer = self.range("the buffer", buffer, u64::from(length))?;
        let (memory, contexts) = (&mut *self.memory, &mut self.state.contexts);
        let done = contexts
            .get("execution context", context)
            .and_then(|context| {
                let tensor = context.context.get_output(Id::Index(index))?;
                let size = tensor.data.len();
                if size > buffer.len() {
                    return Err(Error::Buffer {
                        wanted: size as u64,
                        given: buffer.len() as u64,
                    });
                }
                memory[buffer.start..buffer.start + size].copy_from_slice(&tensor.data);
                // Not longer than the buffer, whose length is 32 bits.
                Ok(size as u32)
            });
        self.answer_number(done, out)
    }

    /// The bytes that a pointer and a length stand for; a trap when they are not all in memory.
    fn range(&self, what: &str, address: u32, length: u64) -> Result<Range<usize>> {
        let start = address as usize;
        usize::try_from(length)
            .ok()
            .and_then(|length| start.checked_add(length))
            .filter(|end| *end <= self.memory.len())
            .map(|end| start..end)
            .ok_or_else(|| {
                Trap::msg(format!(
                    "{NAMESPACE}.{}: {what}: {length} bytes at address {address} are not in the guest's \
                     memory of {} bytes",
                    self.function,
                    self.memory.len()
                ))
            })
    }

    fn answer_number(&mut self, done: std::result::Result<u32, Error>, out: u32) -> Result<u32> {
        if let Ok(number) = &done {
            let number = number.to_le_bytes();
            let out = self.range("the result", out, 4)?;
            self.memory[out].copy_from_slice(&number);
        }
        self.answer(done.map(drop))
    }

    fn answer(&mut self, done: std::result::Result<(), Error>) -> Result<u32> {
        let Err(error) = done else { return Ok(0) };
        if self.state.lines < MAX_LINES {
            self.state.lines += 1;
            let line = format!("wasmlet: {NAMESPACE}.{}: {error}\n", self.function);
            // Nobody to tell when this fails; the guest gets its code all the same.
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
        Ok(errno(error.code()))
    }
}

/// A 32-bit number in a record that was checked to be long enough.
fn word(record: &[u8], offset: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&record[offset..offset + 4]);
    u32::from_le_bytes(bytes)
}

fn text(bytes: &[u8]) -> std::result::Result<&str, Error> {
    if bytes.len() > MAX_NAME_BYTES {
        return Err(Error::TooLong {
            what: "the name of the model",
            bytes: bytes.len() as u64,
            limit: MAX_NAME_BYTES as u64,
        });
    }
    std::str::from_utf8(bytes).map_err(|_| Error::NotText)
}

/// `nn_errno` of the witx file.
fn errno(code: Code) -> u32 {
    match code {
        Code::InvalidArgument => 1,
        Code::InvalidEncoding => 2,
        Code::RuntimeError => 5,
        Code::UnsupportedOperation => 6,
        Code::TooLarge => 7,
        Code::NotFound => 8,
    }
}

fn encoding_of(value: u32) -> std::result::Result<GraphEncoding, Error> {
    Ok(match value {
        0 => GraphEncoding::Openvino,
        1 => GraphEncoding::Onnx,
        2 => GraphEncoding::Tensorflow,
        3 => GraphEncoding::Pytorch,
        4 => GraphEncoding::Tensorflowlite,
        5 => GraphEncoding::Autodetect,
        _ => {
            return Err(Error::Encoding(format!("number {value}")));
        }
    })
}

fn target_of(value: u32) -> std::result::Result<ExecutionTarget, Error> {
    Ok(match value {
        0 => ExecutionTarget::Cpu,
        1 => ExecutionTarget::Gpu,
        2 => ExecutionTarget::Tpu,
        _ => {
            return Err(Error::Value {
                what: "execution target",
                value,
            });
        }
    })
}

fn type_of(value: u8) -> std::result::Result<TensorType, Error> {
    Ok(match value {
        0 => TensorType::Fp16,
        1 => TensorType::Fp32,
        2 => TensorType::Fp64,
        3 => TensorType::U8,
        4 => TensorType::I32,
        5 => TensorType::I64,
        _ => {
            return Err(Error::Value {
                what: "type of a tensor",
                value: u32::from(value),
            });
        }
    })
}
