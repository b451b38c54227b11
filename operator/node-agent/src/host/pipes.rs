//! Pipes to and from programs that systemd starts for us.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;

use tokio::net::unix::pipe;

/// What is kept of a program's output, in bytes. `containerd config dump` writes about 20 kB.
const OUTPUT_BYTES: usize = 4 << 20;

/// What a program writes.
pub(super) struct Stream {
    pipe: pipe::Receiver,
    bytes: Vec<u8>,
}

impl Stream {
    /// With the program's end.
    pub(super) fn new() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = io::pipe()?;
        let pipe = pipe::Receiver::from_owned_fd(ours.into())?;
        let bytes = Vec::new();
        Ok((Self { pipe, bytes }, theirs.into()))
    }

    /// Reads for as long as it is asked to, so that the program never waits for us.
    async fn read(&mut self) -> Infallible {
        let mut buffer = [0; 8192];
        loop {
            let read = match self.pipe.readable().await {
                Ok(()) => self.pipe.try_read(&mut buffer),
                Err(error) => Err(error),
            };
            match read {
                Ok(length) if length > 0 => self.keep(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Its end, or an error, which shows again when the rest is read.
                Ok(_) | Err(_) => std::future::pending().await,
            }
        }
    }

    /// What is more than [`OUTPUT_BYTES`] is thrown away.
    fn keep(&mut self, bytes: &[u8]) {
        let room = OUTPUT_BYTES.saturating_sub(self.bytes.len());
        self.bytes
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// What is in the pipe now. A program that has ended has written all of it.
    pub(super) fn rest(mut self) -> io::Result<Vec<u8>> {
        let mut buffer = [0; 8192];
        loop {
            // Not by the runtime's readiness, which may be older than what was written.
            match nix::unistd::read(&self.pipe, &mut buffer) {
                Ok(0) | Err(nix::errno::Errno::EAGAIN) => return Ok(self.bytes),
                Ok(length) => self.keep(&buffer[..length]),
                Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

pub(super) async fn read_both(out: &mut Stream, err: &mut Stream) -> Infallible {
    tokio::join!(out.read(), err.read()).0
}

/// The end for a program to read, with all that it will read already inside.
pub(super) fn input_pipe(bytes: &[u8]) -> io::Result<OwnedFd> {
    use io::Write as _;
    let (theirs, mut ours) = io::pipe()?;
    // More than a pipe takes would wait for a reader that is not there yet.
    if bytes.len() > 65536 {
        return Err(io::Error::other("more than 64 kB of input"));
    }
    ours.write_all(bytes)?;
    Ok(theirs.into())
}
