//! Sudden ends: of the init, of the shim, of containerd.

use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wasmlet_conformance::{
    Ctx, LONG, PodContainer, Runtime, SHORT, TaskOptions, Version, eventually, proc, wait_for,
};
use wasmlet_protocol::ExitCode;

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::all("a_killed_init_is_told_once", a_killed_init_is_told_once),
    Case::all("a_killed_shim_leaves_nothing", a_killed_shim_leaves_nothing),
    Case::all(
        "containerd_may_die_and_come_back",
        containerd_may_die_and_come_back,
    )
    .own_node(),
    Case::all("an_exit_meanwhile_is_told", an_exit_meanwhile_is_told)
        .own_node()
        .except(runc_since_1_7, FORGOTTEN),
    Case::all("pods_outlive_containerd", pods_outlive_containerd)
        .own_node()
        .except(runc_since_1_7, FORGOTTEN),
    Case::wasm("sigterm_ends_a_guest_at_once", sigterm_ends_a_guest_at_once),
    Case::wasm(
        "other_signals_tell_their_number",
        other_signals_tell_their_number,
    ),
    Case::wasm("a_trap_has_its_code_and_line", a_trap_has_its_code_and_line),
];

const FORGOTTEN: &str = "from 1.7 on containerd asks a shim for its processes after a restart, and forgets \
                         a task of runc's shim that ended meanwhile, as that has none to tell";

fn runc_since_1_7(runtime: Runtime, version: &Version) -> bool {
    runtime == Runtime::Runc && !version.name.starts_with("1.6.")
}

fn sigkill(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the process is there");
}

fn a_killed_init_is_told_once(ctx: &Ctx) {
    let names: Vec<String> = (0..4).map(|number| format!("t{number}")).collect();
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| {
                let task = ctx.running(name, "sleep", TaskOptions::default());
                let pid = task.pid.cast_signed();
                sigkill(pid);
                assert_eq!(task.wait().code, 137);
                assert_ne!(proc::state(pid), Some('Z'), "it was reaped");
                task.delete().expect("deleted");
                task.assert_topics(&["create", "start", "exit", "delete"]);
            });
        }
    });
}

fn a_killed_shim_leaves_nothing(ctx: &Ctx) {
    let task = ctx.running("t", "sleep", TaskOptions::default());
    let (shim, init) = (ctx.shim_pid("t"), task.pid.cast_signed());
    sigkill(shim);
    let event = ctx.events().wait(&task.id, "exit", LONG);
    assert_eq!(event.pid, task.pid);
    ctx.events().wait(&task.id, "delete", LONG);
    eventually("the init is gone too", SHORT, || {
        if proc::is_running(init) {
            Err("it lives".to_owned())
        } else {
            Ok(())
        }
    });
    if ctx.runtime() == Runtime::Runc {
        // runc's shim leaves it; whoever starts another one of that name removes it.
        let _ = std::fs::remove_file(ctx.shim_socket("t"));
    }
    let exits = task
        .topics()
        .iter()
        .filter(|topic| *topic == "exit")
        .count();
    assert_eq!(exits, 1, "{:?}", task.topics());
}

fn containerd_may_die_and_come_back(ctx: &Ctx) {
    let task = ctx.running("t", "term", TaskOptions::default());
    task.io.stdout.wait_for("tick 2", LONG);
    ctx.node().kill();
    let so_far = task.io.stdout.len();
    // Output flows without containerd.
    eventually("the guest prints on", SHORT, || {
        let len = task.io.stdout.len();
        if len > so_far {
            Ok(())
        } else {
            Err(format!("{len} bytes"))
        }
    });
    ctx.node().restart();
    ctx.follow_events();
    let state = task.state().expect("the task is known again");
    assert_eq!(state.pid, task.pid, "the same process");
    let so_far = task.io.stdout.len();
    eventually("the guest prints on", SHORT, || {
        let len = task.io.stdout.len();
        if len > so_far {
            Ok(())
        } else {
            Err(format!("{len} bytes"))
        }
    });
    task.kill(libc::SIGKILL).expect("killed");
    assert_eq!(task.wait().code, 137);
    task.delete().expect("deleted");
    ctx.events().wait(&task.id, "exit", SHORT);
}

