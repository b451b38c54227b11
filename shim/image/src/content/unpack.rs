//! Writes a layer's bytes as the module's: decompressed, bounded, hashed.

use std::fs::File;
use std::io::{self, Seek, Write};

use wasmlet_cache::{Digest, Hasher};
use zstd::stream::{raw, zio};

use crate::Limits;
use crate::oci::Compression;

/// Why a piece of a layer could not be written.
pub(super) enum Trouble {
    Write(io::Error),
    Decompress(io::Error),
    TooLarge { length: u64, limit: u64 },
}

/// Takes a layer's bytes, writes the module's.
pub(super) enum Unpacker<'a> {
    None(Sink<'a>),
    Gzip(Box<flate2::write::MultiGzDecoder<Sink<'a>>>),
    Zstd(Box<zio::Writer<Sink<'a>, raw::Decoder<'static>>>),
}

impl<'a> Unpacker<'a> {
    pub(super) fn new(
        compression: Compression,
        mut file: &'a File,
        limits: &Limits,
    ) -> io::Result<Unpacker<'a>> {
        file.rewind()?;
        let limit = limits.max_module_bytes;
        let sink = Sink {
            file,
            hasher: Hasher::new(),
            length: 0,
            limit,
            trouble: None,
        };
        Ok(match compression {
            Compression::None => Unpacker::None(sink),
            Compression::Gzip => Unpacker::Gzip(Box::new(flate2::write::MultiGzDecoder::new(sink))),
            Compression::Zstd => {
                Unpacker::Zstd(Box::new(zio::Writer::new(sink, raw::Decoder::new()?)))
            }
        })
    }

    fn sink(&mut self) -> &mut Sink<'a> {
        match self {
            Unpacker::None(sink) => sink,
            Unpacker::Gzip(decoder) => decoder.get_mut(),
            Unpacker::Zstd(decoder) => decoder.writer_mut(),
        }
    }

    pub(super) fn push(&mut self, chunk: &[u8]) -> Result<(), Trouble> {
        let pushed = match self {
            Unpacker::None(sink) => sink.write_all(chunk),
            Unpacker::Gzip(decoder) => decoder.write_all(chunk),
            Unpacker::Zstd(decoder) => decoder.write_all(chunk),
        };
        // What the sink says comes first: a decoder reports the sink's failure as its own.
        match (pushed, self.sink().trouble.take()) {
            (Ok(()), None) => Ok(()),
            (_, Some(trouble)) => Err(trouble),
            (Err(error), None) => Err(Trouble::Decompress(error)),
        }
    }

    pub(super) fn finish(mut self) -> Result<(Digest, u64), Trouble> {
        let ended = match &mut self {
            Unpacker::None(_) => Ok(()),
            Unpacker::Gzip(decoder) => decoder.try_finish(),
            // Unlike `write::Decoder`, this notices a frame that was cut off.
            Unpacker::Zstd(decoder) => decoder.finish(),
        };
        match (ended, self.sink().trouble.take()) {
            (Ok(()), None) => {}
            (_, Some(trouble)) => return Err(trouble),
            (Err(error), None) => return Err(Trouble::Decompress(error)),
        }
        let sink = self.sink();
        Ok((std::mem::take(&mut sink.hasher).finish(), sink.length))
    }
}

/// The file that takes the module; refuses more than a module may have.
pub(super) struct Sink<'a> {
    file: &'a File,
    hasher: Hasher,
    length: u64,
    limit: u64,
    trouble: Option<Trouble>,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.length + bytes.len() as u64;
        if length > self.limit {
            self.trouble = Some(Trouble::TooLarge {
                length,
                limit: self.limit,
            });
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if let Err(error) = (&mut &*self.file).write_all(bytes) {
            let kind = error.kind();
            self.trouble = Some(Trouble::Write(error));
            return Err(kind.into());
        }
        self.hasher.update(bytes);
        self.length = length;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
