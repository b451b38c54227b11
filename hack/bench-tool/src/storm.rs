//! Storm: many first starts of one image at once, against one. The node compiles the module once either way.

use std::path::Path;
use std::time::Instant;

use futures::future::try_join_all;

use crate::client::{Guest, Node};
use crate::error::Error;
use crate::figures::{Figures, print_ratio};
use crate::first::{Counters, Fresh};
use crate::life::{self, Output, in_turn, milliseconds};

/// How often a storm may compile its module. One that compiles more often ends the run.
const COMPILES: u64 = 1;

pub(crate) async fn run(
    node: &Node,
    guests: &[Guest],
    counters: &Counters,
    starts: usize,
    rounds: usize,
    out: &Path,
) -> Result<(), Error> {
    let subjects: Vec<(&Guest, usize)> = guests
        .iter()
        .flat_map(|guest| [(guest, 1), (guest, starts)])
        .collect();
    let names = subjects
        .iter()
        .map(|(guest, count)| at_once(guest.runtime.name(), *count));
    let mut figures = Figures::new("ms", names);
    for round in 1..=rounds {
        for (guest, count) in in_turn(&subjects, round) {
            let name = at_once(guest.runtime.name(), count);
            let prefix = format!("storm-{name}-{round}").replace(' ', "-");
            let fresh = Fresh::new(node, guest)?;
            let began = Instant::now();
            let all = (0..count).map(async |number| {
                let id = format!("{prefix}-{number}");
                life::whole(node, &fresh.guest, &id, Output::Nothing).await
            });
            counters
                .expect(COMPILES, &prefix, try_join_all(all))
                .await?;
            figures.add(&name, round, milliseconds(began.elapsed()));
            fresh.remove()?;
        }
    }
    let title = format!(
        "until all were deleted that started at once from an image that was not compiled, {rounds} interleaved rounds"
    );
    figures.publish(out, "storm", &title)?;
    figures.draw(out, "storm", "first starts at once", |_| true)?;
    for guest in guests {
        let name = guest.runtime.name();
        println!("compiles.storm.{name} {COMPILES}");
        let ratio = figures.ratio(&at_once(name, starts), &at_once(name, 1));
        print_ratio(&format!("storm.{name}"), ratio);
    }
    Ok(())
}

fn at_once(engine: &str, count: usize) -> String {
    format!("{engine} {count} at once")
}
