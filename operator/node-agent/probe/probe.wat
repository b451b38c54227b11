;; The probe: says one line and ends well. The line is wasmlet_api::names::PROBE_LINE, put in by build.rs.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  ;; One iovec: where the line is, and how long.
  (data (i32.const 0) "\10\00\00\00")
  (data (i32.const 4) "@LENGTH@\00\00\00")
  (data (i32.const 16) "@LINE@\n")
  (func (export "_start")
    (if (i32.or
          (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))
          ;; Not all was written.
          (i32.ne (i32.load (i32.const 8)) (i32.load (i32.const 4))))
      (then (call $proc_exit (i32.const 1))))))
