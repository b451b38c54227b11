//! The cap on linear memory and tables, as Wasmtime asks for it.

use wasmlet_runner_core::{MemoryCap, TABLE_ELEMENT_BYTES};
use wasmtime::ResourceLimiter;

/// Asks the cap at every growth, and gives back what an instance had when it is gone.
#[derive(Debug)]
pub(super) struct Limiter {
    cap: MemoryCap,
    /// What the last growth asked for, until it is known whether the system gives it.
    last: u64,
    /// Bytes that this instance has.
    held: u64,
    /// What its last refused growth would have made of the bytes of all instances.
    refused: Option<u64>,
}

impl Limiter {
    pub(super) fn new(cap: &MemoryCap) -> Self {
        Self {
            cap: cap.clone(),
            last: 0,
            held: 0,
            refused: None,
        }
    }

    /// What the last refused growth would have made of the bytes of all instances.
    pub(super) fn refused(&self) -> Option<u64> {
        self.refused
    }

    fn grow(&mut self, bytes: u64) -> bool {
        self.last = 0;
        let granted = self.cap.grow(bytes);
        if granted {
            self.last = bytes;
            self.held = self.held.saturating_add(bytes);
        } else {
            self.refused = self.cap.refused();
        }
        granted
    }

    fn take_back(&mut self) {
        let last = std::mem::take(&mut self.last);
        self.held = self.held.saturating_sub(last);
        self.cap.shrink(last);
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.cap.shrink(self.held);
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.grow((desired as u64).saturating_sub(current as u64)))
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.take_back();
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let elements = (desired as u64).saturating_sub(current as u64);
        Ok(self.grow(elements.saturating_mul(TABLE_ELEMENT_BYTES)))
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.take_back();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_and_tables_count_together() {
        let cap = MemoryCap::fixed(Some(1000));
        let mut limiter = Limiter::new(&cap);
        assert!(limiter.memory_growing(0, 200, None).expect("no error"));
        assert!(limiter.table_growing(0, 50, None).expect("no error"));
        assert!(limiter.table_growing(50, 100, None).expect("no error"));
        assert!(!limiter.table_growing(100, 101, None).expect("no error"));
        assert_eq!(cap.refused(), Some(1008));
        assert!(
            !limiter
                .table_growing(0, usize::MAX, None)
                .expect("no error")
        );
    }

    #[test]
    fn an_instance_that_is_gone_holds_nothing() {
        let cap = MemoryCap::fixed(Some(100));
        let mut first = Limiter::new(&cap);
        let mut second = Limiter::new(&cap);
        assert!(first.memory_growing(0, 60, None).expect("no error"));
        assert!(second.memory_growing(0, 40, None).expect("no error"));
        assert!(!second.memory_growing(40, 41, None).expect("no error"));
        assert_eq!((first.refused(), second.refused()), (None, Some(101)));
        drop(first);
        assert!(second.memory_growing(40, 100, None).expect("no error"));
        drop(second);
        assert!(cap.grow(100));
    }

    #[test]
    fn what_the_system_refused_does_not_count_and_a_refusal_takes_nothing_back() {
        let cap = MemoryCap::fixed(Some(100));
        let mut limiter = Limiter::new(&cap);
        assert!(limiter.memory_growing(0, 90, None).expect("no error"));
        limiter
            .memory_grow_failed(wasmtime::Error::msg("no memory"))
            .expect("no error");
        assert!(limiter.memory_growing(0, 100, None).expect("no error"));
        assert!(!limiter.memory_growing(100, 101, None).expect("no error"));
        limiter
            .memory_grow_failed(wasmtime::Error::msg("refused"))
            .expect("no error");
        assert!(!limiter.memory_growing(100, 101, None).expect("no error"));
    }
}
