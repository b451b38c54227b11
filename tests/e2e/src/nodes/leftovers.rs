//! What pods leave on a node when they are gone: nothing.

use std::collections::BTreeSet;

use crate::{LONG, eventually};

use super::OnNode;

/// What was on a node before a test made pods on it.
pub struct Leftovers<'a> {
    node: &'a OnNode,
    before: BTreeSet<String>,
}

impl<'a> Leftovers<'a> {
    /// Looks at the node as it is.
    #[track_caller]
    pub fn before(node: &'a OnNode) -> Self {
        let before = traces(node).unwrap_or_else(|error| panic!("{error}"));
        Self { node, before }
    }

    /// Waits until nothing is on the node that was not before.
    #[track_caller]
    pub fn until_none(&self) {
        eventually("nothing of the pods is left on the node", LONG, || {
            let now = traces(self.node)?;
            let left: Vec<_> = now.difference(&self.before).map(String::as_str).collect();
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{} traces:\n{}", left.len(), left.join("\n")))
            }
        });
    }
}

fn traces(node: &OnNode) -> Result<BTreeSet<String>, String> {
    let text = node.try_sh(SCRIPT)?;
    Ok(text.lines().map(str::to_owned).collect())
}

// Each a line that says what it is. What has gone between the list and the look is none.
const SCRIPT: &str = r#"
for p in /proc/[0-9]*; do
    program=$(readlink $p/exe 2>/dev/null) || continue
    case ${program##*/},$(cat $p/cgroup 2>/dev/null) in
        # WasmEdge's programs are run by the loader that comes with them.
        containerd-shim*,* | wasmlet-*,* | ld-linux*,* | *,*kubepods*) echo "process ${p#/proc/} $(tr '\0' ' ' <$p/cmdline 2>/dev/null)" ;;
    esac
done
awk '$2 ~ "^(/var)?/run/(containerd|wasmlet|netns)/" || $2 ~ "^/var/lib/kubelet/pods/" { print "mount", $2 }' /proc/mounts
find /sys/fs/cgroup -depth -type d \( -name 'pod*-*' -o -name 'kubepods*-pod*.slice' -o -name '*cri-containerd*' \) \
    -printf 'cgroup %p\n' 2>/dev/null
for folder in /run/netns /run/containerd/runc/k8s.io /run/containerd/io.containerd.runtime.v2.task/k8s.io /run/containerd/s; do
    [ -d $folder ] && find $folder -mindepth 1 -maxdepth 1 -printf 'file %p\n' 2>/dev/null
done
# Not the notes on the cache, which are the node's.
[ -d /run/wasmlet ] && find /run/wasmlet -mindepth 2 -not -path '/run/wasmlet/verified/*' \
    -not -path '*/w' -not -path '*/runc' -printf 'file %p\n' 2>/dev/null
true
"#;
