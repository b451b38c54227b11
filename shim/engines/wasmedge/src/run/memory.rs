//! The cap on linear memory.
//!
//! The library can be told how many pages a memory may have, once and for each memory alone. Instead each
//! growth is asked about when the library maps it, so that all memories count together and the cap can
//! move. And a memory that the library could not map at the start goes on as one without an address, to
//! which compiled code writes; here the guest ends first.

use std::ffi::{c_int, c_void};
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use wasmlet_runner_core::{GuestExit, MemoryCap};

use super::guest;

/// What the library reserves for a memory: 4 GiB for addresses and as much on both sides for offsets.
const RESERVATION_BYTES: usize = 12 << 30;

static CAP: OnceLock<MemoryCap> = OnceLock::new();

/// The guest's memories are being made: what they need, they need.
static STARTING: AtomicBool = AtomicBool::new(false);

/// Addresses of the reservations, for telling faults apart. More memories than this are taken for
/// something else, which changes a message.
static RESERVATIONS: [AtomicUsize; 16] = [const { AtomicUsize::new(0) }; 16];

/// Begins to count.
pub(super) fn count(cap: &MemoryCap) {
    // Once a process.
    let _ = CAP.set(cap.clone());
    STARTING.store(true, Ordering::SeqCst);
}

/// The guest's memories are made; from here on a growth that is refused is the guest's to see.
pub(super) fn started() {
    STARTING.store(false, Ordering::SeqCst);
}

/// Whether an address is one of a linear memory, or of what is reserved around it.
pub(super) fn is_linear(address: usize) -> bool {
    RESERVATIONS.iter().any(|reservation| {
        let start = reservation.load(Ordering::SeqCst);
        start != 0 && (start..start.saturating_add(RESERVATION_BYTES)).contains(&address)
    })
}

/// Answers one of the library's calls for memory.
pub(super) fn map(
    length: usize,
    protection: c_int,
    flags: c_int,
    map: impl FnOnce() -> *mut c_void,
) -> *mut c_void {
    let is_reservation = protection == libc::PROT_NONE && length == RESERVATION_BYTES;
    let is_growth =
        protection == libc::PROT_READ | libc::PROT_WRITE && flags & libc::MAP_FIXED != 0;
    if is_reservation {
        let address = map();
        if address == libc::MAP_FAILED {
            return out_of_memory("address space for a linear memory");
        }
        if let Some(free) = RESERVATIONS
            .iter()
            .find(|reservation| reservation.load(Ordering::SeqCst) == 0)
        {
            free.store(address as usize, Ordering::SeqCst);
        }
        return address;
    }
    let Some(cap) = CAP.get().filter(|_| is_growth) else {
        return map();
    };
    let bytes = length as u64;
    if !cap.grow(bytes) {
        if STARTING.load(Ordering::SeqCst)
            && let (Some(needed), Some(limit)) = (cap.refused(), cap.limit())
        {
            guest::end_here(GuestExit::MemoryLimit { needed, limit });
        }
        return no_memory();
    }
    let address = map();
    if address == libc::MAP_FAILED {
        cap.shrink(bytes);
        return out_of_memory("linear memory");
    }
    address
}

/// Smallest piece of the library's own memory that counts, in bytes: a table of 4096 elements. Everything
/// else that is as large is as much the guest's doing.
const LARGE_BYTES: usize = 64 << 10;

/// The cap, for pieces that count. Those that are made before the guest runs are copies of what is in the
/// module, and do not.
fn counting(size: usize) -> Option<&'static MemoryCap> {
    let counts = size >= LARGE_BYTES && !STARTING.load(Ordering::SeqCst);
    CAP.get().filter(|_| counts)
}

/// Counts a piece of the library's own memory. A table that may not grow is more than the library can
/// tell the guest: growing is a function there that does not fail.
pub(super) fn allocate(size: usize) {
    if let Some(cap) = counting(size)
        && !cap.grow(size as u64)
    {
        exhausted(size);
    }
}

/// The opposite.
pub(super) fn release(size: usize) {
    if let Some(cap) = counting(size) {
        cap.shrink(size as u64);
    }
}

/// Ends a guest that made the library ask for memory which is not to be had.
pub(super) fn exhausted(size: usize) -> ! {
    let hint = CAP.get().and_then(MemoryCap::hint).unwrap_or_default();
    guest::end_here(GuestExit::Trapped(format!(
        "{size} bytes for a table, or for what a host function works on, are not to be had{hint}"
    )))
}

fn out_of_memory(what: &str) -> *mut c_void {
    let error = io::Error::last_os_error();
    if STARTING.load(Ordering::SeqCst) {
        guest::end_here(GuestExit::StartFailed(format!("no {what}: {error}")));
    }
    no_memory()
}

fn no_memory() -> *mut c_void {
    // SAFETY: the C library's errno of this thread.
    unsafe { *libc::__errno_location() = libc::ENOMEM };
    libc::MAP_FAILED
}
