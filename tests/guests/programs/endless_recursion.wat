;; Uses its stack up. What it does before and after the call keeps compilers from making a loop of it.
(module
  (memory (export "memory") 1)
  (func $again (param i32) (result i32)
    (if (i32.load (i32.const 1024)) (then (return (local.get 0))))
    (i32.store (i32.const 0) (call $again (i32.add (local.get 0) (i32.const 1))))
    (i32.add (i32.load (i32.const 4)) (local.get 0)))
  (func (export "_start") (drop (call $again (i32.const 0)))))
