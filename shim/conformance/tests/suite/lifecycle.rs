//! Create, Start, Kill, Wait, Delete: what every container's life is made of.

use tonic::Code;
use wasmlet_conformance::{Ctx, LONG, SHORT, TaskOptions};

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::all(
        "events_come_in_order_and_once",
        events_come_in_order_and_once,
    ),
    Case::all(
        "the_guests_exit_code_is_reported",
        the_guests_exit_code_is_reported,
    ),
    Case::all("state_follows_the_life", state_follows_the_life),
    Case::all("a_created_task_can_be_killed", a_created_task_can_be_killed),
    Case::all(
        "a_created_task_can_be_deleted",
        a_created_task_can_be_deleted,
    ),
    Case::all("a_second_start_is_refused", a_second_start_is_refused),
    Case::all("a_second_create_is_refused", a_second_create_is_refused),
    Case::all(
        "a_running_task_cannot_be_deleted",
        a_running_task_cannot_be_deleted,
    ),
    Case::all(
        "kill_after_the_exit_is_harmless",
        kill_after_the_exit_is_harmless,
    ),
    Case::all("every_waiter_gets_the_exit", every_waiter_gets_the_exit),
    Case::all("sigkill_gives_137", sigkill_gives_137),
    Case::all(
        "containers_do_not_disturb_each_other",
        containers_do_not_disturb_each_other,
    ),
    Case::all("an_id_can_be_used_again", an_id_can_be_used_again),
    Case::all(
        "pause_stops_and_resume_goes_on",
        pause_stops_and_resume_goes_on,
    ),
];

fn events_come_in_order_and_once(ctx: &Ctx) {
    let task = ctx.task("t", "exit_code", TaskOptions::args(["3"]));
    let pid = task.start().expect("started");
    assert_eq!(task.wait().code, 3);
    task.delete().expect("deleted");
    task.assert_topics(&["create", "start", "exit", "delete"]);
    let events = ctx.events().of(&task.id);
    assert!(
        events.iter().all(|event| event.pid == pid),
        "one pid everywhere: {events:?}"
    );
    assert_eq!(events[2].exec, task.id, "the exit is the init's");
    assert!(
        events[2..].iter().all(|event| event.status == 3),
        "{events:?}"
    );
}

fn the_guests_exit_code_is_reported(ctx: &Ctx) {
    for code in ["0", "1", "42", "125"] {
        let exit = ctx.run(&format!("t{code}"), "exit_code", TaskOptions::args([code]));
        assert_eq!(exit.code.to_string(), code);
    }
}

fn state_follows_the_life(ctx: &Ctx) {
    use containerd_client::types::v1::Status;
    let task = ctx.task("t", "sleep", TaskOptions::default());
    let created = task.state().expect("a state");
    assert_eq!(created.status(), Status::Created);
    assert_eq!(created.pid, task.pid);
    assert_ne!(created.pid, 0, "a created task has its init");
    assert_eq!(task.start().expect("started"), task.pid);
    task.io.stdout.wait_for("ready", LONG);
    let running = task.state().expect("a state");
    assert_eq!(running.status(), Status::Running);
    assert_eq!(running.pid, task.pid);
    assert_eq!(running.stdout, task.io.stdout.path().display().to_string());
    task.kill(libc::SIGKILL).expect("killed");
    assert_eq!(task.wait().code, 137);
    let stopped = task.state().expect("a state");
    assert_eq!(stopped.status(), Status::Stopped);
    assert_eq!(stopped.exit_status, 137);
    assert!(
        stopped.exited_at.is_some_and(|at| at.seconds > 0),
        "the time of the exit"
    );
    assert_eq!(task.delete().expect("deleted"), 137);
    let gone = task.state().expect_err("nothing is left");
    assert_eq!(gone.code(), Code::NotFound, "{gone}");
}

fn a_created_task_can_be_killed(ctx: &Ctx) {
    let task = ctx.task("t", "sleep", TaskOptions::default());
    task.kill(libc::SIGKILL).expect("killed");
    assert_eq!(task.wait().code, 137);
    assert_eq!(task.delete().expect("deleted"), 137);
    task.assert_topics(&["create", "exit", "delete"]);
}

fn a_created_task_can_be_deleted(ctx: &Ctx) {
    let task = ctx.task("t", "sleep", TaskOptions::default());
    let pid = task.pid.cast_signed();
    task.delete().expect("deleted");
    assert!(
        !wasmlet_conformance::proc::is_running(pid),
        "the init is gone"
    );
}

