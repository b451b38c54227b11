//! Form A: entrypoints inside a root file system, honest ones and hostile ones.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;
use proptest::prelude::*;
use wasmlet_image::rootfs::{Entrypoint, Module, ResolveError, resolve};
use wasmlet_image::{Form, Limits};
use wasmlet_protocol::FailureReason;

const MODULE: &[u8] = b"\0asm\x01\0\0\0";
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
const TEXT: &[u8] = b"\n  (module (func (export \"run\")))";
const PROGRAM: &[u8] = b"\x7fELF\x02\x01\x01\x00rest of a program";

/// An image's root, beside a folder that nobody inside may reach.
struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Root {
        let root = Root(tempfile::tempdir().expect("a temporary folder"));
        fs::create_dir(root.path()).expect("the name is free");
        fs::write(root.0.path().join("host.wasm"), MODULE).expect("the name is free");
        root
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("root")
    }

    #[track_caller]
    fn at(&self, path: &str) -> std::path::PathBuf {
        let path = self.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("below the root")).expect("folders");
        path
    }

    #[track_caller]
    fn file(self, path: &str, content: &[u8]) -> Root {
        fs::write(self.at(path), content).expect("it can be written");
        self
    }

    #[track_caller]
    fn link(self, path: &str, target: &str) -> Root {
        symlink(target, self.at(path)).expect("the name is free");
        self
    }

    #[track_caller]
    fn resolve(&self, args0: &str) -> Result<Entrypoint, ResolveError> {
        resolve(
            &self.path(),
            args0,
            Some("/bin:/usr/bin"),
            "/",
            &Limits::default(),
        )
    }

    #[track_caller]
    fn wasm(&self, args0: &str) -> Module {
        match self.resolve(args0) {
            Ok(Entrypoint::Wasm(module)) => module,
            other => panic!("{args0} is no module: {other:?}"),
        }
    }

    #[track_caller]
    fn linux(&self, args0: &str) -> String {
        match self.resolve(args0) {
            Ok(Entrypoint::Linux { path_in_image }) => path_in_image,
            other => panic!("{args0} is no program: {other:?}"),
        }
    }

    #[track_caller]
    fn missing(&self, args0: &str) -> Vec<String> {
        match self.resolve(args0) {
            Ok(Entrypoint::NotFound { tried }) => tried,
            other => panic!("{args0} is there: {other:?}"),
        }
    }

    /// The exact sentence of an entrypoint that cannot be run.
    #[track_caller]
    fn refused(&self, args0: &str, reason: FailureReason) -> String {
        match self.resolve(args0) {
            Err(error) => {
                assert_eq!(error.reason(), reason, "{error}");
                error.to_string()
            }
            other => panic!("{args0} is accepted: {other:?}"),
        }
    }
}

#[track_caller]
fn invalid(root: &Root, args0: &str) -> String {
    root.refused(args0, FailureReason::InvalidArgument)
}

#[test]
fn a_module_is_known_by_its_name_or_by_its_beginning() {
    let root = Root::new()
        .file("/app.wasm", MODULE)
        .file("/app/component.wasm", COMPONENT)
        .file("/app/module.wat", TEXT)
        .file("/app/binary.wat", MODULE)
        .file("/app/no-suffix", MODULE)
        .file("/bin/sh", PROGRAM)
        .file("/bin/script", b"#!/bin/sh\n")
        .file("/bin/empty", b"")
        .file("/bin/short", b"\0as");
    for (path, form) in [
        ("/app.wasm", Form::Binary),
        ("/app/component.wasm", Form::Binary),
        ("/app/module.wat", Form::Text),
        ("/app/binary.wat", Form::Binary),
        ("/app/no-suffix", Form::Binary),
    ] {
        let module = root.wasm(path);
        assert_eq!((module.path_in_image.as_str(), module.form), (path, form));
        assert_eq!(module.func, None);
    }
    for path in ["/bin/sh", "/bin/script", "/bin/empty", "/bin/short"] {
        assert_eq!(root.linux(path), path);
    }
}

