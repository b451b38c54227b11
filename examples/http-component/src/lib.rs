//! Answers `GET /` with a greeting and `POST /echo` with what it gets.
//!
//! Every request has an instance of its own, so nothing here outlives one.

use std::io::{self, Write};

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

struct Server;

wasip2::http::proxy::export!(Server);

impl Guest for Server {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        let sent = match (request.method(), path) {
            (Method::Get, "/") => text(out, 200, &greeting()),
            (Method::Post, "/echo") => echo(&request, out),
            _ => text(out, 404, "There is only GET / and POST /echo.\n"),
        };
        if let Err(error) = sent {
            // In the container's log.
            eprintln!("{path}: {error}");
        }
    }
}

/// Whom to greet is the pod's to say.
fn greeting() -> String {
    let name = std::env::var("GREET").unwrap_or_else(|_| "world".to_owned());
    format!("Hello, {name}!\n")
}

fn text(out: ResponseOutparam, status: u16, text: &str) -> io::Result<()> {
    answer(out, status, "text/plain; charset=utf-8", |body| {
        body.write_all(text.as_bytes())
    })
}

/// Sends each piece back as it comes.
fn echo(request: &IncomingRequest, out: ResponseOutparam) -> io::Result<()> {
    let body = request.consume().map_err(|()| gone("the request's body"))?;
    let mut input = body.stream().map_err(|()| gone("the request's body"))?;
    answer(out, 200, "application/octet-stream", |output| {
        io::copy(&mut input, output).map(drop)
    })
}

/// The head at once, the body as `write` makes it.
fn answer(
    out: ResponseOutparam,
    status: u16,
    kind: &str,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let fields = Fields::new();
    fields
        .set("content-type", &[kind.as_bytes().to_vec()])
        .map_err(|error| io::Error::other(error.to_string()))?;
    let response = OutgoingResponse::new(fields);
    response
        .set_status_code(status)
        .map_err(|()| io::Error::other("this status is not possible"))?;
    let body = response.body().map_err(|()| gone("the answer's body"))?;
    ResponseOutparam::set(out, Ok(response));
    let mut stream = body.write().map_err(|()| gone("the answer's body"))?;
    write(&mut stream)?;
    Write::flush(&mut stream)?;
    // The body ends when its stream is gone; without `finish` it would be broken off.
    drop(stream);
    OutgoingBody::finish(body, None).map_err(|error: ErrorCode| io::Error::other(error.to_string()))
}

fn gone(what: &str) -> io::Error {
    io::Error::other(format!("{what} was taken before"))
}
