//! Tenants: how fast one answers alone, and beside one that attacks the node (examples/multi-tenant).
//!
//! Both are containers with the limits of the example: 64 MiB, half a processor, and 10⁹ units of fuel
//! for the attacker. The attack begins again a second after it ended, as a pod that is restarted does.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{self, Created, Guest, Node};
use crate::error::{Error, file};
use crate::spec;
use crate::stats::Sample;

/// What the example's tenant can do, and the exit codes it may end with.
const ATTACKS: [(&str, &[u32]); 5] = [
    ("loop", &[122]),
    ("memory", &[121]),
    ("stack", &[121]),
    ("files", &[7]),
    // By its fuel, or when it has its bytes.
    ("random", &[122, 7]),
];

const MEMORY: u64 = 64 << 20;
const FUEL: &str = "1000000000";

/// Between two requests: the tenant stays well below its half of a processor, so that it waits for
/// nothing but what its neighbour takes.
const PAUSE: Duration = Duration::from_millis(10);
/// Between the end of an attack and its next beginning.
const RESTART: Duration = Duration::from_secs(1);
/// How long the tenant may take to begin.
const BEGIN: Duration = Duration::from_secs(60);

/// Latencies of one round, in milliseconds.
struct Round {
    attack: &'static str,
    /// Attacks that ended, the last one included, which was cut off.
    attacks: usize,
    took: Sample,
}

const ALONE: &str = "alone";

pub(crate) async fn run(
    node: &Node,
    guest: &Guest,
    rounds: usize,
    seconds: f64,
    out: &Path,
) -> Result<(), Error> {
    let address = client::free_address().await?;
    let mut spec = guest.spec("tenant-a");
    limit(&mut spec);
    spec::listen_on(&mut spec, address);
    let mut good = node.create_with(guest, "tenant-a", &spec).await?;
    node.start(&good).await?;
    first_answer(&good, address).await?;

    let mut measured = Vec::new();
    for round in 0..rounds {
        // Alone comes in the middle: what drifts with time is no attack's fault.
        let mut order: Vec<(&'static str, &[u32])> = ATTACKS.to_vec();
        order.insert(ATTACKS.len() / 2, (ALONE, &[]));
        if round % 2 == 1 {
            order.reverse();
        }
        for (attack, codes) in order {
            let asking = ask_for(address, seconds);
            let (took, attacks) = if attack == ALONE {
                (asking.await?, 0)
            } else {
                let id = format!("tenant-b-{attack}-{round}");
                beside(node, guest, &id, attack, codes, asking).await?
            };
            measured.push(Round {
                attack,
                attacks,
                took: Sample::new(took),
            });
        }
    }
    node.kill(&good).await?;
    good.ended().await?;
    node.delete("tenant-a").await?;
    report(&measured, rounds, seconds, out)
}

fn report(measured: &[Round], rounds: usize, seconds: f64, out: &Path) -> Result<(), Error> {
    let csv = out.join("tenants.csv");
    let mut text = "beside,requests,attacks,median_ms,p90_ms,p99_ms\n".to_owned();
    for round in measured {
        let took = &round.took;
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{},{},{},{:.3},{:.3},{:.3}",
            round.attack,
            took.len(),
            round.attacks,
            took.median(),
            took.quantile(0.9),
            took.quantile(0.99)
        );
    }
    std::fs::write(&csv, text).map_err(file(&csv))?;
    println!(
        "tenants: latency of one tenant, {rounds} interleaved rounds of {seconds} s; medians of the rounds"
    );
    println!(
        "{:<8} {:>8} {:>10} {:>8} {:>8}",
        "beside", "attacks", "median ms", "p90 ms", "p99 ms"
    );
    let figure = |attack: &str, fraction: f64| {
        let rounds = measured.iter().filter(|round| round.attack == attack);
        Sample::new(rounds.map(|round| round.took.quantile(fraction)).collect()).median()
    };
    let names = || std::iter::once(ALONE).chain(ATTACKS.map(|(name, _)| name));
    for name in names() {
        let attacks: usize = measured
            .iter()
            .filter(|round| round.attack == name)
            .map(|round| round.attacks)
            .sum();
        println!(
            "{name:<8} {attacks:>8} {:>10.3} {:>8.3} {:>8.3}",
            figure(name, 0.5),
            figure(name, 0.9),
            figure(name, 0.99)
        );
    }
    println!("raw data: {}", csv.display());
    for name in names().skip(1) {
        let ratio = figure(name, 0.5) / figure(ALONE, 0.5);
        println!("ratio tenants.{name}_vs_alone {ratio:.3}");
    }
    Ok(())
}

