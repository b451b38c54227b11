//! `poll_oneoff` with sockets in the list.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant, SystemTime};

use super::Sockets;
use super::abi::{Errno, Memory};

/// Bytes of a `subscription` and of an `event`.
const SUBSCRIPTION_SIZE: u32 = 48;
const EVENT_SIZE: u32 = 32;

/// Most entries in a list; the guest's table of connections is no larger.
const MAX_SUBSCRIPTIONS: u32 = 4096;

/// What the guest waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subscription {
    userdata: u64,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// A moment.
    Clock(Duration),
    Read(i32),
    Write(i32),
}

impl What {
    /// `eventtype`.
    const fn number(self) -> u8 {
        match self {
            Self::Clock(_) => 0,
            Self::Read(_) => 1,
            Self::Write(_) => 2,
        }
    }
}

impl Subscription {
    /// The descriptor, if it is about one.
    pub(super) fn fd(&self) -> Option<i32> {
        match self.what {
            What::Clock(_) => None,
            What::Read(fd) | What::Write(fd) => Some(fd),
        }
    }
}

/// Reads the guest's list.
pub(super) fn subscriptions(
    memory: &Memory<'_>,
    at: i32,
    count: i32,
) -> Result<Vec<Subscription>, Errno> {
    let count = count.cast_unsigned();
    if count == 0 || count > MAX_SUBSCRIPTIONS {
        return Err(Errno::Inval);
    }
    (0..count)
        .map(|index| {
            let at = at
                .cast_unsigned()
                .checked_add(index * SUBSCRIPTION_SIZE)
                .ok_or(Errno::Fault)?
                .cast_signed();
            parse(&memory.read(at)?)
        })
        .collect()
}

/// `subscription`: userdata at 0, tag at 8, then at 16 either clock id, at 24 timeout and at 40
/// flags, or a descriptor.
fn parse(bytes: &[u8; SUBSCRIPTION_SIZE as usize]) -> Result<Subscription, Errno> {
    let word =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    let what = match bytes[8] {
        0 => {
            let timeout = Duration::from_nanos(long(24));
            let absolute = bytes[40] & 1 != 0;
            What::Clock(match (absolute, word(16)) {
                (false, _) => timeout,
                (true, 0) => timeout.saturating_sub(
                    SystemTime::now()
                        .duration_since(SystemTime::UNIX_EPOCH)
                        .unwrap_or_default(),
                ),
                // The guest's monotonic clock starts at an origin that only Wasmtime knows.
                (true, _) => return Err(Errno::Inval),
            })
        }
        1 => What::Read(word(16).cast_signed()),
        2 => What::Write(word(16).cast_signed()),
        _ => return Err(Errno::Inval),
    };
    Ok(Subscription {
        userdata: long(0),
        what,
    })
}

/// Waits until something of the list is there, and writes what.
pub(super) fn wait(
    memory: &mut Memory<'_>,
    sockets: &Sockets,
    list: &[Subscription],
    events: i32,
    size: i32,
) -> Result<(), Errno> {
    memory.check(size, 4)?;
    let room = list
        .len()
        .checked_mul(EVENT_SIZE as usize)
        .ok_or(Errno::Fault)?;
    memory.check(events, room)?;

    let mut fds: Vec<libc::pollfd> = Vec::with_capacity(list.len());
    let mut others = false;
    let mut timeout: Option<Duration> = None;
    for subscription in list {
        let (fd, wanted) = match subscription.what {
            What::Clock(after) => {
                timeout = Some(timeout.map_or(after, |known| known.min(after)));
                (-1, 0)
            }
            What::Read(fd) => (native(sockets, fd), libc::POLLIN),
            What::Write(fd) => (native(sockets, fd), libc::POLLOUT),
        };
        others |= fd < 0 && subscription.fd().is_some();
        // poll(2) leaves out negative descriptors.
        fds.push(libc::pollfd {
            fd,
            events: wanted,
            revents: 0,
        });
    }
    // Files, stdout and stderr are always ready.
    if others {
        timeout = Some(Duration::ZERO);
    }
    let started = Instant::now();
    let ready = poll(&mut fds, timeout)?;
    let elapsed = started.elapsed();

    let mut count: u32 = 0;
    for (subscription, fd) in list.iter().zip(&fds) {
        let happened = match subscription.what {
            What::Clock(after) => {
                after <= elapsed || (ready == 0 && !others && timeout == Some(after))
            }
            What::Read(_) | What::Write(_) => fd.fd < 0 || fd.revents != 0,
        };
        if happened {
            let hangup = fd.revents & libc::POLLHUP != 0;
            let at = events
                .cast_unsigned()
                .checked_add(count * EVENT_SIZE)
                .ok_or(Errno::Fault)?;
            memory.write(at.cast_signed(), &event(*subscription, hangup))?;
            count += 1;
        }
    }
    memory.write_u32(size, count)
}

