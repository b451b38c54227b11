//! Tasks: how many containers a second are created, started, waited for and deleted, several at a time.

use std::path::Path;
use std::time::Instant;

use futures::{StreamExt, TryStreamExt, stream};

use crate::client::{Guest, Node, Runtime};
use crate::error::Error;
use crate::figures::{Figures, print_ratio};
use crate::life::{self, Output, Subject, in_turn};

/// How many, and in how many slices.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Tasks of each runtime, over all slices.
    pub(crate) tasks: usize,
    /// At a time.
    pub(crate) at_once: usize,
    /// Slices of the tasks, taken in turn with those of the others.
    pub(crate) slices: usize,
}

impl Plan {
    /// Tasks of a slice: one at least, and no fewer in all than asked for.
    fn slice(self) -> usize {
        self.tasks.div_ceil(self.slices.max(1)).max(1)
    }
}

pub(crate) async fn run(
    node: &Node,
    guests: &[Guest],
    plan: Plan,
    out: &Path,
) -> Result<(), Error> {
    for guest in guests {
        // Compiles the module and warms the page cache.
        let id = format!("tasks-{}-warm", guest.runtime.name());
        life::whole(node, guest, &id, Output::Hello).await?;
    }
    let subjects = Subject::all(guests);
    let mut figures = Figures::new("tasks/s", subjects.iter().map(|subject| subject.name()));
    for slice in 0..plan.slices {
        eprintln!(
            "wasmlet-bench: tasks: slice {} of {}",
            slice + 1,
            plan.slices
        );
        for subject in in_turn(&subjects, slice) {
            let rate = rate(node, subject, slice, plan).await?;
            figures.add(subject.name(), slice, rate);
        }
    }
    let title = format!(
        "create, start, wait, delete of {} hellos each, {} at a time, {} slices in turn",
        plan.slice() * plan.slices,
        plan.at_once,
        plan.slices
    );
    figures.publish(out, "tasks", &title)?;
    figures.draw(out, "tasks", "tasks a second", |_| true)?;
    for guest in guests {
        let name = guest.runtime.name();
        if guest.runtime != Runtime::Runc {
            let ratio = figures.ratio(name, Runtime::Runc.name());
            print_ratio(&format!("tasks.{name}_vs_runc"), ratio);
        }
    }
    Ok(())
}

/// Tasks a second in one slice.
async fn rate(node: &Node, subject: Subject<'_>, slice: usize, plan: Plan) -> Result<f64, Error> {
    let one = |number: usize| async move {
        let id = format!("tasks-{}-{slice}-{number}", subject.name());
        match subject {
            Subject::Task(guest) => life::whole(node, guest, &id, Output::Hello).await,
            Subject::NoTask(guest) => life::floor(node, guest, &id).await,
        }
    };
    let began = Instant::now();
    let all: Vec<f64> = stream::iter(0..plan.slice())
        .map(one)
        .buffer_unordered(plan.at_once.max(1))
        .try_collect()
        .await?;
    Ok(all.len() as f64 / began.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_hold_all_tasks() {
        let slice = |tasks, slices| {
            let at_once = 8;
            Plan {
                tasks,
                at_once,
                slices,
            }
            .slice()
        };
        assert_eq!(slice(1000, 10), 100);
        assert_eq!(slice(10, 3), 4);
        assert_eq!((slice(0, 3), slice(5, 0)), (1, 5));
    }
}
