//! What clients may ask for, and how long they may take.

use std::time::Duration;

/// Connections at a time, and at most half of the descriptors that the container may have: a guest
/// wants some, too. One more client takes the place of the one that has been silent for longest.
pub(super) const MAX_CONNECTIONS: usize = 1000;

/// Requests at a time, each with an instance of the guest. More of them wait.
pub(in crate::run) const MAX_REQUESTS: u32 = 256;

/// Requests at a time on one HTTP/2 connection.
pub(super) const MAX_STREAMS: u32 = 100;

/// How long a request waits for a place, or for memory that others hold, before it is refused.
pub(super) const QUEUE: Duration = Duration::from_secs(10);

/// Threads that answer, one for each processor that the container may use, up to this many. Each costs
/// memory, and a server that needs more is better off with another replica.
pub(super) const MAX_THREADS: usize = 4;

/// Bytes of a request's line and headers; 431 for more.
pub(super) const MAX_HEADER_BYTES: usize = 64 * 1024;

/// The same for HTTP/2, where the length of names and values and 32 bytes for each count.
pub(super) const MAX_HEADER_LIST_BYTES: u32 = 64 * 1024;

/// Fields of a request; 431 for more.
pub(super) const MAX_HEADERS: usize = 100;

/// Bytes of the fields that a guest makes, names included.
pub(super) const MAX_GUEST_FIELD_BYTES: usize = 128 * 1024;

/// From the connection, or from the first byte of a later request, to the end of the headers.
pub(super) const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection stays open without a request.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// How long a guest waits for the next piece of a request's body, and how long a client may take for the
/// next piece of an answer. There is no limit on a body's length: it passes through.
pub(super) const STALL: Duration = Duration::from_secs(30);

/// With every piece of a body a client earns more time, up to [`STALL`] in hand: one that sends
/// a byte now and then is cut off, one that sends this many bytes a second is not.
pub(super) const MIN_BYTES_PER_SECOND: u64 = 512;

/// Bytes of an HTTP/2 request's body that are taken in before the guest has asked for them.
pub(super) const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// The same for all requests on a connection together.
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Bytes of an answer that wait for the client, on a connection.
pub(super) const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// How long a guest's call waits for a connection, where the guest says nothing.
pub(super) const OUTGOING_CONNECT: Duration = Duration::from_secs(30);

/// How long it waits for the answer to begin and to go on, where the guest says nothing.
pub(super) const OUTGOING_ANSWER: Duration = Duration::from_secs(600);

/// How often code that can be interrupted looks whether it is.
pub(super) const TICK: Duration = Duration::from_millis(10);
