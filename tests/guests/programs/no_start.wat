;; A library: it has functions, but none to start a program with.
(module
  (memory (export "memory") 1)
  (func (export "answer") (result i32) (i32.const 42))
  (func (export "work")))
