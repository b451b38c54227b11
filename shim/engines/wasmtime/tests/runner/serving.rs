//! Guests that serve on the inherited listening socket.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wasmlet_protocol::FailureReason;

use crate::engine;
use crate::guests;
use crate::support::{Container, Created, DEADLINE, can_run, eventually};

/// In the network of this test, where it can be reached.
fn serving(reads: bool) -> (Created, SocketAddr) {
    let (container, address) = container(reads);
    let created = container.created();
    (created, address)
}

fn container(reads: bool) -> (Container, SocketAddr) {
    let mut container = Container::new(guests::serves(reads));
    container.spec["linux"]["namespaces"]
        .as_array_mut()
        .expect("a list")
        .truncate(4);
    let address = TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a free port");
    container.request.listen = Some(address);
    (container, address)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
    stream
}

fn answer(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    stream
        .read_to_string(&mut text)
        .expect("an answer and its end");
    text
}

#[test]
fn connections_are_answered_one_after_the_other() {
    if !can_run() {
        return;
    }
    let (mut created, address) = serving(false);
    // Before the guest runs: connections queue.
    let mut early = connect(address);
    created.start();
    assert_eq!(answer(&mut early), "hello");
    for _ in 0..50 {
        assert_eq!(answer(&mut connect(address)), "hello");
    }
    kill(Pid::from_raw(created.pid), Signal::SIGTERM).expect("it runs");
    assert_eq!(created.wait(), 143, "an idle server ends at once");
    let container = created.delete();
    assert_eq!(container.read("stderr"), "");
}

#[test]
fn a_client_that_went_away_is_no_harm() {
    if !can_run() {
        return;
    }
    let (mut created, address) = serving(true);
    created.start();
    for _ in 0..20 {
        drop(connect(address));
    }
    let mut stream = connect(address);
    stream.write_all(b"x").expect("it is open");
    assert_eq!(answer(&mut stream), "hello");
    kill(Pid::from_raw(created.pid), Signal::SIGKILL).expect("it runs");
    assert_eq!(created.wait(), 137);
    created.delete();
}

#[test]
fn an_answer_under_way_is_finished_before_the_end() {
    if !can_run() {
        return;
    }
    let (mut created, address) = serving(true);
    created.start();
    let mut stream = connect(address);
    eventually("the guest has accepted", || accepted(address));
    kill(Pid::from_raw(created.pid), Signal::SIGTERM).expect("it runs");
    assert_eq!(created.try_wait(), None, "it still owes an answer");
    stream.write_all(b"x").expect("it is open");
    assert_eq!(answer(&mut stream), "hello");
    assert_eq!(created.wait(), 143);
    created.delete();
}

#[test]
fn a_second_request_to_stop_does_not_wait() {
    if !can_run() {
        return;
    }
    let (mut created, address) = serving(true);
    created.start();
    let _silent = connect(address);
    eventually("the guest has accepted", || accepted(address));
    kill(Pid::from_raw(created.pid), Signal::SIGTERM).expect("it runs");
    kill(Pid::from_raw(created.pid), Signal::SIGINT).expect("it runs");
    let code = created.wait();
    assert!(code == 130 || code == 143, "{code}");
    created.delete();
}

/// Whether no connection to the address waits to be accepted (`/proc/net/tcp`: the receive queue
/// of a listening socket is its number of waiting connections).
fn accepted(address: SocketAddr) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("proc is there");
    let port = format!(":{:04X}", address.port());
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.len() > 4
            && fields[1].ends_with(&port)
            && fields[3] == "0A"
            && fields[4].ends_with(":00000000")
    })
}

#[test]
fn a_port_in_use_fails_the_creation() {
    if !can_run() {
        return;
    }
    let (container, address) = container(false);
    let _taken = TcpListener::bind(address).expect("it was free");
    let (failure, _) = container.fail();
    assert_eq!(failure.reason, FailureReason::InvalidArgument);
    assert!(
        failure.message.contains(&address.to_string()),
        "{}",
        failure.message
    );
    assert!(
        failure.message.contains("wasmlet.dev/listen"),
        "{}",
        failure.message
    );
}

#[test]
fn a_low_port_can_be_bound_and_the_capability_is_gone_afterwards() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(guests::serves(false));
    container.request.listen = Some("0.0.0.0:80".parse().expect("an address"));
    let mut created = container.created();
    created.start();
    let pid = created.pid;
    eventually("the guest runs", || {
        crate::posture::status(pid, "CapEff").is_some_and(|caps| caps.ends_with("1b"))
    });
    kill(Pid::from_raw(created.pid), Signal::SIGTERM).expect("it runs");
    assert_eq!(created.wait(), 143);
    created.delete();
}

#[test]
fn without_a_listener_stdin_is_stdin() {
    if !can_run() {
        return;
    }
    let (code, container) = Container::new(guests::serves(false)).run();
    assert_eq!(
        code,
        121,
        "the guest traps when accept fails: {}",
        container.read("stderr")
    );
}

fn served(guest: String) -> (Container, SocketAddr) {
    let (with_address, address) = container(false);
    let mut container = Container::new(guest);
    container.spec["linux"]["namespaces"] = with_address.spec["linux"]["namespaces"].clone();
    container.request.listen = Some(address);
    (container, address)
}

#[test]
fn descriptors_of_sockets_behave_as_others_do() {
    if !can_run() {
        return;
    }
    let (container, address) = served(guests::juggles_with_descriptors());
    let mut created = container.created();
    let mut stream = connect(address);
    created.start();
    let answered = answer(&mut stream);
    let check = created.wait();
    assert_eq!(
        check,
        engine::DESCRIPTOR_CHECK,
        "the number of the check that failed"
    );
    // It answers after the 14th.
    if check == 0 || check > 14 {
        assert_eq!(answered, "hello");
    }
    assert_eq!(created.delete().read("stderr"), "");
}

#[test]
fn a_moment_can_be_waited_for_without_a_socket() {
    if !can_run() {
        return;
    }
    let (code, container) = Container::new(guests::waits_for_a_moment()).run();
    assert_eq!((code, container.read("stderr").as_str()), (0, ""));
}

#[test]
fn a_server_that_polls_leaves_after_its_last_answer() {
    if !can_run() {
        return;
    }
    let (container, address) = served(guests::polls_for_connections());
    let mut created = container.created();
    created.start();
    let mut stream = connect(address);
    eventually("the guest has accepted", || accepted(address));
    let mut first = connect(address);
    stream.write_all(b"x").expect("it is open");
    assert_eq!(answer(&mut stream), "hello");
    eventually("the guest has accepted", || accepted(address));
    kill(Pid::from_raw(created.pid), Signal::SIGTERM).expect("it runs");
    let started = std::time::Instant::now();
    first.write_all(b"x").expect("it is open");
    assert_eq!(answer(&mut first), "hello");
    assert_eq!(created.wait(), 143);
    assert!(
        started.elapsed() < std::time::Duration::from_secs(3),
        "it did not wait for the end of its grace"
    );
    created.delete();
}

#[test]
fn a_stop_that_runs_out_of_grace_has_the_code_of_its_signal() {
    if !can_run() {
        return;
    }
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGHUP, 129)] {
        let (mut created, address) = serving(true);
        created.start();
        let _silent = connect(address);
        eventually("the guest has accepted", || accepted(address));
        kill(Pid::from_raw(created.pid), signal).expect("it runs");
        assert_eq!(created.wait(), code);
        created.delete();
    }
}
