//! `release-tool`: what `hack/images` and `hack/manifests` need beside the programs.

#![forbid(unsafe_code)]

mod cli;
mod crd_doc;
mod sbom;
mod tree;
mod values_doc;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::Command::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = format!("release-tool: {error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(inner) = cause {
                text.push_str(&format!(": {inner}"));
                cause = inner.source();
            }
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
