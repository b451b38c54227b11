# shellcheck shell=bash
# A containerd of one's own: root, state, socket and log in one folder, nothing shared with one that
# the machine may run. Sourced after lib.sh.

# start_containerd VERSION FOLDER [LAUNCHER…]: returns when it answers. Sets $containerd_pid and $snapshotter.
# A launcher is a command that becomes the one behind it.
start_containerd() {
    local version=$1 folder=$2 bin schema=3 deadline
    shift 2
    bin=$(containerd_bin "$version")
    case $version in 1.*) schema=2 ;; esac
    # Everything containerd would otherwise put at a fixed place outside the folder is moved or off.
    cat >"$folder/containerd.toml" <<CONF
version = $schema
disabled_plugins = [
    "io.containerd.grpc.v1.cri",
    "io.containerd.cri.v1.images",
    "io.containerd.cri.v1.runtime",
    "io.containerd.nri.v1.nri",
    "io.containerd.internal.v1.tracing",
    "io.containerd.tracing.processor.v1.otlp",
]
[plugins."io.containerd.internal.v1.opt"]
path = "$folder/opt"
CONF
    # A clean environment: what the caller has set (proxies, Rust and Go settings) is not for the
    # programs under test. A session of its own: Ctrl-C is for the script, which still needs
    # containerd to clean up.
    setsid env -i PATH="$target/dist/bin:$bin:/usr/sbin:/usr/bin:/sbin:/bin" HOME="${HOME:-/root}" \
        "$@" "$bin/containerd" --config "$folder/containerd.toml" --root "$folder/root" \
        --state "$folder/state" --address "$folder/containerd.sock" \
        >"$folder/containerd.log" 2>&1 </dev/null 9>&- &
    containerd_pid=$!
    containerd_folder=$folder
    containerd_version=$version
    deadline=$(($(now) + 30))
    until ctr version >/dev/null 2>&1; do
        kill -0 "$containerd_pid" 2>/dev/null || {
            tail -n 20 "$folder/containerd.log" >&2
            warn "containerd $version ended at once; log: $folder/containerd.log"
            return 1
        }
        [ "$(now)" -lt "$deadline" ] || {
            warn "containerd $version did not answer within 30 s; log: $folder/containerd.log"
            return 1
        }
        sleep 0.05
    done
    # overlayfs cannot stand on another overlay (a container's own root, for example).
    # shellcheck disable=SC2034 # used by the scripts
    snapshotter=native
    if ctr plugins ls | awk '$1 ~ /snapshotter/ && $2 == "overlayfs" && $NF == "ok" { found = 1 } END { exit !found }'; then
        # shellcheck disable=SC2034
        snapshotter=overlayfs
    fi
}

# ctr of the private containerd.
ctr() {
    "$(containerd_bin "$containerd_version")/ctr" --address "$containerd_folder/containerd.sock" \
        --namespace "${containerd_namespace:-default}" "$@"
}

# stop_containerd: ends it and removes its mounts. The folder stays.
stop_containerd() {
    [ -n "${containerd_pid:-}" ] || return 0
    kill -TERM "$containerd_pid" 2>/dev/null || true
    local deadline=$(($(now) + 10))
    while kill -0 "$containerd_pid" 2>/dev/null; do
        if [ "$(now)" -ge "$deadline" ]; then
            kill -KILL "$containerd_pid" 2>/dev/null || true
            break
        fi
        sleep 0.05
    done
    wait "$containerd_pid" 2>/dev/null || true
    containerd_pid=
    unmount_below "$containerd_folder"
}

# unmount_below FOLDER: the deepest first.
unmount_below() {
    local folder
    folder=$(cd "$1" 2>/dev/null && pwd -P) || return 0
    awk -v below="$folder/" 'index($5, below) == 1 { print length($5), $5 }' /proc/self/mountinfo |
        sort -rn | cut -d' ' -f2- | while read -r mount; do
        umount -l "$mount" || warn "cannot unmount $mount"
    done
}