fn limit(spec: &mut Value) {
    spec["linux"]["resources"]["memory"] = json!({ "limit": MEMORY });
    spec["linux"]["resources"]["cpu"] =
        json!({ "shares": 512, "quota": 50_000, "period": 100_000 });
    spec["annotations"]["wasmlet.dev/profile"] = "hardened".into();
}

/// Asks while an attack is repeated; gives what asking gave, and how many attacks there were.
async fn beside<T>(
    node: &Node,
    guest: &Guest,
    id: &str,
    attack: &'static str,
    codes: &[u32],
    asking: impl Future<Output = Result<T, Error>>,
) -> Result<(T, usize), Error> {
    let mut spec = guest.spec(id);
    limit(&mut spec);
    spec["annotations"]["wasmlet.dev/fuel"] = FUEL.into();
    spec["annotations"]["wasmlet.dev/listen"] = "none".into();
    spec["process"]["env"] = json!([format!("ATTACK={attack}")]);

    let start = async || -> Result<Created, Error> {
        let created = node.create_with(guest, id, &spec).await?;
        node.start(&created).await?;
        Ok(created)
    };
    let judge = |code: u32, created: &Created| {
        if codes.contains(&code) {
            return Ok(());
        }
        let stderr = created.complaint();
        Err(Error::Attack {
            attack,
            code,
            stderr,
        })
    };

    let mut asking = std::pin::pin!(asking);
    let mut attacks = 0;
    loop {
        let mut created = start().await?;
        attacks += 1;
        tokio::select! {
            result = &mut asking => {
                // It may have ended at the same moment; then there is nobody to kill.
                let killed = node.kill(&created).await;
                let (code, _) = created.ended().await?;
                if killed.is_err() {
                    judge(code, &created)?;
                }
                node.delete(id).await?;
                return Ok((result?, attacks));
            }
            ended = created.ended() => {
                let (code, _) = ended?;
                judge(code, &created)?;
                node.delete(id).await?;
            }
        }
        tokio::select! {
            result = &mut asking => return Ok((result?, attacks)),
            () = tokio::time::sleep(RESTART) => {}
        }
    }
}

async fn first_answer(created: &Created, address: SocketAddr) -> Result<(), Error> {
    let began = Instant::now();
    while let Err(source) = ask(address).await {
        if began.elapsed() > BEGIN {
            let stderr = created.complaint();
            return Err(Error::Answer {
                source: std::io::Error::other(format!("{source}; on its stderr: {stderr:?}")),
            });
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Milliseconds each request took.
async fn ask_for(address: SocketAddr, seconds: f64) -> Result<Vec<f64>, Error> {
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let mut took = Vec::new();
    while took.is_empty() || Instant::now() < until {
        let asked = Instant::now();
        ask(address)
            .await
            .map_err(|source| Error::Answer { source })?;
        took.push(asked.elapsed().as_secs_f64() * 1000.0);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(took)
}

/// One request on a connection of its own, which is all the example's tenant speaks.
async fn ask(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    if answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(b"\n") {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&answer);
    Err(std::io::Error::other(format!(
        "unexpected answer: {text:?}"
    )))
}
