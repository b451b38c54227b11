//! Components: the same life as a module's, and sockets of their own.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};

use wasmlet_conformance::{
    Ctx, Exit, Image, ImageForm, LONG, NetNs, SHORT, SpecBuilder, Target, TaskOptions, eventually,
};

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::wasm(
        "a_component_writes_without_an_end_of_line",
        a_component_writes_without_an_end_of_line,
    )
    .wasmtime_only(),
    Case::wasm(
        "a_component_reads_stdin_to_its_end",
        a_component_reads_stdin,
    )
    .wasmtime_only(),
    Case::wasm("sigterm_ends_a_component", sigterm_ends_a_component).wasmtime_only(),
    Case::wasm(
        "a_component_connects_inside_its_network",
        a_component_connects_inside_its_network,
    )
    .wasmtime_only(),
    Case::wasm(
        "a_component_does_not_reach_the_nodes_network",
        a_component_does_not_reach_the_node,
    )
    .wasmtime_only(),
];

fn component(guest: &str) -> Image {
    Image::of_guest_as(guest, Target::Component, ImageForm::Gzip)
}

fn a_component_writes_without_an_end_of_line(ctx: &Ctx) {
    let exit = ctx.run_image("t", &component("partial"), TaskOptions::default(), |spec| {
        spec
    });
    let expected = Exit {
        code: 0,
        stdout: "whole line\nno end of line".to_owned(),
        stderr: "an error without one".to_owned(),
    };
    assert_eq!(exit, expected);
}

fn a_component_reads_stdin(ctx: &Ctx) {
    let options = TaskOptions::default().stdin();
    let task = ctx
        .try_task("t", &component("cat"), options, |spec| spec)
        .expect("created");
    task.start().expect("started");
    task.io.write(b"a line\n");
    task.io.stdout.wait_for("a line\n", LONG);
    task.io.close_stdin();
    task.close_io().expect("stdin can be closed");
    let exit = task.wait();
    assert_eq!((exit.code, exit.stdout.as_str()), (0, "ready\na line\n"));
    assert_eq!(exit.stderr, "end of input\n");
}

fn sigterm_ends_a_component(ctx: &Ctx) {
    for guest in ["sleep", "spin", "cat"] {
        let options = TaskOptions::default().stdin();
        let task = ctx
            .try_task(guest, &component(guest), options, |spec| spec)
            .expect("created");
        task.start().expect("started");
        task.io.stdout.wait_for("ready", LONG);
        let begun = std::time::Instant::now();
        task.kill(libc::SIGTERM).expect("sent");
        let code = task.wait_code(SHORT).expect("within the grace period");
        assert_eq!(code, 143, "{guest}");
        assert!(
            begun.elapsed().as_secs() < 2,
            "{guest}: {:?}",
            begun.elapsed()
        );
        task.delete().expect("deleted");
    }
}

/// Answers one client's line with another.
fn answer_one(listener: &TcpListener) -> String {
    listener.set_nonblocking(true).expect("set");
    let (stream, _) = eventually("a client comes", LONG, || {
        listener.accept().map_err(|error| error.to_string())
    });
    stream.set_nonblocking(false).expect("set");
    stream.set_read_timeout(Some(SHORT)).expect("set");
    let mut line = String::new();
    BufReader::new(&stream)
        .read_line(&mut line)
        .expect("a line");
    (&stream).write_all(b"pong\n").expect("written");
    line
}

fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    let port = listener.local_addr().expect("bound").port();
    (listener, port)
}

fn inside(spec: SpecBuilder, network: &NetNs) -> SpecBuilder {
    spec.network(&network.path().display().to_string())
}

fn a_component_connects_inside_its_network(ctx: &Ctx) {
    let network = NetNs::new(&ctx.id("net"));
    let (listener, port) = network.run(listener);
    let exit = std::thread::scope(|scope| {
        // The socket stays in the namespace in which it was made.
        let server = scope.spawn(|| answer_one(&listener));
        let options = TaskOptions::args([port.to_string()]);
        let exit = ctx.run_image("t", &component("tcp"), options, |spec| {
            inside(spec, &network)
        });
        assert_eq!(server.join().expect("no panic"), "ping\n", "{exit:?}");
        exit
    });
    assert_eq!((exit.code, exit.stdout.as_str()), (0, "pong\n"), "{exit:?}");
}

fn a_component_does_not_reach_the_node(ctx: &Ctx) {
    let network = NetNs::new(&ctx.id("net"));
    let (_listener, port) = listener();
    let options = TaskOptions::args([port.to_string()]);
    let exit = ctx.run_image("t", &component("tcp"), options, |spec| {
        inside(spec, &network)
    });
    // 14 is connection-refused.
    assert_eq!(
        (exit.code, exit.stdout.as_str()),
        (1, "connect: error 14\n"),
        "{exit:?}"
    );
}
