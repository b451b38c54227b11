//! The one line on stderr with which a container ends, and its exit code.

use std::io::Write;

use wasmlet_protocol::ExitCode;

use crate::engine::{End, GuestExit, Program};
use crate::failure::one_line;
use crate::init::{self, START_FAILED};

/// Says how the guest ended, where its exit code alone would not tell, and what fuel it used, where the
/// pod limits that; gives the exit code.
pub(crate) fn exit(name: &str, end: &End, fuel: Option<u64>) -> i32 {
    let fuel_line = match (fuel, end.fuel_used) {
        (Some(limit), Some(used)) => fuel_line(name, used, limit),
        _ => String::new(),
    };
    let text = fuel_line + &line(name, &end.exit).unwrap_or_default();
    if !text.is_empty() {
        say(&text);
    }
    code(&end.exit)
}

fn fuel_line(name: &str, used: u64, limit: u64) -> String {
    format!("wasmlet: {}: used {used} of {limit} fuel\n", one_line(name))
}

/// Says on the container's stderr how one request to a guest that serves went wrong: one line, as at the
/// end of a container. The request is named by its method and path.
pub fn note_request(program: &Program, request: &str, exit: &GuestExit) {
    if let Some(reason) = reason(exit) {
        note(program, &format!("{request}: {reason}"));
    }
}

/// Says something about the guest on the container's stderr, in one line.
pub fn note(program: &Program, text: &str) {
    say(&format!(
        "wasmlet: {}: {}\n",
        one_line(&program.name),
        one_line(text)
    ));
}

pub(crate) fn line(name: &str, exit: &GuestExit) -> Option<String> {
    reason(exit).map(|text| format!("wasmlet: {}: {}\n", one_line(name), one_line(&text)))
}

fn reason(exit: &GuestExit) -> Option<String> {
    let text = match exit {
        GuestExit::Code(code) if *code > 255 => format!("exit code {code} does not fit, 255 used"),
        GuestExit::Code(_) => return None,
        GuestExit::Trapped(reason) => format!("trapped: {reason}"),
        GuestExit::OutOfFuel { limit } => {
            format!("out of fuel, limit {limit}: raise wasmlet.dev/fuel")
        }
        GuestExit::StackOverflow { limit } => {
            format!("stack overflow, limit {limit} bytes: raise wasmlet.dev/max-stack")
        }
        GuestExit::MemoryLimit { needed, limit } => format!(
            "needs {needed} bytes of linear memory to start, limit {limit}: raise the container's \
             memory limit or wasmlet.dev/memory"
        ),
        GuestExit::Deadline { limit } => {
            format!("ran into its time limit of {limit:?}: raise wasmlet.dev/timeout")
        }
        GuestExit::StartFailed(reason) => format!("cannot start: {reason}"),
    };
    Some(text)
}

fn code(exit: &GuestExit) -> i32 {
    match exit {
        GuestExit::Code(code) => i32::try_from(*code).map_or(255, |code| code.min(255)),
        GuestExit::Trapped(_) | GuestExit::StackOverflow { .. } => ExitCode::Trap.code(),
        GuestExit::OutOfFuel { .. } => ExitCode::OutOfFuel.code(),
        GuestExit::MemoryLimit { .. } => ExitCode::MemoryLimit.code(),
        GuestExit::Deadline { .. } => ExitCode::Deadline.code(),
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

    #[test]
    fn a_limit_is_told_with_its_value_and_its_key() {
        for (exit, said, number) in [
            (
                GuestExit::OutOfFuel { limit: 500 },
                "wasmlet: m: out of fuel, limit 500: raise wasmlet.dev/fuel\n",
                122,
            ),
            (
                GuestExit::StackOverflow { limit: 65536 },
                "wasmlet: m: stack overflow, limit 65536 bytes: raise wasmlet.dev/max-stack\n",
                121,
            ),
            (
                GuestExit::Deadline {
                    limit: std::time::Duration::from_millis(1500),
                },
                "wasmlet: m: ran into its time limit of 1.5s: raise wasmlet.dev/timeout\n",
                124,
            ),
        ] {
            assert_eq!(line("m", &exit).as_deref(), Some(said));
            assert_eq!(code(&exit), number);
        }
        assert_eq!(fuel_line("m", 7, 9), "wasmlet: m: used 7 of 9 fuel\n");
    }
}
