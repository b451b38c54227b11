//! The models that a pod names: files of its own image and volumes.
//!
//! They are looked at when the container is created, so that a mistake in the annotation is an answer to
//! the pod's owner, and read when the guest first asks for them, so that a guest that asks for none pays
//! for none. Both happen inside the container's root file system, as its user; the second with no more of
//! it open than the guest's own folders.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use wasmlet_protocol::NnModel;

use crate::{MAX_MODEL_BYTES, MAX_NAME_BYTES};

/// Memory that a model of that size takes while it is being loaded: the file, the weights as they are in it,
/// and those in the order in which the kernels want them. Measured with MobileNetV2, 14 MB: 2.5 times the
/// file, and 1.5 MB that every model costs, which are part of the runner's reserve.
pub(crate) const fn loading(bytes: u64) -> u64 {
    bytes.saturating_mul(3)
}

/// The same once it is loaded, with what the allocator does not give back. Measured: 2.3 times the file.
pub(crate) const fn loaded(bytes: u64) -> u64 {
    bytes.saturating_mul(5) / 2
}

/// Trees of the kernel, where nothing is a model.
const NOT_THE_PODS: [&str; 3] = ["proc", "sys", "dev"];

/// Why a model of the annotation cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("annotation wasmlet.dev/nn-models: {name}={}: {why}", path.display())]
pub struct ModelError {
    name: String,
    path: PathBuf,
    why: Why,
}

#[derive(Debug, thiserror::Error)]
enum Why {
    #[error("the name is empty or longer than {MAX_NAME_BYTES} bytes")]
    Name,
    #[error("another model has the same name")]
    Twice,
    #[error("the path has to begin with /")]
    Relative,
    #[error(
        "there is no such file in the container: check the path, and that the volume is mounted"
    )]
    Missing,
    #[error("the container's user cannot read it: {0}")]
    Open(#[source] io::Error),
    #[error("it leads to {}: models have to be in a folder of the image or of a volume", .0.display())]
    Place(PathBuf),
    #[error("it is not a file; name the .onnx file itself")]
    NoFile,
    #[error("it is no ONNX model: {0}")]
    NotOnnx(&'static str),
    #[error("it has {bytes} bytes, and at most {MAX_MODEL_BYTES} are taken")]
    TooLarge { bytes: u64 },
    #[error(
        "a model of {bytes} bytes takes about {needed} to load, and the guest may have {room}: raise the \
         container's memory limit or wasmlet.dev/memory"
    )]
    Memory { bytes: u64, needed: u64, room: u64 },
    #[error("it changed while it was read")]
    Changed,
}

impl ModelError {
    fn of(model: &NnModel, why: Why) -> Self {
        Self {
            name: model.name.clone(),
            path: model.path.clone(),
            why,
        }
    }
}

/// Checks all models of a pod as far as that goes without loading them.
///
/// `room` is the memory that the guest may have.
///
/// # Errors
/// The first model that cannot be used.
pub fn check(models: &[NnModel], room: Option<u64>) -> Result<(), ModelError> {
    for (index, model) in models.iter().enumerate() {
        let error = |why| ModelError::of(model, why);
        if model.name.is_empty() || model.name.len() > MAX_NAME_BYTES {
            return Err(error(Why::Name));
        }
        if models.iter().take(index).any(|m| m.name == model.name) {
            return Err(error(Why::Twice));
        }
        let (file, bytes) = open(&model.path).map_err(error)?;
        is_onnx(BufReader::new(file)).map_err(error)?;
        let needed = loading(bytes);
        if let Some(room) = room.filter(|room| needed > *room) {
            return Err(error(Why::Memory {
                bytes,
                needed,
                room,
            }));
        }
    }
    Ok(())
}

/// An opened model.
pub(crate) struct Opened<'a> {
    model: &'a NnModel,
    file: File,
    pub(crate) bytes: u64,
}

impl<'a> Opened<'a> {
    pub(crate) fn new(model: &'a NnModel) -> Result<Self, ModelError> {
        let (file, bytes) = open(&model.path).map_err(|why| ModelError::of(model, why))?;
        Ok(Self { model, file, bytes })
    }

