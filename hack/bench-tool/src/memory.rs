//! Memory: what idle containers take, each with a shim of its own; for one crowd of them, what they take
//! in all and how much they work while they idle.
//!
//! A container's processes are its init, the init's parent, which is its shim, and everything below that.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::cgroup;
use crate::client::{Guest, Node, Runtime};
use crate::error::{Error, file};
use crate::figures::{Figures, print_ratio, write_plot};
use crate::life::{Crowd, in_turn, milliseconds};
use crate::plot;
use crate::proc::{Table, available_kb, cpu_time, pss_kb};

/// How many containers, how often.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    /// Containers at once, of every runtime.
    pub(crate) counts: Vec<usize>,
    /// Containers of the first runtime, once, at the end; none where it is 0.
    pub(crate) crowd: usize,
    /// How long to see how much the crowd works.
    pub(crate) idle: Duration,
}

/// Until the kernel has removed what belonged to containers that ended.
const SETTLE: Duration = Duration::from_secs(5);

/// After the name of what is charged to a cgroup: the kernel's part of it.
const KERNEL: &str = " kernel";

/// What is kept of every look at some containers.
struct Seen {
    /// Proportional set size of one container, in MB.
    pss: Figures,
    /// Charged to the cgroup of one container, in MB, and of that the kernel's own.
    charged: Figures,
    /// Time on a processor of each process of the crowd while it idled, in ms.
    idle: Figures,
    /// Every process.
    raw: String,
}

/// What some containers take together, in MB.
struct Together {
    pss: f64,
    /// The kernel's own memory that is charged to their cgroups: no process's set has it.
    kernel: f64,
}

pub(crate) async fn run(
    node: &Node,
    guests: &[Guest],
    plan: &Plan,
    out: &Path,
) -> Result<(), Error> {
    let names = plan.counts.iter().flat_map(|count| {
        let names = guests.iter().map(|guest| guest.runtime.name());
        names.map(|name| each_of(name, *count))
    });
    let mut seen = Seen {
        pss: Figures::new("MB", names),
        charged: Figures::new("MB", [""; 0]),
        idle: Figures::new("ms", [""; 0]),
        raw: "runtime,containers,round,pid,name,pss_kb\n".into(),
    };
    for round in 0..plan.rounds {
        for &count in &plan.counts {
            for guest in in_turn(guests, round) {
                let name = guest.runtime.name();
                eprintln!("wasmlet-bench: memory: {count} containers of {name}");
                let prefix = format!("idle-{name}-{count}-{round}");
                let crowd = Crowd::start(node, &guest, &prefix, count).await?;
                seen.look(&crowd, name, round)?;
                crowd.stop(node).await?;
            }
        }
    }
    let mut lines = Vec::new();
    if let (Some(guest), 1..) = (guests.first(), plan.crowd) {
        lines = crowd(node, guest, plan, &mut seen).await?;
    }
    report(guests, plan, &seen, out)?;
    for line in lines {
        println!("{line}");
    }
    Ok(())
}

/// Many of one runtime: what they take in all, and how much they work.
async fn crowd(
    node: &Node,
    guest: &Guest,
    plan: &Plan,
    seen: &mut Seen,
) -> Result<Vec<String>, Error> {
    let (name, count) = (guest.runtime.name(), plan.crowd);
    eprintln!("wasmlet-bench: memory: {count} containers of {name}, and what they do");
    // What the containers before took is given back a little later.
    tokio::time::sleep(plan.idle.min(SETTLE)).await;
    let before = available_kb()?;
    let crowd = Crowd::start(node, guest, &format!("crowd-{name}"), count).await?;
    let Together { pss, kernel } = seen.look(&crowd, name, 0)?;

    let table = Table::read()?;
    let mut worked = Vec::new();
    for pid in processes(&table, &crowd)? {
        worked.push((pid, cpu_time(pid)?));
    }
    tokio::time::sleep(plan.idle).await;
    let mut idle_cpu = Duration::ZERO;
    for &(pid, before) in &worked {
        let took = cpu_time(pid)?.saturating_sub(before);
        idle_cpu += took;
        seen.idle.add(table.name(pid), 0, milliseconds(took));
    }
    let idle_cpu = idle_cpu.as_secs_f64();
    let lost = (before as f64 - available_kb()? as f64) / 1024.0;
    crowd.stop(node).await?;
    let seconds = plan.idle.as_secs_f64();
    eprintln!(
        "wasmlet-bench: memory: {} processes of {count} containers of {name} worked {idle_cpu:.4} s in {seconds} s; \
         the machine has {lost:.0} MB less available, whatever else runs included",
        worked.len()
    );
    Ok(vec![
        format!("mb.{count}_instances.{name} {:.2}", pss + kernel),
        format!("idle_cpu.{name} {idle_cpu:.4}"),
    ])
}