fn an_exit_meanwhile_is_told(ctx: &Ctx) {
    let task = ctx.running("t", "cat", TaskOptions::default().stdin());
    task.io.open_stdin();
    ctx.node().kill();
    sigkill(task.pid.cast_signed());
    eventually("the init is gone", SHORT, || {
        if proc::is_running(task.pid.cast_signed()) {
            Err("it lives".to_owned())
        } else {
            Ok(())
        }
    });
    ctx.node().restart();
    ctx.follow_events();
    assert_eq!(task.wait_code(SHORT).expect("the exit is known"), 137);
    assert_eq!(task.delete().expect("deleted"), 137);
}

fn pods_outlive_containerd(ctx: &Ctx) {
    let cri = ctx.cri();
    let pod = cri.pod("p", &[]);
    let stays = pod.start("stays", &ctx.image("term"), &PodContainer::default());
    let ends = pod.start("ends", &ctx.image("sleep"), &PodContainer::default());
    pod.wait_log("stays", "tick 1");
    pod.wait_log("ends", "ready");
    let (init, ending) = (pod.init_pid(&stays), pod.init_pid(&ends));
    ctx.node().kill();
    sigkill(ending);
    ctx.node().restart();
    let status = pod.exited(&ends, LONG);
    assert_eq!(status.exit_code, 137);
    assert_eq!(pod.init_pid(&stays), init, "the same process");
    assert!(proc::is_running(init));
    let lines = pod.log("stays").lines().count();
    eventually("its log goes on", LONG, || {
        let now = pod.log("stays").lines().count();
        if now > lines {
            Ok(())
        } else {
            Err(format!("{now} lines"))
        }
    });
    pod.delete().expect("deleted");
}

fn sigterm_ends_a_guest_at_once(ctx: &Ctx) {
    for guest in ["sleep", "spin", "cat", "flood"] {
        let options = TaskOptions::args(["100000"]).stdin();
        let task = ctx.task(guest, guest, options);
        if guest == "flood" {
            task.io.stdout.pause();
        }
        task.io.stdin.as_ref().expect("stdin");
        task.start().expect("started");
        if guest != "flood" {
            task.io.stdout.wait_for("ready", LONG);
        }
        let begun = Instant::now();
        task.kill(libc::SIGTERM).expect("sent");
        let code = task
            .wait_code(SHORT)
            .expect("it ends within the grace period");
        assert_eq!(code, 143, "{guest}");
        assert!(
            begun.elapsed().as_secs() < 2,
            "{guest} took {:?}",
            begun.elapsed()
        );
        task.io.stdout.resume();
        assert_eq!(task.delete().expect("deleted"), 143);
    }
}

fn other_signals_tell_their_number(ctx: &Ctx) {
    for (signal, code) in [
        (libc::SIGINT, 130),
        (libc::SIGKILL, 137),
        (libc::SIGQUIT, 131),
    ] {
        let name = format!("t{signal}");
        let task = ctx.running(&name, "sleep", TaskOptions::default());
        task.kill(signal).expect("sent");
        assert_eq!(task.wait_code(SHORT).expect("it ends"), code);
    }
    // Those that tell a Linux process something tell a guest nothing, and harm it not.
    let task = ctx.running("winch", "sleep", TaskOptions::default());
    for signal in [libc::SIGWINCH, libc::SIGCHLD, libc::SIGURG] {
        task.kill(signal).expect("sent");
    }
    let ended = wait_for(std::time::Duration::from_millis(300), || {
        if proc::is_running(task.pid.cast_signed()) {
            Err(())
        } else {
            Ok(())
        }
    });
    assert!(ended.is_err(), "SIGWINCH ended the guest");
    assert!(ctx.runtime().is_wasm());
}

fn a_trap_has_its_code_and_line(ctx: &Ctx) {
    let traps = [
        ("trap", "trapped: ", "unreachable"),
        ("out_of_bounds", "trapped: ", "out of bounds"),
        ("endless_recursion", "stack overflow, limit ", "max-stack"),
    ];
    for (guest, how, reason) in traps {
        let name = guest.replace('_', "-");
        let exit = ctx.run(&name, guest, TaskOptions::default());
        assert_eq!(
            exit.code.cast_signed(),
            ExitCode::Trap.code(),
            "{guest}: {exit:?}"
        );
        assert_eq!(exit.stderr.lines().count(), 1, "one line: {exit:?}");
        assert!(
            exit.stderr
                .starts_with(&format!("wasmlet: /guest.wasm: {how}")),
            "{exit:?}"
        );
        assert!(exit.stderr.contains(reason), "{guest}: {exit:?}");
    }
}
