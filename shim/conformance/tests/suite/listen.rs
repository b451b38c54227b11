//! The listening socket of a module that imports `sock_accept`.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use tonic::Code;
use wasmlet_conformance::{Ctx, NetNs, SHORT, SpecBuilder, Task, TaskOptions, eventually};

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::wasm(
        "a_module_that_accepts_listens_on_8080",
        a_module_that_accepts_listens_on_8080,
    ),
    Case::wasm(
        "an_annotation_moves_the_socket",
        an_annotation_moves_the_socket,
    ),
    Case::wasm("none_leaves_stdin_alone", none_leaves_stdin_alone),
    Case::wasm(
        "an_address_in_use_is_named_with_the_annotation",
        an_address_in_use_is_named,
    ),
    Case::wasm(
        "a_module_that_does_not_accept_does_not_listen",
        a_module_that_does_not_accept,
    ),
    Case::wasm("a_port_below_1024_is_roots", a_port_below_1024_is_roots),
    Case::wasm(
        "a_listening_guests_first_call_may_be_a_write",
        a_first_call_may_be_a_write,
    ),
];

/// The annotation.
const LISTEN: &str = "wasmlet.dev/listen";

/// Puts a container into the namespace.
fn inside(spec: SpecBuilder, network: &NetNs) -> SpecBuilder {
    spec.network(&network.path().display().to_string())
}

fn network(ctx: &Ctx) -> NetNs {
    NetNs::new(&ctx.id("net"))
}

/// What the guest answers at an address inside the namespace.
#[track_caller]
fn answer(network: &NetNs, address: SocketAddr) -> String {
    network.run(|| {
        let mut stream = eventually("somebody listens", SHORT, || {
            TcpStream::connect(address).map_err(|error| format!("{address}: {error}"))
        });
        stream.set_read_timeout(Some(SHORT)).expect("set");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        text
    })
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Local addresses of the listening sockets in the namespace of process `pid`, as the kernel writes
/// them: `00000000:1F90`.
fn listening(pid: u32) -> Vec<String> {
    const LISTENING: &str = "0A";
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    table
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let (address, state) = (words.next()?, words.nth(1)?);
            (state == LISTENING).then(|| address.to_owned())
        })
        .collect()
}

#[track_caller]
fn ends_well(task: &Task<'_>) {
    let exit = task.wait();
    assert_eq!(
        (exit.code, exit.stdout.as_str()),
        (0, "/guest.wasm has 0 arguments\nready\n"),
        "{exit:?}"
    );
    task.delete().expect("deleted");
}

fn a_module_that_accepts_listens_on_8080(ctx: &Ctx) {
    let network = network(ctx);
    let task = ctx.task_with("t", "serve", TaskOptions::default(), |spec| {
        inside(spec, &network)
    });
    // Bound by Create: who is told of the start finds it there.
    assert_eq!(listening(task.pid), ["00000000:1F90"]);
    task.start().expect("started");
    assert_eq!(answer(&network, local(8080)), "served\n");
    ends_well(&task);
}

fn an_annotation_moves_the_socket(ctx: &Ctx) {
    let network = network(ctx);
    for (name, value, address) in [
        ("port", "9000", "00000000:2328"),
        ("address", "127.0.0.1:9000", "0100007F:2328"),
    ] {
        let task = ctx.task_with(name, "serve", TaskOptions::default(), |spec| {
            inside(spec, &network).annotation(LISTEN, value)
        });
        assert_eq!(listening(task.pid), [address]);
        task.start().expect("started");
        assert_eq!(answer(&network, local(9000)), "served\n");
        ends_well(&task);
    }
}

fn none_leaves_stdin_alone(ctx: &Ctx) {
    let options = TaskOptions::default().stdin();
    let task = ctx.running_with("t", "serve", options, |spec| {
        spec.annotation(LISTEN, "none")
    });
    assert_eq!(listening(task.pid), [""; 0]);
    task.io.write(b"over stdin\n");
    task.io.close_stdin();
    task.close_io().expect("stdin can be closed");
    let exit = task.wait();
    assert_eq!(
        (exit.code, exit.stdout.as_str()),
        (
            0,
            "/guest.wasm has 0 arguments\nready\nno listening socket\nover stdin\n"
        ),
        "{exit:?}"
    );
    task.delete().expect("deleted");
}

fn an_address_in_use_is_named(ctx: &Ctx) {
    let network = network(ctx);
    let other = network.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).expect("bound"));
    let image = ctx.image("serve");
    let refused = ctx
        .try_task("t", &image, TaskOptions::default(), |spec| {
            inside(spec, &network)
        })
        .err()
        .expect("the port is taken");
    let sentence = "cannot listen on 0.0.0.0:8080: Address already in use (os error 98); set \
                    wasmlet.dev/listen to another address, or to none";
    assert!(refused.message().contains(sentence), "{refused}");
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    drop(other);
}

fn a_module_that_does_not_accept(ctx: &Ctx) {
    let task = ctx.running("t", "sleep", TaskOptions::default());
    assert_eq!(listening(task.pid), [""; 0]);
}

/// As in a Linux container, whose capabilities a user other than root does not keep either.
fn a_port_below_1024_is_roots(ctx: &Ctx) {
    let network = network(ctx);
    let image = ctx.image("serve");
    let low = |spec: SpecBuilder| inside(spec, &network).annotation(LISTEN, "80");
    let refused = ctx
        .try_task("user", &image, TaskOptions::default(), |spec| {
            low(spec).user(1000, 1000)
        })
        .err()
        .expect("not for users");
    let sentence = "cannot listen on 0.0.0.0:80: Permission denied (os error 13); set \
                    wasmlet.dev/listen to another address, or to none";
    assert!(refused.message().contains(sentence), "{refused}");
    let task = ctx.running_with("root", "serve", TaskOptions::default(), low);
    assert_eq!(listening(task.pid), ["00000000:0050"]);
    assert_eq!(answer(&network, local(80)), "served\n");
    ends_well(&task);
}

fn a_first_call_may_be_a_write(ctx: &Ctx) {
    let exit = ctx.run("t", "serve_mutely", TaskOptions::default());
    assert_eq!(
        (exit.code, exit.stdout.as_str()),
        (0, "first words\n"),
        "the code is the number of the write's error: {exit:?}"
    );
}
