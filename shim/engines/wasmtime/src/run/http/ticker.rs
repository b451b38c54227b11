//! The clock by which guests that can be interrupted give way.
//!
//! A guest that computes holds its thread, so a timer of the event loop would never come: a thread of its
//! own counts, as long as there are guests. Each guest gives way at every tick, and the event loop then
//! sees whose time is up, and lets others go on.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Thread};

use wasmtime::Engine;

use super::limits::TICK;

/// Its stack: it calls nothing of depth.
const STACK_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Ticker {
    guests: Arc<AtomicUsize>,
    thread: Thread,
}

impl Ticker {
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn start(engine: &Engine) -> io::Result<Self> {
        let guests = Arc::new(AtomicUsize::new(0));
        let (engine, counted) = (engine.clone(), Arc::clone(&guests));
        let thread = thread::Builder::new()
            .name("ticker".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                loop {
                    if counted.load(Ordering::SeqCst) == 0 {
                        thread::park();
                    } else {
                        thread::sleep(TICK);
                        engine.increment_epoch();
                    }
                }
            })?;
        Ok(Self {
            guests,
            thread: thread.thread().clone(),
        })
    }

    /// As long as the answer lives, it ticks.
    pub(super) fn run(&self) -> Running {
        if self.guests.fetch_add(1, Ordering::SeqCst) == 0 {
            self.thread.unpark();
        }
        Running(Arc::clone(&self.guests))
    }
}

/// A guest that wants to be interrupted.
#[derive(Debug)]
pub(super) struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
