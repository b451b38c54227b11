//! Components that serve `wasi:http`, and calls that components make.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use wasmlet_protocol::FailureReason;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

use crate::support::{Container, Created, DEADLINE, Wishes, can_run, done, eventually};
use crate::support::{describe, try_compile};

const PAGE: u64 = 65536;

/// Pages of memory that `guests/http.wat` has from the start.
const SERVER_PAGES: u64 = 2;

/// A guest of one of the worlds in `guests/http.wit`.
fn component(text: &str, world: &str) -> Vec<u8> {
    let mut module = wat::parse_str(text).expect("valid text");
    let mut resolve = wit_parser::Resolve::default();
    let package = resolve
        .push_str("http.wit", include_str!("guests/http.wit"))
        .expect("valid interfaces");
    let world = resolve
        .select_world(&[package], Some(world))
        .expect("there is such a world");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
        .expect("metadata fits");
    ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .and_then(|mut encoder| encoder.encode())
        .expect("a component")
}

fn server() -> &'static [u8] {
    static SERVER: LazyLock<Vec<u8>> =
        LazyLock::new(|| component(include_str!("guests/http.wat"), "server"));
    &SERVER
}

fn calls(port: u16) -> Vec<u8> {
    let text = include_str!("guests/calls.wat").replace("PORT", &format!("{port:05}"));
    component(&text, "command")
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a free port")
}

/// In the network of this test, where it can be reached.
fn in_our_network(container: &mut Container) {
    let namespaces = &mut container.spec["linux"]["namespaces"];
    let namespaces = namespaces.as_array_mut().expect("a list");
    namespaces.retain(|namespace| namespace["type"] != "network");
}

fn container(guest: &[u8], wishes: Wishes) -> (Container, SocketAddr) {
    let mut container = Container::with(guest, wishes);
    in_our_network(&mut container);
    let address = free_address();
    container.request.listen = Some(address);
    (container, address)
}

fn serving_with(wishes: Wishes) -> (Created, SocketAddr) {
    let (container, address) = container(server(), wishes);
    let created = container.created();
    created.start();
    (created, address)
}

fn serving() -> (Created, SocketAddr) {
    serving_with(Wishes::NONE)
}

#[track_caller]
fn stop(mut created: Created) -> Container {
    kill(Pid::from_raw(created.pid), Signal::SIGTERM).expect("it runs");
    assert_eq!(created.wait(), 0, "{}", created.container.read("stderr"));
    created.delete()
}

/// A connection whose answers are read one after the other.
struct Client(BufReader<TcpStream>);

struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn text(&self) -> (u16, &str) {
        let text = std::str::from_utf8(&self.body).expect("text");
        (self.status, text)
    }
}

impl Client {
    #[track_caller]
    fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("somebody listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
        stream.set_nodelay(true).expect("it is open");
        Self(BufReader::new(stream))
    }

    #[track_caller]
    fn send(&mut self, text: &str) {
        let stream = self.0.get_mut();
        stream.write_all(text.as_bytes()).expect("it is open");
    }

