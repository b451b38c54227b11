//! `wasi_ephemeral_nn`, called by modules.

#[expect(dead_code, reason = "other tests use the rest")]
mod onnx;

use std::fs;

use tempfile::TempDir;
use wasmlet_protocol::NnModel;
use wasmlet_wasi_nn::modules::{self, State};
use wasmlet_wasi_nn::{
    Budget, Host, MAX_CONTEXTS, MAX_GRAPHS, MAX_MODEL_BYTES, MAX_TENSOR_BYTES, Tract, Unlimited,
};
use wasmtime::{Engine, Instance, Linker, Memory, Module, Store};

/// `nn_errno`.
const SUCCESS: u32 = 0;
const INVALID_ARGUMENT: u32 = 1;
const INVALID_ENCODING: u32 = 2;
const RUNTIME_ERROR: u32 = 5;
const UNSUPPORTED_OPERATION: u32 = 6;
const TOO_LARGE: u32 = 7;
const NOT_FOUND: u32 = 8;

const ONNX: u32 = 1;
const CPU: u32 = 0;

/// Where the guest keeps things; it has two pages.
const MEMORY_BYTES: u32 = 2 * 65536;
const OUT: u32 = 16;
const NAME: u32 = 1024;
const RECORD: u32 = 128;
const DIMENSIONS: u32 = 256;
const DATA: u32 = 512;
const MODEL: u32 = 4096;

/// A module that exports what it imports, so that a test can call with any numbers.
struct Guest {
    store: Store<Option<State>>,
    instance: Instance,
    memory: Memory,
    _folder: TempDir,
}

impl Guest {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("linear.onnx");
        fs::write(&path, onnx::linear()).expect("written");
        let models = ["linear", "again"].map(|name| NnModel {
            name: name.to_owned(),
            path: path.clone(),
        });
        let budget = Budget::new(Unlimited);
        let host = Host::new(Tract::new(budget.clone()), models.to_vec(), budget);
        let mut text = String::from("(module (memory (export \"memory\") 2)");
        for (index, (name, parameters)) in FUNCTIONS.iter().enumerate() {
            let types = "i32 ".repeat(*parameters);
            text.insert_str(
                "(module ".len(),
                &format!(
                    r#"(import "wasi_ephemeral_nn" "{name}" (func $f{index} (param {types}) (result i32)))"#
                ),
            );
            let arguments: String = (0..*parameters)
                .map(|n| format!("(local.get {n})"))
                .collect();
            text += &format!(
                r#"(func (export "{name}") (param {types}) (result i32) (call $f{index} {arguments}))"#
            );
        }
        text.push(')');
        let engine = Engine::default();
        let module =
            Module::new(&engine, wat::parse_str(text).expect("valid text")).expect("valid");
        assert!(modules::wanted_by(&module));
        let mut linker = Linker::new(&engine);
        modules::add_to_linker(&mut linker, |state: &mut Option<State>| state.as_mut())
            .expect("linked");
        let mut store = Store::new(&engine, Some(State::new(host)));
        let instance = linker
            .instantiate(&mut store, &module)
            .expect("instantiated");
        let memory = instance.get_memory(&mut store, "memory").expect("exported");
        Self {
            store,
            instance,
            memory,
            _folder: folder,
        }
    }

    fn call(&mut self, name: &str, arguments: &[u32]) -> Result<u32, String> {
        let function = self
            .instance
            .get_func(&mut self.store, name)
            .expect("exported");
        let arguments: Vec<_> = arguments
            .iter()
            .map(|n| wasmtime::Val::I32(n.cast_signed()))
            .collect();
        let mut results = [wasmtime::Val::I32(0)];
        match function.call(&mut self.store, &arguments, &mut results) {
            Ok(()) => Ok(results[0].unwrap_i32().cast_unsigned()),
            Err(error) => Err(format!("{error:#}")),
        }
    }

    fn write(&mut self, address: u32, bytes: &[u8]) {
        self.memory
            .write(&mut self.store, address as usize, bytes)
            .expect("in bounds");
    }

    fn words(&mut self, address: u32, words: &[u32]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.write(address, &bytes);
    }

    fn word(&mut self, address: u32) -> u32 {
        let mut bytes = [0; 4];
        self.memory
            .read(&self.store, address as usize, &mut bytes)
            .expect("in bounds");
        u32::from_le_bytes(bytes)
    }

    fn load_by_name(&mut self, name: &[u8]) -> Result<u32, String> {
        self.write(NAME, name);
        self.call("load_by_name", &[NAME, name.len() as u32, OUT])
    }

    fn context(&mut self) -> u32 {
        assert_eq!(self.load_by_name(b"linear"), Ok(SUCCESS));
        let graph = self.word(OUT);
        assert_eq!(
            self.call("init_execution_context", &[graph, OUT]),
            Ok(SUCCESS)
        );
        self.word(OUT)
    }

    /// A tensor of 32-bit numbers.
    fn tensor(&mut self, shape: &[u32], numbers: &[f32]) {
        self.words(DIMENSIONS, shape);
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        self.write(DATA, &bytes);
        self.words(
            RECORD,
            &[DIMENSIONS, shape.len() as u32, 1, DATA, bytes.len() as u32],
        );
    }
}

