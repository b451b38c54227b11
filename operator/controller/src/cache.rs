//! What is known of one kind of object: what the watch showed, and, until it shows it, what we wrote ourselves.
//!
//! Without the second a plan would be made from a world in which the last plan did not happen. Both carry the object's resource
//! version; versions of one kind grow, and the API promises that they can be compared as numbers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::runtime::watcher::Event;

/// An object with what orders its versions.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen<T> {
    /// Its name; unique in the cache.
    pub name: String,
    /// `metadata.resourceVersion`, as a number.
    pub version: u64,
    /// What is kept of it; none: it is nothing that we can read, and counts as absent.
    pub value: Option<T>,
}

/// Whether something is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It is.
    Yes,
    /// Nothing that decides has changed: a heartbeat, or an echo of what we wrote.
    No,
}

/// The objects of one kind.
#[derive(Debug)]
pub struct Cache<T> {
    // A std mutex: held for a map's insertion or clone of `Arc`s, and never across an await.
    inner: Mutex<Inner<T>>,
}

#[derive(Debug)]
struct Inner<T> {
    objects: BTreeMap<String, (u64, Arc<T>)>,
    /// A list that is being read; it replaces `objects` when it is complete.
    list: Option<BTreeMap<String, (u64, Arc<T>)>>,
    written: BTreeMap<String, Written<T>>,
    synced: Synced,
}

#[derive(Debug)]
struct Written<T> {
    version: u64,
    /// None: deleted.
    value: Option<Arc<T>>,
    /// Whether a list has begun since: that list knows better.
    listed: Synced,
}

/// Whether a first list is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synced {
    /// It is.
    Yes,
    /// It is not.
    No,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Inner {
                objects: BTreeMap::new(),
                list: None,
                written: BTreeMap::new(),
                synced: Synced::No,
            }),
        }
    }
}

impl<T: PartialEq> Cache<T> {
    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        // A panic in the middle of an insertion would end the process anyway.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what the watch shows.
    pub fn show(&self, event: Event<Seen<T>>) -> News {
        let mut inner = self.lock();
        match event {
            Event::Init => {
                inner.list = Some(BTreeMap::new());
                for written in inner.written.values_mut() {
                    written.listed = Synced::Yes;
                }
                News::No
            }
            Event::InitApply(seen) => {
                if let (Some(list), Some(value)) = (&mut inner.list, seen.value) {
                    list.insert(seen.name, (seen.version, Arc::new(value)));
                }
                News::No
            }
            Event::InitDone => {
                if let Some(list) = inner.list.take() {
                    inner.objects = list;
                }
                inner
                    .written
                    .retain(|_, written| written.listed == Synced::No);
                inner.synced = Synced::Yes;
                News::Yes
            }
            Event::Apply(Seen {
                name,
                version,
                value: Some(value),
            }) => {
                let before = inner.get(&name);
                if inner
                    .written
                    .get(&name)
                    .is_some_and(|written| written.version <= version)
                {
                    inner.written.remove(&name);
                }
                inner
                    .objects
                    .insert(name.clone(), (version, Arc::new(value)));
                news(before.as_deref(), inner.get(&name).as_deref())
            }
            Event::Apply(seen) | Event::Delete(seen) => {
                let before = inner.get(&seen.name);
                inner.objects.remove(&seen.name);
                if inner
                    .written
                    .get(&seen.name)
                    .is_some_and(|written| written.version <= seen.version)
                {
                    inner.written.remove(&seen.name);
                }
                news(before.as_deref(), inner.get(&seen.name).as_deref())
            }
        }
    }

    /// Takes in what the API server answered to a write.
    pub fn wrote(&self, seen: Seen<T>) {
        let mut inner = self.lock();
        let shown = inner
            .objects
            .get(&seen.name)
            .is_some_and(|(version, _)| *version >= seen.version);
        if !shown {
            inner.written.insert(
                seen.name,
                Written {
                    version: seen.version,
                    value: seen.value.map(Arc::new),
                    listed: Synced::No,
                },
            );
        }
    }

    /// Takes in that an object was deleted, of which nothing was answered: it is hidden until something newer is seen.
    pub fn deleted(&self, name: &str) {
        let mut inner = self.lock();
        let version = inner
            .objects
            .get(name)
            .map(|(version, _)| *version)
            .unwrap_or_default();
        inner.written.insert(
            name.to_owned(),
            Written {
                version: version + 1,
                value: None,
                listed: Synced::No,
            },
        );
    }

