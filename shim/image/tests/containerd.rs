//! Form B against a real containerd. Needs root and the programs containerd, ctr and setpriv.

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use support::{NAMESPACE, Node};
use wasmlet_cache::Digest;
use wasmlet_image::content::{ContentError, resolve_image};
use wasmlet_image::oci::WASM_LAYER_TYPES;
use wasmlet_image::{Limits, Location};
use wasmlet_oci_image::{
    Archive, Artifact, Blob, Image, Item, Layer, Platform, RawManifest, media_type,
};
use wasmlet_protocol::FailureReason;

const WASM: &str = "application/wasm";

/// A module of about this many bytes, all of them in a data-like custom section.
fn module(length: usize) -> Vec<u8> {
    let mut bytes = b"\0asm\x01\0\0\0".to_vec();
    let mut state = 1_u32;
    bytes.extend([0, 0xff, 0xff, 0xff, 0x7f, 1, b'x']);
    bytes.extend((0..length).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    }));
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("memory")
}

#[track_caller]
fn content(file: &File) -> Vec<u8> {
    let length = file.metadata().expect("an open file").len();
    let mut bytes = vec![0; usize::try_from(length).expect("it fits")];
    file.read_exact_at(&mut bytes, 0).expect("it can be read");
    bytes
}

/// Imports an artifact, makes a container of it, and tells what is wrong with it.
#[track_caller]
fn refused(node: &Node, id: &str, item: impl Into<Item>, reason: FailureReason) -> String {
    let name = format!("docker.io/library/{id}:latest");
    node.import(&Archive::new().image(&name, item));
    node.create(id, &name);
    let limits = Limits {
        max_module_bytes: 1 << 20,
    };
    let error = node
        .resolve_within(id, &limits)
        .expect_err("it cannot be run");
    assert_eq!(error.reason(), reason, "{error}");
    let text = error.to_string();
    assert!(text.starts_with(&name), "{text}");
    text
}

#[test]
fn the_module_of_each_kind_of_artifact_is_fetched_once() {
    let Some(node) = Node::start() else { return };
    // More than one piece of containerd's stream.
    let bytes = module(3 << 20);
    for (number, layer_type) in WASM_LAYER_TYPES.into_iter().enumerate() {
        for (suffix, packed) in [
            ("", bytes.clone()),
            ("+gzip", gzip(&bytes)),
            ("+zstd", zstd(&bytes)),
        ] {
            let id = format!("c{number}{}", suffix.trim_start_matches('+'));
            let image = format!("example.com/{id}:1");
            let media_type = format!("{layer_type}{suffix}");
            node.import(&Archive::new().image(&image, Artifact::new(&media_type, packed)));
            node.create(&id, &image);
            let layer = node.resolve(&id).expect("a module");
            assert_eq!(layer.media_type, media_type);
            assert_eq!(layer.image, image);
            assert_eq!(
                (layer.digest, layer.size),
                (Digest::of(&bytes), bytes.len() as u64)
            );
            assert_eq!(
                layer.location,
                Location::Stored(node.modules().path(&layer.digest))
            );
            let blob = node
                .modules()
                .open(&layer.digest)
                .expect("works")
                .expect("it is there");
            assert_eq!(content(&blob.file), bytes);
        }
    }
    assert_eq!(node.stored(), 1, "the same module, however it is packed");
    let inode = |digest| {
        fs::metadata(node.modules().path(digest))
            .expect("it is there")
            .ino()
    };
    let digest = Digest::of(&bytes);
    let before = inode(&digest);
    let again = node.resolve("c0").expect("a module");
    assert_eq!(inode(&again.digest), before);

    // A spoiled module is fetched again.
    let path = node.modules().path(&digest);
    fs::remove_file(&path).expect("it is ours");
    fs::write(&path, b"spoiled").expect("it is ours");
    node.resolve("c0").expect("a module");
    assert_eq!(fs::read(&path).expect("it is ours"), bytes);
    assert_eq!(node.cache.counters().expect("counters").corrupt, 1);
}

