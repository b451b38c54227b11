//! The bound on the store's size.

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime};

use support::{Fixture, artifact, compiled, content, key};
use wasmlet_cache::{Digest, Error};
use wasmlet_protocol::FailureReason;

const ARTIFACT_BYTES: usize = 10_000;

/// Room for three entries with their texts, not for four.
fn small() -> Fixture {
    Fixture::with(|options| options.max_bytes = 3 * ARTIFACT_BYTES as u64 + 5000)
}

/// Sets when an entry was last used, as its text's mtime says.
#[track_caller]
fn used(store: &Fixture, name: &str, seconds_ago: u64) {
    let file = File::open(store.meta_path(&key(name))).expect("an entry");
    file.set_modified(SystemTime::now() - Duration::from_secs(seconds_ago))
        .expect("it is ours");
}

#[track_caller]
fn fill(store: &Fixture) {
    for (number, name) in ["one", "two", "three"].into_iter().enumerate() {
        store.publish(&key(name), &artifact(number as u64, ARTIFACT_BYTES));
        used(store, name, 3000 - 1000 * number as u64);
    }
    assert_eq!(store.cache.usage().expect("it can be listed").entries, 3);
}

fn present(store: &Fixture) -> Vec<&'static str> {
    let names = ["one", "two", "three", "four"];
    names
        .into_iter()
        .filter(|name| store.meta_path(&key(name)).exists())
        .collect()
}

#[test]
fn the_least_recently_used_entry_goes_first() {
    let store = small();
    fill(&store);
    assert!(
        store.lookup(&key("one")).is_some(),
        "used just now, so `two` is the oldest"
    );
    store.publish(&key("four"), &artifact(4, ARTIFACT_BYTES));
    assert_eq!(present(&store), ["one", "three", "four"]);
    assert!(!store.artifact_path(&artifact(1, ARTIFACT_BYTES)).exists());
    let counters = store.cache.counters().expect("counters");
    assert_eq!((counters.evicted, counters.corrupt), (1, 0));
    assert!(
        store.lookup(&key("two")).is_none(),
        "an evicted entry is a plain miss"
    );
    assert_eq!(store.corrupt(), 0);
    let usage = store.cache.usage().expect("it can be listed");
    assert!(usage.bytes <= 3 * ARTIFACT_BYTES as u64 + 5000, "{usage:?}");
}

#[test]
fn an_open_entry_stays_usable_when_it_is_evicted() {
    let store = small();
    fill(&store);
    let entry = store.lookup(&key("one")).expect("a hit");
    for name in ["one", "two", "three"] {
        used(&store, name, 1000);
    }
    store.publish(&key("four"), &artifact(4, 3 * ARTIFACT_BYTES));
    assert_eq!(present(&store), ["four"]);
    assert_eq!(content(&entry.artifact), artifact(0, ARTIFACT_BYTES));
}

#[test]
fn a_use_is_noted_at_most_once_a_minute() {
    let store = Fixture::new();
    store.publish(&key("one"), b"code");
    let mtime = || {
        fs::metadata(store.meta_path(&key("one")))
            .and_then(|meta| meta.modified())
            .expect("mtime")
    };
    used(&store, "one", 30);
    let before = mtime();
    assert!(store.lookup(&key("one")).is_some());
    assert_eq!(mtime(), before, "30 s ago is recent enough");
    used(&store, "one", 90);
    let before = mtime();
    assert!(store.lookup(&key("one")).is_some());
    assert!(mtime() > before, "90 s ago is not");
}

#[test]
fn an_artifact_that_another_entry_names_stays() {
    let store = small();
    let shared = artifact(9, ARTIFACT_BYTES);
    store.publish(&key("one"), &shared);
    store.publish(&key("two"), &shared);
    store.publish(&key("three"), &artifact(3, 2 * ARTIFACT_BYTES));
    used(&store, "one", 300);
    used(&store, "three", 200);
    used(&store, "two", 100);
    store.publish(&key("four"), &artifact(4, ARTIFACT_BYTES));
    assert_eq!(present(&store), ["two", "four"]);
    assert_eq!(
        content(&store.lookup(&key("two")).expect("a hit").artifact),
        shared
    );
}

#[test]
fn modules_go_before_compiled_entries() {
    let store = small();
    let module = artifact(7, ARTIFACT_BYTES);
    let digest = Digest::of(&module);
    let staged = store.cache.modules().stage().expect("a file");
    staged
        .file()
        .write_all_at(&module, 0)
        .expect("it can be written");
    store
        .cache
        .modules()
        .publish(staged, &digest)
        .expect("there is room");
    fill(&store);
    assert!(
        !store.cache.modules().path(&digest).exists(),
        "containerd still has it"
    );
    assert_eq!(present(&store), ["one", "two", "three"]);
}

#[test]
fn an_entry_larger_than_the_store_is_refused_and_evicts_nothing() {
    let store = small();
    fill(&store);
    let lock = store.cache.lock(&key("four")).expect("free");
    let staged = store.cache.stage().expect("a file");
    staged
        .file()
        .write_all_at(&artifact(4, 5 * ARTIFACT_BYTES), 0)
        .expect("it can be written");
    let back = store
        .cache
        .publish(&lock, staged, compiled())
        .expect_err("too large");
    assert!(
        matches!(
            back.error,
            Error::TooLarge {
                setting: "max_bytes",
                ..
            }
        ),
        "{}",
        back.error
    );
    assert_eq!(back.error.reason(), FailureReason::ResourceExhausted);
    assert_eq!(present(&store), ["one", "two", "three"]);
}

#[test]
fn what_crashed_writers_left_is_removed_by_the_next_one() {
    let store = Fixture::new();
    let orphan = store
        .path("artifacts")
        .join(Digest::of(b"orphan").to_string());
    fs::write(&orphan, b"orphan").expect("the name is free");
    let stray = store.path("artifacts/.stray");
    fs::write(&stray, b"stray").expect("the name is free");
    let dead_lock = store.path("lock").join(key("dead").to_string());
    fs::write(&dead_lock, b"").expect("the name is free");
    let torn = store.meta_path(&key("torn"));
    fs::write(&torn, b"wasmlet-cache 1 ").expect("the name is free");
    let held = store.cache.lock(&key("held")).expect("free");

    store.publish(&key("one"), b"code");
    for path in [&orphan, &stray, &dead_lock, &torn] {
        assert!(!path.exists(), "{}", path.display());
    }
    assert!(store.path("lock").join(key("held").to_string()).exists());
    assert!(
        store.cache.try_lock(&key("held")).expect("works").is_none(),
        "still held"
    );
    drop(held);
    assert!(store.lookup(&key("one")).is_some());
    assert_eq!(store.corrupt(), 1, "the torn text");
}
