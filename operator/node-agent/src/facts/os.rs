//! `/etc/os-release` (os-release(5)).

/// What the operating system says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OsRelease {
    /// `ID`, for example `debian`; `linux` where there is none, as os-release(5) says.
    pub id: String,
    /// `PRETTY_NAME`, or the id.
    pub name: String,
}

impl OsRelease {
    /// Lines that are no assignments are comments, or nobody's.
    pub fn parse(text: &str) -> Self {
        let get = |key: &str| {
            text.lines()
                .filter_map(|line| line.trim().split_once('='))
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value.trim_matches(['"', '\'']).to_owned())
                .filter(|value| !value.is_empty())
        };
        let id = get("ID").unwrap_or_else(|| "linux".to_owned());
        let name = get("PRETTY_NAME").unwrap_or_else(|| id.clone());
        Self { id, name }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_not_part_of_a_value() {
        let os = OsRelease::parse("# x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\nID='debian'\n");
        assert_eq!(os.id, "debian");
        assert_eq!(os.name, "Debian GNU/Linux 12");
    }

    #[test]
    fn a_system_without_an_id_is_linux() {
        assert_eq!(OsRelease::parse("").id, "linux");
        assert_eq!(OsRelease::parse("ID=\n").name, "linux");
    }
}
