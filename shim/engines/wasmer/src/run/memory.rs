//! The cap on linear memory and tables, and the size of the stack: what Wasmer calls tunables.

use std::ptr::NonNull;
use std::time::Duration;

use wasmer::sys::vm::{
    ExpectedValue, LinearMemory, MemoryStyle, TableStyle, ThreadConditions, Trap, VMConfig,
    VMMemory, VMMemoryDefinition, VMSharedMemory, VMTable, VMTableDefinition, WaiterError,
};
use wasmer::sys::{BaseTunables, Tunables};
use wasmer::{MemoryError, MemoryType, Pages, TableType, WASM_PAGE_SIZE};
use wasmlet_runner_core::{MemoryCap, TABLE_ELEMENT_BYTES};

/// A table that can grow may take this part of the cap, and is charged for it at once: Wasmer asks nobody
/// when a table grows.
const TABLE_SHARE: u64 = 16;

/// Wasmer's own tunables under a cap.
pub(super) struct Capped {
    base: BaseTunables,
    cap: MemoryCap,
    vm: VMConfig,
}

impl Capped {
    pub(super) fn new(base: BaseTunables, cap: MemoryCap, stack_bytes: usize) -> Self {
        Self {
            base,
            cap,
            vm: VMConfig {
                wasm_stack_size: Some(stack_bytes),
            },
        }
    }

    fn memory(
        &self,
        ty: &MemoryType,
        make: impl FnOnce(&MemoryType) -> Result<VMMemory, MemoryError>,
    ) -> Result<VMMemory, MemoryError> {
        let ty = self.limited(ty);
        let counted = bytes(ty.minimum);
        if !self.cap.grow(counted) {
            return Err(refused(Pages(0), ty.minimum));
        }
        match make(&ty) {
            Ok(inner) => Ok(VMMemory::from_custom(Box::new(CappedMemory {
                inner,
                cap: self.cap.clone(),
                counted,
            })
                as Box<dyn LinearMemory + Send + Sync>)),
            Err(error) => {
                self.cap.shrink(counted);
                Err(error)
            }
        }
    }

    /// Threads get at a shared memory past [`CappedMemory`], so what bounds them is its type. This cap
    /// does not move.
    fn limited(&self, ty: &MemoryType) -> MemoryType {
        let mut ty = *ty;
        if ty.shared
            && let Some(limit) = self.cap.limit()
        {
            let pages = Pages(u32::try_from(limit / WASM_PAGE_SIZE as u64).unwrap_or(u32::MAX));
            let most = pages.max(ty.minimum);
            ty.maximum = Some(ty.maximum.map_or(most, |maximum| maximum.min(most)));
        }
        ty
    }

    fn table(
        &self,
        ty: &TableType,
        make: impl FnOnce(&TableType) -> Result<VMTable, String>,
    ) -> Result<VMTable, String> {
        let mut ty = *ty;
        let mut most = ty.minimum;
        if ty.maximum.is_none_or(|maximum| maximum > ty.minimum) {
            // Without a cap a table is as large as it says.
            if let Some(limit) = self.cap.limit() {
                let share = limit / TABLE_SHARE / TABLE_ELEMENT_BYTES;
                let room = u32::try_from(share).unwrap_or(u32::MAX);
                most = most.max(ty.maximum.map_or(room, |maximum| maximum.min(room)));
                ty.maximum = Some(most);
            }
        }
        let counted = u64::from(most).saturating_mul(TABLE_ELEMENT_BYTES);
        if !self.cap.grow(counted) {
            return Err(format!("a table of {most} elements is refused"));
        }
        make(&ty).inspect_err(|_| self.cap.shrink(counted))
    }
}

fn bytes(pages: Pages) -> u64 {
    u64::from(pages.0) * WASM_PAGE_SIZE as u64
}

fn refused(current: Pages, attempted_delta: Pages) -> MemoryError {
    MemoryError::CouldNotGrow {
        current,
        attempted_delta,
    }
}

impl Tunables for Capped {
    fn memory_style(&self, memory: &MemoryType) -> MemoryStyle {
        self.base.memory_style(memory)
    }

    fn table_style(&self, table: &TableType) -> TableStyle {
        self.base.table_style(table)
    }

