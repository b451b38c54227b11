//! What the user can set: by environment (a container's way) or by argument (a developer's way, and
//! it wins).

use std::path::PathBuf;
use std::str::FromStr;

use crate::picture::{Fit, Normalise};

/// Shown by `--help`.
pub const USAGE: &str = "\
Usage: inference [OPTION]…

Serves an ONNX picture classifier over HTTP, on the listening socket that is its standard input.

      --model FILE      the ONNX file                          MODEL       /model/model.onnx
      --labels FILE     one label per line, in class order     LABELS      /model/labels.txt if it is there
      --name NAME       the name in /v2/models/NAME            MODEL_NAME  file name of the model
      --fit HOW         stretch, crop or pad                   FIT         crop for colour models, pad for grey ones
      --mean LIST       mean per channel of pixels in 0…1,     MEAN        ImageNet's for colour models, picture for
                        or `picture`: each picture by itself               grey ones
      --std LIST        deviation per channel                  STD         likewise
      --size N          side in pixels, where the model        SIZE        none
                        leaves it open
      --max-pixels N    larger pictures are refused            MAX_PIXELS  2097152
      --bind ADDRESS    listen there instead of on standard input, e.g. 127.0.0.1:8080
      --classify FILE   classify this picture, print the five best labels and end; may be repeated
  -h, --help            this text

The second column is the environment variable of the same meaning, the third the default.";

/// Default of [`Config::max_pixels`]: a full HD picture fits. Decoded it takes 6 to 15 MiB, and a
/// container that serves a small model is given 64.
pub const MAX_PIXELS: u64 = 2 * 1024 * 1024;

const DEFAULT_MODEL: &str = "/model/model.onnx";
const DEFAULT_LABELS: &str = "/model/labels.txt";

/// Everything the program was told.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The ONNX file.
    pub model: PathBuf,
    /// Where the labels are.
    pub labels: Labels,
    /// The model's name in the API.
    pub name: String,
    /// How a picture is brought to the model's shape; `None` leaves it to the number of channels.
    pub fit: Option<Fit>,
    /// How pixels become numbers; `None` leaves it to the number of channels.
    pub normalise: Option<Normalise>,
    /// Height and width where the model leaves them open.
    pub size: Option<usize>,
    /// Pictures with more pixels are refused before they are decoded.
    pub max_pixels: u64,
    /// What to do once the model is loaded.
    pub job: Job,
}

/// Where the labels come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Labels {
    /// The user named the file: it has to be there.
    Required(PathBuf),
    /// The usual place: without it classes are called by their number.
    IfPresent(PathBuf),
}

/// What to do once the model is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Serve on the listening socket that is file descriptor 0.
    ServeInherited,
    /// Listen on this address and serve.
    ServeBound(String),
    /// Classify these files and end.
    Classify(Vec<PathBuf>),
    /// Print the usage and end.
    Help,
}

/// What was wrong with the arguments or the environment.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not an option this program has.
    #[error("unknown option {0:?}; see --help")]
    UnknownOption(String),
    /// The last argument was an option that wants a value.
    #[error("option {0} needs a value; see --help")]
    MissingValue(String),
    /// Neither of the three ways.
    #[error("{setting} is {value:?}; must be stretch, crop or pad")]
    Fit {
        /// The option or variable.
        setting: &'static str,
        /// What it was set to.
        value: String,
    },
    /// Not a positive whole number.
    #[error("{setting} is {value:?}; must be a whole number above 0")]
    Number {
        /// The option or variable.
        setting: &'static str,
        /// What it was set to.
        value: String,
    },
    /// Not a list of numbers.
    #[error("{setting} is {value:?}; must be one number, or one per channel separated by commas")]
    NumberList {
        /// The option or variable.
        setting: &'static str,
        /// What it was set to.
        value: String,
    },
    /// A deviation is what pixels are divided by.
    #[error("STD is {0:?}; every number must be above 0")]
    Deviation(String),
    /// One without the other.
    #[error("{present} is set but {absent} is not; set both, or only MEAN=picture, or neither")]
    HalfNormalised {
        /// The one that is set.
        present: &'static str,
        /// The one that is not.
        absent: &'static str,
    },
    /// MEAN and STD differ in length.
    #[error("MEAN has {mean} numbers and STD has {std}; both need one per channel")]
    ChannelCount {
        /// Numbers in MEAN.
        mean: usize,
        /// Numbers in STD.
        std: usize,
    },
    /// Would not survive in a URL.
    #[error("MODEL_NAME is {0:?}; may hold only letters, digits, '.', '_' and '-'")]
    Name(String),
}