fn a_second_start_is_refused(ctx: &Ctx) {
    let task = ctx.running("t", "sleep", TaskOptions::default());
    let refused = task.start().expect_err("it runs already");
    if ctx.runtime().is_ours() {
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    }
    assert_eq!(
        task.state().expect("a state").pid,
        task.pid,
        "it still runs"
    );
}

fn a_second_create_is_refused(ctx: &Ctx) {
    let image = ctx.image("sleep");
    let options = TaskOptions::default();
    let task = ctx.running("t", "sleep", options.clone());
    let refused = ctx
        .try_task("t", &image, options, |spec| spec)
        .err()
        .expect("the id is taken");
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    assert_eq!(
        task.state().expect("a state").pid,
        task.pid,
        "the first one still runs"
    );
}

fn a_running_task_cannot_be_deleted(ctx: &Ctx) {
    let task = ctx.running("t", "sleep", TaskOptions::default());
    let refused = task.delete().expect_err("it runs");
    if ctx.runtime().is_ours() {
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    }
    let pid = task.pid.cast_signed();
    assert!(
        wasmlet_conformance::proc::is_running(pid),
        "a refused Delete harms nothing"
    );
}

fn kill_after_the_exit_is_harmless(ctx: &Ctx) {
    let task = ctx.task("t", "exit_code", TaskOptions::args(["0"]));
    task.start().expect("started");
    task.wait();
    match task.kill(libc::SIGTERM) {
        // Ours: there is nothing left to do.
        Ok(()) => assert!(ctx.runtime().is_ours()),
        Err(gone) => assert_eq!(gone.code(), Code::NotFound, "{gone}"),
    }
    task.delete().expect("deleted");
}

fn every_waiter_gets_the_exit(ctx: &Ctx) {
    let task = ctx.running("t", "sleep", TaskOptions::default());
    std::thread::scope(|scope| {
        let waiters: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| task.wait_code(LONG)))
            .collect();
        task.kill(libc::SIGKILL).expect("killed");
        for waiter in waiters {
            assert_eq!(waiter.join().expect("no panic").expect("an answer"), 137);
        }
    });
    assert_eq!(task.wait_code(SHORT).expect("also afterwards"), 137);
}

fn sigkill_gives_137(ctx: &Ctx) {
    for guest in ["sleep", "spin"] {
        let task = ctx.running(guest, guest, TaskOptions::default());
        task.kill(libc::SIGKILL).expect("killed");
        assert_eq!(task.wait_code(SHORT).expect("an exit"), 137, "{guest}");
    }
}

fn containers_do_not_disturb_each_other(ctx: &Ctx) {
    let names: Vec<String> = (0..6).map(|number| format!("t{number}")).collect();
    std::thread::scope(|scope| {
        for (number, name) in names.iter().enumerate() {
            scope.spawn(move || {
                let code = number.to_string();
                let exit = ctx.run(name, "exit_code", TaskOptions::args([&code]));
                assert_eq!(exit.code.to_string(), code);
            });
        }
    });
}

fn an_id_can_be_used_again(ctx: &Ctx) {
    let image = ctx.image("exit_code");
    let rootfs = ctx
        .container("t", &image, &TaskOptions::args(["5"]), |spec| spec)
        .expect("a container");
    for _ in 0..3 {
        let task = ctx.again("t", rootfs.clone());
        task.start().expect("started");
        assert_eq!(task.wait().code, 5);
        task.delete().expect("deleted");
    }
}

fn pause_stops_and_resume_goes_on(ctx: &Ctx) {
    use containerd_client::types::v1::Status;
    let task = ctx.running("t", "term", TaskOptions::default());
    task.io.stdout.wait_for("tick 2", LONG);
    task.pause().expect("paused");
    assert_eq!(task.state().expect("a state").status(), Status::Paused);
    let so_far = task.io.stdout.len();
    let moved = wasmlet_conformance::wait_for(std::time::Duration::from_millis(500), || {
        // A frozen guest prints nothing; a line that was on its way may still arrive.
        if task.io.stdout.len() > so_far + 64 {
            Ok(())
        } else {
            Err(())
        }
    });
    assert!(moved.is_err(), "a paused guest goes on");
    task.resume().expect("resumed");
    assert_eq!(task.state().expect("a state").status(), Status::Running);
    wasmlet_conformance::eventually("the guest goes on", SHORT, || {
        let len = task.io.stdout.len();
        if len > so_far + 64 {
            Ok(())
        } else {
            Err(format!("{len} bytes"))
        }
    });
    ctx.events().wait(&task.id, "resumed", SHORT);
    assert_eq!(task.topics(), ["create", "start", "paused", "resumed"]);
}