    /// Its content.
    pub(crate) fn read(self) -> Result<Vec<u8>, ModelError> {
        let error = |why| ModelError::of(self.model, why);
        // Bounded by MAX_MODEL_BYTES, so it fits.
        let mut content = Vec::with_capacity(usize::try_from(self.bytes).unwrap_or(0));
        self.file
            .take(self.bytes.saturating_add(1))
            .read_to_end(&mut content)
            .map_err(|source| error(Why::Open(source)))?;
        if content.len() as u64 != self.bytes {
            return Err(error(Why::Changed));
        }
        Ok(content)
    }
}

/// Opens a model and gives its size.
fn open(path: &Path) -> Result<(File, u64), Why> {
    if !path.is_absolute() {
        return Err(Why::Relative);
    }
    let real = path.canonicalize().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Why::Missing,
        _ => Why::Open(source),
    })?;
    if real.is_dir() {
        return Err(Why::NoFile);
    }
    let names: Vec<_> = real
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    match names.as_slice() {
        // A file directly below / is in none of the folders that are open to a guest.
        [_, _, ..] if NOT_THE_PODS.iter().all(|tree| names[0] != *tree) => {}
        _ => return Err(Why::Place(real)),
    }
    let file = OpenOptions::new()
        .read(true)
        // A FIFO without a writer would hold up the container for ever.
        .custom_flags(libc::O_NONBLOCK)
        .open(&real)
        .map_err(Why::Open)?;
    let meta = file.metadata().map_err(Why::Open)?;
    if !meta.is_file() {
        return Err(Why::NoFile);
    }
    match meta.len() {
        0 => Err(Why::NotOnnx("it is empty")),
        bytes if bytes > MAX_MODEL_BYTES => Err(Why::TooLarge { bytes }),
        bytes => Ok((file, bytes)),
    }
}

/// Whether the outermost message is ONNX's ModelProto: well-formed protobuf fields to the end of the file,
/// one of them a graph.
///
/// The fields of the outermost message are few, and all but the graph small, so this reads next to
/// nothing of the file. It tells models from what people take for one: weights of another format, a
/// page of HTML, the text that Git LFS leaves where a model should be.
fn is_onnx(mut file: BufReader<File>) -> Result<(), Why> {
    const GRAPH: u64 = 7;
    /// ONNX has a dozen; repeated ones are operator sets, properties and functions.
    const MAX_FIELDS: usize = 100_000;
    const VARINT: u64 = 0;
    const FIXED64: u64 = 1;
    const BYTES: u64 = 2;
    const FIXED32: u64 = 5;
    let broken = Why::NotOnnx("its bytes are not those of a protobuf message");
    let mut has_graph = false;
    let mut left = file.get_ref().metadata().map_err(Why::Open)?.len();
    for _ in 0..MAX_FIELDS {
        if left == 0 {
            break;
        }
        let Some(tag) = varint(&mut file, &mut left)? else {
            return Err(broken);
        };
        let skip = match tag & 7 {
            VARINT => varint(&mut file, &mut left)?.map(|_| 0),
            FIXED64 => Some(8),
            BYTES => varint(&mut file, &mut left)?,
            FIXED32 => Some(4),
            _ => None,
        };
        let Some(skip) = skip.filter(|skip| tag >> 3 != 0 && *skip <= left) else {
            return Err(broken);
        };
        has_graph |= tag == (GRAPH << 3 | BYTES);
        left -= skip;
        // At most the size of a file.
        let distance = i64::try_from(skip).map_err(|_| Why::NotOnnx("it is too long"))?;
        file.seek_relative(distance).map_err(Why::Open)?;
    }
    if left > 0 {
        return Err(Why::NotOnnx("it has more parts than a model has"));
    }
    if !has_graph {
        return Err(Why::NotOnnx("there is no graph in it"));
    }
    Ok(())
}