    #[track_caller]
    fn ask(&mut self, path: &str) -> Reply {
        self.send(&get(path));
        self.reply().expect("an answer")
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line)
    }

    fn head(&mut self) -> io::Result<(u16, String)> {
        let mut head = String::new();
        loop {
            let line = self.line()?;
            if line == "\r\n" {
                break;
            }
            head += &line;
        }
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        Ok((status.expect("a status"), head.to_lowercase()))
    }

    fn reply(&mut self) -> io::Result<Reply> {
        let (status, head) = self.head()?;
        let mut body = Vec::new();
        let length = head.split("content-length: ").nth(1);
        if let Some(length) = length.and_then(|rest| rest.lines().next()) {
            body.resize(length.parse().expect("a number"), 0);
            self.0.read_exact(&mut body)?;
        } else {
            while let Some(chunk) = self.chunk()? {
                body.extend(chunk);
            }
        }
        Ok(Reply { status, head, body })
    }

    /// A piece of a chunked body; none at its end.
    fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.line()?;
        let length = usize::from_str_radix(line.trim(), 16).expect("a length");
        let mut chunk = vec![0; length + 2];
        self.0.read_exact(&mut chunk)?;
        chunk.truncate(length);
        Ok((length != 0).then_some(chunk))
    }

    /// Whether the server ends the connection.
    fn is_closed(&mut self) -> bool {
        match self.0.read(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: guest\r\n\r\n")
}

#[track_caller]
fn ask(address: SocketAddr, path: &str) -> Reply {
    Client::new(address).ask(path)
}

#[test]
fn requests_are_answered_on_one_connection_after_the_other() {
    if !can_run() {
        return;
    }
    let (container, address) = container(server(), Wishes::NONE);
    let created = container.created();
    // Before the guest runs: connections queue.
    let mut early = Client::new(address);
    early.send(&get("/hello"));
    created.start();
    assert_eq!(early.reply().expect("an answer").text(), (200, "hello"));
    for _ in 0..50 {
        assert_eq!(early.ask("/hello").text(), (200, "hello"), "kept alive");
    }
    for _ in 0..20 {
        assert_eq!(ask(address, "/hello").text(), (200, "hello"));
    }
    // Two at once on one connection are answered in their order.
    early.send(&(get("/hello") + &get("/print")));
    for _ in 0..2 {
        assert_eq!(early.reply().expect("an answer").text(), (200, "hello"));
    }
    let container = stop(created);
    assert_eq!(container.read("stdout"), "served\n", "the container's log");
    assert_eq!(container.read("stderr"), "");
}

#[test]
fn a_guest_has_its_arguments_and_its_environment() {
    if !can_run() {
        return;
    }
    let (created, address) = serving();
    assert_eq!(ask(address, "/vars").text(), (200, "guest.wasmhello"));
    stop(created);
}

/// A client for HTTP/2 that knows that it is spoken.
async fn http2(address: SocketAddr) -> hyper::client::conn::http2::SendRequest<Full<Bytes>> {
    let stream = tokio::net::TcpStream::connect(address).await;
    let stream = TokioIo::new(stream.expect("somebody listens"));
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
        .await
        .expect("it speaks HTTP/2");
    tokio::spawn(connection);
    sender
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("an event loop")
}

fn request(path: &str, body: Bytes) -> hyper::Request<Full<Bytes>> {
    hyper::Request::post(format!("http://guest{path}"))
        .body(Full::new(body))
        .expect("a request")
}

#[test]
fn http2_without_tls_is_understood() {
    if !can_run() {
        return;
    }
    let (created, address) = serving();
    runtime().block_on(async {
        let mut sender = http2(address).await;
        let mut answers = Vec::new();
        // All at a time, the slow one first.
        for path in ["/wait", "/hello", "/trap", "/hello"] {
            let sent = sender.send_request(request(path, Bytes::new()));
            answers.push(tokio::spawn(sent));
        }
        let mut seen = Vec::new();
        for answer in answers {
            let response = answer.await.expect("no panic").expect("an answer");
            assert_eq!(response.version(), hyper::Version::HTTP_2);
            seen.push(response.status().as_u16());
        }
        assert_eq!(seen, [200, 200, 500, 200]);
        let body = Bytes::from(vec![7; 300_000]);
        let sent = sender.send_request(request("/echo", body.clone()));
        let response = sent.await.expect("an answer");
        let back = response.into_body().collect().await.expect("all of it");
        assert_eq!(back.to_bytes(), body, "more than a window");
    });
    stop(created);
}

#[test]
fn bodies_stream_both_ways() {
    if !can_run() {
        return;
    }
    let (created, address) = serving();
    let mut client = Client::new(address);
    client.send("POST /echo HTTP/1.1\r\nHost: guest\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut head = None;
    for word in ["one", "two", "three"] {
        client.send(&format!("{:x}\r\n{word}\r\n", word.len()));
        if head.is_none() {
            head = Some(client.head().expect("an answer"));
        }
        // The answer to it comes before the next is sent.
        let chunk = client.chunk().expect("it is open").expect("a piece");
        assert_eq!(chunk, word.as_bytes());
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.chunk().expect("it is open"), None);
    assert_eq!(head.map(|(status, _)| status), Some(200));
    // More than any buffer has.
    let body = "x".repeat(8 << 20);
    let mut writer = client.0.get_ref().try_clone().expect("a descriptor");
    let sent = std::thread::spawn(move || {
        let head = format!(
            "POST /echo HTTP/1.1\r\nHost: guest\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        writer
            .write_all((head + &body).as_bytes())
            .expect("it is open");
        body
    });
    let reply = client.reply().expect("an answer");
    assert_eq!(reply.body, sent.join().expect("it ends").into_bytes());
    assert_eq!(ask(address, "/large").body.len(), 4 << 20);
    stop(created);
}

#[test]
fn what_is_no_request_is_refused() {
    if !can_run() {
        return;
    }
    let (created, address) = serving();
    let large = format!(
        "GET /hello HTTP/1.1\r\nHost: guest\r\nX: {}\r\n\r\n",
        "x".repeat(70_000)
    );
    let many = format!(
        "GET /hello HTTP/1.1\r\nHost: guest\r\n{}\r\n",
        "X: y\r\n".repeat(120)
    );
    for (text, wanted) in [
        ("GET /hello HTTP/1.1\r\n\r\n", 400),
        ("CONNECT guest:80 HTTP/1.1\r\nHost: guest:80\r\n\r\n", 501),
        ("\x16\x03\x01\x02nonsense\r\n\r\n", 400),
        (&large, 431),
        (&many, 431),
    ] {
        let mut client = Client::new(address);
        // It need not read all of what is too much.
        let _ = client.0.get_mut().write_all(text.as_bytes());
        let (status, _) = client.head().unwrap_or_else(|e| panic!("{wanted}: {e}"));
        assert_eq!(status, wanted);
    }
    assert_eq!(ask(address, "/hello").text(), (200, "hello"));
    assert_eq!(stop(created).read("stderr"), "");
}

#[test]
fn a_guest_that_fails_costs_its_own_request() {
    if !can_run() {
        return;
    }
    let (created, address) = serving();
    let mut client = Client::new(address);
    let said = "The program failed. Its log says why.\n";
    assert_eq!(client.ask("/trap?token=secret").text(), (500, said));
    assert_eq!(
        client.ask("/hello").text(),
        (200, "hello"),
        "same connection"
    );
    assert_eq!(client.ask("/none").text(), (500, said));
    assert_eq!(client.ask("/hello").text(), (200, "hello"));
    // The status is out already, so the client has to see that something is missing.
    client.send(&get("/midway"));
    client.reply().map(drop).expect_err("it is not complete");
    assert_eq!(ask(address, "/hello").text(), (200, "hello"));
    let stderr = stop(created).read("stderr");
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), 3, "{stderr}");
    let trapped = "trapped: wasm trap: wasm `unreachable` instruction executed";
    assert!(
        lines[0].starts_with(&format!("wasmlet: /guest.wasm: GET /trap: {trapped}")),
        "{stderr}"
    );
    assert_eq!(
        lines[1],
        "wasmlet: /guest.wasm: GET /none: ended without an answer"
    );
    assert!(lines[2].contains("GET /midway: trapped"), "{stderr}");
    assert!(!stderr.contains("secret"), "{stderr}");
}

#[test]
fn a_request_has_its_own_time() {
    if !can_run() {
        return;
    }
    for profile in ["default", "hardened"] {
        let (created, address) = serving_with(Wishes {
            profile,
            timeout_millis: Some(400),
            ..Wishes::NONE
        });
        let late = (504, "The program took too long.\n");
        // Computing, which no other request has to wait for, and waiting in the host.
        let mut spins = Client::new(address);
        spins.send(&get("/spin"));
        let started = Instant::now();
        assert_eq!(ask(address, "/hello").text(), (200, "hello"));
        assert!(
            started.elapsed() < Duration::from_millis(300),
            "{:?}",
            started.elapsed()
        );
        assert_eq!(spins.reply().expect("an answer").text(), late);
        assert_eq!(ask(address, "/wait").text(), late);
        // Longer than the limit altogether.
        let mut client = Client::new(address);
        while started.elapsed() < Duration::from_millis(1200) {
            assert_eq!(client.ask("/hello").text(), (200, "hello"));
        }
        let stderr = stop(created).read("stderr");
        let line = |path| {
            format!(
                "wasmlet: /guest.wasm: GET {path}: ran into its time limit of 400ms: raise \
                 wasmlet.dev/timeout\n"
            )
        };
        assert_eq!(stderr, line("/spin") + &line("/wait"));
    }
}

#[test]
fn a_request_has_its_own_fuel() {
    if !can_run() {
        return;
    }
    let (created, address) = serving_with(Wishes {
        fuel: Some(100_000),
        ..Wishes::NONE
    });
    assert_eq!(ask(address, "/spin").status, 500);
    for _ in 0..200 {
        assert_eq!(ask(address, "/hello").text(), (200, "hello"));
    }
    assert_eq!(
        stop(created).read("stderr"),
        "wasmlet: /guest.wasm: GET /spin: out of fuel, limit 100000: raise wasmlet.dev/fuel\n"
    );
}

#[test]
fn all_instances_share_the_containers_memory() {
    if !can_run() {
        return;
    }
    let (mut container, address) = container(server(), Wishes::NONE);
    // Room for two, and for what one of them adds.
    container.request.max_memory = Some((2 * SERVER_PAGES + 20) * PAGE);
    let created = container.created();
    created.start();
    for _ in 0..20 {
        assert_eq!(
            ask(address, "/grow").text(),
            (200, "hello"),
            "it is given back"
        );
    }
    // The cap moves under the server: to room for two, and a few elements of tables.
    let two = 2 * SERVER_PAGES * PAGE + 4096;
    let limits = format!(r#"{{"max_memory": {two}}}"#);
    assert_eq!(created.control(&["update", "{}", &limits]), done());
    // Four at a time: two have to wait until memory is free, and all are answered.
    let started = Instant::now();
    let mut clients: Vec<Client> = (0..4).map(|_| Client::new(address)).collect();
    for client in &mut clients {
        client.send(&get("/wait"));
    }
    for client in &mut clients {
        assert_eq!(client.reply().expect("an answer").text(), (200, "hello"));
    }
    assert!(started.elapsed() >= Duration::from_secs(2), "two by two");
    assert_eq!(stop(created).read("stderr"), "");
}

#[test]
fn a_guest_that_wants_too_much_memory_is_told_so() {
    if !can_run() {
        return;
    }
    let (mut with_room, address) = container(server(), Wishes::NONE);
    with_room.request.max_memory = Some((SERVER_PAGES + 19) * PAGE);
    let created = with_room.created();
    created.start();
    assert_eq!(ask(address, "/grow").status, 500);
    assert_eq!(ask(address, "/hello").text(), (200, "hello"));
    assert_eq!(ask(address, "/trap").status, 500);
    let stderr = stop(created).read("stderr");
    let lines: Vec<&str> = stderr.lines().collect();
    assert!(lines[0].contains("wasmlet.dev/memory"), "{stderr}");
    assert!(!lines[1].contains("memory"), "not the one before: {stderr}");

    let (mut without, address) = container(server(), Wishes::NONE);
    without.request.max_memory = Some(PAGE);
    let created = without.created();
    created.start();
    let started = Instant::now();
    assert_eq!(ask(address, "/hello").status, 503);
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "nobody to wait for"
    );
    let stderr = stop(created).read("stderr");
    assert!(
        stderr.contains("of linear memory to start, limit 65536: raise"),
        "{stderr}"
    );
}

#[test]
fn slow_clients_hold_nobody_up() {
    if !can_run() {
        return;
    }
    let (created, address) = serving();
    // More than there is room for, none of which ever finishes its request.
    let mut slow = Vec::new();
    for number in 0..1100 {
        let mut client = Client::new(address);
        if number % 2 == 0 {
            client.send("GET /hello HTTP/1.1\r\nHost: gu");
        }
        slow.push(client);
    }
    // Bodies that do not come, and an answer that nobody takes.
    for _ in 0..20 {
        let mut client = Client::new(address);
        client.send("POST /echo HTTP/1.1\r\nHost: guest\r\nContent-Length: 1000\r\n\r\nx");
        slow.push(client);
        let mut client = Client::new(address);
        client.send(&get("/large"));
        slow.push(client);
    }
    let started = Instant::now();
    for _ in 0..100 {
        assert_eq!(ask(address, "/hello").text(), (200, "hello"));
    }
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    // Those that were silent for longest had to leave.
    assert!(slow[0].is_closed());
    slow.clear();
    stop(created);
}

#[test]
fn a_client_that_does_not_finish_its_request_is_dropped() {
    if !can_run() {
        return;
    }
    let (created, address) = serving();
    let started = Instant::now();
    let mut silent = Client::new(address);
    let mut partial = Client::new(address);
    partial.send("GET /hello HTTP/1.1\r\n");
    let mut second = Client::new(address);
    assert_eq!(second.ask("/hello").status, 200);
    second.send("GET /hello HT");
    let mut body = Client::new(address);
    body.send("POST /echo HTTP/1.1\r\nHost: guest\r\nContent-Length: 5\r\n\r\n");
    for client in [&mut silent, &mut partial, &mut second] {
        assert!(client.is_closed());
    }
    let (status, _) = body.head().expect("the guest began to answer");
    assert_eq!(status, 200);
    body.chunk()
        .map(drop)
        .expect_err("the guest traps on a broken body");
    let took = started.elapsed();
    assert!(
        took > Duration::from_secs(29) && took < Duration::from_secs(40),
        "{took:?}"
    );
    stop(created);
}

#[test]
fn a_stop_lets_requests_under_way_finish() {
    if !can_run() {
        return;
    }
    let (mut created, address) = serving();
    let mut idle = Client::new(address);
    assert_eq!(idle.ask("/hello").status, 200);
    let mut waits = Client::new(address);
    waits.send(&get("/wait"));
    let mut streams = Client::new(address);
    streams.send("POST /echo HTTP/1.1\r\nHost: guest\r\nContent-Length: 6\r\n\r\nabc");
    assert_eq!(streams.head().expect("it began").0, 200);
    assert_eq!(streams.chunk().expect("open"), Some(b"abc".to_vec()));
    let mut late = Client::new(address);
    kill(Pid::from_raw(created.pid), Signal::SIGTERM).expect("it runs");
    let started = Instant::now();
    late.send(&get("/hello"));
    assert_eq!(
        late.reply().expect("it was in the queue").text(),
        (200, "hello")
    );
    assert!(idle.is_closed(), "nothing to finish");
    eventually("nobody can connect any more", || {
        TcpStream::connect(address).is_err()
    });
    assert_eq!(created.try_wait(), None, "it still owes answers");
    let reply = waits.reply().expect("an answer");
    assert_eq!(reply.text(), (200, "hello"));
    assert!(reply.head.contains("connection: close"), "{}", reply.head);
    streams.send("def");
    assert_eq!(streams.chunk().expect("open"), Some(b"def".to_vec()));
    assert_eq!(streams.chunk().expect("open"), None);
    assert_eq!(created.wait(), 0);
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(created.delete().read("stderr"), "");
}

#[test]
fn an_idle_server_stops_at_once() {
    if !can_run() {
        return;
    }
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (mut created, address) = serving();
        let mut client = Client::new(address);
        assert_eq!(client.ask("/hello").status, 200);
        runtime().block_on(async {
            let mut sender = http2(address).await;
            let sent = sender.send_request(request("/hello", Bytes::new()));
            assert_eq!(sent.await.expect("an answer").status(), 200);
            let started = Instant::now();
            kill(Pid::from_raw(created.pid), signal).expect("it runs");
            // The client has to be there to say good-bye.
            tokio::task::yield_now().await;
            while created.try_wait().is_none() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            assert!(
                started.elapsed() < Duration::from_secs(2),
                "{:?}",
                started.elapsed()
            );
        });
        assert_eq!(created.wait(), 0);
        created.delete();
    }
}

