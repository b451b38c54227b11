//! Sockets that a guest makes by itself: those of WASI 0.2 and WasmEdge's own reach what the container's
//! network reaches, and nothing else.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};

use wasmlet_conformance::{Ctx, Image, LONG, NetNs, SHORT, SpecBuilder, TaskOptions, eventually};

use crate::case::Case;
use crate::components::component;

pub(crate) const CASES: &[Case] = &[
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
    Case::wasm(
        "wasmedges_sockets_connect_inside_the_network",
        wasmedges_sockets_connect_inside,
    )
    .wasmedge_only(),
    Case::wasm(
        "wasmedges_sockets_do_not_reach_the_nodes_network",
        wasmedges_sockets_do_not_reach_the_node,
    )
    .wasmedge_only(),
];

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
    connects_inside(ctx, &component("tcp"));
}

fn wasmedges_sockets_connect_inside(ctx: &Ctx) {
    connects_inside(ctx, &ctx.image("wasmedge_tcp"));
}

fn connects_inside(ctx: &Ctx, image: &Image) {
    let network = NetNs::new(&ctx.id("net"));
    let (listener, port) = network.run(listener);
    let exit = std::thread::scope(|scope| {
        // The socket stays in the namespace in which it was made.
        let server = scope.spawn(|| answer_one(&listener));
        let options = TaskOptions::args([port.to_string()]);
        let exit = ctx.run_image("t", image, options, |spec| inside(spec, &network));
        assert_eq!(server.join().expect("no panic"), "ping\n", "{exit:?}");
        exit
    });
    assert_eq!((exit.code, exit.stdout.as_str()), (0, "pong\n"), "{exit:?}");
}

fn a_component_does_not_reach_the_node(ctx: &Ctx) {
    does_not_reach_the_node(ctx, &component("tcp"));
}

fn wasmedges_sockets_do_not_reach_the_node(ctx: &Ctx) {
    does_not_reach_the_node(ctx, &ctx.image("wasmedge_tcp"));
}

fn does_not_reach_the_node(ctx: &Ctx, image: &Image) {
    let network = NetNs::new(&ctx.id("net"));
    let (_listener, port) = listener();
    let options = TaskOptions::args([port.to_string()]);
    let exit = ctx.run_image("t", image, options, |spec| inside(spec, &network));
    // Both number it so: connection-refused.
    assert_eq!(
        (exit.code, exit.stdout.as_str()),
        (1, "connect: error 14\n"),
        "{exit:?}"
    );
}
