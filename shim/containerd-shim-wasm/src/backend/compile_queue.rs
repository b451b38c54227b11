//! Whose turn it is to compile.
//!
//! A start needs two things before its helper runs: the module's lock, so that of many starts of one module
//! one compiles and the others find its entry, and a place, of which the node has as many as it gives
//! processors to compiling. Nobody holds the lock while it waits for a place, and every wait has an end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmlet_cache::{Cache, Entry, Key, KeyLock};

use super::compile::blocking;
use super::compile_cgroup::{Slot, Slots};
use crate::error::{Error, Result};

/// Between two looks whether it is this process's turn: grows from the first to the second. The end of
/// who has it is no event on any descriptor.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Those who wait to compile.
pub(super) struct Queue {
    pub(super) slots: Slots,
    /// How long a wait may take.
    pub(super) patience: Duration,
}

/// The end of a wait.
#[derive(Debug)]
pub(super) enum Turn {
    /// Somebody else has compiled it.
    Done(Entry),
    /// This process does.
    Ours(KeyLock, Slot),
}

/// A look at the queue.
enum Look {
    Turn(Box<Turn>),
    /// Somebody compiles this very module.
    SameModule,
    /// All places are taken.
    NoPlace,
}

impl Queue {
    /// Waits until the module is compiled, or can be by this process: both its lock and a place are
    /// taken, or neither.
    pub(super) async fn turn(&self, cache: &Arc<Cache>, key: Key, module: &str) -> Result<Turn> {
        let start = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut no_place: Option<Instant> = None;
        loop {
            let (of_task, slots) = (Arc::clone(cache), self.slots.clone());
            let look = blocking(move || look(&of_task, &key, &slots)).await?;
            if let Look::Turn(turn) = look {
                return Ok(*turn);
            }
            if matches!(look, Look::NoPlace) {
                no_place = Some(Instant::now());
            }
            let left = self.patience.saturating_sub(start.elapsed());
            if left.is_zero() {
                // Others who wait for a place hold the module's lock for the moment of their look.
                let missing = match no_place {
                    Some(at) if at.elapsed() < LONGEST_PAUSE * 20 => Missing::Place,
                    _ => Missing::Lock,
                };
                return Err(self.too_long(module, missing));
            }
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn too_long(&self, module: &str, what: Missing) -> Error {
        let seconds = self.patience.as_secs();
        let (bound, key) = match what {
            Missing::Lock => (
                format!("for another container has not come to an end in {seconds} s"),
                "CompileTimeoutSeconds",
            ),
            Missing::Place => (
                format!(
                    "did not begin within {seconds} s, as other modules took all {} places for \
                     compiling on this node",
                    self.slots.count()
                ),
                "CompileCpus",
            ),
        };
        Error::CompileBound {
            module: module.to_owned(),
            bound,
            key,
        }
    }
}

/// What a wait ended without.
enum Missing {
    /// The module's lock.
    Lock,
    /// A place.
    Place,
}

fn look(cache: &Cache, key: &Key, slots: &Slots) -> Result<Look> {
    let Some(lock) = cache.try_lock(key)? else {
        return Ok(Look::SameModule);
    };
    if let Some(entry) = cache.lookup_locked(&lock)? {
        return Ok(Look::Turn(Box::new(Turn::Done(entry))));
    }
    Ok(match slots.try_take()? {
        Some(slot) => Look::Turn(Box::new(Turn::Ours(lock, slot))),
        None => Look::NoPlace,
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use wasmlet_protocol::{Compiled, GuestKind};

    use super::super::compile_cgroup::tests::slots;
    use super::*;

    /// A cache, a module that is not in it, and a queue with one place.
    struct Node {
        _folder: tempfile::TempDir,
        cache: Arc<Cache>,
        key: Key,
        queue: Queue,
    }

    fn node(patience: Duration) -> Node {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(wasmlet_cache::Options {
            dir: folder.path().join("cache"),
            run_dir: folder.path().join("run"),
            ..wasmlet_cache::Options::default()
        })
        .expect("a new cache");
        let digest = "ab".repeat(32).parse().expect("a digest");
        Node {
            cache: Arc::new(cache),
            key: Key::new(&digest, "engine", "compatibility", "build", "default"),
            queue: Queue {
                slots: slots(folder.path(), 1),
                patience,
            },
            _folder: folder,
        }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime")
            .block_on(future)
    }

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(30);

    #[test]
    fn without_a_free_place_a_wait_ends_with_what_to_do_and_leaves_the_module_to_others() {
        let node = node(SHORT);
        let _taken = node.queue.slots.try_take().expect("works").expect("free");
        let error = run(node.queue.turn(&node.cache, node.key, "/a.wasm")).expect_err("no place");
        let text = error.to_string();
        assert!(
            text.starts_with("compiling /a.wasm did not begin within 0 s"),
            "{text}"
        );
        assert!(
            text.contains("all 1 places") && text.contains("CompileCpus"),
            "{text}"
        );
        let lock = node.cache.try_lock(&node.key).expect("works");
        assert!(lock.is_some(), "the module's lock is free");
    }

    #[test]
    fn a_module_that_somebody_compiles_is_waited_for_without_a_place() {
        let node = node(SHORT);
        let _compiles = node
            .cache
            .try_lock(&node.key)
            .expect("works")
            .expect("free");
        let error = run(node.queue.turn(&node.cache, node.key, "/a.wasm")).expect_err("locked");
        assert!(
            error.to_string().contains("CompileTimeoutSeconds"),
            "{error}"
        );
        let slot = node.queue.slots.try_take().expect("works");
        assert!(slot.is_some(), "the place is free");
    }

    #[test]
    fn a_place_that_becomes_free_is_taken() {
        let node = node(LONG);
        let taken = node.queue.slots.try_take().expect("works").expect("free");
        let turn = run(async {
            let wait = node.queue.turn(&node.cache, node.key, "/a.wasm");
            let free = async move {
                tokio::task::yield_now().await;
                drop(taken);
            };
            tokio::join!(wait, free).0
        });
        assert!(matches!(turn, Ok(Turn::Ours(..))), "{turn:?}");
        assert!(node.queue.slots.try_take().expect("works").is_none());
    }

    #[test]
    fn what_somebody_else_compiled_is_used_although_no_place_is_free() {
        let node = node(LONG);
        let _taken = node.queue.slots.try_take().expect("works").expect("free");
        let lock = node
            .cache
            .try_lock(&node.key)
            .expect("works")
            .expect("free");
        let staged = node.cache.stage().expect("an empty file");
        io::Write::write_all(&mut staged.file(), b"artifact").expect("there is room");
        let compiled = Compiled {
            kind: GuestKind::Module,
            exports: Vec::new(),
            wants_listener: false,
            needs: wasmlet_protocol::Needs::default(),
            min_memory: 0,
            peak_memory: 0,
            millis: 0,
        };
        let turn = run(async {
            let wait = node.queue.turn(&node.cache, node.key, "/a.wasm");
            let publish = async {
                tokio::task::yield_now().await;
                node.cache
                    .publish(&lock, staged, compiled)
                    .expect("published");
                drop(lock);
            };
            tokio::join!(wait, publish).0
        });
        assert!(matches!(turn, Ok(Turn::Done(_))), "{turn:?}");
    }
}