/// The settings that are an option and a variable.
const SETTINGS: [(&str, &str); 8] = [
    ("--model", "MODEL"),
    ("--labels", "LABELS"),
    ("--name", "MODEL_NAME"),
    ("--fit", "FIT"),
    ("--mean", "MEAN"),
    ("--std", "STD"),
    ("--size", "SIZE"),
    ("--max-pixels", "MAX_PIXELS"),
];

impl Config {
    /// Reads the arguments (without the program's name) and the environment through `variable`.
    /// An empty variable counts as not set.
    pub fn read(
        args: impl IntoIterator<Item = String>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Config, ConfigError> {
        let mut values = SETTINGS.map(|(_, name)| variable(name).filter(|v| !v.is_empty()));
        let mut job = Job::ServeInherited;
        let mut pictures = Vec::new();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let (option, inline) = match arg.split_once('=') {
                Some((option, value)) if option.starts_with("--") => {
                    (option.to_owned(), Some(value.to_owned()))
                }
                _ => (arg, None),
            };
            if option == "-h" || option == "--help" {
                job = Job::Help;
                continue;
            }
            let setting = SETTINGS.iter().position(|(name, _)| *name == option);
            if setting.is_none() && option != "--bind" && option != "--classify" {
                return Err(ConfigError::UnknownOption(option));
            }
            let value = inline
                .or_else(|| args.next())
                .ok_or_else(|| ConfigError::MissingValue(option.clone()))?;
            match setting {
                Some(index) => values[index] = Some(value),
                None if option == "--bind" => job = Job::ServeBound(value),
                None => pictures.push(PathBuf::from(value)),
            }
        }
        if !pictures.is_empty() && job != Job::Help {
            job = Job::Classify(pictures);
        }

        let [model, labels, name, fit, mean, std, size, max_pixels] = values;
        let model = PathBuf::from(model.unwrap_or_else(|| DEFAULT_MODEL.to_owned()));
        Ok(Config {
            name: match name {
                Some(name) => checked_name(name)?,
                None => name_of(&model),
            },
            labels: match labels {
                Some(file) => Labels::Required(file.into()),
                None => Labels::IfPresent(DEFAULT_LABELS.into()),
            },
            fit: fit.map(|value| fit_of(&value)).transpose()?,
            normalise: normalise_of(mean, std)?,
            size: size.map(|value| number("SIZE", &value)).transpose()?,
            max_pixels: match max_pixels {
                Some(value) => number("MAX_PIXELS", &value)?,
                None => MAX_PIXELS,
            },
            model,
            job,
        })
    }
}

fn valid_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn checked_name(name: String) -> Result<String, ConfigError> {
    if valid_name(&name) {
        Ok(name)
    } else {
        Err(ConfigError::Name(name))
    }
}

/// `/model/model.onnx` says nothing but `model`; so does the file name in most layouts. Good enough
/// as a default.
fn name_of(model: &std::path::Path) -> String {
    let stem = model
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or("model");
    if valid_name(stem) {
        stem.to_owned()
    } else {
        "model".to_owned()
    }
}

fn fit_of(value: &str) -> Result<Fit, ConfigError> {
    match value {
        "stretch" => Ok(Fit::Stretch),
        "crop" => Ok(Fit::Crop),
        "pad" => Ok(Fit::Pad),
        _ => Err(ConfigError::Fit {
            setting: "FIT",
            value: value.to_owned(),
        }),
    }
}

fn number<T: FromStr + PartialOrd + From<u8>>(
    setting: &'static str,
    value: &str,
) -> Result<T, ConfigError> {
    value
        .trim()
        .parse()
        .ok()
        .filter(|n| *n > T::from(0))
        .ok_or_else(|| ConfigError::Number {
            setting,
            value: value.to_owned(),
        })
}

fn number_list(setting: &'static str, value: &str) -> Result<Vec<f32>, ConfigError> {
    value
        .split(',')
        .map(|part| part.trim().parse().ok().filter(|n: &f32| n.is_finite()))
        .collect::<Option<Vec<f32>>>()
        .ok_or_else(|| ConfigError::NumberList {
            setting,
            value: value.to_owned(),
        })
}

