//! The tests on a Kubernetes cluster. `hack/test e2e` brings one up and runs them.
//!
//! ```text
//! WASMLET_E2E_KUBECONFIG       the cluster; KUBECONFIG by default
//! WASMLET_E2E_REGISTRY         HOST:PORT[/prefix] over plain HTTP, the same name here and on the nodes
//! WASMLET_E2E_CLUSTER          the nodes are those of this hack/cluster cluster and may be broken
//! WASMLET_E2E_INFERENCE_IMAGE  archive that `examples/inference/build --image=FILE` made
//! WASMLET_E2E_SUBSET=ci        the quick cases only
//! WASMLET_E2E_KEEP=1           namespaces stay
//! WASMLET_E2E_KUBECTL          kubectl; by default from PATH
//! WASMLET_REQUIRE=1            what would be skipped fails
//! ```
//!
//! A test's name is `<topic>::<case>`; arguments are those of any Rust test. A new topic is a file with a
//! `CASES` of its own, a `mod` line and a line in `TOPICS`.

mod bad_input;
mod case;
mod config;
mod density;
mod disruption;
mod exits;
mod images;
mod inference;
mod jobs;
mod lifecycle;
mod mixed;
mod overhead;
mod probes;
mod resize;
mod resources;
mod table;

use std::process::ExitCode;

use libtest_mimic::Arguments;

/// In this order; cases that want to be alone come last.
const TOPICS: &[(&str, &[case::Case])] = &[
    ("inference", inference::CASES),
    ("mixed", mixed::CASES),
    ("config", config::CASES),
    ("images", images::CASES),
    ("exits", exits::CASES),
    ("jobs", jobs::CASES),
    ("probes", probes::CASES),
    ("lifecycle", lifecycle::CASES),
    ("resize", resize::CASES),
    ("bad_input", bad_input::CASES),
    ("resources", resources::CASES),
    ("disruption", disruption::CASES),
    ("density", density::CASES),
];

/// Tests at a time: most of a test is waiting, and each has a pod or three.
const THREADS: usize = 5;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let conclusion = libtest_mimic::run(&arguments, case::trials(TOPICS));
    case::print_times();
    conclusion.exit_code()
}