#[test]
fn the_file_handed_out_is_read_only_and_at_its_beginning() {
    let root = Root::new().file("/app.wasm", MODULE);
    let mut module = root.wasm("/app.wasm");
    assert_eq!(module.length, MODULE.len() as u64);
    assert_eq!(module.file.stream_position().expect("a file"), 0);
    let mut bytes = Vec::new();
    module.file.read_to_end(&mut bytes).expect("it can be read");
    assert_eq!(bytes, MODULE);
    module.file.seek(SeekFrom::Start(0)).expect("a file");
    std::io::Write::write_all(&mut module.file, b"x").expect_err("it is open for reading");
}

#[test]
fn names_are_looked_up_like_execvp_does() {
    let root = Root::new()
        .file("/usr/bin/tool", PROGRAM)
        .file("/usr/bin/app.wasm", MODULE)
        .file("/work/app.wasm", MODULE)
        .file("/work/local.wasm", MODULE)
        .file("/work/script", b"#!/bin/sh\n");
    fs::create_dir_all(root.at("/bin/tool/x")).expect("a folder in the way");
    let at = |args0: &str, path: Option<&str>, cwd: &str| match resolve(
        &root.path(),
        args0,
        path,
        cwd,
        &Limits::default(),
    ) {
        Ok(Entrypoint::Wasm(module)) => module.path_in_image,
        Ok(Entrypoint::Linux { path_in_image }) => path_in_image,
        Ok(Entrypoint::NotFound { tried }) => format!("not in {}", tried.join(" ")),
        Err(error) => error.to_string(),
    };
    let path = Some("/bin:/usr/bin");
    assert_eq!(
        at("tool", path, "/"),
        "/usr/bin/tool",
        "the folder /bin/tool is passed over"
    );
    assert_eq!(at("tool", None, "/"), "/usr/bin/tool", "the usual PATH");
    assert_eq!(
        at("app.wasm", path, "/work"),
        "/usr/bin/app.wasm",
        "PATH comes first"
    );
    assert_eq!(
        at("local.wasm", path, "/work"),
        "/work/local.wasm",
        "then the working folder"
    );
    assert_eq!(at("local.wasm", path, "work/"), "/work/local.wasm");
    assert_eq!(
        at("script", path, "/work"),
        "not in /bin/script /usr/bin/script"
    );
    assert_eq!(
        at("script", Some("/bin::/usr"), "/work"),
        "/work/script",
        "an empty element"
    );
    assert_eq!(at("script", Some("."), "/work"), "/work/script");
    assert_eq!(at("./local.wasm", path, "/work"), "/work/local.wasm");
    assert_eq!(
        at("../work/local.wasm", path, "/usr"),
        "/usr/../work/local.wasm"
    );
    assert_eq!(
        at("local.wasm", Some(""), ""),
        "not in /local.wasm /local.wasm"
    );
}

#[test]
fn a_function_is_named_after_a_number_sign() {
    let root = Root::new()
        .file("/app/lib.wasm", MODULE)
        .file("/app/odd#name.wasm", MODULE)
        .file("/app/odd", MODULE)
        .file("/usr/bin/lib.wasm", MODULE)
        .file("/bin/sh", PROGRAM);
    let named = |args0: &str| {
        let module = root.wasm(args0);
        (module.path_in_image, module.func)
    };
    let run = Some("run".to_owned());
    assert_eq!(
        named("/app/lib.wasm#run"),
        ("/app/lib.wasm".to_owned(), run.clone())
    );
    assert_eq!(named("lib.wasm#run"), ("/usr/bin/lib.wasm".to_owned(), run));
    assert_eq!(
        named("/app/odd#name.wasm"),
        ("/app/odd#name.wasm".to_owned(), None)
    );
    assert_eq!(
        named("/app/odd#name.wasm#run"),
        ("/app/odd".to_owned(), Some("name.wasm#run".to_owned()))
    );
    let export = "wasi:cli/run@0.2.0#run";
    assert_eq!(
        named(&format!("/app/lib.wasm#{export}")),
        ("/app/lib.wasm".to_owned(), Some(export.to_owned()))
    );
    assert_eq!(named(&format!("lib.wasm#{export}")).0, "/usr/bin/lib.wasm");
    assert_eq!(
        invalid(&root, "/app/lib.wasm#"),
        "the entrypoint \"/app/lib.wasm#\" names no function after '#'"
    );
    assert_eq!(
        root.missing("/bin/sh#run"),
        ["/bin/sh#run"],
        "a program has no functions"
    );
    root.missing("/app/none.wasm#run");
    root.missing("#run");
    root.missing("#");
}