fn report(guests: &[Guest], plan: &Plan, seen: &Seen, out: &Path) -> Result<(), Error> {
    let raw = out.join("memory-processes.csv");
    std::fs::write(&raw, &seen.raw).map_err(file(&raw))?;
    let title = format!(
        "PSS of an idle container with its shim, {} interleaved rounds",
        plan.rounds
    );
    seen.pss.publish(out, "memory", &title)?;
    println!("every process: {}", raw.display());
    let title = "charged to the cgroup of one idle container";
    seen.charged.publish(out, "memory-cgroup", title)?;
    let all = |name: &str| !name.ends_with(KERNEL);
    seen.charged.draw(out, "memory-cgroup", title, all)?;
    if plan.crowd > 0 {
        let title = format!(
            "processor time of each process of {} idle containers in {} s",
            plan.crowd,
            plan.idle.as_secs_f64()
        );
        seen.idle.publish(out, "memory-idle", &title)?;
        seen.idle.draw(out, "memory-idle", &title, |_| true)?;
    }

    let counts: BTreeSet<usize> = plan.counts.iter().copied().chain([plan.crowd]).collect();
    let runtimes = || guests.iter().map(|guest| guest.runtime);
    let mut bars = Vec::new();
    for &count in &counts {
        for runtime in runtimes() {
            if let Some(value) = seen.pss.median(&each_of(runtime.name(), count)) {
                bars.push(plot::Bar {
                    group: format!("N = {count}"),
                    label: runtime.name().into(),
                    value,
                });
            }
        }
    }
    let drawing = plot::bars("PSS of an idle container with its shim", "MB", &bars);
    write_plot(&out.join("memory.svg"), &drawing)?;
    for &count in &counts {
        for runtime in runtimes() {
            let name = runtime.name();
            if let Some(each) = seen.pss.median(&each_of(name, count)) {
                println!("pss_mb.n{count}.{name} {each:.3}");
            }
        }
    }
    for &count in &counts {
        for runtime in runtimes().filter(|runtime| *runtime != Runtime::Runc) {
            let runc = each_of(Runtime::Runc.name(), count);
            let ratio = seen.pss.ratio(&each_of(runtime.name(), count), &runc);
            print_ratio(&format!("pss{count}.{}_vs_runc", runtime.name()), ratio);
        }
    }
    let most = plan.counts.iter().max().copied().unwrap_or(0);
    for runtime in runtimes() {
        let name = runtime.name();
        if let Some(charged) = seen.charged.median(&each_of(name, most)) {
            println!("cgroup_mb.hello.{name} {charged:.3}");
        }
    }
    Ok(())
}

impl Seen {
    /// Notes the memory of every process and of every container's cgroup.
    fn look(&mut self, crowd: &Crowd, runtime: &str, round: usize) -> Result<Together, Error> {
        let table = Table::read()?;
        let count = crowd.inits().count();
        let mut total_kb = 0;
        for pid in processes(&table, crowd)? {
            let kb = pss_kb(pid)?;
            total_kb += kb;
            // Writing to a String cannot fail.
            let _ = writeln!(
                self.raw,
                "{runtime},{count},{round},{pid},{},{kb}",
                table.name(pid)
            );
        }
        let pss = f64::from(total_kb) / 1024.0;
        self.pss
            .add(&each_of(runtime, count), round, pss / count as f64);
        let mut kernel_mb = 0.0;
        for (_, init) in crowd.inits() {
            let charged = cgroup::charged(init)?;
            let (all, kernel) = (megabytes(charged.all), megabytes(charged.kernel));
            let name = each_of(runtime, count);
            self.charged.add(&name, round, all);
            self.charged.add(&format!("{name}{KERNEL}"), round, kernel);
            kernel_mb += kernel;
        }
        Ok(Together {
            pss,
            kernel: kernel_mb,
        })
    }
}

fn processes(table: &Table, crowd: &Crowd) -> Result<BTreeSet<u32>, Error> {
    let mut processes = BTreeSet::new();
    for (id, init) in crowd.inits() {
        processes.extend(table.of_container(id, init)?);
    }
    Ok(processes)
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}

fn each_of(runtime: &str, count: usize) -> String {
    format!("{runtime} n={count}")
}
