# shellcheck shell=bash
# Installs the shim as docs/install-by-hand.md tells an administrator to: the page's own blocks are run, so the
# page is what is tested. Sourced by hack/cluster.

install_page=$root/docs/install-by-hand.md

# blocks WHERE [VERSION]: the page's shell blocks that are marked {run-on=WHERE}, and not for another version
# of containerd's configuration ({run-on=node config=3}). Each in a shell of its own, as it is for somebody who
# pastes them one by one.
blocks() {
    awk -v where="run-on=$1" -v version="${2:-}" '
        /^```/ && inside { inside = 0; print ")"; next }
        /^```sh \{.*\}$/ {
            marks = $0
            gsub(/^```sh \{|\}$/, "", marks)
            count = split(marks, mark, " ")
            wanted = 0
            for (i = 1; i <= count; i++) if (mark[i] == where) wanted = 1
            for (i = 1; i <= count; i++) if (mark[i] ~ /^config=/ && mark[i] != "config=" version) wanted = 0
            inside = wanted
            if (inside) print "("
            next
        }
        inside { print }
    ' "$install_page"
}

# install_shim FOLDER: with bin and lib in it.
install_shim() {
    local from=$1 node
    [ -x "$from/bin/containerd-shim-wasm-v1" ] ||
        die "no $from/bin/containerd-shim-wasm-v1: run hack/build, or name the folder with bin and lib: --from DIR"
    check_nodes_for_install
    for node in $(nodes); do
        step "installing on $node (containerd $(setting "$dir/nodes/$node" containerd)) as $(basename "$install_page") says" \
            "$dir/logs/install-$node.log" install_on_node "$node" "$from"
    done
    step "labelling the nodes, and the RuntimeClasses" "$dir/logs/install-admin.log" run_as_admin admin
    say "wasmlet is installed on $(nodes | tr '\n' ' ')"
}

remove_shim() {
    local node
    check_nodes_for_install
    step "taking the labels off the nodes" "$dir/logs/install-admin.log" run_as_admin admin-to-remove
    for node in $(nodes); do
        step "removing from $node" "$dir/logs/install-$node.log" run_on_node "$node" node-to-remove
    done
    say "wasmlet is no longer on $(nodes | tr '\n' ' ')"
}

check_nodes_for_install() {
    local where node
    for where in 'node 2' 'node 3' admin admin-to-remove node-to-remove; do
        # shellcheck disable=SC2086 # two words
        [ -n "$(blocks $where)" ] || die "no shell blocks marked run-on=$where in $install_page"
    done
    for node in $(nodes); do
        ! node_is_off "$node" || die "$node is off: hack/cluster node start $node --name $name"
    done
}

install_on_node() {
    local node=$1 from=$2
    # The page begins with the programs in this folder on the node.
    node_exec "$node" rm -rf /root/wasmlet
    node_exec "$node" mkdir /root/wasmlet
    tar --create --directory "$from" bin lib | node_exec "$node" tar --extract --no-same-owner --directory /root/wasmlet
    run_on_node "$node" node
    node_exec "$node" rm -rf /root/wasmlet
}

# run_on_node NODE WHERE
run_on_node() {
    local version
    version=$(node_exec "$1" sed -n 's/^version = //p' /etc/containerd/config.toml)
    # The block for 3 is for what came after it, too.
    [ "$version" -lt 3 ] || version=3
    node_exec "$1" sh -c "set -eux
$(blocks "$2" "$version")"
}

run_as_admin() {
    local node
    for node in $(nodes); do
        (cd "$root" && env PATH="$programs:$PATH" KUBECONFIG="$dir/kubeconfig" NODE="$node" sh -c "set -eux
$(blocks "$1")")
    done
}
