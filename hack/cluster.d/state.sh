# shellcheck shell=bash
# What is known of a cluster: one folder below $cache/clusters, with a file of settings in it and one for each
# node. Sourced by hack/cluster.
#
#   settings        index, kubernetes, driver
#   complete        there once `up` has succeeded
#   pki, etcd, registry, layers, kubeconfig
#   run/NAME        pid and start time of a process of the control plane
#   logs/NAME.log   what it says
#   nodes/NODE/     settings (number, containerd), disk (what the node has written to its root file system),
#                   containerd and kubelet (their folders below /var/lib), run (pid and start time), console.log

# A cluster's number decides its addresses and the names of its interfaces.
max_index=40

set_cluster() {
    name=$1
    [[ $name =~ ^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$ ]] ||
        die "\"$name\" is no name for a cluster: at most 20 lower-case letters, digits and dashes, a letter first"
    case $cache in *[:,\\\ ]*) die "the cache folder $cache has a character in its path that overlayfs cannot take; set WASMLET_CACHE_DIR" ;; esac
    dir=$cache/clusters/$name
}

# setting FILE KEY
setting() { sed -n "s/^$2=//p" "$1/settings" 2>/dev/null; }

exists() { [ -e "$dir/settings" ]; }

# Loads a cluster that must be there.
# shellcheck disable=SC2034 # used by the other parts
load_cluster() {
    exists || die "there is no cluster \"$name\"; \"hack/cluster up --name $name\" makes one, \"hack/cluster list\" names those there are"
    local index
    index=$(setting "$dir" index)
    kubernetes=$(setting "$dir" kubernetes)
    driver=$(setting "$dir" driver)
    set_addresses "$index"
    programs=$cache/kubernetes/$kubernetes/bin
}

# Everything that follows from the cluster's number.
# shellcheck disable=SC2034 # used by the other parts
set_addresses() {
    link=wlc$1                      # in the machine: the link to the cluster's network; also the network's namespace
    net=10.$((160 + $1))            # the cluster's /16
    host=$net.0.1                   # the machine, and so the control plane and the registry
    loopback=127.$((160 + $1)).0.1  # what only the machine itself may talk to
    services=$net.64.0/20
    service_api=$net.64.1
    service_dns=$net.64.10
    service_metrics=$net.64.11
    pods=$net.128.0/17
    registry=$host:5000
    cgroup=wasmlet-cluster-$name
}

# A number that no cluster has, of this cache folder or another, and to whose addresses no route leads.
free_index() {
    local index taken
    taken=" $(for file in "$cache"/clusters/*/settings; do [ ! -e "$file" ] || sed -n 's/^index=//p' "$file"; done | tr '\n' ' ') "
    for ((index = 0; index < max_index; index++)); do
        case $taken in *" $index "*) continue ;; esac
        if [ -e "/sys/class/net/wlc$index" ] || [ -e "/run/netns/wlc$index" ]; then continue; fi
        if ip -4 route show match "10.$((160 + index)).0.1" | grep -qv '^default'; then continue; fi
        [ -z "$(ip -4 route show root "10.$((160 + index)).0.0/16")" ] || continue
        echo "$index"
        return
    done
    die "no free network: routes or clusters cover 10.160.0.0/16 to 10.$((159 + max_index)).0.0/16; \"hack/cluster list\" names the clusters"
}

# The cluster's nodes, by number.
nodes() {
    local file
    for file in "$dir"/nodes/*/settings; do
        [ -e "$file" ] || continue
        printf '%s %s\n' "$(sed -n 's/^number=//p' "$file")" "$(basename "$(dirname "$file")")"
    done | sort -n | cut -d' ' -f2
}

need_node() {
    [ -n "${1:-}" ] || die "which node? This cluster has: $(nodes | tr '\n' ' ')"
    [ -e "$dir/nodes/$1/settings" ] || die "the cluster \"$name\" has no node \"$1\"; it has: $(nodes | tr '\n' ' ')"
}

# The moment of a process's start, by which a number that was given to another process is told apart.
# Nothing for one that has ended.
started_at() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
    stat=${stat##*) }
    case $stat in [ZX]*) return 0 ;; esac
    echo "$stat" | cut -d' ' -f20
}

# remember_process FILE PID
remember_process() {
    local start
    start=$(started_at "$2")
    [ -n "$start" ] || return 1
    echo "$2 $start" >"$1"
}

# Prints the process's number if it is alive.
living() {
    local pid start
    read -r pid start 2>/dev/null <"$1" || return 1
    [ -n "$start" ] && [ "$(started_at "$pid")" = "$start" ] && echo "$pid"
}

# within SECONDS WHAT COMMAND…: waits until the command succeeds.
within() {
    local seconds=$1 what=$2 deadline=$((SECONDS + $1))
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || {
            echo "not within $seconds s: $what"
            return 1
        }
        sleep 0.1
    done
}
