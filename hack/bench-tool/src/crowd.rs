//! Crowd: how long a start takes beside many containers that idle, and beside none.

use std::path::Path;
use std::time::Duration;

use crate::client::{Guest, Node};
use crate::error::Error;
use crate::figures::{Figures, print_ratio};
use crate::life::{self, Crowd, Output, in_turn};

/// How often, and beside how many.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Times that a crowd is started and stopped again.
    pub(crate) slices: usize,
    /// Starts in each slice, beside the crowd and beside none.
    pub(crate) rounds: usize,
    /// Containers that idle.
    pub(crate) crowd: usize,
    pub(crate) pause: Duration,
}

/// What is started, and what idles beside it, by the same runtime.
pub(crate) async fn run(
    node: &Node,
    guests: &[(Guest, Guest)],
    plan: Plan,
    out: &Path,
) -> Result<(), Error> {
    let names = guests.iter().flat_map(|(hello, _)| {
        let name = hello.runtime.name();
        [beside(name, 0), beside(name, plan.crowd)]
    });
    let mut figures = Figures::new("ms", names);
    for slice in 0..plan.slices {
        for (hello, idling) in in_turn(guests, slice) {
            let runtime = hello.runtime.name();
            eprintln!(
                "wasmlet-bench: crowd: {runtime}, slice {} of {}",
                slice + 1,
                plan.slices
            );
            let prefix = format!("crowd-{runtime}-{slice}");
            // A round that does not count compiles the module and warms the page cache.
            life::whole(node, &hello, &format!("{prefix}-warm"), Output::Hello).await?;
            for count in in_turn(&[0, plan.crowd], slice) {
                let idle = format!("{prefix}-idle{count}");
                let crowd = Crowd::start(node, &idling, &idle, count).await?;
                for round in 0..plan.rounds {
                    tokio::time::sleep(plan.pause).await;
                    let id = format!("{prefix}-at{count}-{round}");
                    let took = life::whole(node, &hello, &id, Output::Hello).await?;
                    let round = slice * plan.rounds + round;
                    figures.add(&beside(runtime, count), round, took);
                }
                crowd.stop(node).await?;
            }
        }
    }
    let title = format!(
        "a start beside {} idle containers and beside none, {} slices of {} starts in turn",
        plan.crowd, plan.slices, plan.rounds
    );
    figures.publish(out, "crowd", &title)?;
    figures.draw(out, "crowd", "start beside idle containers", |_| true)?;
    for (hello, _) in guests {
        let name = hello.runtime.name();
        let ratio = figures.ratio(&beside(name, plan.crowd), &beside(name, 0));
        print_ratio(&format!("start.at{}.{name}", plan.crowd), ratio);
    }
    Ok(())
}

fn beside(runtime: &str, crowd: usize) -> String {
    format!("{runtime} at {crowd}")
}