#[test]
fn a_stop_ends_after_its_grace_or_at_a_second_signal() {
    if !can_run() {
        return;
    }
    let (mut created, address) = serving();
    let mut client = Client::new(address);
    client.send("POST /echo HTTP/1.1\r\nHost: guest\r\nContent-Length: 6\r\n\r\nabc");
    assert_eq!(client.head().expect("it began").0, 200);
    kill(Pid::from_raw(created.pid), Signal::SIGTERM).expect("it runs");
    let started = Instant::now();
    assert_eq!(created.wait(), 143);
    let took = started.elapsed();
    assert!(
        took > Duration::from_secs(7) && took < Duration::from_secs(9),
        "{took:?}"
    );
    assert_eq!(
        created.delete().read("stderr"),
        "wasmlet: /guest.wasm: stopped with requests unanswered after 8 s\n"
    );

    // Computing without end and without a time limit, which nothing but the kernel interrupts.
    let (mut created, address) = serving();
    let mut client = Client::new(address);
    client.send(&get("/spin"));
    let pid = created.pid;
    eventually("the guest computes", || processor_seconds(pid) > 0.2);
    kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it runs");
    let started = Instant::now();
    kill(Pid::from_raw(pid), Signal::SIGINT).expect("it runs");
    let code = created.wait();
    assert!(code == 130 || code == 143, "{code}");
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "{:?}",
        started.elapsed()
    );
    created.delete();
}

