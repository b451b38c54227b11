;; Takes memory, a mebibyte at a time, and writes to all of it, until memory.grow fails. Ends with the
;; number of mebibytes it got, 100 at most.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (local $got i32) (local $page i32)
    (block $done
      (loop $more
        (local.set $page (memory.grow (i32.const 16)))
        (br_if $done (i32.eq (local.get $page) (i32.const -1)))
        (memory.fill (i32.mul (local.get $page) (i32.const 65536)) (i32.const 7) (i32.const 1048576))
        (local.set $got (i32.add (local.get $got) (i32.const 1)))
        (br_if $more (i32.lt_u (local.get $got) (i32.const 100)))))
    (call $proc_exit (local.get $got))))
