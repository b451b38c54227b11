//! What a pod can set: fuel, time, stack, profiles, and the memory cap that moves.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::engine;
use crate::guests::{self, End};
use crate::support::{Container, Created, Wishes, can_run, done, eventually, try_compile_for};

/// Exactly as many instructions as it says, give or take those of a call.
const COUNTS: &str = r#"(module (memory (export "memory") 1)
  (func (export "_start") (local $i i32)
    (loop $again
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $i) (i32.const 1000))))))"#;

const SPINS: &str = r#"(module (memory (export "memory") 1)
  (func (export "_start") (loop $again (br $again))))"#;

const SPINS_AT_START: &str = r#"(module (memory (export "memory") 1)
  (func $spin (loop $again (br $again))) (start $spin) (func (export "_start")))"#;

/// Tries to grow by a page every few milliseconds, and says each time whether it could.
const GROWS_FOR_EVER: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "yn")
  (func (export "_start")
    ;; an iovec at 0, and a clock subscription (monotonic, relative, 5 ms) at 128
    (i32.store (i32.const 4) (i32.const 1))
    (i32.store (i32.const 144) (i32.const 1))
    (i64.store (i32.const 152) (i64.const 5000000))
    (loop $again
      (i32.store (i32.const 0)
        (i32.add (i32.const 16) (i32.eq (memory.grow (i32.const 1)) (i32.const -1))))
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (drop (call $poll (i32.const 128) (i32.const 256) (i32.const 1) (i32.const 300)))
      (br $again))))"#;

/// Writes both clocks (8 bytes each) and 16 random bytes.
const TELLS_TIME_AND_RANDOM: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (drop (call $clock (i32.const 0) (i64.const 1) (i32.const 16)))
    (drop (call $clock (i32.const 1) (i64.const 1) (i32.const 24)))
    (drop (call $random (i32.const 32) (i32.const 16)))
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const 32))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

/// Calls itself as deep as the number says.
fn recurses(depth: u32) -> String {
    format!(
        r#"(module (memory (export "memory") 1)
  (func $down (param $n i32) (result i32) (local $a i64) (local $b i64)
    (if (result i32) (i32.eqz (local.get $n))
      (then (i32.const 0))
      (else (i32.add (call $down (i32.sub (local.get $n) (i32.const 1))) (i32.const 1)))))
  (func (export "_start") (drop (call $down (i32.const {depth})))))"#
    )
}

fn used(stderr: &str) -> u64 {
    let (_, rest) = stderr.split_once("used ").expect("what was used is told");
    let (number, _) = rest.split_once(' ').expect("a number and more");
    number.parse().expect("a number")
}

#[test]
fn fuel_is_counted_exactly_and_told_at_the_end() {
    if !can_run() {
        return;
    }
    let run = |limit| {
        let wishes = Wishes {
            fuel: Some(limit),
            ..Wishes::NONE
        };
        let (code, container) = Container::with(COUNTS, wishes).run();
        (code, container.read("stderr"))
    };
    let (code, stderr) = run(1_000_000);
    assert_eq!(code, 0, "{stderr}");
    let needed = used(&stderr);
    assert!((4_000..20_000).contains(&needed), "{stderr}");
    assert_eq!(
        stderr,
        format!("wasmlet: /guest.wasm: used {needed} of 1000000 fuel\n")
    );
    let (code, stderr) = run(needed);
    assert_eq!(
        (code, used(&stderr)),
        (0, needed),
        "just enough, and always the same"
    );
    let (code, stderr) = run(needed - 10);
    assert_eq!(code, 122, "{stderr}");
    assert!(
        stderr.ends_with(&format!(
            "wasmlet: /guest.wasm: out of fuel, limit {}: raise wasmlet.dev/fuel\n",
            needed - 10
        )),
        "{stderr}"
    );
}

#[test]
fn fuel_ends_a_loop_in_a_start_function_and_a_component() {
    if !can_run() {
        return;
    }
    let wishes = Wishes {
        fuel: Some(100_000),
        ..Wishes::NONE
    };
    let (code, container) = Container::with(SPINS_AT_START, wishes).run();
    assert_eq!(code, 122, "{}", container.read("stderr"));
    if !engine::COMPONENTS {
        return;
    }
    let (code, container) =
        Container::with(guests::component_writes("stdout", "x", End::Spins), wishes).run();
    let stderr = container.read("stderr");
    assert_eq!(code, 122, "{stderr}");
    assert_eq!(used(&stderr), 100_000);
}

#[test]
fn a_run_ends_at_its_deadline_whatever_it_does() {
    if !can_run() {
        return;
    }
    let component = guests::component_writes("stdout", "x", End::Spins);
    for guest in [
        SPINS.to_owned(),
        SPINS_AT_START.to_owned(),
        guests::sleeps(),
    ]
    .into_iter()
    .chain(engine::COMPONENTS.then_some(component))
    {
        let wishes = Wishes {
            timeout_millis: Some(300),
            ..Wishes::NONE
        };
        let (code, container) = Container::with(&guest, wishes).run();
        let stderr = container.read("stderr");
        assert_eq!(code, 124, "{stderr}");
        assert_eq!(
            stderr,
            "wasmlet: /guest.wasm: ran into its time limit of 300ms: raise wasmlet.dev/timeout\n"
        );
    }
    let wishes = Wishes {
        timeout_millis: Some(60_000),
        ..Wishes::NONE
    };
    assert_eq!(Container::with(COUNTS, wishes).run().0, 0);
}