    fn create_host_memory(
        &self,
        ty: &MemoryType,
        style: &MemoryStyle,
    ) -> Result<VMMemory, MemoryError> {
        self.memory(ty, |ty| self.base.create_host_memory(ty, style))
    }

    unsafe fn create_vm_memory(
        &self,
        ty: &MemoryType,
        style: &MemoryStyle,
        location: NonNull<VMMemoryDefinition>,
    ) -> Result<VMMemory, MemoryError> {
        // SAFETY: the caller's promise about the location is passed on.
        self.memory(ty, |ty| unsafe {
            self.base.create_vm_memory(ty, style, location)
        })
    }

    fn create_host_table(&self, ty: &TableType, style: &TableStyle) -> Result<VMTable, String> {
        self.table(ty, |ty| self.base.create_host_table(ty, style))
    }

    unsafe fn create_vm_table(
        &self,
        ty: &TableType,
        style: &TableStyle,
        location: NonNull<VMTableDefinition>,
    ) -> Result<VMTable, String> {
        // SAFETY: the caller's promise about the location is passed on.
        self.table(ty, |ty| unsafe {
            self.base.create_vm_table(ty, style, location)
        })
    }

    fn vmconfig(&self) -> &VMConfig {
        &self.vm
    }
}

/// A memory that asks the cap at every growth.
#[derive(Debug)]
struct CappedMemory {
    inner: VMMemory,
    cap: MemoryCap,
    counted: u64,
}

impl CappedMemory {
    fn growing<T>(
        &mut self,
        delta: Pages,
        grow: impl FnOnce(&mut VMMemory) -> Result<T, MemoryError>,
    ) -> Result<T, MemoryError> {
        let more = bytes(delta);
        if !self.cap.grow(more) {
            return Err(refused(self.inner.size(), delta));
        }
        match grow(&mut self.inner) {
            Ok(done) => {
                self.counted += more;
                Ok(done)
            }
            Err(error) => {
                self.cap.shrink(more);
                Err(error)
            }
        }
    }
}

impl Drop for CappedMemory {
    fn drop(&mut self) {
        self.cap.shrink(self.counted);
    }
}

impl LinearMemory for CappedMemory {
    fn ty(&self) -> MemoryType {
        self.inner.ty()
    }

    fn size(&self) -> Pages {
        self.inner.size()
    }

    fn style(&self) -> MemoryStyle {
        self.inner.style()
    }

    fn grow(&mut self, delta: Pages) -> Result<Pages, MemoryError> {
        self.growing(delta, |memory| memory.grow(delta))
    }

    fn grow_at_least(&mut self, least: u64) -> Result<(), MemoryError> {
        let missing = least.saturating_sub(bytes(self.inner.size()));
        let pages = missing.div_ceil(WASM_PAGE_SIZE as u64);
        let delta = Pages(u32::try_from(pages).unwrap_or(u32::MAX));
        self.growing(delta, |memory| memory.grow_at_least(least))
    }

    fn reset(&mut self) -> Result<(), MemoryError> {
        self.inner.reset()
    }

    fn vmmemory(&self) -> NonNull<VMMemoryDefinition> {
        self.inner.vmmemory()
    }

    fn try_clone(&self) -> Result<Box<dyn LinearMemory + Send + Sync + 'static>, MemoryError> {
        self.inner.0.try_clone()
    }

    unsafe fn initialize_with_data(&self, start: usize, data: &[u8]) -> Result<(), Trap> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.initialize_with_data(start, data) }
    }

    /// The memory of a forked process, which counts as well.
    fn copy(&self) -> Result<Box<dyn LinearMemory + Send + Sync + 'static>, MemoryError> {
        let counted = bytes(self.inner.size());
        if !self.cap.grow(counted) {
            return Err(refused(Pages(0), self.inner.size()));
        }
        match self.inner.0.copy() {
            Ok(inner) => Ok(Box::new(Self {
                inner: VMMemory(inner),
                cap: self.cap.clone(),
                counted,
            })),
            Err(error) => {
                self.cap.shrink(counted);
                Err(error)
            }
        }
    }

    fn as_shared(&self) -> Result<VMSharedMemory, MemoryError> {
        self.inner.as_shared()
    }

    unsafe fn do_wait(
        &mut self,
        at: u32,
        expected: ExpectedValue,
        timeout: Option<Duration>,
    ) -> Result<u32, WaiterError> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.inner.do_wait(at, expected, timeout) }
    }

    fn do_notify(&mut self, at: u32, count: u32) -> u32 {
        self.inner.do_notify(at, count)
    }

    fn thread_conditions(&self) -> Option<&ThreadConditions> {
        self.inner.thread_conditions()
    }
}

