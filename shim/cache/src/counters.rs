//! Counts of a node, kept where every shim can add to them.
//!
//! One text file of fixed length, `name value` per line, so that each update is one small write
//! that no kill can tear, and `cat` shows it. It lives in the run folder and starts at zero after a
//! reboot, as counters do.

use std::fs::{File, TryLockError};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use tracing::warn;

use crate::error::Error;
use crate::folder::Folder;

const FILE: &str = "cache-counters";

/// Digits of every value, so that the file never changes its length: u64 has at most 20.
const DIGITS: usize = 20;

/// A counter is worth no more waiting than this: its holder needs microseconds.
const PATIENCE: Duration = Duration::from_millis(100);

/// What is counted, by event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counter {
    /// A start found its artifact.
    Hit,
    /// A start did not find its artifact at the first look.
    Miss,
    /// A module was compiled.
    Compile,
    /// An entry was not what it should be and was dropped.
    Corrupt,
    /// An entry was removed to make room.
    Evicted,
}

/// Values of all counters since the node's boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// [`Counter::Hit`].
    pub hit: u64,
    /// [`Counter::Miss`].
    pub miss: u64,
    /// [`Counter::Compile`].
    pub compile: u64,
    /// [`Counter::Corrupt`].
    pub corrupt: u64,
    /// [`Counter::Evicted`].
    pub evicted: u64,
    /// Time that all compiles took together, in milliseconds.
    pub compile_millis: u64,
    /// Highest resident memory of all compile helpers added up, in bytes: divided by the compiles
    /// it is the average.
    pub compile_peak_bytes: u64,
    /// The highest resident memory of any one compile helper, in bytes.
    pub compile_peak_max_bytes: u64,
}

impl Counters {
    fn lines(&mut self) -> [(&'static str, &mut u64); 8] {
        [
            ("hit", &mut self.hit),
            ("miss", &mut self.miss),
            ("compile", &mut self.compile),
            ("corrupt", &mut self.corrupt),
            ("evicted", &mut self.evicted),
            ("compile_millis", &mut self.compile_millis),
            ("compile_peak_bytes", &mut self.compile_peak_bytes),
            ("compile_peak_max_bytes", &mut self.compile_peak_max_bytes),
        ]
    }

    fn parse(text: &str) -> Option<Counters> {
        let mut counters = Counters::default();
        let mut lines = text.lines();
        for (name, value) in counters.lines() {
            *value = lines
                .next()?
                .strip_prefix(name)?
                .strip_prefix(' ')?
                .parse()
                .ok()?;
        }
        lines.next().is_none().then_some(counters)
    }

    fn text(mut self) -> String {
        use std::fmt::Write;
        let mut text = String::with_capacity(512);
        for (name, value) in self.lines() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name} {value:0DIGITS$}");
        }
        text
    }
}

/// The counters' file.
#[derive(Debug)]
pub(crate) struct CounterFile {
    run: Arc<Folder>,
}

impl CounterFile {
    pub(crate) fn new(run: Arc<Folder>) -> CounterFile {
        CounterFile { run }
    }

    /// Adds to a counter. A failure is logged: no start fails for it.
    pub(crate) fn add(&self, counter: Counter, count: u64) {
        self.update(|counters| {
            let value = match counter {
                Counter::Hit => &mut counters.hit,
                Counter::Miss => &mut counters.miss,
                Counter::Compile => &mut counters.compile,
                Counter::Corrupt => &mut counters.corrupt,
                Counter::Evicted => &mut counters.evicted,
            };
            *value = value.saturating_add(count);
        });
    }

