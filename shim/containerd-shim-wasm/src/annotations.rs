//! Annotations: what the pod's owner says.
//!
//! `wasmlet.dev/<key>` holds for every wasm container of a pod, `wasmlet.dev/<key>.<container>` for
//! one. Anything under the prefix that is not understood fails the Create, so that a misspelt limit
//! is never a limit that is not there. Pure: text in, [`Settings`] or an error out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use wasmlet_protocol::NnModel;

/// Prefix of every annotation of ours.
pub const PREFIX: &str = "wasmlet.dev/";

const KEYS: [&str; 8] = [
    "engine",
    "fuel",
    "listen",
    "max-stack",
    "memory",
    "nn-models",
    "profile",
    "timeout",
];
/// The profile of a pod that names none.
pub const DEFAULT_PROFILE: &str = "default";
const PROFILES: [&str; 3] = ["default", "deterministic", "hardened"];

/// crun's way to ask for an engine.
const CRUN_HANDLER: &str = "run.oci.handler";
/// crun's way to ask for WebAssembly, whatever the engine.
const CRUN_VARIANT: &str = "module.wasm.image/variant";

/// Most models for wasi-nn that a container may name, and the longest name of one in bytes.
const MAX_NN_MODELS: usize = 16;
const MAX_NN_NAME: usize = 256;

/// The port of a listening guest that names none.
pub const DEFAULT_PORT: u16 = 8080;

/// The settings of one wasm container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Engine by name; `None` is `auto`.
    pub engine: Option<String>,
    /// Profile by name; `None` is `default`.
    pub profile: Option<String>,
    /// Instructions.
    pub fuel: Option<u64>,
    /// Wall-clock limit.
    pub timeout: Option<Duration>,
    /// Bytes of stack.
    pub max_stack: Option<u64>,
    /// Bytes of linear memory.
    pub memory: Option<u64>,
    /// Where to listen.
    pub listen: Listen,
    /// Models for wasi-nn, by the names that the guest knows.
    pub nn_models: Vec<NnModel>,
}

/// What the pod's owner wants of the listening socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Listen {
    /// Listen on port 8080 when the module asks for a socket.
    #[default]
    IfWanted,
    /// Never.
    None,
    /// Here.
    At(SocketAddr),
}

/// A bad annotation.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnnotationError {
    /// No such key.
    #[error("annotation {key:?} is not known; the keys below {PREFIX} are {}", KEYS.join(", "))]
    UnknownKey {
        /// The whole key.
        key: String,
    },
    /// No such value.
    #[error("annotation {key}: {value:?} is not valid; use {expected}")]
    BadValue {
        /// The whole key.
        key: String,
        /// Its value.
        value: String,
        /// What would be valid.
        expected: &'static str,
    },
}

/// Reads the settings for one container.
///
/// # Errors
/// The first bad annotation, in the order of their keys.
pub fn parse(
    annotations: &BTreeMap<String, String>,
    container: Option<&str>,
) -> Result<Settings, AnnotationError> {
    let mut settings = Settings {
        engine: crun_alias(annotations)?,
        ..Settings::default()
    };
    // Twice over the sorted map: first what holds for the pod, then what overrides it.
    let mut overrides = Vec::new();
    for (key, value) in annotations {
        let Some(name) = key.strip_prefix(PREFIX) else {
            continue;
        };
        let (name, target) = match name.split_once('.') {
            Some((name, target)) => (name, Some(target)),
            None => (name, None),
        };
        if !KEYS.contains(&name) || target == Some("") {
            return Err(AnnotationError::UnknownKey { key: key.clone() });
        }
        match target {
            None => settings.set(key, name, value)?,
            Some(target) => overrides.push((key, name, target, value)),
        }
    }
    for (key, name, target, value) in overrides {
        // What is meant for another container of the pod must be valid too: the owner should
        // not learn of a mistake from whichever container starts last.
        let mut scratch = Settings::default();
        let into = if Some(target) == container {
            &mut settings
        } else {
            &mut scratch
        };
        into.set(key, name, value)?;
    }
    Ok(settings)
}

fn crun_alias(annotations: &BTreeMap<String, String>) -> Result<Option<String>, AnnotationError> {
    let bad = |key: &str, value: &str, expected| {
        Err(AnnotationError::BadValue {
            key: key.to_owned(),
            value: value.to_owned(),
            expected,
        })
    };
    if let Some(value) = annotations.get(CRUN_VARIANT)
        && !matches!(value.as_str(), "compat" | "compat-smart")
    {
        return bad(CRUN_VARIANT, value, "compat or compat-smart");
    }
    match annotations.get(CRUN_HANDLER).map(String::as_str) {
        None | Some("wasm" | "wasm-smart") => Ok(None),
        Some(engine @ ("wasmtime" | "wasmedge" | "wasmer")) => Ok(Some(engine.to_owned())),
        Some(other) => bad(
            CRUN_HANDLER,
            other,
            "wasm, wasm-smart, wasmtime, wasmedge or wasmer",
        ),
    }
}