/// What the process has computed.
fn processor_seconds(pid: i32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, fields) = text.rsplit_once(')').expect("a name");
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // Fields 14 and 15 of proc(5), in hundredths of a second.
    let ticks: f64 = fields[11..13]
        .iter()
        .map(|field| field.parse::<f64>().expect("a number"))
        .sum();
    ticks / 100.0
}

#[test]
fn there_is_a_thread_for_each_processor_of_the_container() {
    if !can_run() {
        return;
    }
    let threads = |processors: Option<f64>| {
        let (mut container, address) = container(server(), Wishes::NONE);
        if let Some(processors) = processors {
            let quota = (processors * 100_000.0) as i64;
            container.spec["linux"]["resources"]["cpu"] =
                json!({"quota": quota, "period": 100_000});
        }
        let created = container.created();
        created.start();
        assert_eq!(ask(address, "/hello").text(), (200, "hello"));
        let tasks = fs::read_dir(format!("/proc/{}/task", created.pid)).expect("it runs");
        let count = tasks.count();
        stop(created);
        count
    };
    assert_eq!(threads(Some(0.5)), 1, "the one that was there");
    let there = std::thread::available_parallelism().map_or(1, |count| count.get());
    if there > 1 {
        assert_eq!(threads(None), 1 + there.min(4));
    }
}

