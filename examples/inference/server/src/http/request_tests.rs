use super::*;
use crate::http::fake::Connection;

fn read(input: impl Into<Vec<u8>>) -> Result<Request, ReadError> {
    read_request(&mut Connection::saying(input), &Limits::default())
}

#[track_caller]
fn refused(input: impl Into<Vec<u8>>, status: u16, text: &str) {
    let error = read(input).expect_err("must be refused");
    assert_eq!(error.status(), Some(status), "{error}");
    assert!(
        error.to_string().contains(text),
        "{error} does not say {text:?}"
    );
}

#[test]
fn a_get_has_no_body_and_its_query_is_dropped() {
    let request = read("GET /v2/health/ready?x=1 HTTP/1.1\r\nHost: a\r\n\r\n").expect("valid");
    assert_eq!(request.method, Method::Get);
    assert_eq!(request.path, "/v2/health/ready");
    assert_eq!(request.body, b"");
}

#[test]
fn http_1_0_and_lone_line_feeds_are_understood() {
    assert_eq!(read("GET / HTTP/1.0\n\n").expect("valid").path, "/");
}

#[test]
fn a_request_may_arrive_byte_by_byte() {
    let mut connection =
        Connection::saying("POST /v1/classify HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello");
    connection.piece = 1;
    let request = read_request(&mut connection, &Limits::default()).expect("valid");
    assert_eq!(request.body, b"hello");
}

#[test]
fn what_follows_the_body_is_not_part_of_it() {
    let request = read("POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhello").expect("valid");
    assert_eq!(request.body, b"he");
}

#[test]
fn chunks_are_put_together_whatever_the_pieces() {
    let input = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
                 5;name=value\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nTrailer: x\r\n\r\n";
    for piece in [1, 2, 3, 7, usize::MAX] {
        let mut connection = Connection::saying(input);
        connection.piece = piece;
        let request = read_request(&mut connection, &Limits::default()).expect("valid");
        assert_eq!(request.body, b"hello world", "pieces of {piece}");
    }
}

#[test]
fn the_content_type_is_told_without_parameters() {
    let request =
        read("POST / HTTP/1.1\r\nContent-Type: Image/PNG; a=b\r\nContent-Length: 0\r\n\r\n")
            .expect("valid");
    assert_eq!(request.content_type.as_deref(), Some("image/png"));
}

#[test]
fn a_waiting_client_is_told_to_go_on() {
    let mut connection = Connection::saying(
        "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
    );
    // The client sends the body only after the answer: the head arrives alone.
    connection.piece = connection.input.len() - 2;
    let request = read_request(&mut connection, &Limits::default()).expect("valid");
    assert_eq!(request.body, b"hi");
    assert_eq!(connection.written(), "HTTP/1.1 100 Continue\r\n\r\n");
}

#[test]
fn a_waiting_client_with_too_much_is_refused_before_it_sends() {
    let mut connection = Connection::saying(
        "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n",
    );
    let error = read_request(&mut connection, &Limits::default()).expect_err("too long");
    assert_eq!(error.status(), Some(413));
    assert_eq!(connection.written(), "");
}

#[test]
fn malformed_heads_are_refused() {
    refused("\x16\x03\x01\x02\x00\x01", 400, "malformed request head");
    refused("GET / HTTP/2.0\r\n\r\n", 400, "invalid HTTP version");
    refused(
        "GET / HTTP/1.1\r\nBad Header: x\r\n\r\n",
        400,
        "invalid header name",
    );
    refused("GET / HTTP/1.1\r\nHost: a\r\n", 400, "closed in the middle");
}

