//! A component that exports `wasi:http/incoming-handler`: the runner is its server.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use wasmlet_conformance::{Ctx, Image, NetNs, SHORT, TaskOptions, bin_dir, eventually};
use wasmlet_oci_image::{Image as OciImage, Layer};

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::wasm("a_component_is_served", a_component_is_served).wasmtime_only(),
    Case::wasm(
        "sigterm_lets_a_server_answer_and_ends_it_with_0",
        sigterm_lets_a_server_answer,
    )
    .wasmtime_only(),
];

const PORT: u16 = 8080;

/// The example, which the suite's caller has built.
fn image() -> Image {
    // In the same target folder as the programs, `dist/bin`.
    let path = bin_dir().join("../../examples/http-component/http.wasm");
    let bytes = fs::read(&path).unwrap_or_else(|error| {
        panic!(
            "{}: {error}; build it with examples/http-component/build",
            path.display()
        )
    });
    let layer = Layer::new().file("app/http.wasm", 0o755, bytes);
    let image = OciImage::new().entrypoint(["/app/http.wasm"]).layer(layer);
    Image::new("http-component", [image])
}

fn connect(network: &NetNs) -> TcpStream {
    let address: SocketAddr = (Ipv4Addr::LOCALHOST, PORT).into();
    let stream = network.run(|| {
        eventually("somebody listens", SHORT, || {
            TcpStream::connect(address).map_err(|error| error.to_string())
        })
    });
    stream.set_read_timeout(Some(SHORT)).expect("set");
    stream
}

/// The whole answer to one request.
#[track_caller]
fn ask(network: &NetNs, head: &str, body: &str) -> String {
    let mut stream = connect(network);
    let length = body.len();
    write!(
        stream,
        "{head} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

fn a_component_is_served(ctx: &Ctx) {
    let network = NetNs::new(&ctx.id("net"));
    let task = ctx
        .try_task("t", &image(), TaskOptions::default(), |spec| {
            spec.network(&network.path().display().to_string())
                .env("GREET=pod")
        })
        .expect("created");
    task.start().expect("started");
    let answer = ask(&network, "GET /", "");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer:?}");
    assert!(answer.contains("Hello, pod!\n"), "{answer:?}");
    let answer = ask(&network, "POST /echo", "some words");
    assert!(answer.contains("some words"), "{answer:?}");
    let answer = ask(&network, "GET /elsewhere", "");
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer:?}");
}

fn sigterm_lets_a_server_answer(ctx: &Ctx) {
    let network = NetNs::new(&ctx.id("net"));
    let task = ctx
        .try_task("t", &image(), TaskOptions::default(), |spec| {
            spec.network(&network.path().display().to_string())
        })
        .expect("created");
    task.start().expect("started");
    // Half of its body has come when the signal does.
    let mut stream = connect(&network);
    stream
        .write_all(
            b"POST /echo HTTP/1.1\r\nHost: pod\r\nConnection: close\r\nContent-Length: 8\r\n\r\nhalf",
        )
        .expect("sent");
    let mut head = [0; 15];
    stream.read_exact(&mut head).expect("the answer has begun");
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    task.kill(libc::SIGTERM).expect("sent");
    stream.write_all(b"more").expect("sent");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("the whole answer");
    assert!(rest.contains("half") && rest.contains("more"), "{rest:?}");
    assert_eq!(task.wait_code(SHORT).expect("it ends"), 0);
}
