//! Runtime options: what the node's administrator says in containerd's configuration.
//!
//! They arrive as `containerd.runc.v1.Options` (`ctr`, Docker), or as `runtimeoptions.v1.Options` with
//! a file (`ConfigPath`) or its content (`ConfigBody`). containerd 1.6 passes the path and silently
//! drops every other key, so a handler's settings belong in that file on every version.

use std::path::PathBuf;

use containerd_shim_protos::protobuf::{
    self, CodedInputStream, Message, well_known_types::any::Any,
};
use containerd_shim_protos::shim::oci;
use serde::Deserialize;

use crate::stdio::Owner;

const RUNC_OPTIONS: &str = "containerd.runc.v1.Options";
const RUNTIME_OPTIONS: &str = "runtimeoptions.v1.Options";
/// The same message before containerd 1.7 moved it.
const RUNTIME_OPTIONS_CRI: &str = "cri.runtimeoptions.v1.Options";

/// A configuration file larger than this is a mistake.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The settings of one runtime handler. Key names are as in containerd's own options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "PascalCase")]
pub struct Options {
    /// Engine for pods that do not name one.
    pub engine: Option<String>,
    /// Use the systemd cgroup driver whatever the form of the cgroup path says.
    pub systemd_cgroup: Option<bool>,
    /// Cgroup for the shim itself.
    pub shim_cgroup: Option<String>,
    /// Program for Linux containers, by name or path; `runc` by default.
    pub binary_name: Option<String>,
    /// Linux containers: `runc create --no-pivot`.
    pub no_pivot_root: bool,
    /// Linux containers: `runc create --no-new-keyring`.
    pub no_new_keyring: bool,
    /// Owner of the container's streams, where a user namespace maps its root to somebody else.
    pub io_uid: u32,
    /// Group of the container's streams.
    pub io_gid: u32,
    /// Folder of compiled modules.
    pub cache_dir: Option<PathBuf>,
    /// Bound on that folder, in bytes.
    pub cache_max_bytes: Option<u64>,
    /// Bounds on one compilation.
    #[serde(flatten)]
    pub compile: CompileBounds,
    /// Ours and containerd's own: read by [`decode`] or of no meaning to a shim.
    type_url: Option<String>,
    config_path: Option<String>,
    runtime_type: Option<String>,
}

/// Bounds on one compilation. They are the node's, so that no tenant can starve it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CompileBounds {
    /// Memory of the compile cgroup, in bytes.
    pub compile_memory_bytes: Option<u64>,
    /// CPUs of the compile cgroup.
    pub compile_cpus: Option<u32>,
    /// Time for one module, in seconds.
    pub compile_timeout_seconds: Option<u64>,
}

impl Options {
    /// Who owns a container's streams.
    pub fn stream_owner(&self) -> Owner {
        Owner {
            uid: self.io_uid,
            gid: self.io_gid,
        }
    }
}

/// Why options cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// A message of another type.
    #[error(
        "runtime options of type {0:?} are not understood; use {RUNC_OPTIONS} or {RUNTIME_OPTIONS}"
    )]
    UnknownType(String),
    /// Not the bytes of that type.
    #[error("runtime options of type {type_url} cannot be decoded")]
    Decode {
        /// The type.
        type_url: String,
        /// What protobuf says.
        #[source]
        source: protobuf::Error,
    },
    /// The file cannot be read.
    #[error("cannot read the runtime options in {}", path.display())]
    Read {
        /// `ConfigPath`.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
    /// An option of runc's shim that ours does not have.
    #[error(
        "the runtime option Root = {0:?} is not supported: the states of containers are in {dir}",
        dir = crate::paths::RUN_DIR
    )]
    Root(String),
    /// Not the TOML of [`Options`].
    #[error("the runtime options in {origin} are not valid")]
    Toml {
        /// The path, or `ConfigBody`.
        origin: String,
        /// What the parser says, with line and column.
        #[source]
        source: Box<toml::de::Error>,
    },
}

