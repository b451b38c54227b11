//! A layer: tar entries, packed and perhaps compressed.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use flate2::GzBuilder;
use tar::{EntryType, Header};

use crate::blob::{Blob, digest_of, media_type};
use crate::error::Error;

/// How a layer's tar is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Plain tar.
    None,
    /// The most common form.
    #[default]
    Gzip,
    /// Understood by containerd 1.5 and later.
    Zstd,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A file with its content.
    File(Vec<u8>),
    /// A folder.
    Folder,
    /// A symbolic link with its target, written as given.
    Symlink(String),
    /// A hard link to another path of the image.
    HardLink(String),
    /// A named pipe.
    Fifo,
    /// A character device with its major and minor number.
    CharDevice(u32, u32),
    /// A block device with its major and minor number.
    BlockDevice(u32, u32),
}

/// One entry of a layer. The path goes into the tar as it is: neither `..` nor a leading `/` is
/// removed, because tests need images like that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path in the image, usually without a leading `/`.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits, set-user-id and the like included.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
}

impl Entry {
    /// An entry owned by root.
    pub fn new(path: &str, kind: EntryKind, mode: u32) -> Self {
        Self {
            path: path.into(),
            kind,
            mode,
            uid: 0,
            gid: 0,
        }
    }

    /// Changes the owner.
    #[must_use]
    pub fn owner(mut self, uid: u64, gid: u64) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }
}

/// A layer under construction. Entries keep the order they were added in.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    entries: Vec<Entry>,
    compression: Compression,
}

impl Layer {
    /// A layer without entries, to be compressed with gzip.
    pub fn new() -> Self {
        Self::default()
    }

    /// Chooses how the layer is compressed.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Adds any entry.
    #[must_use]
    pub fn entry(mut self, entry: Entry) -> Self {
        self.entries.push(entry);
        self
    }

    /// Adds a file. Folders above it need no entry: unpacking makes them.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, content: impl Into<Vec<u8>>) -> Self {
        self.entry(Entry::new(path, EntryKind::File(content.into()), mode))
    }

    /// Adds a folder.
    #[must_use]
    pub fn folder(self, path: &str, mode: u32) -> Self {
        self.entry(Entry::new(path, EntryKind::Folder, mode))
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(Entry::new(path, EntryKind::Symlink(target.into()), 0o777))
    }

    /// Adds a named pipe.
    #[must_use]
    pub fn fifo(self, path: &str, mode: u32) -> Self {
        self.entry(Entry::new(path, EntryKind::Fifo, mode))
    }

    /// Adds a character device.
    #[must_use]
    pub fn char_device(self, path: &str, major: u32, minor: u32, mode: u32) -> Self {
        self.entry(Entry::new(path, EntryKind::CharDevice(major, minor), mode))
    }

    /// Adds a file of this machine, keeping its permission bits.
    pub fn local_file(self, path: &str, local: &Path) -> Result<Self, Error> {
        let read = |source| Error::Read {
            path: local.into(),
            source,
        };
        let mode = fs::metadata(local).map_err(read)?.permissions().mode();
        let content = fs::read(local).map_err(read)?;
        Ok(self.file(path, mode & 0o7777, content))
    }

    /// Adds everything below a folder of this machine under `prefix` (empty for the image's root),
    /// sorted by name and owned by root.
    pub fn local_folder(mut self, prefix: &str, local: &Path) -> Result<Self, Error> {
        let read = |source| Error::Read {
            path: local.into(),
            source,
        };
        let mut names = Vec::new();
        for entry in fs::read_dir(local).map_err(read)? {
            let entry = entry.map_err(read)?;
            let name = entry
                .file_name()
                .into_string()
                .map_err(|_| Error::NotUtf8 { path: entry.path() })?;
            names.push(name);
        }
        names.sort();
        for name in names {
            let below = local.join(&name);
            let inside = if prefix.is_empty() {
                name
            } else {
                format!("{}/{name}", prefix.trim_matches('/'))
            };
            self = self.local_entry(&inside, &below)?;
        }
        Ok(self)
    }

    fn local_entry(self, inside: &str, local: &Path) -> Result<Self, Error> {
        let read = |source| Error::Read {
            path: local.into(),
            source,
        };
        let metadata = fs::symlink_metadata(local).map_err(read)?;
        let mode = metadata.permissions().mode() & 0o7777;
        let kind = metadata.file_type();
        if kind.is_dir() {
            self.folder(inside, mode).local_folder(inside, local)
        } else if kind.is_symlink() {
            let target = fs::read_link(local).map_err(read)?;
            let target = target.to_str().ok_or_else(|| Error::NotUtf8 {
                path: target.clone(),
            })?;
            Ok(self.symlink(inside, target))
        } else if kind.is_file() {
            self.local_file(inside, local)
        } else {
            let kind = if kind.is_fifo() {
                "named pipe"
            } else if kind.is_socket() {
                "socket"
            } else {
                "device"
            };
            Err(Error::SpecialFile {
                path: local.into(),
                kind,
            })
        }
    }

    /// Packs the layer.
    pub(crate) fn pack(&self) -> Result<PackedLayer, Error> {
        let mut builder = tar::Builder::new(Vec::new());
        for entry in &self.entries {
            append(&mut builder, entry).map_err(|source| Error::Pack {
                entry: entry.path.clone(),
                source,
            })?;
        }
        let close = |source| Error::Pack {
            entry: String::new(),
            source,
        };
        let plain = builder.into_inner().map_err(close)?;
        let diff_id = digest_of(&plain);
        let blob = match self.compression {
            Compression::None => Blob::new(media_type::LAYER_TAR, plain),
            Compression::Gzip => Blob::new(media_type::LAYER_GZIP, gzip(&plain).map_err(close)?),
            Compression::Zstd => Blob::new(
                media_type::LAYER_ZSTD,
                zstd::encode_all(&plain[..], 0).map_err(close)?,
            ),
        };
        Ok(PackedLayer { blob, diff_id })
    }
}