fn normalise_of(
    mean: Option<String>,
    std: Option<String>,
) -> Result<Option<Normalise>, ConfigError> {
    let half = |present, absent| Err(ConfigError::HalfNormalised { present, absent });
    match (mean, std) {
        (None, None) => Ok(None),
        (Some(mean), None) if mean == "picture" => Ok(Some(Normalise::Picture)),
        (Some(_), None) => half("MEAN", "STD"),
        (None, Some(_)) => half("STD", "MEAN"),
        (Some(mean), Some(std)) => {
            let (means, deviations) = (number_list("MEAN", &mean)?, number_list("STD", &std)?);
            if means.len() != deviations.len() {
                return Err(ConfigError::ChannelCount {
                    mean: means.len(),
                    std: deviations.len(),
                });
            }
            if deviations.iter().any(|d| *d <= 0.0) {
                return Err(ConfigError::Deviation(std));
            }
            Ok(Some(Normalise::Fixed {
                mean: means,
                std: deviations,
            }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str], env: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let args: Vec<String> = args.iter().map(|s| (*s).to_owned()).collect();
        Config::read(args, |name| {
            env.iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| (*v).to_owned())
        })
    }

    #[test]
    fn without_settings_it_serves_the_mounted_model_on_the_inherited_socket() {
        let config = read(&[], &[]).expect("defaults are valid");
        assert_eq!(config.model, PathBuf::from("/model/model.onnx"));
        assert_eq!(config.labels, Labels::IfPresent("/model/labels.txt".into()));
        assert_eq!(config.name, "model");
        assert_eq!(config.job, Job::ServeInherited);
        assert_eq!(
            (config.fit, config.normalise, config.size),
            (None, None, None)
        );
    }

    #[test]
    fn an_argument_wins_over_the_environment() {
        let config = read(
            &["--model", "/a/glyph.onnx", "--fit=crop"],
            &[("MODEL", "/b/x.onnx"), ("FIT", "pad")],
        )
        .expect("valid");
        assert_eq!(config.model, PathBuf::from("/a/glyph.onnx"));
        assert_eq!(config.name, "glyph");
        assert_eq!(config.fit, Some(Fit::Crop));
    }

    #[test]
    fn mean_and_deviation_are_read_per_channel() {
        let config = read(
            &[],
            &[("MEAN", "0.485, 0.456,0.406"), ("STD", "0.229,0.224,0.225")],
        )
        .expect("valid");
        let expected = Normalise::Fixed {
            mean: vec![0.485, 0.456, 0.406],
            std: vec![0.229, 0.224, 0.225],
        };
        assert_eq!(config.normalise, Some(expected));
        assert_eq!(
            read(&[], &[("MEAN", "picture")]).expect("valid").normalise,
            Some(Normalise::Picture)
        );
    }

    #[test]
    fn bad_settings_say_what_was_expected() {
        let error = |args: &[&str], env: &[(&str, &str)]| {
            read(args, env).expect_err("must be refused").to_string()
        };
        assert_eq!(
            error(&["--fast"], &[]),
            r#"unknown option "--fast"; see --help"#
        );
        assert_eq!(
            error(&["--model"], &[]),
            "option --model needs a value; see --help"
        );
        assert_eq!(
            error(&[], &[("FIT", "zoom")]),
            r#"FIT is "zoom"; must be stretch, crop or pad"#
        );
        assert_eq!(
            error(&[], &[("MAX_PIXELS", "-3")]),
            r#"MAX_PIXELS is "-3"; must be a whole number above 0"#
        );
        assert_eq!(
            error(&[], &[("SIZE", "0")]),
            r#"SIZE is "0"; must be a whole number above 0"#
        );
        assert!(error(&[], &[("MEAN", "0.5")]).starts_with("MEAN is set but STD is not"));
        assert!(error(&[], &[("STD", "0.5")]).starts_with("STD is set but MEAN is not"));
        assert!(
            error(&[], &[("MEAN", "a"), ("STD", "1")])
                .starts_with(r#"MEAN is "a"; must be one number"#)
        );
        assert!(
            error(&[], &[("MEAN", "1,2"), ("STD", "1")])
                .starts_with("MEAN has 2 numbers and STD has 1")
        );
        assert_eq!(
            error(&[], &[("MEAN", "1"), ("STD", "0")]),
            r#"STD is "0"; every number must be above 0"#
        );
        assert!(error(&[], &[("MODEL_NAME", "a/b")]).starts_with(r#"MODEL_NAME is "a/b""#));
    }

    #[test]
    fn pictures_to_classify_may_be_several() {
        let config = read(&["--classify", "a.png", "--classify=b.jpg"], &[]).expect("valid");
        assert_eq!(
            config.job,
            Job::Classify(vec!["a.png".into(), "b.jpg".into()])
        );
    }
}
