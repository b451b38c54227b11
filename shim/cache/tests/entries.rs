//! Entries: what goes in comes out, and nothing else ever does.

mod support;

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use support::{Fixture, Random, artifact, compiled, content, key};
use wasmlet_cache::{Digest, Error};

#[test]
fn a_published_entry_is_found_and_is_what_was_written() {
    let store = Fixture::new();
    let key = key("hello");
    assert!(store.lookup(&key).is_none());
    let bytes = artifact(1, 100_000);
    let entry = store.publish(&key, &bytes);
    assert_eq!(content(&entry.artifact), bytes);

    let entry = store.lookup(&key).expect("a hit");
    assert_eq!(content(&entry.artifact), bytes);
    assert_eq!(entry.meta.compiled, compiled());
    assert_eq!(entry.meta.artifact, Digest::of(&bytes));
    assert_eq!(entry.meta.length, bytes.len() as u64);
    let counters = store.cache.counters().expect("counters");
    assert_eq!((counters.hit, counters.miss, counters.corrupt), (1, 1, 0));
    assert!(store.lookup(&support::key("other")).is_none());
}

#[test]
fn nothing_can_write_an_artifact_that_was_handed_out() {
    let store = Fixture::new();
    let entry = store.publish(&key("hello"), b"native code");
    let meta = entry.artifact.metadata().expect("an open file");
    assert_eq!(meta.mode() & 0o7777, 0o400);
    assert_eq!(meta.nlink(), 1);
    entry
        .artifact
        .write_at(b"x", 0)
        .expect_err("it is open for reading");
    for folder in ["", "meta", "artifacts", "modules", "lock"] {
        let mode = fs::metadata(store.path(folder)).expect("a folder").mode();
        assert_eq!(mode & 0o7777, 0o700, "{folder}");
    }
}

#[test]
fn costs_of_compilations_add_up() {
    let store = Fixture::new();
    store.cache.record_compile(&compiled());
    store.cache.record_compile(&wasmlet_protocol::Compiled {
        millis: 2,
        peak_memory: 1,
        ..compiled()
    });
    let counters = store.cache.counters().expect("counters");
    assert_eq!((counters.compile, counters.compile_millis), (2, 42));
    assert_eq!(counters.compile_peak_max_bytes, 7 << 20);
    assert_eq!(counters.compile_peak_bytes, (7 << 20) + 1);
}

/// One way to spoil an entry on the disk.
type Spoil = fn(&Fixture, &std::path::Path);

fn rewrite(path: &std::path::Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("it can be read");
    change(&mut bytes);
    fs::set_permissions(path, Permissions::from_mode(0o600)).expect("it is ours");
    File::create(path)
        .and_then(|mut file| file.write_all(&bytes))
        .expect("it can be written");
    fs::set_permissions(path, Permissions::from_mode(0o400)).expect("it is ours");
}

const SPOILS: [(&str, Spoil); 12] = [
    ("truncated", |_, path| {
        rewrite(path, |bytes| bytes.truncate(bytes.len() - 1));
    }),
    ("empty", |_, path| rewrite(path, Vec::clear)),
    ("longer", |_, path| rewrite(path, |bytes| bytes.push(0))),
    ("one bit flipped", |_, path| {
        rewrite(path, |bytes| bytes[60] ^= 4);
    }),
    ("missing", |_, path| {
        fs::remove_file(path).expect("it was there");
    }),
    ("group-writable", |_, path| {
        fs::set_permissions(path, Permissions::from_mode(0o420)).expect("it is ours");
    }),
    ("unreadable", |_, path| {
        fs::set_permissions(path, Permissions::from_mode(0o000)).expect("it is ours");
    }),
    ("a symbolic link to a copy", |store, path| {
        let copy = store.temp.path().join("copy");
        fs::rename(path, &copy).expect("it was there");
        symlink(copy, path).expect("the name is free");
    }),
    ("linked twice", |store, path| {
        fs::hard_link(path, store.temp.path().join("link")).expect("the name is free");
    }),
    ("a FIFO", |_, path| {
        fs::remove_file(path).expect("it was there");
        mkfifo(path, Mode::from_bits_truncate(0o400)).expect("the name is free");
    }),
    ("a socket", |_, path| {
        fs::remove_file(path).expect("it was there");
        // Longer than a socket's address may be, so by a shorter way.
        let short = tempfile::tempdir().expect("a temporary folder");
        let socket = short.path().join("s");
        std::os::unix::net::UnixListener::bind(&socket).expect("the name is free");
        fs::rename(socket, path).expect("the same file system");
    }),
    ("an empty folder", |_, path| {
        fs::remove_file(path).expect("it was there");
        fs::create_dir(path).expect("the name is free");
    }),
];

