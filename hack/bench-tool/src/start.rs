//! Start: create → start → first output → exit → delete of a hello, runtimes in turn, and the same
//! with no task, which is what containerd itself takes.

use std::path::Path;
use std::time::Duration;

use crate::client::{Guest, Node, Runtime};
use crate::error::Error;
use crate::figures::{Figures, print_ratio};
use crate::life::{self, FLOOR, Output, STEPS, Subject, in_turn};

pub(crate) async fn run(
    node: &Node,
    guests: &[Guest],
    rounds: usize,
    pause: Duration,
    out: &Path,
) -> Result<(), Error> {
    let steps = guests
        .iter()
        .flat_map(|guest| STEPS.map(|step| until(guest.runtime.name(), step)));
    let mut figures = Figures::new("ms", steps.chain([FLOOR.into()]));
    let subjects = Subject::all(guests);
    for round in 0..=rounds {
        for subject in in_turn(&subjects, round) {
            tokio::time::sleep(pause).await;
            let name = subject.name();
            let id = format!("start-{name}-{round}");
            let marks: Vec<(String, f64)> = match subject {
                Subject::Task(guest) => {
                    let marks = life::once(node, guest, &id, Output::Hello).await?;
                    let names = STEPS.map(|step| until(name, step));
                    names.into_iter().zip(marks).collect()
                }
                Subject::NoTask(guest) => {
                    vec![(name.into(), life::floor(node, guest, &id).await?)]
                }
            };
            // Round 0 compiles the module and warms the page cache.
            if round > 0 {
                for (name, mark) in marks {
                    figures.add(&name, round, mark);
                }
            }
        }
        if round > 0 && round % 10 == 0 {
            eprintln!("wasmlet-bench: start: {round} of {rounds} rounds");
        }
    }

    let title = format!("from the first call, {rounds} interleaved rounds");
    figures.publish(out, "start", &title)?;
    figures.draw(
        out,
        "start",
        "create → start → first output → exit → delete",
        |name| !name.contains(' '),
    )?;
    for guest in guests {
        let name = guest.runtime.name();
        if guest.runtime == Runtime::Runc {
            continue;
        }
        let runc = Runtime::Runc.name();
        print_ratio(&format!("start.{name}_vs_runc"), figures.ratio(name, runc));
        let above = figures.ratio_above(name, runc, FLOOR);
        print_ratio(&format!("start_over_floor.{name}_vs_runc"), above);
    }
    Ok(())
}

/// Name of a step's figures; the last one is the whole, and has the runtime's own.
fn until(runtime: &str, step: &str) -> String {
    match STEPS.last() {
        Some(last) if *last == step => runtime.into(),
        _ => format!("{runtime} until {step}"),
    }
}
