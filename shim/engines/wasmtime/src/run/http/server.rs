//! The server: accepts, and stops.
//!
//! ```text
//! SIGTERM ─▶ takes what is in the socket's queue ─▶ closes the socket ─▶ tells every connection
//!         ─▶ idle ones end; requests are answered, with `Connection: close` or GOAWAY ─▶ exit 0
//! ```
//!
//! After 8 s, or at a second signal, runner-core ends the process as one killed by the signal.

use std::io;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Duration, sleep};
use wasmlet_protocol::{Failure, FailureReason};
use wasmlet_runner_core::{End, GuestExit, Program, Stop, Surroundings, note};
use wasmtime::component::{InstancePre, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::filesystem::WasiFilesystemCtx;
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use super::super::component::State;
use super::super::end;
use super::super::host::{self, Drivers};
use super::super::memory::Limiter;
use super::super::nn::Nn;
use super::clients::Clients;
use super::connection;
use super::limits::{MAX_CONNECTIONS, MAX_REQUESTS, MAX_THREADS};
use super::outgoing::Http;
use super::ticker::Ticker;

/// After an accept that failed for want of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A component that serves, loaded.
pub(in crate::run) struct Server {
    engine: Engine,
    pre: ProxyPre<State>,
    interruptible: bool,
}

/// What all requests share.
pub(super) struct Shared {
    engine: Engine,
    pub(super) pre: ProxyPre<State>,
    pub(super) program: Program,
    folders: WasiFilesystemCtx,
    cwd: Option<String>,
    interruptible: bool,
    pub(super) ticker: Option<Ticker>,
    /// For requests.
    pub(super) places: Arc<Semaphore>,
    /// Somebody was told that there was none.
    told_of_the_queue: AtomicBool,
    /// Guests that have an instance.
    guests: AtomicUsize,
    /// One has none any more.
    pub(super) freed: Notify,
}

impl Server {
    /// # Errors
    /// When the component's handler is not what the interface says.
    pub(in crate::run) fn new(
        engine: Engine,
        instance: InstancePre<State>,
        interruptible: bool,
    ) -> Result<Self, Failure> {
        let pre = ProxyPre::new(instance).map_err(|error| Failure {
            reason: FailureReason::InvalidArgument,
            message: format!(
                "the component does not serve wasi:http/incoming-handler@0.2: {}",
                end::text(&error)
            ),
        })?;
        Ok(Self {
            engine,
            pre,
            interruptible,
        })
    }

    pub(in crate::run) fn run(self, program: &Program, mut surroundings: Surroundings) -> End {
        let fail = |what: &str, error: io::Error| -> End {
            GuestExit::StartFailed(format!("{what}: {error}")).into()
        };
        let Some(listener) = surroundings.listener.take() else {
            return GuestExit::StartFailed("there is no socket to serve on".to_owned()).into();
        };
        let (socket, stop) = match listener.serve(program) {
            Ok(both) => both,
            Err(error) => return fail("no descriptor for signals", error),
        };
        let ticker = match self.interruptible.then(|| Ticker::start(&self.engine)) {
            None => None,
            Some(Ok(ticker)) => Some(ticker),
            Some(Err(error)) => return fail("no thread to keep the time of requests", error),
        };
        let mut wasi = WasiCtxBuilder::new();
        host::folders(&mut wasi, &surroundings);
        let shared = Arc::new(Shared {
            engine: self.engine,
            pre: self.pre,
            program: program.clone(),
            folders: wasi.build().filesystem().clone(),
            cwd: host::cwd(),
            interruptible: self.interruptible,
            ticker,
            places: Arc::new(Semaphore::new(MAX_REQUESTS as usize)),
            told_of_the_queue: AtomicBool::new(false),
            guests: AtomicUsize::new(0),
            freed: Notify::new(),
        });
        let threads = threads(program.processors);
        let builder = if threads == 1 {
            Builder::new_current_thread()
        } else {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(threads).thread_name("server");
            builder
        };
        host::block_on_with(builder, Drivers::TimeAndSockets, async move {
            match serve(shared, socket, stop).await {
                Ok(()) => GuestExit::Code(0).into(),
                Err(error) => fail("cannot serve", error),
            }
        })
    }
}

/// Threads that answer: as many as there are processors for the container.
fn threads(limit: Option<f64>) -> usize {
    let there = thread::available_parallelism().map_or(1, NonZero::get);
    let most = there.min(MAX_THREADS);
    match limit {
        // A tenth of a processor is a thread, too.
        Some(limit) if limit < most as f64 => (limit.ceil() as usize).max(1),
        _ => most,
    }
}

impl Shared {
    /// A store for one request.
    pub(super) fn store(&self) -> Store<State> {
        let mut wasi = host::guest(&self.program);
        host::component(&mut wasi, self.cwd.as_deref());
        let mut wasi = wasi.build();
        wasi.filesystem().clone_from(&self.folders);
        let state = State {
            wasi,
            table: ResourceTable::new(),
            http: Http::new(),
            memory: Limiter::new(&self.program.memory),
            nn: Nn::new(),
        };
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| &mut state.memory);
        host::limit(&mut store, &self.program);
        if self.interruptible {
            store.set_epoch_deadline(1);
            store.epoch_deadline_async_yield_and_update(1);
        }
        store
    }

    pub(super) fn guest_began(&self) {
        self.guests.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn guest_ended(&self) {
        self.guests.fetch_sub(1, Ordering::SeqCst);
        self.freed.notify_waiters();
    }

    /// Whether no guest has an instance whose memory could become free.
    pub(super) fn is_alone(&self) -> bool {
        self.guests.load(Ordering::SeqCst) == 0
    }

    /// Once: whoever is flooded has no use for a line for each drop.
    pub(super) fn tell_of_the_queue(&self) {
        if !self.told_of_the_queue.swap(true, Ordering::Relaxed) {
            note(
                &self.program,
                &format!(
                    "{MAX_REQUESTS} requests are running and more wait; some are refused with 503 from now on"
                ),
            );
        }
    }
}

async fn serve(shared: Arc<Shared>, socket: std::net::TcpListener, stop: Stop) -> io::Result<()> {
    let listener = TcpListener::from_std(socket)?;
    // SAFETY: the descriptor behind it is open for as long as the process lives.
    let stop = unsafe { AsyncFd::register_with_interest(stop, Interest::READABLE) }?;
    let (stopping, _) = watch::channel(false);
    let doors = Doors {
        most: u32::try_from(max_connections()).unwrap_or(u32::MAX),
        places: Arc::new(Semaphore::new(max_connections())),
        clients: Arc::default(),
        shared: Arc::clone(&shared),
        stopping,
    };
    let mut has_complained = false;
    loop {
        let accepted = tokio::select! {
            _ = stop.readable() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, _)) => {
                tokio::select! {
                    place = doors.place() => doors.admit(tcp, place),
                    _ = stop.readable() => {
                        doors.admit_at_last(tcp);
                        break;
                    }
                }
            }
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut has_complained, true) {
                    note(
                        &shared.program,
                        &format!("cannot take a connection: {error}; clients wait"),
                    );
                }
                tokio::select! {
                    () = sleep(ACCEPT_PAUSE) => {}
                    _ = stop.readable() => break,
                }
            }
        }
    }
    // Closing the socket resets those who wait in its queue.
    let listener = listener.into_std()?;
    while let Ok((tcp, _)) = listener.accept() {
        tcp.set_nonblocking(true)?;
        doors.admit_at_last(TcpStream::from_std(tcp)?);
    }
    drop(listener);
    doors.close().await;
    // Guests whose client has its answer may still be at work.
    let _ = shared.places.acquire_many(MAX_REQUESTS).await;
    Ok(())
}

