//! What runs is the artifact's machine code and never the module in it.

use std::io::{Read, Seek, Write};

use crate::support::{Container, can_run, try_compile};

/// Exits with a number that is nowhere else in the artifact but as an instruction's operand, and once in
/// the module that the artifact carries with it.
const EXITS_WITH_77: &str = r#"(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (call $exit (i32.sub (i32.const 0x11223344) (i32.load (i32.const 0)))))
  (data (i32.const 0) "\f7\32\22\11"))"#;

/// Sees the operand of the machine code changed, and nothing of the module: WebAssembly writes numbers in
/// another way.
#[test]
fn the_machine_code_runs() {
    if !can_run() {
        return;
    }
    let (code, container) = Container::new(EXITS_WITH_77).run();
    assert_eq!(code, 77, "{}", container.read("stderr"));

    let mut container = Container::new(EXITS_WITH_77);
    let artifact = &mut container.artifact;
    let mut bytes = Vec::new();
    artifact
        .rewind()
        .and_then(|()| artifact.read_to_end(&mut bytes))
        .expect("it can be read");
    let needle = 0x1122_3344_u32.to_le_bytes();
    let places: Vec<usize> = bytes
        .windows(4)
        .enumerate()
        .filter(|(_, window)| *window == needle)
        .map(|(place, _)| place)
        .collect();
    assert_eq!(places.len(), 1, "one instruction has it: {places:?}");
    bytes[places[0]] -= 7;
    artifact
        .rewind()
        .and_then(|()| artifact.write_all(&bytes))
        .expect("it can be written");
    let (code, container) = container.run();
    assert_eq!(code, 70, "{}", container.read("stderr"));
}

/// A module that was not compiled would be interpreted by the library.
#[test]
fn what_is_no_compiled_code_is_refused() {
    if !can_run() {
        return;
    }
    let wasm = wat::parse_str(EXITS_WITH_77).expect("valid");
    for (bytes, said) in [
        (wasm, "invalid ELF header"),
        (b"\x7fELF".to_vec(), "file too short"),
    ] {
        let mut container = Container::new(EXITS_WITH_77);
        let artifact = &mut container.artifact;
        artifact
            .set_len(0)
            .and_then(|()| artifact.rewind())
            .and_then(|()| artifact.write_all(&bytes))
            .expect("it can be written");
        let (failure, _) = container.fail();
        assert!(failure.message.contains(said), "{}", failure.message);
    }
}

/// The artifact carries the module, so it is never smaller.
#[test]
fn an_artifact_is_a_shared_object() {
    let (_, mut artifact) = try_compile(EXITS_WITH_77.as_bytes()).expect("it compiles");
    let mut head = [0; 4];
    artifact
        .rewind()
        .and_then(|()| artifact.read_exact(&mut head))
        .expect("it can be read");
    assert_eq!(&head, b"\x7fELF");
}
