//! System calls made in the place of the engine, as an attacker would who has taken it over.

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::fs;

    use nix::sys::ptrace;
    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::Pid;

    use crate::guests;
    use crate::support::{Container, can_run, eventually};

    /// Makes a system call in a process that is stopped inside of one.
    fn inject(pid: Pid, number: i64, arguments: [u64; 6]) -> i64 {
        let before = ptrace::getregs(pid).expect("it is stopped");
        // Two bytes back is the instruction with which it entered the kernel.
        let entered = before.rip - 2;
        let code = ptrace::read(pid, entered as ptrace::AddressType).expect("it is mapped");
        assert_eq!(code & 0xffff, 0x050f, "syscall");
        let mut regs = before;
        regs.rip = entered;
        // No restart of the call it was in.
        regs.orig_rax = u64::MAX;
        regs.rax = number.cast_unsigned();
        [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9] = arguments;
        ptrace::setregs(pid, regs).expect("it is stopped");
        ptrace::step(pid, None).expect("it is stopped");
        match waitpid(pid, None).expect("it is our child") {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
            other => panic!("{other:?}"),
        }
        let result = ptrace::getregs(pid)
            .expect("it is stopped")
            .rax
            .cast_signed();
        ptrace::setregs(pid, before).expect("it is stopped");
        result
    }

    fn executable(pid: i32) -> Vec<String> {
        fs::read_to_string(format!("/proc/{pid}/maps"))
            .expect("it runs")
            .lines()
            .filter(|line| {
                line.split(' ')
                    .nth(1)
                    .is_some_and(|mode| mode.contains('x'))
            })
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn nothing_becomes_executable_once_the_guest_runs() {
        if !can_run() {
            return;
        }
        let mut created = Container::new(guests::sleeps()).created();
        created.start();
        eventually("the guest runs", || {
            created.container.read("stdout") == "ready"
        });
        let maps = executable(created.pid);
        assert!(!maps.is_empty());
        let pid = Pid::from_raw(created.pid);
        // Only calls that block can be interrupted where the instruction is known.
        eventually("it waits in the kernel", || {
            fs::read_to_string(format!("/proc/{pid}/wchan")).is_ok_and(|name| name != "0")
        });
        ptrace::seize(pid, ptrace::Options::empty()).expect("we are root");
        ptrace::interrupt(pid).expect("it is seized");
        waitpid(pid, None).expect("it is our child");

        let (read, write, exec) = (1, 2, 4);
        let private_anonymous = 0x22;
        let map = |protection| [0, 4096, protection, private_anonymous, u64::MAX, 0];
        let refused = -i64::from(libc::EPERM);
        let page = inject(pid, libc::SYS_mmap, map(read | write));
        assert!(page > 0, "plain memory: {page}");
        assert_eq!(inject(pid, libc::SYS_mmap, map(read | exec)), refused);
        let page = page.cast_unsigned();
        let protect = |protection| [page, 4096, protection, u64::MAX, 0, 0];
        assert_eq!(
            inject(pid, libc::SYS_mprotect, protect(read | write | exec)),
            refused
        );
        assert_eq!(inject(pid, libc::SYS_pkey_mprotect, protect(exec)), refused);
        assert_eq!(
            inject(pid, libc::SYS_mprotect, protect(read)),
            0,
            "other protections"
        );
        assert_eq!(
            inject(pid, libc::SYS_execve, [page, 0, 0, 0, 0, 0]),
            refused
        );
        assert_eq!(
            inject(pid, libc::SYS_execveat, [0, page, 0, 0, 0x1000, 0]),
            refused
        );
        assert_eq!(
            inject(pid, libc::SYS_personality, [0x0040_0000, 0, 0, 0, 0, 0]),
            refused
        );
        assert_eq!(executable(created.pid), maps);

        ptrace::detach(pid, None).expect("it is stopped");
        kill(pid, Signal::SIGTERM).expect("it runs");
        assert_eq!(created.wait(), 143);
        created.delete();
    }
}
