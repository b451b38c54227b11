//! The conformance tests: every case on every containerd release and runtime it is made for.
//!
//! ```text
//! WASMLET_CONTAINERD_VERSIONS  releases, "1.6.20,2.3.7" by default
//! WASMLET_RUNTIMES             of "runc,wasm,wasm-linux,hardened,wasmer,…" (runtime.rs), all by default
//! WASMLET_BIN_DIR              folder of the shim and the runners, target/dist/bin by default
//! WASMLET_REQUIRE=1            what would be skipped fails
//! ```
//!
//! A test's name is `<topic>::<case>::<runtime>::<release>`; arguments are those of any Rust test.

mod bad_input;
mod cache;
mod case;
mod components;
mod context;
mod death;
mod errors;
mod hooks;
mod images;
mod interrupted;
mod lifecycle;
mod limits;
mod linux;
mod listen;
mod mounts;
mod parity;
mod pods;
mod protocol;
mod security;
mod serving;
mod settings;
mod soak;
mod sockets;
mod stdio;
mod support;
mod tenants;
mod toy;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Most of a test's time is waiting: more threads than processors.
    arguments.test_threads.get_or_insert(4);
    wasmlet_conformance::sweep_stale();
    let topics: &[(&str, &[case::Case])] = &[
        ("lifecycle", lifecycle::CASES),
        ("stdio", stdio::CASES),
        ("context", context::CASES),
        ("mounts", mounts::CASES),
        ("parity", parity::CASES),
        ("linux", linux::CASES),
        ("images", images::CASES),
        ("components", components::CASES),
        ("limits", limits::CASES),
        ("listen", listen::CASES),
        ("serving", serving::CASES),
        ("sockets", sockets::CASES),
        ("settings", settings::CASES),
        ("tenants", tenants::CASES),
        ("errors", errors::CASES),
        ("bad_input", bad_input::CASES),
        ("hooks", hooks::CASES),
        ("cache", cache::CASES),
        ("interrupted", interrupted::CASES),
        ("security", security::CASES),
        ("protocol", protocol::CASES),
        ("soak", soak::CASES),
        ("death", death::CASES),
        ("pods", pods::CASES),
        ("toy", toy::CASES),
    ];
    let conclusion = libtest_mimic::run(&arguments, case::trials(topics));
    case::stop_nodes();
    conclusion.exit_code()
}
