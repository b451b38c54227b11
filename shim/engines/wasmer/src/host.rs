//! What WASIX asks its host for: an engine, threads, a network; and what it never gets.
//!
//! No HTTP client, no package registry, no compiler: a guest that wants to run another program finds none.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::runtime::Handle;
use virtual_net::DynVirtualNetworking;
use wasmer::{Engine, Imports, Module, Store};
use wasmer_wasix::runtime::SpawnType;
use wasmer_wasix::runtime::resolver::{MultiSource, Source};
use wasmer_wasix::runtime::task_manager::tokio::TokioTaskManager;
use wasmer_wasix::runtime::task_manager::{
    SpawnMemoryTypeOrStore, TaskWasm, TaskWasmCallbacks, TaskWasmRunProperties,
};
use wasmer_wasix::{Runtime, VirtualTaskManager, WasiError, WasiFunctionEnv, WasiThreadError};

/// See the module.
#[derive(Debug)]
pub(crate) struct Host {
    engine: Engine,
    tasks: Arc<dyn VirtualTaskManager>,
    networking: DynVirtualNetworking,
    packages: Arc<dyn Source + Send + Sync>,
}

impl Host {
    pub(crate) fn new(engine: Engine, handle: Handle, networking: DynVirtualNetworking) -> Self {
        Self {
            engine,
            tasks: Arc::new(Threads(TokioTaskManager::new(handle))),
            networking,
            packages: Arc::new(MultiSource::default()),
        }
    }
}

impl Runtime for Host {
    fn networking(&self) -> &DynVirtualNetworking {
        &self.networking
    }

    fn task_manager(&self) -> &Arc<dyn VirtualTaskManager> {
        &self.tasks
    }

    fn source(&self) -> Arc<dyn Source + Send + Sync> {
        Arc::clone(&self.packages)
    }

    fn engine(&self) -> Engine {
        self.engine.clone()
    }

    fn new_store(&self) -> Store {
        Store::new(self.engine.clone())
    }
}

/// Threads of guests are threads of ours: Wasmer's own manager has a pool for them that panics when the
/// system refuses one (`pids.max`), and here a guest gets an error.
#[derive(Debug)]
struct Threads(TokioTaskManager);

fn spawn(run: impl FnOnce() + Send + 'static) -> Result<(), WasiThreadError> {
    std::thread::Builder::new()
        .name("guest".to_owned())
        .spawn(run)
        .map(drop)
        .map_err(|_| WasiThreadError::Unsupported)
}

/// The instance that a thread runs, in a store of its own.
fn instance(
    task: TaskWasm,
) -> Result<(WasiFunctionEnv, Store, TaskWasmCallbacks), WasiThreadError> {
    let memory = match task.spawn_type {
        SpawnType::CreateMemory => SpawnMemoryTypeOrStore::New,
        SpawnType::CreateMemoryOfType(ty) => SpawnMemoryTypeOrStore::Type(ty),
        SpawnType::AttachMemory(memory) => {
            let mut store = task.env.runtime().new_store();
            let memory = memory.attach(&mut store);
            SpawnMemoryTypeOrStore::StoreAndMemory(store, memory)
        }
        // The compile helper refuses what is linked at run time.
        SpawnType::NewLinkerInstanceGroup(_) => return Err(WasiThreadError::Unsupported),
    };
    let (env, store) = WasiFunctionEnv::new_with_store(
        task.module,
        task.env,
        task.globals,
        memory,
        task.update_layout,
        task.call_initialize,
        None,
    )?;
    Ok((env, store, task.callbacks))
}

impl VirtualTaskManager for Threads {
    fn sleep_now(
        &self,
        time: Duration,
    ) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + Sync + 'static>> {
        self.0.sleep_now(time)
    }

    fn task_shared(
        &self,
        task: Box<
            dyn FnOnce() -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'static>>
                + Send
                + 'static,
        >,
    ) -> Result<(), WasiThreadError> {
        self.0.task_shared(task)
    }

    fn task_wasm(&self, task: TaskWasm) -> Result<(), WasiThreadError> {
        if task.callbacks.trigger.is_some() {
            // A guest whose stack sleeps in a file, which is switched off.
            return Err(WasiThreadError::Unsupported);
        }
        let (started, start) = mpsc::channel();
        let handle = self.0.runtime_handle();
        spawn(move || {
            let _entered = handle.enter();
            let (mut ctx, mut store, callbacks) = match instance(task) {
                Ok(instance) => instance,
                Err(error) => {
                    // Whoever asked waits for this.
                    let _ = started.send(Err(error));
                    return;
                }
            };
            let _ = started.send(Ok(()));
            if let Some(prepare) = callbacks.pre_run {
                handle.block_on(prepare(&mut ctx, &mut store));
            }
            (callbacks.run)(TaskWasmRunProperties {
                ctx,
                store,
                trigger_result: None,
                recycle: callbacks.recycle,
            });
        })?;
        start
            .recv()
            .map_err(|_| WasiThreadError::InvalidWasmContext)?
    }

    fn task_dedicated(
        &self,
        task: Box<dyn FnOnce() + Send + 'static>,
    ) -> Result<(), WasiThreadError> {
        spawn(task)
    }

    fn thread_parallelism(&self) -> Result<usize, WasiThreadError> {
        self.0.thread_parallelism()
    }
}

/// The functions of WASI and WASIX, those of the versions that the module imports from.
///
/// Each function is an object of the store, so what nobody asks for is not made.
pub(crate) fn imports(
    env: &WasiFunctionEnv,
    store: &mut Store,
    module: &Module,
) -> Result<Imports, Box<WasiError>> {
    env.import_object_for_all_wasi_versions(store, module)
        .map_err(Box::new)
}
