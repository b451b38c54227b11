//! From cases to the trials that the test runner knows.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use libtest_mimic::{Completion, Failed, Trial};
use wasmlet_e2e::{Cluster, Namespace};

use crate::site::{self, Site, State};

/// A test with all nodes for itself.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    name: &'static str,
    run: fn(&Site<'_>),
    state: State,
    is_quick: bool,
    needs_inference: bool,
}

impl Case {
    /// A case whose name is a statement. It begins and ends with nodes that have nothing of wasmlet.
    pub(crate) const fn clean(name: &'static str, run: fn(&Site<'_>)) -> Self {
        Self {
            name,
            run,
            state: State::Clean,
            is_quick: false,
            needs_inference: false,
        }
    }

    /// A case that begins and ends with wasmlet on all nodes, as Helm installs it.
    pub(crate) const fn installed(name: &'static str, run: fn(&Site<'_>)) -> Self {
        let mut case = Self::clean(name, run);
        case.state = State::Installed;
        case
    }

    /// Also in CI's subset.
    pub(crate) const fn ci(mut self) -> Self {
        self.is_quick = true;
        self
    }

    /// Only with the inference example's image.
    pub(crate) const fn inference(mut self) -> Self {
        self.needs_inference = true;
        self
    }

    fn obstacle(&self, cluster: &Cluster) -> Option<&'static str> {
        let env = cluster.env();
        if cluster.control().is_none() {
            return Some("WASMLET_E2E_CLUSTER is not set: it would change nodes");
        }
        if env.images.is_none() {
            return Some("WASMLET_E2E_IMAGES is not set: there is nothing to install");
        }
        if cluster.nodes().len() < 3 {
            return Some("it needs three nodes");
        }
        if self.needs_inference && env.inference_image.is_none() {
            return Some("WASMLET_E2E_INFERENCE_IMAGE is not set");
        }
        None
    }
}

/// Every case that is asked for.
pub(crate) fn trials(topics: &[(&'static str, &'static [Case])]) -> Vec<Trial> {
    let quick_only = env::var("WASMLET_E2E_SUBSET").is_ok_and(|subset| subset == "ci");
    let all = topics
        .iter()
        .flat_map(|(topic, cases)| cases.iter().map(move |case| (*topic, case)));
    let wanted = all.filter(|(_, case)| case.is_quick || !quick_only);
    let trial = |(topic, case): (&str, &'static Case)| {
        let name = format!("{topic}::{}", case.name);
        Trial::ignorable_test(name.clone(), move || run(case, &name))
    };
    wanted.map(trial).collect()
}

static TIMES: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());

fn run(case: &Case, name: &str) -> Result<Completion, Failed> {
    let cluster = Cluster::without_wasmlet();
    if let Some(reason) = case.obstacle(cluster) {
        if env::var("WASMLET_REQUIRE").is_ok_and(|value| value == "1") {
            return Err(reason.into());
        }
        return Ok(Completion::ignored_with(reason));
    }
    let begun = Instant::now();
    let result = Namespace::run(cluster, name, &[], |ns| {
        let site = Site::new(ns);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            site.bring(case.state);
            let begun = Instant::now();
            (case.run)(&site);
            site.leave(case.state);
            println!("{name}: {:.1} s", begun.elapsed().as_secs_f32());
        }));
        if let Err(panic) = outcome {
            site::forget();
            eprintln!("---- {name}: wasmlet when it failed\n{}", site.dump(name));
            resume_unwind(panic);
        }
    });
    TIMES
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push((begun.elapsed(), name.to_owned()));
    result.map(|()| Completion::Completed).map_err(Failed::from)
}

/// How long each case took, with what it had to install or remove before.
pub(crate) fn finish() {
    let mut times = TIMES.lock().unwrap_or_else(PoisonError::into_inner);
    times.sort_by(|a, b| b.cmp(a));
    for (time, name) in times.iter() {
        println!("{:6.1} s  {name}", time.as_secs_f32());
    }
}
