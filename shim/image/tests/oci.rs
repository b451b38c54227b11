//! Form B: which layer of which manifest is the module.

use proptest::prelude::*;
use wasmlet_image::Limits;
use wasmlet_image::oci::{
    Compression, Descriptor, Document, Manifest, OciError, Platform, WASM_LAYER_TYPES, candidates,
    parse, wasm_layer,
};
use wasmlet_protocol::FailureReason;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const TAR: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

fn digest(digit: char) -> String {
    format!("sha256:{}", digit.to_string().repeat(64))
}

fn descriptor(media_type: &str, digit: char) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: digest(digit),
        size: 10,
        platform: None,
    }
}

fn manifest(layers: &[&str]) -> Manifest {
    let layers = layers
        .iter()
        .map(|media_type| descriptor(media_type, 'a'))
        .collect();
    Manifest {
        config: None,
        layers,
    }
}

#[track_caller]
fn layer_error(manifest: &Manifest, reason: FailureReason) -> String {
    let limits = Limits {
        max_module_bytes: 10,
    };
    let error = wasm_layer(manifest, &limits).expect_err("it has no module that can be used");
    assert_eq!(error.reason(), reason, "{error}");
    error.to_string()
}

#[test]
fn documents_are_what_they_hold() {
    let entry = format!(
        r#"{{"mediaType":"{MANIFEST}","digest":"{}","size":7}}"#,
        digest('b')
    );
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{entry}],"annotations":{{"a":"b"}}}}"#);
    let Ok(Document::Index(entries)) = parse(index.as_bytes(), INDEX) else {
        panic!("it is an index");
    };
    assert_eq!(
        entries,
        [Descriptor {
            size: 7,
            ..descriptor(MANIFEST, 'b')
        }]
    );

    let text = format!(r#"{{"config":{entry},"layers":[{entry},{entry}]}}"#);
    let Ok(Document::Manifest(manifest)) = parse(text.as_bytes(), "") else {
        panic!("it is a manifest");
    };
    assert_eq!(manifest.layers.len(), 2);
    assert_eq!(manifest.config.map(|config| config.size), Some(7));
}

