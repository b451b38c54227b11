//! A bill of materials (CycloneDX 1.5) for one image. Pure: texts in, a document out, always the same for the same texts; so
//! there is no time stamp and no serial number in it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::tree::{Id, Tree};

/// A program, and what it is linked from.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) sha256: String,
    pub(crate) tree: Tree,
    /// Names among [`Contents::debian`] that are linked into it.
    pub(crate) links: BTreeSet<String>,
}

/// Something of a Debian package: a library in the image, or one that is linked into a program.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Debian {
    pub(crate) package: String,
    pub(crate) version: String,
    pub(crate) architecture: String,
}

/// A file of the image that is no program of ours.
#[derive(Debug, Clone)]
pub(crate) struct File {
    /// Path in the image.
    pub(crate) path: String,
    pub(crate) sha256: String,
    /// The Debian package that it is from, where that is known.
    pub(crate) package: Option<String>,
}

/// All that is in an image.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contents {
    pub(crate) image: String,
    pub(crate) version: String,
    /// Version of the compiler, whose standard library is in every program.
    pub(crate) rust: String,
    pub(crate) programs: Vec<Program>,
    pub(crate) debian: BTreeSet<Debian>,
    pub(crate) files: Vec<File>,
}

/// Why there is no bill.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SbomError {
    #[error("Cargo.lock cannot be read")]
    Lock(#[source] toml::de::Error),
    #[error(
        "{name} {version} is linked and not in Cargo.lock: the tree and the lock file are not of the same source"
    )]
    NotLocked { name: String, version: String },
    #[error(
        "{user} names the Debian package {package}, of which no version was given: add --debian {package}=VERSION"
    )]
    NoPackage { user: String, package: String },
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

const STANDARD_LIBRARY: &str = "rust:std";

fn reference(id: &Id) -> String {
    format!("crate:{}@{}", id.name, id.version)
}

fn sha256(hex: &str) -> Value {
    json!([{ "alg": "SHA-256", "content": hex }])
}

/// The document.
pub(crate) fn document(contents: &Contents, lock: &str) -> Result<Value, SbomError> {
    let lock: Lock = toml::from_str(lock).map_err(SbomError::Lock)?;
    let checksums: BTreeMap<Id, Option<String>> = lock
        .package
        .into_iter()
        .map(|package| {
            let id = Id {
                name: package.name,
                version: package.version,
            };
            (id, package.checksum)
        })
        .collect();

    // By reference: what two programs link stands there once.
    let mut components: BTreeMap<String, Value> = BTreeMap::new();
    let mut dependencies: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let debian: BTreeMap<&str, String> = contents
        .debian
        .iter()
        .map(|debian| (debian.package.as_str(), format!("deb:{}", debian.package)))
        .collect();
    let package = |user: &str, package: &str| {
        debian
            .get(package)
            .cloned()
            .ok_or_else(|| SbomError::NoPackage {
                user: user.to_owned(),
                package: package.to_owned(),
            })
    };

    if !contents.programs.is_empty() {
        components.insert(
            STANDARD_LIBRARY.to_owned(),
            json!({
                "type": "library", "bom-ref": STANDARD_LIBRARY, "name": "rust-std", "version": contents.rust,
                "licenses": licences("MIT OR Apache-2.0"),
            }),
        );
    }
    for program in &contents.programs {
        let own = format!("program:{}", program.name);
        components.insert(
            own.clone(),
            json!({
                "type": "application", "bom-ref": own, "name": program.name, "version": contents.version,
                "hashes": sha256(&program.sha256),
                "licenses": licences(&program.tree.crates[&program.tree.root].licence),
            }),
        );
        let mut links =
            BTreeSet::from([reference(&program.tree.root), STANDARD_LIBRARY.to_owned()]);
        for name in &program.links {
            links.insert(package(&program.name, name)?);
        }
        dependencies.insert(own, links);
        for (id, found) in &program.tree.crates {
            let locked = checksums.get(id).ok_or_else(|| SbomError::NotLocked {
                name: id.name.clone(),
                version: id.version.clone(),
            })?;
            components.insert(reference(id), krate(id, &found.licence, locked.as_deref()));
            dependencies
                .entry(reference(id))
                .or_default()
                .extend(found.uses.iter().map(reference));
        }
    }
    for found in &contents.debian {
        let own = debian[found.package.as_str()].clone();
        components.insert(
            own.clone(),
            json!({
                "type": "library", "bom-ref": own, "name": found.package, "version": found.version,
                "purl": format!("pkg:deb/debian/{}@{}?arch={}", found.package, escape(&found.version), found.architecture),
            }),
        );
    }
    for file in &contents.files {
        let own = format!("file:{}", file.path);
        components.insert(
            own.clone(),
            json!({ "type": "file", "bom-ref": own, "name": file.path, "hashes": sha256(&file.sha256) }),
        );
        let mut from = BTreeSet::new();
        if let Some(name) = &file.package {
            from.insert(package(&file.path, name)?);
        }
        dependencies.insert(own, from);
    }

    let image = format!("image:{}", contents.image);
    let top = components
        .keys()
        .filter(|key| key.starts_with("program:") || key.starts_with("file:"))
        .cloned()
        .collect();
    dependencies.insert(image.clone(), top);
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": {
            "type": "container", "bom-ref": image, "name": contents.image, "version": contents.version,
        } },
        "components": components.into_values().collect::<Vec<_>>(),
        "dependencies": dependencies
            .into_iter()
            .map(|(from, to)| json!({ "ref": from, "dependsOn": to }))
            .collect::<Vec<_>>(),
    }))
}

