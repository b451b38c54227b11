//! The guest's standard streams, straight to the descriptors 0, 1 and 2.
//!
//! Without a buffer: the process ends through `_exit`, on a signal at any moment, and what a buffer held
//! would be lost. Wasmer's own streams go through one, and through another thread.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use virtual_fs::{AsyncRead, AsyncSeek, AsyncWrite, FsError, ReadBuf, VirtualFile};

/// How much a stream says that it takes or has: neither is known.
const SOME_BYTES: usize = 64 * 1024;

/// One of the streams. WASIX looks at the direction itself.
#[derive(Debug)]
pub(super) struct Stream {
    fd: i32,
    waiting: Arc<Mutex<Option<Waker>>>,
}

impl Stream {
    pub(super) fn stdin() -> Self {
        Self::new(0)
    }

    pub(super) fn stdout() -> Self {
        Self::new(1)
    }

    pub(super) fn stderr() -> Self {
        Self::new(2)
    }

    fn new(fd: i32) -> Self {
        Self {
            fd,
            waiting: Arc::new(Mutex::new(None)),
        }
    }

    /// Waits in a thread: there is no event loop for a file, a pipe and a terminal alike.
    fn wake_when_readable(&self, waker: &Waker) -> io::Result<()> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let first = waiting.is_none();
        *waiting = Some(waker.clone());
        drop(waiting);
        if first {
            let (fd, waiting) = (self.fd, Arc::clone(&self.waiting));
            std::thread::Builder::new()
                .name("stdin".to_owned())
                .stack_size(64 * 1024)
                .spawn(move || {
                    // Whatever came of it, the guest looks again.
                    let _ = poll(fd, libc::POLLIN, -1);
                    let waker = waiting
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .take();
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                })?;
        }
        Ok(())
    }
}

/// Whether it is ready; -1 waits for ever.
fn poll(fd: i32, events: i16, millis: i32) -> io::Result<bool> {
    let mut entry = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    loop {
        // SAFETY: the pointer is that of one live entry.
        let ready = unsafe { libc::poll(&raw mut entry, 1, millis) };
        if ready >= 0 {
            return Ok(ready > 0);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Waits where the other side has made the file non-blocking, as there is nothing else to do.
fn transfer(fd: i32, events: i16, mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        if let Ok(done) = usize::try_from(call()) {
            return Ok(done);
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::Interrupted => {}
            io::ErrorKind::WouldBlock => {
                poll(fd, events, -1)?;
            }
            _ => return Err(error),
        }
    }
}

impl VirtualFile for Stream {
    fn last_accessed(&self) -> u64 {
        0
    }

    fn last_modified(&self) -> u64 {
        0
    }

    fn created_time(&self) -> u64 {
        0
    }

    fn size(&self) -> u64 {
        0
    }

    fn set_len(&mut self, _: u64) -> Result<(), FsError> {
        Err(FsError::InvalidInput)
    }

    fn unlink(&mut self) -> Result<(), FsError> {
        Err(FsError::PermissionDenied)
    }

    fn get_special_fd(&self) -> Option<u32> {
        u32::try_from(self.fd).ok()
    }

    fn poll_read_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if poll(self.fd, libc::POLLIN, 0)? {
            return Poll::Ready(Ok(SOME_BYTES));
        }
        self.wake_when_readable(cx.waker())?;
        Poll::Pending
    }

    fn poll_write_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(SOME_BYTES))
    }
}

impl AsyncRead for Stream {
    /// Blocks: the guest's own thread reads, and nothing else waits for it.
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let fd = self.fd;
        let room = buffer.initialize_unfilled();
        let read = transfer(fd, libc::POLLIN, || {
            // SAFETY: pointer and length are those of a live slice.
            unsafe { libc::read(fd, room.as_mut_ptr().cast(), room.len()) }
        })?;
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let fd = self.fd;
        Poll::Ready(transfer(fd, libc::POLLOUT, || {
            // SAFETY: pointer and length are those of a live slice.
            unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) }
        }))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncSeek for Stream {
    fn start_seek(self: Pin<&mut Self>, _: io::SeekFrom) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::ESPIPE))
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Err(io::Error::from_raw_os_error(libc::ESPIPE)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use virtual_fs::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn a_full_stream_that_does_not_block_is_waited_for() {
        let (writer, mut reader) = UnixStream::pair().expect("a socket pair");
        writer.set_nonblocking(true).expect("it is open");
        let sent = std::thread::spawn(move || {
            let bytes = vec![7; 4 << 20];
            let mut stream = Stream::new(writer.as_raw_fd());
            futures::executor::block_on(stream.write_all(&bytes)).expect("there is a reader");
            bytes.len()
        });
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).expect("it is open");
        assert_eq!(bytes.len(), sent.join().expect("it ends"));
    }

    #[test]
    fn what_is_not_there_yet_is_waited_for_and_read() {
        let (mut writer, reader) = UnixStream::pair().expect("a socket pair");
        let mut stream = Stream::new(reader.as_raw_fd());
        let late = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            writer.write_all(b"late").expect("it is open");
        });
        let ready = std::future::poll_fn(|cx| Pin::new(&mut stream).poll_read_ready(cx));
        assert!(futures::executor::block_on(ready).expect("readable") > 0);
        let mut text = String::new();
        late.join().expect("it ends");
        futures::executor::block_on(stream.read_to_string(&mut text)).expect("text");
        assert_eq!(text, "late");
    }

    #[test]
    fn a_reader_that_is_gone_is_told() {
        let (writer, reader) = UnixStream::pair().expect("a socket pair");
        drop(reader);
        let mut stream = Stream::new(writer.as_raw_fd());
        // The test's process ignores SIGPIPE, as every Rust program does.
        let error = futures::executor::block_on(stream.write(b"x")).expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