const FUNCTIONS: [(&str, usize); 6] = [
    ("load", 5),
    ("load_by_name", 3),
    ("init_execution_context", 2),
    ("set_input", 3),
    ("compute", 1),
    ("get_output", 5),
];

#[test]
fn a_model_by_name_is_computed() {
    let mut guest = Guest::new();
    let context = guest.context();
    guest.tensor(&[1, 3], &[1.0, 2.0, 3.0]);
    assert_eq!(guest.call("set_input", &[context, 0, RECORD]), Ok(SUCCESS));
    assert_eq!(guest.call("compute", &[context]), Ok(SUCCESS));
    assert_eq!(
        guest.call("get_output", &[context, 0, DATA, 8, OUT]),
        Ok(SUCCESS)
    );
    assert_eq!(guest.word(OUT), 8, "bytes written");
    assert_eq!(guest.word(DATA), 14.0_f32.to_bits());
    assert_eq!(guest.word(DATA + 4), 25.0_f32.to_bits());
}

#[test]
fn a_model_in_the_guest_s_memory_is_computed() {
    let mut guest = Guest::new();
    let model = onnx::linear();
    guest.write(MODEL, &model);
    guest.words(RECORD, &[MODEL, model.len() as u32]);
    for encoding in [ONNX, 5] {
        assert_eq!(
            guest.call("load", &[RECORD, 1, encoding, CPU, OUT]),
            Ok(SUCCESS)
        );
    }
    let graph = guest.word(OUT);
    assert_eq!(graph, 1, "a graph of its own each");
    assert_eq!(
        guest.call("init_execution_context", &[graph, OUT]),
        Ok(SUCCESS)
    );
}

