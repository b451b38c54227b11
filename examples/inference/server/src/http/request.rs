//! Reads one request, within limits: on size, because memory is 64 MiB, and on time, because there
//! is one thread.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use super::body;

/// How much of a request is taken.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Request line and headers together.
    pub head_bytes: usize,
    /// Number of headers.
    pub headers: usize,
    /// The body, after chunks are put together.
    pub body_bytes: usize,
    /// From the first look at the connection to the last byte of the body.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            head_bytes: 16 * 1024,
            headers: 64,
            // A picture from a phone, or a 3x224x224 tensor as JSON.
            body_bytes: 4 * 1024 * 1024,
            time: Duration::from_secs(10),
        }
    }
}

/// A method, as far as this server tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD: answered as GET without the body.
    Head,
    /// POST.
    Post,
    /// Anything else: no route takes it.
    Other,
}

/// A request that was read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its method.
    pub method: Method,
    /// The path, as sent, without the query.
    pub path: String,
    /// The type of the body without parameters, in lower case.
    pub content_type: Option<String>,
    /// The body; empty if there was none.
    pub body: Vec<u8>,
}

/// Why no request could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The client went away before it said anything: nobody to answer.
    #[error("the connection was closed before a request came")]
    Silent,
    /// The client went away in the middle.
    #[error("the connection was closed in the middle of the request")]
    Truncated,
    /// It took too long.
    #[error("the request did not arrive within {} s", .0.as_secs_f32())]
    Timeout(Duration),
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[source] io::Error),
    /// Not HTTP.
    #[error("malformed request head: {0}")]
    Head(httparse::Error),
    /// Too many headers.
    #[error("more than {0} headers")]
    TooManyHeaders(usize),
    /// Too long a head.
    #[error("request line and headers are longer than {0} bytes")]
    HeadTooLarge(usize),
    /// Too long a body.
    #[error("the body is longer than {limit} bytes")]
    BodyTooLarge {
        /// The limit.
        limit: usize,
    },
    /// A POST that does not say how long it is.
    #[error("the request has no body: send Content-Length or Transfer-Encoding: chunked")]
    LengthRequired,
    /// Not a number, or two that differ.
    #[error("bad Content-Length {0:?}")]
    ContentLength(String),
    /// Both ways to say the length: a classic of request smuggling.
    #[error("both Content-Length and Transfer-Encoding are set")]
    TwoLengths,
    /// gzip and the like.
    #[error("transfer encoding {0:?} is not supported; use chunked")]
    TransferEncoding(String),
    /// gzip and the like.
    #[error("content encoding {0:?} is not supported; send the body as it is")]
    ContentEncoding(String),
    /// A chunk that is none.
    #[error("malformed chunk in the body")]
    Chunk,
    /// Something other than 100-continue.
    #[error("expectation {0:?} is not supported")]
    Expectation(String),
}

impl ReadError {
    /// The status to answer with; none if there is nobody to answer.
    pub fn status(&self) -> Option<u16> {
        match self {
            ReadError::Silent | ReadError::Io(_) => None,
            ReadError::Timeout(_) => Some(408),
            ReadError::LengthRequired => Some(411),
            ReadError::BodyTooLarge { .. } => Some(413),
            ReadError::ContentEncoding(_) => Some(415),
            ReadError::Expectation(_) => Some(417),
            ReadError::TooManyHeaders(_) | ReadError::HeadTooLarge(_) => Some(431),
            ReadError::TransferEncoding(_) => Some(501),
            ReadError::Truncated
            | ReadError::Head(_)
            | ReadError::ContentLength(_)
            | ReadError::TwoLengths
            | ReadError::Chunk => Some(400),
        }
    }
}

/// Reads until the deadline. The socket itself must not block for ever: the runtime sets a receive
/// timeout on it.
pub(super) struct Source<'a, S> {
    pub(super) stream: &'a mut S,
    pub(super) began: Instant,
    pub(super) time: Duration,
}

impl<S: Read> Source<'_, S> {
    /// Appends what comes next to `buffer`, at most `most` bytes. An end of the stream is
    /// `Truncated`.
    pub(super) fn more(&mut self, buffer: &mut Vec<u8>, most: usize) -> Result<(), ReadError> {
        const PIECE_BYTES: usize = 16 * 1024;
        let filled = buffer.len();
        buffer.resize(filled + most.min(PIECE_BYTES), 0);
        let result = loop {
            if self.began.elapsed() >= self.time {
                break Err(ReadError::Timeout(self.time));
            }
            match self.stream.read(&mut buffer[filled..]) {
                Ok(0) => break Err(ReadError::Truncated),
                Ok(n) => break Ok(n),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    // The socket's own receive timeout: this client is silent, others wait.
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                        break Err(ReadError::Timeout(self.began.elapsed()));
                    }
                    _ => break Err(ReadError::Io(error)),
                },
            }
        };
        buffer.truncate(filled + result.as_ref().copied().unwrap_or(0));
        result.map(|_| ())
    }
}

