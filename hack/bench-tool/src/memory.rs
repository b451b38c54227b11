//! Memory: the proportional set size of every process of N idle containers.
//!
//! A container's processes are its init, the init's parent, which is its shim, and everything below
//! that. The kernel divides a page that several processes map among them (`Pss` in smaps_rollup,
//! proc_pid_smaps(5)), so the sum is what the containers really take.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::client::{Created, Node, Runtime};
use crate::error::{Error, file};
use crate::plot;

/// What was seen of one runtime at one N.
struct Measured {
    runtime: Runtime,
    count: usize,
    processes: usize,
    total_mb: f64,
}

pub(crate) async fn run(
    node: &Node,
    runtimes: &[Runtime],
    counts: &[usize],
    out: &Path,
) -> Result<(), Error> {
    let mut all = Vec::new();
    let mut raw = String::from("runtime,containers,pid,name,pss_kb\n");
    for &count in counts {
        for &runtime in runtimes {
            eprintln!(
                "wasmlet-bench: memory: {count} containers of {}",
                runtime.name()
            );
            all.push(measure(node, runtime, count, &mut raw).await?);
        }
    }
    let csv = out.join("memory.csv");
    fs::write(&csv, raw).map_err(file(&csv))?;

    println!("memory: PSS of all processes of N idle containers, one shim each");
    println!(
        "{:<8} {:>5} {:>10} {:>10} {:>14}",
        "runtime", "N", "processes", "total MB", "MB a container"
    );
    for Measured {
        runtime,
        count,
        processes,
        total_mb,
    } in &all
    {
        let each = total_mb / *count as f64;
        println!(
            "{:<8} {count:>5} {processes:>10} {total_mb:>10.2} {each:>14.3}",
            runtime.name()
        );
    }

    let svg = out.join("memory.svg");
    let bars: Vec<plot::Bar> = all
        .iter()
        .map(|measured| plot::Bar {
            group: format!("N = {}", measured.count),
            label: node.label(measured.runtime).into(),
            value: measured.total_mb / measured.count as f64,
        })
        .collect();
    let drawing = plot::bars("PSS of an idle container with its shim", "MB", &bars);
    fs::write(&svg, drawing).map_err(file(&svg))?;
    println!("raw data: {}  plot: {}", csv.display(), svg.display());
    for Measured {
        runtime,
        count,
        total_mb,
        ..
    } in &all
    {
        println!("pss_mb.n{count}.{} {total_mb:.2}", node.label(*runtime));
    }
    for &count in counts {
        let of = |wanted| {
            all.iter()
                .find(|measured| measured.runtime == wanted && measured.count == count)
                .map(|measured| measured.total_mb)
        };
        if let (Some(ours), Some(runc)) = (of(Runtime::Ours), of(Runtime::Runc)) {
            let label = node.label(Runtime::Ours);
            println!("ratio pss{count}.{label}_vs_runc {:.3}", ours / runc);
        }
    }
    Ok(())
}

async fn measure(
    node: &Node,
    runtime: Runtime,
    count: usize,
    raw: &mut String,
) -> Result<Measured, Error> {
    let mut running: Vec<(String, Created)> = Vec::new();
    for number in 0..count {
        let id = format!("idle-{}-{count}-{number}", runtime.name());
        let mut created = node.create(runtime, &id).await?;
        node.start(&created).await?;
        created.line("ready\n").await?;
        running.push((id, created));
    }

    let table = Table::read()?;
    let mut processes = BTreeSet::new();
    for (id, created) in &running {
        processes.extend(table.of_container(id, created.pid)?);
    }
    let mut total_kb = 0;
    for &pid in &processes {
        let kb = pss_kb(pid)?;
        total_kb += kb;
        let _ = writeln!(
            raw,
            "{},{count},{pid},{},{kb}",
            runtime.name(),
            table.name(pid)
        );
    }

    for (id, created) in &mut running {
        node.kill(created).await?;
        created.ended().await?;
        node.delete(id).await?;
    }
    let total_mb = f64::from(total_kb) / 1024.0;
    Ok(Measured {
        runtime,
        count,
        processes: processes.len(),
        total_mb,
    })
}

/// Who is whose parent, at one moment.
struct Table(BTreeMap<u32, (u32, String)>);

impl Table {
    fn read() -> Result<Self, Error> {
        let mut table = BTreeMap::new();
        for entry in fs::read_dir("/proc").map_err(file("/proc"))? {
            let entry = entry.map_err(file("/proc"))?;
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            // One that has ended meanwhile is none of ours: ours are idle.
            let Ok(status) = fs::read_to_string(entry.path().join("status")) else {
                continue;
            };
            let field = |name| {
                status
                    .lines()
                    .find_map(|line: &str| line.strip_prefix(name))
            };
            let parent = field("PPid:")
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(0);
            table.insert(
                pid,
                (parent, field("Name:").unwrap_or("").trim().to_owned()),
            );
        }
        Ok(Self(table))
    }

    fn name(&self, pid: u32) -> &str {
        self.0.get(&pid).map_or("", |(_, name)| name)
    }

    /// The shim of a container and everything below it.
    fn of_container(&self, id: &str, init: u32) -> Result<BTreeSet<u32>, Error> {
        let shim = self.0.get(&init).map_or(0, |(parent, _)| *parent);
        if shim <= 1 {
            return Err(Error::Orphan {
                id: id.into(),
                init,
            });
        }
        let mut found = BTreeSet::from([shim]);
        loop {
            let below: Vec<u32> = self
                .0
                .iter()
                .filter(|(pid, (parent, _))| found.contains(parent) && !found.contains(pid))
                .map(|(pid, _)| *pid)
                .collect();
            if below.is_empty() {
                return Ok(found);
            }
            found.extend(below);
        }
    }
}

fn pss_kb(pid: u32) -> Result<u32, Error> {
    let path = PathBuf::from(format!("/proc/{pid}/smaps_rollup"));
    let text = fs::read_to_string(&path).map_err(file(&path))?;
    text.lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok())
        .ok_or(Error::Proc { path, line: "Pss" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_its_shim_and_all_below() {
        let table = Table(BTreeMap::from([
            (1, (0, "init".to_owned())),
            (10, (1, "shim".to_owned())),
            (11, (10, "guest".to_owned())),
            (12, (11, "child".to_owned())),
            (20, (1, "other".to_owned())),
        ]));
        assert_eq!(
            table.of_container("c", 11).unwrap(),
            BTreeSet::from([10, 11, 12])
        );
        assert!(matches!(
            table.of_container("c", 20),
            Err(Error::Orphan { init: 20, .. })
        ));
    }

    #[test]
    fn this_process_has_a_proportional_set_size() {
        assert!(pss_kb(std::process::id()).unwrap() > 0);
    }
}