impl Settings {
    fn set(&mut self, key: &str, name: &str, value: &str) -> Result<(), AnnotationError> {
        let value = value.trim();
        let bad = |expected| AnnotationError::BadValue {
            key: key.to_owned(),
            value: value.to_owned(),
            expected,
        };
        match name {
            "engine" => {
                self.engine = match value {
                    "auto" => None,
                    name if is_engine_name(name) => Some(name.to_owned()),
                    _ => {
                        return Err(bad(
                            "auto or the name of an installed engine: wasmtime, wasmedge, wasmer",
                        ));
                    }
                }
            }
            "profile" => {
                if !PROFILES.contains(&value) {
                    return Err(bad("default, deterministic or hardened"));
                }
                self.profile = Some(value.to_owned());
            }
            "fuel" => {
                let fuel = value.parse().ok().filter(|fuel| *fuel > 0);
                self.fuel = Some(fuel.ok_or_else(|| {
                    bad("a number of instructions above 0, for example 1000000000")
                })?);
            }
            "timeout" => {
                let timeout = duration(value)
                    .ok_or_else(|| bad("a time, for example 500ms, 30s or 1m30s"))?;
                self.timeout = Some(timeout);
            }
            "max-stack" => {
                self.max_stack =
                    Some(quantity(value).ok_or_else(|| bad("a size, for example 512Ki or 1Mi"))?);
            }
            "memory" => {
                self.memory = Some(quantity(value).ok_or_else(|| bad("a size, for example 48Mi"))?);
            }
            "nn-models" => {
                self.nn_models = nn_models(value).ok_or_else(|| {
                    bad("name=/path/in/the/container.onnx, at most 16 of them separated by commas, no \
                         name twice")
                })?;
            }
            "listen" => {
                self.listen = listen(value).ok_or_else(|| {
                    bad("none, a port, or an address with a port, for example 127.0.0.1:9000")
                })?;
            }
            _ => {
                return Err(AnnotationError::UnknownKey {
                    key: key.to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// An engine's name becomes part of a file name, so it is held to a small alphabet.
pub fn is_engine_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 32
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
}

fn listen(value: &str) -> Option<Listen> {
    if value == "none" {
        return Some(Listen::None);
    }
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let address = match value.strip_prefix(':').unwrap_or(value).parse::<u16>() {
        Ok(port) => SocketAddr::new(any, port),
        Err(_) => value.parse().ok()?,
    };
    (address.port() != 0).then_some(Listen::At(address))
}

/// `name=/path`, several with commas in between.
fn nn_models(value: &str) -> Option<Vec<NnModel>> {
    let mut models: Vec<NnModel> = Vec::new();
    for part in value.split(',') {
        let (name, path) = part.split_once('=')?;
        let (name, path) = (name.trim(), path.trim());
        let is_new = models.iter().all(|model| model.name != name);
        let is_name = !name.is_empty() && name.len() <= MAX_NN_NAME && is_new;
        if !is_name || !path.starts_with('/') || path.contains('\0') {
            return None;
        }
        models.push(NnModel {
            name: name.to_owned(),
            path: PathBuf::from(path),
        });
    }
    (models.len() <= MAX_NN_MODELS).then_some(models)
}

/// A Kubernetes quantity of bytes: a whole number with an optional suffix.
fn quantity(value: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 8] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("", 1),
    ];
    let (suffix, unit) = UNITS.iter().find(|(suffix, _)| value.ends_with(suffix))?;
    let digits = value.strip_suffix(suffix)?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits
        .parse::<u64>()
        .ok()?
        .checked_mul(*unit)
        .filter(|bytes| *bytes > 0)
}

/// A duration as Kubernetes writes it: whole numbers with `h`, `m`, `s` or `ms`, largest first.
fn duration(value: &str) -> Option<Duration> {
    let mut rest = value;
    let mut total = Duration::ZERO;
    let mut last = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let letters = rest.len()
            - rest
                .trim_start_matches(|c: char| c.is_ascii_alphabetic())
                .len();
        let millis: u64 = match rest.get(..letters)? {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1_000,
            "ms" => 1,
            _ => return None,
        };
        rest = rest.get(letters..)?;
        if millis >= last {
            return None;
        }
        last = millis;
        total = total.checked_add(Duration::from_millis(number.checked_mul(millis)?))?;
    }
    (total > Duration::ZERO).then_some(total)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings(
        pairs: &[(&str, &str)],
        container: Option<&str>,
    ) -> Result<Settings, AnnotationError> {
        let map = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        parse(&map, container)
    }

    #[test]
    fn no_annotation_is_the_default() {
        assert_eq!(settings(&[("app", "x")], None), Ok(Settings::default()));
    }

    #[test]
    fn every_key_is_read() {
        let read = settings(
            &[
                ("wasmlet.dev/engine", "wasmtime"),
                ("wasmlet.dev/profile", "hardened"),
                ("wasmlet.dev/fuel", "1000"),
                ("wasmlet.dev/timeout", "1m30s"),
                ("wasmlet.dev/max-stack", "1Mi"),
                ("wasmlet.dev/memory", "48Mi"),
                ("wasmlet.dev/listen", "127.0.0.1:9000"),
                ("wasmlet.dev/nn-models", "a=/m/a.onnx, b = /m/x=y.onnx"),
            ],
            None,
        );
        let expected = Settings {
            engine: Some("wasmtime".into()),
            profile: Some("hardened".into()),
            fuel: Some(1000),
            timeout: Some(Duration::from_secs(90)),
            max_stack: Some(1 << 20),
            memory: Some(48 << 20),
            listen: Listen::At("127.0.0.1:9000".parse().expect("an address")),
            nn_models: [("a", "/m/a.onnx"), ("b", "/m/x=y.onnx")]
                .map(|(name, path)| NnModel {
                    name: name.to_owned(),
                    path: PathBuf::from(path),
                })
                .to_vec(),
        };
        assert_eq!(read, Ok(expected));
    }

    #[test]
    fn a_container_overrides_its_pod() {
        let pairs = [
            ("wasmlet.dev/memory", "8Mi"),
            ("wasmlet.dev/memory.big", "64Mi"),
        ];
        assert_eq!(
            settings(&pairs, Some("big")).expect("fine").memory,
            Some(64 << 20)
        );
        assert_eq!(
            settings(&pairs, Some("small")).expect("fine").memory,
            Some(8 << 20)
        );
        assert_eq!(settings(&pairs, None).expect("fine").memory, Some(8 << 20));
    }

    #[test]
    fn a_mistake_for_another_container_is_still_a_mistake() {
        let error = settings(&[("wasmlet.dev/fuel.other", "lots")], Some("this"));
        assert!(
            matches!(error, Err(AnnotationError::BadValue { .. })),
            "{error:?}"
        );
    }

    #[test]
    fn an_unknown_key_is_answered_with_the_known_ones() {
        let error = settings(&[("wasmlet.dev/fule", "1")], None)
            .expect_err("misspelt")
            .to_string();
        assert_eq!(
            error,
            "annotation \"wasmlet.dev/fule\" is not known; the keys below wasmlet.dev/ are \
             engine, fuel, listen, max-stack, memory, nn-models, profile, timeout"
        );
    }

    #[test]
    fn bad_values_are_answered_with_good_ones() {
        for (key, value) in [
            ("engine", "../wasmtime"),
            ("engine", ""),
            ("profile", "fast"),
            ("fuel", "0"),
            ("fuel", "-1"),
            ("timeout", "30"),
            ("timeout", "1s1m"),
            ("timeout", "0s"),
            ("max-stack", "1.5Mi"),
            ("memory", "0"),
            ("memory", "99999999999Ti"),
            ("listen", "0"),
            ("listen", "localhost:80"),
            ("listen", "99999"),
            ("nn-models", ""),
            ("nn-models", "a"),
            ("nn-models", "a=m/a.onnx"),
            ("nn-models", "=/m/a.onnx"),
            ("nn-models", "a=/m/a.onnx,"),
            ("nn-models", "a=/m/a.onnx,a=/m/b.onnx"),
        ] {
            let key = format!("{PREFIX}{key}");
            let error = settings(&[(&key, value)], None).expect_err(value);
            let text = error.to_string();
            assert!(
                text.starts_with(&format!("annotation {key}: {value:?} is not valid; use ")),
                "{text}"
            );
        }
    }

    #[test]
    fn a_container_has_at_most_sixteen_models() {
        let list = |count: usize| {
            let models: Vec<String> = (0..count).map(|n| format!("m{n}=/m/{n}.onnx")).collect();
            nn_models(&models.join(","))
        };
        assert_eq!(list(16).map(|models| models.len()), Some(16));
        assert_eq!(list(17), None);
        assert_eq!(nn_models(&format!("{}=/m", "n".repeat(257))), None);
    }

    #[test]
    fn a_port_alone_listens_everywhere() {
        let at = |text: &str| Listen::At(text.parse().expect("an address"));
        assert_eq!(listen("9000"), Some(at("0.0.0.0:9000")));
        assert_eq!(listen(":9000"), Some(at("0.0.0.0:9000")));
        assert_eq!(listen("[::]:9000"), Some(at("[::]:9000")));
        assert_eq!(listen("none"), Some(Listen::None));
    }

    #[test]
    fn crun_s_keys_are_understood() {
        let engine = |pairs: &[(&str, &str)]| settings(pairs, None).expect("fine").engine;
        assert_eq!(
            engine(&[(CRUN_HANDLER, "wasmedge")]).as_deref(),
            Some("wasmedge")
        );
        assert_eq!(engine(&[(CRUN_HANDLER, "wasm")]), None);
        assert_eq!(engine(&[(CRUN_VARIANT, "compat-smart")]), None);
        let both = [
            (CRUN_HANDLER, "wasmedge"),
            ("wasmlet.dev/engine", "wasmtime"),
        ];
        assert_eq!(engine(&both).as_deref(), Some("wasmtime"));
        assert!(settings(&[(CRUN_HANDLER, "krun")], None).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(key in "[ -~]{0,20}", value in ".{0,40}") {
            let map = BTreeMap::from([(format!("{PREFIX}{key}"), value)]);
            let _ = parse(&map, Some("c"));
        }
    }
}
