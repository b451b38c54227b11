//! Processes of pods on a node, and the memory that they take.

use super::OnNode;

/// A process of a pod, or a shim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// On the node.
    pub pid: u32,
    /// Its parent there.
    pub parent: u32,
    /// The program's name.
    pub program: String,
    /// Memory: what is its own, and its part of what it shares. In kilobytes.
    pub pss_kb: u64,
    /// The same without what is a file's, such as the program's text.
    pub anonymous_kb: u64,
    /// Its cgroup, of the memory controller or of version 2.
    pub cgroup: String,
}

impl Process {
    /// Whether it runs a guest of WebAssembly. WasmEdge's program is run by the loader that comes with it.
    pub fn is_guest(&self) -> bool {
        self.program.starts_with("wasmlet-run-") || self.program.starts_with("ld-linux")
    }

    /// Whether it is a shim, of whatever runtime.
    pub fn is_shim(&self) -> bool {
        self.program.starts_with("containerd-shim")
    }
}

/// All processes in the cgroups of pods, and all shims.
#[track_caller]
pub fn pod_processes(node: &OnNode) -> Vec<Process> {
    let text = node.sh(SCRIPT);
    text.lines()
        .map(|line| parse(line).unwrap_or_else(|| panic!("a line of another form: {line:?}")))
        .collect()
}

fn parse(line: &str) -> Option<Process> {
    let mut words = line.split(' ');
    let mut number = || words.next()?.parse().ok();
    let (pid, parent, pss_kb, anonymous_kb) = (number()?, number()?, number()?, number()?);
    let [pid, parent] = [pid, parent].map(u32::try_from);
    Some(Process {
        pid: pid.ok()?,
        parent: parent.ok()?,
        pss_kb,
        anonymous_kb,
        cgroup: words.next()?.to_owned(),
        program: words.next()?.rsplit('/').next()?.to_owned(),
    })
}

// A process that ends meanwhile is none.
const SCRIPT: &str = r#"
for p in /proc/[0-9]*; do
    program=$(readlink $p/exe 2>/dev/null) || continue
    cgroup=$(sed -n -e 's/^[0-9]*:memory://p' -e 's/^0:://p' $p/cgroup 2>/dev/null | head -n 1)
    case $cgroup,${program##*/} in
        *kubepods*,* | *,containerd-shim*) ;;
        *) continue ;;
    esac
    parent=$(sed -n 's/^PPid:\t//p' $p/status 2>/dev/null)
    memory=$(awk '/^Pss:/ { pss = $2 } /^Pss_Anon:/ { anon = $2 } END { print pss + 0, anon + 0 }' $p/smaps_rollup 2>/dev/null)
    [ -n "$parent" ] && [ -n "$memory" ] || continue
    echo "${p#/proc/} $parent $memory $cgroup $program"
done
"#;
