//! stdin, stdout, stderr and terminals: nothing is lost, nothing piles up.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use wasmlet_conformance::{
    Ctx, LONG, NAMESPACE, SHORT, Task, TaskOptions, Tmpfs, eventually, proc,
};

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::all("stdout_and_stderr_are_apart", stdout_and_stderr_are_apart),
    Case::all("output_needs_no_end_of_line", output_needs_no_end_of_line),
    Case::all("stdin_ends_with_close_io", stdin_ends_with_close_io),
    Case::all(
        "without_stdin_the_guest_reads_the_end",
        without_stdin_the_guest_reads_the_end,
    ),
    Case::all("nothing_is_lost_at_exit", nothing_is_lost_at_exit),
    Case::all(
        "a_slow_reader_grows_no_memory",
        a_slow_reader_grows_no_memory,
    ),
    Case::all(
        "without_a_reader_kill_still_works",
        without_a_reader_kill_still_works,
    ),
    Case::all("a_terminal_is_a_terminal", a_terminal_is_a_terminal),
    Case::all("a_terminal_can_be_resized", a_terminal_can_be_resized),
    Case::all(
        "stdin_takes_more_than_a_pipe_holds",
        stdin_takes_more_than_a_pipe_holds,
    ),
    // Not on runc's shim: it copies, and sometimes loses what a guest wrote that ended at once.
    Case::ours("a_file_takes_the_output", a_file_takes_the_output),
    Case::all("a_logger_takes_the_output", a_logger_takes_the_output),
    Case::all(
        "a_logger_takes_the_output_of_a_terminal",
        a_logger_takes_a_terminals_output,
    ),
    Case::ours(
        "a_logger_that_is_missing_is_named",
        a_logger_that_is_missing_is_named,
    ),
    Case::ours("a_full_log_disk_is_the_guests_error", a_full_log_disk).alone(),
];

/// What a shim may grow by while nobody reads.
const GROWTH_BYTES: u64 = 8 << 20;

fn stdout_and_stderr_are_apart(ctx: &Ctx) {
    let exit = ctx.run("t", "hello", TaskOptions::default());
    assert_eq!(exit.code, 0);
    assert_eq!(exit.stdout, "hello from the guest\n");
    assert_eq!(exit.stderr, "hello on stderr\n");
}

fn output_needs_no_end_of_line(ctx: &Ctx) {
    let exit = ctx.run("t", "partial", TaskOptions::default());
    assert_eq!(exit.code, 0);
    assert_eq!(exit.stdout, "whole line\nno end of line");
    assert_eq!(exit.stderr, "an error without one");
}

fn stdin_ends_with_close_io(ctx: &Ctx) {
    let task = ctx.running("t", "cat", TaskOptions::default().stdin());
    task.io.write(b"first line\n");
    task.io.stdout.wait_for("first line", SHORT);
    task.io.write(b"second line\n");
    task.io.stdout.wait_for("second line", SHORT);
    task.io.close_stdin();
    task.close_io().expect("stdin can be closed");
    let exit = task.wait();
    assert_eq!(exit.code, 0);
    assert_eq!(exit.stdout, "ready\nfirst line\nsecond line\n");
    assert_eq!(exit.stderr, "end of input\n");
}

fn without_stdin_the_guest_reads_the_end(ctx: &Ctx) {
    let exit = ctx.run("t", "cat", TaskOptions::default());
    assert_eq!((exit.code, exit.stderr.as_str()), (0, "end of input\n"));
}

fn nothing_is_lost_at_exit(ctx: &Ctx) {
    const MIB: usize = 4;
    let exit = ctx.run("t", "flood", TaskOptions::args([MIB.to_string()]));
    assert_eq!(exit.code, 0);
    assert_eq!(exit.stdout.len(), MIB << 20);
    for (number, line) in exit.stdout.lines().enumerate() {
        assert_eq!(
            line.trim_end_matches('.').parse(),
            Ok(number),
            "line {number} is {line:?}"
        );
    }
}