fn type_name(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

/// Whether a message is runtime options at all.
pub fn is_options(any: &Any) -> bool {
    matches!(
        type_name(any),
        RUNC_OPTIONS | RUNTIME_OPTIONS | RUNTIME_OPTIONS_CRI
    )
}

/// Decodes the options of a request; none means the defaults.
///
/// # Errors
/// One variant per cause, naming the type or the file.
pub fn decode(any: Option<&Any>) -> Result<Options, OptionsError> {
    let Some(any) = any.filter(|any| !any.type_url.is_empty()) else {
        return Ok(Options::default());
    };
    let decode_error = |source| OptionsError::Decode {
        type_url: any.type_url.clone(),
        source,
    };
    match type_name(any) {
        RUNC_OPTIONS => {
            let options = oci::Options::parse_from_bytes(&any.value).map_err(decode_error)?;
            if let Some(root) = non_empty(options.root) {
                return Err(OptionsError::Root(root));
            }
            Ok(Options {
                // Only "true" is a statement in a proto3 message.
                systemd_cgroup: options.systemd_cgroup.then_some(true),
                shim_cgroup: non_empty(options.shim_cgroup),
                binary_name: non_empty(options.binary_name),
                no_pivot_root: options.no_pivot_root,
                no_new_keyring: options.no_new_keyring,
                io_uid: options.io_uid,
                io_gid: options.io_gid,
                ..Options::default()
            })
        }
        RUNTIME_OPTIONS | RUNTIME_OPTIONS_CRI => {
            let (path, body) = runtime_options(&any.value).map_err(decode_error)?;
            if !body.is_empty() {
                return parse(&String::from_utf8_lossy(&body), "ConfigBody");
            }
            if path.is_empty() {
                return Ok(Options::default());
            }
            parse(&read(PathBuf::from(&path))?, &path)
        }
        other => Err(OptionsError::UnknownType(other.to_owned())),
    }
}

fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn read(path: PathBuf) -> Result<String, OptionsError> {
    let attempt = || -> std::io::Result<String> {
        let size = std::fs::metadata(&path)?.len();
        if size > MAX_FILE_BYTES {
            return Err(std::io::Error::other(format!("{size} bytes are too many")));
        }
        std::fs::read_to_string(&path)
    };
    attempt().map_err(|source| OptionsError::Read { path, source })
}

fn parse(text: &str, origin: &str) -> Result<Options, OptionsError> {
    toml::from_str(text).map_err(|source| OptionsError::Toml {
        origin: origin.to_owned(),
        source: Box::new(source),
    })
}

/// `runtimeoptions.v1.Options`: 1 type_url, 2 config_path (strings), 3 config_body (bytes).
fn runtime_options(bytes: &[u8]) -> Result<(String, Vec<u8>), protobuf::Error> {
    let mut input = CodedInputStream::from_bytes(bytes);
    let (mut path, mut body) = (String::new(), Vec::new());
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        match tag {
            0x0a => drop(input.read_string()?),
            0x12 => path = input.read_string()?,
            0x1a => body = input.read_bytes()?,
            other => protobuf::rt::skip_field_for_tag(other, &mut input)?,
        }
    }
    Ok((path, body))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn runtime_any(path: &str, body: &str) -> Any {
        let mut value = Vec::new();
        for (tag, text) in [(0x12_u8, path), (0x1a, body)] {
            if !text.is_empty() {
                value.push(tag);
                value.push(u8::try_from(text.len()).expect("short"));
                value.extend(text.bytes());
            }
        }
        Any {
            type_url: RUNTIME_OPTIONS.into(),
            value,
            ..Default::default()
        }
    }

    #[test]
    fn no_options_are_the_defaults() {
        assert_eq!(decode(None).expect("fine"), Options::default());
        assert_eq!(
            decode(Some(&Any::default())).expect("fine"),
            Options::default()
        );
    }

    #[test]
    fn runc_options_give_what_both_runtimes_have() {
        let options = oci::Options {
            systemd_cgroup: true,
            binary_name: "crun".into(),
            no_new_keyring: true,
            io_uid: 100_000,
            ..Default::default()
        };
        let any = Any {
            type_url: format!("type.googleapis.com/{RUNC_OPTIONS}"),
            value: options.write_to_bytes().expect("encodes"),
            ..Default::default()
        };
        let decoded = decode(Some(&any)).expect("fine");
        assert_eq!(decoded.systemd_cgroup, Some(true));
        assert_eq!(decoded.binary_name.as_deref(), Some("crun"));
        assert_eq!(
            (decoded.no_pivot_root, decoded.no_new_keyring),
            (false, true)
        );
        assert_eq!((decoded.io_uid, decoded.io_gid), (100_000, 0));
    }

    #[test]
    fn an_option_that_cannot_be_honoured_is_refused() {
        let options = oci::Options {
            root: "/run/other".into(),
            ..Default::default()
        };
        let any = Any {
            type_url: RUNC_OPTIONS.into(),
            value: options.write_to_bytes().expect("encodes"),
            ..Default::default()
        };
        let error = decode(Some(&any)).expect_err("not supported");
        assert!(error.to_string().contains("/run/other"), "{error}");
    }

    #[test]
    fn a_file_is_read_by_its_path() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        writeln!(file, "Engine = \"wasmtime\"\nCompileTimeoutSeconds = 5").expect("written");
        let decoded = decode(Some(&runtime_any(file.path().to_str().expect("utf-8"), "")));
        let decoded = decoded.expect("fine");
        assert_eq!(decoded.engine.as_deref(), Some("wasmtime"));
        assert_eq!(decoded.compile.compile_timeout_seconds, Some(5));
    }

    #[test]
    fn the_body_wins_over_the_path() {
        let decoded = decode(Some(&runtime_any("/nowhere", "SystemdCgroup = true")));
        assert_eq!(decoded.expect("fine").systemd_cgroup, Some(true));
    }

    #[test]
    fn a_misspelt_key_is_named_with_its_place() {
        let error = decode(Some(&runtime_any("", "SystemdCgruop = true"))).expect_err("misspelt");
        let text = crate::chain(&error);
        assert!(
            text.contains("ConfigBody") && text.contains("SystemdCgruop"),
            "{text}"
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = decode(Some(&runtime_any("/no/such/file", ""))).expect_err("missing");
        assert!(error.to_string().contains("/no/such/file"), "{error}");
    }

    #[test]
    fn options_of_another_shim_are_refused() {
        let any = Any {
            type_url: "hcs.Options".into(),
            value: vec![1],
            ..Default::default()
        };
        assert!(
            decode(Some(&any))
                .expect_err("foreign")
                .to_string()
                .contains("hcs.Options")
        );
    }
}
