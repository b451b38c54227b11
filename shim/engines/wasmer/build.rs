//! Gives every build of this engine's programs a name.

use wasmlet_build_id::BuildId;

fn main() -> std::io::Result<()> {
    BuildId::of(env!("CARGO_MANIFEST_DIR"), "../../..")?.set();
    Ok(())
}
