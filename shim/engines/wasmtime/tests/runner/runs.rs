//! What a guest sees when all is well.

use std::fs;

use serde_json::json;

use crate::guests;
use crate::support::{Container, can_run, can_run_components};

#[test]
fn hello() {
    if !can_run() {
        return;
    }
    let (code, container) = Container::new(guests::writes(1, "hello")).run();
    assert_eq!((code, container.read("stdout").as_str()), (0, "hello"));
    assert_eq!(container.read("stderr"), "");
    let (code, container) = Container::new(guests::writes(2, "oops")).run();
    assert_eq!((code, container.read("stderr").as_str()), (0, "oops"));
}

#[test]
fn arguments_and_environment_arrive() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(guests::tells_arguments_and_environment());
    container.request.args = ["/a.wasm", "two words", ""].map(str::to_owned).to_vec();
    let (_, container) = container.run();
    assert_eq!(
        container.read("stdout"),
        "/a.wasm\0two words\0\0PATH=/usr/bin\0GREETING=hello\0HOME=/root\0"
    );
}

#[test]
fn stdin_arrives() {
    if !can_run() {
        return;
    }
    let container = Container::new(guests::copies_stdin());
    let text = "a line\n".repeat(500);
    fs::write(container.path("stdin"), &text).expect("a file");
    let (code, container) = container.run();
    assert_eq!(code, 0);
    assert_eq!(container.read("stdout"), text);
}

#[test]
fn a_function_is_called_by_name() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(guests::library());
    container.request.invoke = Some("work".to_owned());
    let (code, container) = container.run();
    assert_eq!(
        (code, container.read("stdout").as_str()),
        (0, "init called")
    );
}

#[test]
fn components_run() {
    if !can_run_components() {
        return;
    }
    assert_eq!(Container::new(guests::command_component(true)).run().0, 0);
    assert_eq!(Container::new(guests::command_component(false)).run().0, 1);
}

#[test]
fn a_function_of_a_component_is_called_by_name() {
    if !can_run_components() {
        return;
    }
    let mut container = Container::new(guests::library_component());
    container.request.invoke = Some("ok".to_owned());
    assert_eq!(container.run().0, 0);
    let mut container = Container::new(guests::library_component());
    container.request.invoke = Some("my:own/api#trap".to_owned());
    let (code, container) = container.run();
    assert_eq!(code, 121);
    assert!(
        container.read("stderr").contains("unreachable"),
        "{}",
        container.read("stderr")
    );
}

#[test]
fn another_user_runs_a_guest() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(guests::writes(1, "hello"));
    container.spec["process"]["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [5]});
    let (code, container) = container.run();
    assert_eq!((code, container.read("stdout").as_str()), (0, "hello"));
}

#[test]
fn an_oom_score_that_is_refused_is_a_warning() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(guests::exits(0));
    container.spec["process"]["oomScoreAdj"] = json!(-999);
    let refused = fs::write("/proc/self/oom_score_adj", "-999").is_err();
    let mut created = container.created();
    let told = created
        .warnings
        .iter()
        .any(|w| w.contains("oom_score_adj -999"));
    assert_eq!(told, refused, "{:?}", created.warnings);
    created.start();
    assert_eq!(created.wait(), 0);
    created.delete();
}
