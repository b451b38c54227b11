//! The two ways a body arrives.

use std::io::Read;

use super::request::{ReadError, Source};

/// A chunk's size line and a trailer line are short; longer ones are an attack or a mistake.
const LINE_BYTES: usize = 1024;
/// Trailer lines after the last chunk.
const TRAILERS: usize = 16;

/// A body of `length` bytes, of which `body` has the first. What follows it belongs to no request
/// of ours.
pub(super) fn sized<S: Read>(
    source: &mut Source<'_, S>,
    mut body: Vec<u8>,
    length: usize,
) -> Result<Vec<u8>, ReadError> {
    body.truncate(length);
    body.reserve_exact(length - body.len());
    while body.len() < length {
        let missing = length - body.len();
        source.more(&mut body, missing)?;
    }
    Ok(body)
}

/// A body in chunks; `pending` is what was read behind the head.
pub(super) fn chunked<S: Read>(
    source: &mut Source<'_, S>,
    pending: Vec<u8>,
    limit: usize,
) -> Result<Vec<u8>, ReadError> {
    let mut input = Input {
        source,
        pending,
        at: 0,
    };
    let mut body = Vec::new();
    loop {
        let line = input.line()?;
        let size = match httparse::parse_chunk_size(&line) {
            Ok(httparse::Status::Complete((_, size))) => size,
            _ => return Err(ReadError::Chunk),
        };
        if size == 0 {
            break;
        }
        let size = usize::try_from(size)
            .ok()
            .filter(|size| *size <= limit - body.len())
            .ok_or(ReadError::BodyTooLarge { limit })?;
        input.take(size, &mut body)?;
        if input.line()? != b"\r\n" {
            return Err(ReadError::Chunk);
        }
    }
    for _ in 0..TRAILERS {
        if input.line()? == b"\r\n" {
            return Ok(body);
        }
    }
    Err(ReadError::Chunk)
}

/// Bytes already read, then bytes to come.
struct Input<'a, 'b, S> {
    source: &'a mut Source<'b, S>,
    pending: Vec<u8>,
    at: usize,
}

impl<S: Read> Input<'_, '_, S> {
    fn refill(&mut self) -> Result<(), ReadError> {
        self.pending.drain(..self.at);
        self.at = 0;
        self.source.more(&mut self.pending, usize::MAX)
    }

    /// The next line with its end.
    fn line(&mut self) -> Result<Vec<u8>, ReadError> {
        loop {
            let rest = &self.pending[self.at..];
            if let Some(end) = rest.iter().take(LINE_BYTES).position(|b| *b == b'\n') {
                let line = rest[..=end].to_vec();
                self.at += line.len();
                return Ok(line);
            }
            if rest.len() >= LINE_BYTES {
                return Err(ReadError::Chunk);
            }
            self.refill()?;
        }
    }

    /// Moves the next `size` bytes into `body`.
    fn take(&mut self, mut size: usize, body: &mut Vec<u8>) -> Result<(), ReadError> {
        loop {
            let rest = &self.pending[self.at..];
            let n = rest.len().min(size);
            body.extend_from_slice(&rest[..n]);
            self.at += n;
            size -= n;
            if size == 0 {
                return Ok(());
            }
            self.refill()?;
        }
    }
}