#[test]
fn a_guest_calls_others_over_http() {
    if !can_run() {
        return;
    }
    let (called, at) = serving();
    let (created, address) = serving();
    assert_eq!(ask(address, &format!("/c{at}")).text(), (200, "hello"));
    stop(created);
    stop(called);
}

#[test]
fn a_call_that_cannot_be_made_says_why() {
    if !can_run() {
        return;
    }
    let (created, address) = serving();
    let nobody = free_address();
    // The number of the error in its list, from A.
    assert_eq!(
        ask(address, &format!("/c{nobody}")).text(),
        (200, "no answer: G")
    );
    let reply = ask(address, "/xlocalhost");
    assert_eq!(
        reply.text(),
        (
            200,
            "no answer: ghttps is not supported by this runner, as it has no TLS: call http, for \
             example through a proxy in the pod that adds TLS"
        )
    );
    stop(created);
}

#[test]
fn a_command_calls_others_over_http() {
    if !can_run() {
        return;
    }
    let (called, at) = serving();
    let mut container = Container::new(calls(at.port()));
    in_our_network(&mut container);
    let (code, container) = container.run();
    assert_eq!((code, container.read("stderr").as_str()), (0, ""));
    stop(called);
    let mut container = Container::new(calls(at.port()));
    in_our_network(&mut container);
    assert_eq!(container.run().0, 1, "nobody is there any more");
    let container = Container::new(calls(at.port()));
    assert_eq!(container.run().0, 1, "nor in a network of its own");
}

