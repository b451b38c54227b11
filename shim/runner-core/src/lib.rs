//! Sets a container up with libcontainer and becomes its init.
//!
//! A runner is a program `wasmlet-run-<engine>` whose main function is [`main`] with an [`Engine`].
//! This crate is the only user of libcontainer, and knows no engine.
//!
//! ```text
//! shim ──spawn──▶ runner create ──▶ libcontainer ──clone──▶ init
//!                   │ one thread,     namespaces, cgroup,     │ loads the artifact, waits for the
//!                   │ answers and     mounts, pivot_root,     │ start message, locks itself in,
//!                   ▼ ends            user, seccomp           ▼ runs the guest
//! ```
//!
//! No process stays but the init, which becomes a child of the shim.
mod cli;
mod control;
mod create;
mod deadline;
pub mod engine;
mod failure;
mod init;
mod journal;
mod listen;
mod memory_cap;
mod names;
pub mod preview1;
mod report;
mod rootfs;
mod scope;
mod spec;
mod state;

pub use cli::main;
pub use engine::{Access, End, Engine, Guest, GuestExit, Preopen, Program, Surroundings};
pub use failure::{chain, one_line};
pub use listen::{Connection, IDLE_CLIENT, Listener, Stop, Wait, leave_if_idle};
pub use memory_cap::{MemoryCap, TABLE_ELEMENT_BYTES};
pub use report::{note, note_request};
