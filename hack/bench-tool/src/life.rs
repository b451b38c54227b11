//! A container's life from beginning to end, and many containers that only idle.

use std::time::{Duration, Instant};

use crate::client::{Created, Guest, Node};
use crate::error::Error;

/// Steps of a container's life, each up to the moment named.
pub(crate) const STEPS: [&str; 5] = ["create", "start", "first output", "exit", "delete"];

/// Milliseconds from the first call to the end of each step.
pub(crate) type Marks = [f64; STEPS.len()];

/// What a measured guest writes before it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    Hello,
    Nothing,
}

/// Who takes part: containers that run, and one with no task, which is what containerd itself takes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Subject<'a> {
    Task(&'a Guest),
    NoTask(&'a Guest),
}

/// Name of a container without a task in the figures.
pub(crate) const FLOOR: &str = "floor";

impl<'a> Subject<'a> {
    /// Every guest, and the floor under them.
    pub(crate) fn all(guests: &'a [Guest]) -> Vec<Self> {
        let floor = guests.last().map(Self::NoTask);
        guests.iter().map(Self::Task).chain(floor).collect()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Task(guest) => guest.runtime.name(),
            Self::NoTask(_) => FLOOR,
        }
    }
}

/// One container, alone: create → start → first output → exit → delete.
pub(crate) async fn once(
    node: &Node,
    guest: &Guest,
    id: &str,
    output: Output,
) -> Result<Marks, Error> {
    let began = Instant::now();
    let mut created = node.create(guest, id).await?;
    let at_create = Instant::now();
    node.start(&created).await?;
    let at_start = Instant::now();
    let at_output = match output {
        Output::Hello => created.line("hello\n").await?,
        Output::Nothing => at_start,
    };
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
        .map(|at| milliseconds(at.duration_since(began))))
}

/// The whole of [`once`], in milliseconds.
pub(crate) async fn whole(
    node: &Node,
    guest: &Guest,
    id: &str,
    output: Output,
) -> Result<f64, Error> {
    let [.., deleted] = once(node, guest, id, output).await?;
    Ok(deleted)
}

/// What containerd itself takes: snapshot and container, made and removed, with no task.
pub(crate) async fn floor(node: &Node, guest: &Guest, id: &str) -> Result<f64, Error> {
    let began = Instant::now();
    // Its pipes stay open as long as those of the others.
    let prepared = node.prepare(guest, id).await?;
    node.discard(id).await?;
    let took = began.elapsed();
    drop(prepared);
    Ok(milliseconds(took))
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Whom to measure in which order: another one goes first in every round, and once each has been first, all go
/// backwards, so that nobody always follows the same one.
pub(crate) fn in_turn<T: Clone>(subjects: &[T], round: usize) -> Vec<T> {
    let mut order = subjects.to_vec();
    let Some(turn) = round.checked_div(subjects.len()) else {
        return order;
    };
    order.rotate_left(round % subjects.len());
    if turn % 2 == 1 {
        order.reverse();
    }
    order
}

/// Containers that said they are there and do nothing, each with a shim of its own.
pub(crate) struct Crowd(Vec<(String, Created)>);

impl Crowd {
    /// Starts some, one after the other; their ids begin with `prefix`.
    pub(crate) async fn start(
        node: &Node,
        guest: &Guest,
        prefix: &str,
        count: usize,
    ) -> Result<Self, Error> {
        let mut running = Vec::with_capacity(count);
        for number in 0..count {
            let id = format!("{prefix}-{number}");
            let mut created = node.create(guest, &id).await?;
            node.start(&created).await?;
            created.line("ready\n").await?;
            running.push((id, created));
        }
        Ok(Self(running))
    }

    /// Id and init of each.
    pub(crate) fn inits(&self) -> impl Iterator<Item = (&str, u32)> {
        self.0
            .iter()
            .map(|(id, created)| (id.as_str(), created.pid))
    }

    pub(crate) async fn stop(mut self, node: &Node) -> Result<(), Error> {
        for (id, created) in &mut self.0 {
            node.kill(created).await?;
            created.ended().await?;
            node.delete(id).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_comes_in_every_round_and_is_first_as_often_as_the_others() {
        for subjects in [&["a", "b"][..], &["a", "b", "c"]] {
            let mut orders = Vec::new();
            for round in 0..2 * subjects.len() {
                let order = in_turn(subjects, round);
                let mut sorted = order.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, subjects, "round {round}");
                orders.push(order);
            }
            for name in subjects {
                let first = orders.iter().filter(|order| order[0] == *name).count();
                assert_eq!(first, 2, "{name} in {orders:?}");
                let last = |order: &&Vec<&str>| order.last() == Some(name);
                assert_eq!(
                    orders.iter().filter(last).count(),
                    2,
                    "{name} in {orders:?}"
                );
            }
        }
        assert_eq!(in_turn::<u8>(&[], 3), [0u8; 0]);
    }

    #[test]
    fn nobody_always_follows_the_same_one() {
        let before_c: std::collections::BTreeSet<&str> = (0..6)
            .filter_map(|round| {
                let order = in_turn(&["a", "b", "c"], round);
                let at = order.iter().position(|name| *name == "c")?;
                Some(order[at.checked_sub(1)?])
            })
            .collect();
        assert_eq!(before_c.len(), 2, "{before_c:?}");
    }
}
