//! Installing, upgrading, repairing and removing wasmlet, on a Kubernetes cluster whose nodes have none of it when the tests begin.
//! `hack/test operator` brings one up and runs them.
//!
//! The variables of the environment are those of the suite beside it, and
//!
//! ```text
//! WASMLET_E2E_HELM     helm; by default from PATH
//! WASMLET_E2E_IMAGES   what `hack/images --push` left: target/images
//! ```
//!
//! Cases run one after the other: each has all nodes. A case says in which state it wants them, and leaves them so (`site.rs`).

mod case;
mod crashes;
mod drift;
mod hosts;
mod install;
mod membership;
mod operators;
mod removal;
mod rights;
mod rollout;
mod site;
mod upgrade;

use std::process::ExitCode;

use libtest_mimic::Arguments;

/// In this order, so that few cases have to install or remove what the one before them left.
const TOPICS: &[(&str, &[case::Case])] = &[
    ("install", install::CASES),
    ("rights", rights::CASES),
    ("upgrade", upgrade::CASES),
    ("rollout", rollout::CASES),
    ("drift", drift::CASES),
    ("operators", operators::CASES),
    ("membership", membership::CASES),
    ("crashes", crashes::CASES),
    ("hosts", hosts::CASES),
    ("removal", removal::CASES),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let conclusion = libtest_mimic::run(&arguments, case::trials(TOPICS));
    if !arguments.list {
        case::finish();
    }
    conclusion.exit_code()
}
