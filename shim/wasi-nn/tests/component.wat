;; A component that computes the model "linear" by way of wasi:nn. Its functions answer `ok` when all is as
;; it should be.
(component
  (import "wasi:nn/tensor@0.2.0-rc-2024-10-28" (instance $tensor-interface
    (export "tensor" (type $tensor (sub resource)))
    (type $kinds (enum "FP16" "FP32" "FP64" "BF16" "U8" "I32" "I64"))
    (export "tensor-type" (type $kind (eq $kinds)))
    (export "[constructor]tensor" (func
      (param "dimensions" (list u32)) (param "ty" $kind) (param "data" (list u8)) (result (own $tensor))))
    (export "[method]tensor.data" (func (param "self" (borrow $tensor)) (result (list u8))))
    (export "[method]tensor.dimensions" (func (param "self" (borrow $tensor)) (result (list u32))))
    (export "[method]tensor.ty" (func (param "self" (borrow $tensor)) (result $kind)))))
  (import "wasi:nn/errors@0.2.0-rc-2024-10-28" (instance $errors-interface
    (export "error" (type $error (sub resource)))
    (type $codes (enum "invalid-argument" "invalid-encoding" "timeout" "runtime-error"
      "unsupported-operation" "too-large" "not-found" "security" "unknown"))
    (export "error-code" (type $code (eq $codes)))
    (export "[method]error.code" (func (param "self" (borrow $error)) (result $code)))
    (export "[method]error.data" (func (param "self" (borrow $error)) (result string)))))
  (alias export $tensor-interface "tensor" (type $tensor))
  (alias export $errors-interface "error" (type $error))
  (import "wasi:nn/inference@0.2.0-rc-2024-10-28" (instance $inference-interface
    (alias outer 1 $tensor (type $outer-tensor))
    (alias outer 1 $error (type $outer-error))
    (export "tensor" (type $tensor (eq $outer-tensor)))
    (export "error" (type $error (eq $outer-error)))
    (export "graph-execution-context" (type $context (sub resource)))
    (export "[method]graph-execution-context.compute" (func
      (param "self" (borrow $context)) (param "inputs" (list (tuple string (own $tensor))))
      (result (result (list (tuple string (own $tensor))) (error (own $error))))))))
  (alias export $inference-interface "graph-execution-context" (type $context))
  (import "wasi:nn/graph@0.2.0-rc-2024-10-28" (instance $graph-interface
    (alias outer 1 $context (type $outer-context))
    (alias outer 1 $error (type $outer-error))
    (export "graph-execution-context" (type $context (eq $outer-context)))
    (export "error" (type $error (eq $outer-error)))
    (export "graph" (type $graph (sub resource)))
    (type $encodings (enum "openvino" "onnx" "tensorflow" "pytorch" "tensorflowlite" "ggml" "autodetect"))
    (export "graph-encoding" (type $encoding (eq $encodings)))
    (type $targets (enum "cpu" "gpu" "tpu"))
    (export "execution-target" (type $target (eq $targets)))
    (export "load" (func
      (param "builder" (list (list u8))) (param "encoding" $encoding) (param "target" $target)
      (result (result (own $graph) (error (own $error))))))
    (export "load-by-name" (func (param "name" string) (result (result (own $graph) (error (own $error))))))
    (export "[method]graph.init-execution-context" (func
      (param "self" (borrow $graph)) (result (result (own $context) (error (own $error))))))))

  (core module $memory
    (memory (export "memory") 2)
    (global $next (mut i32) (i32.const 65536))
    (func (export "realloc") (param i32 i32 i32) (param $size i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get $size)))
      (local.get $at)))
  (core instance $memory (instantiate $memory))
  (alias core export $memory "memory" (core memory $mem))
  (alias core export $memory "realloc" (core func $realloc))

  (core func $load (canon lower (func $graph-interface "load") (memory $mem) (realloc $realloc)))
  (core func $load-by-name
    (canon lower (func $graph-interface "load-by-name") (memory $mem) (realloc $realloc)))
  (core func $init
    (canon lower (func $graph-interface "[method]graph.init-execution-context") (memory $mem)))
  (core func $compute (canon lower (func $inference-interface "[method]graph-execution-context.compute")
    (memory $mem) (realloc $realloc)))
  (core func $new (canon lower (func $tensor-interface "[constructor]tensor") (memory $mem)))
  (core func $data
    (canon lower (func $tensor-interface "[method]tensor.data") (memory $mem) (realloc $realloc)))
  (core func $code (canon lower (func $errors-interface "[method]error.code")))
  (core func $drop-tensor (canon resource.drop $tensor))

  (core module $main
    (import "m" "memory" (memory 2))
    (import "nn" "load" (func $load (param i32 i32 i32 i32 i32)))
    (import "nn" "load-by-name" (func $load-by-name (param i32 i32 i32)))
    (import "nn" "init" (func $init (param i32 i32)))
    (import "nn" "compute" (func $compute (param i32 i32 i32 i32)))
    (import "nn" "new" (func $new (param i32 i32 i32 i32 i32) (result i32)))
    (import "nn" "data" (func $data (param i32 i32)))
    (import "nn" "code" (func $code (param i32) (result i32)))
    (import "nn" "drop-tensor" (func $drop-tensor (param i32)))
    (data (i32.const 0) "linear\00\00nothing\00picture\00")
    ;; 32: the shape 1x3, then the numbers 1, 2 and 3
    (data (i32.const 32) "\01\00\00\00\03\00\00\00\00\00\80\3f\00\00\00\40\00\00\40\40")

    (func $picture (result i32)
      (call $new (i32.const 32) (i32.const 2) (i32.const 1) (i32.const 40) (i32.const 12)))
    ;; The answer of a function that gives one handle, at 128: 0 and the handle, or 1 and the error.
    (func $handle (result i32)
      (if (i32.load8_u (i32.const 128)) (then unreachable))
      (i32.load (i32.const 132)))
    (func $context (result i32)
      (call $load-by-name (i32.const 0) (i32.const 6) (i32.const 128))
      (call $init (call $handle) (i32.const 128))
      (call $handle))
    ;; Whether the answer at 128 is an error of that code.
    (func $is-error (param $code i32) (result i32)
      (if (i32.eqz (i32.load8_u (i32.const 128))) (then (return (i32.const 0))))
      (i32.eq (call $code (i32.load (i32.const 132))) (local.get $code)))

    ;; Computes an input of the name at $name.
    (func $try (param $name i32) (param $length i32) (param $tensor i32)
      (i32.store (i32.const 160) (local.get $name))
      (i32.store (i32.const 164) (local.get $length))
      (i32.store (i32.const 168) (local.get $tensor))
      (call $compute (call $context) (i32.const 160) (i32.const 1) (i32.const 128)))

    (func (export "run") (result i32)
      (local $scores i32)
      (call $try (i32.const 16) (i32.const 7) (call $picture))
      (if (i32.load8_u (i32.const 128)) (then (return (i32.const 1))))
      (if (i32.ne (i32.load (i32.const 136)) (i32.const 1)) (then (return (i32.const 1))))
      ;; The only output: its name as pointer and length, and its handle.
      (call $data (i32.load (i32.add (i32.load (i32.const 132)) (i32.const 8))) (i32.const 128))
      (if (i32.ne (i32.load (i32.const 132)) (i32.const 8)) (then (return (i32.const 1))))
      (local.set $scores (i32.load (i32.const 128)))
      (i32.eqz (i32.and
        (f32.eq (f32.load (local.get $scores)) (f32.const 14))
        (f32.eq (f32.load offset=4 (local.get $scores)) (f32.const 25)))))
    (func (export "missing") (result i32)
      (call $load-by-name (i32.const 8) (i32.const 7) (i32.const 128))
      (i32.eqz (call $is-error (i32.const 6))))
    (func (export "no-such-input") (result i32)
      (call $try (i32.const 8) (i32.const 7) (call $picture))
      (i32.eqz (call $is-error (i32.const 0))))
    (func (export "wrong-shape") (result i32)
      ;; Its only dimension is 3.
      (call $try (i32.const 16) (i32.const 7)
        (call $new (i32.const 36) (i32.const 1) (i32.const 1) (i32.const 40) (i32.const 12)))
      (i32.eqz (call $is-error (i32.const 0))))
    (func (export "no-model") (result i32)
      ;; The name as a model.
      (i32.store (i32.const 160) (i32.const 8))
      (i32.store (i32.const 164) (i32.const 7))
      (call $load (i32.const 160) (i32.const 1) (i32.const 1) (i32.const 0) (i32.const 128))
      (i32.eqz (call $is-error (i32.const 3))))
    (func (export "other-encoding") (result i32)
      (call $load (i32.const 160) (i32.const 1) (i32.const 2) (i32.const 0) (i32.const 128))
      (i32.eqz (call $is-error (i32.const 1))))
    (func (export "drops") (result i32)
      (local $left i32)
      (local.set $left (i32.const 5000))
      (loop $again
        (call $drop-tensor (call $picture))
        (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
      (i32.const 0))
    (func (export "hoards") (result i32)
      (loop $again (drop (call $picture)) (br $again))
      unreachable))
  (core instance $main (instantiate $main
    (with "m" (instance $memory))
    (with "nn" (instance
      (export "load" (func $load))
      (export "load-by-name" (func $load-by-name))
      (export "init" (func $init))
      (export "compute" (func $compute))
      (export "new" (func $new))
      (export "data" (func $data))
      (export "code" (func $code))
      (export "drop-tensor" (func $drop-tensor))))))
  (func (export "run") (result (result)) (canon lift (core func $main "run")))
  (func (export "missing") (result (result)) (canon lift (core func $main "missing")))
  (func (export "no-such-input") (result (result)) (canon lift (core func $main "no-such-input")))
  (func (export "wrong-shape") (result (result)) (canon lift (core func $main "wrong-shape")))
  (func (export "no-model") (result (result)) (canon lift (core func $main "no-model")))
  (func (export "other-encoding") (result (result)) (canon lift (core func $main "other-encoding")))
  (func (export "drops") (result (result)) (canon lift (core func $main "drops")))
  (func (export "hoards") (result (result)) (canon lift (core func $main "hoards"))))
