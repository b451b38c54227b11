//! Linux containers: the same under our shim as under runc's.

use std::collections::BTreeSet;

use tonic::Code;
use wasmlet_conformance::{Ctx, LONG, SHORT, TaskOptions, eventually, proc};

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::linux(
        "identity_and_capabilities_are_the_specs",
        identity_and_capabilities_are_the_specs,
    ),
    Case::linux("an_exec_runs_beside_the_init", an_exec_runs_beside_the_init),
    Case::linux("an_exec_reads_stdin", an_exec_reads_stdin),
    Case::linux("an_exec_can_be_killed", an_exec_can_be_killed),
    Case::linux("an_unknown_exec_is_not_found", an_unknown_exec_is_not_found),
    Case::linux(
        "a_program_that_is_missing_fails_with_its_name",
        missing_program,
    ),
    Case::linux("signals_reach_the_init", signals_reach_the_init),
    Case::linux(
        "pids_are_all_of_the_container",
        pids_are_all_of_the_container,
    ),
    Case::linux("kill_all_leaves_nobody", kill_all_leaves_nobody),
    Case::linux(
        "an_exec_on_a_terminal_under_names_as_long_as_cris",
        an_exec_on_a_terminal,
    ),
];

fn identity_and_capabilities_are_the_specs(ctx: &Ctx) {
    let exit = ctx.run_with("t", "linux_sidecar", TaskOptions::args(["facts"]), |spec| {
        spec.user(1000, 1001)
            .env("A=1")
            .set(
                "/process/capabilities/bounding",
                serde_json::json!(["CAP_CHOWN"]),
            )
            .set("/process/capabilities/permitted", serde_json::json!([]))
            .set("/process/capabilities/effective", serde_json::json!([]))
    });
    let lines: BTreeSet<_> = exit.stdout.lines().collect();
    for line in [
        "uid 1000 gid 1001",
        "env A=1",
        "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000001",
        "NoNewPrivs:\t1",
    ] {
        assert!(lines.contains(line), "no {line:?} in {lines:?}");
    }
    let known = ["A", "PATH", "HOME"];
    for variable in lines.iter().filter_map(|line| line.strip_prefix("env ")) {
        let name = variable.split('=').next().unwrap_or_default();
        assert!(known.contains(&name), "{variable} is nobody's");
    }
}

fn an_exec_runs_beside_the_init(ctx: &Ctx) {
    let task = ctx.running("t", "linux_sidecar", TaskOptions::args(["serve"]));
    task.exec("e1", &["/guest", "exit", "9"], false)
        .expect("added");
    let pid = task.start_exec("e1").expect("started");
    assert_ne!(pid, task.pid);
    assert_eq!(task.wait_exec("e1").code, 9);
    assert_eq!(task.delete_exec("e1").expect("deleted"), 9);
    task.exec("e2", &["/guest", "facts"], false).expect("added");
    task.start_exec("e2").expect("started");
    let exit = task.wait_exec("e2");
    assert!(exit.stdout.contains("uid 0 gid 0"), "{exit:?}");
    task.delete_exec("e2").expect("deleted");
    let round = ["exec-added", "exec-started", "exit"];
    let expected: Vec<_> = ["create", "start"]
        .into_iter()
        .chain(round)
        .chain(round)
        .collect();
    // An event takes its own way to us, and may come after the answer that it was put before.
    eventually("every event comes once and in order", SHORT, || {
        // containerd itself publishes nothing on the delete of an exec, its shim may.
        let mut topics = task.topics();
        topics.retain(|topic| topic != "delete");
        if topics == expected {
            Ok(())
        } else {
            Err(format!("{topics:?}"))
        }
    });
    assert!(proc::is_running(task.pid.cast_signed()), "the init goes on");
}

fn an_exec_reads_stdin(ctx: &Ctx) {
    let task = ctx.running("t", "cat", TaskOptions::default().stdin());
    task.io.open_stdin();
    task.exec("e", &["/guest"], true).expect("added");
    task.start_exec("e").expect("started");
    task.with_exec_io("e", |io| {
        io.write(b"for the second\n");
        io.stdout.wait_for("for the second\n", LONG);
    });
    task.kill_exec("e", libc::SIGKILL).expect("killed");
    let exit = task.wait_exec("e");
    assert_eq!(
        (exit.code, exit.stdout.as_str()),
        (137, "ready\nfor the second\n")
    );
    task.delete_exec("e").expect("deleted");
    assert_eq!(task.io.stdout.text(), "ready\n", "the init read nothing");
}

