//! Many processes at once, and processes that are killed: this program runs itself as the workers.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{Fixture, Random, artifact, compiled, content, key, options};
use wasmlet_cache::Cache;

/// Folder of the store, in a worker's environment.
const FOLDER: &str = "WASMLET_CACHE_TEST_FOLDER";
/// Name of the key.
const NAME: &str = "WASMLET_CACHE_TEST_NAME";

const ARTIFACT_BYTES: usize = 300_000;

fn spawn(folder: &Path, name: &str) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args([
            "--exact",
            "a_worker_starts_one_container",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(FOLDER, folder)
        .env(NAME, name)
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program starts")
}

/// Tells the parent how far it came; the parent kills at one of these.
fn step(name: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "step {name}").expect("the parent listens");
    out.flush().expect("the parent listens");
}

/// Not a test of its own: what a shim does at a start, when the parent's environment says so.
#[test]
fn a_worker_starts_one_container() {
    let (Some(folder), Ok(name)) = (std::env::var_os(FOLDER), std::env::var(NAME)) else {
        return;
    };
    let cache = Cache::open(options(Path::new(&folder))).expect("the store opens");
    let key = key(&name);
    let expected = artifact(11, ARTIFACT_BYTES);
    step("look");
    if let Some(entry) = cache.lookup(&key).expect("a lookup does not fail") {
        assert_eq!(content(&entry.artifact), expected);
        return;
    }
    step("lock");
    let deadline = Instant::now() + Duration::from_secs(120);
    let lock = cache
        .lock_until(&key, deadline)
        .expect("the lock comes free");
    step("look again");
    if let Some(entry) = cache.lookup_locked(&lock).expect("a lookup does not fail") {
        assert_eq!(content(&entry.artifact), expected);
        return;
    }
    let staged = cache.stage().expect("a file");
    step("write");
    for (number, chunk) in expected.chunks(ARTIFACT_BYTES / 8).enumerate() {
        let offset = number * (ARTIFACT_BYTES / 8);
        staged
            .file()
            .write_all_at(chunk, offset as u64)
            .expect("it can be written");
        step("written some");
    }
    cache.record_compile(&compiled());
    step("publish");
    let entry = cache
        .publish(&lock, staged, compiled())
        .expect("it can be published");
    step("published");
    assert_eq!(content(&entry.artifact), expected);
    drop(lock);
    step("unlocked");
}

#[test]
fn fifty_cold_starts_compile_once() {
    let store = Fixture::new();
    let workers: Vec<Child> = (0..50).map(|_| spawn(store.temp.path(), "cold")).collect();
    for worker in workers {
        let output = worker.wait_with_output().expect("it is ours");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
    let counters = store.cache.counters().expect("counters");
    assert_eq!(counters.compile, 1, "{counters:?}");
    assert_eq!(counters.hit + counters.miss, 50, "{counters:?}");
    assert_eq!((counters.corrupt, counters.evicted), (0, 0), "{counters:?}");
    let locks = std::fs::read_dir(store.path("lock")).expect("a folder");
    let locks: Vec<_> = locks
        .map(|lock| lock.expect("a name").file_name())
        .collect();
    assert_eq!(locks, ["store"], "lock files are gone");
}

#[test]
fn a_writer_killed_anywhere_leaves_nothing_wrong_and_nothing_locked() {
    let store = Fixture::new();
    let expected = artifact(11, ARTIFACT_BYTES);
    let mut random = Random(0x6b69_6c6c);
    let mut killed = 0;
    for round in 0..60 {
        let name = format!("round {round}");
        let mut worker = spawn(store.temp.path(), &name);
        // Steps 12 to 14 are around publishing: half of the rounds go there.
        let last = if round % 2 == 0 {
            12 + random.below(3)
        } else {
            1 + random.below(14)
        };
        let lines = BufReader::new(worker.stdout.take().expect("a pipe")).lines();
        let steps = lines
            .map_while(Result::ok)
            .filter(|line| line.contains("step "))
            .take(last)
            .count();
        assert!(steps > 0, "round {round}: the worker did nothing");
        worker.kill().expect("it is ours");
        if worker.wait().expect("it is ours").signal() == Some(9) {
            killed += 1;
        }

        let key = key(&name);
        let lock = store.cache.try_lock(&key).expect("works");
        assert!(
            lock.is_some(),
            "round {round}: the lock died with its holder"
        );
        drop(lock);
        if let Some(entry) = store.lookup(&key) {
            assert_eq!(content(&entry.artifact), expected, "round {round}");
        }
        store.publish(&key, &expected);
        assert_eq!(
            content(&store.lookup(&key).expect("a hit").artifact),
            expected
        );
        assert_eq!(store.corrupt(), 0, "round {round}: a kill tears nothing");
    }
    assert!(
        killed > 20,
        "only {killed} of 60 workers were killed before they were done"
    );
    assert_eq!(
        std::fs::read_dir(store.path("artifacts"))
            .expect("a folder")
            .count(),
        1
    );
    assert_eq!(store.cache.usage().expect("it can be listed").entries, 60);
    assert_eq!(
        std::fs::read_dir(store.path("lock"))
            .expect("a folder")
            .count(),
        1
    );
}
