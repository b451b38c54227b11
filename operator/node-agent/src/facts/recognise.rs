//! Which distribution a node is, and where it has its containerd: from its units and files, without looking at anything twice.

use std::path::{Path, PathBuf};

use super::gather::FactsError;
use super::live::{Active, Unit};
use super::os::OsRelease;
use crate::layout::{Distribution, Layout, Source};

/// Another container runtime for a kubelet.
pub(crate) const CRIO: &str = "crio.service";

/// Operating systems on whose nodes nothing can be installed at run time, and what their makers say to do.
const FIXED: [(&str, &str); 4] = [
    (
        "talos",
        "build wasmlet into the image as a system extension (https://docs.siderolabs.com/talos, \"System extensions\")",
    ),
    (
        "bottlerocket",
        "its root is read-only and verified, and its makers give no way to add a runtime; take nodes of another image",
    ),
    (
        "cos",
        "its root is verified and its /etc is made anew at each boot; take nodes with the Ubuntu image with containerd",
    ),
    (
        "rhcos",
        "its kubelet uses CRI-O, whose runtimes wasmlet is not one of; take nodes with containerd",
    ),
];

/// Every unit that is looked for.
pub(crate) fn unit_names() -> Vec<&'static str> {
    let mut names: Vec<_> = Distribution::ALL
        .iter()
        .flat_map(|distribution| distribution.units())
        .copied()
        .collect();
    names.push(CRIO);
    names
}

/// Which distribution it is, and its unit.
pub(crate) fn recognise(
    os: &OsRelease,
    units: &[Unit],
    declared: Option<Distribution>,
) -> Result<(Distribution, Unit), FactsError> {
    if let Some((_, way)) = FIXED.iter().find(|(id, _)| *id == os.id) {
        return Err(FactsError::Unsupported {
            what: os.name.clone(),
            way,
        });
    }
    let of = |distribution: Distribution| {
        let mut found: Vec<_> = units
            .iter()
            .filter(|unit| distribution.units().contains(&unit.name.as_str()))
            .collect();
        // Both the server's and the agent's unit may be known to systemd.
        found.sort_by_key(|unit| unit.active != Active::Running);
        found.first().map(|unit| (distribution, (*unit).clone()))
    };
    let known: Vec<_> = Distribution::ALL.into_iter().filter_map(of).collect();
    let running: Vec<_> = known
        .iter()
        .filter(|(_, unit)| unit.active == Active::Running)
        .cloned()
        .collect();
    let crio = units
        .iter()
        .any(|unit| unit.name == CRIO && unit.active == Active::Running);

    if let Some(declared) = declared {
        let wanted = |list: &[(Distribution, Unit)]| {
            list.iter().find(|(found, _)| *found == declared).cloned()
        };
        return match (wanted(&running), wanted(&known), running.first()) {
            (Some(found), ..) => Ok(found),
            (None, _, Some((found, _))) => Err(FactsError::OtherDistribution {
                declared,
                found: *found,
            }),
            (None, Some(found), None) => Ok(found),
            (None, None, None) => Err(FactsError::NoContainerd),
        };
    }
    // Docker brings a containerd of its own to nodes of k3s and the others: the one of the distribution is the kubelet's.
    let candidates = if running.is_empty() { &known } else { &running };
    let special: Vec<_> = candidates
        .iter()
        .filter(|(distribution, _)| *distribution != Distribution::Containerd)
        .collect();
    match (special.as_slice(), candidates.first()) {
        ([one], _) => Ok((*one).clone()),
        ([first, second, ..], _) => Err(FactsError::Ambiguous(first.0, second.0)),
        ([], _) if crio => Err(FactsError::Crio),
        ([], Some(found)) => Ok(found.clone()),
        ([], None) => Err(FactsError::NoContainerd),
    }
}

/// What decides about a layout besides the unit; the file system's part of it.
pub(crate) trait Files {
    /// The text of a file, if it is there and is text.
    fn text(&self, path: &Path) -> Option<String>;
}

