//! What is charged to the memory of a container's own cgroup, on cgroup v1 and v2.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, file};

/// Bytes charged to a cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Charged {
    pub(crate) all: u64,
    /// Of them, the kernel's own: page tables, stacks, inodes.
    pub(crate) kernel: u64,
}

/// Where the cgroup of a process is, by what /proc/PID/cgroup says.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    V1(PathBuf),
    V2(PathBuf),
}

/// What is charged to the cgroup that a process is in.
pub(crate) fn charged(pid: u32) -> Result<Charged, Error> {
    let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
    let text = fs::read_to_string(&path).map_err(file(&path))?;
    match place(&text).ok_or(Error::Proc {
        path,
        line: "memory",
    })? {
        Place::V1(folder) => Ok(Charged {
            all: number(&folder.join("memory.usage_in_bytes"))?,
            kernel: number(&folder.join("memory.kmem.usage_in_bytes"))?,
        }),
        Place::V2(folder) => {
            let stat = folder.join("memory.stat");
            let text = fs::read_to_string(&stat).map_err(file(&stat))?;
            let kernel = text
                .lines()
                .find_map(|line| line.strip_prefix("kernel "))
                .and_then(|value| value.parse().ok());
            Ok(Charged {
                all: number(&folder.join("memory.current"))?,
                kernel: kernel.ok_or(Error::Proc {
                    path: stat,
                    line: "kernel",
                })?,
            })
        }
    }
}

/// A controller that v1 has is not one of v2, so `memory` of v1 comes first.
fn place(text: &str) -> Option<Place> {
    let below = |root: &str, path: &str| Path::new(root).join(path.trim_start_matches('/'));
    let fields = || {
        text.lines()
            .filter_map(|line| line.split_once(':')?.1.split_once(':'))
    };
    let v1 = fields().find(|(controllers, _)| controllers.split(',').any(|name| name == "memory"));
    if let Some((_, path)) = v1 {
        return Some(Place::V1(below("/sys/fs/cgroup/memory", path)));
    }
    let (_, path) = fields().find(|(controllers, _)| controllers.is_empty())?;
    Some(Place::V2(below("/sys/fs/cgroup", path)))
}

fn number(path: &Path) -> Result<u64, Error> {
    let text = fs::read_to_string(path).map_err(file(path))?;
    text.trim().parse().map_err(|_| Error::Proc {
        path: path.into(),
        line: "a number of bytes",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_controller_tells_the_place() {
        let v1 = "9:name=systemd:/\n7:cpu,memory:/bench/a\n0::/\n";
        assert_eq!(
            place(v1),
            Some(Place::V1("/sys/fs/cgroup/memory/bench/a".into()))
        );
        assert_eq!(
            place("0::/bench/a\n"),
            Some(Place::V2("/sys/fs/cgroup/bench/a".into()))
        );
        assert_eq!(place("3:cpu:/\n"), None);
    }
}
