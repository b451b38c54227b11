//! Who is connected, and for whom everybody waits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::limits::{HEADER_TIMEOUT, KEEP_ALIVE, STALL};

/// Everybody who is connected.
#[derive(Debug, Default)]
pub(super) struct Clients {
    connected: Mutex<HashMap<u64, Arc<Client>>>,
    next: AtomicU64,
}

impl Clients {
    pub(super) fn enter(self: &Arc<Self>) -> Entered {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        let client = Arc::new(Client::new());
        lock(&self.connected).insert(key, Arc::clone(&client));
        Entered {
            clients: Arc::clone(self),
            key,
            client,
        }
    }

    /// Sends the one away that has been without a request for longest; nobody when all have one.
    pub(super) fn evict(&self) {
        let connected = lock(&self.connected);
        let longest = connected
            .values()
            .filter_map(|client| Some((client.silent_since()?, client)))
            .min_by_key(|(since, _)| *since);
        if let Some((_, client)) = longest {
            client.evicted.notify_one();
        }
    }
}

/// A place among the clients, until it is dropped.
pub(super) struct Entered {
    clients: Arc<Clients>,
    key: u64,
    pub(super) client: Arc<Client>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        lock(&self.clients.connected).remove(&self.key);
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Client {
    state: Mutex<State>,
    /// It shall leave for another one.
    pub(super) evicted: Notify,
}

#[derive(Debug)]
struct State {
    /// When it connected, when its last answer was through, or when its next request began.
    since: Instant,
    /// Part of a request has come, or has to come now.
    in_header: bool,
    /// Reads between requests mean nothing: HTTP/2 has frames that are no request.
    is_framed: bool,
    answers: Vec<Arc<Turn>>,
}

impl Client {
    fn new() -> Self {
        Self {
            state: Mutex::new(State {
                since: Instant::now(),
                in_header: true,
                is_framed: false,
                answers: Vec::new(),
            }),
            evicted: Notify::new(),
        }
    }

    pub(super) fn speaks_http2(&self) {
        lock(&self.state).is_framed = true;
    }

    /// Bytes have come.
    pub(super) fn read(&self) {
        let mut state = lock(&self.state);
        if state.answers.is_empty() && !state.in_header && !state.is_framed {
            state.in_header = true;
            state.since = Instant::now();
        }
    }

    /// A request is complete but for its body.
    pub(super) fn asks(self: &Arc<Self>) -> Asked {
        let turn = Arc::new(Turn::default());
        lock(&self.state).answers.push(Arc::clone(&turn));
        Asked {
            client: Arc::clone(self),
            turn,
        }
    }

    fn silent_since(&self) -> Option<Instant> {
        let state = lock(&self.state);
        state.answers.is_empty().then_some(state.since)
    }

    /// When it has taken too long, as things are.
    pub(super) fn deadline(&self) -> Instant {
        let state = lock(&self.state);
        if state.answers.is_empty() {
            return state.since
                + if state.in_header {
                    HEADER_TIMEOUT
                } else {
                    KEEP_ALIVE
                };
        }
        let waiting = state.answers.iter().filter_map(|turn| turn.clients());
        waiting.min().unwrap_or_else(Instant::now) + STALL
    }
}

/// A request, until its answer is through.
pub(super) struct Asked {
    client: Arc<Client>,
    turn: Arc<Turn>,
}

impl Asked {
    pub(super) fn turn(&self) -> &Turn {
        &self.turn
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut state = lock(&self.client.state);
        state.answers.retain(|turn| !Arc::ptr_eq(turn, &self.turn));
        if state.answers.is_empty() {
            state.since = Instant::now();
            state.in_header = false;
        }
    }
}

/// Whose turn it is in an answer. `None` is the guest's.
#[derive(Debug, Default)]
pub(super) struct Turn(Mutex<Option<Instant>>);

impl Turn {
    /// A piece is on its way to the client, which has not asked for more yet.
    pub(super) fn is_the_clients(&self) {
        *lock(&self.0) = Some(Instant::now());
    }

    /// The client has everything that there is.
    pub(super) fn is_the_guests(&self) {
        *lock(&self.0) = None;
    }

    fn clients(&self) -> Option<Instant> {
        *lock(&self.0)
    }
}

/// A panic ends the process, so nobody has left anything half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("an event loop")
    }

    fn left(client: &Client) -> Duration {
        client.deadline() - Instant::now()
    }

    #[test]
    fn a_client_has_the_time_for_what_it_does() {
        let near = |left: Duration, limit: Duration| {
            left <= limit && left > limit - Duration::from_secs(5)
        };
        let client = Arc::new(Client::new());
        assert!(near(left(&client), HEADER_TIMEOUT), "the first request");
        let asked = client.asks();
        assert!(near(left(&client), STALL), "looked at again and again");
        asked.turn().is_the_clients();
        let stalled = client.deadline();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(client.deadline(), stalled, "it is waited for");
        asked.turn().is_the_guests();
        assert!(client.deadline() > stalled, "the guest may take its time");
        drop(asked);
        assert!(near(left(&client), KEEP_ALIVE), "between requests");
        client.read();
        assert!(near(left(&client), HEADER_TIMEOUT), "the next request");
        let begun = client.deadline();
        client.read();
        assert_eq!(client.deadline(), begun, "all of it, not each byte");
    }

    #[test]
    fn frames_between_requests_are_no_request() {
        let client = Arc::new(Client::new());
        client.speaks_http2();
        drop(client.asks());
        client.read();
        assert!(left(&client) > HEADER_TIMEOUT);
    }

    #[test]
    fn the_one_that_is_silent_for_longest_has_to_leave() {
        runtime().block_on(async {
            let clients = Arc::new(Clients::default());
            let busy = clients.enter();
            let _asked = busy.client.asks();
            std::thread::sleep(Duration::from_millis(2));
            let gone = clients.enter();
            std::thread::sleep(Duration::from_millis(2));
            let oldest = clients.enter();
            std::thread::sleep(Duration::from_millis(2));
            let newest = clients.enter();
            drop(gone);
            clients.evict();
            let leaves = async |entered: &Entered| {
                let evicted = entered.client.evicted.notified();
                tokio::time::timeout(Duration::from_millis(1), evicted)
                    .await
                    .is_ok()
            };
            assert!(leaves(&oldest).await);
            assert!(!leaves(&newest).await);
            assert!(!leaves(&busy).await);
        });
    }
}
