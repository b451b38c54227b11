# shellcheck shell=bash
# What the programs in hack/ share. Sourced, never run.
#
# After sourcing: $root (the clone), $cache (downloads and built tools, outside the clone),
# $target (cargo's target folder), $logs, $me (for messages).

set -Eeuo pipefail
shopt -s inherit_errexit

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
me="hack/$(basename "$0")"
cache=${WASMLET_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/wasmlet}
target=${CARGO_TARGET_DIR:-$root/target}
case $target in /*) ;; *) target=$root/$target ;; esac
# shellcheck disable=SC2034 # used by the scripts
logs=$target/logs
# How often a long step says that it is still at work.
heartbeat_seconds=20
# Lines of what failed tests said that are shown; the rest is in the log.
failure_lines=100

export LC_ALL=C.UTF-8
# Logs are for reading with any program.
export TERM=dumb CARGO_TERM_COLOR=never
# Programs of root that Debian keeps out of an ordinary user's PATH; cargo may be installed and
# not yet be in the PATH of this shell.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin:/usr/local/go/bin
export PATH

# Nothing ends without a word: a command whose failure nobody expected is named. A step that failed has
# said so already.
explained=
unexpected() {
    [ -n "$explained" ] ||
        printf '%s: error: unexpected failure (exit code %s) at %s line %s: %s\n' "$me" "$1" "${3#"$root/"}" "$2" "$4" >&2
    explained=yes
}
trap 'unexpected $? "$LINENO" "${BASH_SOURCE[0]}" "$BASH_COMMAND"' ERR

say() { printf '%s: %s\n' "$me" "$*"; }
warn() { printf '%s: warning: %s\n' "$me" "$*" >&2; }
die() {
    printf '%s: error: %s\n' "$me" "$*" >&2
    exit 1
}

# Prints the comment block at the top of the calling script: the one place where usage is written.
usage() { sed -n '2,/^$/{s/^#$//;s/^# //;p}' "$0" | sed '$d'; }

need_root() {
    [ "$(id -u)" = 0 ] || die "$1 needs root: run it with sudo"
}

now() { date +%s; }

# step TEXT LOG COMMAND…: runs a command with its output in a log. Says what it does, that it is
# still at it, how long it took; on failure shows the log's end and where it is, and fails.
step() {
    local text=$1 log=$2 start status=0
    shift 2
    start=$(now)
    mkdir -p "$(dirname "$log")"
    say "$text …"
    # A process group of its own, so that all of it can be ended when the script is; without the lock,
    # which must not outlive the script in some daemon.
    set -m
    ("$@") >"$log" 2>&1 </dev/null 9>&- &
    step_group=$!
    set +m
    heartbeat "$text" "$log" "$start" 9>&- &
    step_heartbeat=$!
    wait "$step_group" || status=$?
    step_group=
    end_step
    if [ "$status" != 0 ]; then
        show_failures "$log" >&2
        printf '%s: the last lines of %s:\n' "$me" "$log" >&2
        tail -n 40 "$log" | sed 's/^/    /' >&2
        printf '%s: FAILED in step "%s" (exit code %s); log: %s\n' "$me" "$text" "$status" "$log" >&2
        explained=yes
        return "$status"
    fi
    local took=$(($(now) - start))
    [ "$took" -lt 2 ] || say "$text: done in $took s"
}

# show_failures LOG: what the tests that failed said, which may be far above the log's end.
show_failures() {
    local failures
    failures=$(sed -n '/^failures:$/,/^test result: FAILED/p' "$1" | cut -c1-500)
    [ -n "$failures" ] || return 0
    printf '%s: the tests that failed, in %s:\n' "$me" "$1"
    head -n "$failure_lines" <<<"$failures" | sed 's/^/    /'
    if [ "$(wc -l <<<"$failures")" -gt "$failure_lines" ]; then printf '    …\n'; fi
}

# Says now and then that a step is still at it, for as long as the script lives.
heartbeat() {
    local beats=0
    trap - ERR INT TERM
    while kill -0 $$ 2>/dev/null; do
        sleep 1
        beats=$((beats + 1))
        [ $((beats % heartbeat_seconds)) != 0 ] || say "$1: still at it, $(($(now) - $3)) s; log: $2"
    done
}

step_group=
step_heartbeat=
# Ends what a step started, when the script itself is ended.
end_step() {
    if [ -n "$step_group" ]; then
        kill -TERM -- "-$step_group" 2>/dev/null || true
        wait "$step_group" 2>/dev/null || true
        step_group=
    fi
    if [ -n "$step_heartbeat" ]; then
        # Not to be asked: who ignores SIGTERM hands that on to what it starts.
        kill -KILL "$step_heartbeat" 2>/dev/null || true
        wait "$step_heartbeat" 2>/dev/null || true
        step_heartbeat=
    fi
}

interrupted() {
    explained=yes
    end_step
    say "interrupted"
    exit 130
}

terminated() {
    explained=yes
    end_step
    exit 143
}

# Short names only: bash reads a trap's text while it may be in the middle of reading something else.
trap interrupted INT
trap terminated TERM HUP

# exclusively NAME: until the script ends, no other run holds the same name.
exclusively() {
    mkdir -p "$cache/locks"
    exec 9>"$cache/locks/$1"
    if ! flock -n 9; then
        say "another run holds the lock \"$1\"; waiting for it …"
        flock 9
    fi
}

# publish TEMPORARY FINAL: a folder appears whole or not at all.
publish() {
    mkdir -p "$(dirname "$2")"
    rm -rf "$2"
    mv -T "$1" "$2"
}

# The oldest Rust that builds the workspace, and the one pinned for everybody.
rust_pinned() { sed -n 's/^channel = "\(.*\)"/\1/p' "$root/rust-toolchain.toml"; }

version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# Debian's rustc, unpacked into the cache folder by hack/setup where rustup has nothing to offer.
debian_rust=$cache/guests/debian-rust

# Whether `cargo` builds the workspace. Run in $root, so that rust-toolchain.toml counts.
cargo_works() {
    local version
    version=$(cd "$root" && RUSTUP_AUTO_INSTALL=0 cargo --version 2>/dev/null) || return 1
    (cd "$root" && RUSTUP_AUTO_INSTALL=0 rustc --version) >/dev/null 2>&1 || return 1
    version_at_least "$(echo "$version" | cut -d' ' -f2)" "$(rust_pinned)"
}

# Where the crates that are linked to WasmEdge find it, once hack/setup has unpacked it; an installation that
# the user names comes first.
use_wasmedge() {
    local from=$cache/wasmedge
    [ -z "${WASMEDGE_DIR:-}${WASMEDGE_INCLUDE_DIR:-}${WASMEDGE_LIB_DIR:-}" ] || return 0
    [ -e "$from/link/libwasmedge.so" ] || return 0
    # Not lib itself: cargo gives this folder to the compiler as LD_LIBRARY_PATH, where another C library
    # must not be.
    export WASMEDGE_INCLUDE_DIR=$from/include WASMEDGE_LIB_DIR=$from/link
    # libclang without clang has no headers of a compiler: those of gcc do.
    BINDGEN_EXTRA_CLANG_ARGS="-isystem $(gcc -print-file-name=include) ${BINDGEN_EXTRA_CLANG_ARGS:-}"
    export BINDGEN_EXTRA_CLANG_ARGS
}

# Puts a working cargo into PATH, or says what to do.
use_cargo() {
    use_wasmedge
    cargo_works && return
    if [ -x "$debian_rust/bin/cargo" ]; then
        PATH=$debian_rust/bin:$PATH
        cargo_works && return
    fi
    die "no Rust $(rust_pinned) or newer: run hack/setup base"
}

# The triple of this machine.
host_triple() { (cd "$root" && rustc -vV) | sed -n 's/^host: //p'; }

# Folder with the programs of a containerd version.
containerd_bin() { echo "$cache/containerd/$1/bin"; }

# Versions the tests know, oldest first, and the two that every run tries.
# shellcheck disable=SC2034 # used by the scripts
containerd_versions=(1.6.20 1.7.24 2.1.9 2.3.7)
# shellcheck disable=SC2034
containerd_default_versions=(1.6.20 2.3.7)

# The Kubernetes that hack/cluster builds when no other is asked for, and another minor version known to work.
# shellcheck disable=SC2034
kubernetes_version=1.36.3
# shellcheck disable=SC2034
kubernetes_versions=(1.36.3 1.34.4)

# What the chart is rendered and tested with.
# shellcheck disable=SC2034
helm_version=3.22.0
