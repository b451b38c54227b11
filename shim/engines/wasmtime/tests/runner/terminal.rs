//! Containers with a terminal.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::json;

use crate::guests;
use crate::support::{Container, can_run};

/// Takes the master of the pty that the runner sends.
fn receive(listener: &UnixListener) -> File {
    let (stream, _) = listener.accept().expect("the runner connects");
    let mut bytes = [0; 64];
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let message = recvmsg::<()>(
        stream.as_raw_fd(),
        &mut slices,
        Some(&mut space),
        MsgFlags::empty(),
    )
    .expect("a message");
    for control in message.cmsgs().expect("it is whole") {
        if let ControlMessageOwned::ScmRights(fds) = control {
            // SAFETY: the kernel just made this descriptor for us.
            return File::from(unsafe { OwnedFd::from_raw_fd(fds[0]) });
        }
    }
    panic!("no descriptor in the message");
}

#[test]
fn a_guest_talks_to_its_terminal() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(guests::copies_stdin());
    container.spec["process"]["terminal"] = json!(true);
    let socket = container.path("console.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    container.request.console_socket = Some(socket);
    let mut created = container.created();
    let mut master = receive(&listener);
    created.start();
    // A line, and the end of the file as one types it.
    master
        .write_all(b"hello\n\x04")
        .expect("the terminal takes it");
    assert_eq!(created.wait(), 0);
    let mut text = Vec::new();
    // The last end of the other side is gone: EIO ends the text.
    let _ = master.read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text);
    assert_eq!(text, "hello\r\nhello\r\n", "the echo and the guest");
    created.delete();
}

#[test]
fn a_guest_sees_whether_its_stdout_is_a_terminal() {
    if !can_run() {
        return;
    }
    let mut container = Container::new(guests::tells_what_stdout_is());
    container.spec["process"]["terminal"] = json!(true);
    let socket = container.path("console.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    container.request.console_socket = Some(socket);
    let mut created = container.created();
    let mut master = receive(&listener);
    created.start();
    assert_eq!(created.wait(), 0);
    let mut text = Vec::new();
    let _ = master.read_to_end(&mut text);
    assert_eq!(text, b"2", "a character device");
    created.delete();

    let (_, container) = Container::new(guests::tells_what_stdout_is()).run();
    assert_eq!(container.read("stdout"), "0", "of no known kind");
}
