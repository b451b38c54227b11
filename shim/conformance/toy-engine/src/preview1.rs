//! WASI preview 1 for a guest without files: arguments, variables, standard streams, clocks, random numbers.
//!
//! What is missing is not pretended: a module that imports it is refused by the compile helper.

use rustix::io::{read, write};
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::isatty;
use rustix::thread::sched_yield;
use rustix::time::{ClockId, Timespec, clock_getres, clock_gettime};
use wasmi::{Caller, Error, Extern, FuncType, Linker, Val, ValType};
use wasmlet_runner_core::preview1::{Answer, Errno, FDSTAT_SIZE, Memory, number};

pub use wasmlet_runner_core::preview1::MODULE;

use crate::run::Limiter;

/// What the functions work on.
#[derive(Debug)]
pub struct State {
    /// Arguments, each with its zero at the end.
    pub args: Vec<Vec<u8>>,
    /// Variables as `NAME=value`, each with its zero at the end.
    pub env: Vec<Vec<u8>>,
    /// Which of the three standard streams are open.
    pub open: [bool; 3],
    /// Asked when memories and tables grow.
    pub limiter: Limiter,
}

/// A function that guests can import.
#[derive(Clone, Copy)]
pub struct Function {
    /// Its name in [`MODULE`].
    pub name: &'static str,
    params: &'static [ValType],
    results: &'static [ValType],
    /// The number that the guest gets, or the error that ends it.
    call: fn(&mut Caller<'_, State>, Args<'_>) -> Result<i32, Error>,
}

impl Function {
    /// Its type.
    pub fn ty(&self) -> FuncType {
        FuncType::new(self.params.iter().copied(), self.results.iter().copied())
    }
}

const I32: ValType = ValType::I32;
const I64: ValType = ValType::I64;

/// Largest single read or write in bytes.
const MAX_TRANSFER: usize = 1 << 20;

/// `spipe`: what cannot seek.
const SPIPE: i32 = 70;

/// A function whose answer is an error number, and which needs the guest's memory.
macro_rules! answering {
    ($name:literal, $params:expr, $work:expr) => {
        Function {
            name: $name,
            params: $params,
            results: &[I32],
            call: |caller, args| {
                let work: fn(&mut Memory<'_>, &mut State, Args<'_>) -> Answer = $work;
                with_memory(caller, |memory, state| work(memory, state, args))
            },
        }
    };
}

/// Everything that there is.
pub const FUNCTIONS: [Function; 16] = [
    answering!("args_get", &[I32, I32], |memory, state, args| {
        put_strings(memory, &state.args, args.i32(0), args.i32(1))
    }),
    answering!("args_sizes_get", &[I32, I32], |memory, state, args| {
        put_sizes(memory, &state.args, args.i32(0), args.i32(1))
    }),
    answering!("clock_res_get", &[I32, I32], |memory, _, args| {
        let time = clock_getres(clock(args.i32(0))?);
        memory.write(args.i32(1), &nanoseconds(time).to_le_bytes())
    }),
    answering!("clock_time_get", &[I32, I64, I32], |memory, _, args| {
        let time = clock_gettime(clock(args.i32(0))?);
        memory.write(args.i32(2), &nanoseconds(time).to_le_bytes())
    }),
    answering!("environ_get", &[I32, I32], |memory, state, args| {
        put_strings(memory, &state.env, args.i32(0), args.i32(1))
    }),
    answering!("environ_sizes_get", &[I32, I32], |memory, state, args| {
        put_sizes(memory, &state.env, args.i32(0), args.i32(1))
    }),
    answering!("fd_close", &[I32], |_, state, args| {
        let stream = stream(state, args.i32(0))?;
        state.open[stream as usize] = false;
        Ok(())
    }),
    answering!("fd_fdstat_get", &[I32, I32], |memory, state, args| {
        let stat = fdstat(stream(state, args.i32(0))?);
        memory.write(args.i32(1), &stat)
    }),
    // There are no folders.
    answering!("fd_prestat_dir_name", &[I32, I32, I32], |_, _, _| {
        Err(Errno::BadF)
    }),
    answering!("fd_prestat_get", &[I32, I32], |_, _, _| Err(Errno::BadF)),
    answering!("fd_read", &[I32, I32, I32, I32], |memory, state, args| {
        if stream(state, args.i32(0))? != Stream::In {
            return Err(Errno::BadF);
        }
        let (vectors, count) = (args.i32(1), args.i32(2));
        let size = memory.read_into(vectors, count, MAX_TRANSFER, |buffer| {
            Ok(read(stdin(), buffer)?)
        })?;
        memory.write_u32(args.i32(3), size)
    }),
    Function {
        name: "fd_seek",
        params: &[I32, I64, I32, I32],
        results: &[I32],
        call: |caller, args| match stream(caller.data(), args.i32(0)) {
            Ok(_) => Ok(SPIPE),
            Err(errno) => Ok(errno.number()),
        },
    },
    answering!("fd_write", &[I32, I32, I32, I32], |memory, state, args| {
        let to = match stream(state, args.i32(0))? {
            Stream::In => return Err(Errno::BadF),
            Stream::Out => stdout(),
            Stream::Err => stderr(),
        };
        let (vectors, count) = (args.i32(1), args.i32(2));
        // Nothing is kept back: what the guest wrote is in the pipe when the call returns.
        let size = memory.write_from(vectors, count, MAX_TRANSFER, |buffer| {
            Ok(write(to, buffer)?)
        })?;
        memory.write_u32(args.i32(3), size)
    }),
    Function {
        name: "proc_exit",
        params: &[I32],
        results: &[],
        call: |_, args| Err(Error::i32_exit(args.i32(0))),
    },
    answering!("random_get", &[I32, I32], |memory, _, args| {
        random(memory, args.i32(0), args.i32(1))
    }),
    Function {
        name: "sched_yield",
        params: &[],
        results: &[I32],
        call: |_, _| {
            sched_yield();
            Ok(0)
        },
    },
];

