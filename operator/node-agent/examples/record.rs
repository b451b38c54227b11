//! Records the node that it runs on, for the tests: `record FOLDER`, as root, on the node.
//!
//! What is in containerd's configuration is in the folder afterwards: look whether something there is secret.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use wasmlet_node_agent::facts::{Choices, Live as _, Recorded, gather};
use wasmlet_node_agent::host::Host;
use wasmlet_node_agent::layout::Distribution;

/// What `config dump` wrote, in the folder.
const DUMP: &str = "/dump.toml";

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("usage: record FOLDER")?);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(record(&folder))
}

async fn record(folder: &Path) -> Result<(), Box<dyn Error>> {
    let host = Host::default();
    let facts = gather(Path::new("/"), &host, &Choices::default()).await?;
    let write = |path: &Path, bytes: &[u8]| -> Result<(), Box<dyn Error>> {
        let file = folder.join(path.strip_prefix("/")?);
        fs::create_dir_all(file.parent().ok_or("a file has a folder")?)?;
        Ok(fs::write(file, bytes)?)
    };
    write(Path::new("/etc/os-release"), &fs::read("/etc/os-release")?)?;
    for (path, bytes) in &facts.files {
        if let Some(bytes) = bytes {
            write(path, bytes)?;
        }
    }
    for (path, bytes) in facts.bystanders.iter().chain(&facts.settings) {
        write(path, bytes)?;
    }
    let loaded = &facts.layout.loaded;
    let dump = host.dump(&facts.binary, loaded).await?;
    write(Path::new(DUMP), dump.text.as_bytes())?;
    let mut cri = host.cri(&facts.layout.socket).await?;
    // The rest is the network's state, which changes by the minute.
    cri.info.retain(|name, _| name == "config");
    let names: Vec<_> = Distribution::ALL
        .iter()
        .flat_map(|distribution| distribution.units())
        .copied()
        .collect();
    let recorded = Recorded {
        machine: host.machine().await?,
        units: Some(host.units(&names).await?),
        version: Some(host.version(&facts.binary).await?),
        cri: Some(cri),
        dumps: BTreeMap::from([(loaded.clone(), PathBuf::from(DUMP))]),
        ..Recorded::default()
    };
    let mut text = serde_json::to_string_pretty(&recorded)?;
    text.push('\n');
    Ok(fs::write(folder.join("recorded.json"), text)?)
}