/// What the head says about the body.
#[derive(Debug, PartialEq, Eq)]
enum Length {
    None,
    Known(usize),
    Chunked,
}

struct Head {
    method: Method,
    path: String,
    content_type: Option<String>,
    length: Length,
    wants_continue: bool,
}

/// Reads one request. Writes only `100 Continue`, and only if the client waits for it and its body
/// will be taken.
pub fn read_request<S: Read + Write>(
    stream: &mut S,
    limits: &Limits,
) -> Result<Request, ReadError> {
    let mut source = Source {
        stream,
        began: Instant::now(),
        time: limits.time,
    };
    let mut buffer = Vec::new();
    let (head, head_bytes) = loop {
        if let Some(parsed) = parse_head(&buffer, limits)? {
            break parsed;
        }
        if buffer.len() >= limits.head_bytes {
            return Err(ReadError::HeadTooLarge(limits.head_bytes));
        }
        let room = limits.head_bytes - buffer.len();
        source
            .more(&mut buffer, room)
            .map_err(|error| match error {
                ReadError::Truncated if buffer.is_empty() => ReadError::Silent,
                other => other,
            })?;
    };
    let rest = buffer.split_off(head_bytes);
    if let Length::Known(length) = head.length
        && length > limits.body_bytes
    {
        return Err(ReadError::BodyTooLarge {
            limit: limits.body_bytes,
        });
    }
    if head.wants_continue && head.length != Length::None && rest.is_empty() {
        source
            .stream
            .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
            .map_err(ReadError::Io)?;
        source.stream.flush().map_err(ReadError::Io)?;
    }
    let body = match head.length {
        Length::None if head.method == Method::Post => return Err(ReadError::LengthRequired),
        Length::None => Vec::new(),
        Length::Known(length) => body::sized(&mut source, rest, length)?,
        Length::Chunked => body::chunked(&mut source, rest, limits.body_bytes)?,
    };
    Ok(Request {
        method: head.method,
        path: head.path,
        content_type: head.content_type,
        body,
    })
}

/// The head and its length in bytes, once it is there whole.
fn parse_head(buffer: &[u8], limits: &Limits) -> Result<Option<(Head, usize)>, ReadError> {
    let mut headers = vec![httparse::EMPTY_HEADER; limits.headers];
    let mut parsed = httparse::Request::new(&mut headers);
    let size = match parsed.parse(buffer) {
        Ok(httparse::Status::Complete(size)) => size,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(ReadError::TooManyHeaders(limits.headers));
        }
        Err(error) => return Err(ReadError::Head(error)),
    };
    let target = parsed.path.unwrap_or("/");
    let mut head = Head {
        method: match parsed.method {
            Some("GET") => Method::Get,
            Some("HEAD") => Method::Head,
            Some("POST") => Method::Post,
            _ => Method::Other,
        },
        path: target.split(['?', '#']).next().unwrap_or(target).to_owned(),
        content_type: None,
        length: Length::None,
        wants_continue: false,
    };
    for header in parsed.headers.iter() {
        head.take(header.name, String::from_utf8_lossy(header.value).trim())?;
    }
    Ok(Some((head, size)))
}

impl Head {
    fn take(&mut self, name: &str, value: &str) -> Result<(), ReadError> {
        match name.to_ascii_lowercase().as_str() {
            "content-length" => {
                // A sign or an empty value would pass `parse` or mean something else to a proxy.
                let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
                let length = value
                    .parse::<u64>()
                    .ok()
                    .filter(|_| digits)
                    // On wasm32 usize has 32 bits: what does not fit is too large anyway.
                    .map(|length| usize::try_from(length).unwrap_or(usize::MAX))
                    .ok_or_else(|| ReadError::ContentLength(value.to_owned()))?;
                match self.length {
                    Length::None => self.length = Length::Known(length),
                    Length::Known(other) if other == length => {}
                    Length::Known(_) => return Err(ReadError::ContentLength(value.to_owned())),
                    Length::Chunked => return Err(ReadError::TwoLengths),
                }
            }
            "transfer-encoding" => {
                if !value.eq_ignore_ascii_case("chunked") {
                    return Err(ReadError::TransferEncoding(value.to_owned()));
                }
                if matches!(self.length, Length::Known(_)) {
                    return Err(ReadError::TwoLengths);
                }
                self.length = Length::Chunked;
            }
            "content-encoding" if !value.eq_ignore_ascii_case("identity") => {
                return Err(ReadError::ContentEncoding(value.to_owned()));
            }
            "content-type" => {
                let kind = value.split(';').next().unwrap_or(value).trim();
                self.content_type = Some(kind.to_ascii_lowercase());
            }
            "expect" => {
                if !value.eq_ignore_ascii_case("100-continue") {
                    return Err(ReadError::Expectation(value.to_owned()));
                }
                self.wants_continue = true;
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
