//! From cases to the trials that the test runner knows.

use std::env;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use libtest_mimic::{Completion, Failed, Trial};
use wasmlet_e2e::{Cluster, Namespace};

/// A test in a namespace of its own.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    name: &'static str,
    run: fn(&Namespace),
    is_quick: bool,
    is_alone: bool,
    breaks_nodes: bool,
    looks_into_nodes: bool,
    min_nodes: usize,
    labels: &'static [(&'static str, &'static str)],
    needs_inference: bool,
}

impl Case {
    /// A case whose name is a statement.
    pub(crate) const fn new(name: &'static str, run: fn(&Namespace)) -> Self {
        Self {
            name,
            run,
            is_quick: false,
            is_alone: false,
            breaks_nodes: false,
            looks_into_nodes: false,
            min_nodes: 1,
            labels: &[],
            needs_inference: false,
        }
    }

    /// Also in CI's subset.
    pub(crate) const fn ci(mut self) -> Self {
        self.is_quick = true;
        self
    }

    /// After the others, while no other case runs: it loads a node, or measures one.
    pub(crate) const fn alone(mut self) -> Self {
        self.is_alone = true;
        self
    }

    /// Alone, and only where `WASMLET_E2E_CLUSTER` says that nodes may be broken.
    pub(crate) const fn breaks_nodes(mut self) -> Self {
        self.is_alone = true;
        self.breaks_nodes = true;
        self
    }

    /// Only where `WASMLET_E2E_CLUSTER` lets the test run commands on nodes.
    pub(crate) const fn looks_into_nodes(mut self) -> Self {
        self.looks_into_nodes = true;
        self
    }

    /// Only on so many nodes.
    #[expect(dead_code, reason = "for the topic disruption")]
    pub(crate) const fn nodes(mut self, count: usize) -> Self {
        self.min_nodes = count;
        self
    }

    /// Labels of its namespace: Pod Security.
    pub(crate) const fn namespace_labels(
        mut self,
        labels: &'static [(&'static str, &'static str)],
    ) -> Self {
        self.labels = labels;
        self
    }

    /// Only with the inference example's image.
    pub(crate) const fn inference(mut self) -> Self {
        self.needs_inference = true;
        self
    }

    /// Why the case cannot be run here.
    fn obstacle(&self, cluster: &Cluster) -> Option<String> {
        if self.breaks_nodes && cluster.control().is_none() {
            return Some("WASMLET_E2E_CLUSTER is not set: it would break nodes".to_owned());
        }
        if self.looks_into_nodes && cluster.control().is_none() {
            return Some("WASMLET_E2E_CLUSTER is not set: it looks into nodes".to_owned());
        }
        let count = cluster.nodes().len();
        if count < self.min_nodes {
            return Some(format!(
                "it needs {} nodes, there are {count}",
                self.min_nodes
            ));
        }
        if self.needs_inference && cluster.env().inference_image.is_none() {
            return Some("WASMLET_E2E_INFERENCE_IMAGE is not set".to_owned());
        }
        None
    }
}

/// `WASMLET_REQUIRE=1`: what would be left out for lack of something fails instead.
pub(crate) fn skips_are_failures() -> bool {
    env::var("WASMLET_REQUIRE").is_ok_and(|value| value == "1")
}

/// Every case that is asked for, those that want to be alone at the end.
pub(crate) fn trials(topics: &[(&'static str, &'static [Case])]) -> Vec<Trial> {
    let quick_only = env::var("WASMLET_E2E_SUBSET").is_ok_and(|subset| subset == "ci");
    let all = topics
        .iter()
        .flat_map(|(topic, cases)| cases.iter().map(move |case| (*topic, case)));
    let mut wanted: Vec<_> = all
        .filter(|(_, case)| case.is_quick || !quick_only)
        .collect();
    wanted.sort_by_key(|(_, case)| case.is_alone);
    let trial = |(topic, case): (&str, &'static Case)| {
        let name = format!("{topic}::{}", case.name);
        Trial::ignorable_test(name.clone(), move || run(case, &name))
    };
    wanted.into_iter().map(trial).collect()
}

/// How long each took, its namespace's removal included and waiting for others left out.
static TIMES: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());

fn run(case: &Case, name: &str) -> Result<Completion, Failed> {
    let cluster = Cluster::shared();
    if let Some(reason) = case.obstacle(cluster) {
        if skips_are_failures() {
            return Err(reason.into());
        }
        return Ok(Completion::ignored_with(reason));
    }
    static CLUSTER: RwLock<()> = RwLock::new(());
    let (_shared, _alone) = if case.is_alone {
        (
            None,
            Some(CLUSTER.write().unwrap_or_else(PoisonError::into_inner)),
        )
    } else {
        (
            Some(CLUSTER.read().unwrap_or_else(PoisonError::into_inner)),
            None,
        )
    };
    let begun = Instant::now();
    let result = Namespace::run(cluster, name, case.labels, case.run);
    let time = (begun.elapsed(), name.to_owned());
    TIMES
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(time);
    result.map(|()| Completion::Completed).map_err(Failed::from)
}

/// The time of each case, longest first.
pub(crate) fn print_times() {
    let mut times = TIMES.lock().unwrap_or_else(PoisonError::into_inner);
    times.sort_by(|a, b| b.cmp(a));
    for (time, name) in times.iter() {
        println!("{:6.1} s  {name}", time.as_secs_f32());
    }
}