/// A packed layer: the blob, and the digest of what is inside, which the image config names.
pub(crate) struct PackedLayer {
    pub(crate) blob: Blob,
    pub(crate) diff_id: String,
}

fn gzip(plain: &[u8]) -> io::Result<Vec<u8>> {
    // mtime 0 and no file name: the same bytes every time.
    let mut encoder = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), flate2::Compression::default());
    encoder.write_all(plain)?;
    encoder.finish()
}

/// The longest path or link target an ustar header holds; longer ones go into a pax record.
const USTAR_NAME_BYTES: usize = 100;

fn append(builder: &mut tar::Builder<Vec<u8>>, entry: &Entry) -> io::Result<()> {
    let (entry_type, link, content, device) = match &entry.kind {
        EntryKind::File(content) => (EntryType::Regular, "", &content[..], None),
        EntryKind::Folder => (EntryType::Directory, "", &[][..], None),
        EntryKind::Symlink(target) => (EntryType::Symlink, target.as_str(), &[][..], None),
        EntryKind::HardLink(target) => (EntryType::Link, target.as_str(), &[][..], None),
        EntryKind::Fifo => (EntryType::Fifo, "", &[][..], None),
        EntryKind::CharDevice(major, minor) => {
            (EntryType::Char, "", &[][..], Some((*major, *minor)))
        }
        EntryKind::BlockDevice(major, minor) => {
            (EntryType::Block, "", &[][..], Some((*major, *minor)))
        }
    };
    // By convention a folder's name ends with a slash.
    let mut path = entry.path.clone();
    if entry.kind == EntryKind::Folder && !path.ends_with('/') {
        path.push('/');
    }

    let long = [("path", path.as_str()), ("linkpath", link)];
    let long = long
        .iter()
        .filter(|(_, text)| text.len() > USTAR_NAME_BYTES);
    builder.append_pax_extensions(long.map(|(key, text)| (*key, text.as_bytes())))?;

    let mut header = Header::new_ustar();
    header.set_entry_type(entry_type);
    header.set_mode(entry.mode);
    header.set_uid(entry.uid);
    header.set_gid(entry.gid);
    header.set_mtime(0);
    header.set_size(content.len() as u64);
    if let Some((major, minor)) = device {
        header.set_device_major(major)?;
        header.set_device_minor(minor)?;
    }
    // The tar crate's own setters clean paths up; these bytes go in as they are.
    let old = header.as_old_mut();
    copy_name(&mut old.name, &path);
    copy_name(&mut old.linkname, link);
    header.set_cksum();
    builder.append(&header, content)
}

