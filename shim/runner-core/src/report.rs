//! The one line on stderr with which a container ends, and its exit code.

use std::io::Write;

use wasmlet_protocol::ExitCode;

use crate::engine::GuestExit;
use crate::failure::one_line;
use crate::init::{self, START_FAILED};

/// Says how the guest ended, where its exit code alone would not tell, and gives that code.
pub(crate) fn exit(name: &str, exit: &GuestExit) -> i32 {
    if let Some(text) = line(name, exit) {
        say(&text);
    }
    code(exit)
}

fn line(name: &str, exit: &GuestExit) -> Option<String> {
    let text = match exit {
        GuestExit::Code(code) if *code > 255 => format!("exit code {code} does not fit, 255 used"),
        GuestExit::Code(_) => return None,
        GuestExit::Trapped(reason) => format!("trapped: {reason}"),
        GuestExit::OutOfFuel => "out of fuel: raise wasmlet.dev/fuel".to_owned(),
        GuestExit::MemoryLimit { needed, limit } => format!(
            "needs {needed} bytes of linear memory to start, limit {limit}: raise the container's \
             memory limit or wasmlet.dev/memory"
        ),
        GuestExit::Deadline => "ran into its time limit: raise wasmlet.dev/timeout".to_owned(),
        GuestExit::StartFailed(reason) => format!("cannot start: {reason}"),
    };
    Some(format!(
        "wasmlet: {}: {}\n",
        one_line(name),
        one_line(&text)
    ))
}

fn code(exit: &GuestExit) -> i32 {
    match exit {
        GuestExit::Code(code) => i32::try_from(*code).map_or(255, |code| code.min(255)),
        GuestExit::Trapped(_) => ExitCode::Trap.code(),
        GuestExit::OutOfFuel => ExitCode::OutOfFuel.code(),
        GuestExit::MemoryLimit { .. } => ExitCode::MemoryLimit.code(),
        GuestExit::Deadline => ExitCode::Deadline.code(),
        GuestExit::StartFailed(_) => ExitCode::StartFailed.code(),
    }
}

/// From here on a panic is one line and an exit code, whatever thread it is in: unwinding would
/// run into the frames of the process that this one was cloned from.
pub(crate) fn panics_end_the_container(name: &str) {
    let name = name.to_owned();
    std::panic::set_hook(Box::new(move |panic| {
        say(&format!(
            "wasmlet: {}: internal error: {}\n",
            name,
            one_line(&panic.to_string())
        ));
        init::end(START_FAILED);
    }));
}

/// One write, so that lines of several processes do not mix; nobody is left to tell when it fails.
fn say(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes());
    let _ = stderr.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_own_code_is_kept_as_far_as_it_fits() {
        for (given, code) in [
            (0, 0),
            (7, 7),
            (126, 126),
            (255, 255),
            (256, 255),
            (u32::MAX, 255),
        ] {
            assert_eq!(super::code(&GuestExit::Code(given)), code);
        }
        assert_eq!(line("m", &GuestExit::Code(3)), None);
        assert!(line("m", &GuestExit::Code(256)).is_some_and(|l| l.contains("256")));
    }

    #[test]
    fn an_end_is_one_line() {
        let exit = GuestExit::Trapped("wasm trap:\nunreachable\u{1b}[0m".to_owned());
        let line = line("/a\nb.wasm", &exit).expect("a trap says so");
        assert_eq!(
            line,
            "wasmlet: /a b.wasm: trapped: wasm trap: unreachable[0m\n"
        );
        assert_eq!(code(&exit), 121);
    }
}
