//! Prints the CustomResourceDefinitions as YAML, in the order in which to apply them.

use kube::CustomResourceExt as _;
use wasmlet_api::{WasmNode, WasmRuntime};

fn main() -> Result<(), serde_saphyr::ser::Error> {
    for crd in [WasmRuntime::crd(), WasmNode::crd()] {
        println!("---\n{}", serde_saphyr::to_string(&crd)?.trim_end());
    }
    Ok(())
}
