//! Content-addressed store of compiled modules, shared by every shim of a node.
//!
//! An artifact is native code that an engine maps without looking at it, so whoever can choose its
//! bytes owns the container. This crate is where that trust is established: an artifact is handed
//! out only as an open descriptor of the very inode whose owner, mode, length and digest were
//! checked.
//!
//! ```text
//! <dir>/                         0700, owner of the process (root on a node)
//!   meta/<key>                   the commit: key → artifact digest, length, facts of the compiler
//!   artifacts/<sha256>           what the compile helper wrote, 0400
//!   modules/<sha256>             modules taken out of OCI artifacts, 0400
//!   lock/<key>, lock/store       flock(2) files: one compile per key, one writer of the folders
//!   tmp/                         only where the file system has no O_TMPFILE
//! <run_dir>/                     tmpfs, gone at reboot
//!   verified/<sha256>            seal: the stat of an inode whose digest was computed
//!   cache-counters               hits, misses, compiles, … of the node
//! ```
//!
//! # A start
//! ```no_run
//! # use wasmlet_cache::{Cache, Digest, Error, Key, Options};
//! # fn compile(into: &std::fs::File) -> wasmlet_protocol::Compiled { unimplemented!() }
//! # fn start(module: &std::fs::File, deadline: std::time::Instant) -> Result<std::fs::File, Box<dyn std::error::Error>> {
//! let cache = Cache::open(Options::default())?;
//! let key = Key::new(&Digest::of_file(module)?, "wasmtime", "compatibility", "build", "default");
//! if let Some(entry) = cache.lookup(&key)? {
//!     return Ok(entry.artifact); // warm: nothing is compiled
//! }
//! let lock = cache.lock_until(&key, deadline)?;
//! if let Some(entry) = cache.lookup_locked(&lock)? {
//!     return Ok(entry.artifact); // somebody else compiled it while we waited
//! }
//! let staged = cache.stage().or_else(|_no_space| cache.stage_in_memory())?;
//! let compiled = compile(staged.file());
//! cache.record_compile(&compiled);
//! match cache.publish(&lock, staged, compiled) {
//!     Ok(entry) => Ok(entry.artifact),
//!     Err(unpublished) => Ok(unpublished.staged.into_uncached()?), // log unpublished.error
//! }
//! # }
//! ```
//!
//! # Who is trusted
//! - **Trusted:** processes of the folder's owner (root): shims, and the compile helper that one of
//!   them started. Whoever is root on the node can replace the engine itself; this crate does not
//!   try to stop that.
//! - **Not trusted:** the bytes on the disk. A crash, a full disk, a bad sector, a restored backup or
//!   an administrator's `cp` may have left anything there. What does not check out is dropped,
//!   counted as [`Counter::Corrupt`] and compiled again; it is never an error of the container.
//! - **Not trusted:** modules. Their bytes decide a key only through SHA-256, so a tenant cannot
//!   choose somebody else's key, and nothing of an image names a file here.
//! - **The digest is not computed on each start** (10 MB would cost more than the rest of the
//!   start). Once computed, a seal remembers the inode's device, number, size, mtime and ctime and
//!   the node's boot; a start that finds all of them unchanged does not compute it again. Any change through the
//!   file system moves the ctime, which no program can set. What a seal cannot see is a disk that
//!   changes its mind about a block within one boot.
//! - The compile helper's descriptor stays writable until it exits: publish only after that.
#![forbid(unsafe_code)]

mod blobs;
mod cache;
mod counters;
mod digest;
mod error;
mod evict;
mod folder;
mod key;
mod lock;
mod meta;
mod seal;
mod staged;
mod unfit;

pub use blobs::{Blob, Blobs};
pub use cache::{Cache, Entry, Options, Unpublished, Usage};
pub use counters::{Counter, Counters};
pub use digest::{Digest, DigestSyntax, Hasher};
pub use error::Error;
pub use key::Key;
pub use lock::KeyLock;
pub use meta::{Meta, MetaSyntax};
pub use staged::Staged;
