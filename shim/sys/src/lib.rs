//! The few system calls that need unsafe code, behind safe functions.
//!
//! Every other crate of the shim forbids unsafe code; what they need of it is here, one function
//! per purpose, so that each block can be checked on its own.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{ForkResult, Pid};
#[cfg(feature = "event-loop")]
use tokio::io::unix::AsyncFd;

/// Which side of a [`fork_single_threaded`] this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The process that called; the child's id.
    Parent(Pid),
    /// The new process.
    Child,
}

/// Forks a process that has one thread.
///
/// # Errors
/// When the process has more than one thread (a forked copy of a threaded process may only call
/// async-signal-safe functions until it execs), or when `fork(2)` fails.
pub fn fork_single_threaded() -> io::Result<Fork> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!(
            "cannot fork: the process has {threads} threads"
        )));
    }
    // SAFETY: the check above shows that this is the only thread, so no lock can be held by a
    // thread that does not exist in the child, and no other thread can start in between.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Fork::Parent(child)),
        ForkResult::Child => Ok(Fork::Child),
    }
}

/// A descriptor that becomes readable when the process ends (`pidfd_open(2)`).
///
/// # Errors
/// `ESRCH` when there is no such process.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just returned this descriptor to us, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal to the process behind a pidfd, which cannot hit a process that took its id.
///
/// # Errors
/// `ESRCH` when the process has ended; `EINVAL` for an unknown signal.
pub fn pidfd_send_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    // SAFETY: the descriptor is valid for the borrow; a null siginfo asks for what kill(2) sends.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Whether the process behind a pidfd has ended; one that nobody has waited for yet counts as ended.
///
/// # Errors
/// When the kernel cannot tell.
pub fn has_ended(pidfd: impl AsFd) -> io::Result<bool> {
    // A pidfd is readable from the end of its process on.
    let ready = poll(
        &mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)],
        PollTimeout::ZERO,
    )?;
    Ok(ready > 0)
}

/// Number of bytes that can be read from a pipe, FIFO or terminal at this moment.
///
/// # Errors
/// `ENOTTY` when the descriptor is none of these.
pub fn bytes_readable(fd: impl AsFd) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes one c_int to the address given, which is that of a live c_int.
    let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut count) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    usize::try_from(count).map_err(io::Error::other)
}

/// Sets the size of a terminal, in characters.
///
/// # Errors
/// `ENOTTY` when the descriptor is no terminal.
pub fn resize_terminal(fd: impl AsFd, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one winsize from the address given, which is that of a live one.
    let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Takes one descriptor that the peer of a Unix socket sends (`SCM_RIGHTS`, unix(7)).
///
/// # Errors
/// When the peer sends none or more than one, or `recvmsg(2)` fails.
pub fn receive_descriptor(socket: impl AsFd) -> io::Result<OwnedFd> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

    let mut text = [0; 4096];
    let mut iov = [io::IoSliceMut::new(&mut text)];
    let mut control = nix::cmsg_space!([libc::c_int; 4]);
    let message = recvmsg::<()>(
        socket.as_fd().as_raw_fd(),
        &mut iov,
        Some(&mut control),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut received = Vec::new();
    for item in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = item {
            // SAFETY: the kernel made these descriptors for this process in the call above, and
            // nothing else knows them yet; wrapping all of them at once closes the surplus.
            received.extend(
                numbers
                    .into_iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
            );
        }
    }
    match (received.pop(), received.is_empty()) {
        (Some(only), true) => Ok(only),
        (Some(_), false) => Err(io::Error::other("the peer sent more than one descriptor")),
        (None, _) => Err(io::Error::other("the peer sent no descriptor")),
    }
}

