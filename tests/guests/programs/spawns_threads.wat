;; Starts threads without end, as wasi-threads has it. No engine of ours offers that to a plain module.
(module
  (import "wasi" "thread-spawn" (func $spawn (param i32) (result i32)))
  (import "env" "memory" (memory 1 1 shared))
  (export "memory" (memory 0))
  (func (export "wasi_thread_start") (param i32 i32)
    (loop $again (br $again)))
  (func (export "_start")
    (loop $again (br_if $again (i32.ge_s (call $spawn (i32.const 0)) (i32.const 0))))))
