//! Status codes, asked for on the shim's own socket: containerd would not let most of these through.

use containerd_shim_protos::api;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::ttrpc::Code;
use wasmlet_conformance::{Ctx, Raw, Refusal, Runtime, SHORT, Service, TaskOptions, proc};

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::all(
        "an_unknown_container_is_not_found",
        an_unknown_container_is_not_found,
    ),
    Case::ours("both_service_names_answer", both_service_names_answer),
    Case::all(
        "connect_asks_for_the_shim_not_the_container",
        connect_asks_for_the_shim,
    ),
    Case::ours(
        "questions_after_the_end_are_answered",
        questions_after_the_end_are_answered,
    ),
    Case::ours(
        "verbs_in_the_wrong_state_are_refused",
        verbs_in_the_wrong_state_are_refused,
    ),
    Case::ours(
        "a_second_create_exists_already",
        a_second_create_exists_already,
    ),
    Case::ours("bad_arguments_are_invalid", bad_arguments_are_invalid),
    Case::ours(
        "repeated_verbs_change_nothing",
        repeated_verbs_change_nothing,
    ),
    Case::wasm("exec_is_not_implemented", exec_is_not_implemented),
    Case::wasm(
        "checkpoint_is_not_implemented",
        checkpoint_is_not_implemented,
    ),
    Case::ours("refusals_cost_nothing", refusals_cost_nothing),
];

