# shellcheck shell=bash
# What a cluster has to say when something went wrong. Sourced by hack/cluster.

# journal NODE OPTION…: of a node that runs or is off.
journal() {
    local node=$1
    shift
    if node_is_off "$node"; then
        journalctl --no-pager --directory "$dir/nodes/$node/disk/var/log/journal" "$@" 2>/dev/null ||
            echo "the node is off, and this machine has no journalctl to read its journal with"
    else
        node_exec "$node" journalctl --no-pager "$@"
    fi
}

# show_logs [NODE|PROGRAM [UNIT]]
show_logs() {
    local daemon
    if [ $# = 0 ]; then
        for daemon in "${control_plane[@]}"; do
            echo "== $daemon ($dir/logs/$daemon.log)"
            tail -n 20 "$dir/logs/$daemon.log" 2>/dev/null || true
        done
    elif [ -e "$dir/nodes/$1/settings" ]; then
        journal "$1" ${2:+--unit "$2"}
    elif [ -e "$dir/logs/$1.log" ]; then
        cat "$dir/logs/$1.log"
    else
        die "neither a node nor a program of the control plane: \"$1\"; nodes: $(nodes | tr '\n' ' '); programs: ${control_plane[*]}"
    fi
}

# collect FOLDER: everything, of whatever still answers.
collect() {
    local to=$1 node what
    mkdir -p "$to/control-plane"
    cp "$dir"/logs/*.log "$to/control-plane/" 2>/dev/null || true
    status >"$to/status.txt" 2>&1 || true
    for node in $(nodes); do
        mkdir -p "$to/$node"
        cp "$dir/nodes/$node/console.log" "$to/$node/" 2>/dev/null || true
        journal "$node" --output short-precise >"$to/$node/journal.log" 2>&1 || true
        for what in containerd kubelet kube-proxy; do
            journal "$node" --output short-precise --unit "$what" >"$to/$node/$what.log" 2>&1 || true
        done
        cp -r "$dir/nodes/$node/disk/etc/containerd" "$to/$node/etc-containerd" 2>/dev/null || true
        # Links in /var/log/containers lead to these.
        cp -r "$dir/nodes/$node/disk/var/log/pods" "$to/$node/pods" 2>/dev/null || true
        ! node_is_off "$node" || continue
        {
            node_exec "$node" systemctl --no-pager --failed
            node_exec "$node" ctr --namespace k8s.io containers list
            node_exec "$node" ctr --namespace k8s.io tasks list
            node_exec "$node" ctr --namespace k8s.io images list
            node_exec "$node" ps -ef --forest
            node_exec "$node" cat /proc/mounts
            node_exec "$node" ip address
            node_exec "$node" ip route
        } >"$to/$node/state.txt" 2>&1 || true
        node_exec "$node" containerd config dump >"$to/$node/containerd-config-dump.toml" 2>&1 || true
    done
    if api_answers; then
        kubectl get events --all-namespaces --sort-by=.lastTimestamp >"$to/events.txt" 2>&1 || true
        kubectl get all,runtimeclasses,nodes --all-namespaces --output wide >"$to/objects.txt" 2>&1 || true
        kubectl get pods --all-namespaces --output yaml >"$to/pods.yaml" 2>&1 || true
        kubectl describe nodes >"$to/nodes.txt" 2>&1 || true
        kubectl describe pods --all-namespaces >"$to/pods.txt" 2>&1 || true
    else
        echo "kube-apiserver does not answer" >"$to/objects.txt"
    fi
}

# How things are. Fails when something is not as it should be.
status() {
    local node daemon bad=0 state
    echo "cluster $name: Kubernetes $kubernetes, cgroup driver $driver, network $net.0.0/16"
    for daemon in "${control_plane[@]}"; do
        if ! living "$dir/run/$daemon" >/dev/null; then
            echo "$daemon: not running; log: $dir/logs/$daemon.log"
            bad=1
        fi
    done
    api_answers || {
        echo "kube-apiserver: no answer"
        bad=1
    }
    for node in $(nodes); do
        state=Ready
        if node_is_off "$node"; then
            state=off
        elif ! node_ready "$node"; then
            state='not Ready'
        fi
        [ "$state" = Ready ] || bad=1
        printf '%s: %s, %s, containerd %s, pods %s\n' "$node" "$state" "$(node_address "$node")" \
            "$(setting "$dir/nodes/$node" containerd)" "$(node_pods "$node")"
    done
    echo "registry: $registry"
    echo "kubeconfig: $dir/kubeconfig"
    [ -e "$dir/complete" ] || {
        echo "it is half built: hack/cluster up --name $name builds it anew, hack/cluster down --name $name removes it"
        bad=1
    }
    return "$bad"
}
