//! A store in a temporary folder, and entries to put into it.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use wasmlet_cache::{Cache, Digest, Entry, Key, Options};
use wasmlet_protocol::{Compiled, GuestKind};

/// A store that vanishes with the test.
pub(crate) struct Fixture {
    pub(crate) temp: tempfile::TempDir,
    pub(crate) cache: Cache,
}

impl Fixture {
    pub(crate) fn new() -> Fixture {
        Fixture::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Options)) -> Fixture {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let mut options = options(temp.path());
        change(&mut options);
        let cache = Cache::open(options).expect("the store opens");
        Fixture { temp, cache }
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.temp.path().join("cache").join(relative)
    }

    pub(crate) fn meta_path(&self, key: &Key) -> PathBuf {
        self.path("meta").join(key.to_string())
    }

    pub(crate) fn artifact_path(&self, bytes: &[u8]) -> PathBuf {
        self.path("artifacts").join(Digest::of(bytes).to_string())
    }

    pub(crate) fn seal_path(&self, bytes: &[u8]) -> PathBuf {
        self.temp
            .path()
            .join("run/verified")
            .join(Digest::of(bytes).to_string())
    }

    /// Compiles, so to speak.
    #[track_caller]
    pub(crate) fn publish(&self, key: &Key, bytes: &[u8]) -> Entry {
        let lock = self.cache.lock(key).expect("the lock is free");
        let staged = self.cache.stage().expect("a file can be staged");
        staged
            .file()
            .write_all_at(bytes, 0)
            .expect("it can be written");
        self.cache
            .publish(&lock, staged, compiled())
            .expect("it can be published")
    }

    #[track_caller]
    pub(crate) fn lookup(&self, key: &Key) -> Option<Entry> {
        self.cache.lookup(key).expect("a lookup does not fail")
    }

    #[track_caller]
    pub(crate) fn corrupt(&self) -> u64 {
        self.cache.counters().expect("counters").corrupt
    }

    /// Looks up until the artifact has a seal, which it gets once its last change is old enough.
    #[track_caller]
    pub(crate) fn seal(&self, key: &Key, bytes: &[u8]) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.seal_path(bytes).exists() {
            assert!(self.lookup(key).is_some(), "the entry is there");
            assert!(Instant::now() < deadline, "no seal after 10 s");
            std::thread::yield_now();
        }
    }
}

pub(crate) fn options(temp: &Path) -> Options {
    Options {
        dir: temp.join("cache"),
        run_dir: temp.join("run"),
        max_bytes: 1 << 30,
        max_entry_bytes: 1 << 28,
    }
}

pub(crate) fn key(name: &str) -> Key {
    Key::new(
        &Digest::of(name.as_bytes()),
        "wasmtime",
        "compatibility",
        "build",
        "default",
    )
}

pub(crate) fn compiled() -> Compiled {
    Compiled {
        kind: GuestKind::Module,
        exports: vec!["_start".to_owned(), "run".to_owned()],
        wants_listener: false,
        needs: wasmlet_protocol::Needs::default(),
        min_memory: 1 << 16,
        peak_memory: 7 << 20,
        millis: 40,
    }
}

/// All bytes of a file, whatever its offset.
#[track_caller]
pub(crate) fn content(file: &File) -> Vec<u8> {
    let length = file.metadata().expect("an open file").len();
    let mut bytes = vec![0; usize::try_from(length).expect("it fits")];
    file.read_exact_at(&mut bytes, 0).expect("it can be read");
    bytes
}

/// Bytes that no other seed gives.
pub(crate) fn artifact(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random(seed);
    (0..length).map(|_| (random.next() >> 32) as u8).collect()
}

/// A fixed sequence of numbers (SplitMix64), so that a failure can be run again.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