fn a_slow_reader_grows_no_memory(ctx: &Ctx) {
    const MIB: usize = 24;
    let task = ctx.task("t", "flood", TaskOptions::args([MIB.to_string()]));
    task.io.stdout.pause();
    let shim = ctx.shim_pid("t");
    let before = proc::rss(shim).expect("the shim runs");
    task.start().expect("started");
    // Blocked for good when it has used no more processor time for a while.
    let pid = task.pid.cast_signed();
    let mut last = (String::new(), 0);
    eventually("the guest is blocked", LONG, || {
        let used = proc::cpu_ticks(pid).unwrap_or_default();
        last = if last.0 == used {
            (used, last.1 + 1)
        } else {
            (used, 0)
        };
        if last.1 >= 50 {
            Ok(())
        } else {
            Err(format!("{} ticks", last.0))
        }
    });
    assert!(
        proc::is_running(pid),
        "with nobody reading the guest cannot have ended"
    );
    let grown = proc::rss(shim)
        .expect("the shim runs")
        .saturating_sub(before);
    assert!(
        grown < GROWTH_BYTES,
        "the shim grew by {grown} bytes while nobody read"
    );
    task.io.stdout.resume();
    let exit = task.wait();
    assert_eq!((exit.code, exit.stdout.len()), (0, MIB << 20));
}

fn without_a_reader_kill_still_works(ctx: &Ctx) {
    let task = ctx.task("t", "flood", TaskOptions::args(["64"]));
    task.io.stdout.pause();
    task.start().expect("started");
    task.kill(libc::SIGKILL).expect("killed");
    let event = ctx.events().wait(&task.id, "exit", SHORT);
    assert_eq!(event.status, 137);
}

fn a_terminal_is_a_terminal(ctx: &Ctx) {
    let task = ctx.running("t", "tty", TaskOptions::default().stdin().terminal());
    task.io.write(b"over the wire\n");
    let exit = task.wait();
    assert_eq!(exit.code, 7, "{exit:?}");
    assert!(exit.stdout.contains("tty 1 1 1\r\n"), "{exit:?}");
    assert!(exit.stdout.contains("[over the wire]\r\n"), "{exit:?}");
}

fn a_terminal_can_be_resized(ctx: &Ctx) {
    let task = ctx.running("t", "tty", TaskOptions::default().stdin().terminal());
    task.resize(100, 40).expect("resized");
    // The init's own descriptor 1 is the terminal.
    let file = std::fs::File::open(format!("/proc/{}/fd/1", task.pid)).expect("the terminal");
    let size = proc::window_size(&file).expect("a terminal has a size");
    assert_eq!(size, (100, 40));
    // While somebody has it open, a terminal has not ended.
    drop(file);
    task.io.write(b"\n");
    assert_eq!(task.wait().code, 7);
}

fn stdin_takes_more_than_a_pipe_holds(ctx: &Ctx) {
    let task = ctx.running("t", "cat", TaskOptions::default().stdin());
    let text: String = (0..20_000)
        .map(|number| format!("line {number:010}\n"))
        .collect();
    task.io.write(text.as_bytes());
    task.io.close_stdin();
    task.close_io().expect("stdin can be closed");
    let exit = task.wait();
    assert_eq!(exit.code, 0);
    assert!(
        exit.stdout == format!("ready\n{text}"),
        "{} bytes came back",
        exit.stdout.len()
    );
}

/// A path of the test's in the node's folder for temporary files.
fn temp(ctx: &Ctx, name: &str) -> PathBuf {
    ctx.node().base().join("temp").join(ctx.id(name))
}

/// A guest that has ended with its output there, and is yet to be deleted.
fn ended_into(ctx: &Ctx, uri: String) -> Task<'_> {
    let task = ctx.task("t", "hello", TaskOptions::default().log(uri));
    task.start().expect("started");
    assert_eq!(task.wait_code(LONG).expect("ended"), 0);
    task
}

