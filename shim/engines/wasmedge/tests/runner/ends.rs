//! How a guest ends: exit codes and the one line on stderr.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::guests;
use crate::support::{Container, can_run, eventually};

#[test]
fn exit_codes_are_the_guests_own() {
    if !can_run() {
        return;
    }
    for (given, code) in [(0, 0), (1, 1), (126, 126), (200, 200), (255, 255)] {
        let (seen, container) = Container::new(guests::exits(given)).run();
        assert_eq!((seen, container.read("stderr").as_str()), (code, ""));
    }
    let (seen, container) = Container::new(guests::exits(256)).run();
    assert_eq!(seen, 255);
    assert!(container.read("stderr").contains("256"));
}

#[track_caller]
fn ends_with(guest: &str, code: i32, said: &str) {
    let (seen, container) = Container::new(guest).run();
    assert_eq!(
        (seen, container.read("stderr").as_str()),
        (code, format!("wasmlet: /guest.wasm: {said}\n").as_str()),
        "{guest}"
    );
}

fn body(memory: &str, body: &str) -> String {
    format!(r#"(module (memory {memory}) (table 1 funcref) (func (export "_start") {body}))"#)
}

#[test]
fn traps_say_what() {
    if !can_run() {
        return;
    }
    for (text, said) in [
        ("unreachable", "unreachable"),
        (
            "(drop (i32.load (i32.const 65536)))",
            "out of bounds memory access",
        ),
        (
            "(drop (i32.load offset=4294967295 (i32.const -1)))",
            "out of bounds memory access",
        ),
        (
            "(drop (i32.div_u (i32.const 1) (i32.load (i32.const 0))))",
            "integer divide by zero",
        ),
        ("(call_indirect (i32.const 0))", "uninitialized element"),
        ("(call_indirect (i32.const 9))", "undefined element"),
    ] {
        ends_with(&body("1", text), 121, &format!("trapped: {said}"));
    }
    let start = r#"(module (func $boom unreachable) (start $boom) (func (export "_start")))"#;
    ends_with(start, 121, "trapped: unreachable");
}

/// Calls itself without an end, with something left to do after each call.
const RECURSES: &str = r#"(module (memory (export "memory") 1)
  (func $down (param $n i32) (result i32)
    (i32.store (i32.const 0) (local.get $n))
    (i32.xor (i32.mul (call $down (i32.add (local.get $n) (i32.const 1))) (i32.const 7))
      (i32.load (i32.const 0))))
  (func (export "_start") (drop (call $down (i32.const 0)))))"#;

#[test]
fn a_stack_that_is_used_up_is_told_from_other_faults() {
    if !can_run() {
        return;
    }
    for limit in [64 << 10, 1 << 20, 16 << 20] {
        let mut container = Container::new(RECURSES);
        container.request.max_stack = Some(limit);
        let (code, container) = container.run();
        assert_eq!(
            (code, container.read("stderr")),
            (
                121,
                format!(
                    "wasmlet: /guest.wasm: stack overflow, limit {limit} bytes: raise \
                     wasmlet.dev/max-stack\n"
                )
            )
        );
    }
    ends_with(
        RECURSES,
        121,
        "stack overflow, limit 1048576 bytes: raise wasmlet.dev/max-stack",
    );
    let mut container = Container::new(RECURSES);
    container.request.max_stack = Some(1 << 40);
    let (failure, _) = container.fail();
    assert!(failure.message.contains("1Gi"), "{}", failure.message);
}

#[test]
fn signals_end_a_guest_at_once() {
    if !can_run() {
        return;
    }
    for (signal, code) in [
        (Signal::SIGTERM, 143),
        (Signal::SIGINT, 130),
        (Signal::SIGQUIT, 131),
        (Signal::SIGHUP, 129),
        (Signal::SIGKILL, 137),
    ] {
        for guest in [guests::spins(), guests::sleeps()] {
            let mut created = Container::new(guest).created();
            created.start();
            eventually("the guest runs", || {
                created.container.read("stdout") == "ready"
            });
            kill(Pid::from_raw(created.pid), signal).expect("it runs");
            assert_eq!(created.wait(), code, "{signal}");
            assert_eq!(created.delete().read("stderr"), "");
        }
    }
}
