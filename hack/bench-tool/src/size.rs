//! Size: whether a warm start takes longer the larger the module is. None calls what makes it large.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::client::{Guest, Node, Runtime};
use crate::error::{Error, file};
use crate::figures::{Figures, print_ratio};
use crate::life::{self, Output, in_turn};
use crate::module;

const EMPTY: &str = "empty";

/// Writes a generated module of so many kilobytes, for an image or for an engine's own program.
pub(crate) fn write_module(node: &Node, kilobytes: usize) -> Result<PathBuf, Error> {
    let path = node.temp().join(label(kilobytes)).with_extension("wasm");
    std::fs::write(&path, module::of_size(kilobytes * 1000)).map_err(file(&path))?;
    Ok(path)
}

pub(crate) async fn run(
    node: &mut Node,
    runtimes: &[Runtime],
    sizes: &[usize],
    rounds: usize,
    pause: Duration,
    out: &Path,
) -> Result<(), Error> {
    let mut guests: Vec<(String, Guest)> = Vec::new();
    for &runtime in runtimes {
        for kilobytes in std::iter::once(&0).chain(sizes) {
            let guest = node.guest(runtime, &write_module(node, *kilobytes)?)?;
            guests.push((name(runtime, *kilobytes), guest));
        }
    }
    let mut figures = Figures::new("ms", guests.iter().map(|(name, _)| name));
    for round in 0..=rounds {
        for (name, guest) in in_turn(&guests, round) {
            tokio::time::sleep(pause).await;
            let id = format!("{name}-{round}").replace(' ', "-");
            let took = life::whole(node, &guest, &id, Output::Nothing).await?;
            // Round 0 compiles the module and warms the page cache.
            if round > 0 {
                figures.add(&name, round, took);
            }
        }
    }
    let title = format!("warm start of modules by size, {rounds} interleaved rounds");
    figures.publish(out, "size", &title)?;
    figures.draw(out, "size", "warm start by size of the module", |_| true)?;
    for &runtime in runtimes {
        for &size in sizes {
            let ratio = figures.ratio(&name(runtime, size), &name(runtime, 0));
            let line = format!("start.size_{}.{}", label(size), runtime.name());
            print_ratio(&line, ratio);
        }
    }
    Ok(())
}

fn name(runtime: Runtime, kilobytes: usize) -> String {
    format!("{} {}", runtime.name(), label(kilobytes))
}

/// `10mb`, `64kb`, `empty`.
fn label(kilobytes: usize) -> String {
    match kilobytes {
        0 => EMPTY.into(),
        whole if whole % 1000 == 0 => format!("{}mb", whole / 1000),
        _ => format!("{kilobytes}kb"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_named_in_the_unit_that_divides_them() {
        let labels = [0, 64, 1000, 1500, 10_000].map(label);
        assert_eq!(labels, ["empty", "64kb", "1mb", "1500kb", "10mb"]);
    }
}