fn a_file_takes_the_output(ctx: &Ctx) {
    let file = temp(ctx, "log");
    fs::write(&file, "before\n").expect("written");
    let task = ended_into(ctx, format!("file://{}", file.display()));
    eventually(
        "both lines are in the file, behind what was there",
        SHORT,
        || {
            let text = fs::read_to_string(&file).expect("a file");
            let mut lines: Vec<_> = text.lines().collect();
            lines.sort_unstable();
            if text.starts_with("before\n")
                && lines == ["before", "hello from the guest", "hello on stderr"]
            {
                Ok(())
            } else {
                Err(text)
            }
        },
    );
    task.delete().expect("deleted");
}

/// A logger that writes what it is told and gets into a file, and where it does.
fn logger(ctx: &Ctx) -> (String, PathBuf) {
    let (program, out) = (temp(ctx, "logger"), temp(ctx, "logged"));
    // containerd's protocol: output on 3, errors on 4, and 5 is closed when it is ready.
    let script = r#"#!/bin/sh
# It is asked to end when the task is deleted, and has to write what it has before.
trap '' TERM
exec 5>&-
{
    echo "$CONTAINER_NAMESPACE $CONTAINER_ID $1"
    /bin/cat <&3
    /bin/cat <&4
} >"$2.new"
/bin/mv "$2.new" "$2"
"#;
    fs::write(&program, script).expect("written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a program");
    let uri = format!("binary://{}?to={}", program.display(), out.display());
    (uri, out)
}

fn a_logger_takes_a_terminals_output(ctx: &Ctx) {
    let (uri, out) = logger(ctx);
    let options = TaskOptions::default().stdin().terminal().log(uri);
    let task = ctx.task("t", "tty", options);
    task.start().expect("started");
    // The terminal echoes what comes at once, in the middle of the guest's lines if need be.
    let so_far = PathBuf::from(format!("{}.new", out.display()));
    eventually("the guest's first lines are logged", LONG, || {
        let text = fs::read_to_string(&so_far).map_err(|error| error.to_string())?;
        text.contains("ready\r\n").then_some(()).ok_or(text)
    });
    task.io.write(b"over the wire\n");
    assert_eq!(task.wait_code(LONG).expect("ended"), 7);
    task.delete().expect("deleted");
    let logged = eventually("the logger ends", SHORT, || {
        fs::read_to_string(&out).map_err(|error| error.to_string())
    });
    for text in [
        &*format!("{NAMESPACE} {} to\n", ctx.id("t")),
        "tty 1 1 1\r\nready\r\n",
        "[over the wire]\r\n",
    ] {
        assert!(logged.contains(text), "no {text:?} in {logged:?}");
    }
}

fn a_logger_takes_the_output(ctx: &Ctx) {
    let (uri, out) = logger(ctx);
    ended_into(ctx, uri).delete().expect("deleted");
    let logged = eventually("the logger ends", SHORT, || {
        fs::read_to_string(&out).map_err(|error| error.to_string())
    });
    let expected = format!(
        "{} {} to\nhello from the guest\nhello on stderr\n",
        NAMESPACE,
        ctx.id("t")
    );
    assert_eq!(logged, expected);
}

fn a_logger_that_is_missing_is_named(ctx: &Ctx) {
    let options = TaskOptions::default().log("binary:///no/such/logger");
    let refused = ctx
        .try_task("t", &ctx.image("hello"), options, |spec| spec)
        .err()
        .expect("there is no logger");
    assert!(
        refused
            .message()
            .contains("the logger /no/such/logger did not start: No such file or directory"),
        "{refused}"
    );
}

fn a_full_log_disk(ctx: &Ctx) {
    let folder = temp(ctx, "small");
    fs::create_dir_all(&folder).expect("a folder");
    let disk = Tmpfs::on(folder, "size=64k");
    let uri = format!("file://{}/log", disk.path().display());
    let task = ctx.task("t", "flood", TaskOptions::args(["1"]).log(uri));
    let shim = ctx.shim_pid("t");
    task.start().expect("started");
    assert_eq!(
        task.wait_code(LONG).expect("ended"),
        1,
        "the guest was told that its write failed"
    );
    assert!(proc::is_running(shim), "the shim lives");
    task.delete().expect("deleted");
    drop(disk);
    assert_eq!(ctx.run("after", "hello", TaskOptions::default()).code, 0);
}
