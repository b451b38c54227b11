//! Many times over, and at unlucky moments: nothing may pile up.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wasmlet_conformance::{Ctx, LONG, NodeOptions, SHORT, TaskOptions, eventually, proc, wait_for};

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::all("cycles_leave_nothing_behind", cycles_leave_nothing_behind)
        .auto_only()
        .own_node(),
    Case::ours(
        "a_shim_killed_at_any_moment_leaves_nothing",
        a_shim_killed_at_any_moment,
    )
    .own_node(),
    Case::wasm("a_killed_runner_is_told", a_killed_runner_is_told).own_node(),
    Case::wasm(
        "an_init_killed_before_its_start_is_told",
        init_killed_before_its_start,
    ),
    Case::wasm("a_full_run_folder_is_told", a_full_run_folder_is_told).with_node(full_run),
];

/// Cycles in all; `WASMLET_SOAK` asks for more.
fn cycles() -> u32 {
    std::env::var("WASMLET_SOAK")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(48)
}

/// At a time.
const THREADS: u32 = 6;

fn cycles_leave_nothing_behind(ctx: &Ctx) {
    let once = |number: u32| {
        let name = format!("t{number}");
        let code = (number % 100).to_string();
        let exit = ctx.run(&name, "exit_code", TaskOptions::args([&code]));
        assert_eq!(exit.code.to_string(), code);
        ctx.forget(&name);
    };
    // Compiled, and containerd's own pools filled.
    (0..THREADS).for_each(once);
    let containerd = ctx.node().pid();
    let fds = settled_fds(containerd);
    let next = AtomicU32::new(THREADS);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= cycles() {
                        break;
                    }
                    once(number);
                }
            });
        }
    });
    let after = wait_for(SHORT, || {
        let now = proc::fds(containerd).len();
        // A connection of ours that is about to close.
        if now <= fds + 4 { Ok(()) } else { Err(now) }
    });
    assert_eq!(after, Ok(()), "containerd had {fds} descriptors");
}

/// The number of descriptors once it does not change any more.
fn settled_fds(pid: i32) -> usize {
    let mut seen = (0, 0);
    eventually("the number of descriptors settles", LONG, || {
        let now = proc::fds(pid).len();
        seen = if now == seen.0 {
            (now, seen.1 + 1)
        } else {
            (now, 0)
        };
        if seen.1 >= 20 {
            Ok(now)
        } else {
            Err(format!("{now}"))
        }
    })
}

/// Kills what `find` finds, this long after it is there.
fn kill_after(find: impl Fn() -> Option<i32>, delay: Duration, give_up: &dyn Fn() -> bool) -> bool {
    let pid = loop {
        if let Some(pid) = find() {
            break pid;
        }
        if give_up() {
            return false;
        }
    };
    let due = Instant::now() + delay;
    while Instant::now() < due && !give_up() {
        std::thread::yield_now();
    }
    kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok()
}

fn a_shim_killed_at_any_moment(ctx: &Ctx) {
    // Compiled beforehand, so that the moments are those of Create and Start.
    ctx.run("warm", "sleep_or_exit", TaskOptions::args(["exit"]));
    let mut hit = 0;
    for step in 0..16_u32 {
        let name = format!("k{step}");
        let id = ctx.id(&name);
        let done = std::sync::atomic::AtomicBool::new(false);
        let killed = std::thread::scope(|scope| {
            let victim = scope.spawn(|| {
                let find = || ctx.find_shim(&name);
                let delay = Duration::from_millis(u64::from(step) * 4);
                kill_after(find, delay, &|| done.load(Ordering::SeqCst))
            });
            let image = ctx.image("sleep_or_exit");
            if let Ok(task) = ctx.try_task(&name, &image, TaskOptions::args(["exit"]), |spec| spec)
            {
                // Either is fine: the shim may be dead before, during or after.
                let _ = task.start();
                let _ = task.wait_code(SHORT);
            }
            done.store(true, Ordering::SeqCst);
            victim.join().expect("no panic")
        });
        hit += u32::from(killed);
        // One that was killed before containerd had connected is not cleaned up by anybody; the next
        // `start` for that name takes its place.
        let _ = std::fs::remove_file(ctx.shim_socket(&name));
        ctx.forget(&name);
        eventually("nothing of it is left", LONG, || {
            let left: Vec<_> = proc::all()
                .into_iter()
                .filter(|pid| proc::cmdline(*pid).contains(&id))
                .collect();
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{left:?}"))
            }
        });
    }
    assert!(hit >= 8, "only {hit} of 16 shims were there to be killed");
    let exit = ctx.run("after", "exit_code", TaskOptions::args(["0"]));
    assert_eq!(exit.code, 0, "the node works");
}

fn a_killed_runner_is_told(ctx: &Ctx) {
    ctx.run("warm", "sleep_or_exit", TaskOptions::args(["exit"]));
    let mut refused = 0;
    for step in 0..8_u32 {
        let name = format!("k{step}");
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runner = || {
                    let shim = ctx.find_shim(&name)?;
                    proc::children(shim)
                        .into_iter()
                        .find(|pid| proc::cmdline(*pid).contains("wasmlet-run-wasmtime create"))
                };
                kill_after(runner, Duration::from_millis(u64::from(step) * 2), &|| {
                    done.load(Ordering::SeqCst)
                });
            });
            let image = ctx.image("sleep_or_exit");
            match ctx.try_task(&name, &image, TaskOptions::args(["exit"]), |spec| spec) {
                Err(status) => {
                    refused += 1;
                    assert!(
                        status.message().contains("wasmlet-run-wasmtime"),
                        "{status}"
                    );
                }
                // The runner was done before.
                Ok(task) => {
                    task.start().expect("started");
                    task.wait_code(LONG).expect("ended");
                    task.delete().expect("deleted");
                }
            }
            done.store(true, Ordering::SeqCst);
        });
        ctx.forget(&name);
    }
    assert!(refused > 0, "no runner was there to be killed");
}

fn init_killed_before_its_start(ctx: &Ctx) {
    let task = ctx.task("t", "sleep", TaskOptions::default());
    kill(Pid::from_raw(task.pid.cast_signed()), Signal::SIGKILL).expect("it is there");
    assert_eq!(task.wait_code(SHORT).expect("told"), 137);
    let refused = task.start().expect_err("nobody is there to start");
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
    assert_eq!(task.delete().expect("deleted"), 137);
    task.assert_topics(&["create", "exit", "delete"]);
}

fn full_run() -> NodeOptions {
    NodeOptions {
        own_run_kib: Some(64),
        ..NodeOptions::default()
    }
}

fn a_full_run_folder_is_told(ctx: &Ctx) {
    ctx.run("warm", "hello", TaskOptions::default());
    let filler = ctx.node().run_dir().join("filler");
    let fill = std::fs::write(&filler, vec![0; 256 << 10]);
    assert!(fill.is_err(), "the folder is full");
    let refused = ctx
        .try_task("t", &ctx.image("hello"), TaskOptions::default(), |spec| {
            spec
        })
        .err()
        .expect("there is no room for a record");
    assert!(refused.message().contains("/run/wasmlet"), "{refused}");
    assert!(
        refused.message().contains("No space left on device"),
        "{refused}"
    );
    std::fs::remove_file(&filler).expect("removed");
    let exit = ctx.run("after", "hello", TaskOptions::default());
    assert_eq!(exit.code, 0, "it works again");
}