fn native(sockets: &Sockets, fd: i32) -> RawFd {
    match &sockets.listener {
        Some(listener) if fd == super::LISTENER => listener.as_raw_fd(),
        _ => sockets
            .connections
            .get(&fd)
            .map_or(-1, |open| open.connection.stream.as_raw_fd()),
    }
}

/// `event`: userdata at 0, error at 8, type at 10, then bytes at 16 and flags at 24.
fn event(subscription: Subscription, hangup: bool) -> [u8; EVENT_SIZE as usize] {
    let mut bytes = [0; EVENT_SIZE as usize];
    bytes[..8].copy_from_slice(&subscription.userdata.to_le_bytes());
    bytes[10] = subscription.what.number();
    if subscription.fd().is_some() {
        // How much there is to read is not known without asking; guests only look for more than 0.
        bytes[16..24].copy_from_slice(&1u64.to_le_bytes());
        bytes[24] = u8::from(hangup);
    }
    bytes
}

fn poll(fds: &mut [libc::pollfd], timeout: Option<Duration>) -> Result<usize, Errno> {
    let deadline = timeout.map(|timeout| Instant::now().checked_add(timeout));
    loop {
        let millis = match deadline {
            None | Some(None) => -1,
            Some(Some(deadline)) => {
                let left = deadline.saturating_duration_since(Instant::now());
                // Rounded up: waking too early would make the guest spin.
                i32::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
            }
        };
        let count = libc::nfds_t::try_from(fds.len()).map_err(|_| Errno::Inval)?;
        // SAFETY: the pointer is that of `count` live entries.
        let result = unsafe { libc::poll(fds.as_mut_ptr(), count, millis) };
        if let Ok(ready) = usize::try_from(result) {
            return Ok(ready);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(Errno::from(&error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(tag: u8, at16: u32, timeout: u64, flags: u8) -> [u8; 48] {
        let mut bytes = [0; 48];
        bytes[0] = 9;
        bytes[8] = tag;
        bytes[16..20].copy_from_slice(&at16.to_le_bytes());
        bytes[24..32].copy_from_slice(&timeout.to_le_bytes());
        bytes[40] = flags;
        bytes
    }

    #[test]
    fn subscriptions_are_understood() {
        let parsed = parse(&bytes(1, 1 << 20, 0, 0)).expect("a read");
        assert_eq!(
            parsed,
            Subscription {
                userdata: 9,
                what: What::Read(1 << 20)
            }
        );
        let parsed = parse(&bytes(0, 1, 5_000_000, 0)).expect("a clock");
        assert_eq!(parsed.what, What::Clock(Duration::from_millis(5)));
        let parsed = parse(&bytes(0, 0, 5, 1)).expect("a moment long ago");
        assert_eq!(parsed.what, What::Clock(Duration::ZERO));
        assert_eq!(parse(&bytes(3, 0, 0, 0)), Err(Errno::Inval));
    }

    #[test]
    fn a_list_outside_the_memory_is_refused() {
        let mut memory = [0; 100];
        let memory = Memory(&mut memory);
        assert_eq!(subscriptions(&memory, 0, 0), Err(Errno::Inval));
        assert_eq!(subscriptions(&memory, 0, -1), Err(Errno::Inval));
        assert_eq!(subscriptions(&memory, 60, 1), Err(Errno::Fault));
        assert_eq!(subscriptions(&memory, -8, 1), Err(Errno::Fault));
        assert!(subscriptions(&memory, 4, 2).is_ok());
    }

    #[test]
    fn a_clock_alone_waits_its_time() {
        let mut memory = [0; 64];
        let sockets = Sockets::new(None);
        let list = [Subscription {
            userdata: 7,
            what: What::Clock(Duration::from_millis(3)),
        }];
        let started = Instant::now();
        wait(&mut Memory(&mut memory), &sockets, &list, 0, 60).expect("all is inside");
        assert!(started.elapsed() >= Duration::from_millis(3));
        assert_eq!((memory[0], memory[10], memory[60]), (7, 0, 1));
    }
}