#[cfg(test)]
mod tests {
    use wasmer::Type;
    use wasmer::sys::Target;

    use super::*;

    fn capped(limit: Option<u64>) -> (Capped, MemoryCap) {
        let cap = MemoryCap::fixed(limit);
        let base = BaseTunables::for_target(&Target::default());
        (Capped::new(base, cap.clone(), 1 << 20), cap)
    }

    fn memory(tunables: &Capped, ty: MemoryType) -> Result<VMMemory, MemoryError> {
        tunables.create_host_memory(&ty, &tunables.memory_style(&ty))
    }

    fn table(tunables: &Capped, ty: TableType) -> Result<VMTable, String> {
        tunables.create_host_table(&ty, &tunables.table_style(&ty))
    }

    #[test]
    fn memories_grow_as_far_as_all_of_them_may() {
        let (tunables, cap) = capped(Some(4 * 65536));
        let mut first = memory(&tunables, MemoryType::new(1, None, false)).expect("fits");
        let mut second = memory(&tunables, MemoryType::new(1, None, false)).expect("fits");
        assert_eq!(first.grow(Pages(2)).expect("fits"), Pages(1));
        second.grow(Pages(1)).expect_err("five in all");
        assert_eq!(cap.refused(), Some(5 * 65536));
        first.grow_at_least(3 * 65536).expect("that large already");
        first.grow_at_least(3 * 65536 + 1).expect_err("one more");
        drop(first);
        second.grow(Pages(3)).expect("what is gone counts no more");
        memory(&tunables, MemoryType::new(1, None, false)).expect_err("not from the start either");
    }

    #[test]
    fn a_growth_that_the_memory_refuses_does_not_count() {
        let (tunables, _) = capped(Some(4 * 65536));
        let mut small = memory(&tunables, MemoryType::new(1, Some(2), false)).expect("fits");
        small.grow(Pages(3)).expect_err("its own maximum");
        memory(&tunables, MemoryType::new(3, None, false)).expect("all that is left");
    }

    #[test]
    fn a_shared_memory_has_the_cap_in_its_type() {
        let (tunables, _) = capped(Some(4 * 65536));
        let shared = memory(&tunables, MemoryType::new(1, Some(100), true)).expect("fits");
        let mut past_the_cap = shared.as_shared().expect("it is");
        past_the_cap.grow(Pages(4)).expect_err("five in all");
        past_the_cap.grow(Pages(3)).expect("four");
    }

    #[test]
    fn a_table_that_can_grow_is_charged_for_its_share() {
        let (tunables, cap) = capped(Some(1 << 20));
        let mut one = table(&tunables, TableType::new(Type::FuncRef, 10, None)).expect("fits");
        // A sixteenth of the cap: 64 KiB.
        assert_eq!(one.ty().maximum, Some(8192));
        assert!(cap.grow((1 << 20) - (64 << 10)));
        assert!(!cap.grow(1));
        assert!(one.grow(8182, one_null(&one)).is_some());
        assert!(one.grow(1, one_null(&one)).is_none());
        let full = table(&tunables, TableType::new(Type::FuncRef, 1, Some(1)));
        full.expect_err("nothing is left");
    }

    fn one_null(table: &VMTable) -> wasmer::sys::vm::TableElement {
        table.get(0).expect("there is a first element")
    }

    #[test]
    fn without_a_cap_types_stay_as_they_are() {
        let (tunables, _) = capped(None);
        let free = table(&tunables, TableType::new(Type::FuncRef, 1, None)).expect("fits");
        assert_eq!(free.ty().maximum, None);
        let shared = memory(&tunables, MemoryType::new(1, Some(100), true)).expect("fits");
        assert_eq!(shared.ty().maximum, Some(Pages(100)));
    }
}
