//! How much of everything a guest may have.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::Error;

/// The memory of a guest's container, of which models and tensors are a part.
pub trait Memory: Send + Sync {
    /// Counts that many bytes; false when there are not so many left, and then nothing is counted.
    fn grow(&self, bytes: u64) -> bool;
    /// Gives counted bytes back.
    fn shrink(&self, bytes: u64);
    /// All that there is, in bytes.
    fn limit(&self) -> Option<u64>;
}

/// A container without a memory limit.
#[derive(Debug, Clone, Copy)]
pub struct Unlimited;

impl Memory for Unlimited {
    fn grow(&self, _: u64) -> bool {
        true
    }

    fn shrink(&self, _: u64) {}

    fn limit(&self) -> Option<u64> {
        None
    }
}

/// Counts what a guest has. Clones count together.
#[derive(Clone)]
pub struct Budget(Arc<Counts>);

struct Counts {
    memory: Arc<dyn Memory>,
    graphs: AtomicUsize,
    contexts: AtomicUsize,
    resources: AtomicUsize,
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").finish_non_exhaustive()
    }
}

/// What is counted one by one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Thing {
    Graph,
    Context,
    /// A tensor or an error of a component.
    Resource,
}

impl Thing {
    const fn limit(self) -> usize {
        match self {
            Self::Graph => crate::MAX_GRAPHS,
            Self::Context => crate::MAX_CONTEXTS,
            Self::Resource => crate::MAX_RESOURCES,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Graph => "graphs",
            Self::Context => "execution contexts",
            Self::Resource => "tensors and errors",
        }
    }
}

impl Budget {
    /// Within such a memory.
    pub fn new(memory: impl Memory + 'static) -> Self {
        Self::with(Arc::new(memory))
    }

    /// Of the same memory, with counts of its own.
    pub(crate) fn for_instance(&self) -> Self {
        Self::with(Arc::clone(&self.0.memory))
    }

    fn with(memory: Arc<dyn Memory>) -> Self {
        Self(Arc::new(Counts {
            memory,
            graphs: AtomicUsize::new(0),
            contexts: AtomicUsize::new(0),
            resources: AtomicUsize::new(0),
        }))
    }

    /// Takes memory, which is given back when the answer is dropped.
    pub(crate) fn take(&self, what: &'static str, bytes: u64) -> Result<Taken, Error> {
        if self.0.memory.grow(bytes) {
            return Ok(Taken {
                budget: self.clone(),
                bytes,
            });
        }
        Err(Error::Memory {
            what,
            bytes,
            // One that refuses has one.
            limit: self.0.memory.limit().unwrap_or(u64::MAX),
        })
    }

    /// Takes one of something, which is given back when the answer is dropped.
    pub(crate) fn one(&self, thing: Thing) -> Result<One, Error> {
        let limit = thing.limit();
        self.count(thing)
            .try_update(Ordering::SeqCst, Ordering::SeqCst, |count| {
                (count < limit).then_some(count + 1)
            })
            .map_err(|_| Error::TooMany {
                what: thing.name(),
                limit,
            })?;
        Ok(One {
            budget: self.clone(),
            thing,
        })
    }

    fn count(&self, thing: Thing) -> &AtomicUsize {
        match thing {
            Thing::Graph => &self.0.graphs,
            Thing::Context => &self.0.contexts,
            Thing::Resource => &self.0.resources,
        }
    }
}

/// Memory that was taken.
#[derive(Debug)]
pub(crate) struct Taken {
    budget: Budget,
    bytes: u64,
}

impl Taken {
    /// Gives back what is more than that.
    pub(crate) fn keep(&mut self, bytes: u64) {
        let rest = self.bytes.saturating_sub(bytes);
        self.budget.0.memory.shrink(rest);
        self.bytes -= rest;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.budget.0.memory.shrink(self.bytes);
    }
}

/// One of something that was taken.
#[derive(Debug)]
pub(crate) struct One {
    budget: Budget,
    thing: Thing,
}

impl Drop for One {
    fn drop(&mut self) {
        self.budget.count(self.thing).fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    /// A memory of some bytes.
    #[derive(Debug, Clone)]
    pub(crate) struct Bytes {
        pub(crate) used: Arc<AtomicU64>,
        pub(crate) limit: u64,
    }

    impl Bytes {
        pub(crate) fn new(limit: u64) -> Self {
            Self {
                used: Arc::default(),
                limit,
            }
        }

        pub(crate) fn used(&self) -> u64 {
            self.used.load(Ordering::SeqCst)
        }
    }

    impl Memory for Bytes {
        fn grow(&self, bytes: u64) -> bool {
            let fits = self.used().saturating_add(bytes) <= self.limit;
            if fits {
                self.used.fetch_add(bytes, Ordering::SeqCst);
            }
            fits
        }

        fn shrink(&self, bytes: u64) {
            self.used.fetch_sub(bytes, Ordering::SeqCst);
        }

        fn limit(&self) -> Option<u64> {
            Some(self.limit)
        }
    }

    #[test]
    fn what_is_dropped_can_be_had_again() {
        let memory = Bytes::new(100);
        let budget = Budget::new(memory.clone());
        let mut first = budget.take("a model", 90).expect("it fits");
        let error = budget.take("a tensor", 11).expect_err("it does not");
        assert_eq!(
            error.to_string(),
            "a tensor takes about 11 bytes of memory, which is more than is left of 100: raise the \
             container's memory limit or wasmlet.dev/memory"
        );
        first.keep(20);
        assert_eq!(memory.used(), 20);
        first.keep(50);
        assert_eq!(memory.used(), 20, "more than there is");
        drop(first);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn there_is_a_last_one_of_everything() {
        let budget = Budget::new(Unlimited);
        for thing in [Thing::Graph, Thing::Context, Thing::Resource] {
            let mut all: Vec<One> = (0..thing.limit())
                .map(|_| budget.one(thing).expect("below the limit"))
                .collect();
            let error = budget.one(thing).expect_err("one too many");
            assert_eq!(
                error.to_string(),
                format!(
                    "a guest may have {} {} at a time",
                    thing.limit(),
                    thing.name()
                )
            );
            all.pop();
            all.push(budget.one(thing).expect("one was given back"));
        }
    }
}
