//! The command line.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Parser};
use sha2::{Digest, Sha256};

use crate::crd_doc::{self, CrdError};
use crate::sbom::{Contents, Debian, File, Program, SbomError, document};
use crate::tree::{TreeError, parse};
use crate::values_doc::{self, ValuesError};

/// Parts of the release images that are not programs.
#[derive(Debug, Parser)]
#[command(name = "release-tool", version)]
pub(crate) enum Command {
    /// Write a bill of materials (CycloneDX 1.5, JSON)
    Sbom(Sbom),
    /// Print the documents of a YAML file as one JSON list
    Json {
        /// The file
        yaml: PathBuf,
    },
    /// Print the page of the chart's values
    ValuesDoc {
        /// The chart's values.yaml
        values: PathBuf,
    },
    /// Print the page of the custom resources
    CrdDoc {
        /// What wasmlet-crds prints
        crds: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Sbom {
    /// Name of the image
    #[arg(long)]
    image: String,
    /// Version of the image and of the programs
    #[arg(long)]
    version: String,
    /// Version of the compiler
    #[arg(long)]
    rust: String,
    /// Cargo.lock, for the crates' checksums
    #[arg(long)]
    lock: PathBuf,
    /// A program: its name, its file, the output of cargo tree, and the Debian packages whose static libraries are in it,
    /// separated by commas; repeat for more
    #[arg(long, num_args = 4, value_names = ["NAME", "FILE", "TREE", "PACKAGES"])]
    program: Vec<String>,
    /// A Debian package that the image has something of; repeat for more
    #[arg(long, value_name = "PACKAGE=VERSION")]
    debian: Vec<String>,
    /// Architecture of the Debian packages
    #[arg(long, default_value = "amd64")]
    architecture: String,
    /// A file that is no program: its path in the image, its file, and the Debian package it is from (may be empty); repeat for
    /// more
    #[arg(long, num_args = 3, value_names = ["PATH", "FILE", "PACKAGE"])]
    file: Vec<String>,
    /// Where to write it
    #[arg(long)]
    out: PathBuf,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{path} cannot be read")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} cannot be written")]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is no tree of crates")]
    Tree {
        path: PathBuf,
        #[source]
        source: TreeError,
    },
    #[error("--debian wants PACKAGE=VERSION, not \"{text}\"")]
    Debian { text: String },
    #[error(transparent)]
    Sbom(#[from] SbomError),
    #[error("{path} is no YAML")]
    Yaml {
        path: PathBuf,
        #[source]
        source: Box<serde_saphyr::Error>,
    },
    #[error("{path}")]
    Values {
        path: PathBuf,
        #[source]
        source: ValuesError,
    },
    #[error("{path}")]
    Crds {
        path: PathBuf,
        #[source]
        source: CrdError,
    },
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Read {
        path: path.into(),
        source,
    })
}

fn read_text(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.into(),
        source,
    })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    fs::write(path, bytes).map_err(|source| Error::Write {
        path: path.into(),
        source,
    })
}

/// Not `print!`, which panics when nobody reads any more.
fn print(text: &str) -> Result<(), Error> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|source| Error::Write {
            path: "standard output".into(),
            source,
        })
}

fn hash(path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    for byte in Sha256::digest(read(path)?) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

fn words(text: &str) -> BTreeSet<String> {
    text.split(',')
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

impl Command {
    pub(crate) fn run(&self) -> Result<(), Error> {
        match self {
            Self::Sbom(sbom) => sbom.run(),
            Self::Json { yaml } => {
                let documents: Vec<serde_json::Value> =
                    serde_saphyr::from_multiple(&read_text(yaml)?).map_err(|source| {
                        Error::Yaml {
                            path: yaml.clone(),
                            source: Box::new(source),
                        }
                    })?;
                print(&format!("{}\n", serde_json::Value::from(documents)))
            }
            Self::ValuesDoc { values } => {
                let page =
                    values_doc::page(&read_text(values)?).map_err(|source| Error::Values {
                        path: values.clone(),
                        source,
                    })?;
                print(&page)
            }
            Self::CrdDoc { crds } => {
                let page = crd_doc::page(&read_text(crds)?).map_err(|source| Error::Crds {
                    path: crds.clone(),
                    source,
                })?;
                print(&page)
            }
        }
    }
}

impl Sbom {
    fn run(&self) -> Result<(), Error> {
        let document = document(&self.contents()?, &read_text(&self.lock)?)?;
        write(&self.out, format!("{document:#}\n").as_bytes())
    }

    fn contents(&self) -> Result<Contents, Error> {
        let mut contents = Contents {
            image: self.image.clone(),
            version: self.version.clone(),
            rust: self.rust.clone(),
            ..Contents::default()
        };
        // clap has seen to it that they are complete.
        for program in self.program.chunks_exact(4) {
            let tree = Path::new(&program[2]);
            contents.programs.push(Program {
                name: program[0].clone(),
                sha256: hash(Path::new(&program[1]))?,
                tree: parse(&read_text(tree)?).map_err(|source| Error::Tree {
                    path: tree.into(),
                    source,
                })?,
                links: words(&program[3]),
            });
        }
        for text in &self.debian {
            let (package, version) = text
                .split_once('=')
                .ok_or_else(|| Error::Debian { text: text.clone() })?;
            contents.debian.insert(Debian {
                package: package.to_owned(),
                version: version.to_owned(),
                architecture: self.architecture.clone(),
            });
        }
        for file in self.file.chunks_exact(3) {
            contents.files.push(File {
                path: file[0].clone(),
                sha256: hash(Path::new(&file[1]))?,
                package: Some(file[2].clone()).filter(|name| !name.is_empty()),
            });
        }
        Ok(contents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Command::command().debug_assert();
    }

    #[test]
    fn a_bill_of_a_program_and_a_library_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        fs::write(
            path("lock"),
            "[[package]]\nname = \"app\"\nversion = \"1.0.0\"\n",
        )
        .unwrap();
        fs::write(path("tree"), "0app v1.0.0 (/a)|MIT\n").unwrap();
        fs::write(path("app"), "program").unwrap();
        let command = Command::try_parse_from([
            "release-tool",
            "sbom",
            "--image=i",
            "--version=1.0.0",
            "--rust=1.95.0",
            &format!("--lock={}", path("lock")),
            "--program",
            "app",
            &path("app"),
            &path("tree"),
            "",
            "--debian=libc6=2.36",
            "--file",
            "/lib/libc.so.6",
            &path("app"),
            "libc6",
            &format!("--out={}", path("out")),
        ])
        .unwrap();
        command.run().unwrap();
        let written: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(path("out")).unwrap()).unwrap();
        assert_eq!(written["bomFormat"], "CycloneDX");
        assert_eq!(written["components"].as_array().unwrap().len(), 5);
    }
}
