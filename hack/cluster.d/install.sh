# shellcheck shell=bash
# Installs the shim as docs/install-by-hand.md tells an administrator to: the page's own blocks are run, so the
# page is what is tested. Sourced by hack/cluster.

install_page=$root/docs/install-by-hand.md

# blocks WHERE [CONTAINERD-MAJOR]: the page's shell blocks that are marked {run-on=WHERE} or, beside that, for
# one of containerd's major versions ({run-on=node containerd=2}).
blocks() {
    awk -v where="run-on=$1" -v major="${2:-}" '
        /^```/ && inside { inside = 0; print ""; next }
        /^```sh \{.*\}$/ {
            marks = $0
            gsub(/^```sh \{|\}$/, "", marks)
            count = split(marks, mark, " ")
            wanted = 0
            for (i = 1; i <= count; i++) {
                if (mark[i] == where) wanted = 1
            }
            for (i = 1; i <= count; i++) {
                if (mark[i] ~ /^containerd=/ && mark[i] != "containerd=" major) wanted = 0
            }
            inside = wanted
            next
        }
        inside { print }
    ' "$install_page"
}

# install_shim FOLDER: with bin and lib in it.
install_shim() {
    local from=$1 node version
    [ -x "$from/bin/containerd-shim-wasm-v1" ] ||
        die "no $from/bin/containerd-shim-wasm-v1: run hack/build, or name the folder with bin and lib: --from DIR"
    if [ -z "$(blocks node 1)" ] || [ -z "$(blocks node 2)" ] || [ -z "$(blocks admin)" ]; then
        die "no blocks for nodes or the administrator in $install_page"
    fi
    for node in $(nodes); do
        ! node_is_off "$node" || die "$node is off: hack/cluster node start $node --name $name"
        version=$(setting "$dir/nodes/$node" containerd)
        step "installing on $node (containerd $version) as $(basename "$install_page") says" "$dir/logs/install-$node.log" \
            install_on_node "$node" "${version%%.*}" "$from"
    done
    step "telling the cluster" "$dir/logs/install-admin.log" install_in_cluster
}

install_on_node() {
    local node=$1 major=$2 from=$3
    # The page begins with the programs in this folder on the node.
    node_exec "$node" rm -rf /root/wasmlet
    node_exec "$node" mkdir /root/wasmlet
    tar --create --directory "$from" bin lib | node_exec "$node" tar --extract --no-same-owner --directory /root/wasmlet
    # Each block in a shell of its own, as somebody who pastes them one by one.
    { echo 'set -eux'; blocks node "$major"; } >"$dir/nodes/$node/install.sh"
    node_exec "$node" sh -c "$(cat "$dir/nodes/$node/install.sh")"
    node_exec "$node" rm -rf /root/wasmlet
}

install_in_cluster() {
    local node script
    script=$(blocks admin)
    for node in $(nodes); do
        (cd "$root" && env PATH="$programs:$PATH" KUBECONFIG="$dir/kubeconfig" NODE="$node" sh -c "set -eux; $script")
    done
}
