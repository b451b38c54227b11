//! The backend through the traits of `wasmtime-wasi-nn`.

mod onnx;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tract_onnx::pb::GraphProto;
use wasmlet_wasi_nn::{Budget, Code, Error, Memory, Onnx, Tract, Unlimited};
use wasmtime_wasi_nn::backend::{BackendError, BackendInner, Id, NamedTensor};
use wasmtime_wasi_nn::wit::{ExecutionTarget, TensorType};
use wasmtime_wasi_nn::{ExecutionContext, Graph, Tensor};

fn load(model: Vec<u8>) -> Result<Graph, Error> {
    Tract::new(Budget::new(Unlimited))
        .load_owned(model)
        .map_err(Error::from)
}

fn context(model: Vec<u8>) -> ExecutionContext {
    load(model)
        .expect("it loads")
        .init_execution_context()
        .expect("a context")
}

fn floats(shape: &[u32], numbers: &[f32]) -> Tensor {
    let data = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    Tensor::new(shape.to_vec(), TensorType::Fp32, data)
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    let number = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("four bytes"));
    tensor.data.chunks_exact(4).map(number).collect()
}

fn named(name: &str, tensor: Tensor) -> NamedTensor {
    NamedTensor {
        name: name.to_owned(),
        tensor,
    }
}

#[track_caller]
fn refused<T>(result: Result<T, BackendError>, code: Code, wanted: &str) {
    let error = Error::from(result.err().expect(wanted));
    assert_eq!(error.to_string(), wanted);
    assert_eq!(error.code(), code);
}

#[test]
fn inputs_and_outputs_by_index() {
    let mut context = context(onnx::linear());
    refused(
        context.get_output(Id::Index(0)),
        Code::RuntimeError,
        "there is no output yet: compute comes first",
    );
    refused(
        context.compute(),
        Code::InvalidArgument,
        "the input picture is not set",
    );
    for (picture, scores) in [
        ([1.0, 2.0, 3.0], [14.0, 25.0]),
        ([0.0, 0.0, 1.0], [11.0, 21.0]),
    ] {
        let input = floats(&[1, 3], &picture);
        context.set_input(Id::Index(0), &input).expect("it fits");
        context.compute().expect("computed");
        let output = context.get_output(Id::Index(0)).expect("an output");
        assert_eq!(output.dimensions, [1, 2]);
        assert_eq!(output.ty, TensorType::Fp32);
        assert_eq!(numbers(&output), scores);
    }
    // Inputs stay for the next time.
    context.compute().expect("computed");
}

#[test]
fn inputs_and_outputs_by_name() {
    let mut context = context(onnx::two());
    for batch in [1_usize, 3] {
        let left = floats(&[batch as u32, 2], &vec![3.0; batch * 2]);
        let right = floats(&[batch as u32, 2], &vec![5.0; batch * 2]);
        // In any order.
        let inputs = vec![named("right", right), named("left", left)];
        let outputs = context.compute_with_io(inputs).expect("computed");
        let seen: Vec<(&str, Vec<f32>)> = outputs
            .iter()
            .map(|output| (output.name.as_str(), numbers(&output.tensor)))
            .collect();
        assert_eq!(
            seen,
            [
                ("sum", vec![8.0; batch * 2]),
                ("product", vec![15.0; batch * 2])
            ]
        );
    }
    let one = || floats(&[1, 2], &[0.0; 2]);
    for (inputs, wanted) in [
        (vec![named("left", one())], "the input right is not set"),
        (
            vec![named("left", one()), named("left", one())],
            "the input left is passed twice",
        ),
        (
            vec![named("up", one())],
            "the model has no input \"up\"; it has 0 (left), 1 (right)",
        ),
    ] {
        refused(
            context.compute_with_io(inputs),
            Code::InvalidArgument,
            wanted,
        );
    }
    // Two batches that do not agree: each fits the model alone.
    let error = context
        .compute_with_io(vec![
            named("left", one()),
            named("right", floats(&[3, 2], &[0.0; 6])),
        ])
        .err()
        .map(Error::from)
        .expect("refused");
    assert!(
        error
            .to_string()
            .starts_with("the model cannot be computed: "),
        "{error}"
    );
}

