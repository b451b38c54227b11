//! Components: the same life as a module's.

use wasmlet_conformance::{Ctx, Exit, Image, ImageForm, LONG, SHORT, Target, TaskOptions};

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::wasm(
        "a_component_writes_without_an_end_of_line",
        a_component_writes_without_an_end_of_line,
    )
    .wasmtime_only(),
    Case::wasm(
        "a_component_reads_stdin_to_its_end",
        a_component_reads_stdin,
    )
    .wasmtime_only(),
    Case::wasm("sigterm_ends_a_component", sigterm_ends_a_component).wasmtime_only(),
];

pub(crate) fn component(guest: &str) -> Image {
    Image::of_guest_as(guest, Target::Component, ImageForm::Gzip)
}

fn a_component_writes_without_an_end_of_line(ctx: &Ctx) {
    let exit = ctx.run_image("t", &component("partial"), TaskOptions::default(), |spec| {
        spec
    });
    let expected = Exit {
        code: 0,
        stdout: "whole line\nno end of line".to_owned(),
        stderr: "an error without one".to_owned(),
    };
    assert_eq!(exit, expected);
}

fn a_component_reads_stdin(ctx: &Ctx) {
    let options = TaskOptions::default().stdin();
    let task = ctx
        .try_task("t", &component("cat"), options, |spec| spec)
        .expect("created");
    task.start().expect("started");
    task.io.write(b"a line\n");
    task.io.stdout.wait_for("a line\n", LONG);
    task.io.close_stdin();
    task.close_io().expect("stdin can be closed");
    let exit = task.wait();
    assert_eq!((exit.code, exit.stdout.as_str()), (0, "ready\na line\n"));
    assert_eq!(exit.stderr, "end of input\n");
}

fn sigterm_ends_a_component(ctx: &Ctx) {
    for guest in ["sleep", "spin", "cat"] {
        let options = TaskOptions::default().stdin();
        let task = ctx
            .try_task(guest, &component(guest), options, |spec| spec)
            .expect("created");
        task.start().expect("started");
        task.io.stdout.wait_for("ready", LONG);
        let begun = std::time::Instant::now();
        task.kill(libc::SIGTERM).expect("sent");
        let code = task.wait_code(SHORT).expect("within the grace period");
        assert_eq!(code, 143, "{guest}");
        assert!(
            begun.elapsed().as_secs() < 2,
            "{guest}: {:?}",
            begun.elapsed()
        );
        task.delete().expect("deleted");
    }
}