/// Who comes in.
struct Doors {
    most: u32,
    places: Arc<Semaphore>,
    clients: Arc<Clients>,
    shared: Arc<Shared>,
    stopping: watch::Sender<bool>,
}

impl Doors {
    /// Waits for a place; the longest silent client has to give up its own.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(place);
        }
        self.clients.evict();
        // The semaphore is never closed.
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    fn admit(&self, tcp: TcpStream, place: Option<OwnedSemaphorePermit>) {
        // An answer's last piece shall not wait for the client's word on the one before; a socket
        // that refuses is one whose client is gone, which is seen soon.
        let _ = tcp.set_nodelay(true);
        let entered = self.clients.enter();
        let (shared, stopping) = (Arc::clone(&self.shared), self.stopping.subscribe());
        tokio::spawn(async move {
            connection::serve(shared, tcp, entered, stopping).await;
            drop(place);
        });
    }

    /// At a stop; those beyond the limit have to go away.
    fn admit_at_last(&self, tcp: TcpStream) {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            self.admit(tcp, Some(place));
        }
    }

    /// Waits until everybody has left.
    async fn close(&self) {
        self.stopping.send_replace(true);
        let _ = self.places.acquire_many(self.most).await;
    }
}

/// Errors that accept(2) passes on from a connection that is gone already.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::TimedOut
    )
}

fn max_connections() -> usize {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a live value of the right type.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    if result != 0 {
        return MAX_CONNECTIONS;
    }
    let half = usize::try_from(limit.rlim_cur / 2).unwrap_or(usize::MAX);
    half.clamp(1, MAX_CONNECTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_threads_as_processors_for_the_container() {
        for limit in [0.1, 1.0] {
            assert_eq!(threads(Some(limit)), 1);
        }
        let all = threads(None);
        assert!((1..=MAX_THREADS).contains(&all));
        assert_eq!(threads(Some(1000.0)), all);
        assert_eq!(threads(Some(1.5)), all.min(2));
    }
}