#[test]
fn lengths_that_proxies_disagree_about_are_refused() {
    let post = |headers: &str| format!("POST / HTTP/1.1\r\n{headers}\r\nhello");
    refused(post(""), 411, "Content-Length");
    refused(
        post("Content-Length: -1\r\n"),
        400,
        r#"bad Content-Length "-1""#,
    );
    refused(
        post("Content-Length: +5\r\n"),
        400,
        r#"bad Content-Length "+5""#,
    );
    refused(post("Content-Length:\r\n"), 400, r#"bad Content-Length """#);
    refused(
        post("Content-Length: 5\r\nContent-Length: 4\r\n"),
        400,
        r#"bad Content-Length "4""#,
    );
    refused(
        post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        400,
        "both",
    );
    refused(
        post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        400,
        "both",
    );
    refused(
        post("Transfer-Encoding: gzip, chunked\r\n"),
        501,
        "use chunked",
    );
    refused(
        post("Content-Encoding: gzip\r\nContent-Length: 5\r\n"),
        415,
        "send the body as it is",
    );
    refused(post("Expect: magic\r\nContent-Length: 5\r\n"), 417, "magic");
}

#[test]
fn too_much_is_refused() {
    refused(
        format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(20_000)),
        431,
        "longer than 16384 bytes",
    );
    refused(
        format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(65)),
        431,
        "more than 64 headers",
    );
    refused(
        "POST / HTTP/1.1\r\nContent-Length: 4194305\r\n\r\n",
        413,
        "longer than 4194304 bytes",
    );
    refused(
        "POST / HTTP/1.1\r\nContent-Length: 99999999999999\r\n\r\n",
        413,
        "longer than 4194304 bytes",
    );
}

#[test]
fn malformed_and_endless_chunks_are_refused() {
    let chunked =
        |body: &str| format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    refused(chunked("zz\r\n"), 400, "malformed chunk");
    refused(chunked("5\r\nhelloworld\r\n"), 400, "malformed chunk");
    refused(chunked(&"1".repeat(2000)), 400, "malformed chunk");
    refused(chunked("400001\r\n"), 413, "longer than 4194304 bytes");
    refused(
        chunked("fffffffffffffff\r\n"),
        413,
        "longer than 4194304 bytes",
    );
    refused(
        chunked(&format!("0\r\n{}", "A: b\r\n".repeat(40))),
        400,
        "malformed chunk",
    );
    refused(chunked("5\r\nhel"), 400, "closed in the middle");
}

#[test]
fn a_client_that_says_nothing_is_not_answered() {
    assert_eq!(read("").expect_err("nothing came").status(), None);
}

#[test]
fn a_client_that_stops_talking_times_out() {
    let mut connection = Connection::saying("GET / HTTP/1.1\r\n");
    connection.then = Some(io::ErrorKind::WouldBlock);
    let error = read_request(&mut connection, &Limits::default()).expect_err("it stopped");
    assert_eq!(error.status(), Some(408));

    let limits = Limits {
        time: Duration::ZERO,
        ..Limits::default()
    };
    let error = read_request(&mut Connection::saying("GET / HTTP/1.1\r\n\r\n"), &limits)
        .expect_err("no time");
    assert_eq!(error.status(), Some(408));
}

#[test]
fn a_body_may_not_be_shorter_than_it_says() {
    refused(
        "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nhello",
        400,
        "closed in the middle",
    );
}

#[test]
fn no_input_makes_the_parser_panic() {
    // Bytes that matter to HTTP, in any order: a plain xorshift, the same every time.
    let alphabet = b"GET POST / HTTP/1.1\r\n\r\n:;0123456789abcdefContent-Length: Transfer-Encoding: chunked\xff\x00";
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..5000 {
        let mut input = if next() % 2 == 0 {
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()
        } else {
            Vec::new()
        };
        for _ in 0..next() % 80 {
            input.push(alphabet[(next() % alphabet.len() as u64) as usize]);
        }
        let mut connection = Connection::saying(input);
        connection.piece = 1 + (next() % 9) as usize;
        // Either outcome is fine; only a panic is not.
        if let Err(error) = read_request(&mut connection, &Limits::default()) {
            assert!(!error.to_string().is_empty());
        }
    }
}
