//! The loop: accept, read, answer, log, close. One connection at a time.

use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use crate::api::{App, UNREADABLE};
use crate::connection::Connection;
use crate::http::{Limits, Method, Request, Response, read_request};

/// How long after an answer a client's unread bytes are still taken. Closing on them would send a
/// reset, and the reset would overtake the answer.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 8 * 1024 * 1024;
/// A listener that fails this often in a row will not recover.
const ACCEPT_FAILURES: u32 = 50;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why serving ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Standard input is something else.
    #[error(
        "standard input is not a listening socket; run this under a runtime that hands one over (annotation \
         wasmlet.dev/listen), or use --bind"
    )]
    NotListening(#[source] io::Error),
    /// Again and again.
    #[error("accepting a connection failed {ACCEPT_FAILURES} times in a row")]
    Accept(#[source] io::Error),
    /// Nobody to write to.
    #[error("cannot write the log")]
    Log(#[source] io::Error),
}

/// Answers until the listener is gone. Returns only with an error.
pub fn serve(
    listener: &TcpListener,
    app: &mut App,
    log: &mut impl Write,
) -> Result<(), ServeError> {
    let mut failures = 0;
    loop {
        let began = Instant::now();
        match listener.accept() {
            Ok((stream, _)) => {
                failures = 0;
                let mut connection = Connection::new(stream);
                let line = converse(app, &mut connection, Connection::finish);
                drop(connection);
                if let Some(line) = line {
                    writeln!(log, "{line}")
                        .and_then(|()| log.flush())
                        .map_err(ServeError::Log)?;
                }
            }
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                // The listener has a timeout, or does not block: nobody came.
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    if began.elapsed() < ACCEPT_PAUSE {
                        thread::sleep(ACCEPT_PAUSE);
                    }
                }
                _ if is_no_listener(&error) => return Err(ServeError::NotListening(error)),
                _ => {
                    // A client that went away while it waited, or too many open files: both pass.
                    failures += 1;
                    if failures >= ACCEPT_FAILURES {
                        return Err(ServeError::Accept(error));
                    }
                    writeln!(log, "accept failed: {error}").map_err(ServeError::Log)?;
                    thread::sleep(ACCEPT_PAUSE);
                }
            },
        }
    }
}

/// One request and its answer. `finish` tells the client that no more comes. Returns the log line;
/// none if nobody spoke.
fn converse<S: Read + Write>(
    app: &mut App,
    stream: &mut S,
    finish: impl FnOnce(&mut S) -> io::Result<()>,
) -> Option<String> {
    let began = Instant::now();
    match read_request(stream, &Limits::default()) {
        Ok(request) => {
            let answer = app.answer(&request);
            app.metrics
                .count_request(answer.route, answer.response.status);
            let sent = answer
                .response
                .write(stream, request.method != Method::Head);
            Some(log_line(
                &request,
                &answer.response,
                answer.inference,
                began.elapsed(),
                sent.err(),
            ))
        }
        Err(error) => {
            let status = error.status()?;
            app.metrics.count_request(UNREADABLE, status);
            let sent = Response::error(status, &error)
                .write(stream, true)
                .and_then(|()| finish(stream));
            // Who was silent has nothing unread here.
            if sent.is_ok() && status != 408 {
                drain(stream);
            }
            Some(format!(
                "- - {status} {:.1} ms: {error}{}",
                millis(began.elapsed()),
                lost(sent.err())
            ))
        }
    }
}

fn log_line(
    request: &Request,
    response: &Response,
    inference: Option<Duration>,
    time: Duration,
    error: Option<io::Error>,
) -> String {
    const PATH_CHARS: usize = 200;
    let method = match request.method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Other => "OTHER",
    };
    // Escaped: a path must not be able to look like another log line.
    let path: String = request.path.escape_debug().take(PATH_CHARS).collect();
    let model = inference
        .map(|time| format!(", model {:.2} ms", millis(time)))
        .unwrap_or_default();
    format!(
        "{method} {path} {} {} B in, {} B out, {:.2} ms{model}{}",
        response.status,
        request.body.len(),
        response.body.len(),
        millis(time),
        lost(error)
    )
}

fn lost(error: Option<io::Error>) -> String {
    error
        .map(|error| format!("; the answer was not taken: {error}"))
        .unwrap_or_default()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Reads what the client still sends, for a while.
fn drain(stream: &mut impl Read) {
    let began = Instant::now();
    let mut buffer = [0; 16 * 1024];
    let mut bytes = 0;
    while bytes < LINGER_BYTES && began.elapsed() < LINGER {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => bytes += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Gone or silent: nothing left that could reset the connection.
            Err(_) => return,
        }
    }
}

/// Whether the error says that the descriptor is no listening socket at all.
fn is_no_listener(error: &io::Error) -> bool {
    // BADF, INVAL, NOTSOCK, NOTSUP of WASI; EBADF, EINVAL, ENOTSOCK, EOPNOTSUPP of Linux.
    let numbers: [i32; 4] = if cfg!(target_os = "wasi") {
        [8, 28, 57, 58]
    } else {
        [9, 22, 88, 95]
    };
    error
        .raw_os_error()
        .is_some_and(|number| numbers.contains(&number))
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