/// A spoiled entry is a miss, is counted, is gone afterwards, and can be compiled again.
#[track_caller]
fn dropped(what: &str, sealed: bool, spoil: impl FnOnce(&Fixture)) {
    let store = Fixture::new();
    let key = key("hello");
    let bytes = artifact(2, 5000);
    store.publish(&key, &bytes);
    if sealed {
        store.seal(&key, &bytes);
    }
    spoil(&store);
    assert!(store.lookup(&key).is_none(), "{what}, sealed: {sealed}");
    // A text that is gone was not found to be wrong: the entry just is not there.
    if what != "text: missing" {
        assert_eq!(store.corrupt(), 1, "{what}, sealed: {sealed}");
    }
    assert!(
        fs::symlink_metadata(store.meta_path(&key)).is_err(),
        "{what}: the text is gone"
    );
    let entry = store.publish(&key, &bytes);
    assert_eq!(content(&entry.artifact), bytes, "{what}");
    let entry = store.lookup(&key).expect("a hit");
    assert_eq!(content(&entry.artifact), bytes, "{what}");
}

#[test]
fn whatever_happens_to_an_artifact_it_is_dropped_and_compiled_again() {
    for (what, spoil) in SPOILS {
        for sealed in [false, true] {
            dropped(&format!("artifact: {what}"), sealed, |store| {
                spoil(store, &store.artifact_path(&artifact(2, 5000)));
            });
        }
    }
}

#[test]
fn whatever_happens_to_an_entrys_text_it_is_dropped_and_compiled_again() {
    for (what, spoil) in SPOILS {
        dropped(&format!("text: {what}"), true, |store| {
            spoil(store, &store.meta_path(&key("hello")));
        });
    }
}

#[test]
fn an_entry_of_another_owner_is_dropped() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can give files away");
        return;
    }
    let other = Some(nix::unistd::Uid::from_raw(65534));
    for text in [false, true] {
        dropped("owner", true, |store| {
            let artifact = store.artifact_path(&artifact(2, 5000));
            let path = if text {
                store.meta_path(&key("hello"))
            } else {
                artifact
            };
            nix::unistd::chown(&path, other, None).expect("root may");
        });
    }
}

#[test]
fn swapped_entries_are_both_dropped() {
    for folder in ["meta", "artifacts"] {
        let store = Fixture::new();
        let (one, two) = (key("one"), key("two"));
        let (first, second) = (artifact(1, 5000), artifact(2, 5000));
        store.publish(&one, &first);
        store.publish(&two, &second);
        store.seal(&one, &first);
        store.seal(&two, &second);
        let paths = match folder {
            "meta" => [store.meta_path(&one), store.meta_path(&two)],
            _ => [store.artifact_path(&first), store.artifact_path(&second)],
        };
        let spare = store.temp.path().join("spare");
        fs::rename(&paths[0], &spare).expect("it was there");
        fs::rename(&paths[1], &paths[0]).expect("it was there");
        fs::rename(&spare, &paths[1]).expect("it was there");
        assert!(store.lookup(&one).is_none(), "{folder}");
        assert!(store.lookup(&two).is_none(), "{folder}");
        assert_eq!(store.corrupt(), 2, "{folder}");
    }
}

/// Bytes that this thread has read so far, from files and everything else.
fn bytes_read() -> u64 {
    let io = fs::read_to_string("/proc/thread-self/io").expect("this thread's counts");
    let count = io
        .lines()
        .find_map(|line| line.strip_prefix("rchar: "))
        .expect("a line");
    count.parse().expect("a number")
}

