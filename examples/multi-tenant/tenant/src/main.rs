//! A tenant of a node that others use, too.
//!
//! Without `ATTACK` it is a good one: it answers every HTTP request on the socket that the runtime hands it
//! as descriptor 0 with the sum of some work. With `ATTACK` it is a bad one: `loop`, `memory`, `stack`,
//! `files` or `random`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::FromRawFd;
use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::var("ATTACK").as_deref() {
        Err(_) | Ok("") => serve(),
        Ok("loop") => spin(),
        Ok("memory") => memory(),
        Ok("stack") => {
            println!("{}", deeper(1));
            ExitCode::FAILURE
        }
        Ok("files") => files(),
        Ok("random") => random(),
        Ok(other) => {
            eprintln!(
                "tenant: ATTACK={other} is not known; it can be loop, memory, stack, files or random"
            );
            ExitCode::FAILURE
        }
    }
}

fn serve() -> ExitCode {
    // SAFETY: the runtime hands over the listening socket as descriptor 0, and nothing else in this program
    // uses that number.
    let listener = unsafe { TcpListener::from_raw_fd(0) };
    println!("ready");
    loop {
        // A client that is gone, or one that says nothing, is no reason to end.
        if let Ok((stream, _)) = listener.accept()
            && let Err(error) = answer(&stream)
        {
            eprintln!("tenant: {error}");
        }
    }
}

fn answer(mut stream: &TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    while lines
        .next()
        .transpose()?
        .is_some_and(|line| !line.is_empty())
    {}
    let body = format!("{}\n", work());
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// About a millisecond of work that cannot be left out.
fn work() -> u64 {
    (0..400_000_u64).fold(0x9e37_79b9, |sum, n| {
        std::hint::black_box(sum.rotate_left(5) ^ n.wrapping_mul(0x100_0000_01b3))
    })
}

fn spin() -> ! {
    println!("spinning");
    loop {
        std::hint::black_box(work());
    }
}

fn memory() -> ! {
    println!("taking memory");
    let mut blocks = Vec::new();
    loop {
        blocks.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
}

#[expect(unconditional_recursion, reason = "that is the attack")]
fn deeper(depth: u64) -> u64 {
    std::hint::black_box(deeper(std::hint::black_box(depth + 1))) + depth
}

fn files() -> ExitCode {
    let mut open = Vec::new();
    loop {
        match File::open("/app/tenant.wasm") {
            Ok(file) => open.push(file),
            Err(error) => {
                println!("{} files, then: {error}", open.len());
                return ExitCode::from(7);
            }
        }
    }
}

/// A gibibyte of random bytes, as the host makes them.
fn random() -> ExitCode {
    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        fn random_get(bytes: *mut u8, count: usize) -> u16;
    }
    let mut bytes = vec![0_u8; 1 << 20];
    for _ in 0..1024 {
        // SAFETY: the vector's bytes are written, all of them and no more.
        let errno = unsafe { random_get(bytes.as_mut_ptr(), bytes.len()) };
        if errno != 0 {
            println!("random bytes are refused: errno {errno}");
            return ExitCode::FAILURE;
        }
        std::hint::black_box(&bytes);
    }
    println!("1 GiB of random bytes");
    ExitCode::from(7)
}
