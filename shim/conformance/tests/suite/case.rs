//! From cases to the trials that the test runner knows.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::support;
use libtest_mimic::{Completion, Failed, Trial};
use wasmlet_conformance::{Ctx, Node, NodeOptions, Runtime, Version, bin_dir, skips_are_failures};

/// A test on every release and on some runtimes.
pub(crate) struct Case {
    name: &'static str,
    runtimes: &'static [Runtime],
    run: fn(&Ctx),
    node: NodeKind,
    elsewhere: Option<Elsewhere>,
    company: Company,
    engines: Engines,
    /// The row of docs/support.md that the case stands for.
    row: Option<&'static str>,
}

/// Whether other cases may run at the same time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Company {
    /// They may.
    Any,
    /// What the case changes is the machine's.
    None,
}

/// On which engines a case with wasm guests is run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Engines {
    All,
    Only(&'static str),
    Auto,
}

impl Engines {
    /// Whether a case is run on a runtime that names an engine or a profile.
    fn include(self, runtime: Runtime) -> bool {
        match self {
            Self::All => true,
            Self::Only(engine) => runtime.engine() == engine,
            Self::Auto => false,
        }
    }
}

/// The runtimes with wasm guests.
const WASM: [Runtime; 6] = [
    Runtime::Wasm,
    Runtime::Hardened,
    Runtime::Wasmer,
    Runtime::WasmerHardened,
    Runtime::WasmEdge,
    Runtime::WasmEdgeHardened,
];

/// The runtimes of our shim.
const OURS: [Runtime; 7] = [
    Runtime::Wasm,
    Runtime::WasmLinux,
    Runtime::Hardened,
    Runtime::Wasmer,
    Runtime::WasmerHardened,
    Runtime::WasmEdge,
    Runtime::WasmEdgeHardened,
];

/// Where a case shows a fault that is not ours and cannot be tested, and why.
#[derive(Clone, Copy)]
struct Elsewhere {
    is_faulty: fn(Runtime, &Version) -> bool,
    reason: &'static str,
}

/// Whose containerd a case may use.
#[derive(Clone, Copy)]
enum NodeKind {
    /// One for all cases of a release.
    Shared,
    /// One that dies with the case.
    Own(fn() -> NodeOptions),
}

impl Case {
    /// On runc, on our shim with wasm guests on every engine and on our shim with Linux guests.
    pub(crate) const fn all(name: &'static str, run: fn(&Ctx)) -> Self {
        Self {
            name,
            runtimes: &Runtime::ALL,
            run,
            node: NodeKind::Shared,
            elsewhere: None,
            company: Company::Any,
            engines: Engines::All,
            row: None,
        }
    }

    /// On our shim with wasm guests, on every engine and profile.
    pub(crate) const fn wasm(name: &'static str, run: fn(&Ctx)) -> Self {
        Self {
            name,
            runtimes: &WASM,
            run,
            node: NodeKind::Shared,
            elsewhere: None,
            company: Company::Any,
            engines: Engines::All,
            row: None,
        }
    }

    /// On our shim, with wasm guests on every engine and with Linux guests.
    pub(crate) const fn ours(name: &'static str, run: fn(&Ctx)) -> Self {
        Self {
            name,
            runtimes: &OURS,
            run,
            node: NodeKind::Shared,
            elsewhere: None,
            company: Company::Any,
            engines: Engines::All,
            row: None,
        }
    }

    /// Of the engines only on the one that `auto` takes, in the profile `default`: the case is about the shim,
    /// or about what that engine alone has.
    pub(crate) const fn auto_only(mut self) -> Self {
        self.engines = Engines::Auto;
        self
    }

    /// Of the engines only on Wasmtime, in every profile: no other one has what the case is about.
    pub(crate) const fn wasmtime_only(mut self) -> Self {
        self.engines = Engines::Only("wasmtime");
        self
    }

    /// Only on WasmEdge, by its handler, in every profile: no other engine has what the case is about.
    pub(crate) const fn wasmedge_only(mut self) -> Self {
        self.runtimes = &[Runtime::WasmEdge, Runtime::WasmEdgeHardened];
        self.engines = Engines::Only("wasmedge");
        self
    }

    /// What the case is about is a row of docs/support.md: on an engine that the table says no for it has to
    /// fail.
    pub(crate) const fn row(mut self, row: &'static str) -> Self {
        self.row = Some(row);
        self
    }

    /// With Linux guests: on runc's shim and on ours.
    pub(crate) const fn linux(name: &'static str, run: fn(&Ctx)) -> Self {
        Self {
            name,
            runtimes: &[Runtime::Runc, Runtime::WasmLinux],
            run,
            node: NodeKind::Shared,
            elsewhere: None,
            company: Company::Any,
            engines: Engines::All,
            row: None,
        }
    }

    /// Not where something that is not ours is known to be at fault.
    pub(crate) const fn except(
        mut self,
        is_faulty: fn(Runtime, &Version) -> bool,
        reason: &'static str,
    ) -> Self {
        self.elsewhere = Some(Elsewhere { is_faulty, reason });
        self
    }

    /// While no other case runs.
    pub(crate) const fn alone(mut self) -> Self {
        self.company = Company::None;
        self
    }

    /// On a containerd that no other case uses.
    pub(crate) const fn own_node(mut self) -> Self {
        self.node = NodeKind::Own(NodeOptions::default);
        self
    }

    /// On a containerd of its own with these options.
    pub(crate) const fn with_node(mut self, options: fn() -> NodeOptions) -> Self {
        self.node = NodeKind::Own(options);
        self
    }
}

