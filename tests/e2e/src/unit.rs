//! The lives of a systemd unit on a node: whether it was restarted.

use crate::control::NodeControl;

/// One life of a unit: another pid or another moment of its start is another life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitLife {
    /// Its main process.
    pub pid: u32,
    /// Microseconds from the machine's start to the unit's.
    pub since: u64,
}

impl NodeControl {
    /// The present life of a unit; an error if it is not active.
    pub fn unit(&self, node: &str, unit: &str) -> Result<UnitLife, String> {
        let said = self.try_exec(
            node,
            &[
                "systemctl",
                "show",
                unit,
                "--property=MainPID,ActiveState,ActiveEnterTimestampMonotonic",
            ],
        )?;
        parse(&said).ok_or_else(|| format!("{unit} on {node} is not active: {said}"))
    }

    /// The present life of the node's containerd.
    #[track_caller]
    pub fn containerd(&self, node: &str) -> UnitLife {
        match self.unit(node, "containerd") {
            Ok(life) => life,
            Err(error) => panic!("{error}"),
        }
    }
}

fn parse(said: &str) -> Option<UnitLife> {
    let value = |key: &str| {
        said.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    };
    (value("ActiveState")? == "active").then_some(())?;
    Some(UnitLife {
        pid: value("MainPID")?.parse().ok()?,
        since: value("ActiveEnterTimestampMonotonic")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_active_unit_has_a_life() {
        let said = "MainPID=71\nActiveState=active\nActiveEnterTimestampMonotonic=5000\n";
        assert_eq!(
            parse(said),
            Some(UnitLife {
                pid: 71,
                since: 5000
            })
        );
        assert_eq!(parse(&said.replace("=active", "=activating")), None);
        assert_eq!(parse(""), None);
    }
}
