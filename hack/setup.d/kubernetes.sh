# shellcheck shell=bash
# What hack/cluster makes its nodes and control planes from. Nothing is installed, nothing is started.
# Sourced by hack/setup.
#
#   $cache/kubernetes/VERSION/bin   Kubernetes, built from its Go module
#   $cache/kubernetes/coredns       the cluster's DNS server, with the plugins that it needs
#   $cache/kubernetes/metrics       metrics-server, for kubectl top
#   $cache/kubernetes/etcd          Debian testing's package
#   $cache/kubernetes/registry      Debian's package docker-registry
#   $cache/kubernetes/node/KEY      the root file system of a node: Debian 12 with systemd
#   $cache/kubernetes/images/KEY    the images busybox and pause, as OCI archives

coredns_version=1.14.7
metrics_version=0.9.0
kubernetes_programs=(kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubectl kubelet)

# Debian 12: later releases' systemd refuses to start on cgroup v1. containerd is not among the packages: each
# node gets the version that it is asked for.
node_release=bookworm
node_packages=systemd,systemd-sysv,dbus,iproute2,iptables,procps,kmod,ca-certificates,runc,containernetworking-plugins,conntrack,ethtool,socat,curl
# Nobody reads them in there.
node_skipped=(/usr/share/doc /usr/share/man /usr/share/locale)
# What a machine without hardware and users does not need.
node_masked=(getty@tty1.service console-getty.service systemd-timesyncd.service systemd-networkd.service
    systemd-resolved.service systemd-udevd.service systemd-udevd-kernel.socket systemd-udevd-control.socket
    systemd-udev-trigger.service fstrim.timer apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer
    e2scrub_all.timer e2scrub_reap.service systemd-update-utmp.service systemd-update-utmp-runlevel.service
    systemd-logind.service systemd-remount-fs.service dev-hugepages.mount sys-kernel-debug.mount
    sys-kernel-tracing.mount sys-fs-fuse-connections.mount systemd-modules-load.service systemd-sysctl.service
    systemd-binfmt.service proc-sys-fs-binfmt_misc.automount getty.target)

node_key() {
    { echo "$node_release $node_packages ${node_skipped[*]} ${node_masked[*]}" && declare -f make_node_root; } |
        sha256sum | cut -c1-16
}

coredns_key() { echo "$coredns_version $(declare -f build_coredns | sha256sum | cut -c1-16)"; }

images_key() { declare -f make_images oci_archive blob | sha256sum | cut -c1-16; }

# Every module is built in one of its own that names it as its tools: `go install module@version` refuses
# those with replace directives, which Kubernetes has for each of its libraries.
go_module() {
    local folder=$1
    rm -rf "$folder"
    mkdir -p "$folder/bin"
    printf 'module wasmlet.dev/hack/%s\n\ngo 1.26.0\n\n' "$(basename "$folder" .new)" >"$folder/go.mod"
    export GOFLAGS=-mod=mod CGO_ENABLED=0 GOWORK=off
}

prepare_kubernetes() {
    local version=$1 new=$2 module program
    go_module "$new"
    module=$("$go" mod download -json "k8s.io/kubernetes@v$version" | jq -r .GoMod)
    {
        for program in "${kubernetes_programs[@]}"; do echo "tool k8s.io/kubernetes/cmd/$program"; done
        echo "require k8s.io/kubernetes v$version"
        # Inside its repository Kubernetes takes its libraries from folders; they are published under the
        # same minor and patch with major 0.
        "$go" mod edit -json "$module" |
            jq -r --arg version "v0.${version#*.}" '.Replace[] | select(.New.Path | startswith("./staging/")) |
                "replace \(.Old.Path) => \(.Old.Path) \($version)"'
    } >>"$new/go.mod"
    grep -q '^replace k8s.io/api =>' "$new/go.mod" || {
        echo "the module k8s.io/kubernetes $version names its libraries in another way than was expected; see $module"
        return 1
    }
    (cd "$new" && "$go" mod download k8s.io/kubernetes)
}