/// Topics about the shim, to which every engine is the same: they are not run on each.
const SHIM_TOPICS: [&str; 5] = ["cache", "interrupted", "protocol", "soak", "errors"];

/// Every case of every topic, on every release and runtime asked for.
pub(crate) fn trials(topics: &[(&'static str, &'static [Case])]) -> Vec<Trial> {
    let mut trials = Vec::new();
    // Engines and profiles are nothing to containerd: its newest release stands for all.
    let newest = Version::wanted().last().cloned();
    for version in Version::wanted() {
        for (topic, cases) in topics {
            for case in *cases {
                let is_on = |runtime: &&Runtime| {
                    is_wanted(**runtime)
                        && (!runtime.is_engine_variant()
                            || (newest.as_ref() == Some(&version)
                                && !SHIM_TOPICS.contains(topic)
                                && case.engines.include(**runtime)))
                };
                for runtime in case.runtimes.iter().filter(is_on) {
                    let name = format!("{topic}::{}::{}::{version}", case.name, runtime.name());
                    let (version, runtime) = (version.clone(), *runtime);
                    trials.push(Trial::ignorable_test(name, move || {
                        run(case, &version, runtime)
                    }));
                }
            }
        }
    }
    trials
}

fn is_wanted(runtime: Runtime) -> bool {
    match std::env::var("WASMLET_RUNTIMES") {
        Ok(list) if !list.is_empty() => list.split(',').any(|name| name.trim() == runtime.name()),
        _ => true,
    }
}

fn run(case: &Case, version: &str, runtime: Runtime) -> Result<Completion, Failed> {
    let version = match usable(version, runtime) {
        Ok(version) => version,
        Err(reason) if skips_are_failures() => return Err(reason.into()),
        Err(reason) => return Ok(Completion::ignored_with(reason)),
    };
    if let Some(Elsewhere { is_faulty, reason }) = case.elsewhere
        && is_faulty(runtime, &version)
    {
        return Ok(Completion::ignored_with(reason));
    }
    static MACHINE: RwLock<()> = RwLock::new(());
    let (_shared, _alone) = match case.company {
        Company::Any => (
            Some(MACHINE.read().unwrap_or_else(PoisonError::into_inner)),
            None,
        ),
        Company::None => (
            None,
            Some(MACHINE.write().unwrap_or_else(PoisonError::into_inner)),
        ),
    };
    if runtime == Runtime::Runc {
        // Its shim is not what is tested, and loses an event or a line now and then. A case that is wrong
        // fails twice.
        let first = AssertUnwindSafe(|| attempt(case, &version, runtime));
        match std::panic::catch_unwind(first) {
            Ok(result) => return result.map(|()| Completion::Completed),
            Err(_) => eprintln!("{} failed on runc's shim: once more", case.name),
        }
    }
    if let Some(row) = case.row
        && runtime.is_wasm()
        && !support::says_yes(row, runtime)
    {
        let expected = AssertUnwindSafe(|| attempt(case, &version, runtime));
        return match std::panic::catch_unwind(expected) {
            Ok(Err(failed)) => Err(failed),
            Err(_) => Ok(Completion::Completed),
            Ok(Ok(())) => Err(format!(
                "{} can do this: docs/support.md says no in the row {row:?}",
                runtime.engine()
            )
            .into()),
        };
    }
    attempt(case, &version, runtime)?;
    Ok(Completion::Completed)
}

fn attempt(case: &Case, version: &Version, runtime: Runtime) -> Result<(), Failed> {
    let node = match case.node {
        NodeKind::Shared => shared(version)?,
        NodeKind::Own(options) => Arc::new(Node::start(version, options())),
    };
    let ctx = Ctx::new(node, runtime);
    (case.run)(&ctx);
    ctx.finish();
    Ok(())
}

/// The release, or why nothing can be tested on it here.
fn usable(version: &str, runtime: Runtime) -> Result<Version, String> {
    if !Path::new("/proc/self").exists() || !is_root() {
        return Err("root is needed: containerd and the shims run as root".to_owned());
    }
    let shim = bin_dir().join("containerd-shim-wasm-v1");
    if runtime.is_ours() && !shim.exists() {
        return Err(format!(
            "{} is not there: build it with hack/setup",
            shim.display()
        ));
    }
    if let Some(engine) = runtime.handler_engine() {
        let runner = bin_dir().join(format!("wasmlet-run-{engine}"));
        if !runner.exists() {
            return Err(format!(
                "{} is not there: build it with hack/build",
                runner.display()
            ));
        }
    }
    Version::find(version).map_err(|error| error.to_string())
}

fn is_root() -> bool {
    wasmlet_conformance::proc::status(std::process::id().cast_signed(), "Uid")
        .is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0"))
}

/// Nodes by release; an error stays, so that one broken release fails fast.
static NODES: Mutex<BTreeMap<String, Result<Arc<Node>, ()>>> = Mutex::new(BTreeMap::new());

fn shared(version: &Version) -> Result<Arc<Node>, Failed> {
    let mut nodes = NODES.lock().unwrap_or_else(PoisonError::into_inner);
    let node = nodes.entry(version.name.clone()).or_insert_with(|| {
        let start = || Arc::new(Node::start(version, NodeOptions::default()));
        // The panic's message is on stderr already; here only that it must not be tried again.
        std::panic::catch_unwind(start).map_err(drop)
    });
    node.clone()
        .map_err(|()| format!("containerd {} did not start", version.name).into())
}

/// Stops the shared nodes.
pub(crate) fn stop_nodes() {
    NODES.lock().unwrap_or_else(PoisonError::into_inner).clear();
}