#[test]
fn an_index_gives_the_manifest_for_webassembly() {
    let Some(node) = Node::start() else { return };
    let bytes = module(100);
    let native = Image::new().layer(Layer::new().file("bin/sh", 0o755, b"\x7fELF".to_vec()));
    let items: [Item; 2] = [native.into(), Artifact::new(WASM, bytes.clone()).into()];
    node.import(&Archive::new().index("example.com/both:1", items));
    node.create("both", "example.com/both:1");
    assert_eq!(
        node.resolve("both").expect("a module").digest,
        Digest::of(&bytes)
    );

    let artifact = |platform| Artifact::new(WASM, module(7)).platform(platform);
    let items = [
        artifact(Platform::new("linux", "s390x")),
        artifact(Platform::new("linux", "mips")),
    ];
    node.import(&Archive::new().index("example.com/other:1", items));
    node.create("other", "example.com/other:1");
    let error = node.resolve("other").expect_err("nothing for this node");
    assert_eq!(error.reason(), FailureReason::InvalidArgument);
    assert!(
        error
            .to_string()
            .contains("only for: linux/s390x, linux/mips"),
        "{error}"
    );
}

#[test]
fn an_ordinary_image_is_no_artifact() {
    let Some(node) = Node::start() else { return };
    let image = Image::new().layer(Layer::new().file("app.wasm", 0o644, module(7)));
    node.import(&Archive::new().image("example.com/ordinary:1", image));
    node.create("ordinary", "example.com/ordinary:1");
    let error = node
        .resolve("ordinary")
        .expect_err("its module is in a file");
    assert!(
        matches!(error, ContentError::NotAnArtifact { .. }),
        "{error}"
    );
    assert_eq!(
        error.to_string(),
        format!(
            "example.com/ordinary:1: the image is no WebAssembly artifact: its layers are {}",
            media_type::LAYER_GZIP
        )
    );
}

#[test]
fn what_containerd_does_not_have_is_named() {
    let Some(node) = Node::start() else { return };
    let missing = |id: &str| {
        let error = node.resolve(id).expect_err("something is missing");
        (error.reason(), error.to_string())
    };
    let (reason, text) = missing("none");
    assert_eq!(reason, FailureReason::NotFound);
    assert!(
        text.starts_with("containerd cannot find the container none: "),
        "{text}"
    );
    node.create("imageless", "");
    assert!(
        missing("imageless")
            .1
            .contains("was created without an image")
    );
    node.create("gone", "example.com/gone:1");
    let (reason, text) = missing("gone");
    assert_eq!(reason, FailureReason::NotFound);
    assert!(
        text.starts_with("containerd cannot find the image example.com/gone:1: "),
        "{text}"
    );

    let artifact = Artifact::new(WASM, module(5000));
    node.import(&Archive::new().image("example.com/app:1", artifact));
    node.create("app", "example.com/app:1");
    let digest = format!("sha256:{}", Digest::of(&module(5000)));
    // Damaged first, then missing.
    let blob = node.blob(&digest);
    let file = File::options().write(true).open(&blob).expect("the blob");
    file.write_at(b"!", 4000).expect("it is ours");
    let (reason, text) = missing("app");
    assert_eq!(reason, FailureReason::Internal);
    assert!(
        text.contains(&format!(
            "the layer {digest} is damaged in containerd's content store"
        )),
        "{text}"
    );
    file.set_len(4000).expect("it is ours");
    let (_, text) = missing("app");
    assert!(
        text.contains("it has not the 5015 bytes it should have"),
        "{text}"
    );
    assert_eq!(node.stored(), 0);
    node.ctr(&["content", "rm", &digest]);
    let (reason, text) = missing("app");
    assert_eq!(reason, FailureReason::NotFound);
    assert!(
        text.contains(&format!(
            "the layer {digest} is not in containerd's content store"
        )),
        "{text}"
    );

    let elsewhere = node.temp.path().join("none.sock");
    let limits = Limits::default();
    let error = resolve_image(&elsewhere, NAMESPACE, "app", node.modules(), None, &limits)
        .expect_err("nobody listens there");
    assert!(error.to_string().contains("none.sock: "), "{error}");
    assert!(
        error.to_string().contains("No such file or directory"),
        "{error}"
    );
    let error = resolve_image(
        &node.address(),
        "a\nb",
        "app",
        node.modules(),
        None,
        &limits,
    )
    .expect_err("no namespace");
    assert_eq!(error.to_string(), "\"a\\nb\" is not a containerd namespace");
}

