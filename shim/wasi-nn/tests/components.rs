//! `wasi:nn`, called by a component.

#[expect(dead_code, reason = "other tests use the rest")]
mod onnx;

use std::fs;

use wasmlet_protocol::NnModel;
use wasmlet_wasi_nn::components::{self, State, View};
use wasmlet_wasi_nn::{Budget, Host, Tract, Unlimited};
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store};

/// Calls a function of the component in a new instance, with the model where it is looked for.
fn call(function: &str) -> Result<Result<(), ()>, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("linear.onnx");
    fs::write(&path, onnx::linear()).expect("written");
    let models = vec![NnModel {
        name: "linear".to_owned(),
        path,
    }];
    let budget = Budget::new(Unlimited);
    let host = Host::new(Tract::new(budget.clone()), models, budget);
    let engine = Engine::default();
    let wasm = wat::parse_str(include_str!("component.wat")).expect("valid text");
    let component = Component::new(&engine, wasm).expect("valid");
    assert!(components::wanted_by(&engine, &component));
    let mut linker = Linker::new(&engine);
    components::add_to_linker(&mut linker, |state: &mut Option<State>| {
        View::new(state.as_mut())
    })
    .expect("linked");
    // Another instance of the same guest has handles of its own.
    let mut store = Store::new(&engine, Some(State::new(host.for_instance())));
    let instance = linker
        .instantiate(&mut store, &component)
        .expect("instantiated");
    let function = instance
        .get_typed_func::<(), (Result<(), ()>,)>(&mut store, function)
        .expect("exported");
    match function.call(&mut store, ()) {
        Ok((answer,)) => Ok(answer),
        Err(error) => Err(format!("{error:#}")),
    }
}

#[test]
fn a_model_by_name_is_computed() {
    assert_eq!(call("run"), Ok(Ok(())));
}

#[test]
fn mistakes_of_the_guest_are_errors_with_codes() {
    for function in [
        "missing",
        "no-such-input",
        "wrong-shape",
        "no-model",
        "other-encoding",
    ] {
        assert_eq!(call(function), Ok(Ok(())), "{function}");
    }
}

#[test]
fn tensors_that_are_dropped_do_not_count() {
    assert_eq!(call("drops"), Ok(Ok(())));
}

#[test]
fn a_guest_that_hoards_tensors_traps() {
    let error = call("hoards").expect_err("a trap");
    assert!(
        error.contains("a guest may have 1024 tensors and errors at a time"),
        "{error}"
    );
}

#[test]
fn without_a_state_every_call_traps() {
    let engine = Engine::default();
    let wasm = wat::parse_str(include_str!("component.wat")).expect("valid text");
    let component = Component::new(&engine, wasm).expect("valid");
    let mut linker = Linker::new(&engine);
    components::add_to_linker(&mut linker, |_: &mut ()| View::new(None)).expect("linked");
    let mut store = Store::new(&engine, ());
    let instance = linker
        .instantiate(&mut store, &component)
        .expect("instantiated");
    let run = instance
        .get_typed_func::<(), (Result<(), ()>,)>(&mut store, "run")
        .expect("exported");
    let error = format!("{:#}", run.call(&mut store, ()).expect_err("a trap"));
    assert!(error.contains("wasi:nn: not set up"), "{error}");
}