/// Where the distribution has things on this node, and containerd's program.
pub(crate) fn locate(
    distribution: Distribution,
    unit: &Unit,
    files: &impl Files,
) -> Result<(Layout, PathBuf), FactsError> {
    let (loaded, binary, source) = match distribution {
        Distribution::Containerd => own(unit)?,
        Distribution::K3s | Distribution::Rke2 => rendered(distribution, unit, files),
        Distribution::K0s => k0s(files),
        Distribution::Microk8s => {
            let args = Path::new("/var/snap/microk8s/current/args");
            let path = args.join("containerd-template.toml");
            let binary = "/snap/microk8s/current/bin/containerd".into();
            (
                args.join("containerd.toml"),
                binary,
                Source::TomlTemplate { path },
            )
        }
    };
    let layout = Layout {
        distribution,
        unit: unit.name.clone(),
        socket: distribution.socket().into(),
        loaded,
        source,
    };
    Ok((layout, binary))
}

fn own(unit: &Unit) -> Result<(PathBuf, PathBuf, Source), FactsError> {
    let config = flag(&unit.command, &["--config", "-c"]);
    if let Some(config) = config.filter(|config| config.contains('$')) {
        return Err(FactsError::ConfigPath {
            unit: unit.name.clone(),
            path: config.to_owned(),
        });
    }
    let loaded = config.unwrap_or("/etc/containerd/config.toml").into();
    let binary = match unit.command.first() {
        Some(program) => program.into(),
        None => PathBuf::from("/usr/bin/containerd"),
    };
    Ok((loaded, binary, Source::Own))
}

/// k3s and RKE2 write `config.toml` from a template for each version of containerd's configuration; which one it is shows in the
/// file that was written last.
fn rendered(
    distribution: Distribution,
    unit: &Unit,
    files: &impl Files,
) -> (PathBuf, PathBuf, Source) {
    let data = data_dir(distribution, unit, files);
    let folder = data.join("agent/etc/containerd");
    let loaded = folder.join("config.toml");
    let version = files
        .text(&loaded)
        .and_then(|text| crate::config::inspect(&text).ok())
        .and_then(|document| document.version);
    let template = match version {
        Some(3..) => "config-v3.toml.tmpl",
        Some(_) | None => "config.toml.tmpl",
    };
    let path = folder.join(template);
    let binary = match distribution {
        Distribution::Rke2 => data.join("bin/containerd"),
        _ => data.join("data/current/bin/containerd"),
    };
    (loaded, binary, Source::GoTemplate { path })
}

fn data_dir(distribution: Distribution, unit: &Unit, files: &impl Files) -> PathBuf {
    if let Some(folder) = flag(&unit.command, &["--data-dir", "-d"]) {
        return folder.into();
    }
    let config = format!("/etc/rancher/{distribution}/config.yaml");
    let from_file = files.text(Path::new(&config)).and_then(|text| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("data-dir:"))?;
        let value = line.split(" #").next().unwrap_or_default();
        Some(value.trim().trim_matches(['"', '\'']).to_owned())
    });
    match from_file {
        Some(folder) if !folder.is_empty() => folder.into(),
        _ => format!("/var/lib/rancher/{distribution}").into(),
    }
}

/// k0s merges `containerd.d` only while its own file says that it is k0s' to manage.
fn k0s(files: &impl Files) -> (PathBuf, PathBuf, Source) {
    let loaded = PathBuf::from("/etc/k0s/containerd.toml");
    let managed = match files.text(&loaded) {
        Some(text) => text.lines().any(|line| line.trim() == "# k0s_managed=true"),
        // It is written at the first start.
        None => true,
    };
    let source = if managed {
        let folder = "/etc/k0s/containerd.d".into();
        Source::Watched { folder }
    } else {
        Source::Own
    };
    (loaded, "/var/lib/k0s/bin/containerd".into(), source)
}