/// Registers a descriptor with tokio's event loop; it must be non-blocking.
///
/// # Errors
/// When epoll does not take it, as for a regular file.
///
/// # Panics
/// Outside of a tokio runtime.
#[cfg(feature = "event-loop")]
pub fn watched(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is a valid descriptor for as long as it lives, the AsyncFd takes it over, and
    // an OwnedFd cannot be made to refer to another descriptor or be closed through a reference.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

/// How far below the stack pointer a program may have been: frames of a start take less than 128 KiB.
const DEEPEST_BYTES: usize = 512 * 1024;

/// Room below the stack pointer for the frames between [`release_unused_memory`] and the system call.
const MARGIN_BYTES: usize = 16 * 1024;

/// Gives free heap pages, and stack pages that are not in use, back to the kernel. Only on the main thread, whose stack
/// has nothing near below it.
///
/// A shim and an init idle for days after a burst of work at a container's start, and there are hundreds of them on a
/// node: what they do not release is taken from everybody for as long as the container lives.
#[inline(never)]
pub fn release_unused_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
    if nix::unistd::gettid() != nix::unistd::getpid() {
        return;
    }
    let marker = 0u8;
    let here = &raw const marker as usize;
    // SAFETY: sysconf has no preconditions.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    let end = here.saturating_sub(MARGIN_BYTES) / page * page;
    let start = end.saturating_sub(DEEPEST_BYTES);
    // SAFETY: stacks grow down, and this is the main thread's own (checked above): below the stack pointer less a margin
    // there is nothing that anybody will read again, and when it is used again it begins with zeros. The kernel keeps other
    // mappings away from the main thread's stack by much more than this range. Where it is not mapped yet the call
    // changes nothing and reports an error, which is of no interest.
    unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
}

/// Keeps glibc to a few allocation arenas: each one costs a process memory of its own.
pub fn limit_heap_arenas(count: i32) {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt has no preconditions; an unknown value is refused with 0.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, count);
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = count;
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::Command;

    use super::*;

    /// Reads and writes so much of the stack that some of it is released.
    #[inline(never)]
    fn use_stack(seed: u64) -> u64 {
        let mut values = [0u64; 16 * 1024];
        for (index, value) in values.iter_mut().enumerate() {
            *value = index as u64 ^ seed;
        }
        std::hint::black_box(&values).iter().sum()
    }

    #[test]
    fn what_is_in_use_stays() {
        // A child's only thread is its main thread.
        // SAFETY: the child takes no lock but malloc's, which glibc's fork(3) leaves usable, and leaves with _exit.
        match unsafe { nix::unistd::fork() }.expect("fork") {
            ForkResult::Child => {
                let values: [u64; 512] = std::array::from_fn(|index| index as u64);
                let before = use_stack(7);
                super::release_unused_memory();
                let kept =
                    (0..512).all(|index| std::hint::black_box(&values)[index] == index as u64);
                let same = use_stack(7) == before;
                // SAFETY: _exit has no preconditions.
                unsafe { libc::_exit(i32::from(!(kept && same))) };
            }
            ForkResult::Parent { child } => {
                let status = nix::sys::wait::waitpid(child, None).expect("a child");
                assert_eq!(status, nix::sys::wait::WaitStatus::Exited(child, 0));
            }
        }
    }

    #[test]
    fn a_pidfd_signals_its_process() {
        let mut child = Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("sleep starts");
        let pid = i32::try_from(child.id()).expect("a pid fits");
        let pidfd = pidfd_open(pid).expect("the child lives");
        assert!(!has_ended(&pidfd).expect("the kernel can tell"));
        pidfd_send_signal(&pidfd, libc::SIGKILL).expect("the child can be killed");
        let status = child.wait().expect("the child is ours");
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(libc::SIGKILL)
        );
        assert!(has_ended(&pidfd).expect("the kernel can tell"));
        let gone = pidfd_send_signal(&pidfd, libc::SIGKILL).expect_err("it is gone");
        assert_eq!(gone.raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn a_pipe_tells_how_much_it_holds() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        assert_eq!(bytes_readable(reader.as_fd()).expect("a pipe can tell"), 0);
        io::Write::write_all(&mut writer, b"seven b").expect("a pipe takes seven bytes");
        assert_eq!(bytes_readable(reader.as_fd()).expect("a pipe can tell"), 7);
    }

    #[test]
    fn a_threaded_process_is_not_forked() {
        // libtest itself runs this test on a thread of its own.
        let error = fork_single_threaded().expect_err("there are at least two threads");
        assert!(error.to_string().contains("threads"), "{error}");
    }
}
