//! `poll_oneoff` with sockets in the list.

use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant, SystemTime};

use super::abi::{Errno, Memory};

/// Bytes of a `subscription` and of an `event`.
const SUBSCRIPTION_SIZE: u32 = 48;
const EVENT_SIZE: u32 = 32;

/// Most entries in a list; the guest's table of connections is no larger.
const MAX_SUBSCRIPTIONS: u32 = 4096;

/// What the guest waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription {
    userdata: u64,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Clock(Moment),
    Read(i32),
    Write(i32),
}

/// When, on which clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    After(Duration),
    RealTime(Duration),
    Monotonic(Duration),
}

impl Moment {
    /// How long from now.
    fn wait(self, now: &dyn Fn() -> u64) -> Duration {
        match self {
            Self::After(time) => time,
            Self::RealTime(moment) => moment.saturating_sub(
                SystemTime::now()
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .unwrap_or_default(),
            ),
            Self::Monotonic(moment) => moment.saturating_sub(Duration::from_nanos(now())),
        }
    }
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
    pub fn fd(&self) -> Option<i32> {
        match self.what {
            What::Clock(_) => None,
            What::Read(fd) | What::Write(fd) => Some(fd),
        }
    }
}

/// What a subscription is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A clock.
    Clock,
    /// One of ours, by its number in this process.
    Socket(RawFd),
    /// One of the engine's: files, stdout and stderr, which are always ready.
    File,
    /// No open descriptor.
    Closed,
}

