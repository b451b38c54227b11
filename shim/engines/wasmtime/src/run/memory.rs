//! The cap on linear memory and tables.

use wasmtime::ResourceLimiter;

/// Bytes that an element of a table takes: a reference to a function is a pointer, others take less.
const ELEMENT_BYTES: u64 = 8;

/// Counts the bytes of all linear memories and tables, and refuses what goes beyond the cap.
#[derive(Debug, Default)]
pub(super) struct MemoryCap {
    limit: Option<u64>,
    used: u64,
    before: u64,
    /// What the last refused growth would have made of it.
    pub(super) refused: Option<u64>,
}

impl MemoryCap {
    pub(super) fn new(limit: Option<u64>) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    pub(super) fn limit(&self) -> Option<u64> {
        self.limit
    }
}

impl MemoryCap {
    fn grow(&mut self, bytes: u64) -> bool {
        let total = self.used.saturating_add(bytes);
        if self.limit.is_some_and(|limit| total > limit) {
            self.refused = Some(total);
            return false;
        }
        self.before = self.used;
        self.used = total;
        true
    }
}

impl ResourceLimiter for MemoryCap {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.grow((desired as u64).saturating_sub(current as u64)))
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.used = self.before;
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let elements = (desired as u64).saturating_sub(current as u64);
        Ok(self.grow(elements.saturating_mul(ELEMENT_BYTES)))
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.used = self.before;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_memories_count_together() {
        let mut cap = MemoryCap::new(Some(100));
        let mut grow = |from, to| cap.memory_growing(from, to, None).expect("no error");
        assert!(grow(0, 60));
        assert!(!grow(0, 41), "a second memory");
        assert!(grow(60, 100));
        assert!(!grow(100, 101));
        assert_eq!(cap.refused, Some(101));
    }

    #[test]
    fn a_growth_that_the_system_refused_does_not_count() {
        let mut cap = MemoryCap::new(Some(100));
        assert!(cap.memory_growing(0, 90, None).expect("no error"));
        cap.memory_grow_failed(wasmtime::Error::msg("no memory"))
            .expect("no error");
        assert!(cap.memory_growing(0, 100, None).expect("no error"));
    }

    #[test]
    fn tables_count_with_the_memories() {
        let mut cap = MemoryCap::new(Some(1000));
        assert!(cap.memory_growing(0, 200, None).expect("no error"));
        assert!(cap.table_growing(0, 50, None).expect("no error"));
        assert!(cap.table_growing(50, 100, None).expect("no error"));
        assert!(!cap.table_growing(100, 101, None).expect("no error"));
        assert_eq!(cap.refused, Some(1008));
        cap.table_grow_failed(wasmtime::Error::msg("no memory"))
            .expect("no error");
        assert!(
            cap.table_growing(50, 100, None).expect("no error"),
            "what the system refused does not count"
        );
        assert!(!cap.table_growing(0, usize::MAX, None).expect("no error"));
    }

    #[test]
    fn without_a_cap_everything_goes() {
        let mut cap = MemoryCap::new(None);
        assert!(cap.memory_growing(0, usize::MAX, None).expect("no error"));
    }
}