/// Puts all of them where a module finds them.
///
/// # Errors
/// When a name is there already.
pub fn add_to_linker(linker: &mut Linker<State>) -> Result<(), Error> {
    for function in FUNCTIONS {
        linker.func_new(
            MODULE,
            function.name,
            function.ty(),
            move |mut caller, args, results| {
                let number = (function.call)(&mut caller, Args(args))?;
                if let Some(result) = results.first_mut() {
                    *result = Val::I32(number);
                }
                Ok(())
            },
        )?;
    }
    Ok(())
}

/// Arguments of a call; Wasmi has checked their number and types.
#[derive(Clone, Copy)]
struct Args<'a>(&'a [Val]);

impl Args<'_> {
    fn i32(self, index: usize) -> i32 {
        self.0.get(index).and_then(Val::i32).unwrap_or_default()
    }
}

fn with_memory(
    caller: &mut Caller<'_, State>,
    work: impl FnOnce(&mut Memory<'_>, &mut State) -> Answer,
) -> Result<i32, Error> {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        return Err(Error::new(
            "it calls WASI, which works on its memory, and exports none of the name \"memory\"",
        ));
    };
    let (bytes, state) = memory.data_and_store_mut(&mut *caller);
    Ok(number(work(&mut Memory(bytes), state)))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    In,
    Out,
    Err,
}

fn stream(state: &State, fd: i32) -> Result<Stream, Errno> {
    let stream = match fd {
        0 => Stream::In,
        1 => Stream::Out,
        2 => Stream::Err,
        _ => return Err(Errno::BadF),
    };
    if state.open[stream as usize] {
        Ok(stream)
    } else {
        Err(Errno::BadF)
    }
}

/// `fdstat`: filetype at 0, rights at 8. A terminal is a character device (2) that cannot seek, which is
/// how a C library knows one; everything else is of an unknown type (0).
fn fdstat(stream: Stream) -> [u8; FDSTAT_SIZE] {
    const FD_READ: u64 = 1 << 1;
    const FD_WRITE: u64 = 1 << 6;
    let (is_terminal, rights) = match stream {
        Stream::In => (isatty(stdin()), FD_READ),
        Stream::Out => (isatty(stdout()), FD_WRITE),
        Stream::Err => (isatty(stderr()), FD_WRITE),
    };
    let mut stat = [0; FDSTAT_SIZE];
    stat[0] = if is_terminal { 2 } else { 0 };
    stat[8..16].copy_from_slice(&rights.to_le_bytes());
    stat
}

fn clock(id: i32) -> Result<ClockId, Errno> {
    match id {
        0 => Ok(ClockId::Realtime),
        1 => Ok(ClockId::Monotonic),
        2 => Ok(ClockId::ProcessCPUTime),
        3 => Ok(ClockId::ThreadCPUTime),
        _ => Err(Errno::Inval),
    }
}