/// The name under which this containerd's shims all serve.
fn service(ctx: &Ctx) -> Service {
    if ctx.node().version().config_schema() == 2 {
        Service::V2
    } else {
        Service::V3
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Refusal>, code: Code) -> String {
    let refusal = answer.expect_err("refused");
    assert_eq!(refusal.code, code, "{refusal:?}");
    refusal.message
}

/// Calls a method whose answer carries nothing.
fn plain<Q: Message>(raw: &Raw, method: &str, request: &Q) -> Result<(), Refusal> {
    raw.call::<Q, api::Empty>(method, request).map(drop)
}

fn an_unknown_container_is_not_found(ctx: &Ctx) {
    let _task = ctx.task("t", "sleep", TaskOptions::default());
    let raw = ctx.raw("t", service(ctx));
    let id = "nobody";
    let mut sentences = vec![
        refused(raw.state(id, ""), Code::NOT_FOUND),
        refused(raw.start(id, ""), Code::NOT_FOUND),
        refused(raw.kill(id, "", 9), Code::NOT_FOUND),
        refused(raw.delete(id, ""), Code::NOT_FOUND),
        refused(raw.wait(id, ""), Code::NOT_FOUND),
    ];
    macro_rules! ask {
        ($method:literal, $request:ident) => {
            let request = api::$request {
                id: id.to_owned(),
                ..Default::default()
            };
            let answer = plain(&raw, $method, &request);
            assert!(answer.is_err(), "{} of nobody is done", $method);
            sentences.push(refused(answer, Code::NOT_FOUND));
        };
    }
    ask!("Pids", PidsRequest);
    ask!("Pause", PauseRequest);
    ask!("Resume", ResumeRequest);
    ask!("Stats", StatsRequest);
    ask!("CloseIO", CloseIORequest);
    ask!("ResizePty", ResizePtyRequest);
    ask!("Update", UpdateTaskRequest);
    ask!("Checkpoint", CheckpointTaskRequest);
    ask!("Exec", ExecProcessRequest);
    if ctx.runtime().is_ours() {
        for sentence in sentences {
            assert_eq!(sentence, "container \"nobody\" not found");
        }
    }
}

fn both_service_names_answer(ctx: &Ctx) {
    let task = ctx.task("t", "sleep", TaskOptions::default());
    for service in [Service::V2, Service::V3] {
        let raw = ctx.raw("t", service);
        let (shim, init) = raw.shim().expect("connected");
        assert_eq!(shim.cast_signed(), ctx.shim_pid("t"));
        assert_eq!(init, task.pid);
    }
}

/// containerd, started again between a shim's start and its Create, asks for a container that is not
/// there yet; refused, it would forget the shim.
fn connect_asks_for_the_shim(ctx: &Ctx) {
    let _task = ctx.task("t", "sleep", TaskOptions::default());
    let names = if ctx.runtime().is_ours() {
        vec![Service::V2, Service::V3]
    } else {
        vec![service(ctx)]
    };
    for name in names {
        let raw = ctx.raw("t", name);
        let request = api::ConnectRequest {
            id: "nobody".to_owned(),
            ..Default::default()
        };
        let reply: api::ConnectResponse = raw.call("Connect", &request).expect("connected");
        assert_eq!(reply.shim_pid.cast_signed(), ctx.shim_pid("t"));
        assert_eq!(reply.task_pid, 0, "nobody has no process");
    }
}

/// Between the exit and Delete containerd and the kubelet go on asking: a refusal would be an error
/// in their logs for each container that ends.
fn questions_after_the_end_are_answered(ctx: &Ctx) {
    let task = ctx.running("t", "sleep", TaskOptions::default());
    task.kill(libc::SIGKILL).expect("killed");
    assert_eq!(task.wait().code, 137);
    for service in [Service::V2, Service::V3] {
        let raw = ctx.raw("t", service);
        let stats = api::StatsRequest {
            id: task.id.clone(),
            ..Default::default()
        };
        match raw.call::<_, api::StatsResponse>("Stats", &stats) {
            Ok(reply) => assert!(reply.stats.is_some(), "an answer without usage"),
            Err(refusal) => assert_eq!(refusal.code, Code::NOT_FOUND, "{refusal:?}"),
        }
        let pids = api::PidsRequest {
            id: task.id.clone(),
            ..Default::default()
        };
        let reply: api::PidsResponse = raw.call("Pids", &pids).expect("answered");
        let pids: Vec<_> = reply.processes.iter().map(|process| process.pid).collect();
        assert_eq!(pids, [task.pid]);
        let state = raw.state(&task.id, "").expect("answered");
        assert_eq!((state.pid, state.exit_status), (task.pid, 137));
    }
    task.delete().expect("deleted");
}

fn verbs_in_the_wrong_state_are_refused(ctx: &Ctx) {
    let task = ctx.task("t", "sleep", TaskOptions::default());
    let raw = ctx.raw("t", service(ctx));
    let id = raw.id();
    let pause = api::PauseRequest {
        id: id.to_owned(),
        ..Default::default()
    };
    let resume = api::ResumeRequest {
        id: id.to_owned(),
        ..Default::default()
    };
    let resize = api::ResizePtyRequest {
        id: id.to_owned(),
        width: 1,
        ..Default::default()
    };

    let sentence = refused(plain(&raw, "Pause", &pause), Code::FAILED_PRECONDITION);
    assert_eq!(
        sentence,
        format!("container {id:?}: cannot pause a created process")
    );
    refused(plain(&raw, "Resume", &resume), Code::FAILED_PRECONDITION);
    let sentence = refused(plain(&raw, "ResizePty", &resize), Code::FAILED_PRECONDITION);
    assert_eq!(
        sentence,
        format!("container {id:?}: the process has no terminal")
    );

    task.start().expect("started");
    let sentence = refused(raw.start(id, ""), Code::FAILED_PRECONDITION);
    assert_eq!(
        sentence,
        format!("container {id:?}: cannot start a running process")
    );
    let sentence = refused(raw.delete(id, ""), Code::FAILED_PRECONDITION);
    assert_eq!(
        sentence,
        format!("container {id:?}: cannot delete a running process")
    );

    raw.kill(id, "", 9).expect("killed");
    raw.wait(id, "").expect("ended");
    refused(raw.start(id, ""), Code::FAILED_PRECONDITION);
    refused(plain(&raw, "Pause", &pause), Code::FAILED_PRECONDITION);
}

fn a_second_create_exists_already(ctx: &Ctx) {
    let _task = ctx.task("t", "sleep", TaskOptions::default());
    let raw = ctx.raw("t", service(ctx));
    let request = api::CreateTaskRequest {
        id: raw.id().to_owned(),
        bundle: ctx.node().bundle("conf", raw.id()).display().to_string(),
        ..Default::default()
    };
    let sentence = refused(plain(&raw, "Create", &request), Code::ALREADY_EXISTS);
    assert_eq!(sentence, format!("container {:?} exists already", raw.id()));
}

fn bad_arguments_are_invalid(ctx: &Ctx) {
    let task = ctx.running("t", "sleep", TaskOptions::default());
    let raw = ctx.raw("t", service(ctx));
    let id = raw.id();
    let create = |id: &str, bundle: &str| api::CreateTaskRequest {
        id: id.to_owned(),
        bundle: bundle.to_owned(),
        ..Default::default()
    };
    let other = ctx.id("other");
    let nowhere = refused(
        plain(&raw, "Create", &create(&other, "/no/such/bundle")),
        Code::INVALID_ARGUMENT,
    );
    assert!(nowhere.contains("/no/such/bundle"), "{nowhere}");
    let empty = refused(
        plain(&raw, "Create", &create(&other, "")),
        Code::INVALID_ARGUMENT,
    );
    assert!(empty.contains("bundle"), "{empty}");
    let escape = refused(
        plain(&raw, "Create", &create("../../up", "/tmp")),
        Code::INVALID_ARGUMENT,
    );
    assert!(escape.contains("../../up"), "{escape}");

    let signal = refused(raw.kill(id, "", 999), Code::INVALID_ARGUMENT);
    assert!(signal.contains("999"), "{signal}");
    let update = api::UpdateTaskRequest {
        id: id.to_owned(),
        ..Default::default()
    };
    refused(plain(&raw, "Update", &update), Code::INVALID_ARGUMENT);
    assert!(
        proc::is_running(task.pid.cast_signed()),
        "nothing of it harmed the container"
    );
    refused(raw.state(&other, ""), Code::NOT_FOUND);
}

fn repeated_verbs_change_nothing(ctx: &Ctx) {
    let task = ctx.running("t", "sleep", TaskOptions::default());
    let raw = ctx.raw("t", service(ctx));
    let id = raw.id();
    let pause = api::PauseRequest {
        id: id.to_owned(),
        ..Default::default()
    };
    let resume = api::ResumeRequest {
        id: id.to_owned(),
        ..Default::default()
    };
    for _ in 0..2 {
        plain(&raw, "Pause", &pause).expect("paused");
    }
    for _ in 0..2 {
        plain(&raw, "Resume", &resume).expect("resumed");
    }
    for _ in 0..3 {
        raw.kill(id, "", 9)
            .expect("a signal after the end is no error");
    }
    for _ in 0..2 {
        assert_eq!(raw.wait(id, "").expect("ended").exit_status, 137);
        raw.kill(id, "", 15)
            .expect("a signal after the end is no error");
    }
    let once = ["paused", "resumed", "exit"];
    for topic in once {
        ctx.events().wait(id, topic, SHORT);
    }
    let topics = task.topics();
    for topic in once {
        let times = topics.iter().filter(|seen| *seen == topic).count();
        assert!(times <= 1, "{topic} was told {times} times");
    }
}

/// What containerd sends for a process to add.
fn process() -> containerd_shim_protos::protobuf::well_known_types::any::Any {
    let spec = wasmlet_conformance::SpecBuilder::new(["/bin/sh"]);
    containerd_shim_protos::protobuf::well_known_types::any::Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".to_owned(),
        value: spec.value()["process"].to_string().into_bytes(),
        ..Default::default()
    }
}

