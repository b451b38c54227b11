//! The FIFOs of a container's stdio, as containerd's clients make them.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::{SHORT, eventually, wait_for};

/// How often a reader looks whether it shall go on.
const LOOK_MS: u16 = 20;

/// stdin, stdout and stderr of one process.
pub struct Fifos {
    /// Path of stdin's FIFO.
    pub stdin: Option<PathBuf>,
    /// Reads stdout.
    pub stdout: Reader,
    /// Reads stderr; none with a terminal.
    pub stderr: Option<Reader>,
    writer: Mutex<Option<File>>,
}

impl Fifos {
    /// Makes the FIFOs `<dir>/<name>-stdout` and so on.
    #[track_caller]
    pub(crate) fn make(dir: &Path, name: &str, stdin: bool, terminal: bool) -> Self {
        let fifo = |stream: &str| {
            let path = dir.join(format!("{name}-{stream}"));
            mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)
                .unwrap_or_else(|error| panic!("cannot make fifo {}: {error}", path.display()));
            path
        };
        Self {
            stdin: stdin.then(|| fifo("stdin")),
            stdout: Reader::open(fifo("stdout")),
            stderr: (!terminal).then(|| Reader::open(fifo("stderr"))),
            writer: Mutex::default(),
        }
    }

    /// Writes to stdin once the other side has opened it.
    #[track_caller]
    pub fn write(&self, bytes: &[u8]) {
        let path = self.stdin.as_ref().expect("the task was made with stdin");
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let file = writer.get_or_insert_with(|| {
            let open = || {
                // Without a reader a non-blocking open fails (ENXIO) where a blocking one hangs.
                let mut options = File::options();
                options.write(true).custom_flags(libc::O_NONBLOCK);
                options.open(path).map_err(|error| error.to_string())
            };
            eventually("somebody reads stdin", SHORT, open)
        });
        let mut rest = bytes;
        while !rest.is_empty() {
            match file.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
                    let ready = poll(&mut fds, PollTimeout::from(5000_u16)).expect("poll works");
                    assert!(ready > 0, "nobody reads stdin for 5 s");
                }
                Err(error) => panic!("cannot write to {}: {error}", path.display()),
            }
        }
    }

    /// Closes our end of stdin. The guest sees the end of file once the shim was told (CloseIO).
    pub fn close_stdin(&self) {
        *self.writer.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Opens stdin and keeps it open without writing.
    #[track_caller]
    pub fn open_stdin(&self) {
        self.write(&[]);
    }
}

impl Drop for Fifos {
    fn drop(&mut self) {
        if let Some(path) = &self.stdin {
            // Best effort: the node's folder goes anyway.
            let _ = fs::remove_file(path);
        }
    }
}

/// Reads a FIFO beside the test.
pub struct Reader {
    path: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    bytes: Mutex<Vec<u8>>,
    /// Everybody on the writing side has closed.
    ended: AtomicBool,
    paused: AtomicBool,
    stop: AtomicBool,
}

impl Reader {
    #[track_caller]
    fn open(path: PathBuf) -> Self {
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .unwrap_or_else(|error| panic!("cannot open fifo {}: {error}", path.display()));
        let shared = Arc::<Shared>::default();
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || read_all(file, &shared)
        });
        Self {
            path,
            shared,
            thread: Some(thread),
        }
    }

    /// The FIFO.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Stops reading; the FIFO fills up.
    pub fn pause(&self) {
        self.shared.paused.store(true, Ordering::SeqCst);
    }

    /// Reads on.
    pub fn resume(&self) {
        self.shared.paused.store(false, Ordering::SeqCst);
    }

    /// What was read so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// What was read so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.shared
            .bytes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Number of bytes read so far.
    pub fn len(&self) -> usize {
        self.shared
            .bytes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Whether nothing was read so far.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until `text` was read.
    #[track_caller]
    pub fn wait_for(&self, text: &str, within: Duration) {
        let found = wait_for(within, || {
            let so_far = self.text();
            if so_far.contains(text) {
                Ok(())
            } else {
                Err(so_far)
            }
        });
        if let Err(so_far) = found {
            panic!(
                "{text:?} did not come out of {}; there was {so_far:?}",
                self.path.display()
            );
        }
    }

    /// Waits until the writing side has closed, and gives everything.
    #[track_caller]
    pub fn end(&self, within: Duration) -> String {
        let ended = wait_for(within, || {
            if self.shared.ended.load(Ordering::SeqCst) {
                Ok(())
            } else {
                Err(())
            }
        });
        assert!(
            ended.is_ok(),
            "{} is still open for writing; so far there was {:?}",
            self.path.display(),
            self.text().chars().take(500).collect::<String>()
        );
        self.text()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // A panicked reader has said so on stderr.
            let _ = thread.join();
        }
        // Best effort: the node's folder goes anyway.
        let _ = fs::remove_file(&self.path);
    }
}

fn read_all(mut file: File, shared: &Shared) {
    let mut buffer = vec![0; 64 << 10];
    while !shared.stop.load(Ordering::SeqCst) {
        if shared.paused.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(LOOK_MS.into()));
            continue;
        }
        let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(LOOK_MS)) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
            Ok(_) => {}
            Err(error) => panic!("cannot wait for a fifo: {error}"),
        }
        match file.read(&mut buffer) {
            // Before the first writer poll stays silent, so this is the last one's close.
            Ok(0) => break,
            Ok(count) => {
                let mut bytes = shared.bytes.lock().unwrap_or_else(PoisonError::into_inner);
                bytes.extend_from_slice(&buffer[..count]);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("cannot read a fifo: {error}"),
        }
    }
    shared.ended.store(true, Ordering::SeqCst);
}
