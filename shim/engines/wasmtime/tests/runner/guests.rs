//! Guests, in WebAssembly text.

/// Imports of WASI preview 1 that the guests below pick from.
const IMPORTS: &str = r#"
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $env_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $env (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_dir_name"
    (func $prestat_name (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff"
    (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
"#;

/// A module with those imports, one page of memory, and helpers to write.
fn module(memory: &str, body: &str) -> String {
    format!(
        r#"(module {IMPORTS}
  (memory (export "memory") {memory})
  ;; writes a piece of memory to stdout, through an iovec at 0
  (func $say (param $at i32) (param $length i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $length))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
  {body})"#
    )
}

/// Writes a text to a descriptor and returns.
pub(crate) fn writes(fd: u32, text: &str) -> String {
    module(
        "1",
        &format!(
            r#"(data (i32.const 16) "{text}")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const {length}))
    (drop (call $write (i32.const {fd}) (i32.const 0) (i32.const 1) (i32.const 8))))"#,
            length = text.len(),
        ),
    )
}

/// Exits with a code.
pub(crate) fn exits(code: u32) -> String {
    module(
        "1",
        &format!(r#"(func (export "_start") (call $exit (i32.const {code})))"#),
    )
}

/// Writes its arguments, then its environment, each ended by a zero byte.
pub(crate) fn tells_arguments_and_environment() -> String {
    module(
        "1",
        r#"(func (export "_start")
    (drop (call $args_sizes (i32.const 16) (i32.const 20)))
    (drop (call $args (i32.const 100) (i32.const 1000)))
    (call $say (i32.const 1000) (i32.load (i32.const 20)))
    (drop (call $env_sizes (i32.const 16) (i32.const 20)))
    (drop (call $env (i32.const 100) (i32.const 1000)))
    (call $say (i32.const 1000) (i32.load (i32.const 20))))"#,
    )
}

/// Writes the names of its preopened folders, a line each.
pub(crate) fn tells_preopens() -> String {
    module(
        "1",
        r#"(data (i32.const 64) "\n")
  (func (export "_start") (local $fd i32)
    (local.set $fd (i32.const 3))
    (loop $next
      (if (i32.eqz (call $prestat (local.get $fd) (i32.const 16)))
        (then
          (drop (call $prestat_name (local.get $fd) (i32.const 1000) (i32.load (i32.const 20))))
          (call $say (i32.const 1000) (i32.load (i32.const 20)))
          (call $say (i32.const 64) (i32.const 1))
          (local.set $fd (i32.add (local.get $fd) (i32.const 1)))
          (br $next)))))"#,
    )
}

/// Copies stdin to stdout until its end.
pub(crate) fn copies_stdin() -> String {
    module(
        "1",
        r#"(func (export "_start")
    (loop $next
      (i32.store (i32.const 16) (i32.const 1000))
      (i32.store (i32.const 20) (i32.const 500))
      (if (i32.eqz (call $read (i32.const 0) (i32.const 16) (i32.const 1) (i32.const 24)))
        (then
          (if (i32.load (i32.const 24))
            (then
              (call $say (i32.const 1000) (i32.load (i32.const 24)))
              (br $next)))))))"#,
    )
}

/// Tries to open a path in every preopen, with rights to read and to write and flags for the open.
/// Exits with 0 when none let it, else with the first descriptor that did. A path that leads into
/// another folder through a link is as good as any.
pub(crate) fn opens(path: &str, oflags: u32, rights: u64) -> String {
    module(
        "1",
        &format!(
            r#"(data (i32.const 64) "{path}")
  (func (export "_start") (local $fd i32)
    (local.set $fd (i32.const 3))
    (loop $next
      (if (i32.eqz (call $prestat (local.get $fd) (i32.const 16)))
        (then
          (if (i32.eqz (call $open (local.get $fd) (i32.const 1) (i32.const 64)
                (i32.const {length}) (i32.const {oflags}) (i64.const {rights}) (i64.const {rights})
                (i32.const 0) (i32.const 24)))
            (then (call $exit (local.get $fd))))
          (local.set $fd (i32.add (local.get $fd) (i32.const 1)))
          (br $next)))))"#,
            length = path.len(),
        ),
    )
}

/// Says `ready` and then computes for ever.
pub(crate) fn spins() -> String {
    module(
        "1",
        r#"(data (i32.const 64) "ready")
  (func (export "_start") (call $say (i32.const 64) (i32.const 5)) (loop $l (br $l)))"#,
    )
}

/// Says `ready` and then sleeps for ever.
pub(crate) fn sleeps() -> String {
    module(
        "1",
        r#"(data (i32.const 64) "ready")
  (func (export "_start")
    (call $say (i32.const 64) (i32.const 5))
    ;; one relative clock subscription (monotonic) of 2^60 nanoseconds at 128
    (i32.store (i32.const 144) (i32.const 1))
    (i64.store (i32.const 152) (i64.const 1152921504606846976))
    (loop $l
      (drop (call $poll (i32.const 128) (i32.const 256) (i32.const 1) (i32.const 300)))
      (br $l)))"#,
    )
}

/// Grows its memory page by page until it is refused, and exits with the pages it has.
pub(crate) fn grows() -> String {
    module(
        "1",
        r#"(func (export "_start")
    (loop $next (br_if $next (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
    (call $exit (memory.size)))"#,
    )
}

/// Grows its memory by a lot, and traps when it is refused, as programs do that are out of memory.
pub(crate) fn grows_or_traps() -> String {
    module(
        "1",
        r#"(func (export "_start")
    (if (i32.eq (memory.grow (i32.const 1000)) (i32.const -1)) (then unreachable)))"#,
    )
}

/// Needs memory from the start.
pub(crate) fn needs_pages(pages: u32) -> String {
    module(&pages.to_string(), r#"(func (export "_start"))"#)
}

/// Traps in a function with a name.
pub(crate) fn traps() -> String {
    module(
        "1",
        r#"(func $deep unreachable) (func (export "_start") (call $deep))"#,
    )
}

/// Recurses without end.
pub(crate) fn overflows_the_stack() -> String {
    module(
        "1",
        r#"(func $f (call $f)) (func (export "_start") (call $f))"#,
    )
}

/// A library: functions to call by name, and an initializer.
pub(crate) fn library() -> String {
    module(
        "1",
        r#"(data (i32.const 64) "init called")
  (func (export "_initialize") (call $say (i32.const 64) (i32.const 5)))
  (func (export "work") (result i32) (call $say (i32.const 69) (i32.const 6)) (i32.const 7))
  (func (export "takes") (param i32))
  (global (export "number") i32 (i32.const 1))"#,
    )
}

/// Accepts connections on descriptor 0 for ever; answers each with `hello` and closes it.
///
/// With `reads` it first reads a request; a failed read closes the connection.
pub(crate) fn serves(reads: bool) -> String {
    let read = if reads {
        r#"(i32.store (i32.const 16) (i32.const 1000))
           (i32.store (i32.const 20) (i32.const 500))
           (drop (call $read (local.get $fd) (i32.const 16) (i32.const 1) (i32.const 24)))"#
    } else {
        ""
    };
    format!(
        r#"(module
  (import "wasi_snapshot_preview1" "sock_accept" (func $accept (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sock_shutdown" (func $shutdown (param i32 i32) (result i32)))
  {IMPORTS}
  (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "hello")
  (data (i32.const 80) "read")
  (func (export "_start") (local $fd i32)
    (loop $next
      (if (call $accept (i32.const 0) (i32.const 0) (i32.const 32)) (then unreachable))
      (local.set $fd (i32.load (i32.const 32)))
      {read}
      (i32.store (i32.const 0) (i32.const 64))
      (i32.store (i32.const 4) (i32.const 5))
      (drop (call $write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)))
      (drop (call $shutdown (local.get $fd) (i32.const 2)))
      (drop (call $close (local.get $fd)))
      (br $next))))"#
    )
}

/// A component that is a command: its `run` answers ok or an error.
pub(crate) fn command_component(ok: bool) -> String {
    let result = u8::from(!ok);
    format!(
        r#"(component
  (core module $m (func (export "run") (result i32) (i32.const {result})))
  (core instance $i (instantiate $m))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (instance $cli (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $cli)))"#
    )
}

/// A component with functions to call by name.
pub(crate) fn library_component() -> String {
    r#"(component
  (core module $m
    (func (export "ok"))
    (func (export "trap") unreachable)
    (func (export "takes") (param i32)))
  (core instance $i (instantiate $m))
  (func (export "ok") (canon lift (core func $i "ok")))
  (func (export "takes") (param "x" u32) (canon lift (core func $i "takes")))
  (func $trap (canon lift (core func $i "trap")))
  (instance $api (export "trap" (func $trap)))
  (export "my:own/api" (instance $api)))"#
        .to_owned()
}

/// A command component that looks a host name up, and answers ok when its first address is this.
pub(crate) fn looks_up(name: &str, address: [u8; 4]) -> String {
    let errors: String = [
        "unknown",
        "access-denied",
        "not-supported",
        "invalid-argument",
        "out-of-memory",
        "timeout",
        "concurrency-conflict",
        "not-in-progress",
        "would-block",
        "invalid-state",
        "new-socket-limit",
        "address-not-bindable",
        "address-in-use",
        "remote-unreachable",
        "connection-refused",
        "connection-reset",
        "connection-aborted",
        "datagram-too-large",
        "name-unresolvable",
        "temporary-resolver-failure",
        "permanent-resolver-failure",
    ]
    .iter()
    .map(|error| format!("\"{error}\" "))
    .collect();
    format!(
        r#"(component
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $p (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $p))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:sockets/network@0.2.0" (instance $net
    (export "network" (type (sub resource)))
    (type $e0 (enum {errors}))
    (export "error-code" (type $e (eq $e0)))
    (type $four0 (tuple u8 u8 u8 u8))
    (export "ipv4-address" (type $four (eq $four0)))
    (type $six0 (tuple u16 u16 u16 u16 u16 u16 u16 u16))
    (export "ipv6-address" (type $six (eq $six0)))
    (type $ip0 (variant (case "ipv4" $four) (case "ipv6" $six)))
    (export "ip-address" (type (eq $ip0)))))
  (alias export $net "network" (type $network))
  (alias export $net "error-code" (type $error))
  (alias export $net "ip-address" (type $ip))
  (import "wasi:sockets/instance-network@0.2.0" (instance $instance
    (alias outer 1 $network (type $network0))
    (export "network" (type $n (eq $network0)))
    (export "instance-network" (func (result (own $n))))))
  (import "wasi:sockets/ip-name-lookup@0.2.0" (instance $lookup
    (alias outer 1 $pollable (type $pollable0))
    (export "pollable" (type $p (eq $pollable0)))
    (alias outer 1 $network (type $network0))
    (export "network" (type $n (eq $network0)))
    (alias outer 1 $error (type $error0))
    (export "error-code" (type $e (eq $error0)))
    (alias outer 1 $ip (type $ip0))
    (export "ip-address" (type $a (eq $ip0)))
    (export "resolve-address-stream" (type $s (sub resource)))
    (export "resolve-addresses"
      (func (param "network" (borrow $n)) (param "name" string) (result (result (own $s) (error $e)))))
    (export "[method]resolve-address-stream.resolve-next-address"
      (func (param "self" (borrow $s)) (result (result (option $a) (error $e)))))
    (export "[method]resolve-address-stream.subscribe"
      (func (param "self" (borrow $s)) (result (own $p))))))

  (core module $libc (memory (export "memory") 1) (data (i32.const 0) "{name}"))
  (core instance $libc (instantiate $libc))
  (core func $network (canon lower (func $instance "instance-network")))
  (core func $resolve
    (canon lower (func $lookup "resolve-addresses") (memory (core memory $libc "memory"))))
  (core func $next
    (canon lower (func $lookup "[method]resolve-address-stream.resolve-next-address")
      (memory (core memory $libc "memory"))))
  (core func $subscribe
    (canon lower (func $lookup "[method]resolve-address-stream.subscribe")))
  (core func $block (canon lower (func $poll "[method]pollable.block")))

  (core module $main
    (import "libc" "memory" (memory 1))
    (import "host" "network" (func $network (result i32)))
    (import "host" "resolve" (func $resolve (param i32 i32 i32 i32)))
    (import "host" "next" (func $next (param i32 i32)))
    (import "host" "subscribe" (func $subscribe (param i32) (result i32)))
    (import "host" "block" (func $block (param i32)))
    (func (export "run") (result i32) (local $stream i32)
      (call $resolve (call $network) (i32.const 0) (i32.const {length}) (i32.const 128))
      (if (i32.load8_u (i32.const 128)) (then (return (i32.const 1))))
      (local.set $stream (i32.load (i32.const 132)))
      (call $block (call $subscribe (local.get $stream)))
      (call $next (local.get $stream) (i32.const 256))
      ;; an error, no address, no IPv4 address
      (if (i32.load8_u (i32.const 256)) (then (return (i32.const 1))))
      (if (i32.eqz (i32.load8_u (i32.const 258))) (then (return (i32.const 1))))
      (if (i32.load8_u (i32.const 260)) (then (return (i32.const 1))))
      (i32.ne (i32.load align=1 (i32.const 262)) (i32.const {address}))))
  (core instance $main (instantiate $main
    (with "libc" (instance $libc))
    (with "host" (instance
      (export "network" (func $network))
      (export "resolve" (func $resolve))
      (export "next" (func $next))
      (export "subscribe" (func $subscribe))
      (export "block" (func $block))))))
  (func $run (result (result)) (canon lift (core func $main "run")))
  (instance $cli (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $cli)))"#,
        length = name.len(),
        address = u32::from_le_bytes(address),
    )
}
