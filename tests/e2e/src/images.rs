//! The images under test: built here, pushed once each, when a test first wants them.
//!
//! A tag is the content's own digest, so a node that has the image from an earlier run has the right one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use sha2::{Digest as _, Sha256};
use wasmlet_oci_image::{Archive, Image, Item, Layer};
use wasmlet_test_guests::{Guests, Target};

use crate::client::block_on;
use crate::registry::Registry;

/// Hexadecimal digits of the content's digest in a tag.
const TAG_DIGITS: usize = 12;

/// An image in the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRef {
    /// Name without tag and digest.
    pub name: String,
    /// Tag.
    pub tag: String,
    /// Digest of its manifest or index.
    pub digest: String,
}

impl ImageRef {
    /// `NAME:TAG`.
    pub fn by_tag(&self) -> String {
        format!("{}:{}", self.name, self.tag)
    }

    /// `NAME@DIGEST`.
    pub fn by_digest(&self) -> String {
        format!("{}@{}", self.name, self.digest)
    }
}

type Pushed = Arc<OnceLock<Result<ImageRef, String>>>;

/// What this run has pushed.
#[derive(Debug)]
pub(crate) struct Images {
    registry: Registry,
    pushed: Mutex<BTreeMap<String, Pushed>>,
}

impl Images {
    pub(crate) fn new(registry: Registry) -> Self {
        Self {
            registry,
            pushed: Mutex::default(),
        }
    }

    /// The image under a key of this run; built and pushed by whoever asks first.
    #[track_caller]
    fn once(&self, key: &str, make: impl FnOnce() -> Result<ImageRef, String>) -> ImageRef {
        let cell = {
            let mut pushed = self.pushed.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(pushed.entry(key.to_owned()).or_default())
        };
        match cell.get_or_init(make) {
            Ok(image) => image.clone(),
            Err(error) => panic!("image {key}: {error}"),
        }
    }

    /// An image of anything.
    #[track_caller]
    pub(crate) fn of(&self, name: &str, items: Vec<Item>) -> ImageRef {
        self.once(name, || self.build(name, items))
    }

    fn build(&self, name: &str, items: Vec<Item>) -> Result<ImageRef, String> {
        let built = Archive::new()
            .index(name, items)
            .build()
            .map_err(|error| error.to_string())?;
        self.push(name, &built.tar)
    }

    fn push(&self, name: &str, tar: &[u8]) -> Result<ImageRef, String> {
        let mut tag = String::new();
        for byte in Sha256::digest(tar).iter().take(TAG_DIGITS / 2) {
            // Writing to a string cannot fail.
            let _ = write!(tag, "{byte:02x}");
        }
        let pushed = block_on(self.registry.push(name, &tag, tar));
        let digest = pushed.map_err(|error| error.to_string())?;
        Ok(ImageRef {
            name: self.registry.image(name),
            tag,
            digest,
        })
    }

    /// The image of a guest, which is its entrypoint.
    #[track_caller]
    pub(crate) fn guest(&self, guest: &str, target: Target) -> ImageRef {
        let (path, suffix) = match target {
            Target::Linux => ("guest", "linux"),
            Target::Wasm => ("guest.wasm", "wasm"),
            Target::Component => ("guest.wasm", "component"),
        };
        let name = format!("e2e/{}-{suffix}", guest.replace('_', "-"));
        self.once(&name, || {
            let bytes = Guests::shared()
                .bytes(guest, target)
                .map_err(|error| error.to_string())?;
            self.build(&name, vec![program(path, bytes).into()])
        })
    }

    /// The image of a module in WebAssembly text.
    #[track_caller]
    pub(crate) fn wat(&self, name: &str, text: &str) -> ImageRef {
        let name = format!("e2e/wat-{name}");
        self.once(&name, || {
            let bytes = wat::parse_str(text).map_err(|error| error.to_string())?;
            self.build(&name, vec![program("guest.wasm", bytes).into()])
        })
    }

    /// The image of an archive that something else made.
    #[track_caller]
    pub(crate) fn archive(&self, name: &str, path: &Path) -> ImageRef {
        self.once(name, || {
            let tar = std::fs::read(path)
                .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
            self.push(name, &tar)
        })
    }

    /// busybox: whoever made the cluster has pushed it, or this machine has the program.
    #[track_caller]
    pub(crate) fn busybox(&self) -> ImageRef {
        self.once("busybox", || {
            let there =
                block_on(self.registry.has("busybox", "1")).map_err(|error| error.to_string())?;
            if there {
                let name = self.registry.image("busybox");
                return Ok(ImageRef {
                    name,
                    tag: "1".to_owned(),
                    digest: String::new(),
                });
            }
            self.build("e2e/busybox", vec![own_busybox()?.into()])
        })
    }
}

/// An image with one program and the folders that any image has.
fn program(path: &str, bytes: Vec<u8>) -> Image {
    let layer = Layer::new()
        .folder("etc", 0o755)
        .folder("tmp", 0o1777)
        .folder("data", 0o755)
        .file(path, 0o755, bytes);
    Image::new().entrypoint([format!("/{path}")]).layer(layer)
}

/// An image of this machine's busybox, which must be a static one.
fn own_busybox() -> Result<Image, String> {
    const REMEDY: &str = "the registry has no busybox:1, and this machine no static busybox to make it of; \
                          install busybox-static";
    let path = Path::new("/bin/busybox");
    let bytes = std::fs::read(path).map_err(|_| REMEDY.to_owned())?;
    let applets = Command::new(path)
        .arg("--list")
        .output()
        .map_err(|_| REMEDY.to_owned())?;
    let mut layer = Layer::new()
        .folder("bin", 0o755)
        .folder("etc", 0o755)
        .folder("tmp", 0o1777)
        .file("bin/busybox", 0o755, bytes);
    for applet in String::from_utf8_lossy(&applets.stdout).lines() {
        if applet != "busybox" {
            layer = layer.symlink(&format!("bin/{applet}"), "busybox");
        }
    }
    Ok(Image::new().cmd(["sh"]).env("PATH=/bin").layer(layer))
}
