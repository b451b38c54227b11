//! A bundle in the store, as far as a plan and a doctor have to know it. Checking each file is [`crate::store`]'s.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde::Deserialize;
use wasmlet_api::Digest;
use wasmlet_api::names::SHIM;

use super::{Bundle, Shim};

/// Bytes of an ELF header that are looked at (elf(5)).
const ELF_HEADER_BYTES: usize = 20;

#[derive(Deserialize)]
struct Listing {
    version: String,
    platform: String,
}

/// Looks at the bundle in this folder.
pub(crate) fn look(folder: &Path, digest: &Digest) -> Bundle {
    let path = folder.join("bundle.json");
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) => return Bundle::Broken(format!("bundle.json cannot be read: {error}")),
    };
    let found = Digest::of(&bytes);
    if found != *digest {
        return Bundle::Broken(format!("bundle.json has the digest {found}"));
    }
    match serde_json::from_slice::<Listing>(&bytes) {
        Ok(Listing { version, platform }) => Bundle::Listed {
            version,
            platform,
            shim: shim(&folder.join("bin").join(SHIM)),
        },
        Err(error) => Bundle::Broken(format!("bundle.json cannot be understood: {error}")),
    }
}

fn shim(path: &Path) -> Shim {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Shim::Missing,
        Err(error) => return Shim::NoProgram(error.to_string()),
    };
    if !metadata.is_file() {
        return Shim::NoProgram("it is not a regular file".to_owned());
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o111 == 0 {
        return Shim::NotExecutable(mode);
    }
    let mut header = [0; ELF_HEADER_BYTES];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut header));
    if let Err(error) = read {
        return Shim::NoProgram(error.to_string());
    }
    architecture(&header)
}

/// From `e_ident` and `e_machine`.
fn architecture(header: &[u8; ELF_HEADER_BYTES]) -> Shim {
    if !header.starts_with(b"\x7fELF") {
        return Shim::NoProgram("it is not an ELF file".to_owned());
    }
    let bytes = [header[18], header[19]];
    // EI_DATA: 2 is big-endian.
    let machine = if header[5] == 2 {
        u16::from_be_bytes(bytes)
    } else {
        u16::from_le_bytes(bytes)
    };
    let architecture = match machine {
        62 => "amd64".to_owned(),
        183 => "arm64".to_owned(),
        243 => "riscv64".to_owned(),
        other => format!("ELF machine {other}"),
    };
    Shim::Program { architecture }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_architecture_is_read_from_the_program() {
        let own = std::env::current_exe().unwrap();
        let mut header = [0; ELF_HEADER_BYTES];
        std::fs::File::open(own)
            .unwrap()
            .read_exact(&mut header)
            .unwrap();
        let expected = crate::facts::gather::oci_architecture(std::env::consts::ARCH);
        assert_eq!(
            architecture(&header),
            Shim::Program {
                architecture: expected
            }
        );
        header[18] = 183;
        assert_eq!(
            architecture(&header),
            Shim::Program {
                architecture: "arm64".to_owned()
            }
        );
        header[0] = b'#';
        assert!(matches!(architecture(&header), Shim::NoProgram(_)));
    }

    #[test]
    fn a_bundle_is_what_its_name_says_or_it_is_broken() {
        let folder = tempfile::tempdir().unwrap();
        let text = br#"{"schema":1,"version":"0.1.0","platform":"linux/amd64","entries":[]}"#;
        let digest = Digest::of(text);
        assert!(matches!(look(folder.path(), &digest), Bundle::Broken(_)));
        std::fs::write(folder.path().join("bundle.json"), text).unwrap();
        assert_eq!(
            look(folder.path(), &digest),
            Bundle::Listed {
                version: "0.1.0".to_owned(),
                platform: "linux/amd64".to_owned(),
                shim: Shim::Missing,
            }
        );
        let other = Digest::of(b"other");
        assert!(
            matches!(look(folder.path(), &other), Bundle::Broken(why) if why.contains(digest.as_str()))
        );
    }

    #[test]
    fn a_shim_without_permission_is_told_from_one_that_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SHIM);
        assert_eq!(shim(&path), Shim::Missing);
        std::fs::write(&path, "#!/bin/sh\nexit 0 # long enough").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(shim(&path), Shim::NotExecutable(0o644));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(shim(&path), Shim::NoProgram(_)));
    }
}