/// A number of protobuf's; none where there is no valid one.
fn varint(file: &mut BufReader<File>, left: &mut u64) -> Result<Option<u64>, Why> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        if *left == 0 {
            return Ok(None);
        }
        let mut byte = [0_u8];
        match file.read_exact(&mut byte) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read.map_err(Why::Open)?,
        }
        *left -= 1;
        value |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// ir_version = 8, graph of two bytes.
    const MODEL: [u8; 6] = [0x08, 8, 0x3a, 2, 0x12, 0];

    fn model(name: &str, path: &Path) -> NnModel {
        NnModel {
            name: name.to_owned(),
            path: path.to_owned(),
        }
    }

    #[test]
    fn a_model_that_is_there_is_fine() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, link) = (folder.path().join("a.onnx"), folder.path().join("b.onnx"));
        fs::write(&file, MODEL).expect("written");
        symlink("a.onnx", &link).expect("a link");
        let models = [model("a", &file), model("b", &link)];
        check(&models, None).expect("two models");
        check(&models, Some(18)).expect("as much as it takes");
        let opened = Opened::new(&models[1]).expect("opened");
        assert_eq!(opened.bytes, 6);
        assert_eq!(opened.read().expect("read"), MODEL);
    }

    #[test]
    fn what_is_wrong_with_a_model_is_said_with_the_annotation() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, content: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, content).expect("written");
            path
        };
        let good = file("good.onnx", &MODEL);
        let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
        let proc = folder.path().join("proc");
        symlink("/proc/self/mem", &proc).expect("a link");
        let fifo = folder.path().join("fifo");
        let status = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(status.expect("mkfifo is there").success());
        let mut cut = MODEL;
        cut[3] = 3;
        for (path, wanted) in [
            (
                folder.path().join("missing.onnx"),
                "there is no such file in the container: check the path, and that the volume is mounted",
            ),
            (
                good.join("below"),
                "there is no such file in the container: check the path, and that the volume is mounted",
            ),
            (
                PathBuf::from("models/a.onnx"),
                "the path has to begin with /",
            ),
            (
                folder.path().to_owned(),
                "it is not a file; name the .onnx file itself",
            ),
            (fifo, "it is not a file; name the .onnx file itself"),
            (file("empty", b""), "it is no ONNX model: it is empty"),
            (
                file("lfs.onnx", lfs),
                "it is no ONNX model: its bytes are not those of a protobuf message",
            ),
            (
                file("cut.onnx", &cut),
                "it is no ONNX model: its bytes are not those of a protobuf message",
            ),
            (
                file("half.onnx", &[0x08]),
                "it is no ONNX model: its bytes are not those of a protobuf message",
            ),
            (
                file("endless.onnx", &[0xff; 64]),
                "it is no ONNX model: its bytes are not those of a protobuf message",
            ),
            (
                file("other.onnx", &[0x08, 8]),
                "it is no ONNX model: there is no graph in it",
            ),
        ] {
            let error = check(&[model("a", &path)], None).expect_err(wanted);
            let whole = format!(
                "annotation wasmlet.dev/nn-models: a={}: {wanted}",
                path.display()
            );
            assert_eq!(error.to_string(), whole);
        }
        for path in [
            proc.as_path(),
            Path::new("/proc/self/mem"),
            Path::new("/dev/null"),
        ] {
            let error = check(&[model("a", path)], None)
                .expect_err("the kernel's")
                .to_string();
            assert!(
                error.ends_with("models have to be in a folder of the image or of a volume"),
                "{error}"
            );
        }
    }

    #[test]
    fn names_and_sizes_have_bounds() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.onnx");
        fs::write(&path, MODEL).expect("written");
        let said = |models: &[NnModel], room| {
            let error = check(models, room).expect_err("refused").to_string();
            error.rsplit_once(": ").map(|(_, why)| why.to_owned())
        };
        let twice = [model("a", &path), model("a", &path)];
        assert_eq!(
            said(&twice, None).as_deref(),
            Some("another model has the same name")
        );
        for name in [String::new(), "a".repeat(MAX_NAME_BYTES + 1)] {
            assert_eq!(
                said(&[model(&name, &path)], None).as_deref(),
                Some("the name is empty or longer than 256 bytes")
            );
        }
        let error = check(&[model("a", &path)], Some(17)).expect_err("a byte too few");
        assert!(
            error.to_string().ends_with(
                "a model of 6 bytes takes about 18 to load, and the guest may have 17: raise the \
                 container's memory limit or wasmlet.dev/memory"
            ),
            "{error}"
        );
        File::create(&path)
            .and_then(|file| file.set_len(MAX_MODEL_BYTES + 1))
            .expect("a hole");
        assert_eq!(
            said(&[model("a", &path)], None).as_deref(),
            Some("it has 1073741825 bytes, and at most 1073741824 are taken")
        );
    }
}
