//! What `ps` shows.
//!
//! libcontainer's init keeps the runner's command line and calls itself after its own project. The
//! command line has paths of the node in it, which other containers of the pod could read where
//! they share a pid namespace.

use std::ffi::CString;
use std::io;
use std::ops::Range;

/// The memory in which the kernel put command line and environment of this process.
#[derive(Debug, Clone)]
pub(crate) struct Strings {
    arguments: Range<usize>,
    environment: Range<usize>,
}

impl Strings {
    /// Asks the kernel. Has to be done while there is a `/proc`.
    ///
    /// # Errors
    /// When `/proc/self/stat` cannot be read or hides the addresses.
    pub(crate) fn find() -> io::Result<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat")?;
        Self::parse(&stat).ok_or_else(|| {
            io::Error::other("/proc/self/stat does not tell where the command line is")
        })
    }

    /// proc(5): the fields 48 to 51 are arg_start, arg_end, env_start and env_end; the second one
    /// is the name in parentheses, which may contain anything.
    fn parse(stat: &str) -> Option<Self> {
        let after_name = stat.get(stat.rfind(')')? + 1..)?;
        let mut fields = after_name.split_ascii_whitespace().skip(48 - 3);
        let mut address = || fields.next()?.parse::<usize>().ok().filter(|a| *a != 0);
        let arguments = address()?..address()?;
        let environment = address()?..address()?;
        let sane = |r: &Range<usize>| r.start <= r.end && r.len() < 16 * 1024 * 1024;
        (sane(&arguments) && sane(&environment)).then_some(Self {
            arguments,
            environment,
        })
    }

    /// Writes a new command line and wipes the environment.
    ///
    /// # Safety
    /// The calling thread must be the only one, and from here on nothing may use `environ` or
    /// strings that were borrowed from the environment or the argument vector: they lie in the
    /// memory that is overwritten.
    pub(crate) unsafe fn overwrite(&self, title: &str) {
        // SAFETY: clearenv has no preconditions but the single thread that the caller promises;
        // afterwards no C code finds the strings that are wiped below.
        unsafe { libc::clearenv() };
        for range in [&self.arguments, &self.environment] {
            // SAFETY: the kernel reported the range as that of this process's own strings, which
            // lie on the initial stack and are writable; the caller promises that nobody holds
            // references into it.
            unsafe { std::ptr::write_bytes(range.start as *mut u8, 0, range.len()) };
        }
        // The last byte stays 0: the kernel takes another value for a sign that the text goes on
        // in the environment.
        let room = self.arguments.len().saturating_sub(1);
        let length = title.len().min(room);
        // SAFETY: `length` is at most the length of the title and of the range; the two cannot
        // overlap, as nobody holds references into the range.
        unsafe {
            std::ptr::copy_nonoverlapping(title.as_ptr(), self.arguments.start as *mut u8, length);
        }
    }
}

/// Sets the name of the process, of which the kernel keeps 15 bytes.
pub(crate) fn set_name(name: &str) {
    let bytes: Vec<u8> = name.bytes().filter(|b| *b != 0).take(15).collect();
    if let Ok(name) = CString::new(bytes) {
        // SAFETY: PR_SET_NAME reads a string that lives through the call.
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_are_the_last_fields_but_one() {
        let mut fields: Vec<String> = (3..=52).map(|n| n.to_string()).collect();
        for (field, value) in [(48, 4096), (49, 4100), (50, 4100), (51, 4200)] {
            fields[field - 3] = value.to_string();
        }
        let stat = format!("1 (a) b) {}", fields.join(" "));
        let found = Strings::parse(&stat).expect("all fields are there");
        assert_eq!(
            (found.arguments, found.environment),
            (4096..4100, 4100..4200)
        );
        assert!(Strings::parse("1 (a) R 0").is_none());
        fields[48 - 3] = "0".to_owned();
        let hidden = format!("1 (a) {}", fields.join(" "));
        assert!(Strings::parse(&hidden).is_none(), "hidden addresses are 0");
    }

    #[test]
    fn this_process_has_a_command_line() {
        let found = Strings::find().expect("proc is there");
        assert!(!found.arguments.is_empty());
    }
}
