//! What only Wasmer has: WASIX, threads, the WASI before preview 1, exceptions.

use std::io::{Read, Write};
use std::net::TcpListener;

use wasmlet_protocol::interface;

use crate::support::{Container, Wishes, can_run, describe, try_compile};

/// Starts a thread that writes "thread", waits for it on a word of memory, and writes "main".
const THREADS: &str = r#"(module
  (import "env" "memory" (memory 1 4 shared))
  (import "wasi" "thread-spawn" (func $spawn (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (data (i32.const 64) "thread main ")
  (func (export "wasi_thread_start") (param i32 i32)
    (i32.store (i32.const 16) (i32.const 64))
    (i32.store (i32.const 20) (i32.const 7))
    (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24)))
    (i32.atomic.store (i32.const 0) (i32.const 1))
    (drop (memory.atomic.notify (i32.const 0) (i32.const 1))))
  (func (export "_start")
    (if (i32.lt_s (call $spawn (i32.const 0)) (i32.const 0)) (then (call $exit (i32.const 9))))
    (drop (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const 10000000000)))
    (i32.store (i32.const 32) (i32.const 71))
    (i32.store (i32.const 36) (i32.const 5))
    (drop (call $write (i32.const 1) (i32.const 32) (i32.const 1) (i32.const 40))))
  (export "memory" (memory 0)))"#;

/// Starts threads that never end until it is refused, and exits with their number.
const MANY_THREADS: &str = r#"(module
  (import "env" "memory" (memory 1 4 shared))
  (import "wasi" "thread-spawn" (func $spawn (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (func (export "wasi_thread_start") (param i32 i32)
    (drop (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const -1))))
  (func (export "_start") (local $n i32)
    (loop $again
      (if (i32.ge_s (call $spawn (i32.const 0)) (i32.const 0))
        (then
          (local.set $n (i32.add (local.get $n) (i32.const 1)))
          (br_if $again (i32.lt_s (local.get $n) (i32.const 250))))))
    (call $exit (local.get $n)))
  (export "memory" (memory 0)))"#;

#[test]
fn threads_share_the_memory() {
    if !can_run() {
        return;
    }
    let (code, container) = Container::new(THREADS).run();
    assert_eq!(
        (code, container.read("stdout").as_str()),
        (0, "thread main "),
        "{}",
        container.read("stderr")
    );
}

#[test]
fn there_is_an_end_to_threads() {
    if !can_run() {
        return;
    }
    let (code, container) = Container::new(MANY_THREADS).run();
    assert_eq!(code, 128, "{}", container.read("stderr"));
}

#[test]
fn threads_that_the_container_may_not_have_are_refused() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(MANY_THREADS);
    container.spec["linux"]["resources"]["pids"] = serde_json::json!({"limit": 20});
    let (code, container) = container.run();
    assert!(
        (5..20).contains(&code),
        "{code}: {}",
        container.read("stderr")
    );
}

