//! `wasi:http`: components that are called over HTTP, and calls that components make.
//!
//! ```text
//! listener ─▶ server ─▶ connection ─▶ request ── an instance of its own ──▶ incoming-handler
//!  (accepts)   (one task each:          │          (from the pool, on a task of its own)
//!               protocol, clients       │                     │ outgoing-handler
//!               that take too long)     ▼                     ▼
//!                                      body                outgoing ──▶ somebody else
//! ```
//!
//! - Every request gets a fresh instance, as WASI 0.2 wants it: no guest sees what another one left.
//! - A guest that traps, runs out of fuel or time, or ends without an answer costs its own request: the
//!   client gets a 5xx, the container's log a line, and the next request a new instance.
//! - Clients wait in the queue of the socket, then for a place, and never beyond the numbers in
//!   [`limits`]; no client holds a place by being slow.
//!
//! [`server`] also says how a stop goes.

mod body;
mod clients;
mod connection;
pub(super) mod limits;
mod outgoing;
mod pool;
mod request;
mod server;
mod stream;
mod ticker;

pub(super) use outgoing::Http;
pub(super) use pool::strategy;
pub(super) use server::Server;