#[test]
fn layers_that_cannot_be_run_are_refused_and_nothing_is_kept() {
    let Some(node) = Node::start() else { return };
    let invalid = FailureReason::InvalidArgument;
    let elf = Artifact::new(WASM, b"\x7fELF\x02\x01\x01\x00 and so on".to_vec());
    assert!(
        refused(&node, "elf", elf, invalid)
            .contains("is an ELF file: precompiled native code is refused")
    );
    let text = Artifact::new(WASM, b"(module)".to_vec());
    assert!(refused(&node, "text", text, invalid).contains("begins with \"(module)\""));
    let short = Artifact::new(WASM, b"\0asm".to_vec());
    assert!(refused(&node, "short", short, invalid).contains("truncated"));
    let two = Artifact::new(WASM, module(3)).layer(Blob::new(WASM, module(4)));
    assert!(
        refused(&node, "two", two, FailureReason::Unsupported).contains("2 WebAssembly layers")
    );

    // A manifest that lies about the layer's length.
    let layer = Blob::new(WASM, module(100));
    let document = format!(
        r#"{{"schemaVersion":2,"layers":[{{"mediaType":"{WASM}","digest":"{}","size":8}}]}}"#,
        layer.digest()
    );
    let lying = Item::Raw(RawManifest {
        manifest: Blob::new(media_type::MANIFEST, document.into_bytes()),
        blobs: vec![layer],
        platform: None,
    });
    let text = refused(&node, "lying", lying, invalid);
    assert!(
        text.contains("has 115 bytes, the manifest says 8"),
        "{text}"
    );

    let exhausted = FailureReason::ResourceExhausted;
    let large = Artifact::new(WASM, module(2 << 20));
    assert!(refused(&node, "large", large, exhausted).contains("more than the 1048576 bytes"));
    // A few kilobytes that become 64 MiB.
    let zeros = vec![0; 64 << 20];
    for (id, suffix, packed) in [
        ("gzip", "+gzip", gzip(&zeros)),
        ("zstd", "+zstd", zstd(&zeros)),
    ] {
        assert!(packed.len() < 1 << 20);
        let bomb = Artifact::new(&format!("{WASM}{suffix}"), packed);
        let text = refused(&node, &format!("{id}-bomb"), bomb, exhausted);
        assert!(text.contains("more than the 1048576 bytes"), "{text}");
    }
    let good = module(100_000);
    for (id, suffix, packed) in [
        ("gzip", "+gzip", gzip(&good)),
        ("zstd", "+zstd", zstd(&good)),
    ] {
        let media_type = format!("{WASM}{suffix}");
        let cut = Artifact::new(&media_type, packed[..packed.len() / 2].to_vec());
        let text = refused(&node, &format!("{id}-cut"), cut, invalid);
        assert!(text.contains("cannot be decompressed"), "{text}");
        let noise = Artifact::new(&media_type, b"not compressed at all".to_vec());
        let text = refused(&node, &format!("{id}-noise"), noise, invalid);
        assert!(text.contains("cannot be decompressed"), "{text}");
    }
    assert_eq!(node.stored(), 0);
}

/// A file system that is unmounted with the test.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn small(path: &Path) -> Mounted {
        fs::create_dir(path).expect("the name is free");
        let settings = Some("size=256k,mode=0700");
        mount(
            Some("tmpfs"),
            path,
            Some("tmpfs"),
            MsFlags::empty(),
            settings,
        )
        .expect("root may");
        Mounted(path.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).expect("what was mounted can be unmounted");
    }
}

#[test]
fn a_full_disk_is_named_or_the_module_goes_to_the_spare_file() {
    let mut mounted = None;
    let prepare = |temp: &Path| mounted = Some(Mounted::small(&temp.join("cache")));
    let Some(node) = Node::start_with(prepare) else {
        return;
    };
    let _mounted = mounted; // unmounted before the folder is removed
    let bytes = module(1 << 20);
    for (id, media_type, packed) in [
        ("plain", WASM.to_owned(), bytes.clone()),
        ("packed", format!("{WASM}+zstd"), zstd(&bytes)),
    ] {
        let image = format!("example.com/{id}:1");
        node.import(&Archive::new().image(&image, Artifact::new(&media_type, packed)));
        node.create(id, &image);
        let error = node.resolve(id).expect_err("the disk is too small");
        assert_eq!(error.reason(), FailureReason::ResourceExhausted, "{error}");
        let folder = node.temp.path().join("cache/modules");
        let expected = format!(
            "{image}: cannot write the module into {}: No space left on device (os error 28)",
            folder.display()
        );
        assert_eq!(error.to_string(), expected);

        let spare = node.cache.stage_in_memory().expect("memory");
        let layer = resolve_image(
            &node.address(),
            NAMESPACE,
            id,
            node.modules(),
            Some(spare.file()),
            &Limits::default(),
        )
        .expect("memory is not full");
        assert_eq!(layer.location, Location::Spare);
        assert_eq!(
            (layer.digest, layer.size),
            (Digest::of(&bytes), bytes.len() as u64)
        );
        let file = spare.into_uncached().expect("it is complete");
        assert_eq!(content(&file), bytes);
    }
    assert_eq!(node.stored(), 0);
}