#[test]
fn a_listening_socket_is_not_for_threads() {
    if !can_run() {
        return;
    }
    let guest = r#"(module
      (import "env" "memory" (memory 1 2 shared))
      (import "wasi_snapshot_preview1" "sock_accept" (func $a (param i32 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
      (func (export "_start")
        (call $exit (call $a (i32.const 0) (i32.const 0) (i32.const 16))))
      (export "memory" (memory 0)))"#;
    let mut container = Container::new(guest);
    container.request.listen = Some("127.0.0.1:0".parse().expect("an address"));
    let (code, container) = container.run();
    let stderr = container.read("stderr");
    assert_eq!(code, 125, "{stderr}");
    assert!(stderr.contains("wasmlet.dev/listen to none"), "{stderr}");
    let (code, _) = Container::new(guest).run();
    assert!(
        code != 0 && code < 100,
        "an error number of WASIX's: {code}"
    );
}

#[test]
fn the_wasi_before_preview_1_is_there() {
    if !can_run() {
        return;
    }
    let guest = r#"(module
      (import "wasi_unstable" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
      (import "wasi_unstable" "proc_exit" (func $exit (param i32)))
      (memory (export "memory") 1)
      (data (i32.const 16) "old")
      (func (export "_start")
        (i32.store (i32.const 0) (i32.const 16))
        (i32.store (i32.const 4) (i32.const 3))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
        (call $exit (i32.const 300))))"#;
    let (code, container) = Container::new(guest).run();
    assert_eq!((code, container.read("stdout").as_str()), (255, "old"));
}

/// Listens on the port that it is given, takes one connection, and answers what it reads.
fn echoes(port: u16) -> String {
    let [high, low] = port.to_be_bytes();
    // `__wasi_addr_port_t`: tag 1 (IPv4) at 0, port at 2 (big end first), address at 4.
    format!(
        r#"(module
  (import "wasix_32v1" "sock_open" (func $open (param i32 i32 i32 i32) (result i32)))
  (import "wasix_32v1" "sock_bind" (func $bind (param i32 i32) (result i32)))
  (import "wasix_32v1" "sock_listen" (func $listen (param i32 i32) (result i32)))
  (import "wasix_32v1" "sock_accept_v2" (func $accept (param i32 i32 i32 i32) (result i32)))
  (import "wasix_32v1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasix_32v1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasix_32v1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "\01\00\{low:02x}\{high:02x}\7f\00\00\01")
  (func $check (param $errno i32) (param $step i32)
    (if (local.get $errno) (then (call $exit (local.get $step)))))
  (func (export "_start")
    ;; IPv4, stream, TCP
    (call $check (call $open (i32.const 1) (i32.const 1) (i32.const 6) (i32.const 32)) (i32.const 1))
    (call $check (call $bind (i32.load (i32.const 32)) (i32.const 64)) (i32.const 2))
    (call $check (call $listen (i32.load (i32.const 32)) (i32.const 5)) (i32.const 3))
    (call $check
      (call $accept (i32.load (i32.const 32)) (i32.const 0) (i32.const 36) (i32.const 128))
      (i32.const 4))
    (i32.store (i32.const 0) (i32.const 512))
    (i32.store (i32.const 4) (i32.const 100))
    (call $check
      (call $read (i32.load (i32.const 36)) (i32.const 0) (i32.const 1) (i32.const 8))
      (i32.const 5))
    (i32.store (i32.const 4) (i32.load (i32.const 8)))
    (call $check
      (call $write (i32.load (i32.const 36)) (i32.const 0) (i32.const 1) (i32.const 8))
      (i32.const 6))))"#
    )
}

#[test]
fn wasix_has_sockets_of_its_own() {
    if !can_run() {
        return;
    }
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a free port")
        .port();
    let mut container = Container::new(echoes(port));
    // In the network of this test.
    container.spec["linux"]["namespaces"]
        .as_array_mut()
        .expect("a list")
        .truncate(4);
    let mut created = container.created();
    created.start();
    let mut answered = None;
    crate::support::eventually("the guest answers or ends", || {
        if let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) {
            stream.write_all(b"hello").expect("it is open");
            let mut text = String::new();
            let _ = stream.read_to_string(&mut text);
            answered = Some(text);
        }
        answered.is_some() || created.try_wait().is_some()
    });
    let code = created.wait();
    let container = created.delete();
    assert_eq!(
        (code, answered.as_deref()),
        (0, Some("hello")),
        "the number of the step that failed: {}",
        container.read("stderr")
    );
}

#[test]
fn exceptions_are_thrown_and_caught() {
    if !can_run() {
        return;
    }
    let catches = r#"(module
      (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
      (memory (export "memory") 1)
      (tag $e (param i32))
      (func $throws (throw $e (i32.const 42)))
      (func (export "_start")
        (call $exit
          (block $caught (result i32)
            (try_table (catch $e $caught) (call $throws))
            (i32.const 1)))))"#;
    let (code, container) = Container::new(catches).run();
    assert_eq!(code, 42, "{}", container.read("stderr"));
    let throws = r#"(module (memory (export "memory") 1) (tag $e)
      (func (export "_start") (throw $e)))"#;
    let (code, container) = Container::new(throws).run();
    let stderr = container.read("stderr");
    assert_eq!(code, 121, "{stderr}");
    assert!(stderr.contains("uncaught exception"), "{stderr}");
}

#[test]
fn what_a_module_needs_is_what_the_runner_offers() {
    let (compiled, _) = try_compile(echoes(1).as_bytes()).expect("it compiles");
    let offered = describe().interfaces;
    assert_eq!(compiled.needs.interfaces, [interface::WASIX]);
    assert!(offered.contains(&interface::WASIX.to_owned()));
    // The functions are there, as the tests above show, and the shim refuses such guests on every engine:
    // nobody builds them any more, and threads of WASIX are the ones that are kept up.
    let (compiled, _) = try_compile(THREADS.as_bytes()).expect("it compiles");
    let threads = interface::WASI_THREADS.to_owned();
    assert!(compiled.needs.interfaces.contains(&threads));
    assert!(!offered.contains(&threads));
}

#[test]
fn a_guest_without_a_folder_runs() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(crate::guests::writes(1, "hello"));
    container.spec["mounts"] = serde_json::json!([]);
    let (code, container) = container.run();
    assert_eq!(
        (code, container.read("stdout").as_str()),
        (0, "hello"),
        "{}",
        container.read("stderr")
    );
}

#[test]
fn a_guest_without_memory_runs() {
    if !can_run() {
        return;
    }
    let guest = r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
      (func (export "_start") (call $exit (i32.const 7))))"#;
    assert_eq!(Container::new(guest).run().0, 7);
    let writes = r#"(module
      (import "wasi_snapshot_preview1" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
      (func (export "_start")
        (call $exit (call $w (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;
    let (code, container) = Container::new(writes).run();
    assert_ne!(code, 0);
    assert_eq!(container.read("stdout"), "");
}

#[test]
fn a_start_function_may_use_wasi() {
    if !can_run() {
        return;
    }
    let guest = r#"(module
      (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
      (memory (export "memory") 1)
      (func $init (call $exit (i32.const 11)))
      (start $init)
      (func (export "_start")))"#;
    for profile in ["default", "hardened"] {
        let wishes = Wishes {
            profile,
            ..Wishes::NONE
        };
        assert_eq!(Container::with(guest, wishes).run().0, 11);
    }
}
