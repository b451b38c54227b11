//! Components, in the text format.

/// How a guest ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    Returns,
    Traps,
    Spins,
}

/// A command component that writes a text to stdout or stderr without flushing, and then ends.
pub(crate) fn component_writes(stream: &str, text: &str, end: End) -> String {
    let end = match end {
        End::Returns => "(i32.const 0)",
        End::Traps => "unreachable",
        End::Spins => "(loop $l (br $l)) unreachable",
    };
    format!(
        r#"(component
  (import "wasi:io/error@0.2.0" (instance $errors (export "error" (type (sub resource)))))
  (alias export $errors "error" (type $error))
  (import "wasi:io/streams@0.2.0" (instance $streams
    (export "output-stream" (type $out (sub resource)))
    (alias outer 1 $error (type $error0))
    (export "error" (type $e (eq $error0)))
    (type $failure0 (variant (case "last-operation-failed" (own $e)) (case "closed")))
    (export "stream-error" (type $failure (eq $failure0)))
    (export "[method]output-stream.write" (func (param "self" (borrow $out))
      (param "contents" (list u8)) (result (result (error $failure)))))))
  (alias export $streams "output-stream" (type $stream))
  (import "wasi:cli/{stream}@0.2.0" (instance $std
    (alias outer 1 $stream (type $stream0))
    (export "output-stream" (type $s (eq $stream0)))
    (export "get-{stream}" (func (result (own $s))))))
  (core module $libc (memory (export "memory") 1) (data (i32.const 0) "{text}"))
  (core instance $libc (instantiate $libc))
  (core func $get (canon lower (func $std "get-{stream}")))
  (core func $write (canon lower (func $streams "[method]output-stream.write")
    (memory (core memory $libc "memory"))))
  (core module $main
    (import "libc" "memory" (memory 1))
    (import "host" "get" (func $get (result i32)))
    (import "host" "write" (func $write (param i32 i32 i32 i32)))
    (func (export "run") (result i32)
      (call $write (call $get) (i32.const 0) (i32.const {length}) (i32.const 512))
      {end}))
  (core instance $main (instantiate $main
    (with "libc" (instance $libc))
    (with "host" (instance (export "get" (func $get)) (export "write" (func $write))))))
  (func $run (result (result)) (canon lift (core func $main "run")))
  (instance $cli (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $cli)))"#,
        length = text.len(),
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
    lookup(
        name,
        address,
        "(call $block (call $subscribe (local.get $stream)))",
    )
}

/// A command component that begins to look a host name up and returns without waiting.
pub(crate) fn looks_up_and_leaves(name: &str) -> String {
    lookup(name, [0; 4], "(return (i32.const 0))")
}

fn lookup(name: &str, address: [u8; 4], then: &str) -> String {
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
      {then}
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