#[test]
fn the_stack_is_as_large_as_the_pod_says() {
    if !can_run() {
        return;
    }
    let run = |depth, stack: Option<u64>, profile| {
        let wishes = Wishes {
            profile,
            ..Wishes::NONE
        };
        let mut container = Container::with(recurses(depth), wishes);
        container.request.max_stack = stack;
        let (code, container) = container.run();
        (code, container.read("stderr"))
    };
    let (code, stderr) = run(1_000_000, None, "default");
    assert_eq!(
        (code, stderr.as_str()),
        (
            121,
            format!(
                "wasmlet: /guest.wasm: stack overflow, limit {} bytes: raise wasmlet.dev/max-stack\n",
                engine::STACK
            )
            .as_str()
        )
    );
    assert_eq!(run(1_000_000, Some(200 << 20), "default").0, 0);
    let (code, stderr) = run(5_000, Some(64 << 10), "default");
    assert!(
        code == 121 && stderr.contains("limit 65536 bytes"),
        "{code} {stderr}"
    );
    assert_eq!(run(5_000, None, "default").0, 0);
    let (code, stderr) = run(1_000_000, None, "hardened");
    assert!(
        code == 121 && stderr.contains("limit 1048576 bytes"),
        "{code} {stderr}"
    );

    let mut container = Container::new(COUNTS);
    container.request.max_stack = Some(1 << 40);
    let (failure, _) = container.fail();
    assert!(
        failure.message.contains("max-stack") && failure.message.contains("256 MiB"),
        "{}",
        failure.message
    );
}

#[test]
fn the_memory_cap_moves_while_the_guest_runs() {
    if !can_run() {
        return;
    }
    const PAGE: u64 = 65536;
    let mut container = Container::new(GROWS_FOR_EVER);
    container.request.max_memory = Some(2 * PAGE);
    let mut created = container.created();
    created.start();
    let grown = |created: &Created| created.container.read("stdout").matches('y').count();
    let refused = |created: &Created| created.container.read("stdout").matches('n').count();
    let move_cap = |created: &Created, to: &str| {
        let limits = format!(r#"{{"max_memory":{to}}}"#);
        assert_eq!(created.control(&["update", "{}", &limits]), done());
    };
    eventually("two pages are the limit", || refused(&created) > 2);
    assert_eq!(grown(&created), 1);
    move_cap(&created, &(3 * PAGE).to_string());
    eventually("a third page", || grown(&created) == 2);
    move_cap(&created, &PAGE.to_string());
    let before = refused(&created);
    eventually("no page more", || refused(&created) > before + 2);
    assert_eq!(grown(&created), 2);
    move_cap(&created, "null");
    eventually("as many as it likes", || grown(&created) > 20);
    kill(Pid::from_raw(created.pid), Signal::SIGKILL).expect("it runs");
    assert_eq!(created.wait(), 137);
    created.delete();
}

#[test]
fn the_hardened_profile_refuses_what_it_switches_off() {
    let simd = r#"(module (func (export "_start") (drop (v128.const i32x4 0 0 0 0))))"#;
    let hardened = Wishes {
        profile: "hardened",
        ..Wishes::NONE
    };
    let failure = try_compile_for(simd.as_bytes(), hardened).expect_err("no vectors");
    assert!(
        failure.message.contains("the profile hardened"),
        "{}",
        failure.message
    );
    try_compile_for(simd.as_bytes(), Wishes::NONE).expect("vectors");
}

#[test]
fn every_guest_runs_in_every_profile() {
    if !can_run() {
        return;
    }
    for profile in ["default", "deterministic", "hardened"] {
        let wishes = Wishes {
            profile,
            ..Wishes::NONE
        };
        let (code, container) = Container::with(guests::writes(1, "hello"), wishes).run();
        assert_eq!((code, container.read("stdout").as_str()), (0, "hello"));
        if !engine::COMPONENTS {
            continue;
        }
        let (code, container) = Container::with(
            guests::component_writes("stdout", "hello", End::Returns),
            wishes,
        )
        .run();
        assert_eq!(code, 0, "{}", container.read("stderr"));
    }
}

#[test]
fn a_deterministic_guest_sees_the_same_in_every_run() {
    if !can_run() {
        return;
    }
    let run = |profile| {
        let wishes = Wishes {
            profile,
            ..Wishes::NONE
        };
        let (code, container) = Container::with(TELLS_TIME_AND_RANDOM, wishes).run();
        assert_eq!(code, 0);
        std::fs::read(container.path("stdout")).expect("it wrote")
    };
    let first = run("deterministic");
    assert_eq!(first.len(), 32);
    assert_eq!(first, run("deterministic"));
    assert_ne!(run("default"), run("default"));
    let wall = u64::from_le_bytes(first[..8].try_into().expect("eight bytes"));
    assert_eq!(wall, 946_684_800_000_000_000, "2000-01-01");
}
