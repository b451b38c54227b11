# shellcheck shell=bash
# Making a cluster, repairing it, removing it. Sourced by hack/cluster.

# inotify instances that one node needs, and how many there are at least while any cluster is up: the kernel's
# 128 are for all processes of a user together.
inotify_instances=8192
inotify=/proc/sys/fs/inotify/max_user_instances

raise_inotify() {
    local now
    now=$(cat "$inotify")
    [ "$now" -lt "$inotify_instances" ] || return 0
    # Of several clusters the first remembers how it was.
    [ -e "$cache/clusters/inotify" ] || echo "$now" >"$cache/clusters/inotify"
    echo "$inotify_instances" >"$inotify" ||
        die "fs.inotify.max_user_instances is $now and cannot be raised; each node needs about 20. Raise it to $inotify_instances with sysctl"
}

# After the last cluster.
restore_inotify() {
    local file
    for file in "$cache"/clusters/*/settings; do
        [ ! -e "$file" ] || return 0
    done
    [ -e "$cache/clusters/inotify" ] || return 0
    # Unless somebody has set it to something else in the meantime.
    [ "$(cat "$inotify")" != "$inotify_instances" ] || cat "$cache/clusters/inotify" >"$inotify"
    rm -f "$cache/clusters/inotify"
}

# run_setup COMPONENT…: what of them is not there. hack/setup would say the same, but only after other runs of it
# have ended.
run_setup() {
    local component missing=()
    for component in "$@"; do
        case $component in
            kubernetes:*) kubernetes_is_complete "${component#*:}" || missing+=("$component") ;;
            containerd:*) [ -x "$(containerd_bin "${component#*:}")/containerd" ] || missing+=("$component") ;;
        esac
    done
    [ ${#missing[@]} = 0 ] || "$root/hack/setup" "${missing[@]}" 9>&- || exit 1
}

# What is in a kernel's modules on some machines and built in on others. They stay loaded.
load_modules() {
    local module
    command -v modprobe >/dev/null || return 0
    for module in overlay veth bridge nf_tables nft_compat nf_nat xt_comment xt_mark xt_MASQUERADE xt_statistic xt_addrtype; do
        modprobe --quiet "$module" 2>/dev/null || true
    done
}

command_up() {
    local count=2 versions driver_wanted=cgroupfs version=$kubernetes_version given=
    versions=$(IFS=,; echo "${containerd_default_versions[*]}")
    while [ $# -gt 0 ]; do
        case $1 in
            --nodes) count=${2:?--nodes needs a number} ;;
            --containerd) versions=${2:?--containerd needs a version} ;;
            --cgroup-driver) driver_wanted=${2:?--cgroup-driver needs cgroupfs or systemd} ;;
            --kubernetes) version=${2:?--kubernetes needs a version} ;;
            *) die "unknown argument \"$1\"; see hack/cluster --help" ;;
        esac
        given=yes
        shift 2
    done
    [[ $count =~ ^(0|[1-9][0-9]?)$ ]] || die "--nodes is a number from 0 (a control plane alone) to 99, not \"$count\""
    [[ $versions =~ ^[0-9]+\.[0-9]+\.[0-9]+(,[0-9]+\.[0-9]+\.[0-9]+)*$ ]] ||
        die "--containerd takes versions with commas in between (known: ${containerd_versions[*]}), not \"$versions\""
    case $driver_wanted in cgroupfs | systemd) ;; *) die "--cgroup-driver is cgroupfs or systemd, not \"$driver_wanted\"" ;; esac
    [[ $version =~ ^1\.[0-9]+\.[0-9]+$ ]] ||
        die "--kubernetes takes a version such as ${kubernetes_versions[0]} (known to work: ${kubernetes_versions[*]}), not \"$version\""

    exclusively "cluster-$name"
    check_cgroups
    mkdir -p "$cache/clusters"
    [ "$(stat --file-system --format %T "$cache/clusters")" != overlayfs ] ||
        die "the cache folder $cache is on an overlay, on which no node's disk can be; set WASMLET_CACHE_DIR to a folder on a volume"
    if exists; then
        load_cluster
        if [ -e "$dir/complete" ]; then
            if status >/dev/null 2>&1; then
                say "the cluster \"$name\" is running; nothing to do${given:+ (options only count for a new one)}"
                return
            fi
            say "the cluster \"$name\" is partly dead; repairing it"
            run_setup "kubernetes:$kubernetes"
            start_cluster
            return
        fi
        say "the cluster \"$name\" is half built; removing it first"
        remove_cluster
    fi
    local setup=("kubernetes:$version") list
    IFS=, read -ra list <<<"$versions"
    local each
    for each in "${list[@]}"; do setup+=("containerd:$each"); done
    run_setup "${setup[@]}"
    create_cluster
    start_cluster
}

# Takes a number and writes down what the cluster is to be.
create_cluster() {
    local index number
    exec 8>"$cache/locks/clusters"
    flock 8
    index=$(free_index)
    mkdir -p "$dir"
    printf 'index=%s\nkubernetes=%s\ndriver=%s\n' "$index" "$version" "$driver_wanted" >"$dir/settings.new"
    mv "$dir/settings.new" "$dir/settings"
    exec 8>&-
    load_cluster
    mkdir -p "$dir"/{logs,run,nodes}
    echo "$cache/kubernetes/node/$(node_key)" >"$dir/node-root"
    for ((number = 0; number < count; number++)); do
        add_node "${list[number % ${#list[@]}]}" >/dev/null
    done
}

start_cluster() {
    local begin=$SECONDS
    raise_inotify
    step "starting the cluster \"$name\": Kubernetes $kubernetes, $(nodes | wc -l) nodes" "$dir/logs/up.log" bring_up
    : >"$dir/complete"
    say "all nodes Ready after $((SECONDS - begin)) s; export KUBECONFIG=$dir/kubeconfig"
}

# Starts whatever does not run. In an order in which nobody waits for what could be done meanwhile.
bring_up() {
    local node
    trap last_words EXIT
    load_modules
    make_cgroup "$cgroup/control"
    ensure_network
    [ -e "$dir/pki/done" ] || {
        make_pki
        : >"$dir/pki/done"
    }
    start_etcd
    start_apiserver
    start_registry
    for node in $(nodes); do start_node "$node"; done
    wait_for_api
    start_controllers
    { base_objects && for node in $(nodes); do node_object "$node"; done; } | apply
    start_coredns
    start_metrics
    push "$cache/kubernetes/images/$(images_key)/busybox.tar" busybox:1
    for node in $(nodes); do load_base_images "$node"; done
    for node in $(nodes); do wait_for_node "$node"; done
    within 60 "an answer of CoreDNS" curl --silent --fail "http://$host:8181/ready"
    # Without it the API server refuses every pod; the controller manager makes it.
    within 60 "the service account of the namespace default" kubectl get serviceaccount default
    [ -z "$(dead_daemons)" ] || {
        echo "ended soon after their start: $(dead_daemons | tr '\n' ' ')"
        return 1
    }
}

# Of a start that failed: what has ended, and why. The rest is there for looking at.
last_words() {
    local code=$? daemon
    trap - EXIT ERR
    [ "$code" != 0 ] || return 0
    for daemon in $(dead_daemons); do
        [ -e "$dir/logs/$daemon.log" ] || continue
        echo "== $daemon is not running; the end of $dir/logs/$daemon.log:"
        tail -n 5 "$dir/logs/$daemon.log"
    done
    echo "== what there is can be looked at with \"hack/cluster status\", \"logs\", \"exec\" and \"collect\" (--name $name)"
    exit "$code"
}

bring_node_up() {
    start_node "$1"
    node_object "$1" | apply
    load_base_images "$1"
    wait_for_node "$1"
}

forget_node() {
    shut_node_down "$1"
    kubectl delete node "$1" --ignore-not-found
    ip route delete "$(node_pods "$1")" dev "$link" 2>/dev/null || true
    rm -rf --one-file-system "$dir/nodes/$1"
    rm -f "$dir/pki/node-$1".*
}

command_down() {
    exclusively "cluster-$name"
    if ! [ -e "$dir" ]; then
        say "there is no cluster \"$name\"; nothing to do"
        return
    fi
    if ! exists; then
        # Interrupted before it had a number, so there is nothing but the folder.
        rm -rf --one-file-system "$dir"
        restore_inotify
        return
    fi
    load_cluster
    remove_cluster
    say "the cluster \"$name\" is gone"
}

remove_cluster() {
    step "removing the cluster \"$name\"" "$cache/clusters/$name.down.log" take_down
    rm -f "$cache/clusters/$name.down.log"
}

take_down() {
    local node file pid left
    for file in "$dir"/nodes/*/run; do
        [ -e "$file" ] || continue
        if pid=$(living "$file"); then kill -KILL "$pid" || true; fi
    done
    # Servers before the store that they write to.
    for node in "${control_plane[@]}"; do
        if pid=$(living "$dir/run/$node"); then kill -KILL "$pid" || true; fi
    done
    end_cgroup "$cgroup"
    remove_network
    left=$(leftovers)
    [ -z "$left" ] || {
        printf 'left of the cluster "%s", to be removed by hand before "hack/cluster down" is run again:\n%s\n' "$name" "$left"
        return 1
    }
    rm -rf --one-file-system "$dir"
    restore_inotify
}

# What of a cluster is still on this machine, a line each.
leftovers() {
    local pid
    for pid in $(cgroup_processes "$cgroup"); do
        echo "process $pid: $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null)"
    done
    cgroup_leftovers "$cgroup"
    network_leftovers
    awk -v below="$dir/" 'index($5, below) == 1 { print "mount " $5 }' /proc/self/mountinfo
}