    /// Changes the counters as asked. A failure is logged: no start fails for it.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Counters)) {
        if let Err(error) = self.try_update(change) {
            warn!(%error, "the cache's counters miss an event");
        }
    }

    /// The counters at this moment; zero when nothing was counted yet.
    pub(crate) fn read(&self) -> Result<Counters, Error> {
        let file = self.open()?;
        self.lock(&file)?;
        Ok(self.load(&file)?.unwrap_or_default())
    }

    fn try_update(&self, change: impl FnOnce(&mut Counters)) -> Result<(), Error> {
        let file = self.open()?;
        self.lock(&file)?;
        let mut counters = self.load(&file)?.unwrap_or_default();
        change(&mut counters);
        let failed = |error| Error::call("write", self.run.child(FILE), error);
        let text = counters.text();
        file.write_all_at(text.as_bytes(), 0).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        if length != text.len() as u64 {
            file.set_len(text.len() as u64).map_err(failed)?;
        }
        Ok(())
        // Closing the file unlocks it.
    }

    fn open(&self) -> Result<File, Error> {
        self.run
            .open_file(FILE, OFlag::O_RDWR | OFlag::O_CREAT, 0o600)
            .map_err(|errno| Error::call("open", self.run.child(FILE), errno))
    }

    fn lock(&self, file: &File) -> Result<(), Error> {
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) if start.elapsed() < PATIENCE => {
                    thread::sleep(Duration::from_micros(200));
                }
                Err(TryLockError::WouldBlock) => {
                    let path = self.run.child(FILE);
                    return Err(Error::LockTimeout {
                        path,
                        waited: start.elapsed(),
                    });
                }
                Err(TryLockError::Error(error)) => {
                    return Err(Error::call("lock", self.run.child(FILE), error));
                }
            }
        }
    }

    fn load(&self, file: &File) -> Result<Option<Counters>, Error> {
        let mut bytes = [0; 1024];
        let count = file
            .read_at(&mut bytes, 0)
            .map_err(|error| Error::call("read", self.run.child(FILE), error))?;
        if count == 0 {
            return Ok(None);
        }
        let counters = str::from_utf8(&bytes[..count])
            .ok()
            .and_then(Counters::parse);
        if counters.is_none() {
            warn!(path = %self.run.child(FILE).display(), "not counters: they start at zero again");
        }
        Ok(counters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters() -> (tempfile::TempDir, CounterFile) {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let run = Folder::open(&temp.path().join("run")).expect("a folder");
        (temp, CounterFile::new(Arc::new(run)))
    }

    #[test]
    fn nothing_is_lost_when_many_count_at_once() {
        let (_temp, counters) = counters();
        assert_eq!(counters.read().expect("readable"), Counters::default());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..250).for_each(|_| counters.add(Counter::Hit, 1)));
            }
        });
        counters.update(|counters| counters.compile_millis = u64::MAX);
        counters.add(Counter::Evicted, 3);
        let expected = Counters {
            hit: 1000,
            evicted: 3,
            compile_millis: u64::MAX,
            ..Counters::default()
        };
        assert_eq!(counters.read().expect("readable"), expected);
    }

    #[test]
    fn a_file_that_is_not_counters_starts_at_zero() {
        let (_temp, counters) = counters();
        let path = counters.run.child(FILE);
        for text in [
            "x",
            "hit 1\n",
            &"9".repeat(2000),
            &Counters::default().text().repeat(2),
        ] {
            std::fs::write(&path, text).expect("it can be written");
            assert_eq!(
                counters.read().expect("readable"),
                Counters::default(),
                "{text}"
            );
            counters.add(Counter::Miss, 1);
            assert_eq!(counters.read().expect("readable").miss, 1, "{text}");
        }
    }

    #[test]
    fn a_stuck_holder_delays_a_start_a_little_and_no_more() {
        let (_temp, counters) = counters();
        let holder = counters.open().expect("it opens");
        holder.lock().expect("it is free");
        let start = Instant::now();
        counters.add(Counter::Hit, 1);
        assert!(start.elapsed() < Duration::from_secs(5));
        drop(holder);
        assert_eq!(counters.read().expect("readable").hit, 0);
    }
}