fn krate(id: &Id, licence: &str, checksum: Option<&str>) -> Value {
    let mut component = json!({
        "type": "library", "bom-ref": reference(id), "name": id.name, "version": id.version,
        "licenses": licences(licence),
    });
    // Ours have none: they are in no registry, so there is no address to give either.
    if let Some(checksum) = checksum {
        component["hashes"] = sha256(checksum);
        component["purl"] = json!(format!("pkg:cargo/{}@{}", id.name, escape(&id.version)));
    }
    component
}

fn licences(text: &str) -> Value {
    if text.is_empty() {
        return json!([]);
    }
    // Old manifests write a slash where SPDX has OR.
    json!([{ "expression": text.replace('/', " OR ") }])
}

/// As a package URL wants a version.
fn escape(version: &str) -> String {
    version
        .replace('%', "%25")
        .replace('+', "%2B")
        .replace(':', "%3A")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::parse;

    const LOCK: &str = r#"
        version = 4
        [[package]]
        name = "app"
        version = "0.1.0"
        [[package]]
        name = "one"
        version = "1.0.0+x"
        checksum = "ab"
    "#;

    fn contents() -> Contents {
        Contents {
            image: "wasmlet/app".into(),
            version: "0.1.0".into(),
            rust: "1.95.0".into(),
            programs: vec![Program {
                name: "app".into(),
                sha256: "cd".into(),
                tree: parse("0app v0.1.0 (/a)|Apache-2.0\n1one v1.0.0+x|MIT/Apache-2.0").unwrap(),
                links: BTreeSet::from(["libc6-dev".to_owned()]),
            }],
            debian: BTreeSet::from([Debian {
                package: "libc6-dev".into(),
                version: "1:2.36-9+b1".into(),
                architecture: "amd64".into(),
            }]),
            files: Vec::new(),
        }
    }

    fn find<'a>(document: &'a Value, reference: &str) -> &'a Value {
        document["components"]
            .as_array()
            .unwrap()
            .iter()
            .find(|component| component["bom-ref"] == reference)
            .unwrap()
    }

    #[test]
    fn a_crate_has_its_licence_its_address_and_the_checksum_of_the_lock_file() {
        let document = document(&contents(), LOCK).unwrap();
        let one = find(&document, "crate:one@1.0.0+x");
        assert_eq!(one["purl"], "pkg:cargo/one@1.0.0%2Bx");
        assert_eq!(one["hashes"][0]["content"], "ab");
        assert_eq!(one["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(find(&document, "crate:app@0.1.0").get("purl"), None);
        assert_eq!(
            find(&document, "deb:libc6-dev")["purl"],
            "pkg:deb/debian/libc6-dev@1%3A2.36-9%2Bb1?arch=amd64"
        );
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document(&contents(), LOCK).unwrap();
        let known: BTreeSet<&str> = document["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(|component| component["bom-ref"].as_str().unwrap())
            .collect();
        for dependency in document["dependencies"].as_array().unwrap() {
            for to in dependency["dependsOn"].as_array().unwrap() {
                assert!(known.contains(to.as_str().unwrap()), "{to}");
            }
        }
    }

    #[test]
    fn a_tree_of_another_source_is_refused() {
        let error = document(&contents(), "package = []").unwrap_err();
        assert!(matches!(error, SbomError::NotLocked { .. }), "{error}");
        let mut other = contents();
        other.debian.clear();
        let error = document(&other, LOCK).unwrap_err();
        assert!(error.to_string().contains("libc6-dev"), "{error}");
    }
}
