//! What a pod can set: fuel, time, and the cap on memory that moves.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::guests;
use crate::support::{Container, Wishes, can_run, done, eventually};

const PAGE: u64 = 65536;

/// A loop of a thousand turns.
const COUNTS: &str = r#"(module (memory (export "memory") 1)
  (func (export "_start") (local $i i32)
    (loop $again
      (i32.store (i32.const 0) (local.get $i))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $i) (i32.const 1000))))))"#;

const SPINS: &str = r#"(module (memory (export "memory") 1)
  (func (export "_start") (loop $again (br $again))))"#;

const SPINS_AT_START: &str = r#"(module (memory (export "memory") 1)
  (func $spin (loop $again (br $again))) (start $spin) (func (export "_start")))"#;

fn used(stderr: &str) -> u64 {
    let (_, rest) = stderr.split_once("used ").expect("what was used is told");
    let (number, _) = rest.split_once(' ').expect("a number and more");
    number.parse().expect("a number")
}

#[test]
fn fuel_is_counted_and_ends_a_guest() {
    if !can_run() {
        return;
    }
    for profile in ["default", "hardened"] {
        let run = |guest: &str, limit| {
            let wishes = Wishes {
                profile,
                fuel: Some(limit),
                ..Wishes::NONE
            };
            let (code, container) = Container::with(guest, wishes).run();
            (code, container.read("stderr"))
        };
        let (code, stderr) = run(COUNTS, 1_000_000);
        assert_eq!(code, 0, "{stderr}");
        let needed = used(&stderr);
        assert!((5_000..20_000).contains(&needed), "{stderr}");
        assert_eq!(
            run(COUNTS, needed),
            (0, stderr.replace("1000000", &needed.to_string()))
        );
        for (guest, limit) in [
            (COUNTS, needed - 10),
            (SPINS, 50_000),
            (SPINS_AT_START, 50_000),
        ] {
            let (code, stderr) = run(guest, limit);
            assert_eq!(code, 122, "{stderr}");
            assert!(
                stderr.ends_with(&format!(
                    "out of fuel, limit {limit}: raise wasmlet.dev/fuel\n"
                )),
                "{stderr}"
            );
        }
    }
}

#[test]
fn a_run_ends_at_its_deadline_whatever_it_does() {
    if !can_run() {
        return;
    }
    for guest in [
        SPINS.to_owned(),
        SPINS_AT_START.to_owned(),
        guests::sleeps(),
    ] {
        let wishes = Wishes {
            timeout_millis: Some(300),
            ..Wishes::NONE
        };
        let (code, container) = Container::with(&guest, wishes).run();
        assert_eq!(
            (code, container.read("stderr").as_str()),
            (
                124,
                "wasmlet: /guest.wasm: ran into its time limit of 300ms: raise wasmlet.dev/timeout\n"
            )
        );
    }
}

#[test]
fn a_guest_that_needs_more_than_it_may_have_does_not_start() {
    if !can_run() {
        return;
    }
    for memories in ["(memory 3)", "(memory 2) (memory 1)"] {
        let mut container = Container::new(format!(
            r#"(module {memories} (func (export "_start") unreachable))"#
        ));
        container.request.max_memory = Some(3 * PAGE - 1);
        let (code, container) = container.run();
        let stderr = container.read("stderr");
        assert_eq!(code, 123, "{stderr}");
        assert!(
            stderr.contains("196608") && stderr.contains("196607"),
            "{stderr}"
        );
    }
}

/// Grows each of two memories by a page in turn until that is refused; exits with how often it was not.
const GROWS_TWO: &str = r#"(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory $a (export "memory") 1) (memory $b 1)
  (func (export "_start") (local $n i32)
    (loop $again
      (if (i32.eq (memory.grow $a (i32.const 1)) (i32.const -1))
        (then (call $exit (local.get $n))))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (if (i32.eq (memory.grow $b (i32.const 1)) (i32.const -1))
        (then (call $exit (local.get $n))))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br $again))))"#;

#[test]
fn all_memories_count_together() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(GROWS_TWO);
    container.request.max_memory = Some(9 * PAGE);
    let (code, container) = container.run();
    assert_eq!((code, container.read("stderr").as_str()), (7, ""));
}

#[test]
fn a_table_that_grows_beyond_the_cap_ends_the_guest() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(guests::grows_a_table());
    container.request.max_memory = Some(20 * PAGE);
    let (code, container) = container.run();
    let stderr = container.read("stderr");
    assert_eq!(code, 121, "{stderr}");
    assert!(
        stderr.contains("for a table") && stderr.contains("wasmlet.dev/memory"),
        "{stderr}"
    );
}

/// Tries to grow by a page every few milliseconds, and says each time whether it could.
const GROWS_FOR_EVER: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "yn")
  (func (export "_start")
    (i32.store (i32.const 4) (i32.const 1))
    (i32.store (i32.const 144) (i32.const 1))
    (i64.store (i32.const 152) (i64.const 5000000))
    (loop $again
      (i32.store (i32.const 0)
        (i32.add (i32.const 16) (i32.eq (memory.grow (i32.const 1)) (i32.const -1))))
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (drop (call $poll (i32.const 128) (i32.const 256) (i32.const 1) (i32.const 300)))
      (br $again))))"#;

#[test]
fn the_memory_cap_moves_while_the_guest_runs() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(GROWS_FOR_EVER);
    container.request.max_memory = Some(2 * PAGE);
    let mut created = container.created();
    created.start();
    let count = |text: &str| created.container.read("stdout").matches(text).count();
    eventually("two pages are the limit", || count("n") > 2);
    assert_eq!(count("y"), 1);
    let limits = format!(r#"{{"max_memory":{}}}"#, 3 * PAGE);
    assert_eq!(created.control(&["update", "{}", &limits]), done());
    eventually("a third page", || count("y") == 2);
    kill(Pid::from_raw(created.pid), Signal::SIGKILL).expect("it runs");
    assert_eq!(created.wait(), 137);
    created.delete();
}
