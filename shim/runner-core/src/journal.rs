//! What libcontainer's three processes have to say about a failure.
//!
//! libcontainer hands errors from process to process as the outermost sentence only ("failed to
//! prepare rootfs"); the cause goes to `tracing`. So a memory file that all three inherit collects
//! its error events, and our own init leaves a whole [`Failure`] there.

use std::ffi::CStr;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::memfd::{MFdFlags, memfd_create};
use tracing_core::field::{Field, Visit};
use tracing_core::{Dispatch, Event, Level, LevelFilter, Metadata, Subscriber, span};
use wasmlet_protocol::Failure;

use crate::failure::one_line;

/// Descriptor of the memory file; negative when there is none.
static JOURNAL: AtomicI32 = AtomicI32::new(-1);

/// Longest journal that is read back: enough for any chain of causes.
const LIMIT_BYTES: u64 = 64 * 1024;

/// Starts to collect.
///
/// # Errors
/// When there is no memory file to be had, or somebody else collects `tracing` events already.
pub(crate) fn open() -> io::Result<()> {
    const NAME: &CStr = c"wasmlet-journal";
    let file = memfd_create(NAME, MFdFlags::MFD_CLOEXEC)?;
    tracing_core::dispatcher::set_global_default(Dispatch::new(Collector))
        .map_err(io::Error::other)?;
    JOURNAL.store(file.into_raw_fd(), Ordering::SeqCst);
    Ok(())
}

/// Stops to write; the descriptor itself is closed with all others before the guest runs.
pub(crate) fn forget() {
    JOURNAL.store(-1, Ordering::SeqCst);
}

/// Leaves a failure for the process that answers the shim.
pub(crate) fn leave(failure: &Failure) {
    if let Ok(json) = serde_json::to_string(failure) {
        append(&format!("F{json}\n"));
    }
}

/// What the journal holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The first failure that our own code left.
    pub(crate) failure: Option<Failure>,
    /// The first error event: the one nearest to the cause.
    pub(crate) event: Option<String>,
}

/// Reads the journal.
pub(crate) fn read() -> Found {
    let fd = JOURNAL.load(Ordering::SeqCst);
    if fd < 0 {
        return Found::default();
    }
    // SAFETY: the descriptor was made by `open` and is only given up by `forget`; `ManuallyDrop`
    // keeps this borrowed copy from closing it.
    let mut file = ManuallyDrop::new(unsafe { File::from_raw_fd(fd) });
    let mut text = String::new();
    let read = file
        .seek(SeekFrom::Start(0))
        .and_then(|_| (&mut *file).take(LIMIT_BYTES).read_to_string(&mut text));
    match read {
        Ok(_) => parse(&text),
        Err(_) => Found::default(),
    }
}

fn parse(text: &str) -> Found {
    let mut found = Found::default();
    for line in text.lines() {
        if let Some(json) = line.strip_prefix('F') {
            if found.failure.is_none() {
                found.failure = serde_json::from_str(json).ok();
            }
        } else if let Some(event) = line.strip_prefix('E')
            && found.event.is_none()
        {
            found.event = Some(event.to_owned());
        }
    }
    found
}

fn append(line: &str) {
    let fd: RawFd = JOURNAL.load(Ordering::SeqCst);
    if fd >= 0 {
        // SAFETY: as in `read`. A failed write loses a detail of a message, nothing else.
        let file = ManuallyDrop::new(unsafe { File::from_raw_fd(fd) });
        // One write: the offset is shared with the other processes.
        // SAFETY: pointer and length are those of a live string.
        unsafe { libc::write(file.as_raw_fd(), line.as_ptr().cast(), line.len()) };
    }
}

struct Collector;

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() == Level::ERROR
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::ERROR)
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        append(&format!(
            "E{}\n",
            one_line(&format!("{}{}", text.message, text.fields))
        ));
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, ", {}: {value:?}", field.name())
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_each_kind_counts() {
        let text = "Efailed to bind mount, err: ENOENT\nEfailed to prepare rootfs\n\
                    F{\"reason\":\"internal\",\"message\":\"m\"}\nFnonsense\n";
        let found = parse(text);
        assert_eq!(
            found.event.as_deref(),
            Some("failed to bind mount, err: ENOENT")
        );
        assert_eq!(found.failure.map(|f| f.message).as_deref(), Some("m"));
        assert_eq!(parse(""), Found::default());
    }
}
