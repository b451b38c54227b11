//! Gives every build of this engine's programs a name.

use wasmlet_build_id::BuildId;

fn main() -> std::io::Result<()> {
    let mut id = BuildId::of(env!("CARGO_MANIFEST_DIR"), "../../..")?;
    id.add_folder("shim/wasi-nn")?;
    id.set();
    Ok(())
}
