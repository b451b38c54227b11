;; Wants 1 GiB from its first moment.
(module
  (memory (export "memory") 16384)
  (func (export "_start")))