/// The value of `--name VALUE` or `--name=VALUE`.
fn flag<'a>(command: &'a [String], names: &[&str]) -> Option<&'a str> {
    let mut words = command.iter();
    while let Some(word) = words.next() {
        for name in names {
            if word == name {
                return words.next().map(String::as_str);
            }
            if let Some(value) = word.strip_prefix(name).and_then(|v| v.strip_prefix('=')) {
                return Some(value);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(name: &str, active: Active) -> Unit {
        Unit {
            name: name.to_owned(),
            active,
            command: Vec::new(),
        }
    }

    #[track_caller]
    fn recognised(units: &[(&str, Active)], declared: Option<Distribution>) -> String {
        let units: Vec<_> = units.iter().map(|(name, a)| unit(name, *a)).collect();
        match recognise(&OsRelease::parse("ID=debian"), &units, declared) {
            Ok((distribution, unit)) => format!("{distribution} {}", unit.name),
            Err(error) => error.to_string(),
        }
    }

    use Active::{Failed, Running, Stopped};

    #[test]
    fn the_unit_that_runs_says_which_distribution_it_is() {
        for (name, expected) in [
            ("containerd.service", "containerd"),
            ("k3s-agent.service", "k3s"),
            ("rke2-server.service", "rke2"),
            ("k0sworker.service", "k0s"),
            ("snap.microk8s.daemon-containerd.service", "microk8s"),
        ] {
            assert_eq!(
                recognised(&[(name, Running)], None),
                format!("{expected} {name}")
            );
        }
    }

    #[test]
    fn dockers_containerd_on_a_node_of_k3s_is_not_the_kubelets() {
        let units = [("containerd.service", Running), ("k3s.service", Running)];
        assert_eq!(recognised(&units, None), "k3s k3s.service");
    }

    #[test]
    fn leftovers_of_another_distribution_do_not_count() {
        let units = [("containerd.service", Running), ("k3s.service", Stopped)];
        assert_eq!(recognised(&units, None), "containerd containerd.service");
    }

    #[test]
    fn a_containerd_that_failed_is_still_the_nodes() {
        let units = [("containerd.service", Failed)];
        assert_eq!(recognised(&units, None), "containerd containerd.service");
    }

    #[test]
    fn a_declared_distribution_must_be_the_running_one() {
        let units = [("containerd.service", Running)];
        let error = recognised(&units, Some(Distribution::K3s));
        assert!(error.contains("--distribution k3s"), "{error}");
        assert!(error.contains("containerd runs"), "{error}");
        assert_eq!(
            recognised(&units, Some(Distribution::Containerd)),
            "containerd containerd.service"
        );
    }

    #[test]
    fn two_distributions_that_run_have_to_be_told_apart() {
        let units = [("k3s.service", Running), ("k0sworker.service", Running)];
        assert!(recognised(&units, None).contains("say which"));
        assert_eq!(
            recognised(&units, Some(Distribution::K0s)),
            "k0s k0sworker.service"
        );
    }

    #[test]
    fn a_node_of_cri_o_is_refused_unless_its_containerd_is_declared() {
        let units = [("containerd.service", Running), (CRIO, Running)];
        assert!(recognised(&units, None).contains("CRI-O"));
        assert_eq!(
            recognised(&units, Some(Distribution::Containerd)),
            "containerd containerd.service"
        );
    }

    #[test]
    fn fixed_systems_are_refused_with_the_way_that_their_makers_name() {
        let units = [unit("containerd.service", Running)];
        for (id, way) in [
            ("talos", "system extension"),
            ("bottlerocket", "another image"),
            ("cos", "Ubuntu"),
            ("rhcos", "CRI-O"),
        ] {
            let os = OsRelease::parse(&format!("ID={id}\nPRETTY_NAME=\"The {id}\""));
            let error = recognise(&os, &units, None).unwrap_err().to_string();
            assert!(error.contains(&format!("The {id}")), "{error}");
            assert!(error.contains(way), "{error}");
        }
    }

    #[test]
    fn flags_are_found_in_both_forms() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let names = ["--config", "-c"];
        assert_eq!(flag(&words("containerd --config /a"), &names), Some("/a"));
        assert_eq!(flag(&words("containerd -c=/a -l x"), &names), Some("/a"));
        assert_eq!(flag(&words("containerd -l --config"), &names), None);
        assert_eq!(flag(&words("containerd --configs /a"), &names), None);
    }
}
