//! Keeping the store below its bound: least recently used first.
//!
//! Modules go before compiled entries, because containerd still has them. An entry's text goes
//! before its artifact, so that a crash between the two leaves an artifact without a text, which
//! the next round removes, and never a text without an artifact. Whoever has a file open keeps it.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::time::{Duration, SystemTime};

use tracing::{info, warn};

use crate::blobs::{STORE_LOCK, Shared};
use crate::cache::Usage;
use crate::counters::Counter;
use crate::digest::Digest;
use crate::error::Error;
use crate::folder::Folder;
use crate::lock::{Lock, LockFile};
use crate::meta::{MAX_META_BYTES, Meta};
use crate::staged::clean_temporaries;
use crate::unfit::{Opened, Unfit, examine};

/// An entry as far as eviction is concerned.
struct Listed {
    name: String,
    artifact: Digest,
    text_bytes: u64,
    used: SystemTime,
}

/// A module as far as eviction is concerned.
struct Module {
    digest: Digest,
    bytes: u64,
    used: SystemTime,
}

/// Makes room for so many bytes; removes what crashed writers left. The store's lock is held.
pub(crate) fn make_room(shared: &Shared, needed: u64) -> Result<(), Error> {
    let limit = shared.max_bytes;
    if needed > limit {
        return Err(Error::TooLarge {
            length: needed,
            limit,
            setting: "max_bytes",
        });
    }
    clean_locks(shared)?;
    if shared.root.stat("tmp").is_ok() {
        clean_temporaries(&shared.root.sub("tmp")?)?;
    }
    let metas = shared.root.sub("meta")?;
    let artifacts = shared.root.sub("artifacts")?;
    let modules = shared.root.sub("modules")?;

    let mut entries = list_entries(shared, &metas)?;
    let sizes = remove_orphans(shared, &artifacts, &entries)?;
    let mut old_modules = list_modules(shared, &modules)?;
    let mut total = sizes.values().sum::<u64>()
        + entries.iter().map(|entry| entry.text_bytes).sum::<u64>()
        + old_modules.iter().map(|module| module.bytes).sum::<u64>();

    // Newest first, so that the oldest is popped.
    old_modules.sort_by_key(|module| std::cmp::Reverse(module.used));
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.used));
    let mut evicted = 0;
    while total + needed > limit {
        if let Some(module) = old_modules.pop() {
            modules.remove(&module.digest.to_string())?;
            shared.seals.remove(&module.digest);
            total -= module.bytes;
        } else if let Some(entry) = entries.pop() {
            metas.remove(&entry.name)?;
            total -= entry.text_bytes;
            if entries.iter().all(|other| other.artifact != entry.artifact) {
                artifacts.remove(&entry.artifact.to_string())?;
                shared.seals.remove(&entry.artifact);
                total -= sizes.get(&entry.artifact).copied().unwrap_or(0);
            }
        } else {
            break;
        }
        evicted += 1;
    }
    if evicted > 0 {
        info!(
            evicted,
            bytes = total,
            limit,
            "made room in the compile cache"
        );
        shared.counters.add(Counter::Evicted, evicted);
    }
    Ok(())
}

/// What a store holds.
pub(crate) fn usage(root: &Folder) -> Result<Usage, Error> {
    let mut usage = Usage::default();
    for (name, count) in [
        ("meta", Some(&mut usage.entries)),
        ("artifacts", None),
        ("modules", Some(&mut usage.modules)),
    ] {
        let folder = root.sub(name)?;
        let sizes = folder
            .names()?
            .into_iter()
            .filter_map(|name| folder.stat(&name).ok());
        let mut files = 0;
        for size in sizes {
            files += 1;
            usage.bytes += u64::try_from(size.st_size).unwrap_or(0);
        }
        if let Some(count) = count {
            *count = files;
        }
    }
    Ok(usage)
}

/// Removes the lock files of processes that died holding them.
fn clean_locks(shared: &Shared) -> Result<(), Error> {
    for name in shared.locks.names()? {
        if name != STORE_LOCK {
            // Dropping a lock removes its file; one that is held is left alone.
            drop(Lock::try_take(&shared.locks, &name, LockFile::Remove)?);
        }
    }
    Ok(())
}

/// Reads all entries; removes those that are not what they should be.
fn list_entries(shared: &Shared, metas: &Folder) -> Result<Vec<Listed>, Error> {
    let mut entries = Vec::new();
    for name in metas.names()? {
        let unfit = match examine(metas, &name)? {
            Opened::Absent => continue,
            Opened::Unfit(unfit) => unfit,
            Opened::Fit((file, file_meta)) => {
                let mut text = Vec::new();
                let read = file.take(MAX_META_BYTES + 1).read_to_end(&mut text);
                match read
                    .map_err(Unfit::from)
                    .and_then(|_| Ok(Meta::decode(&text)?))
                {
                    Ok(meta) if meta.key.to_string() == name => {
                        entries.push(Listed {
                            name,
                            artifact: meta.artifact,
                            text_bytes: file_meta.len(),
                            used: file_meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                        });
                        continue;
                    }
                    Ok(meta) => crate::meta::MetaSyntax::OtherKey(meta.key).into(),
                    Err(unfit) => unfit,
                }
            }
        };
        warn!(path = %metas.child(&name).display(), reason = %unfit, "dropping a corrupt entry of the cache");
        shared.counters.add(Counter::Corrupt, 1);
        if let Err(error) = metas.remove(&name) {
            warn!(%error, "a corrupt entry stays in the cache");
        }
    }
    Ok(entries)
}

/// Removes artifacts that no entry names; returns the sizes of the others.
fn remove_orphans(
    shared: &Shared,
    artifacts: &Folder,
    entries: &[Listed],
) -> Result<HashMap<Digest, u64>, Error> {
    let named: HashSet<Digest> = entries.iter().map(|entry| entry.artifact).collect();
    let mut sizes = HashMap::new();
    for name in artifacts.names()? {
        match name.parse::<Digest>() {
            Ok(digest) if named.contains(&digest) => {
                if let Ok(stat) = artifacts.stat(&name) {
                    sizes.insert(digest, u64::try_from(stat.st_size).unwrap_or(0));
                }
            }
            orphan => {
                info!(path = %artifacts.child(&name).display(), "removing an artifact that no entry names");
                if let Err(error) = artifacts.remove(&name) {
                    warn!(%error, "a file that is no artifact stays in the cache");
                }
                if let Ok(digest) = orphan {
                    shared.seals.remove(&digest);
                }
            }
        }
    }
    Ok(sizes)
}

fn list_modules(shared: &Shared, modules: &Folder) -> Result<Vec<Module>, Error> {
    let mut listed = Vec::new();
    for name in modules.names()? {
        let Ok(digest) = name.parse::<Digest>() else {
            warn!(path = %modules.child(&name).display(), "not a module: not counted, not removed");
            continue;
        };
        let Ok(stat) = modules.stat(&name) else {
            continue;
        };
        let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
        let made = SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_secs(seconds))
            .unwrap_or(SystemTime::UNIX_EPOCH);
        let used = shared
            .seals
            .last_use(&digest)
            .map_or(made, |used| used.max(made));
        listed.push(Module {
            digest,
            bytes: u64::try_from(stat.st_size).unwrap_or(0),
            used,
        });
    }
    Ok(listed)
}