#[test]
fn mistakes_of_the_guest_are_error_codes() {
    let mut guest = Guest::new();
    assert_eq!(guest.load_by_name(b"nothing"), Ok(NOT_FOUND));
    assert_eq!(guest.load_by_name(b""), Ok(NOT_FOUND));
    assert_eq!(guest.load_by_name(&[0xff, 0xfe]), Ok(INVALID_ARGUMENT));
    assert_eq!(guest.load_by_name(&[b'a'; 257]), Ok(TOO_LARGE));
    guest.words(RECORD, &[MODEL, 10, MODEL, 10]);
    for (arguments, wanted) in [
        ([RECORD, 1, ONNX, CPU, OUT], RUNTIME_ERROR),
        ([RECORD, 2, ONNX, CPU, OUT], INVALID_ARGUMENT),
        ([RECORD, 0, ONNX, CPU, OUT], INVALID_ARGUMENT),
        ([RECORD, 1, 0, CPU, OUT], INVALID_ENCODING),
        ([RECORD, 1, 3, CPU, OUT], INVALID_ENCODING),
        ([RECORD, 1, 99, CPU, OUT], INVALID_ENCODING),
        ([RECORD, 1, ONNX, 1, OUT], UNSUPPORTED_OPERATION),
        ([RECORD, 1, ONNX, 9, OUT], INVALID_ARGUMENT),
    ] {
        assert_eq!(guest.call("load", &arguments), Ok(wanted), "{arguments:?}");
    }
    for handle in [0, 1, u32::MAX] {
        assert_eq!(
            guest.call("init_execution_context", &[handle, OUT]),
            Ok(INVALID_ARGUMENT)
        );
        assert_eq!(guest.call("compute", &[handle]), Ok(INVALID_ARGUMENT));
        assert_eq!(
            guest.call("set_input", &[handle, 0, RECORD]),
            Ok(INVALID_ARGUMENT)
        );
        assert_eq!(
            guest.call("get_output", &[handle, 0, DATA, 8, OUT]),
            Ok(INVALID_ARGUMENT)
        );
    }
    let context = guest.context();
    assert_eq!(
        guest.call("compute", &[context]),
        Ok(INVALID_ARGUMENT),
        "no input"
    );
    assert_eq!(
        guest.call("get_output", &[context, 0, DATA, 8, OUT]),
        Ok(RUNTIME_ERROR)
    );
    guest.tensor(&[1, 4], &[0.0; 4]);
    assert_eq!(
        guest.call("set_input", &[context, 0, RECORD]),
        Ok(INVALID_ARGUMENT),
        "wrong shape"
    );
    guest.tensor(&[1, 3], &[0.0; 3]);
    assert_eq!(
        guest.call("set_input", &[context, 1, RECORD]),
        Ok(INVALID_ARGUMENT),
        "no such input"
    );
    guest.write(RECORD + 8, &[77]);
    assert_eq!(
        guest.call("set_input", &[context, 0, RECORD]),
        Ok(INVALID_ARGUMENT),
        "no such type"
    );
    guest.tensor(&[1, 3], &[0.0; 3]);
    assert_eq!(guest.call("set_input", &[context, 0, RECORD]), Ok(SUCCESS));
    assert_eq!(guest.call("compute", &[context]), Ok(SUCCESS));
    assert_eq!(
        guest.call("get_output", &[context, 1, DATA, 8, OUT]),
        Ok(INVALID_ARGUMENT)
    );
    assert_eq!(
        guest.call("get_output", &[context, 0, DATA, 7, OUT]),
        Ok(TOO_LARGE)
    );
    guest.words(RECORD, &[DIMENSIONS, 17, 1, DATA, 0]);
    assert_eq!(
        guest.call("set_input", &[context, 0, RECORD]),
        Ok(INVALID_ARGUMENT),
        "17 dimensions"
    );
}

#[test]
fn a_pointer_outside_the_memory_is_a_trap() {
    let mut guest = Guest::new();
    let context = guest.context();
    let end = MEMORY_BYTES;
    let bad: [(&str, Vec<u32>); 15] = [
        ("load", vec![end - 7, 1, ONNX, CPU, OUT]),
        ("load", vec![RECORD, u32::MAX, ONNX, CPU, OUT]),
        ("load", vec![RECORD, 1, ONNX, CPU, end - 3]),
        (
            "load",
            vec![u32::MAX, u32::MAX, u32::MAX, u32::MAX, u32::MAX],
        ),
        ("load_by_name", vec![end, 1, OUT]),
        ("load_by_name", vec![u32::MAX, u32::MAX, OUT]),
        ("load_by_name", vec![NAME, 6, end]),
        ("init_execution_context", vec![0, end - 1]),
        ("init_execution_context", vec![0, u32::MAX]),
        ("set_input", vec![context, 0, end - 19]),
        ("set_input", vec![context, 0, u32::MAX]),
        ("get_output", vec![context, 0, end - 7, 8, OUT]),
        ("get_output", vec![context, 0, u32::MAX, u32::MAX, OUT]),
        ("get_output", vec![context, 0, DATA, 8, end - 3]),
        // With a handle that is wrong, too.
        ("set_input", vec![99, 0, end]),
    ];
    for (function, arguments) in bad {
        let error = guest.call(function, &arguments).expect_err(function);
        assert!(
            error.contains(&format!("wasi_ephemeral_nn.{function}: "))
                && error.contains("are not in the guest's memory of 131072 bytes"),
            "{function}{arguments:?}: {error}"
        );
    }
    // Pointers in what a pointer leads to.
    for record in [
        [end, 2, 1, DATA, 12],
        [DIMENSIONS, u32::MAX, 1, DATA, 12],
        [DIMENSIONS, 2, 1, end - 11, 12],
        [DIMENSIONS, 2, 1, DATA, u32::MAX],
    ] {
        guest.words(RECORD, &record);
        let error = guest
            .call("set_input", &[context, 0, RECORD])
            .expect_err("a trap");
        assert!(
            error.contains("are not in the guest's memory"),
            "{record:?}: {error}"
        );
    }
    guest.words(RECORD, &[end - 9, 10]);
    let error = guest
        .call("load", &[RECORD, 1, ONNX, CPU, OUT])
        .expect_err("a trap");
    assert!(
        error.contains(
            "wasi_ephemeral_nn.load: the model: 10 bytes at address 131063 are not in the guest's memory"
        ),
        "{error}"
    );
    // The end of memory itself is fine.
    guest.words(MEMORY_BYTES - 20, &[DIMENSIONS, 2, 1, DATA, 12]);
    guest.words(DIMENSIONS, &[1, 3]);
    assert_eq!(
        guest.call("set_input", &[context, 0, MEMORY_BYTES - 20]),
        Ok(SUCCESS)
    );
}