#[test]
fn a_link_leads_nowhere_but_into_the_image() {
    let root = Root::new().file("/real/app.wasm", MODULE);
    let host = root.0.path().join("host.wasm");
    let host = host.to_str().expect("a short path");
    let root = root
        .link("/absolute.wasm", "/real/app.wasm")
        .link("/relative.wasm", "real/app.wasm")
        .link("/many-dots.wasm", "../../../../../../real/app.wasm")
        .link("/out.wasm", host)
        .link("/up.wasm", "../host.wasm")
        .link("/folder", "..")
        .link("/loop.wasm", "loop.wasm")
        .link("/self.wasm", "/proc/self/exe");
    for path in [
        "/absolute.wasm",
        "/relative.wasm",
        "/many-dots.wasm",
        "/folder/real/app.wasm",
    ] {
        assert_eq!(root.wasm(path).path_in_image, path);
    }
    for path in [
        "/out.wasm",
        "/up.wasm",
        "/folder/host.wasm",
        "/../host.wasm",
        "../host.wasm",
        "/real/../../host.wasm",
        "/self.wasm",
        host,
    ] {
        root.missing(path);
    }
    assert_eq!(
        invalid(&root, "/loop.wasm"),
        "the entrypoint /loop.wasm cannot be followed: too many symbolic links"
    );
}