fn an_exec_can_be_killed(ctx: &Ctx) {
    let task = ctx.running("t", "linux_sidecar", TaskOptions::args(["serve"]));
    task.exec("e", &["/guest", "children", "2"], false)
        .expect("added");
    task.start_exec("e").expect("started");
    task.with_exec_io("e", |io| io.stdout.wait_for("ready", LONG));
    task.kill_exec("e", libc::SIGTERM).expect("killed");
    assert_eq!(task.wait_code_of("e"), 143);
    task.delete_exec("e").expect("deleted");
    assert!(proc::is_running(task.pid.cast_signed()), "the init goes on");
}

fn an_unknown_exec_is_not_found(ctx: &Ctx) {
    let task = ctx.running("t", "linux_sidecar", TaskOptions::args(["serve"]));
    for refused in [
        task.start_exec("nobody").expect_err("no such exec"),
        task.kill_exec("nobody", libc::SIGKILL)
            .expect_err("no such exec"),
        task.delete_exec("nobody").expect_err("no such exec"),
    ] {
        assert_eq!(refused.code(), Code::NotFound, "{refused}");
    }
}

fn missing_program(ctx: &Ctx) {
    let image = ctx.image("hello");
    let refused = ctx
        .try_task("t", &image, TaskOptions::default(), |spec| {
            spec.set("/process/args", serde_json::json!(["/no/such/program"]))
        })
        .err()
        .expect("there is no such program");
    assert!(refused.message().contains("/no/such/program"), "{refused}");
}

fn signals_reach_the_init(ctx: &Ctx) {
    let task = ctx.running("t", "linux_sidecar", TaskOptions::args(["serve"]));
    task.kill(libc::SIGUSR1).expect("sent");
    let exit = task.wait();
    assert_eq!(exit.stdout, format!("ready\nsignal {}\n", libc::SIGUSR1));
}

fn pids_are_all_of_the_container(ctx: &Ctx) {
    let task = ctx.running("t", "linux_sidecar", TaskOptions::args(["children", "3"]));
    let mut pids = task.pids().expect("pids");
    pids.sort_unstable();
    let init = task.pid.cast_signed();
    let mut expected = proc::children(init);
    expected.push(init);
    expected.sort_unstable();
    assert_eq!(
        pids,
        expected
            .iter()
            .map(|pid| pid.cast_unsigned())
            .collect::<Vec<_>>()
    );
    assert_eq!(pids.len(), 4);
}

fn kill_all_leaves_nobody(ctx: &Ctx) {
    let task = ctx.running("t", "linux_sidecar", TaskOptions::args(["children", "5"]));
    let pids = task.pids().expect("pids");
    task.kill_all(libc::SIGKILL).expect("killed");
    assert_eq!(task.wait().code, 137);
    task.delete().expect("deleted");
    for pid in pids {
        assert!(!proc::is_running(pid.cast_signed()), "{pid} lives on");
    }
}

/// Length of the ids that CRI makes up for containers and execs.
const CRI_ID: usize = 64;

fn an_exec_on_a_terminal(ctx: &Ctx) {
    let name = "c".repeat(CRI_ID - ctx.id("").len());
    let exec = "e".repeat(CRI_ID);
    let task = ctx.running(&name, "tty", TaskOptions::default().stdin());
    assert_eq!(task.id.len(), CRI_ID);
    task.io.open_stdin();
    task.exec_on_terminal(&exec, &["/guest"]).expect("added");
    let pid = task.start_exec(&exec).expect("started");
    task.with_exec_io(&exec, |io| {
        io.stdout.wait_for("tty 1 1 1\r\nready\r\n", LONG);
    });
    task.resize_exec(&exec, 100, 40).expect("resized");
    let file = std::fs::File::open(format!("/proc/{pid}/fd/1")).expect("the terminal");
    let size = proc::window_size(&file).expect("a terminal has a size");
    assert_eq!(size, (100, 40));
    // While somebody has it open, a terminal has not ended.
    drop(file);
    task.with_exec_io(&exec, |io| io.write(b"over the wire\n"));
    let exit = task.wait_exec(&exec);
    assert_eq!(exit.code, 7, "{exit:?}");
    assert!(exit.stdout.contains("[over the wire]\r\n"), "{exit:?}");
    assert_eq!(task.delete_exec(&exec).expect("deleted"), 7);
    assert!(proc::is_running(task.pid.cast_signed()), "the init goes on");
}
