//! Start: create → start → first output → exit → delete of a hello, runtimes in turn.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::client::{Node, Runtime};
use crate::error::{Error, file};
use crate::plot;
use crate::stats::Sample;

/// Steps of a container's life, each up to the moment named.
const STEPS: [&str; 5] = ["create", "start", "first output", "exit", "delete"];

/// Milliseconds from the first call to the end of each step.
type Marks = [f64; STEPS.len()];

pub(crate) async fn run(
    node: &Node,
    runtimes: &[Runtime],
    rounds: usize,
    pause: u64,
    out: &Path,
) -> Result<(), Error> {
    let mut marks: Vec<(Runtime, usize, Marks)> = Vec::new();
    for round in 0..=rounds {
        // Who goes first changes every round, so that neither always follows the other.
        let mut order = runtimes.to_vec();
        if round % 2 == 1 {
            order.reverse();
        }
        for runtime in order {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let id = format!("start-{}-{round}", runtime.name());
            let measured = once(node, runtime, &id).await?;
            // Round 0 compiles the module and warms the page cache.
            if round > 0 {
                marks.push((runtime, round, measured));
            }
        }
        if round > 0 && round % 10 == 0 {
            eprintln!("wasmlet-bench: start: {round} of {rounds} rounds");
        }
    }

    let csv = out.join("start.csv");
    let mut text = format!(
        "runtime,round,{}\n",
        STEPS.join("_ms,").replace(' ', "_") + "_ms"
    );
    for (runtime, round, marks) in &marks {
        let columns: Vec<String> = marks.iter().map(|mark| format!("{mark:.3}")).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{},{round},{}", runtime.name(), columns.join(","));
    }
    std::fs::write(&csv, text).map_err(file(&csv))?;

    println!("start: milliseconds from the first call, {rounds} interleaved rounds");
    println!(
        "{:<8} {:<14} {:>8} {:>8} {:>8} {:>8}",
        "runtime", "until", "median", "min", "max", "spread"
    );
    let mut totals = Vec::new();
    for &runtime in runtimes {
        for (step, name) in STEPS.iter().enumerate() {
            let values = of(&marks, runtime).map(|marks| marks[step]).collect();
            let sample = Sample::new(values);
            println!(
                "{:<8} {name:<14} {:>8.1} {:>8.1} {:>8.1} {:>8.1}",
                runtime.name(),
                sample.median(),
                sample.min(),
                sample.max(),
                sample.spread()
            );
            if step == STEPS.len() - 1 {
                totals.push((runtime, sample.median()));
            }
        }
    }

    let svg = out.join("start.svg");
    let rows: Vec<plot::Row> = runtimes
        .iter()
        .map(|&runtime| plot::Row {
            label: node.label(runtime).into(),
            values: of(&marks, runtime)
                .map(|marks| marks[STEPS.len() - 1])
                .collect(),
        })
        .collect();
    let drawing = plot::strips("create → start → first output → exit → delete", "ms", &rows);
    std::fs::write(&svg, drawing).map_err(file(&svg))?;
    println!("raw data: {}  plot: {}", csv.display(), svg.display());
    if let [(Runtime::Ours, ours), (Runtime::Runc, runc)] = totals[..] {
        let label = node.label(Runtime::Ours);
        println!("ratio start.{label}_vs_runc {:.3}", ours / runc);
    }
    Ok(())
}

fn of(marks: &[(Runtime, usize, Marks)], wanted: Runtime) -> impl Iterator<Item = &Marks> {
    marks
        .iter()
        .filter(move |(runtime, ..)| *runtime == wanted)
        .map(|(_, _, marks)| marks)
}

async fn once(node: &Node, runtime: Runtime, id: &str) -> Result<Marks, Error> {
    let began = Instant::now();
    let mut created = node.create(runtime, id).await?;
    let at_create = Instant::now();
    node.start(&created).await?;
    let at_start = Instant::now();
    let at_output = created.line("hello\n").await?;
    let (code, at_exit) = created.ended().await?;
    if code != 0 {
        let stderr = created.complaint();
        return Err(Error::Exit {
            id: id.into(),
            code,
            stderr,
        });
    }
    node.delete(id).await?;
    let at_delete = Instant::now();
    Ok([at_create, at_start, at_output, at_exit, at_delete]
        .map(|at| at.duration_since(began).as_secs_f64() * 1000.0))
}