    /// All objects, as known.
    pub fn snapshot(&self) -> BTreeMap<String, Arc<T>> {
        let inner = self.lock();
        let mut all: BTreeMap<String, Arc<T>> = inner
            .objects
            .iter()
            .map(|(name, (_, value))| (name.clone(), Arc::clone(value)))
            .collect();
        for (name, written) in &inner.written {
            match &written.value {
                Some(value) => all.insert(name.clone(), Arc::clone(value)),
                None => all.remove(name),
            };
        }
        all
    }

    /// One object, as known.
    pub fn get(&self, name: &str) -> Option<Arc<T>> {
        self.lock().get(name)
    }

    /// Whether a first list is complete.
    pub fn synced(&self) -> Synced {
        self.lock().synced
    }
}

impl<T> Inner<T> {
    fn get(&self, name: &str) -> Option<Arc<T>> {
        match self.written.get(name) {
            Some(written) => written.value.clone(),
            None => self.objects.get(name).map(|(_, value)| Arc::clone(value)),
        }
    }
}

fn news<T: PartialEq>(before: Option<&T>, after: Option<&T>) -> News {
    if before == after { News::No } else { News::Yes }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(name: &str, version: u64, value: &'static str) -> Seen<&'static str> {
        Seen {
            name: name.to_owned(),
            version,
            value: Some(value),
        }
    }

    fn cache(objects: &[Seen<&'static str>]) -> Cache<&'static str> {
        let cache = Cache::default();
        cache.show(Event::Init);
        for object in objects {
            cache.show(Event::InitApply(object.clone()));
        }
        assert_eq!(cache.synced(), Synced::No);
        cache.show(Event::InitDone);
        assert_eq!(cache.synced(), Synced::Yes);
        cache
    }

    fn all(cache: &Cache<&'static str>) -> Vec<(String, &'static str)> {
        cache
            .snapshot()
            .into_iter()
            .map(|(name, value)| (name, *value))
            .collect()
    }

    fn is(cache: &Cache<&'static str>, expected: &[(&str, &'static str)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value))
            .collect();
        assert_eq!(all(cache), expected);
    }

    #[test]
    fn what_was_written_counts_until_the_watch_shows_it() {
        let cache = cache(&[seen("a", 1, "old")]);
        cache.wrote(seen("a", 5, "ours"));
        is(&cache, &[("a", "ours")]);
        // Somebody's write before ours, which the watch shows late.
        assert_eq!(cache.show(Event::Apply(seen("a", 3, "late"))), News::No);
        is(&cache, &[("a", "ours")]);
        assert_eq!(cache.show(Event::Apply(seen("a", 5, "ours"))), News::No);
        assert_eq!(cache.show(Event::Apply(seen("a", 6, "theirs"))), News::Yes);
        is(&cache, &[("a", "theirs")]);
    }

    #[test]
    fn an_answer_that_comes_after_its_event_is_old() {
        let cache = cache(&[]);
        cache.show(Event::Apply(seen("a", 7, "theirs")));
        cache.wrote(seen("a", 5, "ours"));
        is(&cache, &[("a", "theirs")]);
    }

    #[test]
    fn what_was_deleted_is_hidden_until_something_newer_is_seen() {
        let cache = cache(&[seen("a", 4, "old")]);
        cache.deleted("a");
        is(&cache, &[]);
        cache.show(Event::Apply(seen("a", 4, "old")));
        is(&cache, &[]);
        cache.show(Event::Delete(seen("a", 6, "old")));
        cache.show(Event::Apply(seen("a", 8, "new")));
        is(&cache, &[("a", "new")]);
    }

    #[test]
    fn a_list_knows_all_that_was_written_before_it_began() {
        let cache = cache(&[]);
        cache.wrote(seen("gone", 3, "ours"));
        cache.show(Event::Init);
        cache.wrote(seen("fresh", 9, "ours"));
        cache.show(Event::InitApply(seen("b", 7, "theirs")));
        is(&cache, &[("fresh", "ours"), ("gone", "ours")]);
        cache.show(Event::InitDone);
        is(&cache, &[("b", "theirs"), ("fresh", "ours")]);
    }

    #[test]
    fn an_event_that_changes_nothing_is_no_news() {
        let cache = cache(&[seen("a", 1, "same")]);
        assert_eq!(cache.show(Event::Apply(seen("a", 2, "same"))), News::No);
    }
}
