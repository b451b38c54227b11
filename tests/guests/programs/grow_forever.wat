;; Tries to grow by a page every few milliseconds, and says each time whether it could.
(module
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
      (br $again))))
