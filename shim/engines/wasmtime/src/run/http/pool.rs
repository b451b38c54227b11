//! Room for the instances of a component that serves, set aside once.
//!
//! An instance is there for one request. Mapping and unmapping its memory, tables and stack each time would
//! cost more than many a request; in a pool they are used again, and what a guest wrote is
//! thrown away in between. A pool reserves addresses and no memory.

use wasmtime::{InstanceAllocationStrategy, PoolingAllocationConfig, ResourcesRequired};

use super::limits::MAX_REQUESTS;

/// Elements that a table may grow to in the pool. Tables are made as long as they ever are by every
/// compiler we know of; growing is for hand-written code.
const MIN_TABLE_ELEMENTS: u64 = 20_000;

/// Bytes of what Wasmtime keeps about an instance: a check only, nothing is reserved.
const MAX_INSTANCE_BYTES: usize = 64 << 20;

/// Bytes of each table that stay in memory between two instances.
const TABLE_BYTES: usize = 4096;

/// A pool for as many instances as there are requests at a time.
pub(in crate::run) fn strategy(required: &ResourcesRequired) -> InstanceAllocationStrategy {
    let memories = required.num_memories.max(1);
    let tables = required.num_tables.max(1);
    let elements = required
        .max_initial_table_size
        .unwrap_or(0)
        .max(MIN_TABLE_ELEMENTS);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(MAX_REQUESTS)
        // How many modules a component is made of is not told; they are counted and nothing more.
        .total_core_instances(u32::MAX)
        .max_component_instance_size(MAX_INSTANCE_BYTES)
        .max_core_instance_size(MAX_INSTANCE_BYTES)
        .max_memories_per_module(memories)
        .max_tables_per_module(tables)
        .total_memories(MAX_REQUESTS.saturating_mul(memories))
        .total_tables(MAX_REQUESTS.saturating_mul(tables))
        .table_elements(usize::try_from(elements).unwrap_or(usize::MAX))
        .total_stacks(MAX_REQUESTS)
        .total_gc_heaps(MAX_REQUESTS)
        // Cleared in place: most tables are smaller than a page, which costs more to give back and to
        // fetch again.
        .table_keep_resident(TABLE_BYTES);
    InstanceAllocationStrategy::Pooling(pool)
}