#[test]
fn a_document_that_two_readers_could_read_differently_is_refused() {
    let both = br#"{"manifests":[],"layers":[]}"#;
    assert_eq!(
        parse(both, INDEX).expect_err("both").to_string(),
        "a document with both `manifests` and `layers` is neither an index nor a manifest"
    );
    assert!(matches!(parse(b"{}", INDEX), Err(OciError::Ambiguous(_))));
    for (text, announced) in [
        (
            format!(r#"{{"mediaType":"{INDEX}","manifests":[]}}"#),
            MANIFEST,
        ),
        (format!(r#"{{"mediaType":"{INDEX}","layers":[]}}"#), INDEX),
        (r#"{"manifests":[]}"#.to_owned(), MANIFEST),
        (r#"{"layers":[]}"#.to_owned(), INDEX),
        (r#"{"layers":[]}"#.to_owned(), "text/html"),
    ] {
        let refused = parse(text.as_bytes(), announced);
        assert!(
            matches!(refused, Err(OciError::OtherType { .. })),
            "{text} as {announced}"
        );
    }
}

#[test]
fn long_and_deep_documents_are_refused() {
    let long = vec![b' '; (4 << 20) + 1];
    assert!(matches!(parse(&long, ""), Err(OciError::TooLong { .. })));
    let entry = format!(r#"{{"digest":"{}","size":1}}"#, digest('c'));
    let many = format!(r#"{{"layers":[{}]}}"#, vec![entry; 1001].join(","));
    assert_eq!(
        parse(many.as_bytes(), "")
            .expect_err("too many")
            .to_string(),
        "1001 layers are more than the 1000 that are looked at"
    );
    // What is not looked at may be as deep as it likes; what is may not.
    let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
    let ignored = format!(r#"{{"layers":[],"x":{open}{close}}}"#);
    parse(ignored.as_bytes(), "").expect("depth costs nothing");
    let deep = format!(r#"{{"layers":{open}{close}}}"#);
    assert!(matches!(parse(deep.as_bytes(), ""), Err(OciError::Json(_))));
    for text in [
        "",
        "null",
        "[]",
        "{\"layers\":{}}",
        r#"{"layers":[{"digest":"x","size":-1}]}"#,
    ] {
        parse(text.as_bytes(), "").expect_err(text);
    }
}

#[test]
fn webassembly_comes_first_then_this_node_then_who_says_nothing() {
    let host = Platform {
        os: "linux".to_owned(),
        architecture: "amd64".to_owned(),
    };
    let entry = |platform: Option<(&str, &str)>, digit| {
        let platform = platform.map(|(os, architecture)| Platform {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
        });
        Descriptor {
            platform,
            ..descriptor(MANIFEST, digit)
        }
    };
    let order = |index: &[Descriptor]| {
        let best = candidates(index, &host).map(|found| {
            found
                .iter()
                .map(|entry| entry.digest.chars().last().expect("hex"))
                .collect::<String>()
        });
        best.map_err(|error| error.to_string())
    };
    let index = [
        entry(None, '0'),
        entry(Some(("linux", "arm64")), '1'),
        entry(Some(("linux", "amd64")), '2'),
        entry(Some(("linux", "wasm")), '3'),
        entry(Some(("wasip2", "wasm")), '4'),
        entry(Some(("wasip1", "wasm32")), '5'),
        entry(Some(("unknown", "unknown")), '6'),
        entry(Some(("wasi", "")), '7'),
    ];
    assert_eq!(order(&index), Ok("453720".to_owned()));
    assert_eq!(order(&index[..3]), Ok("20".to_owned()));
    assert_eq!(
        order(&[entry(Some(("linux", "arm64")), '1'), entry(Some(("unknown", "unknown")), '6')]),
        Err("the index has no manifest for WebAssembly or linux/amd64, only for: linux/arm64, unknown/unknown".to_owned())
    );
    assert_eq!(
        order(&[]),
        Err("the index has no manifest for WebAssembly or linux/amd64, only for: none".to_owned())
    );
}

#[test]
fn each_layer_type_is_a_module_compressed_or_not() {
    for media_type in WASM_LAYER_TYPES {
        for (suffix, compression) in [
            ("", Compression::None),
            ("+gzip", Compression::Gzip),
            ("+zstd", Compression::Zstd),
        ] {
            let media_type = format!("{media_type}{suffix}");
            let manifest = manifest(&[TAR, &media_type]);
            let layer = wasm_layer(&manifest, &Limits::default()).expect("a module");
            assert_eq!(layer.compression, compression);
            assert_eq!(layer.descriptor.media_type, media_type);
            assert_eq!(format!("sha256:{}", layer.digest), digest('a'));
        }
    }
}

#[test]
fn manifests_without_exactly_one_usable_module_are_refused() {
    let wasm = WASM_LAYER_TYPES[0];
    let (invalid, unsupported) = (FailureReason::InvalidArgument, FailureReason::Unsupported);
    assert_eq!(
        layer_error(&manifest(&[TAR, "application/wasm+brotli"]), invalid),
        format!(
            "the image is no WebAssembly artifact: its layers are {TAR}, application/wasm+brotli"
        )
    );
    assert_eq!(
        layer_error(&manifest(&[]), invalid),
        "the image is no WebAssembly artifact: its layers are none"
    );
    assert_eq!(
        layer_error(
            &manifest(&[wasm, TAR, WASM_LAYER_TYPES[1], WASM_LAYER_TYPES[2]]),
            unsupported
        ),
        "the image has 3 WebAssembly layers: exactly one is supported, link the modules into one"
    );
    let with = |change: fn(&mut Descriptor)| {
        let mut manifest = manifest(&[wasm]);
        change(&mut manifest.layers[0]);
        manifest
    };
    assert!(layer_error(&with(|layer| layer.size = 0), invalid).contains("zero bytes"));
    let large = layer_error(
        &with(|layer| layer.size = 11),
        FailureReason::ResourceExhausted,
    );
    assert!(
        large.contains("11 bytes, more than the 10 bytes"),
        "{large}"
    );
    for digest in [
        "",
        "sha256:",
        "sha512:abcd",
        "sha256:../../etc/passwd",
        &digest('A'),
    ] {
        let mut manifest = manifest(&[wasm]);
        digest.clone_into(&mut manifest.layers[0].digest);
        let error = layer_error(&manifest, unsupported);
        assert!(error.contains("is not supported: only sha256"), "{error}");
    }
}

#[test]
fn hostile_texts_do_not_reach_a_terminal() {
    let nasty = format!("\u{1b}[2J{}", "x".repeat(10_000));
    let error = layer_error(&manifest(&[&nasty]), FailureReason::InvalidArgument);
    assert!(error.len() < 400 && !error.contains('\u{1b}'), "{error}");
}

/// JSON that looks like a document, so that more than the parser's first line is reached.
fn documents() -> impl Strategy<Value = String> {
    let media_type = prop_oneof![
        Just(MANIFEST),
        Just(INDEX),
        Just("application/wasm"),
        Just("")
    ];
    let platform = prop_oneof![
        Just("null".to_owned()),
        "[a-z0-9]{0,6}".prop_map(|os| format!(r#"{{"os":"{os}","architecture":"wasm"}}"#)),
    ];
    let entry = (media_type.clone(), "[a-f0-9:sh]{0,72}", any::<u64>(), platform).prop_map(
        |(media_type, digest, size, platform)| {
            format!(
                r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size},"platform":{platform}}}"#
            )
        },
    );
    let field = prop_oneof![Just("manifests"), Just("layers"), Just("other")];
    (field, proptest::collection::vec(entry, 0..5), media_type).prop_map(
        |(field, entries, media_type)| {
            format!(
                r#"{{"mediaType":"{media_type}","{field}":[{}]}}"#,
                entries.join(",")
            )
        },
    )
}

fn walk(bytes: &[u8], announced: &str) {
    match parse(bytes, announced) {
        Ok(Document::Index(index)) => {
            if let Ok(found) = candidates(&index, &Platform::host()) {
                assert!(!found.is_empty());
            }
        }
        Ok(Document::Manifest(manifest)) => {
            if let Ok(layer) = wasm_layer(&manifest, &Limits::default()) {
                assert!(layer.descriptor.size <= Limits::default().max_module_bytes);
            }
        }
        Err(error) => assert!(error.to_string().len() < 4000, "{error}"),
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, announced in ".{0,40}") {
        walk(&bytes, &announced);
    }

    #[test]
    fn any_document_is_read_without_a_panic(text in documents(), announced in "(|.{1,9})") {
        walk(text.as_bytes(), &announced);
        walk(text.as_bytes(), MANIFEST);
        walk(text.as_bytes(), INDEX);
    }
}
