//! The operator's process: started, looked at, killed.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use crate::error::{Error, file};
use crate::simulate::NAMESPACE;

/// For a start: caches are filled from the API server.
const READY: Duration = Duration::from_secs(120);
/// Between two looks.
const STEP: Duration = Duration::from_millis(100);

/// A running operator.
pub(crate) struct Operator {
    child: Child,
    pid: u32,
    listen: SocketAddr,
    log: PathBuf,
}

/// What it has taken from the machine so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Proportional set size, in kilobytes.
    pub(crate) pss_kb: u64,
    /// Most that was ever resident, in kilobytes.
    pub(crate) peak_rss_kb: u64,
    /// Seconds of processor time.
    pub(crate) cpu_seconds: f64,
}

impl Operator {
    /// Starts one and waits until it is ready; gives the time that took as well.
    pub(crate) async fn start(
        program: &Path,
        kubeconfig: &Path,
        log: &Path,
    ) -> Result<(Self, Duration), Error> {
        // A port that is free now; nobody else on this machine's loopback takes one in between, or the start fails.
        let listen = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .map_err(file("a port of 127.0.0.1"))?;
        let output = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(file(log))?;
        let errors = output.try_clone().map_err(file(log))?;
        let begun = Instant::now();
        let child = Command::new(program)
            .args(["run", "--listen", &listen.to_string()])
            .env_clear()
            .env("KUBECONFIG", kubeconfig)
            .env("POD_NAME", "wasmlet-operator-bench")
            .env("POD_NAMESPACE", NAMESPACE)
            .env("WASMLET_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .map_err(file(program))?;
        let pid = child.id().unwrap_or_default();
        let mut operator = Self {
            child,
            pid,
            listen,
            log: log.to_owned(),
        };
        while !matches!(operator.get("/readyz"), Ok((200, _))) {
            operator.still_runs()?;
            if begun.elapsed() > READY {
                return Err(operator.late("it is ready", READY, "not ready"));
            }
            tokio::time::sleep(STEP).await;
        }
        Ok((operator, begun.elapsed()))
    }

    /// An error if it has ended.
    pub(crate) fn still_runs(&mut self) -> Result<(), Error> {
        match self.child.try_wait().map_err(file("the operator"))? {
            None => Ok(()),
            Some(status) => Err(Error::Ended {
                status,
                log: self.log.clone(),
            }),
        }
    }

    pub(crate) fn late(&self, what: &str, within: Duration, last: &str) -> Error {
        Error::Late {
            what: what.to_owned(),
            seconds: within.as_secs(),
            last: last.to_owned(),
            log: self.log.clone(),
        }
    }

    /// Kills it.
    pub(crate) async fn kill(mut self) -> Result<(), Error> {
        self.child.kill().await.map_err(file("the operator"))
    }

    /// Its metrics.
    pub(crate) fn metrics(&self) -> Result<String, Error> {
        self.get("/metrics").map(|(_, text)| text)
    }

    /// One request of HTTP/1.0: status and body.
    fn get(&self, path: &str) -> Result<(u16, String), Error> {
        let fetch = |source| Error::Fetch {
            url: format!("http://{}{path}", self.listen),
            source,
        };
        let mut stream =
            TcpStream::connect_timeout(&self.listen, Duration::from_secs(5)).map_err(fetch)?;
        let mut text = String::new();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .and_then(|()| {
                write!(
                    stream,
                    "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
                    self.listen
                )
            })
            .and_then(|()| stream.read_to_string(&mut text))
            .map_err(fetch)?;
        let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok((status.unwrap_or(0), body.to_owned()))
    }

    /// What it has taken so far.
    pub(crate) fn usage(&self) -> Result<Usage, Error> {
        let path = |name: &str| PathBuf::from(format!("/proc/{}/{name}", self.pid));
        let read = |name: &str| std::fs::read_to_string(path(name)).map_err(file(path(name)));
        let kilobytes = |name: &str, line: &'static str| {
            let text = read(name)?;
            let found = text.lines().find_map(|text| text.strip_prefix(line));
            let number = found.and_then(|text| text.split_whitespace().next()?.parse().ok());
            number.ok_or(Error::Proc {
                path: path(name),
                line,
            })
        };
        let stat = read("stat")?;
        // The name may have blanks; user and system time are the 14th and 15th field, in hundredths of a second.
        let ticks: Vec<f64> = stat
            .rsplit_once(") ")
            .map(|(_, rest)| {
                rest.split(' ')
                    .skip(11)
                    .take(2)
                    .filter_map(|it| it.parse().ok())
                    .collect()
            })
            .unwrap_or_default();
        if ticks.len() != 2 {
            return Err(Error::Proc {
                path: path("stat"),
                line: "utime stime",
            });
        }
        Ok(Usage {
            pss_kb: kilobytes("smaps_rollup", "Pss:")?,
            peak_rss_kb: kilobytes("status", "VmHWM:")?,
            cpu_seconds: ticks.iter().sum::<f64>() / 100.0,
        })
    }
}