#[test]
fn what_does_not_fit_the_model_is_refused_with_what_would() {
    let mut context = context(onnx::linear());
    for (tensor, wanted) in [
        (
            floats(&[3], &[0.0; 3]),
            "the input picture is f32 1x3, and the guest passes f32 3",
        ),
        (
            floats(&[1, 4], &[0.0; 4]),
            "the input picture is f32 1x3, and the guest passes f32 1x4",
        ),
        (
            floats(&[], &[0.0]),
            "the input picture is f32 1x3, and the guest passes f32 scalar",
        ),
        (
            Tensor::new(vec![1, 3], TensorType::Fp64, vec![0; 24]),
            "the input picture is f32 1x3, and the guest passes f64 1x3",
        ),
        (
            Tensor::new(vec![1, 3], TensorType::Bf16, vec![0; 6]),
            "the input picture is f32 1x3, and the guest passes bf16 1x3",
        ),
        (
            Tensor::new(vec![1, 3], TensorType::Fp32, vec![0; 11]),
            "the tensor 1x3 of f32 has 12 bytes, and the guest passes 11",
        ),
    ] {
        refused(
            context.set_input(Id::Index(0), &tensor),
            Code::InvalidArgument,
            wanted,
        );
    }
    refused(
        context.set_input(Id::Index(1), &floats(&[1, 3], &[0.0; 3])),
        Code::InvalidArgument,
        "the model has no input 1; it has 0 (picture)",
    );
    refused(
        context.get_output(Id::Index(7)),
        Code::InvalidArgument,
        "the model has no output 7; it has 0 (scores)",
    );
}

#[test]
fn a_size_beyond_all_bounds_is_no_size() {
    let mut context = context(onnx::two());
    let huge = Tensor::new(vec![u32::MAX, 2], TensorType::Fp32, vec![0; 8]);
    refused(
        context.set_input(Id::Index(0), &huge),
        Code::InvalidArgument,
        "the tensor 4294967295x2 of f32 has 34359738360 bytes, and the guest passes 8",
    );
}

#[test]
fn types_that_wasi_nn_does_not_have_are_said() {
    let mut context = context(onnx::single("IsNaN", onnx::BOOL));
    context
        .set_input(Id::Index(0), &floats(&[4], &[0.0; 4]))
        .expect("it fits");
    context.compute().expect("computed");
    refused(
        context.get_output(Id::Index(0)),
        Code::UnsupportedOperation,
        "the output y is of type bool, which wasi-nn does not have",
    );
}

#[test]
fn sizes_that_a_model_computes_are_64_bit_integers() {
    let mut context = context(onnx::model(GraphProto {
        name: "shape".to_owned(),
        node: vec![onnx::node("Shape", &["x"], &["y"])],
        input: vec![onnx::value("x", onnx::F32, &[-1, 2])],
        output: vec![onnx::value("y", onnx::I64, &[2])],
        ..GraphProto::default()
    }));
    let inputs = vec![named("x", floats(&[5, 2], &[0.0; 10]))];
    let outputs = context.compute_with_io(inputs).expect("computed");
    assert_eq!(outputs[0].tensor.ty, TensorType::I64);
    let expected: Vec<u8> = [5_i64, 2].iter().flat_map(|n| n.to_le_bytes()).collect();
    assert_eq!(outputs[0].tensor.data, expected);
}

#[test]
fn models_that_cannot_be_used_are_errors() {
    let mut dangling = onnx::linear_graph();
    dangling.output[0].name = "nothing".to_owned();
    let mut unknown = onnx::linear_graph();
    unknown.node[0].input[0] = "nowhere".to_owned();
    let mut wrong = onnx::linear_graph();
    wrong.initializer[0].dims = vec![1000, 1000];
    for (name, model) in [
        ("not protobuf", b"nonsense".to_vec()),
        ("empty", Vec::new()),
        ("cut", onnx::linear()[..40].to_vec()),
        (
            "an operator that does not exist",
            onnx::single("Frobnicate", onnx::F32),
        ),
        ("an output that nothing computes", onnx::model(dangling)),
        ("an input that nothing computes", onnx::model(unknown)),
        ("weights that are not there", onnx::model(wrong)),
        ("weights of the host", onnx::external("passwd")),
        (
            "weights of the host by a path",
            onnx::external("/etc/passwd"),
        ),
    ] {
        let error = load(model).err().expect(name);
        assert!(matches!(error, Error::Load(_)), "{name}: {error:?}");
        assert_eq!(error.code(), Code::RuntimeError);
        let text = error.to_string();
        assert!(
            text.starts_with("the model cannot be loaded: ")
                && text.len() < 600
                && !text.contains('\n'),
            "{name}: {text}"
        );
    }
}