fn copy_name(field: &mut [u8; USTAR_NAME_BYTES], text: &str) {
    let bytes = text.as_bytes();
    let length = bytes.len().min(field.len());
    field[..length].copy_from_slice(&bytes[..length]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[track_caller]
    fn unpack(layer: &Layer) -> Vec<(String, EntryType, Option<String>, Vec<u8>)> {
        let packed = layer.pack().unwrap();
        let bytes = packed.blob.bytes;
        let plain = match layer.compression {
            Compression::None => bytes,
            Compression::Gzip => {
                let mut plain = Vec::new();
                flate2::read::GzDecoder::new(&bytes[..])
                    .read_to_end(&mut plain)
                    .unwrap();
                plain
            }
            Compression::Zstd => zstd::decode_all(&bytes[..]).unwrap(),
        };
        assert_eq!(
            packed.diff_id,
            digest_of(&plain),
            "diff id is of the tar, not of the blob"
        );
        let mut archive = tar::Archive::new(&plain[..]);
        archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
                let link = entry
                    .link_name_bytes()
                    .map(|l| String::from_utf8(l.to_vec()).unwrap());
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                assert_eq!(entry.header().mtime().unwrap(), 0);
                (path, entry.header().entry_type(), link, content)
            })
            .collect()
    }

    #[test]
    fn every_compression_gives_the_same_entries() {
        let layer = Layer::new()
            .folder("etc", 0o755)
            .file("etc/x", 0o600, "hello");
        let plain = unpack(&layer.clone().compression(Compression::None));
        assert_eq!(
            plain[0],
            ("etc/".into(), EntryType::Directory, None, vec![])
        );
        assert_eq!(
            plain[1],
            ("etc/x".into(), EntryType::Regular, None, b"hello".to_vec())
        );
        assert_eq!(unpack(&layer.clone().compression(Compression::Gzip)), plain);
        assert_eq!(unpack(&layer.compression(Compression::Zstd)), plain);
    }

    #[test]
    fn hostile_paths_and_links_are_written_as_given() {
        let layer = Layer::new()
            .file("../../etc/cron.d/x", 0o644, "x")
            .file("/absolute", 0o644, "y")
            .symlink("proc", "/tmp/elsewhere");
        let entries = unpack(&layer);
        assert_eq!(entries[0].0, "../../etc/cron.d/x");
        assert_eq!(entries[1].0, "/absolute");
        assert_eq!(entries[2].2.as_deref(), Some("/tmp/elsewhere"));
    }

    #[test]
    fn long_paths_and_targets_survive() {
        let path = format!("{}/file", "d".repeat(180));
        let target = "t".repeat(300);
        let entries = unpack(&Layer::new().file(&path, 0o644, "x").symlink("l", &target));
        assert_eq!(entries[0].0, path);
        assert_eq!(entries[1].2.as_deref(), Some(&target[..]));
    }

    #[test]
    fn pipes_and_devices_keep_their_kind_and_numbers() {
        let layer = Layer::new()
            .fifo("pipe", 0o600)
            .char_device("null", 1, 3, 0o666)
            .entry(Entry::new("disk", EntryKind::BlockDevice(8, 1), 0o600).owner(1, 2))
            .compression(Compression::None);
        let bytes = layer.pack().unwrap().blob.bytes;
        let mut archive = tar::Archive::new(&bytes[..]);
        let headers: Vec<Header> = archive
            .entries()
            .unwrap()
            .map(|e| e.unwrap().header().clone())
            .collect();
        assert!(headers[0].entry_type().is_fifo());
        assert!(headers[1].entry_type().is_character_special());
        assert_eq!(headers[1].device_major().unwrap(), Some(1));
        assert_eq!(headers[1].device_minor().unwrap(), Some(3));
        assert!(headers[2].entry_type().is_block_special());
        assert_eq!(
            (headers[2].uid().unwrap(), headers[2].gid().unwrap()),
            (1, 2)
        );
    }

    #[test]
    fn a_folder_is_taken_whole_and_sorted() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("sub")).unwrap();
        fs::write(temp.path().join("sub/b"), "b").unwrap();
        fs::write(temp.path().join("sub/a"), "a").unwrap();
        std::os::unix::fs::symlink("a", temp.path().join("sub/link")).unwrap();
        let entries = unpack(&Layer::new().local_folder("opt", temp.path()).unwrap());
        let paths: Vec<&str> = entries.iter().map(|entry| entry.0.as_str()).collect();
        assert_eq!(
            paths,
            ["opt/sub/", "opt/sub/a", "opt/sub/b", "opt/sub/link"]
        );
        assert_eq!(entries[3].2.as_deref(), Some("a"));
    }

    #[test]
    fn a_socket_in_a_folder_is_refused_by_name() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("s");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let error = Layer::new().local_folder("", temp.path()).unwrap_err();
        assert!(
            matches!(error, Error::SpecialFile { kind: "socket", .. }),
            "{error}"
        );
    }
}
