//! Numbers and memory layouts of preview 1, as far as sockets need them.

use std::io;

/// An error number of preview 1 (`errno` in its witx).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Errno {
    /// Nothing there yet, and the call does not wait.
    Again = 6,
    /// No such descriptor.
    BadF = 8,
    /// The other side ended the connection.
    ConnAborted = 13,
    /// The other side ended the connection, and not politely.
    ConnReset = 15,
    /// An address outside the guest's memory.
    Fault = 21,
    /// What was asked for makes no sense.
    Inval = 28,
    /// Anything else that went wrong.
    Io = 29,
    /// Too many descriptors.
    NFile = 41,
    /// A socket without a connection.
    NotConn = 53,
    /// A descriptor that is no socket.
    NotSock = 57,
    /// Known, and not done here.
    NotSup = 58,
    /// Nobody reads.
    Pipe = 64,
}

impl Errno {
    /// No error.
    pub const SUCCESS: i32 = 0;

    /// What the guest sees.
    pub const fn number(self) -> i32 {
        self as i32
    }
}

impl From<&io::Error> for Errno {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            // A timed out read is EAGAIN on Linux.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => {
                Self::Again
            }
            io::ErrorKind::ConnectionAborted => Self::ConnAborted,
            io::ErrorKind::ConnectionReset => Self::ConnReset,
            io::ErrorKind::NotConnected => Self::NotConn,
            io::ErrorKind::BrokenPipe => Self::Pipe,
            io::ErrorKind::InvalidInput => Self::Inval,
            _ => match error.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Self::NFile,
                _ => Self::Io,
            },
        }
    }
}

/// `filetype`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FileType {
    /// A TCP connection, or what accepts them.
    SocketStream = 6,
}

/// `fdflags`, of which only "do not block" means anything to a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FdFlags(u16);

impl FdFlags {
    const NONBLOCK: u16 = 1 << 2;

    /// As the guest passes them.
    pub fn from_guest(flags: i32) -> Self {
        // The upper half is not part of the type; preview 1 passes every flag set as i32.
        Self(u16::try_from(flags & 0xffff).unwrap_or(0))
    }

    /// The one flag, or none.
    pub fn from_nonblocking(nonblocking: bool) -> Self {
        Self(if nonblocking { Self::NONBLOCK } else { 0 })
    }

    /// Whether a call is not to wait.
    pub fn nonblocking(self) -> bool {
        self.0 & Self::NONBLOCK != 0
    }
}

/// Rights that are of use with a socket: fd_read, fd_fdstat_set_flags, fd_write, fd_filestat_get,
/// poll_fd_readwrite, sock_shutdown, sock_accept.
const SOCKET_RIGHTS: u64 = 1 << 1 | 1 << 3 | 1 << 6 | 1 << 21 | 1 << 27 | 1 << 28 | 1 << 29;

/// Bytes of a `fdstat`.
pub const FDSTAT_SIZE: usize = 24;

/// Bytes of a `filestat`.
pub const FILESTAT_SIZE: usize = 64;

/// A guest's linear memory. Every access is checked against its size.
#[derive(Debug)]
pub struct Memory<'a>(pub &'a mut [u8]);

