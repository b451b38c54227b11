;; Needs a function that no engine has.
(module
  (import "somewhere_else" "not_there" (func $f (param i32)))
  (memory (export "memory") 1)
  (func (export "_start") (call $f (i32.const 1))))
