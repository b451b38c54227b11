//! The module of probe pods.

/// Says that it ran, and ends with 0. Nothing but `fd_write` of preview 1, which every engine has: what is probed is the way from
/// the kubelet to a guest, not an engine's features. A write that fails is an exit code of its own.
const TEXT: &str = r#"
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\12\00\00\00")
  (data (i32.const 16) "wasmlet probe: ok\n")
  (func (export "_start")
    (if (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))
      (then (call $proc_exit (i32.const 1))))))
"#;

/// The module's bytes.
pub(crate) fn module() -> Result<Vec<u8>, wat::Error> {
    wat::parse_str(TEXT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_is_a_module_and_its_line_has_the_length_that_it_writes() {
        let module = module().unwrap();
        assert!(module.starts_with(b"\0asm"));
        let line = b"wasmlet probe: ok\n";
        assert!(module.windows(line.len()).any(|part| part == line));
        // The second word of the vector in the text above.
        assert_eq!(line.len(), 0x12);
    }
}
