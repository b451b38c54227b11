//! The runtime handlers that one runtime brings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An engine that a bundle can have a runner for.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// Wasmtime.
    Wasmtime,
    /// WasmEdge.
    Wasmedge,
    /// Wasmer.
    Wasmer,
}

impl Engine {
    /// All of them, in the order of handlers and RuntimeClasses.
    pub const ALL: [Self; 3] = [Self::Wasmtime, Self::Wasmedge, Self::Wasmer];

    /// As in annotations, handlers and settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wasmtime => "wasmtime",
            Self::Wasmedge => "wasmedge",
            Self::Wasmer => "wasmer",
        }
    }
}

/// One runtime handler of containerd, which is also one RuntimeClass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handler {
    /// Name of the handler, of its settings file without `.toml`, and of its RuntimeClass.
    pub name: String,
    /// The engine it is bound to; none: the pod or the module says which.
    pub engine: Option<Engine>,
}

/// The handlers of a runtime: `HANDLER`, and `HANDLER-ENGINE` for each engine.
pub fn handlers(handler: &str, engines: &[Engine]) -> Vec<Handler> {
    let mut engines = engines.to_vec();
    engines.sort_unstable();
    engines.dedup();
    std::iter::once(Handler {
        name: handler.to_owned(),
        engine: None,
    })
    .chain(engines.into_iter().map(|engine| Handler {
        name: format!("{handler}-{}", engine.name()),
        engine: Some(engine),
    }))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_for_the_runtime_and_one_for_each_engine() {
        let names: Vec<_> = handlers("wasm", &[Engine::Wasmer, Engine::Wasmtime, Engine::Wasmer])
            .into_iter()
            .map(|handler| handler.name)
            .collect();
        assert_eq!(names, ["wasm", "wasm-wasmtime", "wasm-wasmer"]);
    }
}
