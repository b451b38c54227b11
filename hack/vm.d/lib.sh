# shellcheck shell=bash
# For scripts inside the machine. Sourced.

set -Eeuo pipefail
shopt -s inherit_errexit
trap 'echo "FAILED at $BASH_SOURCE:$LINENO (exit code $?): $BASH_COMMAND"; evidence' ERR

runtime=io.containerd.wasm.v1

ok() { echo "ok $(cut -d. -f1 /proc/uptime) s: $*"; }
fail() {
    echo "FAILED: $*"
    evidence
    exit 1
}

# equal WHAT ACTUAL EXPECTED
equal() { [ "$2" = "$3" ] || fail "$1 is \"$2\", not \"$3\""; }

# What helps to find out why.
evidence() {
    trap - ERR
    journalctl --no-pager --boot --lines=60 --unit=containerd | grep -v 'loading plugin' || true
    journalctl --no-pager --boot --lines=20 --unit='wasmlet-*' --unit='run-*.scope'
    systemd-cgls --no-pager --xattr=no --cgroup-id=no || true
    ctr tasks ls || true
}

# within SECONDS WHAT COMMAND…: waits until the command succeeds.
within() {
    local seconds=$1 what=$2 deadline=$((SECONDS + $1))
    shift 2
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || fail "not within $seconds s: $what"
        sleep 0.1
    done
}

install_programs() {
    ln -s /data/bin/* /usr/local/bin/
    local image
    for image in /data/images/*.tar; do
        ctr images import "$image" >/dev/null
    done
}

image() { echo "localhost/vm/$1:latest"; }

pid_of() { ctr tasks ls | awk -v id="$1" '$1 == id { print $2 }'; }
status_of() { ctr tasks ls | awk -v id="$1" '$1 == id { print $3 }'; }
is() { [ "$(status_of "$1")" = "$2" ]; }

# The folder of a process's cgroup. On pure v2 there is one line.
cgroup_of() {
    local line
    line=$(cat "/proc/$1/cgroup")
    [ "${line#0::}" != "$line" ] || fail "process $1 is in no v2 cgroup: $line"
    echo "/sys/fs/cgroup${line#0::}"
}

# start GUEST ID OPTION…: in the background, its output in a file.
start() {
    local guest=$1 id=$2
    shift 2
    ctr run --detach --runtime "$runtime" --log-uri "file:///run/$id.log" "$@" "$(image "$guest")" "$id"
    is "$id" RUNNING || fail "$id is $(status_of "$id") after its start"
}

# remove ID: ends it and deletes it.
remove() {
    ctr tasks kill --signal SIGKILL "$1"
    within 20 "end of $1" is "$1" STOPPED
    # ctr says how the task ended with its own exit code.
    ctr tasks delete "$1" >/dev/null || [ "$?" = 137 ]
    ctr containers delete "$1"
}