build_kubernetes() {
    local version=$1 new=$2 program=$3 minor
    minor=${version#*.}
    export GOFLAGS=-mod=mod CGO_ENABLED=0 GOWORK=off
    local package=k8s.io/component-base/version
    (cd "$new" && "$go" build -trimpath -o bin/ -ldflags "-s -w -X $package.gitVersion=v$version \
        -X $package.gitMajor=${version%%.*} -X $package.gitMinor=${minor%%.*} -X $package.gitTreeState=clean" \
        "k8s.io/kubernetes/cmd/$program")
    [ "$("$new/bin/$program" --version 2>/dev/null | cut -d' ' -f2)" = "v$version" ] ||
        [ "$program" = kubectl ] || {
        echo "this is not $program $version: $("$new/bin/$program" --version)"
        return 1
    }
}

setup_kubernetes() {
    local version=$1
    # With root only: a node's files have owners.
    need_root "hack/setup kubernetes"
    setup_packages mmdebstrap openssl iproute2 jq curl util-linux gcc libc6-dev strace
    setup_kubernetes_packages
    # Other components need not wait for what takes minutes.
    go=
    if ! kubernetes_is_built "$version"; then
        go=$(find_go)
        exclusively setup-kubernetes
        setup_kubernetes_modules "$version"
        exclusively setup
    fi
}

kubernetes_is_built() {
    [ -e "$cache/kubernetes/$1/source" ] &&
        [ "$(cat "$cache/kubernetes/coredns/version" 2>/dev/null)" = "$(coredns_key)" ] &&
        [ "$(cat "$cache/kubernetes/metrics/version" 2>/dev/null)" = "$metrics_version" ]
}

# With the packages too: a cache folder may have come from another machine.
kubernetes_is_complete() {
    local program
    for program in openssl ip jq curl nsenter gcc mmdebstrap strace; do
        command -v "$program" >/dev/null || return 1
    done
    kubernetes_is_built "$1" && [ -x "$cache/kubernetes/etcd/bin/etcd" ] &&
        [ -x "$cache/kubernetes/registry/bin/docker-registry" ] &&
        [ -e "$cache/kubernetes/images/$(images_key)/pause.tar" ] && [ -e "$cache/kubernetes/node/$(node_key)/etc/os-release" ]
}

# What is built from Go modules.
setup_kubernetes_modules() {
    local version=$1 final=$cache/kubernetes/$1 program
    local new=$final.new
    if [ ! -e "$final/source" ]; then
        # What an interrupted run has built already is kept.
        [ -e "$new/prepared" ] || {
            step "fetching Kubernetes $version (Go modules)" "$logs/setup-kubernetes-modules.log" \
                prepare_kubernetes "$version" "$new"
            : >"$new/prepared"
        }
        for program in "${kubernetes_programs[@]}"; do
            [ ! -e "$new/bin/$program.done" ] || continue
            step "building $program $version" "$logs/setup-$program.log" build_kubernetes "$version" "$new" "$program"
            : >"$new/bin/$program.done"
        done
        rm -f "$new"/bin/*.done "$new/prepared"
        echo "Go module, built with $("$go" version)" >"$new/source"
        publish "$new" "$final"
        did "built Kubernetes $version into $final"
    fi
    if [ "$(cat "$cache/kubernetes/coredns/version" 2>/dev/null)" != "$(coredns_key)" ]; then
        step "building CoreDNS $coredns_version from its Go module" "$logs/setup-coredns.log" \
            build_coredns "$cache/kubernetes/coredns.new"
        did "built CoreDNS $coredns_version into $cache/kubernetes/coredns"
    fi
    if [ "$(cat "$cache/kubernetes/metrics/version" 2>/dev/null)" != "$metrics_version" ]; then
        step "building metrics-server $metrics_version from its Go module" "$logs/setup-metrics.log" \
            build_metrics "$cache/kubernetes/metrics.new"
        did "built metrics-server $metrics_version into $cache/kubernetes/metrics"
    fi
}

# What comes from Debian packages. The Kubernetes version makes no difference to it.
setup_kubernetes_packages() {
    local key
    if [ ! -x "$cache/kubernetes/etcd/bin/etcd" ]; then
        step "unpacking etcd from Debian testing" "$logs/setup-etcd.log" unpack_program forky etcd-server etcd
        did "unpacked etcd into $cache/kubernetes/etcd"
    fi
    if [ ! -x "$cache/kubernetes/registry/bin/docker-registry" ]; then
        step "unpacking docker-registry from Debian 12" "$logs/setup-registry.log" \
            unpack_program bookworm docker-registry registry
        did "unpacked docker-registry into $cache/kubernetes/registry"
    fi
    key=$(images_key)
    if [ ! -e "$cache/kubernetes/images/$key/pause.tar" ]; then
        step "making the images busybox and pause" "$logs/setup-images.log" make_images "$cache/kubernetes/images.new"
        rm -rf "$cache/kubernetes/images"
        publish "$cache/kubernetes/images.new" "$cache/kubernetes/images/$key"
        did "made the images busybox and pause"
    fi
    key=$(node_key)
    if [ ! -e "$cache/kubernetes/node/$key/etc/os-release" ]; then
        step "making the root file system of nodes (Debian 12 with systemd)" "$logs/setup-node.log" \
            make_node_root "$cache/kubernetes/node.new"
        publish "$cache/kubernetes/node.new" "$cache/kubernetes/node/$key"
        remove_old_node_roots "$key"
        did "made a node's root file system in $cache/kubernetes/node/$key"
    fi
}

# Those of earlier keys, but for one on which a cluster is standing.
remove_old_node_roots() {
    local folder
    for folder in "$cache"/kubernetes/node/*; do
        [ "$(basename "$folder")" != "$1" ] || continue
        grep -qxF "$folder" "$cache"/clusters/*/node-root 2>/dev/null || rm -rf --one-file-system "$folder"
    done
}

# unpack_program RELEASE PACKAGE NAME: the package's programs into $cache/kubernetes/NAME/bin.
unpack_program() {
    local release=$1 package=$2 final=$cache/kubernetes/$3
    local new=$final.new
    rm -rf "$new"
    mkdir -p "$new/bin"
    debian_release "$release"
    debian_unpack "$release" "$new/root" "$package"
    mv "$new"/root/usr/bin/* "$new/bin/"
    rm -rf "$new/root"
    "$new"/bin/"$(basename "$package" -server)" --version
    publish "$new" "$final"
}

# Its own main package has clients of three clouds in it, which are most of its build.
build_coredns() {
    local new=$1
    go_module "$new"
    cat >"$new/main.go" <<'GO'
// CoreDNS with the plugins that hack/cluster's Corefile names.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
)

func main() {
	// The order in which a query passes them.
	dnsserver.Directives = []string{"bind", "health", "ready", "errors", "cache", "kubernetes", "forward"}
	coremain.Run()
}
GO
    echo "require github.com/coredns/coredns v$coredns_version" >>"$new/go.mod"
    (cd "$new" && "$go" build -trimpath -ldflags '-s -w' -o bin/coredns .)
    "$new/bin/coredns" -version
    coredns_key >"$new/version"
    publish "$new" "$cache/kubernetes/coredns"
}

build_metrics() {
    local new=$1
    go_module "$new"
    echo "require sigs.k8s.io/metrics-server v$metrics_version" >>"$new/go.mod"
    (cd "$new" && "$go" build -trimpath -ldflags '-s -w' -o bin/ sigs.k8s.io/metrics-server/cmd/metrics-server)
    "$new/bin/metrics-server" --version
    echo "$metrics_version" >"$new/version"
    publish "$new" "$cache/kubernetes/metrics"
}

make_node_root() {
    local new=$1 excludes=() path unit
    for path in "${node_skipped[@]}"; do excludes+=("--dpkgopt=path-exclude=$path/*"); done
    rm -rf --one-file-system "$new"
    debian_release "$node_release"
    mmdebstrap --variant=minbase --include="$node_packages" "${excludes[@]}" \
        --aptopt='APT::Install-Recommends "false"' "$node_release" "$new" "$cache/apt/$node_release/sources.list"
    # shellcheck disable=SC2115 # never empty
    rm -rf "$new"/boot/* "$new"/var/cache/apt/*.bin "$new"/var/lib/apt/lists/* "$new"/dev/*
    for unit in "${node_masked[@]}"; do ln -sf /dev/null "$new/etc/systemd/system/$unit"; done
    ln -sf /lib/systemd/system/multi-user.target "$new/etc/systemd/system/default.target"
    # Each node's own is written before its start; an empty one is made by systemd otherwise.
    : >"$new/etc/machine-id"
    : >"$new/etc/fstab"
    rm -f "$new/etc/hostname" "$new/etc/resolv.conf"
    # Kept, so that `logs` can tell what was before a reboot.
    mkdir -p "$new/var/log/journal" "$new/etc/systemd/journald.conf.d"
    printf '[Journal]\nStorage=persistent\nSystemMaxUse=200M\nRateLimitIntervalSec=0\nForwardToSyslog=no\nReadKMsg=no\nAudit=no\n' \
        >"$new/etc/systemd/journald.conf.d/node.conf"
    [ -x "$new/lib/systemd/systemd" ]
}

# blob LAYOUT FILE: puts a file into an OCI layout; prints its descriptor's digest and size.
blob() {
    local digest
    digest=$(sha256sum "$2" | cut -d' ' -f1)
    jq -cn --arg digest "sha256:$digest" --argjson size "$(stat -c %s "$2")" '{digest: $digest, size: $size}'
    mv "$2" "$1/blobs/sha256/$digest"
}

# oci_archive ARCHIVE NAME TREE ENTRYPOINT: an image of one layer.
oci_archive() {
    local archive=$1 name=$2 tree=$3 entrypoint=$4 layout=$1.layout diff layer config manifest machine=amd64
    [ "$(uname -m)" != aarch64 ] || machine=arm64
    mkdir -p "$layout/blobs/sha256"
    # Always the same bytes: the digest is the image's name for a registry.
    tar --create --file "$layout/layer" --directory "$tree" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 .
    diff=$(sha256sum "$layout/layer" | cut -d' ' -f1)
    layer=$(blob "$layout" "$layout/layer")
    jq -cn --arg machine "$machine" --arg entrypoint "$entrypoint" --arg diff "sha256:$diff" \
        '{architecture: $machine, os: "linux", rootfs: {type: "layers", diff_ids: [$diff]},
          config: {Env: ["PATH=/bin"], Cmd: [$entrypoint]}}' >"$layout/config"
    config=$(blob "$layout" "$layout/config")
    jq -cn --argjson config "$config" --argjson layer "$layer" \
        '{schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json",
          config: ($config + {mediaType: "application/vnd.oci.image.config.v1+json"}),
          layers: [$layer + {mediaType: "application/vnd.oci.image.layer.v1.tar"}]}' >"$layout/manifest"
    manifest=$(blob "$layout" "$layout/manifest")
    jq -cn --argjson manifest "$manifest" --arg name "$name" --arg machine "$machine" \
        '{schemaVersion: 2, manifests: [$manifest + {mediaType: "application/vnd.oci.image.manifest.v1+json",
          platform: {os: "linux", architecture: $machine},
          annotations: {"io.containerd.image.name": $name, "org.opencontainers.image.ref.name": $name}}]}' >"$layout/index.json"
    echo '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
    tar --create --file "$archive" --directory "$layout" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 .
    rm -rf "$layout"
}

make_images() {
    local new=$1 applet
    rm -rf "$new"
    mkdir -p "$new/busybox/bin" "$new/busybox/tmp" "$new/busybox/etc" "$new/pause"
    chmod 1777 "$new/busybox/tmp"
    debian_release bookworm
    debian_unpack bookworm "$new/root" busybox-static
    mv "$new/root/bin/busybox" "$new/busybox/bin/"
    for applet in $("$new/busybox/bin/busybox" --list); do
        [ "$applet" = busybox ] || ln -s busybox "$new/busybox/bin/$applet"
    done
    echo 'root:x:0:0:root:/:/bin/sh' >"$new/busybox/etc/passwd"
    echo 'root:x:0:' >"$new/busybox/etc/group"
    oci_archive "$new/busybox.tar" docker.io/library/busybox:1 "$new/busybox" sh
    # A pod's first process: it waits for the processes that are left to it, until it is told to end.
    cat >"$new/pause.c" <<'C'
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, 0);
    for (;;) {
        int got;
        if (sigwait(&all, &got)) return 1;
        if (got == SIGTERM || got == SIGINT) return 0;
        while (waitpid(-1, 0, WNOHANG) > 0) continue;
    }
}
C
    gcc -Os -static -s -o "$new/pause/pause" "$new/pause.c"
    oci_archive "$new/pause.tar" wasmlet.test/pause:1 "$new/pause" /pause
    rm -rf "$new/root" "$new/busybox" "$new/pause" "$new/pause.c"
}