#[test]
fn a_panic_of_the_library_is_an_error_of_the_model() {
    let mut dangling = onnx::linear_graph();
    dangling.output[0].name = "nothing".to_owned();
    let text = load(onnx::model(dangling))
        .err()
        .expect("refused")
        .to_string();
    assert!(
        text.starts_with("the model cannot be loaded: tract gave up: "),
        "{text}"
    );
    // And the next one loads.
    load(onnx::linear()).expect("it loads");
}

#[test]
fn graphs_inside_graphs_do_not_exhaust_the_stack() {
    // protobuf's own limit ends it: either way is fine, as long as the process lives.
    for depth in [1, 20, 40, 200] {
        if let Ok(graph) = load(onnx::nested(depth)) {
            let mut context = graph.init_execution_context().expect("a context");
            let one = Tensor::new(vec![], TensorType::U8, vec![1]);
            let _ = context.set_input(Id::Index(1), &one);
            let _ = context.compute();
        }
    }
}

#[test]
fn one_buffer_and_the_cpu() {
    let mut tract = Tract::new(Budget::new(Unlimited));
    let model = onnx::linear();
    tract
        .load(&[&model], ExecutionTarget::Cpu)
        .expect("it loads");
    refused(
        tract.load(&[&model, &model], ExecutionTarget::Cpu),
        Code::InvalidArgument,
        "an ONNX model is one buffer, and the guest passes 2",
    );
    refused(
        tract.load(&[], ExecutionTarget::Cpu),
        Code::InvalidArgument,
        "an ONNX model is one buffer, and the guest passes 0",
    );
    refused(
        tract.load(&[&model], ExecutionTarget::Gpu),
        Code::UnsupportedOperation,
        "this host computes on its CPU only, and the guest asks for the target gpu",
    );
}

/// Forty bytes.
#[derive(Clone, Default)]
struct Little(Arc<AtomicU64>);

impl Memory for Little {
    fn grow(&self, bytes: u64) -> bool {
        let fits = self.0.load(Ordering::SeqCst) + bytes <= 40;
        if fits {
            self.0.fetch_add(bytes, Ordering::SeqCst);
        }
        fits
    }

    fn shrink(&self, bytes: u64) {
        self.0.fetch_sub(bytes, Ordering::SeqCst);
    }

    fn limit(&self) -> Option<u64> {
        Some(40)
    }
}

#[test]
fn tensors_count_as_long_as_they_are_there() {
    let memory = Little::default();
    let mut tract = Tract::new(Budget::new(memory.clone()));
    let graph = tract.load_owned(onnx::two()).expect("it loads");
    let mut context = graph.init_execution_context().expect("a context");
    let small = floats(&[1, 2], &[1.0; 2]);
    for _ in 0..10 {
        context
            .set_input(Id::Index(0), &small)
            .expect("eight bytes in place of eight");
    }
    let large = floats(&[6, 2], &[1.0; 12]);
    refused(
        context.set_input(Id::Index(1), &large),
        Code::TooLarge,
        "a tensor takes about 48 bytes of memory, which is more than is left of 40: raise the \
         container's memory limit or wasmlet.dev/memory",
    );
    context.set_input(Id::Index(1), &small).expect("it fits");
    for _ in 0..10 {
        context.compute().expect("two outputs in place of two");
    }
    assert_eq!(memory.0.load(Ordering::SeqCst), 32);
    drop(context);
    assert_eq!(memory.0.load(Ordering::SeqCst), 0);
}

/// Other crates' tests use the file.
#[test]
fn the_file_is_the_linear_model() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/linear.onnx");
    let model = onnx::linear();
    if std::env::var_os("WASMLET_RENEW").is_some() {
        std::fs::write(path, &model).expect("written");
    }
    assert_eq!(std::fs::read(path).expect("there"), model);
}