#[test]
fn a_warm_start_reads_no_byte_of_a_sealed_artifact() {
    let store = Fixture::new();
    let key = key("large");
    let bytes = artifact(6, 4 << 20);
    store.publish(&key, &bytes);
    store.seal(&key, &bytes);
    let before = bytes_read();
    assert!(store.lookup(&key).is_some());
    let warm = bytes_read() - before;
    assert!(warm < 10_000, "{warm} bytes were read");
    fs::remove_file(store.seal_path(&bytes)).expect("it was there");
    let before = bytes_read();
    assert!(store.lookup(&key).is_some());
    let cold = bytes_read() - before;
    assert!(cold > 4 << 20, "{cold} bytes were read");
}

#[test]
fn a_sealed_artifact_is_not_read_again_and_a_touched_one_is() {
    let store = Fixture::new();
    let key = key("hello");
    let bytes = artifact(3, 4000);
    store.publish(&key, &bytes);
    store.seal(&key, &bytes);
    let seal = fs::read(store.seal_path(&bytes)).expect("a seal");

    // What a seal saves is reading: a seal with a wrong stat is not believed, and renewed.
    fs::write(store.seal_path(&bytes), "seal 1 nonsense\n").expect("it is ours");
    assert!(store.lookup(&key).is_some());
    assert_eq!(
        fs::read(store.seal_path(&bytes)).expect("a seal"),
        seal,
        "written again"
    );

    // The same bytes with another mtime: the content is looked at again, and is right.
    let path = store.artifact_path(&bytes);
    let file = File::open(&path).expect("it is ours");
    file.set_modified(std::time::UNIX_EPOCH)
        .expect("it is ours");
    assert!(store.lookup(&key).is_some());
    assert_eq!(store.corrupt(), 0);
}

#[test]
fn a_seal_that_lies_about_the_boot_or_the_stat_is_not_believed() {
    let store = Fixture::new();
    let key = key("hello");
    let bytes = artifact(4, 4000);
    store.publish(&key, &bytes);
    store.seal(&key, &bytes);
    let seal = fs::read_to_string(store.seal_path(&bytes)).expect("a seal");
    let path = store.artifact_path(&bytes);
    rewrite(&path, |bytes| bytes[7] ^= 1);
    // Everything but the change time can be put back.
    let file = File::open(&path).expect("it is ours");
    let words: Vec<&str> = seal.split_whitespace().collect();
    let (seconds, nanos) = words[6].split_once('.').expect("seconds and nanoseconds");
    let mtime = std::time::UNIX_EPOCH
        + std::time::Duration::new(
            seconds.parse().expect("a number"),
            nanos.parse().expect("a number"),
        );
    file.set_modified(mtime).expect("it is ours");
    let stamp = |seal: &str| seal.rsplit_once(' ').map(|(start, _)| start.to_owned());
    let meta = file.metadata().expect("an open file");
    assert_eq!(
        stamp(&seal).expect("a seal has words").rsplit(' ').next(),
        Some(format!("{}.{:09}", meta.mtime(), meta.mtime_nsec()).as_str()),
        "the mtime is that of the seal again"
    );
    assert!(store.lookup(&key).is_none());
    assert_eq!(store.corrupt(), 1);
}

#[test]
fn a_thousand_mutations_of_an_entry_never_yield_wrong_bytes() {
    let store = Fixture::new();
    let key = key("hello");
    let bytes = artifact(5, 3000);
    let mut random = Random(0x7761_736d);
    let mut hits = 0;
    for round in 0..1000 {
        if store.lookup(&key).is_none() {
            store.publish(&key, &bytes);
        }
        if round % 50 == 0 {
            store.seal(&key, &bytes); // a seal must not make any of them pass
        }
        let path = match random.below(2) {
            0 => store.artifact_path(&bytes),
            _ => store.meta_path(&key),
        };
        rewrite(&path, |bytes| {
            for _ in 0..=random.below(3) {
                let length = bytes.len();
                match random.below(5) {
                    _ if length == 0 => bytes.push(random.next() as u8),
                    0 => bytes.truncate(random.below(length)),
                    1 => bytes.extend((0..random.below(40)).map(|_| 0)),
                    2 => bytes.swap(random.below(length), random.below(length)),
                    3 => bytes[random.below(length)] = random.next() as u8,
                    _ => bytes[random.below(length)] ^= 1 << random.below(8),
                }
            }
        });
        if let Some(entry) = store.lookup(&key) {
            hits += 1; // a mutation may leave the bytes as they were
            assert_eq!(content(&entry.artifact), bytes, "round {round}");
            assert_eq!(entry.meta.compiled, compiled(), "round {round}");
        }
    }
    assert!(hits < 100, "{hits} of 1000 mutations changed nothing");
    assert_eq!(store.corrupt(), 1000 - hits);
}