impl Memory<'_> {
    fn range(&self, at: i32, length: usize) -> Result<std::ops::Range<usize>, Errno> {
        let start = at.cast_unsigned() as usize;
        let end = start.checked_add(length).ok_or(Errno::Fault)?;
        if end > self.0.len() {
            Err(Errno::Fault)
        } else {
            Ok(start..end)
        }
    }

    /// Whether something can be written there.
    ///
    /// # Errors
    /// [`Errno::Fault`] when it is not all inside.
    pub fn check(&self, at: i32, length: usize) -> Result<(), Errno> {
        self.range(at, length).map(|_| ())
    }

    /// Bytes that are there, to be written to.
    ///
    /// # Errors
    /// [`Errno::Fault`] when it is not all inside.
    pub fn slice(&mut self, at: i32, length: usize) -> Result<&mut [u8], Errno> {
        let range = self.range(at, length)?;
        Ok(&mut self.0[range])
    }

    /// Bytes from there.
    ///
    /// # Errors
    /// [`Errno::Fault`] when it is not all inside.
    pub fn read<const N: usize>(&self, at: i32) -> Result<[u8; N], Errno> {
        let range = self.range(at, N)?;
        self.0[range].try_into().map_err(|_| Errno::Fault)
    }

    /// A number from there.
    ///
    /// # Errors
    /// [`Errno::Fault`] when it is not all inside.
    pub fn read_u32(&self, at: i32) -> Result<u32, Errno> {
        Ok(u32::from_le_bytes(self.read(at)?))
    }

    /// Bytes to there.
    ///
    /// # Errors
    /// [`Errno::Fault`] when it is not all inside.
    pub fn write(&mut self, at: i32, bytes: &[u8]) -> Result<(), Errno> {
        let range = self.range(at, bytes.len())?;
        self.0[range].copy_from_slice(bytes);
        Ok(())
    }

    /// A number to there.
    ///
    /// # Errors
    /// [`Errno::Fault`] when it is not all inside.
    pub fn write_u32(&mut self, at: i32, value: u32) -> Result<(), Errno> {
        self.write(at, &value.to_le_bytes())
    }

    /// A number to there.
    ///
    /// # Errors
    /// [`Errno::Fault`] when it is not all inside.
    pub fn write_u16(&mut self, at: i32, value: u16) -> Result<(), Errno> {
        self.write(at, &value.to_le_bytes())
    }

    /// `fdstat`: filetype at 0, flags at 2, rights at 8, inherited rights at 16.
    ///
    /// # Errors
    /// [`Errno::Fault`] when it is not all inside.
    pub fn write_fdstat(&mut self, at: i32, kind: FileType, flags: FdFlags) -> Result<(), Errno> {
        let mut stat = [0; FDSTAT_SIZE];
        stat[0] = kind as u8;
        stat[2..4].copy_from_slice(&flags.0.to_le_bytes());
        stat[8..16].copy_from_slice(&SOCKET_RIGHTS.to_le_bytes());
        stat[16..24].copy_from_slice(&SOCKET_RIGHTS.to_le_bytes());
        self.write(at, &stat)
    }

    /// `filestat`, of which a socket has only a type, at 16.
    ///
    /// # Errors
    /// [`Errno::Fault`] when it is not all inside.
    pub fn write_filestat(&mut self, at: i32, kind: FileType) -> Result<(), Errno> {
        let mut stat = [0; FILESTAT_SIZE];
        stat[16] = kind as u8;
        self.write(at, &stat)
    }

    /// The first buffer of a list that is not empty, cut to `most` bytes.
    ///
    /// One buffer at a time is what read(2) and write(2) may do as well; guests go on until all
    /// is done.
    fn first_buffer(
        &self,
        vectors: i32,
        count: i32,
        most: usize,
    ) -> Result<std::ops::Range<usize>, Errno> {
        let vectors = vectors.cast_unsigned();
        for index in 0..count.cast_unsigned() {
            // `iovec` and `ciovec`: address at 0, length at 4
            let at = index
                .checked_mul(8)
                .and_then(|o| vectors.checked_add(o))
                .ok_or(Errno::Fault)?;
            let address = self.read_u32(at.cast_signed())?;
            let length = self.read_u32(at.cast_signed().wrapping_add(4))? as usize;
            if length > 0 {
                return self
                    .range(address.cast_signed(), length)
                    .map(|whole| whole.start..whole.end.min(whole.start.saturating_add(most)));
            }
        }
        Ok(0..0)
    }

    /// Fills the first buffer of a list.
    ///
    /// # Errors
    /// What `read` reports, and [`Errno::Fault`] for a list or buffer outside.
    pub fn read_into(
        &mut self,
        vectors: i32,
        count: i32,
        most: usize,
        mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> Result<u32, Errno> {
        let range = self.first_buffer(vectors, count, most)?;
        if range.is_empty() {
            return Ok(0);
        }
        loop {
            match read(&mut self.0[range.clone()]) {
                Ok(size) => return u32::try_from(size).map_err(|_| Errno::Io),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Errno::from(&error)),
            }
        }
    }

    /// Takes from the first buffer of a list.
    ///
    /// # Errors
    /// What `write` reports, and [`Errno::Fault`] for a list or buffer outside.
    pub fn write_from(
        &self,
        vectors: i32,
        count: i32,
        most: usize,
        mut write: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> Result<u32, Errno> {
        let range = self.first_buffer(vectors, count, most)?;
        if range.is_empty() {
            return Ok(0);
        }
        loop {
            match write(&self.0[range.clone()]) {
                Ok(size) => return u32::try_from(size).map_err(|_| Errno::Io),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Errno::from(&error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eight words: two vectors, the first empty, then room.
    fn memory() -> [u8; 64] {
        let mut bytes = [0; 64];
        let words: [u32; 4] = [40, 0, 32, 8];
        for (index, word) in words.iter().enumerate() {
            bytes[index * 4..index * 4 + 4].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn the_first_buffer_with_room_is_filled() {
        let mut bytes = memory();
        let mut memory = Memory(&mut bytes);
        let read = memory
            .read_into(0, 2, 5, |buffer| {
                assert_eq!(buffer.len(), 5, "cut to the bound");
                buffer.fill(7);
                Ok(buffer.len())
            })
            .expect("all is inside");
        assert_eq!(read, 5);
        assert_eq!(bytes[32..38], [7, 7, 7, 7, 7, 0]);
    }

    #[test]
    fn nothing_outside_the_memory_is_touched() {
        let mut bytes = memory();
        let mut memory = Memory(&mut bytes);
        for (at, length) in [(61, 4), (-1, 1), (i32::MAX, 1), (64, 1)] {
            assert_eq!(memory.check(at, length), Err(Errno::Fault), "{at}+{length}");
        }
        assert_eq!(memory.write_u32(62, 1), Err(Errno::Fault));
        assert_eq!(
            memory.write_from(60, 1, 9, |_| Ok(0)),
            Err(Errno::Fault),
            "the list itself"
        );
        memory.write_u32(8, 63).expect("inside");
        assert_eq!(
            memory.write_from(0, 2, 9, |_| Ok(0)),
            Err(Errno::Fault),
            "the buffer"
        );
        assert_eq!(
            memory.write_from(-8, 2, 9, |_| Ok(0)),
            Err(Errno::Fault),
            "the list wraps"
        );
        assert_eq!(memory.write_from(0, 1, 9, |_| panic!("empty")), Ok(0));
    }

    #[test]
    fn an_interrupted_call_is_made_again() {
        let mut bytes = memory();
        let mut calls = 0;
        let written = Memory(&mut bytes).write_from(0, 2, 9, |buffer| {
            calls += 1;
            if calls == 1 {
                Err(io::ErrorKind::Interrupted.into())
            } else {
                Ok(buffer.len())
            }
        });
        assert_eq!(written, Ok(8));
    }
}
