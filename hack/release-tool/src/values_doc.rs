//! docs/values.md: the values of the chart, from the comments in its values.yaml.

use std::fmt::Write as _;

/// Why there is no page.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ValuesError {
    #[error(
        "line {line}: {key} has no comment above it: say what it is for, it is the text of docs/values.md"
    )]
    NoComment { line: usize, key: String },
    #[error("line {line} is no key, no list entry and no comment: \"{text}\"")]
    Line { line: usize, text: String },
}

/// One key.
#[derive(Debug, PartialEq, Eq)]
struct Value {
    path: String,
    /// None for what has keys of its own.
    default: Option<String>,
    text: String,
}

/// The page.
pub(crate) fn page(yaml: &str) -> Result<String, ValuesError> {
    let mut page = String::from(
        "# Values of the chart\n\nMade from `charts/wasmlet/values.yaml` by `hack/manifests`. A value that is not here is refused.\n",
    );
    for value in read(yaml)? {
        let top = !value.path.contains('.');
        // Writing to a String cannot fail.
        let _ = match (&value.default, top) {
            (None, true) => write!(
                page,
                "\n## {}\n\n{}\n\n| value | default | |\n|---|---|---|\n",
                value.path, value.text
            ),
            (Some(default), true) => write!(
                page,
                "\n## {}\n\n{}\n\nDefault: `{default}`\n",
                value.path, value.text
            ),
            (None, false) => writeln!(page, "| `{}` | | {} |", value.path, cell(&value.text)),
            (Some(default), false) => writeln!(
                page,
                "| `{}` | `{}` | {} |",
                value.path,
                cell(default),
                cell(&value.text)
            ),
        };
    }
    Ok(page)
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// Reads the part of YAML that the file keeps to: two spaces for each level, comments above keys, values on the key's line or as
/// list entries below it.
fn read(yaml: &str) -> Result<Vec<Value>, ValuesError> {
    let mut values: Vec<Value> = Vec::new();
    let mut above: Vec<String> = Vec::new();
    let mut comment = String::new();
    for (number, text) in yaml.lines().enumerate() {
        let line = number + 1;
        let bare = text.trim_start();
        let depth = (text.len() - bare.len()) / 2;
        if bare.is_empty() {
            comment.clear();
        } else if let Some(words) = bare.strip_prefix('#') {
            if !comment.is_empty() {
                comment.push(' ');
            }
            comment.push_str(words.trim());
        } else if let Some(entry) = bare.strip_prefix("- ") {
            let last = values.last_mut().ok_or_else(|| ValuesError::Line {
                line,
                text: text.to_owned(),
            })?;
            let list = last.default.get_or_insert_with(String::new);
            *list = match list.strip_suffix(']') {
                None => format!("[{entry}]"),
                Some(begun) => format!("{begun}, {entry}]"),
            };
        } else if let Some((key, value)) = bare.split_once(':') {
            above.truncate(depth);
            above.push(key.to_owned());
            let path = above.join(".");
            // The two keys of `resources` and such, which are Kubernetes' own, need no words.
            let known = ["requests", "limits"].contains(&key);
            if comment.is_empty() && !known {
                return Err(ValuesError::NoComment { line, key: path });
            }
            let value = value.trim();
            values.push(Value {
                path,
                default: (!value.is_empty()).then(|| value.to_owned()),
                text: std::mem::take(&mut comment),
            });
        } else {
            return Err(ValuesError::Line {
                line,
                text: text.to_owned(),
            });
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_path_default_and_comment() {
        let page = page(
            "# About the file.\n\n# One,\n# two.\na:\n  # Three | four.\n  b: 1\n  # A list.\n  c:\n    - {x: 1}\n    - y\n# Top.\nd: \"\"\n",
        )
        .unwrap();
        assert!(page.contains("## a\n\nOne, two.\n"), "{page}");
        assert!(page.contains("| `a.b` | `1` | Three \\| four. |"), "{page}");
        assert!(
            page.contains("| `a.c` | `[{x: 1}, y]` | A list. |"),
            "{page}"
        );
        assert!(page.contains("## d\n\nTop.\n\nDefault: `\"\"`"), "{page}");
        assert!(!page.contains("About the file"), "{page}");
    }

    #[test]
    fn a_value_without_a_comment_is_an_error() {
        assert_eq!(
            page("# x\na:\n  b: 1\n"),
            Err(ValuesError::NoComment {
                line: 3,
                key: "a.b".into()
            })
        );
    }
}