#[test]
fn the_kernels_own_links_are_not_followed() {
    // As if the image brought a file system with such links: the node's own /proc.
    let open = fs::File::open("/dev/null").expect("it is there");
    let link = format!("/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open));
    let found = resolve(Path::new("/proc"), &link, None, "/", &Limits::default());
    assert!(
        matches!(found, Err(ResolveError::Links { .. })),
        "{found:?}"
    );
}

#[test]
fn what_is_no_file_is_refused_and_never_opened() {
    let root = Root::new();
    mkfifo(&root.at("/fifo.wasm"), Mode::from_bits_truncate(0o600)).expect("the name is free");
    mkfifo(&root.at("/bin/fifo"), Mode::from_bits_truncate(0o600)).expect("the name is free");
    fs::create_dir(root.at("/folder.wasm")).expect("the name is free");
    let short = tempfile::tempdir().expect("a temporary folder");
    let _listener = UnixListener::bind(short.path().join("s")).expect("the name is free");
    fs::rename(short.path().join("s"), root.at("/socket.wasm")).expect("the same file system");
    for (path, what) in [
        ("/fifo.wasm", "a FIFO"),
        ("/bin/fifo", "a FIFO"),
        ("/folder.wasm", "a folder"),
        ("/socket.wasm", "a socket"),
        ("/", "a folder"),
    ] {
        assert_eq!(
            invalid(&root, path),
            format!("the entrypoint {path} is {what}, not a file")
        );
    }
    // A folder in the place of a file, and the other way round.
    let root = root.file("/app.wasm", MODULE);
    root.missing("/app.wasm/x.wasm");
    root.missing("/app.wasm/");
    assert!(invalid(&root, "/folder.wasm/").contains("a folder"));

    let device = root.at("/device.wasm");
    match mknod(
        &device,
        SFlag::S_IFCHR,
        Mode::from_bits_truncate(0o600),
        makedev(1, 5),
    ) {
        Ok(()) => assert_eq!(
            invalid(&root, "/device.wasm"),
            "the entrypoint /device.wasm is a device, not a file"
        ),
        Err(errno) => println!("skipped: cannot make a device: {errno}"),
    }
}

#[test]
fn a_name_that_promises_a_module_is_held_to_it() {
    let root = Root::new()
        .file("/text.wasm", b"hello, world")
        .file("/wat.wasm", TEXT)
        .file("/noise.wasm", &[0xff, 0, 1, 2, 3, 4, 5, 6, 7, 8])
        .file("/empty.wasm", b"")
        .file("/empty.wat", b"")
        .file("/three.wasm", b"\0as")
        .file("/seven.wasm", b"\0asm\x01\0\0")
        .file("/seven", b"\0asm\x01\0\0")
        .file("/script.wat", b"#!/bin/sh\n");
    let begins = "is not a WebAssembly module: begins with";
    for (path, problem) in [
        ("/text.wasm", format!("{begins} \"hello, world\"")),
        (
            "/wat.wasm",
            format!("{begins} bytes 0a 20 20 28 6d 6f 64 75"),
        ),
        (
            "/noise.wasm",
            format!("{begins} bytes ff 00 01 02 03 04 05 06"),
        ),
        (
            "/script.wat",
            format!("{begins} bytes 23 21 2f 62 69 6e 2f 73"),
        ),
        (
            "/empty.wasm",
            "is not a WebAssembly module: the file is empty".to_owned(),
        ),
        (
            "/empty.wat",
            "is not a WebAssembly module: the file is empty".to_owned(),
        ),
    ] {
        assert_eq!(
            invalid(&root, path),
            format!("the entrypoint {path} {problem}")
        );
    }
    for (path, length) in [("/three.wasm", 3), ("/seven.wasm", 7), ("/seven", 7)] {
        let problem = "is a truncated WebAssembly module";
        assert_eq!(
            invalid(&root, path),
            format!(
                "the entrypoint {path} {problem}: {length} bytes, of which the header alone has 8"
            )
        );
    }
}

#[test]
fn native_code_is_refused_in_any_wrapping() {
    let mut wasmtime = PROGRAM.to_vec();
    wasmtime[7] = 200;
    let section = |name: &str, id: u8| {
        let mut module = MODULE.to_vec();
        module.extend([1, 4, 1, 0x60, 0, 0]); // a type section before it
        let size = u8::try_from(name.len() + 3).expect("a short name");
        module.extend([id, size, u8::try_from(name.len()).expect("a short name")]);
        module.extend(name.as_bytes());
        module.extend([1, 2]);
        module
    };
    let root = Root::new()
        .file("/elf.wasm", PROGRAM)
        .file("/elf.wat", PROGRAM)
        .file("/app.cwasm", &wasmtime)
        .file("/wasmtime.wasm", &wasmtime)
        .file("/wasmer", b"wasmer-universal\0\0\0\0rest")
        .file("/wasmedge.wasm", &section("wasmedge", 0))
        .file("/bin/universal", &section("wasmedge", 0))
        .file("/other.wasm", &section("name", 0))
        .file("/data.wasm", &section("wasmedge", 11));
    let remedy =
        "precompiled native code is refused, put the .wasm it was compiled from into the image";
    for (path, what) in [
        ("/elf.wasm", "an ELF file"),
        ("/elf.wat", "an ELF file"),
        ("/app.cwasm", "an artifact of wasmtime"),
        ("/wasmtime.wasm", "an artifact of wasmtime"),
        ("/wasmer", "an artifact of Wasmer"),
        (
            "/wasmedge.wasm",
            "a module with native code in its section \"wasmedge\"",
        ),
        (
            "/bin/universal",
            "a module with native code in its section \"wasmedge\"",
        ),
    ] {
        assert_eq!(
            invalid(&root, path),
            format!("the entrypoint {path} is {what}: {remedy}")
        );
    }
    root.wasm("/other.wasm");
    root.wasm("/data.wasm");
}

#[test]
fn a_module_longer_than_the_bound_is_refused() {
    let root = Root::new()
        .file("/app.wasm", MODULE)
        .file("/bin/sh", PROGRAM);
    let limits = Limits {
        max_module_bytes: 7,
    };
    let found = |args0| resolve(&root.path(), args0, None, "/", &limits);
    let error = found("/app.wasm").expect_err("8 bytes are too many");
    assert_eq!(error.reason(), FailureReason::ResourceExhausted);
    assert_eq!(
        error.to_string(),
        "the entrypoint /app.wasm has 8 bytes, more than the 7 bytes that a module may have on this node"
    );
    assert!(
        matches!(found("/bin/sh"), Ok(Entrypoint::Linux { .. })),
        "no bound for programs"
    );
}

#[test]
fn commands_that_cannot_be_paths_are_refused() {
    let root = Root::new();
    assert_eq!(
        invalid(&root, ""),
        "the container has no command: process.args[0] is empty"
    );
    let nul = invalid(&root, "/app\0.wasm");
    assert_eq!(
        nul,
        "the entrypoint \"/app\\0.wasm\" cannot be a path: it has a NUL byte in it"
    );
    let long = invalid(&root, &"/x".repeat(5000));
    assert!(
        long.ends_with("cannot be a path: it is longer than 4095 bytes"),
        "{long}"
    );
    assert!(long.len() < 200, "{long}");
    root.missing(&format!("/{}", "x".repeat(300)));
    let none = resolve(
        &root.path().join("none"),
        "/x",
        None,
        "/",
        &Limits::default(),
    );
    let none = none.expect_err("there is no root file system").to_string();
    assert!(
        none.starts_with("cannot open the container's root file system "),
        "{none}"
    );
}

proptest! {
    #[test]
    fn any_file_with_any_name_is_told_apart_without_a_panic(
        content: Vec<u8>,
        magic: bool,
        name in "[a-z#./ ]{1,12}(\\.wasm|\\.wat|)",
    ) {
        let mut bytes = if magic { MODULE.to_vec() } else { Vec::new() };
        bytes.extend(content);
        let root = Root::new().file("/x", &bytes).file("/x.wasm", &bytes).file("/x.wat", &bytes);
        for path in ["/x", "/x.wasm", "/x.wat"] {
            if let Ok(Entrypoint::Wasm(module)) = root.resolve(path) {
                prop_assert!(module.form == Form::Text || bytes.starts_with(b"\0asm"));
            }
        }
        if let Ok(Entrypoint::Wasm(module)) = root.resolve(&name) {
            prop_assert!(module.path_in_image.starts_with('/'));
        }
    }
}

#[test]
fn a_search_path_of_any_length_costs_little() {
    let root = Root::new().file("/bin/tool", PROGRAM);
    let resolve =
        |path: &str, cwd: &str| resolve(&root.path(), "tool", Some(path), cwd, &Limits::default());
    let long = format!("{}/bin", ":".repeat(1 << 20));
    for (path, cwd) in [(long.as_str(), "/"), ("/bin", "/a".repeat(4096).as_str())] {
        let error = resolve(path, cwd).expect_err("too long");
        assert_eq!(error.reason(), FailureReason::InvalidArgument);
        assert!(error.to_string().contains("too long"), "{error}");
    }
    let many = ":".repeat(4000);
    let Ok(Entrypoint::NotFound { tried }) = resolve(&many, "/") else {
        panic!("found in no folder")
    };
    assert!(tried.len() <= 64, "{} places were looked at", tried.len());
}
