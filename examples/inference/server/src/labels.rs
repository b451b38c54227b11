//! The names of the classes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::Labels;

/// Why the labels could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LabelsError {
    /// The file could not be read as text.
    #[error("cannot read the labels from {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An empty file.
    #[error("{path} holds no label; it needs one per line, in class order", path = path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Labels of another model.
    #[error(
        "{path} holds {labels} labels, but the model tells {classes} classes apart; it needs one label per line, in \
         class order",
        path = path.display()
    )]
    Count {
        /// The file.
        path: PathBuf,
        /// Lines in it.
        labels: usize,
        /// Numbers the model puts out.
        classes: usize,
    },
}

/// Labels of a model with `classes` classes. Without a file a class is called by its number.
pub fn load(place: &Labels, classes: usize) -> Result<Vec<String>, LabelsError> {
    let (path, optional) = match place {
        Labels::Required(path) => (path, false),
        Labels::IfPresent(path) => (path, true),
    };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if optional && error.kind() == io::ErrorKind::NotFound => {
            return Ok((0..classes).map(|class| class.to_string()).collect());
        }
        Err(source) => {
            return Err(LabelsError::Read {
                path: path.clone(),
                source,
            });
        }
    };
    parse(&text, path, classes)
}

fn parse(text: &str, path: &Path, classes: usize) -> Result<Vec<String>, LabelsError> {
    let labels: Vec<String> = text
        .trim_end()
        .lines()
        .map(|line| line.trim().to_owned())
        .collect();
    if labels.is_empty() {
        return Err(LabelsError::Empty {
            path: path.to_owned(),
        });
    }
    if labels.len() != classes {
        return Err(LabelsError::Count {
            path: path.to_owned(),
            labels: labels.len(),
            classes,
        });
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_of_any_system_and_a_missing_last_one_are_fine() {
        let path = Path::new("labels.txt");
        assert_eq!(
            parse("cat\r\ndog\r\n\r\n", path, 2).expect("two"),
            ["cat", "dog"]
        );
        assert_eq!(parse("cat\ndog", path, 2).expect("two"), ["cat", "dog"]);
    }

    #[test]
    fn labels_of_another_model_are_refused() {
        let error =
            parse("cat\ndog\n", Path::new("/model/labels.txt"), 36).expect_err("two are not 36");
        assert!(
            error.to_string().starts_with(
                "/model/labels.txt holds 2 labels, but the model tells 36 classes apart"
            )
        );
        assert!(matches!(
            parse("\n", Path::new("x"), 2),
            Err(LabelsError::Empty { .. })
        ));
    }

    #[test]
    fn without_a_file_classes_are_called_by_number_unless_one_was_asked_for() {
        let nowhere = PathBuf::from("/nonexistent/labels.txt");
        assert_eq!(
            load(&Labels::IfPresent(nowhere.clone()), 3).expect("numbers"),
            ["0", "1", "2"]
        );
        assert!(matches!(
            load(&Labels::Required(nowhere), 3),
            Err(LabelsError::Read { .. })
        ));
    }
}