#[test]
fn graphs_and_contexts_come_to_an_end() {
    let mut guest = Guest::new();
    for _ in 0..MAX_GRAPHS {
        assert_eq!(guest.load_by_name(b"linear"), Ok(SUCCESS));
    }
    assert_eq!(guest.load_by_name(b"again"), Ok(TOO_LARGE));
    for _ in 0..MAX_CONTEXTS {
        assert_eq!(guest.call("init_execution_context", &[0, OUT]), Ok(SUCCESS));
    }
    assert_eq!(
        guest.call("init_execution_context", &[0, OUT]),
        Ok(TOO_LARGE)
    );
    // What there is goes on working.
    let last = MAX_CONTEXTS as u32 - 1;
    guest.tensor(&[1, 3], &[0.0; 3]);
    assert_eq!(guest.call("set_input", &[last, 0, RECORD]), Ok(SUCCESS));
    assert_eq!(guest.call("compute", &[last]), Ok(SUCCESS));
}

#[test]
fn what_is_too_large_is_not_copied() {
    let mut guest = Guest::new();
    let context = guest.context();
    // Room for a tensor of more than the limit.
    let pages = MAX_TENSOR_BYTES / 65536 + 1;
    guest.memory.grow(&mut guest.store, pages).expect("grown");
    let length = MAX_TENSOR_BYTES as u32 + 1;
    guest.words(RECORD, &[DIMENSIONS, 2, 1, DATA, length]);
    assert_eq!(
        guest.call("set_input", &[context, 0, RECORD]),
        Ok(TOO_LARGE)
    );
    guest
        .memory
        .grow(&mut guest.store, MAX_MODEL_BYTES / 65536)
        .expect("grown");
    guest.words(RECORD, &[MODEL, MAX_MODEL_BYTES as u32 + 1]);
    assert_eq!(
        guest.call("load", &[RECORD, 1, ONNX, CPU, OUT]),
        Ok(TOO_LARGE)
    );
}

#[test]
fn a_module_without_a_memory_traps() {
    let engine = Engine::default();
    let text = r#"(module
        (import "wasi_ephemeral_nn" "compute" (func $compute (param i32) (result i32)))
        (func (export "run") (drop (call $compute (i32.const 0)))))"#;
    let module = Module::new(&engine, wat::parse_str(text).expect("valid text")).expect("valid");
    let mut linker = Linker::new(&engine);
    modules::add_to_linker(&mut linker, |_: &mut ()| None).expect("linked");
    let mut store = Store::new(&engine, ());
    let instance = linker
        .instantiate(&mut store, &module)
        .expect("instantiated");
    let run = instance
        .get_typed_func::<(), ()>(&mut store, "run")
        .expect("exported");
    let error = format!("{:#}", run.call(&mut store, ()).expect_err("a trap"));
    assert!(
        error.contains("wasi_ephemeral_nn.compute: the module exports no memory named memory"),
        "{error}"
    );
}
