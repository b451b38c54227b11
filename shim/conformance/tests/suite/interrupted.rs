//! A create that is cut off in the middle: by a caller that gives up, by the shim's own death.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tonic::Code;
use wasmlet_conformance::{Ctx, LONG, SHORT, TaskOptions, eventually, proc};

use crate::cache::{compiler, large};
use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::wasm(
        "a_create_that_nobody_waits_for_leaves_nothing",
        a_create_that_nobody_waits_for,
    )
    .auto_only()
    .own_node(),
    Case::wasm(
        "a_shim_killed_while_it_compiles_leaves_no_compiler",
        a_shim_killed_while_it_compiles,
    )
    .auto_only()
    .own_node(),
];

/// Functions of a module that takes much longer to compile than the caller waits.
const FUNCTIONS: usize = 8000;

/// What is live of container `name`: its shim, a compiler, records of our shims.
fn live(ctx: &Ctx, name: &str) -> Vec<String> {
    let mut live = Vec::new();
    live.extend(ctx.find_shim(name).map(|pid| format!("shim {pid}")));
    live.extend(compiler(ctx).map(|pid| format!("compiler {pid}")));
    live.extend(ctx.records(name));
    live
}

fn is_empty(live: Vec<String>) -> Result<(), String> {
    if live.is_empty() {
        Ok(())
    } else {
        Err(live.join(", "))
    }
}

fn a_create_that_nobody_waits_for(ctx: &Ctx) {
    let image = large("large-abandoned", FUNCTIONS);
    let options = TaskOptions::default().patience(Duration::from_millis(300));
    let rootfs = ctx
        .container("t", &image, &options, |spec| spec)
        .expect("a container");
    let helper = std::thread::scope(|scope| {
        let create = scope.spawn(|| ctx.create("t", rootfs.clone(), &options).err());
        // While its shim lives it can be told from those of other tests.
        let helper = eventually("the compiler runs or the call ends", LONG, || {
            let found = compiler(ctx);
            if found.is_some() || create.is_finished() {
                Ok(found)
            } else {
                Err("neither".to_owned())
            }
        });
        let given_up = create.join().expect("no panic");
        let given_up = given_up.expect("compiling takes longer than the caller's patience");
        assert!(
            matches!(given_up.code(), Code::DeadlineExceeded | Code::Cancelled),
            "{given_up}"
        );
        helper
    });
    eventually("nothing is live of the container", LONG, || {
        let mut live = live(ctx, "t");
        let helper = helper.filter(|pid| proc::is_running(*pid));
        live.extend(helper.map(|pid| format!("compiler {pid}")));
        is_empty(live)
    });
    // The caller has removed its FIFOs; out of the way for the next one, and judged at the end.
    let streams = ["stdout", "stderr"].map(|stream| {
        let folder = ctx.node().base().join("fifo");
        folder.join(format!("{}-{stream}", ctx.id("t")))
    });
    let made: Vec<_> = streams
        .iter()
        .filter(|path| std::fs::remove_file(path).is_ok())
        .collect();
    let task = ctx.again("t", rootfs);
    task.start().expect("started");
    assert_eq!(task.wait().code, 0);
    task.delete().expect("deleted");
    assert!(
        made.is_empty(),
        "the shim made files where the caller's FIFOs had been: {made:?}"
    );
}

fn a_shim_killed_while_it_compiles(ctx: &Ctx) {
    let image = large("large-orphaned", FUNCTIONS);
    let options = TaskOptions::default();
    let rootfs = ctx
        .container("t", &image, &options, |spec| spec)
        .expect("a container");
    std::thread::scope(|scope| {
        let create = scope.spawn(|| ctx.create("t", rootfs.clone(), &options).err());
        let helper = eventually("the compiler runs", LONG, || {
            compiler(ctx).ok_or_else(|| "no compiler".to_owned())
        });
        let shim = ctx.shim_pid("t");
        kill(Pid::from_raw(shim), Signal::SIGKILL).expect("it runs");
        eventually("the compiler is gone with its shim", SHORT, || {
            if proc::is_running(helper) {
                Err(format!("{helper} runs"))
            } else {
                Ok(())
            }
        });
        let failed = create.join().expect("no panic");
        assert!(failed.is_some(), "there is no shim to create anything");
    });
    eventually("nothing is live of the container", SHORT, || {
        is_empty(live(ctx, "t"))
    });
    let task = ctx.again("t", rootfs);
    task.start().expect("started");
    assert_eq!(task.wait().code, 0);
    task.delete().expect("deleted");
}