fn exec_is_not_implemented(ctx: &Ctx) {
    let task = ctx.running("t", "sleep", TaskOptions::default());
    let raw = ctx.raw("t", service(ctx));
    let exec = api::ExecProcessRequest {
        id: raw.id().to_owned(),
        exec_id: "e".to_owned(),
        spec: Some(process()).into(),
        ..Default::default()
    };
    let sentence = refused(plain(&raw, "Exec", &exec), Code::UNIMPLEMENTED);
    assert!(sentence.contains("WebAssembly"), "{sentence}");
    let through_containerd = task
        .exec("e", &["/bin/sh"], false)
        .expect_err("not implemented");
    assert_eq!(
        through_containerd.code(),
        tonic::Code::Unimplemented,
        "{through_containerd}"
    );
    // Events come in order, so what the exec might have caused is there before the end.
    task.kill(9).expect("sent");
    ctx.events().wait(&task.id, "exit", SHORT);
    assert_eq!(
        task.topics(),
        ["create", "start", "exit"],
        "no trace of the exec"
    );
}

fn checkpoint_is_not_implemented(ctx: &Ctx) {
    let _task = ctx.running("t", "sleep", TaskOptions::default());
    let raw = ctx.raw("t", service(ctx));
    let request = api::CheckpointTaskRequest {
        id: raw.id().to_owned(),
        path: "/tmp".into(),
        ..Default::default()
    };
    let sentence = refused(plain(&raw, "Checkpoint", &request), Code::UNIMPLEMENTED);
    assert!(sentence.contains("WebAssembly"), "{sentence}");
}

fn refusals_cost_nothing(ctx: &Ctx) {
    let _task = ctx.running("t", "sleep", TaskOptions::default());
    let raw = ctx.raw("t", service(ctx));
    let shim = ctx.shim_pid("t");
    let round = |count: usize| {
        for _ in 0..count {
            refused(raw.state("nobody", ""), Code::NOT_FOUND);
            refused(raw.start(raw.id(), ""), Code::FAILED_PRECONDITION);
            refused(raw.start(raw.id(), "nobody"), Code::NOT_FOUND);
            let stats = api::StatsRequest {
                id: raw.id().to_owned(),
                ..Default::default()
            };
            raw.call::<_, api::StatsResponse>("Stats", &stats)
                .expect("stats");
        }
    };
    round(20);
    let (fds, memory) = (
        proc::fds(shim).len(),
        proc::rss(shim).expect("the shim runs"),
    );
    round(300);
    assert_eq!(proc::fds(shim).len(), fds, "{:?}", proc::fds(shim));
    let grown = proc::rss(shim)
        .expect("the shim runs")
        .saturating_sub(memory);
    assert!(grown < 512 << 10, "1200 calls cost the shim {grown} bytes");
    assert_ne!(ctx.runtime(), Runtime::Runc);
}
