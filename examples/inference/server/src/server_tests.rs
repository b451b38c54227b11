use std::net::TcpStream;
use std::sync::mpsc;

use super::*;
use crate::api::tests::{app, picture};
use crate::http::fake;

fn talk(input: impl Into<Vec<u8>>) -> (String, Option<String>) {
    let mut connection = fake::Connection::saying(input);
    let line = converse(&mut app(), &mut connection, |_| Ok(()));
    (connection.written(), line)
}

#[test]
fn a_request_is_answered_and_logged() {
    let (answer, line) = talk("GET /v2/health/ready HTTP/1.1\r\n\r\n");
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("{\"ready\":true}\n"),
        "{answer}"
    );
    let line = line.expect("a line");
    assert!(
        line.starts_with("GET /v2/health/ready 200 0 B in, 15 B out, "),
        "{line}"
    );
}

#[test]
fn head_is_answered_without_a_body() {
    let (answer, _) = talk("HEAD /v2/health/ready HTTP/1.1\r\n\r\n");
    assert!(
        answer.contains("Content-Length: 15\r\n") && answer.ends_with("\r\n\r\n"),
        "{answer}"
    );
}

#[test]
fn an_unreadable_request_is_answered_logged_and_counted() {
    let mut app = app();
    let mut connection = fake::Connection::saying("nonsense\r\n\r\nand a body nobody asked for");
    let mut finished = false;
    let line = converse(&mut app, &mut connection, |_| {
        finished = true;
        Ok(())
    });
    assert!(
        connection
            .written()
            .starts_with("HTTP/1.1 400 Bad Request\r\n"),
        "{}",
        connection.written()
    );
    assert!(line.expect("a line").starts_with("- - 400 "));
    assert!(
        finished && connection.at == connection.input.len(),
        "unread bytes would reset the connection"
    );
    assert!(
        app.metrics
            .render("m")
            .contains(r#"{path="unreadable",status="400"} 1"#)
    );
}

#[test]
fn who_says_nothing_gets_nothing_and_no_line() {
    assert_eq!(talk(""), (String::new(), None));
}

#[test]
fn a_path_cannot_forge_a_log_line() {
    // The parser refuses control characters; what it lets through is escaped and cut.
    let request = Request {
        method: Method::Get,
        path: format!("/\u{1b}[2J\r\nGET / 200 {}", "x".repeat(500)),
        content_type: None,
        body: Vec::new(),
    };
    let line = log_line(
        &request,
        &Response::text(String::new()),
        None,
        Duration::ZERO,
        None,
    );
    assert!(
        !line.chars().any(char::is_control) && line.len() < 300,
        "{line}"
    );
}

/// The whole thing over a real socket: several clients, one of them rude.
#[test]
fn clients_are_served_one_after_the_other_and_a_rude_one_does_not_stop_it() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        struct Lines(mpsc::Sender<String>);
        impl Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                // An error means that the test has ended, and with it this server.
                self.0
                    .send(String::from_utf8_lossy(bytes).into_owned())
                    .map_err(io::Error::other)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        serve(&listener, &mut app(), &mut Lines(sender))
    });

    let ask = |head: String, body: &[u8]| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.write_all(head.as_bytes()).expect("it reads");
        stream.write_all(body).expect("it reads");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .expect("an answer, then the end");
        answer
    };
    drop(TcpStream::connect(address).expect("it listens"));
    // Says nothing and stays: those behind it wait a little, not for ever.
    let silent = TcpStream::connect(address).expect("it listens");
    let file = picture("K.png");
    for _ in 0..3 {
        let answer = ask(
            format!(
                "POST /v1/classify HTTP/1.1\r\nContent-Length: {}\r\n\r\n",
                file.len()
            ),
            &file,
        );
        assert!(answer.contains(r#"{"top":[{"label":"K","p":"#), "{answer}");
    }
    // Refused by its length; the answer arrives although all of it was sent.
    let large = vec![0; 5 * 1024 * 1024];
    let answer = ask(
        format!(
            "POST /v1/classify HTTP/1.1\r\nContent-Length: {}\r\n\r\n",
            large.len()
        ),
        &large,
    );
    assert!(
        answer.starts_with("HTTP/1.1 413 Content Too Large\r\n"),
        "{answer}"
    );
    let answer = ask("GET /v2/health/live HTTP/1.1\r\n\r\n".to_owned(), b"");
    assert!(answer.ends_with("{\"live\":true}\n"), "{answer}");

    drop(silent);
    let text: String = lines.try_iter().collect();
    assert!(text.contains("POST /v1/classify 200 "), "{text}");
}

#[test]
fn standard_input_that_is_no_socket_is_told_apart_from_a_passing_failure() {
    assert!(is_no_listener(&io::Error::from_raw_os_error(88)));
    assert!(!is_no_listener(&io::Error::from_raw_os_error(24)));
}