#[test]
fn without_a_socket_a_server_has_nothing_to_run() {
    if !can_run() {
        return;
    }
    let (failure, _) = Container::new(server()).fail();
    assert_eq!(failure.reason, FailureReason::InvalidArgument);
    assert_eq!(
        failure.message,
        "the component serves wasi:http/incoming-handler and is no command, so without a socket there \
         is nothing to run; set wasmlet.dev/listen to an address, or leave it away"
    );
    // One that is both is a command then.
    let both = component(include_str!("guests/http.wat"), "both");
    assert_eq!(Container::new(&both).run().0, 0);
    let (container, address) = container(&both, Wishes::NONE);
    let created = container.created();
    created.start();
    assert_eq!(ask(address, "/hello").text(), (200, "hello"));
    stop(created);
}

#[test]
fn what_cannot_listen_is_refused_at_create() {
    if !can_run() {
        return;
    }
    let (refused, _) = container(&calls(1), Wishes::NONE);
    let (failure, _) = refused.fail();
    assert_eq!(failure.reason, FailureReason::InvalidArgument);
    assert!(
        failure.message.contains("wasmlet.dev/listen"),
        "{}",
        failure.message
    );
    let (mut both, _) = container(server(), Wishes::NONE);
    both.request.invoke = Some("f".to_owned());
    let (failure, _) = both.fail();
    assert!(
        failure.message.contains("leave #f away"),
        "{}",
        failure.message
    );
    let (taken, address) = container(server(), Wishes::NONE);
    let _socket = TcpListener::bind(address).expect("it was free");
    let (failure, _) = taken.fail();
    assert_eq!(failure.reason, FailureReason::InvalidArgument);
    assert!(
        failure.message.contains(&address.to_string()),
        "{}",
        failure.message
    );
}

#[test]
fn a_server_is_known_by_its_exports() {
    let (compiled, _) = try_compile(server()).expect("it compiles");
    assert!(compiled.wants_listener);
    assert!(
        compiled
            .needs
            .interfaces
            .iter()
            .any(|name| name == "wasi-http")
    );
    assert!(describe().interfaces.iter().any(|name| name == "wasi-http"));
    let (compiled, _) = try_compile(&calls(1)).expect("it compiles");
    assert!(!compiled.wants_listener);
}