#[test]
fn the_winners_artifact_is_used_by_who_comes_second() {
    let store = Fixture::new();
    let key = key("hello");
    store.publish(&key, b"from the winner");
    let second = store.publish(&key, b"compiled once more, another way");
    assert_eq!(content(&second.artifact), b"from the winner");
    assert_eq!(store.cache.usage().expect("it can be listed").entries, 1);
}

#[test]
fn two_keys_with_the_same_artifact_share_it() {
    let store = Fixture::new();
    store.publish(&key("one"), b"the same code");
    store.publish(&key("two"), b"the same code");
    for name in ["one", "two"] {
        let entry = store.lookup(&key(name)).expect("a hit");
        assert_eq!(content(&entry.artifact), b"the same code");
    }
    let files = fs::read_dir(store.path("artifacts"))
        .expect("a folder")
        .count();
    assert_eq!(files, 1);
}

#[test]
fn an_empty_or_too_large_artifact_is_refused_and_comes_back() {
    let store = Fixture::with(|options| options.max_entry_bytes = 10);
    let lock = store.cache.lock(&key("hello")).expect("free");
    let staged = store.cache.stage().expect("a file");
    let back = store
        .cache
        .publish(&lock, staged, compiled())
        .expect_err("empty");
    assert!(matches!(back.error, Error::Empty), "{}", back.error);
    assert!(matches!(back.staged.into_uncached(), Err(Error::Empty)));

    let staged = store.cache.stage().expect("a file");
    staged
        .file()
        .write_all_at(b"eleven long", 0)
        .expect("it can be written");
    let back = store
        .cache
        .publish(&lock, staged, compiled())
        .expect_err("too large");
    assert_eq!(
        back.error.to_string(),
        "11 bytes are more than the 10 bytes that the compile cache takes: raise max_entry_bytes"
    );
    let file = back
        .staged
        .into_uncached()
        .expect("it can be used all the same");
    assert_eq!(content(&file), b"eleven long");
    file.write_at(b"x", 0).expect_err("it is open for reading");
}

#[test]
fn a_file_in_memory_can_be_used_and_not_published() {
    let store = Fixture::new();
    let lock = store.cache.lock(&key("hello")).expect("free");
    let staged = store.cache.stage_in_memory().expect("memory");
    staged
        .file()
        .write_all_at(b"code", 0)
        .expect("it can be written");
    let writer = staged
        .file()
        .try_clone()
        .expect("a descriptor, as the helper has one");
    let back = store
        .cache
        .publish(&lock, staged, compiled())
        .expect_err("in memory");
    assert!(matches!(back.error, Error::InMemory), "{}", back.error);
    let file = back.staged.into_uncached().expect("it can be used");
    assert_eq!(content(&file), b"code");
    writer
        .write_at(b"evil", 0)
        .expect_err("it is sealed, even for who had it open");
    assert_eq!(content(&file), b"code");
}

#[test]
fn a_module_is_stored_once_and_checked() {
    let store = Fixture::new();
    let modules = store.cache.modules();
    let digest = Digest::of(b"\0asm");
    assert!(modules.open(&digest).expect("works").is_none());
    let staged = modules.stage().expect("a file");
    staged
        .file()
        .write_all_at(b"\0asx", 0)
        .expect("it can be written");
    let back = modules.publish(staged, &digest).expect_err("other bytes");
    assert!(
        matches!(back.error, Error::WrongDigest { .. }),
        "{}",
        back.error
    );
    for _ in 0..2 {
        let staged = modules.stage().expect("a file");
        staged
            .file()
            .write_all_at(b"\0asm", 0)
            .expect("it can be written");
        let blob = modules.publish(staged, &digest).expect("the right bytes");
        assert_eq!(content(&blob.file), b"\0asm");
    }
    assert!(modules.open(&digest).expect("works").is_some());
    rewrite(&modules.path(&digest), |bytes| bytes[3] = b'x');
    assert!(modules.open(&digest).expect("works").is_none());
    assert_eq!(store.corrupt(), 1);
    assert!(!modules.path(&digest).exists());
}
