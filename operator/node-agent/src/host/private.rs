//! systemd's private socket, as zbus can read it.
//!
//! Without a bus there are no unique names, and systemd puts `org.freedesktop.systemd1` into its messages as their sender. The D-Bus specification wants a
//! unique name there, zbus (5.19) insists on it and panics. So the sender's first letter is replaced by the colon that unique names begin with; nobody
//! looks at it. For that whole messages are needed, so this reads them as a whole.

use std::io;
use std::os::fd::OwnedFd;

use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use zbus::connection::socket::{ReadHalf, Socket, Split};

/// The header field SENDER (7), of type s, with systemd's name: code, signature, length in the message's order, text.
const FIELD: [u8; 4] = [7, 1, b's', 0];
const NAME: &[u8] = b"org.freedesktop.systemd1\0";
/// What comes before the header fields (D-Bus specification, "Message Format").
const FIXED_BYTES: usize = 16;
/// Messages are at most this long, by the specification.
const MAX_BYTES: usize = 128 << 20;

/// A connection to systemd's private socket.
#[derive(Debug)]
pub(super) struct Private(pub(super) UnixStream);

impl Socket for Private {
    type ReadHalf = Reader;
    type WriteHalf = OwnedWriteHalf;

    fn split(self) -> Split<Reader, OwnedWriteHalf> {
        let (read, write) = self.0.into_split();
        let reader = Reader {
            inner: read,
            raw: Vec::new(),
            ready: Vec::new(),
        };
        Split::new(reader, write)
    }
}

/// The half that is read.
#[derive(Debug)]
pub(super) struct Reader {
    inner: OwnedReadHalf,
    /// As systemd sent it.
    raw: Vec<u8>,
    /// As zbus gets it.
    ready: Vec<u8>,
}

#[async_trait::async_trait]
impl ReadHalf for Reader {
    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        while self.ready.is_empty() {
            if let Some(length) = piece(&self.raw)? {
                let mut piece: Vec<u8> = self.raw.drain(..length).collect();
                rename_sender(&mut piece);
                self.ready = piece;
                break;
            }
            let mut more = [0; 4096];
            // systemd sends no descriptors for what we ask.
            let (read, _) = self.inner.recvmsg(&mut more).await?;
            if read == 0 {
                return Ok((0, Vec::new()));
            }
            self.raw.extend_from_slice(&more[..read]);
        }
        let length = buffer.len().min(self.ready.len());
        buffer[..length].copy_from_slice(&self.ready[..length]);
        self.ready.drain(..length);
        Ok((length, Vec::new()))
    }

    fn can_pass_unix_fd(&self) -> bool {
        true
    }

    async fn peer_credentials(&mut self) -> io::Result<zbus::fdo::ConnectionCredentials> {
        self.inner.peer_credentials().await
    }
}

/// How many bytes the first message, or the first line of the handshake, takes; none: it is not complete.
fn piece(raw: &[u8]) -> io::Result<Option<usize>> {
    let number: fn([u8; 4]) -> u32 = match raw.first() {
        None => return Ok(None),
        Some(b'l') => u32::from_le_bytes,
        Some(b'B') => u32::from_be_bytes,
        // The handshake's words: OK, AGREE_UNIX_FD, ERROR, REJECTED, DATA.
        Some(_) => {
            let end = raw.windows(2).position(|pair| pair == b"\r\n");
            return Ok(end.map(|end| end + 2));
        }
    };
    let at = |offset: usize| {
        raw.get(offset..offset + 4)
            .and_then(|bytes| bytes.try_into().ok())
            .map(|bytes| number(bytes) as usize)
    };
    let (Some(body), Some(fields)) = (at(4), at(12)) else {
        return Ok(None);
    };
    let length = (FIXED_BYTES + fields).next_multiple_of(8) + body;
    if length > MAX_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a message of {length} bytes"),
        ));
    }
    Ok((raw.len() >= length).then_some(length))
}

/// In a whole message, within its header fields.
fn rename_sender(message: &mut [u8]) {
    let number: fn([u8; 4]) -> u32 = match message.first() {
        Some(b'l') => u32::from_le_bytes,
        Some(b'B') => u32::from_be_bytes,
        _ => return,
    };
    let Some(fields) = message.get(12..16).and_then(|bytes| bytes.try_into().ok()) else {
        return;
    };
    let end = (FIXED_BYTES + number(fields) as usize).min(message.len());
    // Fields are aligned to 8 bytes.
    for start in (FIXED_BYTES..end).step_by(8) {
        let name = start + FIELD.len() + 4;
        if message[start..end].starts_with(&FIELD)
            && message
                .get(name..end)
                .is_some_and(|text| text.starts_with(NAME))
        {
            message[name] = b':';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    /// A signal as systemd sends it: header fields path, sender, no body.
    fn message() -> Vec<u8> {
        let mut fields = Vec::new();
        fields.extend([1, 1, b'o', 0, 2, 0, 0, 0, b'/', b'x', 0, 0, 0, 0, 0, 0]);
        fields.extend(FIELD);
        fields.extend(24_u32.to_le_bytes());
        fields.extend(NAME);
        let mut message = vec![b'l', 4, 1, 1, 4, 0, 0, 0, 1, 0, 0, 0];
        message.extend(u32::try_from(fields.len()).unwrap().to_le_bytes());
        message.extend(fields);
        while message.len() % 8 != 0 {
            message.push(0);
        }
        // A body that looks like a sender is none.
        message.extend(b"body");
        message
    }

    #[tokio::test]
    async fn the_sender_is_a_unique_name_however_the_bytes_come() {
        for step in [1, 7, 16, 1000] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let mut sent = b"OK 0123\r\nAGREE_UNIX_FD\r\n".to_vec();
            sent.extend(message());
            sent.extend(message());
            let length = sent.len();
            let writer = tokio::spawn(async move {
                for piece in sent.chunks(step) {
                    theirs.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            });
            let (mut reader, _write) = Private(ours).split().take();
            let mut got = Vec::new();
            while got.len() < length {
                let mut buffer = [0; 10];
                let (read, _) = reader.recvmsg(&mut buffer).await.unwrap();
                got.extend_from_slice(&buffer[..read]);
            }
            writer.await.unwrap();
            let text = String::from_utf8_lossy(&got);
            assert!(text.starts_with("OK 0123\r\nAGREE_UNIX_FD\r\n"));
            assert_eq!(text.matches(":rg.freedesktop.systemd1\0").count(), 2);
            assert_eq!(text.matches("org.freedesktop.systemd1").count(), 0);
        }
    }

    #[test]
    fn a_length_that_nobody_may_send_is_an_error() {
        let mut bytes = message();
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(piece(&bytes).is_err());
    }
}
