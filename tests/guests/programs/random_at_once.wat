;; Asks for 1 GiB of random bytes in one call, into one page of memory.
(module
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (call $exit (i32.add (i32.const 100) (call $random (i32.const 0) (i32.const 1073741824))))))
