//! How a guest ends: exit codes and the one line on stderr.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::engine;
use crate::guests::{self, End};
use crate::support::{Container, Created, can_run, can_run_components, eventually};

#[test]
fn exit_codes_are_the_guests_own() {
    if !can_run() {
        return;
    }
    for (given, code) in [
        (0, 0),
        (1, 1),
        (125, 125),
        (126, 126),
        (200, 200),
        (255, 255),
    ] {
        let (seen, container) = Container::new(guests::exits(given)).run();
        assert_eq!((seen, container.read("stderr").as_str()), (code, ""));
    }
    let (seen, container) = Container::new(guests::exits(256)).run();
    assert_eq!(seen, 255);
    assert!(container.read("stderr").contains("256"));
}

#[track_caller]
fn ends_with(guest: String, code: i32, parts: &[&str]) {
    let (seen, container) = Container::new(guest).run();
    let stderr = container.read("stderr");
    assert_eq!(seen, code, "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr:?}");
    assert!(stderr.starts_with("wasmlet: /guest.wasm: "), "{stderr:?}");
    for part in parts {
        assert!(stderr.contains(part), "{part:?} is not in {stderr:?}");
    }
}

#[test]
fn traps_say_what_and_where() {
    if !can_run() {
        return;
    }
    ends_with(
        guests::traps(),
        121,
        &["trapped: ", "unreachable", "function deep"],
    );
    ends_with(
        guests::overflows_the_stack(),
        121,
        &[
            &format!("stack overflow, limit {} bytes", engine::STACK),
            "wasmlet.dev/max-stack",
        ],
    );
}

fn running(guest: String) -> Created {
    let created = Container::new(guest).created();
    created.start();
    eventually("the guest runs", || {
        created.container.read("stdout") == "ready"
    });
    created
}

#[test]
fn signals_end_a_guest_at_once() {
    if !can_run() {
        return;
    }
    for (signal, code) in [
        (Signal::SIGTERM, 143),
        (Signal::SIGINT, 130),
        (Signal::SIGQUIT, 131),
        (Signal::SIGHUP, 129),
        (Signal::SIGKILL, 137),
    ] {
        for guest in [guests::spins(), guests::sleeps()] {
            let mut created = running(guest);
            kill(Pid::from_raw(created.pid), signal).expect("it runs");
            assert_eq!(created.wait(), code, "{signal}");
            let container = created.delete();
            assert_eq!(container.read("stderr"), "");
        }
    }
}

#[test]
fn a_container_that_was_never_started_can_be_stopped() {
    if !can_run() {
        return;
    }
    let mut created = Container::new(guests::exits(0)).created();
    kill(Pid::from_raw(created.pid), Signal::SIGTERM).expect("it waits");
    assert_eq!(created.wait(), 143);
    created.delete();
}

#[test]
fn what_a_component_wrote_arrives_however_it_ends() {
    if !can_run_components() {
        return;
    }
    let (code, container) =
        Container::new(guests::component_writes("stdout", "done", End::Returns)).run();
    assert_eq!((code, container.read("stdout").as_str()), (0, "done"));
    let (code, container) =
        Container::new(guests::component_writes("stderr", "done", End::Returns)).run();
    assert_eq!((code, container.read("stderr").as_str()), (0, "done"));
    let (code, container) =
        Container::new(guests::component_writes("stdout", "done", End::Traps)).run();
    assert_eq!((code, container.read("stdout").as_str()), (121, "done"));

    let mut created =
        Container::new(guests::component_writes("stdout", "done", End::Spins)).created();
    created.start();
    eventually("the text is there while the guest runs", || {
        created.container.read("stdout") == "done"
    });
    kill(Pid::from_raw(created.pid), Signal::SIGTERM).expect("it runs");
    assert_eq!(created.wait(), 143);
    assert_eq!(created.delete().read("stdout"), "done");
}
