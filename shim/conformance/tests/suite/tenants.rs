//! The article's multi-tenant promise: 64 MiB and 10^9 fuel each, and a bad neighbour ends by itself, for
//! the right reason, while the good one goes on.

use wasmlet_conformance::{Ctx, Exit, SpecBuilder, TaskOptions, proc};
use wasmlet_protocol::ExitCode;

use crate::case::Case;

pub(crate) const CASES: &[Case] = &[
    Case::wasm("a_loop_runs_out_of_fuel", a_loop).row("fuel"),
    Case::wasm("a_memory_bomb_is_refused", a_memory_bomb),
    Case::wasm("a_stack_bomb_overflows", a_stack_bomb),
    Case::wasm("a_flood_of_files_ends_at_the_limit", a_flood_of_files)
        .row("a flood of open files ends with an error"),
    Case::wasm("random_bytes_are_paid_for", random_bytes).row("fuel"),
    Case::wasm("a_gibibyte_at_once_is_refused", a_gibibyte_at_once),
    Case::wasm("threads_are_not_to_be_had", threads),
];

const MIB: u64 = 1 << 20;
const FUEL: &str = "1000000000";

fn tenant(spec: SpecBuilder) -> SpecBuilder {
    spec.memory(64 * MIB)
}

/// Runs the hostile guest beside a good one, which must not notice.
#[track_caller]
fn beside_a_good_one(ctx: &Ctx, what: &[&str], fuel: bool) -> Exit {
    let good = ctx.running_with("good", "sleep", TaskOptions::default(), tenant);
    let options = TaskOptions::args(what.iter().copied());
    let exit = ctx.run_with("hostile", "hostile", options, |spec| {
        let spec = tenant(spec);
        if fuel {
            spec.annotation("wasmlet.dev/fuel", FUEL)
        } else {
            spec
        }
    });
    assert!(
        proc::is_running(good.pid.cast_signed()),
        "the good tenant goes on"
    );
    exit
}

#[track_caller]
fn assert_ends(exit: &Exit, code: ExitCode, sentence: &str) {
    assert_eq!(exit.code.cast_signed(), code.code(), "{exit:?}");
    assert!(exit.stderr.contains(sentence), "{exit:?}");
}

fn a_loop(ctx: &Ctx) {
    let exit = beside_a_good_one(ctx, &["loop"], true);
    assert_ends(
        &exit,
        ExitCode::OutOfFuel,
        "out of fuel, limit 1000000000: raise wasmlet.dev/fuel",
    );
}

fn a_memory_bomb(ctx: &Ctx) {
    let exit = beside_a_good_one(ctx, &["memory"], false);
    assert_ends(&exit, ExitCode::Trap, "trapped: ");
}

fn a_stack_bomb(ctx: &Ctx) {
    let exit = beside_a_good_one(ctx, &["stack"], false);
    assert_eq!(exit.code.cast_signed(), ExitCode::Trap.code(), "{exit:?}");
}

fn a_flood_of_files(ctx: &Ctx) {
    let exit = beside_a_good_one(ctx, &["files", "/etc/hostname"], false);
    assert_eq!(exit.code, 7, "{exit:?}");
    let count = exit
        .stdout
        .lines()
        .find_map(|line| line.split_once(" files, then "));
    let (count, _) = count.unwrap_or_else(|| panic!("{exit:?}"));
    let count: u32 = count.parse().expect("a number");
    assert!((100..1024).contains(&count), "{count} of 1024 descriptors");
}

/// They cost nothing but time, and end with the guest's fuel or with the bytes.
fn random_bytes(ctx: &Ctx) {
    let exit = beside_a_good_one(ctx, &["random"], true);
    let by_fuel = exit.code.cast_signed() == ExitCode::OutOfFuel.code();
    assert!(by_fuel || exit.code == 7, "{exit:?}");
}

fn a_gibibyte_at_once(ctx: &Ctx) {
    let exit = ctx.run_with("t", "random_at_once", TaskOptions::default(), tenant);
    let trapped = exit.code.cast_signed() == ExitCode::Trap.code();
    // 100 would be success.
    assert!(trapped || (101..=180).contains(&exit.code), "{exit:?}");
}

fn threads(ctx: &Ctx) {
    let image = ctx.image("spawns_threads");
    let built = ctx.try_task("t", &image, TaskOptions::default(), tenant);
    let status = built.err().unwrap_or_else(|| panic!("it was created"));
    assert!(status.message().contains("wasi-threads"), "{status}");
}
