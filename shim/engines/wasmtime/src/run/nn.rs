//! wasi-nn: who gets it, and from where the models come.

use std::sync::OnceLock;

use wasmlet_protocol::{Failure, FailureReason};
use wasmlet_runner_core::{MemoryCap, Program};
use wasmlet_wasi_nn::{Budget, Host, Memory, Tract, models};

use crate::settings::Profile;

/// The one guest's. Set when it is loaded and imports wasi-nn.
static HOST: OnceLock<Host> = OnceLock::new();

/// Looks at the pod's models, so that what is wrong with them fails the create.
///
/// They are loaded when the guest asks for them.
pub(super) fn prepare(program: &Program) -> Result<(), Failure> {
    if let Some(why) = Profile::from_name(&program.profile).and_then(Profile::no_nn) {
        return Err(Failure {
            reason: FailureReason::Unsupported,
            message: why.to_owned(),
        });
    }
    models::check(&program.nn_models, program.memory.limit()).map_err(|error| Failure {
        reason: FailureReason::InvalidArgument,
        message: error.to_string(),
    })?;
    let budget = Budget::new(Cap(program.memory.clone()));
    HOST.get_or_init(|| {
        Host::new(
            Tract::new(budget.clone()),
            program.nn_models.clone(),
            budget,
        )
    });
    Ok(())
}

/// Models and tensors are in the same memory as the guest's own, so they count together.
struct Cap(MemoryCap);

impl Memory for Cap {
    fn grow(&self, bytes: u64) -> bool {
        self.0.grow(bytes)
    }

    fn shrink(&self, bytes: u64) {
        self.0.shrink(bytes);
    }

    fn limit(&self) -> Option<u64> {
        self.0.limit()
    }
}

/// The handles of one instance; there is nothing of it before the first call.
pub(super) struct Nn<S>(Option<S>);

impl<S> Nn<S> {
    pub(super) fn new() -> Self {
        Self(None)
    }

    /// None for a guest that imports nothing of it.
    pub(super) fn get(&mut self, new: fn(Host) -> S) -> Option<&mut S> {
        if self.0.is_none() {
            self.0 = Some(new(HOST.get()?.for_instance()));
        }
        self.0.as_mut()
    }
}
