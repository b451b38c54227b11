//! Facts about a module that are read from its bytes.

use wasmparser::{Parser, Payload};

/// Minimum linear memory in bytes, all memories of all modules in it together.
///
/// Of a component every module counts once, which is how components are built from modules; what
/// it really needs is seen when it is instantiated. The bytes were validated before.
pub(super) fn minimum_memory(wasm: &[u8]) -> u64 {
    let mut total: u64 = 0;
    for payload in Parser::new(0).parse_all(wasm) {
        let Ok(payload) = payload else { break };
        if let Payload::MemorySection(memories) = payload {
            for memory in memories.into_iter().flatten() {
                let page = 1u64 << memory.page_size_log2.unwrap_or(16);
                total = total.saturating_add(memory.initial.saturating_mul(page));
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::minimum_memory;

    #[test]
    fn all_memories_count() {
        let size = |text| minimum_memory(&wat::parse_str(text).expect("valid text"));
        assert_eq!(size("(module)"), 0);
        assert_eq!(size("(module (memory 2))"), 2 * 65536);
        assert_eq!(size("(module (memory 2 5) (memory 1))"), 3 * 65536);
        assert_eq!(
            size("(component (core module (memory 1)) (core module (memory 4)))"),
            5 * 65536
        );
        assert_eq!(minimum_memory(b"nonsense"), 0);
    }
}
