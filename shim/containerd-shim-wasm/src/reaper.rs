//! Children of the shim: those it starts, and those that become its children.
//!
//! The shim is a subreaper: a container's init outlives the program that set it up and is then the
//! shim's child. So somebody must wait for *any* child, and that would take the status away from
//! whoever waits for a certain one. This is the one place that waits, and everybody else asks here.
//!
//! One std mutex, held for a map operation or for one `posix_spawn`, never across an await: while it is
//! held no child can be reaped, so an exit cannot be missed between a start and its registration.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Exits that nobody asked for yet. More than this many orphans at once are not a container's init.
const MAX_UNCLAIMED: usize = 512;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The exit code, or 128 plus the signal's number.
    pub status: u32,
    /// When it was reaped.
    pub at: SystemTime,
}

/// Waits for every child.
#[derive(Debug, Default)]
pub struct Reaper {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    waiting: HashMap<i32, oneshot::Sender<Exit>>,
    unclaimed: VecDeque<(i32, Exit)>,
}

impl Reaper {
    /// Makes this process a subreaper and starts to wait for children.
    ///
    /// # Errors
    /// When the signal handler or the subreaper flag cannot be set.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start() -> io::Result<Arc<Self>> {
        nix::sys::prctl::set_child_subreaper(true)?;
        let mut children = signal(SignalKind::child())?;
        let reaper = Arc::new(Self::default());
        let of_task = Arc::clone(&reaper);
        tokio::spawn(async move {
            // One signal can stand for many exits.
            while children.recv().await.is_some() {
                of_task.reap();
            }
        });
        Ok(reaper)
    }

    /// Starts a program. The receiver gets its exit.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, command: &mut Command) -> io::Result<(Child, oneshot::Receiver<Exit>)> {
        let mut table = self.lock();
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        Ok((child, table.register(pid)))
    }

    /// Waits for a process that is, or is about to become, a child of this one.
    pub fn watch(&self, pid: i32) -> oneshot::Receiver<Exit> {
        let mut table = self.lock();
        let past = table.unclaimed.iter().position(|(of, _)| *of == pid);
        if let Some((_, exit)) = past.and_then(|at| table.unclaimed.remove(at)) {
            // The number may have been given to a new process since; that one is meant then. A
            // reaped process cannot be signalled, so signal 0 tells the two apart.
            if kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH) {
                let (sender, receiver) = oneshot::channel();
                // The receiver is right here, so it cannot be gone.
                let _ = sender.send(exit);
                return receiver;
            }
        }
        table.register(pid)
    }

    fn reap(&self) {
        let mut table = self.lock();
        loop {
            let (pid, status) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid.as_raw(), code.cast_unsigned()),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    (pid.as_raw(), 128 + (signal as i32).cast_unsigned())
                }
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(error) => {
                    tracing::error!(%error, "cannot wait for children");
                    return;
                }
            };
            table.ended(
                pid,
                Exit {
                    status,
                    at: SystemTime::now(),
                },
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // The table is whole after every statement that can panic.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn register(&mut self, pid: i32) -> oneshot::Receiver<Exit> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.insert(pid, sender);
        receiver
    }

    fn ended(&mut self, pid: i32, exit: Exit) {
        match self.waiting.remove(&pid) {
            // A receiver that is gone wanted the process started and nothing else.
            Some(sender) => drop(sender.send(exit)),
            None => {
                // An earlier process of the same number is nobody's any more.
                self.unclaimed.retain(|(of, _)| *of != pid);
                if self.unclaimed.len() == MAX_UNCLAIMED {
                    self.unclaimed.pop_front();
                }
                self.unclaimed.push_back((pid, exit));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    // One test: the reaper takes every child of the process, so two at once would steal.
    #[tokio::test]
    async fn every_exit_reaches_the_one_who_asks() {
        let reaper = Reaper::start().expect("a reaper");

        let (_, exit) = reaper.spawn(&mut sh("exit 7")).expect("started");
        assert_eq!(exit.await.expect("reaped").status, 7);

        let (_, exit) = reaper.spawn(&mut sh("kill -9 $$")).expect("started");
        assert_eq!(exit.await.expect("reaped").status, 137);

        // An orphan: the shell that starts it is gone before it ends.
        let mut command = sh("sh -c 'read _; exit 3' <&3 & echo $!");
        let (stdin_reader, stdin_writer) = io::pipe().expect("a pipe");
        use command_fds::{CommandFdExt, FdMapping};
        command
            .fd_mappings(vec![FdMapping {
                parent_fd: stdin_reader.into(),
                child_fd: 3,
            }])
            .expect("one mapping")
            .stdout(std::process::Stdio::piped());
        let (mut child, exit) = reaper.spawn(&mut command).expect("started");
        let mut pid = String::new();
        let mut stdout = child.stdout.take().expect("piped");
        drop(command);
        let read = tokio::task::spawn_blocking(move || {
            io::Read::read_to_string(&mut stdout, &mut pid).map(|_| pid)
        });
        assert_eq!(exit.await.expect("reaped").status, 0);
        // The orphan holds the pipe of its output, so end it before reading that to the end.
        drop(stdin_writer);
        let pid: i32 = read
            .await
            .expect("joined")
            .expect("read")
            .trim()
            .parse()
            .expect("a pid");
        assert_eq!(reaper.watch(pid).await.expect("reaped").status, 3);
    }
}
