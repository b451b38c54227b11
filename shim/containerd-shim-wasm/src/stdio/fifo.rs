//! FIFOs between a container and containerd.
//!
//! A pipe keeps what is in it while anybody has an end open, and tells a writer "broken pipe" when no
//! reader is left. So the shim keeps one reading end of each output open and never reads from it.
//! After the process has ended it also keeps a writing end open until the pipe is empty: a restarted
//! containerd opens its reading end only once there is a writer.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::task::JoinHandle;

use super::StdioError;

/// First and longest wait between two looks at whether an ended process's pipe is empty. No event
/// tells when a pipe becomes empty, and a living reader empties it within microseconds.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LAST_LOOK: Duration = Duration::from_secs(1);

/// The shim's ends of one output FIFO.
#[derive(Debug)]
pub struct Keep {
    path: PathBuf,
    reader: Option<File>,
    draining: Option<JoinHandle<()>>,
}

impl Keep {
    /// Call when the process has ended: all of its writing ends are closed.
    pub(super) fn writer_ended(&mut self) {
        let Some(reader) = self.reader.take() else {
            return;
        };
        match wasmlet_sys::bytes_readable(reader.as_fd()) {
            // All was read; whoever reads has seen the end.
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "cannot look into a pipe");
            }
        }
        // This cannot block: there is a reader, ours.
        match OpenOptions::new()
            .write(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(&self.path)
        {
            Ok(writer) => self.draining = Some(tokio::spawn(drained(reader, writer))),
            Err(error) => {
                // A living reader still gets everything.
                tracing::warn!(path = %self.path.display(), %error, "cannot keep a pipe open");
                self.reader = Some(reader);
            }
        }
    }
}

impl Drop for Keep {
    fn drop(&mut self) {
        if let Some(task) = self.draining.take() {
            task.abort();
        }
    }
}

/// Holds both ends until the pipe is empty.
async fn drained(reader: File, writer: File) {
    let mut pause = FIRST_LOOK;
    while wasmlet_sys::bytes_readable(reader.as_fd()).is_ok_and(|bytes| bytes > 0) {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_LOOK);
    }
    drop((reader, writer));
}

/// Opens an output: the shim's reading end and the container's writing end.
pub(super) fn open_output(stream: &'static str, path: &Path) -> Result<(Keep, File), StdioError> {
    let failed = |source| StdioError::Open {
        stream,
        path: path.to_owned(),
        source,
    };
    // Without O_NONBLOCK a reading end waits for a writer; with it both opens return at once.
    let reader = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(failed)?;
    let writer = OpenOptions::new().write(true).open(path).map_err(failed)?;
    Ok((
        Keep {
            path: path.to_owned(),
            reader: Some(reader),
            draining: None,
        },
        writer,
    ))
}

/// Opens standard input: the container's reading end and the shim's writing end, which keeps the
/// container from seeing an end before `CloseIO`.
pub(super) fn open_input(path: &Path) -> Result<(File, File), StdioError> {
    let failed = |source| StdioError::Open {
        stream: "stdin",
        path: path.to_owned(),
        source,
    };
    let reader = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(failed)?;
    let writer = OpenOptions::new()
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(failed)?;
    blocking(&reader).map_err(failed)?;
    Ok((reader, writer))
}

/// The guest expects streams that wait.
fn blocking(file: &File) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    fcntl(file, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use nix::sys::stat::Mode;

    use super::*;

    fn fifo() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("fifo");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("a fifo");
        (dir, path)
    }

    #[tokio::test]
    async fn what_was_written_outlives_the_writer_until_it_was_read() {
        let (_dir, path) = fifo();
        let (mut keep, mut writer) = open_output("stdout", &path).expect("opens without a reader");
        writer.write_all(b"last words").expect("fits the pipe");
        drop(writer);
        keep.writer_ended();
        // A reader that comes late, as after a restart: its open must not wait for ever.
        let late = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            File::open(path)
                .and_then(|mut file| file.read_to_string(&mut text))
                .map(|_| text)
        });
        let text = tokio::time::timeout(Duration::from_secs(20), late).await;
        let text = text
            .expect("the reader sees an end")
            .expect("joined")
            .expect("read");
        assert_eq!(text, "last words");
    }

    #[tokio::test]
    async fn a_writer_survives_the_loss_of_its_reader() {
        let (_dir, path) = fifo();
        let (_keep, mut writer) = open_output("stdout", &path).expect("opens");
        drop(File::open(&path).expect("a reader"));
        writer.write_all(b"still here").expect("no broken pipe");
    }

    #[tokio::test]
    async fn input_ends_when_the_shim_closes_it() {
        let (_dir, path) = fifo();
        let (mut reader, shim) = open_input(&path).expect("opens without a writer");
        let mut client = OpenOptions::new()
            .write(true)
            .open(&path)
            .expect("a client");
        client.write_all(b"in").expect("written");
        drop(client);
        let mut two = [0; 2];
        reader.read_exact(&mut two).expect("there");
        drop(shim);
        assert_eq!(reader.read(&mut two).expect("the end"), 0);
    }

    #[test]
    fn a_missing_fifo_is_named() {
        let error = open_output("stdout", Path::new("/no/fifo")).expect_err("missing");
        assert_eq!(error.to_string(), "cannot open /no/fifo for stdout");
    }
}
