//! The command line: arguments in, one tar out.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, ValueEnum};
use wasmlet_oci_image::{
    Archive, Artifact, BuiltManifest, Compression, Error, Image, Layer, Platform, media_type,
};

/// Build a small OCI image as a tar that `ctr images import` accepts. No registry, no daemon, and
/// the same input always gives the same digest.
#[derive(Debug, Parser)]
#[command(name = "oci-image", version)]
pub(crate) enum Command {
    /// An ordinary image: files, and how to start them
    Build(Build),
    /// A Wasm OCI artifact: the module itself is the layer. Import it with
    /// `ctr images import --no-unpack --all-platforms`
    Artifact(ArtifactArgs),
}

#[derive(Debug, Args)]
pub(crate) struct Build {
    /// Full image name, for example docker.io/library/app:latest
    #[arg(long)]
    name: String,
    /// Where to write the tar
    #[arg(long)]
    out: PathBuf,
    /// One word of the entrypoint; repeat for more
    #[arg(long, allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// One word of the command; repeat for more
    #[arg(long, allow_hyphen_values = true)]
    cmd: Vec<String>,
    /// An environment variable; repeat for more
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// Whom to run as: a name, uid or uid:gid
    #[arg(long)]
    user: Option<String>,
    /// The working folder
    #[arg(long, value_name = "PATH")]
    workdir: Option<String>,
    /// An image label; repeat for more
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// A port to document, for example 8080/tcp; repeat for more
    #[arg(long, value_name = "PORT")]
    expose: Vec<String>,
    /// A file: its path in the image and on this machine; repeat for more
    #[arg(long, value_name = "IMAGE=LOCAL", value_parser = pair)]
    file: Vec<(String, String)>,
    /// A folder with all below it: its path in the image (may be empty) and on this machine
    #[arg(long, value_name = "IMAGE=LOCAL", value_parser = pair)]
    folder: Vec<(String, String)>,
    /// A symbolic link: its path in the image and its target
    #[arg(long, value_name = "IMAGE=TARGET", value_parser = pair)]
    symlink: Vec<(String, String)>,
    /// How to compress the layer
    #[arg(long, value_enum, default_value = "gzip")]
    compression: CompressionName,
    /// os/architecture; repeat to put the same files under several platforms in one index
    /// [default: this machine's]
    #[arg(long)]
    platform: Vec<Platform>,
}

#[derive(Debug, Args)]
pub(crate) struct ArtifactArgs {
    /// Full image name, for example docker.io/library/app:latest
    #[arg(long)]
    name: String,
    /// Where to write the tar
    #[arg(long)]
    out: PathBuf,
    /// The layer's media type
    #[arg(long, default_value = media_type::WASM)]
    layer_type: String,
    /// The config's media type
    #[arg(long, default_value = media_type::WASM_CONFIG)]
    config_type: String,
    /// os/architecture
    #[arg(long, default_value = "wasip1/wasm")]
    platform: Platform,
    /// The module
    module: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum CompressionName {
    None,
    Gzip,
    Zstd,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((left, right)) => Ok((left.into(), right.into())),
        None => Err("needs a '=' between its two parts".into()),
    }
}

impl Command {
    pub(crate) fn run(&self) -> Result<(), Error> {
        let manifests = match self {
            Self::Build(build) => build.archive()?.write(&build.out)?,
            Self::Artifact(artifact) => artifact.archive()?.write(&artifact.out)?,
        };
        for BuiltManifest {
            name,
            digest,
            platform,
            ..
        } in manifests
        {
            let platform = platform
                .map(|platform| format!(" ({platform})"))
                .unwrap_or_default();
            println!("{name}@{digest}{platform}");
        }
        Ok(())
    }
}

impl Build {
    fn archive(&self) -> Result<Archive, Error> {
        let mut layer = Layer::new().compression(match self.compression {
            CompressionName::None => Compression::None,
            CompressionName::Gzip => Compression::Gzip,
            CompressionName::Zstd => Compression::Zstd,
        });
        for (inside, local) in &self.folder {
            layer = layer.local_folder(inside.trim_start_matches('/'), Path::new(local))?;
        }
        for (inside, local) in &self.file {
            layer = layer.local_file(inside.trim_start_matches('/'), Path::new(local))?;
        }
        for (inside, target) in &self.symlink {
            layer = layer.symlink(inside.trim_start_matches('/'), target);
        }

        let mut image = Image::new().layer(layer);
        if !self.entrypoint.is_empty() {
            image = image.entrypoint(self.entrypoint.clone());
        }
        if !self.cmd.is_empty() {
            image = image.cmd(self.cmd.clone());
        }
        for (name, value) in &self.env {
            image = image.env(&format!("{name}={value}"));
        }
        for (key, value) in &self.label {
            image = image.label(key, value);
        }
        for port in &self.expose {
            image = image.exposed_port(port);
        }
        if let Some(user) = &self.user {
            image = image.user(user);
        }
        if let Some(path) = &self.workdir {
            image = image.working_dir(path);
        }

        if self.platform.is_empty() {
            return Ok(Archive::new().image(&self.name, image));
        }
        let images = self
            .platform
            .iter()
            .map(|platform| image.clone().platform(platform.clone()));
        Ok(Archive::new().index(&self.name, images))
    }
}

impl ArtifactArgs {
    fn archive(&self) -> Result<Archive, Error> {
        let module = fs::read(&self.module).map_err(|source| Error::Read {
            path: self.module.clone(),
            source,
        })?;
        let artifact = Artifact::new(&self.layer_type, module)
            .config_type(&self.config_type)
            .platform(self.platform.clone());
        Ok(Archive::new().image(&self.name, artifact))
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
    fn an_entrypoint_may_hold_words_that_look_like_options() {
        let command = Command::try_parse_from([
            "oci-image",
            "build",
            "--name",
            "n",
            "--out",
            "o",
            "--entrypoint",
            "/a.wasm",
            "--entrypoint",
            "--verbose",
            "--file",
            "/a.wasm=local=odd",
        ])
        .unwrap();
        let Command::Build(build) = command else {
            panic!("wrong subcommand")
        };
        assert_eq!(build.entrypoint, ["/a.wasm", "--verbose"]);
        assert_eq!(build.file, [("/a.wasm".to_owned(), "local=odd".to_owned())]);
    }
}
