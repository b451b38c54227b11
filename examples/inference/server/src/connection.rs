//! A client's connection whose silence ends: there is one thread, and everybody else waits.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// How long a client may say nothing in the middle of a request.
const SILENCE: Duration = Duration::from_secs(3);
/// How long it may say nothing once it has its answer.
const FAREWELL: Duration = Duration::from_millis(500);

/// A connection that gives up on a silent client with `TimedOut` or `WouldBlock`.
pub struct Connection {
    stream: TcpStream,
    patience: Duration,
}

impl Connection {
    /// Takes an accepted connection.
    pub fn new(stream: TcpStream) -> Connection {
        let mut connection = Connection {
            stream,
            patience: SILENCE,
        };
        connection.be_patient(SILENCE);
        connection
    }

    /// Tells the client that nothing more comes.
    pub fn finish(&mut self) -> io::Result<()> {
        self.be_patient(FAREWELL);
        self.stream.shutdown(Shutdown::Write)
    }

    fn be_patient(&mut self, time: Duration) {
        #[cfg(not(target_os = "wasi"))]
        {
            // Fails only for a zero duration.
            self.stream
                .set_read_timeout(Some(time))
                .expect("a timeout above zero");
            self.stream
                .set_write_timeout(Some(time))
                .expect("a timeout above zero");
        }
        self.patience = time;
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        #[cfg(target_os = "wasi")]
        if !wasi::readable_within(&self.stream, self.patience) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.read(buffer)
    }
}

impl Write for Connection {
    // Answers are far smaller than a socket's buffer: a client that does not read holds nobody.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(target_os = "wasi")]
mod wasi {
    use std::net::TcpStream;
    use std::os::fd::AsRawFd as _;
    use std::time::Duration;

    use wasip1::{
        CLOCKID_MONOTONIC, EVENTTYPE_CLOCK, EVENTTYPE_FD_READ, Event, Subscription,
        SubscriptionClock, SubscriptionFdReadwrite, SubscriptionU, SubscriptionUU,
    };

    const DATA: u64 = 0;
    const TIME: u64 = 1;

    /// Whether there is something to read, waiting at most `time`. WASI has no timeout on a read.
    pub(super) fn readable_within(stream: &TcpStream, time: Duration) -> bool {
        let read = SubscriptionFdReadwrite {
            file_descriptor: stream.as_raw_fd() as u32,
        };
        let clock = SubscriptionClock {
            id: CLOCKID_MONOTONIC,
            timeout: time.as_nanos() as u64,
            precision: 0,
            flags: 0,
        };
        let wanted = [
            Subscription {
                userdata: DATA,
                u: SubscriptionU {
                    tag: EVENTTYPE_FD_READ.raw(),
                    u: SubscriptionUU { fd_read: read },
                },
            },
            Subscription {
                userdata: TIME,
                u: SubscriptionU {
                    tag: EVENTTYPE_CLOCK.raw(),
                    u: SubscriptionUU { clock },
                },
            },
        ];
        let mut events: Vec<Event> = Vec::with_capacity(wanted.len());
        #[expect(
            unsafe_code,
            reason = "the only way to wait for a socket with a limit in WASI preview 1"
        )]
        // SAFETY: both pointers are valid for `wanted.len()` entries, and the runtime has written
        // as many events as it says.
        let polled = unsafe {
            wasip1::poll_oneoff(wanted.as_ptr(), events.as_mut_ptr(), wanted.len())
                .inspect(|count| events.set_len((*count).min(wanted.len())))
        };
        // A runtime that cannot poll sockets: the read itself then waits, as long as it lets it.
        polled.is_err() || events.iter().any(|event| event.userdata == DATA)
    }
}
