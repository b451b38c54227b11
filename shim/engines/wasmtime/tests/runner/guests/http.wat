;; A server whose paths begin with the letter of what it shall do.
(module
  (import "wasi:http/types@0.2.0" "[method]incoming-request.path-with-query" (func $path (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[method]incoming-request.consume" (func $consume (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[method]incoming-body.stream" (func $in (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[constructor]fields" (func $fields (result i32)))
  (import "wasi:http/types@0.2.0" "[constructor]outgoing-response" (func $response (param i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-response.body" (func $body (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-body.write" (func $out (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[static]outgoing-body.finish" (func $finish (param i32 i32 i32 i32)))
  (import "wasi:http/types@0.2.0" "[static]response-outparam.set"
    (func $set (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
  (import "wasi:http/types@0.2.0" "[constructor]outgoing-request" (func $request (param i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-scheme"
    (func $scheme (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-authority"
    (func $authority (param i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-path-with-query"
    (func $set_path (param i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]future-incoming-response.subscribe"
    (func $future (param i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]future-incoming-response.get" (func $get (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[method]incoming-response.consume" (func $answer (param i32 i32)))
  (import "wasi:http/outgoing-handler@0.2.0" "handle" (func $call (param i32 i32 i32 i32)))
  (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
    (func $write (param i32 i32 i32 i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-splice"
    (func $splice (param i32 i32 i64 i32)))
  (import "wasi:io/streams@0.2.0" "[resource-drop]output-stream" (func $close (param i32)))
  (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $after (param i64) (result i32)))
  (import "wasi:cli/stdout@0.2.0" "get-stdout" (func $stdout (result i32)))
  (import "wasi:cli/environment@0.2.0" "get-environment" (func $environment (param i32)))
  (import "wasi:cli/environment@0.2.0" "get-arguments" (func $arguments (param i32)))

  (memory (export "memory") 2)
  (global $free (mut i32) (i32.const 65536))
  (global $stream (mut i32) (i32.const 0))
  (global $sink (mut i32) (i32.const 0))
  (data (i32.const 1024) "hello")
  (data (i32.const 1040) "served\n")
  (data (i32.const 1056) "no answer: ")
  (data (i32.const 1072) "/hello")

  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (global.set $free (i32.and (i32.add (global.get $free) (i32.const 15)) (i32.const -16)))
    (global.get $free)
    (global.set $free (i32.add (global.get $free) (local.get 3))))

  ;; The handle behind the discriminant of a result at 64, which has to be ok.
  (func $ok (result i32)
    (if (i32.load8_u (i32.const 64)) (then unreachable))
    (i32.load (i32.const 68)))

  ;; Sends the head of the answer; the stream of its body is in $stream then.
  (func $head (param $out i32) (local $response i32)
    (local.set $response (call $response (call $fields)))
    (call $body (local.get $response) (i32.const 64))
    (global.set $sink (call $ok))
    (call $out (global.get $sink) (i32.const 64))
    (global.set $stream (call $ok))
    (call $set (local.get $out) (i32.const 0) (local.get $response)
      (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))

  (func $text (param $at i32) (param $length i32)
    (call $write (global.get $stream) (local.get $at) (local.get $length) (i32.const 64)))

  (func $end
    (call $close (global.get $stream))
    (call $finish (global.get $sink) (i32.const 0) (i32.const 0) (i32.const 64)))

  (func $hello (param $out i32)
    (call $head (local.get $out))
    (call $text (i32.const 1024) (i32.const 5))
    (call $end))

  ;; Everything of a body goes into the answer as it comes.
  (func $pass_on (param $body i32) (local $in i32)
    (call $in (local.get $body) (i32.const 64))
    (local.set $in (call $ok))
    (loop $next
      (call $splice (global.get $stream) (local.get $in) (i64.const 4096) (i32.const 64))
      (br_if $next (i32.eqz (i32.load8_u (i32.const 64))))
      ;; not the end but an error
      (if (i32.eqz (i32.load8_u (i32.const 72))) (then unreachable))))

  ;; Calls /hello of an authority, and answers with what comes back, or why there is nothing.
  (func $calls (param $out i32) (param $scheme i32) (param $at i32) (param $length i32)
    (local $request i32) (local $future i32)
    (local.set $request (call $request (call $fields)))
    (drop (call $scheme (local.get $request) (i32.const 1) (local.get $scheme) (i32.const 0) (i32.const 0)))
    (drop (call $authority (local.get $request) (i32.const 1) (local.get $at) (local.get $length)))
    (drop (call $set_path (local.get $request) (i32.const 1) (i32.const 1072) (i32.const 6)))
    (call $call (local.get $request) (i32.const 0) (i32.const 0) (i32.const 64))
    (if (i32.load8_u (i32.const 64)) (then unreachable))
    (local.set $future (i32.load (i32.const 72)))
    (call $block (call $future (local.get $future)))
    (call $get (local.get $future) (i32.const 128))
    (call $head (local.get $out))
    (if (i32.load8_u (i32.const 144))
      (then
        (call $text (i32.const 1056) (i32.const 11))
        ;; the number of the error, as a letter from A
        (i32.store8 (i32.const 1100) (i32.add (i32.const 65) (i32.load8_u (i32.const 152))))
        (call $text (i32.const 1100) (i32.const 1))
        ;; the text of an internal error, or of one in the name lookup
        (if (i32.and (i32.load8_u (i32.const 160))
              (i32.or (i32.eq (i32.load8_u (i32.const 152)) (i32.const 38))
                (i32.eq (i32.load8_u (i32.const 152)) (i32.const 1))))
          (then (call $text (i32.load (i32.const 164)) (i32.load (i32.const 168))))))
      (else
        (call $answer (i32.load (i32.const 152)) (i32.const 64))
        (call $pass_on (call $ok))))
    (call $end))

  (func (export "wasi:http/incoming-handler@0.2.0#handle") (param $request i32) (param $out i32)
    (local $at i32) (local $length i32) (local $what i32) (local $count i32)
    (call $path (local.get $request) (i32.const 64))
    (local.set $at (i32.load (i32.const 68)))
    (local.set $length (i32.load (i32.const 72)))
    (local.set $what (i32.load8_u offset=1 (local.get $at)))

    (if (i32.eq (local.get $what) (i32.const 104 (; h ;)))
      (then (call $hello (local.get $out)) (return)))
    (if (i32.eq (local.get $what) (i32.const 101 (; e ;)))
      (then
        (call $consume (local.get $request) (i32.const 64))
        (local.set $at (call $ok))
        (call $head (local.get $out))
        (call $pass_on (local.get $at))
        (call $end)
        (return)))
    (if (i32.eq (local.get $what) (i32.const 116 (; t ;)))
      (then unreachable))
    (if (i32.eq (local.get $what) (i32.const 109 (; m, midway ;)))
      (then
        (call $head (local.get $out))
        (call $text (i32.const 1024) (i32.const 5))
        unreachable))
    (if (i32.eq (local.get $what) (i32.const 115 (; s ;)))
      (then (loop $for_ever (br $for_ever))))
    (if (i32.eq (local.get $what) (i32.const 119 (; w, waits ;)))
      (then
        (call $block (call $after (i64.const 1000000000)))
        (call $hello (local.get $out))
        (return)))
    (if (i32.eq (local.get $what) (i32.const 110 (; n ;)))
      (then (return)))
    (if (i32.eq (local.get $what) (i32.const 103 (; g, 20 pages more ;)))
      (then
        (if (i32.eq (memory.grow (i32.const 20)) (i32.const -1)) (then unreachable))
        (call $hello (local.get $out))
        (return)))
    (if (i32.eq (local.get $what) (i32.const 112 (; p, prints ;)))
      (then
        (call $write (call $stdout) (i32.const 1040) (i32.const 7) (i32.const 64))
        (call $hello (local.get $out))
        (return)))
    (if (i32.eq (local.get $what) (i32.const 118 (; v, the value of the second variable ;)))
      (then
        (call $head (local.get $out))
        (call $arguments (i32.const 64))
        (local.set $at (i32.load (i32.const 64)))
        (call $text (i32.load (local.get $at)) (i32.load offset=4 (local.get $at)))
        (call $environment (i32.const 64))
        (local.set $at (i32.load (i32.const 64)))
        (call $text (i32.load offset=24 (local.get $at)) (i32.load offset=28 (local.get $at)))
        (call $end)
        (return)))
    (if (i32.eq (local.get $what) (i32.const 108 (; l, 4 MiB ;)))
      (then
        (call $head (local.get $out))
        (loop $next
          (call $text (i32.const 0) (i32.const 4096))
          (local.set $count (i32.add (local.get $count) (i32.const 1)))
          (br_if $next (i32.lt_u (local.get $count) (i32.const 1024))))
        (call $end)
        (return)))
    (if (i32.or (i32.eq (local.get $what) (i32.const 99 (; c ;)))
          (i32.eq (local.get $what) (i32.const 120 (; x, with TLS ;))))
      (then
        (call $calls (local.get $out)
          (i32.eq (local.get $what) (i32.const 120))
          (i32.add (local.get $at) (i32.const 2))
          (i32.sub (local.get $length) (i32.const 2)))
        (return)))
    unreachable)

  ;; For those that are a command, too.
  (func (export "wasi:cli/run@0.2.0#run") (result i32)
    (i32.const 0)))
