//! First starts: a node that has not compiled the module yet.
//!
//! Such a node is a shim with a cache folder of its own, new for every first start. Files are in the page
//! cache all the same: what is measured is compiling and starting, not the disk.

use std::path::{Path, PathBuf};

use crate::client::{Guest, Node};
use crate::error::{Error, file};

/// Where shims count what the cache did.
pub(crate) struct Counters(PathBuf);

impl Counters {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Modules compiled so far, by all shims that see the file.
    fn compiles(&self) -> Result<u64, Error> {
        let text = match std::fs::read_to_string(&self.0) {
            // Written when there is something to count.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            text => text.map_err(file(&self.0))?,
        };
        compiles(&text).ok_or_else(|| Error::Proc {
            path: self.0.clone(),
            line: "compile",
        })
    }

    /// Runs something and checks how often a module was compiled meanwhile.
    pub(crate) async fn expect<T>(
        &self,
        expected: u64,
        what: &str,
        run: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let before = self.compiles()?;
        let result = run.await?;
        let count = self.compiles()?.saturating_sub(before);
        if count == expected {
            return Ok(result);
        }
        Err(Error::Compiles {
            what: what.into(),
            count,
            expected,
            path: self.0.clone(),
        })
    }
}

fn compiles(text: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix("compile "));
    value?.trim().parse().ok()
}

/// A cache folder with nothing in it, and the guest whose shim uses it.
pub(crate) struct Fresh {
    pub(crate) guest: Guest,
    folder: tempfile::TempDir,
}

impl Fresh {
    pub(crate) fn new(node: &Node, guest: &Guest) -> Result<Self, Error> {
        let folder = tempfile::tempdir_in(node.temp()).map_err(file(node.temp()))?;
        let settings = folder.path().join("runtime.toml");
        std::fs::write(&settings, toml(&folder.path().join("cache"))).map_err(file(&settings))?;
        Ok(Self {
            guest: guest.with_settings(&settings),
            folder,
        })
    }

    /// Removes it; as large as an artifact, and there is one for every round.
    pub(crate) fn remove(self) -> Result<(), Error> {
        let path = self.folder.path().to_owned();
        self.folder.close().map_err(file(path))
    }
}

fn toml(cache: &Path) -> String {
    format!("CacheDir = {:?}\n", cache.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiles_are_counted_and_their_time_is_not() {
        let text = "hit 0006\nmiss 0003\ncompile 0002\ncompile_millis 0472\n";
        assert_eq!(compiles(text), Some(2));
        assert_eq!(compiles("hit 1\n"), None);
    }

    #[test]
    fn the_cache_folder_is_one_setting() {
        assert_eq!(toml(Path::new("/tmp/a")), "CacheDir = \"/tmp/a\"\n");
    }
}
