//! What both ABIs work on.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wasmlet_protocol::NnModel;
use wasmtime_wasi_nn::backend::{BackendError, BackendInner};
use wasmtime_wasi_nn::wit::{ExecutionTarget, GraphEncoding};
use wasmtime_wasi_nn::{ExecutionContext, Graph};

use crate::budget::{Budget, One, Taken, Thing};
use crate::error::{Error, one_line};
use crate::models::{Opened, loaded, loading};
use crate::{MAX_MODEL_BYTES, MAX_TENSOR_BYTES};

/// A backend for ONNX that can take a model over without copying it.
pub trait Onnx: BackendInner {
    /// Loads a model.
    ///
    /// # Errors
    /// When it cannot be used.
    fn load_owned(&mut self, model: Vec<u8>) -> Result<Graph, BackendError>;
}

/// What a guest has of wasi-nn, whichever way it calls.
pub struct Host {
    shared: Arc<Shared>,
    pub(crate) budget: Budget,
}

/// What all instances of a guest share.
struct Shared {
    models: Vec<NnModel>,
    backend: Mutex<Backend>,
}

struct Backend {
    onnx: Box<dyn Onnx>,
    /// Models that were asked for by name; they stay.
    loaded: BTreeMap<String, Loaded>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("models", &self.shared.models)
            .finish_non_exhaustive()
    }
}

/// A loaded graph and the memory it takes.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub(crate) graph: Graph,
    _memory: Arc<Taken>,
}

impl Host {
    /// For a guest of a pod with such models.
    pub fn new(onnx: impl Onnx + 'static, models: Vec<NnModel>, budget: Budget) -> Self {
        let backend = Mutex::new(Backend {
            onnx: Box::new(onnx),
            loaded: BTreeMap::new(),
        });
        Self {
            shared: Arc::new(Shared { models, backend }),
            budget,
        }
    }

    /// For another instance of the same guest: it has handles of its own, and the models of all.
    pub fn for_instance(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            budget: self.budget.for_instance(),
        }
    }

    /// Loads a model that the guest has in its memory; `size` is that of each of its parts.
    pub(crate) fn load(
        &self,
        sizes: &[usize],
        encoding: GraphEncoding,
        target: ExecutionTarget,
        content: impl FnOnce() -> Vec<u8>,
    ) -> Result<Loaded, Error> {
        if !matches!(encoding, GraphEncoding::Onnx | GraphEncoding::Autodetect) {
            return Err(Error::Encoding(encoding.to_string()));
        }
        if target != ExecutionTarget::Cpu {
            return Err(Error::Target(target_name(target).to_owned()));
        }
        let [size] = sizes else {
            return Err(Error::Builders(sizes.len()));
        };
        let size = *size as u64;
        if size > MAX_MODEL_BYTES {
            return Err(Error::TooLong {
                what: "the model",
                bytes: size,
                limit: MAX_MODEL_BYTES,
            });
        }
        self.shared
            .backend()
            .load(&self.budget, size, || Ok(content()))
    }

    /// Loads a model of the pod, once.
    pub(crate) fn load_by_name(&self, name: &str) -> Result<Loaded, Error> {
        let models = &self.shared.models;
        let Some(model) = models.iter().find(|model| model.name == name) else {
            let names: Vec<&str> = models.iter().map(|m| m.name.as_str()).collect();
            return Err(Error::NoSuchModel {
                name: one_line(name),
                known: if names.is_empty() {
                    "none".to_owned()
                } else {
                    names.join(", ")
                },
            });
        };
        let mut backend = self.shared.backend();
        if let Some(loaded) = backend.loaded.get(name) {
            return Ok(loaded.clone());
        }
        let opened = Opened::new(model)?;
        let loaded = backend.load(&self.budget, opened.bytes, || Ok(opened.read()?))?;
        backend.loaded.insert(name.to_owned(), loaded.clone());
        Ok(loaded)
    }

    /// Counts a handle on a graph.
    pub(crate) fn graph(&self, loaded: Loaded) -> Result<GraphHandle, Error> {
        Ok(GraphHandle {
            _one: self.budget.one(Thing::Graph)?,
            loaded,
        })
    }
}

impl Shared {
    fn backend(&self) -> MutexGuard<'_, Backend> {
        // What a panic while a model was loaded leaves is a backend without that model.
        self.backend.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend {
    fn load(
        &mut self,
        budget: &Budget,
        size: u64,
        content: impl FnOnce() -> Result<Vec<u8>, Error>,
    ) -> Result<Loaded, Error> {
        let mut memory = budget.take("loading the model", loading(size))?;
        let graph = self.onnx.load_owned(content()?)?;
        memory.keep(loaded(size));
        Ok(Loaded {
            graph,
            _memory: Arc::new(memory),
        })
    }
}

/// A graph that a guest has a handle on.
pub(crate) struct GraphHandle {
    loaded: Loaded,
    _one: One,
}

impl GraphHandle {
    pub(crate) fn context(&self, budget: &Budget) -> Result<ContextHandle, Error> {
        let one = budget.one(Thing::Context)?;
        Ok(ContextHandle {
            context: self.loaded.graph.init_execution_context()?,
            _loaded: self.loaded.clone(),
            _one: one,
        })
    }
}

/// An execution context that a guest has a handle on. It keeps its graph.
pub(crate) struct ContextHandle {
    pub(crate) context: ExecutionContext,
    _loaded: Loaded,
    _one: One,
}

pub(crate) fn target_name(target: ExecutionTarget) -> &'static str {
    match target {
        ExecutionTarget::Cpu => "cpu",
        ExecutionTarget::Gpu => "gpu",
        ExecutionTarget::Tpu => "tpu",
    }
}

/// Bounds what a guest passes as a tensor, before anything of it is copied.
pub(crate) fn check_tensor(rank: u64, bytes: u64) -> Result<(), Error> {
    if rank > crate::MAX_RANK as u64 {
        return Err(Error::Rank(rank));
    }
    if bytes > MAX_TENSOR_BYTES {
        return Err(Error::TooLong {
            what: "the tensor",
            bytes,
            limit: MAX_TENSOR_BYTES,
        });
    }
    Ok(())
}
