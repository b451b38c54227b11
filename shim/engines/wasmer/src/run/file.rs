//! An open file of a guest.
//!
//! WASIX asks in the words of asynchronous I/O. A file is always ready, so every answer is given at once, by
//! the guest's own thread.

use std::fs::{File, FileTimes, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use virtual_fs::{AsyncRead, AsyncSeek, AsyncWrite, FsError, ReadBuf, VirtualFile};

use super::folders::{Place, io_error, nanoseconds};

/// How much a file takes in one write without waiting: any number would do.
const ROOM_BYTES: usize = 64 * 1024;

/// An open file, and where it is.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: File,
    place: Place,
}

impl OpenFile {
    pub(super) fn new(file: File, place: Place) -> Self {
        Self { file, place }
    }

    fn time(&self, of: impl FnOnce(&Metadata) -> u64) -> u64 {
        // Of an open file this does not fail.
        self.file.metadata().as_ref().map_or(0, of)
    }
}

fn moment(nanoseconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds)
}

impl VirtualFile for OpenFile {
    fn last_accessed(&self) -> u64 {
        self.time(|file| nanoseconds(file.atime(), file.atime_nsec()))
    }

    fn last_modified(&self) -> u64 {
        self.time(|file| nanoseconds(file.mtime(), file.mtime_nsec()))
    }

    fn created_time(&self) -> u64 {
        self.time(|file| nanoseconds(file.ctime(), file.ctime_nsec()))
    }

    fn set_times(&mut self, accessed: Option<u64>, modified: Option<u64>) -> Result<(), FsError> {
        let mut times = FileTimes::new();
        if let Some(accessed) = accessed {
            times = times.set_accessed(moment(accessed));
        }
        if let Some(modified) = modified {
            times = times.set_modified(moment(modified));
        }
        self.file.set_times(times).map_err(|e| io_error(&e))
    }

    fn size(&self) -> u64 {
        self.time(Metadata::len)
    }

    fn set_len(&mut self, size: u64) -> Result<(), FsError> {
        self.file.set_len(size).map_err(|e| io_error(&e))
    }

    fn unlink(&mut self) -> Result<(), FsError> {
        self.place.unlink()
    }

    fn poll_read_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let file = &mut self.get_mut().file;
        let position = file.stream_position()?;
        let left = file.metadata()?.len().saturating_sub(position);
        Poll::Ready(Ok(usize::try_from(left).unwrap_or(usize::MAX)))
    }

    fn poll_write_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(ROOM_BYTES))
    }
}

impl AsyncRead for OpenFile {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.get_mut().file.read(buffer.initialize_unfilled())?;
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for OpenFile {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(self.get_mut().file.write(bytes))
    }

    /// WASIX asks for this at every close and for `fd_sync` alike. What was written is with the kernel
    /// already; to wait for the disk here would make every close as slow as a sync.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncSeek for OpenFile {
    fn start_seek(self: Pin<&mut Self>, position: SeekFrom) -> io::Result<()> {
        self.get_mut().file.seek(position).map(drop)
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(self.get_mut().file.stream_position())
    }
}
