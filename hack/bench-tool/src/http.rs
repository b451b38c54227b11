//! HTTP: a component answered by our runner in a container, and by `wasmtime serve`, in turn.
//!
//! The same component, the same client, no network namespace on either side. The client shares the
//! processors with the server, for both alike.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::client::{self, Created, Guest, Node};
use crate::error::{Error, file};
use crate::spec;
use crate::stats::Sample;

/// How hard to ask, and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) connections: usize,
    pub(crate) slow_clients: usize,
}

/// A request as clients send it.
const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: bench\r\nUser-Agent: wasmlet-bench\r\nAccept: */*\r\n\r\n";

/// What the example answers.
const BODY: &[u8] = b"Hello, world!\n";

/// What a slow client sends, a byte at a time.
const SLOW: &[u8] = b"GET / HTTP/1.1\r\nHost: bench\r\nX-Slow: ";

/// Between two bytes of a slow client.
const SLOW_PAUSE: Duration = Duration::from_millis(500);

/// How long a server may take to begin.
const BEGIN: Duration = Duration::from_secs(60);

/// One of those measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    Ours,
    Wasmtime,
}

impl Server {
    fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Wasmtime => "wasmtime",
        }
    }
}

/// Figures of one round.
struct Round {
    server: Server,
    slow: bool,
    per_second: f64,
    median_ms: f64,
    p99_ms: f64,
}

pub(crate) async fn run(
    node: &Node,
    guest: &Guest,
    wasmtime: Option<&Path>,
    wasm: &Path,
    load: Load,
    out: &Path,
) -> Result<(), Error> {
    let mut servers = vec![Server::Ours];
    servers.extend(wasmtime.map(|_| Server::Wasmtime));
    let mut rounds = Vec::new();
    for slow in [false, true] {
        for round in 0..load.rounds {
            let mut order = servers.clone();
            if round % 2 == 1 {
                order.reverse();
            }
            for server in order {
                let running =
                    Running::start(server, (node, guest), wasmtime, wasm, round, slow).await?;
                let measured = measure(&running, load, slow).await;
                let stopped = running.stop(node).await;
                let (per_second, latencies) = measured?;
                stopped?;
                rounds.push(Round {
                    server,
                    slow,
                    per_second,
                    median_ms: latencies.median(),
                    p99_ms: latencies.quantile(0.99),
                });
            }
        }
    }
    report(&rounds, &servers, load, out)
}

fn report(rounds: &[Round], servers: &[Server], load: Load, out: &Path) -> Result<(), Error> {
    let csv = out.join("http.csv");
    let mut text = "server,slow_clients,requests_per_second,median_ms,p99_ms\n".to_owned();
    for round in rounds {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{},{},{:.1},{:.3},{:.3}",
            round.server.name(),
            if round.slow { load.slow_clients } else { 0 },
            round.per_second,
            round.median_ms,
            round.p99_ms
        );
    }
    std::fs::write(&csv, text).map_err(file(&csv))?;
    println!(
        "http: {} clients at a time for {} s, {} interleaved rounds; medians",
        load.connections, load.seconds, load.rounds
    );
    println!(
        "{:<10} {:<12} {:>12} {:>10} {:>10}",
        "server", "slow clients", "requests/s", "median ms", "p99 ms"
    );
    let figure = |server: Server, slow: bool, value: fn(&Round) -> f64| {
        let values = rounds
            .iter()
            .filter(|round| round.server == server && round.slow == slow)
            .map(value);
        Sample::new(values.collect()).median()
    };
    for slow in [false, true] {
        for &server in servers {
            println!(
                "{:<10} {:<12} {:>12.0} {:>10.3} {:>10.3}",
                server.name(),
                if slow { load.slow_clients } else { 0 },
                figure(server, slow, |round| round.per_second),
                figure(server, slow, |round| round.median_ms),
                figure(server, slow, |round| round.p99_ms)
            );
        }
    }
    println!("raw data: {}", csv.display());
    for &server in servers {
        println!(
            "p99_ms.http.slow_clients.{} {:.3}",
            server.name(),
            figure(server, true, |round| round.p99_ms)
        );
    }
    if servers.contains(&Server::Wasmtime) {
        let ratio = |value: fn(&Round) -> f64| {
            figure(Server::Ours, false, value) / figure(Server::Wasmtime, false, value)
        };
        println!(
            "ratio http.throughput {:.3}",
            ratio(|round| round.per_second)
        );
        println!("ratio http.p99 {:.3}", ratio(|round| round.p99_ms));
    }
    Ok(())
}

/// A server that answers.
struct Running {
    address: SocketAddr,
    process: Process,
}

enum Process {
    Container { id: String, created: Created },
    Program(Child),
}

impl Running {
    async fn start(
        server: Server,
        (node, guest): (&Node, &Guest),
        wasmtime: Option<&Path>,
        wasm: &Path,
        round: usize,
        slow: bool,
    ) -> Result<Self, Error> {
        let address = client::free_address().await?;
        let process = match (server, wasmtime) {
            (Server::Wasmtime, Some(program)) => {
                let child = Command::new(program)
                    // With what our runner gives to every component.
                    .args(["serve", "-S", "cli", "--addr", &address.to_string()])
                    .arg(wasm)
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .kill_on_drop(true)
                    .spawn()
                    .map_err(file(program))?;
                Process::Program(child)
            }
            _ => {
                let id = format!("http-{round}-{slow}");
                let mut spec = guest.spec(&id);
                spec::listen_on(&mut spec, address);
                let created = node.create_with(guest, &id, &spec).await?;
                node.start(&created).await?;
                Process::Container { id, created }
            }
        };
        let mut running = Self { address, process };
        let began = Instant::now();
        loop {
            if let Ok(stream) = TcpStream::connect(address).await
                && Asker::new(stream).ask().await.is_ok()
            {
                return Ok(running);
            }
            if let Process::Program(child) = &mut running.process
                && let Some(status) = child.try_wait().map_err(Error::Runtime)?
            {
                return Err(Error::NotServing {
                    server: server.name(),
                    status,
                });
            }
            if began.elapsed() > BEGIN {
                running.stop(node).await?;
                return Err(Error::Late {
                    id: server.name().to_owned(),
                    what: "its first answer",
                    seconds: BEGIN.as_secs(),
                });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn stop(self, node: &Node) -> Result<(), Error> {
        match self.process {
            Process::Program(mut child) => child
                .kill()
                .await
                .map_err(file(PathBuf::from("wasmtime serve"))),
            Process::Container { id, mut created } => {
                node.kill(&created).await?;
                created.ended().await?;
                node.delete(&id).await
            }
        }
    }
}

/// Requests a second, and how long each took in milliseconds.
async fn measure(running: &Running, load: Load, slow: bool) -> Result<(f64, Sample), Error> {
    let mut slow_clients = JoinSet::new();
    if slow {
        for _ in 0..load.slow_clients {
            slow_clients.spawn(crawl(running.address));
        }
    }
    let mut askers = JoinSet::new();
    let began = Instant::now();
    let until = began + Duration::from_secs_f64(load.seconds);
    for _ in 0..load.connections {
        let address = running.address;
        askers.spawn(async move {
            let mut asker = Asker::new(TcpStream::connect(address).await?);
            let mut took = Vec::new();
            loop {
                let asked = Instant::now();
                if asked >= until {
                    return Ok(took);
                }
                asker.ask().await?;
                took.push(asked.elapsed().as_secs_f64() * 1000.0);
            }
        });
    }
    let mut took = Vec::new();
    while let Some(joined) = askers.join_next().await {
        // A task neither panics nor is aborted.
        let result: std::io::Result<Vec<f64>> =
            joined.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        took.extend(result.map_err(|source| Error::Answer { source })?);
    }
    let seconds = began.elapsed().as_secs_f64();
    if took.is_empty() {
        return Err(Error::Answer {
            source: std::io::Error::other("there was none"),
        });
    }
    Ok((took.len() as f64 / seconds, Sample::new(took)))
}

/// Never comes to the end of its request, and begins again where it is not wanted.
async fn crawl(address: SocketAddr) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(address).await {
            for byte in SLOW.iter().chain(std::iter::repeat(&b'x')) {
                if stream.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(SLOW_PAUSE).await;
            }
        }
        tokio::time::sleep(SLOW_PAUSE).await;
    }
}

/// A client that keeps its connection.
struct Asker {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Asker {
    fn new(stream: TcpStream) -> Self {
        // Only a socket that is gone refuses, which the first request sees.
        let _ = stream.set_nodelay(true);
        Self {
            stream,
            buffer: Vec::with_capacity(4096),
        }
    }

    /// One request and its whole answer.
    async fn ask(&mut self) -> std::io::Result<()> {
        self.stream.write_all(REQUEST).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if is_complete(&self.buffer)? {
                return Ok(());
            }
        }
    }
}

/// Whether an answer is there to its end; an error when it is not the one expected.
fn is_complete(answer: &[u8]) -> std::io::Result<bool> {
    let wrong = || {
        let text = String::from_utf8_lossy(answer).into_owned();
        std::io::Error::other(format!("unexpected answer: {text}"))
    };
    let Some(end) = find(answer, b"\r\n\r\n") else {
        return Ok(false);
    };
    let (head, body) = (&answer[..end], &answer[end + 4..]);
    if !head.starts_with(b"HTTP/1.1 200 ") {
        return Err(wrong());
    }
    let chunked = head.to_ascii_lowercase();
    if find(&chunked, b"transfer-encoding: chunked").is_some() {
        return match body.ends_with(b"\r\n0\r\n\r\n") {
            true if find(body, BODY).is_none() => Err(wrong()),
            complete => Ok(complete),
        };
    }
    match body.len() >= BODY.len() {
        true if body != BODY => Err(wrong()),
        complete => Ok(complete),
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|part| part == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_at_its_end() {
        for (text, complete) in [
            ("HTTP/1.1 200 OK\r\ncontent-le", false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\nHello", false),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\nHello, world!\n",
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ne\r\nHello, world!\n\r\n",
                false,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ne\r\nHello, world!\n\r\n0\r\n\r\n",
                true,
            ),
        ] {
            assert_eq!(
                is_complete(text.as_bytes()).expect("as expected"),
                complete,
                "{text}"
            );
        }
        is_complete(b"HTTP/1.1 500 Internal Server Error\r\n\r\n").expect_err("not the answer");
        is_complete(b"HTTP/1.1 200 OK\r\n\r\nHello, World!\n").expect_err("not the answer");
    }
}