/// Times before 1970 are none.
fn nanoseconds(time: Timespec) -> u64 {
    u64::try_from(time.tv_sec)
        .unwrap_or(0)
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// A list of strings as C has it: addresses at one place, bytes at another.
fn put_strings(memory: &mut Memory<'_>, list: &[Vec<u8>], addresses: i32, bytes: i32) -> Answer {
    let mut slot = addresses.cast_unsigned();
    let mut at = bytes.cast_unsigned();
    for text in list {
        memory.write_u32(slot.cast_signed(), at)?;
        memory.write(at.cast_signed(), text)?;
        let length = u32::try_from(text.len()).map_err(|_| Errno::Fault)?;
        at = at.checked_add(length).ok_or(Errno::Fault)?;
        slot = slot.checked_add(4).ok_or(Errno::Fault)?;
    }
    Ok(())
}

fn put_sizes(memory: &mut Memory<'_>, list: &[Vec<u8>], count: i32, size: i32) -> Answer {
    let number = |n: usize| u32::try_from(n).map_err(|_| Errno::Fault);
    memory.write_u32(count, number(list.len())?)?;
    memory.write_u32(size, number(list.iter().map(Vec::len).sum())?)
}

/// In pieces: the kernel gives at most 256 bytes without a signal cutting in.
fn random(memory: &mut Memory<'_>, at: i32, length: i32) -> Answer {
    let (mut at, mut left) = (at.cast_unsigned(), length.cast_unsigned());
    memory.check(at.cast_signed(), left as usize)?;
    let mut piece = [0; 256];
    while left > 0 {
        let want = piece.len().min(left as usize);
        let got = match getrandom(&mut piece[..want], GetRandomFlags::empty()) {
            Ok(got) => got,
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return Err(Errno::Io),
        };
        memory.write(at.cast_signed(), &piece[..got])?;
        // At most 256.
        at = at.wrapping_add(got as u32);
        left -= got as u32;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use wasmi::{Engine, Module, Store};
    use wasmlet_runner_core::MemoryCap;

    use super::*;
    use crate::settings::config;

    fn terminated(list: &[&str]) -> Vec<Vec<u8>> {
        let with_end = |text: &&str| [text.as_bytes(), b"\0"].concat();
        list.iter().map(with_end).collect()
    }

    /// Runs the body of a guest's `_start`, with one page of memory, all functions by their names and
    /// `$is` to compare; gives its memory.
    #[track_caller]
    fn run(body: &str) -> (Result<(), Error>, Vec<u8>) {
        let mut text = "(module ".to_owned();
        for function in FUNCTIONS {
            let words = |types: &[ValType]| {
                let names = types
                    .iter()
                    .map(|ty| if *ty == I64 { "i64 " } else { "i32 " });
                names.collect::<String>()
            };
            text += &format!(
                r#"(import "{MODULE}" "{0}" (func ${0} (param {1}) (result {2})))"#,
                function.name,
                words(function.params),
                words(function.results)
            );
        }
        text += r#"(memory (export "memory") 1)
            (func $is (param i32 i32) (if (i32.ne (local.get 0) (local.get 1)) (then (unreachable))))"#;
        text += &format!("(func (export \"_start\") {body}))");
        let wasm = wat::parse_str(&text).unwrap_or_else(|e| panic!("{text}: {e}"));

        let engine = Engine::new(&config(false));
        let module = Module::new(&engine, &wasm).expect("a valid module");
        let mut linker = Linker::new(&engine);
        add_to_linker(&mut linker).expect("all names differ");
        let state = State {
            args: terminated(&["a.wasm", "b"]),
            env: terminated(&["K=v"]),
            open: [true; 3],
            limiter: Limiter::new(&MemoryCap::fixed(None)),
        };
        let mut store = Store::new(&engine, state);
        let instance = linker
            .instantiate_and_start(&mut store, &module)
            .expect("all is there to import");
        let start = instance.get_typed_func::<(), ()>(&store, "_start");
        let end = start.expect("exported").call(&mut store, ());
        let memory = instance.get_memory(&store, "memory").expect("exported");
        (end, memory.data(&store).to_vec())
    }

    fn word(memory: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(memory[at..at + 4].try_into().expect("four bytes"))
    }

    #[test]
    fn arguments_and_variables_are_c_strings() {
        let (end, memory) = run("
            (call $is (call $args_sizes_get (i32.const 0) (i32.const 4)) (i32.const 0))
            (call $is (call $args_get (i32.const 8) (i32.const 100)) (i32.const 0))
            (call $is (call $environ_sizes_get (i32.const 16) (i32.const 20)) (i32.const 0))
            (call $is (call $environ_get (i32.const 24) (i32.const 200)) (i32.const 0))");
        end.expect("no trap");
        let words = [0, 4, 8, 12, 16, 20, 24].map(|at| word(&memory, at));
        assert_eq!(words, [2, 9, 100, 107, 1, 4, 200]);
        assert_eq!(&memory[100..109], b"a.wasm\0b\0");
        assert_eq!(&memory[200..204], b"K=v\0");
    }

    #[test]
    fn clocks_move_and_random_numbers_differ() {
        let (end, memory) = run("
            (call $is (call $clock_time_get (i32.const 0) (i64.const 0) (i32.const 0)) (i32.const 0))
            (call $is (call $clock_time_get (i32.const 1) (i64.const 0) (i32.const 8)) (i32.const 0))
            (call $is (call $clock_res_get (i32.const 1) (i32.const 16)) (i32.const 0))
            (call $is (call $clock_time_get (i32.const 9) (i64.const 0) (i32.const 0)) (i32.const 28))
            (call $is (call $sched_yield) (i32.const 0))
            (call $is (call $random_get (i32.const 1000) (i32.const 600)) (i32.const 0))
            (call $is (call $random_get (i32.const 2000) (i32.const 600)) (i32.const 0))");
        end.expect("no trap");
        let time = |at: usize| u64::from_le_bytes(memory[at..at + 8].try_into().expect("eight"));
        let year = 365 * 24 * 3600 * 1_000_000_000;
        assert!(time(0) > 50 * year, "{} ns since 1970", time(0));
        assert!(time(8) > 0 && time(16) > 0);
        assert_ne!(memory[1000..1600], memory[2000..2600]);
        assert_ne!(memory[1300..1600], [0; 300], "the last piece as well");
        assert_eq!(memory[1600..2000], [0; 400], "and nothing behind it");
    }

    #[test]
    fn there_are_three_streams_and_no_folders() {
        let (end, _) = run("
            (call $is (call $fd_prestat_get (i32.const 3) (i32.const 0)) (i32.const 8))
            (call $is (call $fd_prestat_dir_name (i32.const 3) (i32.const 0) (i32.const 1)) (i32.const 8))
            (call $is (call $fd_fdstat_get (i32.const 2) (i32.const 0)) (i32.const 0))
            (call $is (call $fd_fdstat_get (i32.const 3) (i32.const 0)) (i32.const 8))
            (call $is (call $fd_seek (i32.const 1) (i64.const 0) (i32.const 0) (i32.const 0)) (i32.const 70))
            (call $is (call $fd_seek (i32.const 9) (i64.const 0) (i32.const 0) (i32.const 0)) (i32.const 8))
            (call $is (call $fd_write (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)) (i32.const 8))
            (call $is (call $fd_read (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)) (i32.const 8))
            (call $is (call $fd_close (i32.const 2)) (i32.const 0))
            (call $is (call $fd_close (i32.const 2)) (i32.const 8))
            (call $is (call $fd_write (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 0)) (i32.const 8))");
        end.expect("no trap");
    }

    #[test]
    fn what_is_outside_the_memory_is_a_fault() {
        let (end, _) = run("
            (call $is (call $random_get (i32.const 65535) (i32.const 2)) (i32.const 21))
            (call $is (call $random_get (i32.const 0) (i32.const -1)) (i32.const 21))
            (call $is (call $args_get (i32.const -4) (i32.const 0)) (i32.const 21))
            (call $is (call $args_get (i32.const 0) (i32.const 65530)) (i32.const 21))
            (call $is (call $fd_write (i32.const 1) (i32.const 65533) (i32.const 1) (i32.const 0))
              (i32.const 21))");
        end.expect("no trap");
    }

    #[test]
    fn an_exit_has_all_32_bits() {
        for code in ["7", "300", "-1"] {
            let (end, _) = run(&format!("(call $proc_exit (i32.const {code}))"));
            let status = end.expect_err("an exit is no return").i32_exit_status();
            assert_eq!(status.map(|s| s.to_string()).as_deref(), Some(code));
        }
    }
}
