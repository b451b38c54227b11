//! As much of HTTP/1.1 as a server needs that answers one request per connection.

mod body;
mod request;
mod response;

pub use request::{Limits, Method, ReadError, Request, read_request};
pub use response::Response;

#[cfg(test)]
pub(crate) mod fake {
    //! A connection whose client has already said everything.

    use std::io::{self, Read, Write};

    /// Gives its input in pieces of at most `piece` bytes, then what `then` says; collects what is
    /// written.
    pub(crate) struct Connection {
        pub(crate) input: Vec<u8>,
        pub(crate) at: usize,
        pub(crate) piece: usize,
        pub(crate) then: Option<io::ErrorKind>,
        pub(crate) output: Vec<u8>,
    }

    impl Connection {
        pub(crate) fn saying(input: impl Into<Vec<u8>>) -> Connection {
            Connection {
                input: input.into(),
                at: 0,
                piece: usize::MAX,
                then: None,
                output: Vec::new(),
            }
        }

        pub(crate) fn written(&self) -> String {
            String::from_utf8_lossy(&self.output).into_owned()
        }
    }

    impl Read for Connection {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let rest = &self.input[self.at..];
            let n = rest.len().min(buffer.len()).min(self.piece);
            if n == 0
                && let Some(kind) = self.then
            {
                return Err(kind.into());
            }
            buffer[..n].copy_from_slice(&rest[..n]);
            self.at += n;
            Ok(n)
        }
    }

    impl Write for Connection {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.output.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
