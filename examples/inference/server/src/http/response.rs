//! What is sent back.

use std::io::{self, Write};

use serde::Serialize;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body's type.
    pub content_type: &'static str,
    /// The methods that would have been right, with status 405.
    pub allow: Option<&'static str>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// An answer in JSON.
    pub fn json(status: u16, value: &impl Serialize) -> Response {
        // Only maps with keys that are not strings can fail here, and no answer of ours has one.
        let mut body = serde_json::to_vec(value).expect("answers are plain structs");
        body.push(b'\n');
        Response {
            status,
            content_type: "application/json",
            allow: None,
            body,
        }
    }

    /// An answer in plain text.
    pub fn text(body: String) -> Response {
        Response {
            status: 200,
            content_type: "text/plain; charset=utf-8",
            allow: None,
            body: body.into_bytes(),
        }
    }

    /// `{"error": …}`.
    pub fn error(status: u16, error: impl ToString) -> Response {
        #[derive(Serialize)]
        struct Body {
            error: String,
        }
        Response::json(
            status,
            &Body {
                error: error.to_string(),
            },
        )
    }

    /// Writes it, with or without its body. The connection is closed afterwards.
    pub fn write(&self, out: &mut impl Write, with_body: bool) -> io::Result<()> {
        let mut bytes = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n",
            self.status,
            reason(self.status),
            self.content_type,
            self.body.len()
        )
        .into_bytes();
        if let Some(methods) = self.allow {
            bytes.extend_from_slice(format!("Allow: {methods}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        if with_body {
            bytes.extend_from_slice(&self.body);
        }
        // One write: one packet for most answers.
        out.write_all(&bytes)?;
        out.flush()
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_its_length_and_that_the_connection_ends() {
        let mut out = Vec::new();
        Response::error(404, "no such path")
            .write(&mut out, true)
            .expect("a Vec takes everything");
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 25\r\nConnection: close\r\n\r\n\
             {\"error\":\"no such path\"}\n"
        );
    }

    #[test]
    fn an_answer_to_head_has_the_length_but_not_the_body() {
        let mut out = Vec::new();
        Response::text("hello".to_owned())
            .write(&mut out, false)
            .expect("a Vec takes everything");
        let text = String::from_utf8(out).expect("text");
        assert!(text.contains("Content-Length: 5\r\n"));
        assert!(text.ends_with("\r\n\r\n"));
    }
}