/// Reads the guest's list.
///
/// # Errors
/// [`Errno::Inval`] for what makes no sense in it, [`Errno::Fault`] for one outside the memory.
pub fn subscriptions(memory: &Memory<'_>, at: i32, count: i32) -> Result<Vec<Subscription>, Errno> {
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
            let time = Duration::from_nanos(long(24));
            let absolute = bytes[40] & 1 != 0;
            What::Clock(match (absolute, word(16)) {
                (false, 0 | 1) => Moment::After(time),
                (true, 0) => Moment::RealTime(time),
                (true, 1) => Moment::Monotonic(time),
                // The clocks of processes and threads, which nobody can wait on.
                _ => return Err(Errno::Inval),
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

/// Waits until something of the list is there, and writes what. `now` is the guest's monotonic clock in
/// nanoseconds.
///
/// # Errors
/// [`Errno::Fault`] for answers outside the memory, and what poll(2) reports.
pub fn wait(
    memory: &mut Memory<'_>,
    now: &dyn Fn() -> u64,
    list: &[(Subscription, Target)],
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
    let mut waits: Vec<Option<Duration>> = Vec::with_capacity(list.len());
    for (subscription, target) in list {
        let (wait, wanted) = match subscription.what {
            What::Clock(moment) => (Some(moment.wait(now)), 0),
            What::Read(_) => (None, libc::POLLIN),
            What::Write(_) => (None, libc::POLLOUT),
        };
        let fd = match target {
            Target::Socket(fd) => *fd,
            // poll(2) leaves out negative descriptors.
            Target::Clock | Target::File | Target::Closed => -1,
        };
        let at_once = matches!(target, Target::File | Target::Closed);
        waits.push(if at_once { Some(Duration::ZERO) } else { wait });
        fds.push(libc::pollfd {
            fd,
            events: wanted,
            revents: 0,
        });
    }
    let timeout = waits.iter().flatten().min().copied();
    let started = Instant::now();
    let ready = poll(&mut fds, timeout)?;
    let elapsed = started.elapsed();

    let mut count: u32 = 0;
    for (((subscription, target), fd), wait) in list.iter().zip(&fds).zip(&waits) {
        let happened = match wait {
            Some(wait) => *wait <= elapsed || (ready == 0 && timeout == Some(*wait)),
            None => fd.revents != 0,
        };
        if happened {
            let hangup = fd.revents & libc::POLLHUP != 0;
            let at = events
                .cast_unsigned()
                .checked_add(count * EVENT_SIZE)
                .ok_or(Errno::Fault)?;
            memory.write(at.cast_signed(), &event(*subscription, *target, hangup))?;
            count += 1;
        }
    }
    memory.write_u32(size, count)
}

/// `event`: userdata at 0, error at 8, type at 10, then bytes at 16 and flags at 24.
fn event(subscription: Subscription, target: Target, hangup: bool) -> [u8; EVENT_SIZE as usize] {
    let mut bytes = [0; EVENT_SIZE as usize];
    bytes[..8].copy_from_slice(&subscription.userdata.to_le_bytes());
    bytes[10] = subscription.what.number();
    match target {
        Target::Clock => {}
        Target::Closed => {
            bytes[8..10].copy_from_slice(&(Errno::BadF as u16).to_le_bytes());
        }
        Target::Socket(_) | Target::File => {
            // How much there is to read is not known without asking; guests only look for more
            // than 0.
            bytes[16..24].copy_from_slice(&1u64.to_le_bytes());
            bytes[24] = u8::from(hangup);
        }
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

    fn clock() -> impl Fn() -> u64 {
        let origin = Instant::now();
        move || u64::try_from(origin.elapsed().as_nanos()).expect("not that long")
    }

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
        let clock = |id, time, flags| parse(&bytes(0, id, time, flags)).map(|parsed| parsed.what);
        let five = Duration::from_nanos(5);
        assert_eq!(clock(1, 5, 0), Ok(What::Clock(Moment::After(five))));
        assert_eq!(clock(0, 5, 0), Ok(What::Clock(Moment::After(five))));
        assert_eq!(clock(0, 5, 1), Ok(What::Clock(Moment::RealTime(five))));
        assert_eq!(clock(1, 5, 1), Ok(What::Clock(Moment::Monotonic(five))));
        assert_eq!(clock(2, 5, 0), Err(Errno::Inval));
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
        let sleep = Subscription {
            userdata: 7,
            what: What::Clock(Moment::After(Duration::from_millis(3))),
        };
        let started = Instant::now();
        wait(
            &mut Memory(&mut memory),
            &clock(),
            &[(sleep, Target::Clock)],
            0,
            60,
        )
        .expect("all is inside");
        assert!(started.elapsed() >= Duration::from_millis(3));
        assert_eq!((memory[0], memory[10], memory[60]), (7, 0, 1));
    }

    #[test]
    fn a_moment_of_the_guests_clock_is_waited_for() {
        let now = clock();
        let until = now() + 5_000_000;
        let mut memory = [0; 64];
        let sleep = Subscription {
            userdata: 7,
            what: What::Clock(Moment::Monotonic(Duration::from_nanos(until))),
        };
        let list = [(sleep, Target::Clock)];
        wait(&mut Memory(&mut memory), &now, &list, 0, 60).expect("all is inside");
        assert!(now() >= until);
        assert_eq!(memory[60], 1);
        assert_eq!(
            Moment::RealTime(Duration::from_secs(1)).wait(&now),
            Duration::ZERO,
            "long ago"
        );
    }

    #[test]
    fn a_closed_descriptor_is_an_event_with_an_error() {
        let mut memory = [0; 128];
        let list = [
            (What::Clock(Moment::After(Duration::MAX)), Target::Clock),
            (What::Read(77), Target::Closed),
            (What::Write(1), Target::File),
        ]
        .map(|(what, target)| (Subscription { userdata: 5, what }, target));
        wait(&mut Memory(&mut memory), &clock(), &list, 0, 120).expect("all is inside");
        assert_eq!(memory[120], 2, "the clock is not among them");
        assert_eq!((memory[8], memory[10]), (Errno::BadF as u8, 1));
        assert_eq!((memory[32 + 8], memory[32 + 10]), (0, 2));
    }
}
