//! Bundles: making one, bringing it to a node, checking it, removing old ones.
//!
//! ```text
//! target/dist ──make──▶ /bundle of the node image ──stage──▶ /opt/wasmlet/store/<digest> ──collect──▶ gone, when nothing uses it
//! ```
//!
//! A folder in the store is complete or not there: it is filled under another name, written to the disk, checked, renamed. Nothing in it is
//! ever changed. Whoever changes the store holds its lock (`.lock`, flock).

pub mod check;
pub mod collect;
pub mod make;
pub mod manifest;
pub mod stage;

pub use manifest::Manifest;

/// The probe's module, which every bundle has as `probe/probe.wasm`.
pub const PROBE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/probe.wasm"));

#[cfg(test)]
pub(crate) mod testing {
    use std::path::Path;

    /// A folder like target/dist.
    pub(crate) fn dist(at: &Path) {
        std::fs::create_dir_all(at.join("bin")).unwrap();
        std::fs::create_dir_all(at.join("lib/engine")).unwrap();
        let shim = at.join("bin").join(wasmlet_api::names::SHIM);
        std::fs::write(&shim, "#!/bin/sh\n").unwrap();
        crate::store::make::set_mode(&shim, 0o750).unwrap();
        std::fs::write(at.join("lib/engine/libx.so.1.2"), vec![7; 300_000]).unwrap();
        std::os::unix::fs::symlink("libx.so.1.2", at.join("lib/engine/libx.so.1")).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use wasmlet_api::names::PROBE_LINE;

    #[test]
    fn the_probe_says_the_line_that_is_waited_for() {
        let line = format!("{PROBE_LINE}\n");
        assert!(
            super::PROBE
                .windows(line.len())
                .any(|found| found == line.as_bytes()),
            "LINE in build.rs is not names::PROBE_LINE"
        );
    }
}
