//! A handler's settings file, as the shim reads it: one key it does not know, and it starts no pod.

use toml::{Table, Value};

/// Keys with texts.
const TEXTS: [&str; 7] = [
    "Engine",
    "ShimCgroup",
    "CacheDir",
    "BinaryName",
    "TypeUrl",
    "ConfigPath",
    "RuntimeType",
];
/// Keys with true or false.
const TRUTHS: [&str; 3] = ["SystemdCgroup", "NoPivotRoot", "NoNewKeyring"];
/// Keys with numbers from 0.
const NUMBERS: [&str; 6] = [
    "CacheMaxBytes",
    "CompileMemoryBytes",
    "CompileCpus",
    "CompileTimeoutSeconds",
    "IoUid",
    "IoGid",
];

/// What is wrong with a settings file.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum SettingsError {
    /// Not UTF-8.
    #[error("it is not text")]
    NotText,
    /// Not TOML.
    #[error("it is not TOML: {0}")]
    Parse(String),
    /// An unknown key.
    #[error(
        "it has a key {0:?}, which the shim does not know (docs/architecture.md, \"Runtime options\")"
    )]
    Key(String),
    /// A value of another type.
    #[error("its {key} must be {wanted}")]
    Type {
        /// The key.
        key: String,
        /// What it must be.
        wanted: &'static str,
    },
}

/// Whether the shim would take it.
///
/// # Errors
/// [`SettingsError`]
pub fn check_settings(bytes: &[u8]) -> Result<(), SettingsError> {
    let text = std::str::from_utf8(bytes).map_err(|_| SettingsError::NotText)?;
    let table: Table = text
        .parse()
        .map_err(|error: toml::de::Error| SettingsError::Parse(one_line(&error)))?;
    for (key, value) in &table {
        let (fits, wanted) = match key.as_str() {
            key if TEXTS.contains(&key) => (value.is_str(), "a text"),
            key if TRUTHS.contains(&key) => (value.is_bool(), "true or false"),
            key if NUMBERS.contains(&key) => (
                value.as_integer().is_some_and(|number| number >= 0),
                "a whole number from 0",
            ),
            _ => return Err(SettingsError::Key(key.clone())),
        };
        if !fits {
            let key = key.clone();
            return Err(SettingsError::Type { key, wanted });
        }
    }
    Ok(())
}

/// The engine that the file names, unless it leaves it to the pod.
pub(super) fn engine(bytes: &[u8]) -> Option<String> {
    let table: Table = std::str::from_utf8(bytes).ok()?.parse().ok()?;
    let engine = table.get("Engine").and_then(Value::as_str)?;
    (engine != "auto").then(|| engine.to_owned())
}

fn one_line(error: &toml::de::Error) -> String {
    error
        .message()
        .lines()
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_plan_writes_is_taken() {
        let options = wasmlet_api::target::Options {
            cache_max_bytes: Some(1 << 30),
            compile_memory_bytes: Some(1 << 30),
            compile_cpus: Some(2),
            compile_timeout_seconds: Some(60),
        };
        for handler in wasmlet_api::handlers::handlers("wasm", &wasmlet_api::handlers::Engine::ALL)
        {
            let text = crate::config::settings(&handler, &options, Some(true));
            assert_eq!(check_settings(text.as_bytes()), Ok(()));
            let named = handler.engine.map(|engine| engine.name().to_owned());
            assert_eq!(engine(text.as_bytes()), named);
        }
    }

    #[test]
    fn what_the_shim_would_refuse_is_named() {
        #[track_caller]
        fn refused(text: &str) -> String {
            check_settings(text.as_bytes()).unwrap_err().to_string()
        }
        assert!(refused("Engin = 'x'").contains("\"Engin\""));
        assert_eq!(
            refused("CompileCpus = -1"),
            "its CompileCpus must be a whole number from 0"
        );
        assert_eq!(refused("Engine = 1"), "its Engine must be a text");
        assert!(refused("Engine =").starts_with("it is not TOML: "));
        assert_eq!(check_settings(b"\xff"), Err(SettingsError::NotText));
    }
}
